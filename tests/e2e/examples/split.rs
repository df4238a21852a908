//! Restoring the past of a child of a split out of its parent's: bytes and time beside the whole parent's, with the
//! child's shadow made before the split and without, rows in the order of the key and scattered. Run by
//! scripts/bench split.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use weft_e2e::bench;
use weft_e2e::cold::forget;
use weft_e2e::load::median;
use weft_e2e::{Mount, Place, Postgres, cmd, wall::Wall};

const HELP: &str = "scripts/bench split [options]
  --mib N        size of the parent, about (2048)
  --rounds N     restores of each kind (3)
  --out DIR      where the JSON goes (target/bench)";
/// Bytes that a row takes in its page.
const ROW: usize = 1024;
/// One row in so many is the child's.
const SHARE: usize = 10;

struct Options {
    mib: usize,
    rounds: usize,
    out: PathBuf,
}

impl Options {
    fn parse() -> Options {
        let mut options = Options { mib: 2048, rounds: 3, out: PathBuf::from("target/bench") };
        bench::options(HELP, |name, value| {
            match name {
                "--mib" => options.mib = bench::number(name, value)?,
                "--rounds" => options.rounds = bench::number(name, value)?,
                "--out" => options.out = PathBuf::from(value),
                _ => return bench::unknown(name, value),
            }
            Ok(())
        });
        options
    }

    fn rows(&self) -> usize {
        self.mib * (1 << 20) / ROW
    }
}

fn main() {
    let options = Options::parse();
    println!("a parent of {} MiB, a child of one row in {SHARE}; {} rounds", options.mib, options.rounds);
    let mut results = Vec::new();
    for scattered in [false, true] {
        for shadow in [false, true] {
            results.push(measure(&options, scattered, shadow));
        }
    }
    let at = Wall::now();
    let report = json!({ "at": at.canonical(), "mib": options.mib, "results": results });
    bench::report(&options.out, "split-", at, &report);
}

/// A cluster of its own: loaded, declared, split, and its past restored.
fn measure(options: &Options, scattered: bool, shadow: bool) -> Value {
    let place = Place::new();
    let data = place.dir_for("postgres", "data");
    let mount = Mount::over(&data);
    fs::create_dir(&mount.store).expect("mkdir");
    fs::write(mount.store.join("weft.toml"), format!("shadow = {shadow}\n")).expect("weft.toml");
    let mount = mount.mount();
    let server = Postgres::new(&place, "live", &data).set("autovacuum=off").set("max_wal_size=4GB");
    server.initdb();
    server.start();
    load(&server, options.rows(), scattered);
    let path = |table: &str| -> String {
        let query = format!("SELECT pg_relation_filepath('{table}')");
        server.connect("postgres").query_one(&query, &[]).expect("the table's path").get(0)
    };
    let parent = path("orders_all");
    declare(&mount, &server, options.rows(), shadow);
    let before = mount.at("now");
    split(&server, options.rows());
    // The catalogue tells whose child it is.
    weft(&mount, &["splits", &shown(&data), "--pg", &conninfo(&server)]);
    let child = path("orders_new");
    let (mut of_child, mut of_parent) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        for (partition, times) in [(&parent, &mut of_parent), (&child, &mut of_child)] {
            forget(&[&before.join(&parent), &mount.store, &mount.data]);
            times.push(restore(&place, &mount, &before, partition));
        }
    }
    let bytes = |runs: &[(u64, f64)]| runs.first().map_or(0, |(bytes, _)| *bytes);
    let secs = |runs: &[(u64, f64)]| median(runs.iter().map(|(_, secs)| *secs).collect());
    let (bytes_ratio, time_ratio) =
        (bytes(&of_child) as f64 / bytes(&of_parent) as f64, secs(&of_child) / secs(&of_parent));
    println!(
        "{:<10} {:<8} parent {:>5} MiB {:>6.2} s, child {:>5} MiB {:>6.2} s, bytes {bytes_ratio:.3}, time {time_ratio:.3}",
        if scattered { "scattered" } else { "key order" },
        if shadow { "shadow" } else { "history" },
        bytes(&of_parent) >> 20,
        secs(&of_parent),
        bytes(&of_child) >> 20,
        secs(&of_child),
    );
    server.stop();
    mount.unmount();
    json!({ "scattered": scattered, "shadow": shadow, "parent": of_parent, "child": of_child,
        "bytes_ratio": bytes_ratio, "time_ratio": time_ratio })
}

