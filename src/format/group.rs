//! A group: what one flush writes. Header (64 bytes), records, zeros up to a page, then the payload area, in pages.
//! docs/FORMAT.md, "Groups".
//!
//! - The header's CRC covers header and records; each write's payload has its own CRC in its record.
//! - `chain` is the CRC of the group before: a group is only ever read as the successor of the one it followed.
//! - `durable` is the last event known durable when the group was written: damage at or before it is not a torn tail.

use super::codec::Reader;
use super::event::{Event, Record};
use super::record::{Frame, get_record};
use crate::error::{Error, Result};
use crate::types::{PAGE_LEN, Seq, StoreId, Timestamp};

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"WGRP");
const VERSION: u16 = 1;
/// A group is never longer, records and payload each: bounds what a reader allocates.
pub const MAX_PART: u32 = 16 << 20;

/// The header of a group, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHeader {
    /// CRC-32 of header and records: the link of the next group's chain.
    pub crc: u32,
    pub records_len: u32,
    /// A multiple of 4096.
    pub payload_len: u32,
    pub first_seq: Seq,
    pub count: u32,
    /// The CRC of the group before; the segment header's for the first in a segment.
    pub chain: u32,
    pub base_ts: Timestamp,
    pub durable: Seq,
}

/// `len` rounded up to whole pages.
pub fn pages_up(len: usize) -> usize {
    len.next_multiple_of(PAGE_LEN)
}

impl GroupHeader {
    /// Bytes from the start of the group to its payload area.
    pub fn area_start(&self) -> usize {
        pages_up(HEADER_LEN + self.records_len as usize)
    }

    /// Bytes of the whole group: a multiple of 4096.
    pub fn len_bytes(&self) -> u64 {
        (self.area_start() + self.payload_len as usize) as u64
    }

    /// Seq of the last event.
    pub fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + u64::from(self.count) - 1)
    }

    /// Fills in the first 64 bytes of `head` (header and records) and returns the CRC.
    pub fn seal(&self, head: &mut [u8], store: StoreId) -> u32 {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.records_len.to_le_bytes());
        out.extend_from_slice(&self.payload_len.to_le_bytes());
        out.extend_from_slice(&self.first_seq.0.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.extend_from_slice(&self.base_ts.0.to_le_bytes());
        out.extend_from_slice(&self.durable.0.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&store.0[..8]);
        let end = HEADER_LEN + self.records_len as usize;
        head[..HEADER_LEN].copy_from_slice(&out);
        let crc = crc32fast::hash(&head[8..end]);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads the 64 bytes of a header without its CRC check, which needs the records. `None`: no group starts here.
    pub fn peek(bytes: &[u8], store: StoreId) -> Option<GroupHeader> {
        let mut reader = Reader::new(bytes, "group header");
        if reader.u32().ok()? != MAGIC {
            return None;
        }
        let crc = reader.u32().ok()?;
        let header = GroupHeader {
            crc,
            records_len: reader.u32().ok()?,
            payload_len: reader.u32().ok()?,
            first_seq: Seq(reader.u64().ok()?),
            count: reader.u32().ok()?,
            chain: reader.u32().ok()?,
            base_ts: Timestamp(reader.u64().ok()? as i64),
            durable: Seq(reader.u64().ok()?),
        };
        let version = u16::from_le_bytes(reader.array().ok()?);
        reader.take(6).ok()?;
        let ours = reader.take(8).ok()? == &store.0[..8];
        let sane = version == VERSION
            && ours
            && header.count > 0
            && header.records_len <= MAX_PART
            && header.payload_len <= MAX_PART
            && (header.payload_len as usize).is_multiple_of(PAGE_LEN)
            && header.first_seq.0.checked_add(u64::from(header.count)).is_some();
        sane.then_some(header)
    }

    /// Whether `head` (at least header and records) is what its CRC says.
    pub fn verify(&self, head: &[u8]) -> bool {
        head.get(8..HEADER_LEN + self.records_len as usize)
            .is_some_and(|covered| crc32fast::hash(covered) == self.crc)
    }

    /// The records in `head`, which begins with the header.
    pub fn records(&self, head: &[u8]) -> Result<Vec<Record>> {
        let region = head
            .get(HEADER_LEN..HEADER_LEN + self.records_len as usize)
            .ok_or_else(|| Error::corrupt("format.group", "records end too early"))?;
        let frame = Frame {
            base: self.base_ts,
            area_start: u32::try_from(self.area_start()).unwrap_or(u32::MAX),
            records_start: HEADER_LEN as u32,
            records_len: self.records_len,
        };
        let mut reader = Reader::new(region, "records");
        let mut records = Vec::with_capacity((self.count as usize).min(region.len()));
        for index in 0..self.count {
            records.push(get_record(&mut reader, frame, Seq(self.first_seq.0 + u64::from(index)))?);
        }
        if reader.remaining() != 0 {
            return Err(Error::corrupt("format.group", "bytes after the last record"));
        }
        Ok(records)
    }
}

