//! Woven segments: sealed journal segments, compact. docs/FORMAT.md, "Woven segments".
//!
//! A file is a header, pieces, and a trailer. Pieces hold versions of pages ([`data`]), the groups of the journal
//! without the bytes of writes ([`groups`]), the places of bytes ([`places`]), and what is in the file ([`contents`]).
//!
//! - Every byte and every group keeps the address that it had in the journal segment: whoever has noted a place finds
//!   it in either form.
//! - Each piece has a CRC, the file a BLAKE3 in its trailer.

pub mod contents;
pub mod data;
pub mod groups;
pub mod piece;
pub mod places;

use super::codec::Reader;
use crate::error::{Error, Kind, Result};
use crate::types::{SegmentNo, StoreId};

const MAGIC: [u8; 8] = *b"WEFTWOVN";
const END_MAGIC: [u8; 8] = *b"WEFTWEND";
const VERSION: u32 = 1;
const OP: &str = "woven.open";

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
/// Bytes of the trailer.
pub const TRAILER_LEN: usize = 64;
const COVERED: usize = 60;

/// The first bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WovenHeader {
    pub store: StoreId,
    /// The journal segments that are in here: from `first` to `last`.
    pub first: SegmentNo,
    pub last: SegmentNo,
    /// History was thinned: versions that no instant needs are left out.
    pub thinned: bool,
}

impl WovenHeader {
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut fields = Vec::with_capacity(HEADER_LEN);
        fields.extend_from_slice(&MAGIC);
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&self.store.0);
        fields.extend_from_slice(&self.first.0.to_le_bytes());
        fields.extend_from_slice(&self.last.0.to_le_bytes());
        fields.push(u8::from(self.thinned));
        sealed(fields)
    }

    /// Damage, a version of the future and another store's file are told apart.
    pub fn decode(bytes: &[u8], store: StoreId) -> Result<WovenHeader> {
        let mut reader = Reader::new(bytes, "woven header");
        if reader.array::<8>()? != MAGIC {
            return Err(Error::corrupt(OP, "this is not a woven segment"));
        }
        let version = reader.u32()?;
        if version != VERSION {
            let message = format!(
                "woven format {version} is not known to this build (it knows {VERSION}); use a newer weft"
            );
            return Err(Error::new(Kind::Version, OP, message));
        }
        check_seal(bytes)?;
        let found = StoreId(reader.array()?);
        if found != store {
            let message = format!("this woven segment belongs to store {found}, not to {store}");
            return Err(Error::new(Kind::Mismatch, OP, message));
        }
        let (first, last) = (SegmentNo(reader.u64()?), SegmentNo(reader.u64()?));
        Ok(WovenHeader { store, first, last, thinned: reader.byte()? != 0 })
    }
}

/// The last bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Where the piece with the contents begins, and its length.
    pub contents_at: u64,
    pub contents_len: u32,
    /// Of all bytes before the trailer.
    pub blake3: [u8; 32],
}

impl Trailer {
    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut fields = Vec::with_capacity(TRAILER_LEN);
        fields.extend_from_slice(&END_MAGIC);
        fields.extend_from_slice(&self.contents_at.to_le_bytes());
        fields.extend_from_slice(&self.contents_len.to_le_bytes());
        fields.extend_from_slice(&self.blake3);
        sealed(fields)
    }

    pub fn decode(bytes: &[u8]) -> Result<Trailer> {
        let mut reader = Reader::new(bytes, "woven trailer");
        if reader.array::<8>()? != END_MAGIC {
            return Err(Error::corrupt(OP, "the end of the woven segment is missing"));
        }
        check_seal(bytes)?;
        Ok(Trailer { contents_at: reader.u64()?, contents_len: reader.u32()?, blake3: reader.array()? })
    }
}

const _: () = assert!(HEADER_LEN == COVERED + 4 && TRAILER_LEN == COVERED + 4);

/// Fields, zeros up to [`COVERED`], their CRC.
fn sealed(mut fields: Vec<u8>) -> [u8; COVERED + 4] {
    fields.resize(COVERED, 0);
    let crc = crc32fast::hash(&fields);
    let mut out = [0; COVERED + 4];
    out[..COVERED].copy_from_slice(&fields);
    out[COVERED..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn check_seal(bytes: &[u8]) -> Result<()> {
    let covered = bytes.get(..COVERED).map(crc32fast::hash);
    let stored = Reader::new(bytes.get(COVERED..).unwrap_or(&[]), "woven segment").u32().ok();
    match covered.is_some() && covered == stored {
        true => Ok(()),
        false => Err(Error::corrupt(OP, "the checksum of its first or last bytes does not fit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_come_back_and_strangers_are_refused() {
        let store = StoreId([3; 16]);
        let header = WovenHeader { store, first: SegmentNo(4), last: SegmentNo(6), thinned: true };
        let bytes = header.encode();
        assert_eq!(WovenHeader::decode(&bytes, store).unwrap(), header);
        assert_eq!(WovenHeader::decode(&bytes, StoreId([4; 16])).unwrap_err().kind, Kind::Mismatch);
        let mut newer = bytes;
        newer[8] = 9;
        assert_eq!(WovenHeader::decode(&newer, store).unwrap_err().kind, Kind::Version);
        let trailer = Trailer { contents_at: 1 << 40, contents_len: 77, blake3: [8; 32] };
        assert_eq!(Trailer::decode(&trailer.encode()).unwrap(), trailer);
        for at in 12..TRAILER_LEN {
            let (mut head, mut tail) = (bytes, trailer.encode());
            (head[at], tail[at]) = (head[at] ^ 4, tail[at] ^ 4);
            assert!(
                WovenHeader::decode(&head, store).is_err() && Trailer::decode(&tail).is_err(),
                "byte {at}"
            );
        }
        assert!(Trailer::decode(&[]).is_err() && WovenHeader::decode(&bytes[..20], store).is_err());
    }
}