/// Rows of about [`ROW`] bytes whose key is their day of creation; the last tenth is the child's.
fn load(server: &Postgres, rows: usize, scattered: bool) {
    let order = if scattered { "ORDER BY hashint8(i)" } else { "" };
    server.sql(
        "CREATE TABLE orders (id bigint, key bigint, note text) PARTITION BY RANGE (key);
         CREATE TABLE orders_all PARTITION OF orders DEFAULT;
         ALTER TABLE orders_all ALTER note SET STORAGE PLAIN",
    );
    // A seventh of a page less its head.
    server.sql(&format!(
        "INSERT INTO orders SELECT i, i, repeat(md5(i::text), 34) FROM generate_series(1, {rows}) i {order}"
    ));
    server.sql("VACUUM FREEZE orders_all");
    server.sql("CHECKPOINT");
}

fn bound(rows: usize) -> usize {
    rows - rows / SHARE
}

fn declare(mount: &Mount, server: &Postgres, rows: usize, wait: bool) {
    let (data, conninfo) = (shown(&mount.data), conninfo(server));
    let predicate = format!("key >= {}", bound(rows));
    let mut arguments =
        vec!["split", "declare", "orders_all", &data, "--pg", &conninfo, "--where", &predicate];
    arguments.extend(["--child", "public.orders_new"]);
    if wait {
        arguments.push("--wait");
    }
    weft(mount, &arguments);
}

/// As an operator would: two new tables, the rows moved, one transaction.
fn split(server: &Postgres, rows: usize) {
    let at = bound(rows);
    server.sql(&format!(
        "BEGIN;
         CREATE TABLE orders_old (LIKE orders_all INCLUDING DEFAULTS);
         INSERT INTO orders_old SELECT * FROM orders_all WHERE key < {at};
         CREATE TABLE orders_new (LIKE orders_all INCLUDING DEFAULTS);
         INSERT INTO orders_new SELECT * FROM orders_all WHERE key >= {at};
         ALTER TABLE orders DETACH PARTITION orders_all;
         ALTER TABLE orders ATTACH PARTITION orders_old FOR VALUES FROM (MINVALUE) TO ({at});
         ALTER TABLE orders ATTACH PARTITION orders_new FOR VALUES FROM ({at}) TO (MAXVALUE);
         DROP TABLE orders_all; COMMIT; CHECKPOINT"
    ));
}

/// Bytes read and seconds of one restore into a place that is emptied again.
fn restore(place: &Place, mount: &Mount, view: &Path, partition: &str) -> (u64, f64) {
    let to = place.join("restored");
    let at = view.file_name().expect("a view").to_string_lossy().replace("@ts=", "");
    let (data, target) = (shown(&mount.data), shown(&to));
    let arguments = ["restore", &data, "--at", &at, "--partition", partition, "--to", &target, "--json"];
    let told: Value = serde_json::from_str(&weft(mount, &arguments)).expect("JSON");
    fs::remove_dir_all(&to).expect("remove what was restored");
    (told["read_bytes"].as_u64().expect("bytes"), told["secs"].as_f64().expect("seconds"))
}

fn weft(mount: &Mount, arguments: &[&str]) -> String {
    cmd::run(mount.weft().args(arguments)).ok()
}

fn shown(path: &Path) -> String {
    path.to_str().expect("a path of letters").to_owned()
}

fn conninfo(server: &Postgres) -> String {
    format!("host={} user=postgres dbname=postgres", server.socket.display())
}
