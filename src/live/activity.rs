//! What is done to which file, counted under locks that are held anyway, and taken away by whoever sweeps. Nothing of
//! it is needed for an answer.
//!
//! Invariant: a node that has counters is in the list of busy ones, once; the list is a leaf among the locks, and taken
//! once per file and sweep.

use super::Live;
use super::node::{Node, NodeState};
use crate::sync::atomic::Ordering;
use crate::types::{FileId, FileKind, PageSet, RootId};

/// Files that may be busy at once; more are not counted until the next sweep.
const BUSY_MAX: usize = 1 << 17;

/// Work on one file since the last sweep.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub writes: u64,
    pub bytes: u64,
    /// Writes that made the file longer; the others were within it.
    pub appends: u64,
    /// By how many bytes its size changed, also by truncation.
    pub growth: i64,
    pub pages: PageSet,
    pub reads: u64,
    pub read_bytes: u64,
    pub fsyncs: u64,
    /// It has another name now.
    pub renamed: bool,
}

/// A file that was busy.
#[derive(Clone, Debug)]
pub struct Busy {
    pub file: FileId,
    pub root: RootId,
    pub counters: Counters,
    pub size: u64,
    /// It has no name any more.
    pub gone: bool,
}

impl Live {
    /// From now on work is counted; somebody sweeps.
    pub fn count_activity(&self) {
        self.counting.store(true, Ordering::Relaxed);
    }

    /// How often something was done to a file for which there were no counters, as too many were busy.
    pub fn uncounted(&self) -> u64 {
        self.uncounted.load(Ordering::Relaxed)
    }

    /// The counters of a node, if work is counted. The node is locked.
    pub(super) fn counters<'a>(&self, node: &Node, state: &'a mut NodeState) -> Option<&'a mut Counters> {
        if !self.counting.load(Ordering::Relaxed) {
            return None;
        }
        if state.counters.is_none() {
            let mut busy = self.busy.lock();
            if busy.len() >= BUSY_MAX {
                self.uncounted.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            busy.push(node.file);
            drop(busy);
            state.counters = Some(Box::default());
        }
        state.counters.as_deref_mut()
    }

    /// Counts a write of `len` bytes at `at` to a file that was `before` bytes long.
    pub(super) fn count_write(&self, node: &Node, state: &mut NodeState, (at, len): (u64, u64), before: u64) {
        let size = state.attr.size;
        if let Some(counters) = self.counters(node, state) {
            counters.writes += 1;
            counters.bytes += len;
            counters.appends += u64::from(size > before);
            counters.growth += signed(size) - signed(before);
            counters.pages.write(at, at.saturating_add(len));
        }
    }

    /// Notes that a file has another name. The node is locked.
    pub(super) fn count_rename(&self, node: &Node, state: Option<&mut NodeState>) {
        let counters = state.filter(|_| node.kind == FileKind::Regular);
        if let Some(counters) = counters.and_then(|state| self.counters(node, state)) {
            counters.renamed = true;
        }
    }

    /// Takes what was counted since the last sweep, of files whose bytes are history. What was done to a file that is
    /// gone altogether is not told.
    pub fn sweep(&self) -> Vec<Busy> {
        let files = std::mem::take(&mut *self.busy.lock());
        let mut swept = Vec::with_capacity(files.len());
        for file in files {
            let Ok(node) = self.node(file) else { continue };
            let mut state = node.lock();
            let Some(counters) = state.counters.take() else { continue };
            if state.content.direct {
                continue;
            }
            let (size, gone) = (state.attr.size, state.attr.nlink == 0);
            swept.push(Busy { file, root: node.root, counters: *counters, size, gone });
        }
        swept
    }
}

/// A size as a signed number: sizes stay below 2^44.
pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
