//! Finding versions of pages.

use super::codec::{Reader, corrupt, put_seq, read_location};
use super::kv::{Kv, Space};
use super::levels::{PARTIALS, levels};
use super::page::{PARTIAL, SHORT, advance, block_prefix, partial_prefix};
use super::scan::{Hit, Scan, behind};
use crate::error::{Error, Result};
use crate::types::{FileId, Location, PAGE, PAGE_LEN, PageNo, Seq};
use std::ops::{ControlFlow, RangeInclusive};

/// Pages that one bulk lookup answers at most.
pub const BULK_PAGES: u64 = 1 << 16;
/// Partial versions read at a time.
const PARTIALS_AT_ONCE: usize = 16;

/// A version of a whole page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FullVersion {
    pub seq: Seq,
    /// Where the page's first byte stands.
    pub location: Location,
    /// Bytes that stand there, at most a page; the rest of the page is zero. Of [`Location::Zero`] the whole page.
    pub valid_len: u32,
}

/// A version of a part of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartialVersion {
    pub seq: Seq,
    /// First byte within the page.
    pub start: u32,
    pub len: u32,
    pub location: Location,
}

/// What makes up a page at an instant: the partial versions, newest first, over the full one; without that over the
/// file's base, or zeros.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageVersion {
    pub full: Option<FullVersion>,
    pub partials: Vec<PartialVersion>,
}

/// Which versions a lookup may see: those in `(floor, at]`.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub at: Seq,
    pub floor: Seq,
}

/// Looks one page up.
pub(super) fn page(
    kv: &dyn Kv,
    mask: u64,
    file: FileId,
    page: PageNo,
    window: Window,
) -> Result<PageVersion> {
    let mut found = PageVersion::default();
    for level in levels(mask) {
        let index = page.0 >> level;
        // Only what is newer than the best so far can matter.
        let floor = found.full.map_or(window.floor, |full| full.seq);
        let prefix = block_prefix(file, level, index);
        let Some((from, end)) = versions(prefix, window.at, floor) else {
            continue;
        };
        if let Some((key, value)) = kv.first(Space::Page, &from, &end)? {
            let (_, seq) = split_block(&key)?;
            let skipped = page.0 - (index << level);
            found.full = Some(read_full(seq, &value, skipped)?);
        }
    }
    if mask & PARTIALS != 0 {
        let floor = found.full.map_or(window.floor, |full| full.seq);
        found.partials = partials_of(kv, file, page, window.at, floor)?;
    }
    Ok(found)
}

/// Keys of the versions in `(floor, at]`.
pub(super) fn versions(prefix: Vec<u8>, at: Seq, floor: Seq) -> Option<(Vec<u8>, Vec<u8>)> {
    if at <= floor {
        return None;
    }
    let mut end = prefix.clone();
    put_seq(&mut end, floor);
    let mut from = prefix;
    put_seq(&mut from, at);
    Some((from, end))
}

fn partials_of(kv: &dyn Kv, file: FileId, page: PageNo, at: Seq, floor: Seq) -> Result<Vec<PartialVersion>> {
    let mut partials = Vec::new();
    let Some((mut from, end)) = versions(partial_prefix(file, page), at, floor) else {
        return Ok(partials);
    };
    loop {
        let pairs = kv.range(Space::Partial, &from, &end, PARTIALS_AT_ONCE)?;
        for (key, value) in &pairs {
            partials.push(read_partial(split_partial(key)?.1, value)?);
        }
        match pairs.into_iter().nth(PARTIALS_AT_ONCE - 1) {
            Some((last, _)) => from = behind_key(last),
            None => return Ok(partials),
        }
    }
}

fn behind_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// Looks up every page of a range, one per element.
pub(super) fn pages(
    kv: &dyn Kv,
    mask: u64,
    file: FileId,
    range: RangeInclusive<PageNo>,
    window: Window,
) -> Result<Vec<PageVersion>> {
    let (first, last) = (range.start().0, range.end().0);
    let count = match last.checked_sub(first) {
        Some(more) if more < BULK_PAGES => more as usize + 1,
        Some(_) => {
            let message = format!("more than {BULK_PAGES} pages at once; ask in parts");
            return Err(Error::invalid("index.pages", message));
        }
        None => return Ok(Vec::new()),
    };
    if count == 1 {
        return Ok(vec![page(kv, mask, file, PageNo(first), window)?]);
    }
    let mut bulk = Bulk { kv, file, first, last, window, found: vec![PageVersion::default(); count] };
    for level in levels(mask) {
        bulk.level(level)?;
    }
    if mask & PARTIALS != 0 {
        bulk.partials()?;
    }
    Ok(bulk.found)
}

/// A bulk lookup under way.
struct Bulk<'a> {
    kv: &'a dyn Kv,
    file: FileId,
    first: u64,
    last: u64,
    window: Window,
    found: Vec<PageVersion>,
}

