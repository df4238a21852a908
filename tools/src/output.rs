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

/// One line on standard error; nobody is left to tell when that fails.
pub fn complain(cause: &str) {
    let _ = writeln!(std::io::stderr(), "weft: {}", cause.trim().replace('\n', "; "));
}
