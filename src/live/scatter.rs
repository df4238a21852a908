//! Moving DATA's entries out again: the tree is put together in `.weft/tree`, then its top entries go to DATA.
//!
//! Everything is applied and in a checkpoint before the first entry moves. Until the last has moved, DATA holds
//! `.weft` and the notice; doing `gather` and this again finishes an interrupted one.

use super::Live;
use super::paths::{KEYSTONES, Paths, STORE_XATTR, join_bytes};
use super::tree::Tree;
use super::walk::fingerprint;
use crate::disk::{Disk, OpenHow};
use crate::error::{Error, Result};
use crate::format::checkpoint::{Fingerprint, Phase};
use crate::types::{FileId, FileKind, Name, StoreId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Applies everything, puts DATA back and marks both sides clean.
pub fn scatter(live: &Live) -> Result<()> {
    // The mount is gone: a release that the kernel did not send any more is not waited for.
    live.release_all();
    drain(live)?;
    live.checkpoint(Phase::Scattering, &HashMap::new())?;
    live.pool.clear();
    let placed = {
        let tree = live.tree.read();
        let top = live.paths.tree_dir();
        if live.disk.stat("scatter.find", &top)?.is_none() {
            live.disk.create_dir("scatter.mkdir", &top, 0o700)?;
        }
        let mut placed = HashMap::new();
        put_out(live, &tree, FileId::ROOT, &top, &mut placed)?;
        live.disk.sync_filesystem("scatter.sync", &top)?;
        to_data(live, &tree, &top)?;
        placed
    };
    empty_limbo(live)?;
    root_attributes(live)?;
    live.disk.sync_filesystem("scatter.sync", &live.paths.data)?;
    let prints = prints(live, &placed)?;
    live.checkpoint(Phase::Clean, &prints)?;
    remove_own(live)
}

/// Rounds until nothing waits.
fn drain(live: &Live) -> Result<()> {
    for _ in 0..8 {
        live.journal.flush()?;
        live.apply_round()?;
        let pending = live.dirty.lock().len();
        if pending == 0 && live.tree.read().doomed.is_empty() {
            return Ok(());
        }
    }
    Err(Error::invalid("scatter.drain", "changes keep coming; stop what writes and try again"))
}

/// Builds one directory's entries; remembers where each regular file went.
fn put_out(
    live: &Live,
    tree: &Tree,
    dir: FileId,
    path: &Path,
    placed: &mut HashMap<FileId, PathBuf>,
) -> Result<()> {
    for (name, file) in &tree.dir(dir)?.entries {
        let at = join_bytes(path, name);
        let node = tree.node(*file)?;
        if let Some(first) = placed.get(file) {
            live.disk.link("scatter.link", first, &at)?;
            continue;
        }
        let attr = node.lock().attr;
        match node.kind {
            FileKind::Directory => {
                live.disk.create_dir("scatter.mkdir", &at, 0o700)?;
                put_out(live, tree, *file, &at, placed)?;
            }
            FileKind::Symlink => live.disk.symlink("scatter.symlink", &node.target, &at)?,
            FileKind::Regular => put_file(live, *file, attr.size, &at)?,
            _ => live.disk.make_node("scatter.mknod", &at, &attr)?,
        }
        if node.kind != FileKind::Directory {
            placed.insert(*file, at.clone());
        }
        set_attributes(live, tree, *file, &at)?;
    }
    Ok(())
}

fn put_file(live: &Live, file: FileId, size: u64, at: &Path) -> Result<()> {
    let home = live.paths.live(file);
    if live.disk.stat("scatter.find", &home)?.is_some() {
        live.disk.rename("scatter.rename", &home, at)?;
    }
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let handle = live.disk.open("scatter.open", at, how)?;
    if handle.len("scatter.len")? != size {
        handle.set_len("scatter.len", size)?;
    }
    Ok(())
}

/// Owner, mode, times and extended attributes, where they differ.
fn set_attributes(live: &Live, tree: &Tree, file: FileId, at: &Path) -> Result<()> {
    let node = tree.node(file)?;
    let state = node.lock();
    let present = live.disk.xattrs("scatter.xattrs", at)?;
    for (name, _) in &present {
        if !state.xattrs.contains_key(name) && name != STORE_XATTR {
            live.disk.remove_xattr("scatter.xattrs", at, name)?;
        }
    }
    for (name, value) in &state.xattrs {
        if !present.iter().any(|(have, is)| have == name && is == value) {
            live.disk.set_xattr("scatter.xattrs", at, name, value)?;
        }
    }
    live.disk.set_attr("scatter.attr", at, &state.attr)
}

fn to_data(live: &Live, tree: &Tree, top: &Path) -> Result<()> {
    let names = tree.dir(FileId::ROOT)?.entries.keys();
    let (last, first): (Vec<&Name>, Vec<&Name>) =
        names.partition(|name| KEYSTONES.contains(&name.as_slice()));
    for names in [first, last] {
        for name in names {
            live.disk.rename("scatter.out", &join_bytes(top, name), &join_bytes(&live.paths.data, name))?;
        }
        live.disk.sync_dir("scatter.out", &live.paths.data)?;
    }
    live.disk.remove_dir("scatter.rmdir", top)?;
    live.disk.sync_dir("scatter.out", &live.paths.data)
}

fn root_attributes(live: &Live) -> Result<()> {
    let tree = live.tree.read();
    set_attributes(live, &tree, FileId::ROOT, &live.paths.data)
}

/// What history needs of limbo goes to STORE; across filesystems it is copied.
fn empty_limbo(live: &Live) -> Result<()> {
    let limbo = live.paths.limbo_dir();
    for entry in live.disk.read_dir("scatter.limbo", &limbo)? {
        let from = join_bytes(&limbo, &entry.name);
        let to = join_bytes(&live.paths.store_limbo_dir(), &entry.name);
        match live.disk.rename("scatter.limbo", &from, &to) {
            Err(error) if error.is(libc::EXDEV) => {
                copy(live, &from, &to)?;
                live.disk.sync_dir("scatter.limbo", &live.paths.store_limbo_dir())?;
                live.disk.unlink("scatter.limbo", &from)?;
            }
            other => other?,
        }
    }
    live.disk.sync_dir("scatter.limbo", &live.paths.store_limbo_dir())
}

fn copy(live: &Live, from: &Path, to: &Path) -> Result<()> {
    let source = live.disk.open("scatter.copy", from, OpenHow::default())?;
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let target = live.disk.open("scatter.copy", to, how)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let got = source.read_at("scatter.copy", &mut buffer, at)?;
        if got == 0 {
            return target.sync("scatter.copy");
        }
        target.write_at("scatter.copy", buffer.get(..got).unwrap_or(&[]), at)?;
        at += got as u64;
    }
}

