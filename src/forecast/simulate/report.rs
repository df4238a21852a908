//! What came of a policy, and how far that is from others.

use super::How;
use super::instants::{Restored, draw};
use super::world::{Taken, World};
use crate::forecast::policy::Costs;
use serde::Serialize;

/// Blocks of time that are drawn when an interval is estimated: neighbours in time are not independent.
pub const BLOCKS: usize = 12;
/// How often they are drawn.
const DRAWS: usize = 1_000;

/// What restores at some instants cost, on average.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Restores {
    pub instants: u64,
    /// Scattered extents that are looked for.
    pub extents: f64,
    /// Bytes read.
    pub bytes: f64,
    /// Seconds, by the policy's costs.
    pub secs: f64,
}

/// Sums over instants.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Sum {
    instants: u64,
    extents: f64,
    bytes: f64,
}

impl Sum {
    fn add(&mut self, taken: &Taken) {
        self.instants += 1;
        self.extents += taken.extents;
        self.bytes += taken.bytes;
    }

    fn mean(&self, costs: &Costs) -> Restores {
        let count = self.instants.max(1) as f64;
        let (extents, bytes) = (self.extents / count, self.bytes / count);
        let secs = extents * costs.seek_secs + bytes / costs.bytes_per_sec;
        Restores { instants: self.instants, extents, bytes, secs }
    }
}

const SITE: usize = 0;
const BURSTS: usize = 1;
const SPLITS: usize = 2;
const LOSSES: usize = 3;

fn kind(restored: Restored) -> usize {
    match restored {
        Restored::Site => SITE,
        Restored::Burst(_) => BURSTS,
        Restored::Split(_) => SPLITS,
        Restored::Loss(_) => LOSSES,
    }
}

/// Collects what restores took.
pub(super) struct Tally {
    sums: [Sum; 4],
    ready: u64,
    /// Extents by block of time: at random instants, at incidents.
    blocks: [[f64; 2]; BLOCKS],
}

impl Tally {
    pub fn new() -> Tally {
        Tally { sums: Default::default(), ready: 0, blocks: [[0.0; 2]; BLOCKS] }
    }

    /// `share`: how much of the judged time had passed.
    pub fn add(&mut self, restored: Restored, taken: &Taken, share: f64) {
        let kind = kind(restored);
        if let Some(sum) = self.sums.get_mut(kind) {
            sum.add(taken);
        }
        self.ready += u64::from(kind == SPLITS && taken.ready);
        let block = ((share * BLOCKS as f64) as usize).min(BLOCKS - 1);
        let part = usize::from(kind != SITE);
        if let Some(extents) = self.blocks.get_mut(block).and_then(|block| block.get_mut(part)) {
            *extents += taken.extents;
        }
    }

    pub fn report(&self, policy: &'static str, world: &World, budget_bytes: f64, how: &How) -> Report {
        let mean = |kinds: &[usize]| {
            let mut all = Sum::default();
            for sum in kinds.iter().filter_map(|kind| self.sums.get(*kind)) {
                all.instants += sum.instants;
                all.extents += sum.extents;
                all.bytes += sum.bytes;
            }
            all.mean(&how.costs)
        };
        let splits = mean(&[SPLITS]);
        Report {
            policy,
            random: mean(&[SITE]),
            incidents: mean(&[BURSTS, SPLITS, LOSSES]),
            bursts: mean(&[BURSTS]),
            splits,
            losses: mean(&[LOSSES]),
            splits_ready: (splits.instants > 0).then(|| self.ready as f64 / splits.instants as f64),
            cost: None,
            budget_bytes,
            baked_bytes: world.baked,
            bakes: world.bakes,
            wasted_bytes: world.wasted(),
            blocks: self.blocks,
            weights: Weights::default(),
        }
    }
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
    /// Share of the splits at which the shadow had at least nine tenths of the partition.
    pub splits_ready: Option<f64>,
    /// Extents beside those of `none`: the mean of the two shares, at random instants and at incidents. What the oracle
    /// makes as small as can be. `None`: nothing had to be looked for.
    pub cost: Option<f64>,
    pub budget_bytes: f64,
    pub baked_bytes: f64,
    pub bakes: u64,
    /// Of shadows that were replaced, or left over, without an instant that used them.
    pub wasted_bytes: f64,
    #[serde(skip)]
    blocks: [[f64; 2]; BLOCKS],
    #[serde(skip)]
    weights: Weights,
}

impl Restores {
    fn mixed(&self, other: &Restores, share: f64) -> Restores {
        let mix = |a: f64, b: f64| a + (b - a) * share;
        Restores {
            instants: self.instants,
            extents: mix(self.extents, other.extents),
            bytes: mix(self.bytes, other.bytes),
            secs: mix(self.secs, other.secs),
        }
    }
}

