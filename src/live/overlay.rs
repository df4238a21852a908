//! The overlay of one file: what has been written and not yet applied to the live file.
//!
//! - Pieces never overlap; a later event replaces what it covers.
//! - A piece's bytes are in the journal (in memory while its group is there); the overlay holds places, not bytes.

use crate::journal::Extent;
use crate::types::Seq;
use std::collections::BTreeMap;

/// Bytes of a piece.
#[derive(Clone)]
pub enum Source {
    Journal(Extent),
    /// A zeroed or punched range.
    Zero,
}

/// A range with one origin. Its offset is its key.
#[derive(Clone)]
pub struct Piece {
    pub len: u64,
    pub seq: Seq,
    pub source: Source,
}

impl Piece {
    /// The part `[skip, skip + len)` of this piece.
    fn slice(&self, skip: u64, len: u64) -> Piece {
        let source = match &self.source {
            Source::Zero => Source::Zero,
            Source::Journal(extent) => Source::Journal(extent.slice(skip as u32, len as u32)),
        };
        Piece { len, seq: self.seq, source }
    }
}

/// The pieces of one file.
#[derive(Default)]
pub struct Overlay {
    pieces: BTreeMap<u64, Piece>,
    bytes: u64,
}

impl Overlay {
    /// Bytes of journal payload that wait here (zero ranges cost nothing).
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Puts a piece at `offset` over whatever is there.
    pub fn insert(&mut self, offset: u64, piece: Piece) {
        self.cut(offset, offset + piece.len);
        self.bytes += weight(&piece);
        self.pieces.insert(offset, piece);
    }

    /// Forgets everything from `size` on.
    pub fn truncate(&mut self, size: u64) {
        self.cut(size, u64::MAX);
    }

    /// Removes `[start, end)`, leaving what stands out on either side.
    fn cut(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let head = self.pieces.range(..start).next_back().map(|(at, piece)| (*at, piece.clone()));
        if let Some((at, piece)) = head {
            let piece_end = at + piece.len;
            if piece_end > start {
                self.remove(at);
                self.put(at, piece.slice(0, start - at));
                if piece_end > end {
                    self.put(end, piece.slice(end - at, piece_end - end));
                }
            }
        }
        while let Some((at, piece)) =
            self.pieces.range(start..end).next().map(|(at, piece)| (*at, piece.clone()))
        {
            self.remove(at);
            let piece_end = at + piece.len;
            if piece_end > end {
                self.put(end, piece.slice(end - at, piece_end - end));
            }
        }
    }

    fn put(&mut self, at: u64, piece: Piece) {
        self.bytes += weight(&piece);
        self.pieces.insert(at, piece);
    }

    fn remove(&mut self, at: u64) {
        if let Some(piece) = self.pieces.remove(&at) {
            self.bytes -= weight(&piece);
        }
    }

    /// The pieces that touch `[offset, offset + len)`, cut to it, with their offsets, ascending.
    pub fn within(&self, offset: u64, len: u64) -> Vec<(u64, Piece)> {
        let end = offset.saturating_add(len);
        let before = self.pieces.range(..offset).next_back().filter(|(at, piece)| **at + piece.len > offset);
        before
            .into_iter()
            .chain(self.pieces.range(offset..end))
            .map(|(at, piece)| {
                let from = (*at).max(offset);
                let to = (at + piece.len).min(end);
                (from, piece.slice(from - at, to - from))
            })
            .collect()
    }

    /// The pieces with `seq <= upto` that end at or before `limit`.
    pub fn settled(&self, upto: Seq, limit: u64) -> Vec<(u64, Piece)> {
        self.pieces
            .iter()
            .filter(|(at, piece)| piece.seq <= upto && **at + piece.len <= limit)
            .map(|(at, piece)| (*at, piece.clone()))
            .collect()
    }

    /// Drops the pieces that [`Overlay::settled`] gave, as far as they still stand: by their event, for a piece that
    /// a later write has split may have parts that were never settled.
    pub fn drop_settled(&mut self, settled: &[(u64, Piece)]) {
        for (at, piece) in settled {
            let gone: Vec<u64> = self
                .pieces
                .range(*at..at + piece.len)
                .filter(|(_, standing)| standing.seq == piece.seq)
                .map(|(at, _)| *at)
                .collect();
            for at in gone {
                self.remove(at);
            }
        }
    }

    /// Seq of the oldest piece.
    pub fn oldest(&self) -> Option<Seq> {
        self.pieces.values().map(|piece| piece.seq).min()
    }
}

fn weight(piece: &Piece) -> u64 {
    match piece.source {
        Source::Journal(_) => piece.len,
        Source::Zero => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zero(len: u64, seq: u64) -> Piece {
        Piece { len, seq: Seq(seq), source: Source::Zero }
    }

    proptest! {
        #[test]
        fn the_newest_event_covers_each_byte(
            steps in prop::collection::vec((0u64..64, 1u64..32, any::<bool>()), 1..40)
        ) {
            let mut overlay = Overlay::default();
            let mut model = [0u64; 128];
            for (index, (offset, len, truncate)) in steps.into_iter().enumerate() {
                let seq = index as u64 + 1;
                if truncate {
                    overlay.truncate(offset);
                    model[offset as usize..].fill(0);
                } else {
                    overlay.insert(offset, zero(len, seq));
                    model[offset as usize..(offset + len) as usize].fill(seq);
                }
            }
            let mut seen = [0u64; 128];
            for (at, piece) in overlay.within(0, 128) {
                for cell in &mut seen[at as usize..(at + piece.len) as usize] {
                    prop_assert_eq!(*cell, 0, "pieces overlap");
                    *cell = piece.seq.0;
                }
            }
            prop_assert_eq!(seen, model);
            let mut part = [0u64; 128];
            for (at, piece) in overlay.within(20, 30) {
                part[at as usize..(at + piece.len) as usize].fill(piece.seq.0);
            }
            prop_assert_eq!(&part[20..50], &model[20..50]);
            prop_assert!(part[..20].iter().chain(&part[50..]).all(|seq| *seq == 0));
        }
    }
}
