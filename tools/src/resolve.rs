use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weft_mount::{control, place};

/// Say what TIME means: found, in the future, before history began, pruned, or no time at all
#[derive(clap::Args)]
pub struct Args {
    /// 2026-11-23T10:00:00Z, 10:00, -5m, now, seq=N, tag:NAME
    #[arg(allow_hyphen_values = true)]
    time: String,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let answer = control::ask(&store, &control::Ask::Resolve { time: args.time.clone() })?;
    let found = field(&answer, "answer") == "found";
    if args.json {
        output::print_json(&answer)?
    } else {
        output::print(&table(&answer))?
    };
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A field as text; empty when it is not there.
pub fn field(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// When the instant of a lease or tag was; or why that is not known.
pub fn actual(of: &Value) -> String {
    match field(of, "trouble") {
        trouble if trouble.is_empty() => field(of, "actual"),
        trouble => format!("? ({trouble})"),
    }
}

fn reach(answer: &Value) -> String {
    let reach = answer.get("reach").unwrap_or(&Value::Null);
    format!("{} to {}", field(reach, "oldest"), field(reach, "newest"))
}

/// Why a time has no view, and what has.
pub fn why_not(answer: &Value) -> String {
    let why = match field(answer, "answer").as_str() {
        "future" => {
            format!("is in the future: it is {}, seq {}", field(answer, "now"), field(answer, "last_seq"))
        }
        "before" => format!("is before history began at {}", field(answer, "first")),
        "malformed" => return field(answer, "because"),
        "pruned" => format!("was pruned: the oldest instant kept is {}", field(answer, "oldest")),
        other => format!("cannot be resolved ({other})"),
    };
    format!("{} {why}; history reaches from {}", field(answer, "requested"), reach(answer))
}

/// The clock epoch of an instant, and the present one where that is another.
fn epoch(answer: &Value) -> String {
    let (then, now) = (field(answer, "epoch"), field(answer, "clock_epoch"));
    if then == now { then } else { format!("{then} (it is {now} now: the clock was set)") }
}

/// A lease, in words.
pub fn lease_told(lease: &Value) -> String {
    format!("{} until {}", field(lease, "id"), field(lease, "until"))
}

fn table(answer: &Value) -> String {
    let mut lines = vec![("answer", field(answer, "answer")), ("requested", field(answer, "requested"))];
    if field(answer, "answer") == "found" {
        lines.push(("actual", field(answer, "actual")));
        lines.push(("seq", field(answer, "seq")));
        lines.push(("epoch", epoch(answer)));
        lines.push(("path", field(answer, "path")));
        lines.extend(answer.get("lease").map(|lease| ("lease", lease_told(lease))));
        if let Some(consistency) = answer.get("consistency").filter(|value| value.is_object()) {
            let (capture, session) = (field(consistency, "capture"), field(consistency, "session"));
            lines.push(("consistent", format!("{capture}, session of {session}")));
        }
    } else {
        lines.push(("because", why_not(answer)));
    }
    lines.push(("reach", reach(answer)));
    for one in
        answer.get("candidates").and_then(Value::as_array).filter(|all| all.len() > 1).into_iter().flatten()
    {
        let (seq, actual) = (field(one, "seq"), field(one, "actual"));
        let chosen = if one.get("chosen") == Some(&Value::Bool(true)) { ", the answer" } else { "" };
        lines.push((
            "could be",
            format!("@seq={seq} of {actual}, clock epoch {}{chosen}", field(one, "epoch")),
        ));
    }
    if answer.get("note").is_some() {
        lines.push(("note", field(answer, "note")));
    }
    lines.push(("zone", field(answer, "timezone")));
    lines.iter().map(|(key, value)| format!("{key:<10} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_found_instant_shows_requested_and_actual() {
        let answer = json!({
            "answer": "found", "requested": "ts=R", "actual": "A", "seq": 7, "path": "/m/@ts=R",
            "reach": { "oldest": "O", "newest": "N" }, "timezone": "UTC",
        });
        let text = table(&answer);
        for part in ["requested  ts=R", "actual     A", "seq        7", "reach      O to N"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn other_answers_say_why() {
        let answer = json!({
            "answer": "before", "requested": "ts=R", "first": "F", "reach": { "oldest": "O", "newest": "N" },
        });
        assert_eq!(why_not(&answer), "ts=R is before history began at F; history reaches from O to N");
    }
}
