//! A rate over time: one partition of which only bytes are known.

use super::Table;
use crate::error::Result;
use crate::forecast::trace::Trace;
use crate::forecast::trace::build::Builder;
use crate::types::PAGE;
use std::io::BufRead;

/// The size of the partition: it does not matter, and does not change.
const SIZE: u64 = 1 << 30;

pub(super) fn import<R: BufRead>(
    mut table: Table<R>,
    tick_us: i64,
    source: &str,
    unit_bytes: f64,
) -> Result<Trace> {
    let mut builder = Builder::new(tick_us, source);
    while let Some(row) = table.next_row()? {
        let [timestamp, value] = row.as_slice() else { continue };
        let at = table.at_civil(timestamp)?;
        let bytes = (table.number(value)?.max(0.0) * unit_bytes).min(1e15) as u64;
        let pages = bytes.div_ceil(PAGE);
        builder.load(
            source,
            at,
            (pages.clamp(u64::from(bytes > 0), 1 << 20), bytes, pages.min(SIZE / PAGE)),
            Some(SIZE),
        );
    }
    Ok(builder.finish())
}
