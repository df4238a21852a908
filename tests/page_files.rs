//! Composed pages: those that nobody needs any more give their space back, and no reader is led to what is gone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use std::path::Path;
use support::bed::{self, STORE};
use support::pruned::{World, check, retention, settle, try_open};
use weft::disk::Disk;
use weft::disk::sim::SimDisk;
use weft::engine::{Engine, Unpaced};
use weft::types::{FileId, PAGE};

const PAGES: usize = 96;
/// Pieces of a page: more than may stand above a composed one.
const PIECES: usize = 10;

/// Pages of a file are written in pieces, all of them and then the first half again, in one session: their composed pages
/// stand in one file, one generation behind the other.
fn written() -> World {
    let mut world = World::new(1);
    let engine = world.open();
    engine.create(FileId::ROOT, b"pieces", bed::regular()).unwrap();
    world.now.push(("pieces", Vec::new()));
    world.write(&engine, "pieces", 0, &vec![9; PAGES * PAGE as usize]);
    // What has a hole does not come to rest.
    world.write(&engine, "pieces", (PAGES + 3) * PAGE as usize, &[9]);
    for (generation, pages) in [PAGES, PAGES / 2].into_iter().enumerate() {
        for piece in 0..PIECES {
            for page in 0..pages {
                let byte = (generation * 100 + piece * 10 + page % 10) as u8;
                world.write(&engine, "pieces", page * PAGE as usize + piece * 300, &[byte; 300]);
            }
        }
        world.note(&engine);
    }
    engine.checkpoint().unwrap();
    while engine.index_some().unwrap() {}
    world.seal(engine);
    // The segment has to be sealed by another.
    world.sessions(1);
    world
}

/// Bytes of page files, and how many there are.
fn page_files(disk: &SimDisk) -> (u64, usize) {
    let dir = Path::new(STORE).join("pages");
    let entries = disk.read_dir("test", &dir).unwrap();
    let path = |name: &[u8]| dir.join(std::str::from_utf8(name).unwrap());
    let sizes = entries.iter().map(|entry| disk.stat("test", &path(&entry.name)).unwrap().unwrap().allocated);
    (sizes.sum(), entries.len())
}

fn prune(engine: &Engine) -> weft::error::Result<u64> {
    settle(engine)?;
    engine.set_retention(retention(2, 1, 2));
    Ok(engine.prune(&Unpaced, false)?.pages_bytes)
}

#[test]
fn composed_pages_that_no_instant_needs_give_their_space_back() {
    let mut world = written();
    let engine = world.open();
    settle(&engine).unwrap();
    check(&engine, &world.past);
    let before = page_files(&world.disk);
    let came = prune(&engine).unwrap();
    let after = page_files(&world.disk);
    assert!(came >= PAGES as u64 / 2 * PAGE, "{came} of {before:?}");
    assert_eq!(before.0 - after.0, came);
    assert!(after.0 > 0, "some are in use");
    check(&engine, &world.past);
    // With an index made anew, and after all of it is written again.
    engine.close().unwrap();
    drop(engine);
    let engine = world.open();
    check(&engine, &world.past);
    world.write(&engine, "pieces", 0, &vec![1; PAGES * PAGE as usize]);
    world.note(&engine);
    world.seal(engine);
    world.sessions(2);
    let engine = world.open();
    prune(&engine).unwrap();
    assert!(page_files(&world.disk).1 <= after.1 + 3, "files of which no page is in use go");
    check(&engine, &world.past);
}

#[test]
fn a_cut_at_each_operation_of_it_leads_no_reader_to_what_is_gone() {
    let world = written();
    for at in 0.. {
        let (disk, kv) = (world.disk.kill(), world.kv.crash(0));
        let engine = try_open(&disk, &kv, &world.clock).unwrap();
        settle(&engine).unwrap();
        disk.cut_at(disk.operations() + at);
        let ended = prune(&engine).is_ok() && !disk.is_dead();
        drop(engine);
        let (disk, kv) = (disk.cut(at), kv.crash(at % 3));
        let engine = try_open(&disk, &kv, &world.clock).unwrap();
        check(&engine, &world.past);
        prune(&engine).unwrap();
        check(&engine, &world.past);
        assert!(engine.status().problems.is_empty(), "{:?}", engine.status().problems);
        if ended {
            assert!(at > 10, "{at} operations say little");
            return;
        }
    }
}

#[test]
fn a_failing_operation_of_it_is_told_and_costs_no_byte() {
    for op in ["pages.punch", "pages.size", "pages.list"] {
        let world = written();
        let engine = world.open();
        settle(&engine).unwrap();
        world.disk.fail(op, 1, libc::EIO);
        assert!(prune(&engine).unwrap_err().is(libc::EIO), "{op}");
        check(&engine, &world.past);
        assert!(prune(&engine).unwrap() > 0, "{op}");
        check(&engine, &world.past);
    }
}
