//! Interleavings of the core's threads, explored with shuttle on the simulated disk: every lock and every call to the
//! disk is a point at which another thread may go on.
//!
//! `scripts/interleavings` runs it; a normal build has nothing of it. `WEFT_INTERLEAVINGS=N`: schedules per scenario.
//! A failing schedule is printed; `SHUTTLE_RANDOM_SEED` (printed too) makes the same run again.

#![cfg(shuttle)]

mod support;

use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use std::collections::BTreeMap;
use std::path::Path;
use support::Ticking;
use support::kv::CrashKv;
use support::trees::Tree;
use weft::disk::sim::SimDisk;
use weft::disk::{Disk, OpenHow};
use weft::engine::{
    Completion, Engine, Found, Instant, NewFile, Options, RenameMode, Resolution, SetAttr, View,
};
use weft::error::Result;
use weft::format::event::{Event, Payload};
use weft::index::kv::Kv;
use weft::journal::epochs::Epochs;
use weft::journal::recovery::{START, replay};
use weft::journal::segment::Segments;
use weft::journal::{Config, Journal};
use weft::live::rest::RestRule;
use weft::sync::atomic::{AtomicU64, Ordering};
use weft::sync::{Arc, Condvar, Mutex, thread};
use weft::types::{FileId, FileKind, PAGE, Seq, StoreId, Timestamp};

const DATA: &str = "/data";
const STORE: &str = "/store";
const ROOT: FileId = FileId::ROOT;

/// Runs a scenario under random schedules, and under some that hold single threads back for long (PCT).
fn explore(scenario: fn()) {
    let number = std::env::var("WEFT_INTERLEAVINGS").ok().and_then(|value| value.parse().ok());
    let count: usize = number.unwrap_or(4000);
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    shuttle::Runner::new(RandomScheduler::new(count.div_ceil(2)), config.clone()).run(scenario);
    shuttle::Runner::new(PctScheduler::new(4, count.div_ceil(2)), config).run(scenario);
}

/// A number below `end` that a replayed schedule gives again.
fn pick(end: u64) -> u64 {
    shuttle::rand::thread_rng().gen_range(0..end)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| 0x80 | (at % 97) as u8).collect()
}

/// A disk with a DATA on it, and what belongs to it.
#[derive(Clone)]
struct Bed {
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    /// An operation of the disk may fail.
    fails: bool,
}

impl Bed {
    fn new(files: &[(&str, &[u8])]) -> Bed {
        let disk = SimDisk::new(pick(1 << 32));
        disk.create_dir("test", Path::new(DATA), 0o755).unwrap();
        for (name, bytes) in files {
            let how = OpenHow { write: true, create: true, ..Default::default() };
            let file = disk.open("test", &Path::new(DATA).join(name), how).unwrap();
            file.write_at("test", bytes, 0).unwrap();
        }
        disk.sync_filesystem("test", Path::new("/")).unwrap();
        Bed { disk, kv: CrashKv::new(), clock: Arc::new(Ticking::new(1_000_000)), fails: false }
    }

    fn try_open(&self) -> Result<Arc<Engine>> {
        let mut options = Options::new(Path::new(DATA), Path::new(STORE));
        options.segment_bytes = 0;
        options.cache_bytes = 16 << 10;
        options.open_files = 2;
        options.new_store_id = [5; 16];
        options.rest = RestRule { least_pages: 1, pages_for_one: 1, looks: u32::MAX };
        options.page_slack_bytes = 0;
        let (disk, kv) = (self.disk.clone(), Arc::clone(&self.kv));
        let clock = Arc::clone(&self.clock);
        Engine::open(Arc::new(self.disk.clone()), clock, options, &move |path| {
            // The map stands for a directory: when that was removed, it is empty.
            if disk.stat("test", path)?.is_none() {
                disk.create_dir("test", path, 0o700)?;
                kv.clear();
            }
            Ok(Arc::clone(&kv) as Arc<dyn Kv>)
        })
    }

    fn open(&self) -> Arc<Engine> {
        self.try_open().unwrap()
    }

    /// The power goes within the next operations that change something.
    fn cut_within(&self, operations: u64) {
        self.disk.cut_at(self.disk.operations() + 1 + pick(operations));
    }

