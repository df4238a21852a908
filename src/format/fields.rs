//! Fields that several records and checkpoints share: attributes, slots, births. docs/FORMAT.md, "Records".

use super::codec::{Reader, put_bytes, put_signed, put_varint};
use super::event::{Birth, RootStage, Slot};
use crate::error::{Error, Result};
use crate::types::{Attr, FileId, FileKind, FileTime, NAME_MAX, RootId, Seq};

/// Number of a kind, as in records, checkpoints and the index.
pub fn kind_code(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::Symlink => 3,
        FileKind::Fifo => 4,
        FileKind::Socket => 5,
        FileKind::CharDevice => 6,
        FileKind::BlockDevice => 7,
    }
}

/// The kind of a number.
pub fn kind_of(code: u8) -> Result<FileKind> {
    Ok(match code {
        1 => FileKind::Regular,
        2 => FileKind::Directory,
        3 => FileKind::Symlink,
        4 => FileKind::Fifo,
        5 => FileKind::Socket,
        6 => FileKind::CharDevice,
        7 => FileKind::BlockDevice,
        _ => return Err(Error::corrupt("format.decode", format!("unknown file kind {code}"))),
    })
}

fn put_time(out: &mut Vec<u8>, time: FileTime) {
    put_signed(out, time.secs);
    put_varint(out, u64::from(time.nanos));
}

fn get_time(reader: &mut Reader<'_>) -> Result<FileTime> {
    let secs = reader.signed()?;
    let nanos = reader.varint32()?;
    if nanos >= 1_000_000_000 {
        return Err(Error::corrupt("format.decode", format!("{nanos} nanoseconds in a second")));
    }
    Ok(FileTime { secs, nanos })
}

/// Appends an attribute.
pub fn put_attr(out: &mut Vec<u8>, attr: &Attr) {
    out.push(kind_code(attr.kind));
    for field in [attr.mode, attr.uid, attr.gid, attr.rdev, attr.nlink] {
        put_varint(out, u64::from(field));
    }
    put_varint(out, attr.size);
    for time in [attr.atime, attr.mtime, attr.ctime] {
        put_time(out, time);
    }
}

/// Reads an attribute.
pub fn get_attr(reader: &mut Reader<'_>) -> Result<Attr> {
    Ok(Attr {
        kind: kind_of(reader.byte()?)?,
        mode: reader.varint32()?,
        uid: reader.varint32()?,
        gid: reader.varint32()?,
        rdev: reader.varint32()?,
        nlink: reader.varint32()?,
        size: reader.varint()?,
        atime: get_time(reader)?,
        mtime: get_time(reader)?,
        ctime: get_time(reader)?,
    })
}

/// Appends a directory entry's place.
pub fn put_slot(out: &mut Vec<u8>, slot: &Slot) {
    put_varint(out, slot.dir.0);
    put_bytes(out, &slot.name);
}

/// Appends Seqs that rise: their number, then each as what it is above the one before.
pub(super) fn put_rising(out: &mut Vec<u8>, seqs: &[Seq]) {
    put_varint(out, seqs.len() as u64);
    let mut before = 0;
    for seq in seqs {
        put_varint(out, seq.0.saturating_sub(before));
        before = seq.0;
    }
}

/// Reads what [`put_rising`] wrote.
pub(super) fn get_rising(reader: &mut Reader<'_>) -> Result<Vec<Seq>> {
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    let mut seqs = Vec::with_capacity(count.min(reader.remaining()));
    let mut before = 0u64;
    for _ in 0..count {
        let next = match reader.varint()? {
            0 => None,
            more => before.checked_add(more),
        };
        before = next.ok_or_else(|| Error::corrupt("format.decode", "event numbers that do not rise"))?;
        seqs.push(Seq(before));
    }
    Ok(seqs)
}

/// Reads a directory entry's place; a name that no filesystem could hold is damage.
pub fn get_slot(reader: &mut Reader<'_>) -> Result<Slot> {
    let dir = get_file(reader)?;
    let name = reader.bytes()?;
    if name.is_empty() || name.len() > NAME_MAX || name.contains(&b'/') || name.contains(&0) {
        return Err(Error::corrupt("format.decode", "an impossible file name"));
    }
    Ok(Slot { dir, name: name.to_vec() })
}

pub(super) fn get_file(reader: &mut Reader<'_>) -> Result<FileId> {
    match reader.varint()? {
        id @ 1..FileId::LIMIT => Ok(FileId(id)),
        id => Err(Error::corrupt("format.decode", format!("impossible file id {id}"))),
    }
}

pub(super) fn get_root(reader: &mut Reader<'_>) -> Result<RootId> {
    let number = u16::try_from(reader.varint()?);
    number.map(RootId).map_err(|_| Error::corrupt("format.decode", "root number out of range"))
}

pub(super) fn get_stage(code: u8) -> Result<RootStage> {
    match code {
        0 => Ok(RootStage::Entering),
        1 => Ok(RootStage::Present),
        2 => Ok(RootStage::Left),
        other => Err(Error::corrupt("format.decode", format!("unknown stage {other} of a root"))),
    }
}

pub(super) fn put_birth(out: &mut Vec<u8>, birth: &Birth) {
    put_varint(out, birth.file.0);
    put_varint(out, u64::from(birth.root.0));
    out.push(u8::from(birth.slot.is_some()));
    if let Some(slot) = &birth.slot {
        put_slot(out, slot);
    }
    put_attr(out, &birth.attr);
    put_bytes(out, &birth.target);
    put_varint(out, u64::from(birth.dir_nlink));
}

pub(super) fn get_birth(reader: &mut Reader<'_>) -> Result<Birth> {
    let file = get_file(reader)?;
    let root = get_root(reader)?;
    let slot = match reader.byte()? {
        0 => None,
        _ => Some(get_slot(reader)?),
    };
    Ok(Birth {
        file,
        root,
        slot,
        attr: get_attr(reader)?,
        target: reader.bytes()?.to_vec(),
        dir_nlink: reader.varint32()?,
    })
}
