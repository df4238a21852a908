//! Opening a STORE: its directories, its id, its index.

use super::{Capture, OpenKv, Options};
use crate::clock::Clock;
use crate::disk::{Disk, OpenHow};
use crate::error::{Error, Kind, Result};
use crate::format::superblock::{self, Superblock};
use crate::index::Index;
use crate::live::paths::{Paths, join_bytes};
use crate::live::{checkpoint, pair};
use crate::meta::store as meta;
use crate::past::pages;
use crate::sync::Arc;
use crate::types::{FileKind, Seq, StoreId};
use std::path::Path;

/// The directories of a STORE; what is there already stays.
pub(super) fn make_dirs(disk: &dyn Disk, paths: &Paths) -> Result<()> {
    let dirs = [
        paths.store.clone(),
        paths.journal_dir(),
        paths.base_dir(),
        paths.checkpoint_dir(),
        paths.store_limbo_dir(),
        paths.store.join("pages"),
        paths.store.join("woven"),
        paths.store.join("shadow"),
    ];
    for dir in &dirs {
        if disk.stat("store.create", dir)?.is_none() {
            disk.create_dir("store.create", dir, 0o700)?;
        }
    }
    disk.sync_dir("store.create", &paths.store)?;
    // Its own name too: where DATA is on another filesystem, nothing else makes it durable.
    match paths.store.parent().map_or(Ok(()), |parent| disk.sync_dir("store.parent", parent)) {
        // A directory that may be written in and not be read: what syncs the store's files has to do.
        Err(error) if error.is(libc::EACCES) => Ok(()),
        other => other,
    }
}

/// A STORE that fits its DATA.
pub(super) struct Opened {
    pub(super) store: StoreId,
    pub(super) index: Arc<Index>,
    pub(super) index_is_new: bool,
    pub(super) meta: meta::Store,
}

/// The store's id (made when it is new) and its index. A damaged or foreign index is derived data: made anew. So is
/// one that is there before the first checkpoint. One that only cannot be opened now stays. A metadata store of another STORE or a newer build is refused.
pub(super) fn open_store(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    paths: &Paths,
    options: &Options,
    open_kv: OpenKv<'_>,
) -> Result<Opened> {
    let (shared, disk) = (disk, &**disk);
    let found = open_superblock(disk, paths, StoreId(options.new_store_id))?;
    let store = found.store;
    pair::check(disk, paths, store, &options.asked)?;
    let meta = meta::Store::new(Arc::clone(shared), Arc::clone(clock), &paths.store, store)?;
    if found.version != superblock::VERSION {
        // From here on this build writes what an older one would not understand.
        write_superblock(disk, paths, store)?;
    }
    let unborn = checkpoint::newest(disk, paths, store)?.is_none();
    if unborn {
        remove_index(disk, paths)?;
    }
    let open = || open_kv(&paths.index_dir()).and_then(|kv| Index::open(kv, store));
    let index = match open() {
        Err(error) if error.is_damage() => {
            tracing::warn!(%error, "the index cannot be used and is made anew from the journal");
            remove_index(disk, paths)?;
            open()
        }
        opened => opened,
    };
    let index = index.map_err(out_of_reach)?;
    let index_is_new = index.watermark().seq == Seq::ZERO;
    Ok(Opened { store, index: Arc::new(index), index_is_new, meta })
}

/// Making a large index anew takes hours: that is not done for a lack of memory, of descriptors or of room.
fn out_of_reach(error: Error) -> Error {
    match error.kind {
        Kind::Os(_) | Kind::Stopped => {
            const WHAT_TO_DO: &str =
                "mend the cause and mount again, or make it anew with `weft index rebuild`";
            Error {
                message: format!("the index cannot be opened ({}); {WHAT_TO_DO}", error.message),
                ..error
            }
        }
        _ => error,
    }
}

/// Removes the index and the pages that were composed for it: the next open makes them anew.
pub fn remove_index(disk: &dyn Disk, paths: &Paths) -> Result<()> {
    remove_tree(disk, &paths.index_dir())?;
    let pages = paths.store.join("pages");
    for entry in disk.read_dir("index.remove", &pages)? {
        disk.unlink("index.remove", &join_bytes(&pages, &entry.name))?;
    }
    Ok(())
}

fn remove_tree(disk: &dyn Disk, dir: &Path) -> Result<()> {
    if disk.stat("index.remove", dir)?.is_none() {
        return Ok(());
    }
    for entry in disk.read_dir("index.remove", dir)? {
        let path = join_bytes(dir, &entry.name);
        match entry.kind {
            FileKind::Directory => remove_tree(disk, &path)?,
            _ => disk.unlink("index.remove", &path)?,
        }
    }
    disk.remove_dir("index.remove", dir)
}

fn write_superblock(disk: &dyn Disk, paths: &Paths, store: StoreId) -> Result<()> {
    let path = paths.superblock();
    let temporary = path.with_extension("new");
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    disk.open("store.create", &temporary, how)?.write_durable(
        "store.create",
        &superblock::encode(store),
        0,
    )?;
    disk.rename("store.create", &temporary, &path)?;
    disk.sync_dir("store.create", &paths.store)
}

fn open_superblock(disk: &dyn Disk, paths: &Paths, fresh: StoreId) -> Result<Superblock> {
    let path = paths.superblock();
    if disk.stat("store.open", &path)?.is_none() {
        write_superblock(disk, paths, fresh)?;
        return Ok(Superblock { store: fresh, version: superblock::VERSION });
    }
    let mut bytes = [0; superblock::LEN];
    let file = disk.open("store.open", &path, OpenHow::default())?;
    let got = file.read_at("store.open", &mut bytes, 0)?;
    superblock::decode(bytes.get(..got).unwrap_or(&[])).map_err(|error| error.at(&path))
}

pub(super) fn next_page_file(disk: &dyn Disk, dir: &Path) -> Result<u64> {
    let numbers = pages::list(disk, dir)?.into_iter().map(|(number, _)| number);
    Ok(numbers.max().map_or(1, |last| last + 1))
}

/// Journal space for the groups themselves, beside what the kernel holds.
const RESERVE_BASE: u64 = 16 << 20;
/// Less than this is no cache.
const KERNEL_MIN: u64 = 4 << 20;

/// Journal space to keep for so much in the kernel's cache: at worst each page comes alone, with a page of header.
pub(super) fn reserve(kernel_bytes: u64) -> u64 {
    match kernel_bytes {
        0 => 0,
        bytes => 2 * bytes + RESERVE_BASE,
    }
}

/// How much the kernel may hold acknowledged: as much as the reserve is for, and no large part of any filesystem.
pub(super) fn kernel_share(disk: &dyn Disk, paths: &Paths, options: &Options) -> Result<u64> {
    if options.capture == Capture::Strict {
        return Ok(0);
    }
    let mut share = options.reserve_bytes.saturating_sub(RESERVE_BASE) / 2;
    let further = options.asked.roots.iter().map(|root| &root.dir);
    for dir in paths.roots.iter().map(|root| &root.dir).chain(further).chain([&paths.store]) {
        share = share.min(disk.space("store.reserve", dir)?.total / 16);
    }
    Ok(share.max(KERNEL_MIN).max(options.kernel_floor_bytes))
}
