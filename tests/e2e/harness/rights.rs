//! Random operations of several users on names, owners, modes, ACLs and times, and all that can be seen after each:
//! the same on a mount and on the disk.

use crate::ops::{Aligned, bytes, store_mapped};
use crate::people::{PEOPLE, Person, SHARED};
use crate::tree::{c_path, names, xattrs};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const PATHS: [&str; 12] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "s", "s/a", "s/b", "t", "t/a"];
const MODES: [u32; 12] =
    [0o644, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o2644, 0o1777, 0o2775, 0o000, 0o640];
/// Explicit times stand before this; what is later is "now".
const EXPLICIT_BEFORE: i64 = 1_500_000_000;
const ACCESS: &CStr = c"system.posix_acl_access";
const DEFAULT: &CStr = c"system.posix_acl_default";

/// What somebody does.
#[derive(Clone, Debug)]
pub struct Deed {
    pub by: usize,
    pub umask: u32,
    pub what: What,
}

/// One system call, or a few.
#[derive(Clone, Debug)]
pub enum What {
    Open {
        path: &'static str,
        flags: i32,
        mode: u32,
    },
    Write {
        path: &'static str,
        flags: i32,
        at: u64,
    },
    Mkdir {
        path: &'static str,
        mode: u32,
    },
    Mknod {
        path: &'static str,
        mode: u32,
        rdev: u64,
    },
    Symlink {
        path: &'static str,
    },
    Link {
        from: &'static str,
        to: &'static str,
    },
    Rename {
        from: &'static str,
        to: &'static str,
        flags: u32,
    },
    Remove {
        path: &'static str,
        dir: bool,
    },
    Chmod {
        path: &'static str,
        mode: u32,
    },
    Chown {
        path: &'static str,
        uid: u32,
        gid: u32,
    },
    Truncate {
        path: &'static str,
        len: i64,
    },
    /// Space for one block, or a hole.
    Allocate {
        path: &'static str,
        flags: i32,
        at: i64,
    },
    Times {
        path: &'static str,
        atime: (i64, i64),
        mtime: (i64, i64),
    },
    SetXattr {
        path: &'static str,
        name: &'static CStr,
        value: Vec<u8>,
        flags: i32,
    },
    RemoveXattr {
        path: &'static str,
        name: &'static CStr,
    },
    GetXattr {
        path: &'static str,
        name: &'static CStr,
    },
    /// Through a shared map.
    Store {
        path: &'static str,
        at: u64,
    },
    List {
        path: &'static str,
    },
    Access {
        path: &'static str,
        mask: i32,
    },
}

