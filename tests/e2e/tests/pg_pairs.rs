//! Two PostgreSQL clusters at once, each on a mount of its own: pg_basebackup from one onto the other, a hot standby, and
//! the past of both. And what a cluster does with files that are not ordinary tables.

use std::path::Path;
use std::time::{Duration, Instant};
use weft_e2e::bank::{self, Bank};
use weft_e2e::cluster::on_copy;
use weft_e2e::wall::Wall;
use weft_e2e::{Capture, Mount, Place, Postgres, cmd};

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Waits until the standby has replayed what the primary has written.
#[track_caller]
fn catch_up(primary: &Postgres, standby: &Postgres) {
    let position = |server: &Postgres, function: &str| {
        server.number(&format!("SELECT pg_wal_lsn_diff({function}(), '0/0')::bigint"))
    };
    let wanted = position(primary, "pg_current_wal_flush_lsn");
    let begun = Instant::now();
    while position(standby, "pg_last_wal_replay_lsn") < wanted {
        assert!(begun.elapsed() < Duration::from_secs(60), "no progress: {}", standby.log_tail());
        pause(50);
    }
}

#[track_caller]
fn base_backup(primary: &Postgres, to: &Path) {
    let mut command = primary.command("pg_basebackup");
    command.arg("-h").arg(&primary.socket).args(["-R", "-X", "stream", "-c", "fast", "-D"]).arg(to);
    cmd::run(&mut command).ok();
}

/// Primary strict with wal_sync_method=open_datasync, standby writeback.
#[test]
fn primary_and_hot_standby_both_on_weft() {
    let place = Place::new();
    let here = Mount::over(&place.dir_for("postgres", "primary")).mount();
    let there = Mount::over(&place.dir_for("postgres", "standby")).capture(Capture::Writeback).mount();
    let primary = Postgres::new(&place, "p", &here.point).set("wal_sync_method=open_datasync");
    primary.initdb();
    primary.start();
    bank::open(&primary);
    base_backup(&primary, &there.point);
    let standby = Postgres::new(&place, "s", &there.point);
    standby.start();
    let bank = Bank::start(&primary, 3, 1);
    pause(1_200);
    let at = Wall::now();
    pause(300);
    // Both at once, the standby's daemon with its server.
    there.kill9();
    standby.kill_all();
    pause(300);
    let commits = bank.stop();
    there.remount();
    standby.start();
    catch_up(&primary, &standby);
    bank::check(&standby, &commits, Wall::now());

    let past = on_copy(&place, "p0", &here.at_wall(at));
    past.start();
    bank::check(&past, &commits, at);
    past.amcheck();
    past.stop();
    // The standby's past, as a server of its own: behind the primary's, never torn.
    let past = on_copy(&place, "s0", &there.at_wall(at));
    std::fs::remove_file(past.dir.join("standby.signal")).unwrap();
    past.start();
    bank::check_sum(&past);
    past.amcheck();
    past.stop();

    // A base backup of the standby, from its mount onto a plain directory.
    let plain = place.dir_for("postgres", "plain");
    base_backup(&standby, &plain);
    let copy = Postgres::new(&place, "b", &plain);
    std::fs::remove_file(plain.join("standby.signal")).unwrap();
    copy.start();
    bank::check(&copy, &commits, Wall::now());
    copy.stop();
    standby.stop();
    primary.stop();
    for (mount, server) in [(&here, &primary), (&there, &standby)] {
        mount.unmount();
        server.checksums();
    }
}

/// pg_rewind: a primary that went its own way becomes a standby of the other again, on the mount.
#[test]
fn a_diverged_cluster_is_rewound_on_the_mount() {
    let place = Place::new();
    let here = Mount::over(&place.dir_for("postgres", "old")).mount();
    let there = place.dir_for("postgres", "new");
    let old = Postgres::new(&place, "o", &here.point).set("wal_keep_size=256MB");
    old.initdb();
    old.start();
    old.sql("CREATE TABLE t AS SELECT i FROM generate_series(1, 20000) i");
    base_backup(&old, &there);
    let new = Postgres::new(&place, "n", &there).set("wal_keep_size=256MB");
    new.start();
    catch_up(&old, &new);
    cmd::run(new.command("pg_ctl").args(["promote", "-w", "-D"]).arg(&new.dir)).ok();
    old.sql("INSERT INTO t SELECT 0 FROM generate_series(1, 50000)");
    new.sql("INSERT INTO t SELECT -1 FROM generate_series(1, 100); CHECKPOINT");
    let diverged = here.at("now");
    old.stop();
    let mut rewind = old.command("pg_rewind");
    rewind
        .arg("-D")
        .arg(&old.dir)
        .arg(format!("--source-server=host={} user=postgres dbname=postgres", new.socket.display()));
    cmd::run(&mut rewind).ok();
    old.start();
    assert_eq!(old.number("SELECT count(*) FROM t"), 20_100);
    old.amcheck();
    let past = on_copy(&place, "diverged", &diverged);
    past.start();
    assert_eq!(past.number("SELECT count(*) FROM t"), 70_000);
    past.stop();
    old.stop();
    new.stop();
    here.unmount();
}

/// Unlogged and temporary tables, and a table that moves between tablespaces inside of DATA.
#[test]
fn unlogged_temporary_and_moved_tables() {
    let place = Place::new();
    let mount = Mount::over(&place.dir_for("postgres", "data")).mount();
    let server = Postgres::new(&place, "live", &mount.point).set("allow_in_place_tablespaces=on");
    server.initdb();
    server.start();
    server.sql("CREATE TABLESPACE inside LOCATION ''");
    server.sql("CREATE UNLOGGED TABLE u AS SELECT i FROM generate_series(1, 1000) i");
    server.sql("CREATE TABLE m AS SELECT i FROM generate_series(1, 30000) i; CREATE INDEX ON m (i)");
    let mut session = server.connect("postgres");
    session
        .batch_execute(
            "SET temp_tablespaces = inside; CREATE TEMP TABLE tmp AS SELECT * FROM m; SET work_mem='64kB'",
        )
        .unwrap();
    let in_default = mount.at("now");
    server.sql("ALTER TABLE m SET TABLESPACE inside");
    let in_other = mount.at("now");
    server.sql("DROP TABLE m");
    session.batch_execute("SELECT count(*) FROM (SELECT * FROM tmp ORDER BY -i OFFSET 1) s").unwrap();
    let tmp = mount.point.join("pg_tblspc");
    assert!(tmp.exists());
    for (name, view) in [("one", in_default), ("two", in_other)] {
        let copy = on_copy(&place, name, &view);
        copy.start();
        assert_eq!(copy.number("SELECT count(*) FROM m"), 30_000, "{name}");
        assert_eq!(copy.number("SELECT count(*) FROM u"), 0, "unlogged tables are empty after a crash");
        copy.amcheck();
        copy.stop();
    }
    drop(session);
    server.stop();
    mount.unmount();
    server.start();
    assert_eq!(server.number("SELECT count(*) FROM u"), 1000);
    server.stop();
}
