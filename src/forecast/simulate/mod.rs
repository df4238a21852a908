//! Replays a trace without a mount: what a policy would have baked, and what restores would have cost with it.
//!
//! - All policies have the same budget: bytes that baking may read and write, which gather evenly and do not pile up
//!   beyond an hour's.
//! - A restore of a partition at a moment costs the extents that have gathered since its newest shadow of before, each
//!   to be found by itself, and the bytes of the partition.
//! - Instants: drawn by hash, at which the whole site is restored; and incidents, at which one partition is: just before
//!   a burst of writes, a split, the loss of partitions.
//! - A decision at a moment knows what was told up to then; only the oracle knows more.

mod instants;
mod world;

use super::baseline;
use super::features::{Features, Setup};
use super::policy::{self, Costs, Decision};
use super::predictor::{Forecast, HORIZONS, SPLIT_HORIZONS, WIDTH};
use super::signal::Key;
use super::trace::Trace;
use super::trace::labels::Future;
use super::trace::replay::{Replay, SplitPolicy};
use crate::error::Result;
use crate::types::Timestamp;
use instants::Instants;
use serde::Serialize;
use world::World;

/// Who decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Nothing is baked.
    None,
    /// The standard rule.
    Standard,
    /// The policy, with fading means for forecasts.
    Ewma,
    /// The policy, with a model's forecasts.
    Model,
    /// The policy, with what comes for forecasts.
    Oracle,
}

/// All policies.
pub const POLICIES: [Policy; 5] =
    [Policy::None, Policy::Standard, Policy::Ewma, Policy::Model, Policy::Oracle];

impl Policy {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Policy::None => "none",
            Policy::Standard => "standard",
            Policy::Ewma => "ewma",
            Policy::Model => "model",
            Policy::Oracle => "oracle",
        }
    }
}

/// How to simulate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct How {
    pub splits: SplitPolicy,
    /// Share of the bytes written that baking may read and write.
    pub budget_share: f64,
    /// Between two decisions, µs; a tick of the trace when zero.
    pub step_us: i64,
    /// Share of the trace, from its beginning, in which nothing is scored: a model may have been trained on it.
    pub skip_share: f64,
    /// Instants drawn.
    pub random: usize,
    pub seed: u64,
    pub costs: Costs,
}

impl Default for How {
    fn default() -> How {
        How {
            splits: SplitPolicy::Recorded,
            budget_share: 0.2,
            step_us: 0,
            skip_share: 0.0,
            random: 200,
            seed: 0,
            costs: Costs::default(),
        }
    }
}

/// What restores at some instants cost, on average.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Restores {
    pub instants: u64,
    /// Scattered extents that are looked for.
    pub extents: f64,
    /// Bytes read.
    pub bytes: f64,
    /// By the policy's costs.
    pub secs: f64,
}

/// What came of a policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    pub policy: &'static str,
    /// Of the whole site, at random instants.
    pub random: Restores,
    /// Of one partition, just before an incident; by kind below.
    pub incidents: Restores,
    pub bursts: Restores,
    pub splits: Restores,
    pub losses: Restores,
    /// Splits at which the shadow had at least nine tenths of what had been written.
    pub splits_ready: Option<f64>,
    pub budget_bytes: f64,
    pub baked_bytes: f64,
    pub bakes: u64,
    /// Of shadows that were replaced, or left over, without an instant that used them.
    pub wasted_bytes: f64,
}

/// Replays a trace. `model` answers a batch of features with a batch of outputs, for [`Policy::Model`].
///
/// # Errors
/// Those of the model.
pub fn simulate(
    trace: &Trace,
    policy: Policy,
    how: How,
    model: &mut dyn FnMut(&[f32], usize) -> Result<Vec<f32>>,
) -> Result<Report> {
    let mut world = World::new(policy.name(), how.costs);
    let Some((first, last)) = trace.reach() else { return Ok(world.report()) };
    let step = if how.step_us > 0 { how.step_us } else { trace.tick_us.max(1) };
    let begin = Timestamp(first.0 + ((last.0 - first.0) as f64 * how.skip_share.clamp(0.0, 1.0)) as i64);
    let future = Future::new(trace, how.splits);
    let instants = Instants::of(trace, how, (begin, last));
    let per_step = budget_per_step(trace, how, step);
    let most = trace.names.len().max(1) + 1;
    let mut features = Features::new(Setup { split_bytes: how.splits.split_bytes(), most });
    let mut replay = Replay::new(trace, how.splits);
    let mut now = Timestamp((first.0.div_euclid(step) + 1) * step);
    let mut budget = 0.0;
    let piles_up = per_step * (3_600e6 / step as f64).max(4.0);
    while now.0 <= last.0 + step {
        let lines = replay.upto(now, &mut features);
        // The instants of this stretch lie before what happens in it: nobody knew it yet.
        world.restore(&instants.within(now, step));
        lines.iter().for_each(|line| world.take(line, trace));
        budget = (budget + per_step).min(piles_up);
        if policy != Policy::None {
            let said = forecasts(policy, (&features, &future, trace), now, model)?;
            let decisions = decide(policy, &world, said, &how.costs, budget);
            for decision in decisions.iter().filter(|decision| decision.bake) {
                budget -= decision.bytes;
                world.bake(&decision.partition, decision.bytes, now);
            }
            world.budget_bytes += per_step;
        }
        now = Timestamp(now.0 + step);
    }
    Ok(world.report())
}

