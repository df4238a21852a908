use crate::resolve::field;
use crate::{Outcome, output};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use weft::past::when::canonical;
use weft::types::Timestamp;
use weft_mount::control::AskLog;
use weft_mount::{control, offline, place};

/// Lines asked for at a time.
const PART: usize = 500;
/// Parents, and parents of those, that are followed.
const ANCESTORS: usize = 16;

/// List the versions of a file or directory: when, how much, what; through renames, newest first
#[derive(clap::Args)]
pub struct Args {
    /// The file as it is called, was called last, or is called in a view (@ts=.../PATH)
    path: PathBuf,
    /// Lines at most; 0 for all
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Not before TIME
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Not after TIME
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// A line for each event: bursts are not gathered, the kernel's own time stamps are shown
    #[arg(long)]
    all: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let inside = place::inside(&args.path, store)?;
    let ask = AskLog {
        root: inside.root,
        names: inside.names,
        file: None,
        upto: None,
        since: args.since.clone(),
        until: args.until.clone(),
        limit: args.limit,
        all: args.all,
    };
    let log = match control::is_served(&inside.store) {
        true => in_parts(&inside.store, ask)?,
        false => offline::log(&inside.store, &ask)?,
    };
    let logs = with_parents(log, |parent| in_parts(&inside.store, ask_of(parent, args)?))?;
    if args.json {
        let mut logs = logs.into_iter().map(|(_, log)| with_times(log));
        let mut log = logs.next().unwrap_or_default();
        let before: Vec<Value> = logs.collect();
        if !before.is_empty() {
            log["before"] = Value::Array(before);
        }
        return output::print_json(&log);
    }
    let mut text = String::new();
    for (parent, log) in logs {
        if let Some(parent) = parent {
            let guess = if field(&parent, "tie") == "guess" { " (a guess: `weft splits` tells)" } else { "" };
            let how = if parent["rewrite"] == true {
                "before it was written anew,"
            } else {
                "before that, part of"
            };
            text.push_str(&format!("{how} {}{guess}:\n", field(&parent, "partition")));
        }
        text.push_str(&table(&with_times(log)));
    }
    output::print(&text)
}

/// A log, and those of what its partition came out of, when all of it was told: each behind the word of the child that leads
/// to it.
fn with_parents(
    log: Value,
    ask: impl Fn(&Value) -> Result<Value, String>,
) -> Result<Vec<(Option<Value>, Value)>, String> {
    let mut logs = vec![(None, log)];
    let mut next = 0;
    while let Some((_, log)) = logs.get(next) {
        let parents = log.get("parents").filter(|_| log["next"].is_null()).and_then(Value::as_array);
        for parent in parents.cloned().unwrap_or_default() {
            if logs.len() > ANCESTORS {
                return Ok(logs);
            }
            let log = ask(&parent)?;
            logs.push((Some(parent), log));
        }
        next += 1;
    }
    Ok(logs)
}

/// What to ask of a parent.
fn ask_of(parent: &Value, args: &Args) -> Result<AskLog, String> {
    let names = parent.get("names").cloned().unwrap_or_default();
    Ok(AskLog {
        root: field(parent, "root"),
        names: serde_json::from_value(names).map_err(|_| "the daemon's answer makes no sense")?,
        file: None,
        upto: parent.get("upto").and_then(Value::as_u64),
        since: args.since.clone(),
        until: args.until.clone(),
        limit: args.limit,
        all: args.all,
    })
}

/// Asks until the limit is reached or the history ends.
fn in_parts(store: &Path, mut ask: AskLog) -> Result<Value, String> {
    let limit = if ask.limit == 0 { usize::MAX } else { ask.limit };
    let mut log: Option<Map<String, Value>> = None;
    let mut versions = Vec::new();
    loop {
        ask.limit = PART.min(limit - versions.len());
        let mut part = control::ask(store, &control::Ask::Log(ask.clone()))?;
        if let Some(Value::Array(lines)) = part.get_mut("versions").map(Value::take) {
            versions.extend(lines);
        }
        ask.file = part.get("file").and_then(Value::as_u64);
        ask.upto = part.get("next").and_then(Value::as_u64);
        let log = log.get_or_insert_with(|| part.as_object().cloned().unwrap_or_default());
        log.insert("next".into(), ask.upto.into());
        if ask.upto.is_none() || versions.len() >= limit {
            log.insert("versions".into(), Value::Array(versions));
            return Ok(Value::Object(std::mem::take(log)));
        }
    }
}

