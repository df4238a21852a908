//! Attributes at an instant: the newest whole attribute, brought up to date by the data events after it.
//!
//! - [`Space::Attr`]: (file, 0, descending Seq) -> attribute, its event's time, and whether a program chose its mtime;
//!   (file, 1, descending Seq) -> target of a symlink, at its birth; (file, 2, ...): see `naming.rs`.
//! - Size, or a directory's link count, comes from the newer of attribute and data event.
//! - mtime is the recorded one when a program chose it after the newest data event; otherwise no earlier than that event:
//!   two instants whose bytes differ must not have equal size and mtime, or rsync's quick check skips the file.

use super::build::Build;
use super::codec::{Reader, put_ascending, put_attr, put_seq, put_signed, read_attr};
use super::data::{self, Sample, Track};
use super::kv::{Kv, Space};
use super::lookup::end_with_seq;
use super::scan::behind;
use crate::error::Result;
use crate::types::{Attr, FileId, FileKind, FileTime, Seq, Timestamp};

const ATTR: u8 = 2;
const TARGET: u8 = 1;
const WHOLE: u8 = 0;
const BIRTH: u8 = 1;

/// A recorded attribute.
pub(super) struct Recorded {
    pub seq: Seq,
    pub ts: Timestamp,
    pub attr: Attr,
    pub chosen_mtime: bool,
}

/// Records an attribute that an event carries.
pub(super) fn record(build: &mut Build<'_>, file: FileId, when: (Seq, Timestamp), attr: &Attr) {
    put(build, file, when, attr, false);
}

/// Records attributes that were set.
pub(super) fn record_set(
    build: &mut Build<'_>,
    file: FileId,
    (seq, ts): (Seq, Timestamp),
    attr: &Attr,
    chosen_mtime: bool,
) {
    put(build, file, (seq, ts), attr, chosen_mtime);
    if chosen_mtime {
        // Later attributes carry the chosen time on but do not say so.
        build.sample(file, Track::ChosenTime, seq, ts, 0);
    }
}

fn put(build: &mut Build<'_>, file: FileId, (seq, ts): (Seq, Timestamp), attr: &Attr, chosen_mtime: bool) {
    let mut key = prefix(file, WHOLE);
    put_seq(&mut key, seq);
    let mut value = Vec::with_capacity(56);
    value.push(ATTR);
    value.push(u8::from(chosen_mtime));
    put_signed(&mut value, ts.0.wrapping_sub(micros(attr.ctime)));
    put_attr(&mut value, attr);
    build.batch.put(Space::Attr, key, value);
}

/// Records the target of a symlink.
pub(super) fn record_target(build: &mut Build<'_>, file: FileId, seq: Seq, target: &[u8]) {
    let mut key = prefix(file, BIRTH);
    put_seq(&mut key, seq);
    let mut value = Vec::with_capacity(target.len() + 1);
    value.push(TARGET);
    value.extend_from_slice(target);
    build.batch.put(Space::Attr, key, value);
}

/// The attribute of a file at an instant; `None` before its birth.
pub(super) fn attr(kv: &dyn Kv, file: FileId, at: Seq) -> Result<Option<Attr>> {
    let Some(recorded) = recorded(kv, file, at)? else {
        return Ok(None);
    };
    let mut attr = recorded.attr;
    let is_dir = attr.kind == FileKind::Directory;
    let mut touched = recorded.seq;
    if let Some(content) = data::newest(kv, file, Track::Content, at)? {
        touched = touched.max(content.seq);
        merge_content(kv, file, &recorded, content, at, &mut attr)?;
    }
    if is_dir
        && let Some(links) = data::newest(kv, file, Track::Links, at)?
        && links.seq > recorded.seq
    {
        attr.nlink = u32::try_from(links.value).unwrap_or(u32::MAX);
    }
    if let Some(change) = data::newest(kv, file, Track::Change, at)?
        && change.seq > touched
    {
        attr.ctime = change.ts.into();
    }
    Ok(Some(attr))
}

