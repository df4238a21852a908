//! Pieces of woven segments, taken apart, kept by last use within a limit of bytes.

use crate::format::woven::data::Data;
use crate::format::woven::groups::Groups;
use crate::format::woven::places::Places;
use crate::sync::Arc;
use std::collections::HashMap;

/// A piece in memory.
#[derive(Clone)]
pub(super) enum Piece {
    Data(Arc<Data>),
    Groups(Arc<Groups>),
    Places(Arc<Places>),
}

impl Piece {
    fn weight(&self) -> usize {
        match self {
            Piece::Data(piece) => piece.weight(),
            Piece::Groups(piece) => piece.weight(),
            Piece::Places(piece) => piece.weight(),
        }
    }
}

/// Number of the file, offset of the piece in it.
pub(super) type Key = (u64, u64);

/// See the head of this file.
pub(super) struct Cache {
    limit: usize,
    bytes: usize,
    /// Counts uses.
    now: u64,
    pieces: HashMap<Key, (u64, Piece)>,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Cache {
        Cache { limit, bytes: 0, now: 0, pieces: HashMap::new() }
    }

    pub(super) fn get(&mut self, key: Key) -> Option<Piece> {
        self.now += 1;
        let (used, piece) = self.pieces.get_mut(&key)?;
        *used = self.now;
        Some(piece.clone())
    }

    /// Keeps a piece; what was used longest ago goes. There are a few hundred pieces at most, so a search will do.
    pub(super) fn put(&mut self, key: Key, piece: &Piece) {
        self.now += 1;
        self.bytes += piece.weight();
        if let Some((_, old)) = self.pieces.insert(key, (self.now, piece.clone())) {
            self.bytes -= old.weight();
        }
        while self.bytes > self.limit && self.pieces.len() > 1 {
            let oldest = self.pieces.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            if let Some((_, old)) = oldest.and_then(|key| self.pieces.remove(&key)) {
                self.bytes -= old.weight();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(count: u64) -> Piece {
        let list: Vec<_> = (0..count)
            .map(|at| crate::format::woven::places::WovenPlace {
                address: at * 9,
                len: 1,
                piece: 0,
                record: 0,
            })
            .collect();
        let raw = crate::format::woven::places::encode(&list);
        Piece::Places(Arc::new(Places::decode(&raw).unwrap()))
    }

    #[test]
    fn the_longest_unused_goes_and_the_bytes_are_bounded() {
        let one = places(100).weight();
        let mut cache = Cache::new(3 * one);
        (0..3).for_each(|at| cache.put((1, at), &places(100)));
        assert!(cache.get((1, 0)).is_some());
        cache.put((1, 3), &places(100));
        assert!(cache.get((1, 1)).is_none() && cache.get((1, 0)).is_some());
        cache.put((1, 3), &places(100));
        assert_eq!(cache.bytes, 3 * one);
        cache.put((2, 0), &places(1000));
        assert_eq!(cache.pieces.len(), 1, "a large one stays alone");
    }
}
