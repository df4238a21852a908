//! The ledger with models that tell the truth and models that lie.

use super::*;
use crate::clock::Still;
use crate::forecast::Tick;
use crate::forecast::score::{Amount, Binary};
use crate::meta::store::Store;
use crate::sync::Arc;
use crate::types::StoreId;

const STEP: i64 = 60_000_000;

/// Ten partitions that are written in turns: each for ten steps, every second of them from now on busy.
struct World {
    features: Features,
    ledger: Ledger,
    now: i64,
    belief: Belief,
}

fn busy(partition: i64, step: i64) -> bool {
    // A schedule that no mean foresees, and who knows it can: twenty steps on, twenty off.
    (step / 20 + partition) % 2 == 0
}

impl World {
    fn new() -> World {
        World { features: Features::default(), ledger: Ledger::default(), now: 1, belief: Belief::default() }
    }

    /// One step: what happens, then what is said. `say`: probability of writing within a minute, by what will come.
    fn step(&mut self, say: fn(bool) -> f32) -> Vec<Scored> {
        let end = Timestamp(self.now * STEP);
        for n in 0..10 {
            let writes = u64::from(busy(n, self.now)) * 5;
            let tick = Tick { end, span_us: STEP, writes, bytes: writes * 100, ..Tick::default() };
            let signal = Signal::Activity { partition: format!("p{n}").into(), tick };
            self.ledger.take(&signal);
            self.features.take(&signal);
        }
        self.ledger.pass(Timestamp(end.0 - STEP), end);
        let settled = self.ledger.settle(end);
        let rows = self.features.rows(end);
        let answers: Vec<Option<Forecast>> = rows
            .keys
            .iter()
            .map(|key| {
                let n: i64 = key[1..].parse().unwrap();
                let within = |steps: i64| (1..=steps).any(|step| busy(n, self.now + step));
                let quiet = |steps| 1.0 - say(within(steps));
                let p_quiet = [quiet(1), quiet(5), quiet(60), quiet(1_440)];
                Some(Forecast { p_quiet, ..Forecast::default() })
            })
            .collect();
        self.ledger.note("m", "hash", (end, STEP), (&rows.keys, &answers), &self.features);
        if self.now % 20 == 0 {
            self.belief = self.ledger.judge("m", Timestamp(end.0 - 86_400_000_000), &self.belief);
        }
        self.now += 1;
        settled
    }
}

const TRUTH: fn(bool) -> f32 = |came| if came { 0.95 } else { 0.05 };
const LIE: fn(bool) -> f32 = |came| if came { 0.05 } else { 0.95 };

#[test]
fn a_model_that_lies_is_doubted_and_believed_again_when_it_has_mended() {
    let mut world = World::new();
    (0..200).for_each(|_| drop(world.step(TRUTH)));
    assert_eq!(world.belief, Belief::Believed);
    (0..300).for_each(|_| drop(world.step(LIE)));
    let Belief::Doubted { why } = &world.belief else { panic!("a liar is believed") };
    assert!(why.contains("Brier score") && why.contains("against"), "{why}");
    // The lies grow old.
    (0..1_600).for_each(|_| drop(world.step(TRUTH)));
    assert_eq!(world.belief, Belief::Believed);
}

#[test]
fn forecasts_are_scored_when_due_and_not_before() {
    let mut world = World::new();
    assert!(world.step(TRUTH).is_empty());
    let settled = world.step(TRUTH);
    assert_eq!(settled.iter().map(|scored| scored.horizon).collect::<Vec<_>>(), [60]);
    let scores = &settled[0].scores;
    assert_eq!(scores.keys().collect::<Vec<_>>(), ["climatology", "ewma", "linear", "model", "persistence"]);
    assert_eq!(scores["model"].write.cases, 10.0);
    assert!(scores["model"].write.brier().unwrap() < 0.01);
    assert_eq!((settled[0].model.as_str(), settled[0].inputs.as_str()), ("m", "hash"));
}

#[test]
fn what_was_not_seen_is_not_scored() {
    let mut world = World::new();
    world.step(TRUTH);
    // The daemon was down for an hour.
    world.now += 60;
    let settled = world.step(TRUTH);
    assert!(settled.is_empty(), "{settled:?}");
    assert!(world.ledger.counts()[3] >= 2);
}

