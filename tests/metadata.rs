//! The loss of the metadata store (its file deleted, damaged, cut short) while there is everything that could lean on it:
//! history, tags, leases and shadows are as they were, what is gone is told, nothing wrong is served, no space is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::Ticking;
use support::bed::{self, STORE};
use support::kv::CrashKv;
use weft::disk::sim::SimDisk;
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, ForecastLimits, Instant, Layout, NewFile, Partition, Resolution};
use weft::engine::{Subject, Unpaced, Weaving};
use weft::error::Result;
use weft::forecast::tick::Tick;
use weft::forecast::{Key, Signal};
use weft::lineage::splits::{Child, How, Tie};
use weft::meta::retention::Retention;
use weft::meta::store::{TABLES, Table};
use weft::types::{FileId, FileKind, PageSet, Seq, Timestamp};

const META: &str = "/store/meta.redb";
const SHADOW: &str = "/store/shadow";
const PARENT: &str = "16384";
const CHILD: &str = "16399";
const PAGE: usize = 4096;

/// What stands in a table does not matter here.
#[derive(Clone, Serialize, Deserialize)]
struct Any {}

const SHADOWS: Table<u64, Served> = Table::new("shadows", 1);
const SNAPSHOTS: Table<(u64, Seq), Digest> = Table::new("snapshots", 1);
const FORECASTS: Table<(Timestamp, u32), Any> = Table::new("forecasts", 1);
const SCORES: Table<(Timestamp, u32), Any> = Table::new("scores", 1);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Served {
    partition: Vec<u8>,
    served_bytes: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Digest {
    blake3: String,
}

struct World {
    rng: StdRng,
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    now: Vec<u8>,
    past: Vec<(Seq, Vec<u8>)>,
}

/// Snapshots: their Seqs and digests.
type Digests = Vec<(u64, String)>;

/// What is the same whatever became of the metadata store.
#[derive(PartialEq, Debug)]
struct Kept {
    tags: Vec<(Vec<u8>, Seq)>,
    leases: Vec<(Seq, String)>,
    thinned: Vec<Seq>,
    shadows: Vec<(u64, String, String, bool, Digests)>,
}

/// What only the metadata store knows, as counts of rows.
#[derive(PartialEq, Debug)]
struct Known {
    splits: usize,
    lineage: usize,
    forecasts: u64,
    scores: u64,
}

fn subject(name: &str) -> Subject {
    Subject { root: Vec::new(), partition: name.into() }
}

fn partition(name: &str) -> Partition {
    Partition { root: Vec::new(), name: name.into() }
}

fn pages(from: u64, end: u64) -> PageSet {
    let mut set = PageSet::default();
    set.write(from * PAGE as u64, end * PAGE as u64);
    set
}

impl World {
    fn new(seed: u64) -> World {
        World {
            rng: StdRng::seed_from_u64(seed),
            disk: bed::disk(seed),
            kv: CrashKv::new(),
            clock: Arc::new(Ticking::new(1_800_000_000_000_000)),
            now: Vec::new(),
            past: Vec::new(),
        }
    }

    fn try_open(&self) -> Result<Arc<Engine>> {
        let mut options = bed::options();
        options.segment_bytes = 1;
        options.lease_us = i64::MAX / 8;
        options.forecast = ForecastLimits { on: true, ..ForecastLimits::default() };
        bed::open(&self.disk, &self.kv, &self.clock, options)
    }

    /// As a daemon does at its start.
    fn open(&self) -> Arc<Engine> {
        let engine = self.try_open().unwrap();
        let _ = engine.meta().open();
        engine.note_shadows();
        engine
    }

    fn copy(&self, seed: u64) -> World {
        World {
            rng: StdRng::seed_from_u64(seed),
            disk: self.disk.kill(),
            kv: self.kv.crash(0),
            clock: Arc::clone(&self.clock),
            now: self.now.clone(),
            past: self.past.clone(),
        }
    }

    fn make(engine: &Engine, name: &str, bytes: &[u8]) {
        let kind = FileKind::Regular;
        let new = NewFile { kind, mode: 0o600, rdev: 0, target: Vec::new(), uid: 0, gid: 0, umask: 0 };
        let (file, _) = engine.create(FileId::ROOT, name.as_bytes(), new).unwrap();
        engine.write(file, 0, bytes, false).unwrap();
    }

    /// Some pages of the parent change, and the instant is noted.
    fn change(&mut self, engine: &Engine) -> Seq {
        let (file, _) = engine.lookup(FileId::ROOT, PARENT.as_bytes()).unwrap();
        for _ in 0..5 {
            let at = self.rng.random_range(0..self.now.len() / PAGE) * PAGE;
            let bytes: Vec<u8> = (0..PAGE).map(|_| self.rng.random()).collect();
            engine.write(file, at as u64, &bytes, false).unwrap();
            self.now[at..at + PAGE].copy_from_slice(&bytes);
        }
        self.clock.pass(1_000_000);
        let Resolution::Found(found) = engine.resolve(Instant::Time(engine.now())).unwrap() else { panic!() };
        self.past.push((found.seq, self.now.clone()));
        found.seq
    }

    /// A store with everything in it.
    fn fill(&mut self) {
        let engine = self.open();
        self.now = (0..60 * PAGE).map(|_| self.rng.random()).collect();
        World::make(&engine, PARENT, &self.now);
        let first = self.change(&engine);
        engine.tag("first", first).unwrap();
        engine.add_shadow(subject(PARENT), None, Some(first)).unwrap().unwrap();
        engine.checkpoint().unwrap();
        engine.abandon();
        drop(engine);
        self.disk = self.disk.kill();

        let engine = self.open();
        let gone = self.change(&engine);
        let leased = self.change(&engine);
        engine.lease(leased, "a test").unwrap();
        for _ in 0..2 {
            self.change(&engine);
            engine.add_shadow(subject(PARENT), None, None).unwrap().unwrap();
        }
        let child = Child {
            name: Some("orders_2026".into()),
            pages: Some(pages(10, 30).to_bytes()),
            ..Child::default()
        };
        let split = engine.declare_split(Layout::Generic, &partition(PARENT), How::Declared, child).unwrap();
        while engine.shadow_step().unwrap() {}
        World::make(&engine, CHILD, &self.now[10 * PAGE..30 * PAGE]);
        let (place, child) = ((split.id, 0), partition(CHILD));
        engine.confirm_child(Layout::Generic, place, &child, Tie::Declared).unwrap();
        self.change(&engine);
        self.forecast(&engine);
        // The instant that nothing holds goes.
        engine.checkpoint().unwrap();
        engine.abandon();
        drop(engine);
        self.disk = self.disk.kill();
        let engine = self.open();
        engine.checkpoint().unwrap();
        while engine.index_some().unwrap() {}
        while let Weaving::Wove(_) = engine.weave(&Unpaced).unwrap() {}
        engine.set_retention(Retention { all_us: Some(3_500_000), ..Retention::everything() });
        engine.prune(&Unpaced, false).unwrap();
        assert!(!engine.thinned().keeps(gone) && engine.thinned().keeps(leased));
        self.check(&engine);
        engine.note_shadows();
        engine.close().unwrap();
        drop(engine);
        self.disk = self.disk.kill();
    }

    fn forecast(&self, engine: &Engine) {
        for _ in 0..8 {
            self.clock.pass(10_000_000);
            let tick = Tick {
                end: engine.now(),
                span_us: 10_000_000,
                writes: 5,
                bytes: 40_000,
                pages: 5,
                size: 240_000,
                ..Tick::default()
            };
            engine.signal(Signal::Activity { partition: Key::from(PARENT), tick });
            engine.forecast_tick();
            engine.forecast_now();
        }
    }

    /// Every instant that remains is right, each other is refused; of which kind it is has nothing to do with this file.
    fn check(&self, engine: &Engine) {
        let thinned = engine.thinned();
        for (seq, bytes) in &self.past {
            let view = engine.view(*seq);
            if !thinned.keeps(*seq) {
                assert!(view.err().unwrap().is(libc::ESTALE));
                continue;
            }
            let view = view.unwrap();
            let (file, attr) = view.lookup(FileId::ROOT, PARENT.as_bytes()).unwrap().unwrap();
            assert_eq!(attr.size, bytes.len() as u64);
            let mut found = vec![0xee; bytes.len()];
            view.read(file, 0, &mut found).unwrap();
            assert!(found == *bytes, "at {seq}");
        }
    }

    fn kept(&self, engine: &Engine) -> Kept {
        let shadow = |shadow: weft::engine::ShadowInfo| {
            let snapshots = shadow.snapshots.into_iter().map(|snapshot| (snapshot.seq, snapshot.blake3));
            (shadow.id, shadow.partition, shadow.reason.to_owned(), shadow.follows, snapshots.collect())
        };
        Kept {
            tags: engine.tags().into_iter().map(|tag| (tag.name, tag.at)).collect(),
            leases: engine.leases().into_iter().map(|lease| (lease.at, lease.by)).collect(),
            thinned: engine.thinned().kept().iter().copied().collect(),
            shadows: engine.shadows().into_iter().map(shadow).collect(),
        }
    }

    fn files(&self, dir: &str) -> Vec<String> {
        let entries = self.disk.read_dir("test", Path::new(dir)).unwrap();
        let mut names: Vec<String> =
            entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
        names.sort();
        names
    }

    fn file(&self, path: &Path) -> Arc<dyn weft::disk::DiskFile> {
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        self.disk.open("test", path, how).unwrap()
    }
}

fn known(engine: &Engine) -> Known {
    let counts = engine.meta().read(|tx| Ok((tx.count(&FORECASTS)?, tx.count(&SCORES)?))).unwrap();
    Known {
        splits: weft::lineage::splits::all(engine.meta()).unwrap().len(),
        lineage: engine.lineage().unwrap().len(),
        forecasts: counts.0,
        scores: counts.1,
    }
}

/// The tables of shadows: number and bytes served, and the digests of the snapshots.
fn noted(engine: &Engine) -> (Vec<(u64, u64)>, Digests) {
    let (shadows, snapshots) =
        engine.meta().read(|tx| Ok((tx.range(&SHADOWS, ..)?, tx.range(&SNAPSHOTS, ..)?))).unwrap();
    let digests = snapshots.into_iter().map(|((_, seq), row)| (seq.0, row.blake3));
    (shadows.into_iter().map(|(id, row)| (id, row.served_bytes)).collect(), digests.collect())
}

fn told(engine: &Engine) -> usize {
    let warnings = engine.status().warnings;
    warnings.iter().filter(|warning| warning.contains("the metadata store was lost")).count()
}

/// What becomes of the file.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Harm {
    Deleted,
    CutTo(u64),
    /// One byte is another.
    Byte(u64),
    /// A page is noise.
    Page(u64),
}

