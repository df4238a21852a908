//! The clock is set, forward and back, while history is written, and instants are asked for.

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
use support::Ticking;
use support::bed::{self, STORE};
use support::kv::CrashKv;
use weft::clock::Clock;
use weft::disk::Disk;
use weft::disk::sim::SimDisk;
use weft::engine::{Engine, Found, Instant, Resolution};
use weft::error::Result;
use weft::format::event::Event;
use weft::index::kv::Kv;
use weft::journal::reader::{Check, Reader, Step};
use weft::journal::recovery::START;
use weft::journal::segment::Segments;
use weft::past::offline::Offline;
use weft::types::{FileId, Seq, StoreId, Timestamp};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
/// 2026-11-23T10:00:00Z.
const TEN: i64 = 1_795_428_000 * SECOND;
/// From there to 2099-01-01T00:00:00Z.
const TO_2099: i64 = 4_070_908_800 * SECOND - TEN;

/// A store whose clock the test sets, and one file in it.
struct Bed {
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
}

impl Bed {
    fn new() -> Bed {
        Bed { disk: bed::disk(1), kv: CrashKv::new(), clock: Arc::new(Ticking::new(TEN)) }
    }

    fn try_open(&self) -> Result<Arc<Engine>> {
        let (kv, clock) = (Arc::clone(&self.kv), Arc::clone(&self.clock));
        Engine::open(Arc::new(self.disk.clone()), clock, bed::options(), &move |_| {
            Ok(Arc::clone(&kv) as Arc<dyn Kv>)
        })
    }

    fn open(&self) -> Arc<Engine> {
        self.try_open().unwrap()
    }

    /// kill -9, and another mount. The index is what it was, or nothing.
    fn crash(&mut self, engine: Arc<Engine>) -> Arc<Engine> {
        let _ = sync(&engine);
        drop(engine);
        self.disk = self.disk.kill();
        self.kv = self.kv.crash(2);
        self.open()
    }
}

fn create(engine: &Engine) -> FileId {
    let new = bed::regular();
    engine.create(FileId::ROOT, b"f", new).unwrap().0
}

fn write(engine: &Engine, text: &str) {
    let (file, _) = engine.lookup(FileId::ROOT, b"f").unwrap();
    engine.write(file, 0, format!("{text:16}").as_bytes(), false).unwrap();
}

fn sync(engine: &Engine) -> Result<()> {
    let (done, wait) = std::sync::mpsc::channel();
    engine.sync(Box::new(move |result| done.send(result).unwrap()));
    wait.recv().unwrap()
}

fn found(engine: &Engine, at: Timestamp) -> Found {
    match engine.resolve(Instant::Time(at)).unwrap() {
        Resolution::Found(found) => found,
        other => panic!("{at} is {other:?}"),
    }
}

