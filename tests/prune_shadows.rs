//! Pruning beneath shadows: while shadows exist, are made, brought up to date, dropped and read through, each view that can
//! be opened shows what its instant had, and each other is ESTALE; after errors and cuts, too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::Ticking;
use support::bed::{self, STORE};
use support::kv::CrashKv;
use weft::disk::Disk;
use weft::disk::sim::SimDisk;
use weft::engine::{Engine, Instant, Resolution, SetAttr, ShadowReason, Subject, Unpaced};
use weft::engine::{Weaving, Wish};
use weft::error::{Kind, Result};
use weft::meta::retention::{Retention, Tier};
use weft::types::{FileId, PageSet, Seq};

const PAGE: usize = 4096;
/// Tables: the last one comes and goes.
const NAMES: [&str; 3] = ["16384", "16385", "16386"];
/// µs between two instants that are noted.
const STEP_US: i64 = 1_000;

type Contents = BTreeMap<&'static str, Vec<u8>>;

/// What an instant had.
#[derive(Clone)]
struct Past {
    seq: Seq,
    contents: Arc<Contents>,
}

struct World {
    rng: StdRng,
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    now: Contents,
    past: Vec<Past>,
}

fn subject(name: &str) -> Subject {
    Subject { root: Vec::new(), partition: name.into() }
}

/// One instant in `every` steps of all but the last `all` ones, of the last `reach`.
fn retention(all: i64, every: i64, reach: i64) -> Retention {
    let us = |steps: i64| (steps * STEP_US) as u64;
    let tiers = vec![Tier { every_us: us(every), for_us: Some(us(reach)) }];
    Retention { all_us: Some(us(all)), tiers, ..Retention::everything() }
}

/// Reads all of an instant, through shadows where there are any; `false`: it was pruned. What could be opened stays.
fn read_past(engine: &Engine, past: &Past) -> bool {
    let view = match engine.view(past.seq) {
        Ok(view) => view,
        Err(error) if error.is(libc::ESTALE) => return false,
        Err(error) => panic!("at {}: {error}", past.seq),
    };
    let listed = view.read_dir(FileId::ROOT, None, 99).unwrap();
    assert!(
        listed.iter().map(|entry| entry.name.as_slice()).eq(past.contents.keys().map(|name| name.as_bytes()))
    );
    for (name, bytes) in &*past.contents {
        let (file, attr) = view.lookup(FileId::ROOT, name.as_bytes()).unwrap().unwrap();
        assert_eq!(attr.size, bytes.len() as u64, "{name} at {}", past.seq);
        // Whole, and in parts that are less than a block.
        for (at, len) in [(0, bytes.len()), (PAGE, 40_000), (33_000, 12)] {
            let expected = bytes.get(at..bytes.len().min(at + len)).unwrap_or(&[]);
            let mut found = vec![0xee; len];
            let got = view.read(file, at as u64, &mut found).unwrap();
            let same = got == expected.len() && found[..got] == *expected;
            if !same {
                let wrong = (0..got).find(|byte| found.get(*byte) != expected.get(*byte));
                panic!("{len} bytes at {at} of {name} at {}: {got}, wrong from {wrong:?} on", past.seq);
            }
        }
    }
    true
}

impl World {
    fn new(seed: u64) -> World {
        let disk = bed::disk(seed);
        disk.set_reflinks(seed.is_multiple_of(2));
        World {
            rng: StdRng::seed_from_u64(seed),
            disk,
            kv: CrashKv::new(),
            clock: Arc::new(Ticking::new(1_800_000_000_000_000)),
            now: Contents::new(),
            past: Vec::new(),
        }
    }

    fn try_open(&self) -> Result<Arc<Engine>> {
        let mut options = bed::options();
        options.segment_bytes = 1;
        options.shadow.snapshots = 2;
        bed::open(&self.disk, &self.kv, &self.clock, options)
    }

    fn open(&self) -> Arc<Engine> {
        self.try_open().unwrap()
    }

    /// Sessions, each of which leaves a sealed segment behind, and now and then a shadow.
    fn sessions(&mut self, count: usize, instants: usize) {
        for _ in 0..count {
            let engine = self.open();
            for _ in 0..instants {
                self.change(&engine).unwrap();
            }
            engine.add_shadow(subject(NAMES[0]), None, None).unwrap();
            engine.checkpoint().unwrap();
            engine.abandon();
            drop(engine);
            self.disk = self.disk.kill();
        }
    }