fn harms(len: u64) -> Vec<Harm> {
    let mut harms = vec![Harm::Deleted];
    harms.extend([0, 20, 4096, 5000, len / 2, len - 1].map(Harm::CutTo));
    harms.extend([0, 9, 13, 4096, 4100, 4200, len / 3, len / 2].map(Harm::Byte));
    harms.extend((0..len / PAGE as u64).map(Harm::Page));
    harms
}

fn harm(world: &mut World, what: Harm) {
    let file = world.file(Path::new(META));
    match what {
        Harm::Deleted => world.disk.unlink("test", Path::new(META)).unwrap(),
        Harm::CutTo(len) => file.set_len("test", len).unwrap(),
        Harm::Byte(at) => {
            let mut byte = [0];
            file.read_at("test", &mut byte, at).unwrap();
            file.write_at("test", &[byte[0] ^ 0x10], at).unwrap();
        }
        Harm::Page(page) => {
            let noise: Vec<u8> = (0..PAGE).map(|_| world.rng.random()).collect();
            file.write_at("test", &noise, page * PAGE as u64).unwrap();
        }
    }
    file.sync("test").unwrap();
    world.disk.sync_dir("test", Path::new(STORE)).unwrap();
}

#[test]
fn losing_the_metadata_store_costs_no_history_and_what_was_lost_is_told() {
    let mut first = World::new(1);
    first.fill();
    let engine = first.open();
    let (kept, all, rows) = (first.kept(&engine), known(&engine), noted(&engine));
    assert_eq!((all.splits, all.lineage), (1, 1));
    assert!(all.forecasts > 0 && all.scores > 0, "{all:?}");
    assert!(kept.shadows.len() == 3 && kept.leases.len() == 1 && kept.tags.len() == 1, "{kept:?}");
    assert!(rows.0.iter().any(|(_, served)| *served > 0), "{rows:?}");
    assert_eq!(told(&engine), 0);
    first.check(&engine);
    engine.close().unwrap();
    drop(engine);
    let files = first.files(SHADOW);
    let len = first.file(Path::new(META)).len("test").unwrap();
    let (mut lost, mut whole) = (0, 0);
    for (round, what) in harms(len).into_iter().enumerate() {
        let mut world = first.copy(round as u64);
        harm(&mut world, what);
        let engine = world.open();
        assert!(engine.status().problems.is_empty(), "{what:?}: {:?}", engine.status().problems);
        // Nothing of history, and nothing that an event tells or that stands in files of its own.
        assert_eq!(world.kept(&engine), kept, "{what:?}");
        world.check(&engine);
        assert_eq!(world.files(SHADOW), files);
        assert_eq!(noted(&engine).1, rows.1, "{what:?}");
        let was_lost = told(&engine) > 0;
        let now = known(&engine);
        match was_lost {
            true => {
                lost += 1;
                assert_eq!(now, Known { splits: 0, lineage: 0, forecasts: 0, scores: 0 }, "{what:?}");
                let losses = engine.meta().losses().unwrap();
                let [loss] = losses.as_slice() else { panic!("{losses:?}") };
                let gone = loss.gone.join(", ");
                assert!(gone.contains("lineage") && gone.contains("splits") && gone.contains("scores"));
                assert!(loss.rebuilt.iter().any(|what| what.contains("shadows")), "{loss:?}");
                let of_events = ["tags", "leases"];
                assert!(!of_events.iter().any(|what| loss.to_string().contains(what)), "{loss}");
            }
            // Only the last transaction can be taken for one that a crash tore.
            false => {
                whole += 1;
                assert!(matches!(what, Harm::Byte(_) | Harm::Page(_)), "{what:?} was not told");
                assert_eq!((now.splits, now.lineage), (1, 1), "{what:?}");
            }
        }
        // A child of which nothing is known any more has its own past, and is served no other's.
        let view = engine.view(kept.leases[0].0).unwrap();
        let ancestry = engine.ancestry(Layout::Generic, &partition(CHILD), &view).unwrap();
        assert_eq!(!ancestry.is_empty(), !was_lost, "{what:?}");
        drop(view);
        // All of it goes on.
        let child = Child {
            name: Some("orders_2026".into()),
            pages: Some(pages(10, 30).to_bytes()),
            ..Child::default()
        };
        let split = engine.declare_split(Layout::Generic, &partition(PARENT), How::Declared, child).unwrap();
        while engine.shadow_step().unwrap() {}
        engine.confirm_child(Layout::Generic, (split.id, 0), &partition(CHILD), Tie::Declared).unwrap();
        world.forecast(&engine);
        world.change(&engine);
        engine.add_shadow(subject(PARENT), None, None).unwrap().unwrap();
        world.check(&engine);
        let view = engine.view(kept.leases[0].0).unwrap();
        assert!(!engine.ancestry(Layout::Generic, &partition(CHILD), &view).unwrap().is_empty());
        drop(view);
        engine.close().unwrap();
        drop(engine);
        let engine = world.open();
        assert_eq!(told(&engine), usize::from(was_lost), "{what:?}: told for a week");
        assert_eq!(known(&engine).lineage, 1);
        // What is removed takes its files with it.
        for id in engine.shadows().iter().map(|shadow| shadow.id) {
            engine.remove_shadows(b"", &id.to_string()).unwrap();
        }
        assert_eq!(world.files(SHADOW), Vec::<String>::new());
        world.check(&engine);
    }
    assert!(lost > 8 && whole > 0, "{lost} lost, {whole} whole");
}

