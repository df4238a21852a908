//! The space of what was there before Weft comes back when no instant shows it any more, whatever is cut or fails then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use rand::Rng;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::bed::{DATA, STORE};
use support::pruned::{World, check, retention, settle, try_open};
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, Pace, Unpaced};
use weft::error::Result;
use weft::meta::retention::Retention;
use weft::types::{FileId, PAGE};

/// Files that were there before Weft: two are written page by page, and one is removed whole.
const OLD: [&str; 3] = ["old", "older", "dropped"];
const BYTES: usize = 200_000;

fn world(seed: u64) -> World {
    World::over(seed, &OLD.map(|name| (name, BYTES)))
}

/// Sessions in each of which a stretch of the old files is overwritten; in the second one of them is removed. At last all of
/// `old` has been overwritten, and half of `older`.
fn sessions(world: &mut World) {
    for session in 0..5 {
        let engine = world.open();
        world.work(&engine);
        let at = session * 40_000;
        let bytes: Vec<u8> = (0..40_000).map(|_| world.rng.random()).collect();
        world.write(&engine, "old", at, &bytes);
        world.write(&engine, "older", at / 2, &bytes[..20_000]);
        if session == 1 {
            engine.unlink(FileId::ROOT, b"dropped").unwrap();
            world.now.retain(|(name, _)| *name != "dropped");
        }
        (0..3).for_each(|_| world.work(&engine));
        world.seal(engine);
    }
}

/// Base files and files in limbo.
fn kept_files(world: &World) -> (usize, usize) {
    let count = |dir: &Path| world.disk.read_dir("test", dir).unwrap().len();
    let limbo = count(&Path::new(DATA).join(".weft/limbo")) + count(&Path::new(STORE).join("limbo"));
    (count(&Path::new(STORE).join("base")), limbo)
}

#[test]
fn what_was_there_before_goes_when_no_instant_shows_it() {
    let mut world = world(1);
    sessions(&mut world);
    let engine = world.open();
    settle(&engine).unwrap();
    let all = kept_files(&world);
    assert!(all.0 >= 4 && all.1 == 1, "{all:?}");
    check(&engine, &world.past);
    // As long as the first instant is held, all of it is needed.
    engine.tag("first", world.past[0].seq).unwrap();
    engine.set_retention(retention(4, 3, 4));
    assert_eq!(engine.prune(&Unpaced, false).unwrap().bases_bytes, 0);
    // What came to rest added one.
    let all = (all.0 + 1, all.1);
    assert_eq!(kept_files(&world), all);
    check(&engine, &world.past);

    engine.untag("first").unwrap();
    let before = engine.status().base_bytes;
    let said = engine.prune(&Unpaced, true).unwrap();
    assert!(said.bases_bytes > 200_000, "{said:?}");
    assert_eq!(kept_files(&world), all, "a dry run changes nothing");
    let done = engine.prune(&Unpaced, false).unwrap();
    assert_eq!(done.bases_bytes, said.bases_bytes);
    let left = kept_files(&world);
    assert!(left.0 < all.0 && left.0 > 0 && left.1 == 0, "{all:?} to {left:?}");
    assert!(engine.status().base_bytes + 200_000 < before, "{before} to {}", engine.status().base_bytes);
    check(&engine, &world.past);
    assert_eq!(engine.prune(&Unpaced, false).unwrap().bases_bytes, 0);

    // Everything goes on: overwritten once more, cut off, an index made anew, unmounted, pruned to the last.
    world.write(&engine, "older", 90_000, &[7; 50_000]);
    world.work(&engine);
    engine.checkpoint().unwrap();
    check(&engine, &world.past);
    drop(engine);
    for crash in [0, 9] {
        world.disk = world.disk.cut(crash);
        world.kv = world.kv.crash(crash);
        let engine = world.open();
        check(&engine, &world.past);
        drop(engine);
    }
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(Retention { all_us: Some(0), ..Retention::everything() });
    engine.prune(&Unpaced, false).unwrap();
    check(&engine, &world.past);
    assert_eq!(kept_files(&world).0, 1, "the newest stays: numbers follow from it");
    world.work(&engine);
    engine.close().unwrap();
    drop(engine);
    let engine = world.open();
    check(&engine, &world.past);
    for (name, bytes) in &world.now {
        let (file, _) = engine.lookup(FileId::ROOT, name.as_bytes()).unwrap();
        let mut found = vec![0; bytes.len()];
        engine.read(file, 0, &mut found).unwrap();
        assert!(found == *bytes, "{name}");
    }
}

fn prune(engine: &Engine) -> Result<()> {
    settle(engine)?;
    engine.set_retention(retention(5, 3, 5));
    engine.prune(&Unpaced, false)?;
    engine.set_retention(retention(0, 1, 0));
    engine.prune(&Unpaced, false).map(|_| ())
}

