//! What the filesystem beneath can hold: what it could not take at the unmount is refused now, with its own errno.
//!
//! It is asked by doing it, on a file of Weft's own that goes at once: limits of extended attributes differ between
//! filesystems (ext4 keeps those of a file in one block), and only the kernel knows which owners a daemon without
//! privilege may give.

use super::Live;
use crate::disk::OpenHow;
use crate::error::{Error, Result};
use crate::types::{Attr, FileKind, FileTime, RootId};
use std::path::Path;

/// Beside the live files, which have numbers for names.
const PROBE: &str = "probe";
/// Extended attributes that every filesystem which has any takes: together no longer than this, in bytes.
const SMALL: usize = 512;
/// What each costs beside name and value, at most.
const OVERHEAD: usize = 32;

impl Live {
    /// Whether all these extended attributes fit one file.
    pub(super) fn check_xattrs<'a>(
        &self,
        (root, kind): (RootId, FileKind),
        xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<()> {
        let len: usize = xattrs.clone().map(|(name, value)| name.len() + value.len() + OVERHEAD).sum();
        if len <= SMALL {
            return Ok(());
        }
        self.on_probe(root, kind, |path| {
            xattrs
                .clone()
                .try_for_each(|(name, value)| self.disk.set_xattr("live.probe.xattr", path, name, value))
        })
    }

    /// Whether files of a root can belong to this owner.
    pub(super) fn check_ownable(&self, root: RootId, uid: u32, gid: u32) -> Result<()> {
        if self.limits.privileged || self.ownable.lock().contains(&(root, uid, gid)) {
            return Ok(());
        }
        self.on_probe(root, FileKind::Regular, |path| {
            let time = FileTime::default();
            let (kind, mode) = (FileKind::Regular, 0o600);
            let attr = Attr {
                kind,
                mode,
                uid,
                gid,
                rdev: 0,
                nlink: 1,
                size: 0,
                atime: time,
                mtime: time,
                ctime: time,
            };
            self.disk.set_attr("live.probe.owner", path, &attr)
        })?;
        self.ownable.lock().insert((root, uid, gid));
        Ok(())
    }

    /// Device nodes need privilege also when they are put back into DATA.
    pub(super) fn check_kind(&self, kind: FileKind) -> Result<()> {
        let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        if device && !self.limits.privileged { Err(Error::errno("live.mknod", libc::EPERM)) } else { Ok(()) }
    }

    /// Tries something on a file that is made for it. One that a crash leaves goes as an orphan.
    fn on_probe(
        &self,
        root: RootId,
        kind: FileKind,
        attempt: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let _one_at_a_time = self.ownable.lock();
        let path = self.paths.root(root)?.live_dir().join(PROBE);
        let is_dir = kind == FileKind::Directory;
        if is_dir {
            self.disk.create_dir("live.probe", &path, 0o700)?;
        } else {
            let how = OpenHow { write: true, create: true, ..OpenHow::default() };
            self.disk.open("live.probe", &path, how)?;
        }
        let answer = attempt(&path);
        match is_dir {
            true => self.disk.remove_dir("live.probe", &path)?,
            false => self.disk.unlink("live.probe", &path)?,
        }
        answer
    }
}
