//! Traces of others as traces of ours. What a partition is, and how time is scaled, is the importer's choice, and is
//! said in the trace's source.

mod block;
mod growth;
mod rates;
mod runs;

use super::Trace;
use super::text::{Lines, fields};
use crate::error::{Error, Result};
use crate::types::Timestamp;
use std::io::BufRead;

/// The formats that are understood, each by the columns of its first line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `t,vol,off,size,op`: requests to block devices; extents are partitions.
    Block,
    /// `ts,op,table,pages_remain,...,pages_dirtied,wal_bytes`: runs of PostgreSQL's autovacuum; tables are partitions.
    PgAutovacuum,
    /// `ts,commit,op,path,src,size_before,size_after`: files that grow by commits; files are partitions.
    FileGrowth,
    /// `job,t,...,in_b,...,path`: paths that jobs read; paths are partitions.
    PathReads,
    /// `timestamp,value`: a rate; one partition.
    Rate,
}

/// All formats.
pub const FORMATS: [Format; 5] =
    [Format::Block, Format::PgAutovacuum, Format::FileGrowth, Format::PathReads, Format::Rate];

/// How to import.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct How {
    /// Seconds of a tick, after scaling; the format's own when `None`.
    pub tick_secs: Option<f64>,
    /// Of block traces: bytes of a partition.
    pub extent_bytes: u64,
    /// Times are multiplied by this; the format's own when `None`.
    pub time_scale: Option<f64>,
    /// Of rates: bytes that a value of one stands for, per tick.
    pub unit_bytes: f64,
}

impl Default for How {
    fn default() -> How {
        How { tick_secs: None, extent_bytes: 1 << 20, time_scale: None, unit_bytes: 4096.0 }
    }
}

impl Format {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Block => "block",
            Format::PgAutovacuum => "pg-autovacuum",
            Format::FileGrowth => "file-growth",
            Format::PathReads => "path-reads",
            Format::Rate => "rate",
        }
    }

    /// The format of a name.
    ///
    /// # Errors
    /// `Invalid`, with the names there are.
    pub fn named(name: &str) -> Result<Format> {
        FORMATS.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names: Vec<&str> = FORMATS.iter().map(|format| format.name()).collect();
            Error::invalid("trace.import", format!("no format `{name}`: use {}", names.join(", ")))
        })
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            Format::Block => &["t", "vol", "off", "size", "op"],
            Format::PgAutovacuum => &["ts", "op", "table", "pages_remain", "pages_dirtied", "wal_bytes"],
            Format::FileGrowth => &["ts", "op", "path", "src", "size_before", "size_after"],
            Format::PathReads => &["t", "in_b", "path"],
            Format::Rate => &["timestamp", "value"],
        }
    }

    /// Seconds of a tick after scaling, and the scale of time.
    fn own(self) -> (f64, f64) {
        match self {
            Format::Block | Format::PathReads => (60.0, 1.0),
            Format::PgAutovacuum | Format::Rate => (300.0, 1.0),
            // 180 days become one, a day a tick.
            Format::FileGrowth => (480.0, 1.0 / 180.0),
        }
    }
}

/// The rows of a table with named columns.
struct Table<R> {
    lines: Lines<R>,
    /// Positions of the wanted columns.
    at: Vec<usize>,
    scale: f64,
}

impl<R: BufRead> Table<R> {
    fn open(input: R, format: Format, scale: f64) -> Result<Table<R>> {
        let mut lines = Lines::new(input);
        let head = lines.next_line()?.unwrap_or_default();
        let names = fields(&head).unwrap_or_default();
        let at: Option<Vec<usize>> =
            format.columns().iter().map(|want| names.iter().position(|name| name == want)).collect();
        let at = at.ok_or_else(|| {
            let what = format!("no trace of format {}: it needs the columns", format.name());
            lines.bad(&format!("{what} {}", format.columns().join(",")))
        })?;
        Ok(Table { lines, at, scale })
    }

    /// The wanted fields of the next row; `None` at the end.
    fn next_row(&mut self) -> Result<Option<Vec<String>>> {
        loop {
            let Some(line) = self.lines.next_line()? else { return Ok(None) };
            if line.is_empty() {
                continue;
            }
            let mut all = fields(&line).ok_or_else(|| self.lines.bad("a quote without its other"))?;
            let take = |at: &usize| all.get_mut(*at).map(std::mem::take).unwrap_or_default();
            return Ok(Some(self.at.iter().map(take).collect()));
        }
    }

    fn bad(&self, what: &str) -> Error {
        self.lines.bad(what)
    }

    /// A count; an empty field is none.
    fn count(&self, field: &str, name: &str) -> Result<Option<u64>> {
        if field.is_empty() {
            return Ok(None);
        }
        let number = field.parse::<f64>().ok().filter(|number| (0.0..1e18).contains(number));
        number.map(|number| Some(number as u64)).ok_or_else(|| self.bad(&format!("{name} is no count")))
    }

    /// Seconds since the epoch, scaled.
    fn at_secs(&self, secs: f64) -> Result<Timestamp> {
        let scaled = secs * self.scale;
        let known = scaled.is_finite() && scaled.abs() < 2e11;
        if known { Ok(Timestamp((scaled * 1e6) as i64)) } else { Err(self.bad("a time out of range")) }
    }

    fn number(&self, field: &str) -> Result<f64> {
        let number = field.parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| self.bad(&format!("`{field}` is no number")))
    }

    /// `2014-02-14 14:30:00`, taken as UTC.
    fn at_civil(&self, field: &str) -> Result<Timestamp> {
        let parsed = field.parse::<jiff::civil::DateTime>().ok();
        let zoned = parsed.and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok());
        let zoned = zoned.ok_or_else(|| self.bad(&format!("`{field}` is no date and time")))?;
        self.at_secs(zoned.timestamp().as_microsecond() as f64 / 1e6)
    }
}

/// Reads a trace of another format. `name`: what it is called, for its source.
///
/// # Errors
/// `Invalid`, with the number of the line.
pub fn import(input: impl BufRead, format: Format, name: &str, how: How) -> Result<Trace> {
    let (tick, scale) = format.own();
    let (tick, scale) = (how.tick_secs.unwrap_or(tick), how.time_scale.unwrap_or(scale));
    let wrong = |what: &str| Err(Error::invalid("trace.import", what.to_owned()));
    if !(1e-3..1e8).contains(&tick) {
        return wrong("a tick is of 0.001 to 100000000 seconds");
    }
    if !(1e-9..1e9).contains(&scale) {
        return wrong("time is scaled by a factor above 0");
    }
    if !(4096..=1 << 50).contains(&how.extent_bytes) {
        return wrong("an extent is of 4096 bytes to 1 PiB");
    }
    let table = Table::open(input, format, scale)?;
    let tick_us = (tick * 1e6) as i64;
    let scaled = if scale == 1.0 { String::new() } else { format!(",time*{scale}") };
    match format {
        Format::Block => block::import(table, tick_us, &format!("{name}{scaled}"), how.extent_bytes),
        Format::PgAutovacuum => runs::autovacuum(table, tick_us, &format!("{name}{scaled}")),
        Format::FileGrowth => growth::import(table, tick_us, &format!("{name}{scaled}")),
        Format::PathReads => runs::path_reads(table, tick_us, &format!("{name}{scaled}")),
        Format::Rate => rates::import(table, tick_us, name, how.unit_bytes),
    }
}

#[cfg(test)]
mod tests;
