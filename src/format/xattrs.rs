//! Extended attributes inside a record: a count, then each name with its value, or with a mark that it goes.

use super::codec::{Reader, put_bytes, put_varint};
use super::event::{XattrChanges, Xattrs};
use crate::error::Result;

/// Appends names and values.
pub(super) fn put_values(out: &mut Vec<u8>, xattrs: &Xattrs) {
    put_varint(out, xattrs.len() as u64);
    for (name, value) in xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

/// Reads names and values.
pub(super) fn get_values(reader: &mut Reader<'_>) -> Result<Xattrs> {
    let count = reader.varint()?;
    let mut xattrs = Vec::new();
    for _ in 0..count {
        xattrs.push((reader.bytes()?.to_vec(), reader.bytes()?.to_vec()));
    }
    Ok(xattrs)
}

/// Appends names, each with 1 and its new value, or with 0.
pub(super) fn put_changes(out: &mut Vec<u8>, changes: &XattrChanges) {
    put_varint(out, changes.len() as u64);
    for (name, value) in changes {
        put_bytes(out, name);
        out.push(u8::from(value.is_some()));
        if let Some(value) = value {
            put_bytes(out, value);
        }
    }
}

/// Reads changes.
pub(super) fn get_changes(reader: &mut Reader<'_>) -> Result<XattrChanges> {
    let count = reader.varint()?;
    let mut changes = Vec::new();
    for _ in 0..count {
        let name = reader.bytes()?.to_vec();
        let value = match reader.byte()? {
            0 => None,
            _ => Some(reader.bytes()?.to_vec()),
        };
        changes.push((name, value));
    }
    Ok(changes)
}
