//! Wishes for shadows: what a person asked for is there again whatever became of it, and is kept up to date; a split has
//! its shadow after a restart, or says why not, and gives its room back in time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use std::path::Path;
use std::sync::Arc;
use support::Ticking;
use support::bed;
use support::kv::CrashKv;
use weft::disk::Disk;
use weft::disk::sim::SimDisk;
use weft::engine::{
    ChildShadow, Engine, Instant, Layout, Options, Partition, Resolution, ShadowReason, Subject, Wish,
};
use weft::lineage::splits::{Child, How, Tie};
use weft::types::{FileId, PageSet, Seq};

const PAGE: u64 = 4096;
const HOUR_US: i64 = 3_600_000_000;
const SHADOW: &str = "/store/shadow";

struct World {
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    options: Options,
}

impl World {
    fn new(seed: u64) -> World {
        let mut options = bed::options();
        options.shadow.after_bytes = 1 << 20;
        let clock = Arc::new(Ticking::new(1_000_000));
        World { disk: bed::disk(seed), kv: CrashKv::new(), clock, options }
    }

    /// As a daemon opens it: what was wished is wished again.
    fn open(&self) -> Arc<Engine> {
        let engine = bed::open(&self.disk, &self.kv, &self.clock, self.options.clone()).unwrap();
        engine.take_up_wishes(Layout::Generic);
        engine
    }

    /// The power fails, and the store is opened again; `meanwhile` happens to its files.
    fn restart(&mut self, engine: Arc<Engine>, meanwhile: impl Fn(&SimDisk)) -> Arc<Engine> {
        engine.checkpoint().unwrap();
        engine.abandon();
        drop(engine);
        self.disk = self.disk.kill();
        meanwhile(&self.disk);
        self.open()
    }
}

fn lose_shadows(disk: &SimDisk) {
    for entry in disk.read_dir("test", Path::new(SHADOW)).unwrap() {
        let path = Path::new(SHADOW).join(String::from_utf8_lossy(&entry.name).as_ref());
        disk.unlink_if_there("test", &path).unwrap();
    }
    disk.sync_filesystem("test", Path::new("/")).unwrap();
}

fn make(engine: &Engine, name: &str, pages: u64) -> FileId {
    let (file, _) = engine.create(FileId::ROOT, name.as_bytes(), bed::regular()).unwrap();
    engine.write(file, 0, &vec![7; usize::try_from(pages * PAGE).unwrap()], false).unwrap();
    file
}

/// The present, as an instant.
fn now(engine: &Engine) -> Seq {
    match engine.resolve(Instant::Time(engine.now())).unwrap() {
        Resolution::Found(found) => found.seq,
        other => panic!("{other:?}"),
    }
}

fn subject(name: &str) -> Subject {
    Subject { root: Vec::new(), partition: name.into() }
}

fn partition(name: &str) -> Partition {
    Partition { root: Vec::new(), name: name.into() }
}

fn pages(from: u64, end: u64) -> PageSet {
    let mut pages = PageSet::default();
    pages.write(from * PAGE, end * PAGE);
    pages
}

/// Each shadow: partition, pages, whether it follows, its snapshots.
fn there(engine: &Engine) -> Vec<(String, Option<u64>, bool, usize)> {
    let of = |shadow: weft::engine::ShadowInfo| {
        (shadow.partition, shadow.pages, shadow.follows, shadow.snapshots.len())
    };
    let mut all: Vec<_> = engine.shadows().into_iter().map(of).collect();
    all.sort();
    all
}

fn settle(engine: &Engine) {
    while engine.shadow_step().unwrap() {}
}

fn declare(engine: &Engine, name: &str, set: Option<&PageSet>) {
    let child = Child { pages: set.map(PageSet::to_bytes), ..Child::default() };
    engine.declare_split(Layout::Generic, &partition(name), How::Declared, child).unwrap();
}

fn stands(engine: &Engine, name: &str, set: Option<&PageSet>) -> ChildShadow {
    engine.child_shadow(Layout::Generic, &partition(name), set, None)
}

