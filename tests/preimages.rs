//! Bytes that were there before Weft, and that a change is about to drop: saved first, in parts that fit into memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use std::path::Path;
use support::bed::DATA;
use support::pruned::{World, check};
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, SetAttr, Unpaced};
use weft::types::{FileId, PAGE};

/// Pages of a file that is cut: more than may be held in memory at once.
const PAGES: u64 = 10_000;
/// So many pages may be.
const AT_ONCE: usize = 8_192;

/// A file that was there before, of which an instant is noted.
fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    let bytes: Vec<u8> = (0..PAGES * PAGE).map(|at| (at / 999) as u8).collect();
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    world.disk.open("test", &Path::new(DATA).join("long"), how).unwrap().write_at("test", &bytes, 0).unwrap();
    world.disk.sync_filesystem("test", Path::new("/")).unwrap();
    world.now.push(("long", bytes));
    world
}

fn cut_to(world: &mut World, engine: &Engine, size: usize) {
    let (file, _) = engine.lookup(FileId::ROOT, b"long").unwrap();
    engine.set_attr(file, SetAttr { size: Some(size as u64), ..SetAttr::default() }).unwrap();
    world.content("long").truncate(size);
    world.note(engine);
}

#[test]
fn a_cut_of_a_long_file_saves_what_it_drops_in_parts() {
    let mut world = world(1);
    let engine = world.open();
    world.note(&engine);
    cut_to(&mut world, &engine, 5_000);
    world.disk.keep_log(4 * PAGES as usize);
    engine.apply().unwrap();
    let (mut read, mut most, mut all) = (0, 0, 0);
    for (op, _) in world.disk.log() {
        match op {
            "applier.preimage.read" => (read, all) = (read + 1, all + 1),
            "base.write" => read = 0,
            _ => {}
        }
        most = most.max(read);
    }
    assert!(all as u64 >= PAGES - 1, "{all} pages were saved");
    assert!(most <= AT_ONCE, "{most} pages were held at once");
    check(&engine, &world.past);
}

#[test]
fn a_cut_that_is_interrupted_while_it_saves_goes_on_from_there() {
    let mut world = world(2);
    let engine = world.open();
    world.note(&engine);
    cut_to(&mut world, &engine, 5_000);
    // Without space in the middle of it: nothing is cut yet, and what is saved stays so.
    world.disk.fail("base.write", 40, libc::ENOSPC);
    assert!(engine.apply().unwrap_err().is(libc::ENOSPC));
    check(&engine, &world.past);
    drop(engine);
    world.disk = world.disk.cut(7);
    world.kv = world.kv.crash(2);
    let engine = world.open();
    world.disk.keep_log(4 * PAGES as usize);
    assert!(engine.checkpoint().unwrap());
    let saved = world.disk.log().iter().filter(|(op, _)| *op == "applier.preimage.read").count();
    assert!(saved > 0 && (saved as u64) < PAGES, "{saved} pages were saved once more");
    check(&engine, &world.past);
    engine.prune(&Unpaced, false).unwrap();
    check(&engine, &world.past);
    engine.close().unwrap();
}
