use crate::resolve::field;
use crate::status::{bytes, number};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft_mount::catalogue::{self, Source};
use weft_mount::{control, place};

/// List the partitions: what the database splits its data into, with sizes, write rates and what their history takes
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it; by default the mount around the current directory
    data: Option<PathBuf>,
    /// Ask PostgreSQL for names: "host=/run/postgresql user=postgres"
    #[arg(long, value_name = "CONNINFO", conflicts_with = "mysql")]
    pg: Option<String>,
    /// Ask MariaDB for names: "mysql://root@localhost/?socket=/run/mysqld/mysqld.sock"
    #[arg(long, value_name = "URL")]
    mysql: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.data.as_deref(), store)?;
    let mut answer = control::ask(&store, &control::Ask::Partitions)?;
    let source = match (&args.pg, &args.mysql) {
        (Some(conninfo), _) => Some(Source::Postgres(conninfo)),
        (None, Some(url)) => Some(Source::Mysql(url)),
        (None, None) => None,
    };
    if let Some(source) = source {
        name(&mut answer, source)?;
    }
    match args.json {
        true => output::print_json(&answer),
        false => output::print(&table(&answer)),
    }
}

/// Puts to each partition what the database calls it.
fn name(answer: &mut Value, source: Source<'_>) -> Result<(), String> {
    let names = catalogue::names(source)?;
    for one in answer.get_mut("partitions").and_then(Value::as_array_mut).into_iter().flatten() {
        let path = field(one, "partition");
        // A relation has the same path in every root that is a tablespace.
        let path = path.rsplit_once(':').map_or(path.as_str(), |(_, path)| path);
        let (Some(relation), Some(one)) = (names.of(path), one.as_object_mut()) else { continue };
        one.insert("name".into(), relation.name.clone().into());
        if let Some(parent) = &relation.parent {
            one.insert("parent".into(), parent.clone().into());
        }
        if let Some(bound) = &relation.bound {
            one.insert("bound".into(), bound.clone().into());
        }
    }
    Ok(())
}

fn table(answer: &Value) -> String {
    let size = |one: &Value, key| bytes(number(one, key) as f64);
    let rate = |one: &Value| one.get("written_bytes_per_sec").and_then(Value::as_f64).unwrap_or(0.0);
    let row = |one: &Value| {
        let named = [field(one, "name"), field(one, "bound")].join(" ");
        [
            field(one, "partition"),
            field(one, "files"),
            size(one, "size_bytes"),
            format!("{}/s", bytes(rate(one))),
            size(one, "history_bytes"),
            size(one, "shadow_bytes"),
            named.trim().to_owned(),
        ]
    };
    let rows: Vec<[String; 7]> =
        answer.get("partitions").and_then(Value::as_array).into_iter().flatten().map(row).collect();
    output::columns(&["PARTITION", "FILES", "SIZE", "WRITES", "HISTORY", "SHADOWS", "NAME"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_per_partition() {
        let answer = json!({ "partitions": [{
            "partition": "base/5/16397", "files": 3, "size_bytes": 8192, "history_bytes": 16384,
            "written_bytes_per_sec": 2048.0, "name": "public.orders_2026", "bound": "FOR VALUES FROM (1) TO (2)",
        }] });
        let text = table(&answer);
        for part in ["base/5/16397", "8.0 KiB", "2.0 KiB/s", "16.0 KiB", "0 B", "orders_2026 FOR VALUES FROM"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
