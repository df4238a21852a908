use crate::{Outcome, output};
use std::path::{Path, PathBuf};
use weft_mount::daemon;

/// Finish after a crash without mounting: DATA is then plain and current
#[derive(clap::Args)]
pub struct Args {
    /// The database's directory
    data: PathBuf,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let told = daemon::recover(&args.data, store)?;
    output::print(&format!("{}\n", told.trim_end()))
}
