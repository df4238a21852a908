//! Printing that survives a closed pipe: `weft status | head -1` is no error.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Writes text to standard output.
///
/// # Errors
/// One line, unless the reader has simply gone.
pub fn print(text: &str) -> crate::Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write: {cause}")),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// [`print`] for a JSON value, in lines.
pub fn print_json(value: &serde_json::Value) -> crate::Outcome {
    print(&format!("{value:#}\n"))
}

/// Rows under their heads, each column as wide as its widest cell.
pub fn columns<const N: usize>(heads: &[&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heads.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(*heads);
    for row in rows {
        text.push_str(&line(row.each_ref().map(String::as_str)));
    }
    text
}

/// One line on standard error; nobody is left to tell when that fails.
pub fn complain(cause: &str) {
    let _ = writeln!(std::io::stderr(), "weft: {}", cause.trim().replace('\n', "; "));
}
