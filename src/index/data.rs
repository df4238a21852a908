//! What data events leave of a file's attributes: times, sizes, link counts.
//!
//! - [`Space::Data`]: (file, [`Track`], descending first Seq) -> a run of samples, oldest first, each with its own Seq. A
//!   run holds what one batch brought for one track, so a busy file costs a few bytes per write and every
//!   Seq stays answerable. On the content track each sample also says what happened, from which page on, to how many bytes.
//!   That tells which pages changed between two Seqs without looking at any page ([`changed`]).
//! - Runs of one track do not overlap: an event is recorded once ([`apply`](super::Index::apply) skips what stands).

mod between;

pub use between::Brought;
pub(super) use between::{brought, changed_until_cut};

use super::codec::{Reader, corrupt, put_ascending, put_seq, put_signed, put_varint};
use super::kv::{Batch, Kv, Space};
use super::scan::behind;
use crate::error::Result;
use crate::types::{FileId, PAGE, PageSet, Seq, Timestamp};
use std::collections::HashMap;

const RUN: u8 = 3;
/// Samples in a run: bounds what one lookup decodes.
const RUN_LEN: u32 = 64;
/// Runs read at a time.
const RUNS_AT_ONCE: usize = 16;
/// The same where there are many.
const RUNS_MOST: usize = 512;

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

/// What an event did to a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Change {
    /// Bytes were written; of a directory: an entry came or went.
    #[default]
    Write = 0,
    /// A range reads as zeros.
    Zero = 1,
    /// The end was cut off.
    Shrink = 2,
    /// The end was moved out.
    Extend = 3,
}

/// One event on a track.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    pub seq: Seq,
    pub ts: Timestamp,
    pub value: u64,
    /// On [`Track::Content`] only.
    pub change: Change,
    /// Bytes that changed, at most 2^61 (larger ones count as that). On [`Track::Content`] only.
    pub bytes: u64,
    /// Where they begin. On [`Track::Content`] only.
    pub start: Start,
}

/// Where a change begins, as well as a sample tells it: twice the page, and one more if within it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Start(u64);

impl Start {
    pub(super) fn of(offset: u64) -> Start {
        Start(offset / PAGE * 2 + u64::from(!offset.is_multiple_of(PAGE)))
    }

    /// Bytes from the first page's beginning that `bytes` from here on may reach.
    fn reach(self, bytes: u64) -> (u64, u64) {
        let begin = (self.0 / 2).saturating_mul(PAGE);
        let skipped = if self.0.is_multiple_of(2) { 0 } else { PAGE - 1 };
        (begin, begin.saturating_add(skipped).saturating_add(bytes))
    }
}

impl Sample {
    fn what(&self) -> u64 {
        self.bytes.min(BYTES_MAX) << 2 | self.change as u64
    }

    /// Bytes that may be others than before, as `[start, end)`; what an extension adds is zero as before.
    fn touched(&self) -> (u64, u64) {
        match self.change {
            Change::Write | Change::Zero => self.start.reach(self.bytes),
            Change::Shrink => (self.value, self.value.saturating_add(self.bytes)),
            Change::Extend => (0, 0),
        }
    }

    fn set_what(&mut self, what: u64) {
        self.bytes = what >> 2;
        self.change = match what & 3 {
            0 => Change::Write,
            1 => Change::Zero,
            2 => Change::Shrink,
            _ => Change::Extend,
        };
    }
}

const BYTES_MAX: u64 = 1 << 61;

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
    wide: bool,
}

impl Run {
    fn new(track: Track, sample: Sample) -> Run {
        let wide = track == Track::Content;
        let mut bytes = Vec::with_capacity(16);
        bytes.push(RUN);
        put_signed(&mut bytes, sample.ts.0);
        put_varint(&mut bytes, sample.value);
        if wide {
            put_varint(&mut bytes, sample.what());
            put_varint(&mut bytes, sample.start.0);
        }
        Run { first: sample.seq, last: sample, count: 1, bytes, wide }
    }

