//! Splits of real partitions: declared before, their children ready before they are there, and the past of a child out
//! of its parent's.

use serde_json::Value;
use std::os::unix::fs::MetadataExt;
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
    // The table of the other came first, and was taken for the one that was declared first until the catalogue was asked.
    assert_eq!(
        (&children[1]["partition"], &children[1]["tie"]),
        (&path("orders_old").into(), &"guess".into()),
        "{listed:#}"
    );
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
    let except = |partition: &str| {
        weft(&mount, &["restore", &data, "--at", &before, "--except", partition, "--to", to_copy])
    };
    refused(except(&child), &format!("--except {parent}"));
    refused(except("base/1/99999"), "there was no partition base/1/99999");
    except(&parent).ok();
    assert!(!copy.join(&parent).exists());
    let scratch = with_heap(&place, &copy, &to, &parent);
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

/// A server over the copy of a view, with a heap that was restored to another place.
fn with_heap(place: &Place, copy: &Path, restored: &Path, heap: &str) -> Postgres {
    cmd::run(Command::new("cp").args(["-a", "--"]).arg(restored.join(heap)).arg(copy.join(heap))).ok();
    let name = format!("with-{}", restored.file_name().unwrap().display());
    let scratch = Postgres::new(place, &name, copy)
        .set("enable_indexscan=off")
        .set("enable_indexonlyscan=off")
        .set("enable_bitmapscan=off")
        .set("autovacuum=off");
    scratch.start();
    scratch
}

/// What moved rows only in the server's buffers is no change that history has seen.
#[test]
fn rows_that_postgres_holds_back_are_in_the_past_of_a_child() {
    let place = Place::new();
    let data = place.dir_for("postgres", "data");
    let mount = Mount::over(&data).mount();
    let server = Postgres::new(&place, "live", &data)
        .set("autovacuum=off")
        .set("bgwriter_lru_maxpages=0")
        .set("checkpoint_timeout=1h");
    server.initdb();
    server.start();
    load(&server);
    server.sql("CREATE ROLE clerk LOGIN; GRANT SELECT ON orders_all TO clerk");
    let sums = |server: &Postgres, which: &str| {
        let of = |what: &str| server.number(&format!("SELECT {what} FROM orders_all WHERE {which}"));
        (of("count(*)"), of("sum(id)::bigint"))
    };
    let (expected, expected_of_all) = (sums(&server, NEW), sums(&server, "true"));
    let path = |table: &str| -> String {
        let query = format!("SELECT pg_relation_filepath('{table}')");
        server.connect("postgres").query_one(&query, &[]).unwrap().get(0)
    };
    let (parent, data) = (path("orders_all"), data.to_str().unwrap().to_owned());
    server.sql("CHECKPOINT");
    let before = time_of(&mount.at("now"));
    server.sql(&format!("UPDATE orders_all SET note = repeat('y', 700) WHERE {NEW}"));

    let conninfo = |user: &str| format!("host={} user={user} dbname=postgres", server.socket.display());
    let declare = |user: &str, predicate: &str, child: &str| {
        let (user, timeout) = (conninfo(user), ["--timeout", if user == "clerk" { "1" } else { "60" }]);
        let rest = ["--pg", &user, "--where", predicate, "--child", child, "--json"];
        json(weft(&mount, &[&["split", "declare", "orders_all", &data][..], &rest, &timeout].concat()))
    };
    let note = |declared: &Value| declared["note"].as_str().unwrap_or_default().to_owned();
    // Who may not have them written gets the whole, and is told so; so does who does not wait for what is being written.
    let whole = declare("clerk", NEW, "whole");
    assert!(note(&whole).contains("pg_checkpoint") && whole["children"][0]["pages"].is_null(), "{whole:#}");
    let mut writer = server.connect("postgres");
    let mut open = writer.transaction().unwrap();
    open.execute("UPDATE orders_all SET note = 'z' WHERE id = 1", &[]).unwrap();
    let whole = declare("clerk", NEW, "whole");
    assert!(note(&whole).contains("--timeout") && whole["children"][0]["pages"].is_null(), "{whole:#}");
    open.rollback().unwrap();
    let slow = format!("{NEW} AND pg_sleep(0.1) IS NOT NULL");
    let arguments =
        ["split", "declare", "orders_all", &data, "--pg", &conninfo("postgres"), "--timeout", "1"];
    refused(weft(&mount, &[&arguments[..], &["--where", &slow]].concat()), "longer with --timeout");

    let declared = declare("postgres", NEW, "public.orders_new");
    assert!(note(&declared).is_empty() && declared["children"][1]["pages"].is_u64(), "{declared:#}");
    declare("postgres", "created_at < '2026-10-01'", "public.orders_old");
    server.sql(SPLIT);
    weft(&mount, &["splits", &data, "--pg", &conninfo("postgres")]).ok();
    let [new, old] = ["orders_new", "orders_old"].map(path);

    let restore = |name: &str, which: &[&str]| {
        let to = place.join(name);
        let arguments = ["restore", &data, "--at", &before, "--to", to.to_str().unwrap()];
        weft(&mount, &[&arguments, which].concat()).ok();
        to
    };
    let copy = restore("scratch", &["--except", &parent]);
    let heap = restore("child", &["--partition", &new]);
    let scratch = with_heap(&place, &copy, &heap, &parent);
    assert_eq!(sums(&scratch, NEW), expected);
    assert!(sums(&scratch, "true").0 < expected_of_all.0, "no more than it is");
    scratch.stop();
    // Two children of one partition are the rows of both.
    let heap = restore("both", &["--partition", &new, "--partition", &old]);
    let scratch = with_heap(&place, &copy, &heap, &parent);
    assert_eq!((sums(&scratch, NEW), sums(&scratch, "true")), (expected, expected_of_all));
    scratch.stop();
    let heap = restore("all", &["--partition", &parent, "--partition", &new]);
    let then = mount.ts(&before).join(&parent);
    assert!(std::fs::read(heap.join(&parent)).unwrap() == std::fs::read(then).unwrap(), "the whole is whole");

    // Its rows are written anew, to other files: its past is in those of before, and before that in the parent.
    let between = time_of(&mount.at("now"));
    server.sql("VACUUM FULL orders_new");
    let anew = path("orders_new");
    assert_ne!(anew, new);
    let listed = json(weft(&mount, &["splits", &data, "--pg", &conninfo("postgres"), "--json"]));
    let child = &listed[0]["children"][1];
    assert_eq!(
        (&child["partition"], &child["tie"]),
        (&anew.clone().into(), &"catalogue".into()),
        "{listed:#}"
    );
    let heap = restore("child-anew", &["--partition", &anew]);
    let heap = std::fs::metadata(heap.join(&parent)).unwrap();
    assert!(heap.blocks() * 512 < heap.len() / 2, "its pages alone");
    let to = place.join("between");
    let arguments = ["restore", &data, "--at", &between, "--partition", &anew, "--to", to.to_str().unwrap()];
    let told = weft(&mount, &arguments).ok();
    assert!(told.contains(&format!("{anew} was {new} before it was written anew")), "{told}");
    assert!(to.join(&new).exists() && !to.join(&parent).exists());
    let log = weft(&mount, &["log", &format!("{data}/{anew}")]).ok();
    let anew_at = log.find(&format!("before it was written anew, {new}:")).expect(&log);
    let part_at = log.find(&format!("before that, part of {parent}:")).expect(&log);
    assert!(anew_at < part_at, "{log}");
    server.stop();
    mount.unmount();
}

