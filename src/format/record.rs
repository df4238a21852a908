//! Records: events with their times as bytes, and back. docs/FORMAT.md, "Records".

use super::codec::{Reader, put_bytes, put_signed, put_u32, put_varint};
use super::event::{Event, Payload, Record, RootStage};
use super::excluded;
use super::fields::{
    get_attr, get_birth, get_file, get_rising, get_root, get_slot, get_stage, put_attr, put_birth,
    put_rising, put_slot,
};
use super::xattrs::{get_changes, get_values, put_changes, put_values};
use crate::error::{Error, Result};
use crate::types::{FileId, Seq, Timestamp};

/// Where a write's bytes stand, as a record says it: in the record itself, or in the group's payload area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spot {
    /// Byte offset from the start of the group's payload area; a multiple of 4096.
    Area(u32),
    /// In the record; the bytes follow its fields.
    Inline,
}

const SESSION: u8 = 1;
const CREATE: u8 = 2;
const ADOPT: u8 = 3;
const REBASE: u8 = 4;
const LINK: u8 = 5;
const UNLINK: u8 = 6;
const RENAME: u8 = 7;
const EXCHANGE: u8 = 8;
const WRITE: u8 = 9;
const RESIZE: u8 = 10;
const ZERO: u8 = 11;
const SET_ATTR: u8 = 12;
const SET_XATTR: u8 = 13;
const REMOVE_XATTR: u8 = 14;
const SYNC: u8 = 15;
const TAG: u8 = 16;
const LEASE: u8 = 17;
const CLOSE: u8 = 18;
const EPOCH: u8 = 19;
const ROOT: u8 = 20;
const THIN: u8 = 25;
const CREATE_WITH: u8 = 28;
const SET_ATTR_WITH: u8 = 29;
const PIN: u8 = 30;
const LEASE_BY: u8 = 31;

/// Appends one record. `base` is the group's base time; for a write, `spot` says where its bytes are, and inline
/// `bytes` are appended. Returns the offset of inline bytes in `out`.
pub fn put_record(
    out: &mut Vec<u8>,
    base: Timestamp,
    record: &Record,
    spot: Spot,
    bytes: &[u8],
) -> Result<usize> {
    put_varint(out, u64::try_from(record.ts.0 - base.0).unwrap_or(0));
    put_signed(out, record.wall.0 - record.ts.0);
    match &record.event {
        Event::Session { writeback } => out.extend_from_slice(&[SESSION, u8::from(*writeback)]),
        Event::Rebase { file, attr, inode } => {
            out.push(REBASE);
            put_varint(out, file.0);
            put_attr(out, attr);
            put_varint(out, *inode);
        }
        Event::Write { file, offset, len, size, payload } => {
            out.push(WRITE);
            put_varint(out, file.0);
            put_varint(out, *offset);
            put_varint(out, u64::from(*len));
            put_varint(out, *size);
            put_u32(out, payload.crc);
            match spot {
                Spot::Area(offset) => put_varint(out, (u64::from(offset) >> 12) + 1),
                Spot::Inline => {
                    put_varint(out, 0);
                    out.extend_from_slice(bytes);
                }
            }
        }
        other => put_name_or_attr(out, other),
    }
    Ok(out.len() - bytes.len())
}

