//! Small encodings for keys and values of the index.
//!
//! - Keys are order-preserving and prefix-free: no encoded number is a prefix of another, so a key's parts can be
//!   concatenated and a part's end is known without looking further.
//! - Values begin with a tag byte. Decoders take bytes, give [`Kind::Corrupt`](crate::error::Kind) on anything that
//!   the encoder would not have written, never panic, and allocate no more than the bytes they were given.

use crate::error::{Error, Result};
use crate::types::{Attr, FileKind, FileTime, Location, SegmentNo, Seq};

const OP: &str = "index.decode";

/// Appends a little-endian base-128 number.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number so that small magnitudes are short.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a number whose byte order is its numeric order: a length byte, then that many bytes, highest first.
pub(super) fn put_ascending(key: &mut Vec<u8>, value: u64) {
    let (bytes, skip) = significant(value);
    key.push((bytes.len() - skip) as u8);
    key.extend_from_slice(&bytes[skip..]);
}

/// Appends a number whose byte order is the reverse of its numeric order.
pub(super) fn put_descending(key: &mut Vec<u8>, value: u64) {
    let (bytes, skip) = significant(value);
    key.push(!((bytes.len() - skip) as u8));
    key.extend(bytes[skip..].iter().map(|byte| !byte));
}

/// Appends a Seq, newest first.
pub(super) fn put_seq(key: &mut Vec<u8>, seq: Seq) {
    put_descending(key, seq.0);
}

fn significant(value: u64) -> ([u8; 8], usize) {
    (value.to_be_bytes(), value.leading_zeros() as usize / 8)
}

/// Takes an encoding apart, front to back.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// All that is left.
    pub(super) fn remainder(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<()> {
        match self.rest {
            [] => Ok(()),
            rest => Err(corrupt(format!("{} bytes too many", rest.len()))),
        }
    }

    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(corrupt("a number exceeds 64 bits"))
    }

    pub(super) fn signed(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(super) fn small(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| corrupt("a number exceeds 32 bits"))
    }

    pub(super) fn ascending(&mut self) -> Result<u64> {
        let len = self.byte()?;
        self.significant(len, 0)
    }

    pub(super) fn descending(&mut self) -> Result<u64> {
        let len = !self.byte()?;
        self.significant(len, 0xff)
    }

    pub(super) fn seq(&mut self) -> Result<Seq> {
        Ok(Seq(self.descending()?))
    }

    fn significant(&mut self, len: u8, flip: u8) -> Result<u64> {
        if len > 8 {
            return Err(corrupt("a key's number exceeds 64 bits"));
        }
        let bytes = self.bytes(usize::from(len))?;
        if bytes.first().is_some_and(|first| first ^ flip == 0) {
            return Err(corrupt("a key's number has a leading zero"));
        }
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(byte ^ flip)))
    }

    /// Bytes up to a NUL, which is read too.
    pub(super) fn until_nul(&mut self) -> Result<&'a [u8]> {
        let len = self.rest.iter().position(|byte| *byte == 0);
        let name = self.bytes(len.ok_or_else(short)?)?;
        self.byte()?;
        Ok(name)
    }

    /// The tag of a value must be this one.
    pub(super) fn expect_tag(&mut self, tag: u8) -> Result<()> {
        match self.byte()? {
            found if found == tag => Ok(()),
            found => Err(corrupt(format!("tag {found} instead of {tag}"))),
        }
    }
}

fn short() -> Error {
    corrupt("an entry ends early")
}

/// An entry that cannot have been written by this index.
pub(super) fn corrupt(message: impl Into<String>) -> Error {
    let message = message.into();
    Error::corrupt(
        OP,
        format!("the index is damaged ({message}); delete it, it is rebuilt from the journal"),
    )
}

const JOURNAL: u8 = 1;
const BASE: u8 = 2;
const PAGE_FILE: u8 = 3;
const ZERO: u8 = 4;

/// The tag of a location: below 8, so that flags fit above it.
pub(super) fn location_tag(location: &Location) -> u8 {
    match location {
        Location::Journal { .. } => JOURNAL,
        Location::Base { .. } => BASE,
        Location::PageFile { .. } => PAGE_FILE,
        Location::Zero => ZERO,
    }
}

