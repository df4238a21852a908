use crate::resolve::{field, lease_told, why_not};
use crate::{Outcome, output};
use serde_json::Value;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use weft_mount::{barrier, control, place};

/// Print the path of the directory as it was at TIME
#[derive(clap::Args)]
pub struct Args {
    /// 2026-11-23T10:00:00Z, 10:00, -5m, now, seq=N, tag:NAME
    #[arg(allow_hyphen_values = true)]
    time: String,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For `now`, with capture writeback: without what the kernel still holds
    #[arg(long)]
    no_flush: bool,
    /// For programs: all that `weft resolve` tells
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    if !args.no_flush {
        flush(&store, &args.time)?;
    }
    let found = control::ask(&store, &control::Ask::Resolve { time: args.time.clone() })?;
    let text = |key| found.get(key).and_then(Value::as_str);
    let (Some(path), Some(view)) = (text("path"), text("view")) else { return Err(why_not(&found)) };
    tell_lease(&found);
    if args.json {
        return output::print_json(&found);
    }
    match place::mount_of(args.path.as_deref(), &store).map(|point| point.join(view)) {
        None => output::print(&format!("{path}\n")),
        Some(there) if there.is_dir() => output::print(&format!("{}\n", there.display())),
        Some(there) => {
            Err(format!("{} is not there: this root was not in the set at that time", there.display()))
        }
    }
}

/// To a person: until when the instant is kept. To a script too: that it is not.
fn tell_lease(found: &Value) {
    let Some(lease) = found.get("lease") else { return };
    match lease.get("durable") {
        Some(Value::Bool(true)) if std::io::stdout().is_terminal() => {
            output::complain(&format!("lease {}", lease_told(lease)));
        }
        Some(Value::Bool(true)) => {}
        _ => output::complain(&field(found, "note")),
    }
}

/// The barrier before an instant that may be the present. After a fail-stop there is nothing to wait for, and that is told.
pub fn flush(store: &Path, time: &str) -> Result<(), String> {
    let stopped = barrier::flush(store, time, barrier::LIMIT)?;
    stopped.iter().for_each(|cause| output::complain(&format!("nothing new is shown: {cause}")));
    Ok(())
}
