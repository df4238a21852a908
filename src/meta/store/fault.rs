//! What redb says, as an error of ours; and what the store does after it.

use crate::error::{Error, Kind};
use std::any::Any;
use std::path::Path;

/// What an error means for the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// The caller's affair: the store goes on.
    GoOn,
    /// There was no space: opened again when it is next used.
    Reopen,
    /// Nothing more is done until the next mount.
    Stop,
}

/// An error, with what to do after it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    pub(super) after: After,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault { error, after: After::GoOn }
    }
}

impl Fault {
    /// The file says what it must not.
    pub(super) fn is_damage(&self) -> bool {
        self.error.kind == Kind::Corrupt
    }

    pub(super) fn at(mut self, path: &Path) -> Fault {
        if self.error.path.is_none() {
            self.error = self.error.at(path);
        }
        self
    }
}

/// What redb says. An I/O error without a number comes from what the file holds: no database, or one that was cut.
pub(super) fn fault(op: &'static str, error: impl Into<redb::Error>) -> Fault {
    let error = error.into();
    let (kind, after) = match &error {
        redb::Error::Io(io) => match io.raw_os_error() {
            Some(errno @ (libc::ENOSPC | libc::EDQUOT)) => (Kind::Os(errno), After::Reopen),
            Some(errno) => (Kind::Os(errno), After::Stop),
            None => (Kind::Corrupt, After::Stop),
        },
        redb::Error::Corrupted(_) => (Kind::Corrupt, After::Stop),
        redb::Error::UpgradeRequired(_) => (Kind::Version, After::Stop),
        redb::Error::ValueTooLarge(_) | redb::Error::TableAlreadyOpen(..) => (Kind::Invalid, After::GoOn),
        redb::Error::PreviousIo | redb::Error::TransactionPoisoned => (Kind::Stopped, After::Stop),
        _ => (Kind::Invalid, After::Stop),
    };
    Fault { error: Error::new(kind, op, error.to_string()), after }
}

/// A panic of the database: the file changed under it (what was damaged before is found when it is opened).
pub(super) fn panicked(op: &'static str, panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let told = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
    Fault { error: Error::corrupt(op, format!("the database gave up: {told}")), after: After::Stop }
}
