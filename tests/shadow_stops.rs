//! The making of a shadow that ends in the middle: by an unmount, by the one who takes it away, by a disk that is full.
//! Nothing of it is left then, wherever a cut comes; what is there already is as it was; and the next try makes all of it.

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
use std::sync::mpsc::Receiver;
use std::thread;
use support::Ticking;
use support::bed;
use support::kv::{CrashKv, Deed};
use weft::disk::Disk;
use weft::disk::sim::SimDisk;
use weft::engine::{Engine, Layout, ShadowMade, ShadowReason, Subject, Wish};
use weft::error::{Kind, Result};
use weft::types::{FileId, Seq};

const NAME: &str = "16384";
const PAGE: usize = 4096;
/// Several pieces of a making.
const PAGES: usize = 1_100;

/// A file that has a shadow, or none, and what an instant of it is.
struct Bed {
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    seq: Seq,
    bytes: Vec<u8>,
    /// Files of shadows.
    files: Vec<String>,
}

fn subject() -> Subject {
    Subject { root: Vec::new(), partition: NAME.into() }
}

fn wish(reason: ShadowReason, at: Option<Seq>) -> Wish {
    Wish { subject: subject(), pages: None, at, benefit: 1.0, reason, urgent: false }
}

impl Bed {
    /// `with_shadow`: there is one, and much has changed since.
    fn new(seed: u64, with_shadow: bool, reflinks: bool) -> Bed {
        let disk = bed::disk(seed);
        disk.set_reflinks(reflinks);
        let mut rng = StdRng::seed_from_u64(seed);
        let bytes: Vec<u8> = (0..PAGES * PAGE).map(|_| rng.random()).collect();
        let clock = Arc::new(Ticking::new(1_000_000));
        let mut bed = Bed { disk, kv: CrashKv::new(), clock, seq: Seq::ZERO, bytes, files: Vec::new() };
        let engine = bed.open();
        let (file, _) = engine.create(FileId::ROOT, NAME.as_bytes(), bed::regular()).unwrap();
        for (at, part) in bed.bytes.chunks(1 << 20).enumerate() {
            engine.write(file, (at << 20) as u64, part, false).unwrap();
        }
        if with_shadow {
            engine.wish(wish(ShadowReason::Rule, None));
            assert!(engine.shadow_step().unwrap() && engine.shadows().len() == 1);
            for page in (0..PAGES).step_by(5) {
                let new: Vec<u8> = (0..PAGE).map(|_| rng.random()).collect();
                engine.write(file, (page * PAGE) as u64, &new, false).unwrap();
                bed.bytes[page * PAGE..(page + 1) * PAGE].copy_from_slice(&new);
            }
        }
        engine.checkpoint().unwrap();
        while engine.index_some().unwrap() {}
        bed.seq = Seq(engine.status().seq);
        engine.abandon();
        drop(engine);
        bed.disk = bed.disk.kill();
        bed.files = bed.files_now(&bed.disk);
        bed
    }

    /// The same once more.
    fn again(&self) -> Bed {
        let (disk, kv, clock) = (self.disk.kill(), self.kv.crash(0), Arc::clone(&self.clock));
        Bed { disk, kv, clock, seq: self.seq, bytes: self.bytes.clone(), files: self.files.clone() }
    }

    /// What is left of it after a cut.
    fn after(&self, cut: u64) -> Bed {
        let mut left = self.again();
        (left.disk, left.kv) = (self.disk.cut(cut), self.kv.crash(cut % 3));
        left
    }

    fn open(&self) -> Arc<Engine> {
        bed::open(&self.disk, &self.kv, &self.clock, bed::options()).unwrap()
    }

    fn files_now(&self, disk: &SimDisk) -> Vec<String> {
        let entries = disk.read_dir("test", Path::new("/store/shadow")).unwrap();
        let mut names: Vec<String> =
            entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
        names.sort();
        names
    }

    /// Opens what is left after a cut: the instant is what it was, and nothing is left of what ended. Then all of it is made.
    fn check(mut self, cut: u64, asked: bool) {
        (self.disk, self.kv) = (self.disk.cut(cut), self.kv.crash(cut % 3));
        let engine = self.open();
        assert_eq!(self.files_now(&self.disk), self.files, "after cut {cut}");
        self.check_view(&engine);
        engine.take_up_wishes(Layout::Generic);
        while engine.shadow_step().unwrap() {}
        let made = engine.shadows().iter().filter(|shadow| shadow.reason == "asked").count();
        assert_eq!(made, usize::from(asked), "what was asked for is made, and what was taken back is not");
        engine.add_shadow(subject(), None, Some(self.seq)).unwrap().unwrap();
        self.check_view(&engine);
        assert!(engine.shadow_status().served_bytes >= self.bytes.len() as u64);
        assert!(engine.shadows().iter().all(|shadow| shadow.broken.is_none()));
        engine.close().unwrap();
    }

