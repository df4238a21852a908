//! STORE/pins: answers that were given while the journal could not be written. docs/FORMAT.md, "Kept pins".

use super::codec::{Reader, put_signed, put_u32, put_varint};
use crate::error::{Error, Kind, Result};
use crate::types::{Seq, StoreId, Timestamp};

const MAGIC: &[u8; 8] = b"WEFTPINS";
const VERSION: u32 = 1;
const OP: &str = "pins.read";

/// A time that was asked for, and the Seq that it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptPin {
    pub at: Timestamp,
    pub seq: Seq,
}

/// The file with these pins.
pub fn encode(store: StoreId, pins: &[KeptPin]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_u32(&mut out, VERSION);
    out.extend_from_slice(&store.0);
    put_varint(&mut out, pins.len() as u64);
    for pin in pins {
        put_signed(&mut out, pin.at.0);
        put_varint(&mut out, pin.seq.0);
    }
    let crc = crc32fast::hash(&out);
    put_u32(&mut out, crc);
    out
}

/// The inverse of [`encode`]. The file was durable under its name before anything in it was answered: one that is
/// damaged is an error.
pub fn decode(bytes: &[u8], store: StoreId) -> Result<Vec<KeptPin>> {
    let damaged =
        || Error::corrupt(OP, "the kept answers are damaged; restore this file from a copy of the store");
    let mut reader = Reader::new(bytes, "kept pins");
    if reader.take(8)? != MAGIC {
        return Err(damaged());
    }
    let version = reader.u32()?;
    if version != VERSION {
        let message =
            format!("version {version} is not known to this build ({VERSION}); use the weft that wrote it");
        return Err(Error::new(Kind::Version, OP, message));
    }
    let (body, crc) = bytes.split_at_checked(bytes.len().saturating_sub(4)).ok_or_else(damaged)?;
    if crc != crc32fast::hash(body).to_le_bytes() {
        return Err(damaged());
    }
    if reader.take(16)? != &store.0[..] {
        return Err(Error::new(Kind::Mismatch, OP, "these kept answers belong to another store"));
    }
    let mut pins = Vec::new();
    for _ in 0..reader.varint()? {
        pins.push(KeptPin { at: Timestamp(reader.signed()?), seq: Seq(reader.varint()?) });
    }
    if reader.remaining() == 4 { Ok(pins) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORE: StoreId = StoreId([3; 16]);

    #[test]
    fn pins_come_back_and_damage_is_seen() {
        let pins = vec![
            KeptPin { at: Timestamp(-5), seq: Seq(9) },
            KeptPin { at: Timestamp(1 << 50), seq: Seq(1 << 40) },
        ];
        let bytes = encode(STORE, &pins);
        assert_eq!(decode(&bytes, STORE).unwrap(), pins);
        assert_eq!(decode(&bytes, StoreId([4; 16])).unwrap_err().kind, Kind::Mismatch);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            assert!(decode(&bytes, STORE).is_err(), "byte {at}");
            assert!(decode(&bytes[..at], STORE).is_err(), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes, STORE);
            let mut bytes = bytes;
            bytes.splice(0..0, encode(STORE, &[])[..28].iter().copied());
            let crc = crc32fast::hash(&bytes);
            put_u32(&mut bytes, crc);
            let _ = decode(&bytes, STORE);
        }
    }
}
