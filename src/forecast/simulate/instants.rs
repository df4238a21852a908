//! The instants at which something is restored.

use super::How;
use crate::forecast::trace::replay::splits;
use crate::forecast::trace::{Trace, What};
use crate::types::Timestamp;

/// A burst writes so many times the pages of a usual tick, and at least so many.
const BURST_TIMES: f64 = 8.0;
const BURST_PAGES: f64 = 64.0;
/// Weight of a tick in what is usual.
const USUAL: f64 = 0.05;

/// What is restored, and when.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Restored {
    /// Everything.
    Site,
    /// One partition, before a burst of writes to it.
    Burst(u32),
    Split(u32),
    Loss(u32),
}

/// In order of time.
#[derive(Default)]
pub(super) struct Instants(Vec<(Timestamp, Restored)>);

impl Instants {
    pub fn of(trace: &Trace, how: How, (begin, last): (Timestamp, Timestamp)) -> Instants {
        let mut all = Vec::new();
        let length = (last.0 - begin.0).max(1);
        for n in 0..how.random {
            let share = (n as f64 + draw(how.seed, n)) / how.random.max(1) as f64;
            all.push((Timestamp(begin.0 + (length as f64 * share) as i64), Restored::Site));
        }
        for (partition, at, _) in splits(trace, how.splits) {
            all.push((at, Restored::Split(partition)));
        }
        let mut usual = vec![0.0; trace.names.len()];
        for line in &trace.lines {
            let Some(usual) = usize::try_from(line.partition).ok().and_then(|index| usual.get_mut(index)) else {
                continue;
            };
            match line.what {
                What::Gone { at } => all.push((at, Restored::Loss(line.partition))),
                What::Tick(tick) => {
                    let pages = tick.pages as f64;
                    if *usual > 0.0 && pages >= BURST_PAGES && pages >= BURST_TIMES * *usual {
                        all.push((tick.end, Restored::Burst(line.partition)));
                    }
                    *usual = if *usual == 0.0 { pages } else { *usual + (pages - *usual) * USUAL };
                }
                What::Split { .. } => {}
            }
        }
        all.retain(|(at, _)| *at > begin);
        all.sort();
        Instants(all)
    }

    /// Those of the stretch of `step` µs that ends at `now`.
    pub fn within(&self, now: Timestamp, step: i64) -> Vec<Restored> {
        let begin = self.0.partition_point(|(at, _)| at.0 <= now.0 - step);
        let end = self.0.partition_point(|(at, _)| *at <= now);
        self.0.get(begin..end).unwrap_or(&[]).iter().map(|(_, what)| *what).collect()
    }
}

/// A number in 0 to 1 that is the same for the same seed.
fn draw(seed: u64, n: usize) -> f64 {
    let hash = blake3::hash(format!("{seed} {n}").as_bytes());
    let head = hash.as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
    head as f64 / u64::MAX as f64
}
