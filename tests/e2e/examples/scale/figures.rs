//! What was measured of one history.

use serde_json::{Value, json};
use std::fmt;
use std::time::{Duration, Instant};

/// One history, looked at.
pub struct Figures {
    /// "real" or "generated".
    pub kind: &'static str,
    /// Versions of pages.
    pub entries: u64,
    /// A view that nobody has opened before: its root and a file in it.
    pub open: Spread,
    /// One random page at a random instant.
    pub page: Spread,
    /// The newest hundred versions of a file.
    pub log: Spread,
    /// Of the process that answers, after all of it.
    pub rss_mib: f64,
    pub index_bytes_each: f64,
    /// Everything that history takes: journal, woven, index, pages. 0 where there is only the index.
    pub store_bytes_each: f64,
    /// From `weft mount` after kill -9 to the answer; of a generated history the index alone.
    pub mount_after_kill: Duration,
}

/// Times of one thing, done many times.
pub struct Spread {
    sorted: Vec<Duration>,
}

impl Spread {
    pub fn of(mut times: Vec<Duration>) -> Spread {
        times.sort_unstable();
        Spread { sorted: times }
    }

    /// In microseconds.
    pub fn us(&self, percent: usize) -> f64 {
        let at = self.sorted.len().saturating_sub(1) * percent / 100;
        self.sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    }

    fn json(&self) -> Value {
        json!({"p50_us": self.us(50), "p99_us": self.us(99)})
    }

    /// From what a child has printed.
    pub fn from_us(us: &Value) -> Spread {
        let list = us.as_array().expect("a list of times");
        Spread::of(
            list.iter().map(|us| Duration::from_nanos((us.as_f64().expect("a time") * 1e3) as u64)).collect(),
        )
    }
}

/// How long it takes, and what came of it.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let made = work();
    (begun.elapsed(), made)
}

/// Bytes that a directory takes on disk.
pub fn disk_bytes(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

impl Figures {
    pub fn heading() -> String {
        format!(
            "{:<10} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>8} {:>8} {:>8}",
            "history",
            "versions",
            "open p50",
            "p99",
            "page p50",
            "p99",
            "log p50",
            "RSS",
            "index",
            "STORE",
            "mount"
        ) + "\n"
            + &format!(
                "{:<10} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>8} {:>8} {:>8}",
                "", "", "us", "us", "us", "us", "us", "MiB", "B each", "B each", "s"
            )
    }

    pub fn json(&self) -> Value {
        json!({
            "kind": self.kind,
            "versions": self.entries,
            "open": self.open.json(),
            "page": self.page.json(),
            "log": self.log.json(),
            "rss_mib": self.rss_mib,
            "index_bytes_each": self.index_bytes_each,
            "store_bytes_each": self.store_bytes_each,
            "mount_after_kill_s": self.mount_after_kill.as_secs_f64(),
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<10} {:>11} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>7.0} {:>8.1} {:>8.1} {:>8.2}",
            self.kind,
            self.entries,
            self.open.us(50),
            self.open.us(99),
            self.page.us(50),
            self.page.us(99),
            self.log.us(50),
            self.rss_mib,
            self.index_bytes_each,
            self.store_bytes_each,
            self.mount_after_kill.as_secs_f64(),
        )
    }
}
