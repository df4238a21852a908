//! From an instant as asked for to a Seq that can never mean anything else (docs/decisions/0006).
//!
//! - A time means the last event at or before it, in one clock epoch: the newest that has reached the time; where
//!   none shows it (the clock was set over it), the newest that began before it.
//! - The first answer is an event itself, a pin, durable before it is given: whatever the clock shows later, the pin
//!   is what counts. Of pins that were made at once the first in the journal counts, for all who asked.
//! - Nothing that is not durable is ever shown.

use super::indexer::Indexer;
use super::kept::Kept;
use super::when::Instant;
use crate::error::{Error, Kind, Result};
use crate::format::event::Record;
use crate::index::{GroupPlace, Index};
use crate::journal::epochs::TimeNow;
use crate::journal::reader::records_at;
use crate::journal::{Closed, Journal};
use crate::meta::thinned::Thinned;
use crate::sync::Mutex;
use crate::types::{Seq, Timestamp};

/// The four-way answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    Found(Found),
    /// Later than now, or a Seq that is not there yet.
    Future {
        now: Timestamp,
        last: Seq,
    },
    /// Before history began.
    Before {
        first: Timestamp,
        seq: Seq,
    },
    /// Was there; retention took it.
    Pruned {
        oldest: Timestamp,
    },
}

/// A resolved instant: closed, durable, never to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The last event of the instant that is shown.
    pub seq: Seq,
    /// The last event at or before the request: later than `seq` where thinning took it, and all between.
    pub meant: Seq,
    /// Time of the event at `seq`.
    pub actual: Timestamp,
    /// Clock epoch of that event.
    pub epoch: u32,
}

/// What resolving needs.
pub struct Resolver<'a> {
    pub journal: &'a Journal,
    pub index: &'a Index,
    pub indexer: &'a Indexer,
    pub kept: &'a Kept,
    pub thinned: &'a Mutex<Thinned>,
    pub birth: (Seq, Timestamp),
    /// What was durable when the session began: pins of earlier sessions are at or before it.
    pub begun: Seq,
    /// Whether to wait for an index that is made anew, however long that takes.
    pub patient: bool,
}

/// The part of history that one clock epoch dates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) epoch: u32,
    pub(super) start: Timestamp,
    /// Its last event; the newest epoch has none yet.
    pub(super) last: Option<Seq>,
}

enum Choice {
    In(Span),
    Future,
    Before,
}

