//! What a retention leaves of history: up to where it is thinned, and which instants remain there.
//!
//! - Age is time that passed, as history dates it: steps of the clock do not count.
//! - The time of which every write is kept begins with the state that was there then, however old that is.
//! - A tier keeps the last event at or before each multiple of its period, by the clock of each epoch. The multiples of a
//!   coarser tier are multiples of a finer one, so that what a coarser tier wants is there.
//! - What is thinned already cannot come back: where a point is gone, the one before it stands for it.

use super::resolve::{Resolver, Span};
use crate::error::{Error, Result};
use crate::index::GroupPlace;
use crate::meta::retention::{Retention, Tier};
use crate::meta::thinned::Thinned;
use crate::types::{Seq, Timestamp};
use std::collections::BTreeSet;

/// What is to remain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every instant after this one.
    pub upto: Seq,
    /// Of those at or before it.
    pub points: BTreeSet<Seq>,
}

/// The last event at or before a time.
enum Last {
    Event(Seq, Timestamp),
    /// One of a group that cannot be read. The event before the group stands for it, and what is kept of the group stays.
    Within(GroupPlace),
}

impl Last {
    fn seq(&self) -> Seq {
        match self {
            Last::Event(seq, _) => *seq,
            Last::Within(place) => Seq(place.first_seq.0.saturating_sub(1)),
        }
    }

    /// No event after it is earlier.
    fn ts(&self) -> Timestamp {
        match self {
            Last::Event(_, ts) => *ts,
            Last::Within(place) => place.first_ts,
        }
    }
}

