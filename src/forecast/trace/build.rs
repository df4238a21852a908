//! Makes ticks of single events.

use super::{Line, Trace, What};
use crate::forecast::signal::Key;
use crate::forecast::tick::{Tick, touched};
use crate::types::{PageSet, Timestamp};
use std::collections::{BTreeMap, HashMap};

#[derive(Default)]
struct Open {
    tick: Tick,
    pages: PageSet,
    /// Pages that were given as a count.
    counted: u64,
}

/// Collects events in order of time. One that is earlier than the running tick counts for that.
pub struct Builder {
    trace: Trace,
    numbers: HashMap<Key, u32>,
    /// Number of the running tick since the epoch.
    running: i64,
    open: BTreeMap<u32, Open>,
    sizes: HashMap<u32, u64>,
}

impl Builder {
    /// Ticks of `tick_us`, aligned to the epoch.
    pub fn new(tick_us: i64, source: &str) -> Builder {
        let tick_us = tick_us.max(1);
        Builder {
            trace: Trace { source: source.to_owned(), tick_us, ..Trace::default() },
            numbers: HashMap::new(),
            running: i64::MIN,
            open: BTreeMap::new(),
            sizes: HashMap::new(),
        }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let key = Key::from(name);
        let number = u32::try_from(self.trace.names.len()).unwrap_or(u32::MAX);
        self.trace.names.push(Key::clone(&key));
        self.numbers.insert(key, number);
        number
    }

    fn open(&mut self, name: &str, at: Timestamp) -> &mut Open {
        self.reach(at);
        let number = self.number(name);
        self.open.entry(number).or_default()
    }

    /// Ends the ticks that end at or before `at`.
    fn reach(&mut self, at: Timestamp) {
        let number = at.0.div_euclid(self.trace.tick_us);
        if number > self.running {
            self.flush();
            self.running = number;
        }
    }

    fn flush(&mut self) {
        let end = Timestamp((self.running.saturating_add(1)).saturating_mul(self.trace.tick_us));
        for (partition, open) in std::mem::take(&mut self.open) {
            let size = self.sizes.get(&partition).copied().unwrap_or(0);
            let pages = open.pages.count() + open.counted;
            let tick = Tick { end, span_us: self.trace.tick_us, pages, size, ..open.tick };
            self.trace.lines.push(Line { partition, what: What::Tick(tick) });
        }
    }

    /// Bytes were written at a place. `grown`: by how much the partition grew with it; `size`: its size afterwards.
    pub fn write(&mut self, name: &str, at: Timestamp, (start, len): (u64, u64), grown: i64, size: u64) {
        let open = self.open(name, at);
        open.tick.writes += 1;
        open.tick.bytes += len;
        open.tick.growth += grown;
        if grown > 0 {
            open.tick.appends += 1;
        } else {
            open.tick.overwrites += 1;
        }
        open.pages.write(start, start.saturating_add(len));
        open.tick.touched |= touched(start, start.saturating_add(len), size);
        let number = self.number(name);
        self.sizes.insert(number, size);
    }

    /// Something was written of which only sums are known. `size` when it is known afterwards.
    pub fn load(
        &mut self,
        name: &str,
        at: Timestamp,
        (writes, bytes, pages): (u64, u64, u64),
        size: Option<u64>,
    ) {
        let number = self.number(name);
        let before = self.sizes.get(&number).copied();
        let size = size.or(before);
        let grown = match (before, size) {
            (Some(before), Some(size)) => {
                i64::try_from(size).unwrap_or(0) - i64::try_from(before).unwrap_or(0)
            }
            (None, Some(size)) => i64::try_from(size).unwrap_or(0),
            _ => 0,
        };
        let open = self.open(name, at);
        open.tick.writes += writes;
        open.tick.bytes += bytes;
        open.tick.growth += grown;
        if grown > 0 {
            open.tick.appends += writes;
        } else {
            open.tick.overwrites += writes;
        }
        open.counted += pages;
        // Where is not known: at the end if it grew, from the beginning otherwise.
        let len = pages.saturating_mul(crate::types::PAGE);
        let whole = size.unwrap_or(len);
        let start = if grown > 0 { whole.saturating_sub(len) } else { 0 };
        if writes > 0 {
            open.tick.touched |= touched(start, start.saturating_add(len.max(1)), whole);
        }
        if let Some(size) = size {
            self.sizes.insert(number, size);
        }
    }

    /// Bytes were read. `size`: at least so large the partition is.
    pub fn read(&mut self, name: &str, at: Timestamp, bytes: u64, size: u64) {
        let open = self.open(name, at);
        open.tick.reads += 1;
        open.tick.read_bytes += bytes;
        let number = self.number(name);
        let known = self.sizes.entry(number).or_default();
        *known = (*known).max(size);
    }

    /// It is gone.
    pub fn gone(&mut self, name: &str, at: Timestamp) {
        self.mark(name, at, |at| What::Gone { at });
        if let Some(number) = self.numbers.get(name) {
            self.sizes.remove(number);
        }
    }

    /// It was split.
    pub fn split(&mut self, name: &str, at: Timestamp, point: Option<f32>) {
        self.mark(name, at, |at| What::Split { at, point });
    }

    /// A mark stands at the end of its tick, behind the tick itself.
    fn mark(&mut self, name: &str, at: Timestamp, what: impl FnOnce(Timestamp) -> What) {
        self.reach(at);
        let number = self.number(name);
        let end = Timestamp((self.running.saturating_add(1)).saturating_mul(self.trace.tick_us));
        self.flush();
        self.trace.lines.push(Line { partition: number, what: what(end) });
    }

    /// The size that a partition has now.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.sizes.get(self.numbers.get(name)?).copied()
    }

    /// The trace.
    pub fn finish(mut self) -> Trace {
        if self.running != i64::MIN {
            self.flush();
        }
        self.trace.lines.sort_by_key(Line::at);
        self.trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_stretch_are_one_tick() {
        let mut builder = Builder::new(10, "t");
        builder.write("a", Timestamp(1), (0, 8192), 8192, 8192);
        builder.write("a", Timestamp(9), (0, 4096), 0, 8192);
        builder.read("a", Timestamp(9), 100, 100);
        builder.write("b", Timestamp(12), (0, 1), 1, 1);
        builder.gone("b", Timestamp(13));
        builder.load("a", Timestamp(40), (3, 300, 2), None);
        let trace = builder.finish();
        assert_eq!(trace.lines.len(), 4);
        let What::Tick(tick) = trace.lines[0].what else { panic!() };
        assert_eq!((tick.end, tick.writes, tick.appends, tick.overwrites), (Timestamp(10), 2, 1, 1));
        assert_eq!((tick.bytes, tick.pages, tick.growth, tick.size, tick.reads), (12_288, 2, 8192, 8192, 1));
        assert_eq!(trace.lines[2].what, What::Gone { at: Timestamp(20) });
        let What::Tick(tick) = trace.lines[3].what else { panic!() };
        assert_eq!((tick.end, tick.size, tick.growth, tick.pages), (Timestamp(50), 8192, 0, 2));
    }
}