#[test]
fn what_was_stored_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn crate::disk::Disk> = Arc::new(crate::disk::os::OsDisk::new());
    let store = || Store::new(Arc::clone(&disk), Arc::new(Still), dir.path(), StoreId([7; 16])).unwrap();
    let mut world = World::new();
    let end = |world: &World| Timestamp((world.now - 1) * STEP);
    let settled = [world.step(TRUTH), world.step(TRUTH)].concat();
    let made: Vec<BatchId> = world.ledger.waiting().map(|(id, _)| *id).collect();
    let first = store();
    world.ledger.save(&first, &made, &settled).unwrap();
    drop(first);
    let mut ledger = Ledger::default();
    ledger.load(&store(), end(&world)).unwrap();
    assert_eq!(ledger.counts()[1..3], [made.len() as u64, 1]);
    assert_eq!(ledger.waiting().map(|(id, _)| *id).collect::<Vec<_>>(), made);
    // What happened between the oldest batch and the restart is told again, from the ticks that were kept.
    let told = Timestamp(STEP);
    ledger.pass(told, end(&world));
    world.ledger = ledger;
    let settled = world.step(TRUTH);
    assert_eq!(settled.len(), 1, "{settled:?}");
    assert_eq!(settled[0].scores["model"].write.cases, 10.0);
    assert!(settled[0].scores["model"].write.brier().unwrap() < 0.01);
}

#[test]
fn nothing_grows_without_bound() {
    let mut world = World::new();
    for _ in 0..1_300 {
        world.step(TRUTH);
        assert!(world.ledger.counts()[1] <= PENDING_MAX as u64);
    }
    assert!(world.ledger.scored.len() <= SCORED_MAX);
}

#[test]
fn the_whole_window_counts() {
    const DAY: i64 = 86_400_000_000;
    let cases = |ledger: &Ledger, now: i64| {
        ledger.scores("m", Timestamp(now - DAY))[&("model".to_owned(), 60)].write.cases
    };
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn crate::disk::Disk> = Arc::new(crate::disk::os::OsDisk::new());
    let store = || Store::new(Arc::clone(&disk), Arc::new(Still), dir.path(), StoreId([7; 16])).unwrap();
    let (mut world, first) = (World::new(), store());
    world.ledger = Ledger::new(DAY);
    for step in 0..1_500 {
        let settled = world.step(TRUTH);
        // The file is written seldom, for the test's time.
        if step >= 1_490 || !settled.is_empty() && step % 100 == 0 {
            world.ledger.save(&first, &[], &settled).unwrap();
        }
    }
    // Ten partitions a minute, for a day; a part of the window may be missing at its end.
    let now = (world.now - 1) * STEP;
    assert!((14_100.0..=14_400.0).contains(&cases(&world.ledger, now)), "{}", cases(&world.ledger, now));
    assert!(world.ledger.scored.len() < 4 * (PARTS as usize + 4), "{}", world.ledger.scored.len());
    // The newest sums are stored whole, and go on to grow as what they are.
    drop(first);
    let mut ledger = Ledger::new(DAY);
    ledger.load(&store(), Timestamp(now)).unwrap();
    let newest = |ledger: &Ledger| ledger.scored.iter().rfind(|sum| sum.horizon == 60).cloned().unwrap();
    assert_eq!(newest(&ledger), newest(&world.ledger));
    assert!(newest(&ledger).batches > 1);
}

/// What a model says of splits where none ever comes, and of pages.
fn belief_in(say: impl Fn(&mut Forecast, f32)) -> Belief {
    let (mut features, mut ledger) = (Features::default(), Ledger::default());
    let keys: Vec<Key> = (0..20).map(|n| format!("p{n}").into()).collect();
    for minute in 1..=60 {
        let end = Timestamp(minute * STEP);
        for key in &keys {
            let (writes, bytes, size) = (8, 8 * 4_096, 64 * 4_096);
            let tick =
                Tick { end, span_us: STEP, writes, bytes, pages: 8, touched: 0xff, size, ..Tick::default() };
            let signal = Signal::Activity { partition: Key::clone(key), tick };
            ledger.take(&signal);
            features.take(&signal);
        }
        ledger.pass(Timestamp(end.0 - STEP), end);
        ledger.settle(end);
        let mut forecast = Forecast { p_quiet: [0.0; 4], pages: [8.0; 4], ..Forecast::default() };
        say(&mut forecast, minute as f32);
        let answers = vec![Some(forecast); keys.len()];
        ledger.note("m", "hash", (end, STEP), (&keys, &answers), &features);
    }
    ledger.judge("m", Timestamp(0), &Belief::Untried)
}

