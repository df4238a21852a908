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
use support::bed::{self, STORE};
use support::kv::CrashKv;
use weft::clock::Clock;
use weft::disk::sim::SimDisk;
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, ForecastLimits, Instant, Resolution, Unpaced};
use weft::error::{Error, Kind, Result};
use weft::forecast::service::How;
use weft::index::kv::Kv;
use weft::meta::retention::Retention;
use weft::types::{FileId, Seq, Timestamp};

fn disk() -> SimDisk {
    bed::disk(1)
}

fn try_open(disk: &SimDisk, kv: &Arc<CrashKv>, clock: Arc<dyn Clock>) -> Result<Arc<Engine>> {
    Engine::open(Arc::new(disk.clone()), clock, bed::options(), &|_| Ok(Arc::clone(kv) as Arc<dyn Kv>))
}

fn open(disk: &SimDisk, kv: &Arc<CrashKv>) -> Arc<Engine> {
    try_open(disk, kv, Arc::new(Ticking::new(1_000_000))).unwrap()
}

fn create(engine: &Engine, name: &str) -> Result<FileId> {
    let new = bed::regular();
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
fn live_files_that_cannot_be_made_durable_are_written_anew_from_the_journal() {
    for seed in 0..20 {
        let (disk, kv) = (bed::disk(seed), CrashKv::new());
        let engine = open(&disk, &kv);
        let file = create(&engine, "f").unwrap();
        engine.write(file, 0, &[1; 40_000], false).unwrap();
        assert!(engine.checkpoint().unwrap());
        engine.write(file, 4_000, &[2; 30_000], false).unwrap();
        sync(&engine).unwrap();
        engine.apply().unwrap();
        // The kernel forgets what it could not write; asked again, it says that all is well.
        disk.fail("checkpoint.live.sync", 1, libc::EIO);
        assert!(engine.checkpoint().unwrap_err().is(libc::EIO));
        for _ in 0..2 {
            assert_eq!(engine.checkpoint().unwrap_err().kind, Kind::Stopped);
        }
        assert!(engine.stopped().is_some_and(|cause| cause.is(libc::EIO)));
        assert_eq!(engine.write(file, 0, b"more", false).unwrap_err().kind, Kind::Stopped);
        assert!(engine.close().is_err(), "DATA is not whole");
        drop(engine);
        let engine = open(&disk.cut(seed), &kv.crash(seed));
        let mut bytes = vec![0; 40_000];
        engine.read(file, 0, &mut bytes).unwrap();
        let expected = |at: usize| if (4_000..34_000).contains(&at) { 2 } else { 1 };
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == expected(at)), "seed {seed}");
        engine.close().unwrap();
    }
}

/// What a daemon lacks when it opens it says nothing against an index; damage does.
#[test]
fn an_index_that_cannot_be_opened_now_is_not_made_anew() {
    let (disk, kv) = (disk(), CrashKv::new());
    let pages = Path::new(STORE).join("pages");
    let count = |disk: &SimDisk| disk.read_dir("test", &pages).unwrap().len();
    let engine = open(&disk, &kv);
    let file = create(&engine, "f").unwrap();
    // Parts of a page, again and again: whole ones are composed of them.
    for at in 0..64 {
        engine.write(file, at * 7, b"some", false).unwrap();
    }
    sync(&engine).unwrap();
    engine.close().unwrap();
    drop(engine);
    let files = count(&disk);
    assert!(files > 0);
    for error in
        [Error::errno("index.open", libc::EMFILE), Error::new(Kind::Stopped, "index.open", "stopped")]
    {
        let outcome =
            Engine::open(Arc::new(disk.clone()), Arc::new(Ticking::new(2_000_000)), bed::options(), &|_| {
                Err(error.clone())
            });
        let refused = outcome.err().unwrap();
        assert_eq!(refused.kind, error.kind);
        assert!(refused.to_string().contains("mount again"), "{refused}");
        assert_eq!(count(&disk), files);
    }
    let damaged = std::cell::Cell::new(true);
    let outcome =
        Engine::open(Arc::new(disk.clone()), Arc::new(Ticking::new(2_000_000)), bed::options(), &|_| {
            match damaged.replace(false) {
                true => Err(Error::corrupt("index.open", "damaged")),
                false => {
                    assert_eq!(count(&disk), 0, "what was composed for it goes with it");
                    Ok(CrashKv::new() as Arc<dyn Kv>)
                }
            }
        });
    let engine = outcome.unwrap();
    assert_eq!(content(&engine, resolve(&engine, engine.now()), "f").len(), 445);
}

