//! The daemon's end of an inference process: started, asked within a time limit, killed when it does not answer.

use super::signature::{Signature, Wanted};
use super::wire::{self, Kind};
use crate::Outcome;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How an inference process is begun.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
}

impl Launch {
    /// This very program, also when its file has been replaced meanwhile.
    pub fn of_weft() -> Launch {
        Launch { program: "/proc/self/exe".into(), args: vec!["inference-worker".into()] }
    }
}

/// A running inference process with a model that fits.
pub struct Worker {
    child: Child,
    stream: UnixStream,
    pub signature: Signature,
    features: usize,
    wide: usize,
}

/// Loading the library and a model took 15 to 75 ms where it was measured.
const START: Duration = Duration::from_secs(20);

impl Worker {
    /// Starts a process, has it load library and model, and checks the model's signature.
    ///
    /// # Errors
    /// One line with the reason; the process is gone then.
    pub fn start(launch: &Launch, library: &Path, model: &[u8], wanted: &Wanted) -> Outcome<Worker> {
        let failed = |cause: std::io::Error| format!("cannot start the inference process: {cause}");
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let child = Command::new(&launch.program)
            .arg0("weft")
            .args(&launch.args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let signature = Signature { inputs: Vec::new(), outputs: Vec::new(), custom: Default::default() };
        let wide = wanted.outputs.iter().map(|(_, width)| width).sum();
        let mut worker = Worker { child, stream: ours, signature, features: wanted.features, wide };
        worker.ask(Kind::Library, library.as_os_str().as_bytes(), START)?;
        let told = worker.ask(Kind::Model, model, START)?;
        worker.signature = serde_json::from_slice(&told)
            .map_err(|cause| format!("the inference process told nonsense: {cause}"))?;
        worker.signature.check(wanted)?;
        Ok(worker)
    }

    /// The outputs for rows of features, row by row, each as wide as all outputs of the signature together.
    ///
    /// # Errors
    /// One line with the reason. After one, drop the worker: it may be gone, or busy with what was asked last.
    pub fn run(&mut self, features: &[f32], limit: Duration) -> Outcome<Vec<f32>> {
        if features.is_empty() {
            return Ok(Vec::new());
        }
        if !features.len().is_multiple_of(self.features) {
            return Err(format!("{} numbers are not rows of {} features", features.len(), self.features));
        }
        let rows = features.len() / self.features;
        let told = self.ask(Kind::Rows, &wire::numbers(self.features, features), limit)?;
        match wire::parse_numbers(&told) {
            Some((wide, outputs)) if wide == self.wide && outputs.len() == rows * wide => Ok(outputs),
            _ => Err("the model's answer has not the shape that it announced".into()),
        }
    }

    /// Bytes of memory that the process holds; `None` when it is gone.
    pub fn resident_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }

    fn ask(&mut self, kind: Kind, payload: &[u8], limit: Duration) -> Outcome<Vec<u8>> {
        let mut line = Timed { stream: &self.stream, until: Instant::now() + limit };
        let answer = wire::send(&mut line, kind, payload).and_then(|()| wire::receive(&mut line));
        match answer {
            Ok((Kind::Done, payload)) => Ok(payload),
            Ok((Kind::Failed, text)) => Err(String::from_utf8_lossy(&text).into_owned()),
            Ok(_) => Err("the inference process told nonsense".into()),
            Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let _ = self.child.kill();
                Err(format!("the model did not answer within {:.1} s: stopped", limit.as_secs_f64()))
            }
            Err(cause) if cause.kind() == ErrorKind::InvalidData => {
                let _ = self.child.kill();
                Err(format!("the inference process told nonsense: {cause}"))
            }
            Err(_) => Err(self.last_words()),
        }
    }

    /// How the process ended: it has hung up, and is given a moment to be gone.
    fn last_words(&mut self) -> String {
        for _ in 0..100 {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => break,
            }
        }
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("the inference process crashed (signal {signal})"),
                (None, code) => format!("the inference process ended (exit code {})", code.unwrap_or(-1)),
            },
            Err(cause) => format!("the inference process is gone: {cause}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream whose reads and writes all end by one moment.
struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Timed<'_> {
    fn left(&self) -> std::io::Result<Option<Duration>> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        (&mut &*self.stream).read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        (&mut &*self.stream).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
