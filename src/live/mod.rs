//! L5: the present. Names and attributes in memory, bytes as overlay over live files, and the applier that carries
//! the overlay down. It knows the journal and the index; it does not know views, FUSE or time of day.
//!
//! - Live files stand flat in `.weft/live/` of their root, each named by its FileId: a crash can leave no doubt whose bytes
//!   they are, and a rename costs the disk nothing (docs/decisions/0001).
//! - Each root has a directory of live files of its own: it may be on a filesystem of its own.
//! - Only durable events reach them.

pub mod applier;
pub mod base;
pub mod checkpoint;
pub mod content;
pub mod gather;
pub mod io;
pub mod names;
pub mod node;
pub mod overlay;
pub mod pair;
pub mod paths;
pub mod pool;
pub mod recover;
pub mod roots;
pub mod scatter;
pub mod tree;
pub mod walk;
pub mod xattrs;

use self::base::BaseStore;
use self::node::NodeState;
use self::paths::Paths;
use self::pool::Pool;
use self::tree::Tree;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, RwLock};
use crate::types::{FileId, PAGE, PageNo, Seq, Timestamp};
use std::collections::BTreeSet;

/// Limits of the live tree.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Unapplied bytes above which writes wait for the applier.
    pub overlay_bytes: u64,
    /// Live files kept open.
    pub open_files: usize,
    /// May give files to other owners.
    pub privileged: bool,
}

/// The present state and its applier.
pub struct Live {
    pub disk: Arc<dyn Disk>,
    pub paths: Paths,
    pub journal: Arc<Journal>,
    pub limits: Limits,
    /// First instant that can be shown.
    pub birth: Mutex<(Seq, Timestamp)>,
    tree: RwLock<Tree>,
    pool: Pool,
    base: BaseStore,
    dirty: Mutex<BTreeSet<FileId>>,
    overlay_bytes: AtomicU64,
    /// One round of the applier at a time; holds the id of the last checkpoint.
    round: Mutex<u64>,
    applied: AtomicU64,
    checkpointed: AtomicU64,
    /// What stops the applier, and the way to wait for it.
    trouble: Mutex<Option<Error>>,
    relief: Condvar,
    open_files: AtomicU64,
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

    /// Reads one page of the base that a file had since `adopted`, whatever has become of the file.
    pub fn read_base(&self, file: FileId, adopted: Seq, page: PageNo, out: &mut [u8]) -> Result<()> {
        let node = self.tree.read().nodes.get(&file).cloned();
        if let Some(node) = node
            && self.read_own_base(&node, adopted, page, out)?
        {
            return Ok(());
        }
        if self.base.read(file, adopted, page, out)? || self.read_limbo(file, adopted, page, out)? {
            return Ok(());
        }
        Err(Error::new(
            crate::error::Kind::Lost,
            "past.base.read",
            format!(
                "page {} of {file} was changed while DATA was not mounted; its bytes from before are gone",
                page.0
            ),
        ))
    }

    /// The base of a file that is there: what was read from the live file counts only if the page was still
    /// untouched after the read.
    fn read_own_base(&self, node: &node::Node, adopted: Seq, page: PageNo, out: &mut [u8]) -> Result<bool> {
        let leans = |state: &NodeState| {
            state.content.base.as_ref().is_some_and(|base| {
                base.adopted == adopted && !base.in_limbo && !base.is_saved(page) && state.content.exists
            })
        };
        let (handle, size) = {
            let state = node.lock();
            if !leans(&state) {
                return Ok(false);
            }
            let size = state.content.base.as_ref().map_or(0, |base| base.size);
            match self.pool.open("live.base.read", &self.paths.live(node.root, node.file)?, false) {
                Ok(handle) => (handle, size),
                // The applier has just moved it to limbo, and is about to say so.
                Err(error) if error.is(libc::ENOENT) => return Ok(false),
                Err(error) => return Err(error),
            }
        };
        let got = handle.read_at("live.base.read", out, page.0 * PAGE)?;
        if !leans(&node.lock()) {
            return Ok(false);
        }
        let valid = size.saturating_sub(page.0 * PAGE).min(out.len() as u64);
        let valid = usize::try_from(valid).unwrap_or(out.len());
        if got < valid {
            return Err(Error::corrupt("live.base.read", "the live file is shorter than its base")
                .at(&self.paths.live(node.root, node.file)?)
                .offset(page.0 * PAGE));
        }
        if let Some(rest) = out.get_mut(valid..) {
            rest.fill(0);
        }
        Ok(true)
    }

    fn read_limbo(&self, file: FileId, adopted: Seq, page: PageNo, out: &mut [u8]) -> Result<bool> {
        let limbos = self.paths.roots.iter().map(|root| root.limbo(file, adopted));
        for path in limbos.chain([self.paths.store_limbo(file, adopted)]) {
            if self.disk.stat("live.limbo.find", &path)?.is_none() {
                continue;
            }
            let got = self.pool.open("live.limbo.read", &path, false)?.read_at(
                "live.limbo.read",
                out,
                page.0 * PAGE,
            )?;
            if let Some(rest) = out.get_mut(got..) {
                rest.fill(0);
            }
            return Ok(true);
        }
        Ok(false)
    }
}
