//! Requests to block devices: the address space is cut into extents, each a partition `v<volume>/<number>`.

use super::Table;
use crate::error::Result;
use crate::forecast::trace::Trace;
use crate::forecast::trace::build::Builder;
use crate::types::{PAGE, PageSet};
use std::collections::HashMap;
use std::io::BufRead;

/// No device takes more at once.
const REQUEST_MAX: u64 = 1 << 30;

pub(super) fn import<R: BufRead>(
    mut table: Table<R>,
    tick_us: i64,
    source: &str,
    extent_bytes: u64,
) -> Result<Trace> {
    let mut builder = Builder::new(tick_us, source);
    // Pages ever written, per extent: the first write of one makes its extent grow.
    let mut written: HashMap<String, PageSet> = HashMap::new();
    while let Some(row) = table.next_row()? {
        let [t, volume, offset, size, op] = row.as_slice() else { continue };
        let at = table.at_secs(table.number(t)?)?;
        let offset = table.count(offset, "off")?.unwrap_or(0);
        let size = table.count(size, "size")?.unwrap_or(0);
        if size > REQUEST_MAX {
            return Err(table.bad("a request of more than 1 GiB"));
        }
        let end = offset + size;
        let write = match op.as_str() {
            "W" | "w" => true,
            "R" | "r" => false,
            other => return Err(table.bad(&format!("`{other}` is not R or W"))),
        };
        let mut begin = offset;
        while begin < end {
            let number = begin / extent_bytes;
            let stop = end.min((number + 1).saturating_mul(extent_bytes));
            let name = format!("v{volume}/{number}");
            let within = begin - number * extent_bytes;
            if write {
                let pages = written.entry(name.clone()).or_default();
                let before = pages.count();
                pages.write(within, within + (stop - begin));
                let grown = i64::try_from((pages.count() - before) * PAGE).unwrap_or(0);
                builder.write(&name, at, (within, stop - begin), grown, extent_bytes);
            } else {
                builder.read(&name, at, stop - begin, extent_bytes);
            }
            begin = stop;
        }
    }
    Ok(builder.finish())
}
