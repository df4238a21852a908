use crate::resolve::{actual, field};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft_mount::{control, place};

/// List the instants that are kept for whoever was told of them, or end a lease
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// End a lease before its time; a view that is open goes on, and is leased anew
    End(End),
}

#[derive(clap::Args)]
struct End {
    /// As `weft leases` lists it
    id: u64,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    if let Some(Command::End(end)) = &args.command {
        let store = place::find_store(end.path.as_deref(), store)?;
        let ended = control::ask(&store, &control::Ask::EndLease { id: end.id })?;
        let (seq, when) = (field(&ended, "seq"), actual(&ended));
        return output::print(&format!("lease {} on seq {seq} of {when} has ended\n", end.id));
    }
    let store = place::find_store(args.path.as_deref(), store)?;
    let leases = control::ask(&store, &control::Ask::Leases)?;
    match args.json {
        true => output::print_json(&leases),
        false => output::print(&table(&leases)),
    }
}

fn table(leases: &Value) -> String {
    let row = |lease: &Value| {
        let kept = if lease.get("durable") == Some(&Value::Bool(true)) { "" } else { ", in memory only" };
        let left = format!("{} s (until {}){kept}", field(lease, "left_secs"), field(lease, "until"));
        [field(lease, "id"), actual(lease), left, field(lease, "by")]
    };
    let rows: Vec<[String; 4]> = leases.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "no leases\n".into();
    }
    output::columns(&["LEASE", "INSTANT", "LEFT", "ASKED BY"], &rows)
}
