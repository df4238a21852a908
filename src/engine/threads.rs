//! The background threads of an engine.

use super::Engine;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, RwLock, RwLockReadGuard, thread};
use crate::weave::Pace;
use std::time::{Duration, Instant};

/// What nobody asked to be durable is so after this long.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// Rest between two looks of the applier.
const APPLY_EVERY: Duration = Duration::from_millis(200);
/// Waiting bytes are applied at latest after this long.
const APPLY_AT_LATEST: Duration = Duration::from_secs(2);
/// A checkpoint at latest after this long, when something has changed.
const CHECKPOINT_AT_LATEST: Duration = Duration::from_secs(60);
/// Rest of the indexer when nobody waits for it.
const INDEX_EVERY: Duration = Duration::from_millis(100);
/// The applier starts early when this share of its limit waits.
const EARLY_SHARE: u64 = 4;
/// After an error a thread tries again this much later.
const AFTER_ERROR: Duration = Duration::from_secs(1);

type Job = fn(&Engine, &AtomicBool);

/// See the head of this file.
#[derive(Default)]
pub struct Threads {
    stop: Arc<AtomicBool>,
    running: Mutex<Vec<thread::JoinHandle<()>>>,
    /// Held for reading by work on threads of others.
    by_hand: RwLock<()>,
}

/// Work on history that somebody waits for, on a thread of their own: without a budget, until the engine's threads are to
/// end. They end when this is dropped, so that whoever waits is told before all is over.
pub struct ByHand<'a> {
    stop: &'a AtomicBool,
    _at_work: RwLockReadGuard<'a, ()>,
}

impl ByHand<'_> {
    /// The work was, or is, to end early.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Pace for ByHand<'_> {
    fn go_on(&self, _: u64) -> bool {
        !self.is_over()
    }
}

impl Threads {
    pub fn start(&self, engine: &Arc<Engine>) -> Result<()> {
        let jobs: [(&str, Job); 7] = [
            ("weft-flush", keep_house),
            ("weft-apply", apply),
            ("weft-index", index),
            ("weft-weave", super::weaving::weave),
            ("weft-prune", super::pruning::keep),
            ("weft-forecast", super::forecasting::forecast),
            ("weft-shadow", super::shadowing::shadow),
        ];
        for (name, job) in jobs {
            let (engine, stop) = (Arc::clone(engine), Arc::clone(&self.stop));
            let thread = thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || job(&engine, &stop))
                .map_err(|error| Error::io("engine.start", std::path::Path::new(name), &error))?;
            self.running.lock().push(thread);
        }
        Ok(())
    }

    /// Set once the threads are told to end.
    pub fn stopping(&self) -> &AtomicBool {
        &self.stop
    }

    /// Begins work by hand; `None` once the threads are told to end.
    pub fn by_hand(&self) -> Option<ByHand<'_>> {
        let by_hand = ByHand { _at_work: self.by_hand.read(), stop: &self.stop };
        (!by_hand.is_over()).then_some(by_hand)
    }

    /// Tells the threads and the work by hand to end, and waits for them.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever comes later finds it set.
        drop(self.by_hand.write());
        for thread in self.running.lock().drain(..) {
            // A panic in a thread has been logged by the hook; the others end all the same.
            let _ = thread.join();
        }
    }
}

fn keep_house(engine: &Engine, stop: &AtomicBool) {
    let journal = &engine.live.journal;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(FLUSH_EVERY);
        if let Err(error) = journal.check_clock() {
            tracing::warn!(%error, "the clock was set, and its new epoch cannot be written down yet");
        }
        // That there is no space is logged where it is found, and told to whoever writes.
        let _ = journal.prepare_spares();
        engine.live.look_again();
        engine.renew_leases();
        if journal.durable() < journal.last_seq() && journal.failure().is_none() {
            // A failure is logged where it happens, and answered to whoever writes next.
            let _ = journal.flush();
        }
    }
}

fn apply(engine: &Engine, stop: &AtomicBool) {
    let live = &engine.live;
    let mut last_round = Instant::now();
    let mut last_checkpoint = Instant::now();
    let mut checkpoint_bytes = live.journal.counters().1;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(APPLY_EVERY);
        let early = live.overlay_bytes() > live.limits.overlay_bytes / EARLY_SHARE;
        if early || last_round.elapsed() > APPLY_AT_LATEST {
            if let Err(error) = live.apply_round() {
                tracing::warn!(%error, "changes cannot be applied; they are safe in the journal");
                thread::sleep(AFTER_ERROR);
            }
            last_round = Instant::now();
        }
        let written = live.journal.counters().1 - checkpoint_bytes;
        let due = written > engine.checkpoint_bytes
            || written > 0 && last_checkpoint.elapsed() > CHECKPOINT_AT_LATEST;
        if due {
            match engine.checkpoint() {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => {
                    tracing::warn!(%error, "no checkpoint could be written; recovery would take longer");
                    thread::sleep(AFTER_ERROR);
                }
            }
            checkpoint_bytes = live.journal.counters().1;
            last_checkpoint = Instant::now();
        }
    }
}

fn index(engine: &Engine, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match engine.indexer.step() {
            Ok(true) => {}
            Ok(false) => thread::sleep(INDEX_EVERY),
            Err(error) => {
                tracing::error!(%error, "the index cannot go on");
                thread::sleep(AFTER_ERROR);
            }
        }
    }
}
