//! What happened after a moment: the labels that a model learns, and against which forecasts are scored.

use super::replay::{SplitPolicy, splits};
use super::{Trace, What};
use crate::forecast::predictor::{HORIZONS, SPLIT_HORIZONS};
use crate::forecast::tick::{Tick, Union};
use crate::types::Timestamp;

/// Labels per row.
pub const COUNT: usize = 22;

/// Names of the labels, in order. `split_N`: it split within N seconds; `split_secs`: seconds to the next split;
/// `split_point`: its point; `left_secs`: seconds to the end of the trace; then by horizon: distinct pages, bytes and
/// reads, and whether nothing was written. NaN: not known, because the trace ends before, or is too coarse.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = SPLIT_HORIZONS.iter().map(|secs| format!("split_{secs}s")).collect();
    names.extend(["split_secs", "split_point", "left_secs"].map(String::from));
    for what in ["pages", "bytes", "reads", "quiet"] {
        names.extend(HORIZONS.iter().map(|secs| format!("{what}_{secs}s")));
    }
    names
}

/// What happened within one horizon.
#[derive(Clone, Copy, PartialEq, Debug, Default, serde::Serialize)]
pub struct Outcome {
    pub pages: f64,
    pub bytes: f64,
    pub reads: f64,
    pub writes: f64,
}

/// All that is to come, by partition.
pub struct Future {
    ticks: Vec<Vec<Tick>>,
    splits: Vec<Vec<(Timestamp, Option<f32>)>>,
    end: Timestamp,
    tick_us: i64,
}

impl Future {
    pub fn new(trace: &Trace, policy: SplitPolicy) -> Future {
        let mut ticks = vec![Vec::new(); trace.names.len()];
        let mut by_partition = vec![Vec::new(); trace.names.len()];
        for line in &trace.lines {
            let list = usize::try_from(line.partition).ok().and_then(|index| ticks.get_mut(index));
            if let (Some(list), What::Tick(tick)) = (list, line.what) {
                list.push(tick);
            }
        }
        for (partition, at, point) in splits(trace, policy) {
            if let Some(list) = usize::try_from(partition).ok().and_then(|index| by_partition.get_mut(index))
            {
                list.push((at, point));
            }
        }
        let end = trace.reach().map_or(Timestamp(0), |(_, end)| end);
        Future { ticks, splits: by_partition, end, tick_us: trace.tick_us }
    }

    /// The trace tells what happens until here.
    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// What happens to a partition in the `secs` seconds after `now`. `None`: the trace ends before, or its ticks are
    /// longer.
    pub fn within(&self, partition: usize, now: Timestamp, secs: u32) -> Option<Outcome> {
        let until = Timestamp(now.0.saturating_add(i64::from(secs) * 1_000_000));
        if until > self.end || i64::from(secs) * 1_000_000 < self.tick_us {
            return None;
        }
        let ticks = self.ticks.get(partition)?;
        let begin = ticks.partition_point(|tick| tick.end <= now);
        let mut outcome = Outcome::default();
        let mut union = Union::default();
        for tick in ticks.get(begin..)?.iter().take_while(|tick| tick.end <= until) {
            outcome.bytes += tick.bytes as f64;
            outcome.reads += tick.reads as f64;
            outcome.writes += tick.writes as f64;
            union.add(tick);
        }
        outcome.pages = union.pages();
        Some(outcome)
    }

    /// The next split after `now`.
    pub fn split_after(&self, partition: usize, now: Timestamp) -> Option<(Timestamp, Option<f32>)> {
        let splits = self.splits.get(partition)?;
        splits.get(splits.partition_point(|split| split.0 <= now)).copied()
    }

    /// Whether it splits in the `secs` seconds after `now`; `None`: not known.
    pub fn splits_within(&self, partition: usize, now: Timestamp, secs: u32) -> Option<bool> {
        let until = now.0.saturating_add(i64::from(secs) * 1_000_000);
        match self.split_after(partition, now) {
            Some((at, _)) if at.0 <= until => Some(true),
            _ if until > self.end.0 => None,
            _ => Some(false),
        }
    }

