//! Names at an instant.
//!
//! [`Space::Name`]: (directory, name, NUL, descending Seq) -> what the name stands for from then on, or nothing. Names hold
//! no NUL, so keys are in the byte order of names and no name is in another's way. The directories of the roots stand
//! under their names in directory 0.

use super::build::Build;
use super::codec::{Reader, kind_code, put_ascending, put_seq, put_varint, read_kind};
use super::kv::{Kv, Space};
use super::lookup::end_with_seq;
use super::scan::{Scan, behind};
use crate::error::Result;
use crate::format::event::Slot;
use crate::types::{FileId, FileKind, Name, Seq};
use std::ops::ControlFlow;

/// No file has this number: in it stand the roots by their names.
pub const ROOTS: FileId = FileId(0);

const GONE: u8 = 0;
const CHILD: u8 = 1;

/// What a name stood for from a Seq on; `None` where it was gone.
pub type NamePast = (Seq, Option<(FileId, FileKind)>);

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    pub name: Name,
    pub file: FileId,
    pub kind: FileKind,
}

/// Records that a name stands for a file from now on.
pub(super) fn record(build: &mut Build<'_>, slot: &Slot, seq: Seq, file: FileId, kind: FileKind) {
    let mut value = vec![CHILD, kind_code(kind)];
    put_varint(&mut value, file.0);
    build.batch.put(Space::Name, key(slot, seq), value);
}

/// Records that a name is gone.
pub(super) fn record_gone(build: &mut Build<'_>, slot: &Slot, seq: Seq) {
    build.batch.put(Space::Name, key(slot, seq), vec![GONE]);
}

fn key(slot: &Slot, seq: Seq) -> Vec<u8> {
    let mut key = name_prefix(slot.dir, &slot.name);
    put_seq(&mut key, seq);
    key
}

/// Key of a name without its Seq; of extended attributes too.
pub(super) fn name_prefix(owner: FileId, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 20);
    put_ascending(&mut key, owner.0);
    key.extend_from_slice(name);
    key.push(0);
    key
}

/// The file that a name stands for.
pub(super) fn lookup(kv: &dyn Kv, dir: FileId, name: &[u8], at: Seq) -> Result<Option<(FileId, FileKind)>> {
    let mut from = name_prefix(dir, name);
    let end = behind(&from);
    put_seq(&mut from, at);
    match kv.first(Space::Name, &from, &end)? {
        Some((_, value)) => read_child(&value),
        None => Ok(None),
    }
}

/// Up to `limit` entries of the history of a name at or before a Seq, newest first.
pub(super) fn past_of(kv: &dyn Kv, dir: FileId, name: &[u8], at: Seq, limit: usize) -> Result<Vec<NamePast>> {
    let mut from = name_prefix(dir, name);
    let end = behind(&from);
    put_seq(&mut from, at);
    let pairs = kv.range(Space::Name, &from, &end, limit)?;
    pairs.iter().map(|(key, value)| Ok((split(key)?.1, read_child(value)?))).collect()
}

