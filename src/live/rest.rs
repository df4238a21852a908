//! Files that nobody has written since history began: what their live files hold is their base from then on, and history
//! need not hold it too. The next overwrite saves a pre-image again, as of any file that was there before Weft.
//!
//! - Only what is whole in the live file comes to rest: everything applied, no holes, nothing that an earlier base leaves
//!   to the live file. So both before and after the checkpoint that makes it durable either way of reading is right:
//!   by the versions in the journal, or by this base.
//! - The versions may go once that checkpoint is durable and the index knows the base.

use super::Live;
use super::content::Base;
use super::node::Node;
use crate::error::Result;
use crate::format::sections::RestedState;
use crate::index::Index;
use crate::types::{FileId, FileKind, Seq};
use std::collections::BTreeMap;

/// The files at rest: since when, and how long they were.
pub type Rested = BTreeMap<FileId, RestedState>;

impl Live {
    /// Lets files come to rest as of `first`, where history begins. `ready` brings the index up to everything that is
    /// applied, and tells how far it reaches. How many did.
    pub fn rest(&self, first: Seq, index: &Index, ready: impl FnOnce() -> Result<Seq>) -> Result<u64> {
        // No round of the applier meanwhile: what is in the live files is what the index says.
        let _round = self.round.lock();
        let upto = ready()?;
        let nodes: Vec<_> = self.tree.read().nodes.values().cloned().collect();
        let mut count = 0;
        for node in nodes.iter().filter(|node| node.kind == FileKind::Regular) {
            let Some(size) = unwritten(index, node.file, first, upto)? else { continue };
            if come_to_rest(node, first, size, true) {
                let rested = RestedState { file: node.file, since: first, size };
                self.rested.lock().insert(node.file, rested);
                count += 1;
            }
        }
        Ok(count)
    }

    /// The files that [`Live::rest`] would let come to rest; nothing is changed.
    pub fn would_rest(&self, first: Seq, index: &Index) -> Result<Vec<FileId>> {
        let upto = index.watermark().seq;
        let nodes: Vec<_> = self.tree.read().nodes.values().cloned().collect();
        let mut found = Vec::new();
        for node in nodes.iter().filter(|node| node.kind == FileKind::Regular) {
            if let Some(size) = unwritten(index, node.file, first, upto)?
                && come_to_rest(node, first, size, false)
            {
                found.push(node.file);
            }
        }
        Ok(found)
    }

    /// The files at rest, as a checkpoint keeps them.
    pub fn rested(&self) -> Vec<RestedState> {
        self.rested.lock().values().copied().collect()
    }

    /// Forgets those of which no instant from `first` on shows anything.
    pub fn forget_rested(&self, first: Seq, index: &Index) -> Result<()> {
        let mut gone = Vec::new();
        for rested in self.rested() {
            let shown = index.attr(rested.file, first)?.is_none_or(|attr| attr.nlink > 0);
            if !shown && !self.knows(rested.file) {
                gone.push(rested.file);
            }
        }
        let mut rested = self.rested.lock();
        rested.retain(|file, _| !gone.contains(file));
        Ok(())
    }
}

/// The bytes that a file had at `first`, if it has versions in the journal from before and none from after.
fn unwritten(index: &Index, file: FileId, first: Seq, upto: Seq) -> Result<Option<u64>> {
    let floor = index.adoption(file, first)?.map_or(Seq::ZERO, |adoption| adoption.seq);
    if !index.content_changed(file, floor, first)? || index.content_changed(file, first, upto)? {
        return Ok(None);
    }
    if index.had_holes(file)? {
        return Ok(None);
    }
    let attr = index.attr(file, first)?.filter(|attr| attr.nlink > 0 && attr.size > 0);
    Ok(attr.map(|attr| attr.size))
}

/// Whether the live file holds it whole; then it is the base, if it is to `change`.
fn come_to_rest(node: &Node, first: Seq, size: u64, change: bool) -> bool {
    let mut state = node.lock();
    let fits = state.attr.nlink > 0 && state.attr.size == size;
    let content = &mut state.content;
    let whole = content.exists
        && !content.direct
        && !content.detached
        && !content.buried
        && content.overlay.is_empty()
        && content.shrink.is_none()
        && content.live_len >= size
        && content.base.as_ref().is_none_or(|base| !base.leans_on_live());
    if fits && whole && change {
        content.base = Some(Base::new(first, size));
    }
    fits && whole
}