/// Draws a deed. Nobody but root makes large things.
pub fn draw(rng: &mut StdRng) -> Deed {
    let by = rng.random_range(0..PEOPLE.len());
    let (path, other) = (pick(rng, &PATHS), pick(rng, &PATHS));
    let mode = pick(rng, &MODES);
    let what = match rng.random_range(0..100) {
        0..13 => What::Open {
            path,
            flags: pick(
                rng,
                &[
                    libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
                    libc::O_WRONLY | libc::O_CREAT,
                    libc::O_RDONLY,
                    libc::O_RDWR,
                    libc::O_WRONLY | libc::O_TRUNC,
                    libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC,
                    libc::O_RDONLY | libc::O_NOFOLLOW,
                    libc::O_RDONLY | libc::O_DIRECTORY,
                    libc::O_RDONLY | libc::O_NOATIME,
                ],
            ),
            mode,
        },
        13..23 => What::Write {
            path,
            flags: pick(rng, &[0, libc::O_APPEND, libc::O_DIRECT]),
            at: rng.random_range(0..3) * 4096,
        },
        23..31 => What::Mkdir { path, mode },
        31..35 => What::Mknod {
            path,
            mode: mode & 0o777
                | pick(rng, &[libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFCHR, libc::S_IFREG, libc::S_IFBLK]),
            rdev: libc::makedev(1, 3),
        },
        35..37 => What::Symlink { path },
        37..41 => What::Link { from: path, to: other },
        41..48 => What::Rename {
            from: path,
            to: other,
            flags: pick(rng, &[0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE]),
        },
        48..52 => What::Remove { path, dir: rng.random_bool(0.4) },
        52..61 => What::Chmod { path, mode },
        61..69 => What::Chown { path, uid: owner(rng), gid: group(rng) },
        // With its writeback cache the kernel moves no times when the size stays: never 0, and hardly ever the same.
        69..73 => What::Truncate { path, len: rng.random_range(1..20_000) },
        73..75 => What::Allocate {
            path,
            flags: pick(
                rng,
                &[0, libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE],
            ),
            at: rng.random_range(0..20) * 4096,
        },
        75..80 => What::Times { path, atime: time(rng), mtime: time(rng) },
        80..89 => set_acl(rng, path),
        89..92 => set_xattr(rng, path),
        92 | 93 => {
            What::RemoveXattr { path, name: pick(rng, &[ACCESS, DEFAULT, c"user.one", c"trusted.one"]) }
        }
        94 => What::GetXattr { path, name: pick(rng, &[ACCESS, c"user.one", c"trusted.one"]) },
        95..97 => What::List { path },
        97 => What::Store { path, at: rng.random_range(0..9_000) },
        _ => What::Access { path, mask: rng.random_range(0..8) },
    };
    // Of others than the owner the kernel asks in this case as it does before a write, and a mount does nothing.
    let by = if matches!(what, What::Chown { uid: u32::MAX, gid: u32::MAX, .. }) { 0 } else { by };
    Deed { by, umask: pick(rng, &[0o022, 0o077, 0, 0o027]), what }
}

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

fn owner(rng: &mut StdRng) -> u32 {
    let person = PEOPLE[rng.random_range(0..PEOPLE.len())].uid;
    pick(rng, &[u32::MAX, u32::MAX, person])
}

fn group(rng: &mut StdRng) -> u32 {
    let person = PEOPLE[rng.random_range(0..PEOPLE.len())].gid;
    pick(rng, &[u32::MAX, SHARED, person])
}

fn time(rng: &mut StdRng) -> (i64, i64) {
    pick(rng, &[(0, libc::UTIME_NOW), (0, libc::UTIME_OMIT), (1_234_567_890, 123_456_789), (-1, 5)])
}

/// A time that a program chose; the present is no time to compare.
fn explicit(secs: i64, nanos: i64) -> Option<(i64, i64)> {
    (secs < EXPLICIT_BEFORE).then_some((secs, nanos))
}

