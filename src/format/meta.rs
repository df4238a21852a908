//! The first page of STORE/meta.redb: whose it is, and in which form the rest of the file is. docs/FORMAT.md,
//! "The metadata store".

use super::codec::Reader;
use crate::error::{Error, Kind, Result};
use crate::types::{PAGE_LEN, StoreId};

const MAGIC: &[u8; 8] = b"WEFTMETA";
/// The form of what follows: a database of `redb`, format 3, with tables as `meta::store` has them.
pub const VERSION: u32 = 1;
/// Bytes that the header takes; the database begins behind it.
pub const LEN: usize = PAGE_LEN;
const OP: &str = "meta.open";

/// The header of a file.
pub fn encode(store: StoreId) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&store.0);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.resize(LEN, 0);
    out
}

/// Checks a header.
///
/// # Errors
/// `Version`: a newer build wrote it. `Mismatch`: it belongs to another store. `Corrupt`: it is damaged, or none.
pub fn check(bytes: &[u8], store: StoreId) -> Result<()> {
    let mut reader = Reader::new(bytes, "header of the metadata store");
    let magic = reader.array::<8>()?;
    let version = reader.u32()?;
    let owner = StoreId(reader.array()?);
    let crc = reader.u32()?;
    if &magic != MAGIC || crc != crc32fast::hash(bytes.get(..28).unwrap_or(&[])) {
        return Err(Error::corrupt(OP, "the header of the metadata store is damaged"));
    }
    if version != VERSION {
        let message = format!(
            "the metadata store has version {version}, this weft knows {VERSION}; use a newer weft, or move this file \
             away (that costs shadows and forecasts, no history)"
        );
        return Err(Error::new(Kind::Version, OP, message));
    }
    if owner != store {
        let message = format!(
            "this metadata store belongs to store {owner}, not to {store}; put the right file here, or move this one \
             away (that costs shadows and forecasts, no history)"
        );
        return Err(Error::new(Kind::Mismatch, OP, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: StoreId = StoreId([7; 16]);

    #[test]
    fn newer_foreign_and_damaged_headers_are_told_apart() {
        let bytes = encode(OURS);
        assert_eq!(bytes.len(), LEN);
        check(&bytes, OURS).unwrap();
        assert_eq!(check(&bytes, StoreId([8; 16])).unwrap_err().kind, Kind::Mismatch);
        let mut newer = bytes.clone();
        newer[8] = VERSION as u8 + 1;
        assert_eq!(check(&newer, OURS).unwrap_err().kind, Kind::Corrupt, "its checksum is missing");
        let crc = crc32fast::hash(&newer[..28]).to_le_bytes();
        newer[28..32].copy_from_slice(&crc);
        assert_eq!(check(&newer, OURS).unwrap_err().kind, Kind::Version);
        for damaged in [&[][..], &[0; LEN], &bytes[..31]] {
            assert_eq!(check(damaged, OURS).unwrap_err().kind, Kind::Corrupt);
        }
    }
}