    fn push(&mut self, sample: Sample) {
        put_varint(&mut self.bytes, sample.seq.0 - self.last.seq.0);
        put_signed(&mut self.bytes, sample.ts.0.wrapping_sub(self.last.ts.0));
        let change = sample.value.wrapping_sub(self.last.value);
        put_signed(&mut self.bytes, change as i64);
        if self.wide {
            put_signed(&mut self.bytes, sample.what().wrapping_sub(self.last.what()) as i64);
            put_signed(&mut self.bytes, sample.start.0.wrapping_sub(self.last.start.0) as i64);
        }
        self.count += 1;
        self.last = sample;
    }
}

impl Runs {
    /// Adds a sample. Seqs come in rising order; a second sample at one Seq says the same and is left out.
    pub(super) fn push(&mut self, batch: &mut Batch, file: FileId, track: Track, sample: Sample) {
        let Some(run) = self.open.get_mut(&(file, track)) else {
            self.open.insert((file, track), Run::new(track, sample));
            return;
        };
        if sample.seq <= run.last.seq {
            return;
        }
        if run.count < RUN_LEN {
            run.push(sample);
            return;
        }
        let full = std::mem::replace(run, Run::new(track, sample));
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
    let mut newest = None;
    each(track, first_of(&key)?, &value, |sample| {
        let seen = sample.seq <= at;
        if seen || newest.is_none() {
            newest = Some(sample);
        }
        seen
    })?;
    Ok(newest)
}

/// Up to `limit` samples of a track at or before a Seq, newest first.
pub(super) fn newest_samples(
    kv: &dyn Kv,
    file: FileId,
    track: Track,
    at: Seq,
    limit: usize,
) -> Result<Vec<Sample>> {
    let mut from = prefix(file, track);
    let end = behind(&from);
    put_seq(&mut from, at);
    let mut found = Vec::new();
    loop {
        let runs = kv.range(Space::Data, &from, &end, RUNS_AT_ONCE)?;
        for (key, value) in &runs {
            let mut run = Vec::new();
            each(track, first_of(key)?, value, |sample| {
                let seen = sample.seq <= at;
                if seen {
                    run.push(sample);
                }
                seen
            })?;
            found.extend(run.into_iter().rev());
        }
        match runs.into_iter().nth(RUNS_AT_ONCE - 1) {
            Some((mut last, _)) if found.len() < limit => {
                last.push(0);
                from = last;
            }
            _ => break,
        }
    }
    found.truncate(limit);
    Ok(found)
}

/// The first Seq of a run, from its key.
fn first_of(key: &[u8]) -> Result<Seq> {
    let mut reader = Reader::new(key);
    reader.ascending()?;
    reader.byte()?;
    reader.seq()
}

/// Visits the samples of a run, oldest first, until `visit` has enough.
fn each(track: Track, first: Seq, run: &[u8], mut visit: impl FnMut(Sample) -> bool) -> Result<()> {
    let wide = track == Track::Content;
    let mut reader = Reader::new(run);
    reader.expect_tag(RUN)?;
    let (ts, value) = (Timestamp(reader.signed()?), reader.varint()?);
    let mut sample =
        Sample { seq: first, ts, value, change: Change::Write, bytes: 0, start: Start::default() };
    let mut what = if wide { reader.varint()? } else { 0 };
    sample.set_what(what);
    sample.start = Start(if wide { reader.varint()? } else { 0 });
    while visit(sample) && !reader.is_empty() {
        let seq = sample.seq.0.checked_add(reader.varint()?);
        sample.seq = Seq(seq.ok_or_else(|| corrupt("a run passes the last Seq"))?);
        sample.ts = Timestamp(sample.ts.0.wrapping_add(reader.signed()?));
        sample.value = sample.value.wrapping_add(reader.signed()? as u64);
        if wide {
            what = what.wrapping_add(reader.signed()? as u64);
            sample.set_what(what);
            sample.start = Start(sample.start.0.wrapping_add(reader.signed()? as u64));
        }
    }
    Ok(())
}

/// Adds the pages of a file that writes, zeroing and cutting may have changed in `(after, upto]`; the bytes of all of
/// these events, or `None` once there are more than `most` pages. Costs by the number of events, however large the file.
pub(super) fn changed(
    kv: &dyn Kv,
    file: FileId,
    (after, upto): (Seq, Seq),
    pages: &mut PageSet,
    most: u64,
) -> Result<Option<u64>> {
    let mut from = prefix(file, Track::Content);
    let end = behind(&from);
    put_seq(&mut from, upto);
    let mut total = 0u64;
    let mut limit = RUNS_AT_ONCE;
    loop {
        let runs = kv.range(Space::Data, &from, &end, limit)?;
        for (key, value) in &runs {
            let oldest = first_of(key)?;
            each(Track::Content, oldest, value, |sample| {
                if sample.seq > after && sample.seq <= upto {
                    let (start, end) = sample.touched();
                    pages.write(start, end);
                    total = total.saturating_add(sample.bytes);
                }
                sample.seq <= upto
            })?;
            if oldest <= after {
                return Ok((pages.count() <= most).then_some(total));
            }
        }
        if pages.count() > most {
            return Ok(None);
        }
        match runs.into_iter().nth(limit - 1) {
            Some((mut last, _)) => {
                last.push(0);
                from = last;
            }
            None => return Ok(Some(total)),
        }
        limit = (limit * 2).min(RUNS_MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::super::mem::MemKv;
    use super::*;

    pub(super) const FILE: FileId = FileId(7);

    pub(super) fn sample(number: u64) -> Sample {
        Sample {
            seq: Seq(number * 3),
            ts: Timestamp(1_700_000_000_000_000 + number as i64 * 50 - (number as i64 % 5) * 400),
            value: u64::MAX.wrapping_mul(number % 2).wrapping_add(number),
            change: if number.is_multiple_of(3) { Change::Shrink } else { Change::Write },
            bytes: number * 977 % 4_096,
            start: Start::of(number * 5_000),
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
            let newest = newest_samples(&kv, FILE, Track::Content, Seq(at), 70).unwrap();
            let numbers = (1..=(at / 3).min(499)).rev().take(70);
            assert_eq!(newest, numbers.map(sample).collect::<Vec<_>>(), "at {at}");
        }
        assert_eq!(newest(&kv, FILE, Track::Links, Seq(99)).unwrap(), None);
        assert_eq!(newest(&kv, FileId(8), Track::Content, Seq(99)).unwrap(), None);
    }

    #[test]
    fn changed_pages_are_those_of_the_events_between() {
        let kv = MemKv::new();
        let (mut batch, mut runs) = (Batch::default(), Runs::default());
        for number in 1..300 {
            runs.push(&mut batch, FILE, Track::Content, sample(number));
        }
        runs.finish(&mut batch);
        kv.commit(batch).unwrap();
        for (after, upto) in [(0, 900), (0, 3), (3, 3), (10, 11), (100, 500), (896, 2000)] {
            let mut pages = PageSet::default();
            let total = changed(&kv, FILE, (Seq(after), Seq(upto)), &mut pages, u64::MAX).unwrap().unwrap();
            let between: Vec<_> =
                (1..300).map(sample).filter(|sample| sample.seq.0 > after && sample.seq.0 <= upto).collect();
            assert_eq!(total, between.iter().map(|sample| sample.bytes).sum::<u64>());
            let mut expected = PageSet::default();
            for sample in &between {
                let (start, end) = sample.touched();
                expected.write(start, end);
            }
            assert_eq!(pages, expected, "({after}, {upto}]");
            let most = expected.count().saturating_sub(1);
            let many = changed(&kv, FILE, (Seq(after), Seq(upto)), &mut PageSet::default(), most).unwrap();
            assert_eq!(many.is_none(), !expected.is_empty());
        }
    }

    #[test]
    fn a_change_reaches_at_least_its_bytes() {
        for offset in [0, 1, 4095, 4096, 8191] {
            for bytes in [1, 4095, 4096, 4097, 8192] {
                let (start, end) = Start::of(offset).reach(bytes);
                assert!(start <= offset && end >= offset + bytes && end < offset + bytes + PAGE);
            }
        }
        assert_eq!(Start::of(8192).reach(8192), (8192, 16384), "whole pages exactly");
    }

    #[test]
    fn a_damaged_run_is_an_error() {
        for run in [&[][..], &[9, 1, 1, 1], &[RUN, 1, 1, 1, 1, 1]] {
            assert!(each(Track::Content, Seq(1), run, |_| true).is_err());
        }
    }
}
