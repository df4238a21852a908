//! The metadata store: what Weft knows beside history. One file, `STORE/meta.redb`: tables with transactions, on the
//! Disk like everything else, so that a test can cut its power.
//!
//! - **Nothing in it is needed for history.** Every caller goes on without it: an error from here costs shadows,
//!   forecasts, scores, never an answer about the past, and never the mount.
//! - A transaction is durable when [`Store::write`] returns, as a whole; a crash leaves all of it or nothing.
//! - Each opening checks every page against its checksum. A damaged file is moved aside (`meta.redb.damaged`), a new
//!   one is made, and what was lost is named in the log, in the status and in the new file ([`Store::losses`]).
//! - A file of a newer build or another store is refused and not touched.
//! - After the first I/O error it stops until the next mount; after a full disk it is opened again with the next use.
//!
//! **To add a table:** a line in [`TABLES`], and in a file of your own
//! ```ignore
//! const SHADOWS: Table<(String, Seq), ShadowRow> = Table::new("shadows", 1);  // keys order rows; rows are serde
//! store.write(|tx| tx.put(&SHADOWS, &key, &row))?;
//! let of_one: Vec<((String, Seq), ShadowRow)> = store.read(|tx| tx.beginning(&SHADOWS, &partition))?;
//! ```
//! Keys: integers, `String`, `Vec<u8>`, `Seq`, `FileId`, `Timestamp`, tuples of up to three ([`Key`]). A field that
//! you add later has `#[serde(default)]`. A row that can no longer be read at all: raise the table's version, and say
//! in `docs/FORMAT.md` what became of the old one. Bulky things (bytes of pages, bitmaps of millions) belong in files
//! of their own: each opening reads all of this one. Do not write within a `write`: it would wait for itself.

mod backend;
mod fault;
mod key;
mod open;
mod table;
#[cfg(test)]
mod tests;
mod tx;

pub use key::Key;
pub use open::{Lost, peek};
pub use table::{Loss, TABLES, Table};
pub use tx::{Reading, Rows, Writing};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::sync::{Arc, RwLock};
use crate::types::StoreId;
use fault::{After, Fault, fault, panicked};
use redb::{Database, ReadableDatabase};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// How long a loss is told of.
const TOLD_FOR_US: i64 = 7 * 86_400_000_000;

/// See the head of this file.
pub struct Store {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    path: PathBuf,
    store: StoreId,
    state: RwLock<State>,
}

enum State {
    /// Opened with the first use.
    Closed,
    Open(Arc<Database>),
    /// There was no space. Opened again with the next use, when nobody holds this any more.
    Spent(Arc<Database>),
    Stopped(Error),
}

