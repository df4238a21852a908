//! L0: time comes in from outside, so that a test can set the clock back an hour.
//!
//! Two clocks: the wall clock, which names instants and may be set, and a monotonic one, which only measures. A step is
//! what the first moved more or less than the second.

use crate::types::Timestamp;
use std::time::Duration;

/// The only source of time.
pub trait Clock: Send + Sync {
    /// The wall clock's present reading; it may step in either direction.
    fn now(&self) -> Timestamp;

    /// Time since some moment of this boot, sleep included; nobody can set it. Readings of two boots are not compared.
    fn monotonic(&self) -> Duration;
}

/// Both clocks, read as one: the wall clock between two readings of the monotonic one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    pub wall: Timestamp,
    /// µs of the monotonic clock before the wall clock was read, and after it.
    earliest_us: i64,
    latest_us: i64,
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

impl Reading {
    /// A wall clock beyond the years that have a name counts as their end.
    pub fn take(clock: &dyn Clock) -> Reading {
        let earliest_us = micros(clock.monotonic());
        let wall = clock.now().clamp(Timestamp::FIRST, Timestamp::LAST);
        let latest_us = micros(clock.monotonic()).max(earliest_us);
        Reading { wall, earliest_us, latest_us }
    }

    /// By how many µs the wall clock was set since an earlier reading: at least so many, whenever within the two
    /// readings their clocks were read. A thread that slept between two clocks proves nothing.
    pub fn step_since(&self, before: &Reading) -> i64 {
        let moved = self.wall.0.saturating_sub(before.wall.0);
        let least = self.earliest_us.saturating_sub(before.latest_us).max(0);
        let most = self.latest_us.saturating_sub(before.earliest_us).max(0);
        moved.saturating_sub(moved.clamp(least, most))
    }
}

/// For tests: a clock that stands.
#[cfg(test)]
pub struct Still;

#[cfg(test)]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall: i64, earliest_us: i64, latest_us: i64) -> Reading {
        Reading { wall: Timestamp(wall), earliest_us, latest_us }
    }

    #[test]
    fn only_what_is_proven_counts_as_a_step() {
        let before = reading(1_000, 50, 60);
        // Time passed, however long.
        assert_eq!(reading(9_001_000, 9_000_050, 9_000_070).step_since(&before), 0);
        // The thread slept between the clocks: somewhere in there the wall clock was right.
        assert_eq!(reading(5_000, 100, 900_000).step_since(&before), 0);
        assert_eq!(reading(1_000, 100, 900_000).step_since(&before), -40);
        // Set back, set forward, and by how much at least.
        assert_eq!(reading(-4_000, 1_060, 1_070).step_since(&before), -6_000);
        assert_eq!(reading(9_020, 1_060, 1_070).step_since(&before), 7_000);
        // Another boot counts from anywhere.
        assert_eq!(reading(1_000, 5, 5).step_since(&before), 0);
    }

    #[test]
    fn no_reading_is_out_of_range() {
        struct Mad(i64);
        impl Clock for Mad {
            fn now(&self) -> Timestamp {
                Timestamp(self.0)
            }
            fn monotonic(&self) -> Duration {
                Duration::MAX
            }
        }
        let (low, high) = (Reading::take(&Mad(i64::MIN)), Reading::take(&Mad(i64::MAX)));
        assert_eq!((low.wall, high.wall), (Timestamp::FIRST, Timestamp::LAST));
        assert!(low.step_since(&high) < 0 && high.step_since(&low) > 0);
    }
}
