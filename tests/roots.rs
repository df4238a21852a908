//! A set of roots belongs together: one that is of another time, swapped, missing or unasked for is refused before
//! anything is touched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use std::path::Path;
use std::sync::Arc;
use support::Ticking;
use support::kv::CrashKv;
use weft::disk::sim::SimDisk;
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, Instant, NewFile, Options, RenameMode, Resolution, RootDir};
use weft::error::{Error, Kind, Result};
use weft::index::kv::Kv;
use weft::types::{FileId, FileKind, RootId, Seq};

struct Set {
    disk: SimDisk,
    kv: Arc<CrashKv>,
    roots: Vec<(&'static str, &'static str)>,
    without: Vec<&'static str>,
}

impl Set {
    /// DATA, and two roots on filesystems of their own, each with a file that says whose it is.
    fn new() -> Set {
        let disk = SimDisk::new(1);
        for dir in ["/data", "/wal", "/ts1", "/other"] {
            disk.create_dir("test", Path::new(dir), 0o755).unwrap();
            if dir == "/wal" || dir == "/ts1" {
                disk.mount(Path::new(dir)).unwrap();
            }
            put(&disk, &format!("{dir}/whose"), dir.as_bytes());
            disk.sync_filesystem("test", Path::new(dir)).unwrap();
        }
        disk.sync_filesystem("test", Path::new("/")).unwrap();
        Set { disk, kv: CrashKv::new(), roots: vec![("wal", "/wal"), ("ts1", "/ts1")], without: vec![] }
    }

    fn open(&self) -> Result<Arc<Engine>> {
        let mut options = Options::new(Path::new("/data"), Path::new("/store"));
        options.segment_bytes = 4 << 20;
        options.new_store_id = [5; 16];
        let root = |(name, dir): &(&str, &str)| RootDir { name: name.as_bytes().to_vec(), dir: dir.into() };
        options.asked.roots = self.roots.iter().map(root).collect();
        options.asked.without = self.without.iter().map(|name| name.as_bytes().to_vec()).collect();
        let clock = Arc::new(Ticking::new(1_000_000));
        Engine::open(
            Arc::new(self.disk.clone()),
            clock,
            options,
            &|_| Ok(Arc::clone(&self.kv) as Arc<dyn Kv>),
        )
    }

    fn mount_and_unmount(&self) {
        let engine = self.open().unwrap();
        write(&engine, "wal", b"more");
        engine.close().unwrap();
    }

    /// A session that does not end well.
    fn mount_and_crash(&mut self) {
        let engine = self.open().unwrap();
        write(&engine, "wal", b"more");
        assert!(engine.checkpoint().unwrap());
        drop(engine);
        self.disk = self.disk.kill();
    }

    /// The refusal; it must have changed nothing, durable or not.
    #[track_caller]
    fn refused(&self) -> Error {
        let before = self.disk.operations();
        let error = self.open().err().expect("it was accepted");
        // Making sure of STORE's directories and its lock is all that may happen.
        assert!(self.disk.operations() - before < 5, "{} operations", self.disk.operations() - before);
        error
    }
}

fn put(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    disk.open("test", Path::new(path), how).unwrap().write_durable("test", bytes, 0).unwrap();
}

fn root(engine: &Engine, name: &str) -> FileId {
    engine.roots().unwrap().into_iter().find(|root| root.name == name.as_bytes()).unwrap().file
}

fn write(engine: &Engine, name: &str, bytes: &[u8]) {
    let (file, attr) = engine.lookup(root(engine, name), b"whose").unwrap();
    engine.write(file, attr.size, bytes, false).unwrap();
}

fn read(engine: &Engine, name: &str) -> Vec<u8> {
    let (file, attr) = engine.lookup(root(engine, name), b"whose").unwrap();
    let mut bytes = vec![0; attr.size as usize];
    engine.read(file, 0, &mut bytes).unwrap();
    bytes
}

fn now(engine: &Engine) -> Seq {
    match engine.resolve(Instant::Time(engine.now())).unwrap() {
        Resolution::Found(found) => found.seq,
        other => panic!("{other:?}"),
    }
}

/// Copies what stands flat in a directory, with its own attributes: a backup, or a restore of one.
fn copy(from: &SimDisk, source: &str, to: &SimDisk, target: &str) {
    let (source, target) = (Path::new(source), Path::new(target));
    for entry in to.read_dir("test", target).unwrap() {
        remove(to, &target.join(String::from_utf8(entry.name).unwrap()));
    }
    copy_below(from, source, to, target);
}

