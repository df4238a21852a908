//! Sessions: which daemon wrote an event, and how it captured writes.
//!
//! [`Space::Time`]: (3, first Seq) -> 1 for writeback capture, else 0.

use super::build::Build;
use super::codec::{Reader, put_ascending};
use super::kv::{Kv, Space};
use crate::error::Result;
use crate::types::Seq;

const SESSIONS: u8 = 3;
const SESSION: u8 = 1;

/// A daemon's time with the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// Its first event.
    pub first: Seq,
    pub writeback: bool,
}

/// Records that a session begins.
pub(super) fn record(build: &mut Build<'_>, first: Seq, writeback: bool) {
    build.batch.put(Space::Time, key(first), vec![SESSION, u8::from(writeback)]);
}

fn key(first: Seq) -> Vec<u8> {
    let mut key = vec![SESSIONS];
    put_ascending(&mut key, first.0);
    key
}

/// The session that an event belongs to.
pub(super) fn session(kv: &dyn Kv, seq: Seq) -> Result<Option<Session>> {
    let mut end = key(seq);
    end.push(0);
    let Some((key, value)) = kv.last(Space::Time, &[SESSIONS], &end)? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&key);
    reader.expect_tag(SESSIONS)?;
    let first = Seq(reader.ascending()?);
    reader.finish()?;
    let mut reader = Reader::new(&value);
    reader.expect_tag(SESSION)?;
    let writeback = reader.byte()? != 0;
    reader.finish()?;
    Ok(Some(Session { first, writeback }))
}
