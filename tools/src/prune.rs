use crate::resolve::field;
use crate::status::{bytes, number};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft_mount::{control, place};

/// Prune what the retention does not keep, or say what would go
///
/// It happens by itself in the background. What is open, leased or tagged stays.
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// Change nothing: say what would go, what is held and by whom, and what space would come back
    #[arg(long)]
    dry_run: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let pruned = control::ask(&store, &control::Ask::Prune { dry_run: args.dry_run })?;
    if args.json { output::print_json(&pruned) } else { output::print(&text(&pruned)) }
}

fn text(pruned: &Value) -> String {
    let is_dry = pruned.get("dry").and_then(Value::as_bool) == Some(true);
    let thinning = pruned.get("thinning").unwrap_or(&Value::Null);
    let size = |key| number(thinning, key);
    let (before, after) = (size("before_bytes"), size("after_bytes"));
    let mut text = format!(
        "history {} from {} (before: {})\n",
        if is_dry { "would begin" } else { "begins" },
        field(pruned, "oldest"),
        field(pruned, "oldest_before")
    );
    text.push_str(&format!(
        "thinned up to event {}: {} instants remain there, {} more {}\n",
        number(pruned, "upto"),
        number(pruned, "points"),
        number(pruned, "points_gone"),
        if is_dry { "would go" } else { "went" }
    ));
    text.push_str(&format!(
        "{} {} of {} ({} of {} of writes are not needed)\n",
        bytes(before.saturating_sub(after) as f64),
        if is_dry { "would come back" } else { "came back" },
        bytes(before as f64),
        bytes(size("unneeded_bytes") as f64),
        bytes(size("payload_bytes") as f64)
    ));
    for (of, what) in [("bases_bytes", "what was there before"), ("pages_bytes", "composed pages")] {
        let came = number(pruned, of);
        if came > 0 {
            text.push_str(&format!(
                "{} of {what} {}\n",
                bytes(came as f64),
                if is_dry { "would come back, too" } else { "came back, too" }
            ));
        }
    }
    let saved = number(pruned, "saved_bytes");
    if saved > 0 {
        text.push_str(&format!(
            "{} of pages {} as they were: history need not hold the other pages of their files\n",
            bytes(saved as f64),
            if is_dry { "would be kept" } else { "are kept" }
        ));
    }
    for held in pruned.get("pinned").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!("held at seq {} by {}\n", field(held, "seq"), field(held, "by")));
    }
    if let Some(undone) = pruned.get("undone").and_then(Value::as_str) {
        text.push_str(&format!("a part of history cannot be pruned and keeps its space: {undone}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_goes_and_what_is_held_is_told() {
        let pruned = json!({
            "dry": true, "upto": 900, "points": 12, "points_gone": 3, "oldest": "T2", "oldest_before": "T1",
            "pinned": [{ "seq": 5, "by": "tag a" }], "undone": "woven.open: rotten",
            "thinning": { "payload_bytes": 4 << 20, "unneeded_bytes": 3 << 20, "before_bytes": 2 << 20,
                "after_bytes": 1 << 20 },
        });
        let told = text(&pruned);
        for line in [
            "would begin from T2 (before: T1)",
            "1.0 MiB would come back of 2.0 MiB",
            "held at seq 5 by tag a",
            "keeps its space: woven.open: rotten",
        ] {
            assert!(told.contains(line), "{told}");
        }
    }
}
