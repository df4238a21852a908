//! Finds the end of a journal after a crash, and alone decides what is a torn tail.
//!
//! The tail may be torn where the power went while groups were being written and not yet synced. Each group says
//! what was durable when it was written: so a damaged group is the tail only if no later group knows it as durable.

use crate::disk::OpenHow;
use crate::error::{Error, Result};
use crate::format::checkpoint::Place;
use crate::format::group::{GroupHeader, HEADER_LEN};
use crate::journal::Resume;
use crate::journal::epochs::Epochs;
use crate::journal::reader::{Check, ReadGroup, Reader, Step};
use crate::journal::segment::Segments;
use crate::sync::Arc;
use crate::types::{PAGE, PAGE_LEN, SegmentNo, Seq, Timestamp};

/// Bytes looked at in one read when the rest of a segment is searched.
const SEARCH_CHUNK: usize = 1 << 20;

/// What a replay found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub events: u64,
    pub bytes: u64,
    /// A torn group was left out at the end.
    pub torn: bool,
}

/// Where a journal without any event begins.
pub const START: Place = Place { segment: SegmentNo(1), offset: PAGE, chain: 0, seq: Seq(1) };

/// Replays every group from `from` to the end through `each`, and makes sure that what was accepted is durable.
/// `last_ts` counts when there is none: the time of the last event before `from`. `epochs` are those known there, or
/// later ones that were known when `from` was chosen.
pub fn replay(
    segments: &Arc<Segments>,
    from: Place,
    last_ts: Timestamp,
    mut epochs: Epochs,
    mut each: impl FnMut(ReadGroup) -> Result<()>,
) -> Result<(Resume, Replayed)> {
    let mut found = Replayed::default();
    if !begun(segments, from)? {
        return Ok((
            Resume {
                last_seq: Seq(from.seq.0 - 1),
                last_ts,
                floor: last_ts,
                epochs,
                chain: from.chain,
                last_segment: None,
            },
            found,
        ));
    }
    let mut reader = Reader::new(Arc::clone(segments), from, Check::Payloads);
    let mut last_ts = last_ts;
    while let Step::Group(group) = reader.step()? {
        found.events += u64::from(group.header.count);
        found.bytes += group.header.len_bytes();
        last_ts = group.records.last().map_or(last_ts, |record| record.ts);
        group.records.iter().for_each(|record| epochs.replay(record));
        each(group)?;
    }
    let end = reader.place();
    found.torn = judge_tail(segments, end)?;
    make_durable(segments, end.segment)?;
    let resume = Resume {
        last_seq: Seq(end.seq.0 - 1),
        last_ts,
        floor: last_ts,
        epochs,
        chain: end.chain,
        last_segment: Some((end.segment, end.offset)),
    };
    Ok((resume, found))
}

/// Whether the segment of `from` was ever begun. Only the very first may be missing.
fn begun(segments: &Segments, from: Place) -> Result<bool> {
    let header = segments.header(from.segment)?;
    if header.is_none() && from != START {
        return Err(Error::corrupt(
            "journal.recover",
            "this segment is needed and is missing or has no header; restore it from a copy of the store",
        )
        .at(&segments.path(from.segment)));
    }
    Ok(header.is_some())
}

/// Looks behind the last valid group: `true` when something torn stands there; an error when a later group proves
/// that what is damaged had been durable.
pub(super) fn judge_tail(segments: &Segments, end: Place) -> Result<bool> {
    let file = segments.open(end.segment)?;
    let mut chunk = vec![0; SEARCH_CHUNK];
    let mut offset = end.offset;
    let mut torn = false;
    loop {
        let got = file.read_at("journal.recover.tail", &mut chunk, offset)?;
        for (index, page) in chunk.get(..got).unwrap_or(&[]).chunks(PAGE_LEN).enumerate() {
            let Some(header) = GroupHeader::peek(page, segments.store()) else { continue };
            torn = true;
            let at = offset + (index * PAGE_LEN) as u64;
            if header.durable >= end.seq && genuine(segments, end.segment, at, &header)? {
                return Err(Error::corrupt(
                    "journal.recover",
                    format!(
                        "event {} is damaged, but the group at byte {at} was written when event {} was durable; \
                         restore this file from a copy of the store",
                        end.seq, header.durable
                    ),
                )
                .at(&segments.path(end.segment))
                .offset(end.offset));
            }
        }
        if got < chunk.len() {
            return Ok(torn);
        }
        offset += got as u64;
    }
}

/// Whether a group that seems to begin at `at` is whole.
fn genuine(segments: &Segments, number: SegmentNo, at: u64, header: &GroupHeader) -> Result<bool> {
    let mut head = vec![0; HEADER_LEN + header.records_len as usize];
    let got = segments.open(number)?.read_at("journal.recover.tail", &mut head, at)?;
    Ok(got == head.len() && header.verify(&head))
}

/// After kill -9 the accepted groups may stand in the page cache only.
fn make_durable(segments: &Segments, number: SegmentNo) -> Result<()> {
    let how = OpenHow { write: true, ..OpenHow::default() };
    let path = segments.path(number);
    segments.disk().open("journal.recover.sync", &path, how)?.sync("journal.recover.sync")
}
