//! Shadows: a view is the same with and without them, whatever fails, is cut or damaged; they keep to their budget, and
//! stop when they cannot be made.

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
use support::Ticking;
use support::bed::{self, DATA};
use support::kv::CrashKv;
use weft::disk::sim::SimDisk;
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, Instant, Layout, Resolution, SetAttr, ShadowReason, Subject, Wish};
use weft::error::{Kind, Result};
use weft::meta::retention::Retention;
use weft::types::{FileId, PageSet, Seq};

const SHADOW: &str = "/store/shadow";
const NAME: &str = "16384";
const PAGE: usize = 4096;

/// A file, and what each instant of it must be.
struct World {
    rng: StdRng,
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    now: Vec<u8>,
    past: Vec<(Seq, Vec<u8>)>,
    limit: u64,
    /// The shadow that is kept up to date was made for a split: its first snapshot stays.
    splits: bool,
}

fn subject() -> Subject {
    Subject { root: Vec::new(), partition: NAME.into() }
}

impl World {
    /// `pages` of bytes written through Weft, the half of them before it came.
    fn new(seed: u64, pages: usize, reflinks: bool) -> World {
        let disk = SimDisk::new(seed);
        disk.set_reflinks(reflinks);
        disk.create_dir("test", Path::new(DATA), 0o755).unwrap();
        let mut rng = StdRng::seed_from_u64(seed);
        let before: Vec<u8> = (0..pages / 2 * PAGE).map(|_| rng.random()).collect();
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let path = Path::new(DATA).join(NAME);
        disk.open("test", &path, how).unwrap().write_at("test", &before, 0).unwrap();
        disk.sync_filesystem("test", Path::new("/")).unwrap();
        let clock = Arc::new(Ticking::new(1_000_000));
        let (kv, past, limit, splits) = (CrashKv::new(), Vec::new(), 8 << 30, false);
        let mut world = World { rng, disk, kv, clock, now: before, past, limit, splits };
        let engine = world.open();
        let rest: Vec<u8> = (0..(pages - pages / 2) * PAGE).map(|_| world.rng.random()).collect();
        world.write(&engine, world.now.len(), &rest).unwrap();
        world.keep(&engine).unwrap();
        world.change(&engine, 5).unwrap();
        engine.checkpoint().unwrap();
        engine.abandon();
        drop(engine);
        world.disk = world.disk.kill();
        world
    }

    fn try_open(&self) -> Result<Arc<Engine>> {
        let mut options = bed::options();
        options.shadow.bytes = self.limit;
        options.shadow.snapshots = 2;
        options.shadow.after_bytes = 1 << 20;
        bed::open(&self.disk, &self.kv, &self.clock, options)
    }

    fn open(&self) -> Arc<Engine> {
        self.try_open().unwrap()
    }

    fn file(engine: &Engine) -> FileId {
        engine.lookup(FileId::ROOT, NAME.as_bytes()).unwrap().0
    }

