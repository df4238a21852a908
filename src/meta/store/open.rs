//! Opening the file: making it, checking it, moving a damaged one aside.

use super::backend::{Behind, Copied};
use super::fault::{After, Fault, fault, panicked};
use super::table::{Loss, TABLES, Table};
use super::tx::{Reading, Writing};
use super::{Store, noted};
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Kind, Result};
use crate::format::meta as header;
use crate::sync::Mutex;
use crate::types::StoreId;
use redb::{Builder, Database, ReadableDatabase};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Name of the file in STORE.
pub(super) const FILE: &str = "meta.redb";
/// Stands beside it once it was made: without it a missing file is a new STORE, with it a loss.
const MADE: &str = "meta.made";
/// Where a damaged one goes; an earlier one gives way.
const ASIDE: &str = "meta.redb.damaged";
/// Memory for pages.
const CACHE_BYTES: usize = 8 << 20;

type Opened<T> = std::result::Result<T, Fault>;

/// A file that was damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lost {
    /// When it was found, µs UTC by the wall clock.
    pub at_us: i64,
    /// What was found.
    pub cause: String,
    /// Where the damaged file is; none when it was missing.
    pub aside: Option<String>,
    /// What was in it and is made again from the journal.
    pub rebuilt: Vec<String>,
    /// What was in it, if it was in use, and is gone.
    pub gone: Vec<String>,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let aside = self.aside.as_ref().map_or_else(String::new, |path| format!(" (kept as {path})"));
        write!(
            f,
            "the metadata store was lost: {}{aside}. History is whole. Made again: {}. Gone, if they were there: {}",
            self.cause,
            self.rebuilt.join(", "),
            self.gone.join(", ")
        )
    }
}

/// Losses by their order.
pub(super) const LOSSES: Table<u64, Lost> = Table::new("losses", 1);

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Whether the file, if there is one, is ours.
pub(super) fn check_header(disk: &dyn Disk, path: &Path, store: StoreId) -> Result<()> {
    if disk.stat("meta.open", path)?.is_none() {
        return Ok(());
    }
    check(&*disk.open("meta.open", path, OpenHow::default())?, store).map_err(|error| error.at(path))
}

fn check(file: &dyn DiskFile, store: StoreId) -> Result<()> {
    let mut bytes = [0; header::LEN];
    let got = file.read_at("meta.open", &mut bytes, 0)?;
    header::check(bytes.get(..got).unwrap_or(&[]), store)
}

/// Opens what is there, or makes a new one in its place.
pub(super) fn open(store: &Store) -> Opened<Database> {
    let path = &store.path;
    if store.disk.stat("meta.open", path)?.is_none() {
        let was_made = store.disk.stat("meta.open", &path.with_file_name(MADE))?.is_some();
        let lost = was_made.then(|| lost(store, "its file is missing".to_owned(), None));
        return make(store, lost);
    }
    // A panic is what damage can come to that redb takes for a bug of its own.
    let opened = catch_unwind(AssertUnwindSafe(|| open_existing(store)));
    match opened.unwrap_or_else(|panic| Err(panicked("meta.open", &*panic))) {
        Err(fault) if fault.is_damage() => {
            let aside = path.with_file_name(ASIDE);
            store.disk.rename("meta.aside", path, &aside)?;
            let lost = lost(store, fault.error.to_string(), Some(aside.display().to_string()));
            make(store, Some(lost))
        }
        other => other,
    }
}

fn open_existing(store: &Store) -> Opened<Database> {
    let how = OpenHow { write: true, ..OpenHow::default() };
    let file = store.disk.open("meta.open", &store.path, how).map_err(stop)?;
    check(&*file, store.store).map_err(stop)?;
    if file.len("meta.open").map_err(stop)? <= header::LEN as u64 {
        // redb would make a new one of nothing, and nobody would hear of the loss.
        return Err(stop(Error::corrupt("meta.open", "the file ends with its header")));
    }
    builder().create_with_backend(Behind(file)).map_err(|error| fault("meta.open", error))
}

