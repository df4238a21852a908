//! Whether roots and STORE belong together and are of one time: looked at before any of them is touched.
//!
//! - A plain root carries a mark: its store, the checkpoint that left it so, and which root it is.
//! - One that is mounted, or was at a crash, holds a copy of the newest checkpoint under a name that says which root it
//!   is. Copies are written before STORE's own, so each is that one or one later.

use super::checkpoint;
use super::paths::{COPY, Paths, RootPaths, STORE_XATTR};
use super::roots::{self, Asked};
use super::scatter::mark;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{Checkpoint, Phase};
use crate::types::{Seq, StoreId};

/// Whether the roots and STORE belong together, before anything of any is touched.
pub fn check(disk: &dyn Disk, data: &Paths, store: StoreId, asked: &Asked) -> Result<()> {
    let newest = checkpoint::newest(disk, data, store)?;
    let (paths, new) = roots::known(data, newest.as_ref(), asked)?;
    new.iter().try_for_each(|root| check_unborn(disk, root, store))?;
    match newest {
        None => paths.roots.iter().try_for_each(|root| check_unborn(disk, root, store)),
        Some(checkpoint) if checkpoint.phase == Phase::Clean => {
            let check = |root| check_clean_pair(disk, &paths, root, store, checkpoint.id);
            paths.roots.iter().try_for_each(check)
        }
        Some(checkpoint) => read_copies(disk, &paths, &checkpoint).map(|_| ()),
    }
}

/// A root before its first checkpoint: nothing of it can have moved in.
pub(super) fn check_unborn(disk: &dyn Disk, root: &RootPaths, store: StoreId) -> Result<()> {
    if has_live_files(disk, root)? {
        let message = format!(
            "{} was mounted with another store, which holds its newest changes; give that one with --store",
            root.shown()
        );
        return Err(Error::new(Kind::Mismatch, "recover.pair", message).at(&root.dir));
    }
    check_owner(disk, root, store)
}

fn has_live_files(disk: &dyn Disk, root: &RootPaths) -> Result<bool> {
    let live = root.live_dir();
    Ok(disk.stat("recover.data", &live)?.is_some() && !disk.read_dir("recover.data", &live)?.is_empty())
}

/// The roots' copies of a checkpoint, where they were not left clean.
pub(super) fn read_copies(
    disk: &dyn Disk,
    paths: &Paths,
    checkpoint: &Checkpoint,
) -> Result<Vec<Checkpoint>> {
    paths.roots.iter().map(|root| read_copy(disk, paths, root, checkpoint)).collect()
}

fn read_copy(
    disk: &dyn Disk,
    paths: &Paths,
    root: &RootPaths,
    checkpoint: &Checkpoint,
) -> Result<Checkpoint> {
    let what = root.shown();
    let mismatch = |message| Error::new(Kind::Mismatch, "recover.pair", message).at(&root.dir);
    if disk.stat("recover.data", &root.own())?.is_none() {
        return Err(mismatch(format!(
            "STORE {} says that the entries of {what} are in its .weft, and there is none: it was replaced or restored. \
             Bring back the {what} that belongs to this store, or mount with a new --store",
            paths.store.display()
        )));
    }
    if disk.stat("recover.data", &root.copy())?.is_none() {
        let entries = disk.read_dir("recover.data", &root.own())?;
        let other = entries.iter().any(|entry| entry.name.starts_with(COPY.as_bytes()));
        return Err(mismatch(match other {
            true => {
                format!("this is not {what} but another root of the set: give each root its own directory")
            }
            false => {
                format!("{what} has lost its copy of the checkpoint: restore it and STORE from one moment")
            }
        }));
    }
    let copy = checkpoint::read(disk, &root.copy(), checkpoint.store)?;
    check_pair(root, &copy, checkpoint)?;
    Ok(copy)
}

