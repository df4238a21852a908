//! A sealed journal segment, read whole and checked: its groups, and the versions of pages in it.

use super::Pace;
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::format::checkpoint::Place;
use crate::format::event::{Event, Record};
use crate::format::group::HEADER_LEN;
use crate::format::segment::SegmentHeader;
use crate::journal::group::GroupPlace;
use crate::journal::reader::{Check, Reader, Step};
use crate::journal::segment::Segments;
use crate::sync::Arc;
use crate::types::{FileId, PAGE, PageNo, SegmentNo, Seq};

/// The part of one write that lies in one page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Version {
    pub file: FileId,
    pub page: PageNo,
    pub seq: Seq,
    /// First byte within the page.
    pub start: u16,
    /// Bytes, at most a page.
    pub len: u16,
    pub segment: SegmentNo,
    /// Where the bytes stand in the segment.
    pub address: u64,
}

/// See the head of this file.
pub(super) struct Source {
    pub header: SegmentHeader,
    /// Where its groups end.
    pub end: u64,
    pub file: Arc<dyn DiskFile>,
}

impl Source {
    /// A segment whose successor has begun.
    pub(super) fn open(segments: &Segments, number: SegmentNo) -> Result<Source> {
        let missing = |number| {
            Error::corrupt("weave.open", "a sealed segment has no header").at(&segments.path(number))
        };
        let header = segments.header(number)?.ok_or_else(|| missing(number))?;
        let next = SegmentNo(number.0 + 1);
        let end = segments.header(next)?.ok_or_else(|| missing(next))?.previous_end;
        Ok(Source { header, end, file: segments.open(number)? })
    }

    /// Reads the bytes of a version.
    pub(super) fn version(&self, version: &Version, bytes: &mut [u8]) -> Result<()> {
        let got = self.file.read_at("weave.read", bytes, version.address)?;
        if got == bytes.len() {
            return Ok(());
        }
        Err(Error::corrupt("weave.read", "a version that its segment holds cannot be read")
            .offset(version.address))
    }

    /// Goes through the groups, every payload compared with its checksum; hands each one's offset, header and records
    /// as bytes, and its records. `false`: told to stop.
    pub(super) fn groups(
        &self,
        segments: &Arc<Segments>,
        pace: &dyn Pace,
        mut each: impl FnMut(u64, Vec<u8>, &[Record]) -> Result<()>,
    ) -> Result<bool> {
        let header = &self.header;
        let from = Place { segment: header.number, offset: PAGE, chain: header.chain, seq: header.first_seq };
        let mut reader = Reader::new(Arc::clone(segments), from, Check::Payloads);
        while reader.place().offset < self.end {
            let Step::Group(group) = reader.step()? else {
                return Err(Error::corrupt("weave.read", "a sealed segment ends too early")
                    .at(&segments.path(header.number))
                    .offset(reader.place().offset));
            };
            let mut head = vec![0; HEADER_LEN + group.header.records_len as usize];
            let GroupPlace { offset, .. } = group.place;
            self.file.read_at("weave.read", &mut head, offset)?;
            if !group.header.verify(&head) {
                return Err(Error::corrupt("weave.read", "a group changed while it was read")
                    .at(&segments.path(header.number))
                    .offset(offset));
            }
            each(offset, head, &group.records)?;
            if !pace.go_on(group.header.len_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Cuts the writes of a group that stands at `offset` of a segment into versions of pages.
pub(super) fn cut((segment, offset): (SegmentNo, u64), records: &[Record], versions: &mut Vec<Version>) {
    for record in records {
        let Event::Write { file, offset: begin, len, payload, .. } = record.event else { continue };
        let end = begin + u64::from(len);
        let mut at = begin;
        while at < end {
            let page = at / PAGE;
            let stop = end.min((page + 1) * PAGE);
            versions.push(Version {
                file,
                page: PageNo(page),
                seq: record.seq,
                start: (at % PAGE) as u16,
                len: (stop - at) as u16,
                segment,
                address: offset + u64::from(payload.offset) + (at - begin),
            });
            at = stop;
        }
    }
}