    fn file(&mut self, engine: &Engine, name: &'static str) -> Result<FileId> {
        if self.now.contains_key(name) {
            return engine.lookup(FileId::ROOT, name.as_bytes()).map(|(file, _)| file);
        }
        let new = bed::regular();
        let (file, _) = engine.create(FileId::ROOT, name.as_bytes(), new)?;
        self.now.insert(name, Vec::new());
        let bytes: Vec<u8> = (0..40 * PAGE).map(|_| self.rng.random()).collect();
        self.write(engine, (file, name), 0, &bytes)?;
        Ok(file)
    }

    fn write(
        &mut self,
        engine: &Engine,
        (file, name): (FileId, &'static str),
        at: usize,
        bytes: &[u8],
    ) -> Result<()> {
        engine.write(file, at as u64, bytes, false)?;
        let content = self.now.get_mut(name).unwrap();
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Pages change, in whole and in part, ends move, holes are punched, a table goes and comes again; then an instant is
    /// noted.
    fn change(&mut self, engine: &Engine) -> Result<Past> {
        for name in NAMES {
            let file = self.file(engine, name)?;
            for _ in 0..3 {
                let pages = self.now[name].len() / PAGE;
                let at = self.rng.random_range(0..pages) * PAGE;
                let bytes: Vec<u8> = (0..PAGE).map(|_| self.rng.random()).collect();
                match self.rng.random_range(0..12) {
                    0 | 1 => self.write(engine, (file, name), at + 100, &bytes[..300])?,
                    2 if pages > 20 => {
                        let size = self.now[name].len() - PAGE / 2;
                        let set = SetAttr { size: Some(size as u64), ..SetAttr::default() };
                        engine.set_attr(file, set)?;
                        self.now.get_mut(name).unwrap().truncate(size);
                    }
                    3 if pages < 60 => {
                        self.write(engine, (file, name), self.now[name].len() + 9_000, &bytes)?;
                    }
                    4 => {
                        engine.fallocate(file, weft::engine::Fallocate::Punch, at as u64, PAGE as u64)?;
                        self.now.get_mut(name).unwrap()[at..at + PAGE].fill(0);
                    }
                    _ => self.write(engine, (file, name), at, &bytes)?,
                }
            }
        }
        if self.rng.random_bool(0.2) {
            engine.unlink(FileId::ROOT, NAMES[2].as_bytes())?;
            self.now.remove(NAMES[2]);
        }
        self.clock.pass(STEP_US);
        let Resolution::Found(found) = engine.resolve(Instant::Time(engine.now()))? else { panic!() };
        let past = Past { seq: found.seq, contents: Arc::new(self.now.clone()) };
        self.past.push(past.clone());
        Ok(past)
    }

    /// Each instant that remains is what it was, each other is refused.
    fn check(&self, engine: &Engine) {
        let thinned = engine.thinned();
        for past in &self.past {
            assert_eq!(read_past(engine, past), thinned.keeps(past.seq), "{}", past.seq);
        }
    }

    /// What goes on beside pruning: each step is tried once, `Err` the first error. Which steps follows from `turn`.
    fn shadows(&mut self, engine: &Engine, turn: u64) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(turn);
        let mut done = Ok(());
        let mut tried = |result: Result<()>| {
            if let (Ok(()), Err(error)) = (&done, result)
                && !is_refused(&error)
            {
                done = Err(error);
            }
        };
        for _ in 0..4 {
            let name = NAMES[rng.random_range(0..NAMES.len())];
            let at = self.past[rng.random_range(0..self.past.len())].seq;
            match rng.random_range(0..7) {
                0 | 1 => tried(engine.add_shadow(subject(name), None, None).map(|_| ())),
                2 => tried(engine.add_shadow(subject(name), None, Some(at)).map(|_| ())),
                3 => {
                    let mut pages = PageSet::default();
                    pages.write(5 * PAGE as u64, 25 * PAGE as u64);
                    tried(engine.add_shadow(subject(name), Some(pages), Some(at)).map(|_| ()));
                }
                4 => {
                    let reason = ShadowReason::Rule;
                    let subject = subject(name);
                    engine.wish(Wish { subject, pages: None, at: None, benefit: 1.0, reason, urgent: false });
                    tried(engine.shadow_step().map(|_| ()));
                }
                5 => {
                    let ids: Vec<u64> = engine.shadows().iter().map(|shadow| shadow.id).collect();
                    if let Some(id) = ids.get(rng.random_range(0..ids.len().max(1))) {
                        tried(engine.remove_shadows(b"", &id.to_string()).map(|_| ()));
                    }
                }
                _ if self.disk.is_dead() => {}
                _ => tried(self.change(engine).map(|_| ())),
            }
        }
        done
    }
}

/// Of an instant that was pruned, or a table that was not there then.
fn is_refused(error: &weft::error::Error) -> bool {
    error.kind == Kind::Invalid || error.is(libc::ESTALE)
}

fn settle(engine: &Engine) -> Result<()> {
    engine.checkpoint()?;
    while engine.index_some()? {}
    while let Weaving::Wove(_) = engine.weave(&Unpaced)? {}
    Ok(())
}

#[test]
fn readers_see_right_bytes_or_estale_while_shadows_come_and_go_and_history_is_pruned() {
    let mut world = World::new(1);
    world.sessions(8, 6);
    let engine = world.open();
    settle(&engine).unwrap();
    world.check(&engine);
    let past = world.past.clone();
    let done = AtomicBool::new(false);
    let (read, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (engine, past, done, read, refused) = (&engine, &past, &done, &read, &refused);
            scope.spawn(move || {
                // What is open goes on to be right, whatever is pruned meanwhile.
                let mut open: Option<(Arc<weft::past::view::View>, &Past)> = None;
                for (turn, past) in past.iter().cycle().skip(thread * 11).enumerate() {
                    match read_past(engine, past) {
                        true => read.fetch_add(1, Ordering::Relaxed),
                        false => refused.fetch_add(1, Ordering::Relaxed),
                    };
                    if let Some((view, past)) = &open {
                        assert!(read_past(engine, past), "{} is open", view.seq());
                    }
                    if turn % 5 == 0 {
                        open = engine.view(past.seq).ok().map(|view| (view, past));
                    }
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let (engine, pruner_done) = (&engine, &done);
        scope.spawn(move || {
            // From dense to sparse and back: a longer retention brings nothing back, a denser one judges anew.
            for turn in (0_i64..).take_while(|_| !pruner_done.load(Ordering::Relaxed)) {
                let all = (50 - turn).max(turn % 9);
                engine.set_retention(retention(all, 2 + turn % 5, all / 2 + 6));
                engine.prune(&Unpaced, turn % 10 == 9).unwrap();
            }
        });
        for turn in 0..60 {
            world.shadows(engine, turn).unwrap();
            if turn % 8 == 0 {
                settle(engine).unwrap();
            }
        }
        let seen = || (read.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
        while seen().0 + seen().1 < 200 {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(refused.into_inner() > 20 && read.into_inner() > 20);
    world.check(&engine);
    // Of those that are there still.
    assert!(engine.shadow_status().served_bytes > 1 << 16, "{:?}", engine.shadow_status());
    assert!(engine.shadows().iter().all(|shadow| shadow.broken.is_none()));
    // Found again, with an index that was made anew of what remains.
    engine.close().unwrap();
    drop(engine);
    world.kv.clear();
    let engine = world.open();
    world.check(&engine);
}

/// Shadows between prunings that leave less and less.
fn hard(world: &mut World, engine: &Engine, turn: u64) -> Result<()> {
    settle(engine)?;
    for (step, kept) in [(9, 2, 12), (4, 3, 9), (1, 4, 4), (0, 1, 0)].into_iter().enumerate() {
        world.shadows(engine, turn * 10 + step as u64)?;
        engine.set_retention(retention(kept.0, kept.1, kept.2));
        engine.prune(&Unpaced, false)?;
        if step == 1 {
            settle(engine)?;
        }
    }
    world.shadows(engine, turn * 10 + 9)
}

/// What must hold whatever happened: the past is right, pruning and shadows go on; at last there is no shadow.
fn goes_on(world: &mut World, engine: &Engine, what: &str) {
    world.check(engine);
    engine.resume_shadows();
    while engine.shadow_step().unwrap() {}
    settle(engine).unwrap();
    engine.set_retention(retention(1, 4, 4));
    engine.prune(&Unpaced, false).unwrap();
    world.check(engine);
    assert!(engine.shadows().iter().all(|shadow| shadow.broken.is_none()), "{what}: {:?}", engine.shadows());
    engine.add_shadow(subject(NAMES[0]), None, None).unwrap();
    world.check(engine);
    assert!(engine.status().problems.is_empty(), "{what}: {:?}", engine.status().problems);
    for id in engine.shadows().iter().map(|shadow| shadow.id) {
        engine.remove_shadows(b"", &id.to_string()).unwrap();
    }
    world.check(engine);
}

/// Once opened anew, nothing of what failed or was cut takes space.
fn nothing_is_left(world: &World, what: &str) {
    let left = |dir: &str| world.disk.read_dir("test", &Path::new(STORE).join(dir)).unwrap();
    assert!(left("shadow").is_empty(), "{what}: {:?}", left("shadow"));
    assert!(left("woven").iter().all(|entry| entry.name.ends_with(b".woven")), "{what}: {:?}", left("woven"));
}

/// A copy of a world, as `kill -9` leaves it.
fn fork(world: &World, seed: u64) -> World {
    World {
        rng: StdRng::seed_from_u64(seed),
        disk: world.disk.kill(),
        kv: world.kv.crash(0),
        clock: Arc::clone(&world.clock),
        now: world.now.clone(),
        past: world.past.clone(),
    }
}

#[test]
fn a_cut_anywhere_in_pruning_among_shadows_leaves_right_bytes_or_estale() {
    let mut first = World::new(2);
    first.sessions(4, 4);
    let (mut at, mut cuts) = (0, 0);
    let mut strides = StdRng::seed_from_u64(7);
    loop {
        let mut world = fork(&first, at);
        let engine = world.open();
        world.disk.cut_at(world.disk.operations() + at);
        let ended = hard(&mut world, &engine, at % 5).is_ok() && !world.disk.is_dead();
        drop(engine);
        world.kv = world.kv.crash(at % 3);
        world.disk = world.disk.cut(at);
        // The recovery is cut, too.
        world.disk.cut_at(world.disk.operations() + at * 7 % 50);
        drop(world.try_open());
        world.kv = world.kv.crash(at % 2);
        world.disk = world.disk.cut(at + 1);
        let engine = world.open();
        goes_on(&mut world, &engine, &format!("cut at {at}"));
        nothing_is_left(&world, &format!("cut at {at}"));
        cuts += 1;
        if ended {
            assert!(cuts > 40, "{cuts} cuts say little");
            return;
        }
        at += 1 + strides.random_range(0..8);
    }
}

#[test]
fn failing_operations_of_pruning_and_of_shadows_cost_no_byte_of_what_remains() {
    let ops = [
        "thin.name",
        "thin.remove",
        "weave.write",
        "woven.open",
        "woven.check",
        "shadow.data.create",
        "shadow.data.write",
        "shadow.data.sync",
        "shadow.data.read",
        "shadow.data.open",
        "shadow.data.free",
        "shadow.data.share",
        "shadow.write",
        "shadow.name",
        "shadow.dir.sync",
        "shadow.remove",
        "shadow.list",
        "pages.open",
    ];
    let mut failed = 0;
    for (round, op) in ops.into_iter().enumerate() {
        let mut first = World::new(round as u64 + 10);
        first.sessions(3, 4);
        for (nth, errno) in [(1, libc::EIO), (3, libc::ENOSPC), (8, libc::EIO)] {
            let mut world = fork(&first, nth);
            let engine = world.open();
            world.disk.fail(op, nth, errno);
            failed += usize::from(hard(&mut world, &engine, round as u64).is_err());
            world.disk.clear_faults();
            goes_on(&mut world, &engine, &format!("{op} {nth}"));
            engine.close().unwrap();
            drop(engine);
            let engine = world.open();
            world.check(&engine);
            nothing_is_left(&world, &format!("{op} {nth}"));
        }
    }
    assert!(failed > 20, "{failed} failed");
}
