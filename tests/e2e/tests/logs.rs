//! Logs of real servers, followed: a split is known before it has run, through restarts and kill -9; and what cannot be read
//! is told and harms nothing.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weft_e2e::{Mariadb, Mount, Place, Postgres, cmd};

const DEADLINE: Duration = Duration::from_secs(60);

fn configured(mount: Mount, text: &str) -> Mount {
    fs::create_dir(&mount.store).unwrap();
    fs::write(mount.store.join("weft.toml"), text).unwrap();
    mount.mount()
}

fn splits(mount: &Mount) -> Value {
    let text = cmd::run(mount.weft().arg("splits").arg(&mount.point).arg("--json")).ok();
    serde_json::from_str(&text).unwrap()
}

/// Waits until the mount says so.
#[track_caller]
fn until(what: &str, mount: &Mount, holds: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let status = mount.status();
        if holds(&status) {
            return status;
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "{what}: {:#} {}",
            status["logs"],
            status["log_catalogue_trouble"]
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn sum(status: &Value, key: &str) -> u64 {
    status["logs"].as_array().unwrap().iter().map(|log| log[key].as_u64().unwrap()).sum()
}

/// Waits for a shadow of all of a partition.
#[track_caller]
fn until_shadowed(mount: &Mount, partition: &str) {
    let begun = Instant::now();
    loop {
        let text = cmd::run(mount.weft().args(["shadow", "list"]).arg(&mount.point).arg("--json")).ok();
        let listed: Value = serde_json::from_str(&text).unwrap();
        let all = listed["shadows"].as_array().cloned().unwrap_or_default();
        let is_ready = |shadow: &&Value| {
            shadow["partition"].as_str() == Some(partition)
                && shadow["snapshots"].as_array().is_some_and(|made| !made.is_empty())
        };
        if all.iter().any(|shadow| is_ready(&shadow)) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "no shadow of {partition}: {listed:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Lines of the trace that a STORE keeps, of one kind and partition: their fields.
fn traced(mount: &Mount, kind: &str, partition: &str) -> Vec<Vec<String>> {
    let text = cmd::run(mount.weft().arg("--store").arg(&mount.store).args(["trace", "export"])).ok();
    let lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<String>>());
    lines.filter(|fields| fields.len() > 2 && fields[1] == partition && fields[2] == kind).collect()
}

/// Reads and writes of a partition by the statements that a trace counts.
fn queries(mount: &Mount, partition: &str) -> (u64, u64) {
    let lines = traced(mount, "query", partition);
    let sum = |field: usize| lines.iter().map(|line| line[field].parse::<u64>().unwrap()).sum();
    (sum(11), sum(4))
}

fn path_of(server: &Postgres, table: &str) -> String {
    let query = format!("SELECT pg_relation_filepath('{table}')");
    server.connect("postgres").query_one(&query, &[]).unwrap().get(0)
}

const TABLES: &str = "CREATE TABLE orders (id bigint, note text) PARTITION BY RANGE (id);
    CREATE TABLE orders_all PARTITION OF orders DEFAULT;
    INSERT INTO orders SELECT i, repeat('x', 700) FROM generate_series(1, 9000) i; CHECKPOINT";
/// The first half of a split, as an operator would do it.
const BEGIN: [&str; 4] = [
    "CREATE TABLE orders_old (LIKE orders_all)",
    "INSERT INTO orders_old SELECT * FROM orders_all WHERE id < 5000",
    "CREATE TABLE orders_new (LIKE orders_all)",
    "INSERT INTO orders_new SELECT * FROM orders_all WHERE id >= 5000",
];
const END: [&str; 3] = [
    "ALTER TABLE orders ATTACH PARTITION orders_old FOR VALUES FROM (MINVALUE) TO (5000)",
    "ALTER TABLE orders ATTACH PARTITION orders_new FOR VALUES FROM (5000) TO (MAXVALUE)",
    "DROP TABLE orders_all",
];

/// A server that logs such statements to such places, with [`TABLES`], and the mount beneath it and DATA: its catalogue is
/// asked, and its log followed by now.
fn logging(
    place: &Place,
    (statements, destination): (&str, &str),
    settings: &str,
) -> (Postgres, Mount, PathBuf) {
    let data = place.dir_for("postgres", "data");
    let server = Postgres::new(place, "live", &data)
        .set("autovacuum=off")
        .set(&format!("log_statement={statements}"))
        .set("logging_collector=on")
        .set(&format!("log_destination={destination}"));
    let conninfo = format!("host={} user=postgres dbname=postgres", server.socket.display());
    // Without any, those of the profile are followed: log/*.csv and its like, in DATA.
    let mount = configured(Mount::over(&data), &format!("log_catalogue = \"{conninfo}\"\n{settings}"));
    // At the mount nothing told that it would become a server of PostgreSQL's.
    server.initdb();
    server.start();
    server.sql(TABLES);
    until("the collector's file is found", &mount, |status| sum(status, "changes") >= 2);
    (server, mount, data)
}

#[test]
fn a_split_in_a_log_of_postgres_has_its_shadow_before_it_ends() {
    let place = Place::new();
    let (server, mount, data) = logging(&place, ("ddl", "csvlog,stderr"), "");
    let parent = path_of(&server, "orders_all");
    let before = mount.at("now");
    for statement in BEGIN {
        server.sql(statement);
    }
    server.sql("ALTER TABLE orders DETACH PARTITION orders_all");
    until_shadowed(&mount, &parent);
    assert_eq!(splits(&mount), Value::Array(vec![]), "so far nothing says that it is divided");

    // What is logged while no daemon is there is read by the next one, once.
    server.kill_all();
    mount.crash();
    server.start();
    for statement in END {
        server.sql(statement);
        // An operator types no faster; and names of files differ by the second.
        std::thread::sleep(Duration::from_millis(1_100));
        server.sql("SELECT pg_rotate_logfile()");
    }
    let status = until("both children are known", &mount, |status| sum(status, "splits") >= 2);
    assert!(status["log_catalogue_trouble"].is_null(), "{status:#}");
    let listed = splits(&mount);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed:#}");
    assert_eq!(
        (&listed[0]["how"], &listed[0]["parent"]),
        (&"ddl".into(), &parent.clone().into()),
        "{listed:#}"
    );
    for (number, child) in ["orders_old", "orders_new"].into_iter().enumerate() {
        let told = &listed[0]["children"][number];
        // Two statements that only stand close together: whose its files are is known, out of what they came is not.
        assert_eq!((&told["name"], &told["tie"]), (&child.into(), &"guess".into()), "{listed:#}");
        assert_eq!(told["partition"].as_str(), Some(&*path_of(&server, child)), "{listed:#}");
    }
    // The child's past is its parent's.
    let (to, child) = (place.join("child"), path_of(&server, "orders_new"));
    let time = before.file_name().unwrap().to_str().unwrap().trim_start_matches("@ts=").to_owned();
    let arguments = ["restore", data.to_str().unwrap(), "--at", &time, "--partition", &child, "--to"];
    cmd::run(mount.weft().args(arguments).arg(&to)).ok();
    assert_eq!(fs::read(to.join(&parent)).unwrap(), fs::read(before.join(&parent)).unwrap());
    server.stop();
    mount.unmount();
    // However many children: it was divided once. (That it was detached was told in the tick that the crash took.)
    assert_eq!(traced(&mount, "split", &parent).len(), 1);
}

/// What was told of a child with its declaration is not lost when the log tells of it too.
#[test]
fn a_declared_child_that_a_log_names_keeps_its_pages() {
    let place = Place::new();
    let (server, mount, data) = logging(&place, ("ddl", "csvlog"), "");
    let (parent, data) = (path_of(&server, "orders_all"), data.to_str().unwrap().to_owned());
    // Else the first who reads the rows says on each page that their transaction has ended.
    server.sql("VACUUM FREEZE orders_all");
    server.sql("CHECKPOINT");
    let before = mount.at("now");
    let conninfo = format!("host={} user=postgres dbname=postgres", server.socket.display());
    let declare = ["split", "declare", "orders_all", &data, "--pg", &conninfo, "--where", "id >= 8500"];
    cmd::run(mount.weft().args(declare).args(["--child", "public.orders_new"])).ok();
    let changes = sum(&mount.status(), "changes");
    for statement in [
        "CREATE TABLE orders_new (LIKE orders_all)",
        "INSERT INTO orders_new SELECT * FROM orders_all WHERE id >= 8500",
        "ALTER TABLE orders DETACH PARTITION orders_all",
        "ALTER TABLE orders ATTACH PARTITION orders_new FOR VALUES FROM (8500) TO (MAXVALUE)",
    ] {
        server.sql(statement);
    }
    until("all statements are read", &mount, |status| sum(status, "changes") >= changes + 3);
    let child = path_of(&server, "orders_new");
    let begun = Instant::now();
    let tied = loop {
        let listed = splits(&mount);
        if listed[0]["children"][0]["tie"] == "catalogue" {
            break listed;
        }
        assert!(begun.elapsed() < DEADLINE, "{listed:#}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!((tied.as_array().unwrap().len(), &tied[0]["how"]), (1, &"declared".into()), "{tied:#}");
    assert_eq!(tied[0]["children"][0]["partition"].as_str(), Some(&*child), "{tied:#}");
    let time = before.file_name().unwrap().to_str().unwrap().trim_start_matches("@ts=").to_owned();
    let to = place.join("child");
    let arguments = ["restore", &data, "--at", &time, "--partition", &child, "--json", "--to"];
    let told = cmd::run(mount.weft().args(arguments).arg(&to)).ok();
    let told: Value = serde_json::from_str(&told).unwrap();
    let (read, all) =
        (told["read_bytes"].as_u64().unwrap(), fs::metadata(before.join(&parent)).unwrap().len());
    assert!(read as f64 <= 0.15 * all as f64, "{read} of {all}: {told:#}");
    server.stop();
    mount.unmount();
}

/// As a monthly job does it: the oldest goes, a new one comes. And another table of the same name.
#[test]
fn what_joins_a_table_that_something_left_did_not_come_out_of_it() {
    let place = Place::new();
    let (server, mount, _) = logging(&place, ("ddl", "csvlog"), "");
    let (parent, before) = (path_of(&server, "orders_all"), sum(&mount.status(), "changes"));
    for statement in [
        "ALTER TABLE orders DETACH PARTITION orders_all",
        "CREATE TABLE orders_new (LIKE orders_all)",
        "ALTER TABLE public.orders ATTACH PARTITION orders_new FOR VALUES FROM (20000) TO (30000)",
        "CREATE SCHEMA store",
        "CREATE TABLE store.orders (id bigint, note text) PARTITION BY RANGE (id)",
        "CREATE TABLE store.filled (id bigint, note text)",
        "INSERT INTO store.filled SELECT i, 'x' FROM generate_series(1, 1000) i",
        "ALTER TABLE public.orders ATTACH PARTITION orders_all DEFAULT",
        "ALTER TABLE public.orders DETACH PARTITION orders_all",
        "ALTER TABLE store.orders ATTACH PARTITION store.filled DEFAULT",
    ] {
        server.sql(statement);
        // The catalogue is asked again meanwhile: what nobody knows yet might be a part.
        std::thread::sleep(Duration::from_millis(1_100));
    }
    // All but the schema and the rows.
    let status = until("all statements are known", &mount, |status| sum(status, "changes") >= before + 8);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(splits(&mount), Value::Array(vec![]), "{:#}", status["logs"]);
    server.stop();
    mount.unmount();
    assert_eq!(traced(&mount, "split", &parent).len(), 0);
}

/// Two that left may have been merged into the one that joins, or either divided.
#[test]
fn what_joins_after_several_left_may_have_come_out_of_each_until_a_person_says_no() {
    let place = Place::new();
    let (server, mount, _) = logging(&place, ("ddl", "csvlog"), "");
    server.sql("CREATE TABLE orders_more PARTITION OF orders FOR VALUES FROM (20000) TO (30000)");
    server.sql("INSERT INTO orders SELECT i, 'x' FROM generate_series(20000, 21000) i");
    let parents = ["orders_all", "orders_more"].map(|name| path_of(&server, name));
    for statement in [
        "ALTER TABLE orders DETACH PARTITION orders_all",
        "ALTER TABLE orders DETACH PARTITION orders_more",
        "CREATE TABLE orders_both AS SELECT * FROM orders_all UNION ALL SELECT * FROM orders_more",
        "ALTER TABLE orders ATTACH PARTITION orders_both DEFAULT",
    ] {
        server.sql(statement);
        std::thread::sleep(Duration::from_millis(1_100));
    }
    let both = path_of(&server, "orders_both");
    until("both are divided", &mount, |status| sum(status, "splits") >= 2);
    let told = |listed: &Value| -> Vec<(String, String, bool)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = listed.as_array().unwrap().iter();
        let all = all.map(|split| (text(&split["parent"]), &split["children"][0]));
        let all = all.map(|(parent, child)| {
            let files = format!("{} {}", text(&child["partition"]), text(&child["tie"]));
            (parent, files, child["forgotten"] == true)
        });
        all.collect()
    };
    let listed = splits(&mount);
    let guess = format!("{both} guess");
    let mut expected = parents.map(|parent| (parent, guess.clone(), false)).to_vec();
    expected.sort();
    let mut found = told(&listed);
    found.sort();
    assert_eq!(found, expected, "{listed:#}");
    // One of both is wrong; that stays so after a restart.
    let number = format!("{}.1", listed[0]["split"]);
    let ended = cmd::run(mount.weft().args(["split", "forget", &number, "--json"]).arg(&mount.point)).ok();
    assert!(ended.contains("\"forgotten\": true"), "{ended}");
    let log = || cmd::run(mount.weft().args(["log", "--limit", "0"]).arg(mount.point.join(&both))).ok();
    let (gone, stays) = (told(&listed)[0].0.clone(), told(&listed)[1].0.clone());
    let is_named = |log: &str, parent: &str| log.contains(&format!("part of {parent} (a guess"));
    let first = log();
    assert!(is_named(&first, &stays) && !is_named(&first, &gone), "{first}");
    server.stop();
    mount.unmount();
    mount.remount();
    assert_eq!(told(&splits(&mount)).iter().map(|one| one.2).collect::<Vec<_>>(), [true, false]);
    let table = cmd::run(mount.weft().arg("splits").arg(&mount.point)).ok();
    assert!(table.contains(&format!("forgotten: not {both}")), "{table}");
    for (number, why) in [("99", "no split 99"), ("1.9", "no child 9"), ("x", "is no split")] {
        let refused = cmd::run(mount.weft().args(["split", "forget", number]).arg(&mount.point));
        assert!(refused.code != 0 && refused.stderr.contains(why), "{refused:?}");
    }
    mount.unmount();
}

#[test]
fn a_reorganisation_in_a_log_of_mariadb_has_its_shadow_before_it_ends() {
    let place = Place::new();
    let data = place.dir_for("mysql", "data");
    let general = place.dir_for("mysql", "logs").join("general.log");
    let text = format!("log = [{{ path = \"{}\", format = \"mariadb-general\" }}]\n", general.display());
    let mount = configured(Mount::over(&data), &text);
    let server = Mariadb::new(&place, "live", &data);
    server.install();
    server.start();
    server
        .sql(&format!("SET GLOBAL general_log_file = '{}'; SET GLOBAL general_log = ON", general.display()));
    server.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, note CHAR(200)) PARTITION BY RANGE (id)
         (PARTITION pmax VALUES LESS THAN MAXVALUE);
         USE shop; CREATE TABLE p9 (id INT); INSERT INTO orders SELECT seq, 'x' FROM seq_1_to_300000;
         FLUSH TABLES shop.orders FOR EXPORT; UNLOCK TABLES",
    );
    until("the log is read", &mount, |status| sum(status, "statements") >= 5);
    // Its shadow is made while the server copies 300,000 rows. The log does not say which database a statement without one
    // is for: one alone has such a partition.
    server.sql(
        "USE shop; ALTER TABLE orders REORGANIZE PARTITION pmax INTO
         (PARTITION p9 VALUES LESS THAN (100), PARTITION px VALUES LESS THAN MAXVALUE)",
    );
    until("the split is known", &mount, |status| sum(status, "splits") >= 2);
    // Made from the parent's files, which are gone when the statement has ended.
    assert!(!mount.point.join("shop/orders#P#pmax.ibd").exists());
    until_shadowed(&mount, "shop/orders#P#pmax");
    let listed = splits(&mount);
    assert_eq!(
        (&listed[0]["how"], &listed[0]["parent"]),
        (&"ddl".into(), &"shop/orders#P#pmax".into()),
        "{listed:#}"
    );
    // The table that is called as one of them is none.
    for (number, child) in ["shop/orders#P#p9", "shop/orders#P#px"].into_iter().enumerate() {
        assert_eq!(listed[0]["children"][number]["partition"].as_str(), Some(child), "{listed:#}");
    }
    server.sql("SELECT COUNT(*) FROM shop.orders PARTITION (px, p9)");
    until("a part is read by its name", &mount, |status| sum(status, "queries") >= 2);
    // Put together again, under a name that one of them had: its files of now came of both.
    server.sql(
        "USE shop; ALTER TABLE orders REORGANIZE PARTITION p9, px INTO (PARTITION px VALUES LESS THAN MAXVALUE)",
    );
    until("the merge is known", &mount, |status| sum(status, "splits") >= 4);
    let listed = splits(&mount);
    let merged =
        listed.as_array().unwrap().iter().filter(|split| split["children"].as_array().unwrap().len() == 1);
    let merged: Vec<&Value> = merged.collect();
    assert_eq!(merged.len(), 2, "{listed:#}");
    for split in merged {
        assert_eq!(split["children"][0]["partition"].as_str(), Some("shop/orders#P#px"), "{listed:#}");
    }
    let px = mount.point.join("shop/orders#P#px.ibd");
    let log = cmd::run(mount.weft().args(["log", "--limit", "0"]).arg(px)).ok();
    for part in ["part of shop/orders#P#p9:", "part of shop/orders#P#px:"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    server.stop();
    mount.unmount();
    assert_eq!(traced(&mount, "split", "shop/orders#P#pmax").len(), 1);
    assert_eq!(queries(&mount, "shop/orders#P#px"), (1, 0));
}

/// As after a week in which the server ran without a mount: the log says when it was.
#[test]
fn a_split_of_long_ago_is_noted_and_nothing_is_made_ready_for_it() {
    let place = Place::new();
    let log = place.join("slow.log");
    let text = format!(
        "profile = \"mariadb\"\nforecast_tick_secs = 1\nlog = [{{ path = \"{}\", format = \"mariadb-slow\" }}]\n",
        log.display()
    );
    let mount = configured(Mount::new(&place), &text);
    fs::create_dir(mount.point.join("shop")).unwrap();
    for table in ["old", "new"] {
        fs::write(mount.point.join(format!("shop/{table}#P#pmax.ibd")), vec![7; 64 << 10]).unwrap();
    }
    // The first look takes what is there for what was there before.
    std::thread::sleep(Duration::from_millis(500));
    let say = |table: &str, secs: u64, into: &str| {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let block = format!(
            "# Thread_id: 5  Schema: shop  QC_hit: No\nSET timestamp={secs};\nALTER TABLE {table} {into};\n"
        );
        std::io::Write::write_all(&mut file, block.as_bytes()).unwrap();
    };
    let into = "REORGANIZE PARTITION pmax INTO (PARTITION p9 VALUES LESS THAN (9), PARTITION px VALUES LESS THAN (99))";
    say("old", 1_700_000_000, into);
    until("it is noted", &mount, |status| sum(status, "splits") == 2);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    say("new", now.as_secs(), into);
    until_shadowed(&mount, "shop/new#P#pmax");
    let listed = splits(&mount);
    let declared = listed[0]["declared"].as_str().unwrap();
    assert_eq!((listed[0]["parent"].as_str(), &declared[..13]), (Some("shop/old#P#pmax"), "2023-11-14T22"));
    assert_eq!(listed[0]["children"][0]["ready"], false, "{listed:#}");
    assert_eq!(listed[1]["children"][0]["ready"], true, "{listed:#}");
    mount.unmount();
    assert_eq!(traced(&mount, "split", "shop/new#P#pmax").len(), 1);
    assert_eq!(traced(&mount, "split", "shop/old#P#pmax").len(), 0);
}

#[test]
fn what_statements_read_and_write_reaches_the_forecast_and_the_trace() {
    let place = Place::new();
    let forecast = "forecast_tick_secs = 1\nforecast_step_secs = 1\n";
    let (server, mount, _) = logging(&place, ("all", "csvlog"), forecast);
    // The catalogue is asked when something changes.
    server.sql("CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (100000) TO (100001)");
    let path = path_of(&server, "orders_all");
    let before = sum(&mount.status(), "queries");
    for n in 0..20 {
        server.sql(&format!("INSERT INTO orders_all VALUES ({n}, 'x')"));
        server.sql("SELECT count(*) FROM orders_all a JOIN orders_all b USING (id), generate_series(1, 2)");
        server.sql(&format!("UPDATE public.orders_all SET note = 'FROM nowhere' WHERE id = {n}"));
    }
    until("statements are counted", &mount, |status| sum(status, "queries") >= before + 60);
    let why = || {
        let why = mount.weft().arg("forecast").arg(&mount.point).args(["--why", &path, "--json"]).output();
        let why: Value = serde_json::from_slice(&why.unwrap().stdout).unwrap();
        let features = why["features"].as_array().cloned().unwrap_or_default();
        features.iter().any(|pair| pair[0] == "query_writes" && pair[1].as_f64() > Some(1.0))
    };
    until("the forecast knows", &mount, |_| why());
    server.stop();
    mount.unmount();
    assert_eq!(queries(&mount, &path), (20, 40));
}

/// Reads that the server's cache answers are known by its own statistics alone.
#[test]
fn statistics_of_postgres_tell_what_is_read() {
    let place = Place::new();
    let data = place.dir_for("postgres", "data");
    let server = Postgres::new(&place, "live", &data).set("autovacuum=off");
    let conninfo = format!("host={} user=postgres dbname=postgres", server.socket.display());
    let fast = place.dir_for("postgres", "fast");
    let mount = configured(
        Mount::over(&data).root("ts", &fast),
        &format!("pg_stat = \"{conninfo}\"\nforecast_tick_secs = 1\n"),
    );
    let told = |mount: &Mount| mount.status()["pg_stat"].clone();
    until("that nobody answers is told", &mount, |status| status["pg_stat"]["trouble"].is_string());
    let table = cmd::run(mount.weft().arg("status").arg(&mount.point)).ok();
    assert!(table.contains("pg_stat does not answer: PostgreSQL, connecting"), "{table}");
    server.initdb();
    server.start();
    server.sql("CREATE TABLE read_often (id int); INSERT INTO read_often SELECT generate_series(1, 1000)");
    until("the table is known", &mount, |status| status["pg_stat"]["tables"] == 1);
    let before = told(&mount);
    let mut client = server.connect("postgres");
    for _ in 0..50 {
        client.batch_execute("SELECT count(*) FROM read_often").unwrap();
    }
    client.batch_execute("UPDATE read_often SET id = id + 1").unwrap();
    drop(client);
    let of = |told: &Value, key: &str| told[key].as_u64().unwrap();
    until("what was read and written is known", &mount, |status| {
        let now = &status["pg_stat"];
        of(now, "reads") >= of(&before, "reads") + 50 && of(now, "writes") >= of(&before, "writes") + 1_000
    });
    assert!(told(&mount)["trouble"].is_null());
    // Other files, but the same table: what was counted so far is not told again.
    let before = told(&mount);
    server.sql("TRUNCATE read_often");
    server.sql("VACUUM FULL read_often");
    server.sql("SELECT count(*) FROM read_often");
    until("the table is read on", &mount, |status| of(&status["pg_stat"], "reads") > of(&before, "reads"));
    assert_eq!(of(&told(&mount), "writes"), of(&before, "writes"));
    // What the server finds behind a link is a root of its own.
    server
        .connect("postgres")
        .batch_execute(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()))
        .unwrap();
    server.sql("CREATE TABLE elsewhere (id int) TABLESPACE fast; INSERT INTO elsewhere SELECT generate_series(1, 500)");
    let path = path_of(&server, "elsewhere");
    until("rows are counted", &mount, |status| {
        of(&status["pg_stat"], "writes") >= of(&before, "writes") + 500
    });
    server.stop();
    mount.unmount();
    let below = &path[path.find("PG_").unwrap()..];
    assert_eq!(queries(&mount, &format!("ts:{below}")).1, 500);
    assert_eq!(queries(&mount, &path), (0, 0), "as the server calls it there is no partition");
}

/// Held open through the mount, a log would keep it busy for ever.
#[test]
fn a_log_in_a_root_is_followed_by_any_path_and_keeps_no_mount_busy() {
    let place = Place::new();
    let names = ["data", "further", "links", "elsewhere"];
    let [data, further, links, elsewhere] = names.map(|name| place.join(name));
    [&data, &further, &links, &elsewhere].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    symlink(&data, links.join("data")).unwrap();
    symlink("../further", links.join("further")).unwrap();
    // As `log_directory` may be: a link out of DATA, or from there into another root.
    symlink(&elsewhere, data.join("log")).unwrap();
    symlink("../links/further", data.join("logs")).unwrap();
    let paths = [further.join("a.log"), links.join("further/b.log"), links.join("data/c.log")];
    let paths = paths.into_iter().chain([PathBuf::from("log/d.log"), PathBuf::from("logs/e.log")]);
    let paths: Vec<PathBuf> = paths.collect();
    let logs =
        paths.iter().map(|path| format!("{{ path = \"{}\", format = \"pg-stderr\" }}", path.display()));
    let logs: Vec<String> = logs.collect();
    let settings = format!("forecast_tick_secs = 1\nlog = [{}]\n", logs.join(", "));
    let mount = configured(Mount::over(&data).root("further", &further), &settings);
    // Whatever is there at the first look was there before.
    std::thread::sleep(Duration::from_millis(500));
    for path in &paths {
        fs::write(data.join(path), "LOG:  statement: DROP TABLE a\nLOG:  no statement\n").unwrap();
    }
    until("all are followed", &mount, |status| (0..5).all(|log| status["logs"][log]["changes"] == 1));
    // They are looked at again and again, which is no work of a database's.
    std::thread::sleep(Duration::from_secs(2));
    mount.unmount();
    for partition in ["further:a.log", "further:b.log", "c.log"] {
        let ticks = traced(&mount, "tick", partition);
        assert!(!ticks.is_empty() && ticks.iter().all(|fields| fields[11] == "0"), "{partition}: {ticks:?}");
    }
}

/// A catalogue that takes its time is not asked again at once: what comes meanwhile waits.
#[test]
fn what_waits_for_the_catalogue_is_read_again_after_a_crash_and_after_an_unmount() {
    let place = Place::new();
    let log = place.join("pg.log");
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in server.incoming() {
            std::thread::sleep(Duration::from_secs(5));
            drop(client);
        }
    });
    let mount = configured(
        Mount::new(&place),
        &format!(
            "log_catalogue = \"host=127.0.0.1 port={port} user=nobody\"\nlog = [{{ path = \"{}\", format = \"pg-stderr\" }}]\n",
            log.display()
        ),
    );
    let say = |child: &str| {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let line = format!("LOG:  statement: ALTER TABLE t DETACH PARTITION {child}\nLOG:  end\n");
        std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
    };
    // The first look takes what is there for what was there before.
    std::thread::sleep(Duration::from_millis(500));
    say("a");
    until("it is asked in vain", &mount, |status| sum(status, "unknown") == 1);
    say("b");
    until("the next waits", &mount, |status| sum(status, "changes") == 2);
    // Places are written once a second.
    std::thread::sleep(Duration::from_millis(1_500));
    mount.crash();
    until("it is read again, and asked for", &mount, |status| sum(status, "unknown") >= 1);
    say("c");
    until("another waits", &mount, |status| sum(status, "changes") >= 2);
    mount.unmount();
    mount.remount();
    until("it is read again", &mount, |status| sum(status, "changes") >= 1);
    mount.unmount();
}

#[test]
fn what_is_no_log_is_told_and_harms_nothing() {
    let place = Place::new();
    let outside = place.join("outside");
    fs::create_dir(&outside).unwrap();
    let mount = configured(
        Mount::new(&place),
        &format!(
            "log = [{{ path = \"{0}/pg.csv\", format = \"pg-csv\" }}, {{ path = \"/no/such/dir/log\", format = \"pg-json\" }},
             {{ path = \"own.log\", format = \"pg-stderr\" }}]\n",
            outside.display()
        ),
    );
    let log = outside.join("pg.csv");
    let rubbish: Vec<u8> =
        (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    until("what is missing is told", &mount, |status| status["logs"][1]["trouble"].is_string());
    fs::write(&log, &rubbish).unwrap();
    fs::write(mount.point.join("own.log"), "LOG:  statement: DROP TABLE a\nLOG:  no statement\n").unwrap();
    let status = until("rubbish is skipped", &mount, |status| {
        status["logs"][0]["skipped"].as_u64() > Some(0) && status["logs"][2]["changes"] == 1
    });
    assert!(status["logs"][0]["trouble"].is_null(), "{:#}", status["logs"]);
    // Unreadable is rubbish of another kind; and a directory in a log's place.
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    fs::remove_file(mount.point.join("own.log")).unwrap();
    until("the lost one is let go", &mount, |status| status["logs"][2]["files"] == 0);
    let table = cmd::run(mount.weft().arg("status").arg(&mount.point)).ok();
    assert!(table.contains("CANNOT BE READ") && table.contains("/no/such/dir/log"), "{table}");
    let then = mount.at("now");
    fs::write(mount.point.join("file"), b"as ever").unwrap();
    assert!(!then.join("file").exists() && mount.point.join("file").exists());
    mount.unmount();
}

#[test]
fn settings_that_name_no_log_are_refused_at_the_mount() {
    let place = Place::new();
    let mount = Mount::new(&place);
    fs::create_dir(&mount.store).unwrap();
    let store: PathBuf = mount.store.clone();
    let with = |text: &str| fs::write(Path::new(&store).join("weft.toml"), text).unwrap();
    for (text, why) in [
        ("log = [{ path = \"log/x\", format = \"oracle\" }]\n", "pg-csv"),
        ("log = [{ path = \"../x\", format = \"pg-csv\" }]\n", "goes up"),
        ("log = [{ path = \"x\" }]\n", "format"),
    ] {
        with(text);
        let refused = mount.try_mount();
        assert!(refused.code != 0 && refused.stderr.contains(why), "{text}: {refused:?}");
    }
}