    fn write(&mut self, engine: &Engine, at: usize, bytes: &[u8]) -> Result<()> {
        engine.write(World::file(engine), at as u64, bytes, false)?;
        self.now.resize(self.now.len().max(at + bytes.len()), 0);
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Keeps the present as an instant.
    fn keep(&mut self, engine: &Engine) -> Result<Seq> {
        let Resolution::Found(found) = engine.resolve(Instant::Time(engine.now()))? else { panic!() };
        self.past.push((found.seq, self.now.clone()));
        Ok(found.seq)
    }

    /// Some pages change, in whole and in part; now and then the end moves.
    fn change(&mut self, engine: &Engine, times: usize) -> Result<Seq> {
        for _ in 0..times {
            let page = self.rng.random_range(0..self.now.len() / PAGE);
            let bytes: Vec<u8> = (0..PAGE).map(|_| self.rng.random()).collect();
            match self.rng.random_range(0..10) {
                0 => self.write(engine, page * PAGE + 100, &bytes[..300])?,
                1 => {
                    let size = self.now.len() - PAGE / 2;
                    let set = SetAttr { size: Some(size as u64), ..SetAttr::default() };
                    engine.set_attr(World::file(engine), set)?;
                    self.now.truncate(size);
                }
                2 => self.write(engine, self.now.len() + 10_000, &bytes)?,
                3 => self.write(engine, page * PAGE, &[0; 2 * PAGE])?,
                _ => self.write(engine, page * PAGE, &bytes)?,
            }
        }
        self.keep(engine)
    }

    /// Every instant, whole and in parts.
    fn check(&self, engine: &Engine) {
        for (seq, bytes) in &self.past {
            let view = engine.view(*seq).unwrap();
            let (file, attr) = view.lookup(FileId::ROOT, NAME.as_bytes()).unwrap().unwrap();
            assert_eq!(attr.size, bytes.len() as u64);
            for (at, len) in [(0, bytes.len()), (PAGE, 40_000), (70_001, 65_536), (33_000, 12), (5, PAGE)] {
                let mut found = vec![0xee; len];
                let got = view.read(file, at as u64, &mut found).unwrap();
                let expected = &bytes[at..bytes.len().min(at + len)];
                assert!(got == expected.len() && found[..got] == *expected, "{len} bytes at {at} of {seq}");
            }
        }
    }

    fn shadow_files(&self) -> Vec<PathBuf> {
        let entries = self.disk.read_dir("test", Path::new(SHADOW)).unwrap();
        let mut paths: Vec<PathBuf> = entries
            .iter()
            .map(|entry| Path::new(SHADOW).join(String::from_utf8_lossy(&entry.name).as_ref()))
            .collect();
        paths.sort();
        paths
    }

    /// Shadows are made, brought up to date, lose a snapshot, and go; each step is tried once, `Err` the first error.
    fn life(&mut self, engine: &Engine) -> Result<()> {
        let mut done = Ok(());
        let mut tried = |result: Result<()>| {
            if done.is_ok() {
                done = result;
            }
        };
        tried(engine.add_shadow(subject(), None, Some(self.past[0].0)).map(|_| ()));
        tried(engine.add_shadow(subject(), None, Some(self.past[1].0)).map(|_| ()));
        if self.splits {
            let (reason, benefit) = (ShadowReason::Split, 1e6);
            engine.wish(Wish { subject: subject(), pages: None, at: None, benefit, reason, urgent: true });
            tried(engine.shadow_step().map(|_| ()));
        }
        for _ in 0..3 {
            if !self.disk.is_dead() {
                tried(self.change(engine, 2).map(|_| ()));
            }
            tried(engine.add_shadow(subject(), None, None).map(|_| ()));
        }
        let first = engine.shadows().first().map(|shadow| shadow.id);
        tried(first.map_or(Ok(()), |id| engine.remove_shadows(b"", &id.to_string()).map(|_| ())));
        done
    }
}

fn snapshots(engine: &Engine) -> usize {
    engine.shadows().iter().map(|shadow| shadow.snapshots.len()).sum()
}

#[test]
fn views_read_through_shadows_and_are_the_same() {
    for (reflinks, splits) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::new(1, 100, reflinks);
        world.splits = splits;
        let engine = world.open();
        world.check(&engine);
        world.life(&engine).unwrap();
        world.check(&engine);
        let status = engine.shadow_status();
        assert!(status.served_bytes > 1 << 20 && status.count == 1 && status.snapshots == 2, "{status:?}");
        assert!(engine.shadows()[0].follows);
        world.change(&engine, 20).unwrap();
        world.check(&engine);
        engine.close().unwrap();
        drop(engine);
        // Found again, and again when the index has to be made anew.
        for _ in 0..2 {
            let engine = world.open();
            assert_eq!(snapshots(&engine), 2);
            world.check(&engine);
            assert!(engine.shadow_status().served_bytes > 1 << 20);
            engine.close().unwrap();
            drop(engine);
            world.kv.clear();
        }
    }
}

