//! Traces: ticks of partitions over time, as text.

pub mod build;
pub mod examples;
pub mod import;
pub mod kept;
pub mod labels;
pub mod npy;
pub mod replay;
pub mod text;

use super::signal::{Ddl, Key};
use super::tick::Tick;
use crate::types::Timestamp;

/// A line of a trace.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Line {
    /// Number of the partition in [`Trace::names`].
    pub partition: u32,
    pub what: What,
}

/// What a line tells.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum What {
    Tick(Tick),
    /// The partition was split; `point`: share of its page range that stays with the first child.
    Split {
        at: Timestamp,
        point: Option<f32>,
    },
    /// Its files are gone.
    Gone {
        at: Timestamp,
    },
    /// Statements of a log that named it, up to `at`.
    Query {
        at: Timestamp,
        reads: u32,
        writes: u32,
    },
    /// A statement changes it.
    Ddl {
        at: Timestamp,
        what: Ddl,
    },
}

impl Line {
    /// When: a tick is known at its end.
    pub fn at(&self) -> Timestamp {
        match self.what {
            What::Tick(tick) => tick.end,
            What::Split { at, .. } | What::Gone { at } | What::Query { at, .. } | What::Ddl { at, .. } => at,
        }
    }
}

/// Ticks in order of time. A partition without a line in some stretch was idle then.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Where it comes from, in a word or two.
    pub source: String,
    /// Nominal length of a tick, µs.
    pub tick_us: i64,
    pub names: Vec<Key>,
    pub lines: Vec<Line>,
}

impl Trace {
    /// When the first line's stretch ends, and the last's.
    pub fn reach(&self) -> Option<(Timestamp, Timestamp)> {
        Some((self.lines.first()?.at(), self.lines.last()?.at()))
    }
}
