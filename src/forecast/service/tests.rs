//! The forecast with models that are good, lie, fail, hang and crash.

use super::*;
use crate::clock::Still;
use crate::disk::os::OsDisk;
use crate::forecast::features;
use crate::forecast::signal::Ddl;
use crate::forecast::trace::Line;
use crate::forecast::{Tick, predictor};
use crate::types::StoreId;

/// Says of every partition that it is quiet with this probability.
struct Says(f32);

impl Predictor for Says {
    fn id(&self) -> String {
        format!("says-{}", self.0)
    }
    fn schema(&self) -> String {
        features::schema_hash()
    }
    fn predict(&mut self, _: &[f32], _: usize, out: &mut [f32]) -> crate::error::Result<()> {
        if self.0 < 0.0 {
            panic!("a model that crashes");
        }
        for row in out.chunks_exact_mut(predictor::WIDTH) {
            row.fill(0.0);
            row[baseline::at::P_QUIET..].fill(self.0);
        }
        Ok(())
    }
}

struct World {
    service: Service,
    meta: Store,
    now: i64,
    dir: tempfile::TempDir,
}

const TICK: i64 = 10_000_000;
const START: i64 = 1_764_000_000_000_000;

fn open(dir: &Path) -> (Service, Store) {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let meta = Store::new(Arc::clone(&disk), Arc::new(Still), dir, StoreId([1; 16])).unwrap();
    let how = How { deadline: Duration::from_secs(20), window_us: 1_800_000_000, ..How::default() };
    (Service::new(disk, dir, how), meta)
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let (service, meta) = open(dir.path());
        World { service, meta, now: START, dir }
    }

    /// Minutes in which every partition is written in every tick.
    fn minutes(&mut self, count: i64) {
        for _ in 0..count {
            for _ in 0..6 {
                self.now += TICK;
                let signals: Vec<Signal> = (0..50)
                    .map(|n| {
                        let end = Timestamp(self.now);
                        let tick = Tick { end, span_us: TICK, writes: 3, bytes: 9_000, ..Tick::default() };
                        Signal::Activity { partition: format!("base/5/{n}").into(), tick }
                    })
                    .collect();
                self.service.tick(&signals, Timestamp(self.now));
            }
            self.service.forecast(&self.meta, Timestamp(self.now));
        }
    }

    fn set(&mut self, model: impl Predictor + 'static) {
        self.service.set_model(Ok(Box::new(model)), None, Timestamp(self.now));
    }
}

#[test]
fn without_a_model_the_standard_rule_goes_on_and_says_why() {
    let mut world = World::new();
    world.minutes(12);
    let state = world.service.state();
    assert_eq!((state.state, state.why.as_deref()), (ModelState::None, Some("there is no model")));
    assert!(!world.service.counts());
    assert!(state.partitions == 50 && state.forecasts > 0 && state.scored > 0 && state.problem.is_none());
    // The baselines' forecasts are shown all the same, and scored.
    assert!(world.service.shown().iter().all(|shown| shown.forecast.is_some()));
    let (lines, _) = world.service.scores(Timestamp(world.now));
    assert!(
        lines.iter().any(|line| line.name == NO_MODEL && line.brier.is_some_and(|brier| brier < 0.01)),
        "{lines:?}"
    );
    let why = world.service.why("base/5/7").unwrap();
    assert!(why.rule.contains("there is no model") && why.features.len() == features::COUNT);
    assert!(world.service.why("base/5/999").is_none());
}

#[test]
fn a_model_that_lies_is_left_for_the_standard_rule_with_an_event() {
    let mut world = World::new();
    world.set(Says(0.0));
    world.minutes(10);
    assert!(world.service.counts(), "{:?}", world.service.state());
    world.set(Says(1.0));
    world.minutes(10);
    let state = world.service.state();
    assert_eq!(state.state, ModelState::Doubted);
    assert!(!world.service.counts() && state.why.unwrap().contains("worse than the baselines"));
    assert!(state.events.iter().any(|(_, event)| event.contains("the standard rule goes on")));
    let candidate = Candidate {
        key: "base/5/1".into(),
        forecast: None,
        new_share: 0.0,
        delta_pages: 100.0,
        extents: 100.0,
        size: 1 << 20,
        shadow_secs: None,
        held: None,
    };
    let decisions = world.service.decide(vec![candidate], &Costs::default(), 1e9);
    assert!(decisions[0].bake && decisions[0].why.contains("standard rule"));
    // A better one counts at once.
    world.set(Says(0.0));
    assert!(world.service.state().state == ModelState::InUse);
}

