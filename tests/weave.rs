//! Weaving: history is the same before, during and after, whatever is cut, damaged or read meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::Ticking;
use support::bed::{self, STORE};
use support::kv::CrashKv;
use weft::disk::sim::SimDisk;
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, Instant, Pace, Resolution, Unpaced, Weaving};
use weft::error::{Error, Kind, Result};
use weft::types::{FileId, Seq, Timestamp};

const NAMES: [&str; 3] = ["table", "wal", "small"];

/// What each file held at an instant.
type Contents = Vec<(&'static str, Vec<u8>)>;

struct Past {
    ts: Timestamp,
    seq: Seq,
    contents: Contents,
}

/// A store on the simulated disk, the present of its files, and what its past must be.
struct World {
    rng: StdRng,
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    now: Contents,
    past: Vec<Past>,
}

fn try_open(disk: &SimDisk, kv: &Arc<CrashKv>, clock: &Arc<Ticking>) -> Result<Arc<Engine>> {
    let mut options = bed::options();
    options.segment_bytes = 1;
    bed::open(disk, kv, clock, options)
}

impl World {
    fn new(seed: u64) -> World {
        World {
            rng: StdRng::seed_from_u64(seed),
            disk: bed::disk(seed),
            kv: CrashKv::new(),
            clock: Arc::new(Ticking::new(1_000_000)),
            now: NAMES.map(|name| (name, Vec::new())).to_vec(),
            past: Vec::new(),
        }
    }

    fn open(&self) -> Arc<Engine> {
        try_open(&self.disk, &self.kv, &self.clock).unwrap()
    }

    /// Sessions, each of which leaves a sealed segment behind.
    fn sessions(&mut self, count: usize) {
        for _ in 0..count {
            let engine = self.open();
            for _ in 0..4 {
                self.work(&engine);
            }
            engine.checkpoint().unwrap();
            engine.abandon();
            drop(engine);
            self.disk = self.disk.kill();
        }
    }

    /// Pages rewritten in part, a log appended to and rewritten at its end, small writes; then an instant is kept.
    fn work(&mut self, engine: &Engine) {
        for name in NAMES {
            if engine.lookup(FileId::ROOT, name.as_bytes()).is_err() {
                engine.create(FileId::ROOT, name.as_bytes(), bed::regular()).unwrap();
            }
        }
        for _ in 0..8 {
            let page = self.rng.random_range(0..6) * 8192;
            let mut bytes = self.now[0].1.get(page..page + 8192).unwrap_or(&[7; 8192]).to_vec();
            let at = self.rng.random_range(0..8000);
            bytes[at..at + 100].fill(self.rng.random());
            self.write(engine, 0, page, &bytes);
            let end = self.now[1].1.len();
            let bytes = vec![self.rng.random(); self.rng.random_range(1..9000)];
            self.write(engine, 1, (end / 8192) * 8192, &bytes);
            let bytes = vec![self.rng.random(); self.rng.random_range(1..40)];
            let at = self.rng.random_range(0..300);
            self.write(engine, 2, at, &bytes);
        }
        let ts = engine.now();
        let Resolution::Found(found) = engine.resolve(Instant::Time(ts)).unwrap() else { panic!() };
        self.past.push(Past { ts, seq: found.seq, contents: self.now.clone() });
    }

    fn write(&mut self, engine: &Engine, file: usize, at: usize, bytes: &[u8]) {
        let (name, content) = &mut self.now[file];
        let (id, _) = engine.lookup(FileId::ROOT, name.as_bytes()).unwrap();
        engine.write(id, at as u64, bytes, false).unwrap();
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn check(&self, engine: &Engine) {
        check_past(engine, &self.past);
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = self.disk.read_dir("test", &Path::new(STORE).join(dir)).unwrap();
        let mut names: Vec<_> = entries.iter().map(|e| String::from_utf8(e.name.clone()).unwrap()).collect();
        names.sort();
        names
    }
}

fn read_past(engine: &Engine, past: &Past) -> Result<()> {
    match engine.resolve(Instant::Time(past.ts))? {
        Resolution::Found(found) => assert_eq!(found.seq, past.seq),
        other => panic!("{other:?}"),
    }
    let view = engine.view(past.seq)?;
    for (name, content) in &past.contents {
        let (file, attr) = view.lookup(FileId::ROOT, name.as_bytes())?.unwrap();
        assert_eq!(attr.size, content.len() as u64, "{name} at {}", past.seq);
        let mut bytes = vec![0; content.len()];
        view.read(file, 0, &mut bytes)?;
        assert!(bytes == *content, "{name} at {}", past.seq);
    }
    Ok(())
}

fn check_past(engine: &Engine, past: &[Past]) {
    for past in past {
        read_past(engine, past).unwrap();
    }
}

/// Everything sealed is settled: then it can be woven.
fn settle(engine: &Engine) -> Result<()> {
    engine.checkpoint()?;
    while engine.index_some()? {}
    Ok(())
}

fn weave_all(engine: &Engine) -> Result<usize> {
    settle(engine)?;
    let mut woven = 0;
    while let Weaving::Wove(_) = engine.weave(&Unpaced)? {
        woven += 1;
    }
    Ok(woven)
}

#[test]
fn the_past_is_the_same_woven_and_the_index_is_built_from_it() {
    let mut world = World::new(1);
    world.sessions(3);
    let engine = world.open();
    world.check(&engine);
    let segments = world.names("journal");
    assert_eq!(weave_all(&engine).unwrap(), 3);
    world.check(&engine);
    assert_eq!(world.names("journal"), segments[3..]);
    assert_eq!(world.names("woven"), ["0000000001.woven", "0000000002.woven", "0000000003.woven"]);
    world.work(&engine);
    let so_far = engine.woven_so_far();
    assert!(so_far.segments == 3 && so_far.woven_bytes * 2 < so_far.payload_bytes, "{so_far:?}");
    engine.close().unwrap();
    drop(engine);
    world.kv.clear();
    let engine = world.open();
    world.check(&engine);
    assert_eq!(weave_all(&engine).unwrap(), 1);
    world.check(&engine);
}

#[test]
fn a_cut_at_each_operation_of_a_weave_loses_nothing() {
    let mut world = World::new(2);
    world.sessions(2);
    for at in 0.. {
        let disk = world.disk.kill();
        let kv = world.kv.crash(0);
        let engine = try_open(&disk, &kv, &world.clock).unwrap();
        settle(&engine).unwrap();
        disk.cut_at(disk.operations() + at);
        let ended = weave_all(&engine).is_ok() && !disk.is_dead();
        drop(engine);
        // The index as it was, as it was persisted, or gone: then it is built from both forms.
        let kv = kv.crash(at % 3);
        let disk = disk.cut(at);
        // And once more on the way up.
        disk.cut_at(disk.operations() + at * 7 % 60);
        let engine = try_open(&disk, &kv, &world.clock);
        drop(engine);
        let disk = disk.cut(at + 1);
        let engine = try_open(&disk, &kv, &world.clock).unwrap();
        check_past(&engine, &world.past);
        let left = disk.read_dir("test", &Path::new(STORE).join("woven")).unwrap();
        assert!(left.iter().all(|entry| entry.name.ends_with(b".woven")), "cut at {at}: {left:?}");
        weave_all(&engine).unwrap();
        check_past(&engine, &world.past);
        assert!(engine.status().problems.is_empty(), "{:?}", engine.status().problems);
        if ended {
            assert!(at > 20, "{at} operations say little");
            return;
        }
    }
}

#[test]
fn failing_operations_leave_the_journal_and_are_told() {
    for op in
        ["weave.create", "weave.write", "weave.sync", "weave.name", "woven.check", "journal.segment.remove"]
    {
        for errno in [libc::EIO, libc::ENOSPC] {
            let mut world = World::new(3);
            world.sessions(1);
            let engine = world.open();
            settle(&engine).unwrap();
            world.disk.fail(op, 1, errno);
            let error = engine.weave(&Unpaced).unwrap_err();
            assert!(error.is(errno), "{op}: {error}");
            assert_eq!(engine.status().problems.len(), 1, "{op}");
            world.check(&engine);
            assert_eq!(weave_all(&engine).unwrap(), 1, "{op}");
            assert!(engine.status().problems.is_empty(), "{op}");
            world.check(&engine);
        }
    }
}

struct StopAfter(AtomicU64);

impl Pace for StopAfter {
    fn go_on(&self, _: u64) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) > 1
    }
}

