//! Instants: what they mean, and what is to be said of them.

use super::Engine;
use crate::error::Result;
use crate::format::sections::TagState;
use crate::past::resolve::{Found, Resolution, Resolver};
use crate::past::view::View;
use crate::past::when::Instant;
use crate::sync::Arc;
use crate::types::{Seq, Timestamp};

impl Engine {
    pub(super) fn resolver(&self) -> Resolver<'_> {
        Resolver {
            journal: &self.live.journal,
            index: &self.index,
            indexer: &self.indexer,
            kept: &self.kept,
            thinned: &self.live.thinned,
            birth: *self.live.birth.lock(),
            begun: self.begun,
            patient: true,
        }
    }

    /// Fixes the instant (durably) when it is found, so that it can never mean anything else.
    pub fn resolve(&self, instant: Instant) -> Result<Resolution> {
        self.resolver().resolve(instant)
    }

    /// As [`Engine::resolve`], but EAGAIN where that would have to wait long for the index, which is made anew.
    pub fn try_resolve(&self, instant: Instant) -> Result<Resolution> {
        Resolver { patient: false, ..self.resolver() }.resolve(instant)
    }

    /// [`Engine::resolve`] of what was so many µs ago (steps of the clock do not count), and the instant to name it by.
    pub fn resolve_ago(&self, ago_us: i64) -> Result<(Resolution, Instant)> {
        self.resolver().resolve_ago(ago_us)
    }

    /// What a time could mean, one candidate for each clock epoch that showed it, oldest first: more than one, and the
    /// time is ambiguous.
    pub fn candidates(&self, at: Timestamp) -> Result<Vec<Found>> {
        self.resolver().candidates(at)
    }

    /// The oldest instant that can be shown, and its time: while the index is made anew and has not come to it, the time of
    /// the first that ever was.
    pub fn oldest(&self) -> (Seq, Timestamp) {
        let birth = *self.live.birth.lock();
        let first = self.live.thinned.lock().first();
        if first <= birth.0 {
            return birth;
        }
        let known = *self.pruning.oldest.lock();
        if known.0 == first {
            return known;
        }
        let Some(ts) = self.time_if_near(first) else { return (first, birth.1) };
        *self.pruning.oldest.lock() = (first, ts);
        (first, ts)
    }

    /// Time of an event, unless that has to wait long for the index, or it cannot say.
    pub(super) fn time_if_near(&self, seq: Seq) -> Option<Timestamp> {
        if self.indexer.is_far_from(seq) {
            return None;
        }
        self.resolver().time_of(seq).ok()
    }

    /// µs that passed since an event that was at a time: steps of the clock do not count. What cannot be told, or only by
    /// waiting long for the index, is long.
    pub(super) fn age_of_us(&self, event: (Seq, Timestamp)) -> u64 {
        Resolver { patient: false, ..self.resolver() }.age_us(event).unwrap_or(u64::MAX)
    }

    /// The last event before a time. Unlike resolving this fixes nothing: it may be another tomorrow.
    pub fn last_before(&self, at: Timestamp) -> Result<Seq> {
        self.resolver().last_before(at)
    }

    /// Now, as history counts it: no event is later.
    pub fn now(&self) -> Timestamp {
        // What keeps an epoch from beginning (a full disk) keeps the old one's time.
        self.live.journal.time().map_or_else(|_| self.live.journal.last_ts(), |time| time.now)
    }

    /// The number of the clock that dates history now.
    pub fn clock_epoch(&self) -> u32 {
        self.live.journal.epochs().current()
    }

    /// Opens the view of a resolved instant, waiting for the index to reach it. It holds the instant. ESTALE: it was
    /// pruned meanwhile.
    pub fn view(&self, seq: Seq) -> Result<Arc<View>> {
        self.indexer.wait_for(seq)?;
        let hold = Box::new(self.hold(seq)?);
        Ok(Arc::new(View::new(seq, Arc::clone(&self.index), Arc::clone(&self.pages), hold)))
    }

    /// Names a resolved instant, durably. `Invalid`: the name is no name, or taken.
    pub fn tag(&self, name: &str, at: Seq) -> Result<TagState> {
        let _held = self.hold(at)?;
        self.live.tag(name, at)
    }

    /// Takes a name back, durably. `Invalid`: there is no such tag.
    pub fn untag(&self, name: &str) -> Result<TagState> {
        self.live.untag(name)
    }

    /// The tag of a name. `Invalid`: there is none; the message offers the nearest.
    pub fn find_tag(&self, name: &str) -> Result<TagState> {
        self.live.tags.lock().find(name).cloned()
    }

    /// All tags, in byte order of names.
    pub fn tags(&self) -> Vec<TagState> {
        self.live.tags.lock().states()
    }
}
