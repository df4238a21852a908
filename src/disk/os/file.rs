//! An open regular file.
//!
//! `RWF_DSYNC` covers the bytes of its own call only: the kernel syncs that range, or writes it through with FUA and
//! flushes nothing (fs/iomap/direct-io.c). The contract of `write_durable` covers what was written before, too. So a
//! handle counts its writes, and the one-call path is taken only when all earlier ones are known to be synced. A fresh
//! handle does not know what others wrote before it was opened: its first durable write is a write and a fdatasync.

use super::meta::retry;
use crate::disk::{DiskFile, Op, OpenHow};
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::types::PAGE_LEN;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A regular file opened by [`super::OsDisk`].
///
/// Writes made at the same time through *another* handle of the same file are covered by `sync`, not by
/// `write_durable`.
pub struct OsFile {
    pub(super) file: File,
    shown: PathBuf,
    /// Offsets and lengths keep to whole pages, also when an operation has to be continued in the middle.
    direct: bool,
    /// Writes that have ended, and how many of them are known to be durable.
    written: AtomicU64,
    synced: AtomicU64,
    /// False once the kernel said that it has no `RWF_DSYNC` here.
    one_call: AtomicBool,
}

/// Opens a regular file, and nothing else.
pub(super) fn open(path: &Path, how: OpenHow) -> io::Result<File> {
    let mut flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    // std refuses to create without write access, and the contract does not ask for it.
    if how.create {
        flags |= libc::O_CREAT | if how.exclusive { libc::O_EXCL } else { 0 };
    }
    let file = OpenOptions::new().read(true).write(how.write).mode(0o600).custom_flags(flags).open(path)?;
    let kind = file.metadata()?;
    if kind.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !kind.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if how.direct {
        // Not at open(2): there a refusal comes after O_CREAT|O_EXCL has made the file.
        match set_flags(&file, libc::O_DIRECT) {
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {}
            other => other?,
        }
    }
    Ok(file)
}

/// A new file that shares the space of another; `false` where the filesystem cannot (ioctl_ficlone(2)).
pub(super) fn reflink(existing: &Path, new: &Path) -> io::Result<bool> {
    const CANNOT: [i32; 5] = [libc::EOPNOTSUPP, libc::EINVAL, libc::ENOTTY, libc::EXDEV, libc::ENOSYS];
    let source = open(existing, OpenHow::default())?;
    let how = OpenHow { write: true, create: true, exclusive: true, direct: false };
    let target = open(new, how)?;
    // SAFETY: both descriptors are open for as long as the call lasts; FICLONE takes one as its argument.
    let done = retry(|| unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE as _, source.as_raw_fd()) });
    match done {
        Ok(_) => {
            unshare_in_blocks(&target);
            Ok(true)
        }
        Err(err) => {
            std::fs::remove_file(new)?;
            match err.raw_os_error() {
                Some(errno) if CANNOT.contains(&errno) => Ok(false),
                _ => Err(err),
            }
        }
    }
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// XFS takes 128 KiB for each write into shared space, and gives the rest back when it likes: with one page in a hundred
/// written, three copies took 1.30 of one. Told so, it takes what is written (xfs_io(8), cowextsize). Other filesystems
/// do not know of it, and need not.
fn unshare_in_blocks(file: &File) {
    const GET: libc::c_ulong = 0x801c_581f;
    const SET: libc::c_ulong = 0x401c_5820;
    const HAS_COW_EXTENT_SIZE: u32 = 0x0001_0000;
    let mut attr = FsXattr::default();
    // SAFETY: the descriptor is open, and GET fills a struct of exactly this layout.
    if unsafe { libc::ioctl(file.as_raw_fd(), GET as _, &raw mut attr) } != 0 {
        return;
    }
    attr.flags |= HAS_COW_EXTENT_SIZE;
    attr.cow_extent_size = PAGE_LEN as u32;
    // SAFETY: as above; SET reads it. Refused, all is as before.
    unsafe { libc::ioctl(file.as_raw_fd(), SET as _, &raw const attr) };
}

const _: () = assert!(size_of::<FsXattr>() == 28, "the ioctls carry this size");

fn set_flags(file: &File, flags: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed; F_SETFL takes an int.
    retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) })?;
    Ok(())
}

