//! The first page of a journal segment. docs/FORMAT.md, "Segments".
//!
//! A segment's header is written, durable, when the segment before has nothing more to say: it states where that
//! one ends. So a segment never has to be touched again, and only the newest can have a torn tail.

use super::codec::Reader;
use crate::error::{Error, Kind, Result};
use crate::types::{PAGE_LEN, SegmentNo, Seq, StoreId};

const MAGIC: [u8; 8] = *b"WEFTJSEG";
/// As this build writes it; version 1 has fewer kinds of events and is read as it is.
const VERSION: u32 = 2;
const OLDEST: u32 = 1;
const COVERED: usize = 72;

/// Header of a journal segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    pub store: StoreId,
    pub number: SegmentNo,
    /// Seq of the first event that this segment will hold.
    pub first_seq: Seq,
    /// CRC of the last group before this segment; 0 for the first.
    pub chain: u32,
    /// Where the valid groups of the segment before end, in bytes; 0 for the first segment.
    pub previous_end: u64,
}

impl SegmentHeader {
    /// One page.
    pub fn encode(&self) -> [u8; PAGE_LEN] {
        let mut fields = Vec::with_capacity(COVERED);
        fields.extend_from_slice(&MAGIC);
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&self.chain.to_le_bytes());
        fields.extend_from_slice(&self.store.0);
        fields.extend_from_slice(&self.number.0.to_le_bytes());
        fields.extend_from_slice(&self.first_seq.0.to_le_bytes());
        fields.extend_from_slice(&self.previous_end.to_le_bytes());
        fields.resize(COVERED, 0);
        let crc = crc32fast::hash(&fields);
        let mut page = [0; PAGE_LEN];
        page[..COVERED].copy_from_slice(&fields);
        page[COVERED..COVERED + 4].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads a header. `Ok(None)`: the page holds none (prepared and not used yet, or torn when it was written).
    /// A version of the future and another store's segment are errors.
    pub fn decode(page: &[u8], store: StoreId) -> Result<Option<SegmentHeader>> {
        let Some(fields) = page.get(..COVERED) else { return Ok(None) };
        let mut tail = Reader::new(page.get(COVERED..).unwrap_or(&[]), "segment header");
        if tail.u32().ok() != Some(crc32fast::hash(fields)) {
            return Ok(None);
        }
        let mut reader = Reader::new(fields, "segment header");
        if reader.array::<8>()? != MAGIC {
            return Ok(None);
        }
        let version = reader.u32()?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(Error::new(
                Kind::Version,
                "journal.segment.open",
                format!(
                    "segment format {version} is not known to this build (it knows {OLDEST} to {VERSION}); use a newer weft"
                ),
            ));
        }
        let chain = reader.u32()?;
        let header = SegmentHeader {
            chain,
            store: StoreId(reader.array()?),
            number: SegmentNo(reader.u64()?),
            first_seq: Seq(reader.u64()?),
            previous_end: reader.u64()?,
        };
        if header.store != store {
            return Err(Error::new(
                Kind::Mismatch,
                "journal.segment.open",
                format!("this segment belongs to store {}, not to {store}", header.store),
            ));
        }
        Ok(Some(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_comes_back_and_damage_does_not() {
        let store = StoreId([3; 16]);
        let header =
            SegmentHeader { store, number: SegmentNo(4), first_seq: Seq(99), chain: 5, previous_end: 8192 };
        let page = header.encode();
        assert_eq!(SegmentHeader::decode(&page, store).unwrap(), Some(header));
        assert_eq!(SegmentHeader::decode(&page, StoreId([4; 16])).unwrap_err().kind, Kind::Mismatch);
        let mut torn = page;
        torn[40] ^= 1;
        assert_eq!(SegmentHeader::decode(&torn, store).unwrap(), None);
        assert_eq!(SegmentHeader::decode(&[0; PAGE_LEN], store).unwrap(), None);
    }
}
