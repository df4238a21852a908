//! Leases: whoever is told of an instant has it for a while.
//!
//! - Granted under the lock that decides what is pruned: an instant of which a lease was told is not pruned while it
//!   runs. Durable before it is told.
//! - Few events: a lease with more than half of its life left is told again as it is.
//! - Where no event can be written (a full disk, after a failure) the instant is held all the same, until the daemon
//!   ends; that is told.

use super::Engine;
use crate::error::{Error, Result};
use crate::format::event::Record;
use crate::journal::Claim;
use crate::meta::leases::{Leases, event};
use crate::past::resolve::Resolution;
use crate::past::when::Instant;
use crate::sync::atomic::Ordering;
use crate::types::{Seq, Timestamp};

/// More are not granted at a time: each is in every checkpoint.
const MOST: usize = 10_000;
/// Open handles are looked at this often at least, and four times in the life of a lease.
const LOOK_AT_LATEST_US: i64 = 15_000_000;
const OP: &str = "lease";

/// A lease that runs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Lease {
    /// The Seq of the instant: there is one lease to an instant.
    pub id: u64,
    /// The instant.
    #[serde(skip)]
    pub at: Seq,
    pub left_us: i64,
    /// When it ends by the wall clock as it goes now, µs UTC.
    pub until_us: i64,
    /// Who asked for it.
    pub by: String,
    /// It outlives a crash and a restart.
    pub durable: bool,
}

impl std::fmt::Display for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lease {} until {}, asked by {}", self.id, Timestamp(self.until_us), self.by)
    }
}

/// What came of asking for a lease.
#[derive(Clone, Debug)]
pub struct Granted {
    pub lease: Lease,
    /// Why it does not outlive the daemon, if so.
    pub trouble: Option<Error>,
}

/// A lease that is held, and its event.
struct Noted {
    lease: Lease,
    event: Seq,
    trouble: Option<Error>,
}

impl Engine {
    /// [`Engine::resolve`], and a lease on what is found: in one step against pruning.
    pub fn resolve_leased(&self, instant: Instant, by: &str) -> Result<(Resolution, Option<Granted>)> {
        loop {
            let resolution = self.resolve(instant)?;
            if let Some(leased) = self.leased(resolution, by)? {
                return Ok(leased);
            }
        }
    }

    /// [`Engine::resolve_ago`], and a lease.
    pub fn resolve_ago_leased(
        &self,
        ago_us: i64,
        by: &str,
    ) -> Result<(Resolution, Instant, Option<Granted>)> {
        loop {
            let (resolution, named) = self.resolve_ago(ago_us)?;
            if let Some((resolution, granted)) = self.leased(resolution, by)? {
                return Ok((resolution, named, granted));
            }
        }
    }