impl OsFile {
    pub(super) fn new(file: File, shown: PathBuf, direct: bool) -> OsFile {
        OsFile {
            file,
            shown,
            direct,
            written: AtomicU64::new(1),
            synced: AtomicU64::new(0),
            one_call: AtomicBool::new(true),
        }
    }

    fn error(&self, op: Op, err: &io::Error) -> Error {
        Error::io(op, &self.shown, err)
    }

    fn error_at(&self, op: Op, offset: u64, err: &io::Error) -> Error {
        self.error(op, err).offset(offset)
    }

    /// Where to go on after `done` bytes: direct I/O only at whole pages.
    fn resume(&self, done: usize) -> usize {
        if self.direct { done - done % PAGE_LEN } else { done }
    }

    /// Writes all of `buf` with `write`, which may write less.
    pub(super) fn write_all(
        &self,
        buf: &[u8],
        offset: u64,
        mut write: impl FnMut(&[u8], u64) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match write(&buf[done..], offset + done as u64) {
                Ok(count) if done + count >= buf.len() => return Ok(()),
                Ok(count) => {
                    let next = self.resume(done + count);
                    if next == done {
                        return Err(io::Error::from_raw_os_error(libc::EIO));
                    }
                    done = next;
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Marks that bytes or the length changed. After the change and before the caller hears of it: then whoever
    /// finds all writes synced knows that every write that has returned is.
    fn changed<T>(&self, result: T) -> T {
        self.written.fetch_add(1, Ordering::SeqCst);
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let covered = self.written.load(Ordering::SeqCst);
        self.file.sync_data()?;
        self.synced.fetch_max(covered, Ordering::SeqCst);
        Ok(())
    }

    fn all_synced(&self) -> bool {
        self.synced.load(Ordering::SeqCst) == self.written.load(Ordering::SeqCst)
    }

    /// `pwritev2(RWF_DSYNC)` of all of `buf`; false when the kernel cannot.
    fn write_dsync(&self, buf: &[u8], offset: u64) -> io::Result<bool> {
        match self.write_all(buf, offset, |part, at| pwrite_dsync(&self.file, part, at)) {
            Ok(()) => Ok(true),
            Err(err) if matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                self.one_call.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(err) => Err(err),
        }
    }

    fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        let (offset, len) = (to_off(offset)?, to_off(len)?);
        // SAFETY: the descriptor is open for as long as self is borrowed.
        retry(|| unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, len) })?;
        Ok(())
    }

    /// Zeros for a filesystem that cannot punch; never beyond the file's end.
    pub(super) fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let end = offset.saturating_add(len).min(self.file.metadata()?.len());
        // A direct handle cannot write a range that ends with the file in the middle of a page.
        let buffered =
            OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let file = if self.direct { &buffered? } else { &self.file };
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZEROS.len() as u64);
            file.write_all_at(&ZEROS[..usize::try_from(step).unwrap_or(0)], at)?;
            at += step;
        }
        Ok(())
    }

    /// `lseek` for data or a hole; `None`: there is none. It moves the descriptor's position, which nothing here uses.
    fn seek(&self, offset: u64, whence: i32) -> io::Result<Option<u64>> {
        let offset = to_off(offset)?;
        // SAFETY: the descriptor is open for as long as self is borrowed.
        match retry(|| unsafe { libc::lseek(self.file.as_raw_fd(), offset, whence) }) {
            Ok(found) => Ok(Some(u64::try_from(found).unwrap_or(0))),
            Err(err) if err.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(err) => Err(err),
        }
    }

    fn extend_to(&self, end: u64) -> io::Result<()> {
        if self.file.metadata()?.len() < end {
            self.file.set_len(end)?;
        }
        Ok(())
    }
}

fn to_off(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// Whether the filesystem does not know this kind of `fallocate`.
fn unsupported(result: &io::Result<()>) -> bool {
    matches!(result, Err(err) if matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)))
}

fn pwrite_dsync(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
    pwrite_parts(file, &[buf], offset, libc::RWF_DSYNC)
}

