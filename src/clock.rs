//! L0: wall time comes in from outside, so that a test can set it back an hour.

use crate::types::Timestamp;

/// A source of wall time.
pub trait Clock: Send + Sync {
    /// The wall clock's present reading; it may step in either direction.
    fn now(&self) -> Timestamp;
}
