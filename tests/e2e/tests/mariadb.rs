//! MariaDB, unmodified, on Weft (InnoDB with O_DIRECT, Aria for its system tables); and its past, started from copies
//! of views.

use std::path::Path;
use std::time::Duration;
use weft_e2e::bank::{self, Bank};
use weft_e2e::mariadb::on_copy;
use weft_e2e::random::count;
use weft_e2e::wall::Wall;
use weft_e2e::{Capture, Mariadb, Mount, Place, cmd};

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// An empty directory of the user mysql, mounted, with a server on it.
fn running(place: &Place, capture: Capture) -> (Mount, Mariadb) {
    let mount = Mount::over(&place.dir_for("mysql", "data")).capture(capture).mount();
    let server = Mariadb::new(place, "live", &mount.point);
    server.install();
    server.start();
    assert_eq!(server.sql("SELECT @@innodb_flush_method, @@innodb_use_native_aio"), "O_DIRECT\t1");
    (mount, server)
}

/// Transfers, instants in between, kill -9 of daemon and server together; each copy of an instant is the database of
/// that instant, and nothing acknowledged is lost.
fn commits_are_in_the_views_they_belong_to_and_survive_kill9(capture: Capture) {
    let place = Place::new();
    let (mount, server) = running(&place, capture);
    bank::open_mariadb(&server);
    let mut commits = Vec::new();
    let mut instants = Vec::new();
    for round in 0..count("WEFT_E2E_KILLS", 2) as i32 {
        let bank = Bank::start_mariadb(&server, 3, round + 1);
        pause(1_000);
        instants.push(Wall::now());
        pause(500);
        mount.kill9();
        server.kill9();
        commits.extend(bank.stop());
        mount.remount();
        server.start();
        bank::check_mariadb(&server, &commits, Wall::now());
    }
    assert!(commits.len() > 50, "only {} commits: this says little", commits.len());
    server.check();
    for (number, at) in instants.iter().enumerate() {
        let view = mount.at_wall(*at);
        assert!(view.join("ibdata1").exists() && !view.join("ibtmp1").exists());
        let copy = on_copy(&place, &format!("copy{number}"), &view);
        copy.start();
        bank::check_mariadb(&copy, &commits, *at);
        copy.check();
        copy.stop();
    }
    assert_eq!(mount.status()["profile"], "mariadb");
    server.stop();
    mount.unmount();
    server.start();
    bank::check_mariadb(&server, &commits, Wall::now());
    server.check();
    server.stop();
}

#[test]
fn commits_in_views_and_after_kill9_strict() {
    commits_are_in_the_views_they_belong_to_and_survive_kill9(Capture::Strict);
}

#[test]
fn commits_in_views_and_after_kill9_writeback() {
    commits_are_in_the_views_they_belong_to_and_survive_kill9(Capture::Writeback);
}

/// What destroys, replaces or brings in whole files between T and now must not reach the view of T; page compression
/// punches holes.
#[test]
fn tables_dropped_truncated_rebuilt_and_imported_are_all_in_the_view() {
    let place = Place::new();
    let (mount, server) = running(&place, Capture::Strict);
    server.sql("CREATE DATABASE t");
    let sql = |text: &str| server.sql(&format!("USE t; {text}"));
    for table in ["dropped", "truncated", "rebuilt", "squeezed", "moved", "aria"] {
        let options = match table {
            "squeezed" => "ENGINE=InnoDB PAGE_COMPRESSED=1",
            "aria" => "ENGINE=Aria TRANSACTIONAL=1",
            _ => "ENGINE=InnoDB",
        };
        sql(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, text varchar(100)) {options};
             INSERT INTO {table} SELECT seq, repeat(md5(seq % 7), 3) FROM seq_1_to_20000;"
        ));
    }
    let sum = |server: &Mariadb, table: &str| {
        server.number(&format!("SELECT sum(crc32(concat(id, text))) FROM t.{table}"))
    };
    let tables = ["dropped", "truncated", "rebuilt", "squeezed", "moved", "aria"];
    let sums: Vec<i64> = tables.iter().map(|table| sum(&server, table)).collect();
    sql("FLUSH TABLES");
    pause(50);
    let at = Wall::now();
    pause(50);
    let mut export = server.connect("t");
    export.run("FLUSH TABLES moved FOR EXPORT;").expect("export");
    let (exported, moved) = (place.join("moved.ibd"), mount.point.join("t/moved.ibd"));
    cmd::call("cp", &[Path::new("-p"), &moved, &exported]).ok();
    drop(export);
    sql("DROP TABLE dropped; TRUNCATE truncated; OPTIMIZE TABLE rebuilt; ALTER TABLE rebuilt ADD extra int, ALGORITHM=COPY;
         UPDATE squeezed SET text = md5(id); UPDATE aria SET text = ''; DELETE FROM moved WHERE id > 5;
         ALTER TABLE moved DISCARD TABLESPACE");
    cmd::call("cp", &[Path::new("-p"), &exported, &moved]).ok();
    sql("ALTER TABLE moved IMPORT TABLESPACE");
    assert_eq!(sum(&server, "moved"), sums[4], "the imported tablespace");
    sql("CREATE TEMPORARY TABLE tmp ENGINE=InnoDB AS SELECT * FROM rebuilt; SELECT count(*) FROM tmp");
    server.check();

    let copy = on_copy(&place, "before", &mount.at_wall(at));
    copy.start();
    for (table, expected) in tables.iter().zip(&sums) {
        assert_eq!(sum(&copy, table), *expected, "table {table} in the past");
    }
    copy.check();
    copy.stop();
    server.stop();
    mount.unmount();
}
