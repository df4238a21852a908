//! Carries durable events down to the live files, coalesced.
//!
//! A round fixes `E`, the last durable event, and applies of every waiting file what is at or before `E`:
//! 1. collect, under the file's lock;
//! 2. save the pre-images that will be lost, durably;
//! 3. shrink and write the live file, no lock held;
//! 4. under the lock again, drop from the overlay what was applied.
//!
//! A reader finds each byte in the overlay until it is in the live file, so never neither nor a mixture.

use super::Live;
use super::base::SavedPage;
use super::content::in_parts;
use super::node::{Node, NodeState};
use super::overlay::{Piece, Source};
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::types::{FileId, FileKind, PAGE, PAGE_LEN, PageNo, RootId, Seq};
use roaring::RoaringBitmap;
use std::collections::{BTreeSet, HashSet};

/// Neighbouring pieces are written together up to this many bytes.
const WRITE_MAX: usize = 1 << 20;
/// Pre-images are made durable when this many have gathered.
const SAVE_PAGES: usize = 4096;

/// What a round does to one file.
struct Work {
    node: Arc<Node>,
    pieces: Vec<(u64, Piece)>,
    /// The live file is cut to this length first.
    cut_to: Option<u64>,
    /// The live file goes to limbo first: its base with it.
    to_limbo: Option<Seq>,
}

impl Live {
    /// One round; `Seq` up to which everything is applied now.
    pub fn apply_round(&self) -> Result<Seq> {
        let guard = self.round.lock();
        let result = self.round_locked();
        *self.trouble.lock() = result.as_ref().err().cloned();
        self.relief.notify_all();
        drop(guard);
        result
    }

    /// As [`Live::apply_round`], for a caller that holds the round.
    pub(super) fn round_locked(&self) -> Result<Seq> {
        if self.frozen.load(Ordering::Acquire) {
            let stopped = || Error::errno("applier.frozen", libc::EIO);
            return Err(self.journal.failure().map_or_else(stopped, |cause| crate::journal::stopped(&cause)));
        }
        let upto = self.journal.durable();
        self.bury(upto)?;
        let files: Vec<FileId> = std::mem::take(&mut *self.dirty.lock()).into_iter().collect();
        let result = self.apply_files(&files, upto);
        if result.is_err() {
            // They still wait.
            self.dirty.lock().extend(files);
        } else {
            self.applied.store(upto.0, Ordering::Relaxed);
        }
        result.map(|()| upto)
    }

    fn apply_files(&self, files: &[FileId], upto: Seq) -> Result<()> {
        let mut works = Vec::new();
        let mut saves = Vec::new();
        for file in files {
            let node = self.tree.read().nodes.get(file).cloned();
            let Some(node) = node else { continue };
            if let Some(work) = self.collect(node, upto, &mut saves)? {
                works.push(work);
            }
        }
        self.save(&mut saves)?;
        // A full root must not keep another one waiting.
        let done: Vec<Result<()>> = works.iter().map(|work| self.perform(work, upto)).collect();
        done.into_iter().collect()
    }

    /// Step 1: what is to be done. The pages that must be saved before are, or are among `saves`.
    fn collect(&self, node: Arc<Node>, upto: Seq, saves: &mut Vec<SavedPage>) -> Result<Option<Work>> {
        let mut state = node.lock();
        state.content.queued = false;
        if state.attr.nlink == 0 {
            self.detach(&mut state);
            return Ok(None);
        }
        let content = &mut state.content;
        let may_shrink = content.shrink.is_some_and(|shrink| shrink.newest <= upto);
        if may_shrink && let Some(shrink) = &mut content.shrink {
            // This round does it. A shrink that joins it meanwhile bounds what was applied by its own size alone.
            shrink.to = u64::MAX;
        }
        let limit = if content.shrink.is_none() || may_shrink { u64::MAX } else { content.live_len };
        let pieces = content.overlay.settled(upto, limit);
        let cuts = may_shrink && content.exists && content.disk_len > content.live_len;
        let cut_to = cuts.then_some(content.live_len);
        let mut to_limbo = None;
        let mut to_save = None;
        if let Some(base) = &content.base {
            if cut_to == Some(0) && base.leans_on_live() {
                to_limbo = Some(base.adopted);
            } else {
                let cut = cut_to.map(|cut_to| (cut_to, content.disk_len));
                let ranges = pieces.iter().map(|(at, piece)| (*at, at + piece.len)).chain(cut);
                to_save = Some((base.adopted, base.size, base.unsaved(ranges)));
            }
        }
        let end = pieces.iter().map(|(at, piece)| at + piece.len).max().unwrap_or(0);
        // Noted before it is so: a shrink that comes meanwhile must know that there will be something to cut.
        content.disk_len = content.disk_len.max(end);
        let idle = pieces.is_empty() && cut_to.is_none() && to_limbo.is_none();
        if idle {
            if may_shrink {
                content.shrink = None;
            }
            self.requeue(&node, &mut state);
            return Ok(None);
        }
        drop(state);
        if let Some((adopted, size, pages)) = to_save {
            self.gather(&node, (adopted, size), &pages, saves)?;
        }
        Ok(Some(Work { node, pieces, cut_to, to_limbo }))
    }

