use crate::resolve::{field, why_not};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Component, Path, PathBuf};
use weft_mount::{control, place, roots};

/// Say what differs between two instants: names, attributes, how many bytes; by the index, no file is read
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it
    data: PathBuf,
    /// One instant: 2026-11-23T10:00:00Z, 10:00, -5m, now, seq=N, tag:NAME
    #[arg(allow_hyphen_values = true)]
    from: String,
    /// The other
    #[arg(allow_hyphen_values = true)]
    to: String,
    /// Only at or below this path, from the root of DATA
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    use std::os::unix::ffi::OsStrExt;
    let store = place::find_store(Some(&args.data), store)?;
    let path = args.path.as_deref().map(place::normal).unwrap_or_default();
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        _ => None,
    });
    let root = match place::mount_of(Some(&args.data), &store) {
        Some(point) => roots::name_at(&store, &point)?,
        None => String::new(),
    };
    let (from, to, names) = (args.from.clone(), args.to.clone(), names.collect());
    let ask = control::Ask::Diff { root, from, to, names };
    let answer = control::ask(&store, &ask)?;
    match (answer.get("differences"), args.json) {
        (None, _) => Err(why_not(&answer)),
        (Some(_), true) => output::print_json(&answer),
        (Some(differences), false) => output::print(&table(differences)),
    }
}

fn table(differences: &Value) -> String {
    let rows: Vec<[String; 4]> = differences.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "no difference\n".into();
    }
    output::columns(&["WHAT", "BYTES", "SIZE", "PATH"], &rows)
}

fn row(difference: &Value) -> [String; 4] {
    let size = match (field(difference, "size_before"), field(difference, "size_after")) {
        (before, after) if before == after || before.is_empty() => after,
        (before, after) if after.is_empty() => before,
        (before, after) => format!("{before} -> {after}"),
    };
    let mut path = field(difference, "path");
    if path.is_empty() {
        path.push('.');
    }
    let from = field(difference, "from");
    if !from.is_empty() {
        path = format!("{path} (was {from})");
    }
    let attributes: Vec<&str> =
        difference["attributes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !attributes.is_empty() {
        path = format!("{path} ({})", attributes.join(", "));
    }
    let bytes = Some(field(difference, "changed_bytes")).filter(|bytes| bytes != "0").unwrap_or_default();
    [field(difference, "kind"), bytes, size, path]
}