    /// The next moment after `now` at which it is written.
    pub fn write_after(&self, partition: usize, now: Timestamp) -> Option<&Tick> {
        let ticks = self.ticks.get(partition)?;
        let begin = ticks.partition_point(|tick| tick.end <= now);
        ticks.get(begin..)?.iter().find(|tick| tick.writes > 0)
    }

    /// Appends the labels of a row: [`COUNT`] values.
    pub fn push(&self, out: &mut Vec<f32>, partition: usize, now: Timestamp) {
        let flag = |value: Option<bool>| value.map_or(f32::NAN, |value| f32::from(u8::from(value)));
        for secs in SPLIT_HORIZONS {
            out.push(flag(self.splits_within(partition, now, secs)));
        }
        let split = self.split_after(partition, now);
        out.push(split.map_or(f32::NAN, |(at, _)| ((at.0 - now.0) as f64 / 1e6) as f32));
        out.push(split.and_then(|(_, point)| point).unwrap_or(f32::NAN));
        out.push((self.end.0.saturating_sub(now.0) as f64 / 1e6) as f32);
        let outcomes = HORIZONS.map(|secs| self.within(partition, now, secs));
        let parts: [fn(&Outcome) -> f64; 4] = [
            |outcome| outcome.pages,
            |outcome| outcome.bytes,
            |outcome| outcome.reads,
            |outcome| f64::from(u8::from(outcome.writes == 0.0)),
        ];
        for part in parts {
            out.extend(outcomes.iter().map(|outcome| outcome.as_ref().map_or(f32::NAN, |o| part(o) as f32)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::trace::Line;

    fn trace() -> Trace {
        let tick = |n: i64, writes: u64| {
            let (end, span_us) = (Timestamp(n * 60_000_000), 60_000_000);
            let size = 1 << 20;
            let tick =
                Tick { end, span_us, writes, bytes: writes * 4096, pages: writes, size, ..Tick::default() };
            Line { partition: 0, what: What::Tick(tick) }
        };
        let split = Line { partition: 0, what: What::Split { at: Timestamp(600_000_000), point: Some(0.5) } };
        let lines = vec![tick(1, 2), tick(3, 4), split, tick(20, 1)];
        Trace { source: "t".into(), tick_us: 60_000_000, names: vec!["p".into()], lines }
    }

    #[test]
    fn labels_are_what_came_after() {
        let future = Future::new(&trace(), SplitPolicy::Recorded);
        let mut row = Vec::new();
        future.push(&mut row, 0, Timestamp(60_000_000));
        let names = names();
        assert_eq!((row.len(), names.len()), (COUNT, COUNT));
        let get = |name: &str| row[names.iter().position(|have| have == name).unwrap()];
        assert_eq!((get("split_300s"), get("split_3600s")), (0.0, 1.0));
        assert_eq!((get("split_secs"), get("split_point"), get("left_secs")), (540.0, 0.5, 1_140.0));
        assert_eq!((get("bytes_60s"), get("bytes_300s")), (0.0, 4.0 * 4096.0));
        assert_eq!((get("quiet_60s"), get("quiet_300s")), (1.0, 0.0));
        assert!((get("pages_300s") - 4.0).abs() < 0.1);
        assert!(get("bytes_3600s").is_nan(), "the trace ends before");
    }

    #[test]
    fn a_split_that_was_seen_counts_even_if_the_trace_ends() {
        let future = Future::new(&trace(), SplitPolicy::Recorded);
        assert_eq!(future.splits_within(0, Timestamp(0), 86_400), Some(true));
        assert_eq!(future.splits_within(0, Timestamp(600_000_000), 86_400), None);
        assert_eq!(future.splits_within(0, Timestamp(600_000_000), 300), Some(false));
        assert_eq!(future.within(0, Timestamp(0), 30), None, "finer than its ticks");
    }
}
