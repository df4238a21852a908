//! When space runs out: history is shortened, down to the configured minimum.

use super::Engine;
use crate::error::{Error, Kind, Result};
use crate::meta::retention::Retention;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, thread};
use crate::weave::Pace;
use std::time::{Duration, Instant};

/// History is shortened by one in so many of what is left, until there is room.
const STEP: u64 = 6;
/// After it was of no avail, the next try is this much later.
const FUTILE_FOR: Duration = Duration::from_secs(10);
/// Who asks for a name waits so long for the thread to make room.
const WAIT: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(10);

/// What those who want room and the thread that makes it know of each other.
#[derive(Default)]
pub(super) struct Relief {
    /// When shortening history was last of no avail. Held while it is tried.
    futile: Mutex<Option<Instant>>,
    wanted: AtomicBool,
    /// How often the thread has begun to look, and which look was the last to end.
    begun: AtomicU64,
    ended: AtomicU64,
    /// The thread is there.
    keeping: AtomicBool,
    /// Who waits for it, to make a name.
    waiters: AtomicUsize,
}

impl Relief {
    /// The thread is there until what this returns is dropped.
    pub(super) fn keep(&self) -> Keeping<'_> {
        self.keeping.store(true, Ordering::Relaxed);
        Keeping(self)
    }

    /// Somebody waits for the thread: whatever else it does is to be quick.
    pub(super) fn wanted(&self) -> &AtomicBool {
        &self.wanted
    }

    /// Whether somebody has asked since the last call.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// Has the thread look, and waits for it, but not for ever, and not where `most` wait already. Whether it has waited.
    fn wait(&self, most: usize) -> bool {
        if !self.keeping.load(Ordering::Relaxed) {
            return false;
        }
        // One that runs already may have looked too early.
        let next = self.begun.load(Ordering::Acquire) + 1;
        self.wanted.store(true, Ordering::Release);
        let Some(_waiter) = Waiter::one_of(&self.waiters, most) else { return false };
        let until = Instant::now() + WAIT;
        let waits = || self.ended.load(Ordering::Acquire) < next && self.keeping.load(Ordering::Relaxed);
        while waits() && Instant::now() < until {
            thread::sleep(NAP);
        }
        true
    }

    /// The thread begins to look.
    pub(super) fn looking(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    /// The thread has seen to it.
    pub(super) fn done(&self) {
        self.ended.store(self.begun.load(Ordering::Acquire), Ordering::Release);
    }
}

/// The thread is there; when this goes, also by a panic, nobody waits for it any more.
pub(super) struct Keeping<'a>(&'a Relief);

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        self.0.keeping.store(false, Ordering::Relaxed);
    }
}

/// One who waits.
struct Waiter<'a>(&'a AtomicUsize);