fn merge_content(
    kv: &dyn Kv,
    file: FileId,
    recorded: &Recorded,
    content: Sample,
    at: Seq,
    attr: &mut Attr,
) -> Result<()> {
    let time = FileTime::from(content.ts);
    if content.seq > recorded.seq {
        if attr.kind != FileKind::Directory {
            attr.size = content.value;
        }
        // As the live file has it, also where the clock was set back between the two.
        (attr.mtime, attr.ctime) = (time, time);
        return Ok(());
    }
    if time > attr.mtime && !chosen_since(kv, file, recorded, content.seq, at)? {
        attr.mtime = time;
    }
    Ok(())
}

/// Whether a program chose mtime after a Seq.
fn chosen_since(kv: &dyn Kv, file: FileId, recorded: &Recorded, seq: Seq, at: Seq) -> Result<bool> {
    if recorded.chosen_mtime {
        return Ok(true);
    }
    let chosen = data::newest(kv, file, Track::ChosenTime, at)?;
    Ok(chosen.is_some_and(|chosen| chosen.seq > seq))
}

fn recorded(kv: &dyn Kv, file: FileId, at: Seq) -> Result<Option<Recorded>> {
    match newest(kv, file, WHOLE, at)? {
        Some((seq, value)) => read_recorded(seq, &value).map(Some),
        None => Ok(None),
    }
}

fn read_recorded(seq: Seq, value: &[u8]) -> Result<Recorded> {
    let mut reader = Reader::new(value);
    reader.expect_tag(ATTR)?;
    let chosen_mtime = reader.byte()? != 0;
    let behind_ctime = reader.signed()?;
    let attr = read_attr(&mut reader)?;
    reader.finish()?;
    let ts = Timestamp(behind_ctime.wrapping_add(micros(attr.ctime)));
    Ok(Recorded { seq, ts, attr, chosen_mtime })
}

fn micros(time: FileTime) -> i64 {
    time.secs.wrapping_mul(1_000_000).wrapping_add(i64::from(time.nanos / 1_000))
}

/// Up to `limit` recorded attributes at or before a Seq, newest first.
pub(super) fn newest_recorded(kv: &dyn Kv, file: FileId, at: Seq, limit: usize) -> Result<Vec<Recorded>> {
    let pairs = newest_pairs(kv, file, WHOLE, at, limit)?;
    pairs.iter().map(|(seq, value)| read_recorded(*seq, value)).collect()
}

/// Up to `limit` values of one form at or before a Seq, newest first.
pub(super) fn newest_pairs(
    kv: &dyn Kv,
    file: FileId,
    form: u8,
    at: Seq,
    limit: usize,
) -> Result<Vec<(Seq, Vec<u8>)>> {
    let mut from = prefix(file, form);
    let end = behind(&from);
    put_seq(&mut from, at);
    let pairs = kv.range(Space::Attr, &from, &end, limit)?;
    pairs.into_iter().map(|(key, value)| Ok((seq_of(&key)?, value))).collect()
}

/// The target of a symlink; `None` before its birth, or for another kind of file.
pub(super) fn symlink_target(kv: &dyn Kv, file: FileId, at: Seq) -> Result<Option<Vec<u8>>> {
    let Some((_, value)) = newest(kv, file, BIRTH, at)? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&value);
    reader.expect_tag(TARGET)?;
    Ok(Some(reader.remainder().to_vec()))
}

fn newest(kv: &dyn Kv, file: FileId, form: u8, at: Seq) -> Result<Option<(Seq, Vec<u8>)>> {
    let mut from = prefix(file, form);
    let end = behind(&from);
    put_seq(&mut from, at);
    let Some((key, value)) = kv.first(Space::Attr, &from, &end)? else {
        return Ok(None);
    };
    Ok(Some((seq_of(&key)?, value)))
}

fn seq_of(key: &[u8]) -> Result<Seq> {
    let mut reader = Reader::new(key);
    reader.ascending()?;
    reader.byte()?;
    Ok(end_with_seq(key, reader)?.1)
}

pub(super) fn prefix(file: FileId, form: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(20);
    put_ascending(&mut key, file.0);
    key.push(form);
    key
}
