//! What is counted of each partition, as the trace keeps it: by the mount's work on its files, and by nothing else. And from
//! a forecast to a shadow that is there before the split ends.

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
use weft::disk::sim::SimDisk;
use weft::engine::{ChildShadow, Engine, ForecastLimits, Foreseen, Layout, Partition, SetAttr};
use weft::forecast::service::How;
use weft::forecast::trace::{What, kept};
use weft::forecast::{Forecast, Predictor, Tick, features, predictor};
use weft::meta::store::Table;
use weft::types::{FileId, FileKind, Seq, Timestamp};

const PAGE: u64 = 4096;
/// The engine's own thread ends none: this is by hand.
const NEVER_US: i64 = 3_600_000_000;

/// A row of the table of shadows, as far as it is looked at.
#[derive(serde::Serialize, serde::Deserialize)]
struct Row {
    reason: String,
    foreseen: Option<Foreseen>,
}

const SHADOWS: Table<u64, Row> = Table::new("shadows", 1);

struct World {
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    engine: Arc<Engine>,
}

fn open(disk: &SimDisk, kv: &Arc<CrashKv>, clock: &Arc<Ticking>) -> Arc<Engine> {
    let deadline = std::time::Duration::from_secs(60);
    let how = How { tick_us: NEVER_US, step_us: NEVER_US, deadline, ..How::default() };
    let mut options = bed::options();
    options.forecast = ForecastLimits { on: true, how, layout: |_| Layout::Postgres };
    let engine = bed::open(disk, kv, clock, options).unwrap();
    engine.take_up_wishes(Layout::Postgres);
    engine
}

impl World {
    /// Work is counted.
    fn new(seed: u64) -> World {
        let (disk, kv) = (bed::disk(seed), CrashKv::new());
        let clock = Arc::new(Ticking::new(1_000_000));
        let engine = open(&disk, &kv, &clock);
        engine.start().unwrap();
        let world = World { disk, kv, clock, engine };
        // A thread begins to count.
        let early = world.make(FileId::ROOT, "early");
        while world.tick("early").is_none() {
            std::thread::yield_now();
            world.engine.write(early, 0, b"x", false).unwrap();
        }
        world
    }

    fn make(&self, parent: FileId, name: &str) -> FileId {
        self.engine.create(parent, name.as_bytes(), bed::regular()).unwrap().0
    }

    /// The directory `base/5`.
    fn database(&self) -> FileId {
        let mut dir = bed::regular();
        (dir.kind, dir.mode) = (FileKind::Directory, 0o700);
        let base = self.engine.create(FileId::ROOT, b"base", dir.clone()).unwrap().0;
        self.engine.create(base, b"5", dir).unwrap().0
    }

    /// All that was told of a partition.
    fn told(&self, partition: &str) -> Vec<What> {
        let all = (Timestamp(0), Timestamp(i64::MAX));
        let (trace, problems) = kept::read(&self.disk, Path::new(bed::STORE), all, u64::MAX).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let number = trace.names.iter().position(|name| &**name == partition);
        let of = trace.lines.iter().filter(|line| Some(line.partition as usize) == number);
        of.map(|line| line.what).collect()
    }

    /// Ends a tick: what came of a partition in it.
    fn tick(&self, partition: &str) -> Option<What> {
        let before = self.told(partition).len();
        self.engine.forecast_tick();
        let told = self.told(partition);
        assert!(told.len() <= before + 1, "{told:?}");
        told.get(before).copied()
    }
}

#[test]
fn the_work_on_all_files_of_a_partition_is_its_tick() {
    let world = World::new(1);
    let engine = &world.engine;
    let five = world.database();
    let (main, map) = (world.make(five, "100"), world.make(five, "100_fsm"));
    let other = world.make(five, "200");
    let write = |file, page: u64, pages: usize| {
        engine.write(file, page * PAGE, &vec![7; pages * PAGE as usize], false).unwrap();
    };
    write(main, 0, 2);
    write(main, 0, 1);
    write(main, 1, 2);
    write(map, 0, 2);
    write(other, 0, 1);
    let mut out = vec![0; 5_000];
    assert_eq!(engine.read(main, 0, &mut out).unwrap(), 5_000);
    assert_eq!(engine.read(main, 2 * PAGE, &mut out).unwrap(), 4_096);
    // What Weft itself reads.
    assert_eq!(engine.read_uncounted(main, 0, &mut out).unwrap(), 5_000);
    for file in [main, main, map] {
        let (done, wait) = std::sync::mpsc::channel();
        engine.fsync(file, Box::new(move |result| done.send(result).unwrap()));
        wait.recv().unwrap().unwrap();
    }
    let Some(What::Tick(tick)) = world.tick("base/5/100") else { panic!("nothing was counted") };
    let expected = Tick {
        end: tick.end,
        span_us: tick.span_us,
        writes: 4,
        bytes: 7 * PAGE,
        appends: 3,
        overwrites: 1,
        pages: 5,
        growth: 5 * PAGE as i64,
        size: 5 * PAGE,
        reads: 2,
        read_bytes: 5_000 + PAGE,
        fsyncs: 3,
        // Of 64 parts, as small as a page.
        touched: 0b111,
    };
    assert_eq!(tick, expected);
    assert!(tick.span_us > 0);
    let of_other = world.told("base/5/200");
    assert!(matches!(of_other[..], [What::Tick(Tick { writes: 1, pages: 1, reads: 0, .. })]), "{of_other:?}");

    // Nothing happened, but for what Weft read itself.
    engine.read_uncounted(main, 0, &mut out).unwrap();
    assert_eq!(world.tick("base/5/100"), None);

    // Reads and syncs alone are work too; a file that is made shorter shrinks.
    engine.read(main, 0, &mut out).unwrap();
    engine.set_attr(main, SetAttr { size: Some(PAGE), ..SetAttr::default() }).unwrap();
    let Some(What::Tick(tick)) = world.tick("base/5/100") else { panic!("nothing was counted") };
    let expected = Tick {
        end: tick.end,
        span_us: tick.span_us,
        growth: -2 * PAGE as i64,
        size: 3 * PAGE,
        reads: 1,
        read_bytes: 5_000,
        ..Tick::default()
    };
    assert_eq!(tick, expected);

    // It is gone with its last file, which is found when all files are looked at, each thirty ticks.
    let look = || (0..31).find_map(|_| world.tick("base/5/100"));
    engine.unlink(five, b"100").unwrap();
    assert_eq!(look(), None);
    engine.unlink(five, b"100_fsm").unwrap();
    assert!(matches!(look(), Some(What::Gone { .. })));
    assert!(world.told("base/5/200").len() == 1);
    engine.abandon();
}