impl Resolver<'_> {
    /// What a retention leaves as of now. Nothing after `limit` is thinned, nor is what was thinned made whole.
    /// What cannot be read on the way is told to `unread`, and stays.
    pub fn plan(
        &self,
        retention: &Retention,
        thinned: &Thinned,
        limit: Seq,
        unread: &mut dyn FnMut(Error),
    ) -> Result<Plan> {
        let mut plan = Plan { upto: thinned.upto(), points: thinned.kept().clone() };
        let Some(all_us) = retention.all_us else { return Ok(plan) };
        let step = retention.tiers.first().map_or(1, |tier| tier.every_us);
        let Some((span, at)) = self.back(all_us)? else { return Ok(plan) };
        let upto = self.last_at(&span, floor(at, step), unread)?.map_or(Seq::ZERO, |last| last.seq());
        let mut points = BTreeSet::new();
        let mut from_us = all_us;
        for tier in &retention.tiers {
            let to_us = tier.for_us.map(|span| from_us.saturating_add(span));
            self.tier_points(tier, (from_us, to_us), thinned, &mut points, unread)?;
            let Some(to_us) = to_us else { break };
            from_us = to_us;
        }
        // Up to a point, or the instants between it and the next multiple would be lost.
        plan.upto = match (upto > limit, retention.tiers.is_empty()) {
            (false, _) => upto,
            (true, true) => limit,
            (true, false) => points.range(..=limit).next_back().copied().unwrap_or(Seq::ZERO),
        };
        // Where every write is to be kept from now on, what was thinned before keeps what it has.
        if plan.upto < thinned.upto() {
            points.extend(thinned.kept().range(plan.upto.next()..));
            plan.upto = thinned.upto();
        }
        // What was there when the time began of which all is kept: until the first write after it, that is the present.
        if plan.upto >= self.birth.0 && thinned.keeps(plan.upto) {
            points.insert(plan.upto);
        }
        plan.points = points.into_iter().filter(|point| *point <= plan.upto).collect();
        Ok(plan)
    }

    /// µs of time that passed since an event that was at `began`: steps of the clock do not count.
    pub fn age_us(&self, (seq, began): (Seq, Timestamp)) -> Result<u64> {
        let time = self.journal.time()?;
        let epoch = time.epochs.of(seq);
        let mut age = 0u64;
        for span in self.spans(&time).into_iter().filter(|span| span.epoch >= epoch) {
            let start = if span.epoch == epoch { span.start.max(began) } else { span.start };
            let passed = self.end(&span, &time)?.0.saturating_sub(start.0);
            age = age.saturating_add(u64::try_from(passed).unwrap_or(0));
        }
        Ok(age)
    }

    /// The epoch and the time in it of so many µs ago; `None` before history.
    fn back(&self, ago_us: u64) -> Result<Option<(Span, Timestamp)>> {
        let time = self.journal.time()?;
        let ago_us = i64::try_from(ago_us).unwrap_or(i64::MAX);
        self.walk_back(Timestamp(time.now.0.saturating_sub(ago_us)), &time)
    }

    /// Adds the points of a tier whose span begins and ends so many µs ago.
    fn tier_points(
        &self,
        tier: &Tier,
        (from_us, to_us): (u64, Option<u64>),
        thinned: &Thinned,
        points: &mut BTreeSet<Seq>,
        unread: &mut dyn FnMut(Error),
    ) -> Result<()> {
        let Some((newest, upto)) = self.back(from_us)? else { return Ok(()) };
        let oldest = match to_us {
            Some(ago_us) => self.back(ago_us)?,
            None => None,
        };
        let time = self.journal.time()?;
        for span in self.spans(&time).into_iter().rev().filter(|span| span.epoch <= newest.epoch) {
            if oldest.is_some_and(|(oldest, _)| span.epoch < oldest.epoch) {
                break;
            }
            let end = if span.epoch == newest.epoch { upto } else { self.end(&span, &time)? };
            let after = match oldest {
                Some((oldest, after)) if oldest.epoch == span.epoch => after,
                _ => Timestamp(span.start.0.saturating_sub(1)),
            };
            self.span_points(&span, tier.every_us, (after, end), thinned, points, unread)?;
        }
        Ok(())
    }

    /// Adds the last events at or before the multiples of a period in `(after, end]` of an epoch.
    fn span_points(
        &self,
        span: &Span,
        every_us: u64,
        (after, end): (Timestamp, Timestamp),
        thinned: &Thinned,
        points: &mut BTreeSet<Seq>,
        unread: &mut dyn FnMut(Error),
    ) -> Result<()> {
        let mut at = floor(end, every_us);
        while at > after {
            let Some(last) = self.last_at(span, at, unread)? else { return Ok(()) };
            // Before history nothing can be shown.
            let point = thinned.at_or_before(last.seq()).filter(|point| *point >= self.birth.0);
            points.extend(point);
            if let Last::Within(place) = last {
                points.extend(thinned.kept().range(place.first_seq..=place.last_seq));
            }
            // Multiples between this event and the last one mean the same.
            at = floor(Timestamp(at.0.min(last.ts().0).saturating_sub(1)), every_us);
        }
        Ok(())
    }

    /// The last event at or before a time in an epoch, as far as the group that has it can be read.
    fn last_at(&self, span: &Span, at: Timestamp, unread: &mut dyn FnMut(Error)) -> Result<Option<Last>> {
        let Some(place) = self.index.group_at_time(span.epoch, at)? else { return Ok(None) };
        match self.last_of(place, |record| record.ts <= at) {
            Ok(record) => Ok(record.map(|record| Last::Event(record.seq, record.ts))),
            Err(error) if error.is_of_place() => {
                unread(error);
                Ok(Some(Last::Within(place)))
            }
            Err(error) => Err(error),
        }
    }
}

/// The last multiple of a period at or before a time.
fn floor(at: Timestamp, every_us: u64) -> Timestamp {
    let every = i64::try_from(every_us).unwrap_or(i64::MAX).max(1);
    Timestamp(at.0.div_euclid(every).saturating_mul(every))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiples_are_those_of_the_clock_before_and_after_the_epoch() {
        let floors = [59, 60, 61, -1, -60].map(|at| floor(Timestamp(at), 60).0);
        assert_eq!(floors, [0, 60, 60, -60, -60]);
        assert_eq!(floor(Timestamp(7), 0), Timestamp(7));
    }
}