/// Appends a location without its tag.
pub(super) fn put_location(out: &mut Vec<u8>, location: &Location) {
    let (number, offset) = match *location {
        Location::Journal { segment, offset } => (segment.0, offset),
        Location::Base { number, offset } | Location::PageFile { number, offset } => {
            (number, offset)
        }
        Location::Zero => return,
    };
    put_varint(out, number);
    put_varint(out, offset);
}

/// Reads what [`put_location`] wrote.
pub(super) fn read_location(tag: u8, reader: &mut Reader<'_>) -> Result<Location> {
    if tag == ZERO {
        return Ok(Location::Zero);
    }
    let (number, offset) = (reader.varint()?, reader.varint()?);
    match tag {
        JOURNAL => Ok(Location::Journal {
            segment: SegmentNo(number),
            offset,
        }),
        BASE => Ok(Location::Base { number, offset }),
        PAGE_FILE => Ok(Location::PageFile { number, offset }),
        _ => Err(corrupt(format!("location kind {tag}"))),
    }
}

const KINDS: [FileKind; 7] = [
    FileKind::Regular,
    FileKind::Directory,
    FileKind::Symlink,
    FileKind::Fifo,
    FileKind::Socket,
    FileKind::CharDevice,
    FileKind::BlockDevice,
];

pub(super) fn kind_code(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 0,
        FileKind::Directory => 1,
        FileKind::Symlink => 2,
        FileKind::Fifo => 3,
        FileKind::Socket => 4,
        FileKind::CharDevice => 5,
        FileKind::BlockDevice => 6,
    }
}

pub(super) fn read_kind(reader: &mut Reader<'_>) -> Result<FileKind> {
    let code = reader.byte()?;
    KINDS
        .get(usize::from(code))
        .copied()
        .ok_or_else(|| corrupt(format!("file kind {code}")))
}

fn put_time(out: &mut Vec<u8>, time: FileTime) {
    put_signed(out, time.secs);
    put_varint(out, u64::from(time.nanos));
}

fn read_time(reader: &mut Reader<'_>) -> Result<FileTime> {
    let time = FileTime {
        secs: reader.signed()?,
        nanos: reader.small()?,
    };
    if time.nanos >= 1_000_000_000 {
        return Err(corrupt("nanoseconds beyond a second"));
    }
    Ok(time)
}

/// Appends a whole attribute.
pub(super) fn put_attr(out: &mut Vec<u8>, attr: &Attr) {
    out.push(kind_code(attr.kind));
    for number in [attr.mode, attr.uid, attr.gid, attr.rdev, attr.nlink] {
        put_varint(out, u64::from(number));
    }
    put_varint(out, attr.size);
    for time in [attr.atime, attr.mtime, attr.ctime] {
        put_time(out, time);
    }
}

/// Reads what [`put_attr`] wrote.
pub(super) fn read_attr(reader: &mut Reader<'_>) -> Result<Attr> {
    Ok(Attr {
        kind: read_kind(reader)?,
        mode: reader.small()?,
        uid: reader.small()?,
        gid: reader.small()?,
        rdev: reader.small()?,
        nlink: reader.small()?,
        size: reader.varint()?,
        atime: read_time(reader)?,
        mtime: read_time(reader)?,
        ctime: read_time(reader)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ascending(value: u64) -> Vec<u8> {
        let mut key = Vec::new();
        put_ascending(&mut key, value);
        key
    }

    fn descending(value: u64) -> Vec<u8> {
        let mut key = Vec::new();
        put_descending(&mut key, value);
        key
    }

    /// Numbers of every length.
    fn number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn key_numbers_keep_their_order(left in number(), right in number()) {
            prop_assert_eq!(left.cmp(&right), ascending(left).cmp(&ascending(right)));
            prop_assert_eq!(right.cmp(&left), descending(left).cmp(&descending(right)));
            prop_assert_eq!(Reader::new(&ascending(left)).ascending().unwrap(), left);
            prop_assert_eq!(Reader::new(&descending(left)).descending().unwrap(), left);
        }

        #[test]
        fn varints_come_back(value in number(), signed in any::<i64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_signed(&mut out, signed);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert_eq!(reader.signed().unwrap(), signed);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Reader::new(&bytes).varint();
            let _ = Reader::new(&bytes).ascending();
            let _ = Reader::new(&bytes).descending();
            let _ = read_attr(&mut Reader::new(&bytes));
            let _ = read_location(bytes.first().copied().unwrap_or(0), &mut Reader::new(&bytes));
        }
    }
}
