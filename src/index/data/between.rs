//! What the events of a file's content did between two Seqs, told without looking at any page: the newest come first, and
//! nobody needs all of them.

use super::{Change, RUNS_AT_ONCE, RUNS_MOST, Track, each, first_of, prefix};
use crate::error::Result;
use crate::index::codec::put_seq;
use crate::index::kv::{Kv, Space};
use crate::index::scan::behind;
use crate::types::{FileId, PageSet, Seq};

/// What events brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Brought {
    pub bytes: u64,
    /// Events that were looked at.
    pub events: u64,
    /// Those are all.
    pub is_all: bool,
}

impl Brought {
    pub fn add(&mut self, other: Brought) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.events += other.events;
        self.is_all &= other.is_all;
    }
}

/// What the events of a file in `(after, upto]` brought, the newest ones first, up to about `most` of them.
pub(in crate::index) fn brought(
    kv: &dyn Kv,
    file: FileId,
    (after, upto): (Seq, Seq),
    most: u64,
) -> Result<Brought> {
    let mut from = prefix(file, Track::Content);
    let end = behind(&from);
    put_seq(&mut from, upto);
    let mut sum = Brought { bytes: 0, events: 0, is_all: true };
    loop {
        let runs = kv.range(Space::Data, &from, &end, RUNS_AT_ONCE)?;
        for (key, value) in &runs {
            let oldest = first_of(key)?;
            each(Track::Content, oldest, value, |sample| {
                if sample.seq > after && sample.seq <= upto {
                    sum.bytes = sum.bytes.saturating_add(sample.bytes);
                    sum.events += 1;
                }
                sample.seq <= upto
            })?;
            if oldest <= after {
                return Ok(sum);
            }
        }
        match runs.into_iter().nth(RUNS_AT_ONCE - 1) {
            None => return Ok(sum),
            Some(_) if sum.events >= most => return Ok(Brought { is_all: false, ..sum }),
            Some((mut last, _)) => {
                last.push(0);
                from = last;
            }
        }
    }
}

/// The pages of a file that changed in `(after, upto]` before its content went as a whole: before it was first cut to
/// nothing.
pub(in crate::index) fn changed_until_cut(
    kv: &dyn Kv,
    file: FileId,
    (after, upto): (Seq, Seq),
) -> Result<PageSet> {
    let mut from = prefix(file, Track::Content);
    let end = behind(&from);
    put_seq(&mut from, upto);
    let mut pages = PageSet::default();
    loop {
        let runs = kv.range(Space::Data, &from, &end, RUNS_MOST)?;
        for (key, value) in &runs {
            let oldest = first_of(key)?;
            let mut run = PageSet::default();
            let mut cut = false;
            each(Track::Content, oldest, value, |sample| {
                let within = sample.seq > after && sample.seq <= upto;
                cut |= within && sample.change == Change::Shrink && sample.value == 0;
                if within && !cut {
                    let (start, end) = sample.touched();
                    run.write(start, end);
                }
                sample.seq <= upto
            })?;
            if cut {
                pages = PageSet::default();
            }
            pages.add(&run);
            if oldest <= after {
                return Ok(pages);
            }
        }
        match runs.into_iter().nth(RUNS_MOST - 1) {
            Some((mut last, _)) => {
                last.push(0);
                from = last;
            }
            None => return Ok(pages),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FILE, sample};
    use super::super::{RUN_LEN, Runs};
    use super::*;
    use crate::index::kv::Batch;
    use crate::index::mem::MemKv;

    #[test]
    fn of_many_events_the_newest_are_counted() {
        let kv = MemKv::new();
        let (mut batch, mut runs) = (Batch::default(), Runs::default());
        for number in 1..10_000 {
            runs.push(&mut batch, FILE, Track::Content, sample(number));
        }
        runs.finish(&mut batch);
        kv.commit(batch).unwrap();
        for most in [0, 1_000, 5_000] {
            let told = brought(&kv, FILE, (Seq(0), Seq(u64::MAX)), most).unwrap();
            let at_once = RUNS_AT_ONCE as u64 * u64::from(RUN_LEN);
            assert!(!told.is_all && told.events >= most && told.events <= most + at_once, "{told:?}");
            let bytes = (1..10_000).rev().take(told.events as usize).map(|number| sample(number).bytes);
            assert_eq!(told.bytes, bytes.sum::<u64>());
        }
        let told = brought(&kv, FILE, (Seq(30), Seq(300)), u64::MAX).unwrap();
        let bytes = (11..=100).map(|number| sample(number).bytes).sum();
        assert_eq!(told, Brought { bytes, events: 90, is_all: true });
    }

    #[test]
    fn what_changed_before_a_file_was_emptied_is_told_from_what_came_after() {
        let kv = MemKv::new();
        let (mut batch, mut runs) = (Batch::default(), Runs::default());
        for number in 1..300 {
            let mut sample = sample(number);
            if [120, 260].contains(&number) {
                (sample.change, sample.value) = (Change::Shrink, 0);
            }
            runs.push(&mut batch, FILE, Track::Content, sample);
        }
        runs.finish(&mut batch);
        kv.commit(batch).unwrap();
        for (after, upto, behind) in [(0, 2000, 120), (50, 300, 101), (360, 2000, 260), (780, 2000, 300)] {
            let mut expected = PageSet::default();
            for sample in
                (1..behind).map(sample).filter(|sample| sample.seq.0 > after && sample.seq.0 <= upto)
            {
                let (start, end) = sample.touched();
                expected.write(start, end);
            }
            let found = changed_until_cut(&kv, FILE, (Seq(after), Seq(upto))).unwrap();
            assert_eq!(found, expected, "({after}, {upto}]");
        }
    }
}
