//! Which pages of a file hold data, as of any Seq.
//!
//! - A file whose mask lacks [`HOLES`] never had a hole: all its pages hold data. Most files of a database are such.
//! - Of the others, [`Track::Data`] tells the number of data pages after each event that changed it, beginning with the
//!   event that made the first hole. To know it, the writer keeps the set of data pages of the files that it meets.
//! - A base counts as data: nothing is known of what it was beneath. So does a page with partial versions only.

use super::build::Build;
use super::codec::put_seq;
use super::data::{self, Track};
use super::kv::{Kv, Space};
use super::levels::{HOLES, PARTIALS, levels};
use super::lookup::{Window, block_index, end_of_block_key, is_zero, last_page, split_block, split_partial};
use super::page::{block_prefix, partial_prefix};
use super::scan::{Scan, behind};
use super::{attr, base};
use crate::error::Result;
use crate::types::{FileId, PAGE, PageNo, PageSet, Seq, Timestamp};
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

/// Files that the writer remembers, and what their page sets may cost.
const FILES: usize = 1 << 16;
const COST_BYTES: usize = 16 << 20;
/// Pages looked at first when something is sought, and at most at once where versions are many.
const FIRST_PAGES: u64 = 512;
const MANY_PAGES: u64 = 1 << 16;
const MANY_VERSIONS: usize = 4096;

/// What the writer knows of a file.
struct Known {
    size: u64,
    /// `None`: it never had a hole.
    data: Option<PageSet>,
    /// The count last recorded.
    told: Option<u64>,
}

/// Files that the writer has met.
#[derive(Default)]
pub(super) struct Holes {
    files: HashMap<FileId, Known>,
}

impl Holes {
    /// Between batches: what a batch has learnt must stay until the store holds it.
    pub(super) fn trim(&mut self) {
        let cost: usize =
            self.files.values().filter_map(|known| known.data.as_ref()).map(PageSet::cost_bytes).sum();
        if self.files.len() > FILES || cost > COST_BYTES {
            self.files.clear();
        }
    }
}

/// What an event does to bytes.
#[derive(Clone, Copy)]
pub(super) enum Touch {
    Write(u64, u64),
    Zero(u64, u64),
    Resize,
}

impl Touch {
    /// Whether it leaves a page without data in a file that had none such, and `before` bytes; it has `size` after.
    fn makes_hole(self, before: u64, size: u64) -> bool {
        let grows = size.div_ceil(PAGE) > before.div_ceil(PAGE);
        match self {
            Touch::Write(start, end) => start < end && start / PAGE > before.div_ceil(PAGE),
            Touch::Zero(start, end) => grows || start.div_ceil(PAGE) < end / PAGE,
            Touch::Resize => grows,
        }
    }
}

/// A file appears, with `size` bytes of data.
pub(super) fn born(build: &mut Build<'_>, file: FileId, size: u64) {
    build.memory.holes.files.insert(file, Known { size, data: None, told: None });
}

/// A file's bytes are new, and `size` of them.
pub(super) fn rebased(build: &mut Build<'_>, file: FileId, when: (Seq, Timestamp), size: u64) -> Result<()> {
    let mut known = take(build, file)?;
    known.size = size;
    if let Some(data) = &mut known.data {
        *data = PageSet::dense(size);
    }
    put(build, file, when, known);
    Ok(())
}

/// An event changed bytes of a file, which has `size` of them after.
pub(super) fn record(
    build: &mut Build<'_>,
    file: FileId,
    when: (Seq, Timestamp),
    touch: Touch,
    size: u64,
) -> Result<()> {
    let mut known = take(build, file)?;
    if known.data.is_none() && touch.makes_hole(known.size, size) {
        known.data = Some(PageSet::dense(known.size));
        build.use_levels(file, HOLES)?;
    }
    known.size = size;
    if let Some(data) = &mut known.data {
        match touch {
            Touch::Write(start, end) => data.write(start, end),
            Touch::Zero(start, end) => data.zero(start, end),
            Touch::Resize => data.truncate(size),
        }
    }
    put(build, file, when, known);
    Ok(())
}

/// What is known of a file; loaded as of the last batch when it was not met in this one.
fn take(build: &mut Build<'_>, file: FileId) -> Result<Known> {
    if let Some(known) = build.memory.holes.files.remove(&file) {
        return Ok(known);
    }
    let at = build.known;
    let size = attr::attr(build.kv, file, at)?.map_or(0, |attr| attr.size);
    let mask = build.levels.of(build.kv, file)?;
    if mask & HOLES == 0 {
        return Ok(Known { size, data: None, told: None });
    }
    let told = data::newest(build.kv, file, Track::Data, at)?.map(|sample| sample.value);
    let found = Finder::new(build.kv, mask, file, at)?.all(size)?;
    Ok(Known { size, data: Some(found), told })
}

fn put(build: &mut Build<'_>, file: FileId, (seq, ts): (Seq, Timestamp), mut known: Known) {
    let count = known.data.as_ref().map(PageSet::count);
    if let Some(count) = count
        && known.told != Some(count)
    {
        build.sample(file, Track::Data, seq, ts, count);
        known.told = Some(count);
    }
    build.memory.holes.files.insert(file, known);
}

/// Number of pages that hold data in a file of `size` bytes.
pub(super) fn count(kv: &dyn Kv, mask: u64, file: FileId, at: Seq, size: u64) -> Result<u64> {
    let all = size.div_ceil(PAGE);
    match mask & HOLES {
        0 => Ok(all),
        _ => Ok(data::newest(kv, file, Track::Data, at)?.map_or(all, |sample| sample.value)),
    }
}