#[track_caller]
fn missing(shadow: ChildShadow, why: &str) {
    assert!(matches!(&shadow, ChildShadow::Missing(text) if text.contains(why)), "{why}: {shadow:?}");
}

#[test]
fn what_was_asked_for_is_made_again_whatever_became_of_it() {
    let mut world = World::new(1);
    let engine = world.open();
    let file = make(&engine, "a", 40);
    let at = now(&engine);
    engine.add_shadow(subject("a"), None, Some(at)).unwrap().unwrap();
    engine.write(file, 0, &[8; 100], false).unwrap();
    engine.add_shadow(subject("a"), Some(pages(3, 9)), None).unwrap().unwrap();
    let asked = there(&engine);
    assert_eq!(asked.len(), 2);

    let engine = world.restart(engine, lose_shadows);
    assert_eq!(there(&engine), []);
    settle(&engine);
    assert_eq!(there(&engine), asked, "lost as a whole");

    let engine = world.restart(engine, lose_shadows);
    world.disk.fail("shadow.data.create", 1, libc::EIO);
    settle(&engine);
    assert_eq!(there(&engine).len(), 1, "one could not be made");
    assert!(engine.shadow_status().refused.is_none() && engine.shadow_status().waiting == 1);
    settle(&engine);
    assert_eq!(there(&engine).len(), 1, "it is not tried all the time");
    world.clock.pass(61_000_000);
    settle(&engine);
    assert_eq!(there(&engine), asked, "and is made a while later");

    // Nor does a restart make it forgotten while it cannot be made.
    let engine = world.restart(engine, lose_shadows);
    let engine = world.restart(engine, |_| {});
    settle(&engine);
    assert_eq!(there(&engine), asked);

    assert_eq!(engine.remove_shadows(b"", "a").unwrap(), 2);
    let engine = world.restart(engine, |_| {});
    settle(&engine);
    assert_eq!(there(&engine), [], "it was taken back");

    // What can never be made again is not tried for ever.
    engine.add_shadow(subject("a"), None, None).unwrap().unwrap();
    engine.unlink(FileId::ROOT, b"a").unwrap();
    let engine = world.restart(engine, lose_shadows);
    settle(&engine);
    assert_eq!(engine.shadow_status().waiting, 0);
    assert!(engine.shadow_status().refused.unwrap().contains("no partition a"));
}

#[test]
fn what_was_asked_for_is_kept_up_to_date_whatever_it_is_of() {
    for on in [true, false] {
        let mut world = World::new(2);
        world.options.shadow.on = on;
        let engine = world.open();
        // Small, a log, a set of pages; and one that nobody asked for.
        let files = ["small", "pg_wal", "part", "other"].map(|name| make(&engine, name, 300));
        for (name, set) in [("small", None), ("pg_wal", None), ("part", Some(pages(3, 9)))] {
            engine.add_shadow(subject(name), set, None).unwrap().unwrap();
        }
        engine.shadow_rule();
        for file in files {
            engine.write(file, 0, &vec![9; 300 * PAGE as usize], false).unwrap();
        }
        // The rule looks at what the index knows.
        engine.view(now(&engine)).unwrap();
        engine.shadow_rule();
        settle(&engine);
        let expected = [("part", Some(6)), ("pg_wal", None), ("small", None)];
        let expected = expected.map(|(name, pages)| (name.to_owned(), pages, true, 2));
        assert_eq!(there(&engine), expected, "on: {on}");
        assert!(
            engine.shadows().iter().all(|shadow| shadow.reason == "asked" && shadow.behind_bytes == Some(0))
        );
    }
}

