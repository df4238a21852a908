//! Reads groups one after the other. It never changes a file, and never decides that the journal ends: it says where
//! the next group ought to be and is not, and recovery judges.

use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Place;
use crate::format::event::{Event, Record};
use crate::format::group::{GroupHeader, payloads_intact};
use crate::journal::group::GroupPlace;
use crate::journal::segment::{Form, Segments};
use crate::journal::woven::WovenFile;
use crate::sync::Arc;
use crate::types::{PAGE, PAGE_LEN, SegmentNo};

/// A group as it stands on disk, checked.
pub struct ReadGroup {
    pub place: GroupPlace,
    pub header: GroupHeader,
    pub records: Vec<Record>,
}

/// What the next step found.
pub enum Step {
    Group(ReadGroup),
    /// No valid group here, in the newest segment.
    End,
}

/// Whether payloads are read and checked too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// Header and records only.
    Records,
    /// Every byte.
    Payloads,
}

/// A position in the journal that moves forward.
pub struct Reader {
    segments: Arc<Segments>,
    at: Place,
    check: Check,
    /// Where the present segment ends, once a newer one has said so.
    limit: Option<u64>,
    buffer: Vec<u8>,
}

impl Reader {
    pub fn new(segments: Arc<Segments>, from: Place, check: Check) -> Reader {
        Reader { segments, at: from, check, limit: None, buffer: Vec::new() }
    }

    /// Where the next group is looked for.
    pub fn place(&self) -> Place {
        self.at
    }

    /// The next group. Damage before the newest segment's tail is an error.
    pub fn step(&mut self) -> Result<Step> {
        loop {
            // Asked before anything is read: behind the end that a successor states, a torn tail may look whole.
            if self.limit.is_none() {
                self.limit = self.end_by_successor()?;
            }
            if self.limit.is_none_or(|limit| self.at.offset < limit)
                && let Some(group) = self.group_here()?
            {
                self.at.offset += group.header.len_bytes();
                self.at.chain = group.header.crc;
                self.at.seq = group.header.last_seq().next();
                return Ok(Step::Group(group));
            }
            match self.limit {
                None => return Ok(Step::End),
                Some(limit) if limit == self.at.offset => self.next_segment()?,
                Some(limit) => return Err(self.damage(limit)),
            }
        }
    }

    fn damage(&self, limit: u64) -> Error {
        Error::corrupt(
            "journal.read",
            format!(
                "event {} is damaged, and the journal goes on behind it (this segment ends at byte {limit}); \
                 restore this file from a copy of the store",
                self.at.seq
            ),
        )
        .at(&self.segments.path(self.at.segment))
        .offset(self.at.offset)
    }

    fn end_by_successor(&self) -> Result<Option<u64>> {
        let next = self.segments.header(SegmentNo(self.at.segment.0 + 1))?;
        Ok(next.map(|header| header.previous_end))
    }

    fn next_segment(&mut self) -> Result<()> {
        let next = SegmentNo(self.at.segment.0 + 1);
        let header = self.segments.header(next)?;
        match header {
            Some(header) if header.chain == self.at.chain && header.first_seq == self.at.seq => {
                self.at.segment = next;
                self.at.offset = PAGE;
                self.limit = None;
                Ok(())
            }
            _ => Err(Error::corrupt("journal.read", "this segment does not continue the one before")
                .at(&self.segments.path(next))),
        }
    }