/// Whether every write's payload in `group` (the whole group's bytes) is what its CRC says.
pub fn payloads_intact(records: &[Record], group: &[u8]) -> bool {
    records.iter().all(|record| match &record.event {
        Event::Write { len, payload, .. } => {
            let start = payload.offset as usize;
            group.get(start..start + *len as usize).is_some_and(|bytes| crc32fast::hash(bytes) == payload.crc)
        }
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::event::{Birth, Excluded, Payload, RootStage, Slot};
    use crate::format::record::{Spot, put_record};
    use crate::types::{Attr, FileId, FileKind, FileTime, RootId};
    use proptest::prelude::*;

    fn attr() -> Attr {
        let time = FileTime { secs: -5, nanos: 999_999_999 };
        Attr {
            kind: FileKind::Regular,
            mode: 0o4755,
            uid: 26,
            gid: u32::MAX,
            rdev: 0x801,
            nlink: 2,
            size: 1 << 40,
            atime: time,
            mtime: time,
            ctime: time,
        }
    }

    fn every_kind() -> Vec<Event> {
        let slot = Slot { dir: FileId(1), name: b"PG_VERSION".to_vec() };
        let birth = Birth {
            file: FileId(9),
            root: RootId(3),
            slot: Some(slot.clone()),
            attr: attr(),
            target: b"../x".to_vec(),
            dir_nlink: 4,
        };
        let file = FileId(9);
        vec![
            Event::Session { writeback: true },
            Event::Create(birth.clone(), Vec::new()),
            Event::Create(
                birth.clone(),
                vec![(b"user.b".to_vec(), vec![7; 300]), (b"user.c".to_vec(), Vec::new())],
            ),
            Event::Adopt { birth, inode: 77 },
            Event::Rebase { file, attr: attr(), inode: 78 },
            Event::Link { file, slot: slot.clone(), attr: attr() },
            Event::Unlink { file, slot: slot.clone(), attr: attr(), dir_nlink: 2 },
            Event::Rename {
                file,
                from: slot.clone(),
                to: slot.clone(),
                attr: attr(),
                replaced: Some((FileId(10), attr())),
                from_nlink: 2,
                to_nlink: 3,
            },
            Event::Exchange {
                left: file,
                left_slot: slot.clone(),
                left_attr: attr(),
                right: FileId(11),
                right_slot: slot.clone(),
                right_attr: attr(),
                left_nlink: 2,
                right_nlink: 3,
            },
            Event::Write {
                file,
                offset: 100,
                len: 3,
                size: 103,
                payload: Payload { offset: 0, crc: crc32fast::hash(b"abc") },
            },
            Event::Resize { file, old_size: 9, size: 5 },
            Event::Zero { file, offset: 1, len: 2, size: 3 },
            Event::SetAttr { file, attr: attr(), explicit_mtime: true, xattrs: Vec::new() },
            Event::SetAttr {
                file,
                attr: attr(),
                explicit_mtime: false,
                xattrs: vec![(b"user.b".to_vec(), None), (b"user.c".to_vec(), Some(vec![1]))],
            },
            Event::SetXattr { file, name: b"user.a".to_vec(), value: vec![0, 1], ctime: Timestamp(-1) },
            Event::RemoveXattr { file, name: b"user.a".to_vec(), ctime: Timestamp(5) },
            Event::Sync,
            Event::Tag { name: b"before".to_vec(), at: Seq(3), remove: false },
            Event::Lease { id: 1, at: Seq(2), until: Timestamp(9), by: Vec::new() },
            Event::Lease { id: 2, at: Seq(2), until: Timestamp(-9), by: b"weft at".to_vec() },
            Event::Close { at: Timestamp(1) },
            Event::Epoch { epoch: 2, wall: Timestamp(0) },
            Event::Capture { file, attr: attr() },
            Event::Release { file },
            Event::Mark { file, slot: slot.clone(), attr: attr(), dir_nlink: 3, excluded: true },
            Excluded::one(true).wrap(Event::Unlink { file, slot: slot.clone(), attr: attr(), dir_nlink: 2 }),
            Event::Root { root: RootId(4), file, name: b"wal".to_vec(), stage: RootStage::Present },
            Event::Pin { at: Timestamp(-7), seq: Seq(3), kept: true },
            Event::Thin { upto: Seq(70), kept: vec![Seq(2), Seq(69)], gone: vec![Seq(1)] },
        ]
    }

    fn build() -> (GroupHeader, Vec<u8>) {
        let base = Timestamp(1_000_000);
        let mut head = vec![0; HEADER_LEN];
        for (index, event) in every_kind().into_iter().enumerate() {
            let at = Timestamp(base.0 + index as i64);
            let record = Record { seq: Seq(1), ts: at, wall: Timestamp(at.0 - 7), event };
            let inline: &[u8] = if matches!(record.event, Event::Write { .. }) { b"abc" } else { b"" };
            put_record(&mut head, base, &record, Spot::Inline, inline).unwrap();
        }
        let mut header = GroupHeader {
            crc: 0,
            records_len: (head.len() - HEADER_LEN) as u32,
            payload_len: 0,
            first_seq: Seq(50),
            count: every_kind().len() as u32,
            chain: 7,
            base_ts: base,
            durable: Seq(49),
        };
        header.crc = header.seal(&mut head, StoreId([5; 16]));
        (header, head)
    }

    #[test]
    fn every_event_comes_back() {
        let (header, head) = build();
        let seen = GroupHeader::peek(&head, StoreId([5; 16])).unwrap();
        assert_eq!(seen, header);
        assert!(seen.verify(&head));
        let records = seen.records(&head).unwrap();
        assert!(payloads_intact(&records, &head));
        for ((index, record), event) in records.iter().enumerate().zip(every_kind()) {
            assert_eq!(record.seq, Seq(50 + index as u64));
            match (&record.event, event) {
                (Event::Write { payload, .. }, _) => {
                    let at = payload.offset as usize;
                    assert_eq!(&head[at..at + 3], b"abc");
                }
                (seen, event) => assert_eq!(*seen, event),
            }
        }
    }

    #[test]
    fn another_store_is_no_group() {
        let (_, head) = build();
        assert!(GroupHeader::peek(&head, StoreId([6; 16])).is_none());
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(at in 0usize..700, bit in 0u8..8) {
            let (_, mut head) = build();
            prop_assume!(at < head.len());
            head[at] ^= 1 << bit;
            let good = GroupHeader::peek(&head, StoreId([5; 16])).is_some_and(|header| header.verify(&head));
            // Bytes 58..64 hold the version's padding: covered by the CRC like all else.
            prop_assert!(!good);
        }

        #[test]
        fn damaged_records_are_refused_not_trusted(at in 64usize..700, byte: u8) {
            let (header, mut head) = build();
            prop_assume!(at < head.len());
            head[at] = byte;
            let _ = header.records(&head);
        }
    }
}