fn prints(live: &Live, placed: &HashMap<FileId, PathBuf>) -> Result<HashMap<FileId, Fingerprint>> {
    let top = live.paths.tree_dir();
    let mut prints = HashMap::new();
    for (file, built) in placed {
        let Ok(relative) = built.strip_prefix(&top) else { continue };
        let at = live.paths.data.join(relative);
        if let Some(stat) = live.disk.stat("scatter.print", &at)?
            && stat.attr.kind == FileKind::Regular
        {
            prints.insert(*file, fingerprint(&stat));
        }
    }
    Ok(prints)
}

/// The last step: DATA is complete and current, so Weft's own goes. The next mount finishes it after a cut.
fn remove_own(live: &Live) -> Result<()> {
    finish_clean(&*live.disk, &live.paths, live.journal.segments().store(), *live.round.lock())?;
    root_attributes(live)
}

/// Removes what is left of Weft in a DATA whose checkpoint `id` says it is clean. DATA keeps the store and the
/// checkpoint that it belongs to, durable before anything goes.
pub fn finish_clean(disk: &dyn Disk, paths: &Paths, store: StoreId, id: u64) -> Result<()> {
    match disk.set_xattr("scatter.id", &paths.data, STORE_XATTR, mark(store, id).as_bytes()) {
        Err(error) if error.is(libc::ENOTSUP) => {
            let how = OpenHow { write: true, create: true, ..OpenHow::default() };
            disk.open("scatter.id", &paths.unmarked(), how)?.sync("scatter.id")?;
            disk.sync_dir("scatter.id", &paths.store)?;
        }
        other => other?,
    }
    disk.sync_filesystem("scatter.id", &paths.data)?;
    remove_leftovers(disk, paths)
}

/// What DATA carries while it is plain: its store and the checkpoint that left it so.
pub fn mark(store: StoreId, id: u64) -> String {
    format!("{store}:{id}")
}

/// Removes Weft's own directories and files from DATA; they hold nothing any more, or it fails.
pub fn remove_leftovers(disk: &dyn Disk, paths: &Paths) -> Result<()> {
    for file in [paths.data_checkpoint(), paths.data_checkpoint().with_extension("new")] {
        if disk.stat("scatter.clean", &file)?.is_some() {
            disk.unlink("scatter.clean", &file)?;
        }
    }
    for dir in [paths.tree_dir(), paths.live_dir(), paths.limbo_dir(), paths.own()] {
        if disk.stat("scatter.clean", &dir)?.is_some() {
            disk.remove_dir("scatter.clean", &dir)?;
        }
    }
    if disk.stat("scatter.clean", &paths.notice())?.is_some() {
        disk.unlink("scatter.clean", &paths.notice())?;
    }
    disk.sync_dir("scatter.clean", &paths.data)
}