#[test]
fn a_model_that_says_splits_everywhere_is_doubted_where_none_comes() {
    assert_eq!(belief_in(|_, _| {}), Belief::Believed);
    assert_eq!(belief_in(|forecast, _| forecast.p_split = [0.01; 3]), Belief::Believed);
    let Belief::Doubted { why } = belief_in(|forecast, _| forecast.p_split = [1.0; 3]) else {
        panic!("a liar is believed")
    };
    assert!(why.contains("most for split within 300 s: 1.0000"), "{why}");
}

#[test]
fn a_model_that_is_far_off_with_pages_is_doubted_although_it_knows_who_is_written() {
    assert_eq!(belief_in(|forecast, minute| forecast.pages = [8.0 + minute % 3.0; 4]), Belief::Believed);
    for far in [0.0, 100_000.0] {
        let Belief::Doubted { why } = belief_in(|forecast, _| forecast.pages = [far; 4]) else {
            panic!("{far} pages are believed")
        };
        assert!(why.contains("error of expected pages"), "{why}");
    }
}

#[test]
fn pages_reads_and_times_of_splits_are_scored_beside_the_baselines() {
    let (mut features, mut ledger) = (Features::default(), Ledger::default());
    let tick = |at_s: i64, pages: u64, reads: u64| {
        let (end, span_us) = (Timestamp(at_s * 1_000_000), 60_000_000);
        // Each of 64 parts is one page: the same ones are written over and over.
        let (bytes, touched, size) = (pages * 4_096, (1 << pages) - 1, 64 * 4_096);
        let tick =
            Tick { end, span_us, writes: pages, bytes, pages, touched, size, reads, ..Tick::default() };
        Signal::Activity { partition: "p".into(), tick }
    };
    // Two pages and eight reads each minute so far.
    (1..=10).for_each(|minute| features.take(&tick(minute * 60, 2, 8)));
    let at = Timestamp(600_000_000);
    let forecast = Forecast {
        pages: [5.0; 4],
        reads: [0.0; 4],
        split_secs: [30.0, 100.0, 1e9],
        p_quiet: [0.0; 4],
        ..Forecast::default()
    };
    let keys: [Key; 1] = ["p".into()];
    ledger.note("m", "hash", (at, STEP), (&keys, &[Some(forecast)]), &features);
    // The same five pages in each of five minutes, nothing is read, and after 50 s it splits.
    let (partition, children, point) = (Key::from("p"), Vec::new(), None);
    ledger.take(&Signal::Split { partition, at: Timestamp(650_000_000), children, point });
    (11..=15).for_each(|minute| ledger.take(&tick(minute * 60, 5, 0)));
    ledger.take(&tick(901, 60, 500));
    ledger.pass(at, Timestamp(900_000_000));
    let settled = ledger.settle(Timestamp(900_000_000));
    let five = settled.iter().find(|scored| scored.horizon == 300).unwrap();
    let (model, before) = (&five.scores["model"], &five.scores["persistence"]);
    assert!(model.pages.log_error().unwrap() < 0.01, "{:?}", model.pages);
    assert!(before.pages.log_error().unwrap() > 0.4, "{:?}", before.pages);
    assert_eq!((model.reads.absolute, before.reads.absolute), (0.0, 40.0));
    let below = |scores: &Scores| scores.times.each_ref().map(|one| (one.cases, one.below));
    assert_eq!(below(model), [(1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]);
    assert_eq!(below(&five.scores["linear"]), [(0.0, 0.0); 3], "it says never");
    let one = settled.iter().find(|scored| scored.horizon == 60).unwrap();
    assert_eq!(below(&one.scores["model"]), [(0.0, 0.0); 3], "splits have no such horizon");
    // All of it adds up, and older rows without it are read.
    let mut twice = model.clone();
    twice.merge(model);
    assert_eq!((twice.pages.cases, twice.reads.cases, below(&twice)[1]), (2.0, 2.0, (2.0, 2.0)));
    #[derive(serde::Serialize)]
    struct Before {
        write: Binary,
        split: Binary,
        bytes: Amount,
    }
    let before =
        Before { write: model.write.clone(), split: model.split.clone(), bytes: model.bytes.clone() };
    let read: Scores = rmp_serde::from_slice(&rmp_serde::to_vec_named(&before).unwrap()).unwrap();
    assert_eq!((read.pages.cases, &read.bytes), (0.0, &model.bytes));
}
