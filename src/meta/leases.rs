//! Leases: instants that are kept for a while because somebody was told of them. A fold of the Lease events.
//!
//! - One lease to an instant; it is called by the instant's Seq. Of its events the last one decides.
//! - A lease counts time in which Weft runs, by a clock that nobody can set. An event says how long it runs from the
//!   event's own time on. Between events history's time counts, within an epoch and a session only: what a clock that
//!   was set, or a daemon that was away, seems to have taken is not counted. So no lease ends early; after a crash it
//!   may last longer, by what passed since the last event.
//! - `due` and `now` are µs of one such clock: at replay of [`Leases`]'s own, afterwards ([`Leases::start`]) of the
//!   machine's.

use crate::format::event::{Event, Record};
use crate::format::sections::LeaseState;
use crate::types::{Seq, Timestamp};
use std::collections::BTreeMap;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Its last event; zero: it could not be written.
    pub event: Seq,
    /// When it ends.
    pub due_us: i64,
    /// Who asked for it.
    pub by: String,
}

/// All of them, by the instant they keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    held: BTreeMap<Seq, Lease>,
    /// Time that passed while replaying.
    passed_us: i64,
    last: Option<Timestamp>,
}

impl Leases {
    /// As a checkpoint has them, written at this time of history.
    pub fn of(states: &[LeaseState], last: Timestamp) -> Leases {
        let lease = |state: &LeaseState| {
            let by = String::from_utf8_lossy(&state.by).into_owned();
            (state.at, Lease { event: state.event, due_us: state.left_us, by })
        };
        Leases { held: states.iter().map(lease).collect(), passed_us: 0, last: Some(last) }
    }

    /// As a checkpoint keeps them.
    pub fn states(&self, now_us: i64) -> Vec<LeaseState> {
        let state = |(at, lease): (&Seq, &Lease)| LeaseState {
            at: *at,
            event: lease.event,
            left_us: lease.due_us.saturating_sub(now_us),
            by: lease.by.clone().into_bytes(),
        };
        self.held.iter().map(state).filter(|state| state.left_us > 0).collect()
    }

    /// Takes in a record of the journal, in order; time passes with every one.
    pub fn replay(&mut self, record: &Record) {
        let before = self.last.replace(record.ts).unwrap_or(record.ts);
        if !matches!(record.event, Event::Epoch { .. } | Event::Session { .. }) {
            self.passed_us = self.passed_us.saturating_add(record.ts.0.saturating_sub(before.0).max(0));
        }
        self.fold(record, self.passed_us);
    }

    /// What an event of this moment says; others than leases change nothing.
    pub fn fold(&mut self, record: &Record, now_us: i64) {
        let Event::Lease { at, until, by, .. } = &record.event else { return };
        if self.held.get(at).is_some_and(|known| known.event >= record.seq) {
            return;
        }
        let left_us = until.0.saturating_sub(record.ts.0);
        if left_us <= 0 {
            self.held.remove(at);
            return;
        }
        let by = String::from_utf8_lossy(by).into_owned();
        let lease = Lease { event: record.seq, due_us: now_us.saturating_add(left_us), by };
        self.held.insert(*at, lease);
    }

    /// From here on the clock is another one, which reads so much now.
    pub fn start(&mut self, now_us: i64) {
        for lease in self.held.values_mut() {
            let left_us = lease.due_us.saturating_sub(self.passed_us);
            lease.due_us = now_us.saturating_add(left_us);
        }
        (self.passed_us, self.last) = (0, None);
        self.sweep(now_us);
    }

    /// Holds an instant although no event could be written of it: until this process ends, at most.
    pub fn hold(&mut self, at: Seq, due_us: i64, by: String) {
        if self.held.get(&at).is_none_or(|known| known.due_us < due_us) {
            self.held.insert(at, Lease { event: Seq::ZERO, due_us, by });
        }
    }

    /// Forgets those that have ended.
    pub fn sweep(&mut self, now_us: i64) {
        self.held.retain(|_, lease| lease.due_us > now_us);
    }

