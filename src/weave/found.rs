//! What stands in segments, and what of it is needed.

use super::Pace;
use super::source::{Version, cut};
use crate::error::{Error, Result};
use crate::format::event::{Event, Record};
use crate::index::Unneeded;
use crate::types::{FileId, PageNo, SegmentNo, Seq};
use std::collections::HashMap;

/// Bytes of versions that are packed at most to know what files would take, and how many neighbours at a time.
const WEIGHED: u64 = 64 << 20;
const STRETCH: u64 = 2 << 20;

/// Says which versions are needed.
pub trait Needs {
    /// Of each of the versions of a page, by rising Seq, whether some instant that remains shows bytes of it.
    fn needed(&self, file: FileId, page: PageNo, seqs: &[Seq]) -> Result<Vec<bool>>;
}

/// Versions, and the writes that brought them.
#[derive(Default)]
pub(super) struct Found {
    pub versions: Vec<Version>,
    /// Range and size of each write.
    writes: HashMap<Seq, (FileId, (u64, u64, u64))>,
}

impl Found {
    /// Takes in the group at `offset` of a segment; only such versions as are `there`.
    pub fn take(
        &mut self,
        (segment, offset): (SegmentNo, u64),
        records: &[Record],
        there: impl Fn(&Version) -> bool,
    ) {
        let from = self.versions.len();
        cut((segment, offset), records, &mut self.versions);
        let cuts = self.versions.split_off(from);
        self.versions.extend(cuts.into_iter().filter(there));
        for record in records {
            if let Event::Write { file, offset, len, size, .. } = record.event {
                let end = offset.saturating_add(u64::from(len));
                self.writes.insert(record.seq, (file, (offset, end, size)));
            }
        }
    }

    /// Whether each of the versions, which are sorted, is needed; `None` when told to stop.
    pub fn judge(&self, needs: &dyn Needs, pace: &dyn Pace) -> Result<Option<Vec<bool>>> {
        let mut needed = Vec::with_capacity(self.versions.len());
        let pages = self.versions.chunk_by(|a, b| (a.file, a.page) == (b.file, b.page));
        for (count, chunk) in pages.enumerate() {
            let Some(Version { file, page, .. }) = chunk.first() else { continue };
            let seqs: Vec<Seq> = chunk.iter().map(|version| version.seq).collect();
            needed.append(&mut needs.needed(*file, *page, &seqs)?);
            if count % 256 == 0 && !pace.go_on(0) {
                return Ok(None);
            }
        }
        match needed.len() == self.versions.len() {
            true => Ok(Some(needed)),
            false => Err(Error::corrupt("thin.judge", "not every version was judged")),
        }
    }

    /// Bytes of all versions, and of those that are not needed.
    pub fn tally(&self, needed: &[bool]) -> (u64, u64) {
        let judged = self.versions.iter().zip(needed);
        judged.fold((0, 0), |(all, unneeded), (version, needed)| {
            let len = u64::from(version.len);
            (all + len, unneeded + if *needed { 0 } else { len })
        })
    }

    /// The writes that are not needed whole.
    pub fn unneeded(&self, needed: &[bool]) -> Vec<Unneeded> {
        let mut pages: HashMap<Seq, (bool, Vec<PageNo>)> = HashMap::new();
        for (version, needed) in self.versions.iter().zip(needed) {
            let (goes, stays) = pages.entry(version.seq).or_default();
            match needed {
                true => stays.push(version.page),
                false => *goes = true,
            }
        }
        let gone = pages.into_iter().filter(|(_, (goes, _))| *goes);
        gone.filter_map(|(seq, (_, needed))| {
            let (file, range) = *self.writes.get(&seq)?;
            Some(Unneeded { file, seq, range, needed })
        })
        .collect()
    }

    /// Drops what is not needed.
    pub fn keep(&mut self, needed: Vec<bool>) {
        let mut flags = needed.into_iter();
        self.versions.retain(|_| flags.next().unwrap_or(true));
    }

    /// A sample of the versions, where they stand, and how many times as many bytes all are: stretches of neighbours,
    /// since these are packed together.
    pub fn sample(&self) -> (Vec<usize>, f64) {
        let bytes =
            |versions: &[Version]| -> u64 { versions.iter().map(|version| u64::from(version.len)).sum() };
        let all = bytes(&self.versions);
        let every = all.div_ceil(WEIGHED).max(1);
        let (mut sample, mut at, mut seen, mut within) = (Vec::new(), 0, 0, 0);
        for page in self.versions.chunk_by(|a, b| (a.file, a.page) == (b.file, b.page)) {
            let here = bytes(page);
            if (seen / STRETCH).is_multiple_of(every) {
                sample.extend(at..at + page.len());
                within += here;
            }
            seen += here;
            at += page.len();
        }
        (sample, all as f64 / within.max(1) as f64)
    }

    pub fn at(&self, places: impl Iterator<Item = usize>) -> impl Iterator<Item = &Version> {
        places.filter_map(|at| self.versions.get(at))
    }
}
