//! The groups of a journal segment without the bytes of writes: names, attributes, closes, and what was written where.
//!
//! A group stands here as its header and records stood in the journal, with zeros for the bytes that records held: so
//! every event is what it was, and the CRC that a group has in its header does not fit any more. The piece has its own.

use crate::error::{Error, Result};
use crate::format::codec::{Reader, put_bytes, put_varint};
use crate::format::event::{Event, Record};
use crate::format::group::{GroupHeader, HEADER_LEN};
use crate::types::StoreId;

fn damaged(what: &str) -> Error {
    Error::corrupt("woven.read", format!("a piece of groups is damaged: {what}"))
}

/// Appends a group that stood at byte `offset` of its segment; `head` is its header and records, which are blanked.
pub fn put(out: &mut Vec<u8>, offset: u64, head: &mut [u8], records: &[Record]) {
    for record in records {
        if let Event::Write { len, payload, .. } = &record.event {
            let at = payload.offset as usize;
            if let Some(bytes) = head.get_mut(at..at.saturating_add(*len as usize)) {
                bytes.fill(0);
            }
        }
    }
    put_varint(out, offset);
    put_bytes(out, head);
}

struct Entry {
    offset: u64,
    header: GroupHeader,
    /// Header and records in the piece.
    at: usize,
    len: usize,
}

/// A piece, taken apart.
pub struct Groups {
    entries: Vec<Entry>,
    raw: Vec<u8>,
}

impl Groups {
    pub fn decode(raw: Vec<u8>, store: StoreId) -> Result<Groups> {
        let mut reader = Reader::new(&raw, "woven groups");
        let mut entries: Vec<Entry> = Vec::new();
        while reader.remaining() > 0 {
            let offset = reader.varint()?;
            let head = reader.bytes()?;
            let at = raw.len() - reader.remaining() - head.len();
            let header =
                GroupHeader::peek(head, store).ok_or_else(|| damaged("no group where one should be"))?;
            if head.len() != HEADER_LEN + header.records_len as usize {
                return Err(damaged("a group's length"));
            }
            if entries.last().is_some_and(|last| last.offset >= offset) {
                return Err(damaged("its order"));
            }
            entries.push(Entry { offset, header, at, len: head.len() });
        }
        Ok(Groups { entries, raw })
    }

    /// The groups in here: offset in the segment, records.
    pub fn all(&self) -> impl Iterator<Item = Result<(u64, Vec<Record>)>> + '_ {
        self.entries.iter().map(|entry| {
            let records = self.at(entry.offset)?.map(|(_, records)| records);
            Ok((entry.offset, records.unwrap_or_default()))
        })
    }

    /// Bytes in memory.
    pub fn weight(&self) -> usize {
        self.raw.len() + self.entries.len() * size_of::<Entry>()
    }

    /// The group that stood at a byte offset of the segment.
    pub fn at(&self, offset: u64) -> Result<Option<(GroupHeader, Vec<Record>)>> {
        let Ok(index) = self.entries.binary_search_by_key(&offset, |entry| entry.offset) else {
            return Ok(None);
        };
        let entry = self.entries.get(index).ok_or_else(|| damaged("a group is missing"))?;
        let head = self.raw.get(entry.at..entry.at + entry.len).ok_or_else(|| damaged("a group is short"))?;
        Ok(Some((entry.header, entry.header.records(head)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::event::Payload;
    use crate::format::record::{Spot, put_record};
    use crate::types::{FileId, Seq, Timestamp};
    use proptest::prelude::*;

    const STORE: StoreId = StoreId([5; 16]);

    /// A group of two small writes and a close, as a segment has it.
    fn group(first: u64) -> (GroupHeader, Vec<u8>) {
        let mut head = vec![0; HEADER_LEN];
        let base = Timestamp(1000);
        let write = |len: u32, crc: u32| {
            let payload = Payload { offset: 0, crc };
            Event::Write { file: FileId(7), offset: 10, len, size: 99, payload }
        };
        let events = [(write(3, 1), &b"abc"[..]), (Event::Close { at: base }, b""), (write(5, 2), b"defgh")];
        for (event, bytes) in events {
            let record = Record { seq: Seq(first), ts: base, wall: base, event };
            put_record(&mut head, base, &record, Spot::Inline, bytes).unwrap();
        }
        let mut header = GroupHeader {
            crc: 0,
            records_len: (head.len() - HEADER_LEN) as u32,
            payload_len: 0,
            first_seq: Seq(first),
            count: 3,
            chain: 9,
            base_ts: base,
            durable: Seq(0),
        };
        header.crc = header.seal(&mut head, STORE);
        (header, head)
    }

    type Expected = Vec<(u64, GroupHeader, Vec<Record>)>;

    fn piece() -> (Vec<u8>, Expected) {
        let (mut raw, mut expected) = (Vec::new(), Vec::new());
        for (offset, first) in [(4096, 1), (12_288, 4), (16_384, 7)] {
            let (header, mut head) = group(first);
            let records = header.records(&head).unwrap();
            put(&mut raw, offset, &mut head, &records);
            assert!(!head.windows(3).any(|bytes| bytes == b"abc" || bytes == b"def"), "its bytes are gone");
            expected.push((offset, header, records));
        }
        (raw, expected)
    }

    #[test]
    fn groups_come_back_by_their_offset() {
        let (raw, expected) = piece();
        let groups = Groups::decode(raw, STORE).unwrap();
        for (offset, header, records) in expected {
            assert_eq!(groups.at(offset).unwrap(), Some((header, records)));
        }
        assert!(groups.at(8192).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn damage_is_survived(at: prop::sample::Index, byte: u8, cut: bool) {
            let mut raw = piece().0;
            let at = at.index(raw.len());
            if cut { raw.truncate(at) } else { raw[at] = byte }
            if let Ok(groups) = Groups::decode(raw, STORE) {
                for offset in [4096, 12_288, 16_384] { let _ = groups.at(offset); }
            }
        }
    }
}
