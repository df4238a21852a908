//! What the writer's lock guards, and what is done to it in one step.

use super::epochs::Epochs;
use super::spare::Open;
use super::writer::{Appended, Completion};
use crate::clock::Reading;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Place;
use crate::format::event::{Event, Record};
use crate::journal::group::Group;
use crate::sync::Arc;
use crate::types::{SegmentNo, Seq, Timestamp};
use std::collections::VecDeque;

/// See the head of this file.
pub(super) struct State {
    pub next_seq: Seq,
    pub last_ts: Timestamp,
    pub epochs: Epochs,
    /// What the clocks said last.
    pub reading: Reading,
    /// The clock was implausible when the session began: an epoch begins with the first event.
    pub doubtful: bool,
    /// The group in memory must be written before anything else is appended.
    pub sealing: bool,
    /// No event of this epoch may be at or before this time: an instant there was closed.
    pub floor: Timestamp,
    pub group: Option<Arc<Group>>,
    pub group_first: Seq,
    pub segment: Open,
    /// Allocated and not yet begun, in the order of their numbers.
    pub spares: VecDeque<Open>,
    /// Why no further segment could be allocated: growth is refused.
    pub low: Option<Error>,
    /// A thread is making a spare.
    pub preparing: bool,
    /// Number of the next segment file to be made: one is never made twice.
    pub next_number: SegmentNo,
    pub chain: u32,
    /// A thread is driving: only it touches the segment.
    pub driving: bool,
    pub written: Seq,
    pub durable: Seq,
    /// Place after the last durable group.
    pub durable_end: Place,
    pub unsynced: u64,
    pub waiters: Vec<(Seq, Completion)>,
    pub failed: Option<Error>,
    pub recent: VecDeque<(Arc<Group>, u64)>,
    pub recent_bytes: u64,
    pub flushes: u64,
    pub written_bytes: u64,
}

/// Puts an event into the group in memory, with its time of history and the wall clock's.
pub(super) fn push(
    state: &mut State,
    (ts, wall): (Timestamp, Timestamp),
    event: Event,
    payload: &[u8],
    crc: u32,
) -> Result<Appended> {
    let seq = state.next_seq;
    let group = match &state.group {
        Some(group) => Arc::clone(group),
        None => {
            let group = Arc::new(Group::new(ts));
            state.group = Some(Arc::clone(&group));
            state.group_first = seq;
            group
        }
    };
    let mut record = Record { seq, ts, wall, event };
    let extent = Group::push(&group, &mut record, payload, crc)?;
    state.next_seq = seq.next();
    state.last_ts = ts;
    Ok(Appended { seq, ts, extent })
}

pub(super) fn remember(state: &mut State, group: &Arc<Group>, len: u64, cache_bytes: u64) {
    state.recent.push_back((Arc::clone(group), len));
    state.recent_bytes += len;
    while state.recent_bytes > cache_bytes {
        let Some((old, len)) = state.recent.pop_front() else { break };
        old.forget_bytes();
        state.recent_bytes -= len;
    }
}

/// Takes out the waiters that can be answered.
pub(super) fn take_ready(state: &mut State) -> Vec<(Completion, Result<()>)> {
    let failed = state.failed.as_ref().map(stopped);
    let durable = state.durable;
    let mut ready = Vec::new();
    let mut index = 0;
    while let Some((seq, _)) = state.waiters.get(index) {
        if *seq <= durable {
            ready.push((state.waiters.swap_remove(index).1, Ok(())));
        } else if let Some(error) = &failed {
            ready.push((state.waiters.swap_remove(index).1, Err(error.clone())));
        } else {
            index += 1;
        }
    }
    ready
}

pub(super) fn fail(state: &mut State, error: Error) {
    tracing::error!(%error, "the journal cannot be written: no further write is accepted");
    state.failed.get_or_insert(error);
}

/// What everyone is told after the first error.
pub(crate) fn stopped(cause: &Error) -> Error {
    Error::new(
        Kind::Stopped,
        "journal",
        format!("writing stopped after an error ({cause}); unmount, mend the disk, and mount again"),
    )
}
