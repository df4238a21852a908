//! The barrier before a present instant (writeback capture): what programs have written, and the kernel still holds, is
//! fsynced, from the process that asks for the instant. The daemon must not do it: it would wait for itself.
//!
//! - The daemon names the files that are open for writing, by number and path. A path may have been renamed before it is
//!   opened: the number tells, and the daemon is asked again.
//! - fsync of a descriptor opened for reading flushes all pages of the file, whoever made them dirty.
//! - A child does it, so that whoever asks does not hang with it: a process cannot leave an fsync.

use crate::Outcome;
use crate::control::{self, Ask};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a command waits for its barrier.
pub const LIMIT: Duration = Duration::from_secs(60);
/// A file that moves faster than it can be opened is given up after so many tries.
const TRIES: usize = 8;

/// A file that may have pages in the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unsent {
    /// Where its root is mounted.
    pub point: PathBuf,
    /// `st_ino` in that mount.
    pub ino: u64,
    /// Below the mount, byte by byte: names need not be UTF-8.
    pub path: Vec<u8>,
}

impl Unsent {
    fn at(&self) -> PathBuf {
        self.point.join(OsStr::from_bytes(&self.path))
    }
}

/// What the daemon says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Listed {
    pub files: Vec<Unsent>,
    /// Why nothing can be flushed any more, after a fail-stop.
    pub stopped: Option<String>,
}

/// How one file went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Went {
    Sent,
    /// Not at its path any more.
    Moved,
    Failed(Errno),
}

/// Fsyncs all that is open for writing when `time` is the present, so that the instant asked for next has it. A line for
/// the user when that is not possible any more (fail-stop): what is shown then is what is durable.
///
/// # Errors
/// One line with the files that could not be flushed, and what to do; also when it takes longer than `limit`.
pub fn flush(store: &Path, time: &str, limit: Duration) -> Outcome<Option<String>> {
    let until = Instant::now() + limit;
    let Listed { files: mut left, stopped } = ask(store, time)?;
    for _ in 0..TRIES {
        if left.is_empty() {
            return Ok(stopped);
        }
        let went = in_child(&left, until)?;
        let failed: Vec<String> = left
            .iter()
            .zip(&went)
            .filter_map(|(file, went)| match went {
                Some(Went::Failed(errno)) => Some(format!("{} ({})", file.at().display(), errno.desc())),
                None => Some(format!("{} (not done after {} s)", file.at().display(), limit.as_secs())),
                Some(Went::Sent | Went::Moved) => None,
            })
            .collect();
        if !failed.is_empty() {
            return Err(refused(&failed));
        }
        let moved: Vec<Unsent> = left
            .into_iter()
            .zip(went)
            .filter_map(|(file, went)| (went == Some(Went::Moved)).then_some(file))
            .collect();
        if moved.is_empty() {
            return Ok(None);
        }
        // Those that are not listed any more have been closed, and so sent; or have no name, and are in no view.
        let same = |file: &Unsent| moved.iter().any(|old| (old.ino, &old.point) == (file.ino, &file.point));
        left = ask(store, time)?.files.into_iter().filter(same).collect();
    }
    let names: Vec<String> =
        left.iter().map(|file| format!("{} (renamed again and again)", file.at().display())).collect();
    Err(refused(&names))
}

fn refused(failed: &[String]) -> String {
    let shown = failed.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = failed.len().saturating_sub(3);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "what the kernel holds of these files could not be flushed: {shown}{more}. Run this as root, or take the instant \
         without it with --no-flush"
    )
}

fn ask(store: &Path, time: &str) -> Outcome<Listed> {
    let answer = control::ask(store, &Ask::Unsent { time: time.into() })?;
    serde_json::from_value(answer)
        .map_err(|_| "the daemon's answer makes no sense: is `weft` of the same version?".to_string())
}