#[test]
fn told_to_stop_it_stops_at_once_and_leaves_nothing() {
    let mut world = World::new(4);
    world.sessions(1);
    let engine = world.open();
    settle(&engine).unwrap();
    let segments = world.names("journal");
    let mut calls = 1;
    while engine.weave(&StopAfter(AtomicU64::new(calls))).unwrap() == Weaving::Stopped {
        assert!(world.names("woven").is_empty() && world.names("journal") == segments);
        calls += 1;
    }
    assert!(calls > 3, "it looked {calls} times");
    world.check(&engine);
}

fn flip(disk: &SimDisk, path: &Path, at: u64, bit: u8) {
    let file = disk.open("test", path, OpenHow { write: true, ..OpenHow::default() }).unwrap();
    let mut byte = [0];
    file.read_at("test", &mut byte, at).unwrap();
    file.write_at("test", &[byte[0] ^ 1 << bit], at).unwrap();
}

#[test]
fn damage_in_a_woven_segment_is_an_error_with_its_place_and_never_other_bytes() {
    let mut world = World::new(5);
    world.sessions(2);
    let engine = world.open();
    weave_all(&engine).unwrap();
    world.work(&engine);
    engine.close().unwrap();
    drop(engine);
    let path = PathBuf::from(STORE).join("woven/0000000001.woven");
    let len = world.disk.open("test", &path, OpenHow::default()).unwrap().len("test").unwrap();
    let mut noticed = 0;
    for round in 0..60 {
        let disk = world.disk.kill();
        let at = world.rng.random_range(0..len);
        flip(&disk, &path, at, (round % 8) as u8);
        let engine = try_open(&disk, &world.kv.crash(0), &world.clock).unwrap();
        for past in &world.past {
            if let Err(error) = read_past(&engine, past) {
                noticed += 1;
                let known = error.is_damage();
                assert!(known && error.path.as_ref() == Some(&path), "byte {at}: {error}");
            }
        }
    }
    assert!(noticed > 40, "{noticed} noticed");
}

