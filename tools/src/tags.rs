use crate::resolve::{actual, field};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft_mount::{control, offline, place};

/// List the named instants
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let tags = match control::is_served(&store) {
        true => control::ask(&store, &control::Ask::Tags)?,
        false => offline::tags(&store)?,
    };
    match args.json {
        true => output::print_json(&tags),
        false => output::print(&table(&tags)),
    }
}

fn table(tags: &Value) -> String {
    let rows: Vec<[String; 4]> = tags
        .as_array()
        .into_iter()
        .flatten()
        .map(|tag| [field(tag, "tag"), field(tag, "seq"), actual(tag), field(tag, "made")])
        .collect();
    if rows.is_empty() {
        return "no tags\n".into();
    }
    output::columns(&["TAG", "SEQ", "INSTANT", "MADE"], &rows)
}
