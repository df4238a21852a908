//! The bytes of one file: what is seen now, what is on the medium, and which sectors are between the two.
//!
//! Invariants:
//! - `seen` is zero from `len` on, `durable` from `durable_len` on.
//! - A sector outside `pending` is the same in both (below both lengths), unless a sync failed (`diverged`).
//! - `lens` are the lengths taken since the last sync, in order; a prefix of them survives a cut. A sector that was
//!   written after a length change that is lost is lost with it, as its blocks were never reachable.

use super::ranges::Ranges;
use super::rng::Rng;
use crate::types::{PAGE, PAGE_LEN};
use std::collections::{BTreeMap, BTreeSet};
// Not crate::sync's: pages are immutable once shared, so there is nothing to explore, and it must be fast.
use std::sync::Arc;

/// What a medium writes as one.
pub(super) const SECTOR: u64 = 512;
const SECTOR_LEN: usize = 512;
const SECTORS_PER_PAGE: u64 = PAGE / SECTOR;
const ALL: u8 = 0xff;
/// Lengths remembered between syncs: of a long run of appends not every one need be a possible survivor.
const LENS_MAX: usize = 32;

type Page = [u8; PAGE_LEN];

/// For numbers below a page: they fit.
fn small(value: u64) -> usize {
    usize::try_from(value).unwrap_or(PAGE_LEN)
}

/// Sparse bytes: absent pages are zeros.
#[derive(Clone, Default)]
struct Bytes {
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Bytes {
    /// The page, writable.
    fn page_mut(&mut self, no: u64) -> &mut Page {
        Arc::make_mut(self.pages.entry(no).or_insert_with(|| Arc::new([0; PAGE_LEN])))
    }

    /// Zeros from `len` on.
    fn truncate(&mut self, len: u64) {
        if len == 0 {
            self.pages.clear();
            return;
        }
        let keep = len.div_ceil(PAGE);
        if self.pages.last_key_value().is_some_and(|(&no, _)| no >= keep) {
            self.pages.split_off(&keep);
        }
        if !len.is_multiple_of(PAGE) && self.pages.contains_key(&(len / PAGE)) {
            self.page_mut(len / PAGE)[small(len % PAGE)..].fill(0);
        }
    }

    /// Copies the sectors in `mask` of page `no` from `other`.
    fn copy_sectors(&mut self, other: &Bytes, no: u64, mask: u8) {
        if mask == 0 {
            return;
        }
        match (mask, other.pages.get(&no)) {
            (ALL, None) => {
                self.pages.remove(&no);
            }
            (ALL, Some(page)) => {
                self.pages.insert(no, Arc::clone(page));
            }
            (_, None) if !self.pages.contains_key(&no) => {}
            (_, source) => {
                let target = self.page_mut(no);
                for sector in sectors(mask) {
                    let range = sector * SECTOR_LEN..(sector + 1) * SECTOR_LEN;
                    match source {
                        Some(page) => target[range.clone()].copy_from_slice(&page[range]),
                        None => target[range].fill(0),
                    }
                }
            }
        }
    }
}

/// The sectors in a mask.
fn sectors(mask: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |sector| mask & (1 << sector) != 0)
}

/// The sectors of a page that `start..end` (bytes within the page) touches.
fn mask_of(start: u64, end: u64) -> u8 {
    if start >= end {
        return 0;
    }
    let (first, last) = (start / SECTOR, (end - 1) / SECTOR);
    (first..=last).fold(0, |mask, sector| mask | (1 << sector))
}

/// The parts of `start..end` in each page: (page, start in page, end in page).
fn parts(start: u64, end: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    (start / PAGE..end.div_ceil(PAGE)).map(move |no| {
        let base = no * PAGE;
        (no, start.max(base) - base, end.min(base + PAGE) - base)
    })
}

#[derive(Clone, Default)]
pub(super) struct Content {
    seen: Bytes,
    len: u64,
    durable: Bytes,
    durable_len: u64,
    lens: Vec<u64>,
    pending: BTreeMap<u64, u8>,
    diverged: bool,
    /// Bytes were forgotten in a sync of the whole filesystem; the file's own next one is told.
    pub(super) forgotten: bool,
    /// Pages that have space, written or reserved.
    allocated: Ranges,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated_pages(&self) -> u64 {
        self.allocated.total()
    }

