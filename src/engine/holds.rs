//! What holds instants: nothing that is held is pruned, and what is being pruned cannot be held any more.
//!
//! One lock decides: a new hold looks whether its instant remains and is noted under it; so does what goes.

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
            if use_.views == 0 {
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
    /// Stops holds from coming and going.
    pub(super) fn decide(&self) -> Decision<'_> {
        Decision { holds: self.0.lock() }
    }

    /// Instants that are viewed.
    pub(super) fn viewed(&self) -> Vec<Seq> {
        self.0.lock().keys().copied().collect()
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

    fn views(&self) -> impl Iterator<Item = Held> + '_ {
        self.holds.iter().map(|(seq, InUse { views, handles })| {
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
        if let Some(use_) = self.holds.0.lock().get_mut(&seq) {
            use_.handles += 1;
        }
    }

    /// Takes it back.
    pub fn release_past(&self, seq: Seq) {
        if let Some(use_) = self.holds.0.lock().get_mut(&seq) {
            use_.handles = use_.handles.saturating_sub(1);
        }
    }

    /// The instants in use, and by whom.
    pub fn held(&self) -> Vec<Held> {
        self.held_by(&self.holds.decide())
    }

    pub(super) fn held_by(&self, decision: &Decision<'_>) -> Vec<Held> {
        let tags = self.live.tags.lock().states();
        let by_tag = |tag: crate::format::sections::TagState| Held {
            seq: tag.at,
            by: format!("tag {}", String::from_utf8_lossy(&tag.name)),
        };
        let leases = self.leases();
        let by_lease = leases.iter().map(|lease| Held { seq: lease.at, by: lease.to_string() });
        let mut held: Vec<Held> =
            tags.into_iter().map(by_tag).chain(by_lease).chain(decision.views()).collect();
        held.sort_by_key(|held| held.seq);
        held
    }
}