    fn check_view(&self, engine: &Engine) {
        let view = engine.view(self.seq).unwrap();
        let (file, _) = view.lookup(FileId::ROOT, NAME.as_bytes()).unwrap().unwrap();
        let mut bytes = vec![0; self.bytes.len()];
        view.read(file, 0, &mut bytes).unwrap();
        assert!(bytes == self.bytes);
    }
}

/// Begins to make a shadow, and does something at the `nth` lookup of it; then the power goes at once, or at the operation
/// `cut` after that. What came of the making; `None`: it came to its end before.
fn interrupt(
    bed: &Bed,
    engine: &Arc<Engine>,
    (nth, cut): (u64, Option<u64>),
    deed: impl FnOnce() + Send + 'static,
) -> Option<Result<Option<ShadowMade>>> {
    let disk = bed.disk.clone();
    let deed: Deed = Box::new(move || {
        deed();
        if let Some(cut) = cut {
            disk.cut_at(disk.operations() + cut);
        }
    });
    bed.kv.at(nth, deed);
    let made = engine.add_shadow(subject(), None, None);
    bed.kv.forget_deed().is_none().then_some(made)
}

/// A position in the making where much of it is written.
fn middle(bed: &Bed) -> u64 {
    let bed = bed.again();
    let engine = bed.open();
    bed.kv.at(u64::MAX, Box::new(|| ()));
    engine.add_shadow(subject(), None, None).unwrap().unwrap();
    (u64::MAX - bed.kv.forget_deed().unwrap()) * 4 / 5
}

/// Positions in the making, further and further apart.
fn positions() -> impl Iterator<Item = u64> {
    (1..).map(|step: u64| step + step * step / 6)
}

#[test]
fn an_unmount_ends_the_making_wherever_it_is_and_the_next_mount_makes_what_was_asked_for() {
    for (with_shadow, reflinks) in [(false, false), (true, false), (true, true)] {
        let bed = Bed::new(1, with_shadow, reflinks);
        let mut ended = 0;
        for nth in positions() {
            let bed = bed.again();
            let engine = bed.open();
            let stopped = Arc::clone(&engine);
            let Some(made) = interrupt(&bed, &engine, (nth, None), move || stopped.abandon()) else { break };
            // In its last piece there is nothing to end any more.
            if let Err(error) = made {
                assert!(
                    error.kind == Kind::Busy && error.message.contains("after the next mount"),
                    "{error}"
                );
                ended += 1;
                assert_eq!(bed.files_now(&bed.disk), bed.files, "at {nth}");
                engine.close().unwrap();
                drop(engine);
                bed.check(nth, true);
            }
        }
        assert!(ended > 5, "{ended} say little");
    }
}

#[test]
fn a_cut_at_each_operation_behind_an_end_leaves_nothing_of_what_ended() {
    for with_shadow in [false, true] {
        let bed = Bed::new(2, with_shadow, false);
        // What it has written is there, and has to go.
        let middle = middle(&bed);
        for cut in 0.. {
            let bed = bed.again();
            let engine = bed.open();
            let stopped = Arc::clone(&engine);
            let made = interrupt(&bed, &engine, (middle, Some(cut)), move || stopped.abandon());
            assert!(!matches!(made.unwrap(), Ok(Some(_))), "it did not end");
            drop(engine.close());
            let all = !bed.disk.is_dead();
            drop(engine);
            // Before the table says so, nobody has been told that it will be made.
            let left = bed.after(cut);
            let engine = left.open();
            assert_eq!(left.files_now(&left.disk), left.files, "cut at {cut}");
            left.check_view(&engine);
            engine.add_shadow(subject(), None, Some(left.seq)).unwrap().unwrap();
            left.check_view(&engine);
            if all {
                assert!(cut > 10, "{cut} operations say little");
                break;
            }
        }
    }
}

/// Takes away what is being made: returns once it has been told to end. What came of it comes when all is over.
fn taking_away(engine: &Arc<Engine>) -> (impl FnOnce() + Send + 'static, Receiver<Result<u64>>) {
    let (taker, (took, taken)) = (Arc::clone(engine), std::sync::mpsc::channel());
    let deed = move || {
        let there = Arc::clone(&taker);
        thread::spawn(move || took.send(taker.remove_shadows(b"", NAME)));
        while there.shadow_status().waiting > 0 {
            thread::yield_now();
        }
    };
    (deed, taken)
}