fn text_at(engine: &Engine, seq: Seq) -> String {
    let view = engine.view(seq).unwrap();
    let (file, attr) = view.lookup(FileId::ROOT, b"f").unwrap().unwrap();
    let mut bytes = vec![0; attr.size as usize];
    view.read(file, 0, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}

/// What the file held at a time.
fn text(engine: &Engine, at: Timestamp) -> String {
    text_at(engine, found(engine, at).seq)
}

#[test]
fn a_time_shown_before_the_clock_was_set_back_stays_what_it_was() {
    let mut bed = Bed::new();
    let engine = bed.open();
    create(&engine);
    write(&engine, "first");
    bed.clock.pass(HOUR / 2);
    let shown = engine.now();
    assert_eq!(text(&engine, shown), "first");
    let not_shown = Timestamp(shown.0 - SECOND);
    bed.clock.pass(HOUR / 2);
    write(&engine, "later");
    bed.clock.step(-HOUR);
    write(&engine, "again");
    assert_eq!(engine.status().clock_epoch, 1);
    assert!(engine.now().0 < TEN + SECOND, "time stands still: {}", engine.now());
    // The new clock has not reached it yet; the old one had.
    assert_eq!(text(&engine, shown), "first");
    bed.clock.pass(HOUR * 3 / 4);
    write(&engine, "newest");
    for _ in 0..2 {
        assert_eq!(text(&engine, shown), "first", "what was shown has changed");
        assert_eq!(text(&engine, not_shown), "again", "the newest clock counts for what was not shown");
    }
    let both = engine.candidates(shown).unwrap();
    let texts: Vec<_> = both.iter().map(|one| (one.epoch, text_at(&engine, one.seq))).collect();
    assert_eq!(texts, [(0, "first".into()), (1, "again".into())]);
    let engine = bed.crash(engine);
    assert_eq!((text(&engine, shown), text(&engine, not_shown)), ("first".into(), "again".into()));
    assert_eq!(engine.status().clock_epoch, 1);
}

#[test]
fn a_clock_that_was_in_2099_freezes_nothing() {
    let mut bed = Bed::new();
    let engine = bed.open();
    create(&engine);
    write(&engine, "before");
    let before = engine.now();
    assert_eq!(text(&engine, before), "before");
    bed.clock.step(TO_2099);
    write(&engine, "in 2099");
    bed.clock.pass(60 * SECOND);
    let strange = engine.now();
    assert_eq!(text(&engine, strange), "in 2099");
    bed.clock.step(-TO_2099);
    bed.clock.pass(SECOND);
    let right = engine.now();
    assert!((right.0 - before.0).abs() < 120 * SECOND, "time is still in {right}");
    write(&engine, "right!!");
    bed.clock.pass(HOUR);
    for _ in 0..2 {
        assert_eq!(engine.status().clock_epoch, 2);
        assert_eq!(text(&engine, before), "before");
        assert_eq!(text(&engine, strange), "in 2099");
        assert_eq!(text(&engine, Timestamp(right.0 + 60 * SECOND)), "right!!");
        // What no clock has shown: years that were leapt over, and are yet to come.
        let leapt = engine.resolve(Instant::Time(Timestamp(TEN + TO_2099 / 2))).unwrap();
        assert!(matches!(leapt, Resolution::Future { .. }), "{leapt:?}");
    }
    // Five minutes ago is five minutes of time that passed, whatever the clock showed then.
    bed.clock.step(-HOUR);
    bed.clock.pass(120 * SECOND);
    write(&engine, "back an hour");
    let (ago, _) = engine.resolve_ago(300 * SECOND).unwrap();
    let Resolution::Found(ago) = ago else { panic!("{ago:?}") };
    assert_eq!((text_at(&engine, ago.seq).as_str(), ago.epoch), ("right!!", 2));
    let engine = bed.crash(engine);
    assert_eq!(text(&engine, strange), "in 2099");
}

#[test]
fn a_step_is_seen_when_the_store_is_opened_again() {
    let mut bed = Bed::new();
    let engine = bed.open();
    create(&engine);
    write(&engine, "good clock");
    let shown = engine.now();
    assert_eq!(text(&engine, shown), "good clock");
    // The machine was off, and its battery is dead: 1970.
    bed.clock.step(-TEN);
    let engine = bed.crash(engine);
    write(&engine, "at 1970");
    assert_eq!(engine.status().clock_epoch, 1);
    let early = engine.now();
    assert!(early.0 < HOUR);
    assert_eq!(text(&engine, early), "at 1970");
    assert_eq!(text(&engine, shown), "good clock");
    // Off again, and wound up to 2099: not believed without saying so.
    bed.clock.step(TEN + TO_2099);
    let engine = bed.crash(engine);
    assert_eq!(engine.status().clock_epoch, 2);
    write(&engine, "at 2099");
    bed.clock.step(-TO_2099);
    let engine = bed.crash(engine);
    assert_eq!(engine.status().clock_epoch, 3);
    write(&engine, "right clock");
    bed.clock.pass(SECOND);
    let now = engine.now();
    assert!(now.0 - TEN < 60 * SECOND);
    assert_eq!(text(&engine, now), "right clock");
    assert_eq!((text(&engine, early).as_str(), text(&engine, shown).as_str()), ("at 1970", "good clock"));
}

#[test]
fn a_step_is_told_of_for_a_day_and_files_are_dated_by_history() {
    let bed = Bed::new();
    let engine = bed.open();
    create(&engine);
    write(&engine, "before");
    let before = found(&engine, engine.now());
    assert!(engine.status().warnings.is_empty());
    bed.clock.step(-HOUR);
    write(&engine, "after");
    let after = found(&engine, engine.now());
    let mtime = |seq: Seq| {
        let view = engine.view(seq).unwrap();
        view.lookup(FileId::ROOT, b"f").unwrap().unwrap().1.mtime
    };
    assert!(mtime(after.seq).secs + 3_500 < mtime(before.seq).secs);
    assert_eq!(
        (text_at(&engine, before.seq).as_str(), text_at(&engine, after.seq).as_str()),
        ("before", "after")
    );
    let told = || engine.status().warnings.join("; ");
    assert!(told().contains("clock epoch 1 began") && told().contains("set back"), "{}", told());
    bed.clock.pass(23 * HOUR);
    assert!(told().contains("clock epoch 1 began"));
    bed.clock.pass(2 * HOUR);
    assert_eq!((told().as_str(), engine.status().clock_epoch), ("", 1));
}

#[test]
fn sleep_idleness_and_small_steps_begin_no_epoch() {
    let mut bed = Bed::new();
    let engine = bed.open();
    create(&engine);
    for step in [4, -4, 5, -5] {
        bed.clock.pass(30 * 86_400 * SECOND);
        write(&engine, "idle");
        bed.clock.step(step * SECOND);
        write(&engine, "slewed");
    }
    // Small steps back that come to more than the limit: time would stand still for as long.
    assert_eq!(engine.status().clock_epoch, 0);
    let engine = bed.crash(engine);
    bed.clock.pass(90 * 86_400 * SECOND);
    let engine = bed.crash(engine);
    write(&engine, "off for months");
    assert_eq!(engine.status().clock_epoch, 0);
    for _ in 0..2 {
        bed.clock.step(-3 * SECOND);
        write(&engine, "crept");
    }
    assert_eq!(engine.status().clock_epoch, 1);
    // An idle hour hides no step.
    bed.clock.step(-HOUR);
    bed.clock.pass(2 * HOUR);
    write(&engine, "waited");
    assert_eq!(engine.status().clock_epoch, 2);
}

#[test]
fn what_was_shown_after_writing_stopped_stays_what_it_was() {
    let mut bed = Bed::new();
    let engine = bed.open();
    create(&engine);
    write(&engine, "durable");
    sync(&engine).unwrap();
    write(&engine, "lost or not");
    bed.disk.fail("journal.group.write", 1, libc::EIO);
    sync(&engine).unwrap_err();
    bed.clock.pass(HOUR);
    let shown = engine.now();
    assert_eq!(text(&engine, shown), "durable");
    bed.clock.pass(HOUR);
    let also = engine.now();
    assert_eq!((text(&engine, also), text(&engine, shown)), ("durable".into(), "durable".into()));
    // Where an answer cannot be kept it is not given; by its Seq the state can be had.
    bed.disk.fail("pins.write", 1, libc::EIO);
    let refused = engine.resolve(Instant::Time(Timestamp(also.0 - SECOND))).unwrap_err();
    let seq = found(&engine, also).seq;
    assert!(refused.to_string().contains(&format!("@seq={seq}")), "{refused}");
    // Set back before the next mount, then a little after what was shown.
    bed.clock.step(-HOUR - HOUR / 2);
    for _ in 0..2 {
        let reopened = bed.crash(Arc::clone(&engine));
        write(&reopened, "after");
        bed.clock.pass(SECOND);
        for at in [shown, also] {
            assert_eq!(text(&reopened, at), "durable", "what was shown has changed");
        }
        assert_eq!(text(&reopened, reopened.now()), "after");
        bed.clock.pass(2 * HOUR);
        for at in [shown, also] {
            assert_eq!(text(&reopened, at), "durable", "what was shown has changed");
        }
        assert!(bed.disk.stat("test", &Path::new(STORE).join("pins")).unwrap().is_none());
    }
}

#[test]
fn on_a_full_disk_the_past_can_be_looked_at() {
    let bed = Bed::new();
    let engine = bed.open();
    create(&engine);
    write(&engine, "early");
    bed.clock.pass(SECOND);
    let (file, _) = engine.lookup(FileId::ROOT, b"f").unwrap();
    bed.disk.set_capacity(bed.disk.used() + (1 << 20));
    while engine.write(file, 4096, &[7; 1 << 16], false).is_ok() {}
    sync(&engine).unwrap();
    while engine.write(file, 4096, b"x", false).is_ok() {
        sync(&engine).unwrap();
    }
    bed.clock.step(-HOUR);
    for number in 0..50 {
        bed.clock.pass(SECOND);
        assert!(
            found(&engine, Timestamp(TEN + SECOND - number * 100)).seq <= found(&engine, engine.now()).seq
        );
    }
    assert_eq!(engine.status().clock_epoch, 1);
}

// -- random histories against a model --

/// An event as it stands in the journal: epoch, Seq, time.
type Stamp = (u32, Seq, Timestamp);

/// What a time means by the rule, reckoned from all events.
#[derive(PartialEq, Eq, Debug)]
enum Meaning {
    Seq(Seq),
    Future,
    Before,
}

fn meaning(stamps: &[Stamp], now: Timestamp, at: Timestamp) -> Meaning {
    let newest = stamps.last().unwrap().0;
    let mut gap = None;
    for epoch in (0..=newest).rev() {
        let of: Vec<&Stamp> = stamps.iter().filter(|stamp| stamp.0 == epoch).collect();
        let (Some(first), Some(last)) = (of.first(), of.last()) else { continue };
        let answer = of.iter().rfind(|stamp| stamp.2 <= at);
        let end = if epoch == newest { now.max(last.2) } else { last.2 };
        if first.2 <= at && at <= end {
            return Meaning::Seq(answer.unwrap().1);
        }
        gap = gap.or(answer.map(|stamp| stamp.1));
    }
    match gap {
        _ if at > now => Meaning::Future,
        Some(seq) => Meaning::Seq(seq),
        None => Meaning::Before,
    }
}

/// A history in which the clock is set at random.
struct History {
    rng: StdRng,
    bed: Bed,
    engine: Arc<Engine>,
    birth: Seq,
    texts: Vec<(Seq, String)>,
    synced: Seq,
    answered: Vec<(Instant, Seq)>,
    seed: u64,
}

impl History {
    fn new(seed: u64) -> History {
        let bed = Bed::new();
        let engine = bed.open();
        let birth = Seq(engine.status().seq);
        create(&engine);
        let rng = StdRng::seed_from_u64(seed);
        let mut history =
            History { rng, bed, engine, birth, texts: vec![], synced: Seq::ZERO, answered: vec![], seed };
        history.write();
        history.sync();
        history
    }

    fn last(&self) -> Seq {
        Seq(self.engine.status().seq)
    }

    fn write(&mut self) {
        let text = format!("text {}", self.rng.random_range(0..1_000_000));
        write(&self.engine, &text);
        self.texts.push((self.last(), text));
    }

    fn sync(&mut self) {
        sync(&self.engine).unwrap();
        self.synced = self.last();
    }

    /// All events that can be shown, from the journal itself. In every epoch time rises; each begins with a group.
    fn stamps(&self) -> Vec<Stamp> {
        let journal = Path::new(STORE).join("journal");
        let segments = Segments::new(Arc::new(self.bed.disk.clone()), journal, StoreId([5; 16]));
        let mut reader = Reader::new(Arc::new(segments), START, Check::Records);
        let mut stamps: Vec<Stamp> = Vec::new();
        let mut epoch = 0;
        while let Step::Group(group) = reader.step().unwrap() {
            for (at, record) in group.records.iter().enumerate() {
                if let Event::Epoch { epoch: number, wall } = record.event {
                    assert_eq!((at, number, wall), (0, epoch + 1, record.ts));
                    epoch = number;
                }
                let before = stamps.last().filter(|before| before.0 == epoch);
                assert!(before.is_none_or(|before| before.2 <= record.ts), "time fell in epoch {epoch}");
                stamps.push((epoch, record.seq, record.ts));
            }
        }
        stamps.retain(|stamp| stamp.1 >= self.birth);
        stamps
    }

    fn text_should_be(&self, seq: Seq) -> Option<&str> {
        self.texts.iter().rfind(|(since, _)| *since <= seq).map(|(_, text)| text.as_str())
    }

    fn shows(&self, found: Found) {
        let expected = self.text_should_be(found.seq);
        if let Some(expected) = expected {
            assert_eq!(text_at(&self.engine, found.seq), expected, "seed {}: {found:?}", self.seed);
        }
        self.engine.origin(found.seq).unwrap().expect("a session wrote it");
        assert_eq!(found.epoch, self.stamps().iter().find(|stamp| stamp.1 == found.seq).unwrap().0);
    }

    /// A time near something that matters.
    fn some_time(&mut self) -> Timestamp {
        let stamps = self.stamps();
        let near = match self.rng.random_range(0..4) {
            0 => self.engine.now(),
            1 => {
                let epochs: Vec<_> = stamps.windows(2).filter(|two| two[0].0 != two[1].0).collect();
                match epochs.len() {
                    0 => stamps[0].2,
                    len => epochs[self.rng.random_range(0..len)][self.rng.random_range(0..2)].2,
                }
            }
            2 => stamps[self.rng.random_range(0..stamps.len())].2,
            _ => match self.answered.len() {
                0 => self.engine.now(),
                len => match self.answered[self.rng.random_range(0..len)].0 {
                    Instant::Time(at) => at,
                    Instant::Seq(_) => self.engine.now(),
                },
            },
        };
        let by = [0, 0, 1, SECOND, 60 * SECOND, HOUR, 365 * 24 * HOUR][self.rng.random_range(0..7)];
        Timestamp(near.0 + self.rng.random_range(-by..=by))
    }

    fn resolve(&mut self) {
        let at = self.some_time();
        let before = self.engine.now();
        let answer = self.engine.resolve(Instant::Time(at)).unwrap();
        self.synced = Seq(self.engine.status().durable_seq);
        let earlier = self.answered.iter().find(|(instant, _)| *instant == Instant::Time(at));
        if let Some((_, seq)) = earlier {
            let Resolution::Found(found) = answer else { panic!("seed {}: {at} is {answer:?}", self.seed) };
            assert_eq!(found.seq, *seq, "seed {}: {at} moved", self.seed);
            return self.shows(found);
        }
        if before < at && at <= self.engine.now() {
            return;
        }
        let expected = meaning(&self.stamps(), before, at);
        let got = match answer {
            Resolution::Found(found) => Meaning::Seq(found.seq),
            Resolution::Future { .. } => Meaning::Future,
            Resolution::Before { .. } => Meaning::Before,
            Resolution::Pruned { .. } => panic!("nothing is pruned"),
        };
        assert_eq!(got, expected, "seed {}: {at}, it is {before}", self.seed);
        if let Resolution::Found(found) = answer {
            self.shows(found);
            let offline = Offline::open(Arc::new(self.bed.disk.clone()), Path::new(STORE)).unwrap();
            assert_eq!(offline.seq_at(at).unwrap(), found.seq, "seed {}: {at} without a daemon", self.seed);
            assert_eq!(self.engine.last_before(at.next()).unwrap(), found.seq);
            self.answered.push((Instant::Time(at), found.seq));
            let candidates = self.engine.candidates(at).unwrap();
            let listed = candidates.iter().any(|one| one.seq == found.seq);
            assert!(candidates.is_empty() || listed, "seed {}: {candidates:?}", self.seed);
        }
    }

    /// Now is what was written last, and a right time by the clock as it is.
    fn resolve_now(&mut self) {
        let (answer, named) = self.engine.resolve_ago(0).unwrap();
        let Resolution::Found(found) = answer else { panic!("seed {}: now is {answer:?}", self.seed) };
        self.synced = Seq(self.engine.status().durable_seq);
        let newest = self.texts.last().unwrap().1.clone();
        assert_eq!(text_at(&self.engine, found.seq), newest, "seed {}: now is not now", self.seed);
        if let Instant::Time(at) = named {
            let wall = self.bed.clock.now();
            let off = (at.0 - wall.0).abs();
            assert!(off <= 6 * SECOND, "seed {}: now is {at}, the clock shows {wall}", self.seed);
        }
        self.answered.push((named, found.seq));
    }

    fn set_clock(&mut self) {
        let by = [1, 4 * SECOND, 6 * SECOND, HOUR, HOUR, 24 * HOUR, TO_2099][self.rng.random_range(0..7)];
        let by = self.rng.random_range(by / 2..=by);
        // Not before the years that have names.
        let back = self.rng.random_bool(0.6) && self.bed.clock.now().0 > by;
        self.bed.clock.step(if back { -by } else { by });
    }

    fn come_again(&mut self) {
        if self.rng.random_bool(0.3) {
            self.sync();
            self.engine.close().unwrap();
        }
        let what = self.rng.random_range(0..4);
        self.bed.disk =
            if self.rng.random_bool(0.5) { self.bed.disk.kill() } else { self.bed.disk.cut(self.seed) };
        self.bed.kv = self.bed.kv.crash(what);
        if self.rng.random_bool(0.5) {
            self.set_clock();
        }
        self.engine = self.bed.open();
        let last = self.last();
        assert!(last >= self.synced);
        let text = text_live(&self.engine);
        let survived = self.texts.iter().rposition(|(_, have)| *have == text).unwrap();
        self.texts.truncate(survived + 1);
        self.sync();
    }

    fn run(seed: u64) {
        let mut history = History::new(seed);
        for _ in 0..history.rng.random_range(20..90) {
            match history.rng.random_range(0..20) {
                0..6 => history.write(),
                6 => history.sync(),
                7..10 => history.bed.clock.pass([SECOND, 60 * SECOND, HOUR][seed as usize % 3]),
                10..12 => history.set_clock(),
                12..17 => history.resolve(),
                17 => history.resolve_now(),
                18 => drop(history.engine.index_some().unwrap()),
                _ => history.come_again(),
            }
        }
        history.come_again();
        for (instant, seq) in history.answered.clone() {
            match history.engine.resolve(instant).unwrap() {
                Resolution::Found(found) => {
                    assert_eq!(found.seq, seq, "seed {seed}: {instant:?} moved");
                    history.shows(found);
                }
                other => panic!("seed {seed}: {instant:?} is {other:?}"),
            }
        }
        history.stamps();
    }
}

fn text_live(engine: &Engine) -> String {
    let (file, attr) = engine.lookup(FileId::ROOT, b"f").unwrap();
    let mut bytes = vec![0; attr.size as usize];
    engine.read(file, 0, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}

#[test]
fn any_setting_of_the_clock_changes_no_view_and_freezes_nothing() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let first = number("WEFT_SIM_FIRST", 1);
    for seed in first..first + number("WEFT_SIM_SEEDS", 400) {
        History::run(seed);
    }
}

#[test]
fn leases_count_time_that_passed_whatever_the_clock_says() {
    const TEN_MINUTES: i64 = 600 * SECOND;
    let mut bed = Bed::new();
    let engine = bed.open();
    create(&engine);
    let lease = |engine: &Engine| {
        let (_, _, granted) = engine.resolve_ago_leased(0, "test").unwrap();
        let granted = granted.unwrap();
        assert!(granted.trouble.is_none() && granted.lease.durable);
        granted.lease
    };
    let left = |engine: &Engine, id: u64| {
        engine.leases().iter().find(|lease| lease.id == id).map(|lease| lease.left_us / SECOND)
    };
    let near = |left: Option<i64>, secs: i64| left.is_some_and(|left| left.abs_diff(secs) <= 1);
    let first = lease(&engine);
    assert!((first.until_us - engine.now().0).abs_diff(TEN_MINUTES) < SECOND as u64);
    // Set to 2099 and back: five minutes have passed, no more.
    bed.clock.pass(100 * SECOND);
    // After a crash only what events tell of is counted: nothing between the last one and a step.
    write(&engine, "before the step");
    bed.clock.step(TO_2099);
    write(&engine, "in 2099");
    bed.clock.pass(100 * SECOND);
    write(&engine, "still");
    assert!(near(left(&engine, first.id), 400), "{:?}", engine.leases());
    bed.clock.step(-TO_2099);
    write(&engine, "set back");
    bed.clock.pass(100 * SECOND);
    write(&engine, "back");
    assert!(near(left(&engine, first.id), 300), "{:?}", engine.leases());
    let second = lease(&engine);

    // The same after a crash, and the time that the daemon was away is not counted, nor a clock set meanwhile.
    bed.clock.pass(60 * SECOND);
    write(&engine, "last");
    for away in [HOUR, TO_2099, -HOUR] {
        sync(&engine).unwrap();
        if away > 0 {
            bed.clock.step(away);
        }
    }
    bed.clock.step(-HOUR - TO_2099);
    let engine = bed.crash(engine);
    assert!(
        near(left(&engine, first.id), 240) && near(left(&engine, second.id), 540),
        "{:?}",
        engine.leases()
    );
    // A checkpoint says what is left, and what ended before it stays ended.
    engine.end_lease(second.id).unwrap();
    bed.clock.pass(100 * SECOND);
    while !engine.checkpoint().unwrap() {}
    bed.clock.step(HOUR);
    let engine = bed.crash(engine);
    assert!(
        near(left(&engine, first.id), 140) && left(&engine, second.id).is_none(),
        "{:?}",
        engine.leases()
    );
    bed.clock.step(-2 * HOUR);
    bed.clock.pass(139 * SECOND);
    assert!(left(&engine, first.id).is_some());
    bed.clock.pass(3 * SECOND);
    assert!(engine.leases().is_empty());
}

#[test]
fn a_lease_is_told_again_until_half_of_it_is_gone_and_open_views_are_leased_on() {
    let bed = Bed::new();
    let engine = bed.open();
    create(&engine);
    let (_, _, granted) = engine.resolve_ago_leased(0, "first").unwrap();
    let lease = granted.unwrap().lease;
    let again = |engine: &Engine| {
        let (found, granted) = engine.resolve_leased(Instant::Seq(lease.at), "second").unwrap();
        assert!(matches!(found, Resolution::Found(found) if found.seq == lease.at));
        granted.unwrap().lease
    };
    let before = engine.status().seq;
    for _ in 0..10 {
        bed.clock.pass(29 * SECOND);
        assert_eq!((again(&engine).id, again(&engine).by), (lease.id, "first".to_owned()));
    }
    assert_eq!(engine.status().seq, before, "no event within half of its life");
    bed.clock.pass(20 * SECOND);
    let renewed = again(&engine);
    assert_eq!((renewed.id, renewed.left_us / SECOND, renewed.by.as_str()), (lease.id, 600, "second"));
    assert_eq!(engine.status().seq, before + 1);

    // A view alone holds its instant; with a handle open, it is leased as well.
    let view = engine.view(lease.at).unwrap();
    engine.end_lease(lease.id).unwrap();
    engine.lease_what_is_open();
    assert!(engine.leases().is_empty());
    let holders = || engine.held().iter().map(|held| held.by.clone()).collect::<Vec<_>>();
    assert_eq!(holders(), ["1 open view, 0 handles"]);
    engine.open_past(view.seq());
    engine.lease_what_is_open();
    for _ in 0..4 {
        bed.clock.pass(301 * SECOND);
        engine.lease_what_is_open();
        assert!(engine.leases()[0].left_us > 590 * SECOND);
    }
    assert_eq!(holders().len(), 2);
    engine.release_past(view.seq());
    bed.clock.pass(601 * SECOND);
    engine.lease_what_is_open();
    assert!(engine.leases().is_empty());
    drop(view);
    assert!(engine.held().is_empty());
}