#[test]
fn files_of_shadows_that_nothing_leads_to_go_and_repeated_losses_take_no_space() {
    let mut world = World::new(2);
    world.fill();
    let engine = world.open();
    let (kept, files) = (world.kept(&engine), world.files(SHADOW));
    engine.close().unwrap();
    drop(engine);
    let mut used = Vec::new();
    for round in 0..6 {
        world = world.copy(round);
        let what = if round % 2 == 0 { Harm::Deleted } else { Harm::Page(1) };
        harm(&mut world, what);
        // What a crash in the making or removing leaves, of shadows that the lost table knew, and of one that it did not.
        for (name, bytes) in [
            ("00000002-000009.snap.new", &[1; 5000][..]),
            ("00000002-000009-5.data", &[2; 200_000]),
            ("00000077-000001-5.data", &[3; 200_000]),
            ("00000078-000001.snap", b"WEFTSHDW"),
            ("00000078-000001-5.data", &[4; 100_000]),
        ] {
            let file = world.file(&PathBuf::from(SHADOW).join(name));
            file.write_at("test", bytes, 0).unwrap();
            file.sync("test").unwrap();
        }
        world.disk.sync_dir("test", Path::new(SHADOW)).unwrap();
        let engine = world.open();
        assert_eq!(world.files(SHADOW), files);
        assert_eq!(world.kept(&engine), kept);
        assert_eq!(told(&engine), 1);
        world.check(&engine);
        engine.close().unwrap();
        drop(engine);
        used.push(world.disk.used());
    }
    // Each session adds its segment of the journal; a lost file is kept once.
    let grown = |pair: &[u64]| pair[1].saturating_sub(pair[0]);
    let rounds: Vec<u64> = used.windows(2).map(grown).collect();
    assert!(used[5] < used[1] + (1 << 20), "{used:?} {rounds:?}");
    let aside: Vec<String> = world.files(STORE).into_iter().filter(|name| name.starts_with("meta")).collect();
    assert_eq!(aside, ["meta.made", "meta.redb", "meta.redb.damaged"]);
}