pub(super) fn put_name_or_attr(out: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Create(birth, xattrs) if xattrs.is_empty() => {
            out.push(CREATE);
            put_birth(out, birth);
        }
        Event::Create(birth, xattrs) => {
            out.push(CREATE_WITH);
            put_birth(out, birth);
            put_values(out, xattrs);
        }
        Event::Adopt { birth, inode } => {
            out.push(ADOPT);
            put_birth(out, birth);
            put_varint(out, *inode);
        }
        Event::Link { file, slot, attr } => {
            out.push(LINK);
            put_varint(out, file.0);
            put_slot(out, slot);
            put_attr(out, attr);
        }
        Event::Unlink { file, slot, attr, dir_nlink } => {
            out.push(UNLINK);
            put_varint(out, file.0);
            put_slot(out, slot);
            put_attr(out, attr);
            put_varint(out, u64::from(*dir_nlink));
        }
        Event::Rename { file, from, to, attr, replaced, from_nlink, to_nlink } => {
            out.push(RENAME);
            put_varint(out, file.0);
            put_slot(out, from);
            put_slot(out, to);
            put_attr(out, attr);
            put_varint(out, replaced.map_or(0, |(file, _)| file.0));
            if let Some((_, attr)) = replaced {
                put_attr(out, attr);
            }
            put_varint(out, u64::from(*from_nlink));
            put_varint(out, u64::from(*to_nlink));
        }
        Event::Exchange {
            left,
            left_slot,
            left_attr,
            right,
            right_slot,
            right_attr,
            left_nlink,
            right_nlink,
        } => {
            out.push(EXCHANGE);
            for (file, slot, attr, nlink) in
                [(left, left_slot, left_attr, left_nlink), (right, right_slot, right_attr, right_nlink)]
            {
                put_varint(out, file.0);
                put_slot(out, slot);
                put_attr(out, attr);
                put_varint(out, u64::from(*nlink));
            }
        }
        Event::SetAttr { file, attr, explicit_mtime, xattrs } => {
            out.push(if xattrs.is_empty() { SET_ATTR } else { SET_ATTR_WITH });
            put_varint(out, file.0);
            put_attr(out, attr);
            out.push(u8::from(*explicit_mtime));
            if !xattrs.is_empty() {
                put_changes(out, xattrs);
            }
        }
        other => put_small(out, other),
    }
}

fn put_small(out: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Resize { file, old_size, size } => {
            out.push(RESIZE);
            put_varint(out, file.0);
            put_varint(out, *old_size);
            put_varint(out, *size);
        }
        Event::Zero { file, offset, len, size } => {
            out.push(ZERO);
            put_varint(out, file.0);
            put_varint(out, *offset);
            put_varint(out, *len);
            put_varint(out, *size);
        }
        Event::SetXattr { file, name, value, ctime } => {
            out.push(SET_XATTR);
            put_varint(out, file.0);
            put_bytes(out, name);
            put_bytes(out, value);
            put_signed(out, ctime.0);
        }
        Event::RemoveXattr { file, name, ctime } => {
            out.push(REMOVE_XATTR);
            put_varint(out, file.0);
            put_bytes(out, name);
            put_signed(out, ctime.0);
        }
        Event::Sync => out.push(SYNC),
        Event::Tag { name, at, remove } => {
            out.push(TAG);
            put_bytes(out, name);
            put_varint(out, at.0);
            out.push(u8::from(*remove));
        }
        Event::Lease { id, at, until, by } => {
            out.push(if by.is_empty() { LEASE } else { LEASE_BY });
            put_varint(out, *id);
            put_varint(out, at.0);
            put_signed(out, until.0);
            if !by.is_empty() {
                put_bytes(out, by);
            }
        }
        Event::Close { at } => {
            out.push(CLOSE);
            put_signed(out, at.0);
        }
        Event::Epoch { epoch, wall } => {
            out.push(EPOCH);
            put_varint(out, u64::from(*epoch));
            put_signed(out, wall.0);
        }
        Event::Pin { at, seq, kept } => {
            out.push(PIN);
            put_signed(out, at.0);
            put_varint(out, seq.0);
            out.push(u8::from(*kept));
        }
        Event::Thin { upto, kept, gone } => {
            out.push(THIN);
            put_varint(out, upto.0);
            put_rising(out, kept);
            put_rising(out, gone);
        }
        Event::Excluded { .. } | Event::Capture { .. } | Event::Release { .. } | Event::Mark { .. } => {
            excluded::put(out, event)
        }
        Event::Root { root, file, name, stage } => {
            out.push(ROOT);
            put_varint(out, u64::from(root.0));
            put_varint(out, file.0);
            put_bytes(out, name);
            out.push(match stage {
                RootStage::Entering => 0,
                RootStage::Present => 1,
                RootStage::Left => 2,
            });
        }
        // The kinds below are written by the callers of this function.
        Event::Session { .. }
        | Event::Create(..)
        | Event::Adopt { .. }
        | Event::Rebase { .. }
        | Event::Link { .. }
        | Event::Unlink { .. }
        | Event::Rename { .. }
        | Event::Exchange { .. }
        | Event::Write { .. }
        | Event::SetAttr { .. } => {}
    }
}

