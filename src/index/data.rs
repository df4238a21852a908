//! What data events leave of a file's attributes: times, sizes, link counts.
//!
//! - [`Space::Data`]: (file, [`Track`], descending first Seq) -> a run of samples, oldest first, each with its own Seq. A
//!   run holds what one batch brought for one track, so a busy file costs a few bytes per write and every
//!   Seq stays answerable.
//! - Runs of one track do not overlap: an event is recorded once ([`apply`](super::Index::apply) skips what stands).

use super::codec::{Reader, corrupt, put_ascending, put_seq, put_signed, put_varint};
use super::kv::{Batch, Kv, Space};
use super::scan::behind;
use crate::error::Result;
use crate::types::{FileId, Seq, Timestamp};
use std::collections::HashMap;

const RUN: u8 = 1;
/// Samples in a run: bounds what one lookup decodes.
const RUN_LEN: u32 = 64;

/// What a sample tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Track {
    /// The content changed; `value`: a file's size after, 0 for a directory.
    Content = 0,
    /// A directory's link count, in `value`.
    Links = 1,
    /// Only ctime changed (extended attributes), to `ts`.
    Change = 2,
    /// A program chose mtime.
    ChosenTime = 3,
    /// Pages that hold data, in `value`: of files with holes.
    Data = 4,
}

/// One event on a track.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    pub seq: Seq,
    pub ts: Timestamp,
    pub value: u64,
}

/// Runs that a batch gathers.
#[derive(Default)]
pub(super) struct Runs {
    open: HashMap<(FileId, Track), Run>,
}

struct Run {
    first: Seq,
    last: Sample,
    count: u32,
    bytes: Vec<u8>,
}

impl Run {
    fn new(sample: Sample) -> Run {
        let mut bytes = Vec::with_capacity(16);
        bytes.push(RUN);
        put_signed(&mut bytes, sample.ts.0);
        put_varint(&mut bytes, sample.value);
        Run { first: sample.seq, last: sample, count: 1, bytes }
    }

    fn push(&mut self, sample: Sample) {
        put_varint(&mut self.bytes, sample.seq.0 - self.last.seq.0);
        put_signed(&mut self.bytes, sample.ts.0.wrapping_sub(self.last.ts.0));
        let change = sample.value.wrapping_sub(self.last.value);
        put_signed(&mut self.bytes, change as i64);
        self.count += 1;
        self.last = sample;
    }
}

impl Runs {
    /// Adds a sample. Seqs come in rising order; a second sample at one Seq says the same and is left out.
    pub(super) fn push(&mut self, batch: &mut Batch, file: FileId, track: Track, sample: Sample) {
        let Some(run) = self.open.get_mut(&(file, track)) else {
            self.open.insert((file, track), Run::new(sample));
            return;
        };
        if sample.seq <= run.last.seq {
            return;
        }
        if run.count < RUN_LEN {
            run.push(sample);
            return;
        }
        let full = std::mem::replace(run, Run::new(sample));
        put_run(batch, file, track, full);
    }

    /// Puts every open run.
    pub(super) fn finish(self, batch: &mut Batch) {
        for ((file, track), run) in self.open {
            put_run(batch, file, track, run);
        }
    }
}

fn put_run(batch: &mut Batch, file: FileId, track: Track, run: Run) {
    let mut key = prefix(file, track);
    put_seq(&mut key, run.first);
    batch.put(Space::Data, key, run.bytes);
}

fn prefix(file: FileId, track: Track) -> Vec<u8> {
    let mut key = Vec::with_capacity(20);
    put_ascending(&mut key, file.0);
    key.push(track as u8);
    key
}

/// The newest sample of a track at or before a Seq.
pub(super) fn newest(kv: &dyn Kv, file: FileId, track: Track, at: Seq) -> Result<Option<Sample>> {
    let mut from = prefix(file, track);
    let end = behind(&from);
    put_seq(&mut from, at);
    let Some((key, value)) = kv.first(Space::Data, &from, &end)? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&key);
    reader.ascending()?;
    reader.byte()?;
    search(reader.seq()?, &value, at).map(Some)
}

/// The newest sample of a run at or before a Seq that is not before the run.
fn search(first: Seq, run: &[u8], at: Seq) -> Result<Sample> {
    let mut reader = Reader::new(run);
    reader.expect_tag(RUN)?;
    let mut newest = Sample { seq: first, ts: Timestamp(reader.signed()?), value: reader.varint()? };
    while !reader.is_empty() {
        let step = reader.varint()?;
        let seq = newest.seq.0.checked_add(step);
        let seq = Seq(seq.ok_or_else(|| corrupt("a run passes the last Seq"))?);
        if seq > at {
            break;
        }
        newest = Sample {
            seq,
            ts: Timestamp(newest.ts.0.wrapping_add(reader.signed()?)),
            value: newest.value.wrapping_add(reader.signed()? as u64),
        };
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::super::mem::MemKv;
    use super::*;

    const FILE: FileId = FileId(7);

    fn sample(number: u64) -> Sample {
        Sample {
            seq: Seq(number * 3),
            ts: Timestamp(1_700_000_000_000_000 + number as i64 * 50 - (number as i64 % 5) * 400),
            value: u64::MAX.wrapping_mul(number % 2).wrapping_add(number),
        }
    }

    #[test]
    fn every_sample_is_found_at_every_seq() {
        let kv = MemKv::new();
        for chunk in (1..500).collect::<Vec<u64>>().chunks(150) {
            let (mut batch, mut runs) = (Batch::default(), Runs::default());
            for number in chunk {
                runs.push(&mut batch, FILE, Track::Content, sample(*number));
                runs.push(&mut batch, FILE, Track::Content, sample(*number));
            }
            runs.finish(&mut batch);
            kv.commit(batch).unwrap();
        }
        assert_eq!(kv.len(Space::Data), 10);
        for at in 0..1600 {
            let found = newest(&kv, FILE, Track::Content, Seq(at)).unwrap();
            let expected = (at >= 3).then(|| sample((at / 3).min(499)));
            assert_eq!(found, expected, "at {at}");
        }
        assert_eq!(newest(&kv, FILE, Track::Links, Seq(99)).unwrap(), None);
        assert_eq!(newest(&kv, FileId(8), Track::Content, Seq(99)).unwrap(), None);
    }

    #[test]
    fn a_damaged_run_is_an_error() {
        assert!(search(Seq(1), &[], Seq(9)).is_err());
        assert!(search(Seq(1), &[9, 1, 1], Seq(9)).is_err());
        assert!(search(Seq(1), &[RUN, 1, 1, 1], Seq(9)).is_err());
    }
}