    /// What a call gave, or nothing when the power is gone; any other error is wrong.
    fn alive<T>(&self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(_) if self.disk.is_dead() || self.fails => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The power goes (if it has not yet), and recovery comes, sometimes cut itself.
    fn recover(&mut self) -> Arc<Engine> {
        loop {
            self.disk = self.disk.cut(pick(1 << 32));
            self.kv = self.kv.crash(pick(3));
            if pick(3) == 0 {
                self.cut_within(60);
            }
            match self.try_open() {
                Ok(engine) => {
                    self.disk.clear_faults();
                    if !self.disk.is_dead() {
                        return engine;
                    }
                }
                Err(error) => assert!(self.disk.is_dead(), "recovery: {error}"),
            }
        }
    }
}

fn wait(ask: impl FnOnce(Completion)) -> Result<()> {
    let slot = Arc::new((Mutex::new(None), Condvar::new()));
    let answer = Arc::clone(&slot);
    ask(Box::new(move |result| {
        *answer.0.lock() = Some(result);
        answer.1.notify_all();
    }));
    let mut result = slot.0.lock();
    loop {
        match result.take() {
            Some(result) => return result,
            None => result = slot.1.wait(result),
        }
    }
}

fn fsync(engine: &Engine, file: FileId) -> Result<()> {
    wait(|done| engine.fsync(file, done))
}

fn sync(engine: &Engine) -> Result<()> {
    wait(|done| engine.sync(done))
}

fn new(kind: FileKind) -> NewFile {
    NewFile { kind, mode: 0o600, umask: 0, rdev: 0, target: Vec::new(), uid: 0, gid: 0 }
}

fn resolve(engine: &Engine, ts: Timestamp) -> Result<Found> {
    match engine.resolve(Instant::Time(ts))? {
        Resolution::Found(found) => Ok(found),
        other => panic!("{ts:?} is {other:?}"),
    }
}

fn resize(engine: &Engine, file: FileId, size: u64) {
    engine.set_attr(file, SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
}

fn read(engine: &Engine, file: FileId, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    let got = engine.read(file, 0, &mut bytes).unwrap();
    bytes.truncate(got);
    bytes
}

/// Any part of a file of the past is what it was.
fn check_past(view: &View, file: FileId, expected: &[u8]) {
    let from = pick(expected.len() as u64) as usize;
    let mut bytes = vec![0xee; expected.len() - from + 7];
    let got = view.read(file, from as u64, &mut bytes).unwrap();
    let wrong = bytes.iter().zip(&expected[from..]).position(|(found, expected)| found != expected);
    assert_eq!((got, wrong), (expected.len() - from, None), "the past changed (from {from})");
}

// -- 1: base read against applier --

#[test]
fn the_base_is_read_while_it_is_overwritten() {
    explore(|| {
        let base = pattern(10_000);
        let mut bed = Bed::new(&[("a", &base)]);
        let engine = bed.open();
        let file = engine.lookup(ROOT, b"a").unwrap().0;
        let seq = resolve(&engine, engine.now()).unwrap().seq;
        let view = engine.view(seq).unwrap();
        let writer = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                for version in 1..4 {
                    let (at, len) = (pick(9_000), 1 + pick(4096) as usize);
                    engine.write(file, at, &vec![version; len], false).unwrap();
                    if pick(4) == 0 {
                        resize(&engine, file, 1 + pick(9_000));
                    }
                    fsync(&engine, file).unwrap();
                    engine.apply().unwrap();
                }
            })
        };
        let reader = {
            let (view, base) = (Arc::clone(&view), base.clone());
            thread::spawn(move || (0..5).for_each(|_| check_past(&view, file, &base)))
        };
        engine.apply().unwrap();
        while engine.index_some().unwrap() {}
        engine.checkpoint().unwrap();
        writer.join().unwrap();
        reader.join().unwrap();
        engine.apply().unwrap();
        check_past(&view, file, &base);
        drop((view, engine));
        let engine = bed.recover();
        check_past(&engine.view(seq).unwrap(), file, &base);
    });
}

// -- 2: limbo against open files --

/// What becomes of the adopted file while it is open.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Truncated,
    Unlinked,
    Replaced,
}

fn limbo(fate: Fate) {
    let base = pattern(9_000);
    let new_bytes = vec![1; 3_000];
    let mut bed = Bed::new(&[("a", &base), ("b", b"other")]);
    let engine = bed.open();
    let file = engine.lookup(ROOT, b"a").unwrap().0;
    engine.open_file(file).unwrap();
    let seq = resolve(&engine, engine.now()).unwrap().seq;
    let view = engine.view(seq).unwrap();
    // 1: truncated, unlinked or replaced; 2: written anew.
    let done = Arc::new(AtomicU64::new(0));
    let holder = {
        let (engine, done, base) = (Arc::clone(&engine), Arc::clone(&done), base.clone());
        let new_bytes = new_bytes.clone();
        thread::spawn(move || {
            for _ in 0..4 {
                let before = done.load(Ordering::SeqCst);
                let bytes = read(&engine, file, 10_000);
                let after = done.load(Ordering::SeqCst);
                check_open(fate, &bytes, (before, after), &base, &new_bytes);
            }
            engine.release_file(file);
        })
    };
    let historian = {
        let (view, base) = (Arc::clone(&view), base.clone());
        thread::spawn(move || (0..4).for_each(|_| check_past(&view, file, &base)))
    };
    let applier = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || (0..3).for_each(|_| assert!(engine.apply().is_ok())))
    };
    match fate {
        Fate::Truncated => resize(&engine, file, 0),
        Fate::Unlinked => engine.unlink(ROOT, b"a").unwrap(),
        Fate::Replaced => engine.rename((ROOT, b"b"), (ROOT, b"a"), RenameMode::Replace).unwrap(),
    }
    done.store(1, Ordering::SeqCst);
    if pick(2) == 0 {
        sync(&engine).unwrap();
        engine.apply().unwrap();
    }
    if fate == Fate::Truncated {
        engine.write(file, 0, &new_bytes, false).unwrap();
        done.store(2, Ordering::SeqCst);
    }
    sync(&engine).unwrap();
    engine.apply().unwrap();
    for thread in [holder, historian, applier] {
        thread.join().unwrap();
    }
    check_past(&view, file, &base);
    engine.apply().unwrap();
    check_past(&view, file, &base);
    if fate == Fate::Truncated {
        assert_eq!(read(&engine, file, 10_000), new_bytes);
    }
    drop((view, engine));
    let engine = bed.recover();
    check_past(&engine.view(seq).unwrap(), file, &base);
    match fate {
        Fate::Truncated => assert_eq!(read(&engine, file, 10_000), new_bytes),
        Fate::Unlinked => assert!(engine.lookup(ROOT, b"a").is_err()),
        Fate::Replaced => assert_eq!(read(&engine, engine.lookup(ROOT, b"a").unwrap().0, 100), b"other"),
    }
}

