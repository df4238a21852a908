//! Moving DATA's entries in: each regular file becomes `live/<FileId>`, every other name goes (it is in the
//! checkpoint). Nothing is copied.
//!
//! It starts from a durable checkpoint whose names are exactly those of the plain tree, and changes no name: so after
//! a cut, an entry still at its path is the file that the names say, and one that is not is in already. Doing it
//! again finishes it.

use super::paths::{NOTICE, OWN_DIR, Paths, join_bytes};
use super::tree::Tree;
use crate::disk::{Disk, OpenHow};
use crate::error::{Error, Kind, Result};
use crate::types::{FileId, FileKind};
use std::path::Path;

const NOTICE_TEXT: &str = "This directory is the data of a Weft mount that has not been unmounted (or the machine went \
down while it was mounted).\nIts entries stand in .weft/ and the newest of them in the store beside it. Do not start a \
server here.\n\nRun one of these as the user that ran the mount:\n  weft mount DATA      goes on where it stopped\n  \
weft recover DATA    puts everything back in place, current, without mounting\n";

/// Makes Weft's own directories and the notice, durable, before the first entry moves.
pub fn prepare(disk: &dyn Disk, paths: &Paths) -> Result<()> {
    for dir in [paths.own(), paths.live_dir(), paths.limbo_dir()] {
        if disk.stat("gather.prepare", &dir)?.is_none() {
            disk.create_dir("gather.prepare", &dir, 0o700)?;
        }
    }
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let notice = disk.open("gather.notice", &paths.notice(), how)?;
    notice.set_len("gather.notice", 0)?;
    notice.write_durable("gather.notice", NOTICE_TEXT.as_bytes(), 0)?;
    disk.sync_dir("gather.prepare", &paths.own())?;
    disk.sync_dir("gather.prepare", &paths.data)
}

/// Moves everything in that is still out; durable when it returns.
pub fn gather(disk: &dyn Disk, paths: &Paths, tree: &Tree) -> Result<()> {
    let scattered = paths.tree_dir();
    for base in [&paths.data, &scattered] {
        if disk.stat("gather.find", base)?.is_some() {
            take_in(disk, paths, tree, FileId::ROOT, base)?;
        }
    }
    if disk.stat("gather.find", &scattered)?.is_some() {
        disk.remove_dir("gather.remove", &scattered)?;
    }
    disk.sync_filesystem("gather.sync", &paths.own())
}

fn take_in(disk: &dyn Disk, paths: &Paths, tree: &Tree, dir: FileId, path: &Path) -> Result<()> {
    for (name, file) in &tree.dir(dir)?.entries {
        let at = join_bytes(path, name);
        let Some(stat) = disk.stat("gather.find", &at)? else { continue };
        let node = tree.node(*file)?;
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
                take_in(disk, paths, tree, *file, &at)?;
                disk.remove_dir("gather.rmdir", &at)?;
            }
            FileKind::Regular => {
                let home = paths.live(*file);
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

/// What stands in DATA beside Weft's own is not Weft's: it is not touched, and nothing goes on.
pub fn check_foreign(disk: &dyn Disk, data: &Path) -> Result<()> {
    for entry in disk.read_dir("gather.check", data)? {
        if entry.name != OWN_DIR.as_bytes() && entry.name != NOTICE.as_bytes() {
            return Err(Error::new(
                Kind::Mismatch,
                "gather.check",
                "this was put into DATA while its own entries were in .weft; move it away and try again",
            )
            .at(&join_bytes(data, &entry.name)));
        }
    }
    Ok(())
}
