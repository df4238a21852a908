//! Files that grow by commits: a file is a partition, a commit a write of what it added or took away.

use super::Table;
use crate::error::Result;
use crate::forecast::trace::Trace;
use crate::forecast::trace::build::Builder;
use crate::types::PAGE;
use std::io::BufRead;

pub(super) fn import<R: BufRead>(mut table: Table<R>, tick_us: i64, source: &str) -> Result<Trace> {
    let mut builder = Builder::new(tick_us, source);
    while let Some(row) = table.next_row()? {
        let [ts, op, path, from, before, after] = row.as_slice() else { continue };
        let at = table.at_secs(table.number(ts)?)?;
        let before = table.count(before, "size_before")?;
        let after = table.count(after, "size_after")?.unwrap_or(0);
        // git gives renames and copies with their likeness: `R097`.
        match op.get(..1).unwrap_or("") {
            "D" => {
                builder.gone(path, at);
                continue;
            }
            // A rename is a new name for the same bytes.
            "R" if !from.is_empty() => builder.gone(from, at),
            "A" | "M" | "C" | "R" | "T" => {}
            _ => return Err(table.bad(&format!("`{op}` is not A, M, D, C, R or T"))),
        }
        let known = builder.size(path).or(before).unwrap_or(0);
        let bytes = after.abs_diff(known).max(1);
        builder.load(path, at, (1, bytes, bytes.div_ceil(PAGE)), Some(after));
    }
    Ok(builder.finish())
}
