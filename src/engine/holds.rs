//! What holds instants: nothing that is held is pruned, and what is being pruned cannot be held any more.
//!
//! One lock decides: a new hold looks whether its instant remains and is noted under it; so does what goes.
//!
//! Whoever copies a view without a lease has nothing open between two files. So what was open in a view holds its instant
//! for as long as a lease runs, in memory; and the kernel is not made to forget such a view.

use super::Engine;
use crate::error::{Error, Result};
use crate::meta::thinned::Thinned;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::types::Seq;
use std::collections::BTreeMap;

/// Holds of open views and of work under way, by instant.
#[derive(Default)]
pub(super) struct Holds(Mutex<BTreeMap<Seq, InUse>>);

/// How an instant is in use.
#[derive(Clone, Copy, Default)]
pub(super) struct InUse {
    /// Views, also such as the kernel only remembers.
    views: u64,
    /// Open handles of files and directories in them.
    handles: u64,
    /// When one of these was last opened or closed, in µs that have passed.
    used_us: Option<i64>,
}

impl InUse {
    fn is_used(&self, since_us: i64) -> bool {
        self.handles > 0 || self.used_us.is_some_and(|used| used > since_us)
    }
}

/// Keeps an instant while it lives.
pub struct Hold {
    seq: Seq,
    holds: Arc<Holds>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.holds.0.lock();
        if let Some(use_) = holds.get_mut(&self.seq) {
            use_.views = use_.views.saturating_sub(1);
            if use_.views == 0 && use_.used_us.is_none() {
                holds.remove(&self.seq);
            }
        }
    }
}

/// An instant that is in use.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Held {
    pub seq: Seq,
    /// By whom: `tag NAME`, `lease ID ...`, `N open views ...`.
    pub by: String,
}

/// No hold begins or ends while this lives.
pub(super) struct Decision<'a> {
    holds: MutexGuard<'a, BTreeMap<Seq, InUse>>,
}

impl Holds {
    /// Stops holds from coming and going. What nobody has used since then holds no more.
    fn decide(&self, since_us: i64) -> Decision<'_> {
        let mut holds = self.0.lock();
        holds.retain(|_, use_| use_.views > 0 || use_.is_used(since_us));
        Decision { holds }
    }

    /// Instants that are viewed, and of which nothing was used since then.
    fn idle(&self, since_us: i64) -> Vec<Seq> {
        let holds = self.0.lock();
        let idle = holds.iter().filter(|(_, use_)| use_.views > 0 && !use_.is_used(since_us));
        idle.map(|(seq, _)| *seq).collect()
    }

    fn hold(self: &Arc<Holds>, seq: Seq, thinned: &Mutex<Thinned>) -> Result<Hold> {
        let mut holds = self.0.lock();
        if !thinned.lock().keeps(seq) {
            return Err(Error::errno("past.hold", libc::ESTALE));
        }
        holds.entry(seq).or_default().views += 1;
        Ok(Hold { seq, holds: Arc::clone(self) })
    }
}

impl Decision<'_> {
    /// Instants of which a file or directory is open.
    pub(super) fn with_handles(&self) -> Vec<Seq> {
        self.holds.iter().filter(|(_, use_)| use_.handles > 0).map(|(seq, _)| *seq).collect()
    }

    /// `since_us`: without such as only the kernel remembers.
    fn views(&self, since_us: Option<i64>) -> impl Iterator<Item = Held> + '_ {
        let holds =
            self.holds.iter().filter(move |(_, use_)| since_us.is_none_or(|since| use_.is_used(since)));
        holds.map(|(seq, InUse { views, handles, .. })| {
            if *views == 0 {
                return Held { seq: *seq, by: "a view that was used just now".into() };
            }
            let of_views = if *views == 1 { "view" } else { "views" };
            let of_handles = if *handles == 1 { "handle" } else { "handles" };
            Held { seq: *seq, by: format!("{views} open {of_views}, {handles} {of_handles}") }
        })
    }
}

impl Engine {
    /// Keeps an instant that was resolved from being pruned. ESTALE: it was pruned meanwhile.
    pub fn hold(&self, seq: Seq) -> Result<Hold> {
        self.holds.hold(seq, &self.live.thinned)
    }

    /// Counts an open handle in a view: while there is one, its instant has a lease, too.
    pub fn open_past(&self, seq: Seq) {
        self.used(seq, |handles| handles + 1);
    }

    /// Takes it back.
    pub fn release_past(&self, seq: Seq) {
        self.used(seq, |handles| handles.saturating_sub(1));
    }

    fn used(&self, seq: Seq, count: impl FnOnce(u64) -> u64) {
        let now_us = self.live.journal.monotonic_us();
        if let Some(use_) = self.holds.0.lock().get_mut(&seq) {
            use_.handles = count(use_.handles);
            use_.used_us = Some(now_us);
        }
    }

    /// That an instant was used does not hold it any more.
    pub(super) fn forget_use(&self, seq: Seq) {
        let mut holds = self.holds.0.lock();
        if let Some(use_) = holds.get_mut(&seq) {
            use_.used_us = None;
            if use_.views == 0 {
                holds.remove(&seq);
            }
        }
    }

    /// Whoever used a view since then goes on with it.
    fn used_since_us(&self) -> i64 {
        self.live.journal.monotonic_us().saturating_sub(self.lease_us)
    }

    /// No hold begins or ends while this lives.
    pub(super) fn decide_holds(&self) -> Decision<'_> {
        self.holds.decide(self.used_since_us())
    }

    /// Instants that are viewed, but that nobody uses.
    pub(super) fn idle_views(&self) -> Vec<Seq> {
        self.holds.idle(self.used_since_us())
    }

    /// The instants in use, and by whom.
    pub fn held(&self) -> Vec<Held> {
        self.held_by(&self.decide_holds(), false)
    }

    /// `used`: not by views that only the kernel remembers.
    pub(super) fn held_by(&self, decision: &Decision<'_>, used: bool) -> Vec<Held> {
        let since_us = used.then(|| self.used_since_us());
        let tags = self.live.tags.lock().states();
        let by_tag = |tag: crate::format::sections::TagState| Held {
            seq: tag.at,
            by: format!("tag {}", String::from_utf8_lossy(&tag.name)),
        };
        let leases = self.leases();
        let by_lease = leases.iter().map(|lease| Held { seq: lease.at, by: lease.to_string() });
        let mut held: Vec<Held> =
            tags.into_iter().map(by_tag).chain(by_lease).chain(decision.views(since_us)).collect();
        held.sort_by_key(|held| held.seq);
        held
    }
}
