//! L0: one error for the whole core: what kind, which operation, where, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What sort of failure, as the caller must treat it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The operating system said no; the number is its errno.
    Os(i32),
    /// Bytes on disk contradict their checksum or their format.
    Corrupt,
    /// A format version this build does not know.
    Version,
    /// DATA and STORE do not belong together, or one of them was rolled back.
    Mismatch,
    /// Another process holds the store or the data.
    Busy,
    /// The request makes no sense; the message says what would.
    Invalid,
    /// A first journal error has stopped all writing (fail-stop).
    Stopped,
    /// History cannot say: the bytes of that instant are gone.
    Lost,
}

/// An error with its operation, its place, and a sentence for the operator.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    /// The named operation that failed, such as `journal.group.write`.
    pub op: &'static str,
    /// The file, when there is one.
    pub path: Option<PathBuf>,
    /// Byte offset in the file, when there is one.
    pub offset: Option<u64>,
    /// What is wrong and what to do next.
    pub message: String,
}

/// Result of the core.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a place.
    pub fn new(kind: Kind, op: &'static str, message: impl Into<String>) -> Error {
        Error { kind, op, path: None, offset: None, message: message.into() }
    }

    /// A bare errno, for answers that a system call gives (`ENOENT`, `EEXIST`, ...).
    pub fn errno(op: &'static str, errno: i32) -> Error {
        Error::new(Kind::Os(errno), op, String::new())
    }

    /// An I/O error of the operating system.
    pub fn io(op: &'static str, path: &Path, source: &io::Error) -> Error {
        let errno = source.raw_os_error().unwrap_or(libc::EIO);
        Error::new(Kind::Os(errno), op, source.to_string()).at(path)
    }

    /// Damaged or foreign bytes.
    pub fn corrupt(op: &'static str, message: impl Into<String>) -> Error {
        Error::new(Kind::Corrupt, op, message)
    }

    /// The caller's request is not possible.
    pub fn invalid(op: &'static str, message: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, op, message)
    }

    /// Adds the file.
    #[must_use]
    pub fn at(mut self, path: &Path) -> Error {
        self.path = Some(path.to_path_buf());
        self
    }

    /// Adds the byte offset.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Error {
        self.offset = Some(offset);
        self
    }

    /// The errno a system call should return for this.
    pub fn to_errno(&self) -> i32 {
        match self.kind {
            Kind::Os(errno) => errno,
            Kind::Corrupt | Kind::Version | Kind::Mismatch | Kind::Stopped | Kind::Lost => libc::EIO,
            Kind::Busy => libc::EBUSY,
            Kind::Invalid => libc::EINVAL,
        }
    }

    /// Whether bytes on disk are not what was written. They stay so, whoever tries again.
    pub fn is_damage(&self) -> bool {
        matches!(self.kind, Kind::Corrupt | Kind::Version | Kind::Mismatch)
    }

    /// Whether one place cannot be read or written: damage, or an error of the medium, which may pass. What does not need
    /// that place can go on.
    pub fn is_of_place(&self) -> bool {
        self.is_damage() || self.is(libc::EIO)
    }

    /// Whether this is the given errno.
    pub fn is(&self, errno: i32) -> bool {
        self.kind == Kind::Os(errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        if let Some(path) = &self.path {
            write!(f, " {}", path.display())?;
        }
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        match (&self.kind, self.message.is_empty()) {
            (Kind::Os(errno), true) => write!(f, ": {}", io::Error::from_raw_os_error(*errno)),
            (_, false) => write!(f, ": {}", self.message),
            (kind, true) => write!(f, ": {kind:?}"),
        }
    }
}

impl std::error::Error for Error {}
