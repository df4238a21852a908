//! Attributes, extended attributes, nodes, space, locks: the calls that std does not have.

use crate::disk::{Space, Stat};
use crate::types::{Attr, FileKind, FileTime, Name};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{self, FchmodatFlags, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Repeats a call that returns -1 and `EINTR`.
pub(super) fn retry<T: Into<i64> + Copy>(mut call: impl FnMut() -> T) -> io::Result<T> {
    loop {
        let result = call();
        if result.into() >= 0 {
            return Ok(result);
        }
        let err = io::Error::last_os_error();
        if err.kind() != io::ErrorKind::Interrupted {
            return Err(err);
        }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    c_bytes(path.as_os_str().as_bytes())
}

/// Bytes with a NUL inside cannot be told to the kernel.
fn c_bytes(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

pub(super) fn lstat(path: &Path) -> io::Result<Stat> {
    let raw = stat::lstat(path)?;
    let kind = match raw.st_mode & libc::S_IFMT {
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFLNK => FileKind::Symlink,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFCHR => FileKind::CharDevice,
        libc::S_IFBLK => FileKind::BlockDevice,
        _ => FileKind::Regular,
    };
    let has_size = matches!(kind, FileKind::Regular | FileKind::Symlink);
    Ok(Stat {
        attr: Attr {
            kind,
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            // glibc widens the kernel's 32-bit number (12-bit major) without moving its bits.
            rdev: u32::try_from(raw.st_rdev & 0xffff_ffff).unwrap_or(0),
            nlink: u32::try_from(raw.st_nlink).unwrap_or(u32::MAX),
            size: if has_size { unsigned(raw.st_size) } else { 0 },
            atime: time(raw.st_atime, raw.st_atime_nsec),
            mtime: time(raw.st_mtime, raw.st_mtime_nsec),
            ctime: time(raw.st_ctime, raw.st_ctime_nsec),
        },
        dev: raw.st_dev,
        ino: raw.st_ino,
        allocated: unsigned(raw.st_blocks) * 512,
    })
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn time(secs: i64, nanos: i64) -> FileTime {
    FileTime { secs, nanos: u32::try_from(nanos).unwrap_or(0) }
}

/// Owner, then mode (a change of owner clears setuid and setgid), then times. What is right already is left alone, so
/// that an unprivileged process does not fail at what it need not do.
pub(super) fn set_attr(path: &Path, attr: &Attr) -> io::Result<()> {
    let now = lstat(path)?.attr;
    let uid = (now.uid != attr.uid).then(|| Uid::from_raw(attr.uid));
    let gid = (now.gid != attr.gid).then(|| Gid::from_raw(attr.gid));
    let chown = uid.is_some() || gid.is_some();
    if chown {
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::unistd::fchownat(AT_FDCWD, path, uid, gid, flags)?;
    }
    if now.kind != FileKind::Symlink && (chown || now.mode != attr.mode) {
        chmod(path, attr.mode)?;
    }
    if (now.atime, now.mtime) != (attr.atime, attr.mtime) {
        let flags = UtimensatFlags::NoFollowSymlink;
        stat::utimensat(AT_FDCWD, path, &spec(attr.atime), &spec(attr.mtime), flags)?;
    }
    Ok(())
}

fn spec(time: FileTime) -> TimeSpec {
    TimeSpec::new(time.secs, i64::from(time.nanos))
}

fn chmod(path: &Path, mode: u32) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(mode);
    match stat::fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink) {
        // An old kernel without /proc cannot do it; the caller has seen that this is not a symlink.
        Err(nix::Error::EOPNOTSUPP) => {
            stat::fchmodat(AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink)?;
        }
        other => other?,
    }
    Ok(())
}

/// Undoes what umask took from the mode of a name just made.
pub(super) fn enforce_mode(path: &Path, mode: u32) -> io::Result<()> {
    if lstat(path)?.attr.mode == mode & 0o7777 {
        return Ok(());
    }
    chmod(path, mode & 0o7777)
}

pub(super) fn make_node(path: &Path, attr: &Attr) -> io::Result<()> {
    let kind = match attr.kind {
        FileKind::Fifo => SFlag::S_IFIFO,
        FileKind::Socket => SFlag::S_IFSOCK,
        FileKind::CharDevice => SFlag::S_IFCHR,
        FileKind::BlockDevice => SFlag::S_IFBLK,
        FileKind::Regular | FileKind::Directory | FileKind::Symlink => {
            return Err(errno(libc::EINVAL));
        }
    };
    let mode = Mode::from_bits_truncate(attr.mode);
    stat::mknod(path, kind, mode, u64::from(attr.rdev))?;
    enforce_mode(path, attr.mode)
}

pub(super) fn xattrs(path: &Path) -> io::Result<Vec<(Name, Vec<u8>)>> {
    let path = c_path(path)?;
    let list = match sized(|buf: &mut [u8]| {
        // SAFETY: path is a C string; buf is valid for writes of its length for the call.
        unsafe { libc::llistxattr(path.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) }
    }) {
        Ok(list) => list,
        Err(err) if err.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(err) => return Err(err),
    };
    let mut found = Vec::new();
    for name in list.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let c_name = c_bytes(name)?;
        let value = sized(|buf: &mut [u8]| {
            // SAFETY: path and name are C strings; buf is valid for writes of its length for the call.
            unsafe { libc::lgetxattr(path.as_ptr(), c_name.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) }
        });
        match value {
            Ok(value) => found.push((name.to_vec(), value)),
            // Gone meanwhile, or not for this process: not among those it may read.
            Err(err) if unreadable(&err) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(found)
}

fn unreadable(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::ENODATA | libc::EACCES | libc::EPERM | libc::EOPNOTSUPP))
}

/// Calls with a buffer that is large enough: the size may change between asking for it and reading.
fn sized(mut call: impl FnMut(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; 256];
    loop {
        match retry(|| call(&mut buf) as i64) {
            Ok(len) => {
                buf.truncate(usize::try_from(len).unwrap_or(0));
                return Ok(buf);
            }
            // The kernel limits both lists and values to 64 KiB; E2BIG follows when that is passed.
            Err(err) if err.raw_os_error() == Some(libc::ERANGE) && buf.len() < 1 << 20 => {
                buf.resize(buf.len() * 4, 0);
            }
            Err(err) => return Err(err),
        }
    }
}

pub(super) fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let (path, name) = (c_path(path)?, c_bytes(name)?);
    retry(|| {
        // SAFETY: path and name are C strings; value is valid for reads of its length.
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }
    })?;
    Ok(())
}