#[test]
fn a_part_of_a_partition_serves_its_pages() {
    let mut world = World::new(2, 100, false);
    let engine = world.open();
    let mut pages = PageSet::default();
    [(3, 20), (40, 41), (60, 99), (500, 600)]
        .iter()
        .for_each(|(from, end)| pages.write(from * PAGE as u64, end * PAGE as u64));
    let at = world.past[1].0;
    let made = engine.add_shadow(subject(), Some(pages.clone()), Some(at)).unwrap().unwrap();
    assert_eq!(made.shown_bytes, (17 + 1 + 39) * PAGE as u64);
    world.check(&engine);
    assert!(engine.shadow_status().served_bytes > 0);
    engine.add_shadow(subject(), Some(pages.clone()), None).unwrap();
    world.change(&engine, 10).unwrap();
    let made = engine.add_shadow(subject(), Some(pages), None).unwrap().unwrap();
    assert!(made.own_bytes < made.shown_bytes / 2);
    world.check(&engine);
}

#[test]
fn three_snapshots_cost_one_and_their_changes() {
    let mut world = World::new(3, 2_000, false);
    world.limit = 1 << 30;
    let engine = world.open();
    let before = world.disk.used();
    for _ in 0..3 {
        for _ in 0..20 {
            let page = world.rng.random_range(0..2_000);
            let bytes: Vec<u8> = (0..PAGE).map(|_| world.rng.random()).collect();
            world.write(&engine, page * PAGE, &bytes).unwrap();
        }
        let at = world.keep(&engine).unwrap();
        engine.apply().unwrap();
        let used = world.disk.used();
        engine.add_shadow(subject(), None, Some(at)).unwrap().unwrap();
        assert!(world.disk.used() >= used);
    }
    let shadow = engine.shadows().remove(0);
    let size = world.now.len() as u64;
    assert_eq!(shadow.snapshots.len(), 3);
    assert!(shadow.bytes <= size * 103 / 100, "{} for {size}", shadow.bytes);
    let files: u64 = world.shadow_files().iter().map(|path| allocated(&world.disk, path)).sum();
    assert!(files <= size * 104 / 100, "{files} on disk for {size}, from {before}");
    world.check(&engine);
}

fn allocated(disk: &SimDisk, path: &Path) -> u64 {
    disk.stat("test", path).unwrap().unwrap().allocated
}

#[test]
fn a_cut_at_each_operation_of_a_shadows_life_changes_no_view() {
    for (reflinks, splits) in [(false, false), (true, false), (false, true)] {
        let mut world = World::new(4, 40, reflinks);
        world.splits = splits;
        let (disk, kv, past, now) =
            (world.disk.clone(), Arc::clone(&world.kv), world.past.clone(), world.now.clone());
        for at in 0.. {
            (world.disk, world.kv) = (disk.kill(), kv.crash(0));
            (world.past, world.now) = (past.clone(), now.clone());
            let engine = world.open();
            // Only the shadows are looked at: what is written meanwhile is durable or not as ever.
            world.disk.cut_at(world.disk.operations() + at);
            let ended = world.life(&engine).is_ok() && !world.disk.is_dead();
            drop(engine);
            world.disk = world.disk.cut(at);
            world.kv = world.kv.crash(at % 3);
            world.past.truncate(past.len());
            let engine = world.open();
            world.check(&engine);
            assert!(
                engine.shadows().iter().all(|shadow| shadow.broken.is_none()),
                "{at}: {:?}",
                engine.shadows()
            );
            for id in engine.shadows().iter().map(|shadow| shadow.id) {
                engine.remove_shadows(b"", &id.to_string()).unwrap();
            }
            assert_eq!(world.shadow_files(), Vec::<PathBuf>::new(), "cut at {at}");
            world.check(&engine);
            drop(engine);
            if ended {
                assert!(at > 40, "{at} operations say little");
                break;
            }
        }
    }
}