/// See [`PageSet::seek`].
pub(super) fn seek(
    kv: &dyn Kv,
    mask: u64,
    file: FileId,
    at: Seq,
    (offset, size, hole): (u64, u64, bool),
) -> Result<Option<u64>> {
    if mask & HOLES == 0 || offset >= size {
        return Ok((offset < size).then_some(if hole { size } else { offset }));
    }
    let finder = Finder::new(kv, mask, file, at)?;
    let mut windows = Windows::new(offset / PAGE, FIRST_PAGES);
    let mut from = offset;
    while from < size {
        let window = windows.next(size);
        let end = (window.end * PAGE).min(size);
        let (found, versions) = finder.within(window)?;
        match found.seek(from, end, hole) {
            Some(found) if !hole || found < end => return Ok(Some(found)),
            _ => from = end,
        }
        windows.seen(versions);
    }
    Ok(hole.then_some(size))
}

/// Ranges of pages one behind the other, growing while there is little in them.
struct Windows {
    next: u64,
    pages: u64,
}

impl Windows {
    fn new(first: u64, pages: u64) -> Windows {
        Windows { next: first, pages }
    }

    fn next(&mut self, size: u64) -> Range<u64> {
        let first = self.next;
        self.next = first.saturating_add(self.pages).min(size.div_ceil(PAGE));
        first..self.next
    }

    fn seen(&mut self, versions: usize) {
        if versions < MANY_VERSIONS {
            self.pages = self.pages.saturating_mul(4);
        } else {
            self.pages = self.pages.min(MANY_PAGES);
        }
    }
}

/// A version of a range of pages, data or zero.
struct Stroke {
    seq: Seq,
    pages: Range<u64>,
    data: bool,
}

/// Finds the data pages of a file at a Seq.
struct Finder<'a> {
    kv: &'a dyn Kv,
    mask: u64,
    file: FileId,
    window: Window,
    /// Pages of the base.
    base: u64,
}

impl<'a> Finder<'a> {
    fn new(kv: &'a dyn Kv, mask: u64, file: FileId, at: Seq) -> Result<Finder<'a>> {
        let adoption = base::adoption(kv, file, at)?;
        let floor = adoption.map_or(Seq::ZERO, |adoption| adoption.seq);
        let base = adoption.map_or(0, |adoption| adoption.size.div_ceil(PAGE));
        Ok(Finder { kv, mask, file, window: Window { at, floor }, base })
    }

    /// In the whole file.
    fn all(&self, size: u64) -> Result<PageSet> {
        let mut all = PageSet::default();
        let mut windows = Windows::new(0, MANY_PAGES);
        while windows.next < size.div_ceil(PAGE) {
            let window = windows.next(size);
            windows.seen(self.add(window, &mut all)?);
        }
        all.truncate(size);
        Ok(all)
    }

    fn within(&self, pages: Range<u64>) -> Result<(PageSet, usize)> {
        let mut found = PageSet::default();
        let versions = self.add(pages, &mut found)?;
        Ok((found, versions))
    }

    /// Adds the data pages of a range to a set that has none of them: older versions first, newer ones over them.
    fn add(&self, pages: Range<u64>, set: &mut PageSet) -> Result<usize> {
        let mut strokes = Vec::new();
        for level in levels(self.mask) {
            self.blocks(level, &pages, &mut strokes)?;
        }
        if self.mask & PARTIALS != 0 {
            self.partials(&pages, &mut strokes)?;
        }
        strokes.sort_by_key(|stroke| stroke.seq);
        set.write(pages.start * PAGE, self.base.min(pages.end) * PAGE);
        for stroke in &strokes {
            let (first, behind) = (stroke.pages.start.max(pages.start), stroke.pages.end.min(pages.end));
            match stroke.data {
                true => set.write(first * PAGE, behind * PAGE),
                false => set.zero(first * PAGE, behind * PAGE),
            }
        }
        Ok(strokes.len())
    }

    /// The newest version of every block of a level that meets the range.
    fn blocks(&self, level: u32, pages: &Range<u64>, strokes: &mut Vec<Stroke>) -> Result<()> {
        let at = self.window.at;
        let mut from = block_prefix(self.file, level, pages.start >> level);
        put_seq(&mut from, at);
        let end = behind(&block_prefix(self.file, level, pages.end.saturating_sub(1) >> level));
        let scan = Scan { kv: self.kv, space: Space::Page, from, end: &end, at };
        scan.newest(
            split_block,
            |subject| end_of_block_key(self.file, level, subject, at),
            |hit| {
                if hit.seq > self.window.floor {
                    let first = block_index(hit.subject)? << level;
                    let pages = first..first.saturating_add(1 << level);
                    strokes.push(Stroke { seq: hit.seq, pages, data: !is_zero(hit.value)? });
                }
                Ok(ControlFlow::Continue(()))
            },
        )
    }

    /// The newest partial version of every page of the range; older ones beneath a zero one may be data.
    fn partials(&self, pages: &Range<u64>, strokes: &mut Vec<Stroke>) -> Result<()> {
        let at = self.window.at;
        let mut from = partial_prefix(self.file, PageNo(pages.start));
        put_seq(&mut from, at);
        let last = PageNo(pages.end.saturating_sub(1));
        let end = behind(&partial_prefix(self.file, last));
        let scan = Scan { kv: self.kv, space: Space::Partial, from, end: &end, at };
        let next = |subject: &[u8]| {
            let mut key = partial_prefix(self.file, PageNo(last_page(subject)?.saturating_add(1)));
            put_seq(&mut key, at);
            Ok(key)
        };
        scan.newest(split_partial, next, |hit| {
            if hit.seq > self.window.floor {
                let page = last_page(hit.subject)?;
                strokes.push(Stroke { seq: hit.seq, pages: page..page + 1, data: true });
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}
