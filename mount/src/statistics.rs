//! What PostgreSQL's own statistics say is read and written, for the forecast: most reads are answered by the server's
//! cache or the kernel's, and never come here.
//!
//! - Asked on a thread of its own, once a tick: the server is on this mount, and may wait for the daemon.
//! - What was before the first answer is not told; after a reset of the server's statistics it begins anew.

use crate::Outcome;
use crate::catalogue::{self, Touched};
use crate::running::Running;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};
use weft::forecast::{Key, Signal};

/// Longest sleep before the thread looks whether the mount ends.
const NAP: Duration = Duration::from_millis(250);

/// What came of it since the mount.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Shown {
    /// Tables of the last answer.
    pub tables: u64,
    /// Scans of tables, and rows that were changed.
    pub reads: u64,
    pub writes: u64,
    /// Why there was no answer.
    pub trouble: Option<String>,
}

/// The statistics of a mount; `None`: nobody is asked.
#[derive(Default)]
pub struct Statistics(Mutex<Option<Shown>>);

impl Statistics {
    pub fn shown(&self) -> Option<Shown> {
        self.0.lock().clone()
    }
}

/// Reads and writes of each table, by its OIDs.
#[derive(Default)]
struct Last(Option<HashMap<(u32, u32), (u64, u64)>>);

impl Last {
    /// What has come since the last answer, of tables of which anything has.
    fn since(&mut self, now: Vec<Touched>) -> Vec<Touched> {
        let before = self.0.take();
        let counts = now.iter().map(|one| (one.table, (one.reads, one.writes))).collect();
        self.0 = Some(counts);
        let Some(before) = before else { return Vec::new() };
        let new = |one: Touched| {
            let (reads, writes) = before.get(&one.table).copied().unwrap_or_default();
            // Fewer than before: they count from nothing again.
            let grown = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
            Touched { reads: grown(one.reads, reads), writes: grown(one.writes, writes), ..one }
        };
        now.into_iter().map(new).filter(|one| one.reads + one.writes > 0).collect()
    }
}

/// Starts to ask, every `tick`.
///
/// # Errors
/// No thread can be started.
pub fn begin(running: &Arc<Running>, connection: &str, tick: Duration) -> Outcome<()> {
    *running.statistics.0.lock() = Some(Shown::default());
    let (running, connection) = (Arc::downgrade(running), connection.to_owned());
    let work = move || {
        let (mut last, mut asked) = (Last::default(), Instant::now());
        while running.strong_count() > 0 {
            thread::sleep(NAP);
            if asked.elapsed() >= tick {
                asked = Instant::now();
                let answer = catalogue::touched(&connection).map(|now| (now.len() as u64, last.since(now)));
                if !tell(&running, answer) {
                    return;
                }
            }
        }
    };
    let started = thread::Builder::new().name("weft-pg-stat".into()).spawn(work);
    started.map(|_| ()).map_err(|cause| format!("cannot start a thread: {cause}"))
}

/// Tells the forecast, and `weft status`; false when the mount ends.
fn tell(running: &Weak<Running>, answer: Outcome<(u64, Vec<Touched>)>) -> bool {
    let Some(running) = running.upgrade() else { return false };
    let Some(entered) = running.logs.enter() else { return false };
    let mut guard = running.statistics.0.lock();
    let shown = guard.get_or_insert_default();
    match answer {
        Ok((tables, new)) => {
            (shown.tables, shown.trouble) = (tables, None);
            for one in new {
                shown.reads += one.reads;
                shown.writes += one.writes;
                signal(&running, &one);
            }
        }
        // Told once for each cause.
        Err(cause) if shown.trouble.as_ref() == Some(&cause) => {}
        Err(cause) => {
            tracing::warn!("pg_stat: {cause}");
            shown.trouble = Some(cause);
        }
    }
    drop(entered);
    true
}

fn signal(running: &Running, one: &Touched) {
    let Some(partition) = running.relation(&one.path) else { return };
    let engine = &running.common.engine;
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let (reads, writes) = (count(one.reads), count(one.writes));
    engine.signal(Signal::Query {
        partition: Key::from(partition.to_string()),
        at: engine.now(),
        reads,
        writes,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, reads: u64, writes: u64) -> Touched {
        Touched { table: (5, path.as_bytes()[0].into()), path: path.into(), reads, writes }
    }

    #[test]
    fn what_is_new_is_told_and_a_reset_begins_anew() {
        let mut last = Last::default();
        assert_eq!(last.since(vec![of("a", 100, 100), of("b", 5, 5)]), [], "what was before is not told");
        assert_eq!(last.since(vec![of("a", 103, 100), of("b", 5, 5)]), [of("a", 3, 0)]);
        // Written anew by TRUNCATE or VACUUM FULL: other files, the same table.
        assert_eq!(last.since(vec![of("a-2", 104, 100), of("b", 5, 5)]), [of("a-2", 1, 0)]);
        // A new table, one that is gone, and one whose counts were reset.
        assert_eq!(last.since(vec![of("a", 2, 1), of("c", 1, 7)]), [of("a", 2, 1), of("c", 1, 7)]);
        assert_eq!(last.since(vec![of("a", 2, 1), of("b", 6, 5), of("c", 1, 7)]), [of("b", 6, 5)]);
    }
}
