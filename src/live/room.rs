//! Space on the roots' filesystems: what is acknowledged must fit when the applier comes to it.
//!
//! - A write is taken if all that waits for the applier, and it, fit into what was free at the last look, less what has
//!   been applied since. What waits is counted whole, also where it overwrites: so this errs on the safe side.
//! - Where that does not fit, it is looked at closely: what only overwrites needs nothing; for what needs new space, what
//!   waits is applied first. Then it fits, or it is ENOSPC.
//! - Some space is always left: for the filesystem's own needs, for checkpoints, and (writeback capture) for what the
//!   kernel has acknowledged and not yet sent.
//! - Others who use the same filesystem can still take space that was counted on. Then the applier waits for room, and
//!   nothing is lost: the bytes are in the journal.

use super::Live;
use super::content::Stretch;
use super::node::Node;
use super::overlay::Source;
use crate::disk::Space;
use crate::error::{Error, Result};
use crate::journal::{Claim, stopped};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::{FileId, RootId};
use std::path::Path;

/// More than this must have come free before a full filesystem counts as one with room again.
const RELIEF: u64 = 16 << 20;
/// While less than this is left, each write looks anew: others use the filesystem too.
const NEAR: u64 = 512 << 20;
/// Files that can always still be made beneath: the applier makes one for each that is new.
const FILES_KEPT: u64 = 1_024;

/// What was seen of a root's filesystem.
#[derive(Clone, Copy, Default)]
pub(super) struct Look {
    device: u64,
    available: u64,
    total: u64,
    files: u64,
    files_free: u64,
    copy_on_write: bool,
    /// What the applier had written by then, surely.
    applied: u64,
    /// Refusing growth since a write did not fit.
    full: bool,
}

/// The looks at all roots, and what the applier writes.
#[derive(Default)]
pub struct Room {
    looks: Mutex<Vec<(RootId, Look)>>,
    /// Bytes that the applier has begun to write, and has written.
    begun: AtomicU64,
    done: AtomicU64,
}

impl Room {
    /// The applier is about to write so many bytes.
    pub(super) fn begin(&self, bytes: u64) {
        self.begun.fetch_add(bytes, Ordering::SeqCst);
    }

    /// It has, or has given up.
    pub(super) fn end(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::SeqCst);
    }

    fn last(&self, root: RootId) -> Option<Look> {
        self.looks.lock().iter().find(|(known, _)| *known == root).map(|(_, look)| *look)
    }

    fn keep(&self, root: RootId, look: Look) {
        let mut looks = self.looks.lock();
        match looks.iter_mut().find(|(known, _)| *known == root) {
            Some((_, known)) => *known = look,
            None => looks.push((root, look)),
        }
    }

    fn any_full(&self) -> Option<RootId> {
        self.looks.lock().iter().find(|(_, look)| look.full).map(|(root, _)| *root)
    }
}

/// What becomes of a write that needs room.
pub(super) enum Admission {
    Now,
    /// There may be room for the bytes that it needs when what waits is applied.
    Applied {
        needed: u64,
        look: Look,
    },
}

/// Why new bytes and names are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    Store,
    Root(RootId),
}

impl Live {
    /// Space that is never given to writers: for the filesystem itself, and for what the kernel may owe.
    fn kept(&self, look: &Look) -> u64 {
        self.limits.keep_free_bytes.min(look.total / 20) + self.limits.kernel_bytes
    }

    /// Space for new bytes, after all that waits; negative if that may not even fit.
    fn spare(&self, look: &Look) -> i64 {
        let applied = self.room.begun.load(Ordering::SeqCst) - look.applied;
        let taken = applied.saturating_add(self.overlay_bytes()).saturating_add(self.kept(look));
        i64::try_from(look.available).unwrap_or(i64::MAX).saturating_sub_unsigned(taken)
    }

    fn look(&self, root: RootId) -> Result<Look> {
        let applied = self.room.done.load(Ordering::SeqCst);
        let space = self.disk.space("live.space", &self.paths.root(root)?.dir)?;
        let mut look = Look {
            device: space.device,
            available: space.available,
            total: space.total,
            files: space.files,
            files_free: space.files_free,
            copy_on_write: space.copy_on_write,
            applied,
            full: self.room.last(root).is_some_and(|last| last.full),
        };
        let relief = i64::try_from(RELIEF.min(look.total / 50)).unwrap_or(0);
        look.full &= self.spare(&look) < relief;
        self.room.keep(root, look);
        Ok(look)
    }

    /// Makes sure that `len` bytes at `offset` of a file can be applied. No lock is held: it may have to apply first.
    pub(super) fn admit(&self, node: &Node, offset: u64, len: u64, claim: Claim) -> Result<()> {
        let Admission::Applied { needed, look } = self.admission(node, offset, len, claim)? else {
            return Ok(());
        };
        self.journal.flush()?;
        // What keeps the applier from going on is told to whoever asks; here only room counts.
        let _ = self.apply_round();
        if self.fits(&self.look(node.root)?, needed) {
            return Ok(());
        }
        Err(self.refuse_growth(node.root, look))
    }