/// The values that PostgreSQL stores beside a table stand in a heap that came with it.
#[test]
fn long_values_beside_a_child_are_not_taken_for_the_next_one() {
    let place = Place::new();
    let data = place.dir_for("postgres", "data");
    let mount = Mount::over(&data).mount();
    let server = Postgres::new(&place, "live", &data).set("autovacuum=off");
    server.initdb();
    server.start();
    server.sql(
        "CREATE TABLE notes (id bigint, note text); ALTER TABLE notes ALTER note SET STORAGE EXTERNAL;
         INSERT INTO notes SELECT i, repeat('x', 9000) FROM generate_series(1, 200) i; CHECKPOINT",
    );
    let path = |table: &str| -> String {
        let query = format!("SELECT pg_relation_filepath('{table}')");
        server.connect("postgres").query_one(&query, &[]).unwrap().get(0)
    };
    let (parent, data) = (path("notes"), data.to_str().unwrap().to_owned());
    for child in ["one", "two"] {
        weft(&mount, &["split", "declare", &parent, &data, "--child", child]).ok();
    }
    server.sql(
        "CREATE TABLE one (LIKE notes INCLUDING STORAGE); INSERT INTO one SELECT * FROM notes WHERE id <= 100;
         CREATE TABLE two (LIKE notes INCLUDING STORAGE); INSERT INTO two SELECT * FROM notes WHERE id > 100;
         CHECKPOINT",
    );
    let beside: String = server
        .connect("postgres")
        .query_one("SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE relname = 'one'", &[])
        .unwrap()
        .get(0);
    assert!(
        std::fs::metadata(mount.point.join(&beside)).unwrap().len() > 0,
        "there is something to take for one"
    );
    let listed = json(weft(&mount, &["splits", &data, "--json"]));
    for (number, table) in ["one", "two"].into_iter().enumerate() {
        let child = &listed[0]["children"][number];
        assert_eq!(
            (&child["partition"], &child["tie"]),
            (&path(table).into(), &"guess".into()),
            "{listed:#}"
        );
    }
    server.stop();
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
         (PARTITION p9 VALUES LESS THAN (100), PARTITION pmax VALUES LESS THAN MAXVALUE)",
    );
    let listed = json(weft(&mount, &["splits", shown, "--json"]));
    let tied = &listed[0]["children"][0];
    assert_eq!((&tied["partition"], &tied["tie"]), (&child.into(), &"declared".into()), "{listed:#}");
    let to = place.join("child");
    let (time, to_text) = (time_of(&before), to.to_str().unwrap());
    weft(&mount, &["restore", shown, "--at", &time, "--partition", child, "--to", to_text]).ok();
    let file = format!("{parent}.ibd");
    assert_eq!(std::fs::read(to.join(&file)).unwrap(), std::fs::read(before.join(&file)).unwrap());
    // Its past is in the file that had the parent's name then, and that one is not its own parent.
    let log = |partition: &str| weft(&mount, &["log", &format!("{shown}/{partition}.ibd")]).ok();
    let of_child = log(child);
    let (_, of_parent) = of_child.split_once(&format!("before that, part of {parent}:")).expect(&of_child);
    assert!(of_parent.contains("write") && !of_parent.contains("before that"), "{of_child}");
    assert!(!log(parent).contains("before that"), "{}", log(parent));

    // Several become one: its past is in all of them.
    let between = mount.at("now");
    let all = "shop/orders#P#pall";
    for parent in [child, parent] {
        weft(&mount, &["split", "declare", parent, shown, "--child", all]).ok();
    }
    server.sql("ALTER TABLE shop.orders REORGANIZE PARTITION p9, pmax INTO (PARTITION pall VALUES LESS THAN MAXVALUE)");
    let restore = |name: &str, view: &Path| {
        let (to, time) = (place.join(name), time_of(view));
        let arguments = ["restore", shown, "--at", &time, "--partition", all, "--to", to.to_str().unwrap()];
        let restored = json(weft(&mount, &[&arguments[..], &["--json"]].concat()));
        (to, restored)
    };
    let (to, restored) = restore("merged", &between);
    for parent in [child, parent] {
        let file = format!("{parent}.ibd");
        assert_eq!(std::fs::read(to.join(&file)).unwrap(), std::fs::read(between.join(&file)).unwrap());
    }
    assert_eq!(restored["notes"].as_array().unwrap().len(), 2, "{restored:#}");
    let of_all = log(all);
    for parent in [child, parent] {
        assert!(of_all.contains(&format!("before that, part of {parent}:")), "{of_all}");
    }
    // Before the first split there was one.
    let (to, _) = restore("before", &before);
    assert_eq!(std::fs::read(to.join(&file)).unwrap(), std::fs::read(before.join(&file)).unwrap());
    server.stop();
    mount.unmount();
}