#[test]
fn a_doubted_model_is_doubted_until_it_is_as_good_again_also_after_a_restart() {
    let mut world = World::new();
    world.set(Says(1.0));
    world.minutes(10);
    assert!(!world.service.counts());
    // Another is used meanwhile.
    world.set(Says(0.0));
    assert!(world.service.state().state == ModelState::InUse);
    world.set(Says(1.0));
    assert_eq!(world.service.state().state, ModelState::Doubted);
    world.minutes(1);
    // Long after: all scores are out of the window, and nothing says that it is any better.
    let World { service, meta, now, dir } = world;
    drop((service, meta));
    let now = now + 40 * 3_600_000_000;
    let again = |first: bool| {
        let (mut service, meta) = open(dir.path());
        let take = |service: &mut Service| service.set_model(Ok(Box::new(Says(1.0))), None, Timestamp(now));
        if first {
            take(&mut service);
        }
        service.warm(&meta, Timestamp(now));
        if !first {
            take(&mut service);
        }
        assert_eq!(service.state().state, ModelState::Doubted, "whichever comes first: {first}");
    };
    again(true);
    again(false);
}

#[test]
fn a_model_that_crashes_costs_forecasts_only() {
    let mut world = World::new();
    world.set(Says(-1.0));
    world.minutes(3);
    let state = world.service.state();
    assert_eq!(state.state, ModelState::Failing);
    assert!(state.why.unwrap().contains("a model that crashes") && !world.service.counts());
    assert_eq!(state.made_by, NO_MODEL);
    assert_eq!(state.events.iter().filter(|(_, event)| event.contains("crashed")).count(), 1, "told once");
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_the_forecast() {
    let mut world = World::new();
    world.set(Says(0.0));
    world.minutes(20);
    let before = world.service.state();
    world.now -= 3 * 3_600_000_000;
    world.minutes(12);
    let state = world.service.state();
    assert!(
        state.events.iter().any(|(_, event)| event.contains("set back by 10790 s")),
        "{:?}",
        state.events
    );
    assert!(state.forecasts > before.forecasts && state.scored > before.scored, "{before:?} {state:?}");
    assert_eq!((state.partitions, state.at_us), (50, world.now));
    assert!(world.service.shown().iter().all(|shown| shown.last_write_us == Some(world.now)));
    // What came after is read as it was, also by the next daemon; the time that it lived twice is there twice.
    let World { service, meta, now, dir } = world;
    drop((service, meta));
    let (mut service, meta) = open(dir.path());
    service.warm(&meta, Timestamp(now));
    assert!(
        service.state().problem.is_none() && service.shown().iter().all(|one| one.last_write_us == Some(now))
    );
}

#[test]
fn a_restart_takes_up_what_was_known() {
    let mut world = World::new();
    world.set(Says(0.0));
    world.minutes(20);
    let before = world.service.state();
    let rows = world.service.features.rows(Timestamp(world.now)).hash();
    // Killed: nothing is closed.
    let World { service, meta, now, dir } = world;
    drop((service, meta));
    let (mut service, meta) = open(dir.path());
    service.warm(&meta, Timestamp(now));
    assert_eq!(service.features.rows(Timestamp(now)).hash(), rows);
    let after = service.state();
    assert_eq!((after.partitions, after.scored), (50, before.scored));
    assert!(after.waiting > 0 && after.waiting <= before.waiting, "{after:?} {before:?}");
    let mut world = World { service, meta, now, dir };
    world.set(Says(0.0));
    world.minutes(6);
    assert!(world.service.state().scored > before.scored);
    assert_eq!(world.service.state().unseen, 0);
}

/// How often partitions split is the past's splits over the past's time: without the one, the other says that all will.
#[test]
fn a_restart_takes_up_how_often_partitions_split() {
    let mut world = World::new();
    world.minutes(20);
    for n in 0..3 {
        let (partition, children, point) = (Key::from(format!("base/5/{n}")), Vec::new(), None);
        world.now += TICK;
        let at = Timestamp(world.now);
        world.service.tick(&[Signal::Split { partition, at, children, point }], at);
    }
    let before = world.service.features.split_rate();
    assert!((before * 50.0 * 1_220.0 / 3.0 - 1.0).abs() < 0.02, "{before}");
    let World { service, meta, now, dir } = world;
    drop((service, meta));
    let (mut service, meta) = open(dir.path());
    // Nobody looked meanwhile.
    let now = Timestamp(now + 5 * 3_600_000_000);
    service.warm(&meta, now);
    service.tick(&[], Timestamp(now.0 + TICK));
    let after = service.features.split_rate();
    assert!((after / before - 1.0).abs() < 0.02, "{after} {before}");
}

#[test]
fn a_full_disk_is_told_and_nothing_stops() {
    let mut world = World::new();
    std::fs::write(kept::dir(world.dir.path()), b"in the way").unwrap();
    world.minutes(2);
    assert!(world.service.state().problem.is_none() || world.service.state().partitions == 50);
    assert_eq!(world.service.state().partitions, 50);
    world.now += TICK;
    let end = Timestamp(world.now);
    let tick = Tick { end, span_us: TICK, writes: 1, ..Tick::default() };
    world.service.tick(&[Signal::Activity { partition: "p".into(), tick }], end);
    assert!(world.service.state().problem.unwrap().contains("ticks cannot be kept"));
}

fn mixed(now: i64) -> Vec<Signal> {
    let key = || Key::from("base/5/1");
    let at = |offset: i64| Timestamp(now + offset);
    let tick = Tick { end: at(0), span_us: TICK, writes: 1, bytes: 9, growth: 9, size: 9, ..Tick::default() };
    vec![
        // Another thread was a little later than the sweep, and one a little late.
        Signal::Split { partition: key(), at: at(900), children: Vec::new(), point: None },
        Signal::Activity { partition: key(), tick },
        Signal::Query { partition: key(), at: at(-5), reads: 2, writes: 3 },
        Signal::Ddl { partition: Some(key()), at: at(-2 * TICK), what: Ddl::Detach },
        Signal::Ddl { partition: None, at: at(0), what: Ddl::Other },
    ]
}

#[test]
fn a_trace_has_splits_queries_and_changes_and_ascends_whoever_told_them_when() {
    let mut world = World::new();
    for _ in 0..3 {
        world.now += TICK;
        let signals = mixed(world.now);
        world.service.tick(&signals, Timestamp(world.now));
    }
    let (trace, problems) =
        kept::read(&OsDisk::new(), world.dir.path(), (Timestamp(0), Timestamp(i64::MAX)), u64::MAX).unwrap();
    assert_eq!(problems, Vec::<String>::new(), "a line earlier than the one before makes a file unreadable");
    let count = |is: fn(&What) -> bool| trace.lines.iter().filter(|line| is(&line.what)).count();
    assert_eq!(count(|what| matches!(what, What::Split { .. })), 3);
    assert_eq!(count(|what| matches!(what, What::Query { reads: 2, writes: 3, .. })), 3);
    assert_eq!(count(|what| matches!(what, What::Ddl { what: Ddl::Detach, .. })), 3);
    assert_eq!(count(|what| matches!(what, What::Tick(_))), 3);
    assert!(trace.lines.is_sorted_by_key(Line::at));
}

#[test]
fn what_a_trace_tells_again_is_what_service_saw_also_of_splits_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let how = How { split_bytes: 1_000, ..How::default() };
    let mut service = Service::new(disk, dir.path(), how);
    let mut now = START;
    for (n, size) in [100, 900, 1_100, 1_500, 400, 2_100].into_iter().enumerate() {
        now += TICK;
        let mut signals = mixed(now);
        signals.retain(|signal| !matches!(signal, Signal::Split { .. } | Signal::Ddl { .. }));
        for signal in &mut signals {
            if let Signal::Activity { tick, .. } = signal {
                *tick = Tick { size, writes: n as u64 + 1, ..*tick };
            }
        }
        service.tick(&signals, Timestamp(now));
        let split = service.features.state("base/5/1").unwrap().last_split();
        let last = [None, None, Some(3), Some(3), Some(3), Some(6)][n];
        assert_eq!(split, last.map(|tick| Timestamp(START + tick * TICK)), "{size}");
    }
    let (trace, _) =
        kept::read(&OsDisk::new(), dir.path(), (Timestamp(0), Timestamp(i64::MAX)), u64::MAX).unwrap();
    assert!(!trace.lines.iter().any(|line| matches!(line.what, What::Split { .. })), "sizes are no record");
    let mut again = Features::new(Setup { split_bytes: 1_000, most: 100 });
    replay::Replay::new(&trace, replay::SplitPolicy::Size(1_000)).upto(Timestamp(now), &mut again);
    assert_eq!(again.rows(Timestamp(now)).hash(), service.features.rows(Timestamp(now)).hash());
    let names = features::names();
    let queries = names.iter().position(|name| name == "query_writes").unwrap();
    assert!(again.rows(Timestamp(now)).values[queries] > 1.0, "queries reach the features");
}