#[test]
fn a_failing_operation_costs_a_shadow_and_no_byte_of_a_view() {
    let ops = [
        "shadow.data.create",
        "shadow.data.write",
        "shadow.data.sync",
        "shadow.data.share",
        "shadow.create",
        "shadow.write",
        "shadow.name",
        "shadow.dir.sync",
        "shadow.remove",
        "shadow.data.free",
        "shadow.list",
        "shadow.data.read",
        "shadow.data.open",
        "shadow.open",
    ];
    let (mut failed, mut round) = (0, 0);
    for op in ops {
        for (nth, errno) in [(1, libc::EIO), (2, libc::ENOSPC), (4, libc::EIO), (7, libc::EIO)] {
            round += 1;
            let mut world = World::new(round, 40, round % 2 == 0);
            world.splits = round % 3 == 0;
            let engine = world.open();
            world.disk.fail(op, nth, errno);
            failed += usize::from(world.life(&engine).is_err());
            world.check(&engine);
            world.disk.clear_faults();
            engine.resume_shadows();
            // What broke is mended.
            while engine.shadow_step().unwrap() {}
            engine.add_shadow(subject(), None, None).unwrap();
            world.check(&engine);
            assert!(engine.shadows().iter().all(|shadow| shadow.broken.is_none()), "{op} {nth}");
            engine.close().unwrap();
            drop(engine);
            let engine = world.open();
            world.check(&engine);
            for id in engine.shadows().iter().map(|shadow| shadow.id) {
                engine.remove_shadows(b"", &id.to_string()).unwrap();
            }
            assert_eq!(world.shadow_files(), Vec::<PathBuf>::new(), "{op} {nth}");
        }
    }
    assert!(failed > 12, "{failed} of {round} failed");
}

#[test]
fn damage_is_never_served_and_is_mended() {
    let mut world = World::new(6, 100, false);
    let engine = world.open();
    world.life(&engine).unwrap();
    engine.add_shadow(subject(), None, Some(world.past[0].0)).unwrap();
    engine.close().unwrap();
    drop(engine);
    let files = world.shadow_files();
    let (disk, kv) = (world.disk.clone(), Arc::clone(&world.kv));
    let (mut noticed, mut dropped) = (0, 0);
    for round in 0..60 {
        (world.disk, world.kv) = (disk.kill(), kv.crash(0));
        let how = OpenHow { write: true, ..OpenHow::default() };
        let file = world.disk.open("test", &files[round % files.len()], how).unwrap();
        let at = world.rng.random_range(0..file.len("test").unwrap());
        let mut byte = [0];
        file.read_at("test", &mut byte, at).unwrap();
        match round % 10 {
            9 => file.set_len("test", at).unwrap(),
            bit => file.write_at("test", &[byte[0] ^ 1 << (bit % 8)], at).unwrap(),
        }
        drop(file);
        let engine = world.open();
        dropped += usize::from(engine.shadows().len() < 2);
        world.check(&engine);
        noticed += engine.shadows().iter().filter(|shadow| shadow.broken.is_some()).count();
        engine.take_up_wishes(Layout::Generic);
        while engine.shadow_step().unwrap() {}
        let shadows = engine.shadows();
        assert!(shadows.len() == 2 && shadows.iter().all(|shadow| shadow.broken.is_none()), "{shadows:?}");
        world.check(&engine);
        engine.close().unwrap();
    }
    assert!(noticed + dropped > 20, "{noticed} noticed, {dropped} dropped");
}

#[test]
fn what_one_shadow_has_lost_costs_that_one() {
    let mut world = World::new(11, 60, false);
    let engine = world.open();
    engine.add_shadow(subject(), None, Some(world.past[0].0)).unwrap().unwrap();
    // The oldest of two leads to pages of one that is gone.
    for _ in 0..3 {
        world.change(&engine, 3).unwrap();
        engine.add_shadow(subject(), None, None).unwrap().unwrap();
    }
    engine.checkpoint().unwrap();
    engine.abandon();
    drop(engine);
    world.disk = world.disk.kill();
    let of_the_first = |path: &PathBuf| path.to_string_lossy().contains("00000002-000001-");
    let lost = world.shadow_files().into_iter().find(of_the_first).unwrap();
    world.disk.unlink_if_there("test", &lost).unwrap();
    let engine = world.open();
    assert!(engine.status().problems.is_empty(), "{:?}", engine.status().problems);
    let broken: Vec<u64> =
        engine.shadows().iter().filter(|shadow| shadow.broken.is_some()).map(|shadow| shadow.id).collect();
    assert_eq!(broken, [2]);
    world.check(&engine);
    while engine.shadow_step().unwrap() {}
    assert!(engine.shadows().iter().all(|shadow| shadow.broken.is_none()) && engine.shadows().len() == 2);
    world.check(&engine);
}

