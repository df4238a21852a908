use crate::{Outcome, output};
use std::path::{Path, PathBuf};
use weft_mount::{daemon, roots};

/// Finish after a crash without mounting: DATA is then plain and current
#[derive(clap::Args)]
pub struct Args {
    /// The database's directory
    data: PathBuf,
    /// Where a further root is now, if it was moved
    #[arg(long = "root", value_name = "NAME=DIR", value_parser = roots::parse_root)]
    roots: Vec<(String, PathBuf)>,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let told = daemon::recover(&args.data, store, &args.roots)?;
    output::print(&format!("{}\n", told.trim_end()))
}
