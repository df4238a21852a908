//! Replays a trace without a mount: what a policy would have baked, and what restores would have cost with it.
//!
//! - All begin alike: the standard rule keeps the shadows up to `How::skip_share` of the time; what comes after is judged.
//! - All have the same budget: bytes that baking may read and write, which gather evenly (`super::purse`).
//! - A restore of a partition at an instant costs the scattered extents that have gathered since its newest shadow of
//!   before, and the bytes of the partition. Without a shadow: since it was first seen.
//! - Instants: drawn by hash, at which the whole site is restored; and incidents, at which one partition is: just before a
//!   burst of writes, a split, the loss of its contents.
//! - A decision knows what was told up to then, and is made by `super::policy`; only the oracle knows more. Beside forecasts the
//!   standard rule goes on, as it does on a mount: here what it finds due shares the budget, and the order of worth.

mod clock;
mod instants;
mod oracle;
mod report;
mod run;
mod world;

pub use report::{Beside, Report, Restores, beside};

use super::policy::Costs;
use super::predictor::Predictor;
use super::trace::replay::SplitPolicy;
use super::trace::{Trace, What};
use crate::error::Result;
use crate::types::PAGE;
use clock::Clock;
use instants::Instants;
use oracle::Plan;
use report::Weights;
use run::Run;
use serde::Serialize;

/// Who decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Nothing is baked.
    None,
    /// The standard rule.
    Standard,
    /// The policy, with fading means for forecasts, and what the standard rule finds due.
    Ewma,
    /// The policy, with a model's forecasts, and what the standard rule finds due.
    Model,
    /// The least cost that the budget can buy, by someone who knows what comes.
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
    /// Bytes that baking may read and write, as a share of the bytes of the pages written in the time that is judged.
    pub budget_share: f64,
    /// Between two decisions, µs; a tick of the trace when zero.
    pub step_us: i64,
    /// Share of the trace, from its beginning, that is not judged: a model may have been trained on it.
    pub skip_share: f64,
    /// Instants drawn.
    pub random: usize,
    pub seed: u64,
    pub costs: Costs,
    /// Smaller partitions are not baked.
    pub least_bytes: u64,
}

impl Default for How {
    fn default() -> How {
        How {
            splits: SplitPolicy::Recorded,
            budget_share: 1.0,
            step_us: 0,
            skip_share: 0.8,
            random: 200,
            seed: 0,
            costs: Costs::default(),
            least_bytes: 0,
        }
    }
}

/// Replays a trace for each of the policies. `model` is asked for [`Policy::Model`].
///
/// # Errors
/// Those of the model, or that there is none.
pub fn simulate(
    trace: &Trace,
    policies: &[Policy],
    how: &How,
    mut model: Option<&mut (dyn Predictor + '_)>,
) -> Result<Vec<Report>> {
    let Some(clock) = Clock::of(trace, how) else { return Ok(Vec::new()) };
    let instants = Instants::of(trace, how, &clock);
    let site = Site { trace, how, clock, instants, rate: rate(trace, how, &clock) };
    let none = Run::new(&site, Policy::None, &Plan::new()).whole(None)?;
    let weights = Weights::of(&none);
    let mut reports = Vec::new();
    for policy in policies {
        let mut report = match policy {
            Policy::Oracle => site.oracle(&weights, none.budget_bytes)?,
            _ => Run::new(&site, *policy, &Plan::new()).whole(model.as_deref_mut())?,
        };
        report.weigh(&weights);
        reports.push(report);
    }
    Ok(reports)
}

/// Bytes per second that baking may take.
fn rate(trace: &Trace, how: &How, clock: &Clock) -> f64 {
    let judged = trace.lines.iter().filter(|line| clock.step_of(line.at()) > clock.begin);
    let pages: u64 = judged.map(|line| if let What::Tick(tick) = line.what { tick.pages } else { 0 }).sum();
    (pages * PAGE) as f64 * how.budget_share.max(0.0) / clock.judged_secs().max(1e-6)
}

/// What is simulated.
struct Site<'a> {
    trace: &'a Trace,
    how: &'a How,
    clock: Clock,
    instants: Instants,
    /// Bytes per second.
    rate: f64,
}

impl Site<'_> {
    /// What the oracle comes to: a mixture of two plans.
    fn oracle(&self, weights: &Weights, budget: f64) -> Result<Report> {
        let begin = Run::new(self, Policy::None, &Plan::new()).begun();
        let [below, above] =
            oracle::plans((self.trace, &self.clock), &begin, (&self.instants, weights), budget);
        let follow = |plan: &Plan| Run::new(self, Policy::Oracle, plan).whole(None);
        Ok(follow(&below)?.mixed(&follow(&above)?))
    }
}

#[cfg(test)]
mod tests;
