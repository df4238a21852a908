//! Partitions of real databases: found by path, named by the catalogue.

use serde_json::Value;
use std::time::{Duration, Instant};
use weft_e2e::{Capture, Mariadb, Mount, Place, Postgres, cmd};

/// `weft partitions --json`, the entry of a partition by what the catalogue calls it.
fn named<'a>(all: &'a Value, name: &str) -> &'a Value {
    let list = all["partitions"].as_array().expect("a list");
    list.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {all:#}"))
}

/// `weft partitions DATA ARGS`.
fn weft(mount: &Mount, args: &[&str]) -> cmd::Output {
    cmd::run(mount.weft().arg("partitions").arg(&mount.point).args(args))
}

fn bytes(one: &Value, key: &str) -> u64 {
    one[key].as_u64().unwrap_or_else(|| panic!("{key} of {one}"))
}

#[test]
fn postgres_relations_have_sizes_history_and_names() {
    let place = Place::new();
    let data = place.dir_for("postgres", "data");
    let mount = Mount::over(&data).capture(Capture::Strict).mount();
    let server = Postgres::new(&place, "live", &mount.point).set("autovacuum=off");
    server.initdb();
    server.start();
    server.sql("CREATE DATABASE shop");
    let mut shop = server.connect("shop");
    shop.batch_execute(
        "CREATE TABLE orders (id bigint, note text) PARTITION BY RANGE (id);
         CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (1000000);
         INSERT INTO orders SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i;
         CHECKPOINT; UPDATE orders SET note = 'y' WHERE id < 5000; CHECKPOINT;",
    )
    .unwrap();
    // History is told as far as the index has it: an instant is resolved when it has all up to there.
    mount.at("now");
    let conninfo = format!("host={} user=postgres dbname=postgres", server.socket.display());
    let told = weft(&mount, &["--json", "--pg", &conninfo]).ok();
    let all: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(all["profile"], "postgres");
    let one = named(&all, "shop.public.orders_1");
    let path: String = shop.query_one("SELECT pg_relation_filepath('orders_1')", &[]).unwrap().get(0);
    assert_eq!(one["partition"], path);
    assert_eq!(one["parent"], "shop.public.orders");
    assert!(one["bound"].as_str().unwrap().contains("FROM ('0') TO ('1000000')"), "{one}");
    let size = "SELECT pg_relation_size('orders_1', 'main') + pg_relation_size('orders_1', 'fsm')
                     + pg_relation_size('orders_1', 'vm')";
    let size: i64 = shop.query_one(size, &[]).unwrap().get(0);
    assert_eq!(bytes(one, "size_bytes"), size as u64, "{one}");
    assert!(bytes(one, "history_bytes") > bytes(one, "size_bytes"), "what was overwritten counts: {one}");
    let wal = all["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["partition"] == "pg_wal")
        .expect("the WAL");
    assert!(bytes(wal, "files") >= 1 && bytes(wal, "history_bytes") > 1 << 20, "{wal}");
    let refused = weft(&mount, &["--pg", "host=/nowhere user=postgres"]);
    assert!(refused.code == 1 && refused.stderr.contains("connecting"), "{}", refused.stderr);
    server.stop();
    mount.unmount();
}

#[test]
fn mariadb_partitions_have_sizes_history_and_names() {
    let place = Place::new();
    let data = place.dir_for("mysql", "data");
    let mount = Mount::over(&data).capture(Capture::Strict).mount();
    let server = Mariadb::new(&place, "live", &mount.point);
    server.install();
    server.start();
    server.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, note CHAR(200)) PARTITION BY RANGE (id)
         (PARTITION p0 VALUES LESS THAN (1000), PARTITION p1 VALUES LESS THAN MAXVALUE);
         INSERT INTO shop.orders VALUES (1, 'x'), (2000, 'y');",
    );
    server.sql("FLUSH TABLES shop.orders FOR EXPORT; UNLOCK TABLES");
    let url = format!("mysql://root@localhost/?socket={}", server.socket().display());
    let until = Instant::now() + Duration::from_secs(20);
    // What was written is history at once, and counted as such when it is indexed.
    let all = loop {
        let told = weft(&mount, &["--json", "--mysql", &url]).ok();
        let all: Value = serde_json::from_str(&told).unwrap();
        if bytes(named(&all, "shop.orders p0"), "history_bytes") > 0 || Instant::now() > until {
            break all;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let one = named(&all, "shop.orders p0");
    assert_eq!(
        (&one["partition"], &one["bound"]),
        (&"shop/orders#P#p0".into(), &"VALUES LESS THAN (1000)".into())
    );
    assert!(bytes(one, "size_bytes") >= 64 << 10 && bytes(one, "history_bytes") > 0, "{one}");
    let table = weft(&mount, &[]).ok();
    assert!(table.contains("shop/orders#P#p1") && table.contains("ib_logfile"), "{table}");
    server.stop();
    mount.unmount();
}