/// Says of every partition that it splits within the hour.
struct Foresees;

impl Predictor for Foresees {
    fn id(&self) -> String {
        "foresees".into()
    }
    fn schema(&self) -> String {
        features::schema_hash()
    }
    fn predict(&mut self, _: &[f32], _: usize, out: &mut [f32]) -> crate::error::Result<()> {
        for row in out.chunks_exact_mut(predictor::WIDTH) {
            row.fill(0.0);
            row[baseline::at::P_SPLIT + 1..][..2].fill(0.75);
        }
        Ok(())
    }
}

/// The ledger's batches of an hour are a quarter of an hour apart: what a shadow is made by in between is stored too.
#[test]
fn every_forecast_that_something_follows_from_is_stored_with_what_came_of_it() {
    let mut world = World::new();
    world.set(Foresees);
    let candidate = Candidate {
        key: "base/5/1".into(),
        forecast: None,
        new_share: 0.0,
        delta_pages: 1e5,
        extents: 1e5,
        size: 1 << 30,
        shadow_secs: Some(60.0),
        held: None,
    };
    let step = |world: &mut World, candidates: Vec<Candidate>| {
        world.minutes(1);
        assert!(world.service.counts(), "{:?}", world.service.state());
        world.service.decide(candidates, &Costs::default(), 1e9);
        world.service.keep_acted(&world.meta, Timestamp(world.now));
    };
    step(&mut world, Vec::new());
    let first = world.now;
    step(&mut world, vec![candidate]);
    let baked = world.now;
    world.now += 30_000_000;
    let (partition, at) = (Key::from("base/5/1"), Timestamp(world.now));
    let split = Signal::Split { partition, at, children: Vec::new(), point: None };
    world.service.tick(&[split], at);
    world.service.keep_acted(&world.meta, at);
    // As after a restart.
    let World { service, meta, dir, .. } = world;
    drop((service, meta));
    let (mut service, meta) = open(dir.path());
    service.warm(&meta, at);
    let of = |name: &str| {
        let acted = service.acted().of(&meta, |partition| partition == name).unwrap();
        acted.into_iter().map(|((made, _), acted)| (made.0, acted)).collect::<Vec<_>>()
    };
    let one = of("base/5/1");
    assert_eq!(one.iter().map(|(made, _)| *made).collect::<Vec<_>>(), [first, baked]);
    let (_, acted) = &one[1];
    assert_eq!((acted.model.as_str(), acted.inputs.len(), acted.split_within), ("foresees", 64, Some(3_600)));
    assert_eq!(acted.forecast().unwrap().p_split, [0.0, 0.75, 0.75]);
    assert!(acted.baked.as_ref().unwrap().contains("a restore profits"), "{acted:?}");
    assert_eq!((one[0].1.split_after, acted.split_after), (Some(90.0), Some(30.0)));
    // Of others a split is said once.
    let other = of("base/5/2");
    assert_eq!(other.iter().map(|(made, _)| *made).collect::<Vec<_>>(), [first]);
    assert_eq!((&other[0].1.baked, other[0].1.split_after), (&None, None));
}
