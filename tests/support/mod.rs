//! What the tests of the core share: a clock that ticks, a model of a file tree, and comparing it with the present,
//! with a view and with a plain directory.

#![allow(dead_code, reason = "each test uses its part")]

pub mod bed;
pub mod kv;
pub mod model;
pub mod pruned;
pub mod trees;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use weft::clock::Clock;
use weft::types::Timestamp;

/// A clock that moves one microsecond each time it is read, and can be set.
pub struct Ticking {
    passed: AtomicI64,
    /// Of the wall clock, against what has passed.
    offset: AtomicI64,
}

impl Ticking {
    pub fn new(start_us: i64) -> Ticking {
        Ticking { passed: AtomicI64::new(0), offset: AtomicI64::new(start_us) }
    }

    /// Time passes.
    pub fn pass(&self, us: i64) {
        self.passed.fetch_add(us, Ordering::Relaxed);
    }

    /// What has passed, in µs.
    pub fn passed(&self) -> i64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// The wall clock is set by so much.
    pub fn step(&self, us: i64) {
        self.offset.fetch_add(us, Ordering::Relaxed);
    }
}

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp(self.passed.fetch_add(1, Ordering::Relaxed) + self.offset.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.passed.load(Ordering::Relaxed) as u64)
    }
}
