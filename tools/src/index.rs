use crate::{Outcome, output};
use std::path::{Path, PathBuf};
use weft_mount::{control, daemon, place};

/// The index over history: derived, and rebuilt from the journal when it is missing
#[derive(clap::Subcommand)]
pub enum Command {
    Rebuild(Args),
}

/// Throw the index away and build it again
#[derive(clap::Args)]
pub struct Args {
    /// The database's directory; with --store alone the index is built at the next mount
    data: Option<PathBuf>,
}

/// What the index consists of in STORE.
const DERIVED: [&str; 2] = ["index", "pages"];

pub fn run(command: &Command, store: Option<&Path>) -> Outcome {
    let Command::Rebuild(args) = command;
    let store = place::find_store(args.data.as_deref(), store)?;
    if control::is_served(&store) {
        return Err(format!(
            "{} is mounted: `weft unmount` first, then run this again, then mount",
            store.display()
        ));
    }
    for derived in DERIVED.map(|name| store.join(name)) {
        match std::fs::remove_dir_all(&derived) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {cause}", derived.display()));
            }
            _ => {}
        }
    }
    match &args.data {
        None => output::print("the index is gone; it is rebuilt at the next mount\n"),
        Some(data) => {
            let told = daemon::recover(data, Some(&store), &[])?;
            output::print(&format!("the index is rebuilt\n{}\n", told.trim_end()))
        }
    }
}
