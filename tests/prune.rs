//! Pruning: every instant that is kept stays what it was to the last byte, whatever is cut, fails or reads meanwhile; the
//! others are refused, and space comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use rand::Rng;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::bed::{self, DATA, STORE};
use support::kv::CrashKv;
use support::pruned::{Past, STEP_US, World, check, read_past, retention, settle, try_open, woven_bytes};
use weft::disk::sim::SimDisk;
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, Instant, Pace, Resolution, Unpaced};
use weft::error::Result;
use weft::meta::retention::{Cap, Retention};
use weft::types::FileId;

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
    // Longer retention brings nothing back; none at all leaves the last instant.
    engine.set_retention(retention(1000, 1, 1000));
    settle(&engine).unwrap();
    engine.prune(&Unpaced, false).unwrap();
    check(&engine, &world.past);
    engine.set_retention(Retention { all_us: Some(0), ..Retention::everything() });
    settle(&engine).unwrap();
    engine.prune(&Unpaced, false).unwrap();
    check(&engine, &world.past);
    assert_eq!(engine.thinned().kept().len(), 1);
}

#[test]
fn nothing_that_is_kept_goes_while_the_index_is_made_anew() {
    let mut world = World::new(21);
    world.sessions(60);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(retention(6, 5, 1000));
    engine.prune(&Unpaced, false).unwrap();
    engine.close().unwrap();
    drop(engine);
    let mut behind = 0;
    for batches in 0.. {
        let (disk, kv) = (world.disk.kill(), CrashKv::new());
        let engine = try_open(&disk, &kv, &world.clock).unwrap();
        engine.set_retention(retention(6, 5, 1000));
        for _ in 0..batches {
            engine.index_some().unwrap();
        }
        engine.prune(&Unpaced, false).unwrap();
        let was_behind = engine.index_some().unwrap();
        settle(&engine).unwrap();
        check(&engine, &world.past);
        if !was_behind {
            break;
        }
        behind += 1;
    }
    assert!(behind >= 2, "{behind} batches");
}

#[test]
fn what_was_there_when_the_kept_time_began_is_kept() {
    for relieved in [false, true] {
        let mut world = World::new(22);
        world.sessions(3);
        // A quiet night. Then something happens that nobody wanted, and somebody wants to see what was there before.
        world.clock.pass(1_000 * STEP_US);
        let engine = world.open();
        let wanted = engine.now();
        world.clock.pass(STEP_US);
        engine.unlink(FileId::ROOT, b"warm").unwrap();
        settle(&engine).unwrap();
        if relieved {
            let minimum_us = 5 * STEP_US as u64;
            engine.set_retention(Retention { cap: Cap::Bytes(1), minimum_us, ..Retention::everything() });
            engine.relieve().unwrap();
        } else {
            engine.set_retention(Retention { tiers: Vec::new(), ..retention(5, 1, 1) });
            engine.prune(&Unpaced, false).unwrap();
        }
        let before = world.past.last().unwrap();
        let Resolution::Found(found) = engine.resolve(Instant::Time(wanted)).unwrap() else { panic!() };
        assert!(engine.view(found.seq).unwrap().lookup(FileId::ROOT, b"warm").unwrap().is_some());
        read_past(&engine, found.seq, &before.contents).unwrap();
        let older = &world.past[..world.past.len() - 1];
        assert!(older.iter().all(|past| !engine.thinned().keeps(past.seq)));
        check(&engine, &world.past);
    }
}

#[test]
fn a_longer_retention_takes_nothing_of_what_was_kept() {
    let mut world = World::new(12);
    world.sessions(8);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(retention(3, 2, 60));
    engine.prune(&Unpaced, false).unwrap();
    let kept = engine.thinned();
    assert!(kept.kept().len() > 5, "{kept:?}");
    // Every write is to be kept for longer, and then fewer: what lies between has been thinned, and keeps what it has.
    for (all, every, reach) in [(10, 2, 60), (20, 4, 60), (12, 2, 60)] {
        engine.set_retention(retention(all, every, reach));
        for dry in [true, false] {
            let pruned = engine.prune(&Unpaced, dry).unwrap();
            assert!(pruned.upto == kept.upto(), "{pruned:?}");
            if every == 2 {
                assert_eq!(pruned.points_gone, 0, "{pruned:?}");
            }
        }
        let now = engine.thinned();
        let since = now.kept().iter().copied().collect::<Vec<_>>();
        let recent: Vec<_> = kept.kept().iter().rev().take(3).collect();
        assert!(recent.iter().all(|point| since.contains(point)), "{recent:?} of {since:?}");
        check(&engine, &world.past);
    }
}