    pub fn get(&self, at: Seq) -> Option<&Lease> {
        self.held.get(&at)
    }

    /// By rising instant.
    pub fn iter(&self) -> impl Iterator<Item = (Seq, &Lease)> {
        self.held.iter().map(|(at, lease)| (*at, lease))
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// The event that grants a lease, lengthens it, or with nothing left ends it.
pub fn event(at: Seq, now: Timestamp, left_us: i64, by: &str) -> Event {
    Event::Lease { id: at.0, at, until: Timestamp(now.0.saturating_add(left_us)), by: by.as_bytes().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at_time(seq: u64, secs: i64, event: impl FnOnce(Timestamp) -> Event) -> Record {
        let ts = Timestamp(secs * SECOND);
        Record { seq: Seq(seq), ts, wall: ts, event: event(ts) }
    }

    fn lease(seq: u64, secs: i64, at: u64, left_secs: i64) -> Record {
        at_time(seq, secs, |ts| event(Seq(at), ts, left_secs * SECOND, "test"))
    }

    fn left(leases: &Leases, now_us: i64) -> Vec<(u64, i64)> {
        leases.states(now_us).iter().map(|state| (state.at.0, state.left_us / SECOND)).collect()
    }

    #[test]
    fn time_counts_within_an_epoch_and_a_session_only() {
        let mut leases = Leases::of(&[], Timestamp(0));
        let records = [
            lease(1, 100, 7, 600),
            at_time(2, 200, |_| Event::Sync),
            // Set to far in the future, and back.
            at_time(3, 3_000_000_000, |_| Event::Epoch { epoch: 1, wall: Timestamp(0) }),
            at_time(4, 3_000_000_050, |_| Event::Sync),
            at_time(5, 10, |_| Event::Epoch { epoch: 2, wall: Timestamp(0) }),
            at_time(6, 60, |_| Event::Sync),
            // The daemon was away for a day.
            at_time(7, 86_400, |_| Event::Session { writeback: false }),
            at_time(8, 86_500, |_| Event::Sync),
        ];
        records.iter().for_each(|record| leases.replay(record));
        leases.start(5 * SECOND);
        assert_eq!(left(&leases, 5 * SECOND), [(7, 600 - 100 - 50 - 50 - 100)]);
        assert!(left(&leases, 306 * SECOND).is_empty());
        leases.sweep(304 * SECOND);
        assert_eq!(leases.len(), 1);
        leases.sweep(305 * SECOND);
        assert!(leases.is_empty());
    }

    #[test]
    fn the_last_event_decides_and_older_ones_replayed_onto_a_checkpoint_change_nothing() {
        let records = [lease(3, 10, 1, 60), lease(4, 20, 2, 60), lease(5, 30, 1, 60), lease(6, 40, 2, 0)];
        let mut all = Leases::of(&[], Timestamp(0));
        records.iter().for_each(|record| all.replay(record));
        assert_eq!(left(&all, all.passed_us), [(1, 50)]);
        let checkpoint = all.states(all.passed_us);
        for from in 0..=records.len() {
            let mut again = Leases::of(&checkpoint, Timestamp(40 * SECOND));
            records[from..].iter().for_each(|record| again.replay(record));
            assert_eq!(again.get(Seq(1)).unwrap().event, Seq(5));
            assert_eq!(again.len(), 1, "from {from}");
        }
    }

    #[test]
    fn one_that_could_not_be_written_is_held_all_the_same_and_never_shortens() {
        let mut leases = Leases::default();
        leases.fold(&lease(3, 10, 1, 60), 0);
        leases.hold(Seq(1), 30 * SECOND, "later".into());
        assert_eq!(leases.get(Seq(1)).unwrap().due_us, 60 * SECOND);
        leases.hold(Seq(1), 90 * SECOND, "later".into());
        leases.hold(Seq(2), 90 * SECOND, "new".into());
        assert_eq!(
            (left(&leases, 0), leases.get(Seq(2)).unwrap().event),
            (vec![(1, 90), (2, 90)], Seq::ZERO)
        );
    }
}
