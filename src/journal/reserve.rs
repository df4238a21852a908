//! The journal's space on disk: allocated before it is needed, and who may use the last of it.
//!
//! - Segments are allocated ahead, so many that what is left of them holds the reserve. What is left is counted with the
//!   tail of each segment that the next group may not fit into.
//! - When a further one cannot be had the journal is *low*: growth is refused until one can. What the kernel has
//!   acknowledged already, and what gives space back or fixes an instant, goes on.

use super::spare::{prepare, write_header};
use super::state::{State, fail, take_ready};
use super::writer::{GROUP_MAX, Journal, SLACK, sized};
use crate::error::{Error, Result};
use crate::format::checkpoint::Place;
use crate::format::segment::SegmentHeader;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard};
use crate::types::{PAGE, SegmentNo, Seq};

/// Kept for what must be possible on a full disk: removing, renaming, fixing instants.
const UPKEEP: u64 = sized(4 << 20, 4 << 10);
/// Of that only for what lets go of history: then there is space again.
const LAST: u64 = sized(256 << 10, 0);
/// At the end of a segment as much may stay unused: a largest group that did not fit any more.
const TAIL: u64 = GROUP_MAX + SLACK;

/// What an event may use of the space that is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// New bytes and names. Refused while the journal is low.
    Growth,
    /// What takes away, renames, sets attributes or fixes an instant.
    Upkeep,
    /// What lets go of history.
    Freeing,
    /// Bytes that the kernel has acknowledged (its writeback cache): the reserve is theirs.
    Owed,
}

/// The journal's space, in bytes.
#[derive(Clone, Debug)]
pub struct Space {
    /// Left in allocated segments.
    pub left: u64,
    /// Kept back from growth.
    pub reserve: u64,
    /// Why growth is refused, if it is.
    pub low: Option<Error>,
}

impl Claim {
    /// What must be left after an event.
    pub(super) fn keeps(self, reserve: u64) -> u64 {
        match self {
            Claim::Growth => reserve + UPKEEP,
            // What the kernel holds comes in large pieces while it drains: half is twice what it needs then.
            Claim::Upkeep => reserve / 2 + LAST,
            Claim::Freeing => reserve / 2,
            Claim::Owed => 0,
        }
    }
}

/// Bytes that fit into the segments there are.
pub(super) fn left(state: &State) -> u64 {
    let spares: u64 = state.spares.iter().map(|spare| spare.capacity.saturating_sub(PAGE + TAIL)).sum();
    state.segment.capacity.saturating_sub(state.segment.end) + spares
}

impl Journal {
    /// Allocates one more segment, or waits for the thread that is at it. The lock is free meanwhile. A failure makes
    /// the journal low.
    pub(super) fn make_spare<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> (MutexGuard<'a, State>, Result<()>) {
        if state.preparing {
            return (self.progress.wait(state), Ok(()));
        }
        state.preparing = true;
        let number = state.next_number;
        drop(state);
        let prepared =
            self.room_for_segment().and_then(|()| prepare(&self.segments, number, self.config.segment_bytes));
        let mut state = self.state.lock();
        state.preparing = false;
        self.progress.notify_all();
        match prepared {
            Ok(spare) => {
                state.spares.push_back(spare);
                state.next_number = SegmentNo(number.0 + 1);
                self.set_low(&mut state, None);
                (state, Ok(()))
            }
            Err(error) => {
                self.set_low(&mut state, Some(error.clone()));
                (state, Err(error))
            }
        }
    }

    /// Goes on to the next segment when `len` bytes do not fit: what is in the old one is made durable first, and the
    /// new header says where it ends.
    pub(super) fn roll_for(&self, len: u64, first: Seq) -> Result<()> {
        let (old, mut next, chain, previous_end) = {
            let mut state = self.state.lock();
            if state.segment.end + len <= state.segment.capacity {
                return Ok(());
            }
            let next = loop {
                match state.spares.pop_front() {
                    Some(next) => break next,
                    None => {
                        let (next, made) = self.make_spare(state);
                        state = next;
                        made?;
                    }
                }
            };
            (Arc::clone(&state.segment.file), next, state.chain, state.segment.end)
        };
        old.sync("journal.segment.sync")?;
        let store = self.segments.store();
        let header = SegmentHeader { store, number: next.number, first_seq: first, chain, previous_end };
        write_header(&mut next, &header)?;
        let mut state = self.state.lock();
        let place = Place { segment: next.number, offset: next.end, chain, seq: first };
        state.segment = next;
        state.durable = state.written;
        state.durable_end = place;
        state.unsynced = 0;
        Ok(())
    }

    fn set_low(&self, state: &mut State, why: Option<Error>) {
        match (&why, &state.low) {
            (Some(error), None) => {
                tracing::warn!(%error, "no space can be reserved for the journal: writers are told that the disk is full");
            }
            (None, Some(_)) => tracing::info!("there is space for the journal again"),
            _ => {}
        }
        self.low.store(why.is_some(), Ordering::Relaxed);
        state.low = why;
    }

    /// A segment, and what index, pre-images and checkpoints need beside it.
    pub(super) fn room_for_segment(&self) -> Result<()> {
        let dir = self.segments.dir();
        let space = self.segments.disk().space("journal.segment.prepare", dir)?;
        let keep = self.config.keep_free_bytes.min(space.total / 20);
        if space.available < self.config.segment_bytes.saturating_add(keep) {
            return Err(Error::errno("journal.segment.prepare", libc::ENOSPC).at(dir));
        }
        Ok(())
    }

    /// Allocates ahead of need until the reserve and half a segment are there; called when a session begins, and from a
    /// background thread.
    pub fn prepare_spares(&self) -> Result<()> {
        let ahead = Claim::Growth.keeps(self.config.reserve_bytes) + self.config.segment_bytes / 2;
        let mut state = self.state.lock();
        while left(&state) < ahead && !state.driving && !state.preparing && state.failed.is_none() {
            let (next, made) = self.make_spare(state);
            state = next;
            made?;
        }
        Ok(())
    }

    /// Removes the segments that were allocated and not begun: nothing will be written any more.
    pub fn release_spares(&self) {
        let spares = std::mem::take(&mut self.state.lock().spares);
        for spare in spares {
            // One that stays is removed when the next session begins.
            let _ = self.segments.disk().unlink("journal.segment.release", &self.segments.path(spare.number));
        }
    }

    /// Whether growth is refused.
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    pub fn space(&self) -> Space {
        let state = self.state.lock();
        Space { left: left(&state), reserve: self.config.reserve_bytes, low: state.low.clone() }
    }

    /// Accepts nothing any more: something that was acknowledged could not be taken.
    pub fn stop(&self, error: Error) {
        let mut state = self.state.lock();
        fail(&mut state, error);
        let ready = take_ready(&mut state);
        drop(state);
        self.progress.notify_all();
        for (done, result) in ready {
            done(result);
        }
    }
}
