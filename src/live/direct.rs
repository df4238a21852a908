//! Files that are excluded from history: their bytes go to the live file at once, never into journal or overlay.
//!
//! - Nothing of them waits for the applier. What the live file holds is what they hold; after a crash too, whatever
//!   that is: at least what was fsynced, as on ext4.
//! - A file that was history before (`Release`) may have pages of its past in the live file: they are saved before
//!   they are touched, as the applier does it.
//! - Capture: the live file is made durable, then an event says that it is the base. Nothing is copied.

use super::Live;
use super::content::in_parts;
use super::node::{Node, NodeState};
use crate::disk::DiskFile;
use crate::error::Result;
use crate::format::event::Event;
use crate::sync::Arc;
use crate::types::{FileId, PageNo};

/// Pre-images saved at once.
const SAVE_PAGES: usize = 1024;

impl Live {
    /// Writes past the journal.
    pub(super) fn write_direct(
        &self,
        node: &Node,
        state: &mut NodeState,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let end = offset + bytes.len() as u64;
        let handle = self.open_direct(node, state, Some((offset, end)))?;
        state.content.disk_len = state.content.disk_len.max(end);
        handle.write_at("direct.write", bytes, offset)?;
        state.content.data.write(offset, end);
        self.changed_direct(state, state.attr.size.max(end));
        Ok(())
    }

    /// Changes the size past the journal.
    pub(super) fn resize_direct(&self, node: &Node, state: &mut NodeState, size: u64) -> Result<()> {
        let leans = state.content.base.as_ref().filter(|base| base.leans_on_live()).map(|base| base.adopted);
        if let (0, Some(adopted)) = (size, leans) {
            self.to_limbo(node, adopted)?;
            if let Some(base) = &mut state.content.base {
                base.in_limbo = true;
            }
            (state.content.exists, state.content.disk_len) = (false, 0);
        } else if size > 0 || state.content.exists {
            let handle = self.open_direct(node, state, Some((size, state.content.disk_len)))?;
            handle.set_len("direct.resize", size)?;
            state.content.disk_len = size;
        }
        state.content.data.truncate(size);
        self.changed_direct(state, size);
        Ok(())
    }

    /// Zeroes a range within the file, past the journal.
    pub(super) fn zero_direct(
        &self,
        node: &Node,
        state: &mut NodeState,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let handle = self.open_direct(node, state, Some((offset, offset + len)))?;
        handle.punch("direct.zero", offset, len)?;
        state.content.data.zero(offset, offset + len);
        self.changed_direct(state, state.attr.size);
        Ok(())
    }

    /// fsync of the bytes that bypass the journal; of any other file nothing is to be done here.
    pub fn sync_direct(&self, file: FileId) -> Result<()> {
        let node = self.node(file)?;
        let handle = {
            let mut state = node.lock();
            if !state.content.direct || !state.content.exists {
                return Ok(());
            }
            self.open_direct(&node, &mut state, None)?
        };
        self.sync_bytes(&node, &*handle)
    }

    /// The bytes of a file that bypassed the journal become history: nothing is done to any other file. The caller
    /// holds the file, and whatever names it.
    pub(super) fn capture(&self, node: &Node, state: &mut NodeState) -> Result<()> {
        if !state.content.direct {
            return Ok(());
        }
        if state.content.exists {
            // An older base leans on the same bytes: it gets its own copy.
            let end = state.content.base.as_ref().map_or(0, |base| base.size);
            let handle = self.open_direct(node, state, Some((0, end)))?;
            self.sync_bytes(node, &*handle)?;
        }
        let (file, attr) = (node.file, state.attr);
        self.emit(node, state, &[], |_| Event::Capture { file, attr })?;
        Ok(())
    }

    /// The bytes of a file bypass the journal from here on, if all that the journal has of it is applied and durable:
    /// the caller knows that nothing was written since the last checkpoint, or that DATA was plain.
    pub(super) fn release(&self, node: &Node, state: &mut NodeState) -> Result<()> {
        let content = &state.content;
        let moves = content.resting.is_some() || content.oldest_pending().is_some();
        if content.direct || moves || !content.overlay.is_empty() {
            return Ok(());
        }
        // From now on its size is that of the live file.
        let (valid, size) = (content.live_len.min(state.attr.size), state.attr.size);
        if content.exists || size > 0 {
            let handle = self.pool.open("direct.release", &self.paths.live(node.root, node.file)?, true)?;
            if handle.len("direct.release")? != size {
                handle.set_len("direct.release", valid)?;
                handle.set_len("direct.release", size)?;
            }
            self.sync_bytes(node, &*handle)?;
            let content = &mut state.content;
            (content.exists, content.live_len, content.disk_len) = (true, size, size);
        }
        let file = node.file;
        self.emit(node, state, &[], |_| Event::Release { file })?;
        Ok(())
    }

    fn sync_bytes(&self, node: &Node, handle: &dyn DiskFile) -> Result<()> {
        handle.sync("direct.sync")?;
        self.disk.sync_dir("direct.sync", &self.paths.root(node.root)?.live_dir())
    }

    /// The live file, made if there is none, ready for a change of a range: the past has what it needs of it, and it
    /// ends where the file does.
    fn open_direct(
        &self,
        node: &Node,
        state: &mut NodeState,
        touches: Option<(u64, u64)>,
    ) -> Result<Arc<dyn DiskFile>> {
        self.journal.accepts()?;
        if let Some((start, end)) = touches {
            self.save_before(node, state, start, end)?;
        }
        let handle = self.pool.open("direct.open", &self.paths.live(node.root, node.file)?, true)?;
        state.content.exists = true;
        // A write that failed in the middle.
        if state.content.disk_len > state.attr.size {
            handle.set_len("direct.resize", state.attr.size)?;
            state.content.disk_len = state.attr.size;
        }
        Ok(handle)
    }

    fn save_before(&self, node: &Node, state: &mut NodeState, start: u64, end: u64) -> Result<()> {
        let Some(base) = &state.content.base else { return Ok(()) };
        let (adopted, size) = (base.adopted, base.size);
        let unsaved = base.unsaved([(start, end)]);
        for pages in in_parts(unsaved.iter().map(|page| PageNo(u64::from(page))), SAVE_PAGES) {
            let mut saves = Vec::with_capacity(pages.len());
            self.read_saves(node, adopted, size, &pages, &mut saves)?;
            self.base.save(&saves)?;
            if let Some(base) = &mut state.content.base {
                base.saved.extend(pages.iter().filter_map(|page| u32::try_from(page.0).ok()));
            }
        }
        Ok(())
    }

    fn changed_direct(&self, state: &mut NodeState, size: u64) {
        let now = self.journal.about_now();
        state.content.live_len = size;
        state.attr.size = size;
        (state.attr.mtime, state.attr.ctime) = (now.into(), now.into());
    }
}