#[test]
fn a_damaged_journal_segment_is_not_woven_and_the_next_ones_are() {
    let mut world = World::new(6);
    world.sessions(3);
    let engine = world.open();
    settle(&engine).unwrap();
    let path = PathBuf::from(STORE).join("journal/0000000002.seg");
    // The group header of its first group.
    flip(&world.disk, &path, 4096 + 30, 3);
    assert!(matches!(engine.weave(&Unpaced), Ok(Weaving::Wove(_))));
    let error: Error = engine.weave(&Unpaced).unwrap_err();
    assert!(error.kind == Kind::Corrupt && error.path == Some(path), "{error}");
    assert!(matches!(engine.weave(&Unpaced), Ok(Weaving::Wove(_))));
    assert_eq!(engine.weave(&Unpaced).unwrap(), Weaving::Nothing);
    assert!(world.names("journal").contains(&"0000000002.seg".to_owned()));
    assert_eq!(engine.status().problems.len(), 1);
}

#[test]
fn a_segment_that_cannot_be_read_keeps_none_behind_it_and_is_tried_again() {
    let mut world = World::new(9);
    world.sessions(3);
    let engine = world.open();
    settle(&engine).unwrap();
    let segment = |outcome: Weaving| match outcome {
        Weaving::Wove(woven) => woven.segment.0,
        other => panic!("{other:?}"),
    };
    world.disk.fail("weave.read", 1, libc::EIO);
    assert!(engine.weave(&Unpaced).unwrap_err().is(libc::EIO));
    assert_eq!(segment(engine.weave(&Unpaced).unwrap()), 2);
    world.disk.fail("weave.read", 1, libc::EIO);
    assert!(engine.weave(&Unpaced).unwrap_err().is(libc::EIO));
    assert_eq!(engine.status().problems.len(), 1);
    // None is left that has not failed: each has its turn once more.
    world.disk.fail("weave.read", 1, libc::EIO);
    assert!(engine.weave(&Unpaced).unwrap_err().is(libc::EIO));
    assert_eq!(segment(engine.weave(&Unpaced).unwrap()), 3);
    assert_eq!(engine.status().problems.len(), 1);
    assert_eq!(segment(engine.weave(&Unpaced).unwrap()), 1);
    assert!(engine.status().problems.is_empty(), "{:?}", engine.status().problems);
    world.check(&engine);
}

#[test]
fn a_damaged_header_keeps_its_segment_and_the_one_before_and_no_other() {
    let mut world = World::new(10);
    world.sessions(5);
    let engine = world.open();
    settle(&engine).unwrap();
    flip(&world.disk, &PathBuf::from(STORE).join("journal/0000000003.seg"), 20, 2);
    let outcomes: Vec<_> = (0..6).map(|_| engine.weave(&Unpaced)).collect();
    let errors: Vec<&Error> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(errors.len() == 2 && errors.iter().all(|error| error.is_damage()), "{outcomes:?}");
    assert_eq!(world.names("woven").len(), 3, "{outcomes:?}");
    assert!(matches!(outcomes.last(), Some(Ok(Weaving::Nothing))), "{outcomes:?}");
}

#[test]
fn a_whole_woven_form_beside_the_journals_takes_over_and_a_damaged_one_is_made_anew() {
    for damaged in [false, true] {
        let mut world = World::new(7);
        world.sessions(1);
        let engine = world.open();
        settle(&engine).unwrap();
        world.disk.fail("journal.segment.remove", 1, libc::EIO);
        engine.weave(&Unpaced).unwrap_err();
        assert_eq!(world.names("woven").len(), 1);
        if damaged {
            flip(&world.disk, &PathBuf::from(STORE).join("woven/0000000001.woven"), 700, 1);
        }
        world.check(&engine);
        assert_eq!(weave_all(&engine).unwrap(), 1);
        world.check(&engine);
        assert!(!world.names("journal").contains(&"0000000001.seg".to_owned()));
    }
}

#[test]
fn readers_see_no_hole_while_segments_change_their_form() {
    let mut world = World::new(8);
    world.sessions(6);
    let engine = world.open();
    settle(&engine).unwrap();
    let done = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    check_past(&engine, &world.past);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while let Weaving::Wove(_) = engine.weave(&Unpaced).unwrap() {
            let seen = rounds.load(Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) < seen + 3 {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    world.check(&engine);
    assert_eq!(world.names("woven").len(), 6);
}