    /// `None`: pruned between being found and being held; to be resolved again.
    fn leased(&self, resolution: Resolution, by: &str) -> Result<Option<(Resolution, Option<Granted>)>> {
        let Resolution::Found(found) = resolution else { return Ok(Some((resolution, None))) };
        match self.lease(found.seq, by) {
            Ok(granted) => Ok(Some((resolution, Some(granted)))),
            Err(error) if error.is(libc::ESTALE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A lease on an instant that was resolved; durable, unless it says why not. `ESTALE`: it was pruned.
    pub fn lease(&self, at: Seq, by: &str) -> Result<Granted> {
        let noted = {
            let _decision = self.decide_holds();
            if !self.live.thinned.lock().keeps(at) {
                return Err(Error::errno(OP, libc::ESTALE));
            }
            self.note_lease(at, by)
        };
        Ok(self.settled_lease(noted))
    }

    /// The running leases, by rising instant.
    pub fn leases(&self) -> Vec<Lease> {
        let now_us = self.live.journal.monotonic_us();
        let mut leases = self.live.leases.lock();
        leases.sweep(now_us);
        leases.iter().map(|(at, lease)| self.told(at, lease, now_us)).collect()
    }

    /// Ends a lease, durably. `Invalid`: there is none of that number.
    pub fn end_lease(&self, id: u64) -> Result<Lease> {
        let at = Seq(id);
        let now_us = self.live.journal.monotonic_us();
        let mut leases = self.live.leases.lock();
        leases.sweep(now_us);
        let known = leases.get(at).ok_or_else(|| {
            Error::invalid(OP, format!("there is no lease {id}; `weft leases` lists those that run"))
        })?;
        let ended = self.told(at, known, now_us);
        let seq = self.record_lease(&mut leases, at, 0, "", now_us)?;
        drop(leases);
        self.forget_use(at);
        self.live.journal.commit_wait(seq)?;
        Ok(ended)
    }

    /// Sees that what is open has a lease that goes on: for the housekeeper, who may call it often.
    pub(super) fn renew_leases(&self) {
        let now_us = self.live.journal.monotonic_us();
        let every = LOOK_AT_LATEST_US.min(self.lease_us / 4);
        let last = self.leases_looked_us.load(Ordering::Relaxed);
        if now_us.saturating_sub(last) < every {
            return;
        }
        self.leases_looked_us.store(now_us, Ordering::Relaxed);
        self.lease_what_is_open();
    }

    /// [`Engine::renew_leases`], by hand.
    pub fn lease_what_is_open(&self) {
        let noted: Vec<Noted> = {
            // What has a handle is held: it remains, while nothing else can be decided.
            let decision = self.decide_holds();
            decision.with_handles().into_iter().map(|at| self.note_lease(at, "an open view")).collect()
        };
        if let Some(last) = noted.iter().map(|noted| noted.event).max() {
            // Why it cannot be durable is logged where it is found, and told to whoever asks for a lease.
            let _ = self.live.journal.commit_wait(last);
        }
    }

    /// Grants or lengthens, unless more than half is left.
    fn note_lease(&self, at: Seq, by: &str) -> Noted {
        let now_us = self.live.journal.monotonic_us();
        let due_us = now_us.saturating_add(self.lease_us);
        let mut leases = self.live.leases.lock();
        leases.sweep(now_us);
        let known = leases.get(at);
        let lasts = known.is_some_and(|known| {
            known.event > Seq::ZERO && known.due_us.saturating_sub(now_us) > self.lease_us / 2
        });
        let mut trouble = None;
        if !lasts {
            let recorded = match known.is_none() && leases.len() >= MOST {
                true => {
                    Err(Error::invalid(OP, format!("{MOST} leases run already; `weft leases` lists them")))
                }
                false => self.record_lease(&mut leases, at, self.lease_us, by, now_us).map(|_| ()),
            };
            if let Err(error) = recorded {
                leases.hold(at, due_us, by.to_owned());
                trouble = Some(error);
            }
        }
        let held = leases.get(at);
        let event = held.map_or(Seq::ZERO, |held| held.event);
        let lease = held.map(|held| self.told(at, held, now_us));
        let lease = lease.unwrap_or_else(|| Lease {
            id: at.0,
            at,
            left_us: 0,
            until_us: 0,
            by: by.to_owned(),
            durable: false,
        });
        Noted { lease, event, trouble }
    }

    /// Durable, or it says why not.
    fn settled_lease(&self, noted: Noted) -> Granted {
        let Noted { mut lease, event, trouble } = noted;
        let trouble = trouble.or_else(|| self.live.journal.commit_wait(event).err());
        lease.durable &= trouble.is_none();
        Granted { lease, trouble }
    }

    /// Appends the event and folds it, under the set's lock: a checkpoint that knows an event's Seq has it in its set.
    fn record_lease(&self, leases: &mut Leases, at: Seq, left_us: i64, by: &str, now_us: i64) -> Result<Seq> {
        let claim = if left_us > 0 { Claim::Upkeep } else { Claim::Freeing };
        let appended = self.live.journal.append_as(claim, &[], |now| event(at, now, left_us, by))?;
        let event = event(at, appended.ts, left_us, by);
        let record = Record { seq: appended.seq, ts: appended.ts, wall: appended.ts, event };
        leases.fold(&record, now_us);
        Ok(appended.seq)
    }

    fn told(&self, at: Seq, lease: &crate::meta::leases::Lease, now_us: i64) -> Lease {
        let left_us = lease.due_us.saturating_sub(now_us).max(0);
        Lease {
            id: at.0,
            at,
            left_us,
            until_us: self.live.journal.about_now().0.saturating_add(left_us),
            by: lease.by.clone(),
            durable: lease.event > Seq::ZERO,
        }
    }
}
