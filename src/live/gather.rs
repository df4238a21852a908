//! Moving a root's entries in: each regular file becomes `live/<FileId>`, every other name goes (it is in the
//! checkpoint). Nothing is copied.
//!
//! It starts from a durable checkpoint whose names are exactly those of the plain trees, and changes no name: so after
//! a cut, an entry still at its path is the file that the names say, and one that is not is in already. Doing it
//! again finishes it, in each root by itself.

use super::paths::{KEYSTONES, NOTICE, OWN_DIR, Paths, RootPaths, join_bytes};
use super::tree::Tree;
use crate::disk::{Disk, OpenHow};
use crate::error::{Error, Kind, Result};
use crate::types::{FileId, FileKind, Name};
use std::path::Path;

const NOTICE_TEXT: &str = "This directory is the data of a Weft mount that has not been unmounted (or the machine went \
down while it was mounted).\nIts entries stand in .weft/ and the newest of them in the store beside it. Do not start a \
server here.\n\nRun one of these as the user that ran the mount:\n  weft mount DATA      goes on where it stopped\n  \
weft recover DATA    puts everything back in place, current, without mounting\n";

/// Makes Weft's own directories and the notice in each root, durable, before the first entry moves.
pub fn prepare(disk: &dyn Disk, paths: &Paths) -> Result<()> {
    paths.roots.iter().try_for_each(|root| prepare_root(disk, root))
}

fn prepare_root(disk: &dyn Disk, root: &RootPaths) -> Result<()> {
    for dir in [root.own(), root.live_dir(), root.limbo_dir()] {
        if disk.stat("gather.prepare", &dir)?.is_none() {
            disk.create_dir("gather.prepare", &dir, 0o700)?;
        }
    }
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let notice = disk.open("gather.notice", &root.notice(), how)?;
    notice.set_len("gather.notice", 0)?;
    notice.write_durable("gather.notice", notice_text(root).as_bytes(), 0)?;
    disk.sync_dir("gather.prepare", &root.own())?;
    disk.sync_dir("gather.prepare", &root.dir)
}

fn notice_text(root: &RootPaths) -> String {
    match root.name.is_empty() {
        true => NOTICE_TEXT.to_owned(),
        false => format!("{NOTICE_TEXT}\nIt is the {} of that mount, not DATA itself.\n", root.shown()),
    }
}

/// Moves everything in that is still out; durable when it returns. DATA first: without it no server starts.
pub fn gather(disk: &dyn Disk, paths: &Paths, tree: &Tree) -> Result<()> {
    paths.roots.iter().try_for_each(|root| gather_root(disk, root, tree))
}

fn gather_root(disk: &dyn Disk, root: &RootPaths, tree: &Tree) -> Result<()> {
    let dir = tree.root_dir(root.root)?;
    let scattered = root.tree_dir();
    for base in [&root.dir, &scattered] {
        if disk.stat("gather.find", base)?.is_some() {
            take_in(disk, root, tree, dir, base)?;
        }
    }
    if disk.stat("gather.find", &scattered)?.is_some() {
        disk.remove_dir("gather.remove", &scattered)?;
    }
    disk.sync_filesystem("gather.sync", &root.own())
}

fn take_in(disk: &dyn Disk, root: &RootPaths, tree: &Tree, dir: FileId, path: &Path) -> Result<()> {
    let entries = tree.dir(dir)?;
    let top = entries.parent == dir;
    let (first, rest): (Vec<_>, Vec<_>) =
        entries.entries.iter().partition(|(name, _)| top && KEYSTONES.contains(&name.as_slice()));
    take_entries(disk, root, tree, path, &first)?;
    if !first.is_empty() {
        disk.sync_dir("gather.keystones", path)?;
    }
    take_entries(disk, root, tree, path, &rest)
}

fn take_entries(
    disk: &dyn Disk,
    root: &RootPaths,
    tree: &Tree,
    path: &Path,
    entries: &[(&Name, &FileId)],
) -> Result<()> {
    for (name, file) in entries {
        let at = join_bytes(path, name);
        let Some(stat) = disk.stat("gather.find", &at)? else { continue };
        let node = tree.node(**file)?;
        if stat.attr.kind != node.kind {
            return Err(Error::new(
                Kind::Mismatch,
                "gather.find",
                "something else stands where Weft left a file of another kind; move it away",
            )
            .at(&at));
        }
        match node.kind {
            FileKind::Directory => {
                take_in(disk, root, tree, **file, &at)?;
                disk.remove_dir("gather.rmdir", &at)?;
            }
            FileKind::Regular => {
                let home = root.live(**file);
                if disk.stat("gather.find", &home)?.is_some() {
                    disk.unlink("gather.unlink", &at)?;
                } else {
                    disk.rename("gather.rename", &at, &home)?;
                }
            }
            _ => disk.unlink("gather.unlink", &at)?,
        }
    }
    Ok(())
}

/// What stands in a root beside Weft's own is not Weft's: it is not touched, and nothing goes on.
pub fn check_foreign(disk: &dyn Disk, paths: &Paths) -> Result<()> {
    for root in &paths.roots {
        for entry in disk.read_dir("gather.check", &root.dir)? {
            if entry.name != OWN_DIR.as_bytes() && entry.name != NOTICE.as_bytes() {
                let message = format!(
                    "this was put into {} while its own entries were in .weft; move it away and try again",
                    root.shown()
                );
                return Err(Error::new(Kind::Mismatch, "gather.check", message)
                    .at(&join_bytes(&root.dir, &entry.name)));
            }
        }
    }
    Ok(())
}
