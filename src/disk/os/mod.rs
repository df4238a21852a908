//! The disk of the operating system: Linux system calls, one or few per operation.
//!
//! - Paths are taken as they are. One that *is* an alias prefix (`/proc/self/fd/7`, a magic symlink) is addressed as
//!   `prefix/.`, so that `lstat` and its kin see the directory and not the link.
//! - Errors name the operation and the path as the user knows it: below an alias prefix, the directory it stands for.
//! - Interrupted calls are repeated; short reads and writes are continued.

mod file;
mod meta;
#[cfg(test)]
mod tests;

pub use file::OsFile;

use super::{DirEntry, Disk, DiskFile, Filesystem, Lock, Op, OpenHow, Space, Stat};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::types::{Attr, FileKind};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The real filesystem.
#[derive(Clone, Debug, Default)]
pub struct OsDisk {
    /// (prefix, shown), in the order they were added.
    aliases: Vec<(PathBuf, PathBuf)>,
}

impl OsDisk {
    /// The filesystem without aliases.
    pub fn new() -> OsDisk {
        OsDisk::default()
    }

    /// Shows paths below `prefix` as below `shown` in error messages. `prefix` may be a descriptor's magic link
    /// (`/proc/self/fd/N`). The longest matching prefix counts.
    #[must_use]
    pub fn alias(mut self, prefix: impl Into<PathBuf>, shown: impl Into<PathBuf>) -> OsDisk {
        self.aliases.push((prefix.into(), shown.into()));
        self
    }

    /// The path as the user knows it.
    pub fn shown(&self, path: &Path) -> PathBuf {
        let matching = self
            .aliases
            .iter()
            .filter_map(|(prefix, shown)| Some((prefix, shown, path.strip_prefix(prefix).ok()?)))
            .max_by_key(|(prefix, _, _)| prefix.components().count());
        match matching {
            Some((_, shown, rest)) if rest.as_os_str().is_empty() => shown.clone(),
            Some((_, shown, rest)) => shown.join(rest),
            None => path.to_path_buf(),
        }
    }

    /// The path to give to the kernel: never a magic link itself.
    fn real(&self, path: &Path) -> PathBuf {
        if self.aliases.iter().any(|(prefix, _)| prefix == path) {
            path.join(".")
        } else {
            path.to_path_buf()
        }
    }

    /// Runs `call` on the real path and gives its error a name and a place.
    fn run<T>(&self, op: Op, path: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> Result<T> {
        call(&self.real(path)).map_err(|err| self.error(op, path, &err))
    }

    fn error(&self, op: Op, path: &Path, err: &io::Error) -> Error {
        Error::io(op, &self.shown(path), err)
    }
}

/// `syncfs` tells of what failed since its descriptor was opened.
struct OsFilesystem {
    dir: File,
    shown: PathBuf,
}

impl Filesystem for OsFilesystem {
    fn sync(&self, op: Op) -> Result<()> {
        meta::syncfs(&self.dir).map_err(|err| Error::io(op, &self.shown, &err))
    }
}

impl Disk for OsDisk {
    fn open(&self, op: Op, path: &Path, how: OpenHow) -> Result<Arc<dyn DiskFile>> {
        let file = self.run(op, path, |real| file::open(real, how))?;
        Ok(Arc::new(OsFile::new(file, self.shown(path), how.direct)))
    }

    fn stat(&self, op: Op, path: &Path) -> Result<Option<Stat>> {
        match self.run(op, path, meta::lstat) {
            Ok(stat) => Ok(Some(stat)),
            Err(err) if err.is(libc::ENOENT) || err.is(libc::ENOTDIR) => Ok(None),
            Err(err) => Err(err),
        }
    }

    fn read_dir(&self, op: Op, path: &Path) -> Result<Vec<DirEntry>> {
        self.run(op, path, list)
    }

    fn create_dir(&self, op: Op, path: &Path, mode: u32) -> Result<()> {
        self.run(op, path, |real| {
            fs::DirBuilder::new().mode(mode).create(real)?;
            meta::enforce_mode(real, mode)
        })
    }

    fn remove_dir(&self, op: Op, path: &Path) -> Result<()> {
        self.run(op, path, |real| fs::remove_dir(real))
    }

