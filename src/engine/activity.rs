//! What is written to which file, counted since the engine began. A counter costs the write path one lock that hardly
//! anyone else wants.

use crate::sync::Mutex;
use crate::types::FileId;
use std::collections::HashMap;

/// Locks, so that writers of different files do not meet.
const SHARDS: usize = 16;
/// Files counted for themselves in one shard: beyond, the least busy are forgotten.
const FILES: usize = 1 << 15;

/// Work on one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Work {
    pub writes: u64,
    pub bytes: u64,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Activity {
    shards: [Mutex<HashMap<FileId, Work>>; SHARDS],
}

impl Activity {
    /// Counts a write.
    pub fn wrote(&self, file: FileId, bytes: usize) {
        let Some(shard) = self.shards.get((file.0 % SHARDS as u64) as usize) else { return };
        let mut shard = shard.lock();
        if shard.len() >= FILES && !shard.contains_key(&file) {
            forget_idle(&mut shard);
        }
        let work = shard.entry(file).or_default();
        work.writes += 1;
        work.bytes += bytes as u64;
    }

    /// The counts of all files that were written to.
    pub fn all(&self) -> HashMap<FileId, Work> {
        let mut all = HashMap::new();
        for shard in &self.shards {
            all.extend(shard.lock().iter().map(|(file, work)| (*file, *work)));
        }
        all
    }
}

/// Leaves the busier half.
fn forget_idle(shard: &mut HashMap<FileId, Work>) {
    let mut writes: Vec<u64> = shard.values().map(|work| work.writes).collect();
    let middle = writes.len() / 2;
    let median = *writes.select_nth_unstable(middle).1;
    shard.retain(|_, work| work.writes > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_per_file_and_bounded() {
        let activity = Activity::default();
        for _ in 0..3 {
            activity.wrote(FileId(7), 100);
        }
        for number in 0..(FILES * SHARDS + 1_000) as u64 {
            activity.wrote(FileId(1_000 + number), 1);
        }
        let all = activity.all();
        assert_eq!(all[&FileId(7)], Work { writes: 3, bytes: 300 });
        assert!(all.len() <= FILES * SHARDS + SHARDS, "{}", all.len());
    }
}
