use crate::resolve::{actual, field, why_not};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft_mount::{control, place};

/// Name an instant: a restore point that `@tag=NAME` and `tag:NAME` lead to
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    remove: Option<Command>,
    /// What to call it
    #[arg(required = true)]
    name: Option<String>,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// The instant, by default now: 2026-11-23T10:00:00Z, 10:00, -5m, seq=N, tag:OTHER
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    at: String,
    /// For an instant that is now, with capture writeback: without what the kernel still holds
    #[arg(long)]
    no_flush: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Take a name back; the history it led to stays
    Rm(Remove),
}

#[derive(clap::Args)]
struct Remove {
    name: String,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    if let Some(Command::Rm(remove)) = &args.remove {
        let store = place::find_store(remove.path.as_deref(), store)?;
        let gone = control::ask(&store, &control::Ask::Untag { name: remove.name.clone() })?;
        return output::print(&format!(
            "{} is no tag any more; it was {}\n",
            field(&gone, "tag"),
            told(&gone)
        ));
    }
    let Some(name) = args.name.clone() else { return Err("a tag needs a name".into()) };
    let store = place::find_store(args.path.as_deref(), store)?;
    if !args.no_flush {
        crate::at::flush(&store, &args.at)?;
    }
    let made = control::ask(&store, &control::Ask::Tag { name, time: args.at.clone() })?;
    match made.get("tag") {
        Some(_) => {
            output::print(&format!("{} is {}: {}\n", field(&made, "tag"), told(&made), field(&made, "view")))
        }
        None => Err(why_not(&made)),
    }
}

fn told(tag: &Value) -> String {
    format!("seq {} of {}", field(tag, "seq"), actual(tag))
}
