//! What the tests of the core share: a clock that ticks, a model of a file tree, and comparing it with the present,
//! with a view and with a plain directory.

#![allow(dead_code, reason = "each test uses its part")]

pub mod kv;
pub mod model;
pub mod trees;

use std::sync::atomic::{AtomicI64, Ordering};
use weft::clock::Clock;
use weft::types::Timestamp;

/// A clock that moves one microsecond each time it is read.
pub struct Ticking(AtomicI64);

impl Ticking {
    pub fn new(start_us: i64) -> Ticking {
        Ticking(AtomicI64::new(start_us))
    }
}

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
