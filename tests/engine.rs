//! The engine on a real directory, stepped by hand: write, look back, unmount, come again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use weft::clock::Clock;
use weft::disk::os::OsDisk;
use weft::engine::{Engine, Instant, NewFile, Options, Resolution};
use weft::index::kv::Kv;
use weft::index::lsm::{LsmKv, LsmOptions};
use weft::types::{FileId, FileKind, Seq, Timestamp};

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp(since.as_micros() as i64)
    }

    fn monotonic(&self) -> std::time::Duration {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}

fn open(dir: &Path) -> Arc<Engine> {
    let engine = try_open(dir).unwrap();
    engine.start().unwrap();
    engine
}

fn try_open(dir: &Path) -> weft::error::Result<Arc<Engine>> {
    let mut options = Options::new(&dir.join("data"), &dir.join("store"));
    options.segment_bytes = 4 << 20;
    options.new_store_id = [7; 16];
    Engine::open(Arc::new(OsDisk::new()), Arc::new(SystemClock), options, &|path| {
        Ok(Arc::new(LsmKv::open(path, LsmOptions::default())?) as Arc<dyn Kv>)
    })
}

fn sync(engine: &Engine) {
    let (done, wait) = std::sync::mpsc::channel();
    engine.sync(Box::new(move |result| done.send(result).unwrap()));
    wait.recv().unwrap().unwrap();
}

fn now(engine: &Engine) -> Seq {
    match engine.resolve(Instant::Time(engine.now())).unwrap() {
        Resolution::Found(found) => found.seq,
        other => panic!("{other:?}"),
    }
}

fn past(engine: &Engine, seq: Seq, dir: FileId, name: &str) -> Option<Vec<u8>> {
    let view = engine.view(seq).unwrap();
    let (file, attr) = view.lookup(dir, name.as_bytes()).unwrap()?;
    let mut bytes = vec![0; attr.size as usize];
    assert_eq!(view.read(file, 0, &mut bytes).unwrap(), bytes.len());
    Some(bytes)
}

fn file(mode: u32) -> NewFile {
    NewFile { kind: FileKind::Regular, mode, umask: 0, rdev: 0, target: Vec::new(), uid: 0, gid: 0 }
}

#[test]
fn a_directory_is_taken_in_changed_looked_back_at_and_given_back() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    fs::create_dir_all(data.join("base/5")).unwrap();
    let old: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(data.join("base/5/1"), &old).unwrap();
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    fs::hard_link(data.join("PG_VERSION"), data.join("link")).unwrap();
    std::os::unix::fs::symlink("base/5", data.join("sym")).unwrap();

    let engine = open(temp.path());
    let (base, _) = engine.lookup(FileId::ROOT, b"base").unwrap();
    let (five, _) = engine.lookup(base, b"5").unwrap();
    let (one, attr) = engine.lookup(five, b"1").unwrap();
    assert_eq!(attr.size, 40_000);
    let before = now(&engine);

    let mut new = old.clone();
    new[5000..13_000].fill(9);
    engine.write(one, 5000, &[9; 8000], false).unwrap();
    let (made, _) = engine.create(five, b"2", file(0o600)).unwrap();
    engine.write(made, 100, &[1; 10_000], false).unwrap();
    sync(&engine);
    let middle = now(&engine);
    engine.apply().unwrap();
    engine.unlink(five, b"1").unwrap();
    engine.rename((five, b"2"), (FileId::ROOT, b"moved"), weft::engine::RenameMode::Replace).unwrap();
    let after = now(&engine);
    engine.apply().unwrap();

    let check = |engine: &Engine| {
        assert_eq!(past(engine, before, five, "1").unwrap(), old);
        assert_eq!(past(engine, before, five, "2"), None);
        assert_eq!(past(engine, middle, five, "1").unwrap(), new);
        assert_eq!(past(engine, middle, five, "2").unwrap()[100..], [1; 10_000]);
        assert_eq!(past(engine, after, five, "1"), None);
        assert_eq!(past(engine, after, FileId::ROOT, "moved").unwrap().len(), 10_100);
    };
    check(&engine);
    engine.close().unwrap();
    drop(engine);

    assert!(!data.join(".weft").exists() && !data.join("WEFT-NOT-UNMOUNTED").exists());
    assert_eq!(fs::read(data.join("moved")).unwrap()[100..], [1; 10_000]);
    assert_eq!(fs::read_to_string(data.join("link")).unwrap(), "15\n");
    assert!(!data.join("base/5/1").exists());

    let engine = open(temp.path());
    check(&engine);
    assert!(engine.recovery().contains("clean"), "{}", engine.recovery());
    let (moved, _) = engine.lookup(FileId::ROOT, b"moved").unwrap();
    engine.write(moved, 0, b"again", false).unwrap();
    sync(&engine);
    // As after a crash: nothing is put back.
    engine.abandon();
    drop(engine);

    let engine = open(temp.path());
    assert!(engine.recovery().contains("recovered"), "{}", engine.recovery());
    check(&engine);
    let mut bytes = [0; 5];
    engine.read(moved, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"again");
    engine.close().unwrap();
    assert_eq!(&fs::read(data.join("moved")).unwrap()[..5], b"again");
}

#[test]
fn the_metadata_store_may_be_damaged_or_gone_and_a_newer_one_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (data, meta) = (temp.path().join("data"), temp.path().join("store/meta.redb"));
    fs::create_dir(&data).unwrap();
    let session = |told: &str| {
        let engine = open(temp.path());
        let status = engine.status();
        assert_eq!(status.warnings.iter().filter(|warning| warning.contains(told)).count(), 1, "{status:?}");
        assert!(status.problems.is_empty() && status.meta_bytes > 0, "{status:?}");
        let seq = now(&engine);
        assert_eq!(engine.view(seq).unwrap().seq(), seq);
        engine.close().unwrap();
    };
    let engine = open(temp.path());
    assert!(engine.status().warnings.is_empty(), "a new store has lost nothing");
    engine.close().unwrap();
    drop(engine);
    let bytes = fs::read(&meta).unwrap();
    assert!(bytes.len() < 4 << 20, "{} bytes", bytes.len());

    fs::write(&meta, &bytes[..bytes.len() / 2]).unwrap();
    session("the metadata store was lost");
    fs::remove_file(&meta).unwrap();
    session("its file is missing");

    let mut newer = bytes;
    newer[8] += 1;
    let crc = crc32fast::hash(&newer[..28]).to_le_bytes();
    newer[28..32].copy_from_slice(&crc);
    fs::write(&meta, &newer).unwrap();
    let error = try_open(temp.path()).err().unwrap();
    assert!(error.message.contains("use a newer weft"), "{error}");
    assert!(fs::read(&meta).unwrap() == newer && !data.join(".weft").exists());
}
