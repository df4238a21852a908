//! Recording versions of pages.
//!
//! - [`Space::Page`]: (file, level, block, descending Seq) -> location of the block's first byte: a *full* version of
//!   `1 << level` pages. A page has one block per level, so a lookup is one seek per level its file uses.
//! - [`Space::Partial`]: (file, page, descending Seq) -> a piece of one page. At most [`COMPOSE_AFTER`] of them stand above a
//!   full version once the pages that [`apply`](super::Index::apply) names are composed.
//! - A write that ends where its file ends covers its last page in full when it covers that page's start: nothing lies
//!   beyond, and a later extension reads zeros there. Such a version is short: the rest of the page is zero.
//! - Dropped and zeroed ranges are versions at [`Location::Zero`].

use super::build::Build;
use super::codec::{location_tag, put_ascending, put_location, put_seq, put_varint};
use super::cover::{Block, Cover, Piece, blocks};
use super::kv::Space;
use super::levels::PARTIALS;
use crate::error::Result;
use crate::types::{FileId, Location, PAGE, PAGE_LEN, PageNo, Seq};

/// Partial versions above a full one at which a page is to be composed.
pub const COMPOSE_AFTER: u8 = 8;

/// Flag beside a location's tag: the version is short, its length follows.
pub(super) const SHORT: u8 = 0x40;
/// Tag of a partial version.
pub(super) const PARTIAL: u8 = 1;

/// A page to compose: its bytes at `seq` are to be handed to [`put_composed`](super::Index::put_composed).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compose {
    pub file: FileId,
    pub page: PageNo,
    pub seq: Seq,
}

/// Bytes that change: `offset..end` of a file that is `size` long after.
pub(super) struct Change {
    pub file: FileId,
    pub seq: Seq,
    pub offset: u64,
    pub end: u64,
    pub size: u64,
    /// Where the first of the bytes stands.
    pub source: Location,
}

impl Change {
    /// The change of a dropped or zeroed range. Beyond the end of the file everything is zero already, so the last page
    /// may be taken whole.
    pub(super) fn zero(file: FileId, seq: Seq, offset: u64, end: u64, size: u64) -> Change {
        let end = match end >= size {
            true => end.checked_next_multiple_of(PAGE).unwrap_or(end),
            false => end,
        };
        Change { file, seq, offset, end, size, source: Location::Zero }
    }

    fn at(&self, byte: u64) -> Location {
        advance(self.source, byte - self.offset)
    }
}

/// The location `bytes` further on.
pub fn advance(location: Location, bytes: u64) -> Location {
    match location {
        Location::Journal { segment, offset } => {
            Location::Journal { segment, offset: offset.saturating_add(bytes) }
        }
        Location::Base { number, offset } => Location::Base { number, offset: offset.saturating_add(bytes) },
        Location::PageFile { number, offset } => {
            Location::PageFile { number, offset: offset.saturating_add(bytes) }
        }
        Location::Zero => Location::Zero,
    }
}

/// Records every version a change makes.
pub(super) fn record(build: &mut Build<'_>, change: &Change) -> Result<()> {
    let cover = Cover::of(change.offset, change.end);
    let mut bits = 0;
    if let Some(head) = cover.head {
        record_partial(build, change, head, change.source)?;
        bits |= PARTIALS;
    }
    let pages = cover.whole.end - cover.whole.start;
    for block in blocks(cover.whole.clone()) {
        let location = change.at(block.first_page() * PAGE);
        put_full(build, change.file, block, change.seq, location, PAGE_LEN);
        bits |= 1 << block.level;
    }
    build.memory.counts.full(change.file, cover.whole.start, pages);
    if let Some(tail) = cover.tail {
        bits |= record_tail(build, change, tail)?;
    }
    match bits {
        0 => Ok(()),
        _ => build.use_levels(change.file, bits),
    }
}

/// Records a piece from the start of a page; tells the bits it uses.
fn record_tail(build: &mut Build<'_>, change: &Change, tail: Piece) -> Result<u64> {
    let location = change.at(tail.page.0 * PAGE);
    if change.end < change.size {
        record_partial(build, change, tail, location)?;
        return Ok(PARTIALS);
    }
    let block = single(tail.page);
    let len = tail.len as usize;
    put_full(build, change.file, block, change.seq, location, len);
    build.memory.counts.full(change.file, tail.page.0, 1);
    Ok(1)
}

fn single(page: PageNo) -> Block {
    Block { level: 0, index: page.0 }
}

fn record_partial(build: &mut Build<'_>, change: &Change, piece: Piece, location: Location) -> Result<()> {
    let (file, page, seq) = (change.file, piece.page, change.seq);
    let mut count = build.memory.counts.add(build.kv, (file, page), seq)?;
    if count >= COMPOSE_AFTER {
        build.composes.push(Compose { file, page, seq });
        build.memory.counts.composed((file, page));
        count = 0;
    }
    let mut key = partial_prefix(file, page);
    put_seq(&mut key, seq);
    let mut value = Vec::with_capacity(16);
    value.push(PARTIAL);
    value.push(count);
    put_varint(&mut value, u64::from(piece.start));
    put_varint(&mut value, u64::from(piece.len));
    value.push(location_tag(&location));
    put_location(&mut value, &location);
    build.batch.put(Space::Partial, key, value);
    Ok(())
}

fn put_full(build: &mut Build<'_>, file: FileId, block: Block, seq: Seq, location: Location, len: usize) {
    let mut key = block_prefix(file, block.level, block.index);
    put_seq(&mut key, seq);
    let mut value = Vec::with_capacity(12);
    let short = len < PAGE_LEN && location != Location::Zero;
    value.push(location_tag(&location) | if short { SHORT } else { 0 });
    if short {
        put_varint(&mut value, len as u64);
    }
    put_location(&mut value, &location);
    build.batch.put(Space::Page, key, value);
}

/// Records a page composed as of a Seq.
pub(super) fn record_composed(build: &mut Build<'_>, compose: Compose, location: Location) -> Result<()> {
    let block = single(compose.page);
    put_full(build, compose.file, block, compose.seq, location, PAGE_LEN);
    build.use_levels(compose.file, 1)
}

/// Key of a block without its Seq.
pub(super) fn block_prefix(file: FileId, level: u32, index: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    put_ascending(&mut key, file.0);
    key.push(level as u8);
    put_ascending(&mut key, index);
    key
}

/// Key of a page's partial versions without their Seq.
pub(super) fn partial_prefix(file: FileId, page: PageNo) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    put_ascending(&mut key, file.0);
    put_ascending(&mut key, page.0);
    key
}