#[test]
fn a_child_on_its_way_is_restored_with_its_parent_and_one_that_is_gone_is_not() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let point = mount.point.to_str().unwrap().to_owned();
    let write = |name: &str, byte| std::fs::write(mount.point.join(name), vec![byte; 1 << 20]).unwrap();
    write("heap", 7);
    let declare =
        || weft(&mount, &["split", "declare", "heap", &point, "--pages", "0-9", "--child", "rows"]).ok();
    declare();
    write("rows", 1);
    let coming = time_of(&mount.at("now"));
    // Until now they were in the parent, somebody says.
    declare();
    weft(&mount, &["split", "confirm", "1", "1", "rows", &point]).ok();
    write("rows", 2);
    let after = time_of(&mount.at("now"));
    std::fs::remove_file(mount.point.join("rows")).unwrap();
    let gone = time_of(&mount.at("now"));
    let restore = |which: &str, at: &str, to: &str| {
        let to = place.join(to);
        let arguments = ["restore", &point, "--at", at, which, "rows", "--to", to.to_str().unwrap()];
        (weft(&mount, &arguments), to)
    };
    let (told, to) = restore("--partition", &coming, "coming");
    let told = told.ok();
    assert!(told.contains("rows of rows were still in heap then (as it was declared)"), "{told}");
    let heap = std::fs::read(to.join("heap")).unwrap();
    assert!(heap[..80 << 10].iter().all(|byte| *byte == 7) && heap[80 << 10..].iter().all(|byte| *byte == 0));
    assert_eq!(std::fs::read(to.join("rows")).unwrap()[0], 1);
    // What has files can be left out.
    let (told, to) = restore("--except", &coming, "without");
    told.ok();
    assert!(to.join("heap").exists() && !to.join("rows").exists());
    let (told, to) = restore("--partition", &after, "after");
    let told = told.ok();
    assert!(
        told.contains("may have been in heap still") && told.contains("restore --partition heap too"),
        "{told}"
    );
    assert!(to.join("rows").exists() && !to.join("heap").exists());
    refused(restore("--partition", &gone, "gone").0, "(it had come out of heap before, and was gone again)");
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
