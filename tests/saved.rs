//! Lists of saved pages that are damaged are named, cost what stood in them and nothing else, and are told from what a cut
//! has torn.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use rand::Rng;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::bed::STORE;
use support::pruned::{Past, World, retention, settle};
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, SetAttr, Unpaced};
use weft::error::{Error, Kind};
use weft::past::offline::Offline;
use weft::types::{FileId, PAGE_LEN};

/// Pages that one list leads to.
const LIST: usize = 145;

/// A world whose DATA held files of so many pages before Weft came.
fn world(seed: u64, files: &[(&'static str, usize)]) -> World {
    let files: Vec<_> = files.iter().map(|(name, pages)| (*name, pages * PAGE_LEN)).collect();
    World::over(seed, &files)
}

fn overwrite(world: &mut World, engine: &Engine, name: &str, pages: std::ops::Range<usize>) {
    let bytes: Vec<u8> = (0..pages.len() * PAGE_LEN).map(|_| world.rng.random()).collect();
    world.write(engine, name, pages.start * PAGE_LEN, &bytes);
    flush(engine);
}

/// All that was written is durable: it may be applied.
fn flush(engine: &Engine) {
    engine.sync(Box::new(|done| done.unwrap()));
}

fn base_file(number: u64) -> PathBuf {
    Path::new(STORE).join(format!("base/{number:010}.base"))
}

/// Damages the list that stands so many pages into a base file.
fn damage(world: &World, number: u64, page: usize) {
    let file =
        world.disk.open("test", &base_file(number), OpenHow { write: true, ..OpenHow::default() }).unwrap();
    file.write_durable("test", &[0xff; 64], (page * PAGE_LEN) as u64).unwrap();
}

/// The pages of a file that an instant does not show any more; all others are right.
fn lost_pages(engine: &Engine, past: &Past, name: &str) -> BTreeSet<usize> {
    let view = engine.view(past.seq).unwrap();
    let (file, _) = view.lookup(FileId::ROOT, name.as_bytes()).unwrap().unwrap();
    let content = &past.contents.iter().find(|(known, _)| *known == name).unwrap().1;
    let mut lost = BTreeSet::new();
    for (page, expected) in content.chunks(PAGE_LEN).enumerate() {
        let mut bytes = vec![0; expected.len()];
        match view.read(file, (page * PAGE_LEN) as u64, &mut bytes) {
            Ok(_) => assert!(bytes == expected, "page {page} of {name} at {}", past.seq),
            Err(error) => {
                assert!(error.to_errno() == libc::EIO, "{error}");
                lost.insert(page);
            }
        }
    }
    // Read at once it is the same: an error, or right.
    let mut bytes = vec![0; content.len()];
    match view.read(file, 0, &mut bytes) {
        Ok(_) => assert!(lost.is_empty() && bytes == *content),
        Err(_) => assert!(!lost.is_empty()),
    }
    lost
}

fn check_present(engine: &Engine, world: &World) {
    for (name, content) in &world.now {
        let (file, _) = engine.lookup(FileId::ROOT, name.as_bytes()).unwrap();
        let mut bytes = vec![0; content.len()];
        assert_eq!(engine.read(file, 0, &mut bytes).unwrap(), content.len());
        assert!(bytes == *content, "{name}");
    }
}

fn problems(engine: &Engine) -> String {
    engine.status().problems.join("\n")
}

/// Weft dies; what it has told the kernel is there, and of the index everything or nothing.
fn reopen(world: &mut World, engine: Arc<Engine>, with_index: bool) -> Arc<Engine> {
    engine.abandon();
    drop(engine);
    world.disk = world.disk.kill();
    if !with_index {
        world.kv.clear();
    }
    let engine = world.open();
    settle(&engine).unwrap();
    engine
}

/// What a reading of all base files finds damaged: the pages that it stands in.
fn checked(world: &World) -> Vec<u64> {
    let found = Offline::open(Arc::new(world.disk.clone()), Path::new(STORE)).unwrap().check_bases().unwrap();
    assert!(found.iter().all(|error| error.kind == Kind::Corrupt && error.path == Some(base_file(1))));
    found.iter().map(|error| error.offset.unwrap() / PAGE_LEN as u64).collect()
}

/// Whether an error says where the damage is.
fn names(error: &Error, number: u64, page: usize) -> bool {
    error.kind == Kind::Corrupt
        && error.path.as_deref() == Some(&base_file(number))
        && error.offset == Some((page * PAGE_LEN) as u64)
}

#[test]
fn an_index_made_anew_finds_what_stands_behind_a_damaged_list_and_the_rest_is_told() {
    for (damaged, crash) in [(0, false), (1, false), (3, true), (4, false), (4, true)] {
        let mut world = world(1, &[("old", 700)]);
        let engine = world.open();
        world.note(&engine);
        overwrite(&mut world, &engine, "old", 0..600);
        engine.checkpoint().unwrap();
        world.note(&engine);
        match crash {
            true => engine.abandon(),
            false => engine.close().unwrap(),
        }
        drop(engine);
        world.disk = world.disk.kill();
        let file = world.disk.open("test", &base_file(1), OpenHow::default()).unwrap();
        let mut header = [0; PAGE_LEN];
        file.read_at("test", &mut header, (damaged * (LIST + 1) * PAGE_LEN) as u64).unwrap();
        assert_eq!(checked(&world), []);
        damage(&world, 1, damaged * (LIST + 1));
        world.kv.clear();
        let engine = world.open();
        settle(&engine).unwrap();
        let expected: BTreeSet<usize> = (damaged * LIST..((damaged + 1) * LIST).min(600)).collect();
        assert_eq!(lost_pages(&engine, &world.past[0], "old"), expected, "list {damaged}");
        assert_eq!(lost_pages(&engine, &world.past[1], "old"), BTreeSet::new());
        assert_eq!(checked(&world), [(damaged * (LIST + 1)) as u64]);
        let told = problems(&engine);
        let place = format!("{} at byte {}", base_file(1).display(), damaged * (LIST + 1) * PAGE_LEN);
        assert!(told.contains(&place) && told.contains("weft index rebuild"), "{told}");
        check_present(&engine, &world);
        // What is overwritten from now on is saved as ever, and what was found is known after a crash.
        overwrite(&mut world, &engine, "old", 590..650);
        engine.checkpoint().unwrap();
        let engine = reopen(&mut world, engine, true);
        assert_eq!(lost_pages(&engine, &world.past[0], "old"), expected);
        assert!(problems(&engine).contains(&place));
        check_present(&engine, &world);
        // With the list put back, an index made anew has it all.
        engine.abandon();
        drop(engine);
        world.disk = world.disk.kill();
        world.kv.clear();
        let how = OpenHow { write: true, ..OpenHow::default() };
        let file = world.disk.open("test", &base_file(1), how).unwrap();
        file.write_durable("test", &header, (damaged * (LIST + 1) * PAGE_LEN) as u64).unwrap();
        let engine = world.open();
        settle(&engine).unwrap();
        assert_eq!(lost_pages(&engine, &world.past[0], "old"), BTreeSet::new());
        assert_eq!(problems(&engine), "");
        assert_eq!(checked(&world), []);
        // A page that is damaged is told of as well, and is no list.
        damage(&world, 1, 1 + damaged * (LIST + 1));
        assert_eq!(checked(&world), [1 + (damaged * (LIST + 1)) as u64]);
        assert_eq!(lost_pages(&engine, &world.past[0], "old"), BTreeSet::from([damaged * LIST]));
        engine.close().unwrap();
    }
}

#[test]
fn a_damaged_last_list_keeps_its_file_when_history_is_pruned() {
    for crash in [false, true] {
        let mut world = world(2, &[("gone", 200), ("kept", 30)]);
        let engine = world.open();
        world.note(&engine);
        overwrite(&mut world, &engine, "gone", 0..200);
        engine.apply().unwrap();
        engine.unlink(FileId::ROOT, b"gone").unwrap();
        world.now.retain(|(name, _)| *name != "gone");
        world.note(&engine);
        // Of the base file only its last list is needed by this instant.
        overwrite(&mut world, &engine, "kept", 0..20);
        engine.checkpoint().unwrap();
        match crash {
            true => engine.abandon(),
            false => engine.close().unwrap(),
        }
        drop(engine);
        world.disk = world.disk.kill();
        for _ in 0..3 {
            let engine = world.open();
            overwrite(&mut world, &engine, "kept", 25..26);
            world.note(&engine);
            world.seal(engine);
        }
        let engine = world.open();
        settle(&engine).unwrap();
        engine.tag("needed", world.past[1].seq).unwrap();
        let last = 200 + 2;
        damage(&world, 1, last);
        engine.set_retention(retention(1, 1, 1));
        let pruned = engine.prune(&Unpaced, false).unwrap();
        assert!(pruned.undone.is_some_and(|error| names(&error, 1, last)), "crash {crash}");
        assert!(engine.view(world.past[0].seq).is_err(), "it was pruned");
        // The index leads to its pages still.
        assert_eq!(lost_pages(&engine, &world.past[1], "kept"), BTreeSet::new());
        let told = problems(&engine);
        assert!(told.contains(&format!("at byte {}", last * PAGE_LEN)), "{told}");
    }
}

/// What was overwritten in the live file, and saved in a list that is damaged now, must not be taken for what was there before.
#[test]
fn what_a_crash_finds_damaged_is_told_and_no_newer_bytes_take_its_place() {
    for with_index in [true, false] {
        let mut world = world(3, &[("old", 100), ("other", 40)]);
        let engine = world.open();
        world.note(&engine);
        overwrite(&mut world, &engine, "old", 50..55);
        engine.checkpoint().unwrap();
        // Two more lists, of which no checkpoint knows.
        overwrite(&mut world, &engine, "old", 10..20);
        engine.apply().unwrap();
        overwrite(&mut world, &engine, "other", 0..7);
        engine.apply().unwrap();
        damage(&world, 1, 6);
        let engine = reopen(&mut world, engine, with_index);
        let lost = lost_pages(&engine, &world.past[0], "old");
        let expected: BTreeSet<usize> = if with_index { BTreeSet::new() } else { (10..20).collect() };
        assert_eq!(lost, expected, "the index knew, or it did not");
        assert_eq!(lost_pages(&engine, &world.past[0], "other"), BTreeSet::new());
        assert!(problems(&engine).contains(&format!("at byte {}", 6 * PAGE_LEN)));
        check_present(&engine, &world);
        // Nothing newer is saved for them, and others are as ever.
        overwrite(&mut world, &engine, "old", 5..30);
        overwrite(&mut world, &engine, "other", 0..20);
        engine.checkpoint().unwrap();
        let engine = reopen(&mut world, engine, false);
        assert_eq!(lost_pages(&engine, &world.past[0], "old"), (10..20).collect());
        assert_eq!(lost_pages(&engine, &world.past[0], "other"), BTreeSet::new());
        check_present(&engine, &world);
        engine.close().unwrap();
    }
}

/// A whole file in limbo has newer bytes where pages were saved before.
#[test]
fn limbo_answers_for_no_page_that_a_lost_list_may_have_had() {
    for emptied in [false, true] {
        let mut world = world(4, &[("old", 300)]);
        let engine = world.open();
        world.note(&engine);
        overwrite(&mut world, &engine, "old", 0..150);
        engine.apply().unwrap();
        if emptied {
            let (file, _) = engine.lookup(FileId::ROOT, b"old").unwrap();
            engine.set_attr(file, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
            world.content("old").clear();
            flush(&engine);
            engine.apply().unwrap();
            overwrite(&mut world, &engine, "old", 0..200);
        }
        engine.unlink(FileId::ROOT, b"old").unwrap();
        world.now.clear();
        engine.apply().unwrap();
        engine.checkpoint().unwrap();
        damage(&world, 1, 0);
        let engine = reopen(&mut world, engine, false);
        assert_eq!(lost_pages(&engine, &world.past[0], "old"), (0..LIST).collect(), "{emptied}");
        engine.close().unwrap();
    }
}

/// The torn end of a file is no damage, and what is saved afterwards is found.
#[test]
fn what_a_cut_has_torn_is_not_taken_for_damage() {
    for seed in 0..60 {
        let mut world = world(seed, &[("old", 400)]);
        let engine = world.open();
        world.note(&engine);
        let mut at = world.rng.random_range(0..100);
        for _ in 0..3 {
            let pages = world.rng.random_range(1..100);
            overwrite(&mut world, &engine, "old", at..at + pages);
            at += pages;
            if world.rng.random_bool(0.3) {
                engine.checkpoint().unwrap();
            }
            let dies = world.rng.random_range(1..12);
            world.disk.cut_at(world.disk.operations() + dies);
            drop(engine.apply());
            if world.disk.is_dead() {
                break;
            }
            world.disk.clear_faults();
        }
        engine.abandon();
        drop(engine);
        (world.disk, world.kv) = (world.disk.cut(seed), world.kv.crash(seed % 3));
        for clear in [false, true] {
            if clear {
                world.kv.clear();
            }
            let engine = world.open();
            settle(&engine).unwrap();
            assert_eq!(problems(&engine), "", "seed {seed}");
            assert_eq!(lost_pages(&engine, &world.past[0], "old"), BTreeSet::new(), "seed {seed}");
            check_present(&engine, &world);
            overwrite(&mut world, &engine, "old", 380..390);
            engine.checkpoint().unwrap();
            engine.abandon();
            drop(engine);
            world.disk = world.disk.kill();
        }
    }
}
