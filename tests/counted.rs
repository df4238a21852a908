//! What is counted of each partition, as the trace keeps it: by the mount's work on its files, and by nothing else.

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
use weft::engine::{Engine, ForecastLimits, Layout};
use weft::forecast::Tick;
use weft::forecast::service::How;
use weft::forecast::trace::{What, kept};
use weft::types::{FileId, Timestamp};

const PAGE: u64 = 4096;
/// The engine's own thread ends none: this is by hand.
const NEVER_US: i64 = 3_600_000_000;

struct World {
    disk: SimDisk,
    engine: Arc<Engine>,
}

impl World {
    /// Work is counted.
    fn new(seed: u64) -> World {
        let (disk, kv) = (bed::disk(seed), CrashKv::new());
        let how = How { tick_us: NEVER_US, step_us: NEVER_US, ..How::default() };
        let mut options = bed::options();
        options.forecast = ForecastLimits { on: true, how, layout: |_| Layout::Postgres };
        let engine = bed::open(&disk, &kv, &Arc::new(Ticking::new(1_000_000)), options).unwrap();
        engine.start().unwrap();
        let world = World { disk, engine };
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
    let mut dir = bed::regular();
    (dir.kind, dir.mode) = (weft::types::FileKind::Directory, 0o700);
    let base = engine.create(FileId::ROOT, b"base", dir.clone()).unwrap().0;
    let five = engine.create(base, b"5", dir).unwrap().0;
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
    let shorter = weft::engine::SetAttr { size: Some(PAGE), ..weft::engine::SetAttr::default() };
    engine.set_attr(main, shorter).unwrap();
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