#[test]
fn an_index_that_takes_nothing_is_no_fault_of_an_unmounted_data() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    let file = create(&engine, "f").unwrap();
    engine.write(file, 0, b"there", false).unwrap();
    sync(&engine).unwrap();
    kv.refuse(libc::ENOSPC);
    engine.close().unwrap();
    drop(engine);
    let data = Path::new(bed::DATA);
    let plain = disk.open("test", &data.join("f"), OpenHow::default()).unwrap();
    let mut bytes = [0; 5];
    plain.read_at("test", &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"there");
    assert!(disk.stat("test", &data.join("WEFT-NOT-UNMOUNTED")).unwrap().is_none());
    // The next one goes on from where it was.
    let engine = open(&disk, &kv.crash(0));
    assert_eq!(content(&engine, resolve(&engine, engine.now()), "f"), b"there");
}

#[test]
fn work_on_more_files_than_are_counted_at_once_is_told() {
    let (disk, kv) = (disk(), CrashKv::new());
    let mut options = bed::options();
    let how = How { tick_us: 3_600_000_000, step_us: 3_600_000_000, ..How::default() };
    options.forecast = ForecastLimits { on: true, how, ..ForecastLimits::default() };
    let engine = bed::open(&disk, &kv, &Arc::new(Ticking::new(1_000_000)), options).unwrap();
    engine.start().unwrap();
    let uncounted = || engine.forecast_status().uncounted;
    let begun = (0..200).find(|round| {
        for number in 0..1_000 {
            let file = create(&engine, &format!("{round}-{number}")).unwrap();
            engine.write(file, 0, b"x", false).unwrap();
        }
        uncounted() > 0
    });
    assert!(begun.is_some_and(|round| round > 100), "{begun:?}");
    engine.abandon();
}

#[test]
fn nothing_says_that_it_serves_once_the_mount_has_ended() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    let file = create(&engine, "f").unwrap();
    engine.write(file, 0, b"kept", false).unwrap();
    engine.close().unwrap();
    // A pruning that was asked for, and goes on for a while yet.
    assert!(!engine.checkpoint().unwrap());
    drop(engine);
    let engine = open(&disk.kill(), &kv);
    assert_eq!(engine.attr(file).unwrap().size, 4);
    engine.close().unwrap();
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

fn writeback(disk: &SimDisk, kv: &Arc<CrashKv>, reserve_mib: u64) -> Arc<Engine> {
    let mut options = bed::options();
    options.capture = weft::engine::Capture::Writeback;
    options.reserve_bytes = reserve_mib << 20;
    options.keep_free_bytes = 0;
    // What is woven would make room.
    options.weave.on = false;
    let clock = Arc::new(Ticking::new(1_000_000));
    let engine =
        Engine::open(Arc::new(disk.clone()), clock, options, &|_| Ok(Arc::clone(kv) as Arc<dyn Kv>)).unwrap();
    // Without its threads: everything by hand.
    assert!(engine.kernel_bytes() >= 4 << 20);
    engine
}

const BLOCK: usize = 1 << 20;

/// Overwrites one file with whole blocks until that is refused; the last block that was taken.
fn fill(engine: &Engine, file: FileId) -> (u8, Error) {
    for number in 1..=255u8 {
        if let Err(error) = engine.write(file, 0, &[number; BLOCK], false) {
            return (number - 1, error);
        }
        engine.apply().unwrap();
    }
    panic!("no end of space");
}