fn remove(disk: &SimDisk, path: &Path) {
    if disk.stat("test", path).unwrap().unwrap().attr.kind == FileKind::Directory {
        for entry in disk.read_dir("test", path).unwrap() {
            remove(disk, &path.join(String::from_utf8(entry.name).unwrap()));
        }
        disk.remove_dir("test", path).unwrap();
    } else {
        disk.unlink("test", path).unwrap();
    }
}

fn copy_below(from: &SimDisk, source: &Path, to: &SimDisk, target: &Path) {
    for (name, value) in from.xattrs("test", source).unwrap() {
        to.set_xattr("test", target, &name, &value).unwrap();
    }
    for entry in from.read_dir("test", source).unwrap() {
        let name = String::from_utf8(entry.name).unwrap();
        let (one, two) = (source.join(&name), target.join(&name));
        if entry.kind == FileKind::Directory {
            to.create_dir("test", &two, 0o700).unwrap();
            copy_below(from, &one, to, &two);
        } else {
            let file = from.open("test", &one, OpenHow::default()).unwrap();
            let mut bytes = vec![0; file.len("test").unwrap() as usize];
            file.read_at("test", &mut bytes, 0).unwrap();
            put(to, two.to_str().unwrap(), &bytes);
        }
    }
}

#[test]
fn roots_share_one_order_and_each_has_its_own_space() {
    let set = Set::new();
    let engine = set.open().unwrap();
    let before = now(&engine);
    write(&engine, "wal", b"1");
    let middle = now(&engine);
    write(&engine, "ts1", b"2");
    let view = engine.view(middle).unwrap();
    let shown = |view: &weft::engine::View, name: &str| {
        let dir = view.root(name.as_bytes()).unwrap().unwrap();
        let (file, attr) = view.lookup(dir, b"whose").unwrap().unwrap();
        let mut bytes = vec![0; attr.size as usize];
        view.read(file, 0, &mut bytes).unwrap();
        bytes
    };
    assert_eq!((shown(&view, "wal"), shown(&view, "ts1")), (b"/wal1".to_vec(), b"/ts1".to_vec()));
    assert_eq!(shown(&engine.view(before).unwrap(), "wal"), b"/wal");
    let ids: Vec<FileId> = engine.roots().unwrap().iter().map(|root| root.file).collect();
    assert_eq!((ids.len(), ids[0]), (3, FileId::ROOT));
    assert!(engine.space(RootId(2)).is_ok() && engine.space(RootId(3)).is_err());
    let new =
        NewFile { kind: FileKind::Regular, mode: 0o600, umask: 0, rdev: 0, target: vec![], uid: 0, gid: 0 };
    let (made, _) = engine.create(root(&engine, "wal"), b"made", new).unwrap();
    assert!(engine.link(made, FileId::ROOT, b"made").unwrap_err().is(libc::EXDEV));
    engine.close().unwrap();
    assert!(set.disk.stat("test", Path::new("/wal/made")).unwrap().is_some());
}

