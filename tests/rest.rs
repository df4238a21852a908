//! Pages at rest: what nobody wrote since history began is held once, in the live file, whatever is written beside it; and
//! each kept instant has it still when it is overwritten.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use rand::Rng;
use std::cell::Cell;
use std::sync::Arc;
use support::bed;
use support::pruned::{World, check, retention, settle, try_open, woven_bytes};
use weft::engine::{Engine, Pace, Unpaced};
use weft::error::Kind;
use weft::types::{FileId, PAGE};

/// Pages of the table.
const PAGES: usize = 200;

/// A table that is loaded once, of which each session then writes a few pages.
fn loaded(seed: u64, sessions: usize) -> World {
    let mut world = World::new(seed);
    let engine = world.open();
    engine.create(FileId::ROOT, b"loaded", bed::regular()).unwrap();
    world.now.push(("loaded", Vec::new()));
    let bytes: Vec<u8> = (0..PAGES * PAGE as usize).map(|_| world.rng.random()).collect();
    world.write(&engine, "loaded", 0, &bytes);
    world.seal(engine);
    for _ in 0..sessions {
        session(&mut world);
    }
    world
}

/// Writes pages of a table in which nothing compresses, and leaves a sealed segment behind.
fn session(world: &mut World) {
    let engine = world.open();
    for _ in 0..4 {
        write_some(world, &engine, 2);
        world.work(&engine);
    }
    world.seal(engine);
}

/// Overwrites parts of some pages, at times of their neighbours as well.
fn write_some(world: &mut World, engine: &Engine, times: usize) {
    for _ in 0..times {
        let bytes: Vec<u8> = (0..world.rng.random_range(1..7_000)).map(|_| world.rng.random()).collect();
        let at = world.rng.random_range(0..PAGES * PAGE as usize - bytes.len());
        world.write(engine, "loaded", at, &bytes);
    }
}

fn loaded_is_at_rest(engine: &Engine) -> bool {
    let (file, _) = engine.lookup(FileId::ROOT, b"loaded").unwrap();
    engine.rested().iter().any(|rested| rested.file == file)
}

#[test]
fn pages_that_nobody_writes_go_from_history_and_their_next_overwrite_saves_them() {
    let mut world = loaded(1, 6);
    let engine = world.open();
    settle(&engine).unwrap();
    let before = woven_bytes(&world.disk);
    engine.set_retention(retention(8, 4, 16));
    let said = engine.prune(&Unpaced, true).unwrap();
    assert!(!loaded_is_at_rest(&engine), "a dry run changes nothing");
    let done = engine.prune(&Unpaced, false).unwrap();
    let after = woven_bytes(&world.disk);
    assert!(loaded_is_at_rest(&engine));
    assert!(after + (PAGES as u64 - 70) * PAGE < before, "{before} to {after}: {done:?}");
    assert!(done.saved_bytes > 0 && done.saved_bytes < 130 * PAGE, "{done:?}");
    assert_eq!(said.saved_bytes, done.saved_bytes);
    check(&engine, &world.past);
    let saved = engine.status().base_bytes;
    write_some(&mut world, &engine, 40);
    world.work(&engine);
    engine.checkpoint().unwrap();
    assert!(engine.status().base_bytes > saved + 20 * PAGE, "pre-images were saved again");
    check(&engine, &world.past);
    // Cut off, and with an index made anew.
    drop(engine);
    world.disk = world.disk.cut(3);
    world.kv = world.kv.crash(9);
    check(&world.open(), &world.past);
    world.disk = world.disk.kill();
    world.kv.clear();
    let engine = world.open();
    check(&engine, &world.past);
    // Removed: what leans on the live file goes where it stays.
    engine.unlink(FileId::ROOT, b"loaded").unwrap();
    world.now.retain(|(name, _)| *name != "loaded");
    engine.checkpoint().unwrap();
    check(&engine, &world.past);
    engine.close().unwrap();
}

#[test]
fn a_file_comes_to_rest_again_and_again_and_what_it_leaned_on_before_goes() {
    let mut world = loaded(2, 3);
    let mut since = Vec::new();
    for round in 0..8 {
        for _ in 0..3 {
            session(&mut world);
        }
        let engine = world.open();
        settle(&engine).unwrap();
        engine.set_retention(retention(6, 3, 9));
        engine.prune(&Unpaced, false).unwrap();
        check(&engine, &world.past);
        let (file, _) = engine.lookup(FileId::ROOT, b"loaded").unwrap();
        since.extend(engine.rested().iter().find(|rested| rested.file == file).map(|rested| rested.since));
        assert!(woven_bytes(&world.disk) < 120 * PAGE, "round {round}: {}", woven_bytes(&world.disk));
        drop(engine);
        world.disk = world.disk.cut(round);
        world.kv = world.kv.crash(round);
    }
    since.dedup();
    assert!(since.len() >= 3, "it came to rest at {since:?} only");
    let engine = world.open();
    engine.checkpoint().unwrap();
    // Base files go when none of their pages is needed: those of the first rests are long gone.
    assert!(engine.status().base_bytes < 400 * PAGE, "{}", engine.status().base_bytes);
    check(&engine, &world.past);
}