#[test]
fn on_a_full_disk_growth_is_refused_and_the_rest_goes_on() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = writeback(&disk, &kv, 64);
    let (file, other) = (create(&engine, "f").unwrap(), create(&engine, "g").unwrap());
    engine.write(other, 0, b"shorter", false).unwrap();
    sync(&engine).unwrap();
    disk.set_capacity(disk.used() + (100 << 20));
    let (last, refused) = fill(&engine, file);
    assert_eq!(refused.to_errno(), libc::ENOSPC, "{refused}");
    assert!(engine.full().is_some() && engine.stopped().is_none());
    let enospc = |error: Error| assert_eq!(error.to_errno(), libc::ENOSPC, "{error}");
    enospc(create(&engine, "new").unwrap_err());
    let larger = weft::engine::SetAttr { size: Some(1 << 20), ..Default::default() };
    enospc(engine.set_attr(other, larger).unwrap_err());
    let smaller = weft::engine::SetAttr { size: Some(5), ..Default::default() };
    engine.set_attr(other, smaller).unwrap();
    engine.rename((FileId::ROOT, b"g"), (FileId::ROOT, b"h"), weft::engine::RenameMode::Replace).unwrap();
    assert_eq!(content(&engine, resolve(&engine, engine.now()), "h"), b"short");
    engine.unlink(FileId::ROOT, b"h").unwrap();
    // What the kernel has acknowledged is taken, all that it may hold, each page fsynced alone.
    for page in 0..engine.kernel_bytes() / 4096 {
        engine.write_back(file, page * 4096, &[255; 4096]).unwrap();
        sync(&engine).unwrap();
    }
    let mut bytes = vec![0; BLOCK];
    engine.read(file, 0, &mut bytes).unwrap();
    let owed = (engine.kernel_bytes() as usize).min(BLOCK);
    assert!(bytes[..owed].iter().all(|byte| *byte == 255) && bytes[owed..].iter().all(|byte| *byte == last));
    // With room again, the same engine goes on.
    disk.set_capacity(1 << 40);
    engine.write(file, 0, b"on", false).unwrap();
    create(&engine, "new").unwrap();
    assert!(engine.full().is_none());
    drop(engine);
    let engine = open(&disk.kill(), &kv);
    assert!(engine.lookup(FileId::ROOT, b"h").is_err());
}

#[test]
fn what_was_acknowledged_and_cannot_be_taken_stops_all_writing() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = writeback(&disk, &kv, 64);
    let file = create(&engine, "f").unwrap();
    sync(&engine).unwrap();
    disk.set_capacity(disk.used());
    let mut taken = 0u64;
    let refused = loop {
        match engine.write_back(file, taken, &[1; BLOCK]) {
            Ok(()) => taken += BLOCK as u64,
            Err(error) => break error,
        }
        assert!(taken < 1 << 30, "no end of space");
    };
    assert_eq!((refused.kind, refused.to_errno()), (Kind::Stopped, libc::EIO));
    assert!(taken >= engine.kernel_bytes(), "the reserve was for more than {taken}");
    assert_eq!(sync(&engine).unwrap_err().kind, Kind::Stopped);
    assert_eq!(create(&engine, "g").unwrap_err().to_errno(), libc::EIO);
    assert!(engine.status().problems.iter().any(|told| told.contains("no write is accepted any more")));
    let mut byte = [0];
    engine.read(file, 0, &mut byte).unwrap();
    // Too far out is nobody's fault but the program's.
    let engine = writeback(&self::disk(), &CrashKv::new(), 64);
    let file = create(&engine, "f").unwrap();
    assert_eq!(engine.write_back(file, 1 << 60, &[1]).unwrap_err().to_errno(), libc::EFBIG);
    assert!(engine.stopped().is_none());
}

/// Whatever was acknowledged can be applied: the applier never meets a full disk that its writers were not told of.
#[test]
fn what_is_acknowledged_fits_into_data() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    disk.set_capacity(disk.used() + (40 << 20));
    let file = create(&engine, "f").unwrap();
    let mut len = 0;
    let refused = loop {
        assert!(len < 1 << 30, "no end of space");
        match engine.write(file, len, &[7; 100_000], false) {
            Ok(()) => len += 100_000,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.to_errno(), libc::ENOSPC, "{refused}");
    assert!(len > 1 << 20, "refused after {len} bytes with 40 MiB free");
    sync(&engine).unwrap();
    engine.apply().unwrap();
    assert_eq!(engine.status().overlay_bytes, 0);
    // What has its blocks needs none.
    engine.write(file, 0, &[8; 100_000], false).unwrap();
    sync(&engine).unwrap();
    engine.apply().unwrap();
}