impl Waiter<'_> {
    /// `None`: so many do already.
    fn one_of(waiters: &AtomicUsize, most: usize) -> Option<Waiter<'_>> {
        let waiter = Waiter(waiters);
        (waiters.fetch_add(1, Ordering::AcqRel) < most).then_some(waiter)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Engine {
    /// Bytes that history takes in STORE.
    pub fn history_bytes(&self) -> u64 {
        self.journal_bytes() + self.woven_bytes() + self.base_bytes() + self.index_bytes()
    }

    /// Whether history takes more than it may, or the disk is full.
    pub fn is_over(&self) -> bool {
        let total = self.disk.space("prune.space", &self.paths.store).map_or(u64::MAX, |space| space.total);
        self.live.is_short() || self.history_bytes() > self.retention().cap_bytes(total)
    }

    /// While history takes too much room, shortens it, down to the minimum. Whether there is room then.
    pub fn relieve(&self) -> Result<bool> {
        self.relieve_until(&|| !self.is_over())
    }

    /// The same for somebody who waits for it: a pruning that is under way takes its time otherwise, and the next one waits
    /// for it.
    pub(super) fn relieve_now(&self, enough: &dyn Fn() -> bool) -> Result<bool> {
        self.pruning.relief.wanted.store(true, Ordering::Release);
        self.relieve_until(enough)
    }

    /// Shortens history until there is enough room, down to the minimum. Whether there is then.
    fn relieve_until(&self, enough: &dyn Fn() -> bool) -> Result<bool> {
        let mut futile = self.pruning.relief.futile.lock();
        if enough() {
            return Ok(true);
        }
        if futile.is_some_and(|tried| tried.elapsed() < FUTILE_FOR) {
            return Ok(false);
        }
        let made = self.shorten(enough);
        *futile = (!matches!(made, Ok(true))).then(Instant::now);
        made
    }

    /// Has the thread make room, and waits for it, but not for ever: the kernel may be holding the lock of the directory
    /// in which this thread is to make a name, and letting go of views takes that of DATA's root. Nor do all wait who could
    /// answer others. Whether there is room then.
    pub(super) fn await_relief(&self) -> bool {
        self.pruning.relief.wait(self.name_waiters) && !self.live.is_short()
    }

    fn shorten(&self, enough: &dyn Fn() -> bool) -> Result<bool> {
        let retention = self.retention();
        if self.is_relieved(enough) {
            return Ok(true);
        }
        if self.indexer.is_far_from(self.begun) {
            let message = "history is shortened when the index knows it: it is being made anew";
            return Err(Error::new(Kind::Busy, "relief.index", message));
        }
        if self.weaver.is_on() {
            self.weave_if_possible();
        }
        let Some(mut age_us) = self.age_us(&retention)? else { return Ok(enough()) };
        loop {
            if self.is_relieved(enough) {
                return Ok(true);
            }
            if age_us <= retention.minimum_us.max(1) || self.threads.stopping().load(Ordering::Relaxed) {
                return Ok(false);
            }
            age_us -= (age_us / STEP).max(1);
            age_us = age_us.max(retention.minimum_us);
            let pruned =
                self.prune_by(&retention.within(age_us), &UntilStopped(self.threads.stopping()), false)?;
            tracing::warn!(
                upto = %pruned.upto,
                back = pruned.thinning.before_bytes.saturating_sub(pruned.thinning.after_bytes),
                "history takes more room than it may: it was shortened"
            );
        }
    }

    /// Whether there is enough room, now that some was made. Where it is room on the disk that is wanted, and not only history
    /// that takes more than it may, shadows go for it.
    fn is_relieved(&self, enough: &dyn Fn() -> bool) -> bool {
        let look = || {
            // That there is still no space is logged where it is found.
            let _ = self.live.journal.prepare_spares();
            self.live.look_again();
            enough()
        };
        look() || (self.live.is_short() || !self.is_over()) && self.give_up_shadows() && look()
    }

    /// µs of time that passed since the first state of history was followed by another, as far as retention keeps it: however
    /// old that state is, until then it was the present. `None`: there is no other.
    fn age_us(&self, retention: &Retention) -> Result<Option<u64>> {
        let (first, began) = self.oldest();
        let second = self.thinned().at_or_after(first.next());
        if second > self.live.journal.durable() {
            return Ok(None);
        }
        let began = self.time_if_near(second).unwrap_or(began);
        let age = self.resolver().age_us((second, began))?;
        let age = retention.reach_us().map_or(age, |reach| reach.min(age));
        Ok((age > 0).then_some(age))
    }
}

/// As fast as it goes, until the engine's threads are to end.
struct UntilStopped<'a>(&'a AtomicBool);

impl Pace for UntilStopped<'_> {
    fn go_on(&self, _: u64) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn no_more_wait_than_may_and_they_all_go_on() {
        let relief = Arc::new(Relief::default());
        assert!(!relief.wait(2), "there is no thread to wait for");
        let keeping = relief.keep();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let relief = Arc::clone(&relief);
                std::thread::spawn(move || relief.wait(2))
            })
            .collect();
        while relief.waiters.load(Ordering::Acquire) < 2 {
            std::thread::yield_now();
        }
        assert!(!relief.wait(2), "two wait already");
        assert!(relief.is_wanted());
        relief.looking();
        relief.done();
        assert!(waiting.into_iter().all(|waiter| waiter.join().unwrap()));
        assert!(!relief.wait(0));
        drop(keeping);
        assert_eq!(relief.waiters.load(Ordering::Acquire), 0);
    }
}
