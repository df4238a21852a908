//! Bytes written to each file since someone looked: what the standard rule goes by. A shelf for several threads.

use crate::sync::Mutex;
use crate::types::FileId;
use std::collections::HashMap;

const SHELVES: usize = 16;
/// Files counted on one shelf; beyond it some count late.
const FILES: usize = 1 << 16;

/// See the head of this file.
#[derive(Default)]
pub(in crate::engine) struct Deltas {
    shelves: [Mutex<HashMap<FileId, u64>>; SHELVES],
}

impl Deltas {
    /// Counts a write.
    pub(in crate::engine) fn add(&self, file: FileId, bytes: u64) {
        let Some(shelf) = self.shelves.get(usize::try_from(file.0).unwrap_or(0) % SHELVES) else { return };
        let mut shelf = shelf.lock();
        if shelf.len() < FILES || shelf.contains_key(&file) {
            *shelf.entry(file).or_default() += bytes;
        }
    }

    /// What was counted since the last call.
    pub(super) fn take(&self) -> Vec<(FileId, u64)> {
        self.shelves.iter().flat_map(|shelf| std::mem::take(&mut *shelf.lock())).collect()
    }
}