impl Report {
    /// Of two plans as much of each as takes the budget.
    pub(super) fn mixed(&self, other: &Report) -> Report {
        let (below, above) = (self.baked_bytes, other.baked_bytes);
        let whole = above - below;
        let share = if whole > 0.0 { ((self.budget_bytes - below) / whole).clamp(0.0, 1.0) } else { 0.0 };
        let mix = |a: f64, b: f64| a + (b - a) * share;
        let mut mixed = self.clone();
        let restores = |part: fn(&mut Report) -> &mut Restores, mixed: &mut Report| {
            let other = *part(&mut other.clone());
            let both = part(mixed).mixed(&other, share);
            *part(mixed) = both;
        };
        restores(|report| &mut report.random, &mut mixed);
        restores(|report| &mut report.incidents, &mut mixed);
        restores(|report| &mut report.bursts, &mut mixed);
        restores(|report| &mut report.splits, &mut mixed);
        restores(|report| &mut report.losses, &mut mixed);
        mixed.splits_ready = self.splits_ready.zip(other.splits_ready).map(|(a, b)| mix(a, b));
        mixed.baked_bytes = mix(below, above);
        mixed.bakes = mix(self.bakes as f64, other.bakes as f64).round() as u64;
        mixed.wasted_bytes = mix(self.wasted_bytes, other.wasted_bytes);
        for (block, other) in mixed.blocks.iter_mut().zip(&other.blocks) {
            block.iter_mut().zip(other).for_each(|(a, b)| *a = mix(*a, *b));
        }
        mixed
    }
}

/// What one extent counts at random instants and at incidents, of all that `none` has to look for.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Weights(pub [f64; 2]);

impl Weights {
    pub fn of(none: &Report) -> Weights {
        let sums = none.sums();
        let parts = sums.iter().filter(|sum| **sum > 0.0).count().max(1) as f64;
        Weights(sums.map(|sum| if sum > 0.0 { 1.0 / (sum * parts) } else { 0.0 }))
    }

    pub fn at(&self, restored: Restored) -> f64 {
        let [site, incident] = self.0;
        if kind(restored) == SITE { site } else { incident }
    }

    fn cost(&self, [random, incidents]: [f64; 2]) -> f64 {
        let [site, incident] = self.0;
        random * site + incidents * incident
    }
}

impl Report {
    fn sums(&self) -> [f64; 2] {
        let extents = |of: &Restores| of.extents * of.instants as f64;
        [extents(&self.random), extents(&self.incidents)]
    }

    pub(super) fn weigh(&mut self, weights: &Weights) {
        let known = weights.0.iter().any(|weight| *weight > 0.0);
        self.cost = known.then(|| weights.cost(self.sums()));
        self.weights = *weights;
    }
}

/// One policy beside another.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Beside {
    pub policy: &'static str,
    pub other: &'static str,
    /// Cost of the first less that of the other: below zero the first is better.
    pub difference: f64,
    /// 90 % of the draws of blocks of time lie within.
    pub interval: [f64; 2],
    /// How far the first goes from the other's cost to the oracle's: 1 is all of it. `None`: no oracle, or no way to go.
    pub way_to_oracle: Option<f64>,
}

/// Compares policies of one simulation; `None` when one is not there or nothing had to be looked for.
pub fn beside(reports: &[Report], policy: &str, other: &str, seed: u64) -> Option<Beside> {
    let find = |name: &str| reports.iter().find(|report| report.policy == name);
    let (first, second) = (find(policy)?, find(other)?);
    let difference = first.cost? - second.cost?;
    let way = find("oracle").and_then(|oracle| {
        let all = second.cost? - oracle.cost?;
        (all > 1e-9).then(|| -difference / all)
    });
    let interval = interval(first, second, seed);
    Some(Beside { policy: first.policy, other: second.policy, difference, interval, way_to_oracle: way })
}

/// By drawing blocks of time with replacement (Künsch, 1989). Weights stay: they are the same for both.
fn interval(first: &Report, second: &Report, seed: u64) -> [f64; 2] {
    let cost = |report: &Report, block: usize| {
        report.weights.cost(report.blocks.get(block).copied().unwrap_or_default())
    };
    let each: Vec<f64> = (0..BLOCKS).map(|block| cost(first, block) - cost(second, block)).collect();
    let pick = |n: usize| ((draw(!seed, n) * BLOCKS as f64) as usize).min(BLOCKS - 1);
    let drawn = |n: usize| (0..BLOCKS).filter_map(|index| each.get(pick(n * BLOCKS + index))).sum::<f64>();
    let mut drawn: Vec<f64> = (0..DRAWS).map(drawn).collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| drawn.get((share * DRAWS as f64) as usize).copied().unwrap_or_default();
    [at(0.05), at(0.95)]
}
