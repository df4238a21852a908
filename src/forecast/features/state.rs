//! What is remembered of one partition.

use super::parts::Parts;
use super::rates::{Day, Fading, Hours, Of, Window, Windows};
use crate::forecast::tick::Tick;
use crate::types::{PAGE, Timestamp};

/// See the head of this file; of bounded size.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) fading: Fading,
    pub(super) windows: Windows,
    pub(super) day: Day,
    pub(super) parts: Parts,
    pub(super) last: Tick,
    pub(super) first_seen: Timestamp,
    pub(super) last_write: Option<Timestamp>,
    pub(super) last_read: Option<Timestamp>,
    pub(super) last_split: Option<Timestamp>,
    /// Seconds between its birth and the split of its kin that is nearest to it: a child is born when its parent is split.
    pub(super) born_apart: Option<f32>,
    /// Bytes that it had at its last split.
    pub(super) split_size: u64,
    pub(super) last_ddl: Option<Timestamp>,
    /// Mean µs between stretches with writes, fading over the last ten or so.
    pub(super) gap_us: f32,
    /// Share of the 64 parts that a busy tick touches, and how much of that the tick before it touched.
    pub(super) spread: f32,
    pub(super) overlap: f32,
    /// Share of busy ticks that touched the last part that has bytes.
    pub(super) at_end: f32,
    pub(super) busy_touched: u64,
    /// Statements that name it, fading over five minutes.
    pub(super) query_reads: f32,
    pub(super) query_writes: f32,
    pub(super) query_at: Timestamp,
}

/// Weight of a new value in means over events.
const NEW: f32 = 0.1;
const QUERY_SECS: f64 = 300.0;
/// Ten years.
const SPAN_MOST_US: i64 = 315_360_000_000_000;

/// The bit of `touched` that stands for the last byte.
fn end_bit(size: u64) -> u64 {
    crate::forecast::tick::touched(size.saturating_sub(1), size, size)
}

impl State {
    /// Nothing is known of it before `at`.
    pub fn new(at: Timestamp) -> State {
        State { first_seen: at, ..State::default() }
    }

    /// Adds a tick. One that ends before the last is dropped: time goes forward.
    pub fn add(&mut self, tick: &Tick) {
        let end = tick.end.clamp(Timestamp::FIRST, Timestamp::LAST);
        let tick = &Tick { end, span_us: tick.span_us.clamp(1, SPAN_MOST_US), ..*tick };
        if tick.end <= self.last.end && self.last.span_us > 0 {
            return;
        }
        self.fading.add(tick);
        self.windows.add(tick);
        self.day.add(tick);
        self.parts.add(tick);
        if tick.writes > 0 {
            self.add_writes(tick);
        }
        if tick.reads > 0 {
            self.last_read = Some(tick.end);
        }
        self.last = *tick;
    }

    fn add_writes(&mut self, tick: &Tick) {
        if let Some(before) = self.last_write {
            let gap = (tick.end.0 - before.0).max(0) as f32;
            self.gap_us += (gap - self.gap_us) * if self.gap_us == 0.0 { 1.0 } else { NEW };
        }
        let spread = tick.touched.count_ones() as f32 / 64.0;
        let both = (tick.touched & self.busy_touched).count_ones() as f32;
        let any = (tick.touched | self.busy_touched).count_ones().max(1) as f32;
        let at_end = f32::from(u8::from(tick.touched & end_bit(tick.size) != 0));
        let weight = if self.busy_touched == 0 { 1.0 } else { NEW };
        self.spread += (spread - self.spread) * weight;
        self.at_end += (at_end - self.at_end) * weight;
        if self.busy_touched != 0 {
            self.overlap += (both / any - self.overlap) * NEW;
        }
        self.busy_touched = tick.touched;
        self.last_write = Some(tick.end);
    }

    /// Statements of a query log.
    pub fn add_queries(&mut self, at: Timestamp, reads: u32, writes: u32) {
        let (kept_reads, kept_writes) = self.queries(at);
        self.query_reads = kept_reads as f32 + reads as f32;
        self.query_writes = kept_writes as f32 + writes as f32;
        self.query_at = at.max(self.query_at);
    }

