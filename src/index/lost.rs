//! Lists of saved pages that are damaged: which pre-images stood in them is not known, and so no page that was written
//! before and has none is known to have had none.
//!
//! [`Space::State`]: 3 ++ base file ++ offset -> where the next list stands, and the last event before it was found.

use super::codec::{Reader, put_ascending, put_varint};
use super::kv::{Batch, Kv, Pair, Space};
use crate::error::Result;
use crate::types::Seq;

const PREFIX: u8 = 3;
const LOST: u8 = 1;
/// Whoever loses more has lost everything.
const MOST: usize = 1 << 16;

/// One stretch of a base file of which the lists cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostList {
    /// The base file.
    pub number: u64,
    /// Where the list should stand, and the next one that can be read.
    pub offset: u64,
    pub end: u64,
    /// Nothing that stood in it was written first by a later event.
    pub upto: Seq,
}

impl LostList {
    /// Saved pages that stood in there, at most.
    pub fn pages(&self) -> u64 {
        (self.end.saturating_sub(self.offset) / crate::types::PAGE).saturating_sub(1)
    }
}

pub(super) fn put(kv: &dyn Kv, lost: &[LostList]) -> Result<()> {
    let mut batch = Batch::default();
    for LostList { number, offset, end, upto } in lost {
        let mut key = vec![PREFIX];
        put_ascending(&mut key, *number);
        put_ascending(&mut key, *offset);
        let mut value = vec![LOST];
        put_varint(&mut value, *end);
        put_varint(&mut value, upto.0);
        batch.put(Space::State, key, value);
    }
    if lost.is_empty() { Ok(()) } else { kv.commit(batch) }
}

pub(super) fn all(kv: &dyn Kv) -> Result<Vec<LostList>> {
    let pairs = kv.range(Space::State, &[PREFIX], &[PREFIX + 1], MOST)?;
    let read = |(key, value): Pair| -> Result<LostList> {
        let mut reader = Reader::new(&key);
        reader.expect_tag(PREFIX)?;
        let (number, offset) = (reader.ascending()?, reader.ascending()?);
        reader.finish()?;
        let mut reader = Reader::new(&value);
        reader.expect_tag(LOST)?;
        let (end, upto) = (reader.varint()?, Seq(reader.varint()?));
        reader.finish()?;
        Ok(LostList { number, offset, end, upto })
    };
    pairs.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::super::mem::MemKv;
    use super::*;

    #[test]
    fn what_is_lost_is_remembered_in_order() {
        let kv = MemKv::new();
        let lost = |number, offset| LostList { number, offset, end: offset + 5 * 4096, upto: Seq(70) };
        put(&kv, &[]).unwrap();
        assert_eq!(all(&kv).unwrap(), []);
        put(&kv, &[lost(300, 0), lost(2, 1 << 29), lost(2, 8192)]).unwrap();
        put(&kv, &[lost(2, 8192)]).unwrap();
        assert_eq!(all(&kv).unwrap(), [lost(2, 8192), lost(2, 1 << 29), lost(300, 0)]);
        assert_eq!(lost(1, 0).pages(), 4);
    }
}
