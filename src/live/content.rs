//! The bytes of one regular file: overlay above, live file beneath, base where history still leans on the live file.
//!
//! - The live file is valid up to `live_len`; beyond it the file reads as zeros whatever stands on disk.
//! - A shrink is pending until it is durable and applied; nothing is applied beyond `live_len` meanwhile.
//! - A page in `saved` has its pre-image in a base file, durable, before the live file's page is touched.

use super::overlay::{Overlay, Piece, Source};
use crate::format::checkpoint::BaseState;
use crate::format::sections::RestedState;
use crate::types::{FileId, PAGE, PageNo, PageSet, Seq};
use roaring::RoaringBitmap;

/// The largest file, as ext4 has it with 4 KiB blocks (`ext4_max_size`): page numbers fit 32 bits, and the applier can
/// carry down whatever was acknowledged.
pub const SIZE_MAX: u64 = (1 << 44) - PAGE;

/// Bytes that come from before Weft, as far as the past needs them.
#[derive(Clone)]
pub struct Base {
    pub adopted: Seq,
    pub size: u64,
    pub saved: RoaringBitmap,
    /// The file that held it has been moved to limbo whole.
    pub in_limbo: bool,
}

/// Pages, so many at a time: what a file has had may not fit into memory.
pub fn in_parts(mut pages: impl Iterator<Item = PageNo>, most: usize) -> impl Iterator<Item = Vec<PageNo>> {
    std::iter::from_fn(move || {
        let part: Vec<PageNo> = pages.by_ref().take(most).collect();
        (!part.is_empty()).then_some(part)
    })
}

impl Base {
    /// Everything still in the live file.
    pub fn new(adopted: Seq, size: u64) -> Base {
        Base { adopted, size, saved: RoaringBitmap::new(), in_limbo: false }
    }

    /// Pages of the base; the last may be partial.
    pub fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE)
    }

    pub fn is_saved(&self, page: PageNo) -> bool {
        u32::try_from(page.0).map_or(true, |page| self.saved.contains(page))
    }

    /// Whether the live file still holds bytes that only it has.
    pub fn leans_on_live(&self) -> bool {
        !self.in_limbo && self.saved.len() < self.pages()
    }

    /// The pages of these ranges (bytes, from..to) whose pre-image must be saved before they are touched. It is small, however
    /// many they are.
    pub fn unsaved(&self, ranges: impl IntoIterator<Item = (u64, u64)>) -> RoaringBitmap {
        let mut pages = RoaringBitmap::new();
        if self.in_limbo {
            return pages;
        }
        for (start, end) in ranges {
            let behind = end.div_ceil(PAGE).min(self.pages());
            let last = u32::try_from(behind.saturating_sub(1)).unwrap_or(u32::MAX);
            // Of what is longer than files can be, nothing can be saved.
            let first = u32::try_from(start / PAGE).ok().filter(|first| u64::from(*first) < behind);
            if let Some(first) = first.filter(|_| start < end) {
                pages.insert_range(first..=last);
            }
        }
        pages - &self.saved
    }

    /// Of a file at rest.
    pub fn rested(&self, file: FileId) -> RestedState {
        RestedState { file, since: self.adopted, size: self.size }
    }

    /// As checkpoints keep it.
    pub fn to_state(&self) -> BaseState {
        let mut saved = Vec::with_capacity(self.saved.serialized_size());
        // Writing to a vector does not fail.
        let _ = self.saved.serialize_into(&mut saved);
        BaseState { adopted: self.adopted, size: self.size, saved, in_limbo: self.in_limbo }
    }

    /// From a checkpoint; `None` when the bitmap is damaged.
    pub fn from_state(state: &BaseState) -> Option<Base> {
        let saved = RoaringBitmap::deserialize_from(&state.saved[..]).ok()?;
        Some(Base { adopted: state.adopted, size: state.size, saved, in_limbo: state.in_limbo })
    }
}

/// A shrink that the live file has not seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shrink {
    pub first: Seq,
    pub newest: Seq,
    /// The smallest size since, not counting what a round is applying.
    pub to: u64,
}

/// See the head of this file.
#[derive(Default)]
pub struct Content {
    pub overlay: Overlay,
    pub live_len: u64,
    /// Length of the live file on disk.
    pub disk_len: u64,
    /// There is a live file.
    pub exists: bool,
    pub shrink: Option<Shrink>,
    pub base: Option<Base>,
    /// The base that it is about to have instead: the applier stands still until then.
    pub resting: Option<Base>,
    /// Pages that hold data, of the file as its last event left it.
    pub data: PageSet,
    /// It waits for the applier.
    pub queued: bool,
    /// Its file has no name any more: it is not applied, and does not count as waiting.
    pub detached: bool,
    /// Its live file is on its way out: nobody opens it any more.
    pub buried: bool,
    /// It is excluded from history: its bytes go to the live file and nowhere else (see `live::direct`).
    pub direct: bool,
}

