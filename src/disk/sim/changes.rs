//! Changes of names that are not durable yet.
//!
//! Invariants:
//! - A change is atomic, and needs earlier ones: the previous change of each name it touches, and what else must have
//!   happened for the result to be a tree (see `World::record`). A change that survives has all it needs.
//! - What a change needs has a lower number; so taking changes in order of their numbers is always right.

use super::world::NodeId;
use crate::types::Name;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Number of a change, in order of happening.
pub(super) type ChangeId = u64;

/// One name of one directory before and after.
#[derive(Clone, Debug)]
pub(super) struct EntryChange {
    pub(super) dir: NodeId,
    pub(super) name: Name,
    pub(super) before: Option<NodeId>,
    pub(super) after: Option<NodeId>,
}

#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The filesystem it is on.
    fs: u64,
    pub(super) entries: Vec<EntryChange>,
    /// Directories that have not been synced since: durable when none is left.
    waits: Vec<NodeId>,
    needs: Vec<ChangeId>,
    /// Moves a directory to another parent.
    pub(super) moves_dir: bool,
}

/// All pending changes.
#[derive(Clone, Default)]
pub(super) struct Changes {
    next: ChangeId,
    pending: BTreeMap<ChangeId, Change>,
    /// The newest pending change of a name. Looked up, never iterated: its order would not be deterministic.
    newest: HashMap<(NodeId, Name), ChangeId>,
    by_dir: BTreeMap<NodeId, BTreeSet<ChangeId>>,
}

impl Changes {
    /// Adds a change that needs `extra` beside the earlier changes of its names.
    pub(super) fn add(
        &mut self,
        fs: u64,
        entries: Vec<EntryChange>,
        extra: Vec<ChangeId>,
        moves_dir: bool,
    ) -> ChangeId {
        let id = self.next;
        self.next += 1;
        let (mut needs, mut waits) = (extra, Vec::new());
        for entry in &entries {
            needs.extend(self.newest.insert((entry.dir, entry.name.clone()), id));
            if !waits.contains(&entry.dir) {
                waits.push(entry.dir);
                self.by_dir.entry(entry.dir).or_default().insert(id);
            }
        }
        // A change whose two sides have one name does not need itself.
        needs.retain(|need| *need != id && self.pending.contains_key(need));
        let change = Change { fs, entries, waits, needs, moves_dir };
        self.pending.insert(id, change);
        id
    }

    /// Pending changes of names in a directory.
    pub(super) fn in_dir(&self, dir: NodeId) -> Vec<ChangeId> {
        self.by_dir.get(&dir).into_iter().flatten().copied().collect()
    }

    /// Pending moves of directories on a filesystem.
    pub(super) fn dir_moves(&self, fs: u64) -> Vec<ChangeId> {
        let moves = self.pending.iter().filter(|(_, change)| change.moves_dir && change.fs == fs);
        moves.map(|(&id, _)| id).collect()
    }

    /// A directory was synced: the changes that are durable now, in order, with all that they need.
    pub(super) fn synced(&mut self, dir: NodeId) -> Vec<Change> {
        let mut ready = Vec::new();
        for id in self.in_dir(dir) {
            if let Some(change) = self.pending.get_mut(&id) {
                change.waits.retain(|&waits| waits != dir);
                if change.waits.is_empty() {
                    ready.push(id);
                }
            }
        }
        self.take(ready)
    }

    /// Everything on a filesystem was synced.
    pub(super) fn take_all(&mut self, fs: u64) -> Vec<Change> {
        let ids = self.pending.iter().filter(|(_, change)| change.fs == fs).map(|(&id, _)| id);
        let ids = ids.collect();
        self.take(ids)
    }

    /// The changes that survive a cut, in order, when `keep` decides where nothing forbids.
    pub(super) fn survivors(&self, mut keep: impl FnMut() -> bool) -> Vec<&Change> {
        let mut lost = BTreeSet::new();
        let mut kept = Vec::new();
        for (&id, change) in &self.pending {
            let possible = !change.needs.iter().any(|need| lost.contains(need));
            if keep() && possible {
                kept.push(change);
            } else {
                lost.insert(id);
            }
        }
        kept
    }

    /// Removes changes and all that they need, and gives them in order.
    fn take(&mut self, mut todo: Vec<ChangeId>) -> Vec<Change> {
        let mut taken = BTreeMap::new();
        while let Some(id) = todo.pop() {
            let Some(change) = self.pending.remove(&id) else {
                continue;
            };
            for entry in &change.entries {
                self.forget(id, entry);
            }
            todo.extend(&change.needs);
            taken.insert(id, change);
        }
        taken.into_values().collect()
    }

    fn forget(&mut self, id: ChangeId, entry: &EntryChange) {
        let key = (entry.dir, entry.name.clone());
        if self.newest.get(&key) == Some(&id) {
            self.newest.remove(&key);
        }
        if let Some(ids) = self.by_dir.get_mut(&entry.dir) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_dir.remove(&entry.dir);
            }
        }
    }
}
