//! Sites that are worked out by hand.

use super::*;
use crate::forecast::Tick;
use crate::forecast::predictor::WIDTH;
use crate::forecast::signal::Key;
use crate::forecast::trace::Line;
use crate::types::Timestamp;

const S: i64 = 1_000_000;

/// Ticks of a minute: `(minute, partition, pages)`, each page by a write of its own, all in one place. Another partition
/// is written in the minute before all, which is not judged.
fn trace(lines: &[(i64, u32, u64)]) -> Trace {
    let most = lines.iter().map(|line| line.1).max().unwrap_or(0) + 1;
    let lines: Vec<(i64, u32, u64)> = [(0, most, 1)].iter().chain(lines).copied().collect();
    let names: Vec<Key> = (0..=most).map(|number| format!("p{number}").into()).collect();
    let tick = |&(minute, partition, pages): &(i64, u32, u64)| {
        let (end, span_us) = (Timestamp(minute * 60 * S), 60 * S);
        let bytes = pages * PAGE;
        let tick =
            Tick { end, span_us, writes: pages, pages, bytes, touched: 1, size: 64 << 20, ..Tick::default() };
        Line { partition, what: What::Tick(tick) }
    };
    Trace { source: "by hand".into(), tick_us: 60 * S, names, lines: lines.iter().map(tick).collect() }
}

fn run(trace: &Trace, policies: &[Policy], how: How) -> Vec<Report> {
    simulate(trace, policies, &how, None).unwrap()
}

/// No instants but incidents, all of the time judged, no bound of bytes to speak of.
fn incidents() -> How {
    How { random: 0, skip_share: 0.0, budget_share: 1e6, ..How::default() }
}

#[test]
fn a_burst_costs_what_had_gathered_before_it() {
    // Ten pages a minute, always the same ones, and in the sixth minute a burst of 200.
    let mut lines: Vec<(i64, u32, u64)> = (1..=5).map(|minute| (minute, 0, 10)).collect();
    lines.push((6, 0, 200));
    let site = trace(&lines);
    let reports = run(&site, &[Policy::None, Policy::Oracle], incidents());
    let [none, oracle] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((none.bursts.instants, none.incidents.instants, none.random.instants), (1, 1, 0));
    // Of 256 pages of a part, ten are written five times: a little more than ten, as chance would have it.
    assert!((10.0..50.0).contains(&none.bursts.extents), "{none:?}");
    assert!((none.cost.unwrap() - 1.0).abs() < 1e-9 && none.bakes == 0);
    // Who knows it bakes once, just before: 64 MiB read and written.
    assert_eq!((oracle.bakes, oracle.baked_bytes), (1, 2.0 * f64::from(64 << 20)), "{oracle:?}");
    assert_eq!((oracle.bursts.extents, oracle.cost, oracle.wasted_bytes), (0.0, Some(0.0), 0.0));
}

#[test]
fn the_standard_rule_bakes_by_the_hour_and_a_loss_is_restored_from_before_it() {
    // A hundred pages in the first minute, then nothing, then it is gone.
    let mut site = trace(&[(1, 0, 100), (120, 1, 1)]);
    site.lines.push(Line { partition: 0, what: What::Gone { at: Timestamp(121 * 60 * S) } });
    let reports = run(&site, &[Policy::None, Policy::Standard], incidents());
    assert_eq!((reports[0].losses.instants, reports[0].losses.extents), (1, 100.0));
    assert_eq!((reports[1].losses.extents, reports[1].bakes), (0.0, 1), "{:?}", reports[1]);
    assert_eq!(reports[1].wasted_bytes, 0.0);
    // With half of what a first shadow takes there is none.
    let share = 64.0 * f64::from(1 << 20) / (101.0 * PAGE as f64);
    let half = run(&site, &[Policy::Standard, Policy::Oracle], How { budget_share: share, ..incidents() });
    assert_eq!((half[0].bakes, half[0].losses.extents), (0, 100.0), "{:?}", half[0]);
}

#[test]
fn a_split_is_ready_when_its_shadow_is_nearly_all_of_it() {
    let mut site = trace(&[(1, 0, 100), (2, 1, 100), (3, 1, 100)]);
    let split = |minute: i64, partition| {
        let at = Timestamp(minute * 60 * S);
        Line { partition, what: What::Split { at, point: None } }
    };
    site.lines.extend([split(4, 0), split(4, 1)]);
    let reports = run(&site, &POLICIES[..2], incidents());
    assert_eq!((reports[0].splits_ready, reports[0].splits.instants), (Some(0.0), 2));
    assert_eq!(reports[1].splits_ready, Some(1.0));
}

