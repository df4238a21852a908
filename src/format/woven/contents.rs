//! What is in a woven file and where: small enough to be kept while the file is open.

use super::HEADER_LEN;
use crate::error::{Error, Result};
use crate::format::codec::{Reader, put_u32, put_varint};
use crate::format::segment::SegmentHeader;
use crate::types::{PAGE, SegmentNo, Seq, StoreId};

/// Where a piece stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub at: u64,
    pub len: u32,
}

/// A piece of groups or places, by the first address in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keyed {
    pub first: u64,
    pub span: Span,
}

/// One journal segment as it is in here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentPart {
    pub header: SegmentHeader,
    /// Where its groups ended, in bytes.
    pub end: u64,
    pub groups: Vec<Keyed>,
    pub places: Vec<Keyed>,
}

/// See the head of this file. Pieces stand one behind the other from the header on: data, then of each segment groups
/// and places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    pub segments: Vec<SegmentPart>,
    pub data: Vec<Span>,
    /// Bytes that writes brought, before any of it was compressed.
    pub payload_bytes: u64,
    /// Bytes that its journal segments took.
    pub journal_bytes: u64,
}

fn damaged(what: &str) -> Error {
    Error::corrupt("woven.open", format!("the contents of the woven segment are damaged: {what}"))
}

fn put_keyed(out: &mut Vec<u8>, list: &[Keyed]) {
    put_varint(out, list.len() as u64);
    for keyed in list {
        put_varint(out, keyed.first);
        put_varint(out, u64::from(keyed.span.len));
    }
}

/// Reads lengths and gives each its place.
struct Layout {
    at: u64,
}

impl Layout {
    fn span(&mut self, reader: &mut Reader<'_>) -> Result<Span> {
        let len = reader.varint32()?;
        let span = Span { at: self.at, len };
        self.at = self.at.checked_add(u64::from(len)).ok_or_else(|| damaged("a length"))?;
        Ok(span)
    }

    fn keyed(&mut self, reader: &mut Reader<'_>) -> Result<Vec<Keyed>> {
        let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let mut list: Vec<Keyed> = Vec::with_capacity(count.min(reader.remaining()));
        for _ in 0..count {
            let first = reader.varint()?;
            if list.last().is_some_and(|last| last.first >= first) {
                return Err(damaged("its order"));
            }
            list.push(Keyed { first, span: self.span(reader)? });
        }
        Ok(list)
    }
}

/// The last of a list that begins at or before an address.
pub fn holder(list: &[Keyed], address: u64) -> Option<Keyed> {
    let after = list.partition_point(|keyed| keyed.first <= address);
    list.get(after.checked_sub(1)?).copied()
}

impl Contents {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.data.len() * 3);
        put_varint(&mut out, self.payload_bytes);
        put_varint(&mut out, self.journal_bytes);
        put_varint(&mut out, self.data.len() as u64);
        self.data.iter().for_each(|span| put_varint(&mut out, u64::from(span.len)));
        put_varint(&mut out, self.segments.len() as u64);
        for part in &self.segments {
            put_varint(&mut out, part.header.number.0);
            put_varint(&mut out, part.header.first_seq.0);
            put_u32(&mut out, part.header.chain);
            put_varint(&mut out, part.header.previous_end);
            put_varint(&mut out, part.end);
            put_keyed(&mut out, &part.groups);
            put_keyed(&mut out, &part.places);
        }
        out
    }

    /// `contents_at`: where the pieces must end.
    pub fn decode(raw: &[u8], store: StoreId, contents_at: u64) -> Result<Contents> {
        let mut reader = Reader::new(raw, "woven contents");
        let (payload_bytes, journal_bytes) = (reader.varint()?, reader.varint()?);
        let mut layout = Layout { at: HEADER_LEN as u64 };
        let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let mut data = Vec::with_capacity(count.min(reader.remaining()));
        for _ in 0..count {
            data.push(layout.span(&mut reader)?);
        }
        let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let mut segments = Vec::with_capacity(count.min(reader.remaining()));
        for _ in 0..count {
            let (number, first_seq) = (SegmentNo(reader.varint()?), Seq(reader.varint()?));
            let (chain, previous_end) = (reader.u32()?, reader.varint()?);
            let header = SegmentHeader { store, number, first_seq, chain, previous_end };
            let end = reader.varint()?;
            let (groups, places) = (layout.keyed(&mut reader)?, layout.keyed(&mut reader)?);
            segments.push(SegmentPart { header, end, groups, places });
        }
        if reader.remaining() != 0 || layout.at != contents_at {
            return Err(damaged("its pieces do not fill the file"));
        }
        if segments.is_empty() || segments.iter().any(|part| part.end < PAGE) {
            return Err(damaged("a segment"));
        }
        Ok(Contents { segments, data, payload_bytes, journal_bytes })
    }

    /// The part of a segment.
    pub fn segment(&self, number: SegmentNo) -> Result<&SegmentPart> {
        self.segments
            .iter()
            .find(|part| part.header.number == number)
            .ok_or_else(|| damaged(&format!("it does not hold segment {}", number.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORE: StoreId = StoreId([2; 16]);

    fn sample() -> (Contents, u64) {
        let mut at = HEADER_LEN as u64;
        let mut span = |len: u32| {
            at += u64::from(len);
            Span { at: at - u64::from(len), len }
        };
        let data = vec![span(900), span(80_000), span(17)];
        let groups = vec![Keyed { first: 4096, span: span(300) }, Keyed { first: 90_112, span: span(5) }];
        let places = vec![Keyed { first: 8192, span: span(44) }];
        let number = SegmentNo(12);
        let header = SegmentHeader { store: STORE, number, first_seq: Seq(5), chain: 6, previous_end: 4096 };
        let part = SegmentPart { header, end: 100_352, groups, places };
        (Contents { segments: vec![part], data, payload_bytes: 1 << 33, journal_bytes: 1 << 34 }, at)
    }

    #[test]
    fn contents_come_back_with_their_places() {
        let (contents, end) = sample();
        assert_eq!(Contents::decode(&contents.encode(), STORE, end).unwrap(), contents);
        assert!(Contents::decode(&contents.encode(), STORE, end + 1).is_err());
        let part = contents.segment(SegmentNo(12)).unwrap();
        assert!(contents.segment(SegmentNo(13)).is_err());
        assert_eq!(holder(&part.groups, 4095), None);
        assert_eq!(holder(&part.groups, 90_111).unwrap().first, 4096);
        assert_eq!(holder(&part.groups, u64::MAX).unwrap().first, 90_112);
    }

    proptest! {
        #[test]
        fn damage_is_survived(at: prop::sample::Index, byte: u8, cut: bool) {
            let (contents, end) = sample();
            let mut raw = contents.encode();
            let at = at.index(raw.len());
            if cut { raw.truncate(at) } else { raw[at] = byte }
            let _ = Contents::decode(&raw, STORE, end);
        }
    }
}
