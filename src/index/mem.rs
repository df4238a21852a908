//! The store in memory: for tests, and for a store whose index is not worth a directory.
//!
//! Invariant: the maps are shared with snapshots and copied when written to, so a snapshot never changes.

use super::kv::{Batch, Kv, Pair, Space};
use crate::error::Result;
use crate::sync::{Arc, RwLock};
use std::collections::BTreeMap;
use std::ops::Bound;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Maps = [Map; Space::ALL.len()];

/// An ordered map per space.
pub struct MemKv {
    maps: RwLock<Arc<Maps>>,
}

impl Default for MemKv {
    fn default() -> MemKv {
        MemKv::new()
    }
}

impl MemKv {
    pub fn new() -> MemKv {
        MemKv {
            maps: RwLock::new(Arc::new(Maps::default())),
        }
    }

    /// A store with the present contents, independent from now on: what a crash may bring back.
    #[must_use]
    pub fn snapshot(&self) -> MemKv {
        MemKv {
            maps: RwLock::new(self.view()),
        }
    }

    /// Entries in a space.
    pub fn len(&self, space: Space) -> usize {
        map(&self.view(), space).len()
    }

    fn view(&self) -> Arc<Maps> {
        Arc::clone(&self.maps.read())
    }
}

fn map(maps: &Maps, space: Space) -> &Map {
    &maps[space as usize]
}

/// `from..end`, made empty where a map would panic.
fn bounds<'a>(from: &'a [u8], end: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(end.max(from)))
}

fn owned((key, value): (&Vec<u8>, &Vec<u8>)) -> Pair {
    (key.clone(), value.clone())
}

impl Kv for MemKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(map(&self.maps.read(), space).get(key).cloned())
    }

    fn first(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        let maps = self.maps.read();
        let mut found = map(&maps, space).range::<[u8], _>(bounds(from, end));
        Ok(found.next().map(owned))
    }

    fn last(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        let maps = self.maps.read();
        let mut found = map(&maps, space).range::<[u8], _>(bounds(from, end));
        Ok(found.next_back().map(owned))
    }

    fn range(&self, space: Space, from: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>> {
        let maps = self.maps.read();
        let found = map(&maps, space).range::<[u8], _>(bounds(from, end));
        Ok(found.take(limit).map(owned).collect())
    }

    fn commit(&self, batch: Batch) -> Result<()> {
        let mut shared = self.maps.write();
        let maps = Arc::make_mut(&mut shared);
        for (space, key, value) in batch.puts {
            maps[space as usize].insert(key, value);
        }
        for (space, key) in batch.removals {
            maps[space as usize].remove(&key);
        }
        Ok(())
    }

    fn persist(&self) -> Result<()> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        let maps = self.view();
        let pairs = maps.iter().flatten();
        pairs
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_does_not_change() {
        let kv = MemKv::new();
        let put = |key: u8| {
            let mut batch = Batch::default();
            batch.put(Space::Attr, vec![key], vec![key]);
            kv.commit(batch).unwrap();
        };
        put(1);
        let old = kv.snapshot();
        put(2);
        assert_eq!((old.len(Space::Attr), kv.len(Space::Attr)), (1, 2));
        assert_eq!(
            kv.first(Space::Attr, &[2], &[9]).unwrap(),
            Some((vec![2], vec![2]))
        );
        assert_eq!(
            kv.last(Space::Attr, &[0], &[2]).unwrap(),
            Some((vec![1], vec![1]))
        );
        assert_eq!(kv.range(Space::Attr, &[9], &[0], 5).unwrap(), vec![]);
    }
}
