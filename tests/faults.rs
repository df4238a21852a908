//! What fails, fails as promised: a journal that cannot be written, a full disk, damage on the medium, a clock set
//! back, an index that is gone, two daemons.

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
use weft::clock::Clock;
use weft::disk::sim::SimDisk;
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, Instant, NewFile, Options, Resolution};
use weft::error::{Error, Kind, Result};
use weft::index::kv::Kv;
use weft::types::{FileId, FileKind, Seq, Timestamp};

const DATA: &str = "/data";
const STORE: &str = "/store";

fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir("test", Path::new(DATA), 0o755).unwrap();
    disk.sync_filesystem("test", Path::new("/")).unwrap();
    disk
}

fn options() -> Options {
    let mut options = Options::new(Path::new(DATA), Path::new(STORE));
    options.new_store_id = [5; 16];
    options
}

fn try_open(disk: &SimDisk, kv: &Arc<CrashKv>, clock: Arc<dyn Clock>) -> Result<Arc<Engine>> {
    Engine::open(Arc::new(disk.clone()), clock, options(), &|_| Ok(Arc::clone(kv) as Arc<dyn Kv>))
}

fn open(disk: &SimDisk, kv: &Arc<CrashKv>) -> Arc<Engine> {
    try_open(disk, kv, Arc::new(Ticking::new(1_000_000))).unwrap()
}

fn create(engine: &Engine, name: &str) -> Result<FileId> {
    let new = NewFile {
        kind: FileKind::Regular,
        mode: 0o600,
        umask: 0,
        rdev: 0,
        target: Vec::new(),
        uid: 0,
        gid: 0,
    };
    Ok(engine.create(FileId::ROOT, name.as_bytes(), new)?.0)
}

fn sync(engine: &Engine) -> Result<()> {
    let (done, wait) = std::sync::mpsc::channel();
    engine.sync(Box::new(move |result| done.send(result).unwrap()));
    wait.recv().unwrap()
}

fn resolve(engine: &Engine, ts: Timestamp) -> Seq {
    match engine.resolve(Instant::Time(ts)).unwrap() {
        Resolution::Found(found) => found.seq,
        other => panic!("{other:?}"),
    }
}

fn content(engine: &Engine, seq: Seq, name: &str) -> Vec<u8> {
    let view = engine.view(seq).unwrap();
    let (file, attr) = view.lookup(FileId::ROOT, name.as_bytes()).unwrap().unwrap();
    let mut bytes = vec![0; attr.size as usize];
    view.read(file, 0, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_first_journal_error_stops_all_writing_and_reading_goes_on() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    let file = create(&engine, "f").unwrap();
    engine.write(file, 0, b"kept", false).unwrap();
    sync(&engine).unwrap();
    let seq = resolve(&engine, engine.now());
    engine.write(file, 0, b"lost", false).unwrap();
    disk.fail("journal.group.write", 1, libc::EIO);
    assert_eq!(sync(&engine).unwrap_err().kind, Kind::Stopped);
    let stopped = |error: Error| assert_eq!(error.to_errno(), libc::EIO, "{error}");
    stopped(engine.write(file, 0, b"more", false).unwrap_err());
    stopped(create(&engine, "g").unwrap_err());
    stopped(engine.unlink(FileId::ROOT, b"f").unwrap_err());
    stopped(sync(&engine).unwrap_err());
    let mut bytes = [0; 4];
    engine.read(file, 0, &mut bytes).unwrap();
    assert_eq!(content(&engine, seq, "f"), b"kept");
    // No Seq that is not durable is ever shown, also not now.
    assert_eq!(content(&engine, resolve(&engine, engine.now()), "f"), b"kept");
    assert!(!engine.status().problems.is_empty());
    drop(engine);
    let engine = open(&disk.kill(), &kv);
    engine.read(file, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
}

#[test]
fn a_full_disk_is_told_to_the_writer_and_nothing_acknowledged_is_lost() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    let file = create(&engine, "f").unwrap();
    // No room for a further segment.
    disk.set_capacity(disk.used() + (1 << 20));
    let mut written = 0u64;
    let refused = loop {
        match engine.write(file, written, &[(written >> 16) as u8; 1 << 16], false) {
            Ok(()) => written += 1 << 16,
            Err(error) => break error,
        }
        assert!(written < 1 << 30, "no end of space");
    };
    assert_eq!(refused.to_errno(), libc::ENOSPC, "{refused}");
    sync(&engine).unwrap();
    drop(engine);
    let disk = disk.cut(3);
    disk.set_capacity(1 << 40);
    let engine = open(&disk, &kv);
    assert_eq!(engine.attr(file).unwrap().size, written);
    for at in (0..written).step_by(1 << 16) {
        let mut bytes = vec![0; 1 << 16];
        engine.read(file, at, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == (at >> 16) as u8), "at {at}");
    }
    // There is room again, and it goes on.
    engine.write(file, written, b"on", false).unwrap();
    sync(&engine).unwrap();
}

