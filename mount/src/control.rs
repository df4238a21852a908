//! STORE/control.sock: one line of JSON asks, one line answers (`{"ok": ...}` or `{"error": "..."}`), then the
//! connection ends. Only the owner of STORE and root can reach it.

use crate::Outcome;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The socket's name in STORE.
pub const SOCKET: &str = "control.sock";
/// Longest request: the pages of a child that are scattered over hundreds of GiB fit.
const LINE_MAX: u64 = 64 << 20;
/// Longest answer: a hundred thousand differences fit.
const ANSWER_MAX: u64 = 256 << 20;

/// What can be asked of a running daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    Status,
    Resolve {
        time: String,
    },
    /// The newest forecasts, of all partitions.
    Forecast,
    /// Why a partition is treated as it is.
    ForecastWhy {
        partition: String,
    },
    /// How good the forecasts were.
    ForecastScores,
    /// Weave all that can be, and answer when it is done.
    WeaveNow,
    /// Prune what the retention does not keep; or say what would go.
    Prune {
        dry_run: bool,
    },
    /// How long history is kept.
    Retention,
    /// From now on; what is left out stays.
    SetRetention {
        tiers: Option<String>,
        cap: Option<String>,
        minimum: Option<String>,
    },
    /// Names the instant of a time.
    Tag {
        name: String,
        time: String,
    },
    Untag {
        name: String,
    },
    Tags,
    /// The leases that run.
    Leases,
    EndLease {
        id: u64,
    },
    Log(AskLog),
    /// What differs at or below a path between two times.
    Diff {
        /// The root that the path is in; DATA without a name.
        #[serde(default)]
        root: String,
        from: String,
        to: String,
        names: Vec<Vec<u8>>,
    },
    /// Every partition with its figures.
    Partitions,
    /// A partition splits, or will.
    SplitDeclare(AskSplit),
    /// The splits, with what is known of their children.
    Splits,
    /// Which files a child of a split has.
    SplitConfirm {
        split: u64,
        child: usize,
        partition: String,
        /// The catalogue says so; otherwise the one who asks.
        catalogue: bool,
    },
    /// A child of a split, or all, did not come out of its parent.
    SplitForget {
        split: u64,
        child: Option<usize>,
    },
    /// The files of a partition at an instant.
    PartitionAt {
        /// Its name, or any file of it.
        partition: String,
        time: String,
    },
    /// The files that the kernel may hold something of, if the time is the present.
    Unsent {
        time: String,
    },
    /// Load the model in use anew: another was chosen.
    ModelReload,
    Shadows,
    /// Makes a shadow of a partition at once: of a time, or of the present and kept up to date.
    ShadowAdd {
        /// The root that the path is in; DATA without a name.
        #[serde(default)]
        root: String,
        names: Vec<Vec<u8>>,
        time: Option<String>,
    },
    /// Removes the shadows of a partition, or the one of a number.
    ShadowRemove {
        #[serde(default)]
        root: String,
        what: String,
    },
    /// Makes shadows again after too many failures.
    ShadowResume,
    Unmount,
}

/// One child of a partition that splits.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AskSplit {
    /// The partition, by its name or any file of it.
    pub partition: String,
    /// The child, as the database will call it, or as its files will be called.
    pub child: Option<String>,
    /// The pages of the parent that hold its rows: bytes of a roaring bitmap, in hexadecimal.
    pub pages: Option<String>,
    /// The last event before they were looked for; now without one.
    #[serde(default)]
    pub since: Option<u64>,
    pub rows: Option<u64>,
    pub predicate: Option<String>,
}

/// The history of one file, in parts: a part says where the next begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AskLog {
    /// The root that the path is in; DATA without a name.
    #[serde(default)]
    pub root: String,
    /// The path from the root, name by name; the first may be that of a view.
    pub names: Vec<Vec<u8>>,
    /// The file, once an earlier part has told it.
    pub file: Option<u64>,
    /// Events at or before this Seq.
    pub upto: Option<u64>,
    pub since: Option<String>,
    pub until: Option<String>,
    /// Lines wanted.
    pub limit: usize,
    pub all: bool,
}

