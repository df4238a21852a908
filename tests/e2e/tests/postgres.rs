//! PostgreSQL, unmodified, on Weft; and its past, started from copies of views.

use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_e2e::bank::{self, Bank, Commit};
use weft_e2e::cluster::on_copy;
use weft_e2e::random::count;
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::wall::Wall;
use weft_e2e::{Capture, Mount, Place, Postgres, cmd};

/// An empty directory of the user postgres, mounted.
fn mounted(place: &Place, capture: Capture) -> Mount {
    let data = place.dir_for("postgres", "data");
    Mount::over(&data).capture(capture).mount()
}

/// A new cluster on the mount, running.
fn cluster(place: &Place, mount: &Mount, fsync: &str) -> Postgres {
    let server = Postgres::new(place, "live", &mount.point).set(&format!("fsync={fsync}"));
    server.initdb();
    server.start();
    server
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Transfers between accounts, instants in between; each copy of an instant is the database of that instant.
fn every_commit_is_in_the_views_it_belongs_to(capture: Capture, fsync: &str) {
    let place = Place::new();
    let mount = mounted(&place, capture);
    let server = cluster(&place, &mount, fsync);
    bank::open(&server);
    let bank = Bank::start(&server, 4, 1);
    let mut instants = Vec::new();
    for _ in 0..count("WEFT_E2E_INSTANTS", 3) {
        pause(1_200);
        instants.push(Wall::now());
        pause(300);
        server.sql("CHECKPOINT");
    }
    let commits = bank.stop();
    assert!(commits.len() > 100, "only {} commits: this says little", commits.len());
    for (number, at) in instants.iter().enumerate() {
        let name = format!("copy{number}");
        check_instant(&place, &name, &mount.at_wall(*at), &commits, *at);
    }
    server.amcheck();
    bank::check_sum(&server);
    server.stop();
    mount.unmount();
    server.checksums();
    server.start();
    bank::check(&server, &commits, Wall::now());
}

/// The copy starts, is sound, and holds exactly what it must.
#[track_caller]
fn check_instant(place: &Place, name: &str, view: &Path, commits: &[Commit], at: Wall) {
    let copy = on_copy(place, name, view);
    copy.start();
    bank::check(&copy, commits, at);
    copy.amcheck();
    copy.stop();
    copy.checksums();
    std::fs::remove_dir_all(&copy.dir).unwrap();
}

#[test]
fn bank_in_views_strict() {
    every_commit_is_in_the_views_it_belongs_to(Capture::Strict, "on");
}

#[test]
fn bank_in_views_writeback() {
    every_commit_is_in_the_views_it_belongs_to(Capture::Writeback, "on");
}

#[test]
fn bank_in_views_strict_without_fsync() {
    every_commit_is_in_the_views_it_belongs_to(Capture::Strict, "off");
}

/// What destroys or replaces whole files between T and now must not reach the view of T.
#[test]
fn tables_dropped_truncated_and_rewritten_are_all_in_the_view() {
    let place = Place::new();
    let mount = mounted(&place, Capture::Strict);
    let server = cluster(&place, &mount, "on");
    let tables = ["dropped", "truncated", "vacuumed", "updated", "reindexed"];
    for table in tables {
        server.sql(&format!(
            "CREATE TABLE {table} AS SELECT i AS id, md5(i::text) AS text FROM generate_series(1, 30000) i;
             CREATE INDEX ON {table} (id); DELETE FROM {table} WHERE id % 3 = 0;"
        ));
    }
    let sums: Vec<i64> = tables.iter().map(|table| checksum(&server, table)).collect();
    pause(50);
    let at = Wall::now();
    pause(50);
    server.sql("DROP TABLE dropped");
    server.sql("TRUNCATE truncated");
    server.sql("VACUUM FULL vacuumed");
    server.sql("UPDATE updated SET text = 'gone'");
    server.sql("REINDEX TABLE reindexed");
    server.sql("CREATE DATABASE later");
    recycle_wal(&server);
    let late = Wall::now();

    let copy = on_copy(&place, "before", &mount.at_wall(at));
    copy.start();
    for (table, sum) in tables.iter().zip(&sums) {
        assert_eq!(checksum(&copy, table), *sum, "table {table} in the past");
    }
    assert_eq!(copy.number("SELECT count(*) FROM pg_database WHERE datname = 'later'"), 0);
    copy.amcheck();
    let after = on_copy(&place, "after", &mount.at_wall(late));
    after.start();
    assert_eq!(after.number("SELECT count(*) FROM pg_class WHERE relname = 'dropped'"), 0);
    assert_eq!(after.number("SELECT count(*) FROM truncated"), 0);
    assert_eq!(after.number("SELECT count(*) FROM pg_database WHERE datname = 'later'"), 1);
    after.connect("later").batch_execute("SELECT 1").unwrap();
    after.amcheck();
}

fn checksum(server: &Postgres, table: &str) -> i64 {
    server.number(&format!("SELECT sum(hashtext(id || text))::bigint FROM {table}"))
}

/// Fills and switches WAL segments until old ones have been renamed to be used again.
fn recycle_wal(server: &Postgres) {
    for _ in 0..4 {
        server.sql("SELECT pg_switch_wal(); CREATE TABLE filler AS SELECT repeat('w', 400) FROM generate_series(1, 20000); DROP TABLE filler");
        server.sql("CHECKPOINT");
    }
}

/// A cluster that was there before Weft: mounted over, half of it overwritten, given back, mounted again.
#[test]
fn an_existing_cluster_keeps_the_past_from_before_each_overwrite() {
    let place = Place::new();
    let data = place.dir_for("postgres", "data");
    let plain = Postgres::new(&place, "plain", &data);
    plain.initdb();
    plain.start();
    plain.sql("CREATE EXTENSION amcheck");
    plain.pgbench(&["-q", "-i", "-s", "4"]);
    plain.stop();
    let copy = place.join("cp");
    cmd::cp(&data, &copy);
    let original = scan(&copy);

    let mount = Mount::over(&data).mount();
    let before = mount.at("now");
    let server = Postgres::new(&place, "live", &mount.point);
    server.start();
    server.sql("UPDATE pgbench_accounts SET filler = 'overwritten' WHERE aid % 2 = 0; CHECKPOINT");
    let halfway = Wall::now();
    pause(20);
    server.sql("DROP TABLE pgbench_tellers; TRUNCATE pgbench_history; CHECKPOINT");
    recycle_wal(&server);
    assert_same("the view from before", &original, &scan(&before), What::All);

    let past = on_copy(&place, "halfway", &mount.at_wall(halfway));
    past.start();
    let overwritten = "SELECT count(*) FROM pgbench_accounts WHERE filler = 'overwritten'";
    assert_eq!(past.number(overwritten), 200_000);
    assert_eq!(past.number("SELECT count(*) FROM pgbench_tellers"), 40);
    past.amcheck();
    past.stop();

    server.stop();
    mount.unmount();
    server.checksums();
    mount.remount();
    assert_same("the view from before, mounted again", &original, &scan(&before), What::All);
    mount.unmount();
    // Without Weft for a while: what it writes is the newest state, and history goes on from there.
    server.start();
    assert_eq!(server.number(overwritten), 200_000);
    server.sql("CREATE TABLE without_weft AS SELECT 1 AS a; CHECKPOINT");
    server.amcheck();
    server.stop();
    mount.remount();
    server.start();
    assert_eq!(server.number("SELECT count(*) FROM without_weft"), 1);
    server.amcheck();
    server.stop();
}

/// kill -9 of the daemon under load, again and again: all that was acknowledged is there, the past stays.
fn acknowledged_commits_survive_kill9(capture: Capture, kills: usize) {
    let place = Place::new();
    let mount = mounted(&place, capture);
    let server = cluster(&place, &mount, "on");
    bank::open(&server);
    server.pgbench(&["-q", "-i", "-s", "2"]);
    let mut commits = Vec::new();
    let mut samples = vec![];
    for round in 0..kills {
        let bank = Bank::start(&server, 2, round as i32 + 1);
        let mut load = server.pgbench_spawn(&["-c", "2", "-T", "600"]);
        pause(1_500 + 370 * (round as u64 % 4));
        let view = mount.at("now");
        samples.push((sample(&view), view));
        pause(300);
        mount.kill9();
        commits.extend(bank.stop());
        server.kill_all();
        load.wait().unwrap();
        mount.remount();
        for (number, (expected, view)) in samples.iter().enumerate() {
            assert_same(&format!("kill {round}: view {number}"), expected, &sample(view), What::All);
        }
        server.start();
        bank::check(&server, &commits, Wall::now());
    }
    server.amcheck();
    for (number, (_, view)) in samples.iter().enumerate().take(2) {
        let copy = on_copy(&place, &format!("copy{number}"), view);
        copy.start();
        bank::check_sum(&copy);
        copy.amcheck();
        copy.stop();
    }
    server.stop();
    mount.unmount();
    server.checksums();
}

/// The view's tables, control file and WAL: a part that is quick to read.
fn sample(view: &Path) -> weft_e2e::Tree {
    let mut all = weft_e2e::Tree::new();
    for dir in ["global", "pg_wal", "pg_xact", "base/1"] {
        let below = scan(&view.join(dir));
        all.extend(below.into_iter().map(|(path, node)| (PathBuf::from(dir).join(path), node)));
    }
    all
}

#[test]
fn acknowledged_commits_survive_kill9_strict() {
    acknowledged_commits_survive_kill9(Capture::Strict, count("WEFT_E2E_KILLS", 3));
}

#[test]
fn acknowledged_commits_survive_kill9_writeback() {
    acknowledged_commits_survive_kill9(Capture::Writeback, count("WEFT_E2E_KILLS", 2));
}

/// The server may crash too, while Weft stays up.
#[test]
fn a_server_crash_recovers_on_the_mount() {
    let place = Place::new();
    let mount = mounted(&place, Capture::Strict);
    let server = cluster(&place, &mount, "on");
    bank::open(&server);
    let bank = Bank::start(&server, 4, 1);
    pause(1_000);
    server.try_stop("immediate");
    let commits = bank.stop();
    server.start();
    bank::check(&server, &commits, Wall::now());
    server.amcheck();
}