    /// The file still waits if anything of it does.
    fn requeue(&self, node: &Node, state: &mut NodeState) {
        if state.content.oldest_pending().is_some() && !state.content.queued {
            state.content.queued = true;
            self.dirty.lock().insert(node.file);
        }
    }

    /// Reads pages that must be saved, and saves whenever enough have gathered: a cut drops as many as the file has.
    fn gather(
        &self,
        node: &Node,
        (adopted, size): (Seq, u64),
        pages: &RoaringBitmap,
        saves: &mut Vec<SavedPage>,
    ) -> Result<()> {
        for part in in_parts(pages.iter().map(|page| PageNo(u64::from(page))), SAVE_PAGES) {
            self.read_saves(node, adopted, size, &part, saves)?;
            if saves.len() >= SAVE_PAGES {
                self.save(saves)?;
            }
        }
        Ok(())
    }

    pub(super) fn read_saves(
        &self,
        node: &Node,
        adopted: Seq,
        size: u64,
        pages: &[PageNo],
        saves: &mut Vec<SavedPage>,
    ) -> Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let handle =
            self.pool.open("applier.preimage.read", &self.paths.live(node.root, node.file)?, false)?;
        for page in pages {
            let mut bytes = vec![0; PAGE_LEN];
            let valid = usize::try_from((size - page.0 * PAGE).min(PAGE)).unwrap_or(PAGE_LEN);
            if let Some(part) = bytes.get_mut(..valid) {
                handle.read_at("applier.preimage.read", part, page.0 * PAGE)?;
            }
            saves.push(SavedPage { file: node.file, adopted, page: *page, bytes });
        }
        Ok(())
    }

    /// Step 2: durable first, then marked.
    fn save(&self, saves: &mut Vec<SavedPage>) -> Result<()> {
        if saves.is_empty() {
            return Ok(());
        }
        self.base.save(saves)?;
        for saved in saves.drain(..) {
            let node = self.tree.read().nodes.get(&saved.file).cloned();
            if let (Some(node), Ok(page)) = (node, u32::try_from(saved.page.0))
                && let Some(base) = &mut node.lock().content.base
                && base.adopted == saved.adopted
            {
                base.saved.insert(page);
            }
        }
        Ok(())
    }

    /// Steps 3 and 4.
    fn perform(&self, work: &Work, upto: Seq) -> Result<()> {
        let path = self.paths.live(work.node.root, work.node.file)?;
        if let Some(adopted) = work.to_limbo {
            self.move_to_limbo(&work.node, adopted)?;
        } else if let Some(cut_to) = work.cut_to {
            self.pool.open("applier.shrink", &path, false)?.set_len("applier.shrink", cut_to)?;
        }
        if !work.pieces.is_empty() {
            let handle = self.pool.open("applier.open", &path, true)?;
            let bytes = work.pieces.iter().map(|(_, piece)| piece.len).sum();
            self.room.begin(bytes);
            let written = self.write_pieces(&*handle, &work.pieces);
            self.room.end(bytes);
            written?;
        }
        let end = work.pieces.iter().map(|(at, piece)| at + piece.len).max().unwrap_or(0);
        let mut state = work.node.lock();
        self.change(work.node.file, &mut state, |state| {
            let content = &mut state.content;
            content.overlay.drop_settled(&work.pieces);
            content.exists |= !work.pieces.is_empty();
            let mut reach = end;
            match &mut content.shrink {
                Some(shrink) if shrink.newest > upto => {
                    reach = end.min(shrink.to);
                    if work.cut_to.is_some() {
                        shrink.first = shrink.first.max(upto.next());
                    }
                }
                _ => {
                    content.shrink = None;
                    content.disk_len = work.cut_to.map_or(content.disk_len, |cut_to| cut_to.max(end));
                }
            }
            content.live_len = content.live_len.max(reach);
        });
        self.requeue(&work.node, &mut state);
        Ok(())
    }

    fn write_pieces(&self, handle: &dyn DiskFile, pieces: &[(u64, Piece)]) -> Result<()> {
        let mut buffer: Vec<u8> = Vec::new();
        let mut start = 0;
        for (at, piece) in pieces {
            let Source::Journal(extent) = &piece.source else {
                flush(handle, start, &mut buffer)?;
                handle.punch("applier.punch", *at, piece.len)?;
                continue;
            };
            if start + buffer.len() as u64 != *at || buffer.len() >= WRITE_MAX {
                flush(handle, start, &mut buffer)?;
            }
            if buffer.is_empty() {
                start = *at;
            }
            let from = buffer.len();
            buffer.resize(from + extent.len as usize, 0);
            if let Some(part) = buffer.get_mut(from..) {
                extent.read(self.journal.segments(), 0, part)?;
            }
        }
        flush(handle, start, &mut buffer)
    }

    /// The live file becomes the base, whole and durably; the file goes on in a new one.
    pub(super) fn move_to_limbo(&self, node: &Node, adopted: Seq) -> Result<()> {
        self.to_limbo(node, adopted)?;
        mark_in_limbo(node);
        Ok(())
    }

    /// The live file becomes the base, whole, durably; nobody knows of it yet.
    pub(super) fn to_limbo(&self, node: &Node, adopted: Seq) -> Result<()> {
        self.rename_to_limbo(node, adopted)?;
        self.sync_limbo(node.root)
    }

    fn rename_to_limbo(&self, node: &Node, adopted: Seq) -> Result<()> {
        let root = self.paths.root(node.root)?;
        let (live, limbo) = (root.live(node.file), root.limbo(node.file, adopted));
        self.disk.rename("applier.limbo", &live, &limbo)?;
        self.pool.forget(&live);
        Ok(())
    }

    fn sync_limbo(&self, root: RootId) -> Result<()> {
        let root = self.paths.root(root)?;
        self.disk.sync_dir("applier.limbo", &root.limbo_dir())?;
        self.disk.sync_dir("applier.limbo", &root.live_dir())
    }

    fn detach(&self, state: &mut NodeState) {
        if !state.content.detached {
            state.content.detached = true;
            self.overlay_bytes.fetch_sub(state.content.overlay.bytes(), Ordering::Relaxed);
        }
    }

    /// Removes the live files of what has lost its last name, durably, and its last handle. What the past still
    /// needs of them goes to limbo.
    fn bury(&self, upto: Seq) -> Result<()> {
        let due: Vec<Arc<Node>> = {
            let tree = self.tree.read();
            tree.doomed
                .iter()
                .filter(|(seq, _)| *seq <= upto)
                .filter_map(|(_, file)| tree.nodes.get(file).cloned())
                .collect()
        };
        let mut buried = HashSet::new();
        let mut moved = BTreeSet::new();
        for node in due {
            let (open, exists, limbo) = {
                let mut state = node.lock();
                if node.kind == FileKind::Regular {
                    self.detach(&mut state);
                }
                let limbo =
                    state.content.base.as_ref().filter(|base| base.leans_on_live()).map(|base| base.adopted);
                state.content.buried = state.open == 0;
                (state.open > 0, state.content.exists, limbo)
            };
            if open {
                continue;
            }
            if exists {
                match limbo {
                    // No later write goes on in it: many are made durable at once, or by the next checkpoint.
                    Some(adopted) => {
                        self.rename_to_limbo(&node, adopted)?;
                        mark_in_limbo(&node);
                        moved.insert(node.root);
                    }
                    None => self.remove_live(&node)?,
                }
            }
            buried.insert(node.file);
        }
        moved.into_iter().try_for_each(|root| self.sync_limbo(root))?;
        if buried.is_empty() {
            return Ok(());
        }
        let mut tree = self.tree.write();
        for file in &buried {
            tree.nodes.remove(file);
        }
        tree.doomed.retain(|(_, file)| !buried.contains(file));
        Ok(())
    }

    fn remove_live(&self, node: &Node) -> Result<()> {
        let path = self.paths.live(node.root, node.file)?;
        self.pool.forget(&path);
        self.disk.unlink_if_there("applier.unlink", &path)
    }

    /// The oldest event that some live file has not seen.
    pub(super) fn oldest_pending(&self) -> Option<Seq> {
        let waiting: Vec<FileId> = self.dirty.lock().iter().copied().collect();
        let tree = self.tree.read();
        waiting.iter().filter_map(|file| tree.nodes.get(file)?.lock().content.oldest_pending()).min()
    }
}

fn mark_in_limbo(node: &Node) {
    let mut state = node.lock();
    if let Some(base) = &mut state.content.base {
        base.in_limbo = true;
    }
    state.content.exists = false;
}

fn flush(handle: &dyn DiskFile, start: u64, buffer: &mut Vec<u8>) -> Result<()> {
    if !buffer.is_empty() {
        handle.write_at("applier.write", buffer, start)?;
        buffer.clear();
    }
    Ok(())
}
