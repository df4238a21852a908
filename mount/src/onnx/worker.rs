//! The inference process: `weft inference-worker`, started by the daemon, never by people. It runs foreign code (the
//! library) on foreign data (a model), so it can crash, hang or grow; none of that reaches the mount.
//!
//! Descriptor 0 is a socket to the daemon. The end of that connection is the end of the process.

use super::graph::{Graph, Runtime};
use super::wire::{self, Kind};
use crate::Outcome;
use nix::sys::resource::{Resource, setrlimit};
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Memory that the process may map. The library takes 60 MiB of it, a shipped model less than one more.
const ADDRESS_SPACE: u64 = 2 << 30;
/// Seconds after which a run is killed even if the daemon is no longer there to do it.
const RUN_SECS: u32 = 60;
/// include/uapi/linux/prctl.h.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Serves until the daemon hangs up.
///
/// # Errors
/// One line when descriptor 0 is not a daemon.
pub fn serve() -> Outcome<()> {
    stand_apart();
    // SAFETY: descriptor 0 is open (it was inherited) and nothing else in this process uses it.
    let mut stream = unsafe { UnixStream::from_raw_fd(0) };
    let mut state = State::default();
    loop {
        let (kind, payload) = match wire::receive(&mut stream) {
            Ok(frame) => frame,
            Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(cause) => return Err(format!("this command is for the daemon, not for people: {cause}")),
        };
        // SAFETY: alarm has no memory effects; its signal ends the process.
        unsafe { libc::alarm(RUN_SECS) };
        let answer = state.answer(kind, payload);
        // SAFETY: as above.
        unsafe { libc::alarm(0) };
        reply(&mut stream, &answer).map_err(|cause| cause.to_string())?;
    }
}

fn reply(stream: &mut (impl Read + Write), answer: &Outcome<Vec<u8>>) -> std::io::Result<()> {
    match answer {
        Ok(payload) => wire::send(stream, Kind::Done, payload),
        Err(cause) => wire::send(stream, Kind::Failed, cause.as_bytes()),
    }
}

#[derive(Default)]
struct State {
    runtime: Option<Runtime>,
    graph: Option<Graph>,
}

impl State {
    fn answer(&mut self, kind: Kind, payload: Vec<u8>) -> Outcome<Vec<u8>> {
        match kind {
            Kind::Library => {
                let path = PathBuf::from(std::ffi::OsString::from_vec(payload));
                self.runtime = Some(Runtime::load(&path)?);
                Ok(Vec::new())
            }
            Kind::Model => {
                let runtime = self.runtime.as_ref().ok_or("no library yet")?;
                let graph = runtime.model(&payload)?;
                let told = serde_json::to_vec(graph.signature()).map_err(|cause| cause.to_string());
                self.graph = Some(graph);
                told
            }
            Kind::Rows => {
                let graph = self.graph.as_mut().ok_or("no model yet")?;
                let (width, features) = wire::parse_numbers(&payload).ok_or("not whole rows")?;
                let (wide, outputs) = graph.run(width, &features)?;
                Ok(wire::numbers(wide, &outputs))
            }
            Kind::Done | Kind::Failed => Err("a worker is asked, not answered".into()),
        }
    }
}

/// Lets go of what the daemon is and has: its descriptors (an open /dev/fuse would keep a dead mount half alive), its
/// protection from the OOM killer, its rank. Each is a help, not a need.
fn stand_apart() {
    // SAFETY: nothing in this young process uses a descriptor above 2.
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    // SAFETY: plain numbers.
    let _ = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0) };
    // SAFETY: plain numbers.
    let _ = unsafe { libc::nice(10) };
    let _ = std::fs::write("/proc/self/oom_score_adj", "900");
    let _ = setrlimit(Resource::RLIMIT_AS, ADDRESS_SPACE, ADDRESS_SPACE);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let none = nix::sys::signal::SigSet::empty();
    let _ = none.thread_set_mask();
}
