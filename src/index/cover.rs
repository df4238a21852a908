//! Which pages a byte range covers, whole and in part, and the aligned blocks that whole pages make up.

use crate::types::{PAGE, PageNo};
use std::ops::Range;

/// A piece of one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub page: PageNo,
    /// First byte, within the page.
    pub start: u32,
    /// Bytes, at least 1.
    pub len: u32,
}

/// A byte range in pages. `tail` begins at its page's first byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cover {
    pub head: Option<Piece>,
    pub whole: Range<u64>,
    pub tail: Option<Piece>,
}

impl Cover {
    /// Cover of `offset..end`.
    pub(super) fn of(offset: u64, end: u64) -> Cover {
        let mut cover = Cover {
            head: None,
            whole: 0..0,
            tail: None,
        };
        if end <= offset {
            return cover;
        }
        let (first, start) = (offset / PAGE, offset % PAGE);
        let (last, rest) = (end / PAGE, end % PAGE);
        if start != 0 {
            let stop = end.min((first + 1) * PAGE);
            cover.head = Some(piece(first, start, stop - offset));
        }
        let begin = first + u64::from(start != 0);
        cover.whole = begin..last.max(begin);
        if rest != 0 && last >= begin {
            cover.tail = Some(piece(last, 0, rest));
        }
        cover
    }
}

fn piece(page: u64, start: u64, len: u64) -> Piece {
    Piece {
        page: PageNo(page),
        start: start as u32,
        len: len as u32,
    }
}

/// An aligned run of `1 << level` pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub level: u32,
    pub index: u64,
}

impl Block {
    /// Its first page.
    pub(super) fn first_page(self) -> u64 {
        self.index << self.level
    }
}

/// The fewest blocks that make up a range of pages, in order.
pub(super) fn blocks(pages: Range<u64>) -> impl Iterator<Item = Block> {
    let mut rest = pages;
    std::iter::from_fn(move || {
        let len = rest.end.checked_sub(rest.start).filter(|len| *len > 0)?;
        let level = len.ilog2().min(rest.start.trailing_zeros());
        let index = rest.start >> level;
        rest.start += 1 << level;
        Some(Block { level, index })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cover_is_the_range(offset in 0u64..40_000, len in 0u64..40_000) {
            let cover = Cover::of(offset, offset + len);
            let mut bytes = Vec::new();
            let of_piece = |piece: Piece| {
                let from = piece.page.0 * PAGE + u64::from(piece.start);
                from..from + u64::from(piece.len)
            };
            bytes.extend(cover.head.map(of_piece).into_iter().flatten());
            bytes.extend(cover.whole.start * PAGE..cover.whole.end * PAGE);
            bytes.extend(cover.tail.map(of_piece).into_iter().flatten());
            prop_assert_eq!(bytes, (offset..offset + len).collect::<Vec<_>>());
        }

        #[test]
        fn blocks_make_up_the_range(start in 0u64..5_000, len in 0u64..5_000) {
            let mut pages = Vec::new();
            for block in blocks(start..start + len) {
                pages.extend(block.first_page()..block.first_page() + (1 << block.level));
            }
            prop_assert_eq!(pages, (start..start + len).collect::<Vec<_>>());
        }
    }
}
