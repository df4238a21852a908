//! Where in a partition is written of late, and how many distinct pages a horizon brings if that goes on.

use crate::forecast::tick::{PARTS, Tick, reach};
use crate::types::PAGE;

/// Memory of where is written: seconds in which it fades to 1/e.
const FADE_SECS: f64 = 1_800.0;

/// Pages written in each of the parts that `Tick::touched` divides a partition into, fading.
#[derive(Clone, Debug)]
pub struct Parts {
    pages: [f32; PARTS as usize],
    at_us: i64,
    reach: u64,
}

impl Default for Parts {
    fn default() -> Parts {
        Parts { pages: [0.0; PARTS as usize], at_us: 0, reach: reach(0) }
    }
}

impl Parts {
    /// Adds a tick that ends after all before it.
    pub fn add(&mut self, tick: &Tick) {
        self.measure(reach(tick.size));
        if tick.pages == 0 {
            return;
        }
        let passed = tick.end.0.saturating_sub(self.at_us).max(0) as f64 / 1e6;
        let keep = (-passed / FADE_SECS).exp() as f32;
        let touched = if tick.touched == 0 { 1 } else { tick.touched };
        // More than 2^40 pages in a tick are no count.
        let each = tick.pages.min(1 << 40) as f32 / touched.count_ones() as f32;
        for (index, part) in self.pages.iter_mut().enumerate() {
            *part = *part * keep + if touched & (1 << index) != 0 { each } else { 0.0 };
        }
        self.at_us = self.at_us.max(tick.end.0);
    }

    /// Parts grow with the partition: two become one. One that has shrunk is another.
    fn measure(&mut self, reach: u64) {
        if reach < self.reach {
            self.pages = [0.0; PARTS as usize];
            self.reach = reach;
        }
        while self.reach < reach {
            let mut folded = [0.0; PARTS as usize];
            for (slot, pair) in folded.iter_mut().zip(self.pages.chunks(2)) {
                *slot = pair.iter().sum();
            }
            self.pages = folded;
            self.reach *= 2;
        }
    }

    /// Distinct pages among `pages` that are written where it was written of late, at random within each part, as
    /// `tick::Union` counts them.
    pub fn distinct(&self, pages: f64) -> f64 {
        let sum: f64 = self.pages.iter().map(|part| f64::from(*part)).sum();
        if sum <= 0.0 {
            return pages.max(0.0);
        }
        let most = (self.reach / PARTS / PAGE).max(1) as f64;
        let of = |part: &f32| most * (1.0 - (-pages.max(0.0) * f64::from(*part) / sum / most).exp());
        self.pages.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn tick(secs: i64, pages: u64, touched: u64, size: u64) -> Tick {
        Tick { end: Timestamp(secs * 1_000_000), span_us: 1, pages, touched, size, ..Tick::default() }
    }

    #[test]
    fn a_hot_part_has_no_more_pages_than_it_has() {
        let mut parts = Parts::default();
        // 64 MiB: a part has 256 pages.
        (1..50).for_each(|n| parts.add(&tick(n * 10, 10, 1, 64 << 20)));
        assert!((parts.distinct(10.0) - 10.0).abs() < 0.5);
        assert!((parts.distinct(1e6) - 256.0).abs() < 1e-6);
        // All over it there is room.
        (50..100).for_each(|n| parts.add(&tick(n * 10, 640, u64::MAX, 64 << 20)));
        assert!(parts.distinct(1_000.0) > 900.0 && parts.distinct(1e9) <= 64.0 * 256.0 + 1e-6);
    }

    #[test]
    fn parts_grow_with_the_partition_and_what_shrank_begins_anew() {
        let mut parts = Parts::default();
        parts.add(&tick(10, 64, 0b11, 64 << 20));
        let before = parts.distinct(1e9);
        parts.add(&tick(11, 0, 0, 128 << 20));
        assert!((parts.distinct(1e9) - before).abs() < 1e-6, "the same bytes");
        parts.add(&tick(12, 0, 0, 1 << 20));
        assert_eq!(parts.distinct(7.0), 7.0, "nothing is known of where");
    }

    #[test]
    fn any_size_is_a_size() {
        let mut parts = Parts::default();
        for size in [u64::MAX, 0, u64::MAX / 2] {
            parts.add(&tick(1, u64::MAX, u64::MAX, size));
            assert!(parts.distinct(f64::MAX).is_finite());
        }
    }
}
