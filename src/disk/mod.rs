//! L1: the disk as the core sees it: a handful of operations, each called with its name, so that a test can fail
//! exactly that one, and so that power cuts can be simulated between any two of them.
//!
//! What is promised by an implementation, and assumed by the layers above:
//! - Bytes written are durable after `sync` of the same file returned without error; until then any subset of their
//!   512-byte sectors may survive a power cut. Length changes are durable with the same `sync`.
//! - A created, renamed, linked or removed name is durable after `sync_dir` of its directory (for a rename across
//!   directories: of both). One rename is atomic: a cut shows the old or the new state of it.
//! - After a failed `sync` nothing is known of the bytes it should have covered. Trying again proves nothing: it may succeed
//!   and the bytes be lost.

pub mod buffer;
pub mod os;
pub mod sim;

use crate::error::Result;
use crate::sync::Arc;
use crate::types::{Attr, FileKind, Name};
use std::path::Path;

/// The name of an operation, for error messages and fault injection: `journal.group.write`.
pub type Op = &'static str;

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenHow {
    pub write: bool,
    /// Create when absent (with mode 0600).
    pub create: bool,
    /// With `create`: fail with `EEXIST` when present.
    pub exclusive: bool,
    /// Bypass the page cache where the filesystem can: buffers and offsets must be multiples of 4096.
    /// Falls back to buffered I/O where it cannot.
    pub direct: bool,
}

/// `lstat`, with what identifies the file beneath.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    pub attr: Attr,
    pub dev: u64,
    pub ino: u64,
    /// Bytes allocated on the medium.
    pub allocated: u64,
}

/// One entry of a directory; `.` and `..` are never among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    pub name: Name,
    pub kind: FileKind,
}

/// Space and file counts of the filesystem that holds a path, in bytes and files, as `statvfs` gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Which filesystem it is: the same number, the same space.
    pub device: u64,
    pub block_size: u32,
    pub total: u64,
    pub free: u64,
    /// For unprivileged users.
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u32,
    /// Overwriting takes new space before the old is free.
    pub copy_on_write: bool,
}

/// Held while it lives: the exclusive lock on a lock file. Released by the kernel when the process dies.
pub trait Lock: Send + Sync {}

/// A filesystem beneath Weft.
pub trait Disk: Send + Sync {
    /// Opens a regular file; never follows a symlink in the last component.
    fn open(&self, op: Op, path: &Path, how: OpenHow) -> Result<Arc<dyn DiskFile>>;
    /// `lstat`; `None` when there is no such name.
    fn stat(&self, op: Op, path: &Path) -> Result<Option<Stat>>;
    /// All entries, unordered.
    fn read_dir(&self, op: Op, path: &Path) -> Result<Vec<DirEntry>>;
    fn create_dir(&self, op: Op, path: &Path, mode: u32) -> Result<()>;
    fn remove_dir(&self, op: Op, path: &Path) -> Result<()>;
    /// Replaces an existing regular target atomically.
    fn rename(&self, op: Op, from: &Path, to: &Path) -> Result<()>;
    fn link(&self, op: Op, existing: &Path, new: &Path) -> Result<()>;
    /// Makes `new`, a file with the bytes of `existing` that shares their space until one of the two is written
    /// (`FICLONE`). Its bytes are durable after a `sync` of it, as if they had been written. `false`: the filesystem
    /// cannot; then there is no `new`. `EEXIST` when it is there already.
    fn reflink(&self, op: Op, existing: &Path, new: &Path) -> Result<bool>;
    fn unlink(&self, op: Op, path: &Path) -> Result<()>;
    /// Unlinks a file that may be gone already.
    fn unlink_if_there(&self, op: Op, path: &Path) -> Result<()> {
        match self.unlink(op, path) {
            Err(error) if error.is(libc::ENOENT) => Ok(()),
            other => other,
        }
    }
    fn symlink(&self, op: Op, target: &[u8], path: &Path) -> Result<()>;
    fn read_link(&self, op: Op, path: &Path) -> Result<Vec<u8>>;
    /// A fifo, socket or device.
    fn make_node(&self, op: Op, path: &Path, attr: &Attr) -> Result<()>;
    /// Sets owner, mode (not of symlinks), atime and mtime of a name to `attr`'s; never follows a symlink.
    fn set_attr(&self, op: Op, path: &Path, attr: &Attr) -> Result<()>;
    /// All extended attributes of a name that this process may read; never follows a symlink.
    fn xattrs(&self, op: Op, path: &Path) -> Result<Vec<(Name, Vec<u8>)>>;
    fn set_xattr(&self, op: Op, path: &Path, name: &[u8], value: &[u8]) -> Result<()>;
    fn remove_xattr(&self, op: Op, path: &Path, name: &[u8]) -> Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, op: Op, path: &Path) -> Result<()>;
    /// The filesystem of `path`, a directory.
    fn filesystem(&self, op: Op, path: &Path) -> Result<Arc<dyn Filesystem>>;
    /// Makes everything on the filesystem of `path` durable (`syncfs`). What failed before, and was told to another, is not
    /// told here.
    fn sync_filesystem(&self, op: Op, path: &Path) -> Result<()> {
        self.filesystem(op, path)?.sync(op)
    }
    fn space(&self, op: Op, path: &Path) -> Result<Space>;
    /// Takes the exclusive lock on a file (created when absent); `None` when another process holds it.
    fn lock(&self, op: Op, path: &Path) -> Result<Option<Box<dyn Lock>>>;
}

/// A filesystem that is held on to.
pub trait Filesystem: Send + Sync {
    /// Makes everything on it durable. What could not be written since it is held fails one call, whoever else was told;
    /// after that nothing is known of the bytes that were not durable yet, and the next call may succeed.
    fn sync(&self, op: Op) -> Result<()>;
}

/// An open file. Operations at positions only; shared by threads.
pub trait DiskFile: Send + Sync {
    /// Reads until `buf` is full or the file ends; the number of bytes read.
    fn read_at(&self, op: Op, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes all of `buf`.
    fn write_at(&self, op: Op, buf: &[u8], offset: u64) -> Result<()>;
    /// Writes all of `buf` and makes it durable with everything written to the file before.
    fn write_durable(&self, op: Op, buf: &[u8], offset: u64) -> Result<()> {
        self.write_at(op, buf, offset)?;
        self.sync(op)
    }
    /// Writes `parts` one after the other; with `durable`, as [`DiskFile::write_durable`].
    fn write_parts(&self, op: Op, parts: &[&[u8]], offset: u64, durable: bool) -> Result<()> {
        let mut at = offset;
        for part in parts {
            self.write_at(op, part, at)?;
            at += part.len() as u64;
        }
        if durable { self.sync(op) } else { Ok(()) }
    }
    /// `fdatasync`: bytes and length are durable.
    fn sync(&self, op: Op) -> Result<()>;
    fn len(&self, op: Op) -> Result<u64>;
    fn set_len(&self, op: Op, len: u64) -> Result<()>;
    /// The next stretch of bytes at or after `offset` that may differ from zero, as `(start, end)`; `None`: only a hole is
    /// left. What the filesystem does not tell apart is data.
    fn next_data(&self, op: Op, offset: u64) -> Result<Option<(u64, u64)>>;
    /// Makes a range read as zeros, freeing its space where the filesystem can; the length stays.
    fn punch(&self, op: Op, offset: u64, len: u64) -> Result<()>;
    /// Reserves space for a range and extends the length to its end if that is farther.
    fn allocate(&self, op: Op, offset: u64, len: u64) -> Result<()>;
}