/// Forecasts by partition, from whoever the policy believes.
type Said = Vec<(Key, Option<Forecast>)>;

fn forecasts(
    policy: Policy,
    (features, future, trace): (&Features, &Future, &Trace),
    now: Timestamp,
    model: &mut dyn FnMut(&[f32], usize) -> Result<Vec<f32>>,
) -> Result<Said> {
    let split_bytes = features.split_bytes();
    match policy {
        Policy::None | Policy::Standard => Ok(Vec::new()),
        Policy::Model => {
            let rows = features.rows(now);
            let out = model(&rows.values, rows.keys.len())?;
            let answers = out.chunks_exact(WIDTH).map(Forecast::from_row);
            Ok(rows.keys.iter().cloned().zip(answers).collect())
        }
        Policy::Ewma => {
            let said = |key: &Key| {
                let state = features.state(key)?;
                Some((Key::clone(key), baseline::without_model(state, now, split_bytes)))
            };
            Ok(trace.names.iter().filter_map(said).collect())
        }
        Policy::Oracle => {
            let known = trace.names.iter().enumerate().filter(|(_, key)| features.state(key).is_some());
            let said = |(number, key): (usize, &Key)| {
                (Key::clone(key), Some(what_comes(future, number, now)))
            };
            Ok(known.map(said).collect())
        }
    }
}

/// What comes, as a forecast. What lies beyond the trace's end is as nothing.
fn what_comes(future: &Future, partition: usize, now: Timestamp) -> Forecast {
    let mut forecast = Forecast { split_secs: [3.2e9; 3], split_point: 0.5, ..Forecast::default() };
    for (horizon, said) in SPLIT_HORIZONS.into_iter().zip(&mut forecast.p_split) {
        let splits = future.splits_within(partition, now, horizon).unwrap_or(false);
        *said = f32::from(u8::from(splits));
    }
    if let Some((at, _)) = future.split_after(partition, now) {
        forecast.split_secs = [((at.0 - now.0) as f64 / 1e6) as f32; 3];
    }
    for (index, horizon) in HORIZONS.into_iter().enumerate() {
        let until = future.end().0.saturating_sub(now.0) / 1_000_000;
        let secs = u32::try_from(until).unwrap_or(u32::MAX).min(horizon);
        let outcome = future.within(partition, now, secs).unwrap_or_default();
        let put = |list: &mut [f32; 4], value: f64| {
            if let Some(slot) = list.get_mut(index) {
                *slot = value as f32;
            }
        };
        put(&mut forecast.pages, outcome.pages);
        put(&mut forecast.bytes, outcome.bytes);
        put(&mut forecast.reads, outcome.reads);
        put(&mut forecast.p_quiet, f64::from(u8::from(outcome.writes == 0.0)));
    }
    forecast
}

fn decide(policy: Policy, world: &World, said: Said, costs: &Costs, budget: f64) -> Vec<Decision> {
    match policy {
        Policy::Standard => policy::standard(&world.candidates(Vec::new()), budget),
        _ => policy::decide(&world.candidates(said), costs, budget),
    }
}

fn budget_per_step(trace: &Trace, how: How, step: i64) -> f64 {
    let Some((first, last)) = trace.reach() else { return 0.0 };
    let written: f64 = trace
        .lines
        .iter()
        .map(|line| match line.what {
            super::trace::What::Tick(tick) => tick.pages as f64 * crate::types::PAGE as f64,
            _ => 0.0,
        })
        .sum();
    let steps = ((last.0 - first.0) as f64 / step as f64).max(1.0);
    written * how.budget_share.max(0.0) / steps
}

#[cfg(test)]
mod tests;