impl Store {
    /// The store of a STORE directory. Looks at the header of its file only; the rest is opened with the first use.
    ///
    /// # Errors
    /// `Version`, `Mismatch`: the file is of a newer build or of another store. Nothing was changed.
    pub fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, store: StoreId) -> Result<Store> {
        let path = dir.join(open::FILE);
        match open::check_header(&*disk, &path, store) {
            Err(error) if matches!(error.kind, Kind::Version | Kind::Mismatch) => return Err(error),
            // Damage and I/O errors are dealt with when it is opened.
            _ => {}
        }
        Ok(Store { disk, clock, path, store, state: RwLock::new(State::Closed) })
    }

    /// Opens it now, and makes it if need be.
    pub fn open(&self) -> Result<()> {
        self.database().map(|_| ())
    }

    /// Looks at one moment of the store.
    pub fn read<T>(&self, look: impl FnOnce(&Reading<'_>) -> Result<T>) -> Result<T> {
        self.with("meta.read", |database| {
            let tx = database.begin_read().map_err(|error| fault("meta.read", error))?;
            let reading = Reading { tx: &tx, after: Cell::new(None) };
            look(&reading).map_err(|error| noted(error, &reading.after))
        })
    }

    /// Changes the store. Durable when this returns without error; otherwise nothing is changed.
    pub fn write<T>(&self, change: impl FnOnce(&Writing<'_>) -> Result<T>) -> Result<T> {
        self.with("meta.write", |database| {
            let tx = database.begin_write().map_err(|error| fault("meta.write", error))?;
            let writing = Writing { tx: &tx, after: Cell::new(None) };
            let changed = change(&writing).map_err(|error| noted(error, &writing.after));
            match changed {
                Ok(value) => tx.commit().map(|()| value).map_err(|error| fault("meta.commit", error)),
                Err(cause) => {
                    // What it cannot take back it takes back when the file is opened again.
                    let _ = tx.abort();
                    Err(cause)
                }
            }
        })
    }

    /// What was lost in the last week, as far as the file knows.
    pub fn losses(&self) -> Result<Vec<Lost>> {
        let since = self.clock.now().0.saturating_sub(TOLD_FOR_US);
        let rows = self.read(|tx| tx.range(&open::LOSSES, ..))?;
        Ok(rows.into_iter().map(|(_, lost)| lost).filter(|lost| lost.at_us > since).collect())
    }

    /// [`Store::losses`] of a store that is open; nothing is opened for it.
    pub fn known_losses(&self) -> Vec<Lost> {
        let is_open = matches!(&*self.state.read(), State::Open(_));
        if is_open { self.losses().unwrap_or_default() } else { Vec::new() }
    }

    /// Closes it, unless somebody is at it; it is opened again with the next use.
    pub fn close(&self) {
        let mut state = self.state.write();
        if matches!(&*state, State::Open(database) if Arc::strong_count(database) == 1) {
            *state = State::Closed;
        }
    }

    /// Why it is not there, if so.
    pub fn trouble(&self) -> Option<Error> {
        match &*self.state.read() {
            State::Stopped(error) => Some(error.clone()),
            State::Closed | State::Open(_) | State::Spent(_) => None,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn with<T>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Database) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let database = self.database()?;
        // The database believes its own pages. Each opening has checked them; what changes a page after that, and is
        // no error of the disk, can still make it panic: that must end this store, and nothing else.
        let done = catch_unwind(AssertUnwindSafe(|| work(&database)));
        let result = done.unwrap_or_else(|panic| Err(panicked(op, &*panic)));
        result.map_err(|fault| self.ended(fault, database))
    }

    /// What is done after a fault.
    fn ended(&self, fault: Fault, database: Arc<Database>) -> Error {
        let fault = fault.at(&self.path);
        let mut state = self.state.write();
        match (fault.after, &*state) {
            (After::Stop, State::Open(_) | State::Spent(_)) => {
                tracing::error!(error = %fault.error, "the metadata store has stopped: shadows and forecasts rest, history does not");
                *state = State::Stopped(fault.error.clone());
            }
            (After::Reopen, State::Open(_)) => *state = State::Spent(database),
            _ => {}
        }
        fault.error
    }

    fn database(&self) -> Result<Arc<Database>> {
        if let State::Open(database) = &*self.state.read() {
            return Ok(Arc::clone(database));
        }
        let mut state = self.state.write();
        match &*state {
            State::Open(database) => return Ok(Arc::clone(database)),
            State::Stopped(error) => return Err(stopped(error)),
            State::Spent(database) if Arc::strong_count(database) > 1 => {
                return Err(Error::errno("meta.open", libc::ENOSPC).at(&self.path));
            }
            State::Spent(_) | State::Closed => {}
        }
        // A handle that ran out of space is closed before another is made.
        *state = State::Closed;
        let opened = catch_unwind(AssertUnwindSafe(|| open::open(self)));
        match opened.unwrap_or_else(|panic| Err(panicked("meta.open", &*panic))) {
            Ok(database) => {
                let database = Arc::new(database);
                *state = State::Open(Arc::clone(&database));
                Ok(database)
            }
            Err(fault) => {
                let fault = fault.at(&self.path);
                if fault.after != After::Reopen {
                    tracing::error!(error = %fault.error, "the metadata store cannot be opened: shadows and forecasts rest, history does not");
                    *state = State::Stopped(fault.error.clone());
                }
                Err(fault.error)
            }
        }
    }
}

fn noted(error: Error, after: &Cell<Option<After>>) -> Fault {
    Fault { error, after: after.get().unwrap_or(After::GoOn) }
}

fn stopped(cause: &Error) -> Error {
    let message = format!(
        "the metadata store has stopped after an error ({cause}); history is not affected. Mend the disk and mount again"
    );
    Error::new(Kind::Stopped, "meta.open", message)
}
