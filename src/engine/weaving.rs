//! The weaver's thread and its budget.

use super::Engine;
use super::budget::{self, Budget, Rates};
use crate::error::Result;
use crate::journal::segment::Segments;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::Seq;
use crate::weave::{Outcome, Pace, Weaver, Woven};
use std::time::Duration;

/// Rest when no segment is ready.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After an error the weaver tries again this much later.
const AFTER_ERROR: Duration = Duration::from_secs(30);

/// How much of the machine the weaver takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WeaveLimits {
    /// Weave in the background at all.
    pub on: bool,
    /// Share of one core, 1 to 100.
    pub cpu_percent: u32,
    /// Bytes read and written in a second.
    pub bytes_per_sec: u64,
}

impl WeaveLimits {
    fn rates(self) -> Rates {
        Rates { cpu_percent: self.cpu_percent, bytes_per_sec: self.bytes_per_sec }
    }

    /// With so many segments waiting. Whoever writes faster than the budget weaves would fill the disk with journal, which
    /// takes ten to twenty times the space: what waits raises the budget, at last to all of a core.
    fn rates_behind(self, waiting: u64) -> Rates {
        let times = (waiting / BEHIND).max(1);
        let percent = u64::from(self.cpu_percent).saturating_mul(times).min(100);
        Rates {
            cpu_percent: u32::try_from(percent).unwrap_or(100),
            bytes_per_sec: self.bytes_per_sec.saturating_mul(times),
        }
    }
}

impl Default for WeaveLimits {
    fn default() -> WeaveLimits {
        WeaveLimits { on: true, cpu_percent: 25, bytes_per_sec: 64 << 20 }
    }
}

/// Segments that wait before the budget grows: 512 MiB.
const BEHIND: u64 = 8;

/// What was woven since the engine was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct WovenSoFar {
    pub segments: u64,
    /// Bytes that writes had brought.
    pub payload_bytes: u64,
    /// Bytes of groups in the journal.
    pub journal_bytes: u64,
    pub woven_bytes: u64,
    /// Processor time spent, µs.
    pub cpu_us: u64,
}

impl WovenSoFar {
    fn add(&mut self, woven: &Woven) {
        self.segments += 1;
        self.payload_bytes += woven.payload_bytes;
        self.journal_bytes += woven.journal_bytes;
        self.woven_bytes += woven.woven_bytes;
    }
}

/// The weaver as an engine has it.
pub(super) struct Weaving {
    weaver: Weaver,
    limits: WeaveLimits,
    /// Somebody waits: no budget meanwhile.
    hurry: AtomicBool,
    so_far: Mutex<WovenSoFar>,
}

impl Weaving {
    pub(super) fn new(segments: Arc<Segments>, limits: WeaveLimits) -> Result<Weaving> {
        let (hurry, so_far) = (AtomicBool::new(false), Mutex::new(WovenSoFar::default()));
        Ok(Weaving { weaver: Weaver::new(segments)?, limits, hurry, so_far })
    }

    /// What background work on segments may take.
    pub(super) fn rates(&self) -> Rates {
        self.limits.rates()
    }

    pub(super) fn is_on(&self) -> bool {
        self.limits.on
    }

    pub(super) fn weaver(&self) -> &Weaver {
        &self.weaver
    }
}

/// The thread.
pub(super) fn weave(engine: &Engine, stop: &AtomicBool) {
    let weaving = &engine.weaver;
    if !weaving.limits.on {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        let waiting = engine.weaving_state().0;
        budget::yield_unless(waiting >= BEHIND);
        let budget = Budget::new(weaving.limits.rates_behind(waiting), &weaving.hurry, stop);
        let rest = match engine.weave(&budget) {
            Ok(Outcome::Wove(_)) => continue,
            Ok(_) => LOOK_EVERY,
            Err(error) => {
                tracing::warn!(%error, "a journal segment cannot be woven; it stays as it is");
                AFTER_ERROR
            }
        };
        budget::sleep(rest, stop);
    }
}

impl Engine {
    /// Up to here no recovery replays, and the index has it all.
    pub(super) fn settled(&self) -> Seq {
        self.live.checkpointed().min(self.indexer.reached())
    }

    /// Weaves one segment, by hand.
    pub fn weave(&self, pace: &dyn Pace) -> Result<Outcome> {
        let before = budget::thread_cpu_us();
        let outcome = self.weaver.weaver.step(self.settled(), pace);
        self.weaver.so_far.lock().cpu_us += budget::thread_cpu_us().saturating_sub(before);
        let outcome = outcome?;
        if let Outcome::Wove(woven) = &outcome {
            self.weaver.so_far.lock().add(woven);
        }
        Ok(outcome)
    }

    /// Weaves everything that can be, without a budget; what came of it.
    pub fn weave_now(&self) -> Result<WovenSoFar> {
        let before = self.woven_so_far();
        self.weaver.hurry.store(true, Ordering::Relaxed);
        let result = self.weave_all();
        self.weaver.hurry.store(false, Ordering::Relaxed);
        result?;
        let after = self.woven_so_far();
        Ok(WovenSoFar {
            segments: after.segments - before.segments,
            payload_bytes: after.payload_bytes - before.payload_bytes,
            journal_bytes: after.journal_bytes - before.journal_bytes,
            woven_bytes: after.woven_bytes - before.woven_bytes,
            cpu_us: after.cpu_us - before.cpu_us,
        })
    }

    /// The same before a pruning: only what is compact is thinned cheaply. Pruning goes on without what cannot be woven, and
    /// may give back the space that weaving would take.
    pub fn weave_if_possible(&self) {
        if let Err(error) = self.weave_now() {
            tracing::warn!(%error, "not all of the journal is woven before history is pruned");
        }
    }

    fn weave_all(&self) -> Result<()> {
        self.checkpoint()?;
        self.indexer.wait_for(self.live.journal.durable())?;
        let budget = Budget::new(self.weaver.rates(), &self.weaver.hurry, self.threads.stopping());
        while let Outcome::Wove(_) = self.weave(&budget)? {}
        Ok(())
    }

    /// What was woven since this engine was opened.
    pub fn woven_so_far(&self) -> WovenSoFar {
        *self.weaver.so_far.lock()
    }

    /// Sealed segments that wait to be woven, and what kept one from it.
    pub(super) fn weaving_state(&self) -> (u64, Option<crate::error::Error>) {
        let waiting = self.weaver.weaver.waiting(self.settled()).map_or(0, |list| list.len() as u64);
        (waiting, self.weaver.weaver.trouble())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_raises_the_budget_up_to_a_whole_core() {
        let limits = WeaveLimits::default();
        let percents = [0, 7, 8, 16, 24, 32, 1000].map(|waiting| limits.rates_behind(waiting).cpu_percent);
        assert_eq!(percents, [25, 25, 25, 50, 75, 100, 100]);
        assert_eq!(limits.rates_behind(7).bytes_per_sec, limits.bytes_per_sec);
        assert_eq!(limits.rates_behind(16).bytes_per_sec, 2 * limits.bytes_per_sec);
    }
}
