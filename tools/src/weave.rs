use crate::status::{bytes, number};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft_mount::{control, place};

/// Make old journal compact: show how far that is, or do it now
///
/// Sealed journal becomes woven segments in the background, at the pace that weft.toml allows. All instants stay as
/// they are.
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// Weave everything that can be woven, without the limits of weft.toml, and wait for it
    #[arg(long)]
    now: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    if args.now {
        let woven = control::ask(&store, &control::Ask::WeaveNow)?;
        return if args.json {
            output::print_json(&woven)
        } else {
            output::print(&format!("{}\n", told(&woven)))
        };
    }
    let status = control::ask(&store, &control::Ask::Status)?;
    if args.json {
        let keys = ["journal_bytes", "woven_bytes", "weave_waiting", "woven_so_far"];
        let part =
            keys.iter().filter_map(|key| Some(((*key).to_owned(), status.get(*key)?.clone()))).collect();
        return output::print_json(&Value::Object(part));
    }
    let size = |key| bytes(number(&status, key) as f64);
    let stored = format!("journal {}, woven {}", size("journal_bytes"), size("woven_bytes"));
    output::print(&format!("{stored}\n{}\n", state(&status)))
}

/// What some weaving did.
fn told(woven: &Value) -> String {
    let payload = number(woven, "payload_bytes");
    if number(woven, "segments") == 0 {
        return "nothing to weave".into();
    }
    let size = |key| bytes(number(woven, key) as f64);
    format!(
        "{} segments: {} of writes ({} of journal) in {}, {:.1} %",
        number(woven, "segments"),
        size("payload_bytes"),
        size("journal_bytes"),
        size("woven_bytes"),
        100.0 * number(woven, "woven_bytes") as f64 / payload.max(1) as f64
    )
}

/// How far the weaver is, in one line.
pub fn state(status: &Value) -> String {
    let so_far = match status.get("woven_so_far").filter(|woven| number(woven, "segments") > 0) {
        Some(woven) => told(woven),
        None => "nothing woven".into(),
    };
    format!("{} segments wait; since mount {so_far}", number(status, "weave_waiting"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_shares_of_what_was_written() {
        let woven = json!({
            "segments": 2, "payload_bytes": 200 << 20, "journal_bytes": 220 << 20, "woven_bytes": 10 << 20,
        });
        assert_eq!(told(&woven), "2 segments: 200.0 MiB of writes (220.0 MiB of journal) in 10.0 MiB, 5.0 %");
        assert_eq!(told(&json!({ "segments": 0 })), "nothing to weave");
        let text = state(&json!({ "weave_waiting": 3, "woven_so_far": woven }));
        assert!(text.starts_with("3 segments wait; since mount 2 segments:"), "{text}");
    }
}