#[test]
fn damage_in_the_middle_of_the_journal_is_an_error_with_its_position() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    let file = create(&engine, "f").unwrap();
    for at in 0..8 {
        engine.write(file, at * 4096, &[7; 4096], false).unwrap();
        sync(&engine).unwrap();
    }
    drop(engine);
    let disk = disk.cut(1);
    let segment = Path::new(STORE).join("journal/0000000001.seg");
    let how = OpenHow { write: true, ..OpenHow::default() };
    let open_segment = disk.open("test", &segment, how).unwrap();
    // Somewhere among the payloads of the middle.
    let mut bytes = vec![0; 128 << 10];
    let got = open_segment.read_at("test", &mut bytes, 0).unwrap();
    let payloads: Vec<usize> = (0..got / 4096)
        .filter(|page| bytes[page * 4096..(page + 1) * 4096].iter().all(|byte| *byte == 7))
        .collect();
    assert!(payloads.len() == 8, "{payloads:?}");
    open_segment.write_durable("test", &[8], payloads[3] as u64 * 4096 + 100).unwrap();
    let error = try_open(&disk, &kv, Arc::new(Ticking::new(9))).err().unwrap();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
    assert_eq!(error.path.as_deref(), Some(segment.as_path()));
    assert!(error.offset.is_some_and(|offset| offset > 4096), "{error}");
}

#[test]
fn a_clock_set_back_a_little_is_absorbed() {
    let (disk, kv) = (disk(), CrashKv::new());
    let clock = Arc::new(Ticking::new(10_000_000));
    let engine = try_open(&disk, &kv, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let file = create(&engine, "f").unwrap();
    engine.write(file, 0, b"before", false).unwrap();
    let at = engine.now();
    let seq = resolve(&engine, at);
    clock.step(-4_000_000);
    engine.write(file, 0, b"after!", false).unwrap();
    sync(&engine).unwrap();
    assert!(engine.now() > at, "an event came at or before an instant that was shown");
    assert_eq!(engine.status().clock_epoch, 0);
    assert_eq!(resolve(&engine, at), seq);
    assert_eq!(content(&engine, seq, "f"), b"before");
    drop(engine);
    let engine = try_open(&disk.kill(), &kv, clock).unwrap();
    assert_eq!(resolve(&engine, at), seq);
    assert_eq!(content(&engine, seq, "f"), b"before");
}

#[test]
fn a_store_in_use_is_refused() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    let error = try_open(&disk, &kv, Arc::new(Ticking::new(9))).err().unwrap();
    assert_eq!(error.kind, Kind::Busy, "{error}");
    drop(engine);
}

#[test]
fn what_a_checkpoint_holds_is_not_replayed() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    let file = create(&engine, "f").unwrap();
    for at in 0..50 {
        engine.write(file, at * 4096, &[1; 4096], false).unwrap();
    }
    assert!(engine.checkpoint().unwrap());
    engine.write(file, 0, b"after", false).unwrap();
    sync(&engine).unwrap();
    drop(engine);
    let engine = open(&disk.cut(5), &kv);
    let recovery = engine.recovery();
    assert!(recovery.contains("replayed 1 events"), "{recovery}");
    let mut bytes = [0; 5];
    engine.read(file, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"after");
    assert_eq!(engine.attr(file).unwrap().size, 50 * 4096);
}

#[test]
fn instants_before_history_and_in_the_future_are_told_apart() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    let early = engine.resolve(Instant::Time(Timestamp(5))).unwrap();
    assert!(matches!(early, Resolution::Before { .. }), "{early:?}");
    let late = engine.resolve(Instant::Time(Timestamp(i64::MAX))).unwrap();
    assert!(matches!(late, Resolution::Future { .. }), "{late:?}");
    let none = engine.resolve(Instant::Seq(Seq(1_000_000))).unwrap();
    assert!(matches!(none, Resolution::Future { .. }), "{none:?}");
}
