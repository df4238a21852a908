//! SQLite on the mount, in both journal modes; live and in the past.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use weft_e2e::wall::Wall;
use weft_e2e::{Mount, Place, cmd};

/// Runs SQL in a process of its own.
#[track_caller]
fn sql(database: &Path, text: &str) -> String {
    cmd::run(Command::new("sqlite3").arg("-bail").arg(database).arg(text)).ok()
}

/// Keeps a connection open, so that no other one is the last and removes the WAL.
fn hold(database: &Path) -> Child {
    let mut holder =
        Command::new("sqlite3").arg(database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(holder.stdin.as_mut().unwrap(), "SELECT count(*) FROM sqlite_master;").unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "sqlite3 did not open {}", database.display());
    holder
}

fn insert(database: &Path, transactions: usize) {
    for _ in 0..transactions {
        sql(
            database,
            "BEGIN; INSERT INTO t SELECT NULL, hex(randomblob(200)) FROM generate_series(1, 50); COMMIT;",
        );
    }
}

fn live_and_past(mode: &str) {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let database = mount.point.join("app.db");
    assert_eq!(sql(&database, &format!("PRAGMA journal_mode={mode};")), mode);
    sql(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT); CREATE INDEX i ON t (text);");
    let mut holder = hold(&database);
    insert(&database, 20);
    let at = Wall::now();
    std::thread::sleep(Duration::from_millis(20));
    sql(&database, "DELETE FROM t WHERE id % 2 = 0;");
    insert(&database, 10);
    sql(&database, "VACUUM;");
    assert_eq!(sql(&database, "PRAGMA integrity_check;"), "ok");
    let (rows_now, rows_then) = ("1000", "1000");
    assert_eq!(sql(&database, "SELECT count(*) FROM t;"), rows_now);

    let copy = copy_of(&place, &mount.at_wall(at));
    assert_eq!(sql(&copy, "PRAGMA integrity_check;"), "ok");
    assert_eq!(sql(&copy, "SELECT count(*) FROM t;"), rows_then);
    assert_eq!(sql(&copy, "SELECT max(id) FROM t;"), "1000");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    mount.unmount();
    assert_eq!(sql(&mount.data.join("app.db"), "PRAGMA integrity_check;"), "ok");
}

fn copy_of(place: &Place, view: &Path) -> PathBuf {
    let dir = place.join("copy");
    cmd::cp(view, &dir);
    dir.join("app.db")
}

#[test]
fn wal_mode() {
    live_and_past("wal");
}

#[test]
fn rollback_mode() {
    live_and_past("delete");
}
