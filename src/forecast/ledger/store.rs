//! The ledger's tables in the metadata store: `forecasts` holds batches with all that was said, `scores` what came of
//! them. Both are bounded; a forecast stays after it was scored until newer ones need its room.

use super::batch::{Batch, Scored};
use super::case::Packed;
use super::{BatchId, Ledger, SCORED_MAX};
use crate::error::Result;
use crate::forecast::signal::Key;
use crate::meta::store::{Store, Table};
use crate::types::Timestamp;
use serde::{Deserialize, Serialize};

/// Batches kept in the file, waiting or scored.
const KEPT: u64 = 256;

/// By the time it was made and the seconds of its horizon.
const FORECASTS: Table<(Timestamp, u32), Row> = Table::new("forecasts", 1);
/// Sums, by the time at which the first of them was due and the seconds of the horizon.
const SCORES: Table<(Timestamp, u32), Scored> = Table::new("scores", 1);

/// A batch as it is stored.
#[derive(Serialize, Deserialize)]
struct Row {
    model: String,
    inputs: String,
    cases: u64,
    /// It has been scored.
    #[serde(default)]
    scored: bool,
    /// As [`Packed`] says. A row of an earlier build has fewer numbers, and is left out.
    packed: Vec<u8>,
}

impl Row {
    fn of(batch: &Batch) -> Row {
        let (model, inputs, packed) = (batch.model.clone(), batch.inputs.clone(), batch.said().0.clone());
        Row { model, inputs, cases: batch.len() as u64, scored: false, packed }
    }

    /// `None`: it cannot be read.
    fn batch(self, (at, horizon): BatchId) -> Option<Batch> {
        let said = Packed(self.packed);
        let keys = said.unpack()?.0.lines().map(Key::from).collect();
        Some(Batch::restored((&self.model, &self.inputs), (at, horizon), keys, said))
    }
}

impl Ledger {
    /// Stores what is new: batches made, batches scored. One transaction.
    ///
    /// # Errors
    /// Nothing of it is stored.
    pub fn save(&self, store: &Store, made: &[BatchId], settled: &[Scored]) -> Result<()> {
        if made.is_empty() && settled.is_empty() {
            return Ok(());
        }
        store.write(|tx| {
            for id in made {
                if let Some(batch) = self.pending(*id) {
                    tx.put(&FORECASTS, id, &Row::of(batch))?;
                }
            }
            for scored in settled {
                if let Some(sum) = self.sum_of(scored).and_then(|index| self.scored.get(index)) {
                    tx.put(&SCORES, &(Timestamp(sum.due_us), sum.horizon), sum)?;
                }
                let id = (Timestamp(scored.at_us), scored.horizon);
                if let Some(row) = tx.get(&FORECASTS, &id)? {
                    tx.put(&FORECASTS, &id, &Row { scored: true, ..row })?;
                }
            }
            let over = tx.count(&FORECASTS)?.saturating_sub(KEPT);
            let mut old = Vec::new();
            tx.each(&FORECASTS, .., |id, row: Row| {
                if (old.len() as u64) < over && (row.scored || self.pending(id).is_none()) {
                    old.push(id);
                }
                Ok((old.len() as u64) < over)
            })?;
            for id in old {
                tx.remove(&FORECASTS, &id)?;
            }
            let over = tx.count(&SCORES)?.saturating_sub(SCORED_MAX as u64);
            let mut old = Vec::new();
            tx.each(&SCORES, .., |id, _| {
                if (old.len() as u64) < over {
                    old.push(id);
                }
                Ok((old.len() as u64) < over)
            })?;
            old.iter().try_for_each(|id| tx.remove(&SCORES, id))
        })
    }

    /// Takes back what was stored: the scores, and the batches that were not scored yet and are still of use at `now`.
    ///
    /// # Errors
    /// It begins empty.
    pub fn load(&mut self, store: &Store, now: Timestamp) -> Result<()> {
        let (scores, waiting) = store.read(|tx| {
            let mut waiting = Vec::new();
            tx.each(&FORECASTS, .., |id: BatchId, row: Row| {
                let due = id.0.0.saturating_add(i64::from(id.1) * 1_000_000);
                if !row.scored && due > now.0 && id.0 <= now {
                    waiting.extend(row.batch(id).map(|batch| (id, batch)));
                }
                Ok(true)
            })?;
            Ok((tx.range(&SCORES, ..)?, waiting))
        })?;
        scores.into_iter().for_each(|(_, scored)| self.remember(scored));
        waiting.into_iter().for_each(|(id, batch)| self.restore(id, batch));
        Ok(())
    }
}
