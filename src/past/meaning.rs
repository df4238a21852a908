//! What a time means, told from the events themselves, one after the other: the rule of `resolve` without an index.

use crate::format::event::{Event, Record};
use crate::types::{Seq, Timestamp};

/// What one clock epoch showed.
struct Shown {
    first: Timestamp,
    last: Timestamp,
    /// Its last event at or before the time.
    answer: Seq,
}

/// See the head of this file.
pub struct Meaning {
    at: Timestamp,
    /// The first pin, and whether it is a kept one.
    pinned: Option<(Seq, bool)>,
    epochs: Vec<Shown>,
}

impl Meaning {
    pub fn new(at: Timestamp) -> Meaning {
        Meaning { at, pinned: None, epochs: Vec::new() }
    }

    /// Takes the next event in.
    pub fn fold(&mut self, record: &Record) {
        if let Event::Pin { at, seq, kept } = record.event
            && at == self.at
            && self.pinned.is_none_or(|(_, had)| kept && !had)
        {
            self.pinned = Some((seq, kept));
        }
        if self.epochs.is_empty() || matches!(record.event, Event::Epoch { .. }) {
            self.epochs.push(Shown { first: record.ts, last: record.ts, answer: Seq::ZERO });
        }
        if let Some(epoch) = self.epochs.last_mut() {
            epoch.last = record.ts;
            if record.ts <= self.at {
                epoch.answer = record.seq;
            }
        }
    }

    /// The last event at or before the time; zero when there is none.
    pub fn seq(&self) -> Seq {
        if let Some((seq, _)) = self.pinned {
            return seq;
        }
        let mut begun = self.epochs.iter().rev().filter(|epoch| epoch.first <= self.at);
        let newest = begun.clone().next();
        let shown = begun.find(|epoch| self.at <= epoch.last).or(newest);
        shown.map_or(Seq::ZERO, |epoch| epoch.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(at: i64, events: &[(i64, Option<Event>)]) -> u64 {
        let mut meaning = Meaning::new(Timestamp(at));
        for ((ts, event), seq) in events.iter().zip(1..) {
            let event = event.clone().unwrap_or(Event::Sync);
            meaning.fold(&Record { seq: Seq(seq), ts: Timestamp(*ts), wall: Timestamp(*ts), event });
        }
        meaning.seq().0
    }

    #[test]
    fn the_newest_epoch_that_showed_the_time_counts_unless_it_is_pinned() {
        let epoch = |epoch| Some(Event::Epoch { epoch, wall: Timestamp(0) });
        let pin = |seq, kept| Some(Event::Pin { at: Timestamp(23), seq: Seq(seq), kept });
        let mut events = vec![(10, None), (20, None), (30, None), (15, epoch(1)), (22, None), (90, epoch(2))];
        let all: Vec<u64> =
            [9, 10, 14, 15, 21, 22, 23, 30, 31, 89, 90, 99].map(|at| means(at, &events)).to_vec();
        assert_eq!(all, [0, 1, 1, 4, 4, 5, 2, 3, 5, 5, 6, 6]);
        events.push((91, pin(4, false)));
        events.push((92, pin(5, false)));
        assert_eq!((means(23, &events), means(22, &events)), (4, 5));
        events.push((93, pin(3, true)));
        events.push((94, pin(2, true)));
        assert_eq!(means(23, &events), 3);
    }
}
