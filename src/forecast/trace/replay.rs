//! Feeds a trace to whoever listens, step by step: what was known at each moment, and nothing later.

use super::{Line, Trace, What};
use crate::forecast::features::Features;
use crate::forecast::signal::{Key, Signal};
use crate::types::Timestamp;

/// When a partition splits, in a trace that does not say so itself. Splits that the trace records always count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SplitPolicy {
    /// Only those that are recorded.
    Recorded,
    /// Whenever its size passes a multiple of so many bytes (PostgreSQL's segments; thresholds of HBase or TiKV).
    Size(u64),
    /// At each multiple of so many seconds since the epoch at which it has grown (time-range partitions).
    Every(u64),
}

impl SplitPolicy {
    /// As on the command line: `recorded`, `size:BYTES`, `every:SECS`.
    ///
    /// # Errors
    /// One line.
    pub fn parse(text: &str) -> Result<SplitPolicy, String> {
        let positive = |value: &str| value.parse::<u64>().ok().filter(|value| (1..1 << 60).contains(value));
        let parsed = match text.split_once(':') {
            None if text == "recorded" => Some(SplitPolicy::Recorded),
            Some(("size", bytes)) => positive(bytes).map(SplitPolicy::Size),
            Some(("every", secs)) => positive(secs).map(SplitPolicy::Every),
            _ => None,
        };
        parsed
            .ok_or_else(|| format!("`{text}` is no policy of splits: use recorded, size:BYTES or every:SECS"))
    }

    /// The edge that features and baselines measure against.
    pub fn split_bytes(self) -> u64 {
        match self {
            SplitPolicy::Size(bytes) => bytes,
            _ => 1 << 30,
        }
    }

    /// Whether a partition splits in a tick: `before` and `grown_since` are its size, and growth since the last
    /// boundary, before it.
    fn splits(self, before: Option<u64>, tick: &crate::forecast::Tick) -> bool {
        match self {
            SplitPolicy::Recorded => false,
            SplitPolicy::Size(bytes) => before.is_some_and(|before| passes(bytes, before, tick.size)),
            SplitPolicy::Every(secs) => {
                let every = i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1_000_000);
                let begin = tick.end.0.saturating_sub(tick.span_us);
                tick.growth > 0 && (tick.end.0 - 1).div_euclid(every) > (begin - 1).div_euclid(every)
            }
        }
    }
}

/// Whether a partition that was `before` bytes and is `size` has passed a multiple of `bytes`: a split by size, in traces and
/// in service alike.
pub fn passes(bytes: u64, before: u64, size: u64) -> bool {
    size / bytes.max(1) > before / bytes.max(1)
}

/// All splits of a trace: partition, when, point; in order of time.
pub fn splits(trace: &Trace, policy: SplitPolicy) -> Vec<(u32, Timestamp, Option<f32>)> {
    let mut sizes: Vec<Option<u64>> = vec![None; trace.names.len()];
    let mut found = Vec::new();
    for line in &trace.lines {
        let Some(size) = usize::try_from(line.partition).ok().and_then(|index| sizes.get_mut(index)) else {
            continue;
        };
        match line.what {
            What::Split { at, point } => found.push((line.partition, at, point)),
            What::Gone { .. } => *size = None,
            What::Query { .. } | What::Ddl { .. } => {}
            What::Tick(tick) => {
                if policy.splits(*size, &tick) {
                    found.push((line.partition, tick.end, None));
                }
                *size = Some(tick.size);
            }
        }
    }
    found
}

/// What a line tells, as a signal.
pub fn signal(partition: Key, what: &What) -> Signal {
    match *what {
        What::Tick(tick) => Signal::Activity { partition, tick },
        What::Gone { at } => Signal::Gone { partition, at },
        What::Split { at, point } => Signal::Split { partition, at, children: Vec::new(), point },
        What::Query { at, reads, writes } => Signal::Query { partition, at, reads, writes },
        What::Ddl { at, what } => Signal::Ddl { partition: Some(partition), at, what },
    }
}

/// Goes through a trace.
pub struct Replay<'a> {
    trace: &'a Trace,
    next: usize,
    splits: Vec<(u32, Timestamp, Option<f32>)>,
    next_split: usize,
}

impl<'a> Replay<'a> {
    pub fn new(trace: &'a Trace, policy: SplitPolicy) -> Replay<'a> {
        Replay { trace, next: 0, splits: splits(trace, policy), next_split: 0 }
    }

    /// Tells `features` all that happened up to `now`; the lines that were told.
    pub fn upto(&mut self, now: Timestamp, features: &mut Features) -> &'a [Line] {
        let begin = self.next;
        while let Some(line) = self.trace.lines.get(self.next).filter(|line| line.at() <= now) {
            // A partition that was split is often gone a moment later.
            self.tell_splits(features, |at| at < line.at());
            self.next += 1;
            let Some(partition) = self.name(line.partition) else { continue };
            // Splits come from their list, which has those of the trace, too.
            if !matches!(line.what, What::Split { .. }) {
                features.take(&signal(partition, &line.what));
            }
        }
        self.tell_splits(features, |at| at <= now);
        features.pass(now);
        self.trace.lines.get(begin..self.next).unwrap_or(&[])
    }

