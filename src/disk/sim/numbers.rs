//! Inode numbers of one filesystem: reused, lowest first.

use super::changes::ChangeId;
use std::collections::BTreeMap;

/// The first number that ext4 gives to a file.
const FIRST: u64 = 11;

#[derive(Clone)]
pub(super) struct Numbers {
    /// Numbers to be reused, with the changes that freed them.
    free: BTreeMap<u64, Vec<ChangeId>>,
    next: u64,
}

impl Default for Numbers {
    fn default() -> Numbers {
        Numbers { free: BTreeMap::new(), next: FIRST }
    }
}

impl Numbers {
    /// A number, and the changes that its new owner's name needs.
    pub(super) fn give(&mut self) -> (u64, Vec<ChangeId>) {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            (self.next - 1, Vec::new())
        })
    }

    /// Nothing seen uses a number any more.
    pub(super) fn take_back(&mut self, ino: u64, by: Vec<ChangeId>) {
        self.free.insert(ino, by);
    }

    /// Frees what nobody of an image has.
    pub(super) fn free_but(&mut self, used: impl Iterator<Item = u64>) {
        self.free = (FIRST..self.next).map(|ino| (ino, Vec::new())).collect();
        for ino in used {
            self.free.remove(&ino);
        }
    }
}
