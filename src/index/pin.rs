//! Times that were asked for, and what they mean for ever.
//!
//! [`Space::Time`]: (3, time, 0 for a kept pin or 1, Seq of the pin) -> the Seq that the time means. Of several the first
//! counts, so a lookup is one seek.

use super::build::Build;
use super::codec::{Reader, put_ascending, put_varint};
use super::kv::{Kv, Space};
use super::time::ordered;
use crate::error::Result;
use crate::types::{Seq, Timestamp};

const PINS: u8 = 3;
const PIN: u8 = 1;

/// Records a pin that stands at `seq` in the journal.
pub(super) fn record(build: &mut Build<'_>, seq: Seq, (at, means): (Timestamp, Seq), kept: bool) {
    let mut key = prefix(at);
    key.push(u8::from(!kept));
    put_ascending(&mut key, seq.0);
    let mut value = vec![PIN];
    put_varint(&mut value, means.0);
    build.batch.put(Space::Time, key, value);
}

fn prefix(at: Timestamp) -> Vec<u8> {
    let mut key = Vec::with_capacity(20);
    key.push(PINS);
    key.extend_from_slice(&ordered(at));
    key
}

/// What a time was pinned to.
pub(super) fn pin(kv: &dyn Kv, at: Timestamp) -> Result<Option<Seq>> {
    let from = prefix(at);
    let mut end = from.clone();
    end.push(0xff);
    let Some((_, value)) = kv.first(Space::Time, &from, &end)? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&value);
    reader.expect_tag(PIN)?;
    let seq = Seq(reader.varint()?);
    reader.finish()?;
    Ok(Some(seq))
}
