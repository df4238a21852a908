//! L5: the present. Names and attributes in memory, bytes as overlay over live files, and the applier that carries
//! the overlay down. It knows the journal and the index; it does not know views, FUSE or time of day.
//!
//! - Live files stand flat in `.weft/live/` of their root, each named by its FileId: a crash can leave no doubt whose bytes
//!   they are, and a rename costs the disk nothing (docs/decisions/0001).
//! - Each root has a directory of live files of its own: it may be on a filesystem of its own.
//! - Only durable events reach them.

pub mod activity;
pub mod applier;
pub mod attrs;
pub mod base;
mod bases;
pub mod batches;
pub mod checkpoint;
pub mod content;
pub mod direct;
pub mod exclude;
pub mod excluded;
mod finding;
mod fits;
pub mod gather;
pub mod io;
pub mod names;
pub mod node;
pub mod overlay;
pub mod pair;
pub mod paths;
pub mod pool;
pub mod recover;
pub mod rename;
pub mod replay;
pub mod rest;
pub mod room;
pub mod roots;
pub mod scatter;
mod sparse;
mod tags;
pub mod tree;
pub mod unneeded;
pub mod walk;
pub mod xattrs;

use self::base::BaseStore;
use self::node::NodeState;
use self::paths::Paths;
use self::pool::Pool;
use self::tree::Tree;
use crate::disk::{Disk, Filesystem};
use crate::error::Error;
use crate::journal::Journal;
use crate::meta::leases::Leases;
use crate::meta::tags::Tags;
use crate::meta::thinned::Thinned;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, RwLock};
use crate::types::{FileId, PAGE, RootId, Seq, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Limits of the live tree.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Unapplied bytes above which writes wait for the applier.
    pub overlay_bytes: u64,
    /// Live files kept open.
    pub open_files: usize,
    /// May give files to other owners.
    pub privileged: bool,
    /// Space left free on the filesystem of each root.
    pub keep_free_bytes: u64,
    /// What the kernel may have acknowledged and not yet sent.
    pub kernel_bytes: u64,
}

/// The present state and its applier.
pub struct Live {
    pub disk: Arc<dyn Disk>,
    pub paths: Paths,
    pub journal: Arc<Journal>,
    pub limits: Limits,
    /// First instant that can be shown.
    pub birth: Mutex<(Seq, Timestamp)>,
    /// Named instants. Its lock is taken before the journal's, and no other meanwhile.
    pub tags: Mutex<Tags>,
    /// Instants that are held for a while. Its lock is taken before the journal's, and no other meanwhile.
    pub leases: Mutex<Leases>,
    /// Which instants remain. A leaf, but for the journal's lock.
    pub thinned: Mutex<Thinned>,
    /// Files at rest. A leaf.
    rested: Mutex<rest::Rested>,
    tree: RwLock<Tree>,
    pool: Pool,
    base: BaseStore,
    dirty: Mutex<BTreeSet<FileId>>,
    overlay_bytes: AtomicU64,
    /// One round of the applier at a time; holds the id of the last checkpoint.
    round: Mutex<u64>,
    /// Nothing is applied any more: nobody knows which of two checkpoints stands, or what the live files hold.
    frozen: AtomicBool,
    /// The mount ends: no checkpoint says any more that it serves. Set under the round.
    leaving: AtomicBool,
    /// The newest checkpoint of STORE may not have its name durably. Set under the round.
    unnamed: AtomicBool,
    /// The filesystems that hold live files, by device, since the first checkpoint of this mount.
    filesystems: Mutex<BTreeMap<u64, Arc<dyn Filesystem>>>,
    applied: AtomicU64,
    checkpointed: AtomicU64,
    /// What stops the applier, and the way to wait for it.
    trouble: Mutex<Option<Error>>,
    relief: Condvar,
    open_files: AtomicU64,
    /// Owners that files beneath can have, as far as tried; held while something is tried.
    ownable: Mutex<BTreeSet<(RootId, u32, u32)>>,
    room: room::Room,
    /// Whether work is counted, and the files that have counters.
    counting: AtomicBool,
    busy: Mutex<Vec<FileId>>,
    uncounted: AtomicU64,
}

impl Live {
    /// Bytes written and not yet applied.
    pub fn overlay_bytes(&self) -> u64 {
        self.overlay_bytes.load(Ordering::Relaxed)
    }

    /// Everything up to here is in the live files.
    pub fn applied(&self) -> Seq {
        Seq(self.applied.load(Ordering::Relaxed))
    }

    /// A crash now would replay from after this.
    pub fn checkpointed(&self) -> Seq {
        Seq(self.checkpointed.load(Ordering::Relaxed))
    }

    /// Open handles.
    pub fn open_files(&self) -> u64 {
        self.open_files.load(Ordering::Relaxed)
    }

    /// Files, directories and links.
    pub fn files(&self) -> u64 {
        self.tree.read().nodes.len() as u64
    }

    /// Bytes of pages that hold data, of all files.
    pub fn data_total(&self) -> u64 {
        let nodes: Vec<_> = self.tree.read().nodes.values().cloned().collect();
        nodes.iter().map(|node| node.lock().content.data.count() * PAGE).sum()
    }

    /// Whether the present has a file, with a name or open without one.
    pub fn knows(&self, file: FileId) -> bool {
        self.tree.read().nodes.contains_key(&file)
    }

    /// What keeps the applier from going on.
    pub fn trouble(&self) -> Option<Error> {
        self.trouble.lock().clone()
    }

    /// Changes a node's content and keeps the sums: the bytes that wait, and who waits.
    fn change<T>(&self, file: FileId, state: &mut NodeState, change: impl FnOnce(&mut NodeState) -> T) -> T {
        let before = state.content.overlay.bytes();
        let result = change(state);
        let after = state.content.overlay.bytes();
        if state.content.detached {
            return result;
        }
        if after >= before {
            self.overlay_bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.overlay_bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
        if !state.content.queued && state.content.oldest_pending().is_some() {
            state.content.queued = true;
            self.dirty.lock().insert(file);
        }
        result
    }
}
