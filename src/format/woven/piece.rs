//! A piece: 16 bytes of head, then its contents, compressed where that makes them shorter.

use crate::error::{Error, Result};
use crate::format::codec::Reader;

/// Bytes before the contents.
pub const HEAD_LEN: usize = 16;
/// Contents are never longer: bounds what a reader allocates. The largest is one group's records.
pub const RAW_MAX: usize = 32 << 20;
const OP: &str = "woven.read";

/// What a piece holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceKind {
    Data = 1,
    Groups = 2,
    Places = 3,
    Contents = 4,
}

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Makes pieces; keeps the compressor's memory.
pub struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
}

impl Packer {
    /// `level` as zstd counts them.
    pub fn new(level: i32) -> Result<Packer> {
        let compressor = zstd::bulk::Compressor::new(level);
        let compressor = compressor.map_err(|error| Error::invalid("woven.write", error.to_string()))?;
        Ok(Packer { compressor })
    }

    /// The bytes of a piece.
    pub fn pack(&mut self, kind: PieceKind, raw: &[u8]) -> Result<Vec<u8>> {
        if raw.len() > RAW_MAX {
            return Err(Error::invalid("woven.write", format!("a piece of {} bytes", raw.len())));
        }
        let packed = self.compressor.compress(raw);
        let packed = packed.map_err(|error| Error::invalid("woven.write", error.to_string()))?;
        let (form, stored) = if packed.len() < raw.len() { (ZSTD, &packed[..]) } else { (PLAIN, raw) };
        let mut out = Vec::with_capacity(HEAD_LEN + stored.len());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        out.extend_from_slice(&[kind as u8, form, 0, 0]);
        out.extend_from_slice(stored);
        let crc = crc32fast::hash(out.get(4..).unwrap_or(&[]));
        out[..4].copy_from_slice(&crc.to_le_bytes());
        Ok(out)
    }
}

/// The contents of a piece; `bytes` is exactly the piece.
pub fn unpack(kind: PieceKind, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Reader::new(bytes, "woven piece");
    let crc = reader.u32()?;
    let stored_len = reader.u32()? as usize;
    let raw_len = reader.u32()? as usize;
    let [found, form, _, _] = reader.array()?;
    let stored = reader.take(reader.remaining())?;
    if bytes.get(4..).map(crc32fast::hash) != Some(crc) {
        return Err(Error::corrupt(OP, "the checksum of a piece does not fit"));
    }
    if found != kind as u8 || stored.len() != stored_len || raw_len > RAW_MAX {
        return Err(Error::corrupt(
            OP,
            format!("a piece of kind {found} where one of {} should be", kind as u8),
        ));
    }
    let raw = match form {
        PLAIN => stored.to_vec(),
        ZSTD => {
            zstd::bulk::decompress(stored, raw_len).map_err(|error| Error::corrupt(OP, error.to_string()))?
        }
        other => return Err(Error::corrupt(OP, format!("a piece in form {other}"))),
    };
    match raw.len() == raw_len {
        true => Ok(raw),
        false => Err(Error::corrupt(OP, "a piece is not as long as it says")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_come_back_and_any_flipped_bit_is_noticed(
            raw in prop::collection::vec(0u8..4, 0..2000), at: prop::sample::Index, bit in 0u8..8
        ) {
            let mut bytes = Packer::new(3).unwrap().pack(PieceKind::Data, &raw).unwrap();
            prop_assert_eq!(&unpack(PieceKind::Data, &bytes).unwrap(), &raw);
            prop_assert!(unpack(PieceKind::Groups, &bytes).is_err());
            let at = at.index(bytes.len());
            prop_assert!(unpack(PieceKind::Data, &bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(unpack(PieceKind::Data, &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..200), form in 0u8..3) {
            if bytes.len() >= HEAD_LEN {
                // Past the checksum, to the compressed bytes.
                let (stored, len) = ((bytes.len() - HEAD_LEN) as u32, (bytes.len() * 3) as u32);
                bytes[4..8].copy_from_slice(&stored.to_le_bytes());
                bytes[8..12].copy_from_slice(&len.to_le_bytes());
                bytes[12..14].copy_from_slice(&[PieceKind::Data as u8, form]);
                let crc = crc32fast::hash(&bytes[4..]);
                bytes[..4].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = unpack(PieceKind::Data, &bytes);
        }
    }
}
