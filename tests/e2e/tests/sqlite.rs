//! SQLite on the mount, in both journal modes; live and in the past.

use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use weft_e2e::bank::{self, Bank};
use weft_e2e::random::count;
use weft_e2e::wall::Wall;
use weft_e2e::{Capture, Mount, Place, Sqlite, cmd};

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

/// Several processes, a kill -9 of the daemon beneath them, and every instant's copy.
fn several_processes_survive_kill9(mode: &str, capture: Capture, pragmas: &[&str]) {
    let place = Place::new();
    let mount = Mount::new(&place).capture(capture).mount();
    let database = Sqlite(mount.point.join("app.db"));
    assert_eq!(database.sql(&format!("PRAGMA journal_mode={mode};")), mode);
    bank::open_sqlite(&database);
    let mut commits = Vec::new();
    let mut instants = Vec::new();
    for round in 0..count("WEFT_E2E_KILLS", 2) as i32 {
        let bank = Bank::start_sqlite(&database, pragmas, round + 1);
        std::thread::sleep(Duration::from_millis(500));
        instants.push(Wall::now());
        std::thread::sleep(Duration::from_millis(250));
        // All at once: SQLite takes a commit for done when the directory that it should sync cannot be opened (os_unix.c,
        // unixDelete), so none may live on to say so.
        database.signal(Signal::SIGSTOP);
        mount.kill9();
        database.signal(Signal::SIGKILL);
        commits.extend(bank.stop());
        mount.remount();
        database.check();
        bank::check_sqlite(&database, &commits, Wall::now());
    }
    assert!(commits.len() > 20, "only {} commits: this says little", commits.len());
    for (number, at) in instants.iter().enumerate() {
        let dir = place.join(&format!("copy{number}"));
        cmd::cp(&mount.at_wall(*at), &dir);
        let copy = Sqlite(dir.join("app.db"));
        copy.check();
        bank::check_sqlite(&copy, &commits, *at);
    }
    mount.unmount();
    Sqlite(mount.data.join("app.db")).check();
}

#[test]
fn several_processes_wal_strict() {
    let pragmas = ["PRAGMA synchronous=FULL;", "PRAGMA synchronous=FULL; PRAGMA mmap_size=268435456;"];
    several_processes_survive_kill9("wal", Capture::Strict, &pragmas);
}

#[test]
fn several_processes_wal_writeback() {
    several_processes_survive_kill9("wal", Capture::Writeback, &["PRAGMA synchronous=FULL;"; 3]);
}

#[test]
fn several_processes_rollback_strict() {
    // The journal's unlink is the commit, and only EXTRA makes it durable (sqlite.org, pragma synchronous).
    let pragmas = ["PRAGMA synchronous=EXTRA;", "PRAGMA synchronous=EXTRA; PRAGMA mmap_size=268435456;"];
    several_processes_survive_kill9("delete", Capture::Strict, &pragmas);
}

#[test]
fn several_processes_rollback_writeback() {
    // Only WAL mode is kept in the file: each process has to ask for another one.
    let pragmas = "PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=FULL;";
    several_processes_survive_kill9("truncate", Capture::Writeback, &[pragmas; 2]);
}

/// One process that keeps the file for itself needs no shared memory: there is no -shm, and the past is whole.
#[test]
fn exclusive_locking_mode() {
    let pragmas = ["PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL;"];
    several_processes_survive_kill9("wal", Capture::Strict, &pragmas);
}

/// What a view of a database in WAL mode can do where it stands, and what not: the guide says to copy first.
#[test]
fn a_view_is_copied_before_it_is_opened() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let database = Sqlite(mount.point.join("app.db"));
    database.sql("PRAGMA journal_mode=wal; CREATE TABLE t (i); INSERT INTO t VALUES (1);");
    let mut holder = database.connect("SELECT count(*) FROM t;");
    holder.run("INSERT INTO t VALUES (2);").unwrap();
    let view = mount.at("now");
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        assert!(view.join(name).exists(), "{name} is in the view");
    }
    // Immutable, it opens, but without what stands in the WAL.
    let immutable = format!("file:{}?immutable=1", view.join("app.db").display());
    let opened = cmd::run(Command::new("sqlite3").arg(&immutable).arg("SELECT count(*) FROM t;"));
    assert_ne!(opened.stdout.trim(), "2", "immutable does not read the WAL");
    let copy = place.join("copy");
    cmd::cp(&view, &copy);
    assert_eq!(Sqlite(copy.join("app.db")).sql("SELECT count(*) FROM t;"), "2");
    drop(holder);
}
