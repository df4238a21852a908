//! Attributes as bytes, as records and checkpoints hold them. docs/FORMAT.md, "Records".

use super::codec::{Reader, put_signed, put_varint};
use crate::error::{Error, Result};
use crate::types::{Attr, FileKind, FileTime};

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