    /// The group at the present place, if a valid successor of the last one is there.
    fn group_here(&mut self) -> Result<Option<ReadGroup>> {
        let file = match self.segments.form(self.at.segment)? {
            Form::Journal(file) => file,
            Form::Woven(file) => return self.woven_group(&file),
        };
        self.buffer.resize(PAGE_LEN, 0);
        let got = file.read_at("journal.read", &mut self.buffer, self.at.offset)?;
        let Some(header) = GroupHeader::peek(self.buffer.get(..got).unwrap_or(&[]), self.segments.store())
        else {
            return Ok(None);
        };
        if header.first_seq != self.at.seq || header.chain != self.at.chain {
            return Ok(None);
        }
        let want = match self.check {
            Check::Records => header.area_start(),
            Check::Payloads => usize::try_from(header.len_bytes()).unwrap_or(usize::MAX),
        };
        if want > PAGE_LEN {
            self.buffer.resize(want, 0);
            let rest = self.buffer.get_mut(PAGE_LEN..).unwrap_or(&mut []);
            let got = file.read_at("journal.read", rest, self.at.offset + PAGE)?;
            if got + PAGE_LEN < want {
                return Ok(None);
            }
        }
        if !header.verify(&self.buffer) {
            return Ok(None);
        }
        let records = header
            .records(&self.buffer)
            .map_err(|error| error.at(&self.segments.path(self.at.segment)).offset(self.at.offset))?;
        if self.check == Check::Payloads && !payloads_intact(&records, &self.buffer) {
            return Ok(None);
        }
        Ok(Some(self.found(header, records)))
    }

    /// The same in a woven segment, whose pieces have checksums of their own.
    fn woven_group(&self, file: &WovenFile) -> Result<Option<ReadGroup>> {
        let found = self.segments.woven().group(file, self.at.segment, self.at.offset)?;
        let fits =
            found.filter(|(header, _)| header.first_seq == self.at.seq && header.chain == self.at.chain);
        let Some((header, records)) = fits else { return Ok(None) };
        if self.check == Check::Payloads {
            self.check_woven(file, &records)?;
        }
        Ok(Some(self.found(header, records)))
    }

    fn check_woven(&self, file: &WovenFile, records: &[Record]) -> Result<()> {
        let Place { segment, offset, .. } = self.at;
        for record in records {
            let Event::Write { len, payload, .. } = record.event else { continue };
            let mut bytes = vec![0; len as usize];
            let address = offset + u64::from(payload.offset);
            match self.segments.woven().read(file, segment, address, &mut bytes) {
                // Retention took it, or a part of it.
                Err(error) if error.kind == Kind::Lost => continue,
                other => other?,
            }
            if crc32fast::hash(&bytes) != payload.crc {
                let message = format!("the bytes of event {} are not those that were written", record.seq);
                return Err(Error::corrupt("journal.read", message).at(&self.segments.path(segment)));
            }
        }
        Ok(())
    }

    fn found(&self, header: GroupHeader, records: Vec<Record>) -> ReadGroup {
        let area_start = u32::try_from(header.area_start()).unwrap_or(u32::MAX);
        let place = GroupPlace { segment: self.at.segment, offset: self.at.offset, area_start };
        ReadGroup { place, header, records }
    }
}

/// The records of the group that stands at a place that was found before.
pub fn records_at(segments: &Segments, segment: SegmentNo, offset: u64) -> Result<Vec<Record>> {
    let damaged = || {
        Error::corrupt(
            "journal.read",
            "the group that the index names is not there; try `weft index rebuild`",
        )
        .at(&segments.path(segment))
        .offset(offset)
    };
    // One form from the first byte to the last: the segment may be woven meanwhile.
    let file = match segments.form(segment)? {
        Form::Journal(file) => file,
        Form::Woven(file) => {
            let found = segments.woven().group(&file, segment, offset)?;
            return found.map(|(_, records)| records).ok_or_else(damaged);
        }
    };
    let mut head = vec![0; PAGE_LEN];
    let got = file.read_at("journal.read", &mut head, offset)?;
    let header = GroupHeader::peek(head.get(..got).unwrap_or(&[]), segments.store()).ok_or_else(damaged)?;
    if header.area_start() > PAGE_LEN {
        head.resize(header.area_start(), 0);
        file.read_at("journal.read", &mut head, offset)?;
    }
    if !header.verify(&head) {
        return Err(damaged());
    }
    header.records(&head)
}