/// `stages`: what had been done before the read, and after it; one more may have been under way.
fn check_open(fate: Fate, bytes: &[u8], stages: (u64, u64), base: &[u8], new: &[u8]) {
    if fate != Fate::Truncated {
        assert!(bytes == base, "an open file lost its bytes with its name");
        return;
    }
    let reach = stages.0..=stages.1 + 1;
    let lens: Vec<usize> =
        reach.clone().map(|stage| [base.len(), 0, new.len()][stage.min(2) as usize]).collect();
    assert!(lens.contains(&bytes.len()), "{} bytes at {stages:?}", bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let fits = reach.clone().any(|stage| match stage {
            0 => *byte == base[at],
            1 => *byte == 0,
            _ => *byte == new.get(at).copied().unwrap_or(0),
        });
        assert!(fits, "byte {at} is {byte} at {stages:?}");
    }
}

#[test]
fn a_truncated_file_is_read_open_and_in_the_past() {
    explore(|| limbo(Fate::Truncated));
}

#[test]
fn an_unlinked_file_is_read_open_and_in_the_past() {
    explore(|| limbo(Fate::Unlinked));
}

#[test]
fn a_replaced_file_is_read_open_and_in_the_past() {
    explore(|| limbo(Fate::Replaced));
}

// -- 3: live reads against applier --

const CELLS: usize = 3;

/// Expected first byte of each cell after a step of the writer; zero beyond the end.
type Step = [u8; CELLS];

/// Reads cells over and over: each shows a state that was current during the read, and none goes back.
fn watch(engine: &Engine, file: FileId, cell: usize, steps: &Mutex<Vec<Step>>) {
    let mut floor = [0; CELLS];
    for _ in 0..5 {
        // The last step noted may be under way; the one before it is done.
        let before = steps.lock().len().saturating_sub(2);
        let mut bytes = read(engine, file, cell * CELLS + 10);
        let steps = steps.lock().clone();
        assert!(bytes.len() <= cell * CELLS);
        bytes.resize(cell * CELLS, 0);
        for (index, part) in bytes.chunks(cell).enumerate() {
            let value = part[0];
            assert!(part.iter().all(|byte| *byte == value), "cell {index} is mixed");
            let from = floor[index].max(before);
            let fits = (from..steps.len()).find(|step| steps[*step][index] == value);
            let Some(step) = fits else {
                panic!("cell {index} shows {value}, from step {from} of {steps:?}")
            };
            floor[index] = step;
        }
    }
}

#[test]
fn live_reads_never_go_back() {
    explore(|| {
        let cell = [1000, 3000, 4096][pick(3) as usize];
        let mut bed = Bed::new(&[("a", &vec![1; cell * CELLS])]);
        let engine = bed.open();
        let file = engine.lookup(ROOT, b"a").unwrap().0;
        let steps = Arc::new(Mutex::new(vec![[1; CELLS]]));
        let readers = [(); 2].map(|()| {
            let (engine, steps) = (Arc::clone(&engine), Arc::clone(&steps));
            thread::spawn(move || watch(&engine, file, cell, &steps))
        });
        let applier = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                for _ in 0..4 {
                    sync(&engine).unwrap();
                    engine.apply().unwrap();
                }
            })
        };
        let mut state = [1; CELLS];
        for version in 2..8 {
            let at = pick(CELLS as u64) as usize;
            let shrinks = pick(4) == 0;
            if shrinks {
                state[at..].fill(0);
            } else {
                state[at] = version;
            }
            steps.lock().push(state);
            if shrinks {
                resize(&engine, file, (at * cell) as u64);
                if pick(2) == 0 {
                    resize(&engine, file, (cell * CELLS) as u64);
                }
            } else {
                engine.write(file, (at * cell) as u64, &vec![version; cell], false).unwrap();
            }
        }
        for thread in readers.into_iter().chain([applier]) {
            thread.join().unwrap();
        }
        let last = |engine: &Engine, when: &str| {
            let mut bytes = read(engine, file, cell * CELLS);
            bytes.resize(cell * CELLS, 0);
            let expected: Vec<u8> = state.iter().flat_map(|value| vec![*value; cell]).collect();
            let wrong = bytes.iter().zip(&expected).position(|(found, expected)| found != expected);
            let found = wrong.map(|at| (at, bytes[at]));
            assert!(wrong.is_none(), "{when}: {found:?}, cells of {cell}, {:?}", *steps.lock());
        };
        last(&engine, "written");
        sync(&engine).unwrap();
        engine.apply().unwrap();
        last(&engine, "applied");
        drop(engine);
        last(&bed.recover(), "recovered");
    });
}

// -- 4: resolve against writers and a power cut --

/// A view as it was first read.
struct Seen {
    ts: Timestamp,
    found: Found,
    files: Vec<Vec<u8>>,
}

const WRITERS: usize = 2;