#[test]
fn a_split_has_its_shadow_after_a_restart() {
    let mut world = World::new(3);
    let engine = world.open();
    make(&engine, "a", 40);
    let (first, second) = (pages(0, 20), pages(20, 40));
    declare(&engine, "a", Some(&first));
    declare(&engine, "a", Some(&second));
    assert_eq!(stands(&engine, "a", Some(&first)), ChildShadow::Waits);

    let engine = world.restart(engine, |_| {});
    assert_eq!(stands(&engine, "a", Some(&second)), ChildShadow::Waits);
    assert!(engine.shadow_step().unwrap());
    // As many pages are not the same pages.
    let both =
        [&first, &second].map(|set| matches!(stands(&engine, "a", Some(set)), ChildShadow::Ready { .. }));
    assert_eq!(both.iter().filter(|ready| **ready).count(), 1, "{both:?}");
    settle(&engine);
    for set in [&first, &second] {
        assert!(matches!(stands(&engine, "a", Some(set)), ChildShadow::Ready { reason: "split", .. }));
    }

    // What is there is not wished for again, and what is long ago neither.
    let engine = world.restart(engine, |_| {});
    assert_eq!(engine.shadow_status().waiting, 0);
    world.clock.pass(25 * HOUR_US);
    let engine = world.restart(engine, lose_shadows);
    assert_eq!(engine.shadow_status().waiting, 0);
    missing(stands(&engine, "a", Some(&first)), "weft shadow add a");
}

#[test]
fn a_split_that_cannot_be_made_ready_says_so() {
    let mut world = World::new(4);
    world.options.shadow.bytes = 30 * PAGE;
    let engine = world.open();
    make(&engine, "a", 40);
    declare(&engine, "a", None);
    settle(&engine);
    missing(stands(&engine, "a", None), "shadow_limit_mib");
    // There is room for a child of it.
    let child = pages(0, 20);
    declare(&engine, "a", Some(&child));
    settle(&engine);
    assert!(matches!(stands(&engine, "a", Some(&child)), ChildShadow::Ready { .. }));

    world.options.shadow.bytes = 80 * PAGE;
    let engine = world.restart(engine, |_| {});
    settle(&engine);
    assert!(matches!(stands(&engine, "a", None), ChildShadow::Ready { .. }), "with room it is made");

    world.options.shadow.on = false;
    let engine = world.restart(engine, lose_shadows);
    settle(&engine);
    missing(stands(&engine, "a", None), "shadow = false");
}

#[test]
fn the_shadow_of_a_split_makes_room_in_time() {
    let mut world = World::new(5);
    world.options.shadow.bytes = 50 * PAGE;
    let engine = world.open();
    make(&engine, "split", 40);
    make(&engine, "b", 40);
    declare(&engine, "split", None);
    settle(&engine);
    let (reason, urgent) = (ShadowReason::Rule, false);
    let wish = Wish { subject: subject("b"), pages: None, at: None, benefit: 2.0, reason, urgent };
    let after = |hours: i64| {
        world.clock.pass(hours * HOUR_US);
        engine.wish(wish.clone());
        settle(&engine);
        there(&engine).remove(0).0
    };
    assert_eq!(after(0), "split");
    assert_eq!(after(12), "split");
    let benefit = engine.shadows().remove(0).benefit;
    assert!((10_000.0..20_000.0).contains(&benefit), "{benefit}");
    assert_eq!(after(36), "b");
}

#[test]
fn a_shadow_of_a_split_is_one_until_others_find_more_in_it() {
    let world = World::new(6);
    let engine = world.open();
    let file = make(&engine, "a", 40);
    let wish = |reason, benefit, byte| {
        engine.write(file, 0, &[byte; 10], false).unwrap();
        let (subject, pages, at) = (subject("a"), None, None);
        engine.wish(Wish { subject, pages, at, benefit, reason, urgent: false });
        settle(&engine);
        let shadow = engine.shadows().remove(0);
        (shadow.reason, shadow.benefit.round())
    };
    assert_eq!(wish(ShadowReason::Rule, 3.0, 1), ("rule", 3.0));
    assert_eq!(wish(ShadowReason::Split, 1_000.0, 2).0, "split");
    assert_eq!(wish(ShadowReason::Rule, 3.0, 3), ("split", 1_000.0));
    world.clock.pass(24 * HOUR_US);
    assert_eq!(wish(ShadowReason::Rule, 3.0, 4), ("rule", 3.0));
    assert_eq!(wish(ShadowReason::Asked, 0.0, 5), ("asked", 0.0));
    assert_eq!(wish(ShadowReason::Split, 1_000.0, 6).0, "asked");
}