pub(super) fn remove_xattr(path: &Path, name: &[u8]) -> io::Result<()> {
    let (path, name) = (c_path(path)?, c_bytes(name)?);
    // SAFETY: both are C strings that outlive the call.
    retry(|| unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) })?;
    Ok(())
}

pub(super) fn syncfs(dir: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `dir` is borrowed.
    retry(|| unsafe { libc::syncfs(dir.as_raw_fd()) })?;
    Ok(())
}

/// `flock(LOCK_EX | LOCK_NB)`; false when another open file holds it.
pub(super) fn try_flock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    match retry(|| unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(err) => Err(err),
    }
}

pub(super) fn space(path: &Path) -> io::Result<Space> {
    let raw = nix::sys::statvfs::statvfs(path)?;
    let copy_on_write =
        nix::sys::statfs::statfs(path)?.filesystem_type() == nix::sys::statfs::BTRFS_SUPER_MAGIC;
    let unit = raw.fragment_size();
    Ok(Space {
        device: std::fs::metadata(path)?.dev(),
        block_size: u32::try_from(unit).unwrap_or(4096),
        total: raw.blocks().saturating_mul(unit),
        free: raw.blocks_free().saturating_mul(unit),
        available: raw.blocks_available().saturating_mul(unit),
        files: raw.files(),
        files_free: raw.files_free(),
        name_max: u32::try_from(raw.name_max()).unwrap_or(255),
        copy_on_write,
    })
}