fn mark_of(disk: &dyn Disk, root: &RootPaths) -> Result<Option<String>> {
    let xattrs = disk.xattrs("recover.owner", &root.dir)?;
    let found = xattrs.into_iter().find(|(name, _)| name == STORE_XATTR);
    Ok(found.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()))
}

/// A plain root that carries a store's mark has its history there.
fn check_owner(disk: &dyn Disk, root: &RootPaths, store: StoreId) -> Result<()> {
    let Some(found) = mark_of(disk, root)? else { return Ok(()) };
    Err(Error::new(
        Kind::Mismatch,
        "recover.owner",
        format!(
            "{} has its history in store {found}, and this is store {store}; give the right one with --store, or \
             remove the attribute with `setfattr -x user.weft.store` to begin a new history",
            root.shown()
        ),
    )
    .at(&root.dir))
}

/// A plain root and a STORE that says it left one: of each other, and of one time.
pub(super) fn check_clean_pair(
    disk: &dyn Disk,
    paths: &Paths,
    root: &RootPaths,
    store: StoreId,
    id: u64,
) -> Result<()> {
    let what = root.shown();
    let mismatch = |message: String| Err(Error::new(Kind::Mismatch, "recover.pair", message).at(&root.dir));
    if disk.stat("recover.data", &root.own())?.is_some() {
        return match has_live_files(disk, root)? {
            true => mismatch(format!(
                "{what} is from a time when it was mounted, STORE from one when it was not: one of them was restored \
                 from a backup. Restore both from the same moment; nothing was changed"
            )),
            // A cut between the last checkpoint and the mark; the caller finishes it.
            false => Ok(()),
        };
    }
    let expected = mark(store, id, root.root);
    match mark_of(disk, root)? {
        Some(found) if found == expected => Ok(()),
        None if disk.stat("recover.owner", &paths.unmarked(root.root))?.is_some() => Ok(()),
        Some(found) if is_other_root(paths, store, id, &found) => mismatch(format!(
            "this is not {what} but another root of the set: give each root its own directory"
        )),
        found => mismatch(format!(
            "{what} and STORE {} do not belong together: {what} carries the mark {}, STORE expects {expected} \
             (store:checkpoint). Another store, or one of the two was restored from a backup: bring back both from one \
             moment. To take {what} as it is now as the newest state: setfattr -n user.weft.store -v {expected} DIR",
            paths.store.display(),
            found.as_deref().unwrap_or("none"),
        )),
    }
}

fn is_other_root(paths: &Paths, store: StoreId, id: u64, found: &str) -> bool {
    paths.roots.iter().any(|root| mark(store, id, root.root) == found)
}

/// Whether a root (its copy of a checkpoint) and STORE are of one time, as far as their checkpoints tell.
fn check_pair(root: &RootPaths, copy: &Checkpoint, store: &Checkpoint) -> Result<()> {
    if copy.id == store.id || copy.id == store.id + 1 {
        return Ok(());
    }
    let what = root.shown();
    let behind = if copy.id < store.id { &what } else { "STORE" };
    let message = format!("{what} is at checkpoint {} and STORE at {}: {behind}", copy.id, store.id);
    rolled_back(message).map_err(|error| error.at(&root.dir))
}

/// Whether the journal reaches as far as what was applied to a root.
pub(super) fn check_reach(root: &RootPaths, copy: &Checkpoint, durable: Seq) -> Result<()> {
    if copy.replay.seq <= durable.next() {
        return Ok(());
    }
    let (what, applied) = (root.shown(), copy.replay.seq.0 - 1);
    rolled_back(format!("{what} has events up to {applied}, STORE up to {durable}: STORE"))
}

fn rolled_back(what: String) -> Result<()> {
    Err(Error::new(
        Kind::Mismatch,
        "recover.pair",
        format!(
            "{what} is older than the other, as after restoring one of them from a backup. Restore both from the same \
             moment; nothing was changed"
        ),
    ))
}