impl Bulk<'_> {
    /// Takes the newest version of every block of a level that meets the range.
    fn level(&mut self, level: u32) -> Result<()> {
        let (file, at) = (self.file, self.window.at);
        let mut from = block_prefix(file, level, self.first >> level);
        put_seq(&mut from, at);
        let end = behind(&block_prefix(file, level, self.last >> level));
        let scan = Scan { kv: self.kv, space: Space::Page, from, end: &end, at };
        scan.newest(
            split_block,
            |subject| end_of_block_key(file, level, subject, at),
            |hit| self.take_block(level, &hit),
        )
    }

    fn take_block(&mut self, level: u32, hit: &Hit<'_>) -> Result<ControlFlow<()>> {
        if hit.seq <= self.window.floor {
            return Ok(ControlFlow::Continue(()));
        }
        let block = read_full(hit.seq, hit.value, 0)?;
        let begin = block_index(hit.subject)? << level;
        let end = begin.saturating_add((1 << level) - 1).min(self.last);
        for number in begin.max(self.first)..=end {
            let Some(page) = self.found.get_mut((number - self.first) as usize) else {
                break;
            };
            if page.full.is_none_or(|full| full.seq < block.seq) {
                page.full =
                    Some(FullVersion { location: advance(block.location, (number - begin) * PAGE), ..block });
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Takes the partial versions above the full ones: page after page, over those that have none.
    fn partials(&mut self) -> Result<()> {
        let end = behind(&partial_prefix(self.file, PageNo(self.last)));
        let mut next = self.first;
        while next <= self.last {
            let mut from = partial_prefix(self.file, PageNo(next));
            put_seq(&mut from, self.window.at);
            let pairs = self.kv.range(Space::Partial, &from, &end, PARTIALS_AT_ONCE)?;
            let Some(((last, _), rest)) = pairs.split_last() else {
                return Ok(());
            };
            if rest.len() + 1 < PARTIALS_AT_ONCE {
                return pairs.iter().try_for_each(|pair| self.take_partial(pair));
            }
            // The last page may go on behind these pairs: it is looked up by itself.
            let last = last_page(last)?;
            for pair in rest {
                if last_page(&pair.0)? < last {
                    self.take_partial(pair)?;
                }
            }
            self.page_partials(last)?;
            next = last.saturating_add(1);
        }
        Ok(())
    }

    fn page_partials(&mut self, number: u64) -> Result<()> {
        let Some(page) = self.found.get_mut((number - self.first) as usize) else {
            return Ok(());
        };
        let floor = page.full.map_or(self.window.floor, |full| full.seq);
        page.partials = partials_of(self.kv, self.file, PageNo(number), self.window.at, floor)?;
        Ok(())
    }

    fn take_partial(&mut self, (key, value): &(Vec<u8>, Vec<u8>)) -> Result<()> {
        let (_, seq) = split_partial(key)?;
        let number = last_page(key)?;
        let Some(page) = self.found.get_mut((number - self.first) as usize) else {
            return Ok(());
        };
        let floor = page.full.map_or(self.window.floor, |full| full.seq);
        if seq > floor && seq <= self.window.at {
            page.partials.push(read_partial(seq, value)?);
        }
        Ok(())
    }
}

/// Where to go on behind the versions of a block.
pub(super) fn end_of_block_key(file: FileId, level: u32, subject: &[u8], at: Seq) -> Result<Vec<u8>> {
    let mut key = block_prefix(file, level, block_index(subject)?.saturating_add(1));
    put_seq(&mut key, at);
    Ok(key)
}

/// Length of a block key's subject, and its Seq.
pub(super) fn split_block(key: &[u8]) -> Result<(usize, Seq)> {
    let mut reader = Reader::new(key);
    reader.ascending()?;
    reader.byte()?;
    reader.ascending()?;
    end_with_seq(key, reader)
}

pub(super) fn block_index(subject: &[u8]) -> Result<u64> {
    let mut reader = Reader::new(subject);
    reader.ascending()?;
    reader.byte()?;
    reader.ascending()
}

/// Length of a partial key's subject, and its Seq.
pub(super) fn split_partial(key: &[u8]) -> Result<(usize, Seq)> {
    let mut reader = Reader::new(key);
    reader.ascending()?;
    reader.ascending()?;
    end_with_seq(key, reader)
}

/// The page of a partial key.
pub(super) fn last_page(key: &[u8]) -> Result<u64> {
    let mut reader = Reader::new(key);
    reader.ascending()?;
    reader.ascending()
}

/// The last part of a key.
pub(super) fn end_with_seq(key: &[u8], mut reader: Reader<'_>) -> Result<(usize, Seq)> {
    let len = key.len() - reader.left();
    let seq = reader.seq()?;
    reader.finish()?;
    Ok((len, seq))
}

/// Whether a full version is a hole.
pub(super) fn is_zero(value: &[u8]) -> Result<bool> {
    Ok(read_full(Seq::ZERO, value, 0)?.location == Location::Zero)
}

/// The full version of a page `skipped` pages into a block.
pub(super) fn read_full(seq: Seq, value: &[u8], skipped: u64) -> Result<FullVersion> {
    let mut reader = Reader::new(value);
    let tag = reader.byte()?;
    let valid_len = match tag & SHORT {
        0 => PAGE_LEN as u32,
        _ => reader.small()?,
    };
    let location = read_location(tag & !SHORT, &mut reader)?;
    reader.finish()?;
    if valid_len as usize > PAGE_LEN {
        return Err(corrupt("a version longer than its page"));
    }
    Ok(FullVersion { seq, location: advance(location, skipped.saturating_mul(PAGE)), valid_len })
}

pub(super) fn read_partial(seq: Seq, value: &[u8]) -> Result<PartialVersion> {
    let mut reader = Reader::new(value);
    reader.expect_tag(PARTIAL)?;
    reader.byte()?;
    let (start, len) = (reader.small()?, reader.small()?);
    let tag = reader.byte()?;
    let location = read_location(tag, &mut reader)?;
    reader.finish()?;
    if u64::from(start) + u64::from(len) > PAGE {
        return Err(corrupt("a version beyond its page"));
    }
    Ok(PartialVersion { seq, start, len, location })
}
