//! The kernel's types and the core's, one into the other.

use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use weft::engine::SetTime;
use weft::error::{Error, Kind};
use weft::types::{Attr, FileKind, FileTime};

/// How long the kernel may believe what it was told of a live name or file: nothing else changes these files, and
/// after its own writes, links and removals the kernel asks again by itself (fs/fuse: `fuse_invalidate_attr_mask`,
/// `fuse_dir_changed`).
pub const LIVE_TTL: Duration = Duration::from_secs(3_600);
/// Views never change.
pub const VIEW_TTL: Duration = Duration::from_secs(365 * 86_400);

/// How long attributes of a live file hold. A write by an ordinary user clears setuid and setgid here, and the kernel
/// does not learn of that.
pub fn live_attr_ttl(attr: &FileAttr) -> Duration {
    if attr.perm & 0o6000 == 0 { LIVE_TTL } else { Duration::ZERO }
}

pub fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind in the mode of a MKNOD; zero means a regular file (mknod(2)).
pub fn kind_of_mode(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(FileKind::Regular),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        _ => None,
    }
}

pub fn file_attr(ino: INodeNo, attr: &Attr) -> FileAttr {
    FileAttr {
        ino,
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: to_system(attr.atime),
        mtime: to_system(attr.mtime),
        ctime: to_system(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or(0),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: 4096,
        flags: 0,
    }
}

fn to_system(time: FileTime) -> SystemTime {
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let whole = if time.secs >= 0 { UNIX_EPOCH.checked_add(secs) } else { UNIX_EPOCH.checked_sub(secs) };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// A time that the kernel sent. Before 1970 fuser 0.18 subtracts the nanoseconds where it should add them
/// (`system_time_from_time`); reading seconds and nanoseconds apart again gives what the kernel meant.
pub fn from_system(time: SystemTime) -> FileTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            FileTime { secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), nanos: after.subsec_nanos() }
        }
        Err(before) => FileTime {
            secs: i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |secs| -secs),
            nanos: before.duration().subsec_nanos(),
        },
    }
}

pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(from_system(time)),
    }
}

/// Logs what should not happen, at most once a second for each operation.
#[derive(Default)]
pub struct Complaints(Mutex<HashMap<&'static str, Instant>>);

/// What programs provoke every day; no reason for a line in the log.
const EVERYDAY: [i32; 20] = [
    libc::ENOENT,
    libc::EEXIST,
    libc::ENOTEMPTY,
    libc::ENOTDIR,
    libc::EISDIR,
    libc::ENODATA,
    libc::ERANGE,
    libc::ENXIO,
    libc::EPERM,
    libc::EACCES,
    libc::EXDEV,
    libc::EROFS,
    libc::ESTALE,
    libc::EINVAL,
    libc::ENAMETOOLONG,
    libc::EOPNOTSUPP,
    libc::EMLINK,
    libc::ELOOP,
    libc::EFBIG,
    libc::E2BIG,
];

impl Complaints {
    /// The errno of an error, after saying so in the log where it is news.
    pub fn errno(&self, error: &Error) -> Errno {
        let everyday = matches!(error.kind, Kind::Os(errno) if EVERYDAY.contains(&errno));
        if !everyday && self.due(error.op) {
            tracing::warn!("{error}");
        }
        Errno::from_i32(error.to_errno())
    }

    fn due(&self, op: &'static str) -> bool {
        let mut last = self.0.lock();
        let now = Instant::now();
        let due = last.get(op).is_none_or(|last| now.duration_since(*last) >= Duration::from_secs(1));
        if due {
            last.insert(op, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_out() {
        for (secs, nanos) in [(0, 0), (1, 999_999_999), (-1, 0), (1 << 40, 5)] {
            let time = FileTime { secs, nanos };
            assert_eq!(from_system(to_system(time)), time);
        }
        to_system(FileTime { secs: i64::MAX, nanos: 999_999_999 });
        to_system(FileTime { secs: i64::MIN, nanos: 0 });
    }

    #[test]
    fn times_before_1970_are_read_as_the_kernel_meant_them() {
        // What fuser makes of (-1 s, 250 ms).
        let sent = UNIX_EPOCH - Duration::new(1, 250_000_000);
        assert_eq!(from_system(sent), FileTime { secs: -1, nanos: 250_000_000 });
    }

    #[test]
    fn complaints_are_rationed() {
        let complaints = Complaints::default();
        assert!(complaints.due("a") && !complaints.due("a") && complaints.due("b"));
    }
}