#[test]
fn what_is_there_for_another_reason_is_theirs_once_a_person_asks_for_it() {
    let mut world = World::new(7);
    world.options.shadow.bytes = 50 * PAGE;
    let engine = world.open();
    make(&engine, "a", 40);
    make(&engine, "b", 40);
    let wish = |name: &str, benefit| {
        let (subject, pages, at, reason) = (subject(name), None, None, ShadowReason::Rule);
        engine.wish(Wish { subject, pages, at, benefit, reason, urgent: true });
        settle(&engine);
    };
    wish("a", 1.0);
    assert_eq!(engine.shadows()[0].reason, "rule");
    // Nothing has changed since: it takes no more space, and is not made of anything.
    let used = world.disk.used();
    let made = engine.add_shadow(subject("a"), None, None).unwrap().unwrap();
    assert!(made.own_bytes == 0 && world.disk.used() < used + 8 * PAGE, "{made:?}");
    assert!(engine.add_shadow(subject("a"), None, None).unwrap().is_none(), "it is theirs already");
    let is_theirs = |engine: &Engine| {
        let shadows = engine.shadows();
        assert!(
            shadows.len() == 1 && shadows[0].partition == "a" && shadows[0].reason == "asked",
            "{shadows:?}"
        );
    };
    is_theirs(&engine);
    wish("b", 9.0);
    is_theirs(&engine);
    // The files of shadows say so themselves.
    let lose_table = |disk: &SimDisk| {
        for name in ["/store/meta.redb", "/store/meta.made"] {
            disk.unlink_if_there("test", Path::new(name)).unwrap();
        }
    };
    let engine = world.restart(engine, lose_table);
    is_theirs(&engine);
}