#[test]
fn what_comes_before_the_judged_part_is_the_standard_rules() {
    let site = trace(&[(1, 0, 100), (50, 0, 100), (100, 0, 100)]);
    let how = How { skip_share: 0.7, random: 50, budget_share: 1e6, ..How::default() };
    let reports = run(&site, &[Policy::None, Policy::Standard], how);
    assert_eq!((reports[0].bakes, reports[0].baked_bytes), (0, 0.0), "what was baked before is not counted");
    assert_eq!(reports[0].random.instants, 30, "one in each step that is judged, and no step twice");
    // The shadow of the first minute is there for all: only what came since the second bake has gathered.
    assert!(reports[0].random.extents <= 100.0, "{:?}", reports[0]);
}

/// Thirty partitions: some always busy, some in bursts, some that go; by the hash of a seed.
fn random_site(seed: u64) -> Trace {
    let draw = |n: i64, what: &str| {
        let hash = blake3::hash(format!("{seed} {n} {what}").as_bytes());
        u64::from(hash.as_bytes()[0])
    };
    let mut lines = Vec::new();
    for minute in 1..=400i64 {
        for partition in 0..30i64 {
            let phase = (minute + 37 * partition) % 90;
            let pages = match partition % 3 {
                0 => 1 + draw(minute * 100 + partition, "steady") % 8,
                1 if phase < 3 => 64 + draw(minute * 100 + partition, "burst") % 128,
                1 => draw(minute * 100 + partition, "rest") / 200,
                _ if draw(minute * 100 + partition, "seldom") < 6 => 30,
                _ => 0,
            };
            if pages > 0 {
                lines.push((minute, partition as u32, pages));
            }
        }
    }
    let mut site = trace(&lines);
    site.lines.iter_mut().for_each(|line| {
        if let What::Tick(tick) = &mut line.what {
            // All over it: 256 pages.
            (tick.size, tick.touched) = (1 << 20, u64::MAX);
        }
    });
    site
}

/// Says what fading means say, but of a partition's number what is not so.
struct Liar;

impl Predictor for Liar {
    fn id(&self) -> String {
        "liar".into()
    }
    fn schema(&self) -> String {
        crate::forecast::features::schema_hash()
    }
    fn predict(&mut self, _: &[f32], rows: usize, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), rows * WIDTH);
        out.iter_mut().enumerate().for_each(|(index, value)| *value = (index * 7 % 11) as f32 / 11.0);
        Ok(())
    }
}

#[test]
fn nobody_is_better_than_the_oracle_and_nobody_worse_than_doing_nothing() {
    for seed in 0..4 {
        let site = random_site(seed);
        for budget_share in [0.05, 0.5, 2.0] {
            let how = How { budget_share, seed, random: 60, skip_share: 0.3, ..How::default() };
            let reports = simulate(&site, &POLICIES, &how, Some(&mut Liar)).unwrap();
            let cost = |index: usize| reports[index].cost.unwrap();
            assert!((cost(0) - 1.0).abs() < 1e-9 && reports[0].bakes == 0);
            for (index, report) in reports.iter().enumerate() {
                assert!(cost(index) <= 1.0 + 1e-9, "{report:?}");
                assert!(
                    cost(4) <= cost(index) + 1e-9,
                    "{} of {seed} at {budget_share}: {reports:?}",
                    report.policy
                );
                assert!(report.baked_bytes <= report.budget_bytes * (1.0 + 1e-9), "{report:?}");
                assert!(report.wasted_bytes <= report.baked_bytes);
            }
            let most = if budget_share < 0.1 { 0.99 } else { 0.9 };
            assert!(cost(4) < most, "the oracle does something: {:?}", reports[4]);
            assert!(cost(1) < 1.0 - 1e-3 || budget_share < 0.5, "so does the rule: {:?}", reports[1]);
            if seed == 0 {
                let again = simulate(&site, &POLICIES, &how, Some(&mut Liar)).unwrap();
                assert_eq!(again, reports, "the same seed gives the same figures");
            }
        }
    }
}

#[test]
fn no_budget_bakes_nothing() {
    let site = random_site(1);
    let how = How { budget_share: 0.0, skip_share: 0.3, ..How::default() };
    let reports = simulate(&site, &POLICIES, &how, Some(&mut Liar)).unwrap();
    for report in &reports {
        assert_eq!((report.bakes, report.random), (0, reports[0].random), "{}", report.policy);
    }
}

