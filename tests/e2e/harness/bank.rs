//! A bank: transfers between accounts, each acknowledged commit recorded with the wall clock before and after it.

use crate::cluster::Postgres;
use crate::mariadb::{self, Mariadb};
use crate::sqlite::{self, Sqlite};
use crate::wall::Wall;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const ACCOUNTS: i32 = 500;
const BALANCE: i64 = 1_000;

/// One transfer that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub client: i32,
    pub number: i32,
    /// Before BEGIN was sent.
    pub begun: Wall,
    /// After COMMIT was answered.
    pub acknowledged: Wall,
}

/// Clients at work.
pub struct Bank {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Commit>>>,
}

/// Makes the tables, each account with the same balance.
#[track_caller]
pub fn open(server: &Postgres) {
    server.sql(&format!(
        "CREATE EXTENSION IF NOT EXISTS amcheck;
         CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, filler text);
         CREATE TABLE transfer (client int, number int, amount bigint, PRIMARY KEY (client, number));
         INSERT INTO account SELECT i, {BALANCE}, repeat('x', 80) FROM generate_series(0, {ACCOUNTS} - 1) i;"
    ));
}

/// The same tables in MariaDB.
#[track_caller]
pub fn open_mariadb(server: &Mariadb) {
    server.sql(&format!(
        "CREATE DATABASE bank; USE bank;
         CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, filler varchar(200)) ENGINE=InnoDB;
         CREATE TABLE transfer (client int, number int, amount bigint, PRIMARY KEY (client, number)) ENGINE=InnoDB;
         INSERT INTO account SELECT seq, {BALANCE}, repeat('x', 80) FROM seq_0_to_{};",
        ACCOUNTS - 1
    ));
}

/// Something that runs a transaction and says whether it was acknowledged.
trait Teller: Send + 'static {
    fn run(&mut self, sql: &str) -> bool;
}

impl Teller for postgres::Client {
    fn run(&mut self, sql: &str) -> bool {
        self.batch_execute(sql).is_ok()
    }
}

impl Teller for mariadb::Session {
    fn run(&mut self, sql: &str) -> bool {
        mariadb::Session::run(self, sql).is_some()
    }
}

impl Teller for sqlite::Session {
    fn run(&mut self, sql: &str) -> bool {
        sqlite::Session::run(self, sql).is_some()
    }
}

/// The same tables in SQLite.
#[track_caller]
pub fn open_sqlite(database: &Sqlite) {
    database.sql(&format!(
        "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filler TEXT);
         CREATE TABLE transfer (client INTEGER, number INTEGER, amount INTEGER, PRIMARY KEY (client, number));
         INSERT INTO account SELECT value, {BALANCE}, hex(randomblob(40)) FROM generate_series(0, {ACCOUNTS} - 1);"
    ));
}

impl Bank {
    /// Starts `clients` of them. They end by themselves when the server goes away. `round` keeps the numbers of
    /// several runs apart.
    pub fn start(server: &Postgres, clients: i32, round: i32) -> Bank {
        Bank::open(clients, round, || server.connect("postgres"))
    }

    /// The same on MariaDB.
    pub fn start_mariadb(server: &Mariadb, clients: i32, round: i32) -> Bank {
        Bank::open(clients, round, || server.connect("bank"))
    }

    /// The same on SQLite: each client is a process with `pragmas` of its own.
    pub fn start_sqlite(database: &Sqlite, pragmas: &[&str], round: i32) -> Bank {
        let pragmas = std::cell::RefCell::new(pragmas.iter());
        let count = pragmas.borrow().len() as i32;
        let next = || pragmas.borrow_mut().next().expect("one for each client").to_owned();
        Bank::open(count, round, || database.connect(next()))
    }

    fn open<T: Teller>(clients: i32, round: i32, connect: impl Fn() -> T) -> Bank {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |client: i32| {
            let stop = Arc::clone(&stop);
            let mut connection = connect();
            std::thread::spawn(move || work(&mut connection, round * 100 + client, &stop))
        };
        let clients = (0..clients).map(start).collect();
        Bank { stop, clients }
    }

