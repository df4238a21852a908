use crate::resolve::field;
use crate::status::{bytes, number};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft::types::PAGE;
use weft_mount::catalogue::{self, Source};
use weft_mount::{control, place};

/// List the splits: declared or seen coming, whether their children are ready, and which files those became
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it; by default the mount around the current directory
    data: Option<PathBuf>,
    /// Ask PostgreSQL which files the children have: "host=/run/postgresql user=postgres"
    #[arg(long, value_name = "CONNINFO", conflicts_with = "mysql")]
    pg: Option<String>,
    /// Ask MariaDB
    #[arg(long, value_name = "URL")]
    mysql: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.data.as_deref(), store)?;
    let mut splits = control::ask(&store, &control::Ask::Splits)?;
    let source = match (&args.pg, &args.mysql) {
        (Some(conninfo), _) => Some(Source::Postgres(conninfo)),
        (None, Some(url)) => Some(Source::Mysql(url)),
        (None, None) => None,
    };
    if let Some(source) = source {
        confirm(&store, &splits, source)?;
        splits = control::ask(&store, &control::Ask::Splits)?;
    }
    match args.json {
        true => output::print_json(&splits),
        false => output::print(&table(&splits, true)),
    }
}

/// Ties the children that the catalogue knows by name. One that cannot be tied is told of, and keeps no other from it.
fn confirm(store: &Path, splits: &Value, source: Source<'_>) -> Result<(), String> {
    let names = catalogue::names(source)?;
    for split in splits.as_array().into_iter().flatten() {
        let children = split["children"].as_array().into_iter().flatten().enumerate();
        for (at, child) in children.filter(|(_, child)| child["forgotten"] != true) {
            let Some(path) = child["name"].as_str().and_then(|name| names.path(name)) else { continue };
            // What is known may have other files by now: it was written anew.
            if child["partition"] == path && child["tie"] != "guess" {
                continue;
            }
            let ask = control::Ask::SplitConfirm {
                split: split["split"].as_u64().unwrap_or(0),
                child: at,
                partition: path.to_owned(),
                catalogue: true,
            };
            if let Err(cause) = control::ask(store, &ask) {
                output::complain(&cause);
            }
        }
    }
    Ok(())
}

/// A line for each child.
pub fn table(splits: &Value, empty: bool) -> String {
    let mut rows: Vec<[String; 7]> = Vec::new();
    for split in splits.as_array().into_iter().flatten() {
        for (at, child) in split["children"].as_array().into_iter().flatten().enumerate() {
            let size = match child["pages"].as_u64() {
                Some(pages) => bytes((pages * PAGE) as f64),
                None => "all".into(),
            };
            let what = [field(child, "name"), field(child, "predicate")];
            let what: Vec<String> = what.into_iter().filter(|text| !text.is_empty()).collect();
            let files = match (field(child, "partition"), field(child, "tie").as_str()) {
                (path, _) if child["forgotten"] == true && path.is_empty() => "forgotten".into(),
                (path, _) if child["forgotten"] == true => format!("forgotten: not {path}"),
                (path, "guess") => format!("{path} (a guess)"),
                (path, _) if path.is_empty() && child["over"] == true => "did not come".into(),
                (path, _) if path.is_empty() => "not there yet".into(),
                (path, _) => path,
            };
            let number = format!("{}.{}", field(split, "split"), at + 1);
            let how = format!("{} {}{}", field(split, "how"), field(split, "declared"), foreseen(split));
            rows.push([number, field(split, "parent"), how, what.join(": "), size, shadow(child), files]);
        }
    }
    match rows.is_empty() && empty {
        true => "no splits\n".into(),
        false => output::columns(&["SPLIT", "PARENT", "KNOWN", "CHILD", "PAGES", "SHADOW", "FILES"], &rows),
    }
}

/// By whom it was forecast, if by anyone.
fn foreseen(split: &Value) -> String {
    match split.pointer("/foreseen/made").and_then(Value::as_str) {
        Some(made) => format!(", foreseen {made}"),
        None => String::new(),
    }
}

/// How it stands with the shadow of a child.
fn shadow(child: &Value) -> String {
    let size = bytes(number(child, "shadow_bytes") as f64);
    match (child["ready"] == true, field(child, "not_made")) {
        // Nobody had said that it splits.
        (true, _) if child["shadow_for"] == "forecast" => format!("ready by forecast, {size}"),
        (true, _) => format!("ready, {size}"),
        (false, _) if child["forgotten"] == true => "not wanted".into(),
        (false, why) if why.is_empty() => "waits".into(),
        (false, why) => format!("not made: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_for_each_child() {
        let splits = json!([{ "split": 3, "parent": "base/5/16397", "how": "declared", "declared": "2026",
            "foreseen": { "made": "2025", "model": "m" }, "children": [
            { "name": "shop.new", "predicate": "a > 1", "pages": 512, "ready": true, "shadow_bytes": 2_097_152,
              "partition": "base/5/16400", "tie": "guess" },
            { "pages": null, "ready": false },
            { "pages": null, "ready": false, "partition": "base/5/16401", "tie": "guess", "forgotten": true },
            { "pages": null, "ready": true, "shadow_bytes": 4096, "shadow_for": "forecast" },
            { "pages": null, "ready": false, "over": true, "not_made": "there is no room" },
        ] }]);
        let text = table(&splits, true);
        for part in [
            "3.1",
            "3.2",
            "base/5/16397",
            "shop.new: a > 1",
            "declared 2026, foreseen 2025",
            "2.0 MiB",
            "16400 (a guess)",
            "not there yet",
            "forgotten: not base/5/16401",
            "waits",
            "ready by forecast, 4.0 KiB",
            "not made: there is no room",
            "did not come",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(table(&json!([]), true), "no splits\n");
    }
}
