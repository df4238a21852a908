//! Where a directory or a symlink stands at an instant: the way up, which names alone do not tell.
//!
//! In [`Space::Name`], owned by a number that no file has: (file + 2^62, NUL, descending Seq) -> directory and name. A
//! symlink with several names has the one it got last.

use super::build::Build;
use super::codec::{Reader, put_seq, put_varint};
use super::kv::{Kv, Space};
use super::name::name_prefix;
use super::scan::behind;
use crate::error::Result;
use crate::format::event::Slot;
use crate::types::{FileId, FileKind, Name, Seq};

const PLACES: u64 = 1 << 62;
const _: () = assert!(FileId::LIMIT < PLACES);
const PLACE: u8 = 1;

/// Records the place that a name gives its file; of regular files and nodes nobody asks for it.
pub(super) fn record(build: &mut Build<'_>, file: FileId, kind: FileKind, slot: &Slot, seq: Seq) {
    if !matches!(kind, FileKind::Directory | FileKind::Symlink) {
        return;
    }
    let mut key = prefix(file);
    put_seq(&mut key, seq);
    let mut value = vec![PLACE];
    put_varint(&mut value, slot.dir.0);
    value.extend_from_slice(&slot.name);
    build.batch.put(Space::Name, key, value);
}

fn prefix(file: FileId) -> Vec<u8> {
    name_prefix(FileId(PLACES | file.0), b"")
}

/// The directory and name of a directory or symlink; `None` for a root, and for what is neither.
pub(super) fn place(kv: &dyn Kv, file: FileId, at: Seq) -> Result<Option<(FileId, Name)>> {
    let mut from = prefix(file);
    let end = behind(&from);
    put_seq(&mut from, at);
    let Some((_, value)) = kv.first(Space::Name, &from, &end)? else { return Ok(None) };
    let mut reader = Reader::new(&value);
    reader.expect_tag(PLACE)?;
    let dir = FileId(reader.varint()?);
    Ok(Some((dir, reader.remainder().to_vec())))
}
