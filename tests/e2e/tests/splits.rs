//! Splits of real partitions: declared before, their children ready before they are there, and the past of a child out
//! of its parent's.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use weft_e2e::{Mariadb, Mount, Place, Postgres, cmd};

/// `weft ARGS`.
fn weft(mount: &Mount, args: &[&str]) -> cmd::Output {
    cmd::run(mount.weft().args(args))
}

fn json(output: cmd::Output) -> Value {
    let text = output.ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The time of a view's path.
fn time_of(view: &Path) -> String {
    view.file_name().unwrap().to_str().unwrap().trim_start_matches("@ts=").to_owned()
}

#[track_caller]
fn refused(output: cmd::Output, why: &str) {
    assert!(output.code == 1 && output.stderr.contains(why), "{why}: {} {}", output.code, output.stderr);
    assert_eq!(output.stderr.trim().lines().count(), 1, "{}", output.stderr);
}

const NEW: &str = "created_at >= '2026-10-01'";

/// A partition of 20,000 rows in the order of their time, a tenth of them in the last child; with an index.
fn load(server: &Postgres) {
    server.sql(
        "CREATE TABLE orders (id bigint, created_at timestamp, note text) PARTITION BY RANGE (created_at);
         CREATE TABLE orders_all PARTITION OF orders DEFAULT;
         INSERT INTO orders SELECT i, '2026-01-01'::timestamp + i * interval '1092 seconds', repeat('x', 700)
           FROM generate_series(1, 24000) i;
         CREATE INDEX ON orders_all (created_at)",
    );
    server.sql("VACUUM FREEZE orders_all");
    server.sql("CHECKPOINT");
}

/// As an operator would: two new tables, the rows moved, one transaction.
const SPLIT: &str = "BEGIN;
    CREATE TABLE orders_old (LIKE orders_all INCLUDING DEFAULTS);
    INSERT INTO orders_old SELECT * FROM orders_all WHERE created_at < '2026-10-01';
    CREATE TABLE orders_new (LIKE orders_all INCLUDING DEFAULTS);
    INSERT INTO orders_new SELECT * FROM orders_all WHERE created_at >= '2026-10-01';
    ALTER TABLE orders DETACH PARTITION orders_all;
    ALTER TABLE orders ATTACH PARTITION orders_old FOR VALUES FROM (MINVALUE) TO ('2026-10-01');
    ALTER TABLE orders ATTACH PARTITION orders_new FOR VALUES FROM ('2026-10-01') TO (MAXVALUE);
    DROP TABLE orders_all; COMMIT; CHECKPOINT";

#[test]
fn a_partition_of_postgres_splits_and_the_past_of_a_child_is_read_without_the_rest() {
    let place = Place::new();
    let data = place.dir_for("postgres", "data");
    let mount = Mount::over(&data).mount();
    let server = Postgres::new(&place, "live", &data).set("autovacuum=off").set("max_wal_size=64MB");
    server.initdb();
    server.start();
    load(&server);
    let rows = format!("SELECT count(*) FROM orders_all WHERE {NEW}");
    let sum = format!("SELECT sum(id)::bigint FROM orders_all WHERE {NEW}");
    let path = |table: &str| -> String {
        let query = format!("SELECT pg_relation_filepath('{table}')");
        server.connect("postgres").query_one(&query, &[]).unwrap().get(0)
    };
    let (expected, expected_sum) = (server.number(&rows), server.number(&sum));
    let (parent, data) = (path("orders_all"), data.to_str().unwrap().to_owned());
    let before = time_of(&mount.at("now"));
    // Rows that the child has move after the instant, so its pages of then are not those of the declaration.
    server.sql("UPDATE orders_all SET note = 'moved' WHERE id = 23999; CHECKPOINT");

    let conninfo = format!("host={} user=postgres dbname=postgres", server.socket.display());
    let declare = |more: &[&str]| weft(&mount, &[&["split", "declare"][..], more].concat());
    refused(declare(&["base/1/99999", &data]), "no partition base/1/99999");
    refused(declare(&[&parent, &data, "--pages", "0-99999999"]), "the partition has");
    refused(declare(&["no_such", &data, "--pg", &conninfo, "--where", "true"]), "knows no table");
    refused(declare(&["orders_all", &data, "--pg", &conninfo, "--where", "no_column > 1"]), "no_column");
    refused(declare(&["orders_all", &data, "--pg", &conninfo, "--where", "id < 0"]), "matches no row");
    assert_eq!(declare(&[&parent, &data, "--pages", "9-3"]).code, 2);
    assert_eq!(
        json(weft(&mount, &["splits", &data, "--json"])),
        Value::Array(vec![]),
        "what is refused leaves nothing"
    );

    let new = [
        "orders_all",
        &data,
        "--pg",
        &conninfo,
        "--where",
        NEW,
        "--child",
        "public.orders_new",
        "--wait",
        "--json",
    ];
    let declared = json(declare(&new));
    let child = &declared["children"][0];
    assert_eq!(
        (&child["ready"], &child["rows"]),
        (&Value::Bool(true), &Value::from(expected)),
        "{declared:#}"
    );
    declare(&[&parent, &data, "--pages", "0-1500"]).ok();
    server.sql(SPLIT);

    let listed = json(weft(&mount, &["splits", &data, "--pg", &conninfo, "--json"]));
    let children = &listed[0]["children"];
    assert_eq!(
        (&children[0]["partition"], &children[0]["tie"]),
        (&path("orders_new").into(), &"catalogue".into()),
        "{listed:#}"
    );
    assert_eq!(children[1]["tie"], "guess", "{listed:#}");
    let child = path("orders_new");
    let log = weft(&mount, &["log", &format!("{data}/{child}")]).ok();
    assert!(log.contains(&format!("before that, part of {parent}:")) && log.contains("as base/"), "{log}");

    let to = place.join("child");
    let restored = json(weft(
        &mount,
        &["restore", &data, "--at", &before, "--partition", &child, "--to", to.to_str().unwrap(), "--json"],
    ));
    let parent_bytes = std::fs::metadata(mount.ts(&before).join(&parent)).unwrap().len();
    let read = restored["read_bytes"].as_u64().unwrap();
    assert!(read as f64 <= 0.15 * parent_bytes as f64, "{read} of {parent_bytes}: {restored:#}");
    assert!(restored["notes"][0].as_str().unwrap().contains(&parent), "{restored:#}");
    let copy = place.join("scratch");
    let to_copy = copy.to_str().unwrap();
    weft(&mount, &["restore", &data, "--at", &before, "--except", &parent, "--to", to_copy]).ok();
    assert!(!copy.join(&parent).exists());
    cmd::run(Command::new("cp").args(["-a", "--"]).arg(to.join(&parent)).arg(copy.join(&parent))).ok();
    let scratch = Postgres::new(&place, "scratch", &copy)
        .set("enable_indexscan=off")
        .set("enable_indexonlyscan=off")
        .set("enable_bitmapscan=off")
        .set("autovacuum=off");
    scratch.start();
    assert_eq!((scratch.number(&rows), scratch.number(&sum)), (expected, expected_sum));
    let moved = format!("SELECT count(*) FROM orders_all WHERE {NEW} AND note = 'moved'");
    assert_eq!(scratch.number(&moved), 0, "as it was then");
    scratch.stop();
    server.stop();
    mount.unmount();
    // The forecast is to learn from it.
    let trace = weft(&mount, &["trace", "export", "--store", mount.store.to_str().unwrap()]).ok();
    assert!(trace.contains(&format!(",{parent},split,")), "{trace}");
    // It holds across a restart of the daemon.
    mount.remount();
    let again = json(weft(&mount, &["splits", &data, "--json"]));
    assert_eq!(again[0]["children"][0]["partition"], listed[0]["children"][0]["partition"]);
    mount.unmount();
}

#[test]
fn a_partition_of_mariadb_is_made_ready_whole() {
    let place = Place::new();
    let data = place.dir_for("mysql", "data");
    let mount = Mount::over(&data).mount();
    let server = Mariadb::new(&place, "live", &data);
    server.install();
    server.start();
    server.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, note CHAR(200)) PARTITION BY RANGE (id)
         (PARTITION pmax VALUES LESS THAN MAXVALUE);
         INSERT INTO shop.orders SELECT help_topic_id + 1, 'x' FROM mysql.help_topic;
         FLUSH TABLES shop.orders FOR EXPORT; UNLOCK TABLES",
    );
    let shown = data.to_str().unwrap();
    let (parent, child) = ("shop/orders#P#pmax", "shop/orders#P#p9");
    let before = mount.at("now");
    refused(weft(&mount, &["split", "declare", parent, shown, "--pages", "0-1"]), "pages are for heaps");
    let declared =
        json(weft(&mount, &["split", "declare", parent, shown, "--child", child, "--wait", "--json"]));
    assert_eq!(declared["children"][0]["ready"], true, "{declared:#}");
    server.sql(
        "ALTER TABLE shop.orders REORGANIZE PARTITION pmax INTO
         (PARTITION p9 VALUES LESS THAN (100), PARTITION px VALUES LESS THAN MAXVALUE)",
    );
    let listed = json(weft(&mount, &["splits", shown, "--json"]));
    let tied = &listed[0]["children"][0];
    assert_eq!((&tied["partition"], &tied["tie"]), (&child.into(), &"declared".into()), "{listed:#}");
    let to = place.join("child");
    let (time, to_text) = (time_of(&before), to.to_str().unwrap());
    weft(&mount, &["restore", shown, "--at", &time, "--partition", child, "--to", to_text]).ok();
    let file = format!("{parent}.ibd");
    assert_eq!(std::fs::read(to.join(&file)).unwrap(), std::fs::read(before.join(&file)).unwrap());
    server.stop();
    mount.unmount();
}

