//! Moving the roots' entries out again: a tree is put together in `.weft/tree`, then its top entries go to their place.
//!
//! Everything is applied and in a checkpoint before the first entry moves. Until the last has moved, a root holds
//! `.weft` and the notice; doing `gather` and this again finishes an interrupted one. The phase is one for all roots.

use super::Live;
use super::node::Node;
use super::paths::{COPY, KEYSTONES, Paths, RootPaths, STORE_XATTR, join_bytes};
use super::tree::Tree;
use super::walk::fingerprint;
use crate::disk::{Disk, OpenHow};
use crate::error::{Error, Result};
use crate::format::checkpoint::{Fingerprint, Phase};
use crate::sync::atomic::Ordering;
use crate::types::{FileId, FileKind, Name, RootId, StoreId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Applies everything, puts the roots back and marks all sides clean.
pub fn scatter(live: &Live) -> Result<()> {
    {
        // Prunings may be under way still, and a checkpoint of theirs would take back what the next ones say.
        let _round = live.round.lock();
        live.leaving.store(true, Ordering::Release);
    }
    // The mount is gone: a release that the kernel did not send any more is not waited for.
    live.release_all();
    drain(live)?;
    live.checkpoint(Phase::Scattering, &HashMap::new())?;
    live.pool.clear();
    let placed = put_all_out(live)?;
    for root in &live.paths.roots {
        empty_limbo(live, root)?;
        root_attributes(live, root)?;
    }
    live.sync_live("scatter.sync")?;
    let mut prints = HashMap::new();
    for (root, placed) in live.paths.roots.iter().zip(&placed) {
        take_prints(live, root, placed, &mut prints)?;
    }
    live.checkpoint(Phase::Clean, &prints)?;
    // The last step: all is complete and current, so Weft's own goes. The next mount finishes it after a cut.
    let (store, id) = (live.journal.segments().store(), *live.round.lock());
    for root in &live.paths.roots {
        finish_clean(&*live.disk, &live.paths, root, store, id)?;
        root_attributes(live, root)?;
    }
    Ok(())
}

/// Where the files of one root went.
type Placed = HashMap<FileId, PathBuf>;

/// Builds each root's tree beside its place, then moves all in place: DATA last, so that no server starts on it
/// before the others are there.
fn put_all_out(live: &Live) -> Result<Vec<Placed>> {
    let tree = live.tree.read();
    let mut all = Vec::new();
    for root in &live.paths.roots {
        let top = root.tree_dir();
        if live.disk.stat("scatter.find", &top)?.is_none() {
            live.disk.create_dir("scatter.mkdir", &top, 0o700)?;
        }
        let mut placed = HashMap::new();
        put_out(live, &tree, tree.root_dir(root.root)?, &top, &mut placed)?;
        all.push(placed);
    }
    live.sync_live("scatter.sync")?;
    live.paths.roots.iter().rev().try_for_each(|root| to_place(live, &tree, root))?;
    Ok(all)
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
fn put_out(live: &Live, tree: &Tree, dir: FileId, path: &Path, placed: &mut Placed) -> Result<()> {
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
            FileKind::Regular => put_file(live, node, attr.size, &at)?,
            _ => live.disk.make_node("scatter.mknod", &at, &attr)?,
        }
        if node.kind != FileKind::Directory {
            placed.insert(*file, at.clone());
        }
        set_attributes(live, tree, *file, &at)?;
    }
    Ok(())
}

fn put_file(live: &Live, node: &Node, size: u64, at: &Path) -> Result<()> {
    let home = live.paths.live(node.root, node.file)?;
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

fn to_place(live: &Live, tree: &Tree, root: &RootPaths) -> Result<()> {
    let top = root.tree_dir();
    let names = tree.dir(tree.root_dir(root.root)?)?.entries.keys();
    let (last, first): (Vec<&Name>, Vec<&Name>) =
        names.partition(|name| KEYSTONES.contains(&name.as_slice()));
    for names in [first, last] {
        for name in names {
            live.disk.rename("scatter.out", &join_bytes(&top, name), &join_bytes(&root.dir, name))?;
        }
        live.disk.sync_dir("scatter.out", &root.dir)?;
    }
    live.disk.remove_dir("scatter.rmdir", &top)?;
    live.disk.sync_dir("scatter.out", &root.dir)
}

fn root_attributes(live: &Live, root: &RootPaths) -> Result<()> {
    let tree = live.tree.read();
    set_attributes(live, &tree, tree.root_dir(root.root)?, &root.dir)
}

/// What history needs of limbo goes to STORE; across filesystems it is copied.
fn empty_limbo(live: &Live, root: &RootPaths) -> Result<()> {
    let limbo = root.limbo_dir();
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

fn take_prints(
    live: &Live,
    root: &RootPaths,
    placed: &Placed,
    prints: &mut HashMap<FileId, Fingerprint>,
) -> Result<()> {
    let top = root.tree_dir();
    for (file, built) in placed {
        let Ok(relative) = built.strip_prefix(&top) else { continue };
        let at = root.dir.join(relative);
        if let Some(stat) = live.disk.stat("scatter.print", &at)?
            && stat.attr.kind == FileKind::Regular
        {
            prints.insert(*file, fingerprint(&stat));
        }
    }
    Ok(())
}

/// Removes what is left of Weft in a root whose checkpoint `id` says it is clean. The root keeps the store and the
/// checkpoint that it belongs to, durable before anything goes.
pub fn finish_clean(disk: &dyn Disk, paths: &Paths, root: &RootPaths, store: StoreId, id: u64) -> Result<()> {
    match disk.set_xattr("scatter.id", &root.dir, STORE_XATTR, mark(store, id, root.root).as_bytes()) {
        Err(error) if error.is(libc::ENOTSUP) => {
            let how = OpenHow { write: true, create: true, ..OpenHow::default() };
            disk.open("scatter.id", &paths.unmarked(root.root), how)?.sync("scatter.id")?;
            disk.sync_dir("scatter.id", &paths.store)?;
        }
        other => other?,
    }
    disk.sync_filesystem("scatter.id", &root.dir)?;
    remove_leftovers(disk, root)
}

/// What a root carries while it is plain: its store, the checkpoint that left it so, and which root it is.
pub fn mark(store: StoreId, id: u64, root: RootId) -> String {
    match root {
        RootId(0) => format!("{store}:{id}"),
        RootId(number) => format!("{store}:{id}:{number}"),
    }
}

/// Removes Weft's own directories and files from a root; they hold nothing any more, or it fails.
pub fn remove_leftovers(disk: &dyn Disk, root: &RootPaths) -> Result<()> {
    if disk.stat("scatter.clean", &root.own())?.is_some() {
        for entry in disk.read_dir("scatter.clean", &root.own())? {
            if entry.name.starts_with(COPY.as_bytes()) {
                disk.unlink("scatter.clean", &join_bytes(&root.own(), &entry.name))?;
            }
        }
    }
    for dir in [root.tree_dir(), root.live_dir(), root.limbo_dir(), root.own()] {
        if disk.stat("scatter.clean", &dir)?.is_some() {
            disk.remove_dir("scatter.clean", &dir)?;
        }
    }
    if disk.stat("scatter.clean", &root.notice())?.is_some() {
        disk.unlink("scatter.clean", &root.notice())?;
    }
    disk.sync_dir("scatter.clean", &root.dir)
}
