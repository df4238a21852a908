//! While the index is made anew, which may take hours, the mount serves: nothing that must be answered at once waits for it,
//! and no applier does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use support::pruned::{World, check, retention, settle};
use weft::engine::{Engine, Instant, Resolution, SetAttr, SetTime, Unpaced};
use weft::meta::retention::{Cap, Retention};
use weft::types::{FileId, Seq};

/// More events than anybody waits for who must answer at once.
const MANY: u64 = 150_000;

/// A store whose history was thinned, with many events before and since; its index is gone.
fn behind(seed: u64) -> World {
    let mut world = World::new(seed);
    world.sessions(1);
    let engine = world.open();
    busy(&engine);
    world.seal(engine);
    world.sessions(4);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(retention(4, 2, 6));
    engine.prune(&Unpaced, false).unwrap();
    assert!(engine.oldest().0 > Seq(MANY), "nothing was thinned");
    busy(&engine);
    world.note(&engine);
    world.seal(engine);
    world.kv.clear();
    world
}

/// Many events, of no bytes, in many groups.
fn busy(engine: &Engine) {
    let (file, _) = engine.lookup(FileId::ROOT, b"small").unwrap();
    let set = SetAttr { atime: Some(SetTime::Now), ..SetAttr::default() };
    for event in 0..MANY {
        engine.set_attr(file, set).unwrap();
        if event % 300 == 0 {
            engine.sync(Box::new(|done| done.unwrap()));
        }
    }
}

fn indexed(engine: &Engine) -> u64 {
    engine.status().indexed_seq
}

#[test]
fn what_must_be_answered_at_once_does_not_wait_for_an_index_that_is_made_anew() {
    let mut world = behind(1);
    let engine = world.open();
    let first = engine.thinned().first();
    // The status, and what looks after the space.
    assert_eq!(indexed(&engine), 0);
    assert_eq!(engine.oldest().0, first);
    assert!(!engine.is_over());
    // A name of the past, in a handler.
    let last = world.past.last().unwrap();
    for instant in [Instant::Time(last.ts), Instant::Seq(last.seq)] {
        assert!(engine.try_resolve(instant).unwrap_err().is(libc::EAGAIN));
    }
    assert_eq!(indexed(&engine), 0);
    // The present is right, and DATA whole, without it.
    engine.close().unwrap();
    drop(engine);
    world.disk = world.disk.kill();
    let engine = world.open();
    assert!(indexed(&engine) < MANY, "closing waited for the index");
    // Whoever has the time to wait does, and from then on all is as it was.
    let Resolution::Found(found) = engine.resolve(Instant::Time(last.ts)).unwrap() else { panic!() };
    assert_eq!(found.seq, last.seq);
    assert!(matches!(engine.try_resolve(Instant::Time(last.ts)), Ok(Resolution::Found(_))));
    let Resolution::Found(oldest) = engine.resolve(Instant::Seq(first)).unwrap() else { panic!() };
    assert_eq!(engine.oldest(), (first, oldest.actual));
    check(&engine, &world.past);
}

#[test]
fn relief_of_a_full_store_ends_while_the_index_is_made_anew() {
    let world = behind(2);
    let engine = world.open();
    engine.set_retention(Retention { cap: Cap::Bytes(1), ..retention(4, 2, 6) });
    assert!(engine.is_over());
    assert!(!engine.relieve().unwrap_or(false));
    assert_eq!(indexed(&engine), 0);
}

#[test]
fn whoever_waits_for_the_index_is_told_when_the_engine_ends() {
    let world = behind(3);
    let engine = world.open();
    engine.end_waiting();
    assert!(engine.resolve(Instant::Time(world.past[0].ts)).is_err());
    assert_eq!(indexed(&engine), 0);
    engine.close().unwrap();
}

#[test]
fn no_file_comes_to_rest_while_the_index_is_made_anew() {
    let mut world = behind(4);
    let engine = world.open();
    let rested = engine.rested();
    // So far that where history begins is known.
    let first = engine.thinned().first();
    while indexed(&engine) < first.0 {
        engine.index_some().unwrap();
    }
    let reached = indexed(&engine);
    assert!(reached + MANY / 2 < engine.status().durable_seq, "this says nothing");
    engine.prune(&Unpaced, false).unwrap();
    assert_eq!((indexed(&engine), engine.rested()), (reached, rested));
    settle(&engine).unwrap();
    world.work(&engine);
    check(&engine, &world.past);
}