/// What the decoder must know of the group around a record.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub base: Timestamp,
    /// Bytes from the start of the group to its payload area.
    pub area_start: u32,
    /// Bytes from the start of the group to the first record.
    pub records_start: u32,
    pub records_len: u32,
}

/// Reads the record at the front of `reader`, which holds the rest of the group's records.
pub fn get_record(reader: &mut Reader<'_>, frame: Frame, seq: Seq) -> Result<Record> {
    let delta = i64::try_from(reader.varint()?)
        .map_err(|_| Error::corrupt("format.decode", "event time out of range"))?;
    let ts = Timestamp(frame.base.0.saturating_add(delta));
    let wall = Timestamp(ts.0.saturating_add(reader.signed()?));
    let event = match reader.byte()? {
        SESSION => Event::Session { writeback: reader.byte()? != 0 },
        REBASE => Event::Rebase { file: get_file(reader)?, attr: get_attr(reader)?, inode: reader.varint()? },
        WRITE => get_write(reader, frame)?,
        kind => get_name_or_attr(kind, reader)?,
    };
    Ok(Record { seq, ts, wall, event })
}

fn get_write(reader: &mut Reader<'_>, frame: Frame) -> Result<Event> {
    let file = get_file(reader)?;
    let offset = reader.varint()?;
    let len = reader.varint32()?;
    let size = reader.varint()?;
    let crc = reader.u32()?;
    if offset.checked_add(u64::from(len)).is_none_or(|end| end > size) {
        return Err(Error::corrupt("format.decode", "a write beyond the size it left"));
    }
    let at = match reader.varint()? {
        0 => {
            let at = frame.records_start + frame.records_len
                - u32::try_from(reader.remaining()).unwrap_or(frame.records_len);
            reader.take(len as usize)?;
            at
        }
        page => u32::try_from((page - 1) << 12)
            .ok()
            .and_then(|area| area.checked_add(frame.area_start))
            .ok_or_else(|| Error::corrupt("format.decode", "payload offset out of range"))?,
    };
    Ok(Event::Write { file, offset, len, size, payload: Payload { offset: at, crc } })
}

fn get_name_or_attr(kind: u8, reader: &mut Reader<'_>) -> Result<Event> {
    Ok(match kind {
        CREATE..=ADOPT | LINK..=EXCHANGE | CREATE_WITH => get_naming(kind, reader)?,
        SET_ATTR | SET_ATTR_WITH => Event::SetAttr {
            file: get_file(reader)?,
            attr: get_attr(reader)?,
            explicit_mtime: reader.byte()? != 0,
            xattrs: if kind == SET_ATTR_WITH { get_changes(reader)? } else { Vec::new() },
        },
        excluded::FIRST..=excluded::LAST => excluded::get(kind, reader)?,
        kind => get_small(kind, reader)?,
    })
}

