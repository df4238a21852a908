//! What happened to one partition in one stretch of time: the unit of signals and of traces.
//!
//! Invariant: `appends + overwrites == writes`; `pages` is at most the pages that `bytes` could have touched.

use crate::types::Timestamp;

/// Parts into which a partition's page range is divided to say where it was touched.
pub const PARTS: u64 = 64;

/// Activity of a partition in the `span_us` µs that end at `end`. All zero but `size`: nothing happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tick {
    pub end: Timestamp,
    /// Length of the stretch, µs; positive.
    pub span_us: i64,
    pub writes: u64,
    /// Bytes that writes brought.
    pub bytes: u64,
    /// Writes that made a file longer.
    pub appends: u64,
    /// Writes within the file.
    pub overwrites: u64,
    /// Distinct 4 KiB pages written.
    pub pages: u64,
    /// Bytes by which the partition grew (shrank, when negative).
    pub growth: i64,
    /// Bytes of the partition at the end of the stretch.
    pub size: u64,
    /// Reads that reached the daemon; what the kernel's cache answers is not seen.
    pub reads: u64,
    pub read_bytes: u64,
    pub fsyncs: u64,
    /// Bit `i`: something was written in the `i`-th of 64 equal parts of the partition's [`reach`].
    pub touched: u64,
}

/// The byte range that `touched` divides: the size, rounded up to a power of two of at least 64 pages, so that it
/// stays the same while a partition grows a little.
pub fn reach(size: u64) -> u64 {
    size.clamp(PARTS * crate::types::PAGE, 1 << 62).next_power_of_two()
}

/// The bits of `touched` for the bytes `[start, end)` of a partition of `size` bytes.
pub fn touched(start: u64, end: u64, size: u64) -> u64 {
    let part = (reach(size) / PARTS).max(1);
    let (first, last) = ((start / part).min(PARTS - 1), (end.max(start + 1) - 1) / part);
    let last = last.clamp(first, PARTS - 1);
    let below = |n: u64| if n >= PARTS { u64::MAX } else { (1 << n) - 1 };
    below(last + 1) & !below(first)
}

impl Tick {
    /// Nothing was written, read or synced.
    pub fn is_idle(&self) -> bool {
        self.writes == 0 && self.reads == 0 && self.fsyncs == 0 && self.growth == 0
    }

    /// Length of the stretch in seconds, never zero.
    pub fn secs(&self) -> f64 {
        self.span_us.max(1) as f64 / 1e6
    }

    /// Scattered extents that the writes left in history, about: the bytes of one write lie together.
    pub fn extents(&self) -> u64 {
        self.pages.min(self.writes)
    }

    /// Adds what happened to another file of the same partition in the same stretch. Sizes add up; so do pages, which
    /// are of different files.
    pub fn add(&mut self, other: &Tick) {
        self.writes += other.writes;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.appends += other.appends;
        self.overwrites += other.overwrites;
        self.pages += other.pages;
        self.growth = self.growth.saturating_add(other.growth);
        self.size = self.size.saturating_add(other.size);
        self.reads += other.reads;
        self.read_bytes = self.read_bytes.saturating_add(other.read_bytes);
        self.fsyncs += other.fsyncs;
        self.touched |= other.touched;
    }
}

/// Distinct pages written over several ticks, estimated from their `pages` and `touched`: each part holds at most its
/// own pages. Exact for what is written once, and for what is written over and over.
#[derive(Clone, Debug, Default)]
pub struct Union {
    /// Bit `i`: there are pages in the `i`-th part. Most partitions are written in few, and there are many unions.
    parts: u64,
    /// Pages in each of those parts.
    pages: Vec<f32>,
    /// Sums over the ticks, as if none wrote where another did.
    told_pages: f64,
    told_extents: f64,
}

impl Union {
    /// Adds a tick's pages.
    pub fn add(&mut self, tick: &Tick) {
        if tick.pages == 0 {
            return;
        }
        self.told_pages += tick.pages as f64;
        self.told_extents += tick.extents() as f64;
        let touched = if tick.touched == 0 { 1 } else { tick.touched };
        let most = (reach(tick.size) / PARTS / crate::types::PAGE).max(1) as f32;
        let each = tick.pages as f32 / touched.count_ones() as f32;
        self.widen(touched);
        let written = ones(self.parts).map(|bit| touched & bit != 0);
        for (part, _) in self.pages.iter_mut().zip(written).filter(|(_, written)| *written) {
            // Of two sets of pages in one part, as many are new as chance would have it.
            let room = (most - *part).max(0.0);
            *part += each.min(most) * room / most;
        }
    }

