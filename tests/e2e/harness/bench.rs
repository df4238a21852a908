//! What the benches share: their options, and where their reports go.

use crate::wall::Wall;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Gives each `--name value` of the command line to `set`. What cannot be meant, and `--help`, ends the process with a line
/// and the help.
pub fn options(help: &str, mut set: impl FnMut(&str, &str) -> Result<(), String>) {
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let done = match (name.as_str(), arguments.next()) {
            ("--help", _) => Err(String::new()),
            (_, None) => Err(format!("{name} wants a value\n")),
            (_, Some(value)) => set(&name, &value).map_err(|message| format!("{message}\n")),
        };
        if let Err(message) = done {
            eprintln!("{message}{help}");
            std::process::exit(2);
        }
    }
}

/// The value of an option that wants a number.
pub fn number(name: &str, value: &str) -> Result<usize, String> {
    value.parse().map_err(|_| format!("{name} wants a number, not {value}"))
}

/// What an option is answered that a bench does not have.
pub fn unknown(name: &str, value: &str) -> Result<(), String> {
    Err(format!("unknown option {name} {value}"))
}

/// Writes a report to a file of its own, named by the time, and says where.
#[track_caller]
pub fn report(out: &Path, prefix: &str, at: Wall, report: &Value) {
    fs::create_dir_all(out).expect("make the output directory");
    let path = out.join(format!("{prefix}{}.json", at.basic()));
    fs::write(&path, format!("{report:#}\n")).expect("write the report");
    println!("{}", path.display());
}
