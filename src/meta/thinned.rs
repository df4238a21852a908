//! Which instants remain: a fold of the Thin events.
//!
//! - Every instant after `upto` remains; of those at or before it, the ones listed.
//! - What went never comes back: a point is added only when `upto` moves over it. So replaying any suffix of the events
//!   that reaches the end onto a newer state gives the same state.

use crate::format::event::{Event, Record};
use crate::format::sections::ThinnedState;
use crate::types::Seq;
use std::collections::BTreeSet;

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thinned {
    upto: Seq,
    kept: BTreeSet<Seq>,
}

impl Thinned {
    /// As a checkpoint has it.
    pub fn of(states: &[ThinnedState]) -> Thinned {
        states.first().map_or_else(Thinned::default, |state| Thinned {
            upto: state.upto,
            kept: state.kept.iter().copied().collect(),
        })
    }

    /// As a checkpoint keeps it.
    pub fn states(&self) -> Vec<ThinnedState> {
        if self.upto == Seq::ZERO {
            return Vec::new();
        }
        vec![ThinnedState { upto: self.upto, kept: self.kept.iter().copied().collect() }]
    }

    /// Takes an event in; others than Thin change nothing.
    pub fn fold(&mut self, record: &Record) {
        if let Event::Thin { upto, kept, gone } = &record.event {
            self.thin(*upto, kept, gone);
        }
    }

    /// What a Thin event says.
    pub fn thin(&mut self, upto: Seq, kept: &[Seq], gone: &[Seq]) {
        let known = self.upto;
        self.kept.extend(kept.iter().filter(|seq| **seq > known && **seq <= upto));
        self.upto = known.max(upto);
        for seq in gone {
            self.kept.remove(seq);
        }
    }

    /// Every instant after this one remains.
    pub fn upto(&self) -> Seq {
        self.upto
    }

    /// The instants at or before it that remain.
    pub fn kept(&self) -> &BTreeSet<Seq> {
        &self.kept
    }

    /// Whether an instant remains.
    pub fn keeps(&self, at: Seq) -> bool {
        at > self.upto || self.kept.contains(&at)
    }

    /// The instant that stands for one: itself, or the last before it that remains; `None` when history begins later.
    pub fn at_or_before(&self, at: Seq) -> Option<Seq> {
        if at > self.upto {
            return Some(at);
        }
        self.kept.range(..=at).next_back().copied()
    }

    /// The first instant at or after one that remains.
    pub fn at_or_after(&self, at: Seq) -> Seq {
        if at > self.upto {
            return at;
        }
        self.kept.range(at..).next().copied().unwrap_or(self.upto.next())
    }

    /// Where history begins; zero before the first thinning.
    pub fn first(&self) -> Seq {
        if self.upto == Seq::ZERO {
            return Seq::ZERO;
        }
        self.at_or_after(Seq::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(list: &[u64]) -> Vec<Seq> {
        list.iter().map(|seq| Seq(*seq)).collect()
    }

    #[test]
    fn what_went_never_comes_back_and_replays_change_nothing() {
        let mut thinned = Thinned::default();
        assert_eq!((thinned.first(), thinned.at_or_before(Seq(7))), (Seq::ZERO, Some(Seq(7))));
        let events = [
            (Seq(10), seqs(&[2, 5, 10]), seqs(&[])),
            (Seq(20), seqs(&[15]), seqs(&[2])),
            (Seq(20), seqs(&[]), seqs(&[10, 15])),
            (Seq(30), seqs(&[4, 30]), seqs(&[])),
        ];
        for (upto, kept, gone) in &events {
            thinned.thin(*upto, kept, gone);
        }
        assert_eq!(thinned.kept().iter().copied().collect::<Vec<_>>(), seqs(&[5, 30]));
        for from in 0..events.len() {
            let mut again = Thinned::of(&thinned.states());
            for (upto, kept, gone) in &events[from..] {
                again.thin(*upto, kept, gone);
            }
            assert_eq!(again, thinned);
        }
        let before = |at| thinned.at_or_before(Seq(at));
        assert_eq!(
            [before(4), before(29), before(30), before(31)],
            [None, Some(Seq(5)), Some(Seq(30)), Some(Seq(31))]
        );
        let after = |at| thinned.at_or_after(Seq(at)).0;
        assert_eq!([after(1), after(6), after(31)], [5, 30, 31]);
        assert!(thinned.keeps(Seq(5)) && !thinned.keeps(Seq(6)) && thinned.keeps(Seq(99)));
        assert_eq!(thinned.first(), Seq(5));
        thinned.thin(Seq(30), &[], &seqs(&[5, 30]));
        assert_eq!(thinned.first(), Seq(31));
    }
}
