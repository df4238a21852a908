//! Simulation of a site that is known by heart.

use super::*;
use crate::forecast::trace::build::Builder;

const S: i64 = 1_000_000;

/// Twenty partitions: some written all the time, some in bursts with hours of rest, one that grows and splits, some that go.
fn site() -> Trace {
    let mut builder = Builder::new(60 * S, "site");
    for minute in 0..1_440i64 {
        let at = Timestamp(minute * 60 * S);
        for n in 0..5 {
            let page = (minute as u64 * 37 + n * 11) % 4_096;
            builder.write(&format!("hot/{n}"), at, (page * 4_096, 16_384), 0, 16 << 20);
        }
        for n in 0..10i64 {
            let phase = (minute + n * 50) % 360;
            let name = format!("bursty/{n}");
            if phase < 20 {
                let begin = (minute as u64 * 1_009) % 2_048 * 4_096;
                builder.write(&name, at, (begin, 200 * 4_096), 0, 16 << 20);
            } else if phase == 359 || phase == 100 {
                builder.write(&name, at, (0, 4_096), 0, 16 << 20);
            }
        }
        let size = (minute as u64 + 1) * 40_960;
        builder.write("grow/1", at, (size - 40_960, 40_960), 40_960, size);
        if minute % 400 == 399 {
            builder.gone(&format!("bursty/{}", minute / 400), at);
        }
    }
    builder.finish()
}

fn run(policy: Policy, how: How) -> Report {
    simulate(&site(), policy, how, &mut |_, rows| Ok(vec![0.5; rows * WIDTH])).unwrap()
}

fn how() -> How {
    How { splits: SplitPolicy::Size(8 << 20), random: 50, step_us: 300 * S, ..How::default() }
}

#[test]
fn the_same_seed_gives_the_same_report() {
    for policy in POLICIES {
        assert_eq!(run(policy, how()), run(policy, how()), "{policy:?}");
    }
    let other = run(Policy::None, How { seed: 9, ..how() });
    assert_ne!(run(Policy::None, how()).random, other.random);
}

#[test]
fn shadows_save_what_nothing_costs() {
    let none = run(Policy::None, how());
    assert_eq!((none.bakes, none.baked_bytes, none.wasted_bytes), (0, 0.0, 0.0));
    assert!(none.random.instants == 50 && none.bursts.instants > 10 && none.splits.instants == 6);
    assert!(none.losses.instants >= 3);
    assert_eq!(none.splits_ready, Some(0.0));
    for policy in [Policy::Standard, Policy::Ewma, Policy::Oracle] {
        let report = run(policy, how());
        assert!(report.random.extents < none.random.extents, "{report:?}");
        assert!(report.baked_bytes <= report.budget_bytes * 1.05 + 40e6, "{report:?}");
        assert!(report.wasted_bytes <= report.baked_bytes);
    }
}

#[test]
fn no_budget_bakes_nothing() {
    let none = run(Policy::None, how());
    for policy in POLICIES {
        let report = run(policy, How { budget_share: 0.0, ..how() });
        assert_eq!((report.bakes, report.random), (0, none.random));
    }
}

#[test]
fn a_model_that_fails_is_told() {
    let failed = simulate(&site(), Policy::Model, how(), &mut |_, _| {
        Err(crate::error::Error::invalid("test", "no library"))
    });
    assert_eq!(failed.unwrap_err().message, "no library");
    assert_eq!(run(Policy::None, How { skip_share: 1.0, ..how() }).incidents.instants, 0);
    let empty = simulate(&Trace::default(), Policy::Standard, how(), &mut |_, _| Ok(Vec::new())).unwrap();
    assert_eq!(empty.random.instants, 0);
}