/// A small world, all of whose schedules can be tried.
#[test]
fn the_oracle_is_the_best_of_all_schedules() {
    let site = trace(&[(1, 0, 40), (2, 1, 20), (3, 0, 60), (4, 1, 90), (5, 0, 30), (6, 1, 10), (8, 0, 9)]);
    let how = How { random: 9, skip_share: 0.0, budget_share: 1e6, ..How::default() };
    let clock = Clock::of(&site, &how).unwrap();
    let seen =
        Site { trace: &site, how: &how, clock, instants: Instants::of(&site, &how, &clock), rate: 0.0 };
    let none = Run::new(&seen, Policy::None, &Plan::new()).whole(None).unwrap();
    let weights = Weights::of(&none);
    // The step of minute n is n: after each line, but for the last one, behind which nothing is restored.
    let stops = [(0, 2), (1, 0), (2, 1), (3, 0), (4, 1), (5, 0), (6, 1)];
    let schedules: Vec<Report> = (0u32..1 << stops.len())
        .map(|chosen| {
            let mut plan = Plan::new();
            let bits = stops.iter().enumerate();
            for (_, (step, partition)) in bits.filter(|(bit, _)| chosen & (1 << bit) != 0) {
                plan.entry(*step).or_default().push(*partition);
            }
            let mut report = Run::new(&seen, Policy::Oracle, &plan).whole(None).unwrap();
            report.weigh(&weights);
            report
        })
        .collect();
    for schedule in &schedules {
        let mut seen = Site { trace: &site, how: &how, clock, instants: seen.instants.clone(), rate: 0.0 };
        seen.rate = schedule.baked_bytes / clock.judged_secs();
        let mut best = seen.oracle(&weights, schedule.baked_bytes).unwrap();
        best.weigh(&weights);
        assert!(best.cost.unwrap() <= schedule.cost.unwrap() + 1e-9, "{best:?} {schedule:?}");
        assert!(best.baked_bytes <= schedule.baked_bytes + 1.0, "{best:?}");
    }
    // Nor is it better than it can be: with all the bytes of use it is the best of those that were tried.
    let least = schedules.iter().filter_map(|schedule| schedule.cost).fold(1.0, f64::min);
    let all = Site { trace: &site, how: &how, clock, instants: seen.instants.clone(), rate: 1e18 };
    let mut best = all.oracle(&weights, 1e18).unwrap();
    best.weigh(&weights);
    assert!((best.cost.unwrap() - least).abs() < 1e-9, "{best:?} {least}");
}

#[test]
fn policies_are_compared_by_blocks_of_time() {
    let site = random_site(2);
    let how = How { budget_share: 1.0, skip_share: 0.3, ..How::default() };
    let reports = run(&site, &[Policy::None, Policy::Standard, Policy::Oracle], how);
    let told = beside(&reports, "standard", "none", 1).unwrap();
    assert!(
        told.difference < 0.0 && told.interval[0] <= told.difference && told.difference <= told.interval[1]
    );
    assert!(told.interval[1] < 0.0, "it is better in every part: {told:?}");
    assert!((0.0..=1.0).contains(&told.way_to_oracle.unwrap()));
    assert_eq!(beside(&reports, "oracle", "standard", 1).unwrap().way_to_oracle, Some(1.0));
    assert_eq!(beside(&reports, "model", "standard", 1), None);
}

#[test]
fn a_model_that_fails_or_is_not_there_is_told_and_an_empty_trace_is_none() {
    struct Broken;
    impl Predictor for Broken {
        fn id(&self) -> String {
            String::new()
        }
        fn schema(&self) -> String {
            String::new()
        }
        fn predict(&mut self, _: &[f32], _: usize, _: &mut [f32]) -> Result<()> {
            Err(crate::error::Error::invalid("test", "no library"))
        }
    }
    let (site, how) = (random_site(3), How::default());
    let failed = simulate(&site, &[Policy::Model], &how, Some(&mut Broken)).unwrap_err();
    assert_eq!(failed.message, "no library");
    let none = simulate(&site, &[Policy::Model], &how, None).unwrap_err();
    assert!(none.message.contains("no model"), "{none}");
    assert_eq!(simulate(&Trace::default(), &POLICIES, &how, None).unwrap(), []);
}