/// Mostly a valid list, with up to two named entries.
fn set_acl(rng: &mut StdRng, path: &'static str) -> What {
    let mut perm = |tag: u16, id: u32| -> Vec<u8> {
        let perm: u16 = rng.random_range(0..8);
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let mut parts = vec![2u32.to_le_bytes().to_vec(), perm(0x01, u32::MAX)];
    let named = perm(0x02, PEOPLE[2].uid);
    let (group, named_group) = (perm(0x04, u32::MAX), perm(0x08, SHARED));
    let (mask, others) = (perm(0x10, u32::MAX), perm(0x20, u32::MAX));
    let shape = rng.random_range(0..10);
    if shape >= 4 {
        parts.push(named);
    }
    parts.push(group);
    if shape >= 7 {
        parts.push(named_group);
    }
    if shape >= 3 {
        parts.push(mask);
    }
    if shape != 9 {
        parts.push(others);
    }
    let name = if rng.random_bool(0.4) { DEFAULT } else { ACCESS };
    What::SetXattr { path, name, value: parts.concat(), flags: 0 }
}

fn set_xattr(rng: &mut StdRng, path: &'static str) -> What {
    // cap_net_bind_service=ep, form 2 (linux/capability.h).
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (name, value) = match rng.random_range(0..4) {
        0 => (c"security.capability", CAPABILITY.to_vec()),
        1 => (c"trusted.one", b"1".to_vec()),
        _ => (c"user.one", bytes(rng.random(), rng.random_range(0..60))),
    };
    What::SetXattr { path, name, value, flags: pick(rng, &[0, libc::XATTR_CREATE, libc::XATTR_REPLACE]) }
}

/// Does a deed below `root`; what it answered.
pub fn attempt(root: &Path, deed: &Deed) -> Result<Vec<u8>, i32> {
    let person: Person = PEOPLE[deed.by];
    person.does(deed.umask, || act(root, &deed.what)).map_err(|error| error.raw_os_error().unwrap_or(-1))
}

fn act(root: &Path, what: &What) -> io::Result<Vec<u8>> {
    let full = |path: &str| root.join(path);
    match what {
        What::Open { path, flags, mode } => {
            open(&full(path), *flags, *mode)?;
            Ok(Vec::new())
        }
        What::Write { path, flags, at } => write(&full(path), *flags, *at).map(|()| Vec::new()),
        What::Allocate { path, flags, at } => {
            let file = open(&full(path), libc::O_WRONLY, 0)?;
            // SAFETY: an open descriptor and plain numbers.
            check(unsafe { libc::fallocate(file.as_raw_fd(), *flags, *at, 4096) })
        }
        What::Store { path, at } => {
            let file = open(&full(path), libc::O_RDWR, 0)?;
            store_mapped(&file, *at, 3).map(|()| Vec::new())
        }
        What::List { path } => {
            let mut found: Vec<_> =
                fs::read_dir(full(path))?.flatten().map(|entry| entry.file_name()).collect();
            found.sort();
            Ok(format!("{found:?}").into_bytes())
        }
        What::GetXattr { path, name } => get_xattr(&c_path(&full(path)), name),
        What::Times { path, atime, .. } if atime.1 != libc::UTIME_OMIT => {
            check(call(root, what))?;
            // Reading moves it on the disk and not on a mount, so it is looked at now or never.
            let meta = fs::symlink_metadata(full(path))?;
            Ok(format!("{:?}", explicit(meta.atime(), meta.atime_nsec())).into_bytes())
        }
        _ => check(call(root, what)),
    }
}

fn open(path: &Path, flags: i32, mode: u32) -> io::Result<File> {
    let access = flags & libc::O_ACCMODE;
    OpenOptions::new()
        .read(access != libc::O_WRONLY)
        .write(access != libc::O_RDONLY)
        .create(flags & libc::O_CREAT != 0 && flags & libc::O_EXCL == 0)
        .create_new(flags & libc::O_EXCL != 0)
        .truncate(flags & libc::O_TRUNC != 0)
        .mode(mode)
        .custom_flags(
            flags & (libc::O_NOFOLLOW | libc::O_DIRECTORY | libc::O_NOATIME | libc::O_DIRECT)
                | libc::O_NONBLOCK,
        )
        .open(path)
}

fn write(path: &Path, flags: i32, at: u64) -> io::Result<()> {
    if flags == libc::O_APPEND {
        let mut file = OpenOptions::new().append(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        return file.write_all(b"appended");
    }
    let file = open(path, libc::O_WRONLY | flags, 0)?;
    match flags {
        libc::O_DIRECT => file.write_all_at(Aligned::filled(7).as_slice(), at),
        _ => file.write_all_at(b"written", at),
    }
}

/// The calls that only succeed or fail.
fn call(root: &Path, what: &What) -> i32 {
    let full = |path: &str| c_path(&root.join(path));
    // SAFETY: every pointer is to a live C string, or to a live value of the right type and length.
    unsafe {
        match what {
            What::Mkdir { path, mode } => libc::mkdir(full(path).as_ptr(), *mode),
            What::Mknod { path, mode, rdev } => libc::mknod(full(path).as_ptr(), *mode, *rdev),
            What::Symlink { path } => libc::symlink(c"a".as_ptr(), full(path).as_ptr()),
            What::Link { from, to } => libc::link(full(from).as_ptr(), full(to).as_ptr()),
            What::Rename { from, to, flags } => {
                let (from, to) = (full(from), full(to));
                libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), *flags)
            }
            What::Remove { path, dir: true } => libc::rmdir(full(path).as_ptr()),
            What::Remove { path, dir: false } => libc::unlink(full(path).as_ptr()),
            What::Chmod { path, mode } => libc::chmod(full(path).as_ptr(), *mode),
            What::Chown { path, uid, gid } => libc::lchown(full(path).as_ptr(), *uid, *gid),
            What::Truncate { path, len } => libc::truncate(full(path).as_ptr(), *len),
            What::Times { path, atime, mtime } => {
                let times = [*atime, *mtime].map(|(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec });
                let nofollow = libc::AT_SYMLINK_NOFOLLOW;
                libc::utimensat(libc::AT_FDCWD, full(path).as_ptr(), times.as_ptr(), nofollow)
            }
            What::SetXattr { path, name, value, flags } => {
                let value_at = value.as_ptr().cast();
                libc::lsetxattr(full(path).as_ptr(), name.as_ptr(), value_at, value.len(), *flags)
            }
            What::RemoveXattr { path, name } => libc::lremovexattr(full(path).as_ptr(), name.as_ptr()),
            What::Access { path, mask } => {
                libc::faccessat(libc::AT_FDCWD, full(path).as_ptr(), *mask, libc::AT_EACCESS)
            }
            _ => unreachable!("not a call that only succeeds or fails"),
        }
    }
}