#[test]
fn whatever_of_the_checkpoint_fails_the_base_is_the_one_that_stands() {
    let world = loaded(3, 4);
    let mut failures = 0;
    for op in ["checkpoint.write", "checkpoint.rename", "base.write", "base.create", "checkpoint.live.sync"] {
        for nth in 1..=6 {
            for errno in [libc::EIO, libc::ENOSPC] {
                let (disk, kv) = (world.disk.kill(), world.kv.crash(0));
                let (past, now, clock) = (world.past.clone(), world.now.clone(), Arc::clone(&world.clock));
                let mut world = World { disk, kv, past, now, clock, ..World::new(nth) };
                let engine = world.open();
                settle(&engine).unwrap();
                engine.set_retention(retention(8, 4, 16));
                world.disk.fail(op, nth, errno);
                let refused = engine.prune(&Unpaced, false).is_err();
                failures += u64::from(refused);
                check(&engine, &world.past);
                // What is written now must not be what an earlier instant shows, by whichever checkpoint stands.
                if engine.stopped().is_none() {
                    write_some(&mut world, &engine, 60);
                    world.work(&engine);
                    let _ = engine.apply();
                    check(&engine, &world.past);
                }
                drop(engine);
                let disk = world.disk.cut(nth);
                let engine = try_open(&disk, &world.kv.crash(nth), &world.clock).unwrap();
                check(&engine, &world.past);
                engine.set_retention(retention(8, 4, 16));
                settle(&engine).unwrap();
                engine.prune(&Unpaced, false).unwrap();
                check(&engine, &world.past);
            }
        }
    }
    assert!(failures > 5, "{failures}");
}

#[test]
fn a_checkpoint_that_may_stand_or_not_stops_what_would_make_it_wrong() {
    let mut seen = false;
    for nth in 1..12 {
        let mut world = loaded(4, 4);
        let engine = world.open();
        settle(&engine).unwrap();
        engine.set_retention(retention(8, 4, 16));
        // Two in a row: the one that may stand, and the one that was to make it sure.
        for more in 0..8 {
            world.disk.fail("checkpoint.rename", nth + more, libc::EIO);
        }
        let error = engine.prune(&Unpaced, false).err();
        if let Some(stopped) = engine.stopped() {
            seen = true;
            assert!(error.is_some() && stopped.is(libc::EIO), "{stopped}");
            let (file, _) = engine.lookup(FileId::ROOT, b"loaded").unwrap();
            assert_eq!(engine.write(file, 0, &[1; 10], false).unwrap_err().kind, Kind::Stopped);
            assert!(engine.apply().is_err());
        } else {
            write_some(&mut world, &engine, 60);
            world.work(&engine);
        }
        check(&engine, &world.past);
        drop(engine);
        let disk = world.disk.cut(nth);
        let engine = try_open(&disk, &world.kv.crash(nth), &world.clock).unwrap();
        check(&engine, &world.past);
        write_some(&mut world, &engine, 60);
        engine.checkpoint().unwrap();
        check(&engine, &world.past);
    }
    assert!(seen, "no failure left it open which checkpoint stands");
}

/// Writes once while others are saved.
struct Meanwhile<'a> {
    engine: &'a Engine,
    written: Cell<bool>,
}

impl Pace for Meanwhile<'_> {
    fn go_on(&self, _: u64) -> bool {
        if !self.written.replace(true) {
            let (file, _) = self.engine.lookup(FileId::ROOT, b"loaded").unwrap();
            for page in 0..40 {
                self.engine.write(file, page * PAGE, &[7; PAGE as usize], false).unwrap();
            }
        }
        true
    }
}

#[test]
fn what_is_written_while_files_are_saved_is_saved_before_the_applier_waits() {
    let mut world = loaded(5, 6);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(retention(8, 4, 16));
    world.disk.keep_log(100_000);
    let meanwhile = Meanwhile { engine: &engine, written: Cell::new(false) };
    let done = engine.prune(&meanwhile, false).unwrap();
    assert!(meanwhile.written.get() && loaded_is_at_rest(&engine) && done.saved_bytes > 0);
    world.content("loaded")[..40 * PAGE as usize].fill(7);
    world.note(&engine);
    // From there on the round is held.
    let log: Vec<&str> = world.disk.log().into_iter().map(|(op, _)| op).collect();
    let begin = log.iter().rposition(|op| *op == "checkpoint.live.sync").unwrap();
    let end = begin + log[begin..].iter().position(|op| *op == "checkpoint.write").unwrap();
    assert!(log[..begin].contains(&"base.write"));
    assert!(!log[begin..end].contains(&"base.write"), "{:?}", &log[begin..end]);
    check(&engine, &world.past);
    engine.checkpoint().unwrap();
    check(&engine, &world.past);
}