/// An event about names; any other kind is damage here.
pub(super) fn get_naming(kind: u8, reader: &mut Reader<'_>) -> Result<Event> {
    Ok(match kind {
        CREATE => Event::Create(get_birth(reader)?, Vec::new()),
        CREATE_WITH => Event::Create(get_birth(reader)?, get_values(reader)?),
        ADOPT => Event::Adopt { birth: get_birth(reader)?, inode: reader.varint()? },
        LINK => Event::Link { file: get_file(reader)?, slot: get_slot(reader)?, attr: get_attr(reader)? },
        UNLINK => Event::Unlink {
            file: get_file(reader)?,
            slot: get_slot(reader)?,
            attr: get_attr(reader)?,
            dir_nlink: reader.varint32()?,
        },
        RENAME => {
            let (file, from, to, attr) =
                (get_file(reader)?, get_slot(reader)?, get_slot(reader)?, get_attr(reader)?);
            let replaced = match reader.varint()? {
                0 => None,
                id => Some((FileId(id), get_attr(reader)?)),
            };
            let (from_nlink, to_nlink) = (reader.varint32()?, reader.varint32()?);
            Event::Rename { file, from, to, attr, replaced, from_nlink, to_nlink }
        }
        EXCHANGE => {
            let (left, left_slot, left_attr) = (get_file(reader)?, get_slot(reader)?, get_attr(reader)?);
            let left_nlink = reader.varint32()?;
            let (right, right_slot, right_attr) = (get_file(reader)?, get_slot(reader)?, get_attr(reader)?);
            let right_nlink = reader.varint32()?;
            Event::Exchange {
                left,
                left_slot,
                left_attr,
                right,
                right_slot,
                right_attr,
                left_nlink,
                right_nlink,
            }
        }
        other => {
            return Err(Error::corrupt(
                "format.decode",
                format!("event kind {other} does not name anything"),
            ));
        }
    })
}

fn get_small(kind: u8, reader: &mut Reader<'_>) -> Result<Event> {
    Ok(match kind {
        RESIZE => {
            Event::Resize { file: get_file(reader)?, old_size: reader.varint()?, size: reader.varint()? }
        }
        ZERO => {
            let (file, offset, len, size) =
                (get_file(reader)?, reader.varint()?, reader.varint()?, reader.varint()?);
            if offset.checked_add(len).is_none() {
                return Err(Error::corrupt("format.decode", "a zeroed range out of range"));
            }
            Event::Zero { file, offset, len, size }
        }
        SET_XATTR => Event::SetXattr {
            file: get_file(reader)?,
            name: reader.bytes()?.to_vec(),
            value: reader.bytes()?.to_vec(),
            ctime: Timestamp(reader.signed()?),
        },
        REMOVE_XATTR => Event::RemoveXattr {
            file: get_file(reader)?,
            name: reader.bytes()?.to_vec(),
            ctime: Timestamp(reader.signed()?),
        },
        SYNC => Event::Sync,
        TAG => Event::Tag {
            name: reader.bytes()?.to_vec(),
            at: Seq(reader.varint()?),
            remove: reader.byte()? != 0,
        },
        LEASE | LEASE_BY => Event::Lease {
            id: reader.varint()?,
            at: Seq(reader.varint()?),
            until: Timestamp(reader.signed()?),
            by: if kind == LEASE { Vec::new() } else { reader.bytes()?.to_vec() },
        },
        CLOSE => Event::Close { at: Timestamp(reader.signed()?) },
        EPOCH => Event::Epoch { epoch: reader.varint32()?, wall: Timestamp(reader.signed()?) },
        PIN => Event::Pin {
            at: Timestamp(reader.signed()?),
            seq: Seq(reader.varint()?),
            kept: reader.byte()? != 0,
        },
        THIN => {
            Event::Thin { upto: Seq(reader.varint()?), kept: get_rising(reader)?, gone: get_rising(reader)? }
        }
        ROOT => Event::Root {
            root: get_root(reader)?,
            file: get_file(reader)?,
            name: reader.bytes()?.to_vec(),
            stage: get_stage(reader.byte()?)?,
        },
        other => {
            return Err(Error::corrupt("format.decode", format!("unknown event kind {other}")));
        }
    })
}
