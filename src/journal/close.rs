//! Closing an instant: no later event of its epoch may come at or before it.

use super::reserve::Claim;
use super::state::push;
use super::writer::Journal;
use crate::error::Result;
use crate::format::event::Event;
use crate::types::{Seq, Timestamp};

/// What closing an instant of the present epoch found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// Everything so far is at or before it: the last event is pinned to it. The instant is closed for good once the
    /// pin, an event itself, is durable.
    Pinned { pin: Seq },
    /// There are later events. What is at or before it is among the events up to this one.
    Behind { last: Seq },
    /// Another epoch has begun meanwhile: choose again.
    Another,
}

impl Journal {
    /// Closes `at` in the present epoch, which the caller takes to be `epoch`, and in which `at` lies.
    pub fn close(&self, at: Timestamp, epoch: u32) -> Result<Closed> {
        let mut state = self.room(0, Claim::Upkeep)?;
        if state.epochs.current() != epoch {
            return Ok(Closed::Another);
        }
        state.floor = state.floor.max(at.next());
        let last = Seq(state.next_seq.0 - 1);
        if state.last_ts > at {
            return Ok(Closed::Behind { last });
        }
        let wall = state.reading.wall;
        let ts = wall.max(state.floor);
        let pin = push(&mut state, (ts, wall), Event::Pin { at, seq: last, kept: false }, &[], 0)?;
        Ok(Closed::Pinned { pin: pin.seq })
    }

    /// Says that `at` means the state after `seq`, unless an earlier pin says otherwise.
    /// The Seq of the pin itself.
    pub fn pin(&self, at: Timestamp, seq: Seq) -> Result<Seq> {
        let mut state = self.room(0, Claim::Upkeep)?;
        let wall = state.reading.wall;
        let ts = wall.max(state.last_ts).max(state.floor);
        Ok(push(&mut state, (ts, wall), Event::Pin { at, seq, kept: false }, &[], 0)?.seq)
    }
}