#[test]
fn a_cut_at_each_operation_of_it_leaves_every_instant_that_remains() {
    let mut first = world(2);
    sessions(&mut first);
    for at in 0.. {
        let mut world = World::new(at);
        (world.disk, world.kv) = (first.disk.kill(), first.kv.crash(0));
        let engine = try_open(&world.disk, &world.kv, &first.clock).unwrap();
        world.disk.cut_at(world.disk.operations() + at);
        let ended = prune(&engine).is_ok() && !world.disk.is_dead();
        drop(engine);
        (world.disk, world.kv) = (world.disk.cut(at), world.kv.crash(at % 3));
        world.disk.cut_at(world.disk.operations() + at * 7 % 60);
        drop(try_open(&world.disk, &world.kv, &first.clock));
        (world.disk, world.kv) = (world.disk.cut(at + 1), world.kv.crash(at % 2));
        let engine = try_open(&world.disk, &world.kv, &first.clock).unwrap();
        check(&engine, &first.past);
        prune(&engine).unwrap();
        check(&engine, &first.past);
        assert_eq!(kept_files(&world).1, 0, "cut at {at}");
        assert!(engine.status().problems.is_empty(), "{:?}", engine.status().problems);
        // An index made anew asks for nothing that is gone.
        engine.close().unwrap();
        drop(engine);
        world.kv.clear();
        let engine = try_open(&world.disk, &world.kv, &first.clock).unwrap();
        check(&engine, &first.past);
        if ended {
            assert!(at > 30, "{at} operations say little");
            return;
        }
    }
}

#[test]
fn a_failing_operation_of_it_takes_nothing_and_the_next_pruning_goes_on() {
    for op in ["base.remove", "limbo.remove", "base.look", "limbo.list", "base.open"] {
        for nth in [1, 2] {
            let mut world = world(3);
            sessions(&mut world);
            let engine = world.open();
            settle(&engine).unwrap();
            world.disk.fail(op, nth, libc::EIO);
            let failed = prune(&engine).is_err();
            // Where a saved page cannot be read, a file does not come to rest, and all else goes on.
            assert!(failed || nth > 1 || op == "base.open", "{op}");
            check(&engine, &world.past);
            world.disk.clear_faults();
            prune(&engine).unwrap();
            check(&engine, &world.past);
            assert_eq!(kept_files(&world).1, 0, "{op}");
            engine.close().unwrap();
            drop(engine);
            let engine = world.open();
            check(&engine, &world.past);
        }
    }
}

#[test]
fn a_damaged_list_of_saved_pages_keeps_its_file_and_no_other() {
    let mut world = World::new(4);
    let bytes: Vec<u8> = (0..3_200_000).map(|_| world.rng.random()).collect();
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let file = world.disk.open("test", &Path::new(DATA).join("old"), how).unwrap();
    file.write_at("test", &bytes, 0).unwrap();
    world.disk.sync_filesystem("test", Path::new("/")).unwrap();
    world.now.push(("old", bytes));
    // Of each session one base file; that of the first is of several batches.
    for bytes in [2_400_000, 400_000, 400_000] {
        let engine = world.open();
        world.note(&engine);
        let new: Vec<u8> = (0..bytes).map(|_| world.rng.random()).collect();
        let at = world.now[0].1.len() - if bytes > 1_000_000 { 3_200_000 } else { 400_000 };
        world.write(&engine, "old", at, &new);
        world.work(&engine);
        world.seal(engine);
    }
    let engine = world.open();
    settle(&engine).unwrap();
    // The first instant needs the pages of the first base file behind the list that is damaged.
    engine.tag("first", world.past[0].seq).unwrap();
    let base = Path::new(STORE).join("base");
    let first = base.join("0000000001.base");
    let len = world.disk.stat("test", &first).unwrap().unwrap().attr.size;
    assert!(len > 2_000_000, "{len}");
    let damaged = world.disk.open("test", &first, OpenHow { write: true, ..OpenHow::default() }).unwrap();
    damaged.write_at("test", &[0xff; 64], 0).unwrap();
    engine.set_retention(retention(1, 3, 1));
    let done = engine.prune(&Unpaced, false).unwrap();
    assert!(done.undone.is_some_and(|error| error.path == Some(first.clone())));
    assert!(world.disk.stat("test", &first).unwrap().is_some());
    check(&engine, &world.past);
    engine.untag("first").unwrap();
    engine.prune(&Unpaced, false).unwrap();
    assert!(world.disk.stat("test", &first).unwrap().is_some(), "who needs it is not known");
    check(&engine, &world.past);
}

/// Stops where base files are looked through until it is let go.
#[derive(Default)]
struct Held {
    there: AtomicBool,
    go: AtomicBool,
}

impl Pace for Held {
    fn go_on(&self, bytes: u64) -> bool {
        while bytes == PAGE && !self.go.load(Ordering::Relaxed) {
            self.there.store(true, Ordering::Relaxed);
            std::thread::yield_now();
        }
        true
    }
}

#[test]
fn a_dry_run_keeps_nobody_waiting_who_prunes() {
    let mut world = world(5);
    sessions(&mut world);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(retention(4, 3, 4));
    let held = Arc::new(Held::default());
    let dry = {
        let (engine, held) = (Arc::clone(&engine), Arc::clone(&held));
        std::thread::spawn(move || engine.prune(&*held, true))
    };
    while !held.there.load(Ordering::Relaxed) {
        assert!(!dry.is_finished(), "it never came to the base files");
        std::thread::yield_now();
    }
    let (done, wait) = std::sync::mpsc::channel();
    let pruner = Arc::clone(&engine);
    std::thread::spawn(move || drop(done.send(pruner.prune(&Unpaced, false))));
    let pruned = wait.recv_timeout(Duration::from_secs(60)).expect("it waits for the dry run").unwrap();
    assert!(pruned.bases_bytes > 0, "{pruned:?}");
    held.go.store(true, Ordering::Relaxed);
    let dry = dry.join().unwrap().unwrap();
    assert!(dry.dry && dry.thinning.unneeded_bytes > 0, "{dry:?}");
    check(&engine, &world.past);
}
