//! A group in memory: being filled, then written, then kept a while for readers of the overlay.

use crate::disk::buffer::AlignedBuf;
use crate::error::{Error, Result};
use crate::format::event::{Event, Payload, Record};
use crate::format::group::{GroupHeader, HEADER_LEN};
use crate::format::record::{Spot, put_record};
use crate::journal::segment::Segments;
use crate::sync::{Arc, RwLock};
use crate::types::{PAGE_LEN, SegmentNo, Seq, StoreId, Timestamp};

/// Payloads shorter than this stand in the record itself.
const INLINE_BELOW: usize = 2048;

/// Where a group stands in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupPlace {
    pub segment: SegmentNo,
    pub offset: u64,
    /// Bytes from the start of the group to its payload area.
    pub area_start: u32,
}

struct Bytes {
    /// Header (zeros until sealed) and records.
    head: AlignedBuf,
    area: AlignedBuf,
}

struct Body {
    place: Option<GroupPlace>,
    /// Gone once written and pushed out of memory.
    bytes: Option<Bytes>,
    header: Option<GroupHeader>,
}

/// One group. Shared by the journal and by every overlay piece whose bytes are in it.
pub struct Group {
    base: Timestamp,
    body: RwLock<Body>,
}

/// Bytes of one event inside a group.
#[derive(Clone)]
pub struct Extent {
    group: Arc<Group>,
    inline: bool,
    /// From the start of the payload area, or (inline) of the group.
    offset: u32,
    pub len: u32,
}

impl Group {
    /// An empty group to be filled.
    pub fn new(base: Timestamp) -> Group {
        let mut head = AlignedBuf::with_capacity(2 * PAGE_LEN);
        head.resize(HEADER_LEN);
        let area = AlignedBuf::with_capacity(16 * PAGE_LEN);
        let body = Body { place: None, bytes: Some(Bytes { head, area }), header: None };
        Group { base, body: RwLock::new(body) }
    }

    /// A group that is only on disk, as recovery finds it.
    pub fn on_disk(place: GroupPlace) -> Group {
        let body = Body { place: Some(place), bytes: None, header: None };
        Group { base: Timestamp(0), body: RwLock::new(body) }
    }

    /// Appends an event; the bytes of a write go with it.
    pub fn push(group: &Arc<Group>, record: &mut Record, payload: &[u8], crc: u32) -> Result<Option<Extent>> {
        let mut body = group.body.write();
        let Some(bytes) = &mut body.bytes else {
            return Err(Error::invalid("journal.append", "the group is closed"));
        };
        let inline = payload.len() < INLINE_BELOW;
        let spot = if inline {
            Spot::Inline
        } else {
            Spot::Area(u32::try_from(bytes.area.len()).unwrap_or(u32::MAX))
        };
        if let Event::Write { payload: place, .. } = &mut record.event {
            *place = Payload { offset: 0, crc };
        }
        let mut encoded = Vec::with_capacity(96 + if inline { payload.len() } else { 0 });
        let inline_bytes = if inline { payload } else { &[] };
        let inline_at = put_record(&mut encoded, group.base, record, spot, inline_bytes)?;
        let record_at = bytes.head.len();
        bytes.head.extend_from_slice(&encoded);
        if payload.is_empty() {
            return Ok(None);
        }
        let offset = match spot {
            Spot::Inline => u32::try_from(record_at + inline_at).unwrap_or(u32::MAX),
            Spot::Area(offset) => {
                bytes.area.extend_from_slice(payload);
                bytes.area.pad_to(PAGE_LEN);
                offset
            }
        };
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        Ok(Some(Extent { group: Arc::clone(group), inline, offset, len }))
    }

    /// Bytes it will take on disk, as it is now.
    pub fn len_bytes(&self) -> u64 {
        self.body
            .read()
            .bytes
            .as_ref()
            .map_or(0, |bytes| (bytes.head.len().next_multiple_of(PAGE_LEN) + bytes.area.len()) as u64)
    }

    /// Closes the group: writes its header and pads it. `header` comes with everything but lengths and CRC.
    pub fn seal(
        &self,
        mut header: GroupHeader,
        store: StoreId,
        segment: SegmentNo,
        offset: u64,
    ) -> Result<GroupHeader> {
        let mut body = self.body.write();
        let Some(bytes) = &mut body.bytes else {
            return Err(Error::invalid("journal.seal", "the group is closed"));
        };
        header.records_len = u32::try_from(bytes.head.len() - HEADER_LEN).unwrap_or(u32::MAX);
        header.payload_len = u32::try_from(bytes.area.len()).unwrap_or(u32::MAX);
        header.crc = header.seal(bytes.head.as_mut_slice(), store);
        bytes.head.pad_to(PAGE_LEN);
        let area_start = u32::try_from(header.area_start()).unwrap_or(u32::MAX);
        body.place = Some(GroupPlace { segment, offset, area_start });
        body.header = Some(header);
        Ok(header)
    }

    /// Calls `with` with the sealed group's two parts: header and records, payload area.
    pub fn with_parts<T>(&self, with: impl FnOnce(&[u8], &[u8]) -> T) -> Option<T> {
        let body = self.body.read();
        body.bytes.as_ref().map(|bytes| with(bytes.head.as_slice(), bytes.area.as_slice()))
    }

    /// The records, while the group is in memory and sealed.
    pub fn records(&self) -> Option<Result<Vec<Record>>> {
        let body = self.body.read();
        let header = body.header?;
        body.bytes.as_ref().map(|bytes| header.records(bytes.head.as_slice()))
    }

    /// The header, once sealed.
    pub fn header(&self) -> Option<GroupHeader> {
        self.body.read().header
    }

    /// Where it stands, once sealed.
    pub fn place(&self) -> Option<GroupPlace> {
        self.body.read().place
    }

    /// Lets go of the bytes of a written group; readers then go to the segment.
    pub fn forget_bytes(&self) {
        self.body.write().bytes = None;
    }

    /// Time that the records count from.
    pub fn base(&self) -> Timestamp {
        self.base
    }

    /// Seq of the first event, once sealed.
    pub fn first_seq(&self) -> Option<Seq> {
        self.body.read().header.map(|header| header.first_seq)
    }
}

impl Extent {
    /// An extent of a group on disk: `offset` from the start of the group.
    pub fn on_disk(group: &Arc<Group>, offset: u32, len: u32) -> Extent {
        Extent { group: Arc::clone(group), inline: true, offset, len }
    }

    /// The part from `skip`, `len` bytes long.
    #[must_use]
    pub fn slice(&self, skip: u32, len: u32) -> Extent {
        Extent { group: Arc::clone(&self.group), inline: self.inline, offset: self.offset + skip, len }
    }

    /// Copies the bytes from `skip` on into `out`.
    pub fn read(&self, segments: &Segments, skip: u32, out: &mut [u8]) -> Result<()> {
        let (place, start) = {
            let body = self.group.body.read();
            if let Some(bytes) = &body.bytes {
                let part = if self.inline { &bytes.head } else { &bytes.area };
                let start = (self.offset + skip) as usize;
                let found = part.as_slice().get(start..start + out.len()).ok_or_else(|| {
                    Error::corrupt("journal.extent.read", "an extent beyond the end of its group")
                })?;
                out.copy_from_slice(found);
                return Ok(());
            }
            let place = body
                .place
                .ok_or_else(|| Error::corrupt("journal.extent.read", "a group without bytes or place"))?;
            (place, self.offset + skip)
        };
        let area = if self.inline { 0 } else { u64::from(place.area_start) };
        segments.read(place.segment, place.offset + area + u64::from(start), out)
    }
}