    /// Makes room for parts that had no pages so far.
    fn widen(&mut self, touched: u64) {
        let all = self.parts | touched;
        if all != self.parts {
            let mut before = self.pages.iter().copied();
            let parts = self.parts;
            let kept = |bit: u64| if parts & bit != 0 { before.next().unwrap_or(0.0) } else { 0.0 };
            self.pages = ones(all).map(kept).collect();
            self.parts = all;
        }
    }

    /// Distinct pages.
    pub fn pages(&self) -> f64 {
        self.pages.iter().map(|part| f64::from(*part)).sum()
    }

    /// Scattered extents: the distinct pages, in runs as long as they were written in.
    pub fn extents(&self) -> f64 {
        if self.told_pages > 0.0 { self.pages() * self.told_extents / self.told_pages } else { 0.0 }
    }

    pub fn clear(&mut self) {
        *self = Union::default();
    }
}

/// The bits that are set, lowest first.
fn ones(mut bits: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let lowest = bits & bits.wrapping_neg();
        bits &= !lowest;
        (lowest != 0).then_some(lowest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn touched_parts_are_those_of_the_range() {
        let mib = 1 << 20;
        assert_eq!(reach(0), 256 << 10);
        assert_eq!(reach(mib + 1), 2 * mib);
        // 64 MiB: a part is one MiB.
        assert_eq!(touched(0, 1, 64 * mib), 1);
        assert_eq!(touched(mib - 1, mib + 1, 64 * mib), 0b11);
        assert_eq!(touched(63 * mib, 64 * mib, 64 * mib), 1 << 63);
        assert_eq!(touched(0, 64 * mib, 64 * mib), u64::MAX);
        assert_eq!(touched(100 * mib, 100 * mib, 64 * mib), 1 << 63, "beyond the end is the end");
    }

    #[test]
    fn one_page_written_again_and_again_stays_one() {
        let mut union = Union::default();
        let tick = Tick { pages: 1, touched: 1, size: 8192, ..Tick::default() };
        (0..100).for_each(|_| union.add(&tick));
        assert!((union.pages() - 1.0).abs() < 0.01, "{}", union.pages());
        union.clear();
        assert_eq!(union.pages(), 0.0);
    }

    #[test]
    fn parts_count_each_by_itself_in_any_order() {
        let size = 64 << 20;
        let tick = |pages, touched| Tick { pages, touched, size, ..Tick::default() };
        let mut union = Union::default();
        for touched in [1 << 40, 1, 1 << 63, 1 << 40] {
            union.add(&tick(1, touched));
        }
        // A part has 256 pages: of the two in one, one may be the other.
        assert!((union.pages() - (4.0 - 1.0 / 256.0)).abs() < 1e-3, "{}", union.pages());
        union.add(&tick(64, u64::MAX));
        assert!((66.0..68.0).contains(&union.pages()), "{}", union.pages());
    }

    #[test]
    fn what_one_write_brings_is_one_extent() {
        let mut union = Union::default();
        let size = 64 << 20;
        union.add(&Tick { pages: 256, writes: 1, touched: 1, size, ..Tick::default() });
        assert!((union.extents() - 1.0).abs() < 1e-6, "{}", union.extents());
        // Written again by single pages somewhere else: half of the pages are scattered now.
        union.add(&Tick { pages: 256, writes: 256, touched: 2, size, ..Tick::default() });
        assert!((union.extents() - 257.0).abs() < 1.0, "{}", union.extents());
        // More writes than pages are as many extents as pages.
        assert_eq!(Tick { pages: 3, writes: 17, ..Tick::default() }.extents(), 3);
    }

    proptest! {
        #[test]
        fn any_range_touches_something(start in 0u64..1 << 50, len in 0u64..1 << 40, size in 0u64..1 << 50) {
            let bits = touched(start, start + len, size);
            prop_assert!(bits != 0);
            // One run of ones.
            prop_assert!((bits >> bits.trailing_zeros()).wrapping_add(1).count_ones() <= 1);
        }

        #[test]
        fn a_union_is_no_less_than_its_largest_and_no_more_than_the_sum(
            ticks in prop::collection::vec((1u64..64, 1u64..), 1..20),
        ) {
            let mut union = Union::default();
            let (mut sum, mut most) = (0.0, 0.0f64);
            for (pages, touched) in ticks {
                let size = 1 << 30;
                union.add(&Tick { pages, touched, size, ..Tick::default() });
                sum += pages as f64;
                most = most.max(pages as f64);
            }
            prop_assert!(union.pages() <= sum * 1.001 && union.pages() >= most * 0.99);
        }
    }
}
