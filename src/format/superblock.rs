//! The first file of a STORE: whose it is and which format it has. docs/FORMAT.md, "The store file".

use super::codec::Reader;
use crate::error::{Error, Kind, Result};
use crate::types::StoreId;

const MAGIC: [u8; 8] = *b"WEFTSTOR";
/// Format of the whole STORE, as this build writes it.
pub const VERSION: u32 = 2;
/// The oldest format that this build reads.
const OLDEST: u32 = 1;
/// Bytes of the file.
pub const LEN: usize = 32;

/// The bytes of a store file.
pub fn encode(store: StoreId) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..28].copy_from_slice(&store.0);
    let crc = crc32fast::hash(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What a store file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    pub store: StoreId,
    /// Format of the STORE: [`VERSION`], or an older one that this build reads.
    pub version: u32,
}

/// Reads a store file; a version of the future is refused by name.
pub fn decode(bytes: &[u8]) -> Result<Superblock> {
    let mut reader = Reader::new(bytes, "store file");
    if reader.array::<8>()? != MAGIC {
        return Err(Error::new(
            Kind::Mismatch,
            "store.open",
            "this is not a store of Weft; choose another --store",
        ));
    }
    let version = reader.u32()?;
    if !(OLDEST..=VERSION).contains(&version) {
        return Err(Error::new(
            Kind::Version,
            "store.open",
            format!(
                "the store has format {version}, this weft knows {OLDEST} to {VERSION}; use a newer weft"
            ),
        ));
    }
    let store = StoreId(reader.array()?);
    if reader.u32()? != crc32fast::hash(bytes.get(..28).unwrap_or(&[])) {
        return Err(Error::corrupt("store.open", "the checksum of the store file does not fit"));
    }
    Ok(Superblock { store, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_strangers_are_refused() {
        let bytes = encode(StoreId([9; 16]));
        let store = StoreId([9; 16]);
        assert_eq!(decode(&bytes).unwrap(), Superblock { store, version: VERSION });
        let mut newer = bytes;
        newer[8] = VERSION as u8 + 1;
        assert_eq!(decode(&newer).unwrap_err().kind, Kind::Version);
        let mut torn = bytes;
        torn[20] ^= 1;
        assert_eq!(decode(&torn).unwrap_err().kind, Kind::Corrupt);
        assert_eq!(decode(&[0; LEN]).unwrap_err().kind, Kind::Mismatch);
        assert!(decode(&bytes[..10]).is_err());
    }
}