    /// Pages of a byte range that have no space yet.
    pub(super) fn missing_pages(&self, start: u64, end: u64) -> u64 {
        let (first, last) = (start / PAGE, end.div_ceil(PAGE));
        (last - first) - self.allocated.covered(first, last)
    }

    /// The next stretch of pages that were written, as bytes; pages only reserved are a hole.
    pub(super) fn next_data(&self, offset: u64) -> Option<(u64, u64)> {
        let mut pages = self.seen.pages.range(offset / PAGE..).map(|(&no, _)| no).peekable();
        let first = pages.next()?;
        let mut end = first + 1;
        while pages.next_if_eq(&end).is_some() {
            end += 1;
        }
        let (start, end) = ((first * PAGE).max(offset), (end * PAGE).min(self.len));
        (start < end).then_some((start, end))
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let count = (buf.len() as u64).min(self.len.saturating_sub(offset));
        let mut done = 0;
        for (no, start, end) in parts(offset, offset + count) {
            let target = &mut buf[done..done + small(end - start)];
            match self.seen.pages.get(&no) {
                Some(page) => target.copy_from_slice(&page[small(start)..small(end)]),
                None => target.fill(0),
            }
            done += small(end - start);
        }
        done
    }

    pub(super) fn write(&mut self, buf: &[u8], offset: u64, rng: &mut Rng) {
        if buf.is_empty() {
            return;
        }
        let end = offset + buf.len() as u64;
        if end > self.len {
            self.note_len(end);
        }
        self.allocated.insert(offset / PAGE, end.div_ceil(PAGE));
        let mut done = 0;
        for (no, from, to) in parts(offset, end) {
            let mask = mask_of(from, to);
            self.maybe_write_back(no, mask, rng);
            let bytes = &buf[done..done + small(to - from)];
            self.seen.page_mut(no)[small(from)..small(to)].copy_from_slice(bytes);
            *self.pending.entry(no).or_insert(0) |= mask;
            done += small(to - from);
        }
    }

    /// Before pending sectors are overwritten, the system may have written them back: then it is their older bytes
    /// that a cut falls back to. Only where no pending length could make that inexact.
    fn maybe_write_back(&mut self, no: u64, mask: u8, rng: &mut Rng) {
        let again = self.pending.get(&no).map_or(0, |old| old & mask);
        if again == 0 || !rng.one_in(4) {
            return;
        }
        let stable = self.lens.iter().fold(self.durable_len, |a, &b| a.min(b));
        if (no + 1) * PAGE <= stable {
            self.durable.copy_sectors(&self.seen, no, again);
        }
    }

    fn note_len(&mut self, len: u64) {
        if let [.., before, last] = self.lens[..]
            && self.lens.len() >= LENS_MAX
            && before <= last
            && last <= len
        {
            self.lens.pop();
        }
        self.lens.push(len);
        self.len = len;
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len == self.len {
            return;
        }
        if len < self.len {
            self.seen.truncate(len);
            self.pending.split_off(&len.div_ceil(PAGE));
            if let Some(mask) = self.pending.get_mut(&(len / PAGE)) {
                *mask &= mask_of(0, len % PAGE);
            }
            self.allocated.remove(len.div_ceil(PAGE), self.len.div_ceil(PAGE).max(len.div_ceil(PAGE)));
        }
        self.note_len(len);
    }