    /// Stops, and gives all that was acknowledged.
    pub fn stop(self) -> Vec<Commit> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().expect("a client panicked")).collect()
    }
}

fn work(connection: &mut impl Teller, client: i32, stop: &AtomicBool) -> Vec<Commit> {
    let mut commits = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Wall::now();
        if !transfer(connection, client, number) {
            break;
        }
        commits.push(Commit { client, number, begun, acknowledged: Wall::now() });
    }
    commits
}

/// One transaction. The lower account is locked first, so that clients cannot deadlock.
fn transfer(connection: &mut impl Teller, client: i32, number: i32) -> bool {
    let spread =
        (client as u32).wrapping_mul(2_654_435_761).wrapping_add((number as u32).wrapping_mul(40_503));
    let low = (spread % (ACCOUNTS as u32 - 1)) as i32;
    let high = low + 1;
    let amount = i64::from(spread % 17) - 8;
    connection.run(&format!(
        "BEGIN;
         UPDATE account SET balance = balance - {amount} WHERE id = {low};
         UPDATE account SET balance = balance + {amount} WHERE id = {high};
         INSERT INTO transfer VALUES ({client}, {number}, {amount});
         COMMIT;"
    ))
}

/// Checks a server at instant `at`: the sum is kept, every commit acknowledged before is there, none begun after.
///
/// # Panics
/// When one of these does not hold.
#[track_caller]
pub fn check(server: &Postgres, commits: &[Commit], at: Wall) {
    check_sum(server);
    check_commits(&transfers(server), commits, at);
}

/// The same on MariaDB.
#[track_caller]
pub fn check_mariadb(server: &Mariadb, commits: &[Commit], at: Wall) {
    let sum = server.number("SELECT sum(balance) FROM bank.account");
    assert_eq!(sum, i64::from(ACCOUNTS) * BALANCE, "the balance sum of {}", server.dir.display());
    let rows = server.sql("SELECT client, number FROM bank.transfer");
    let row = |line: &str| {
        let (client, number) = line.split_once('\t').expect("two columns");
        (client.parse().expect("a number"), number.parse().expect("a number"))
    };
    check_commits(&rows.lines().map(row).collect(), commits, at);
}

/// The same on SQLite.
#[track_caller]
pub fn check_sqlite(database: &Sqlite, commits: &[Commit], at: Wall) {
    let sum = database.sql("SELECT sum(balance) FROM account;");
    assert_eq!(sum, (i64::from(ACCOUNTS) * BALANCE).to_string(), "{}", database.0.display());
    let rows = database.sql("SELECT client, number FROM transfer;");
    let row = |line: &str| {
        let (client, number) = line.split_once('|').expect("two columns");
        (client.parse().expect("a number"), number.parse().expect("a number"))
    };
    check_commits(&rows.lines().map(row).collect(), commits, at);
}

#[track_caller]
fn check_commits(present: &HashSet<(i32, i32)>, commits: &[Commit], at: Wall) {
    let is_present = |commit: &Commit| present.contains(&(commit.client, commit.number));
    let lost: Vec<_> =
        commits.iter().filter(|commit| commit.acknowledged < at && !is_present(commit)).collect();
    let early: Vec<_> = commits.iter().filter(|commit| commit.begun > at && is_present(commit)).collect();
    let (lost_first, early_first) = (lost.first(), early.first());
    assert!(
        lost.is_empty(),
        "{} commits acknowledged before {at:?} are missing, the first: {lost_first:?}",
        lost.len()
    );
    assert!(
        early.is_empty(),
        "{} commits begun after {at:?} are there, the first: {early_first:?}",
        early.len()
    );
}

/// Money is neither made nor lost.
#[track_caller]
pub fn check_sum(server: &Postgres) {
    let sum = server.number("SELECT sum(balance)::bigint FROM account");
    assert_eq!(sum, i64::from(ACCOUNTS) * BALANCE, "the balance sum of {}", server.dir.display());
}

/// All transfers that a server knows.
#[track_caller]
pub fn transfers(server: &Postgres) -> HashSet<(i32, i32)> {
    let rows =
        server.connect("postgres").query("SELECT client, number FROM transfer", &[]).expect("read transfers");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}