/// Times as people and programs read them, beside nothing else.
fn with_times(mut log: Value) -> Value {
    for version in log.get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(version) = version.as_object_mut() else { continue };
        for (us, time) in [("time_us", "time"), ("first_time_us", "first_time")] {
            if let Some(value) = version.remove(us).and_then(|value| value.as_i64()) {
                version.insert(time.into(), canonical(Timestamp(value)).into());
            }
        }
        version.retain(|_, value| !value.is_null());
    }
    log
}

fn table(log: &Value) -> String {
    let gone = if log.get("gone") == Some(&Value::Bool(true)) { ", which is gone" } else { "" };
    let path = match field(log, "path") {
        path if path.is_empty() => "the root".into(),
        path => path,
    };
    let mut text = format!("{} {path}{gone} (f{})\n", field(log, "kind"), field(log, "file"));
    let versions = log.get("versions").and_then(Value::as_array).cloned().unwrap_or_default();
    let rows: Vec<[String; 6]> = versions.iter().map(row).collect();
    text.push_str(&output::columns(&["TIME", "SEQ", "KIND", "BYTES", "SIZE", ""], &rows));
    if let Some(next) = log.get("next").and_then(Value::as_u64) {
        text.push_str(&format!("older: --until seq={next}, or --limit 0 for all\n"));
    }
    text
}

fn row(version: &Value) -> [String; 6] {
    let mut words = Vec::new();
    let events = version.get("events").and_then(Value::as_u64).unwrap_or(1);
    if events > 1 {
        words.push(format!("{events} events since {}", field(version, "first_time")));
    }
    match (field(version, "from"), field(version, "to")) {
        (from, to) if from.is_empty() && to.is_empty() => {}
        (from, to) if from.is_empty() => words.push(format!("as {to}")),
        (from, to) if to.is_empty() => words.push(format!("was {from}")),
        (from, to) => words.push(format!("{from} -> {to}")),
    }
    words.extend(Some(field(version, "detail")).filter(|detail| !detail.is_empty()));
    let bytes = Some(field(version, "bytes")).filter(|bytes| bytes != "0").unwrap_or_default();
    [
        field(version, "time"),
        field(version, "seq"),
        field(version, "kind"),
        bytes,
        field(version, "size"),
        words.join("; "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_parents_are_told_after_their_child_and_only_when_all_of_it_was() {
        let of = |name: &str, parents: &[&str]| {
            let parents = parents.iter().map(|name| json!({ "partition": name }));
            json!({ "path": name, "parents": parents.collect::<Vec<_>>() })
        };
        let ask = |parent: &Value| {
            Ok(match parent["partition"].as_str().unwrap() {
                "p1" => of("p1", &["p"]),
                "p2" => json!({ "path": "p2", "next": 3, "parents": [{ "partition": "unasked" }] }),
                "endless" => of("endless", &["endless"]),
                name => of(name, &[]),
            })
        };
        let told = |log| -> Vec<String> {
            with_parents(log, ask).unwrap().iter().map(|(_, log)| field(log, "path")).collect()
        };
        assert_eq!(told(of("p12", &["p1", "p2"])), ["p12", "p1", "p2", "p"]);
        assert_eq!(told(of("x", &["endless"])).len(), 1 + ANCESTORS);
    }

    #[test]
    fn lines_say_what_happened() {
        let log = with_times(json!({
            "kind": "file", "path": "base/5/1", "gone": true, "file": 7, "next": 3,
            "versions": [
                { "kind": "rename", "seq": 9, "time_us": 1_000_000, "first_time_us": 1_000_000, "events": 1, "bytes": 0,
                  "from": "a", "to": "base/5/1" },
                { "kind": "write", "seq": 8, "time_us": 0, "first_time_us": 0, "events": 3, "bytes": 12, "size": 12,
                  "from": null },
            ],
        }));
        let text = table(&log);
        for part in [
            "file base/5/1, which is gone (f7)",
            "1970-01-01T00:00:01.000000Z  9    rename",
            "a -> base/5/1",
            "3 events since 1970-01-01T00:00:00.000000Z",
            "--until seq=3",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(log["versions"][1].get("from").is_none() && log["versions"][0].get("time_us").is_none());
    }
}
