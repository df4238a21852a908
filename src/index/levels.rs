//! Which block levels the versions of a file use, so that a lookup seeks only those.
//!
//! - A mask only gains bits, so one that is too old (read beside a commit) is only wrong about versions that are not
//!   visible yet.
//! - What the cache holds is at least what the store held at the last commit: a reader's load from before a commit is
//!   merged, and dropped when the cache was emptied in between.

use super::codec::{Reader, put_ascending, put_varint};
use super::kv::{Batch, Kv, Space};
use crate::error::Result;
use crate::sync::RwLock;
use crate::types::FileId;
use std::collections::HashMap;

const LEVELS: u8 = 2;
/// The file has partial versions.
pub(super) const PARTIALS: u64 = 1 << 63;
/// The file had a page without data at some Seq.
pub(super) const HOLES: u64 = 1 << 62;
/// Files whose mask is kept in memory; the cache starts anew beyond it.
const CACHED_FILES: usize = 1 << 16;

#[derive(Default)]
struct Cache {
    masks: HashMap<FileId, u64>,
    /// How often the cache was emptied.
    emptied: u64,
}

/// Masks of all files.
#[derive(Default)]
pub(super) struct Levels {
    cache: RwLock<Cache>,
}

/// Masks that a batch reads and extends.
#[derive(Default)]
pub(super) struct Extended {
    /// Stored and extended mask.
    masks: HashMap<FileId, (u64, u64)>,
}

/// The levels in a mask, lowest first.
pub(super) fn levels(mask: u64) -> impl Iterator<Item = u32> {
    let mut rest = mask & !(PARTIALS | HOLES);
    std::iter::from_fn(move || {
        let level = rest.trailing_zeros();
        rest &= rest.wrapping_sub(1);
        (level < u64::BITS).then_some(level)
    })
}

impl Levels {
    /// The mask of a file.
    pub(super) fn of(&self, kv: &dyn Kv, file: FileId) -> Result<u64> {
        let emptied = {
            let cache = self.cache.read();
            if let Some(mask) = cache.masks.get(&file) {
                return Ok(*mask);
            }
            cache.emptied
        };
        let mask = load(kv, file)?;
        let mut cache = self.cache.write();
        if cache.emptied == emptied {
            cache.merge(file, mask);
        }
        Ok(mask)
    }

    /// Forgets all: what the store holds is not known.
    pub(super) fn empty(&self) {
        let mut cache = self.cache.write();
        cache.masks.clear();
        cache.emptied += 1;
    }

    /// Takes over what a batch stored. Called before its events become visible.
    pub(super) fn publish(&self, extended: &Extended) {
        let mut cache = self.cache.write();
        for (file, (stored, mask)) in &extended.masks {
            if stored != mask {
                cache.merge(*file, *mask);
            }
        }
    }
}

impl Cache {
    fn merge(&mut self, file: FileId, mask: u64) {
        if self.masks.len() >= CACHED_FILES && !self.masks.contains_key(&file) {
            self.masks.clear();
            self.emptied += 1;
        }
        *self.masks.entry(file).or_default() |= mask;
    }
}

impl Extended {
    /// Adds bits to a file's mask.
    pub(super) fn add(&mut self, kv: &dyn Kv, levels: &Levels, file: FileId, bits: u64) -> Result<()> {
        if let Some((_, mask)) = self.masks.get_mut(&file) {
            *mask |= bits;
            return Ok(());
        }
        let stored = levels.of(kv, file)?;
        self.masks.insert(file, (stored, stored | bits));
        Ok(())
    }

    /// Puts the masks that changed.
    pub(super) fn finish(&self, batch: &mut Batch) {
        for (file, (stored, mask)) in &self.masks {
            if stored == mask {
                continue;
            }
            let mut value = vec![LEVELS];
            put_varint(&mut value, *mask);
            batch.put(Space::State, key(*file), value);
        }
    }
}

fn key(file: FileId) -> Vec<u8> {
    let mut key = vec![LEVELS];
    put_ascending(&mut key, file.0);
    key
}

fn load(kv: &dyn Kv, file: FileId) -> Result<u64> {
    let Some(value) = kv.get(Space::State, &key(file))? else {
        return Ok(0);
    };
    let mut reader = Reader::new(&value);
    reader.expect_tag(LEVELS)?;
    let mask = reader.varint()?;
    reader.finish()?;
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_a_mask() {
        assert_eq!(levels(PARTIALS | HOLES | 0b1011).collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(levels(0).count(), 0);
        assert_eq!(levels(u64::MAX).count(), 62);
    }
}
