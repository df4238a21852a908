//! Which pages of the page files some version leads to.

use super::kv::{Kv, Space};
use super::lookup::read_full;
use crate::error::Result;
use crate::types::{Location, PAGE, PageSet, Seq};
use std::collections::BTreeMap;

const PAIRS_AT_ONCE: usize = 1024;
/// Behind every key.
const END: [u8; 32] = [u8::MAX; 32];

/// Of each page file that has some, the pages that are in use. `go_on` is asked now and then with the bytes that were read;
/// `None` when it says no.
pub(super) fn composed(
    kv: &dyn Kv,
    mut go_on: impl FnMut(u64) -> bool,
) -> Result<Option<BTreeMap<u64, PageSet>>> {
    let mut used: BTreeMap<u64, PageSet> = BTreeMap::new();
    let mut from = Vec::new();
    loop {
        let pairs = kv.range(Space::Page, &from, &END, PAIRS_AT_ONCE)?;
        let mut bytes = 0;
        for (key, value) in &pairs {
            bytes += (key.len() + value.len()) as u64;
            if let Location::PageFile { number, offset } = read_full(Seq::ZERO, value, 0)?.location {
                used.entry(number).or_default().write(offset, offset + PAGE);
            }
        }
        let Some((mut last, _)) = pairs.into_iter().nth(PAIRS_AT_ONCE - 1) else { return Ok(Some(used)) };
        last.push(0);
        from = last;
        if !go_on(bytes) {
            return Ok(None);
        }
    }
}
