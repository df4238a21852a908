//! What the writer remembers between batches.

use super::counts::Counts;
use super::holes::Holes;

/// Hints and caches: whatever is missing is read from the store.
#[derive(Default)]
pub(super) struct Memory {
    pub counts: Counts,
    pub holes: Holes,
    /// A batch failed, and nobody knows whether it is there.
    pub unsure: bool,
}

impl Memory {
    /// Between batches: keeps it small.
    pub(super) fn trim(&mut self) {
        self.counts.trim();
        self.holes.trim();
    }

    /// A batch failed: only the store knows now.
    pub(super) fn forget(&mut self) {
        *self = Memory { unsure: true, ..Memory::default() };
    }
}