/// A path to the socket that is short enough for a socket address (108 bytes, unix(7)), however long STORE's is. Good
/// while the descriptor lives.
fn short_path(store: &Path) -> std::io::Result<(OwnedFd, PathBuf)> {
    let dir = open(store, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
    Ok((dir, path))
}

fn connect(store: &Path) -> std::io::Result<UnixStream> {
    let (_dir, path) = short_path(store)?;
    UnixStream::connect(path)
}

/// Whether a daemon listens in this STORE.
pub fn is_served(store: &Path) -> bool {
    connect(store).is_ok()
}

/// Asks the daemon of a STORE.
///
/// # Errors
/// The daemon's own line, or one saying that there is none.
pub fn ask(store: &Path, ask: &Ask) -> Outcome<Value> {
    let stream = connect(store).map_err(|cause| match cause.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            format!("not allowed to talk to the daemon of {}: be its owner or root", store.display())
        }
        Some(libc::ENOENT | libc::ECONNREFUSED) => {
            format!("no daemon serves {}: it is not mounted (`weft mount DATA`)", store.display())
        }
        _ => format!("cannot ask whether a daemon serves {}: {cause}", store.display()),
    })?;
    let failed = |cause: std::io::Error| format!("the daemon of {} broke off: {cause}", store.display());
    let mut reader = BufReader::new(stream);
    let line = serde_json::to_string(ask).map_err(|cause| cause.to_string())?;
    writeln!(reader.get_mut(), "{line}").map_err(failed)?;
    let mut answer = String::new();
    reader.by_ref().take(ANSWER_MAX).read_line(&mut answer).map_err(failed)?;
    if *ask == Ask::Unmount {
        // The end of the connection is the end of the process, and so of its locks.
        let _ = reader.read_to_string(&mut String::new());
    }
    let answer: Value = serde_json::from_str(&answer).map_err(|_| {
        format!("the daemon of {} ended without an answer: see its weft.log", store.display())
    })?;
    match (answer.get("ok"), answer.get("error").and_then(Value::as_str)) {
        (Some(value), _) => Ok(value.clone()),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err("the daemon's answer makes no sense: is `weft` of the same version?".into()),
    }
}

/// Answers one request; the stream is handed over so that an answer can come late.
pub type Handler = dyn Fn(Ask, Answer) + Send + Sync;

/// The way back to the one who asked.
pub struct Answer(UnixStream);

impl Answer {
    /// Who asks, in words.
    pub fn asker(&self) -> String {
        let known = getsockopt(&self.0, PeerCredentials);
        known.map_or_else(|_| "somebody".into(), |who| format!("uid {}, pid {}", who.uid(), who.pid()))
    }

    /// Sends the answer; one who no longer listens does not need it. Gives the connection back, to be kept open.
    pub fn send(mut self, outcome: Outcome<Value>) -> UnixStream {
        let line = match outcome {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error }),
        };
        let _ = writeln!(self.0, "{line}");
        self.0
    }
}

/// Listens in STORE. A socket left by a dead daemon is replaced: the STORE's lock is ours.
///
/// # Errors
/// One line with the path.
pub fn listen(store: &Path, handler: Arc<Handler>) -> Outcome<()> {
    let socket = store.join(SOCKET);
    let failed = |cause: std::io::Error| format!("cannot listen on {}: {cause}", socket.display());
    let (dir, path) = short_path(store).map_err(failed)?;
    match std::fs::remove_file(&socket) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(failed(cause)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    drop(dir);
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o600)).map_err(failed)?;
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let handler = Arc::clone(&handler);
            let serve = move || serve(stream, &*handler);
            if let Err(cause) = thread::Builder::new().name("control".into()).spawn(serve) {
                tracing::warn!("cannot answer on the control socket: {cause}");
            }
        }
    };
    thread::Builder::new().name("control-accept".into()).spawn(accept).map_err(failed)?;
    Ok(())
}

fn serve(stream: UnixStream, handler: &Handler) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(10)));
    let mut line = String::new();
    let mut reader = BufReader::new(stream).take(LINE_MAX);
    if reader.read_line(&mut line).is_err() || line.is_empty() {
        return;
    }
    let answer = Answer(reader.into_inner().into_inner());
    match serde_json::from_str(&line) {
        Ok(ask) => handler(ask, answer),
        Err(cause) => drop(answer.send(Err(format!("not understood: {cause}")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_whatever_the_length_of_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("s".repeat(200));
        std::fs::create_dir(&store).unwrap();
        assert!(!is_served(&store));
        assert!(ask(&store, &Ask::Status).unwrap_err().contains("not mounted"));
        let other = ask(Path::new("/dev/null"), &Ask::Status).unwrap_err();
        assert!(other.contains("cannot ask") && other.contains("Not a directory"), "{other}");
        let handler = |ask: Ask, answer: Answer| {
            answer.send(match ask {
                Ask::Status => Ok(json!({ "seq": 7 })),
                Ask::Resolve { time } => Err(format!("no {time}")),
                _ => Ok(Value::Null),
            });
        };
        listen(&store, Arc::new(handler)).unwrap();
        assert!(is_served(&store));
        assert_eq!(ask(&store, &Ask::Status).unwrap()["seq"], 7);
        assert_eq!(ask(&store, &Ask::Resolve { time: "x".into() }).unwrap_err(), "no x");
        assert_eq!(ask(&store, &Ask::Unmount).unwrap(), Value::Null);
        let mode = std::fs::metadata(store.join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nonsense_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        listen(dir.path(), Arc::new(|_, answer: Answer| drop(answer.send(Ok(Value::Null))))).unwrap();
        let mut stream = connect(dir.path()).unwrap();
        stream.write_all(b"hello\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("not understood"), "{text}");
    }
}