#[test]
fn nobody_waits_for_a_child_whose_shadow_cannot_be_made() {
    let place = Place::new();
    let store = place.join("store");
    std::fs::create_dir(&store).unwrap();
    let set = |text: &str| std::fs::write(store.join("weft.toml"), text).unwrap();
    set("shadow_limit_mib = 6\n");
    let mount = Mount::new(&place).store(&store).mount();
    let point = mount.point.to_str().unwrap().to_owned();
    for name in ["heap", "other"] {
        std::fs::write(mount.point.join(name), vec![7; 8 << 20]).unwrap();
    }
    let declare =
        |more: &[&str]| weft(&mount, &[&["split", "declare"][..], more, &["--wait", "--json"]].concat());
    // As many blocks, and not the same.
    for (blocks, count) in [("0-255", 1), ("256-511", 2)] {
        let declared = json(declare(&["heap", &point, "--pages", blocks]));
        let children = declared["children"].as_array().unwrap();
        assert!(
            children.len() == count && children.iter().all(|child| child["shadow_for"] == "split"),
            "{declared:#}"
        );
    }
    let shadows = json(weft(&mount, &["shadows", &point, "--json"]));
    assert_eq!(shadows["shadows"].as_array().unwrap().len(), 2);
    refused(declare(&["other", &point]), "shadow_limit_mib is reached");
    let listed = weft(&mount, &["splits", &point]).ok();
    assert!(listed.contains("ready, 2.0 MiB") && listed.contains("shadow_limit_mib is reached"), "{listed}");
    mount.unmount();
    set("shadow = false\n");
    mount.remount();
    refused(declare(&["other", &point, "--child", "later"]), "`shadow = false` is set");
    mount.unmount();
    // What a restart left undone is made.
    set("");
    mount.remount();
    declare(&["other", &point, "--child", "later"]).ok();
    mount.unmount();
}