#[test]
fn what_was_decided_and_is_not_durable_is_not_carried_out() {
    let mut world = World::new(13);
    world.sessions(6);
    let mut refused = 0;
    for nth in 1..4 {
        let (disk, kv) = (world.disk.kill(), world.kv.crash(0));
        let engine = try_open(&disk, &kv, &world.clock).unwrap();
        settle(&engine).unwrap();
        engine.set_retention(retention(3, 2, 60));
        disk.fail("journal.group.write", nth, libc::EIO);
        let first = engine.prune(&Unpaced, false);
        // The daemon tries again every few minutes.
        let again = engine.prune(&Unpaced, false);
        if first.is_err() {
            refused += 1;
            assert!(again.is_err(), "{again:?}");
        }
        drop(engine);
        let engine = try_open(&disk.cut(nth), &kv.crash(nth), &world.clock).unwrap();
        if first.is_err() {
            assert!(world.past.iter().all(|past| engine.thinned().keeps(past.seq)), "nothing was decided");
        }
        check(&engine, &world.past);
    }
    assert!(refused > 0, "the journal never failed");
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

fn flip(disk: &SimDisk, path: &Path, at: u64) {
    let file = disk.open("test", path, OpenHow { write: true, ..OpenHow::default() }).unwrap();
    let mut byte = [0];
    file.read_at("test", &mut byte, at).unwrap();
    file.write_at("test", &[byte[0] ^ 4], at).unwrap();
}

/// As `check`, but what lies in a damaged file may be told to be so.
fn check_but_for_damage(engine: &Engine, past: &[Past]) {
    for Past { seq, contents, .. } in past.iter().filter(|past| engine.thinned().keeps(past.seq)) {
        if let Err(error) = read_past(engine, *seq, contents) {
            assert!(error.is_damage(), "at {seq}: {error}");
        }
    }
}

#[test]
fn damage_in_a_woven_file_keeps_no_other_from_being_thinned() {
    const ROUNDS: u64 = 24;
    let mut world = World::new(14);
    world.sessions(8);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.close().unwrap();
    drop(engine);
    let path = Path::new(STORE).join("woven/0000000004.woven");
    let len = world.disk.stat("test", &path).unwrap().unwrap().attr.size;
    let mut told = 0;
    for round in 0..ROUNDS {
        let (disk, kv) = (world.disk.kill(), world.kv.crash(0));
        // Its header, its end, and what lies between.
        let at = match round {
            0..4 => round * 8,
            4..8 => len - 1 - round,
            _ => len * round / ROUNDS,
        };
        flip(&disk, &path, at);
        let engine = try_open(&disk, &kv, &world.clock).unwrap();
        let before = woven_bytes(&disk);
        engine.set_retention(retention(3, 4, 16));
        let done = engine.prune(&Unpaced, false).unwrap();
        assert!(woven_bytes(&disk) * 10 < before * 8, "byte {at}: {done:?}");
        check_but_for_damage(&engine, &world.past);
        // Or nobody needs it, and it went.
        let Some(damage) = done.undone else { continue };
        assert!(disk.stat("test", &path).unwrap().is_some(), "byte {at}: what is damaged stays");
        assert!(damage.is_damage() && damage.path.as_deref() == Some(&*path), "byte {at}: {damage}");
        let problems = engine.status().problems;
        assert!(problems.len() == 1 && problems[0].contains("0000000004.woven"), "{problems:?}");
        told += 1;
        // The others stay as they are now, and it is looked at once more.
        let again = engine.prune(&Unpaced, false).unwrap();
        assert!(again.undone.is_some() && again.thinning.unneeded_bytes == 0, "byte {at}: {again:?}");
    }
    assert!(told > ROUNDS / 2, "{told} of {ROUNDS} are told");
}

#[test]
fn relief_goes_on_past_a_journal_segment_that_cannot_be_woven() {
    let mut world = World::new(15);
    world.sessions(6);
    let engine = world.open();
    engine.checkpoint().unwrap();
    while engine.index_some().unwrap() {}
    let minimum_us = 6 * STEP_US as u64;
    engine.set_retention(Retention { cap: Cap::Bytes(1), minimum_us, ..Retention::everything() });
    // The group header of its first group.
    flip(&world.disk, &Path::new(STORE).join("journal/0000000002.seg"), 4096 + 30);
    assert!(!engine.relieve().unwrap(), "no history fits into a byte");
    let kept = world.past.iter().filter(|past| engine.thinned().keeps(past.seq)).count();
    assert!((3..=8).contains(&kept), "{kept} are kept");
    check_but_for_damage(&engine, &world.past);
    let left: Vec<_> = world.disk.read_dir("test", &Path::new(STORE).join("journal")).unwrap();
    assert!(left.iter().any(|entry| entry.name == b"0000000002.seg"), "what is damaged stays");
    assert!(!left.iter().any(|entry| entry.name == b"0000000001.seg"));
}

#[test]
fn relief_ends_when_the_threads_are_to_end() {
    let mut world = World::new(18);
    world.sessions(3);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(Retention { cap: Cap::Bytes(1), minimum_us: 1, ..Retention::everything() });
    // Told to, they end; whoever wants room at that moment hears that there is none.
    engine.abandon();
    assert!(!engine.relieve().unwrap());
    assert!(world.past.iter().all(|past| engine.thinned().keeps(past.seq)));
}

/// Says to stop once it was asked so often.
struct Often(AtomicU64);

impl Pace for Often {
    fn go_on(&self, _: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

#[test]
fn a_pruning_that_is_told_to_end_leaves_every_kept_instant_and_the_next_goes_on() {
    let mut first = World::new(21);
    first.sessions(5);
    let unfinished = |world: &World| {
        let entries = world.disk.read_dir("test", &Path::new(STORE).join("woven")).unwrap();
        entries.into_iter().any(|entry| entry.name.ends_with(b".new"))
    };
    for asked in 0.. {
        let mut world = World::new(asked);
        (world.disk, world.kv) = (first.disk.kill(), first.kv.crash(0));
        let engine = try_open(&world.disk, &world.kv, &first.clock).unwrap();
        settle(&engine).unwrap();
        engine.set_retention(retention(4, 3, 6));
        let pace = Often(AtomicU64::new(asked));
        engine.prune(&pace, false).unwrap();
        check(&engine, &first.past);
        assert!(!unfinished(&world), "after {asked}");
        engine.close().unwrap();
        drop(engine);
        let engine = try_open(&world.disk, &world.kv, &first.clock).unwrap();
        check(&engine, &first.past);
        let before = woven_bytes(&world.disk);
        engine.set_retention(retention(4, 3, 6));
        engine.prune(&Unpaced, false).unwrap();
        check(&engine, &first.past);
        if pace.0.load(Ordering::Relaxed) > 0 {
            assert!(asked > 10, "{asked} say little");
            break;
        }
        assert!(asked > 0 || woven_bytes(&world.disk) < before, "it was not told to end");
    }
}

#[test]
fn the_end_waits_for_work_by_hand_and_has_it_end() {
    let mut world = World::new(22);
    world.sessions(4);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(retention(2, 3, 3));
    let told = AtomicBool::new(false);
    let by_hand = engine.by_hand().unwrap();
    std::thread::scope(|scope| {
        let end = scope.spawn(|| {
            engine.close().unwrap();
            assert!(told.load(Ordering::Relaxed), "it ended before who works by hand was told");
        });
        while !by_hand.is_over() {
            std::thread::yield_now();
        }
        let pruned = engine.prune(&by_hand, false).unwrap();
        assert_eq!(pruned.thinning.files, 0, "{pruned:?}");
        told.store(true, Ordering::Relaxed);
        drop(by_hand);
        end.join().unwrap();
    });
    assert!(engine.by_hand().is_none(), "nothing begins any more");
    drop(engine);
    let engine = world.open();
    check(&engine, &world.past);
}

/// A prune without space for anything new gives back what needs none.
#[test]
fn without_space_what_needs_none_is_freed() {
    let mut world = World::new(16);
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let old = world.disk.open("test", &Path::new(DATA).join("dropped"), how).unwrap();
    let bytes: Vec<u8> = (0..200_000).map(|_| world.rng.random()).collect();
    old.write_at("test", &bytes, 0).unwrap();
    world.disk.sync_filesystem("test", Path::new("/")).unwrap();
    world.now.push(("dropped", bytes));
    world.sessions(2);
    let engine = world.open();
    engine.unlink(FileId::ROOT, b"dropped").unwrap();
    world.now.retain(|(name, _)| *name != "dropped");
    world.work(&engine);
    world.seal(engine);
    world.sessions(4);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(retention(1, 3, 3));
    let limbo = || world.disk.read_dir("test", &Path::new(DATA).join(".weft/limbo")).unwrap().len();
    assert_eq!(limbo(), 1);
    for nth in 1..=world.past.len() as u64 * 4 {
        world.disk.fail("weave.create", nth, libc::ENOSPC);
    }
    assert!(engine.prune(&Unpaced, false).unwrap_err().is(libc::ENOSPC));
    assert_eq!(limbo(), 0, "a file that was removed whole takes its space still");
    check(&engine, &world.past);
    world.disk.clear_faults();
    engine.prune(&Unpaced, false).unwrap();
    check(&engine, &world.past);
}

#[test]
fn steps_of_the_clock_make_history_neither_older_nor_younger_when_it_is_shortened() {
    const SECOND: i64 = 1_000_000;
    // Not at all; by less than there is of history, back and forth; and by more.
    for by in [0, -90, 90, -10_000, 10_000] {
        let mut world = World::new(17);
        world.sessions(4);
        let older = world.past.len();
        world.clock.pass(100 * SECOND);
        world.sessions(4);
        let engine = world.open();
        world.clock.step(by * SECOND);
        world.work(&engine);
        settle(&engine).unwrap();
        let minimum_us = 20 * SECOND as u64;
        engine.set_retention(Retention { cap: Cap::Bytes(1), minimum_us, ..Retention::everything() });
        assert!(!engine.relieve().unwrap(), "no history fits into a byte");
        let kept: Vec<bool> = world.past.iter().map(|past| engine.thinned().keeps(past.seq)).collect();
        // Up to the last event that is older than the minimum.
        assert!(kept[..older - 1].iter().all(|kept| !kept), "a step of {by} s: {kept:?}");
        assert!(kept[older..].iter().all(|kept| *kept), "a step of {by} s: {kept:?}");
        check(&engine, &world.past);
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
    let new = bed::regular();
    for name in ["cold", "gone"] {
        engine.create(FileId::ROOT, name.as_bytes(), new.clone()).unwrap();
        world.now.push((name, Vec::new()));
        let bytes: Vec<u8> = (0..200_000).map(|_| world.rng.random()).collect();
        world.write(&engine, name, 0, &bytes);
    }
    world.seal(engine);
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
    assert!(engine.rested().len() >= 2);
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

/// How far a dry run may be off: one in so many bytes of the files that it looked at, and some for the smallest.
const DRY_SHARE: u64 = 10;
const DRY_BYTES: u64 = 16 << 10;

#[test]
fn what_a_dry_run_says_is_what_comes_back() {
    for (seed, kept) in [(7, (6, 5, 20)), (8, (3, 2, 40)), (9, (0, 4, 0)), (10, (20, 3, 40))] {
        let mut world = World::new(seed);
        // Cold files come to rest, and then history holds nothing of them.
        if seed % 2 == 0 {
            let engine = world.open();
            let new = bed::regular();
            engine.create(FileId::ROOT, b"cold", new).unwrap();
            world.now.push(("cold", Vec::new()));
            let bytes: Vec<u8> = (0..300_000).map(|_| world.rng.random()).collect();
            world.write(&engine, "cold", 0, &bytes);
            world.seal(engine);
        }
        world.sessions(8);
        let engine = world.open();
        settle(&engine).unwrap();
        engine.tag("held", world.past[9].seq).unwrap();
        for kept in [kept, (kept.0 / 2, kept.1 + 1, kept.2 / 2)] {
            engine.set_retention(retention(kept.0, kept.1, kept.2));
            // No instant comes of age between the two.
            world.clock.pass(STEP_US - engine.now().0.rem_euclid(STEP_US));
            let said = engine.prune(&Unpaced, true).unwrap();
            let before = woven_bytes(&world.disk);
            let done = engine.prune(&Unpaced, false).unwrap();
            let came = before - woven_bytes(&world.disk);
            let estimate = said.thinning.before_bytes - said.thinning.after_bytes;
            assert_eq!((said.points, said.points_gone), (done.points, done.points_gone));
            let off = estimate.abs_diff(came);
            let may = said.thinning.before_bytes / DRY_SHARE + DRY_BYTES;
            assert!(off <= may, "{seed} {kept:?}: {estimate} said, {came} came back: {said:?} {done:?}");
        }
        check(&engine, &world.past);
    }
}

#[test]
fn what_was_open_in_a_view_holds_its_instant_as_long_as_a_lease_runs() {
    let mut world = World::new(11);
    world.sessions(4);
    let engine = world.open();
    settle(&engine).unwrap();
    engine.set_retention(Retention { all_us: Some(0), ..Retention::everything() });
    let (used, ended, only_seen) = (world.past[4].seq, world.past[6].seq, world.past[8].seq);
    for seq in [used, ended] {
        let view = engine.view(seq).unwrap();
        engine.open_past(seq);
        engine.release_past(seq);
        drop(view);
    }
    drop(engine.view(only_seen).unwrap());
    let lease = engine.lease(ended, "a test").unwrap().lease;
    engine.end_lease(lease.id).unwrap();
    engine.prune(&Unpaced, false).unwrap();
    assert!([used, ended, only_seen].map(|seq| engine.thinned().keeps(seq)) == [true, false, false]);
    assert!(engine.held().iter().any(|held| held.seq == used && held.by.contains("just now")));
    check(&engine, &world.past);
    world.clock.pass(601_000_000);
    engine.prune(&Unpaced, false).unwrap();
    assert!(!engine.thinned().keeps(used) && engine.held().is_empty());
    check(&engine, &world.past);
}
