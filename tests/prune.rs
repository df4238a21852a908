//! Pruning: every instant that is kept stays what it was to the last byte, whatever is cut, fails or reads meanwhile; the
//! others are refused, and space comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::Ticking;
use support::kv::CrashKv;
use weft::disk::Disk;
use weft::disk::sim::SimDisk;
use weft::engine::{Engine, Instant, NewFile, Options, Resolution, Unpaced, Weaving};
use weft::error::Result;
use weft::index::kv::Kv;
use weft::meta::retention::{Cap, Retention, Tier};
use weft::types::{FileId, FileKind, Seq, Timestamp};

const DATA: &str = "/data";
const STORE: &str = "/store";
const NAMES: [&str; 4] = ["table", "wal", "small", "sparse"];
/// µs between two instants that are noted.
const STEP_US: i64 = 1_000;

type Contents = Vec<(&'static str, Vec<u8>)>;

struct Past {
    ts: Timestamp,
    seq: Seq,
    contents: Contents,
}

struct World {
    rng: StdRng,
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    now: Contents,
    past: Vec<Past>,
}

fn try_open(disk: &SimDisk, kv: &Arc<CrashKv>, clock: &Arc<Ticking>) -> Result<Arc<Engine>> {
    let mut options = Options::new(Path::new(DATA), Path::new(STORE));
    options.new_store_id = [5; 16];
    options.segment_bytes = 1;
    Engine::open(Arc::new(disk.clone()), Arc::clone(clock) as _, options, &|path| {
        if disk.stat("test", path)?.is_none() {
            disk.create_dir("test", path, 0o700)?;
            kv.clear();
        }
        Ok(Arc::clone(kv) as Arc<dyn Kv>)
    })
}

impl World {
    fn new(seed: u64) -> World {
        let disk = SimDisk::new(seed);
        disk.create_dir("test", Path::new(DATA), 0o755).unwrap();
        disk.sync_filesystem("test", Path::new("/")).unwrap();
        World {
            rng: StdRng::seed_from_u64(seed),
            disk,
            kv: CrashKv::new(),
            clock: Arc::new(Ticking::new(1_800_000_000_000_000)),
            now: Vec::new(),
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

    /// Pages rewritten whole and in part, a log rewritten at its end and begun anew, holes, a file that comes and goes; then
    /// an instant is noted.
    fn work(&mut self, engine: &Engine) {
        for name in NAMES {
            if !self.now.iter().any(|(known, _)| *known == name) {
                let kind = FileKind::Regular;
                let new =
                    NewFile { kind, mode: 0o600, rdev: 0, target: Vec::new(), uid: 0, gid: 0, umask: 0 };
                engine.create(FileId::ROOT, name.as_bytes(), new).unwrap();
                self.now.push((name, Vec::new()));
            }
        }
        for _ in 0..6 {
            let page = self.rng.random_range(0..6) * 8192;
            let bytes = vec![self.rng.random(); 8192];
            self.write(engine, "table", page, &bytes);
            let end = self.content("wal").len() % 40_000;
            let bytes = vec![self.rng.random(); self.rng.random_range(1..9000)];
            self.write(engine, "wal", end, &bytes);
            let bytes = vec![self.rng.random(); self.rng.random_range(1..600)];
            let at = self.rng.random_range(0..5000);
            self.write(engine, "small", at, &bytes);
            let at = self.rng.random_range(0..60_000);
            self.write(engine, "sparse", at, &[7; 10]);
        }
        // Written seldom: it comes to rest.
        if self.past.is_empty() || self.rng.random_bool(0.1) {
            if self.past.is_empty() {
                let kind = FileKind::Regular;
                let new =
                    NewFile { kind, mode: 0o600, rdev: 0, target: Vec::new(), uid: 0, gid: 0, umask: 0 };
                engine.create(FileId::ROOT, b"seldom", new).unwrap();
                self.now.push(("seldom", Vec::new()));
                self.write(engine, "seldom", 0, &[3; 50_000]);
            }
            let at = self.rng.random_range(0..40_000);
            let bytes = vec![self.rng.random(); 5_000];
            self.write(engine, "seldom", at, &bytes);
        }
        if self.rng.random_bool(0.3) {
            engine.unlink(FileId::ROOT, b"table").unwrap();
            self.now.retain(|(name, _)| *name != "table");
        }
        self.clock.pass(STEP_US);
        let ts = engine.now();
        let Resolution::Found(found) = engine.resolve(Instant::Time(ts)).unwrap() else { panic!() };
        self.past.push(Past { ts, seq: found.seq, contents: self.now.clone() });
    }

    fn content(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.now.iter_mut().find(|(known, _)| *known == name).unwrap().1
    }

    fn write(&mut self, engine: &Engine, name: &str, at: usize, bytes: &[u8]) {
        let (id, _) = engine.lookup(FileId::ROOT, name.as_bytes()).unwrap();
        engine.write(id, at as u64, bytes, false).unwrap();
        let content = self.content(name);
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Reads what an instant shows; ESTALE when it was pruned.
fn read_past(engine: &Engine, seq: Seq, contents: &Contents) -> Result<()> {
    let view = engine.view(seq)?;
    let listed = view.read_dir(FileId::ROOT, None, 99)?;
    let mut names: Vec<&str> = contents.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert!(listed.iter().map(|entry| entry.name.as_slice()).eq(names.iter().map(|name| name.as_bytes())));
    for (name, content) in contents {
        let (file, attr) = view.lookup(FileId::ROOT, name.as_bytes())?.unwrap();
        assert_eq!(attr.size, content.len() as u64, "{name} at {seq}");
        let mut bytes = vec![0; content.len()];
        view.read(file, 0, &mut bytes)?;
        assert!(bytes == *content, "{name} at {seq}");
    }
    Ok(())
}

/// Each instant is what it was, or stands for the one before that is kept, or is refused.
fn check(engine: &Engine, past: &[Past]) {
    let thinned = engine.thinned();
    for Past { ts, seq, contents } in past {
        match (engine.resolve(Instant::Time(*ts)).unwrap(), thinned.at_or_before(*seq)) {
            (Resolution::Found(found), Some(shown)) => assert_eq!((found.seq, found.meant), (shown, *seq)),
            (Resolution::Pruned { oldest }, None) => assert!(oldest > *ts),
            other => panic!("{seq}: {other:?}"),
        }
        match thinned.keeps(*seq) {
            true => read_past(engine, *seq, contents).unwrap(),
            false => assert!(engine.view(*seq).err().unwrap().is(libc::ESTALE)),
        }
    }
}

fn settle(engine: &Engine) -> Result<()> {
    engine.checkpoint()?;
    while engine.index_some()? {}
    while let Weaving::Wove(_) = engine.weave(&Unpaced)? {}
    Ok(())
}

/// One instant in `every` steps of all but the last `all` ones, of the last `reach`.
fn retention(all: i64, every: i64, reach: i64) -> Retention {
    let us = |steps: i64| (steps * STEP_US) as u64;
    let tiers = vec![Tier { every_us: us(every), for_us: Some(us(reach)) }];
    Retention { all_us: Some(us(all)), tiers, ..Retention::everything() }
}

fn woven_bytes(disk: &SimDisk) -> u64 {
    let dir = Path::new(STORE).join("woven");
    let entries = disk.read_dir("test", &dir).unwrap();
    let path = |name: &[u8]| dir.join(std::str::from_utf8(name).unwrap());
    entries.iter().map(|entry| disk.stat("test", &path(&entry.name)).unwrap().unwrap().attr.size).sum()
}

#[test]
fn kept_instants_stay_exactly_and_space_comes_back() {
    let mut world = World::new(1);
    world.sessions(8);
    let engine = world.open();
    settle(&engine).unwrap();
    let before = woven_bytes(&world.disk);
    engine.set_retention(retention(6, 5, 20));
    let dry = engine.prune(&Unpaced, true).unwrap();
    assert!(dry.dry && dry.thinning.unneeded_bytes > 0, "{dry:?}");
    assert_eq!(woven_bytes(&world.disk), before, "a dry run changes nothing");
    check(&engine, &world.past);
    assert!(world.past.iter().all(|past| engine.thinned().keeps(past.seq)));

    let held = world.past[3].seq;
    engine.tag("held", held).unwrap();
    let open = engine.view(world.past[5].seq).unwrap();
    let done = engine.prune(&Unpaced, false).unwrap();
    assert!(
        woven_bytes(&world.disk) * 10 < before * 9
            && done.thinning.unneeded_bytes * 2 > done.thinning.payload_bytes,
        "{done:?}"
    );
    let pinned: Vec<&str> = done.pinned.iter().map(|held| held.by.as_str()).collect();
    assert_eq!(pinned, ["tag held", "1 open view, 0 handles"]);
    let kept = |world: &World, engine: &Engine| {
        world.past.iter().filter(|past| engine.thinned().keeps(past.seq)).count()
    };
    let first = kept(&world, &engine);
    assert!((8..=16).contains(&first), "{first} of {} are kept", world.past.len());
    check(&engine, &world.past);
    assert_eq!(engine.oldest().0, held);

    // What goes on is history as ever; what is let go goes with the next pruning; the index can be made anew.
    drop(open);
    engine.untag("held").unwrap();
    world.work(&engine);
    engine.prune(&Unpaced, false).unwrap();
    assert!(kept(&world, &engine) < first);
    check(&engine, &world.past);
    engine.close().unwrap();
    drop(engine);
    world.kv.clear();
    let engine = world.open();
    check(&engine, &world.past);
    // Longer retention brings nothing back; none at all leaves the last instants.
    engine.set_retention(retention(1000, 1, 1000));
    settle(&engine).unwrap();
    engine.prune(&Unpaced, false).unwrap();
    check(&engine, &world.past);
    engine.set_retention(Retention { all_us: Some(0), ..Retention::everything() });
    settle(&engine).unwrap();
    engine.prune(&Unpaced, false).unwrap();
    check(&engine, &world.past);
    assert_eq!(kept(&world, &engine), 0);
}

#[test]
fn a_cut_at_each_operation_of_a_prune_loses_nothing_that_is_kept() {
    let mut world = World::new(2);
    world.sessions(3);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.tag("held", world.past[2].seq).unwrap();
    engine.abandon();
    drop(engine);
    world.disk = world.disk.kill();
    for at in 0.. {
        let disk = world.disk.kill();
        let kv = world.kv.crash(0);
        let prune = |engine: &Engine| -> Result<()> {
            engine.set_retention(retention(2, 3, 9));
            settle(engine)?;
            engine.prune(&Unpaced, false)?;
            engine.set_retention(retention(1, 6, 4));
            engine.prune(&Unpaced, false).map(|_| ())
        };
        let engine = try_open(&disk, &kv, &world.clock).unwrap();
        disk.cut_at(disk.operations() + at);
        let ended = prune(&engine).is_ok() && !disk.is_dead();
        drop(engine);
        let kv = kv.crash(at % 3);
        let disk = disk.cut(at);
        disk.cut_at(disk.operations() + at * 7 % 60);
        drop(try_open(&disk, &kv, &world.clock));
        let disk = disk.cut(at + 1);
        let engine = try_open(&disk, &kv, &world.clock).unwrap();
        check(&engine, &world.past);
        assert!(engine.thinned().keeps(world.past[2].seq));
        prune(&engine).unwrap();
        check(&engine, &world.past);
        let left = disk.read_dir("test", &Path::new(STORE).join("woven")).unwrap();
        assert!(left.iter().all(|entry| entry.name.ends_with(b".woven")), "cut at {at}: {left:?}");
        assert!(engine.status().problems.is_empty(), "{:?}", engine.status().problems);
        if ended {
            assert!(at > 20, "{at} operations say little");
            return;
        }
    }
}

#[test]
fn failing_operations_leave_every_kept_instant_and_the_next_pruning_goes_on() {
    for op in
        ["weave.create", "weave.write", "weave.sync", "thin.name", "woven.check", "thin.remove", "woven.open"]
    {
        for errno in [libc::EIO, libc::ENOSPC] {
            let mut world = World::new(3);
            world.sessions(2);
            let engine = world.open();
            settle(&engine).unwrap();
            engine.set_retention(retention(1, 3, 3));
            world.disk.fail(op, 1, errno);
            let error = engine.prune(&Unpaced, false).unwrap_err();
            assert!(error.is(errno), "{op}: {error}");
            check(&engine, &world.past);
            engine.prune(&Unpaced, false).unwrap();
            check(&engine, &world.past);
        }
    }
}

#[test]
fn readers_see_right_bytes_or_estale_while_history_goes_beneath_them() {
    let mut world = World::new(4);
    world.sessions(8);
    let engine = world.open();
    settle(&engine).unwrap();
    let done = AtomicBool::new(false);
    let (read, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (engine, world, done, read, refused) = (&engine, &world, &done, &read, &refused);
            scope.spawn(move || {
                for past in world.past.iter().cycle().skip(thread * 7) {
                    match read_past(engine, past.seq, &past.contents) {
                        Ok(()) => read.fetch_add(1, Ordering::Relaxed),
                        Err(error) if error.is(libc::ESTALE) => refused.fetch_add(1, Ordering::Relaxed),
                        Err(error) => panic!("at {}: {error}", past.seq),
                    };
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        for all in (0..30).rev() {
            let seen = read.load(Ordering::Relaxed) + refused.load(Ordering::Relaxed);
            engine.set_retention(retention(all, 4, all / 2));
            engine.prune(&Unpaced, false).unwrap();
            while read.load(Ordering::Relaxed) + refused.load(Ordering::Relaxed) < seen + 9 {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(read.into_inner() > 50 && refused.into_inner() > 20);
    check(&engine, &world.past);
}

#[test]
fn above_the_cap_history_is_shortened_down_to_the_minimum() {
    let mut world = World::new(5);
    world.sessions(6);
    let engine = world.open();
    settle(&engine).unwrap();
    let kept = |engine: &Engine| world.past.iter().filter(|past| engine.thinned().keeps(past.seq)).count();
    let minimum_us = 6 * STEP_US as u64;
    engine.set_retention(Retention { cap: Cap::Bytes(1 << 50), minimum_us, ..Retention::everything() });
    assert!(engine.relieve().unwrap());
    assert_eq!(kept(&engine), world.past.len(), "there is room");
    engine.set_retention(Retention { cap: Cap::Bytes(1), minimum_us, ..Retention::everything() });
    assert!(!engine.relieve().unwrap(), "no history fits into a byte");
    check(&engine, &world.past);
    assert!((3..=8).contains(&kept(&engine)), "{} are kept", kept(&engine));
    assert!(engine.thinned().keeps(world.past.last().unwrap().seq));
}

#[test]
fn what_nobody_writes_comes_to_rest_and_its_next_overwrite_saves_it_again() {
    let mut world = World::new(6);
    let engine = world.open();
    let new = NewFile {
        kind: FileKind::Regular,
        mode: 0o600,
        rdev: 0,
        target: Vec::new(),
        uid: 0,
        gid: 0,
        umask: 0,
    };
    for name in ["cold", "gone"] {
        engine.create(FileId::ROOT, name.as_bytes(), new.clone()).unwrap();
        world.now.push((name, Vec::new()));
        let bytes: Vec<u8> = (0..200_000).map(|_| world.rng.random()).collect();
        world.write(&engine, name, 0, &bytes);
    }
    engine.checkpoint().unwrap();
    engine.abandon();
    drop(engine);
    world.disk = world.disk.kill();
    world.sessions(6);
    let engine = world.open();
    settle(&engine).unwrap();
    let before = woven_bytes(&world.disk);
    engine.set_retention(retention(3, 3, 9));
    let done = engine.prune(&Unpaced, false).unwrap();
    assert!(
        woven_bytes(&world.disk) + 390_000 < before,
        "{before} to {}: {done:?}",
        woven_bytes(&world.disk)
    );
    assert!(engine.live_rested() >= 2);
    check(&engine, &world.past);
    // Overwritten in part, cut, and removed: each kept instant still has what it had.
    let kept = |engine: &Engine, world: &World| {
        world.past.iter().filter(|past| engine.thinned().keeps(past.seq)).count()
    };
    assert!(kept(&engine, &world) >= 4);
    world.write(&engine, "cold", 5_000, &[9; 9_000]);
    engine.unlink(FileId::ROOT, b"gone").unwrap();
    world.now.retain(|(name, _)| *name != "gone");
    engine.checkpoint().unwrap();
    check(&engine, &world.past);
    assert!(engine.status().base_bytes > 0, "pre-images were saved again");
    world.work(&engine);
    engine.checkpoint().unwrap();
    engine.apply().unwrap();
    check(&engine, &world.past);
    drop(engine);
    // Cut off, and with an index made anew.
    world.disk = world.disk.cut(3);
    world.kv = world.kv.crash(9);
    let engine = world.open();
    check(&engine, &world.past);
    settle(&engine).unwrap();
    engine.prune(&Unpaced, false).unwrap();
    check(&engine, &world.past);
    engine.close().unwrap();
    drop(engine);
    let engine = world.open();
    check(&engine, &world.past);
}
