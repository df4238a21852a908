//! Each operation on a real directory.

use super::*;
use crate::disk::buffer::AlignedBuf;
use crate::types::FileTime;
use std::os::fd::AsRawFd;

const RW: OpenHow = OpenHow { write: true, create: true, exclusive: false, direct: false };

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn attr(disk: &OsDisk, path: &Path) -> Attr {
    disk.stat("t", path).unwrap().unwrap().attr
}

#[test]
fn reads_what_was_written_by_every_way_of_writing() {
    let dir = dir();
    for direct in [false, true] {
        let how = OpenHow { direct, ..RW };
        let path = dir.path().join(format!("f{direct}"));
        let file = OsDisk::new().open("o", &path, how).unwrap();
        let mut page = AlignedBuf::new();
        for (round, at) in [0, 1, 5, 2].into_iter().enumerate() {
            page.clear();
            page.extend_from_slice(&[round as u8 + 1; 4096]);
            if round == 1 {
                file.write_at("w", &page, at * 4096).unwrap();
            } else {
                // The first finds the handle fresh, the others take the path of one call or after a plain write.
                file.write_durable("w", &page, at * 4096).unwrap();
            }
        }
        file.sync("s").unwrap();
        page.extend_from_slice(&[9; 4096]);
        file.write_durable("w", &page, 6 * 4096).unwrap();
        assert_eq!(file.len("l").unwrap(), 8 * 4096);
        file.punch("p", 4096, 4096).unwrap();
        file.set_len("t", 8 * 4096 - 1000).unwrap();
        let mut all = AlignedBuf::new();
        all.resize(16 * 4096);
        assert_eq!(file.read_at("r", &mut all, 0).unwrap(), 8 * 4096 - 1000);
        let firsts: Vec<u8> = all.chunks(4096).take(8).map(|page| page[0]).collect();
        assert_eq!(firsts, [1, 0, 4, 0, 0, 3, 4, 9]);
        file.allocate("a", 0, 1 << 20).unwrap();
        assert_eq!(file.len("l").unwrap(), 1 << 20);
        file.allocate("a", 0, 10).unwrap();
        assert_eq!(file.len("l").unwrap(), 1 << 20, "allocating within changes no length");
    }
}

#[test]
fn a_reflink_has_the_same_bytes_or_there_is_none() {
    let dir = dir();
    let (from, to) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(&from, [7; 10_000]).unwrap();
    let shared = OsDisk::new().reflink("r", &from, &to).unwrap();
    assert_eq!(to.exists(), shared, "scripts/shadow-space tries filesystems that can");
    if shared {
        std::fs::write(&from, b"other").unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), [7; 10_000]);
    }
    std::fs::write(&to, b"there").unwrap();
    assert!(OsDisk::new().reflink("r", &from, &to).is_err_and(|error| error.is(libc::EEXIST)));
    assert_eq!(std::fs::read(&to).unwrap(), b"there");
}

#[test]
fn zeros_for_filesystems_that_cannot_punch_stay_within_the_file() {
    let dir = dir();
    for direct in [false, true] {
        let path = dir.path().join(format!("f{direct}"));
        std::fs::write(&path, [7; 10_000]).unwrap();
        let how = OpenHow { direct, ..RW };
        let file = OsFile::new(file::open(&path, how).unwrap(), path.clone(), direct);
        file.write_zeros(5000, 100_000).unwrap();
        let found = std::fs::read(&path).unwrap();
        assert_eq!(found.len(), 10_000);
        assert!(found[..5000].iter().all(|&b| b == 7) && found[5000..].iter().all(|&b| b == 0));
    }
}

#[test]
fn short_writes_are_continued() {
    let dir = dir();
    let path = dir.path().join("f");
    let file = OsFile::new(file::open(&path, RW).unwrap(), path.clone(), false);
    let bytes: Vec<u8> = (0..100).collect();
    let mut calls = 0;
    let write = |part: &[u8], at: u64| {
        calls += 1;
        if calls == 2 {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        file.file.write_at_most(part, at, 33)
    };
    file.write_all(&bytes, 5, write).unwrap();
    assert_eq!(calls, 5);
    assert_eq!(std::fs::read(&path).unwrap()[5..], bytes);
}

/// Writes a part only, as a signal would make it.
trait WriteAtMost {
    fn write_at_most(&self, part: &[u8], at: u64, most: usize) -> io::Result<usize>;
}

impl WriteAtMost for File {
    fn write_at_most(&self, part: &[u8], at: u64, most: usize) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, &part[..most.min(part.len())], at)
    }
}