/// Appends; each file grows by one page of its next number. Counted: begun and acknowledged pages.
fn append(bed: &Bed, engine: &Engine, file: FileId, counts: &(AtomicU64, AtomicU64), last: &Mutex<Seq>) {
    for page in 0..3 {
        counts.0.store(page + 1, Ordering::SeqCst);
        let written = engine.write(file, 0, &vec![page as u8 + 1; 2500], true);
        if bed.alive(written).is_none() {
            return;
        }
        let upto = Seq(engine.status().seq);
        let all = pick(2) == 0;
        let synced = if all { sync(engine) } else { fsync(engine, file) };
        if bed.alive(synced).is_none() {
            return;
        }
        counts.1.store(page + 1, Ordering::SeqCst);
        if all {
            let mut last = last.lock();
            *last = (*last).max(upto);
        }
    }
}

fn pages_of(bytes: &[u8]) -> u64 {
    assert_eq!(bytes.len() % 2500, 0, "half an append");
    for (part, expected) in bytes.chunks(2500).zip(1..) {
        assert!(part.iter().all(|byte| *byte == expected), "an append is damaged");
    }
    (bytes.len() / 2500) as u64
}

fn view_bytes(engine: &Engine, seq: Seq, files: &[FileId]) -> Result<Vec<Vec<u8>>> {
    let view = engine.view(seq)?;
    let read = |file: &FileId| {
        let mut bytes = vec![0xee; 8_000];
        let got = view.read(*file, 0, &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    };
    files.iter().map(read).collect()
}

#[test]
fn what_was_resolved_stays_through_writers_and_power_cuts() {
    explore(|| {
        let mut bed = Bed::new(&[("0", b""), ("1", b"")]);
        let engine = bed.open();
        let files = [b"0", b"1"].map(|name| engine.lookup(ROOT, name).unwrap().0);
        let counts = Arc::new([(); WRITERS].map(|()| (AtomicU64::new(0), AtomicU64::new(0))));
        let last = Arc::new(Mutex::new(Seq::ZERO));
        bed.cut_within(40);
        let mut threads = Vec::new();
        for writer in 0..WRITERS {
            let (bed, engine) = (bed.clone(), Arc::clone(&engine));
            let (counts, last) = (Arc::clone(&counts), Arc::clone(&last));
            threads.push(thread::spawn(move || {
                append(&bed, &engine, files[writer], &counts[writer], &last);
            }));
        }
        let applier = Arc::clone(&engine);
        let beneath = bed.clone();
        threads.push(thread::spawn(move || {
            for _ in 0..2 {
                beneath.alive(applier.apply());
                beneath.alive(applier.index_some());
            }
        }));
        let mut seen = Vec::new();
        for _ in 0..3 {
            let acked = counts.each_ref().map(|counts| counts.1.load(Ordering::SeqCst));
            let ts = engine.now();
            let Some(found) = bed.alive(resolve(&engine, ts)) else { break };
            assert!(found.actual <= ts);
            let Some(bytes) = bed.alive(view_bytes(&engine, found.seq, &files)) else {
                // Resolved, so it must be there after the crash; its content is only known then.
                seen.push(Seen { ts, found, files: Vec::new() });
                break;
            };
            for (writer, bytes) in bytes.iter().enumerate() {
                let pages = pages_of(bytes);
                assert!(pages >= acked[writer], "a commit from before is not in the view");
                assert!(pages <= counts[writer].0.load(Ordering::SeqCst));
            }
            seen.push(Seen { ts, found, files: bytes });
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(engine);
        for _ in 0..2 {
            let engine = bed.recover();
            let status = engine.status();
            assert!(Seq(status.seq) >= *last.lock(), "an acknowledged event is gone");
            for (writer, file) in files.iter().enumerate() {
                let pages = pages_of(&read(&engine, *file, 8_000));
                assert!(pages >= counts[writer].1.load(Ordering::SeqCst), "an acknowledged append is gone");
            }
            for seen in &seen {
                assert_eq!(resolve(&engine, seen.ts).unwrap(), seen.found, "an instant moved");
                let bytes = view_bytes(&engine, seen.found.seq, &files).unwrap();
                assert!(seen.files.is_empty() || bytes == seen.files, "a view changed");
            }
        }
    });
}

const HOUR: i64 = 3_600_000_000;

/// Resolves what it is told to, and the present, once.
fn look(
    bed: &Bed,
    engine: &Engine,
    shared: Timestamp,
    files: &[FileId],
    acked: u64,
) -> Vec<(Instant, Found)> {
    let mut seen = Vec::new();
    let one = engine.resolve(Instant::Time(shared));
    match bed.alive(one) {
        Some(Resolution::Found(found)) => seen.push((Instant::Time(shared), found)),
        Some(other) => panic!("{shared:?} is {other:?}"),
        None => return seen,
    }
    match bed.alive(engine.resolve_ago(0)) {
        Some((Resolution::Found(found), named)) => {
            if let Some(bytes) = bed.alive(view_bytes(engine, found.seq, files)) {
                assert!(pages_of(&bytes[0]) >= acked, "a commit from before is not in the view of now");
            }
            seen.push((named, found));
        }
        Some(other) => panic!("now is {other:?}"),
        None => {}
    }
    seen
}

#[test]
fn a_time_means_one_thing_while_the_clock_is_set() {
    explore(|| {
        let mut bed = Bed::new(&[("0", b"")]);
        let engine = bed.open();
        let files = [engine.lookup(ROOT, b"0").unwrap().0];
        bed.clock.pass(2 * HOUR);
        let counts = Arc::new([(); 1].map(|()| (AtomicU64::new(0), AtomicU64::new(0))));
        let last = Arc::new(Mutex::new(Seq::ZERO));
        // Shown before the clock is set back, and once more after it.
        let shared = engine.now();
        sync_event(&engine, files[0]);
        if pick(2) == 0 {
            bed.cut_within(30);
        }
        let mut threads = Vec::new();
        let (writer, beneath) = (Arc::clone(&engine), bed.clone());
        let (writes, newest) = (Arc::clone(&counts), Arc::clone(&last));
        threads.push(thread::spawn(move || append(&beneath, &writer, files[0], &writes[0], &newest)));
        let clock = Arc::clone(&bed.clock);
        threads.push(thread::spawn(move || {
            clock.step(-HOUR);
            thread::yield_now();
            clock.pass(HOUR);
            clock.step([HOUR, -HOUR][pick(2) as usize]);
        }));
        let looker = {
            let (bed, engine, counts) = (bed.clone(), Arc::clone(&engine), Arc::clone(&counts));
            thread::spawn(move || look(&bed, &engine, shared, &files, counts[0].1.load(Ordering::SeqCst)))
        };
        let mut seen = look(&bed, &engine, shared, &files, counts[0].1.load(Ordering::SeqCst));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        seen.extend(looker.join().unwrap());
        drop(engine);
        check_stamps(&bed);
        let engine = bed.recover();
        for (instant, found) in &seen {
            match engine.resolve(*instant).unwrap() {
                Resolution::Found(again) => assert_eq!(again, *found, "{instant:?} moved"),
                other => panic!("{instant:?} was {found:?} and is {other:?}"),
            }
        }
    });
}

/// An event, so that the epoch has shown the present.
fn sync_event(engine: &Engine, file: FileId) {
    engine.set_attr(file, SetAttr { mode: Some(0o640), ..SetAttr::default() }).unwrap();
    sync(engine).unwrap();
}

/// Within an epoch time never falls, and an epoch begins with its group.
fn check_stamps(bed: &Bed) {
    let journal = Path::new(STORE).join("journal");
    let segments = Arc::new(Segments::new(Arc::new(bed.disk.cut(1)), journal, StoreId([5; 16])));
    let mut newest = Timestamp(i64::MIN);
    let read = replay(&segments, START, Timestamp(0), Epochs::default(), |group| {
        for (at, record) in group.records.iter().enumerate() {
            if matches!(record.event, Event::Epoch { .. }) {
                assert_eq!(at, 0, "an epoch begins in the middle of a group");
                newest = record.ts;
            }
            assert!(record.ts >= newest, "time fell within an epoch");
            newest = record.ts;
        }
        Ok(())
    });
    read.unwrap();
}

// -- 5: group commit --

/// One journal alone, its first segment nearly full.
fn journal(disk: &SimDisk) -> Arc<Journal> {
    let segments = journal_segments(disk);
    let (resume, _) = replay(&segments, START, Timestamp(0), Epochs::default(), |_| Ok(())).unwrap();
    let config = Config {
        segment_bytes: 0,
        cache_bytes: 16 << 10,
        clock_step_us: 5_000_000,
        reserve_bytes: 0,
        keep_free_bytes: 0,
    };
    let clock = Arc::new(Ticking::new(1_000_000));
    let journal = Journal::begin(segments, clock, config, resume).unwrap();
    for _ in 0..6 + pick(5) {
        let seq = put(&journal, 9, 0).unwrap();
        journal.commit_wait(seq).unwrap();
    }
    Arc::new(journal)
}

fn journal_segments(disk: &SimDisk) -> Arc<Segments> {
    Arc::new(Segments::new(Arc::new(disk.clone()), "/journal".into(), StoreId([5; 16])))
}

/// Appends the `nth` page of a writer, and reads it back.
fn put(journal: &Journal, writer: u64, nth: u64) -> Result<Seq> {
    let payload = vec![(writer * 16 + nth) as u8; 4096];
    let event = Event::Write {
        file: FileId(writer + 2),
        offset: nth * 4096,
        len: 4096,
        size: (nth + 1) * 4096,
        payload: Payload { offset: 0, crc: 0 },
    };
    let appended = journal.append(&payload, |_| event)?;
    let mut found = vec![0; 4096];
    if appended.extent.unwrap().read(journal.segments(), 0, &mut found).is_ok() {
        assert!(found == payload, "an extent shows other bytes");
    }
    Ok(appended.seq)
}

#[test]
fn whatever_the_journal_acknowledged_is_there() {
    explore(|| {
        let disk = SimDisk::new(pick(1 << 32));
        disk.create_dir("test", Path::new("/journal"), 0o700).unwrap();
        disk.sync_filesystem("test", Path::new("/")).unwrap();
        let journal = journal(&disk);
        let before = journal.last_seq();
        if pick(4) > 0 {
            disk.cut_at(disk.operations() + 1 + pick(25));
        }
        let acked = Arc::new(Mutex::new(before));
        let given = Arc::new(Mutex::new(BTreeMap::new()));
        let mut threads: Vec<_> = (0..3)
            .map(|writer| {
                let (journal, disk) = (Arc::clone(&journal), disk.clone());
                let (acked, given) = (Arc::clone(&acked), Arc::clone(&given));
                thread::spawn(move || {
                    for nth in 0..4 {
                        let put = put(&journal, writer, nth);
                        let Ok(seq) = put else { return assert!(disk.is_dead(), "{put:?}") };
                        assert_eq!(given.lock().insert(seq, (writer, nth)), None, "{seq} was given twice");
                        if pick(3) == 0 {
                            continue;
                        }
                        let committed = journal.commit_wait(seq);
                        let Ok(()) = committed else { return assert!(disk.is_dead(), "{committed:?}") };
                        let mut acked = acked.lock();
                        *acked = (*acked).max(seq);
                    }
                })
            })
            .collect();
        threads.push({
            let (journal, disk) = (Arc::clone(&journal), disk.clone());
            thread::spawn(move || {
                for _ in 0..3 {
                    let prepared = journal.prepare_spares();
                    assert!(prepared.is_ok() || disk.is_dead(), "{prepared:?}");
                    let durable = journal.durable_end();
                    assert!(durable.seq.0 <= journal.last_seq().0 + 1);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(journal);
        let disk = disk.cut(pick(1 << 32));
        let mut next = START.seq;
        let given = given.lock();
        let (resume, _) = replay(&journal_segments(&disk), START, Timestamp(0), Epochs::default(), |group| {
            for record in &group.records {
                assert_eq!(record.seq, next);
                next = next.next();
                if let (Event::Write { file, offset, .. }, true) = (&record.event, record.seq > before) {
                    assert_eq!(given.get(&record.seq), Some(&(file.0 - 2, offset / 4096)));
                }
            }
            Ok(())
        })
        .unwrap();
        assert!(
            resume.last_seq >= *acked.lock(),
            "{:?}: {:?} was acknowledged",
            resume.last_seq,
            acked.lock()
        );
    });
}

// -- 6: checkpoint against writers and renames --

/// What stands at a path: the file, its mode, links, size and bytes.
type Entry = (FileId, u32, u32, u64, Vec<u8>);

/// Everything below a directory, by path.
fn flatten(tree: &dyn Tree) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![(ROOT, String::new())];
    while let Some((dir, path)) = dirs.pop() {
        for (name, file) in tree.list(dir) {
            let path = format!("{path}/{}", String::from_utf8_lossy(&name));
            let attr = tree.attr(file);
            let mut bytes = Vec::new();
            match attr.kind {
                FileKind::Directory => dirs.push((file, path.clone())),
                _ => bytes = tree.bytes(file, attr.size),
            }
            let old = found.insert(path.clone(), (file, attr.mode, attr.nlink, attr.size, bytes));
            assert!(old.is_none(), "{path} is listed twice");
        }
    }
    found
}

/// Renames a file to and fro between two directories, each name telling how often.
fn wander(bed: &Bed, engine: &Engine, dirs: [FileId; 2], begun: &AtomicU64, acked: &AtomicU64) {
    let mut at = (ROOT, b"m".to_vec());
    for nth in 1..5 {
        let to = (dirs[nth as usize % 2], format!("m{nth}").into_bytes());
        let renamed = engine.rename((at.0, &at.1), (to.0, &to.1), RenameMode::NoReplace);
        if bed.alive(renamed).is_none() {
            return;
        }
        begun.store(nth, Ordering::SeqCst);
        at = to;
        if pick(2) == 0 {
            if bed.alive(sync(engine)).is_none() {
                return;
            }
            acked.store(nth, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_checkpoint_is_of_one_moment() {
    explore(|| {
        let mut bed = Bed::new(&[("m", b"moved"), ("w", &[0xff; 5000]), ("x", b"exchanged")]);
        let engine = bed.open();
        let written = engine.lookup(ROOT, b"w").unwrap().0;
        let dirs = [b"p", b"q"].map(|name| engine.create(ROOT, name, new(FileKind::Directory)).unwrap().0);
        sync(&engine).unwrap();
        if pick(4) > 0 {
            bed.cut_within(60);
        }
        let (moves, moves_acked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mover = {
            let (bed, engine) = (bed.clone(), Arc::clone(&engine));
            let (begun, acked) = (Arc::clone(&moves), Arc::clone(&moves_acked));
            thread::spawn(move || wander(&bed, &engine, dirs, &begun, &acked))
        };
        let exchanger = {
            let (bed, engine) = (bed.clone(), Arc::clone(&engine));
            thread::spawn(move || {
                for _ in 0..2 {
                    let swapped = engine.rename((ROOT, b"w"), (ROOT, b"x"), RenameMode::Exchange);
                    bed.alive(swapped.and_then(|()| engine.link(written, dirs[0], b"l")));
                    bed.alive(engine.unlink(dirs[0], b"l"));
                }
            })
        };
        let keeper = {
            let (bed, engine) = (bed.clone(), Arc::clone(&engine));
            thread::spawn(move || {
                for _ in 0..3 {
                    bed.alive(engine.checkpoint());
                    bed.alive(engine.apply());
                }
            })
        };
        // Each write says how many moves it has seen done; the size says how many writes there were.
        let mut acked = 0;
        for nth in 1..5_u64 {
            let seen = moves.load(Ordering::SeqCst) as u8;
            let cut = engine.set_attr(written, SetAttr { size: Some(nth), ..SetAttr::default() });
            let wrote = cut.and_then(|_| engine.write(written, nth, &vec![seen; 3000], false));
            if bed.alive(wrote).is_none() {
                break;
            }
            if pick(2) == 0 && bed.alive(fsync(&engine, written)).is_some() {
                acked = nth;
            }
        }
        [mover, exchanger, keeper].into_iter().for_each(|thread| thread.join().unwrap());
        drop(engine);
        for _ in 0..2 {
            let engine = bed.recover();
            check_prefix(&engine, written, acked, moves_acked.load(Ordering::SeqCst));
        }
    });
}

fn check_prefix(engine: &Engine, written: FileId, writes_acked: u64, moves_acked: u64) {
    // Recovery's own event may not be durable yet, and only what is so can be viewed.
    sync(engine).unwrap();
    let now = flatten(engine);
    let past = flatten(&*engine.view(Seq(engine.status().seq)).unwrap());
    for (path, entry) in &now {
        let (left, right) = (entry, past.get(path));
        let brief = |entry: &Entry| (entry.0, entry.1, entry.2, entry.3);
        assert!(Some(left) == right, "{path}: now {:?}, in history {:?}", brief(left), right.map(brief));
    }
    assert_eq!(now.len(), past.len(), "history has more names: {:?} {:?}", now.keys(), past.keys());
    let movers: Vec<u64> = now
        .keys()
        .filter_map(|path| path.rsplit('/').next()?.strip_prefix('m'))
        .map(|nth| nth.parse().unwrap_or(0))
        .collect();
    assert_eq!(movers.len(), 1, "one file, one name: {:?}", now.keys());
    assert!(movers[0] >= moves_acked, "a durable rename is gone");
    let names: Vec<_> = now.iter().filter(|(_, entry)| entry.0 == written).collect();
    let Some((_, (_, _, nlink, size, bytes))) = names.first() else { panic!("a file lost all names") };
    assert_eq!(*nlink as usize, names.len());
    match size {
        5000 => assert!(writes_acked == 0 && bytes.iter().all(|byte| *byte == 0xff)),
        1..5 => assert!(*size > writes_acked, "a durable write is gone"),
        3001..3005 => {
            assert!(size - 3000 >= writes_acked, "a durable write is gone");
            let seen = *bytes.last().unwrap();
            assert!(bytes[(size - 3000) as usize..].iter().all(|byte| *byte == seen));
            assert!(movers[0] >= u64::from(seen), "a write survived, a rename before it did not");
        }
        _ => panic!("size {size} never was"),
    }
}

// -- leases against pruning --

/// What came of asking for one.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Asked {
    /// It is held, and that outlives a crash.
    Durable,
    /// It is held until the engine ends.
    Held,
    /// The instant is pruned.
    Refused,
}

/// A sealed segment with an instant that no retention wants, of which the bytes are `old`.
fn pruneable(bed: &mut Bed, old: &[u8]) -> (FileId, Timestamp, Seq) {
    let engine = bed.open();
    let file = engine.lookup(ROOT, b"a").unwrap().0;
    engine.write(file, 0, old, false).unwrap();
    let ts = engine.now();
    let seq = resolve(&engine, ts).unwrap().seq;
    engine.write(file, 0, &vec![3; old.len()], false).unwrap();
    bed.clock.pass(HOUR);
    engine.checkpoint().unwrap();
    drop(engine);
    bed.disk = bed.disk.kill();
    (file, ts, seq)
}

/// Asks for a lease, once by the instant's time and once by its number; what is granted is read at once.
fn ask(bed: &Bed, engine: &Engine, (file, ts, seq): (FileId, Timestamp, Seq), old: &[u8]) -> Option<Asked> {
    let granted = match pick(2) {
        0 => engine.lease(seq, "a test").map(Some),
        _ => {
            engine.resolve_leased(Instant::Time(ts), "a test").map(|(resolution, granted)| match resolution {
                Resolution::Found(found) => {
                    assert_eq!(found.seq, seq, "what is thinned was all there was");
                    granted
                }
                Resolution::Pruned { .. } => None,
                other => panic!("{ts:?} is {other:?}"),
            })
        }
    };
    let granted = match granted {
        Err(error) if error.is(libc::ESTALE) => return Some(Asked::Refused),
        other => bed.alive(other)?,
    };
    let Some(granted) = granted else { return Some(Asked::Refused) };
    let view = match engine.view(seq) {
        Err(error) if error.is(libc::ESTALE) => panic!("an instant was leased, and pruned"),
        other => bed.alive(other)?,
    };
    see(bed, &view, file, old)?;
    Some(if granted.lease.durable { Asked::Durable } else { Asked::Held })
}

/// What a view shows is what it was, unless the power is gone.
fn see(bed: &Bed, view: &View, file: FileId, expected: &[u8]) -> Option<()> {
    let mut bytes = vec![0xee; expected.len() + 7];
    let got = bed.alive(view.read(file, 0, &mut bytes))?;
    assert!(bytes[..got] == *expected, "the past changed");
    Some(())
}

fn weave_all(engine: &Engine) {
    engine.checkpoint().unwrap();
    while engine.index_some().unwrap() {}
    while let weft::engine::Weaving::Wove(_) = engine.weave(&weft::engine::Unpaced).unwrap() {}
}

fn prune_all(bed: &Bed, engine: &Engine) -> Option<()> {
    let everything = weft::meta::retention::Retention::everything();
    engine.set_retention(weft::meta::retention::Retention { all_us: Some(0), ..everything });
    bed.alive(engine.prune(&weft::engine::Unpaced, false)).map(|_| ())
}

#[test]
fn a_lease_is_refused_or_its_instant_stays_while_history_is_pruned() {
    explore(|| {
        let old = pattern(6_000);
        let mut bed = Bed::new(&[("a", b"before")]);
        let instant = pruneable(&mut bed, &old);
        let (file, _, seq) = instant;
        let engine = bed.open();
        weave_all(&engine);
        if pick(3) == 0 {
            bed.cut_within(40);
        }
        let pruners: Vec<_> = (0..1 + pick(2))
            .map(|_| {
                let (bed, engine) = (bed.clone(), Arc::clone(&engine));
                thread::spawn(move || prune_all(&bed, &engine))
            })
            .collect();
        let askers: Vec<_> = (0..2)
            .map(|_| {
                let (bed, engine, old) = (bed.clone(), Arc::clone(&engine), old.clone());
                thread::spawn(move || ask(&bed, &engine, instant, &old))
            })
            .collect();
        // An open view, without a lease, holds as long as it is open.
        match engine.view(seq) {
            Err(error) if error.is(libc::ESTALE) => {}
            view => {
                if let Some(view) = bed.alive(view) {
                    see(&bed, &view, file, &old);
                }
            }
        }
        pruners.into_iter().for_each(|thread| assert!(thread.join().is_ok()));
        let asked: Vec<Option<Asked>> = askers.into_iter().map(|thread| thread.join().unwrap()).collect();
        let granted = asked.iter().any(|asked| matches!(asked, Some(Asked::Durable | Asked::Held)));
        let refused = asked.contains(&Some(Asked::Refused)) && !bed.disk.is_dead();
        if !bed.disk.is_dead() {
            let thinned = engine.thinned();
            // The state with which the kept time begins stays, and is a later one.
            let is_held = thinned.kept().iter().any(|point| *point < thinned.upto());
            assert_eq!(thinned.keeps(seq), granted || is_held, "{asked:?}");
            if granted {
                prune_all(&bed, &engine);
                check_past(&engine.view(seq).unwrap(), file, &old);
            }
        }
        drop(engine);
        let engine = bed.recover();
        if asked.contains(&Some(Asked::Durable)) {
            prune_all(&bed, &engine);
            check_past(&engine.view(seq).unwrap(), file, &old);
            engine.end_lease(seq.0).unwrap();
        } else if refused && !granted {
            // What was decided is durable once pruning has ended.
            assert!(engine.view(seq).err().is_some_and(|error| error.is(libc::ESTALE)), "it came back");
        }
        let mut now = vec![0; old.len()];
        engine.read(file, 0, &mut now).unwrap();
        assert!(now.iter().all(|byte| *byte == 3));
    });
}

// -- pages at rest --

/// A sealed segment with all bytes of a file, as they are at an instant that is held.
fn restable(bed: &mut Bed, old: &[u8]) -> (FileId, Seq) {
    let engine = bed.open();
    let file = engine.create(ROOT, b"f", new(FileKind::Regular)).unwrap().0;
    engine.write(file, 0, old, false).unwrap();
    let ts = engine.now();
    let seq = resolve(&engine, ts).unwrap().seq;
    engine.tag("held", seq).unwrap();
    bed.clock.pass(HOUR);
    engine.checkpoint().unwrap();
    drop(engine);
    bed.disk = bed.disk.kill();
    (file, seq)
}

#[test]
fn pages_come_to_rest_while_they_are_written_applied_and_read() {
    const PAGES: u64 = 4;
    static RESTED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    explore(|| {
        let old = pattern((PAGES * PAGE) as usize - 100);
        let mut bed = Bed::new(&[]);
        let (file, seq) = restable(&mut bed, &old);
        let engine = bed.open();
        weave_all(&engine);
        match pick(3) {
            0 => bed.cut_within(60),
            1 => {
                bed.fails = true;
                bed.disk.fail("checkpoint.rename", 1 + pick(9), libc::EIO);
                // What may stand matters if the power goes before it is made sure.
                bed.cut_within(90);
            }
            _ => {}
        }
        let pruner = {
            let (bed, engine) = (bed.clone(), Arc::clone(&engine));
            thread::spawn(move || prune_all(&bed, &engine).and_then(|()| prune_all(&bed, &engine)))
        };
        let writer = {
            let (bed, engine) = (bed.clone(), Arc::clone(&engine));
            thread::spawn(move || -> Option<()> {
                for _ in 0..2 {
                    bed.alive(engine.write(file, pick(PAGES) * PAGE + pick(90), &[9; 50], false))?;
                    if pick(2) == 0 {
                        bed.alive(sync(&engine))?;
                        bed.alive(engine.apply())?;
                    }
                }
                Some(())
            })
        };
        for _ in 0..2 {
            if let Some(view) = bed.alive(engine.view(seq)) {
                see(&bed, &view, file, &old);
            }
        }
        pruner.join().unwrap();
        writer.join().unwrap();
        RESTED.fetch_add(engine.rested().len() as u64, std::sync::atomic::Ordering::Relaxed);
        drop(engine);
        bed.fails = false;
        let engine = bed.recover();
        check_past(&engine.view(seq).unwrap(), file, &old);
        engine.write(file, 0, &vec![7; old.len()], false).unwrap();
        engine.checkpoint().unwrap();
        check_past(&engine.view(seq).unwrap(), file, &old);
        prune_all(&bed, &engine);
        check_past(&engine.view(seq).unwrap(), file, &old);
    });
    assert!(RESTED.load(std::sync::atomic::Ordering::Relaxed) > 0, "nothing ever came to rest");
}
