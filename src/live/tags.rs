//! Giving names to instants, durably.
//!
//! An event is appended and folded under the set's lock, so a checkpoint that knows an event's Seq has it in its set.

use super::Live;
use crate::error::Result;
use crate::format::event::Record;
use crate::format::sections::TagState;
use crate::journal::Claim;
use crate::meta::tags::event;
use crate::types::Seq;

impl Live {
    /// Names an instant that is resolved (and so durable and closed). Durable when this returns.
    pub fn tag(&self, name: &str, at: Seq) -> Result<TagState> {
        let mut tags = self.tags.lock();
        tags.check_free(name)?;
        let made = self.record_tag(name, at, false)?;
        tags.fold(&made);
        let tag = tags.find(name)?.clone();
        drop(tags);
        self.journal.commit_wait(made.seq)?;
        Ok(tag)
    }

    /// Takes a name back. Durable when this returns.
    pub fn untag(&self, name: &str) -> Result<TagState> {
        let mut tags = self.tags.lock();
        let tag = tags.find(name)?.clone();
        let made = self.record_tag(name, tag.at, true)?;
        tags.fold(&made);
        drop(tags);
        self.journal.commit_wait(made.seq)?;
        Ok(tag)
    }

    fn record_tag(&self, name: &str, at: Seq, remove: bool) -> Result<Record> {
        let event = event(name, at, remove);
        let given = event.clone();
        let claim = if remove { Claim::Freeing } else { Claim::Upkeep };
        let appended = self.journal.append_as(claim, &[], |_| given)?;
        Ok(Record { seq: appended.seq, ts: appended.ts, wall: appended.ts, event })
    }
}
