//! PostgreSQL in capture writeback on full disks: it is told, and nothing that it acknowledged is lost.

use std::time::{Duration, Instant};
use weft_e2e::bank::{self, Bank};
use weft_e2e::small::Small;
use weft_e2e::wall::Wall;
use weft_e2e::{Capture, Mount, Place, Postgres};

/// Transfers and a table that grows, until the disk is full; then room, and the server again.
fn nothing_acknowledged_is_lost(store_is_full: bool) {
    let place = Place::new();
    let (data, store) = (Small::new(&place, "d", "ext4", 600), Small::new(&place, "s", "ext4", 700));
    let cluster = data.dir.join("data");
    weft_e2e::cmd::run(
        std::process::Command::new("install").args(["-d", "-o", "postgres", "-m", "700"]).arg(&cluster),
    )
    .ok();
    // Weaving would make room while it is filled.
    std::fs::create_dir(store.dir.join("store")).unwrap();
    std::fs::write(store.dir.join("store/weft.toml"), "weave = false\n").unwrap();
    let mount = Mount::over(&cluster).store(&store.dir.join("store")).capture(Capture::Writeback).mount();
    let server = Postgres::new(&place, "live", &mount.point).set("max_wal_size=64MB");
    server.initdb();
    server.start();
    bank::open(&server);
    server.sql("CREATE TABLE growing (filler text)");
    let full = if store_is_full { &store } else { &data };
    let filler = full.fill(if store_is_full { 200 } else { 120 });
    let bank = Bank::start(&server, 3, 1);
    let refused = grow_until_refused(&server);
    std::thread::sleep(Duration::from_millis(500));
    let mut commits = bank.stop();
    assert!(commits.len() > 20, "only {} commits: this says little", commits.len());
    assert!(refused.contains("No space left") || refused.contains("closed"), "{refused}");
    let status = mount.status();
    assert!(!status["problems"].to_string().contains("no write is accepted"), "{status}");
    // As on ext4: a server that cannot write its WAL ends itself, and starts when there is room.
    std::fs::remove_file(filler).unwrap();
    let begun = Instant::now();
    while mount.status()["full"].as_bool().unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", mount.status());
        std::thread::sleep(Duration::from_millis(50));
    }
    server.kill_all();
    server.start();
    bank::check(&server, &commits, Wall::now());
    let again = Bank::start(&server, 2, 2);
    std::thread::sleep(Duration::from_millis(700));
    commits.extend(again.stop());
    server.amcheck();
    let at = Wall::now();
    server.stop();
    let past = weft_e2e::cluster::on_copy(&place, "past", &mount.at_wall(at));
    past.start();
    bank::check(&past, &commits, at);
    past.stop();
    mount.unmount();
    server.checksums();
    server.start();
    bank::check(&server, &commits, Wall::now());
}

/// What the server says when it can grow no more.
fn grow_until_refused(server: &Postgres) -> String {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(120), "no end of space");
        let rows = "INSERT INTO growing SELECT repeat(md5(i::text), 100) FROM generate_series(1, 4000) i";
        let done = server.try_connect("postgres").and_then(|mut client| client.batch_execute(rows));
        if let Err(cause) = done {
            let said = cause.as_db_error().map(|error| error.message().to_owned());
            return said.unwrap_or_else(|| format!("closed: {cause}"));
        }
    }
}

#[test]
fn postgres_on_a_full_store_loses_nothing() {
    nothing_acknowledged_is_lost(true);
}

#[test]
fn postgres_on_a_full_data_loses_nothing() {
    nothing_acknowledged_is_lost(false);
}
