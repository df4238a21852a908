//! Runs that name what they work on: autovacuum's tables, and paths that jobs read.

use super::Table;
use crate::error::Result;
use crate::forecast::trace::Trace;
use crate::forecast::trace::build::Builder;
use std::io::BufRead;

/// Bytes of a page of PostgreSQL, and pages of ours in it.
const PG_PAGE: u64 = 8192;
const PAGES: u64 = 2;

/// A run stands for load on its table: what it dirtied, and its WAL.
pub(super) fn autovacuum<R: BufRead>(mut table: Table<R>, tick_us: i64, source: &str) -> Result<Trace> {
    let mut builder = Builder::new(tick_us, source);
    while let Some(row) = table.next_row()? {
        let [ts, _, name, remain, dirtied, wal] = row.as_slice() else { continue };
        let at = table.at_civil(ts)?;
        let dirtied = table.count(dirtied, "pages_dirtied")?.unwrap_or(0);
        let wal = table.count(wal, "wal_bytes")?.unwrap_or(0);
        let size = table.count(remain, "pages_remain")?.map(|pages| pages.saturating_mul(PG_PAGE));
        builder.load(name, at, (dirtied.max(1), wal, dirtied.saturating_mul(PAGES)), size);
    }
    Ok(builder.finish())
}

/// A job reads one path, whole.
pub(super) fn path_reads<R: BufRead>(mut table: Table<R>, tick_us: i64, source: &str) -> Result<Trace> {
    let mut builder = Builder::new(tick_us, source);
    while let Some(row) = table.next_row()? {
        let [t, bytes, path] = row.as_slice() else { continue };
        let at = table.at_secs(table.number(t)?)?;
        let bytes = table.count(bytes, "in_b")?.unwrap_or(0);
        builder.read(path, at, bytes, bytes);
    }
    Ok(builder.finish())
}