/// Says of every partition that it is about to split.
struct Sure;

const SAID: Forecast = Forecast {
    p_split: [0.5, 0.75, 0.875],
    split_secs: [30.0, 120.0, 600.0],
    split_point: 0.5,
    pages: [0.0; 4],
    bytes: [0.0; 4],
    reads: [0.0; 4],
    p_quiet: [1.0; 4],
};

impl Predictor for Sure {
    fn id(&self) -> String {
        "sure".into()
    }

    fn schema(&self) -> String {
        features::schema_hash()
    }

    fn predict(&mut self, _: &[f32], _: usize, out: &mut [f32]) -> weft::error::Result<()> {
        out.chunks_exact_mut(predictor::WIDTH).for_each(|row| row.copy_from_slice(&SAID.to_row()));
        Ok(())
    }
}

#[test]
fn a_split_that_is_foreseen_has_its_shadow_before_it_ends() {
    const PAGES: u64 = 2_048;
    let world = World::new(2);
    let engine = &world.engine;
    let five = world.database();
    let parent = world.make(five, "100");
    let mut bytes = vec![7; (PAGES * PAGE) as usize];
    engine.write(parent, 0, &bytes, false).unwrap();
    // Here and there, so that a restore has to look for it.
    for page in (0..PAGES).step_by(16) {
        engine.write(parent, page * PAGE, &[9; PAGE as usize], false).unwrap();
        bytes[(page * PAGE) as usize..][..PAGE as usize].fill(9);
    }
    engine.forecast_tick();
    assert!(engine.shadows().is_empty());
    engine.set_predictor(Ok(Box::new(Sure)), None);
    engine.forecast_now();
    // The engine's own thread makes it.
    let shadow = loop {
        let shadows = engine.shadows();
        assert!(shadows.len() <= 1, "{shadows:?}");
        match shadows.into_iter().find(|shadow| !shadow.snapshots.is_empty()) {
            Some(shadow) => break shadow,
            None => std::thread::yield_now(),
        }
    };
    let foreseen = shadow.foreseen.unwrap();
    assert_eq!((shadow.partition.as_str(), shadow.reason), ("base/5/100", "forecast"));
    assert_eq!((foreseen.confidence, foreseen.split_us - foreseen.at_us), (0.875, 120_000_000));
    assert!(foreseen.at_us > 0 && foreseen.at_us <= shadow.snapshots[0].made_us, "{shadow:?}");

    // The split: rows move into children, and then the parent goes.
    let before = Seq(shadow.snapshots[0].seq);
    let of_parent = Partition { root: Vec::new(), name: "base/5/100".into() };
    let stands = || engine.child_shadow(Layout::Postgres, &of_parent, None, None);
    while stands() == ChildShadow::Waits {
        std::thread::yield_now();
    }
    let stands = stands();
    assert!(matches!(stands, ChildShadow::Ready { reason: "forecast", .. }), "{stands:?}");
    for child in ["200", "300"] {
        let child = world.make(five, child);
        engine.write(child, 0, &bytes[..bytes.len() / 2], false).unwrap();
    }
    engine.unlink(five, b"100").unwrap();
    let served = engine.shadow_status().served_bytes;
    let view = engine.view(before).unwrap();
    let mut found = vec![0; bytes.len()];
    assert_eq!(view.read(parent, 0, &mut found).unwrap(), bytes.len());
    assert!(found == bytes, "the past is not what it was");
    assert_eq!(engine.shadow_status().served_bytes - served, PAGES * PAGE, "all of it was ready");

    // Why it was made outlives a crash.
    engine.note_shadows();
    let noted = |engine: &Engine| engine.meta().read(|tx| tx.range(&SHADOWS, ..)).unwrap();
    let is_told = |rows: &[(u64, Row)]| {
        rows.iter().any(|(_, row)| row.reason == "forecast" && row.foreseen == Some(foreseen))
    };
    assert!(is_told(&noted(engine)));
    engine.checkpoint().unwrap();
    let World { disk, kv, clock, engine } = world;
    engine.abandon();
    drop((view, engine));
    let engine = open(&disk.kill(), &kv.crash(0), &clock);
    engine.note_shadows();
    assert!(is_told(&noted(&engine)));
    assert_eq!(engine.shadows()[0].foreseen, Some(foreseen));
}