#[test]
fn opens_regular_files_only_and_follows_no_link() {
    let (disk, dir) = (OsDisk::new(), dir());
    let path = |name: &str| dir.path().join(name);
    let errno = |name: &str, how| match disk.open("o", &path(name), how) {
        Ok(_) => 0,
        Err(err) => err.to_errno(),
    };
    let exclusive = OpenHow { exclusive: true, direct: true, ..RW };
    assert_eq!(errno("f", OpenHow::default()), libc::ENOENT);
    assert_eq!(errno("f", exclusive), 0);
    assert_eq!(errno("f", exclusive), libc::EEXIST);
    assert_eq!(attr(&disk, &path("f")).mode, 0o600);
    disk.symlink("l", b"f", &path("link")).unwrap();
    assert_eq!(errno("link", RW), libc::ELOOP);
    assert_eq!(errno(".", OpenHow::default()), libc::EISDIR);
    let fifo = Attr { kind: FileKind::Fifo, mode: 0o666, ..attr(&disk, &path("f")) };
    disk.make_node("n", &path("fifo"), &fifo).unwrap();
    assert_eq!(attr(&disk, &path("fifo")).mode, 0o666, "whatever umask says");
    assert_eq!(errno("fifo", OpenHow::default()), libc::EINVAL, "and does not wait for a writer");
    assert_eq!(errno("fifo", RW), libc::EINVAL);
}

#[test]
fn names_and_directories() {
    let (disk, dir) = (OsDisk::new(), dir());
    let path = |name: &str| dir.path().join(name);
    disk.create_dir("m", &path("d"), 0o777).unwrap();
    assert_eq!(attr(&disk, &path("d")).mode, 0o777);
    disk.open("o", &path("d/f"), RW).unwrap();
    disk.link("l", &path("d/f"), &path("d/g")).unwrap();
    assert_eq!(attr(&disk, &path("d/f")).nlink, 2);
    disk.rename("r", &path("d/g"), &path("h")).unwrap();
    disk.symlink("s", b"no\xffwhere", &path("d/s")).unwrap();
    assert_eq!(disk.read_link("s", &path("d/s")).unwrap(), b"no\xffwhere");
    assert_eq!(attr(&disk, &path("d/s")).size, 8);
    let mut entries = disk.read_dir("d", &path("d")).unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let entries: Vec<_> = entries.into_iter().map(|entry| (entry.name, entry.kind)).collect();
    let expected = [(b"f".to_vec(), FileKind::Regular), (b"s".to_vec(), FileKind::Symlink)];
    assert_eq!(entries, expected);
    assert!(disk.remove_dir("r", &path("d")).unwrap_err().is(libc::ENOTEMPTY));
    disk.sync_dir("s", &path("d")).unwrap();
    disk.sync_filesystem("s", &path("d")).unwrap();
    disk.unlink("u", &path("d/f")).unwrap();
    disk.unlink("u", &path("d/s")).unwrap();
    disk.remove_dir("r", &path("d")).unwrap();
    assert_eq!(disk.stat("s", &path("d")).unwrap(), None);
    assert_eq!(disk.stat("s", &path("h/below/a/file")).unwrap(), None);
    let space = disk.space("s", dir.path()).unwrap();
    assert!(space.total >= space.free && space.free >= space.available && space.name_max == 255);
}

#[test]
fn attributes_are_set_in_an_order_that_keeps_setuid() {
    let (disk, dir) = (OsDisk::new(), dir());
    let path = dir.path().join("f");
    disk.open("o", &path, RW).unwrap();
    let root = nix::unistd::geteuid().is_root();
    let now = attr(&disk, &path);
    let time = |secs| FileTime { secs, nanos: 123_456_789 };
    let wanted = Attr {
        mode: 0o6755,
        uid: if root { 1234 } else { now.uid },
        gid: if root { 4321 } else { now.gid },
        atime: time(-5),
        mtime: time(5_000_000_000),
        ..now
    };
    disk.set_attr("a", &path, &wanted).unwrap();
    let found = attr(&disk, &path);
    assert_eq!(Attr { ctime: found.ctime, ..wanted }, found);
    disk.set_attr("a", &path, &wanted).unwrap();
    assert_eq!(attr(&disk, &path).ctime, found.ctime, "what is right is left alone");
    let link = dir.path().join("link");
    disk.symlink("s", b"f", &link).unwrap();
    let wanted = Attr { mode: 0o700, mtime: time(77), ..attr(&disk, &link) };
    disk.set_attr("a", &link, &wanted).unwrap();
    assert_eq!(attr(&disk, &link).mtime, time(77));
    assert_eq!(attr(&disk, &path), found, "a link is not followed");
    if root {
        let node = dir.path().join("null");
        let device = Attr { kind: FileKind::CharDevice, mode: 0o600, rdev: 0x103, ..found };
        // Containers may forbid devices altogether.
        if disk.make_node("n", &node, &device).is_ok() {
            assert_eq!((attr(&disk, &node).rdev, attr(&disk, &node).kind), (0x103, FileKind::CharDevice));
        }
    }
}