#[test]
fn others_who_fill_the_filesystem_keep_the_applier_waiting_and_nothing_is_lost() {
    for crashes in [false, true] {
        let (mut disk, kv) = (disk(), CrashKv::new());
        let mut engine = open(&disk, &kv);
        let file = create(&engine, "f").unwrap();
        let bytes: Vec<u8> = (0..2_000_000).map(|at: u32| (at >> 9) as u8).collect();
        for (part, at) in bytes.chunks(100_000).zip((0..).step_by(100_000)) {
            engine.write(file, at, part, false).unwrap();
        }
        sync(&engine).unwrap();
        // What was counted on is another's now.
        disk.set_capacity(disk.used() + 40_000);
        for _ in 0..3 {
            assert!(engine.apply().unwrap_err().is(libc::ENOSPC));
            let told = engine.status().problems.join("\n");
            assert!(
                told.contains("cannot be applied to DATA") && told.contains("safe in the journal"),
                "{told}"
            );
            let mut found = vec![0; bytes.len()];
            assert_eq!(engine.read(file, 0, &mut found).unwrap(), bytes.len());
            assert!(found == bytes, "crashes: {crashes}");
        }
        disk.set_capacity(1 << 40);
        if crashes {
            drop(engine);
            disk = disk.kill();
            engine = open(&disk, &kv);
        }
        engine.apply().unwrap();
        assert_eq!(engine.status().overlay_bytes, 0);
        assert_eq!(engine.status().problems, Vec::<String>::new());
        engine.close().unwrap();
        let mut found = vec![0; bytes.len()];
        let plain = disk.open("test", &Path::new(bed::DATA).join("f"), OpenHow::default()).unwrap();
        assert_eq!(plain.read_at("test", &mut found, 0).unwrap(), bytes.len());
        assert!(found == bytes, "crashes: {crashes}");
    }
}

/// Whoever answers others does not run the applier, which waits for the disk.
#[test]
fn a_write_that_fits_once_the_rest_is_applied_waits_elsewhere() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    disk.set_capacity(disk.used() + (40 << 20));
    let file = create(&engine, "f").unwrap();
    for block in 0..20 {
        engine.write(file, block << 20, &[1; BLOCK], false).unwrap();
    }
    sync(&engine).unwrap();
    engine.apply().unwrap();
    disk.keep_log(10_000);
    let applied = || disk.log().iter().any(|(op, _)| op.starts_with("applier."));
    // These have their blocks already; while they wait they are counted all the same.
    for block in 0..20 {
        assert!(engine.try_write(file, block << 20, &[2; BLOCK], false).unwrap());
    }
    let end = engine.attr(file).unwrap().size;
    assert!(!engine.try_write(file, end, &[3; 100_000], false).unwrap());
    assert!(!applied() && engine.attr(file).unwrap().size == end);
    // Who may wait has them applied, and then there is room.
    engine.write(file, end, &[3; 100_000], false).unwrap();
    assert!(applied() && engine.full().is_none());
    assert!(engine.try_write(file, end, &[4; 100_000], false).unwrap());
}

/// Segments that were allocated ahead and not begun are given back; one that was begun is never taken for one of them.
#[test]
fn segments_allocated_ahead_are_given_back() {
    let segments = |disk: &SimDisk| {
        let mut names: Vec<Vec<u8>> = disk
            .read_dir("test", &Path::new(STORE).join("journal"))
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        names.sort();
        names
    };
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = writeback(&disk, &kv, 200);
    engine.start().unwrap();
    assert!(segments(&disk).len() > 1, "nothing was allocated ahead");
    engine.close().unwrap();
    assert_eq!(segments(&disk).len(), 1);
    drop(engine);
    // After a crash they are still there, and go at the next start.
    let engine = writeback(&disk, &kv, 200);
    engine.start().unwrap();
    engine.abandon();
    let ahead = segments(&disk).len();
    drop(engine);
    let disk = disk.kill();
    let engine = open(&disk, &kv);
    assert!(segments(&disk).len() < ahead, "{:?}", segments(&disk));
    drop(engine);
    // A begun segment behind one that is missing.
    let disk = disk.kill();
    let last = segments(&disk).pop().unwrap();
    let name = |number: u64| Path::new(STORE).join(format!("journal/{number:010}.seg"));
    let number: u64 = std::str::from_utf8(&last).unwrap()[..10].parse().unwrap();
    disk.rename("test", &name(number), &name(number + 2)).unwrap();
    let error = try_open(&disk, &kv, Arc::new(Ticking::new(9))).err().unwrap();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
}

