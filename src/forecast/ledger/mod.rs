//! The ledger: every forecast is noted with its model, the hash of its inputs and its horizon, and scored when that has
//! passed, beside baselines on the same cases. From the scores follows whether the model is believed. What something follows
//! from is noted besides ([`ActedOn`]), for of each horizon only a forecast in a quarter of it is.
//!
//! Invariants: at most [`PENDING_MAX`] batches wait; scores are added up by a part of the window in which they count, so that
//! the window is remembered whole, and at most [`SCORED_MAX`] sums are; a batch is scored only if the ticks of its whole
//! horizon were seen (a daemon that was down has not seen them), and else dropped.

mod acted;
mod batch;
mod case;
mod store;
mod verdict;

pub use acted::{Acted, ActedOn, says_split};
pub use batch::{Batch, Scored, Scores};
pub use verdict::{Belief, Verdict};

use super::baseline::Baseline;
use super::features::Features;
use super::predictor::{Forecast, HORIZONS};
use super::signal::{Key, Signal};
use crate::types::Timestamp;
use std::collections::{BTreeMap, VecDeque};

/// Batches that wait for their horizon at most.
pub const PENDING_MAX: usize = 64;
/// Sums of scored batches that are remembered at most.
pub const SCORED_MAX: usize = 1_024;
/// Parts of the window whose batches are added up; times the horizons, and some models, well below [`SCORED_MAX`].
const PARTS: i64 = 48;
/// The baselines that are scored beside a model.
pub const BESIDE: [Baseline; 4] =
    [Baseline::Persistence, Baseline::Ewma, Baseline::Climatology, Baseline::Linear];

/// Which batch: when it was made, and for how many seconds.
pub type BatchId = (Timestamp, u32);

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pending: BTreeMap<BatchId, Batch>,
    /// Sums, by when their first batch was due.
    scored: VecDeque<Scored>,
    /// Batches due within so long are added up.
    sum_us: i64,
    /// Batches whose horizon was not seen whole.
    unseen: u64,
    made: u64,
}

/// Forecasts for a horizon are noted this often: a quarter of it.
fn interval_us(horizon: u32, step_us: i64) -> i64 {
    (i64::from(horizon) * 250_000).max(step_us)
}

impl Ledger {
    /// With the window in which scores count.
    pub fn new(window_us: i64) -> Ledger {
        Ledger { sum_us: window_us / PARTS, ..Ledger::default() }
    }

    /// Notes what was forecast at `at`: for each horizon that is due to be noted again. `answers` stand beside `keys`;
    /// the batches that were made.
    pub fn note(
        &mut self,
        model: &str,
        inputs: &str,
        (at, step_us): (Timestamp, i64),
        (keys, answers): (&[Key], &[Option<Forecast>]),
        features: &Features,
    ) -> Vec<BatchId> {
        let mut made = Vec::new();
        for (index, horizon) in HORIZONS.into_iter().enumerate() {
            let newest = self.pending.keys().filter(|id| id.1 == horizon).map(|id| id.0.0).max();
            if newest.is_some_and(|newest| at.0 < newest.saturating_add(interval_us(horizon, step_us))) {
                continue;
            }
            let mut batch = Batch::new((model, inputs), (at, index), (keys, answers), features);
            if batch.is_empty() {
                continue;
            }
            if self.pending.len() >= PENDING_MAX {
                self.pending.pop_first();
                self.unseen += 1;
            }
            self.made += batch.len() as u64;
            self.share(&mut batch);
            self.pending.insert((at, horizon), batch);
            made.push((at, horizon));
        }
        made
    }

    /// Takes in what happened, for the batches that wait for it.
    pub fn take(&mut self, signal: &Signal) {
        for batch in self.pending.values_mut() {
            batch.take(signal);
        }
    }

    /// Time has passed, and its signals were told: from `since` to `now`.
    pub fn pass(&mut self, since: Timestamp, now: Timestamp) {
        for batch in self.pending.values_mut() {
            batch.pass(since, now);
        }
    }

    /// Scores the batches whose horizon has passed; those that were, newest last.
    pub fn settle(&mut self, now: Timestamp) -> Vec<Scored> {
        let due: Vec<BatchId> =
            self.pending.iter().filter(|(_, batch)| batch.due() <= now).map(|(id, _)| *id).collect();
        let mut settled = Vec::new();
        for id in due {
            let Some(batch) = self.pending.remove(&id) else { continue };
            match batch.score() {
                Some(scored) => settled.push(scored),
                None => self.unseen += 1,
            }
        }
        settled.sort_by_key(|scored| scored.due_us);
        settled.iter().for_each(|scored| self.count(scored));
        settled
    }

    /// Gives up the batches that wait: nobody will see what comes of them.
    pub fn give_up(&mut self) {
        self.unseen += self.pending.len() as u64;
        self.pending.clear();
    }

    /// Takes back a batch that waits, as it was stored: what happened since has to be told again.
    pub fn restore(&mut self, id: BatchId, mut batch: Batch) {
        if self.pending.len() < PENDING_MAX {
            self.share(&mut batch);
            self.pending.insert(id, batch);
        }
    }

    /// Partitions seldom change: one list of their names serves all.
    fn share(&self, batch: &mut Batch) {
        if let Some((_, last)) = self.pending.last_key_value() {
            batch.share(&last.names);
        }
    }

    /// The sum that a scored batch is part of, or may become part of.
    fn sum_of(&self, scored: &Scored) -> Option<usize> {
        self.scored.iter().rposition(|sum| sum.takes(scored, self.sum_us.max(1)))
    }

    fn count(&mut self, scored: &Scored) {
        match self.sum_of(scored).and_then(|index| self.scored.get_mut(index)) {
            Some(sum) => sum.merge(scored),
            None => self.remember(scored.clone()),
        }
    }

    /// Takes back sums of scores as they were stored, oldest first.
    pub fn remember(&mut self, scored: Scored) {
        self.scored.push_back(scored);
        if self.scored.len() > SCORED_MAX {
            self.scored.pop_front();
        }
    }

    /// A batch that waits.
    pub fn pending(&self, id: BatchId) -> Option<&Batch> {
        self.pending.get(&id)
    }

    /// The batches that wait.
    pub fn waiting(&self) -> impl Iterator<Item = (&BatchId, &Batch)> {
        self.pending.iter()
    }

    /// Forecasts made since the start, batches that wait, batches scored and batches not seen whole.
    pub fn counts(&self) -> [u64; 4] {
        let scored = self.scored.iter().map(|sum| sum.batches).sum();
        [self.made, self.pending.len() as u64, scored, self.unseen]
    }

    /// Sums of the scores since `since`, by model or baseline and horizon; of models only `model`.
    pub fn scores(&self, model: &str, since: Timestamp) -> BTreeMap<(String, u32), Scores> {
        let mut sums: BTreeMap<(String, u32), Scores> = BTreeMap::new();
        let recent = self.scored.iter().filter(|scored| scored.due_us > since.0 && scored.model == model);
        for scored in recent {
            for (name, scores) in &scored.scores {
                sums.entry((name.clone(), scored.horizon)).or_default().merge(scores);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests;
