//! The process around the daemon: background, limits, log.

use crate::Outcome;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// include/uapi/linux/prctl.h; the libc crate does not have it yet.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// The daemon's log in STORE.
pub const LOG: &str = "weft.log";

/// What a daemon says when its mount is ready.
const READY: &str = "ready";

/// How the one who started the daemon learns what became of it.
pub enum Report {
    /// In the foreground: through the log. The process at the other end waits for the mount.
    Foreground(std::io::PipeWriter),
    /// Through a pipe to the waiting parent.
    Parent(std::io::PipeWriter),
}

impl Report {
    /// Says that the mount is ready, or in one line why it is not.
    pub fn send(self, outcome: &Outcome<()>) {
        match (self, outcome) {
            (Report::Parent(mut pipe), outcome) => {
                let line = outcome.as_ref().err().map_or(READY, String::as_str);
                // A parent that no longer listens does not need to know.
                let _ = pipe.write_all(line.as_bytes());
            }
            (Report::Foreground(mut pipe), Ok(())) => {
                tracing::info!("{READY}");
                // Whoever waits there has a help for others, and no more.
                let _ = pipe.write_all(READY.as_bytes());
            }
            (Report::Foreground(_), Err(_)) => {}
        }
    }
}

/// Which side of the fork this is.
pub enum Side {
    /// The outcome that the daemon reported.
    Parent(Outcome<()>),
    Daemon(Report),
}

/// Forks; the parent waits for the daemon's report. Must be called before any thread starts.
pub fn background() -> Outcome<Side> {
    let failed = |cause: std::io::Error| format!("cannot start in the background: {cause}");
    let (mut reader, writer) = std::io::pipe().map_err(failed)?;
    // SAFETY: no other thread exists yet, so the child may go on like any process.
    match unsafe { fork() }.map_err(|errno| failed(errno.into()))? {
        ForkResult::Child => {
            drop(reader);
            setsid().map_err(|errno| failed(errno.into()))?;
            Ok(Side::Daemon(Report::Parent(writer)))
        }
        ForkResult::Parent { .. } => {
            drop(writer);
            let mut line = String::new();
            reader.read_to_string(&mut line).map_err(failed)?;
            Ok(Side::Parent(match line.as_str() {
                READY => Ok(()),
                "" => Err(format!("the daemon ended without a word: see {LOG} in the STORE")),
                reason => Err(reason.into()),
            }))
        }
    }
}

/// Stays in the foreground; another process does `what` when the mount is ready, and ends. Must be called before any thread
/// starts.
pub fn foreground(what: impl FnOnce()) -> Outcome<Report> {
    let failed = |cause: std::io::Error| format!("cannot start: {cause}");
    let (mut reader, writer) = std::io::pipe().map_err(failed)?;
    // SAFETY: no other thread exists yet, so the child may go on like any process.
    match unsafe { fork() }.map_err(|errno| failed(errno.into()))? {
        ForkResult::Child => {
            drop(writer);
            // Twice, for nobody has the time to wait for its end.
            // SAFETY: as above.
            if matches!(unsafe { fork() }, Ok(ForkResult::Child)) {
                let mut line = String::new();
                if reader.read_to_string(&mut line).is_ok() && line == READY {
                    what();
                }
            }
            std::process::exit(0)
        }
        ForkResult::Parent { child } => {
            let _ = waitpid(child, None);
            Ok(Report::Foreground(writer))
        }
    }
}

/// Sends the log to STORE/weft.log, and standard error with it (a panic's last words).
pub fn log_to_store(store: &Path) -> Outcome<()> {
    let path = store.join(LOG);
    let failed = |cause: std::io::Error| format!("cannot write {}: {cause}", path.display());
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&log))
        .map_err(|errno| failed(errno.into()))?;
    log_to(log);
    Ok(())
}

/// Sends the log to standard error.
pub fn log_to_stderr() {
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(colours)
        .with_writer(|| Lossy(std::io::stderr()))
        .init();
    log_panics();
}

/// A log on a disk that is full or broken loses lines, and that is all: an error of its own would be printed to the same
/// disk, by a macro that panics when it cannot.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log_to(file: File) {
    let file = Arc::new(file);
    let writer = move || Lossy(Arc::clone(&file));
    tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false).with_writer(writer).init();
    log_panics();
}

/// fuser calls it an error when its answer to an INTERRUPT comes after the interrupted request has ended: daily business.
fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_env("WEFT_LOG")
        .unwrap_or_else(|_| "warn,weft=info,weft_mount=info,fuser::reply=off".into())
}

fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("a thread of the daemon panicked, which is a bug: {panic}")
    }));
}

/// Buffers from this size on go back to the system when they are freed, and what is free at an end of the heap from that
/// size on. Left to itself the C library takes the largest buffer that was ever freed for a daily one, and keeps 100 MiB
/// more than is in use (docs/decisions/0062).
#[cfg(target_env = "gnu")]
fn give_back() {
    const BUFFER: libc::c_int = 256 << 10;
    const END: libc::c_int = 1 << 20;
    // SAFETY: plain numbers, and the allocator is thread-safe.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, BUFFER);
        libc::mallopt(libc::M_TRIM_THRESHOLD, END);
    }
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}

/// Many files, no death by memory pressure, and no waiting for write-back of what this very process writes. Each is
/// a help, not a need: what is not allowed is left.
pub fn harden() {
    give_back();
    let root = nix::unistd::geteuid().is_root();
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let most =
            std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
        let wanted = if root { most.unwrap_or(hard).min(1 << 20).max(hard) } else { hard };
        if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }
    if root {
        let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
        // SAFETY: prctl with plain numbers touches no memory. Threads made later inherit it.
        let _ = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    }
}

/// Keeps the signals that end the daemon from doing so in any thread; `wait` takes them. Before any thread starts.
pub fn hold_signals() -> Outcome<SigSet> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|errno| format!("cannot hold signals: {}", errno.desc()))?;
    Ok(signals)
}