    /// Whether they can be, and what has to be done before.
    pub(super) fn admission(&self, node: &Node, offset: u64, len: u64, claim: Claim) -> Result<Admission> {
        if self.room.last(node.root).is_some_and(|look| self.fits(&look, len + NEAR)) {
            return Ok(Admission::Now);
        }
        let look = self.look(node.root)?;
        if self.fits(&look, len) {
            return Ok(Admission::Now);
        }
        if claim == Claim::Owed {
            // Space was kept for it; what comes next is another matter.
            self.refuse(node.root, look);
            return Ok(Admission::Now);
        }
        let needed = self.unbacked(node, offset, len, &look)?;
        if needed == 0 {
            return Ok(Admission::Now);
        }
        // Would it fit if all that waits were overwrites? Then it is worth to apply it and see.
        let hoped = self.spare(&look).saturating_add_unsigned(self.overlay_bytes());
        if hoped >= i64::try_from(needed).unwrap_or(i64::MAX) {
            return Ok(Admission::Applied { needed, look });
        }
        Err(self.refuse_growth(node.root, look))
    }

    fn fits(&self, look: &Look, len: u64) -> bool {
        self.spare(look) >= i64::try_from(len).unwrap_or(i64::MAX)
    }

    fn refuse_growth(&self, root: RootId, look: Look) -> Error {
        self.refuse(root, look);
        self.paths.root(root).map_or_else(|unknown| unknown, |root| self.refusal(&root.dir))
    }

    fn refuse(&self, root: RootId, look: Look) {
        if !look.full {
            let shown = self.paths.root(root).map(|root| root.shown()).unwrap_or_default();
            tracing::warn!("the filesystem of {shown} is full: writers are told so until there is room");
        }
        self.room.keep(root, Look { full: true, ..look });
    }

    /// Bytes of a range that have no block of their own beneath yet.
    fn unbacked(&self, node: &Node, offset: u64, len: u64, look: &Look) -> Result<u64> {
        let (plan, exists) = {
            let state = node.lock();
            (state.content.plan(offset, len), state.content.exists)
        };
        let dense = !look.copy_on_write && exists && {
            let stat = self.disk.stat("live.space", &self.paths.live(node.root, node.file)?)?;
            stat.is_some_and(|stat| stat.allocated >= stat.attr.size)
        };
        let needs = |stretch: &Stretch| match stretch {
            Stretch::Zero => true,
            Stretch::Live => !dense,
            // What waits there is counted already.
            Stretch::Piece(piece) => !matches!(piece.source, Source::Journal(_)),
        };
        Ok(plan.iter().filter(|(_, _, stretch)| needs(stretch)).map(|(_, len, _)| len).sum())
    }

    /// Whether `len` bytes more would fit, for one who asks beforehand (fallocate).
    pub fn has_room(&self, file: FileId, len: u64) -> Result<()> {
        let root = self.node(file)?.root;
        self.may_grow(root)?;
        match self.spare(&self.look(root)?) >= i64::try_from(len).unwrap_or(i64::MAX) {
            true => Ok(()),
            false => Err(self.refusal(&self.paths.root(root)?.dir)),
        }
    }

    /// Whether a file's bytes and history take space from the same filesystem.
    pub fn is_beside_store(&self, file: FileId) -> Result<bool> {
        let dir = &self.paths.root(self.node(file)?.root)?.dir;
        Ok(self.device(dir)? == self.device(&self.paths.store)?)
    }

    fn device(&self, dir: &Path) -> Result<u64> {
        self.disk.space("live.space", dir).map(|space| space.device)
    }

    /// New names and sizes are refused while STORE or the root is full.
    pub(super) fn may_grow(&self, root: RootId) -> Result<()> {
        if self.journal.is_low() {
            return Err(self.refusal(&self.paths.store));
        }
        let known = self.room.last(root);
        let few_files = known.is_none_or(|look| look.files > 0 && look.files_free < 8 * FILES_KEPT);
        if !few_files && !known.is_some_and(|look| look.full) {
            return Ok(());
        }
        let look = self.look(root)?;
        let no_files = look.files > 0 && look.files_free < FILES_KEPT.min(look.files / 20);
        if look.full || no_files { Err(self.refusal(&self.paths.root(root)?.dir)) } else { Ok(()) }
    }

    /// No space in a directory; unless all writing has stopped, which is worse.
    fn refusal(&self, dir: &Path) -> Error {
        match self.journal.failure() {
            Some(cause) => stopped(&cause),
            None => Error::errno("live.space", libc::ENOSPC).at(dir),
        }
    }

    /// What is full, if anything is.
    pub fn full(&self) -> Option<Full> {
        if self.journal.is_low() { Some(Full::Store) } else { self.room.any_full().map(Full::Root) }
    }

    /// Whether room is wanted where history takes it: in STORE, or in a root on the same filesystem.
    pub fn is_short(&self) -> bool {
        if self.journal.is_low() {
            return true;
        }
        if self.room.any_full().is_none() {
            return false;
        }
        let Ok(device) = self.device(&self.paths.store) else { return false };
        self.room.looks.lock().iter().any(|(_, look)| look.full && look.device == device)
    }

    /// Looks again at all roots; from the housekeeper.
    pub fn look_again(&self) {
        for root in &self.paths.roots {
            let was_full = self.room.last(root.root).is_some_and(|look| look.full);
            // If it cannot be told, it is as before.
            if self.look(root.root).is_ok_and(|look| was_full && !look.full) {
                tracing::info!("there is room on the filesystem of {} again", root.shown());
            }
        }
    }

    /// The filesystem beneath a root as writers may count on it.
    pub fn space(&self, root: RootId) -> Result<Space> {
        let space = self.disk.space("live.statfs", &self.paths.root(root)?.dir)?;
        let look = self.look(root)?;
        let available = match self.full() {
            Some(_) => 0,
            None => u64::try_from(self.spare(&look)).unwrap_or(0),
        };
        Ok(Space { available, ..space })
    }
}
