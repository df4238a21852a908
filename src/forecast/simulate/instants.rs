//! The instants at which something is restored.

use super::How;
use super::clock::Clock;
use crate::forecast::Tick;
use crate::forecast::trace::replay::splits;
use crate::forecast::trace::{Trace, What};
use crate::types::Timestamp;

/// A burst writes so many times the pages of a usual tick, and at least so many.
const BURST_TIMES: f64 = 8.0;
const BURST_PAGES: f64 = 64.0;
/// Weight of a tick in what is usual.
const USUAL: f64 = 0.05;
/// A partition that shrinks by more than this share has lost its contents.
const LOST: f64 = 0.5;

/// What is restored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Restored {
    /// Everything, at an instant drawn by hash.
    Site,
    /// One partition, before a burst of writes to it.
    Burst(u32),
    /// Before it splits.
    Split(u32),
    /// Before its files go, or most of its bytes.
    Loss(u32),
}

impl Restored {
    /// The partition of an incident.
    pub(super) fn partition(self) -> Option<u32> {
        match self {
            Restored::Site => None,
            Restored::Burst(number) | Restored::Split(number) | Restored::Loss(number) => Some(number),
        }
    }
}

/// By the step at whose beginning they lie, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Instants(Vec<(usize, Restored)>);

impl Instants {
    /// Those that are judged: in steps after `clock.begin`.
    pub(super) fn of(trace: &Trace, how: &How, clock: &Clock) -> Instants {
        let mut all = random(how, clock);
        let incident = |at: Timestamp, restored| (clock.step_of(at), restored);
        all.extend(splits(trace, how.splits).iter().map(|split| incident(split.1, Restored::Split(split.0))));
        let mut usual: Vec<Usual> = vec![Usual::default(); trace.names.len()];
        for line in &trace.lines {
            let index = usize::try_from(line.partition).unwrap_or(usize::MAX);
            let Some(usual) = usual.get_mut(index) else { continue };
            let found = match line.what {
                What::Gone { .. } => {
                    *usual = Usual::default();
                    Some(Restored::Loss(line.partition))
                }
                What::Tick(tick) => usual.take(&tick, line.partition),
                What::Split { .. } | What::Query { .. } | What::Ddl { .. } => None,
            };
            all.extend(found.map(|restored| incident(line.at(), restored)));
        }
        all.retain(|(step, _)| *step > clock.begin && *step < clock.steps);
        all.sort_unstable();
        all.dedup();
        Instants(all)
    }

    /// Those at the beginning of a step.
    pub(super) fn at(&self, step: usize) -> impl Iterator<Item = Restored> {
        let begin = self.0.partition_point(|(at, _)| *at < step);
        self.0.iter().skip(begin).take_while(move |(at, _)| *at == step).map(|(_, restored)| *restored)
    }

    pub(super) fn all(&self) -> &[(usize, Restored)] {
        &self.0
    }
}

/// Instants drawn by hash, one from each of as many equal parts of the time that is judged.
fn random(how: &How, clock: &Clock) -> Vec<(usize, Restored)> {
    let length = clock.steps.saturating_sub(clock.begin + 1) as f64;
    let draw = |n: usize| (n as f64 + draw(how.seed, n)) / how.random as f64;
    (0..how.random).map(|n| (clock.begin + 1 + (length * draw(n)) as usize, Restored::Site)).collect()
}

#[derive(Clone, Copy, Default)]
struct Usual {
    pages: f64,
    size: u64,
}

impl Usual {
    fn take(&mut self, tick: &Tick, partition: u32) -> Option<Restored> {
        let (pages, before) = (tick.pages as f64, *self);
        self.size = tick.size;
        self.pages += (pages - self.pages) * if before.pages == 0.0 { 1.0 } else { USUAL };
        if (tick.size as f64) < LOST * before.size as f64 {
            return Some(Restored::Loss(partition));
        }
        let burst = before.pages > 0.0 && pages >= BURST_PAGES && pages >= BURST_TIMES * before.pages;
        burst.then_some(Restored::Burst(partition))
    }
}

/// A number in 0 to 1 that is the same for the same seed.
pub(super) fn draw(seed: u64, n: usize) -> f64 {
    let hash = blake3::hash(format!("{seed} {n}").as_bytes());
    let head = hash.as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
    head as f64 / u64::MAX as f64
}
