//! How many partial versions of a page stand since it was last composed.
//!
//! A hint that bounds the work of a lookup: counting a few too many composes a page early, which is never wrong. So a
//! full version between is noticed only while the page is in memory, and after that the count that its newest
//! partial version carries is taken.

use super::codec::{Reader, put_seq};
use super::kv::{Kv, Space};
use super::page::{PARTIAL, partial_prefix};
use super::scan::behind;
use crate::error::Result;
use crate::types::{FileId, PageNo, Seq};
use std::collections::HashMap;

/// Pages in one generation of the map.
const GENERATION: usize = 1 << 15;
/// Full versions of more pages than this at once leave the counts alone.
const RESET_PAGES: u64 = 16;

type Page = (FileId, PageNo);

/// Counts of the pages partly written lately: two generations, the older dropped when the younger is full.
#[derive(Default)]
pub(super) struct Counts {
    young: HashMap<Page, u8>,
    old: HashMap<Page, u8>,
}

impl Counts {
    /// Counts one more partial version, at `seq`.
    pub(super) fn add(&mut self, kv: &dyn Kv, page: Page, seq: Seq) -> Result<u8> {
        let known = match self.young.get(&page) {
            Some(count) => Some(*count),
            None => self.old.remove(&page),
        };
        let before = match known {
            Some(count) => count,
            None => stored(kv, page, seq)?,
        };
        let count = before.saturating_add(1);
        self.young.insert(page, count);
        Ok(count)
    }

    /// The page will be composed.
    pub(super) fn composed(&mut self, page: Page) {
        self.young.insert(page, 0);
    }

    /// Full versions of pages were written.
    pub(super) fn full(&mut self, file: FileId, first: u64, pages: u64) {
        if pages > RESET_PAGES || (self.young.is_empty() && self.old.is_empty()) {
            return;
        }
        for number in first..first + pages {
            let page = (file, PageNo(number));
            for map in [&mut self.young, &mut self.old] {
                if let Some(count) = map.get_mut(&page) {
                    *count = 0;
                }
            }
        }
    }

    /// Between batches: what a batch has counted must stay until the store holds it.
    pub(super) fn trim(&mut self) {
        if self.young.len() > GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

/// The count that the newest partial version before `seq` carries.
fn stored(kv: &dyn Kv, (file, page): Page, seq: Seq) -> Result<u8> {
    let prefix = partial_prefix(file, page);
    let end = behind(&prefix);
    let mut from = prefix;
    put_seq(&mut from, Seq(seq.0.saturating_sub(1)));
    let Some((_, value)) = kv.first(Space::Partial, &from, &end)? else {
        return Ok(0);
    };
    let mut reader = Reader::new(&value);
    reader.expect_tag(PARTIAL)?;
    reader.byte()
}