    /// Zeros within the length; whole pages lose their space.
    pub(super) fn punch(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len).min(self.len);
        if start >= end {
            return;
        }
        let pages = start / PAGE..end.div_ceil(PAGE);
        let known = |bytes: &Bytes| bytes.pages.range(pages.clone()).map(|(&no, _)| no).collect::<Vec<_>>();
        let mut touched: BTreeSet<u64> = known(&self.seen).into_iter().collect();
        touched.extend(known(&self.durable));
        for no in touched {
            let from = start.max(no * PAGE) - no * PAGE;
            let to = end.min((no + 1) * PAGE) - no * PAGE;
            if to - from == PAGE {
                self.seen.pages.remove(&no);
            } else {
                self.seen.page_mut(no)[small(from)..small(to)].fill(0);
            }
            *self.pending.entry(no).or_insert(0) |= mask_of(from, to);
        }
        self.allocated.remove(start.div_ceil(PAGE), end / PAGE);
    }

    pub(super) fn allocate(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        self.allocated.insert(start / PAGE, end.div_ceil(PAGE));
        if end > self.len {
            self.note_len(end);
        }
    }

    pub(super) fn sync(&mut self) {
        if let Some(&least) = self.lens.iter().min() {
            self.durable.truncate(least.min(self.durable_len));
        }
        for (no, mask) in std::mem::take(&mut self.pending) {
            // Sharing the whole page is faster, and the same unless a failed sync left other sectors behind.
            let mask = if self.diverged { mask } else { ALL };
            self.durable.copy_sectors(&self.seen, no, mask);
        }
        self.lens.clear();
        self.durable_len = self.len;
        if self.diverged {
            // A partial page may carry what stands beyond the end.
            self.durable.truncate(self.durable_len);
        }
    }

    /// What the kernel does after a failed writeback: pages are clean, whether or not they reached the medium. Each
    /// pending sector is written, dropped, or (another page's turn would have come later) still pending.
    /// Whether anything was pending.
    pub(super) fn sync_failed(&mut self, rng: &mut Rng) -> bool {
        let waited = !self.pending.is_empty();
        let stable = self.lens.iter().fold(self.durable_len, |a, &b| a.min(b));
        self.diverged |= !self.pending.is_empty();
        for (no, mask) in std::mem::take(&mut self.pending) {
            let (mut written, mut kept) = (0, 0);
            for sector in sectors(mask) {
                match rng.below(4) {
                    0 if (no + 1) * PAGE <= stable => written |= 1 << sector,
                    1 => kept |= 1 << sector,
                    _ => {}
                }
            }
            self.durable.copy_sectors(&self.seen, no, written);
            if kept != 0 {
                self.pending.insert(no, kept);
            }
        }
        waited
    }

    /// The file after a power cut: a prefix of the length changes, any subset of the pending sectors.
    pub(super) fn after_cut(&self, rng: &mut Rng) -> Content {
        let kept_lens = self.surviving_lens(rng);
        let (kept, lost) = self.lens.split_at(kept_lens);
        let len = kept.last().copied().unwrap_or(self.durable_len);
        let mut bytes = self.durable.clone();
        if let Some(&least) = kept.iter().min() {
            bytes.truncate(least.min(self.durable_len));
        }
        let reach = lost.iter().copied().min().unwrap_or(u64::MAX);
        let bias = rng.bias();
        for (&no, &mask) in &self.pending {
            let survivors = sectors(mask)
                .filter(|&sector| no * PAGE + sector as u64 * SECTOR < reach)
                .filter(|_| rng.biased(bias))
                .fold(0_u8, |mask, sector| mask | (1 << sector));
            bytes.copy_sectors(&self.seen, no, survivors);
        }
        bytes.truncate(len);
        Content::settled(bytes, len, self)
    }

    fn surviving_lens(&self, rng: &mut Rng) -> usize {
        let count = self.lens.len();
        match rng.below(4) {
            0 => 0,
            1 => count,
            _ => usize::try_from(rng.below(count as u64 + 1)).unwrap_or(count),
        }
    }

    /// Bytes that are all there is: nothing pending.
    fn settled(bytes: Bytes, len: u64, before: &Content) -> Content {
        let mut allocated = before.allocated.clone();
        allocated.remove(len.div_ceil(PAGE), u64::MAX / PAGE);
        for &no in bytes.pages.keys() {
            allocated.insert(no, no + 1);
        }
        Content {
            seen: bytes.clone(),
            len,
            durable: bytes,
            durable_len: len,
            allocated,
            ..Content::default()
        }
    }
}

const _: () = assert!(SECTORS_PER_PAGE == 8, "a page's sectors are a u8 mask");
