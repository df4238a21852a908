use crate::resolve::why_not;
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft_mount::{control, place};

/// Print the path of the directory as it was at TIME
#[derive(clap::Args)]
pub struct Args {
    /// 2026-11-23T10:00:00Z, 10:00, -5m, now, seq=N, tag:NAME
    #[arg(allow_hyphen_values = true)]
    time: String,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let found = control::ask(&store, &control::Ask::Resolve { time: args.time.clone() })?;
    let text = |key| found.get(key).and_then(Value::as_str);
    let (Some(path), Some(view)) = (text("path"), text("view")) else { return Err(why_not(&found)) };
    match place::mount_of(args.path.as_deref(), &store).map(|point| point.join(view)) {
        None => output::print(&format!("{path}\n")),
        Some(there) if there.is_dir() => output::print(&format!("{}\n", there.display())),
        Some(there) => {
            Err(format!("{} is not there: this root was not in the set at that time", there.display()))
        }
    }
}
