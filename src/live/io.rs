//! Bytes of the present: read, write, resize, zero.

use super::Live;
use super::activity::signed;
use super::content::{SIZE_MAX, Stretch};
use super::node::{Node, NodeState};
use super::overlay::Source;
use super::room::Admission;
use crate::error::{Error, Result};
use crate::format::event::{Event, Payload};
use crate::journal::Claim;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::types::{FileId, FileKind, PAGE, Seq};
use std::time::Duration;

/// Longest write event.
const EVENT_MAX: usize = 1 << 20;
/// The payload's place is the journal's to fill in.
const UNPLACED: Payload = Payload { offset: 0, crc: 0 };

impl Live {
    /// A regular file; EISDIR or EINVAL for anything else.
    fn regular(&self, file: FileId) -> Result<Arc<Node>> {
        let node = Arc::clone(self.tree.read().node(file)?);
        match node.kind {
            FileKind::Regular => Ok(node),
            FileKind::Directory => Err(Error::errno("live.io", libc::EISDIR)),
            _ => Err(Error::errno("live.io", libc::EINVAL)),
        }
    }

    /// Reads into `out`; fewer bytes only at the end of the file.
    pub fn read(&self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.read_as(file, offset, out, true)
    }

    /// The same for ourselves: it is no work of whoever has the mount.
    pub fn read_uncounted(&self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.read_as(file, offset, out, false)
    }

    fn read_as(&self, file: FileId, offset: u64, out: &mut [u8], counted: bool) -> Result<usize> {
        let node = self.regular(file)?;
        let (plan, len) = {
            let mut state = node.lock();
            let len = state.attr.size.saturating_sub(offset).min(out.len() as u64);
            if counted && let Some(counters) = self.counters(&node, &mut state) {
                counters.reads += 1;
                counters.read_bytes += len;
            }
            (state.content.plan(offset, len), len)
        };
        let len = usize::try_from(len).unwrap_or(0);
        for (at, stretch_len, stretch) in plan {
            let start = usize::try_from(at - offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(stretch_len).unwrap_or(usize::MAX));
            let Some(part) = out.get_mut(start..end) else { continue };
            self.fill(&node, at, &stretch, part)?;
        }
        Ok(len)
    }

    fn fill(&self, node: &Node, at: u64, stretch: &Stretch, part: &mut [u8]) -> Result<()> {
        match stretch {
            Stretch::Zero => part.fill(0),
            Stretch::Piece(piece) => match &piece.source {
                Source::Zero => part.fill(0),
                Source::Journal(extent) => extent.read(self.journal.segments(), 0, part)?,
            },
            Stretch::Live => {
                let path = self.paths.live(node.root, node.file)?;
                let got = match self.pool.open("live.read", &path, false) {
                    Ok(handle) => handle.read_at("live.read", part, at)?,
                    // Truncated to nothing, and applied, since the plan was made.
                    Err(error) if error.is(libc::ENOENT) => 0,
                    Err(error) => return Err(error),
                };
                // Beyond the end on disk: a hole not yet there.
                if let Some(rest) = part.get_mut(got..) {
                    rest.fill(0);
                }
            }
        }
        Ok(())
    }

    /// Writes; visible when this returns, durable later. The new last Seq of the file.
    pub fn write(&self, file: FileId, offset: u64, bytes: &[u8], append: bool, claim: Claim) -> Result<Seq> {
        self.wait_for_room(claim)?;
        let node = self.regular(file)?;
        let expected = if append { node.lock().attr.size } else { offset };
        self.admit(&node, expected, bytes.len() as u64, claim)?;
        self.write_admitted(&node, offset, bytes, append, claim)
    }

    /// As [`Live::write`], but `false`, with nothing written, where that would wait for the applier.
    pub fn try_write(
        &self,
        file: FileId,
        offset: u64,
        bytes: &[u8],
        append: bool,
        claim: Claim,
    ) -> Result<bool> {
        if self.is_crowded() {
            return Ok(false);
        }
        let node = self.regular(file)?;
        let expected = if append { node.lock().attr.size } else { offset };
        if let Admission::Applied { .. } = self.admission(&node, expected, bytes.len() as u64, claim)? {
            return Ok(false);
        }
        self.write_admitted(&node, offset, bytes, append, claim)?;
        Ok(true)
    }

