//! Rows with labels, for training: the features of partitions at moments of a trace, what happened afterwards, and what
//! the baselines said.
//!
//! Busy partitions are all in, up to a limit; of idle ones, and of busy ones beyond it, a share that is drawn by hash, and
//! weighs as much more. A partition is known from its first line until it is gone.

use super::labels::{self, Future};
use super::replay::{Replay, SplitPolicy};
use super::{Trace, What};
use crate::forecast::baseline;
use crate::forecast::features::{self, Features, Setup, State};
use crate::forecast::predictor::WIDTH;
use crate::forecast::signal::Key;
use crate::types::Timestamp;
use std::collections::HashMap;

/// A partition is busy for so many ticks after something happened to it.
const BUSY_TICKS: i64 = 30;

/// What is wanted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Wanted {
    pub policy: SplitPolicy,
    /// Between moments, µs; a tick of the trace when zero.
    pub step_us: i64,
    /// About so many rows at most; busy ones count against it, and are in all the same.
    pub rows: u64,
    /// About so many rows at most, busy or not.
    pub most: u64,
    /// Changes which rows are drawn.
    pub seed: u64,
}

/// Bytes of a row, in all that a [`Batch`] has of it.
pub const ROW_BYTES: u64 =
    (4 * (features::COUNT + labels::COUNT + baseline::ALL.len() * WIDTH) + 4 + 8 + 4) as u64;

/// How many rows [`walk`] makes, about.
pub fn expected(trace: &Trace, wanted: &Wanted) -> u64 {
    let counts = count(trace, wanted.step(trace));
    let shares = Shares::new(&counts, wanted);
    (counts.busy * shares.busy + counts.idle * shares.idle) as u64
}

impl Wanted {
    fn step(&self, trace: &Trace) -> i64 {
        if self.step_us > 0 { self.step_us } else { trace.tick_us.max(1) }
    }
}

/// One moment's rows.
pub struct Batch {
    pub at: Timestamp,
    /// Numbers of the partitions in the trace.
    pub partitions: Vec<u32>,
    /// Row by row: `features::COUNT` each.
    pub features: Vec<f32>,
    /// Row by row: `labels::COUNT` each.
    pub labels: Vec<f32>,
    /// How many rows each stands for.
    pub weights: Vec<f32>,
    /// By baseline in the order of `baseline::ALL`; row by row, `predictor::WIDTH` each.
    pub baselines: Vec<Vec<f32>>,
}

/// Calls `take` with the rows of each moment, in order.
///
/// # Errors
/// Those of `take`.
pub fn walk<E>(trace: &Trace, wanted: Wanted, mut take: impl FnMut(Batch) -> Result<(), E>) -> Result<(), E> {
    let Some((first, last)) = trace.reach() else { return Ok(()) };
    let step = wanted.step(trace);
    let begin = (first.0.div_euclid(step) + 1) * step;
    let shares = Shares::new(&count(trace, step), &wanted);
    let numbers: HashMap<&str, u32> =
        (0..).zip(&trace.names).map(|(number, name)| (&**name, number)).collect();
    let future = Future::new(trace, wanted.policy);
    let split_bytes = wanted.policy.split_bytes();
    let most = trace.names.len().max(1) + 1;
    let mut features = Features::new(Setup { split_bytes, most });
    let mut replay = Replay::new(trace, wanted.policy);
    let mut now = Timestamp(begin);
    while now <= last {
        replay.upto(now, &mut features);
        let pick = |key: &Key, state: &State| {
            let share = shares.of(is_busy(state, now, trace.tick_us));
            share >= 1.0 || draw(key, now, wanted.seed) < share
        };
        let rows = features.rows_of(now, &pick);
        let mut batch = Batch {
            at: now,
            partitions: Vec::with_capacity(rows.keys.len()),
            features: rows.values,
            labels: Vec::new(),
            weights: Vec::new(),
            baselines: vec![Vec::with_capacity(rows.keys.len() * WIDTH); baseline::ALL.len()],
        };
        for key in &rows.keys {
            let (Some(number), Some(state)) = (numbers.get(&**key), features.state(key)) else { continue };
            batch.partitions.push(*number);
            future.push(&mut batch.labels, usize::try_from(*number).unwrap_or(usize::MAX), now);
            batch.weights.push((1.0 / shares.of(is_busy(state, now, trace.tick_us))) as f32);
            for (baseline, rows) in baseline::ALL.iter().zip(&mut batch.baselines) {
                rows.extend(baseline.row(state, now, split_bytes, features.split_rate()));
            }
        }
        take(batch)?;
        now = Timestamp(now.0 + step);
    }
    Ok(())
}

fn is_busy(state: &State, now: Timestamp, tick_us: i64) -> bool {
    now.0.saturating_sub(state.last().end.0) <= tick_us.saturating_mul(BUSY_TICKS)
}

/// A number in 0 to 1 that is the same for the same row and seed.
fn draw(key: &str, now: Timestamp, seed: u64) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&now.0.to_le_bytes());
    hasher.update(key.as_bytes());
    let bytes = hasher.finalize();
    let head = bytes.as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
    head as f64 / u64::MAX as f64
}

/// Rows of a trace, about.
struct Counts {
    busy: f64,
    idle: f64,
}

/// Which share of rows is in.
struct Shares {
    busy: f64,
    idle: f64,
}

