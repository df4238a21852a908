//! What makes up a page at an instant, as it was written: composed pages, which can be made anew, do not count.

use super::codec::put_seq;
use super::kv::{Kv, Space};
use super::levels::{PARTIALS, levels};
use super::lookup::{FullVersion, PageVersion, PartialVersion, split_block};
use super::lookup::{Window, read_full, read_partial, split_partial, versions};
use super::page::{block_prefix, partial_prefix};
use crate::error::Result;
use crate::types::{FileId, Location, PAGE_LEN, PageNo, Seq};

/// Versions read at a time.
const AT_ONCE: usize = 16;

/// Which bytes of a page are covered by something newer: ranges that do not touch, rising.
#[derive(Default)]
struct Covered(Vec<(u32, u32)>);

impl Covered {
    /// Covers `start..end`; whether any byte of it was not covered before.
    fn cover(&mut self, start: u32, end: u32) -> bool {
        if start >= end || self.0.iter().any(|(from, to)| *from <= start && end <= *to) {
            return false;
        }
        let (mut from, mut to) = (start, end);
        self.0.retain(|(other_from, other_to)| {
            let apart = *other_to < from || *other_from > to;
            if !apart {
                (from, to) = (from.min(*other_from), to.max(*other_to));
            }
            apart
        });
        self.0.push((from, to));
        self.0.sort_unstable();
        true
    }

    fn is_whole(&self) -> bool {
        self.0 == [(0, PAGE_LEN as u32)]
    }
}

impl PageVersion {
    /// Drops what newer parts cover altogether: its bytes are not needed, and may be gone. Whether anything shows of
    /// what is beneath the parts.
    pub fn uncover(&mut self) -> bool {
        let mut covered = Covered::default();
        self.partials.retain(|part| covered.cover(part.start, part.start + part.len));
        if covered.is_whole() {
            self.full = None;
        }
        !covered.is_whole()
    }

    /// The events of which the page has bytes.
    pub fn seqs(&self) -> impl Iterator<Item = Seq> + '_ {
        self.full.iter().map(|full| full.seq).chain(self.partials.iter().map(|part| part.seq))
    }
}

/// The versions that a page shows bytes of, as they were written.
pub(super) fn page(
    kv: &dyn Kv,
    mask: u64,
    file: FileId,
    page: PageNo,
    window: Window,
) -> Result<PageVersion> {
    let mut found = PageVersion::default();
    for level in levels(mask) {
        let floor = found.full.map_or(window.floor, |full| full.seq);
        if let Some(full) = newest_full(kv, file, page, level, Window { floor, ..window })? {
            found.full = Some(full);
        }
    }
    if mask & PARTIALS != 0 {
        let floor = found.full.map_or(window.floor, |full| full.seq);
        found.partials = partials(kv, file, page, Window { floor, ..window })?;
    }
    found.uncover();
    Ok(found)
}

fn newest_full(
    kv: &dyn Kv,
    file: FileId,
    page: PageNo,
    level: u32,
    window: Window,
) -> Result<Option<FullVersion>> {
    let index = page.0 >> level;
    let skipped = page.0 - (index << level);
    let Some((mut from, end)) = versions(block_prefix(file, level, index), window.at, window.floor) else {
        return Ok(None);
    };
    loop {
        let pairs = kv.range(Space::Page, &from, &end, AT_ONCE)?;
        for (key, value) in &pairs {
            let full = read_full(split_block(key)?.1, value, skipped)?;
            if !matches!(full.location, Location::PageFile { .. }) {
                return Ok(Some(full));
            }
        }
        match pairs.into_iter().nth(AT_ONCE - 1) {
            Some((mut last, _)) => {
                last.push(0);
                from = last;
            }
            None => return Ok(None),
        }
    }
}

/// Newest first, until the page is covered.
fn partials(kv: &dyn Kv, file: FileId, page: PageNo, window: Window) -> Result<Vec<PartialVersion>> {
    let mut found = Vec::new();
    let mut covered = Covered::default();
    let Some((mut from, end)) = versions(partial_prefix(file, page), window.at, window.floor) else {
        return Ok(found);
    };
    loop {
        let pairs = kv.range(Space::Partial, &from, &end, AT_ONCE)?;
        for (key, value) in &pairs {
            let part = read_partial(split_partial(key)?.1, value)?;
            if covered.cover(part.start, part.start + part.len) {
                found.push(part);
            }
            if covered.is_whole() {
                return Ok(found);
            }
        }
        match pairs.into_iter().nth(AT_ONCE - 1) {
            Some((mut last, _)) => {
                last.push(0);
                from = last;
            }
            None => return Ok(found),
        }
    }
}

/// The keys of what a write at `seq` left of the bytes `start..end` of a file that had `size` after; of a page in part
/// both that and the page as it was composed then. `needed` says of a page whether it is still wanted.
pub(super) fn keys_of(
    file: FileId,
    seq: Seq,
    (start, end, size): (u64, u64, u64),
    needed: &dyn Fn(PageNo) -> bool,
    out: &mut Vec<(Space, Vec<u8>)>,
) {
    let cover = super::cover::Cover::of(start, end);
    let with_seq = |mut key: Vec<u8>| {
        put_seq(&mut key, seq);
        key
    };
    // A tail that ends its file is a full version; another piece is a partial one, and the page may have been composed.
    let is_full = cover.tail.filter(|_| end >= size);
    for piece in [cover.head, cover.tail].into_iter().flatten().filter(|piece| !needed(piece.page)) {
        out.push((Space::Page, with_seq(block_prefix(file, 0, piece.page.0))));
        if is_full != Some(piece) {
            out.push((Space::Partial, with_seq(partial_prefix(file, piece.page))));
        }
    }
    for block in super::cover::blocks(cover.whole) {
        let first = block.first_page();
        if !(first..first + (1 << block.level)).any(|page| needed(PageNo(page))) {
            out.push((Space::Page, with_seq(block_prefix(file, block.level, block.index))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_covered_is_not_needed() {
        let part = |seq, start, len| PartialVersion { seq: Seq(seq), start, len, location: Location::Zero };
        let full = FullVersion { seq: Seq(1), location: Location::Zero, valid_len: 4096 };
        let mut page = PageVersion {
            full: Some(full),
            partials: vec![
                part(9, 0, 24),
                part(8, 24, 100),
                part(7, 10, 100),
                part(6, 100, 3996),
                part(5, 4000, 96),
            ],
        };
        assert!(!page.uncover());
        assert_eq!(page.seqs().map(|seq| seq.0).collect::<Vec<_>>(), [9, 8, 6]);
        let mut page = PageVersion { full: Some(full), partials: vec![part(9, 1, 4095), part(8, 5, 4)] };
        assert!(page.uncover());
        assert_eq!(page.seqs().map(|seq| seq.0).collect::<Vec<_>>(), [1, 9]);
    }
}
