//! The ledger's tables in the metadata store: `forecasts` holds batches with all that was said, `scores` what came of
//! them. Both are bounded; a forecast stays after it was scored until newer ones need its room.

use super::batch::{Batch, Case, Said, Scored};
use super::{BESIDE, BatchId, Ledger, SCORED_MAX};
use crate::error::Result;
use crate::forecast::signal::Key;
use crate::meta::store::{Store, Table};
use crate::types::Timestamp;
use serde::{Deserialize, Serialize};

/// Batches kept in the file, waiting or scored.
const KEPT: u64 = 256;
const LEVEL: i32 = 1;
/// Numbers per case.
const NUMBERS: usize = SAID * (1 + BESIDE.len()) + TIMES + BEFORE;
const SAID: usize = 5;
const TIMES: usize = 6;
const BEFORE: usize = 3;
/// What a row may unpack to.
const UNPACKED_MAX: usize = 64 << 20;

/// By the time it was made and the seconds of its horizon.
const FORECASTS: Table<(Timestamp, u32), Row> = Table::new("forecasts", 1);
/// By the time it was due and the seconds of its horizon.
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
    /// zstd of the names, a line each, an empty line, and per case: of the model and of each baseline the probability of
    /// a write, bytes, the probability of a split, pages, reads; then quantiles of the time to a split, three of the model
    /// and three of a baseline; then bytes, pages and reads before. 32-bit floats, little-endian. A row of an earlier
    /// build has fewer, and is left out.
    packed: Vec<u8>,
}

fn numbers(case: &Case) -> [f32; NUMBERS] {
    let mut out = [0.0; NUMBERS];
    let said = std::iter::once(&case.model).chain(&case.beside);
    let values = said.flat_map(|said| [said.write, said.bytes, said.split, said.pages, said.reads]);
    let values = values.chain(case.times.into_iter().flatten()).chain(case.before);
    out.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
    out
}

fn case(values: &[f32]) -> Option<Case> {
    let mut rest = values.iter().copied();
    let mut next = || rest.next();
    let mut said = || {
        let (write, bytes, split) = (next()?, next()?, next()?);
        Some(Said { write, bytes, split, pages: next()?, reads: next()? })
    };
    let model = said()?;
    let mut beside = [model; BESIDE.len()];
    for slot in &mut beside {
        *slot = said()?;
    }
    let mut times = [[f32::NAN; 3]; 2];
    for slot in times.iter_mut().flatten() {
        *slot = next()?;
    }
    Some(Case::new(model, beside, times, [next()?, next()?, next()?]))
}

impl Row {
    fn of(batch: &Batch) -> Row {
        // No name of a file holds a line's end in any database; one that does is of no use after a restart.
        let mut bytes: Vec<u8> = Vec::new();
        for key in batch.keys() {
            bytes.extend_from_slice(key.replace('\n', "?").as_bytes());
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        for value in batch.cases.iter().flat_map(numbers) {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        let packed = zstd::bulk::compress(&bytes, LEVEL).unwrap_or_default();
        let cases = batch.cases.len() as u64;
        Row { model: batch.model.clone(), inputs: batch.inputs.clone(), cases, scored: false, packed }
    }

    /// `None`: it cannot be read.
    fn batch(&self, (at, horizon): BatchId) -> Option<Batch> {
        let bytes = zstd::bulk::decompress(&self.packed, UNPACKED_MAX).ok()?;
        let end = if bytes.first() == Some(&b'\n') { 0 } else { find_end(&bytes)? };
        let keys: Vec<Key> = String::from_utf8_lossy(bytes.get(..end)?).lines().map(Key::from).collect();
        let values: Vec<f32> = bytes
            .get(end + 1..)?
            .chunks_exact(4)
            .filter_map(|chunk| Some(f32::from_le_bytes(chunk.try_into().ok()?)))
            .collect();
        let cases: Option<Vec<Case>> = values.chunks_exact(NUMBERS).map(case).collect();
        let cases = cases.filter(|cases| cases.len() == keys.len())?;
        Some(Batch::restored((&self.model, &self.inputs), (at, horizon), keys, cases))
    }
}

/// Behind the end of the last name: where the empty line begins.
fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\n\n").map(|at| at + 1)
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
                tx.put(&SCORES, &(Timestamp(scored.due_us), scored.horizon), scored)?;
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
