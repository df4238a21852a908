//! A filesystem in memory that can fail and lose power, deterministic from its seed: what journal, recovery and live
//! tree are tested on, through thousands of histories.
//!
//! What a cut may leave ([`SimDisk::cut`]):
//! - of each file, any subset of the 512-byte sectors written since its last sync (of a sector written several times,
//!   an older state of it too), and independently the length after any prefix of the length changes;
//! - any subset of the name changes whose directories were not synced, each atomic, none without those it needs: the
//!   earlier changes of the same name, the emptying of a directory that it removes, the removal that freed the inode
//!   number it uses, the directory that a rename leads into;
//! - attributes (together) and each extended attribute, old or new, unless file, parent or filesystem was synced.
//!
//! A directory can be made the root of a filesystem of its own ([`SimDisk::mount`]): with its own inode numbers, synced
//! by itself, and with no rename or link across.
//!
//! What the model does not do: it never loses what was synced, it has no permission checks and no umask, new files
//! belong to uid 0, reading changes no atime, names and attributes need no space, and file times are a counter.

mod changes;
mod content;
mod control;
mod cut;
mod disk;
mod faults;
mod file;
mod node;
mod numbers;
mod path;
mod ranges;
mod reflink;
mod rng;
#[cfg(test)]
mod tests;
mod world;

use crate::sync::{Arc, Mutex};
use faults::Faults;
use std::collections::BTreeSet;
use world::{NodeId, World};

pub use file::SimFile;

/// A simulated disk. A clone is the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    world: World,
    faults: Faults,
    locks: BTreeSet<NodeId>,
}