    /// Statements, faded to `now`: those that read, those that write.
    pub(super) fn queries(&self, now: Timestamp) -> (f64, f64) {
        let age = now.0.saturating_sub(self.query_at.0).max(0) as f64 / 1e6;
        let keep = (-age / QUERY_SECS).exp();
        (f64::from(self.query_reads) * keep, f64::from(self.query_writes) * keep)
    }

    /// It was split, or is about to be.
    pub fn add_split(&mut self, at: Timestamp) {
        self.last_split = self.last_split.max(Some(at));
        self.split_size = self.last.size;
    }

    /// One of its kin was split so many seconds before or after it was first seen.
    pub(super) fn add_split_of_kin(&mut self, at: Timestamp) {
        let apart = (at.0.saturating_sub(self.first_seen.0)).unsigned_abs() as f32 / 1e6;
        self.born_apart = Some(self.born_apart.map_or(apart, |before| before.min(apart)));
    }

    /// Bytes gathered since it was new or last split; all of it, if it is smaller since.
    pub(super) fn gathered(&self) -> u64 {
        self.last.size.checked_sub(self.split_size).unwrap_or(self.last.size)
    }

    /// Seconds since it was new or last split.
    pub(super) fn whole_secs(&self, now: Timestamp) -> f64 {
        let since = self.last_split.unwrap_or(self.first_seen);
        now.0.saturating_sub(since.0).max(0) as f64 / 1e6
    }

    /// Probability of no busy tick within `horizon` seconds, if the share of them that is busy over a span goes on, each by
    /// itself.
    pub fn still(&self, now: Timestamp, span: usize, horizon: u32) -> f64 {
        let busy = self.rate(now, span, Of::Busy).clamp(0.0, 1.0);
        (1.0 - busy).powf((f64::from(horizon) / self.last.secs()).max(1.0))
    }

    /// Of the pages written lately the share that it grew by, 0 to 1.
    pub fn new_share(&self, now: Timestamp) -> f64 {
        let rate = |of| self.rate(now, 1, of);
        if rate(Of::Pages) > 1e-9 {
            (rate(Of::Growth) / PAGE as f64 / rate(Of::Pages)).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// Distinct pages that the coming `secs` bring if the rates over a span go on, where it is written of late; what it
    /// grows by is new.
    pub(super) fn distinct(&self, now: Timestamp, span: usize, secs: f64) -> f64 {
        let grown = self.rate(now, span, Of::Growth) * secs / PAGE as f64;
        let pages = self.rate(now, span, Of::Pages) * secs;
        grown.min(pages) + self.parts.distinct((pages - grown).max(0.0))
    }

    /// A statement changes it.
    pub fn add_ddl(&mut self, at: Timestamp) {
        self.last_ddl = self.last_ddl.max(Some(at));
    }

    /// The rate per second at `now`, fading over the span of this number in `SPANS`.
    pub fn rate(&self, now: Timestamp, span: usize, of: Of) -> f64 {
        self.fading.at(now.0, span, of)
    }

    /// Counts over the span of this number in `SPANS` that ends at `now`.
    pub fn window(&self, now: Timestamp, span: usize) -> Window {
        self.windows.at(now.0, span)
    }

    /// What the hour that begins at `now` usually brings.
    pub fn hours(&self, now: Timestamp) -> Hours {
        self.day.at(now.0)
    }

    /// When it was last split.
    pub fn last_split(&self) -> Option<Timestamp> {
        self.last_split
    }

    /// The newest tick.
    pub fn last(&self) -> &Tick {
        &self.last
    }

    /// When anything was last told of it.
    pub fn last_told(&self) -> Timestamp {
        let query = if self.query_reads + self.query_writes > 0.0 { self.query_at } else { Timestamp(0) };
        self.last.end.max(self.first_seen).max(query)
    }

    /// When it was last written.
    pub fn last_write(&self) -> Option<Timestamp> {
        self.last_write
    }

    /// When it was first seen.
    pub fn first_seen(&self) -> Timestamp {
        self.first_seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_costs_little() {
        // 10,000 of them, with their names and the table's overhead, below 40 MiB.
        assert!(size_of::<State>() < 2_048, "{}", size_of::<State>());
    }
}