/// One stretch of a read.
pub enum Stretch {
    Piece(Piece),
    /// From the live file.
    Live,
    Zero,
}

impl Content {
    /// Of a file that is there and is its own base.
    pub fn adopted(base: Base) -> Content {
        Content {
            live_len: base.size,
            disk_len: base.size,
            exists: true,
            data: PageSet::dense(base.size),
            base: Some(base),
            ..Content::default()
        }
    }

    /// Of a file that is there and whose bytes bypass the journal.
    pub fn bypassing(len: u64) -> Content {
        let data = PageSet::dense(len);
        Content { live_len: len, disk_len: len, exists: true, direct: true, data, ..Content::default() }
    }

    /// The base that it has, or is about to have, since an adoption.
    pub fn base_since(&self, adopted: Seq) -> Option<&Base> {
        [&self.base, &self.resting].into_iter().flatten().find(|base| base.adopted == adopted)
    }

    /// What is in the live file is the base from now on.
    pub fn capture(&mut self, seq: Seq, size: u64) {
        let base = (size > 0).then(|| Base::new(seq, size));
        let disk_len = self.disk_len.max(size);
        let data = PageSet::dense(size);
        *self = Content { live_len: size, disk_len, exists: self.exists, base, data, ..Content::default() };
    }

    pub fn put(&mut self, offset: u64, len: u64, seq: Seq, source: Source) {
        if let Source::Journal(_) = source {
            self.data.write(offset, offset + len);
        }
        self.overlay.insert(offset, Piece { len, seq, source });
    }

    /// A range of a file of `size` bytes is zero from now on.
    pub fn zero(&mut self, offset: u64, len: u64, size: u64, seq: Seq) {
        let end = offset + len;
        // Behind the end of the file everything is zero already: the last page goes whole.
        self.data.zero(offset, if end >= size { end.next_multiple_of(PAGE) } else { end });
        self.put(offset, len, seq, Source::Zero);
    }

    pub fn resize(&mut self, old: u64, size: u64, seq: Seq) {
        if size >= old {
            return;
        }
        self.overlay.truncate(size);
        self.data.truncate(size);
        self.live_len = self.live_len.min(size);
        if self.disk_len > size || self.shrink.is_some() {
            let (first, to) = self.shrink.map_or((seq, size), |shrink| (shrink.first, shrink.to.min(size)));
            self.shrink = Some(Shrink { first, newest: seq, to });
        }
    }

    /// Who answers for each byte of `[offset, offset + len)`: ascending, without gaps.
    pub fn plan(&self, offset: u64, len: u64) -> Vec<(u64, u64, Stretch)> {
        let mut plan = Vec::new();
        let mut at = offset;
        for (start, piece) in self.overlay.within(offset, len) {
            self.beneath(at, start, &mut plan);
            at = start + piece.len;
            plan.push((start, piece.len, Stretch::Piece(piece)));
        }
        self.beneath(at, offset + len, &mut plan);
        plan
    }

    fn beneath(&self, start: u64, end: u64, plan: &mut Vec<(u64, u64, Stretch)>) {
        let live_end = if self.exists { self.live_len.clamp(start, end.max(start)) } else { start };
        if live_end > start {
            plan.push((start, live_end - start, Stretch::Live));
        }
        if end > live_end {
            plan.push((live_end, end - live_end, Stretch::Zero));
        }
    }

    /// What a replay brings may have been in the live file already, and what it overwrote saved in a list that is lost: of
    /// those pages the live file is no base any more, and what it was is not known.
    pub fn give_up_base(&mut self) {
        let Some(base) = &mut self.base else { return };
        let cut = self.shrink.map_or(self.disk_len, |shrink| shrink.to.min(self.disk_len));
        let written = self.overlay.within(0, SIZE_MAX).into_iter().map(|(at, piece)| (at, at + piece.len));
        base.saved |= base.unsaved(written.chain([(cut, base.size)]));
    }

    /// The oldest event that the live file has not seen.
    pub fn oldest_pending(&self) -> Option<Seq> {
        let shrink = self.shrink.map(|shrink| shrink.first);
        [self.overlay.oldest(), shrink].into_iter().flatten().min()
    }
}