#[test]
fn extended_attributes_of_any_length() {
    let (disk, dir) = (OsDisk::new(), dir());
    let path = dir.path().join("f");
    disk.open("o", &path, RW).unwrap();
    let user = |disk: &OsDisk| {
        let mut found = disk.xattrs("x", &path).unwrap();
        found.retain(|(name, _)| name.starts_with(b"user."));
        found.sort();
        found
    };
    assert_eq!(user(&disk), []);
    disk.set_xattr("x", &path, b"user.empty", b"").unwrap();
    disk.set_xattr("x", &path, b"user.long", &[7; 3000]).unwrap();
    let both = [(b"user.empty".to_vec(), vec![]), (b"user.long".to_vec(), vec![7; 3000])];
    assert_eq!(user(&disk), both);
    disk.remove_xattr("x", &path, b"user.long").unwrap();
    assert_eq!(user(&disk), both[..1]);
    assert!(disk.remove_xattr("x", &path, b"user.long").unwrap_err().is(libc::ENODATA));
    assert!(disk.set_xattr("x", &path, b"user.a\0b", b"").unwrap_err().is(libc::EINVAL));
}

#[test]
fn a_lock_excludes_until_it_is_dropped() {
    let (disk, dir) = (OsDisk::new(), dir());
    let path = dir.path().join("lock");
    let held = disk.lock("l", &path).unwrap();
    assert!(held.is_some() && disk.lock("l", &path).unwrap().is_none());
    assert_eq!(attr(&disk, &path).mode, 0o600);
    drop(held);
    assert!(disk.lock("l", &path).unwrap().is_some());
}

#[test]
fn an_open_directory_can_stand_for_the_one_that_is_covered() {
    let dir = dir();
    let held = open_dir(dir.path()).unwrap();
    let prefix = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    let disk = OsDisk::new().alias(&prefix, "/var/lib/db");
    assert_eq!(attr(&disk, &prefix).kind, FileKind::Directory, "not the magic link");
    disk.set_xattr("x", &prefix, b"user.weft", b"id").unwrap();
    assert!(disk.xattrs("x", &prefix).unwrap().contains(&(b"user.weft".to_vec(), b"id".to_vec())));
    disk.open("o", &prefix.join("f"), RW).unwrap();
    assert_eq!(disk.read_dir("d", &prefix).unwrap().len(), 1);
    disk.sync_dir("s", &prefix).unwrap();
    disk.sync_filesystem("s", &prefix).unwrap();
    let wanted = Attr { mode: 0o711, ..attr(&disk, &prefix) };
    disk.set_attr("a", &prefix, &wanted).unwrap();
    assert_eq!(attr(&OsDisk::new(), dir.path()).mode, 0o711);
    let err = disk.unlink("live.unlink", &prefix.join("a/b")).unwrap_err();
    assert_eq!(err.path.as_deref(), Some(Path::new("/var/lib/db/a/b")));
    let err = disk.create_dir("live.mkdir", &prefix, 0o700).unwrap_err();
    assert_eq!(err.path.as_deref(), Some(Path::new("/var/lib/db")));
}

#[test]
fn errors_name_operation_path_and_offset() {
    let (disk, dir) = (OsDisk::new(), dir());
    let missing = dir.path().join("missing");
    let shown = missing.display().to_string();
    let errors = [
        disk.open("op.open", &missing, OpenHow::default()).err(),
        disk.read_dir("op.list", &missing).err(),
        disk.rename("op.rename", &missing, &missing).err(),
        disk.link("op.link", &missing, &missing).err(),
        disk.unlink("op.unlink", &missing).err(),
        disk.read_link("op.read_link", &missing).err(),
        disk.xattrs("op.xattrs", &missing).err(),
        disk.sync_dir("op.sync_dir", &missing).err(),
        disk.sync_filesystem("op.syncfs", &missing).err(),
        disk.space("op.space", &missing).err(),
        disk.lock("op.lock", &missing.join("l")).err(),
    ];
    for err in errors {
        let err = err.unwrap();
        assert!(err.is(libc::ENOENT), "{err}");
        let text = err.to_string();
        assert!(text.starts_with("op.") && text.contains(&shown), "{text}");
    }
    let path = dir.path().join("f");
    disk.open("o", &path, RW).unwrap();
    let readonly = disk.open("o", &path, OpenHow::default()).unwrap();
    for err in [
        readonly.write_at("op.write", b"x", 77),
        readonly.write_durable("op.write", b"x", 77),
        readonly.punch("op.punch", 77, 1),
        readonly.allocate("op.allocate", 77, 1),
        readonly.set_len("op.set_len", 77),
    ] {
        let text = err.unwrap_err().to_string();
        assert!(text.contains("at byte 77") && text.contains(path.to_str().unwrap()), "{text}");
    }
}
