//! Groups of the journal by time and by Seq.
//!
//! [`Space::Time`]: (1, first Seq) -> place of the group; (0, clock epoch, first time, first Seq) -> nothing: the other
//! form has it; (2, descending Seq) -> a session that began there. Time never falls within an epoch, and a group is
//! within one.

use super::build::Build;
use super::codec::{Reader, put_ascending, put_seq, put_signed, put_varint};
use super::kv::{Kv, Space};
use crate::error::Result;
use crate::format::event::Record;
use crate::types::{SegmentNo, Seq, Timestamp};

const BY_TIME: u8 = 0;
const BY_SEQ: u8 = 1;
const SESSION: u8 = 2;
const GROUP: u8 = 1;

/// A daemon's use of the store: how writes arrived from its first event on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    pub seq: Seq,
    pub ts: Timestamp,
    pub writeback: bool,
}

/// Records the beginning of a session.
pub(super) fn record_session(build: &mut Build<'_>, (seq, ts): (Seq, Timestamp), writeback: bool) {
    let mut key = vec![SESSION];
    put_seq(&mut key, seq);
    let mut value = vec![GROUP, u8::from(writeback)];
    put_signed(&mut value, ts.0);
    build.batch.put(Space::Time, key, value);
}

/// The session that a Seq belongs to.
pub(super) fn session(kv: &dyn Kv, at: Seq) -> Result<Option<Session>> {
    let mut from = vec![SESSION];
    put_seq(&mut from, at);
    let Some((key, value)) = kv.first(Space::Time, &from, &[SESSION + 1])? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&key);
    reader.expect_tag(SESSION)?;
    let seq = reader.seq()?;
    let mut reader = Reader::new(&value);
    reader.expect_tag(GROUP)?;
    let writeback = reader.byte()? != 0;
    let ts = Timestamp(reader.signed()?);
    reader.finish()?;
    Ok(Some(Session { seq, ts, writeback }))
}

/// A group of events in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupPlace {
    pub segment: SegmentNo,
    /// Byte offset of the group in its segment.
    pub offset: u64,
    pub first_ts: Timestamp,
    pub last_ts: Timestamp,
    pub first_seq: Seq,
    pub last_seq: Seq,
}

/// Records a group.
pub(super) fn record(build: &mut Build<'_>, place: (SegmentNo, u64), records: &[Record]) {
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return;
    };
    let mut key = time_prefix(build.epoch, first.ts);
    put_ascending(&mut key, first.seq.0);
    build.batch.put(Space::Time, key, vec![GROUP]);
    let mut value = Vec::with_capacity(24);
    value.push(GROUP);
    put_varint(&mut value, place.0.0);
    put_varint(&mut value, place.1);
    put_signed(&mut value, first.ts.0);
    put_signed(&mut value, last.ts.0.wrapping_sub(first.ts.0));
    put_varint(&mut value, last.seq.0.saturating_sub(first.seq.0));
    build.batch.put(Space::Time, seq_key(first.seq), value);
}

fn epoch_prefix(epoch: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    key.push(BY_TIME);
    key.extend_from_slice(&epoch.to_be_bytes());
    key
}

fn time_prefix(epoch: u32, ts: Timestamp) -> Vec<u8> {
    let mut key = epoch_prefix(epoch);
    key.extend_from_slice(&ordered(ts));
    key
}

/// Times in the order of their bytes.
pub(super) fn ordered(ts: Timestamp) -> [u8; 8] {
    ((ts.0 as u64) ^ (1 << 63)).to_be_bytes()
}

fn seq_key(seq: Seq) -> Vec<u8> {
    let mut key = Vec::with_capacity(12);
    key.push(BY_SEQ);
    put_ascending(&mut key, seq.0);
    key
}

/// The last group of an epoch that begins at or before a time.
pub(super) fn group_at_time(kv: &dyn Kv, epoch: u32, ts: Timestamp) -> Result<Option<GroupPlace>> {
    let mut end = time_prefix(epoch, ts);
    end.push(0xff);
    let Some((key, _)) = kv.last(Space::Time, &epoch_prefix(epoch), &end)? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&key);
    reader.bytes(13)?;
    let seq = Seq(reader.ascending()?);
    reader.finish()?;
    let key = seq_key(seq);
    kv.get(Space::Time, &key)?.map(|value| read(&key, &value)).transpose()
}

/// The group that holds a Seq.
pub(super) fn group_of_seq(kv: &dyn Kv, seq: Seq) -> Result<Option<GroupPlace>> {
    let mut end = seq_key(seq);
    end.push(0);
    let Some((key, value)) = kv.last(Space::Time, &[BY_SEQ], &end)? else {
        return Ok(None);
    };
    let group = read(&key, &value)?;
    Ok((seq <= group.last_seq).then_some(group))
}

fn read(key: &[u8], value: &[u8]) -> Result<GroupPlace> {
    let mut reader = Reader::new(key);
    reader.expect_tag(BY_SEQ)?;
    let first_seq = Seq(reader.ascending()?);
    reader.finish()?;
    let mut reader = Reader::new(value);
    reader.expect_tag(GROUP)?;
    let segment = SegmentNo(reader.varint()?);
    let offset = reader.varint()?;
    let first_ts = Timestamp(reader.signed()?);
    let last_ts = Timestamp(first_ts.0.wrapping_add(reader.signed()?));
    let last_seq = Seq(first_seq.0.saturating_add(reader.varint()?));
    reader.finish()?;
    Ok(GroupPlace { segment, offset, first_ts, last_ts, first_seq, last_seq })
}