impl Shares {
    fn new(counts: &Counts, wanted: &Wanted) -> Shares {
        let busy = (wanted.most as f64 / counts.busy.max(1.0)).clamp(0.001, 1.0);
        let left = wanted.rows.min(wanted.most) as f64 - counts.busy * busy;
        Shares { busy, idle: (left / counts.idle.max(1.0)).clamp(0.001, 1.0) }
    }

    fn of(&self, is_busy: bool) -> f64 {
        if is_busy { self.busy } else { self.idle }
    }
}

/// How many rows there are.
fn count(trace: &Trace, step: i64) -> Counts {
    let Some((_, end)) = trace.reach() else { return Counts { busy: 0.0, idle: 0.0 } };
    let busy_us = trace.tick_us.saturating_mul(BUSY_TICKS);
    // Of each partition: since when it is known, and until when it is busy; of all, µs known and µs busy.
    let mut known: Vec<Option<(i64, i64)>> = vec![None; trace.names.len()];
    let (mut all, mut busy) = (0.0, 0.0);
    for line in &trace.lines {
        let Some(slot) = usize::try_from(line.partition).ok().and_then(|index| known.get_mut(index)) else {
            continue;
        };
        let at = line.at().0;
        match (line.what, *slot) {
            (What::Tick(_), None) => {
                busy += busy_us as f64;
                *slot = Some((at, at.saturating_add(busy_us)));
            }
            (What::Tick(_), Some((since, until))) => {
                let more = at.saturating_add(busy_us);
                busy += (more - until.max(at)) as f64;
                *slot = Some((since, more));
            }
            (What::Gone { .. }, Some((since, _))) => {
                all += (at - since) as f64;
                *slot = None;
            }
            _ => {}
        }
    }
    all += known.iter().flatten().map(|(since, _)| (end.0 - since) as f64).sum::<f64>();
    let (all, busy) = (all / step.max(1) as f64, busy / step.max(1) as f64);
    Counts { busy, idle: (all - busy).max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::trace::build::Builder;

    fn trace() -> Trace {
        let mut builder = Builder::new(60_000_000, "t");
        for n in 0..300i64 {
            let at = Timestamp(n * 60_000_000);
            builder.write("hot", at, (0, 4096), 4096, (n as u64 + 1) * 4096);
            if n < 200 {
                builder.write(&format!("cold/{n}"), at, (0, 4096), 4096, 4096);
            }
        }
        builder.finish()
    }

    fn rows(wanted: Wanted) -> (Vec<(i64, u32)>, f64, String) {
        let (mut listed, mut weight) = (Vec::new(), 0.0);
        let mut hasher = blake3::Hasher::new();
        let taken: Result<(), ()> = walk(&trace(), wanted, |batch| {
            assert_eq!(batch.features.len(), batch.partitions.len() * features::COUNT);
            assert_eq!(batch.labels.len(), batch.partitions.len() * labels::COUNT);
            assert!(batch.baselines.iter().all(|rows| rows.len() == batch.partitions.len() * WIDTH));
            listed.extend(batch.partitions.iter().map(|number| (batch.at.0, *number)));
            weight += batch.weights.iter().map(|weight| f64::from(*weight)).sum::<f64>();
            batch.features.iter().chain(&batch.labels).for_each(|value| {
                hasher.update(&value.to_le_bytes());
            });
            Ok(())
        });
        taken.unwrap();
        (listed, weight, hasher.finalize().to_hex().to_string())
    }

    #[test]
    fn idle_rows_are_drawn_and_weigh_more() {
        let policy = SplitPolicy::Size(1 << 20);
        let all = rows(Wanted { policy, step_us: 0, rows: u64::MAX, most: u64::MAX, seed: 1 });
        let some = rows(Wanted { policy, step_us: 0, rows: 15_000, most: u64::MAX, seed: 1 });
        assert!(some.0.len() < 20_000 && all.0.len() > 35_000, "{} {}", some.0.len(), all.0.len());
        assert!((some.1 / all.1 - 1.0).abs() < 0.1, "{} {}", some.1, all.1);
        assert!((all.1 - all.0.len() as f64).abs() < 1e-6);
        let hot = |rows: &[(i64, u32)]| rows.iter().filter(|row| row.1 == 0).count();
        assert_eq!(hot(&some.0), hot(&all.0), "what is busy is in");
    }

    /// What a disk must have room for does not grow with how busy a site is.
    #[test]
    fn busy_rows_are_drawn_too_where_there_is_a_limit_and_how_many_there_are_is_known_before() {
        let policy = SplitPolicy::Size(1 << 20);
        let all = Wanted { policy, step_us: 0, rows: u64::MAX, most: u64::MAX, seed: 1 };
        let few = Wanted { rows: 2_000, most: 2_000, ..all };
        let (of_all, of_few) = (rows(all), rows(few));
        assert!(of_few.0.len() < 3_000, "{}", of_few.0.len());
        assert!((of_few.1 / of_all.1 - 1.0).abs() < 0.2, "{} {}", of_few.1, of_all.1);
        for (wanted, made) in [(all, of_all.0.len()), (few, of_few.0.len())] {
            let said = expected(&trace(), &wanted) as f64;
            assert!((said / made as f64 - 1.0).abs() < 0.2, "{said} {made}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_rows() {
        let policy = SplitPolicy::Recorded;
        let wanted = Wanted { policy, step_us: 300_000_000, rows: 1_000, most: u64::MAX, seed: 7 };
        assert_eq!(rows(wanted), rows(wanted));
        assert_ne!(rows(wanted).0, rows(Wanted { seed: 8, ..wanted }).0);
    }
}
