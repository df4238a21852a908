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
/// Parents of parents that are followed.
const GENERATIONS: usize = 16;

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
    let mut logs = vec![log];
    // A partition that came out of another has its past there.
    while let Some(parent) = logs.last().and_then(older).filter(|_| logs.len() < GENERATIONS) {
        logs.push(in_parts(&inside.store, parent(args))?);
    }
    let mut logs: Vec<Value> = logs.into_iter().map(with_times).collect();
    if args.json {
        let before = logs.split_off(1);
        let mut log = logs.pop().unwrap_or_default();
        if !before.is_empty() {
            log["before"] = Value::Array(before);
        }
        return output::print_json(&log);
    }
    let mut text = String::new();
    for (log, from) in logs.iter().zip(std::iter::once(None).chain(logs.iter().map(Some))) {
        if let Some(parent) = from.and_then(|log| log.get("parent")) {
            let guess = if field(parent, "tie") == "guess" { " (a guess: `weft splits` tells)" } else { "" };
            text.push_str(&format!("before that, part of {}{guess}:\n", field(parent, "partition")));
        }
        text.push_str(&table(log));
    }
    output::print(&text)
}

/// What to ask next, when all of a log was told and its partition came out of another.
fn older(log: &Value) -> Option<impl Fn(&Args) -> AskLog + use<>> {
    let parent = log.get("parent").filter(|parent| parent.is_object() && log["next"].is_null())?;
    let names: Vec<Vec<u8>> = serde_json::from_value(parent.get("names")?.clone()).ok()?;
    let (root, upto) = (field(parent, "root"), parent.get("upto")?.as_u64()?);
    Some(move |args: &Args| AskLog {
        root: root.clone(),
        names: names.clone(),
        file: None,
        upto: Some(upto),
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
