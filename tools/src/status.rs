use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft::past::when::canonical;
use weft::types::Timestamp;
use weft_mount::{control, place};

/// What is mounted, how far history reaches, what it costs, and whether all is well
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let status = control::ask(&store, &control::Ask::Status)?;
    if args.json { output::print_json(&status) } else { output::print(&table(&status)) }
}

pub fn number(status: &Value, key: &str) -> u64 {
    status.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn nested(status: &Value, outer: &str, key: &str) -> u64 {
    status.get(outer).map_or(0, |inner| number(inner, key))
}

fn text<'a>(status: &'a Value, key: &str) -> &'a str {
    status.get(key).and_then(Value::as_str).unwrap_or("?")
}

fn rate(status: &Value, key: &str) -> f64 {
    status.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

fn time(status: &Value, key: &str) -> String {
    status.get(key).and_then(Value::as_i64).map_or("?".into(), |us| canonical(Timestamp(us)))
}

/// Bytes in the largest unit that leaves a whole part.
pub fn bytes(count: f64) -> String {
    let mut value = count;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1_024.0 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") }
}

/// What is left out of history, and how much of it there is now.
fn excluded(status: &Value) -> String {
    let patterns = status.get("exclude").and_then(Value::as_array).cloned().unwrap_or_default();
    match patterns.is_empty() {
        true => "nothing".into(),
        false => format!(
            "{} ({} files, {})",
            patterns.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            number(status, "excluded_files"),
            bytes(number(status, "excluded_bytes") as f64)
        ),
    }
}

/// What is left, and what is kept of it.
fn space(status: &Value) -> String {
    let size = |key| bytes(number(status, key) as f64);
    let full = status.get("full").and_then(Value::as_bool).unwrap_or(false);
    let kept = match number(status, "reserve_bytes") {
        0 => String::new(),
        _ => format!(
            ", {} of it for the {} that the kernel may hold",
            size("reserve_bytes"),
            size("kernel_bytes")
        ),
    };
    format!(
        "{}free: STORE {}, DATA {}; journal allocated for {}{kept}",
        if full { "FULL, new writes are refused; " } else { "" },
        size("store_free_bytes"),
        size("data_free_bytes"),
        size("allocated_bytes"),
    )
}

/// The logs that are followed, and what came of them.
fn logs(status: &Value) -> String {
    let logs = status.get("logs").and_then(Value::as_array).cloned().unwrap_or_default();
    let one = |log: &Value| {
        let trouble = log.get("trouble").and_then(Value::as_str);
        let trouble = trouble.map_or_else(String::new, |cause| format!(", CANNOT BE READ: {cause}"));
        let other = match (number(log, "other"), number(log, "statements")) {
            (0, _) => String::new(),
            (other, 0) => format!(
                ", {other} messages and no statement among them (log_statement has to be set, and lc_messages English)"
            ),
            (other, _) => format!(", {other} other messages"),
        };
        format!(
            "{} ({}): {} lines, {} statements, {} schema changes, {} splits, {} of unknown tables, {} reads and writes of tables and {} of unknown ones, {} skipped{other}{trouble}",
            text(log, "log"),
            text(log, "format"),
            number(log, "lines"),
            number(log, "statements"),
            number(log, "changes"),
            number(log, "splits"),
            number(log, "unknown"),
            number(log, "queries"),
            number(log, "queries_unknown"),
            number(log, "skipped"),
        )
    };
    let catalogue = status.get("log_catalogue_trouble").and_then(Value::as_str);
    let catalogue = catalogue.map(|cause| format!("log_catalogue does not answer: {cause}"));
    let statistics =
        status.get("pg_stat").filter(|statistics| statistics.is_object()).map(|statistics| match statistics
            .get("trouble")
            .and_then(Value::as_str)
        {
            Some(cause) => format!("pg_stat does not answer: {cause}"),
            None => format!(
                "pg_stat: {} tables, {} scans, {} rows changed",
                number(statistics, "tables"),
                number(statistics, "reads"),
                number(statistics, "writes")
            ),
        });
    let lines: Vec<String> = logs.iter().map(one).chain(catalogue).chain(statistics).collect();
    if lines.is_empty() { "none is followed".into() } else { lines.join("; ") }
}

fn table(status: &Value) -> String {
    let size = |key| bytes(number(status, key) as f64);
    let behind = |key| number(status, "seq").saturating_sub(number(status, key));
    let problems = status.get("problems").and_then(Value::as_array).cloned().unwrap_or_default();
    let health = match problems.is_empty() {
        true => "good".into(),
        false => problems.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
    };
    let warnings = status.get("warnings").and_then(Value::as_array).cloned().unwrap_or_default();
    let warnings = warnings.iter().filter_map(Value::as_str).map(|text| ("warning", text.to_owned()));
    let lines = [
        ("health", health),
        ("mounted", format!("{} (DATA {})", text(status, "mountpoint"), text(status, "data"))),
        ("roots", roots(status)),
        ("store", format!("{} ({})", text(status, "store"), text(status, "store_id"))),
        (
            "daemon",
            format!(
                "pid {}, up {} s, weft {}",
                number(status, "pid"),
                number(status, "uptime_secs"),
                text(status, "version")
            ),
        ),
        ("capture", text(status, "capture").into()),
        ("history", format!("{} to {}", time(status, "oldest_us"), time(status, "newest_us"))),
        ("seq", format!("{} (durable {})", number(status, "seq"), number(status, "durable_seq"))),
        ("clock", format!("epoch {}, zone {}", number(status, "clock_epoch"), text(status, "timezone"))),
        (
            "stored",
            format!(
                "live {}, journal {}, woven {}, shadows {}, index {}, base {}, metadata {}",
                size("live_bytes"),
                size("journal_bytes"),
                size("woven_bytes"),
                size("shadow_bytes"),
                size("index_bytes"),
                size("base_bytes"),
                size("meta_bytes")
            ),
        ),
        ("weaving", crate::weave::state(status)),
        ("forecast", status.get("forecast").map_or_else(String::new, crate::forecast::state)),
        ("shadows", crate::shadow::state(status.get("shadows").unwrap_or(&Value::Null))),
        ("space", space(status)),
        (
            "lag",
            format!(
                "applier {} events ({} in the overlay), index {} events",
                behind("applied_seq"),
                size("overlay_bytes"),
                behind("indexed_seq")
            ),
        ),
        ("checkpoint", format!("at seq {}", number(status, "checkpoint_seq"))),
        ("profile", text(status, "profile").into()),
        ("model", model(status)),
        ("logs", logs(status)),
        ("excluded", excluded(status)),
        ("files", format!("{} ({} open)", number(status, "files"), number(status, "open_files"))),
        (
            "rates",
            format!(
                "{:.1} writes/s, {}/s, {:.1} fsyncs/s",
                rate(status, "writes_per_sec"),
                bytes(rate(status, "written_bytes_per_sec")),
                rate(status, "fsyncs_per_sec")
            ),
        ),
        (
            "so far",
            format!(
                "{} writes, {}, {} fsyncs in {} flushes",
                number(status, "writes"),
                size("written_bytes"),
                number(status, "fsyncs"),
                number(status, "flushes")
            ),
        ),
        (
            "cost",
            format!(
                "{:.1} s of CPU ({:.1} weaving, {:.1} shadows), {} read, {} written",
                number(status, "daemon_cpu_us") as f64 / 1e6,
                nested(status, "woven_so_far", "cpu_us") as f64 / 1e6,
                nested(status, "shadows", "cpu_us") as f64 / 1e6,
                size("daemon_read_bytes"),
                size("daemon_written_bytes")
            ),
        ),
        ("recovery", text(status, "recovery").into()),
    ];
    let (first, rest) = lines.split_at(1);
    let all = first.iter().cloned().chain(warnings).chain(rest.iter().cloned());
    let shown = all.filter(|(_, value)| !value.is_empty());
    shown.map(|(key, value)| format!("{key:<10} {value}\n")).collect()
}

/// Which model forecasts, or why none does.
fn model(status: &Value) -> String {
    let Some(model) = status.get("model") else { return String::new() };
    let part = |key: &str| model.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let refused = model.pointer("/refused/why").and_then(Value::as_str).unwrap_or_default();
    match (part("id"), part("trouble")) {
        (id, cause) if cause.is_empty() && refused.is_empty() => id,
        (id, cause) if cause.is_empty() => {
            format!("{id}, in place of the one that was chosen, which cannot be used: {refused}")
        }
        (id, cause) if id.is_empty() => format!("none, the standard rule decides: {cause}"),
        (id, cause) => format!("{id} is not at work, the standard rule decides: {cause}"),
    }
}

/// The further roots; empty without.
fn roots(status: &Value) -> String {
    let roots = status.get("roots").and_then(Value::as_array).cloned().unwrap_or_default();
    let one = |root: &Value| {
        let free = root.get("free_bytes").and_then(Value::as_f64).map_or("?".into(), bytes);
        format!("{}={} ({free} free)", text(root, "name"), text(root, "mountpoint"))
    };
    roots.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_are_readable() {
        for (count, want) in
            [(0.0, "0 B"), (1_023.0, "1023 B"), (1_536.0, "1.5 KiB"), (5e9, "4.7 GiB"), (1e16, "9094.9 TiB")]
        {
            assert_eq!(bytes(count), want);
        }
    }

    #[test]
    fn space_tells_what_is_kept_and_that_it_is_full() {
        let strict = json!({ "store_free_bytes": 1 << 30, "data_free_bytes": 2048, "allocated_bytes": 4096 });
        assert_eq!(space(&strict), "free: STORE 1.0 GiB, DATA 2.0 KiB; journal allocated for 4.0 KiB");
        let full = json!({ "full": true, "reserve_bytes": 1024, "kernel_bytes": 512 });
        let told = space(&full);
        assert!(
            told.starts_with("FULL")
                && told.ends_with("1.0 KiB of it for the 512 B that the kernel may hold"),
            "{told}"
        );
    }

    #[test]
    fn the_model_is_told_and_what_it_stands_in_for() {
        let told = |told: Value| model(&json!({ "model": told }));
        assert_eq!(told(json!({ "id": "shipped 1", "refused": null })), "shipped 1");
        assert_eq!(told(json!({ "id": null, "trouble": "why" })), "none, the standard rule decides: why");
        let other = told(json!({ "id": "shipped 1", "refused": { "model": "ab", "why": "it is old" } }));
        assert_eq!(other, "shipped 1, in place of the one that was chosen, which cannot be used: it is old");
    }

    #[test]
    fn the_table_shows_lag_and_problems() {
        let status = json!({ "seq": 10, "applied_seq": 4, "problems": ["disk full: make room"], "oldest_us": 0,
                "exclude": ["pgsql_tmp/", "postmaster.pid"], "excluded_files": 2, "excluded_bytes": 1536 });
        let table = table(&status);
        assert!(
            table.contains("applier 6 events") && table.contains("health     disk full: make room"),
            "{table}"
        );
        assert!(table.contains("excluded   pgsql_tmp/, postmaster.pid (2 files, 1.5 KiB)"), "{table}");
        assert!(table.contains("1970-01-01T00:00:00.000000Z"));
    }
}
