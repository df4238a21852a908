//! What the splits of the past looked like: how large and how old a partition was then, and how far apart they came.
//!
//! Of a family of names (`site::family`), and of the whole site: a partition that was never split itself is measured
//! against its kin.

use crate::types::Timestamp;

/// Weight of a new split in the means, once there are several.
const NEW: f32 = 0.2;

/// See the head of this file. Means are of logarithms.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Past {
    pub splits: u32,
    /// Splits whose partition was known, and what it was: bytes since it was new or last split, and seconds.
    seen: u32,
    bytes_log: f32,
    age_log: f32,
    /// Moments after the first at which something was split, and the seconds before each.
    gaps: u32,
    gap_log: f32,
    pub last: Option<Timestamp>,
}

/// Moves a mean of logarithms of so many values, this one included, towards it.
fn move_mean(mean: &mut f32, count: u32, value: f64) {
    *mean += (value.max(0.0).ln_1p() as f32 - *mean) * NEW.max(1.0 / count.max(1) as f32);
}

impl Past {
    /// A split at `at`, of a partition that had gathered so many bytes in so many seconds, if that is known.
    pub fn add(&mut self, at: Timestamp, grown: Option<(u64, f64)>) {
        self.splits = self.splits.saturating_add(1);
        if let Some((bytes, age_secs)) = grown {
            self.seen = self.seen.saturating_add(1);
            move_mean(&mut self.bytes_log, self.seen, bytes as f64);
            move_mean(&mut self.age_log, self.seen, age_secs);
        }
        // What is split at one moment is one moment.
        if let Some(last) = self.last.filter(|last| *last < at) {
            self.gaps = self.gaps.saturating_add(1);
            move_mean(&mut self.gap_log, self.gaps, at.0.saturating_sub(last.0) as f64 / 1e6);
        }
        self.last = self.last.max(Some(at));
    }

    /// Bytes that a partition had gathered when it was split, in the mean.
    pub fn bytes(&self) -> Option<f64> {
        (self.seen > 0).then(|| f64::from(self.bytes_log).exp_m1())
    }

    /// Seconds that it had gathered them in.
    pub fn age_secs(&self) -> Option<f64> {
        (self.seen > 0).then(|| f64::from(self.age_log).exp_m1())
    }

    /// Seconds between two splits.
    pub fn gap_secs(&self) -> Option<f64> {
        (self.gaps > 0).then(|| f64::from(self.gap_log).exp_m1())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_the_splits_that_were() {
        let at = |secs: i64| Timestamp(secs * 1_000_000);
        let mut past = Past::default();
        assert_eq!((past.bytes(), past.age_secs(), past.gap_secs()), (None, None, None));
        past.add(at(100), Some((1_000, 50.0)));
        assert!(
            (past.bytes().unwrap() - 1_000.0).abs() < 0.1 && (past.age_secs().unwrap() - 50.0).abs() < 0.01
        );
        assert_eq!(past.gap_secs(), None, "one split is no rhythm");
        // A partition that nobody knew; and two at one moment.
        past.add(at(160), None);
        past.add(at(160), Some((1_000, 50.0)));
        assert!((past.gap_secs().unwrap() - 60.0).abs() < 0.01);
        assert_eq!((past.splits, past.last), (3, Some(at(160))));
        assert!((past.bytes().unwrap() - 1_000.0).abs() < 0.1);
        // What is new outweighs what is old, in the end.
        (1..40).for_each(|n| past.add(at(160 + n * 600), Some((64_000, 600.0))));
        assert!((past.bytes().unwrap() / 64_000.0 - 1.0).abs() < 0.02);
        assert!((past.gap_secs().unwrap() / 600.0 - 1.0).abs() < 0.02);
    }
}