/// Nothing that goes wrong here is tried again before the next mount.
fn stop(error: Error) -> Fault {
    Fault { error, after: After::Stop }
}

/// A new file: under another name until it is whole and durable.
fn make(store: &Store, lost: Option<Lost>) -> Opened<Database> {
    if let Some(lost) = &lost {
        tracing::error!("{lost}");
    }
    let (disk, path) = (&*store.disk, &store.path);
    let temporary = path.with_extension("new");
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let file = disk.open("meta.create", &temporary, how).map_err(again)?;
    file.set_len("meta.create", 0).map_err(again)?;
    file.write_durable("meta.create", &header::encode(store.store), 0).map_err(again)?;
    let database =
        builder().create_with_backend(Behind(file)).map_err(|error| fault("meta.create", error))?;
    let tx = database.begin_write().map_err(|error| fault("meta.create", error))?;
    if let Some(lost) = &lost {
        let writing = Writing { tx: &tx, after: Cell::new(None) };
        writing.put(&LOSSES, &0, lost).map_err(|error| noted(error, &writing.after))?;
    }
    tx.commit().map_err(|error| fault("meta.create", error))?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    disk.rename("meta.create", &temporary, path).map_err(stop)?;
    disk.sync_dir("meta.create", dir).map_err(stop)?;
    disk.open("meta.create", &path.with_file_name(MADE), how).map_err(stop)?;
    disk.sync_dir("meta.create", dir).map_err(stop)?;
    Ok(database)
}

/// A full disk is a reason to try again.
fn again(error: Error) -> Fault {
    let after = if error.is(libc::ENOSPC) || error.is(libc::EDQUOT) { After::Reopen } else { After::Stop };
    Fault { error, after }
}

fn lost(store: &Store, cause: String, aside: Option<String>) -> Lost {
    let named = |wanted: Loss| -> Vec<String> {
        let tables = TABLES.iter().filter(|(_, _, loss)| *loss == wanted);
        tables.map(|(_, what, _)| (*what).to_owned()).collect()
    };
    Lost { at_us: store.clock.now().0, cause, aside, rebuilt: named(Loss::Rebuilt), gone: named(Loss::Gone) }
}

/// Looks into the file of a STORE that nobody has mounted, at a copy in memory: nothing is changed. `None`: there is
/// no file.
///
/// # Errors
/// As opening it gives them; `Corrupt` where a mount would move it aside.
pub fn peek<T>(
    disk: &dyn Disk,
    dir: &Path,
    store: StoreId,
    look: impl FnOnce(&Reading<'_>) -> Result<T>,
) -> Result<Option<T>> {
    let path = dir.join(FILE);
    if disk.stat("meta.peek", &path)?.is_none() {
        return Ok(None);
    }
    let file = disk.open("meta.peek", &path, OpenHow::default())?;
    check(&*file, store).map_err(|error| error.at(&path))?;
    let len = file.len("meta.peek")?.saturating_sub(header::LEN as u64);
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| Error::errno("meta.peek", libc::EFBIG))?];
    let got = file.read_at("meta.peek", &mut bytes, header::LEN as u64)?;
    bytes.truncate(got);
    let looked = catch_unwind(AssertUnwindSafe(|| {
        let database = builder()
            .create_with_backend(Copied(Mutex::new(bytes)))
            .map_err(|error| fault("meta.peek", error).error)?;
        let tx = database.begin_read().map_err(|error| fault("meta.peek", error).error)?;
        look(&Reading { tx: &tx, after: Cell::new(None) })
    }));
    let result = looked.unwrap_or_else(|panic| Err(panicked("meta.peek", &*panic).error));
    result.map(Some).map_err(|error| match error.kind {
        Kind::Corrupt => error.at(&path),
        _ => error,
    })
}
