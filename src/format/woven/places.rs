//! Where bytes of the journal went: sorted by the address that they had there.

use crate::error::{Error, Result};
use crate::format::codec::{Reader, put_signed, put_varint};
use crate::types::PAGE_LEN;

/// Places in a piece.
pub const PLACES: usize = 512;

/// A version's address in its journal segment, and the record that holds it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WovenPlace {
    /// Byte offset in the journal segment.
    pub address: u64,
    /// Bytes, at most a page.
    pub len: u32,
    /// Which data piece of the file, and which record of it.
    pub piece: u32,
    pub record: u32,
}

impl WovenPlace {
    fn end(&self) -> u64 {
        self.address.saturating_add(u64::from(self.len))
    }
}

/// The contents of a piece: places in rising order of address, not overlapping.
pub fn encode(places: &[WovenPlace]) -> Vec<u8> {
    let mut out = Vec::with_capacity(places.len() * 6 + 12);
    put_varint(&mut out, places.len() as u64);
    let (mut end, mut piece) = (0, 0);
    for place in places {
        put_varint(&mut out, place.address - end);
        put_varint(&mut out, if place.len as usize == PAGE_LEN { 0 } else { u64::from(place.len) });
        put_signed(&mut out, i64::from(place.piece) - piece);
        put_varint(&mut out, u64::from(place.record));
        (end, piece) = (place.end(), i64::from(place.piece));
    }
    out
}

/// A piece, taken apart.
pub struct Places {
    places: Vec<WovenPlace>,
}

impl Places {
    pub fn decode(raw: &[u8]) -> Result<Places> {
        let damaged = || Error::corrupt("woven.read", "a piece of places is damaged");
        let mut reader = Reader::new(raw, "woven places");
        let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let mut places = Vec::with_capacity(count.min(PLACES));
        let (mut end, mut piece) = (0u64, 0i64);
        for _ in 0..count {
            let address = end.checked_add(reader.varint()?).ok_or_else(damaged)?;
            let len = match reader.varint32()? {
                0 => PAGE_LEN as u32,
                len if (len as usize) < PAGE_LEN => len,
                _ => return Err(damaged()),
            };
            piece = piece.checked_add(reader.signed()?).ok_or_else(damaged)?;
            let number = u32::try_from(piece).map_err(|_| damaged())?;
            let place = WovenPlace { address, len, piece: number, record: reader.varint32()? };
            end = address.checked_add(u64::from(len)).ok_or_else(damaged)?;
            places.push(place);
        }
        match reader.remaining() {
            0 => Ok(Places { places }),
            _ => Err(damaged()),
        }
    }

    /// Bytes in memory.
    pub fn weight(&self) -> usize {
        self.places.len() * size_of::<WovenPlace>()
    }

    /// By rising address.
    pub fn all(&self) -> &[WovenPlace] {
        &self.places
    }

    /// The place that holds the byte at an address.
    pub fn find(&self, address: u64) -> Option<WovenPlace> {
        let after = self.places.partition_point(|place| place.address <= address);
        let place = self.places.get(after.checked_sub(1)?)?;
        (address < place.end()).then_some(*place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_is_found(made in prop::collection::vec((0u64..9000, 1u32..=4096, 0u32..50, 0u32..1024), 1..200)) {
            let mut end = 0;
            let places: Vec<WovenPlace> = made.iter().map(|(gap, len, piece, record)| {
                let place = WovenPlace { address: end + gap, len: *len, piece: *piece, record: *record };
                end = place.end();
                place
            }).collect();
            let decoded = Places::decode(&encode(&places)).unwrap();
            prop_assert_eq!(&decoded.places, &places);
            let mut before = None;
            for place in &places {
                for at in [place.address, place.address + u64::from(place.len) / 2, place.end() - 1] {
                    prop_assert_eq!(decoded.find(at), Some(*place));
                }
                let gap = before.unwrap_or(0);
                if gap < place.address { prop_assert_eq!(decoded.find(gap), None); }
                before = Some(place.end());
            }
            prop_assert_eq!(decoded.find(end), None);
        }

        #[test]
        fn any_bytes_are_survived(raw in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(places) = Places::decode(&raw) { places.find(99); }
        }
    }
}
