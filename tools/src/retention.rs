use crate::resolve::field;
use crate::status::number;
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft_mount::config::Config;
use weft_mount::{control, place, retention};

/// Show or set how long history is kept, and how densely
#[derive(clap::Subcommand)]
pub enum Command {
    /// What is kept, and how far history reaches
    Show(Show),
    /// Set it, in weft.toml; a running daemon takes it over with its next pruning
    Set(Set),
}

#[derive(clap::Args)]
pub struct Show {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct Set {
    /// "every write for 24h, then one per minute for 7d, then one per hour for 30d"
    tiers: Option<String>,
    /// The mount, or a path inside it; by default the mount around the current directory
    #[arg(long, value_name = "PATH")]
    of: Option<PathBuf>,
    /// What history may take: 80% of STORE's filesystem, or 200GiB
    #[arg(long)]
    cap: Option<String>,
    /// Every write of so long stays, also on a full disk
    #[arg(long)]
    minimum: Option<String>,
}

pub fn run(command: &Command, store: Option<&Path>) -> Outcome {
    match command {
        Command::Show(args) => show(args, store),
        Command::Set(args) => set(args, store),
    }
}

fn show(args: &Show, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let shown = match control::is_served(&store) {
        true => control::ask(&store, &control::Ask::Retention)?,
        false => retention::shown(&Config::load(&store)?.retention()?),
    };
    if args.json { output::print_json(&shown) } else { output::print(&text(&shown)) }
}

fn set(args: &Set, store: Option<&Path>) -> Outcome {
    if args.tiers.is_none() && args.cap.is_none() && args.minimum.is_none() {
        return Err(
            "nothing to set: give tiers, --cap or --minimum (`weft retention show` shows what is)".into()
        );
    }
    if let Some(tiers) = args.tiers.as_deref().filter(|tiers| Path::new(tiers).exists()) {
        return Err(format!("{tiers} is a path, and tiers stand there: name the mount by `--of {tiers}`"));
    }
    let store = place::find_store(args.of.as_deref(), store)?;
    let (tiers, cap, minimum) = (args.tiers.clone(), args.cap.clone(), args.minimum.clone());
    let set = match control::is_served(&store) {
        true => control::ask(&store, &control::Ask::SetRetention { tiers, cap, minimum })?,
        false => retention::set(&store, &retention::Change { tiers, cap, minimum }, None)?,
    };
    output::print(&text(&set))
}

fn text(shown: &Value) -> String {
    let mut text = format!(
        "{}\nat most {}; at least every write for {}\n",
        field(shown, "tiers"),
        field(shown, "cap"),
        field(shown, "minimum")
    );
    if shown.get("oldest").is_some() {
        text.push_str(&format!("history reaches back to {}\n", field(shown, "oldest")));
        if number(shown, "thinned_upto") > 0 {
            let (points, upto) = (number(shown, "points"), number(shown, "thinned_upto"));
            text.push_str(&format!("thinned up to event {upto}: {points} instants remain there\n"));
        }
    }
    text
}