#[test]
fn a_cut_at_each_operation_of_finding_the_loss_costs_nothing_more() {
    let mut first = World::new(3);
    first.fill();
    let engine = first.open();
    let (kept, files) = (first.kept(&engine), first.files(SHADOW));
    engine.close().unwrap();
    drop(engine);
    for what in [Harm::Deleted, Harm::CutTo(6000), Harm::Page(0), Harm::Page(1)] {
        for at in 0.. {
            let mut world = first.copy(at);
            harm(&mut world, what);
            world.disk.cut_at(world.disk.operations() + at);
            if let Ok(engine) = world.try_open() {
                let _ = engine.meta().open();
                engine.note_shadows();
            }
            let ended = !world.disk.is_dead();
            world.disk = world.disk.cut(at);
            world.kv = world.kv.crash(at % 2);
            let engine = world.open();
            assert_eq!(world.kept(&engine), kept, "{what:?}, cut at {at}");
            world.check(&engine);
            assert_eq!(told(&engine), 1, "{what:?}, cut at {at}: {:?}", engine.status().warnings);
            assert_eq!(world.files(SHADOW), files);
            assert_eq!(known(&engine), Known { splits: 0, lineage: 0, forecasts: 0, scores: 0 });
            let aside = world.files(STORE);
            assert!(!aside.iter().any(|name| name == "meta.new"), "{what:?}, cut at {at}");
            if ended {
                assert!(at > 10, "{at} operations say little");
                break;
            }
        }
    }
}

#[test]
fn every_table_is_documented() {
    let format = include_str!("../docs/FORMAT.md");
    for (name, ..) in TABLES {
        assert!(format.contains(&format!("| `{name}.")), "docs/FORMAT.md does not tell of table {name}");
    }
}