impl Resolver<'_> {
    /// Fixes the instant, durably, and says which Seq it is.
    pub fn resolve(&self, instant: Instant) -> Result<Resolution> {
        match instant {
            Instant::Time(at) => self.at_time(at),
            Instant::Seq(seq) => self.at_seq(seq),
        }
    }

    /// Resolves what was so many µs ago, as time passed: steps of the clock on the way do not count. The instant to name
    /// it by is told with it: a Seq, where the time as a name means something else.
    pub fn resolve_ago(&self, ago_us: i64) -> Result<(Resolution, Instant)> {
        loop {
            let time = self.journal.time()?;
            let at = Timestamp(time.now.0.saturating_sub(ago_us.max(0)));
            let Some((span, at)) = self.walk_back(at, &time)? else {
                return Ok((self.before(), Instant::Time(at)));
            };
            let Some((seq, pin)) = self.settle(at, &span, &time)? else { continue };
            let means = match (self.pinned(at)?, self.choose(at, &time)?) {
                (Some(pinned), _) => pinned,
                (None, Choice::In(chosen)) if chosen.epoch == span.epoch => self.fix(at, seq, pin, &time)?,
                _ => Seq::ZERO,
            };
            let named = if means == seq { Instant::Time(at) } else { Instant::Seq(seq) };
            return Ok((self.at_seq(seq)?, named));
        }
    }

    /// The epoch, and the time in it, that `at` comes to when it was reckoned back from now by the present clock.
    pub(super) fn walk_back(&self, mut at: Timestamp, time: &TimeNow) -> Result<Option<(Span, Timestamp)>> {
        let mut later: Option<Span> = None;
        for span in self.spans(time).into_iter().rev() {
            if let Some(later) = later {
                let beyond = later.start.0.saturating_sub(at.0);
                at = Timestamp(self.end(&span, time)?.0.saturating_sub(beyond));
            }
            if span.start <= at {
                return Ok(Some((span, at)));
            }
            later = Some(span);
        }
        Ok(None)
    }

    /// The last event before a time, by what the time means now. Fixes nothing.
    pub fn last_before(&self, at: Timestamp) -> Result<Seq> {
        let at = Timestamp(at.0.saturating_sub(1));
        if let Some(seq) = self.pinned(at)? {
            return Ok(seq);
        }
        let time = self.journal.time()?;
        match self.choose(at, &time)? {
            Choice::Before => Ok(Seq::ZERO),
            Choice::Future => Ok(time.last),
            Choice::In(span) => {
                self.index_to(span.last.unwrap_or(time.last))?;
                Ok(self.last_event(&span, at)?.map_or(Seq::ZERO, |record| record.seq))
            }
        }
    }

    /// What a time could mean: the state in each clock epoch that showed it, oldest first. Fixes nothing.
    pub fn candidates(&self, at: Timestamp) -> Result<Vec<Found>> {
        let time = self.journal.time()?;
        let mut candidates = Vec::new();
        for span in self.spans(&time) {
            if span.start > at || at > self.end(&span, &time)? {
                continue;
            }
            self.index_to(span.last.unwrap_or(time.last))?;
            if let Some(record) = self.last_event(&span, at)? {
                let seq = record.seq;
                candidates.push(Found { seq, meant: seq, actual: record.ts, epoch: span.epoch });
            }
        }
        Ok(candidates)
    }

    fn at_time(&self, at: Timestamp) -> Result<Resolution> {
        match self.try_at_time(at) {
            // Writing stopped on the way; what is durable can still be shown.
            Err(error) if error.kind == Kind::Stopped => self.try_at_time(at),
            other => other,
        }
    }

    fn try_at_time(&self, at: Timestamp) -> Result<Resolution> {
        if let Some(seq) = self.pinned(at)? {
            return self.at_seq(seq);
        }
        loop {
            let time = self.journal.time()?;
            let span = match self.choose(at, &time)? {
                Choice::In(span) => span,
                Choice::Future => return Ok(Resolution::Future { now: time.now, last: time.last }),
                Choice::Before => return Ok(self.before()),
            };
            if let Some((seq, pin)) = self.settle(at, &span, &time)? {
                return self.at_seq(self.fix(at, seq, pin, &time)?);
            }
        }
    }

    /// What was answered before.
    fn pinned(&self, at: Timestamp) -> Result<Option<Seq>> {
        self.index_to(self.begun)?;
        match self.index.pin(at)? {
            Some(seq) => Ok(Some(seq)),
            None => Ok(self.kept.get(at)),
        }
    }

    pub(super) fn spans(&self, time: &TimeNow) -> Vec<Span> {
        let mut spans = vec![Span { epoch: 0, start: self.birth.1, last: None }];
        for epoch in time.epochs.list() {
            if epoch.seq <= self.birth.0 {
                // It began while DATA was being taken in: there is nothing to show from before.
                spans.clear();
            }
            if let Some(before) = spans.last_mut() {
                before.last = Some(Seq(epoch.seq.0 - 1));
            }
            let start = if spans.is_empty() { epoch.ts.max(self.birth.1) } else { epoch.ts };
            spans.push(Span { epoch: epoch.epoch, start, last: None });
        }
        spans
    }

    fn choose(&self, at: Timestamp, time: &TimeNow) -> Result<Choice> {
        let spans = self.spans(time);
        let mut gap = None;
        for span in spans.into_iter().rev().filter(|span| span.start <= at) {
            if at <= self.end(&span, time)? {
                return Ok(Choice::In(span));
            }
            gap = gap.or(Some(span));
        }
        Ok(match gap {
            _ if at > time.now => Choice::Future,
            Some(span) => Choice::In(span),
            None => Choice::Before,
        })
    }

    /// The last time that an epoch has shown.
    pub(super) fn end(&self, span: &Span, time: &TimeNow) -> Result<Timestamp> {
        let last = match span.last {
            Some(last) => last,
            None if !time.stopped => return Ok(time.now),
            // A later epoch may have begun and not become durable: now may be its time.
            None => time.last,
        };
        self.index_to(last)?;
        let shown = self.index.group_of_seq(last)?.ok_or_else(|| unknown(last))?.last_ts;
        Ok(if span.last.is_none() { shown.max(time.now) } else { shown })
    }

    /// The last event at or before a time in an epoch that shows it; no later one will come. `None`: another epoch has
    /// begun meanwhile. With it, the Seq of a pin that says so already.
    fn settle(&self, at: Timestamp, span: &Span, time: &TimeNow) -> Result<Option<(Seq, Option<Seq>)>> {
        let last = match span.last {
            Some(last) => last,
            None if time.stopped => time.last,
            None => match self.journal.close(at, span.epoch)? {
                Closed::Another => return Ok(None),
                Closed::Pinned { pin } => return Ok(Some((Seq(pin.0 - 1), Some(pin)))),
                Closed::Behind { last } => last,
            },
        };
        let mark = self.index.watermark();
        // A later event of the epoch that is indexed has all before it indexed: no need to wait for the rest.
        let passed = mark.epoch > span.epoch || mark.epoch == span.epoch && mark.ts > at;
        if !passed {
            self.index_to(last)?;
        }
        let record = self.last_event(span, at)?.ok_or_else(|| unknown(last))?;
        Ok(Some((record.seq, None)))
    }

    /// Makes the answer durable, and gives the one that counts.
    fn fix(&self, at: Timestamp, seq: Seq, pin: Option<Seq>, time: &TimeNow) -> Result<Seq> {
        if time.stopped {
            return self.kept.add(at, seq);
        }
        let pin = match pin {
            Some(pin) => pin,
            None => self.journal.pin(at, seq)?,
        };
        self.index_to(pin)?;
        self.index.pin(at)?.ok_or_else(|| unknown(pin))
    }

    /// Everything up to `seq` is durable and indexed.
    fn index_to(&self, seq: Seq) -> Result<()> {
        if self.indexer.reached() < seq {
            if !self.patient && self.indexer.is_far_from(seq) {
                return Err(Error::new(
                    Kind::Os(libc::EAGAIN),
                    "past.resolve",
                    "the index is being made anew and does not know this instant yet: try again later, or wait for it \
                     with `weft at`; `weft status` tells how far it is behind",
                ));
            }
            self.journal.commit_wait(seq)?;
            self.indexer.wait_for(seq)?;
        }
        Ok(())
    }

    fn before(&self) -> Resolution {
        Resolution::Before { first: self.birth.1, seq: self.birth.0 }
    }

    fn at_seq(&self, seq: Seq) -> Result<Resolution> {
        let time = self.journal.time()?;
        if seq > time.last {
            return Ok(Resolution::Future { now: time.now, last: time.last });
        }
        if seq < self.birth.0 {
            return Ok(self.before());
        }
        self.index_to(seq)?;
        let (shown, first) = {
            let thinned = self.thinned.lock();
            (thinned.at_or_before(seq), thinned.first())
        };
        let Some(shown) = shown else {
            return Ok(Resolution::Pruned { oldest: self.time_of(first)? });
        };
        let (actual, epoch) = (self.time_of(shown)?, time.epochs.of(shown));
        Ok(Resolution::Found(Found { seq: shown, meant: seq, actual, epoch }))
    }

    /// Time of an event that was given.
    pub fn time_of(&self, seq: Seq) -> Result<Timestamp> {
        self.index_to(seq)?;
        let place = self.index.group_of_seq(seq)?.ok_or_else(|| unknown(seq))?;
        Ok(self.last_of(place, |record| record.seq <= seq)?.ok_or_else(|| unknown(seq))?.ts)
    }

    pub(super) fn last_event(&self, span: &Span, at: Timestamp) -> Result<Option<Record>> {
        match self.index.group_at_time(span.epoch, at)? {
            Some(place) => self.last_of(place, |record| record.ts <= at),
            None => Ok(None),
        }
    }

    pub(super) fn last_of(
        &self,
        place: GroupPlace,
        fits: impl Fn(&Record) -> bool,
    ) -> Result<Option<Record>> {
        let records = records_at(self.journal.segments(), place.segment, place.offset)?;
        Ok(records.into_iter().rev().find(|record| fits(record)))
    }
}

fn unknown(seq: Seq) -> Error {
    Error::corrupt(
        "past.resolve",
        format!("the index does not know event {seq}, which it should; try `weft index rebuild`"),
    )
}