    fn rename(&self, op: Op, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|err| self.two_paths(op, from, to, &err))
    }

    fn link(&self, op: Op, existing: &Path, new: &Path) -> Result<()> {
        // std's hard_link is linkat without AT_SYMLINK_FOLLOW: the link itself is linked.
        fs::hard_link(existing, new).map_err(|err| self.two_paths(op, existing, new, &err))
    }

    fn reflink(&self, op: Op, existing: &Path, new: &Path) -> Result<bool> {
        file::reflink(&self.real(existing), &self.real(new))
            .map_err(|err| self.two_paths(op, existing, new, &err))
    }

    fn unlink(&self, op: Op, path: &Path) -> Result<()> {
        self.run(op, path, |real| fs::remove_file(real))
    }

    fn symlink(&self, op: Op, target: &[u8], path: &Path) -> Result<()> {
        let target = std::ffi::OsStr::from_bytes(target);
        self.run(op, path, |real| std::os::unix::fs::symlink(target, real))
    }

    fn read_link(&self, op: Op, path: &Path) -> Result<Vec<u8>> {
        self.run(op, path, |real| Ok(fs::read_link(real)?.into_os_string().into_vec()))
    }

    fn make_node(&self, op: Op, path: &Path, attr: &Attr) -> Result<()> {
        self.run(op, path, |real| meta::make_node(real, attr))
    }

    fn set_attr(&self, op: Op, path: &Path, attr: &Attr) -> Result<()> {
        self.run(op, path, |real| meta::set_attr(real, attr))
    }

    fn xattrs(&self, op: Op, path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.run(op, path, meta::xattrs)
    }

    fn set_xattr(&self, op: Op, path: &Path, name: &[u8], value: &[u8]) -> Result<()> {
        self.run(op, path, |real| meta::set_xattr(real, name, value))
    }

    fn remove_xattr(&self, op: Op, path: &Path, name: &[u8]) -> Result<()> {
        self.run(op, path, |real| meta::remove_xattr(real, name))
    }

    fn sync_dir(&self, op: Op, path: &Path) -> Result<()> {
        self.run(op, path, |real| open_dir(real)?.sync_all())
    }

    fn filesystem(&self, op: Op, path: &Path) -> Result<Arc<dyn Filesystem>> {
        let dir = self.run(op, path, open_dir)?;
        Ok(Arc::new(OsFilesystem { dir, shown: self.shown(path) }))
    }

    fn space(&self, op: Op, path: &Path) -> Result<Space> {
        self.run(op, path, meta::space)
    }

    fn lock(&self, op: Op, path: &Path) -> Result<Option<Box<dyn Lock>>> {
        let held = self.run(op, path, take_lock)?;
        Ok(held.map(|file| Box::new(OsLock { _file: file }) as Box<dyn Lock>))
    }
}

impl OsDisk {
    /// An error of an operation on two names: which of them is at fault the kernel does not say, so both are shown.
    fn two_paths(&self, op: Op, from: &Path, to: &Path, err: &io::Error) -> Error {
        let mut error = self.error(op, from, err);
        error.message = format!("{err} (to {})", self.shown(to).display());
        error
    }
}

/// An open, flocked file: closing it releases the lock.
struct OsLock {
    _file: File,
}

impl Lock for OsLock {}

/// Takes the lock; `None` when another holds it.
fn take_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        if !meta::try_flock(&file)? {
            return Ok(None);
        }
        // Someone may have removed or replaced the file before it was locked: a lock on a nameless file excludes
        // nobody.
        let ours = file.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {
                return Ok(Some(file));
            }
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
}

/// A directory, to be synced. Follows a link, as an alias prefix may be one.
fn open_dir(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            // On filesystems without d_type this is an lstat, and the name may be gone meanwhile.
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            Err(err) => return Err(err),
        };
        entries.push(DirEntry { name: entry.file_name().into_vec(), kind: kind_of(kind) });
    }
    Ok(entries)
}

fn kind_of(kind: fs::FileType) -> FileKind {
    if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else if kind.is_char_device() {
        FileKind::CharDevice
    } else if kind.is_block_device() {
        FileKind::BlockDevice
    } else {
        FileKind::Regular
    }
}