/// Rows move in batches: each of them writes as much to the parent as makes the rule renew what follows it.
#[test]
fn what_a_split_is_read_through_stays_while_its_rows_move() {
    for (most, reflinks) in [(3, false), (1, false), (3, true)] {
        let mut world = World::new(7);
        world.disk.set_reflinks(reflinks);
        world.options.shadow.snapshots = most;
        let engine = world.open();
        let file = make(&engine, "parent", 600);
        let mut past = vec![(now(&engine), vec![7; 600 * PAGE as usize])];
        let set = pages(50, 300);
        declare(&engine, "parent", Some(&set));
        let (layout, parent) = (Layout::Generic, partition("parent"));
        let named = Child { name: Some("child".into()), ..Child::default() };
        let split = engine.declare_split(layout, &parent, How::Declared, named).unwrap();
        settle(&engine);
        let firsts = |engine: &Engine| -> Vec<u64> {
            engine.shadows().iter().map(|shadow| shadow.snapshots[0].seq).collect()
        };
        let made = firsts(&engine);
        assert_eq!(made.len(), 2);
        make(&engine, "child", 10);
        engine.confirm_child(layout, (split.id, 1), &partition("child"), Tie::Declared).unwrap();
        let come = engine.come(&split).unwrap().get(&1).copied();
        assert!(come.is_some() && made.iter().all(|seq| Seq(*seq) <= come.unwrap()));
        let stands =
            |engine: &Engine| [Some(&set), None].map(|set| engine.child_shadow(layout, &parent, set, come));

        let move_rows = |engine: &Engine, past: &mut Vec<(Seq, Vec<u8>)>, round: u8| {
            let (first, mut bytes) = (u64::from(round) * 20 + 40, past.last().unwrap().1.clone());
            let range = (first * PAGE) as usize..((first + 30) * PAGE) as usize;
            bytes[range.clone()].fill(round + 8);
            for _ in 0..9 {
                engine.write(file, first * PAGE, &bytes[range.clone()], false).unwrap();
            }
            past.push((now(engine), bytes));
            engine.view(now(engine)).unwrap();
            engine.shadow_rule();
            settle(engine);
        };
        let check = |engine: &Engine, past: &[(Seq, Vec<u8>)]| {
            for (seq, bytes) in past {
                let mut found = vec![0; bytes.len()];
                engine.view(*seq).unwrap().read(file, 0, &mut found).unwrap();
                assert!(found == *bytes, "at {seq}");
            }
        };
        for round in 0..6 {
            move_rows(&engine, &mut past, round);
            assert_eq!(firsts(&engine), made, "round {round}");
            let kept = usize::from(round).saturating_add(2).min(most.max(2));
            assert!(there(&engine).iter().all(|(.., count)| *count == kept), "{:?}", there(&engine));
        }
        check(&engine, &past);
        let served = engine.shadow_status().served_bytes;
        assert!(served > 0);
        let engine = world.restart(engine, |_| {});
        check(&engine, &past);
        assert_eq!(firsts(&engine), made, "after a restart");
        assert!(engine.shadows().iter().all(|shadow| shadow.broken.is_none()));
        assert!(stands(&engine).iter().all(|shadow| matches!(shadow, ChildShadow::Ready { .. })));
        let files = world.disk.read_dir("test", Path::new(SHADOW)).unwrap();
        let taken = files.iter().filter(|entry| entry.name.ends_with(b".data")).map(|entry| {
            let path = Path::new(SHADOW).join(String::from_utf8_lossy(&entry.name).as_ref());
            world.disk.stat("test", &path).unwrap().unwrap().allocated
        });
        let (taken, counted) = (taken.sum::<u64>(), engine.shadow_status().bytes);
        assert!(reflinks || taken <= counted, "{taken} of {counted}");

        // A day later nobody is likely to want it, and it goes as others do.
        world.clock.pass(30 * HOUR_US);
        for round in 6..10 {
            move_rows(&engine, &mut past, round);
        }
        check(&engine, &past);
        assert!(firsts(&engine).iter().all(|seq| !made.contains(seq)));
        assert!(there(&engine).iter().all(|(.., count)| *count <= most));
        stands(&engine).into_iter().for_each(|shadow| missing(shadow, "after the split"));
    }
}

const YEARS_US: i64 = 70 * 365 * 24 * HOUR_US;

/// While the clock is far ahead, then set back: what was made meanwhile is as old as it is.
fn made_in_a_far_year(world: &World, engine: &Engine, file: FileId, make: impl FnOnce()) {
    world.clock.step(YEARS_US);
    engine.write(file, 0, &[1; 100], false).unwrap();
    make();
    world.clock.step(-YEARS_US);
    engine.write(file, 0, &[2; 100], false).unwrap();
}

#[test]
fn a_shadow_that_was_made_when_the_clock_was_far_ahead_is_kept_up_to_date() {
    let mut world = World::new(7);
    let engine = world.open();
    let file = make(&engine, "a", 40);
    made_in_a_far_year(&world, &engine, file, || {
        engine.add_shadow(subject("a"), None, None).unwrap().unwrap();
        // Its age is counted from what is written then.
        engine.write(file, 0, &[3; 100], false).unwrap();
        while engine.index_some().unwrap() {}
        engine.shadow_rule();
    });
    world.clock.pass(25 * HOUR_US);
    while engine.index_some().unwrap() {}
    engine.shadow_rule();
    settle(&engine);
    assert_eq!(there(&engine)[0].3, 2, "in the session");
    made_in_a_far_year(&world, &engine, file, || {
        engine.add_shadow(subject("a"), None, None).unwrap().unwrap();
    });
    let engine = world.restart(engine, |_| {});
    let newest = || engine.shadows()[0].snapshots.last().unwrap().seq;
    let before = newest();
    world.clock.pass(25 * HOUR_US);
    while engine.index_some().unwrap() {}
    engine.shadow_rule();
    settle(&engine);
    assert!(newest() > before, "after a restart");
}

