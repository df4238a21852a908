//! What the standard library has no calls for: extended attributes, nodes, holes, owners and times without following.

use std::ffi::{CString, OsString};
use std::fs::{File, Metadata};
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::from_raw_os_error(libc::EINVAL))
}

fn done(code: libc::c_int) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// The names of the extended attributes of a file, links not followed; none where there are none.
pub(super) fn xattr_names(path: &Path) -> Result<Vec<OsString>> {
    let path = c_path(path)?;
    let mut names = vec![0u8; 64 << 10];
    // SAFETY: the path is a C string and the buffer has the length that is told.
    let len = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(len) = usize::try_from(len) else {
        let cause = Error::last_os_error();
        return if cause.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(Vec::new()) } else { Err(cause) };
    };
    names.truncate(len);
    let each = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(each.map(|name| OsString::from_vec(name.to_vec())).collect())
}

/// The value of an extended attribute.
pub(super) fn xattr(path: &Path, name: &OsString) -> Result<Vec<u8>> {
    let (path, name) = (c_path(path)?, CString::new(name.as_bytes())?);
    let mut value = vec![0u8; 64 << 10];
    // SAFETY: both are C strings and the buffer has the length that is told.
    let len =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(len).map_err(|_| Error::last_os_error())?);
    Ok(value)
}

/// Sets an extended attribute.
pub(super) fn set_xattr(path: &Path, name: &OsString, value: &[u8]) -> Result<()> {
    let (path, name) = (c_path(path)?, CString::new(name.as_bytes())?);
    // SAFETY: both are C strings and the value has the length that is told.
    done(unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
}

/// Makes a fifo, socket or device.
pub(super) fn make_node(path: &Path, meta: &Metadata) -> Result<()> {
    // SAFETY: the path is a C string.
    done(unsafe { libc::mknod(c_path(path)?.as_ptr(), meta.mode(), meta.rdev()) })
}

/// Owner and group.
pub(super) fn set_owner(path: &Path, meta: &Metadata) -> Result<()> {
    // SAFETY: the path is a C string.
    done(unsafe { libc::lchown(c_path(path)?.as_ptr(), meta.uid(), meta.gid()) })
}

/// Times of access and change of the content.
pub(super) fn set_times(path: &Path, meta: &Metadata) -> Result<()> {
    let times = [
        libc::timespec { tv_sec: meta.atime(), tv_nsec: meta.atime_nsec() },
        libc::timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() },
    ];
    let path = c_path(path)?;
    // SAFETY: the path is a C string, and there are two times.
    done(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) })
}

/// The stretches of `[start, end)` that hold data; all of it where the filesystem does not tell.
pub(super) fn data_ranges(file: &File, start: u64, end: u64) -> Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut at = start;
    while at < end {
        let data = match seek(file, at, libc::SEEK_DATA) {
            Ok(data) => data,
            Err(cause) if cause.raw_os_error() == Some(libc::ENXIO) => break,
            Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => return Ok(vec![(start, end)]),
            Err(cause) => return Err(cause),
        };
        let hole = match seek(file, data, libc::SEEK_HOLE) {
            Ok(hole) => hole,
            Err(cause) if cause.raw_os_error() == Some(libc::ENXIO) => end,
            Err(cause) => return Err(cause),
        };
        if data < end {
            ranges.push((data.max(start), hole.min(end)));
        }
        at = hole;
    }
    Ok(ranges)
}

fn seek(file: &File, at: u64, whence: libc::c_int) -> Result<u64> {
    let at = libc::off_t::try_from(at).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the descriptor is open.
    let found = unsafe { libc::lseek(file.as_raw_fd(), at, whence) };
    u64::try_from(found).map_err(|_| Error::last_os_error())
}

/// What the file will be read for: a whole, or scattered pages of which nothing else may be read.
pub(super) fn advise(file: &File, advice: libc::c_int) {
    // Advice only; SAFETY: the descriptor is open.
    let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) };
}
