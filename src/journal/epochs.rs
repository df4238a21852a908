//! Clock epochs: the stretches of history between two steps of the wall clock.
//!
//! - Time never falls within an epoch; across epochs it may. An Epoch event is the first of its epoch and of its group.
//! - A small step is absorbed: time stands still, or runs ahead, by less than the limit.
//! - So time is never ahead of the wall clock by more than the limit, whatever the clock once said.

use super::reserve::Claim;
use super::state::{State, push};
use super::writer::Journal;
use crate::clock::Reading;
use crate::error::Result;
use crate::format::event::{Event, Record};
use crate::format::sections::EpochState;
use crate::sync::MutexGuard;
use crate::types::{Seq, Timestamp};

/// A clock this far ahead of the newest event at the start of a session is not taken on trust: an epoch begins.
const IMPLAUSIBLE_US: i64 = 366 * 86_400 * 1_000_000;

/// All epochs of a journal, by rising Seq. The first is number 0 and goes without saying.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs(Vec<EpochState>);

impl Epochs {
    /// Those that a checkpoint lists.
    pub fn new(listed: &[EpochState]) -> Epochs {
        Epochs(listed.to_vec())
    }

    /// All but the first.
    pub fn list(&self) -> &[EpochState] {
        &self.0
    }

    /// Number of the newest.
    pub fn current(&self) -> u32 {
        self.0.last().map_or(0, |newest| newest.epoch)
    }

    /// Number of the epoch that a Seq is in.
    pub fn of(&self, seq: Seq) -> u32 {
        let after = self.0.partition_point(|epoch| epoch.seq <= seq);
        after.checked_sub(1).and_then(|at| self.0.get(at)).map_or(0, |epoch| epoch.epoch)
    }

    /// Takes in a record of the journal, in order; one that is listed already is not listed again.
    pub fn replay(&mut self, record: &Record) {
        if let Event::Epoch { epoch, wall } = record.event
            && self.0.last().is_none_or(|newest| newest.seq < record.seq)
        {
            self.0.push(EpochState { epoch, seq: record.seq, ts: record.ts, wall });
        }
    }

    /// Only what begins at or before a Seq.
    fn cut(&mut self, last: Seq) {
        self.0.retain(|epoch| epoch.seq <= last);
    }
}

/// The journal's time, at a moment.
#[derive(Clone, Debug)]
pub struct TimeNow {
    /// Now, as history counts it: no event is later.
    pub now: Timestamp,
    pub epochs: Epochs,
    /// Last Seq that may be shown: the last given, or after a failure the last durable one.
    pub last: Seq,
    /// Nothing can be written any more.
    pub stopped: bool,
    /// How far the wall clock is behind history, in µs: a small step back that is being waited out.
    pub behind_us: i64,
}

impl Journal {
    /// The present time. A step of the clock that nobody has noticed begins its epoch now.
    ///
    /// # Errors
    /// When the Epoch event cannot be appended (a full disk).
    pub fn time(&self) -> Result<TimeNow> {
        let mut state = self.state.lock();
        if state.failed.is_some() {
            // No event can come, so no epoch can begin.
            state.reading = Reading::take(&*self.clock);
        } else if self.read_clock(&mut state) {
            drop(state);
            state = self.room(0, Claim::Upkeep)?;
        }
        Ok(now(&state))
    }

    /// About now, for what is no history: notices no step, and cannot fail.
    pub fn about_now(&self) -> Timestamp {
        self.clock.now().max(self.last_ts())
    }

    /// µs of the clock that nobody can set: for measuring, within this process.
    pub fn monotonic_us(&self) -> i64 {
        i64::try_from(self.clock.monotonic().as_micros()).unwrap_or(i64::MAX)
    }

    /// Notices a step of the clock also when nothing is written.
    pub fn check_clock(&self) -> Result<()> {
        self.time().map(|_| ())
    }

    /// Reads the clocks. `true`: the wall clock was stepped, and the epoch must begin before anything else is
    /// appended; the reading then stays as it was, so that the next one sees the step as well.
    pub(super) fn read_clock(&self, state: &mut State) -> bool {
        let reading = Reading::take(&*self.clock);
        let limit = self.config.clock_step_us;
        let ahead = state.last_ts.max(state.floor).0.saturating_sub(reading.wall.0);
        let step = reading.step_since(&state.reading);
        if state.doubtful || ahead > limit || step.saturating_abs() > limit {
            return true;
        }
        state.reading = reading;
        false
    }

    /// Begins an epoch. The group in memory is empty: time may fall only between groups.
    pub(super) fn begin_epoch(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        let reading = Reading::take(&*self.clock);
        let wall = reading.wall;
        let epoch = state.epochs.current().saturating_add(1);
        let event = Event::Epoch { epoch, wall };
        let before = state.last_ts;
        let appended = push(state, (wall, wall), event, &[], 0)?;
        state.epochs.0.push(EpochState { epoch, seq: appended.seq, ts: wall, wall });
        state.floor = wall;
        state.reading = reading;
        state.doubtful = false;
        tracing::warn!(
            epoch,
            seq = appended.seq.0,
            "the wall clock was set: the event before has {before}, it is {wall} now. A new clock epoch begins; a time \
             that occurs in both is ambiguous (`weft resolve TIME` tells)"
        );
        Ok(())
    }
}

/// At the start of a session: whether the clock is so far ahead that it may be wrong.
pub(super) fn is_doubtful(last_seq: Seq, last_ts: Timestamp, wall: Timestamp) -> bool {
    last_seq > Seq::ZERO && wall.0.saturating_sub(last_ts.0) > IMPLAUSIBLE_US
}

fn now(state: &State) -> TimeNow {
    let stopped = state.failed.is_some();
    let last = if stopped { state.durable } else { Seq(state.next_seq.0 - 1) };
    let mut epochs = state.epochs.clone();
    if stopped {
        epochs.cut(last);
    }
    let wall = state.reading.wall;
    let behind_us = state.last_ts.0.saturating_sub(wall.0).max(0);
    TimeNow { now: wall.max(state.last_ts), epochs, last, stopped, behind_us }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seq_belongs_to_the_epoch_that_began_before_it() {
        let mut epochs = Epochs::default();
        assert_eq!((epochs.current(), epochs.of(Seq(9))), (0, 0));
        for (epoch, seq) in [(1, 5), (2, 9)] {
            let event = Event::Epoch { epoch, wall: Timestamp(3) };
            let record = Record { seq: Seq(seq), ts: Timestamp(3), wall: Timestamp(3), event };
            epochs.replay(&record);
            epochs.replay(&record);
        }
        assert_eq!((epochs.list().len(), epochs.current()), (2, 2));
        let of: Vec<u32> = [4, 5, 8, 9, 10].iter().map(|seq| epochs.of(Seq(*seq))).collect();
        assert_eq!(of, [0, 1, 1, 2, 2]);
        epochs.cut(Seq(8));
        assert_eq!(epochs.current(), 1);
    }

    #[test]
    fn only_an_implausible_clock_is_doubted() {
        let year = IMPLAUSIBLE_US;
        assert!(!is_doubtful(Seq(0), Timestamp(0), Timestamp(9 * year)));
        assert!(!is_doubtful(Seq(1), Timestamp(5), Timestamp(year)));
        assert!(is_doubtful(Seq(1), Timestamp(5), Timestamp(2 * year)));
    }
}