#[test]
fn the_shadow_of_a_split_that_was_declared_when_the_clock_was_far_ahead_makes_room_in_time() {
    let mut world = World::new(8);
    world.options.shadow.bytes = 50 * PAGE;
    let engine = world.open();
    let file = make(&engine, "split", 40);
    make(&engine, "b", 40);
    made_in_a_far_year(&world, &engine, file, || {
        declare(&engine, "split", None);
        settle(&engine);
    });
    world.clock.pass(48 * HOUR_US);
    let (reason, urgent) = (ShadowReason::Rule, false);
    engine.wish(Wish { subject: subject("b"), pages: None, at: None, benefit: 2.0, reason, urgent });
    settle(&engine);
    assert_eq!(there(&engine).remove(0).0, "b");
    // Nor is it made ready again with each mount.
    let engine = world.restart(engine, lose_shadows);
    settle(&engine);
    assert_eq!(there(&engine), []);
}

#[test]
fn the_number_of_a_shadow_is_not_the_partition_that_is_called_so() {
    let world = World::new(9);
    let engine = world.open();
    make(&engine, "1", 40);
    make(&engine, "b", 40);
    let first = engine.add_shadow(subject("b"), None, None).unwrap().unwrap();
    assert_eq!(first.shadow, 1);
    engine.add_shadow(subject("1"), None, None).unwrap().unwrap();
    assert_eq!(engine.remove_shadows(b"", "1").unwrap(), 1);
    assert_eq!(there(&engine).remove(0).0, "1");
    // Now only the partition is meant.
    assert_eq!(engine.remove_shadows(b"", "1").unwrap(), 1);
    assert_eq!(there(&engine), []);
}

#[test]
fn what_was_asked_for_while_an_old_snapshot_could_not_be_removed_is_made_again_when_it_is_lost() {
    let mut world = World::new(10);
    world.options.shadow.snapshots = 1;
    let engine = world.open();
    let file = make(&engine, "a", 40);
    let (reason, urgent) = (ShadowReason::Rule, false);
    engine.wish(Wish { subject: subject("a"), pages: None, at: None, benefit: 2.0, reason, urgent });
    settle(&engine);
    engine.write(file, 0, &[8; 100], false).unwrap();
    world.disk.fail("shadow.data.free", 1, libc::EIO);
    assert!(engine.add_shadow(subject("a"), None, None).unwrap().is_some());
    world.disk.clear_faults();
    let engine = world.restart(engine, lose_shadows);
    settle(&engine);
    assert_eq!(there(&engine), [("a".into(), None, true, 1)]);
}

#[test]
fn a_shadow_that_is_not_made_because_the_engine_ends_is_not_said_to_be_there() {
    let world = World::new(11);
    let engine = world.open();
    make(&engine, "a", 40);
    now(&engine);
    engine.abandon();
    let refused = engine.add_shadow(subject("a"), None, None).unwrap_err();
    assert!(refused.message.contains("ending"), "{refused}");
    assert_eq!((there(&engine), engine.shadow_status().failures), (vec![], 0));
}

#[test]
fn shadows_are_made_when_their_directory_was_removed() {
    let world = World::new(12);
    let engine = world.open();
    let file = make(&engine, "a", 40);
    engine.add_shadow(subject("a"), None, None).unwrap().unwrap();
    lose_shadows(&world.disk);
    world.disk.remove_dir("test", Path::new(SHADOW)).unwrap();
    make(&engine, "b", 40);
    engine.add_shadow(subject("b"), None, None).unwrap().unwrap();
    // What was lost is found out, and made anew.
    let view = engine.view(now(&engine)).unwrap();
    view.read(file, 0, &mut vec![0; 40 * PAGE as usize]).unwrap();
    settle(&engine);
    let whole = |name: &str| (name.to_owned(), None, true, 1);
    assert_eq!(there(&engine), [whole("a"), whole("b")]);
    assert!(engine.shadows().iter().all(|shadow| shadow.broken.is_none()));
    assert!(engine.status().problems.is_empty(), "{:?}", engine.status().problems);
}