#[test]
fn the_way_up_from_a_link_is_that_of_the_instant() {
    let set = Set::new();
    let engine = set.open().unwrap();
    let new = |kind, target: &[u8]| NewFile {
        kind,
        mode: 0o700,
        umask: 0,
        rdev: 0,
        target: target.to_vec(),
        uid: 0,
        gid: 0,
    };
    let ts1 = root(&engine, "ts1");
    let (one, _) = engine.create(ts1, b"one", new(FileKind::Directory, b"")).unwrap();
    let (two, _) = engine.create(ts1, b"two", new(FileKind::Directory, b"")).unwrap();
    let (link, _) = engine.create(one, b"l", new(FileKind::Symlink, b"../..")).unwrap();
    let before = now(&engine);
    engine.rename((one, b"l"), (two, b"m"), RenameMode::Replace).unwrap();
    engine.rename((ts1, b"two"), (one, b"below"), RenameMode::Replace).unwrap();
    let after = now(&engine);
    engine.rename((one, b"below"), (ts1, b"whose"), RenameMode::Exchange).unwrap();
    let last = now(&engine);
    let path = |seq| {
        let names = engine.view(seq).unwrap().path(link).unwrap();
        names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>().join("/")
    };
    assert_eq!([path(before), path(after), path(last)], ["one/l", "one/below/m", "whose/m"]);
    assert_eq!(engine.view(last).unwrap().path(ts1).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_root_left_out_missing_or_unknown_is_refused() {
    for crashed in [false, true] {
        let mut set = Set::new();
        if crashed {
            set.mount_and_crash()
        } else {
            set.mount_and_unmount()
        }
        let all = set.roots.clone();
        set.roots.pop();
        let error = set.refused();
        assert!(error.message.contains("--root ts1=DIR"), "{error}");
        set.roots = vec![all[0], ("ts1", "/nothing")];
        assert!(set.open().is_err());
        set.roots = all.clone();
        set.without = vec!["ts9"];
        assert!(set.refused().message.contains("no root ts9"));
        set.without.clear();
        set.roots.push(("other", "/other"));
        if crashed {
            assert!(set.refused().message.contains("weft recover"), "{}", set.refused());
            set.roots = all;
        }
        set.open().unwrap();
    }
}

#[test]
fn swapped_roots_are_refused() {
    for crashed in [false, true] {
        let mut set = Set::new();
        if crashed {
            set.mount_and_crash()
        } else {
            set.mount_and_unmount()
        }
        set.roots = vec![("wal", "/ts1"), ("ts1", "/wal")];
        let error = set.refused();
        assert_eq!(error.kind, Kind::Mismatch);
        assert!(error.message.contains("another root"), "{error}");
        set.roots = vec![("wal", "/wal"), ("ts1", "/ts1")];
        assert_eq!(read(&set.open().unwrap(), "wal"), b"/walmore");
    }
}

#[test]
fn a_root_of_another_time_is_refused() {
    for (first_crashed, then_crashed) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut set = Set::new();
        if first_crashed {
            set.mount_and_crash()
        } else {
            set.mount_and_unmount()
        }
        let backup = set.disk.kill();
        set.disk = backup.clone();
        let backup = SimDisk::new(9);
        backup.create_dir("test", Path::new("/wal"), 0o755).unwrap();
        copy(&set.disk, "/wal", &backup, "/wal");
        set.mount_and_unmount();
        set.mount_and_unmount();
        if then_crashed {
            set.mount_and_crash();
        }
        copy(&backup, "/wal", &set.disk, "/wal");
        let error = set.refused();
        assert_eq!(error.kind, Kind::Mismatch, "{error}");
        assert!(error.message.contains("root wal"), "{error}");
    }
}

#[test]
fn a_root_added_later_is_not_in_earlier_views_and_one_taken_out_stays_in_them() {
    let mut set = Set::new();
    let engine = set.open().unwrap();
    let before = now(&engine);
    engine.close().unwrap();
    drop(engine);
    set.roots.push(("late", "/other"));
    let engine = set.open().unwrap();
    let after = now(&engine);
    assert_eq!(read(&engine, "late"), b"/other");
    assert_eq!(engine.view(before).unwrap().root(b"late").unwrap(), None);
    let late = engine.view(after).unwrap().root(b"late").unwrap();
    assert_eq!(late, Some(root(&engine, "late")));
    engine.close().unwrap();
    drop(engine);
    set.roots.pop();
    set.without = vec!["late"];
    let engine = set.open().unwrap();
    let gone = now(&engine);
    assert_eq!(engine.view(gone).unwrap().root(b"late").unwrap(), None);
    assert_eq!(engine.view(after).unwrap().root(b"late").unwrap(), late);
    assert!(engine.attr(late.unwrap()).is_err());
    engine.close().unwrap();
    drop(engine);
    // It comes back as a new root, once its mark is off.
    set.without.clear();
    set.roots.push(("late", "/other"));
    assert!(set.refused().message.contains("setfattr"));
    set.disk.remove_xattr("test", Path::new("/other"), b"user.weft.store").unwrap();
    let engine = set.open().unwrap();
    assert_ne!(Some(root(&engine, "late")), late);
    engine.close().unwrap();
}

#[test]
fn odd_names_and_names_given_twice_are_refused() {
    let mut set = Set::new();
    set.roots = vec![("a b", "/wal")];
    assert!(set.refused().message.contains("letters, digits"));
    set.roots = vec![("wal", "/wal"), ("wal", "/ts1")];
    assert!(set.refused().message.contains("twice"));
}
