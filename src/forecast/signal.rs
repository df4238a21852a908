//! What the forecast is told: a bounded queue that loses rather than waits.
//!
//! Invariant: `offer` takes no lock that anyone holds for long and never waits; what does not fit is counted, and
//! shown by `weft status`.

use super::tick::Tick;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::Timestamp;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Canonical name of a partition, such as `base/5/16397`; with the root's name and a colon before it when it is not in
/// DATA.
pub type Key = Arc<str>;

/// Signals that wait at most: more than a tick of 10,000 partitions.
pub const QUEUE: usize = 32_768;

/// What a statement in a log does to a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ddl {
    Create,
    Drop,
    Truncate,
    Attach,
    Detach,
    Split,
    Merge,
    /// Anything else that changes the schema.
    Other,
}

impl Ddl {
    /// All of them, with their names in traces.
    pub const NAMED: [(Ddl, &'static str); 8] = [
        (Ddl::Create, "create"),
        (Ddl::Drop, "drop"),
        (Ddl::Truncate, "truncate"),
        (Ddl::Attach, "attach"),
        (Ddl::Detach, "detach"),
        (Ddl::Split, "split"),
        (Ddl::Merge, "merge"),
        (Ddl::Other, "other"),
    ];
}

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Signal {
    /// Writes, reads and fsyncs of a partition in one tick.
    Activity { partition: Key, tick: Tick },
    /// The partition's last file is gone.
    Gone { partition: Key, at: Timestamp },
    /// A statement in a log, before or after it ran. `partition` when it is known which.
    Ddl { partition: Option<Key>, at: Timestamp, what: Ddl },
    /// Statements in a query log that name a partition.
    Query { partition: Key, at: Timestamp, reads: u32, writes: u32 },
    /// A partition splits or has split. `point`: share of its page range that stays with the first child.
    Split { partition: Key, at: Timestamp, children: Vec<Key>, point: Option<f32> },
}

impl Signal {
    /// When: a tick is known at its end.
    pub fn at(&self) -> Timestamp {
        match self {
            Signal::Activity { tick, .. } => tick.end,
            Signal::Gone { at, .. }
            | Signal::Ddl { at, .. }
            | Signal::Query { at, .. }
            | Signal::Split { at, .. } => *at,
        }
    }

    /// The same, told at another time.
    pub fn told_at(mut self, then: Timestamp) -> Signal {
        match &mut self {
            Signal::Activity { tick, .. } => tick.end = then,
            Signal::Gone { at, .. }
            | Signal::Ddl { at, .. }
            | Signal::Query { at, .. }
            | Signal::Split { at, .. } => *at = then,
        }
        self
    }
}

/// See the head of this file.
pub struct SignalQueue {
    sender: SyncSender<Signal>,
    receiver: Mutex<Receiver<Signal>>,
    offered: AtomicU64,
    dropped: AtomicU64,
}

impl Default for SignalQueue {
    fn default() -> SignalQueue {
        SignalQueue::new(QUEUE)
    }
}

impl SignalQueue {
    /// A queue of at most `most` signals.
    pub fn new(most: usize) -> SignalQueue {
        let (sender, receiver) = sync_channel(most);
        let (offered, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        SignalQueue { sender, receiver: Mutex::new(receiver), offered, dropped }
    }

    /// Puts a signal in, or counts it as dropped; `false` then.
    pub fn offer(&self, signal: Signal) -> bool {
        self.offered.fetch_add(1, Ordering::Relaxed);
        let taken = self.sender.try_send(signal).is_ok();
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Takes all that waits now; for one thread.
    pub fn drain(&self) -> Vec<Signal> {
        let receiver = self.receiver.lock();
        // Bounded: those who offer meanwhile do not keep this going.
        receiver.try_iter().take(QUEUE).collect()
    }

    /// Signals offered and dropped since the start.
    pub fn counters(&self) -> (u64, u64) {
        (self.offered.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_nobody_waits() {
        let queue = Arc::new(SignalQueue::new(100));
        let offer = |n: i64| {
            queue.offer(Signal::Ddl { partition: None, at: Timestamp(n), what: Ddl::Other });
        };
        // Nobody drains: every one of these returns.
        (0..1_000).for_each(offer);
        assert_eq!(queue.counters(), (1_000, 900));
        let got = queue.drain();
        assert_eq!(got.len(), 100);
        assert!(
            matches!(got.last(), Some(Signal::Ddl { at: Timestamp(99), .. })),
            "the oldest stay, in order"
        );
        assert!(queue.drain().is_empty());
        offer(1);
        assert_eq!(queue.drain().len(), 1);
    }

    #[test]
    fn many_threads_offer_at_once() {
        let queue = Arc::new(SignalQueue::new(64));
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    for at in 0..1_000 {
                        queue.offer(Signal::Gone { partition: "p".into(), at: Timestamp(n * 1_000 + at) });
                    }
                })
            })
            .collect();
        let mut got = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            got += queue.drain().len() as u64;
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        got += queue.drain().len() as u64;
        let (offered, dropped) = queue.counters();
        assert_eq!(offered, 4_000);
        assert_eq!(got + dropped, offered);
    }
}