/// `pwritev2` of several buffers; the bytes written, which may be fewer.
fn pwrite_parts(file: &File, parts: &[&[u8]], offset: u64, flags: i32) -> io::Result<usize> {
    let offset = to_off(offset)?;
    let parts: Vec<libc::iovec> = parts
        .iter()
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
        .collect();
    let count = i32::try_from(parts.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the iovecs describe the parts, which the kernel only reads and which outlive the call.
    let count =
        retry(|| unsafe { libc::pwritev2(file.as_raw_fd(), parts.as_ptr(), count, offset, flags) as i64 })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

impl DiskFile for OsFile {
    fn read_at(&self, op: Op, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            match self.file.read_at(&mut buf[done..], at) {
                Ok(0) => break,
                // A direct read that stops within a page has met the file's end, and cannot go on from there.
                Ok(count) if self.direct && count % PAGE_LEN != 0 => return Ok(done + count),
                Ok(count) => done += count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(self.error_at(op, at, &err)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, op: Op, buf: &[u8], offset: u64) -> Result<()> {
        let result = self.write_all(buf, offset, |part, at| self.file.write_at(part, at));
        self.changed(result).map_err(|err| self.error_at(op, offset, &err))
    }

    fn write_durable(&self, op: Op, buf: &[u8], offset: u64) -> Result<()> {
        if self.all_synced() && self.one_call.load(Ordering::Relaxed) {
            match self.write_dsync(buf, offset) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(err) => return Err(self.changed(self.error_at(op, offset, &err))),
            }
        }
        self.write_at(op, buf, offset)?;
        self.sync_data().map_err(|err| self.error_at(op, offset, &err))
    }

    fn write_parts(&self, op: Op, parts: &[&[u8]], offset: u64, durable: bool) -> Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let one_call = durable && self.all_synced() && self.one_call.load(Ordering::Relaxed);
        let flags = if one_call { libc::RWF_DSYNC } else { 0 };
        match pwrite_parts(&self.file, parts, offset, flags) {
            Ok(count) if count == total && one_call => return Ok(()),
            Ok(count) if count == total => {
                self.changed(());
                return if durable { self.sync(op) } else { Ok(()) };
            }
            // Short, or not to be had in one call: part by part, with its own handling of both.
            Ok(_) => {}
            Err(err) if matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                self.one_call.store(false, Ordering::Relaxed);
            }
            Err(err) => return Err(self.changed(self.error_at(op, offset, &err))),
        }
        let mut at = offset;
        for part in parts {
            self.write_at(op, part, at)?;
            at += part.len() as u64;
        }
        if durable { self.sync(op) } else { Ok(()) }
    }

    fn sync(&self, op: Op) -> Result<()> {
        self.sync_data().map_err(|err| self.error(op, &err))
    }

    fn len(&self, op: Op) -> Result<u64> {
        match self.file.metadata() {
            Ok(meta) => Ok(meta.len()),
            Err(err) => Err(self.error(op, &err)),
        }
    }

    fn next_data(&self, op: Op, offset: u64) -> Result<Option<(u64, u64)>> {
        let found = || -> io::Result<Option<(u64, u64)>> {
            let Some(start) = self.seek(offset, libc::SEEK_DATA)? else { return Ok(None) };
            // The end of the file is a hole, unless it was cut in between.
            Ok(self.seek(start, libc::SEEK_HOLE)?.map(|end| (start, end)))
        };
        match found() {
            // No such call here (lseek(2)): all of it is data.
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {
                let len = self.len(op)?;
                Ok((offset < len).then_some((offset, len)))
            }
            other => other.map_err(|err| self.error_at(op, offset, &err)),
        }
    }

    fn set_len(&self, op: Op, len: u64) -> Result<()> {
        self.changed(self.file.set_len(len)).map_err(|err| self.error_at(op, len, &err))
    }

    fn punch(&self, op: Op, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let mut result = self.fallocate(mode, offset, len);
        if unsupported(&result) {
            result = self.write_zeros(offset, len);
        }
        self.changed(result).map_err(|err| self.error_at(op, offset, &err))
    }

    fn allocate(&self, op: Op, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mut result = self.fallocate(0, offset, len);
        if unsupported(&result) {
            result = self.extend_to(offset.saturating_add(len));
        }
        self.changed(result).map_err(|err| self.error_at(op, offset, &err))
    }
}