/// Runs [`send`] for each file in a child; `None` for what was not done in time.
fn in_child(files: &[Unsent], until: Instant) -> Outcome<Vec<Option<Went>>> {
    let failed = |cause: std::io::Error| format!("cannot start a process to flush files: {cause}");
    let (mut reader, mut writer) = std::io::pipe().map_err(failed)?;
    // SAFETY: the commands that ask for an instant have no other thread; the child ends without returning.
    match unsafe { fork() }.map_err(|errno| failed(errno.into()))? {
        ForkResult::Child => {
            drop(reader);
            for file in files {
                let code = match send(file) {
                    Went::Sent => 0,
                    Went::Moved => -1,
                    Went::Failed(errno) => errno as i32,
                };
                if writer.write_all(&code.to_ne_bytes()).is_err() {
                    break;
                }
            }
            // SAFETY: ends this child at once; nothing of the parent's may run in it.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let went = receive(&mut reader, files.len(), until);
            // One that is still at it cannot be waited for; it goes when the kernel lets it.
            let _ = kill(child, Signal::SIGKILL);
            let all = went.iter().all(Option::is_some);
            let _ = nix::sys::wait::waitpid(
                Pid::from_raw(child.as_raw()),
                (!all).then_some(nix::sys::wait::WaitPidFlag::WNOHANG),
            );
            Ok(went)
        }
    }
}

fn receive(reader: &mut std::io::PipeReader, count: usize, until: Instant) -> Vec<Option<Went>> {
    let mut went = Vec::with_capacity(count);
    while went.len() < count {
        let left = until.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, left) {
            Err(Errno::EINTR) => continue,
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let mut code = [0; 4];
        if reader.read_exact(&mut code).is_err() {
            break;
        }
        went.push(Some(match i32::from_ne_bytes(code) {
            0 => Went::Sent,
            -1 => Went::Moved,
            errno => Went::Failed(Errno::from_raw(errno)),
        }));
    }
    went.resize(count, None);
    went
}

/// Fsyncs one file, if it is what stands at its path.
fn send(file: &Unsent) -> Went {
    match open(file) {
        Ok(Some(open)) => match open.sync_all() {
            Ok(()) => Went::Sent,
            Err(cause) => Went::Failed(errno(&cause)),
        },
        Ok(None) => Went::Moved,
        Err(cause) => Went::Failed(errno(&cause)),
    }
}

fn errno(cause: &std::io::Error) -> Errno {
    Errno::from_raw(cause.raw_os_error().unwrap_or(libc::EIO))
}

/// Opens a file in whatever way its mode allows; `None` when it is not at its path any more.
fn open(file: &Unsent) -> std::io::Result<Option<File>> {
    let path = file.at();
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let mut how = OpenOptions::new();
    let opened = match how.read(true).custom_flags(flags).open(&path) {
        Err(cause) if cause.raw_os_error() == Some(libc::EACCES) => {
            OpenOptions::new().write(true).custom_flags(flags).open(&path)
        }
        other => other,
    };
    match opened {
        Ok(open) => {
            let (found, mount) = (open.metadata()?, std::fs::metadata(&file.point)?);
            let same = found.ino() == file.ino && found.dev() == mount.dev();
            Ok(same.then_some(open))
        }
        Err(cause) => match cause.raw_os_error() {
            // A name that is gone, or now stands for something that cannot be opened so.
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EISDIR | libc::ENXIO) => Ok(None),
            _ => Err(cause),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsent(dir: &Path, name: &str, ino: u64) -> Unsent {
        Unsent { point: dir.to_path_buf(), ino, path: name.into() }
    }

    #[test]
    fn a_file_counts_only_if_it_is_the_one_meant() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let ino = std::fs::metadata(dir.path().join("f")).unwrap().ino();
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        let files = [
            unsent(dir.path(), "f", ino),
            unsent(dir.path(), "f", ino + 1),
            unsent(dir.path(), "gone", ino),
            unsent(dir.path(), "l", ino),
        ];
        let went = in_child(&files, Instant::now() + Duration::from_secs(60)).unwrap();
        assert_eq!(went, [Some(Went::Sent), Some(Went::Moved), Some(Went::Moved), Some(Went::Moved)]);
    }

    #[test]
    fn what_is_not_done_in_time_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let files = [unsent(dir.path(), "gone", 1)];
        assert_eq!(in_child(&files, Instant::now()).unwrap(), [None]);
        let said = refused(&["a (x)".into(), "b".into(), "c".into(), "d".into()]);
        assert!(said.contains("a (x), b, c and 1 more") && said.contains("--no-flush"), "{said}");
    }
}
