//! The ledger: every forecast is noted with its model, the hash of its inputs and its horizon, and scored when that has
//! passed, beside baselines on the same cases. From the scores follows whether the model is believed.
//!
//! Invariants: at most [`PENDING_MAX`] batches wait and [`SCORED_MAX`] are remembered; a batch is scored only if the
//! ticks of its whole horizon were seen (a daemon that was down has not seen them), and else dropped.

mod batch;
mod case;
mod store;
mod verdict;

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
/// Scored batches that are remembered at most.
pub const SCORED_MAX: usize = 1_024;
/// The baselines that are scored beside a model.
pub const BESIDE: [Baseline; 4] =
    [Baseline::Persistence, Baseline::Ewma, Baseline::Climatology, Baseline::Linear];

/// Which batch: when it was made, and for how many seconds.
pub type BatchId = (Timestamp, u32);

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pending: BTreeMap<BatchId, Batch>,
    scored: VecDeque<Scored>,
    /// Batches whose horizon was not seen whole.
    unseen: u64,
    made: u64,
}

/// Forecasts for a horizon are noted this often: a quarter of it.
fn interval_us(horizon: u32, step_us: i64) -> i64 {
    (i64::from(horizon) * 250_000).max(step_us)
}

impl Ledger {
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
        for scored in &settled {
            self.remember(scored.clone());
        }
        settled
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

    /// Takes back scores, oldest first.
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
        [self.made, self.pending.len() as u64, self.scored.len() as u64, self.unseen]
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
