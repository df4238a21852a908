use crate::resolve::{field, why_not};
use crate::status::{bytes, number};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft::past::when::canonical;
use weft::types::Timestamp;
use weft_mount::{control, place};

/// Keep past states of a partition ready, so that they are read fast; see also `weft shadows`
///
/// A shadow is never the only copy of anything: taking one away costs speed, and nothing else.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Make a shadow of a partition now
    Add(Add),
    /// Take shadows away
    Rm(Remove),
    /// List the shadows, and what they cost
    List(List),
    /// Make shadows again, after too many failures
    Resume(Resume),
}

#[derive(clap::Args)]
pub struct Add {
    /// The partition, as a file of it is called: base/5/16397, or a path
    partition: PathBuf,
    /// The mount that it is in; by default the one around PARTITION
    path: Option<PathBuf>,
    /// A state that stays: 2026-11-23T10:00:00Z, 10:00, -5m, seq=N, tag:NAME. Without it the present, kept up to date
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct Remove {
    /// The partition whose shadows go, or the number of one
    partition: PathBuf,
    /// The mount that it is in; by default the one around PARTITION, or around the current directory
    path: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct List {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct Resume {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
}

pub fn run(command: &Command, store: Option<&Path>) -> Outcome {
    match command {
        Command::Add(args) => add(args, store),
        Command::Rm(args) => remove(args, store),
        Command::List(args) => list(args, store),
        Command::Resume(args) => {
            let store = place::find_store(args.path.as_deref(), store)?;
            control::ask(&store, &control::Ask::ShadowResume)?;
            output::print("shadows are made again\n")
        }
    }
}

/// The STORE, root and names that a partition on the command line means.
fn find(partition: &Path, path: Option<&Path>, store: Option<&Path>) -> Result<place::Inside, String> {
    match path {
        // A name from the root on, of a mount that is named beside it.
        Some(path) if partition.is_relative() => {
            let store = place::find_store(Some(path), store)?;
            place::inside(partition, Some(&store))
        }
        _ => place::inside(partition, store),
    }
}

fn add(args: &Add, store: Option<&Path>) -> Outcome {
    let place::Inside { store, root, names } = find(&args.partition, args.path.as_deref(), store)?;
    let made = control::ask(&store, &control::Ask::ShadowAdd { root, names, time: args.at.clone() })?;
    if made.get("partition").is_none() {
        return Err(why_not(&made));
    }
    if args.json { output::print_json(&made) } else { output::print(&format!("{}\n", told(&made))) }
}

fn told(made: &Value) -> String {
    let partition = field(made, "partition");
    match made.get("made").filter(|made| made.is_object()) {
        None => format!("{partition} has this shadow already"),
        Some(shadow) => {
            let at = match field(made, "at") {
                at if at.is_empty() => "kept up to date".to_owned(),
                at => format!("as of {at}"),
            };
            format!(
                "shadow {} of {partition}, {at}: {}, of which {} are new",
                number(shadow, "shadow"),
                bytes(number(shadow, "shown_bytes") as f64),
                bytes(number(shadow, "own_bytes") as f64)
            )
        }
    }
}

fn remove(args: &Remove, store: Option<&Path>) -> Outcome {
    let text = args.partition.to_string_lossy();
    let (store, root, what) = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        (place::find_store(args.path.as_deref(), store)?, String::new(), text.into_owned())
    } else {
        let place::Inside { store, root, names } = find(&args.partition, args.path.as_deref(), store)?;
        (store, root, String::from_utf8_lossy(&names.join(&b'/')).into_owned())
    };
    let gone = control::ask(&store, &control::Ask::ShadowRemove { root, what })?;
    output::print(&format!("{} removed\n", number(&gone, "removed")))
}

/// `weft shadows`, too.
pub fn list(args: &List, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let all = control::ask(&store, &control::Ask::Shadows)?;
    if args.json { output::print_json(&all) } else { output::print(&table(&all)) }
}

fn table(all: &Value) -> String {
    let rows: Vec<[String; 9]> =
        all.get("shadows").and_then(Value::as_array).into_iter().flatten().map(row).collect();
    let heads = ["ID", "PARTITION", "FOR", "SEQ", "MADE", "SNAPSHOTS", "BYTES", "SERVED", ""];
    let mut text = match rows.is_empty() {
        true => "no shadows\n".to_owned(),
        false => output::columns(&heads, &rows),
    };
    text.push_str(&format!("{}\n", state(all.get("status").unwrap_or(&Value::Null))));
    text
}

fn row(shadow: &Value) -> [String; 9] {
    let snapshots = shadow.get("snapshots").and_then(Value::as_array).cloned().unwrap_or_default();
    let newest = snapshots.last().cloned().unwrap_or_default();
    let partition = match field(shadow, "root") {
        root if root.is_empty() => field(shadow, "partition"),
        root => format!("{root}:{}", field(shadow, "partition")),
    };
    let mut notes = Vec::new();
    if let Some(pages) = shadow.get("pages").and_then(Value::as_u64) {
        notes.push(format!("{pages} pages"));
    }
    if shadow.get("follows") == Some(&Value::Bool(true)) {
        let more = if shadow.get("behind_more") == Some(&Value::Bool(true)) { "more than " } else { "" };
        let behind = shadow.get("behind_bytes").and_then(Value::as_u64);
        notes.push(
            behind.map_or("all changed since".into(), |behind| {
                format!("{more}{} behind", bytes(behind as f64))
            }),
        );
    }
    if let Some(foreseen) = shadow.get("foreseen").filter(|foreseen| foreseen.is_object()) {
        let percent = foreseen.get("confidence").and_then(Value::as_f64).unwrap_or(0.0) * 100.0;
        let at = foreseen.get("split_us").and_then(Value::as_i64).unwrap_or(i64::MAX);
        notes
            .push(format!("split foreseen about {} ({percent:.0} % within a day)", canonical(Timestamp(at))));
    }
    if !field(shadow, "broken").is_empty() {
        notes.push(format!("BROKEN: {}", field(shadow, "broken")));
    }
    [
        field(shadow, "id"),
        partition,
        field(shadow, "reason"),
        field(&newest, "seq"),
        newest.get("made_us").and_then(Value::as_i64).map_or("?".into(), |us| canonical(Timestamp(us))),
        snapshots.len().to_string(),
        bytes(number(shadow, "bytes") as f64),
        bytes(number(shadow, "served_bytes") as f64),
        notes.join("; "),
    ]
}

/// What all shadows cost, in a line; for `weft status`, too.
pub fn state(status: &Value) -> String {
    let size = |key| bytes(number(status, key) as f64);
    let mut text = format!(
        "{} shadows in {} of {}, {} of views served; making took {:.1} s of CPU, {} read, {} written",
        number(status, "count"),
        size("bytes"),
        size("limit_bytes"),
        size("served_bytes"),
        number(status, "cpu_us") as f64 / 1e6,
        size("read_bytes"),
        size("written_bytes")
    );
    if status.get("on") == Some(&Value::Bool(false)) {
        text.push_str("; off: only those asked for are made");
    }
    for (key, words) in
        [("waiting", "wait to be made"), ("broken", "were broken"), ("dropped", "went for room")]
    {
        match number(status, key) {
            0 => {}
            count => text.push_str(&format!("; {count} {words}")),
        }
    }
    match number(status, "stopped_secs") {
        0 => {}
        secs => text.push_str(&format!("; STOPPED for {secs} s after failures")),
    }
    for (key, words) in [("making", "making"), ("refused", "not made")] {
        match field(status, key) {
            value if value.is_empty() => {}
            value => text.push_str(&format!("; {words} {value}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_tells_what_there_is_and_what_is_wrong() {
        let all = json!({
            "shadows": [{
                "id": 3, "root": "ts", "partition": "base/5/1", "reason": "asked", "follows": true,
                "behind_bytes": 4096, "behind_more": true, "bytes": 2048, "served_bytes": 0, "pages": 7, "broken": "block 9",
                "foreseen": { "at_us": 0, "split_us": 60_000_000, "confidence": 0.75 },
                "snapshots": [{ "seq": 5, "made_us": 0 }, { "seq": 9, "made_us": 1_000_000 }],
            }],
            "status": { "on": false, "count": 1, "stopped_secs": 60, "making": "base/5/2" },
        });
        let text = table(&all);
        for part in [
            "ts:base/5/1",
            "asked",
            "9",
            "1970-01-01T00:00:01.000000Z",
            "7 pages; more than 4.0 KiB behind; split foreseen about 1970-01-01T00:01:00.000000Z (75 % within a day); BROKEN: block 9",
            "STOPPED for 60 s",
            "off",
            "making base/5/2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(table(&json!({})).starts_with("no shadows"));
        assert!(told(&json!({ "partition": "p", "made": null })).contains("already"));
    }
}