#[test]
fn a_lease_that_cannot_be_written_holds_and_is_told() {
    let (disk, kv) = (disk(), CrashKv::new());
    let engine = open(&disk, &kv);
    create(&engine, "f").unwrap();
    sync(&engine).unwrap();
    let (_, _, granted) = engine.resolve_ago_leased(0, "before").unwrap();
    let before = granted.unwrap().lease;
    assert!(before.durable);
    disk.fail("journal.group.write", 1, libc::EIO);
    create(&engine, "g").unwrap();
    assert!(sync(&engine).is_err());

    let at = Seq(before.at.0 - 1);
    let (found, granted) = engine.resolve_leased(Instant::Seq(at), "after").unwrap();
    assert!(matches!(found, Resolution::Found(found) if found.seq == at));
    let granted = granted.unwrap();
    assert!(!granted.lease.durable && granted.lease.left_us > 0);
    assert_eq!(granted.trouble.unwrap().kind, Kind::Stopped);
    assert!(engine.held().iter().any(|held| held.seq == at && held.by.contains("after")));
    assert!(engine.view(at).is_ok());
    // The one that was durable is told again as it is; none can be ended.
    let (_, granted) = engine.resolve_leased(Instant::Seq(before.at), "again").unwrap();
    assert!(granted.unwrap().lease.durable);
    assert_eq!(engine.end_lease(before.id).unwrap_err().kind, Kind::Stopped);

    drop(engine);
    let engine = open(&disk.kill(), &kv.crash(2));
    let ids: Vec<u64> = engine.leases().iter().map(|lease| lease.id).collect();
    assert_eq!(ids, [before.id]);
}

/// On a disk that stays full the last of the journal is for what makes room.
#[test]
fn history_can_be_let_go_of_when_nothing_else_has_space_any_more() {
    let (disk, kv) = (disk(), CrashKv::new());
    let clock = Arc::new(Ticking::new(1_000_000));
    let engine = try_open(&disk, &kv, Arc::clone(&clock) as _).unwrap();
    let file = create(&engine, "f").unwrap();
    engine.write(file, 0, b"old", false).unwrap();
    let (old, lease) = engine.resolve_leased(Instant::Time(engine.now()), "test").unwrap();
    let Resolution::Found(old) = old else { panic!() };
    engine.tag("tag", old.seq).unwrap();
    engine.write(file, 0, b"new", false).unwrap();
    sync(&engine).unwrap();
    disk.set_capacity(disk.used() + (8 << 20));
    let (_, refused) = fill(&engine, file);
    assert_eq!(refused.to_errno(), libc::ENOSPC, "{refused}");
    // Durable one by one, these use up what is kept for them.
    let mut names = [&b"f"[..], b"g"];
    let refused = loop {
        let (from, to) = ((FileId::ROOT, names[0]), (FileId::ROOT, names[1]));
        match engine.rename(from, to, weft::engine::RenameMode::Replace) {
            Ok(()) => sync(&engine).unwrap(),
            Err(error) => break error,
        }
        names.reverse();
    };
    assert_eq!(refused.to_errno(), libc::ENOSPC, "{refused}");
    engine.untag("tag").unwrap();
    engine.end_lease(lease.unwrap().lease.id).unwrap();
    clock.pass(10_000_000);
    while engine.index_some().unwrap() {}
    assert!(engine.checkpoint().unwrap());
    engine.set_retention(Retention { all_us: Some(1_000_000), ..Retention::everything() });
    let upto = engine.prune(&Unpaced, false).unwrap().upto;
    assert!(upto > old.seq, "{upto}");
    // Nor does it use that up: what only says that such events are thinned too is not written.
    let last = engine.status().seq;
    for _ in 0..5 {
        clock.pass(10_000_000);
        while engine.index_some().unwrap() {}
        engine.prune(&Unpaced, false).unwrap();
    }
    assert_eq!(engine.status().seq, last);
    assert_eq!(engine.thinned().upto(), upto);
    assert!(engine.stopped().is_none());
}
