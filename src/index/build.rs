//! One batch in the making.

use super::data::{Change, Runs, Sample, Start, Track};
use super::kv::{Batch, Kv};
use super::levels::{Extended, Levels};
use super::memory::Memory;
use super::page::Compose;
use super::state::Watermark;
use crate::error::Result;
use crate::types::{FileId, Seq, Timestamp};

/// What the events of several groups add to the store.
pub(super) struct Build<'a> {
    pub kv: &'a dyn Kv,
    pub levels: &'a Levels,
    pub memory: &'a mut Memory,
    /// The last event in the store.
    pub known: Seq,
    pub batch: Batch,
    pub composes: Vec<Compose>,
    /// Clock epoch of the event that comes next.
    pub epoch: u32,
    runs: Runs,
    extended: Extended,
}

impl<'a> Build<'a> {
    pub(super) fn new(
        kv: &'a dyn Kv,
        levels: &'a Levels,
        memory: &'a mut Memory,
        known: Watermark,
    ) -> Build<'a> {
        Build {
            kv,
            levels,
            memory,
            known: known.seq,
            batch: Batch::default(),
            composes: Vec::new(),
            epoch: known.epoch,
            runs: Runs::default(),
            extended: Extended::default(),
        }
    }

    /// Notes that a file has versions on levels.
    pub(super) fn use_levels(&mut self, file: FileId, bits: u64) -> Result<()> {
        self.extended.add(self.kv, self.levels, file, bits)
    }

    /// Adds a sample to a file's track.
    pub(super) fn sample(&mut self, file: FileId, track: Track, seq: Seq, ts: Timestamp, value: u64) {
        let (change, start) = (Change::Write, Start::default());
        self.push_sample(file, track, Sample { seq, ts, value, change, bytes: 0, start });
    }

    /// [`Build::sample`] with all that a sample can tell.
    pub(super) fn push_sample(&mut self, file: FileId, track: Track, sample: Sample) {
        self.runs.push(&mut self.batch, file, track, sample);
    }

    /// Commits all of it, then lets lookups see the new levels.
    pub(super) fn commit(self) -> Result<Vec<Compose>> {
        let mut batch = self.batch;
        self.runs.finish(&mut batch);
        self.extended.finish(&mut batch);
        self.kv.commit(batch)?;
        self.levels.publish(&self.extended);
        Ok(self.composes)
    }
}