/// Up to `limit` entries with names after `after`, in byte order.
pub(super) fn read_dir(
    kv: &dyn Kv,
    dir: FileId,
    after: Option<&[u8]>,
    limit: usize,
    at: Seq,
) -> Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    if limit == 0 {
        return Ok(entries);
    }
    newest_by_name(kv, Space::Name, dir, after, at, |name, value| {
        if let Some((file, kind)) = read_child(value)? {
            let name = name.to_vec();
            entries.push(DirEntry { name, file, kind });
        }
        Ok(match entries.len() < limit {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    })?;
    Ok(entries)
}

/// Visits the newest value of each name of an owner, in byte order of names.
pub(super) fn newest_by_name(
    kv: &dyn Kv,
    space: Space,
    owner: FileId,
    after: Option<&[u8]>,
    at: Seq,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut all = Vec::with_capacity(10);
    put_ascending(&mut all, owner.0);
    let from = match after {
        Some(name) => behind(&name_prefix(owner, name)),
        None => all.clone(),
    };
    let end = match owner.0.checked_add(1) {
        Some(next) => {
            let mut end = Vec::with_capacity(10);
            put_ascending(&mut end, next);
            end
        }
        None => behind(&all),
    };
    let scan = Scan { kv, space, from, end: &end, at };
    scan.newest(split, |subject| Ok(behind(subject)), |hit| visit(name_of(hit.subject)?, hit.value))
}

/// Length of a key up to its Seq, and that.
fn split(key: &[u8]) -> Result<(usize, Seq)> {
    let mut reader = Reader::new(key);
    reader.ascending()?;
    reader.until_nul()?;
    end_with_seq(key, reader)
}

fn name_of(subject: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::new(subject);
    reader.ascending()?;
    reader.until_nul()
}

fn read_child(value: &[u8]) -> Result<Option<(FileId, FileKind)>> {
    let mut reader = Reader::new(value);
    if value == [GONE] {
        return Ok(None);
    }
    reader.expect_tag(CHILD)?;
    let kind = read_kind(&mut reader)?;
    let file = FileId(reader.varint()?);
    reader.finish()?;
    Ok(Some((file, kind)))
}

#[cfg(test)]
mod tests {
    use super::super::kv::Batch;
    use super::super::mem::MemKv;
    use super::*;

    const DIR: FileId = FileId(255);

    fn put(kv: &MemKv, name: &[u8], seq: u64, child: Option<u64>) {
        let mut batch = Batch::default();
        let slot = Slot { dir: DIR, name: name.to_vec() };
        let value = match child {
            Some(child) => vec![CHILD, 0, child as u8],
            None => vec![GONE],
        };
        batch.put(Space::Name, key(&slot, Seq(seq)), value);
        kv.commit(batch).unwrap();
    }

    fn names(kv: &MemKv, after: Option<&[u8]>, limit: usize, at: u64) -> Vec<Vec<u8>> {
        let entries = read_dir(kv, DIR, after, limit, Seq(at)).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn names_come_in_byte_order_and_in_parts() {
        let kv = MemKv::new();
        let all: [&[u8]; 6] = [b"\x01", b"a", b"a\x01", b"aa", b"b", b"\xff\xff"];
        for (index, name) in all.iter().enumerate() {
            put(&kv, name, 10 + index as u64, Some(index as u64));
        }
        put(&kv, b"aa", 50, None);
        assert_eq!(names(&kv, None, 9, 15), all);
        assert_eq!(names(&kv, Some(b"a"), 2, 49), [b"a\x01".to_vec(), b"aa".to_vec()]);
        assert_eq!(names(&kv, Some(b"a"), 2, 50), [b"a\x01".to_vec(), b"b".to_vec()]);
        assert_eq!(names(&kv, Some(b"a!"), 1, 50), [b"b".to_vec()]);
        assert_eq!(names(&kv, None, 9, 9), Vec::<Vec<u8>>::new());
        assert_eq!(read_dir(&kv, FileId(256), None, 9, Seq(99)).unwrap(), []);
    }

    #[test]
    fn many_versions_of_one_name_do_not_hide_the_next() {
        let kv = MemKv::new();
        for seq in 1..3000u64 {
            put(&kv, b"hot", seq, (seq % 2 == 0).then_some(seq % 100));
        }
        put(&kv, b"later", 1, Some(1));
        assert_eq!(names(&kv, None, 9, 2000), [b"hot".to_vec(), b"later".to_vec()]);
        assert_eq!(names(&kv, None, 9, 1), [b"later".to_vec()]);
        let found = lookup(&kv, DIR, b"hot", Seq(1002)).unwrap();
        assert_eq!(found, Some((FileId(2), FileKind::Regular)));
        assert_eq!(lookup(&kv, DIR, b"ho", Seq(1002)).unwrap(), None);
    }
}