fn get_xattr(path: &CString, name: &CStr) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 4096];
    // SAFETY: C strings, and a buffer that is passed with its length.
    let len =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(len).map_err(|_| io::Error::last_os_error())?);
    Ok(value)
}

fn check(result: i32) -> io::Result<Vec<u8>> {
    if result == 0 { Ok(Vec::new()) } else { Err(io::Error::last_os_error()) }
}

impl Deed {
    /// Whether it may turn out to change nothing of extended attributes. With its writeback cache the kernel moves the
    /// ctime of a regular file also then.
    pub fn may_set_what_is(&self) -> bool {
        matches!(self.what, What::SetXattr { .. } | What::RemoveXattr { .. })
    }
}

/// What root sees of a tree, a line for each name; and which times moved since the last look.
#[derive(Default)]
pub struct Watch {
    times: BTreeMap<PathBuf, [(i64, i64); 2]>,
}

impl Watch {
    /// Looks at everything below `root`.
    pub fn look(&mut self, root: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        let mut links = BTreeMap::new();
        let before = std::mem::take(&mut self.times);
        self.add(root, Path::new(""), &before, &mut links, &mut lines);
        lines
    }

    fn add(
        &mut self,
        root: &Path,
        path: &Path,
        before: &BTreeMap<PathBuf, [(i64, i64); 2]>,
        links: &mut BTreeMap<u64, PathBuf>,
        lines: &mut Vec<String>,
    ) {
        let full = root.join(path);
        let meta = fs::symlink_metadata(&full).unwrap_or_else(|e| panic!("stat {}: {e}", full.display()));
        let first = links.entry(meta.ino()).or_insert_with(|| path.to_owned()).clone();
        let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
        let moved = before.get(path).map(|before| [before[0] != times[0], before[1] != times[1]]);
        self.times.insert(path.to_owned(), times);
        let size = if meta.is_dir() { 0 } else { meta.size() };
        lines.push(format!(
            "{path:?}: mode {:o} owner {}:{} nlink {} size {size} rdev {:x} first name {first:?} [mtime, ctime] moved \
             {moved:?}, mtime {:?}, xattrs {:x?}",
            meta.permissions().mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.rdev(),
            explicit(meta.mtime(), meta.mtime_nsec()),
            xattrs(&full),
        ));
        if meta.is_dir() {
            for name in names(&full) {
                self.add(root, &path.join(name), before, links, lines);
            }
        }
    }
}
