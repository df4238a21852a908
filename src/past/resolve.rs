//! From an instant as asked for to a Seq that can never mean anything else.

use super::indexer::Indexer;
use super::when::Instant;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::format::event::Record;
use crate::index::{GroupPlace, Index};
use crate::journal::Journal;
use crate::journal::reader::records_at;
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
    pub seq: Seq,
    /// Time of the last event at or before the request.
    pub actual: Timestamp,
}

/// What resolving needs.
pub struct Resolver<'a> {
    pub clock: &'a dyn Clock,
    pub journal: &'a Journal,
    pub index: &'a Index,
    pub indexer: &'a Indexer,
    pub birth: (Seq, Timestamp),
}

impl Resolver<'_> {
    /// Closes the instant, durably, and says which Seq it is.
    pub fn resolve(&self, instant: Instant) -> Result<Resolution> {
        match instant {
            Instant::Time(ts) => self.at_time(ts),
            Instant::Seq(seq) => self.at_seq(seq),
        }
    }

    fn before(&self) -> Resolution {
        Resolution::Before { first: self.birth.1, seq: self.birth.0 }
    }

    fn at_time(&self, ts: Timestamp) -> Result<Resolution> {
        let now = self.clock.now().max(self.journal.last_ts());
        if ts > now {
            return Ok(Resolution::Future { now, last: self.journal.durable() });
        }
        if ts < self.birth.1 {
            return Ok(self.before());
        }
        // A durable later event bounds it already, and the index has it: nothing to close, nothing to wait for.
        if self.index.watermark().ts <= ts {
            self.journal.close_at(ts)?;
            self.indexer.wait_for(self.journal.durable())?;
        }
        let Some(place) = self.index.group_at_time(ts)? else { return Ok(self.before()) };
        match self.last_of(place, |record| record.ts <= ts)? {
            Some(record) => Ok(Resolution::Found(Found { seq: record.seq, actual: record.ts })),
            None => Ok(self.before()),
        }
    }

    fn at_seq(&self, seq: Seq) -> Result<Resolution> {
        let last = self.journal.last_seq();
        if seq > last {
            return Ok(Resolution::Future { now: self.clock.now(), last });
        }
        if seq < self.birth.0 {
            return Ok(self.before());
        }
        self.journal.commit_wait(seq)?;
        self.indexer.wait_for(seq)?;
        let place = self.index.group_of_seq(seq)?;
        let place = place
            .ok_or_else(|| Error::corrupt("past.resolve", format!("the index does not know event {seq}")))?;
        match self.last_of(place, |record| record.seq <= seq)? {
            Some(record) => Ok(Resolution::Found(Found { seq: record.seq, actual: record.ts })),
            None => Ok(self.before()),
        }
    }

    fn last_of(&self, place: GroupPlace, fits: impl Fn(&Record) -> bool) -> Result<Option<Record>> {
        let records = records_at(self.journal.segments(), place.segment, place.offset)?;
        Ok(records.into_iter().rev().find(|record| fits(record)))
    }
}