#[test]
fn five_failures_stop_the_making_until_someone_says_so() {
    let world = World::new(7, 40, false);
    let engine = world.open();
    for round in 1..=5 {
        assert_eq!(engine.shadow_status().stopped_secs, 0, "round {round}");
        world.disk.fail("shadow.data.create", 1, libc::EIO);
        assert!(engine.add_shadow(subject(), None, None).unwrap_err().is(libc::EIO));
    }
    let stopped = engine.add_shadow(subject(), None, None).unwrap_err();
    assert!(stopped.kind == Kind::Invalid && stopped.message.contains("weft shadow resume"), "{stopped}");
    let status = engine.status();
    assert!(
        status.shadows.stopped_secs > 500 && status.problems.iter().any(|text| text.contains("5 failures"))
    );
    // Wishes wait meanwhile.
    let (subject, pages, at) = (subject(), None, None);
    engine.wish(Wish { subject, pages, at, benefit: 1.0, reason: ShadowReason::Rule, urgent: false });
    assert!(!engine.shadow_step().unwrap());
    engine.resume_shadows();
    assert!(engine.status().problems.is_empty());
    assert!(engine.shadow_step().unwrap());
    assert_eq!(snapshots(&engine), 1);
}

#[test]
fn over_the_budget_the_least_useful_goes_and_what_was_asked_for_stays() {
    let mut world = World::new(8, 40, false);
    world.limit = 3 * 45 * PAGE as u64;
    let engine = world.open();
    let new = bed::regular();
    for name in ["1", "2", "3"] {
        let (file, _) = engine.create(FileId::ROOT, name.as_bytes(), new.clone()).unwrap();
        engine.write(file, 0, &[7; 40 * PAGE], false).unwrap();
    }
    let wish = |name: &str, benefit: f64, urgent: bool| {
        let subject = Subject { root: Vec::new(), partition: name.into() };
        engine.wish(Wish { subject, pages: None, at: None, benefit, reason: ShadowReason::Rule, urgent });
        engine.shadow_step().unwrap();
    };
    let names = || {
        let mut names: Vec<String> = engine.shadows().into_iter().map(|shadow| shadow.partition).collect();
        names.sort();
        names
    };
    engine.add_shadow(subject(), None, None).unwrap();
    wish("1", 5.0, false);
    wish("2", 3.0, false);
    assert_eq!(names(), ["1", NAME, "2"]);
    wish("3", 1.0, false);
    assert_eq!(names(), ["1", NAME, "2"], "it is the least useful itself");
    assert!(engine.shadow_status().refused.unwrap().contains("shadow_limit_mib"));
    wish("3", 4.0, false);
    assert_eq!(names(), ["1", NAME, "3"]);
    wish("2", 0.0, true);
    assert_eq!(names(), ["1", NAME, "2"], "an urgent one has its room");
    assert_eq!(engine.shadow_status().dropped, 2);
    assert_eq!(engine.shadow_status().failures, 0, "no room is no failure");
}

#[test]
fn on_a_full_disk_shadows_go_before_history_and_none_is_made() {
    static BLOCK: [u8; 16 * PAGE] = [7; 16 * PAGE];
    let mut world = World::new(12, 2_000, false);
    let engine = world.open();
    let wish = || {
        let (subject, reason) = (subject(), ShadowReason::Rule);
        engine.wish(Wish { subject, pages: None, at: None, benefit: 9.0, reason, urgent: false });
        engine.shadow_step().unwrap();
        snapshots(&engine)
    };
    assert_eq!(wish(), 1);
    // All of history may go, but need not.
    engine.set_retention(Retention { minimum_us: 1, ..Retention::everything() });
    // A twentieth is always left.
    let capacity = (world.disk.used() + (1 << 20)) * 20 / 19;
    world.disk.set_capacity(capacity);
    for _ in 0..400 {
        world.clock.pass(1_000_000);
        world.write(&engine, world.now.len(), &BLOCK).unwrap();
        world.keep(&engine).unwrap();
        if engine.shadows().is_empty() {
            break;
        }
    }
    assert!(engine.shadows().is_empty(), "{:?}", engine.full());
    assert_eq!(engine.thinned().upto(), Seq::ZERO, "history went first");
    world.check(&engine);
    // None is made from what is left.
    engine.set_retention(Retention { minimum_us: u64::MAX, ..Retention::everything() });
    while world.write(&engine, world.now.len(), &BLOCK).is_ok() {}
    assert!(engine.full().is_some() && engine.shadows().is_empty());
    assert_eq!(wish(), 0);
    let refused = engine.shadow_status().refused.unwrap();
    assert!(refused.contains("make room"), "{refused}");
    assert_eq!(engine.shadow_status().failures, 0, "no room is no failure");
    world.disk.set_capacity(4 * capacity);
    world.write(&engine, 0, &BLOCK).unwrap();
    engine.relieve().unwrap();
    assert_eq!(wish(), 1, "there is room again");
}

