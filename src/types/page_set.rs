//! Which pages of a file hold data; the others are holes. Dense or sparse, it is small.

use super::{PAGE, PageNo};
use roaring::RoaringBitmap;

/// Pages below 2^32: files are kept below 16 TiB.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PageSet(RoaringBitmap);

fn small(page: u64) -> u32 {
    u32::try_from(page).unwrap_or(u32::MAX)
}

impl PageSet {
    /// All pages of a file of `size` bytes.
    pub fn dense(size: u64) -> PageSet {
        let mut set = PageSet::default();
        set.write(0, size);
        set
    }

    /// As [`PageSet::to_bytes`] gave it; `None` when it is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<PageSet> {
        RoaringBitmap::deserialize_from(bytes).ok().map(PageSet)
    }

    /// For a checkpoint.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut set = self.0.clone();
        set.optimize();
        let mut bytes = Vec::with_capacity(set.serialized_size());
        // Writing to a vector does not fail.
        let _ = set.serialize_into(&mut bytes);
        bytes
    }

    /// How many pages hold data.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Whether a file of `size` bytes has no hole.
    pub fn is_dense(&self, size: u64) -> bool {
        self.count() >= size.div_ceil(PAGE)
    }

    /// About what it costs in memory.
    pub fn cost_bytes(&self) -> usize {
        self.0.serialized_size()
    }

    /// The bytes `[start, end)` were written.
    pub fn write(&mut self, start: u64, end: u64) {
        if start < end {
            self.0.insert_range(small(start / PAGE)..=small((end - 1) / PAGE));
        }
    }

    /// The bytes `[start, end)` are zero: whole pages become holes.
    pub fn zero(&mut self, start: u64, end: u64) {
        let (first, behind) = (start.div_ceil(PAGE), end / PAGE);
        if first < behind {
            self.0.remove_range(small(first)..=small(behind - 1));
        }
    }

    /// Nothing is left from `size` on.
    pub fn truncate(&mut self, size: u64) {
        self.0.remove_range(small(size.div_ceil(PAGE))..);
    }

    /// The last page of it.
    pub fn last(&self) -> Option<PageNo> {
        self.0.max().map(|page| PageNo(u64::from(page)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, page: PageNo) -> bool {
        u32::try_from(page.0).is_ok_and(|page| self.0.contains(page))
    }

    /// How many pages of `[first, end)` are in it.
    pub fn count_in(&self, first: u64, end: u64) -> u64 {
        if first < end { self.0.range_cardinality(small(first)..=small(end - 1)) } else { 0 }
    }

    /// The runs of pages, as `[first, end)`, in order.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut rest = self.0.iter();
        std::iter::from_fn(move || {
            rest.next_range().map(|run| (u64::from(*run.start()), u64::from(*run.end()) + 1))
        })
    }

    /// The page that has so many before it.
    pub fn nth(&self, number: u64) -> Option<PageNo> {
        self.0.select(small(number)).map(|page| PageNo(u64::from(page)))
    }

    /// How many pages stand before one.
    pub fn before(&self, page: PageNo) -> u64 {
        match small(page.0).checked_sub(1) {
            Some(last) => self.0.rank(last),
            None => 0,
        }
    }

    /// Adds the pages of another set.
    pub fn add(&mut self, other: &PageSet) {
        self.0 |= &other.0;
    }

    /// Keeps the pages that are in another set, too.
    pub fn keep(&mut self, other: &PageSet) {
        self.0 &= &other.0;
    }

    /// The next byte at or after `offset` that is data (or, with `hole`, in a hole), in a file of `size` bytes. The end
    /// of the file is a hole. `None`: there is none, or `offset` is at or beyond the end (lseek(2): ENXIO).
    pub fn seek(&self, offset: u64, size: u64, hole: bool) -> Option<u64> {
        if offset >= size {
            return None;
        }
        let page = small(offset / PAGE);
        let data = self.0.range(page..).next_range();
        let found = match (data, hole) {
            (Some(data), false) => u64::from(*data.start()) * PAGE,
            (None, false) => return None,
            (Some(data), true) if *data.start() == page => (u64::from(*data.end()) + 1) * PAGE,
            (_, true) => offset,
        };
        match hole {
            true => Some(found.max(offset).min(size)),
            false => Some(found.max(offset)).filter(|found| *found < size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: u64 = 24;

    fn seek(model: &[bool], offset: u64, size: u64, hole: bool) -> Option<u64> {
        if offset >= size {
            return None;
        }
        (offset..size).find(|at| model[(at / PAGE) as usize] != hole).or(hole.then_some(size))
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_pages(
            steps in prop::collection::vec((0u8..3, 0..PAGES * PAGE, 0u64..20_000), 0..30),
            offset in 0..PAGES * PAGE,
        ) {
            let (mut set, mut model, mut size) = (PageSet::default(), vec![false; PAGES as usize + 8], 0);
            for (kind, start, len) in steps {
                let end = start + len;
                match kind {
                    0 => {
                        set.write(start, end);
                        if start < end {
                            model[(start / PAGE) as usize..=((end - 1) / PAGE) as usize].fill(true);
                            size = size.max(end);
                        }
                    }
                    1 => {
                        set.zero(start, end);
                        let (first, behind) = (start.div_ceil(PAGE), end / PAGE);
                        (first..behind).for_each(|page| model[page as usize] = false);
                    }
                    _ => {
                        set.truncate(start);
                        model[start.div_ceil(PAGE) as usize..].fill(false);
                        size = start;
                    }
                }
                prop_assert_eq!(set.count(), model.iter().filter(|page| **page).count() as u64);
            }
            for hole in [false, true] {
                prop_assert_eq!(set.seek(offset, size, hole), seek(&model, offset, size, hole));
            }
            prop_assert_eq!(PageSet::from_bytes(&set.to_bytes()), Some(set));
        }
    }

    #[test]
    fn the_largest_file_has_all_its_pages() {
        let size = (1 << 44) - PAGE;
        let mut set = PageSet::dense(size);
        assert_eq!(set.count(), size / PAGE);
        assert!(set.is_dense(size));
        assert_eq!(set.seek(5, size, true), Some(size));
        set.zero(PAGE, size - 1);
        assert_eq!(set.seek(PAGE + 7, size, false), Some(size - PAGE));
        assert!(set.to_bytes().len() < 1000, "a few runs");
        assert_eq!(PageSet::from_bytes(b"nonsense"), None);
    }
}