    /// Tells `features` the splits that come next, as long as `is_due`.
    fn tell_splits(&mut self, features: &mut Features, is_due: impl Fn(Timestamp) -> bool) {
        while let Some((number, at, point)) = self.splits.get(self.next_split).filter(|split| is_due(split.1))
        {
            self.next_split += 1;
            let Some(partition) = self.name(*number) else { continue };
            features.take(&signal(partition, &What::Split { at: *at, point: *point }));
        }
    }

    fn name(&self, number: u32) -> Option<Key> {
        self.trace.names.get(usize::try_from(number).ok()?).map(Key::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::Tick;

    fn growing(sizes: &[u64]) -> Trace {
        let mut before = 0;
        let lines = sizes.iter().enumerate().map(|(n, size)| {
            let growth = *size as i64 - before as i64;
            before = *size;
            let end = Timestamp((n as i64 + 1) * 10_000_000);
            let tick = Tick { end, span_us: 10_000_000, size: *size, growth, writes: 1, ..Tick::default() };
            Line { partition: 0, what: What::Tick(tick) }
        });
        let lines = lines.collect();
        Trace { source: "t".into(), tick_us: 10_000_000, names: vec!["p".into()], lines }
    }

    #[test]
    fn a_size_splits_where_it_passes_a_multiple() {
        let trace = growing(&[50, 90, 110, 130, 90, 105, 350]);
        let at =
            |policy| splits(&trace, policy).iter().map(|split| split.1.0 / 10_000_000).collect::<Vec<_>>();
        assert_eq!(at(SplitPolicy::Size(100)), [3, 6, 7]);
        assert_eq!(at(SplitPolicy::Recorded), Vec::<i64>::new());
        // Boundaries at 30 s and 60 s: the ticks that begin there and grow.
        assert_eq!(at(SplitPolicy::Every(30)), [1, 4, 7]);
    }

    #[test]
    fn nothing_later_is_told() {
        let trace = growing(&[50, 90, 110]);
        let mut features = Features::default();
        let mut replay = Replay::new(&trace, SplitPolicy::Size(100));
        assert_eq!(replay.upto(Timestamp(25_000_000), &mut features).len(), 2);
        assert_eq!(features.state("p").unwrap().last().size, 90);
        assert_eq!(features.state("p").unwrap().last_split(), None);
        assert_eq!(replay.upto(Timestamp(30_000_000), &mut features).len(), 1);
        assert_eq!(features.state("p").unwrap().last_split(), Some(Timestamp(30_000_000)));
    }

    #[test]
    fn a_partition_that_goes_after_its_split_was_split_while_it_was_there() {
        let mut trace = growing(&[50, 90, 110]);
        let at = |us: i64| Timestamp(30_000_000 + us);
        trace.lines.push(Line { partition: 0, what: What::Split { at: at(1), point: None } });
        trace.lines.push(Line { partition: 0, what: What::Gone { at: at(2) } });
        let mut features = Features::default();
        Replay::new(&trace, SplitPolicy::Recorded).upto(Timestamp(40_000_000), &mut features);
        assert!(features.is_empty());
        // Its kin is measured against what it was: 110 bytes.
        let tick = Tick { end: Timestamp(50_000_000), span_us: 1, size: 110, ..Tick::default() };
        features.take(&Signal::Activity { partition: "p".into(), tick });
        let rows = features.rows(Timestamp(50_000_000));
        let names = crate::forecast::features::names();
        let get = |name: &str| rows.row(0)[names.iter().position(|have| have == name).unwrap()];
        assert!(get("splits_known") > 0.0 && get("split_size").abs() < 1e-4, "{}", get("split_size"));
    }

    #[test]
    fn policies_are_read_from_words() {
        assert_eq!(SplitPolicy::parse("size:65536"), Ok(SplitPolicy::Size(65_536)));
        assert_eq!(SplitPolicy::parse("every:60"), Ok(SplitPolicy::Every(60)));
        assert_eq!(SplitPolicy::parse("recorded"), Ok(SplitPolicy::Recorded));
        for bad in ["", "size", "size:0", "size:-1", "every:x", "month"] {
            assert!(SplitPolicy::parse(bad).unwrap_err().contains("use recorded"), "{bad}");
        }
    }
}