#[test]
fn what_is_taken_away_while_it_is_made_ends_and_does_not_come_back() {
    for (with_shadow, by_wish) in [(false, false), (true, false), (false, true)] {
        let bed = Bed::new(3, with_shadow, false);
        let mut ended = 0;
        for nth in positions() {
            let mut bed = bed.again();
            let engine = bed.open();
            // Once it is forgotten, what is being made is told to end.
            engine.wish(wish(ShadowReason::Rule, Some(bed.seq)));
            let (deed, taken) = taking_away(&engine);
            let made = match by_wish {
                false => interrupt(&bed, &engine, (nth, None), deed),
                true => {
                    let (pages, at, reason) = (None, None, ShadowReason::Asked);
                    engine.wish(Wish { subject: subject(), pages, at, benefit: 0.0, reason, urgent: true });
                    bed.kv.at(nth, Box::new(deed));
                    engine.shadow_step().unwrap();
                    bed.kv.forget_deed().is_none().then_some(Ok(None))
                }
            };
            let Some(made) = made else { break };
            if let Err(error) = made {
                assert!(error.kind == Kind::Invalid && error.message.contains("weft shadow rm"), "{error}");
                ended += 1;
            }
            assert!(taken.recv().unwrap().unwrap() >= 1, "at {nth}");
            assert!(engine.shadows().is_empty() && engine.shadow_status().failures == 0, "at {nth}");
            while engine.shadow_step().unwrap() {}
            assert!(engine.shadows().is_empty() && engine.shadow_status().waiting == 0);
            engine.close().unwrap();
            drop(engine);
            bed.files.clear();
            bed.check(nth, false);
        }
        assert!(by_wish || ended > 5, "{ended} say little");
    }
}

#[test]
fn a_cut_at_each_operation_of_taking_away_what_is_being_made_brings_nothing_back_half() {
    let bed = Bed::new(4, true, false);
    let middle = middle(&bed);
    for cut in 0.. {
        let bed = bed.again();
        let engine = bed.open();
        engine.wish(wish(ShadowReason::Rule, Some(bed.seq)));
        let (deed, taken) = taking_away(&engine);
        drop(interrupt(&bed, &engine, (middle, Some(cut)), deed).expect("it ended before"));
        let all = taken.recv().unwrap().is_ok() && !bed.disk.is_dead();
        drop(engine);
        let left = bed.after(cut);
        let engine = left.open();
        // The one that was there before is there whole, or not at all.
        assert!(engine.shadows().iter().all(|shadow| shadow.snapshots.len() == 1), "cut at {cut}");
        let files = left.files_now(&left.disk);
        assert!(files.is_empty() || files == left.files, "cut at {cut}: {files:?}");
        left.check_view(&engine);
        engine.add_shadow(subject(), None, Some(left.seq)).unwrap().unwrap();
        left.check_view(&engine);
        if all {
            assert!(files.is_empty() && cut > 10, "{cut} operations say little");
            break;
        }
    }
}

#[test]
fn a_disk_that_fills_up_in_the_middle_ends_the_making_and_there_is_room_again_for_the_next() {
    for (with_shadow, left) in [(false, 0), (false, 300), (true, 0), (true, 20)] {
        let bed = Bed::new(5, with_shadow, false);
        let mut ended = 0;
        for nth in positions() {
            let bed = bed.again();
            let engine = bed.open();
            let disk = bed.disk.clone();
            let deed = move || disk.set_capacity(disk.used() + left * PAGE as u64);
            let Some(made) = interrupt(&bed, &engine, (nth, None), deed) else { break };
            if let Err(error) = made {
                ended += 1;
                assert!(
                    error.is(libc::ENOSPC)
                        || error.message.contains("make room")
                        || error.message.contains("space"),
                    "at {nth}, with {left} pages: {error}"
                );
                assert_eq!(bed.files_now(&bed.disk), bed.files, "at {nth}");
                bed.check_view(&engine);
                // Whoever was refused asks again.
                bed.disk.set_capacity(1 << 40);
                engine.relieve().unwrap();
                engine.resume_shadows();
                drop(engine);
                bed.check(nth, false);
            }
        }
        assert!(ended > 3, "{ended} of them with {left} pages left say little");
    }
}
