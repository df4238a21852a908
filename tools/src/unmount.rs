use crate::Outcome;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weft_mount::{control, place};

/// Unmount: everything is applied, and DATA is a plain, current directory again
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it; by default the mount around the current directory
    data: Option<PathBuf>,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.data.as_deref(), store)?;
    // This very process must not be the one that keeps the mount busy.
    std::env::set_current_dir("/").map_err(|cause| format!("cannot leave the current directory: {cause}"))?;
    control::ask(&store, &control::Ask::Unmount)?;
    Ok(ExitCode::SUCCESS)
}