#[test]
fn what_cannot_have_room_costs_no_other_its_place() {
    let mut world = World::new(11, 40, false);
    world.limit = 3 * 45 * PAGE as u64;
    let engine = world.open();
    for (name, pages) in [("1", 40), ("2", 40), ("large", 100)] {
        let (file, _) = engine.create(FileId::ROOT, name.as_bytes(), bed::regular()).unwrap();
        engine.write(file, 0, &vec![7; pages * PAGE], false).unwrap();
    }
    let wish = |name: &str, benefit: f64, urgent: bool| {
        let subject = Subject { root: Vec::new(), partition: name.into() };
        engine.wish(Wish { subject, pages: None, at: None, benefit, reason: ShadowReason::Rule, urgent });
        engine.shadow_step().unwrap();
        engine.shadow_status()
    };
    engine.add_shadow(subject(), None, None).unwrap();
    wish("1", 5.0, false);
    wish("2", 3.0, false);
    // Both that may go are too little, and so is the one that is less useful.
    for (benefit, urgent) in [(9.0, true), (9.0, false), (4.0, false)] {
        let status = wish("large", benefit, urgent);
        assert!(status.refused.unwrap().contains("shadow_limit_mib"));
        assert_eq!((status.count, status.dropped), (3, 0), "{benefit} {urgent}");
    }
}

#[test]
fn the_rule_wants_a_shadow_when_enough_has_changed_or_time_has_passed() {
    let mut world = World::new(9, 1_100, false);
    let engine = world.open();
    let look = || {
        engine.shadow_rule();
        while engine.shadow_step().unwrap() {}
        snapshots(&engine)
    };
    assert_eq!(look(), 0);
    let bytes: Vec<u8> = (0..200 * PAGE).map(|at| at as u8).collect();
    world.write(&engine, 0, &bytes).unwrap();
    world.keep(&engine).unwrap();
    assert_eq!(look(), 0, "less than the rule waits for");
    world.write(&engine, 0, &bytes).unwrap();
    world.keep(&engine).unwrap();
    assert_eq!(look(), 1);
    assert_eq!(look(), 1);
    world.write(&engine, 0, &bytes[..PAGE]).unwrap();
    world.keep(&engine).unwrap();
    assert_eq!(look(), 1);
    world.clock.pass(25 * 3_600_000_000);
    assert_eq!(look(), 2, "a day has passed");
    world.check(&engine);
    assert!(engine.shadow_status().served_bytes > 0);
    let shadow = engine.shadows().remove(0);
    assert!(shadow.reason == "rule" && shadow.follows && shadow.behind_bytes == Some(0), "{shadow:?}");
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let world = World::new(10, 40, false);
    let engine = world.open();
    let nothing = Subject { root: Vec::new(), partition: b"no/where".to_vec() };
    let refused = engine.add_shadow(nothing, None, None).unwrap_err();
    assert!(refused.kind == Kind::Invalid && refused.message.contains("no partition no/where"), "{refused}");
    let root = Subject { root: b"other".to_vec(), partition: NAME.into() };
    assert_eq!(engine.add_shadow(root, None, None).unwrap_err().kind, Kind::Invalid);
    let refused = engine.add_shadow(subject(), None, Some(Seq(u64::MAX / 2))).unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid, "{refused}");
    assert_eq!(engine.remove_shadows(b"", "no/where").unwrap(), 0);
    assert!(engine.shadows().is_empty() && world.shadow_files().is_empty());
    assert_eq!(engine.shadow_status().failures, 0);
}