    /// Writes what there is room for.
    fn write_admitted(
        &self,
        node: &Node,
        offset: u64,
        bytes: &[u8],
        append: bool,
        claim: Claim,
    ) -> Result<Seq> {
        let file = node.file;
        let mut state = node.lock();
        let mut at = if append { state.attr.size } else { offset };
        let (begin, before) = (at, state.attr.size);
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > SIZE_MAX) {
            return Err(Error::errno("live.write", libc::EFBIG));
        }
        if state.content.direct && !bytes.is_empty() {
            self.write_direct(node, &mut state, at, bytes)?;
        }
        let journaled: &[u8] = if state.content.direct { &[] } else { bytes };
        for chunk in journaled.chunks(EVENT_MAX) {
            let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let size = state.attr.size.max(at + u64::from(len));
            let event = Event::Write { file, offset: at, len, size, payload: UNPLACED };
            self.emit_as(claim, node, &mut state, chunk, |_| event)?;
            at += u64::from(len);
        }
        self.count_write(node, &mut state, (begin, bytes.len() as u64), before);
        Ok(state.seq)
    }

    /// Journals an event on one node and folds it in.
    pub(super) fn emit(
        &self,
        node: &Node,
        state: &mut NodeState,
        payload: &[u8],
        make: impl FnOnce(crate::types::Timestamp) -> Event,
    ) -> Result<Seq> {
        let claim = if payload.is_empty() { Claim::Upkeep } else { Claim::Growth };
        self.emit_as(claim, node, state, payload, make)
    }

    /// [`Live::emit`] for one that may use more of the space that is left.
    pub(super) fn emit_as(
        &self,
        claim: Claim,
        node: &Node,
        state: &mut NodeState,
        payload: &[u8],
        make: impl FnOnce(crate::types::Timestamp) -> Event,
    ) -> Result<Seq> {
        let mut made = None;
        let appended = self.journal.append_as(claim, payload, |ts| {
            let event = make(ts);
            made = Some(event.clone());
            event
        })?;
        if let Some(event) = made {
            self.change(node.file, state, |state| {
                state.apply(appended.seq, appended.ts, &event, appended.extent)
            });
        }
        Ok(appended.seq)
    }

    /// Changes the size: the rest goes, or a hole comes.
    pub(super) fn resize(&self, node: &Node, state: &mut NodeState, size: u64) -> Result<()> {
        if size > SIZE_MAX {
            return Err(Error::errno("live.truncate", libc::EFBIG));
        }
        if state.content.direct {
            return self.resize_direct(node, state, size);
        }
        let before = state.attr.size;
        let event = Event::Resize { file: node.file, old_size: before, size };
        self.emit(node, state, &[], |_| event)?;
        if let Some(counters) = self.counters(node, state) {
            counters.growth += signed(size) - signed(before);
        }
        Ok(())
    }

    /// fallocate mode 0: the file ends at or after `end`, unless it keeps its size. Its times move in any case.
    pub fn reserve(&self, file: FileId, end: u64, keep_size: bool) -> Result<()> {
        self.wait_for_room(Claim::Growth)?;
        let node = self.regular(file)?;
        let mut state = node.lock();
        if end > state.attr.size && !keep_size {
            return self.resize(&node, &mut state, end);
        }
        self.touch(&node, &mut state)
    }

    /// Zeroes `[offset, offset + len)`; extends the file unless `keep_size`.
    pub fn zero(&self, file: FileId, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        self.wait_for_room(Claim::Growth)?;
        let node = self.regular(file)?;
        let mut state = node.lock();
        let end = offset.checked_add(len).filter(|end| *end <= SIZE_MAX);
        let end = end.ok_or_else(|| Error::errno("live.zero", libc::EFBIG))?;
        if end > state.attr.size && !keep_size {
            self.resize(&node, &mut state, end)?;
        }
        let size = state.attr.size;
        let end = end.min(size);
        if offset >= end {
            return self.touch(&node, &mut state);
        }
        if state.content.direct {
            return self.zero_direct(&node, &mut state, offset, end - offset);
        }
        let event = Event::Zero { file, offset, len: end - offset, size };
        self.emit(&node, &mut state, &[], |_| event)?;
        Ok(())
    }

    /// The next data (or hole) at or after `offset`, by pages, as far as events tell: what the kernel holds and has not
    /// written back is not known here.
    pub fn seek(&self, file: FileId, offset: u64, hole: bool) -> Result<Option<u64>> {
        let node = self.regular(file)?;
        let state = node.lock();
        Ok(state.content.data.seek(offset, state.attr.size, hole))
    }

    /// Bytes of pages that hold data; 0 of anything but a regular file.
    pub fn data_bytes(&self, file: FileId) -> Result<u64> {
        let node = self.node(file)?;
        let pages = node.lock().content.data.count();
        Ok(pages * PAGE)
    }

    /// Whether a write waits for the applier.
    pub fn is_crowded(&self) -> bool {
        self.overlay_bytes.load(Ordering::Relaxed) > self.limits.overlay_bytes
    }

    /// Waits while too much is unapplied; an applier that cannot go on for want of space makes this ENOSPC.
    fn wait_for_room(&self, claim: Claim) -> Result<()> {
        while self.is_crowded() {
            let trouble = self.trouble.lock();
            match &*trouble {
                // Acknowledged already: it is taken whatever the applier does.
                Some(_) if claim == Claim::Owed => return Ok(()),
                Some(error) => return Err(error.clone()),
                None => {}
            }
            drop(self.relief.wait_for(trouble, Duration::from_millis(20)));
        }
        Ok(())
    }

    /// Last event of a file, for its fsync.
    pub fn last_event(&self, file: FileId) -> Result<Seq> {
        let node = Arc::clone(self.tree.read().node(file)?);
        let mut state = node.lock();
        if let Some(counters) = self.counters(&node, &mut state) {
            counters.fsyncs += 1;
        }
        Ok(state.seq)
    }
}
