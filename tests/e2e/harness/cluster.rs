//! A PostgreSQL server of the test's own, run by the user postgres, reachable by its own socket only.

use crate::cmd::{self, Output};
use crate::place::Place;
use postgres::{Client, Config, NoTls};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The user who owns clusters.
pub const USER: &str = "postgres";

/// A cluster's directory and how its server is reached. Dropping it stops the server at once.
pub struct Postgres {
    pub dir: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
    /// `-c NAME=VALUE` for the server.
    settings: Vec<String>,
}

impl Postgres {
    /// A server on `dir`, with socket and log in `place` under `name`. Nothing runs yet.
    #[track_caller]
    pub fn new(place: &Place, name: &str, dir: &Path) -> Postgres {
        Postgres {
            dir: dir.to_owned(),
            socket: place.dir_for(USER, &format!("{name}.s")),
            log: place.join(&format!("{name}.log")),
            settings: vec![
                "listen_addresses=".into(),
                "max_connections=40".into(),
                "shared_buffers=64MB".into(),
            ],
        }
    }

    /// One more `-c NAME=VALUE`.
    pub fn set(mut self, setting: &str) -> Postgres {
        self.settings.push(setting.to_owned());
        self
    }

    /// initdb with checksums into `dir`, which is there, empty, and the user's.
    #[track_caller]
    pub fn initdb(&self) {
        self.initdb_with(&[]);
    }

    /// The same with more arguments, such as `--waldir=DIR`.
    #[track_caller]
    pub fn initdb_with(&self, more: &[&str]) {
        let mut command = self.command("initdb");
        command.args(["-A", "trust", "-E", "UTF8", "--no-locale", "--data-checksums", "-D"]).arg(&self.dir);
        cmd::run(command.args(more)).ok();
    }

    /// Starts and waits until it answers.
    ///
    /// # Panics
    /// When it does not start; the message holds the end of its log.
    #[track_caller]
    pub fn start(&self) {
        let started = self.try_start();
        assert_eq!(
            started.code,
            0,
            "the server on {} did not start:\n{}{}",
            self.dir.display(),
            started.stderr,
            self.log_tail()
        );
    }

    pub fn try_start(&self) -> Output {
        self.make_log();
        let mut options = format!("-k {}", self.socket.display());
        for setting in &self.settings {
            options.push_str(&format!(" -c {setting}"));
        }
        let mut command = self.command("pg_ctl");
        command
            .args(["start", "-w", "-s", "-t", "120", "-D"])
            .arg(&self.dir)
            .arg("-l")
            .arg(&self.log)
            .arg("-o")
            .arg(options);
        cmd::run(&mut command)
    }

    #[track_caller]
    pub fn stop(&self) {
        self.try_stop("fast").ok();
    }

    /// `pg_ctl stop -m MODE`.
    pub fn try_stop(&self, mode: &str) -> Output {
        let mut command = self.command("pg_ctl");
        command.args(["stop", "-w", "-s", "-t", "120", "-m", mode, "-D"]).arg(&self.dir);
        cmd::run(&mut command)
    }

    /// Ends the server when its files are on a dead mount: SIGQUIT to the postmaster, SIGKILL to what is left.
    #[track_caller]
    pub fn kill_all(&self) {
        let known = self.postmasters();
        for signal in [nix::sys::signal::Signal::SIGQUIT, nix::sys::signal::Signal::SIGKILL] {
            for pid in self.postmasters() {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
            }
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
            while !self.processes().is_empty() && std::time::Instant::now() < deadline {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        for pid in self.processes() {
            crate::place::kill(pid);
        }
        // A dead process keeps its number until its parent has looked; the next server would take it for alive.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
        let there = |pid: &i32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), None).is_ok();
        while known.iter().chain(&self.recorded()).any(there) && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// The postmaster that the log names: it may be dead and not yet gone.
    fn recorded(&self) -> Vec<i32> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rev().find(|line| line.contains("starting PostgreSQL"));
        let pid = last.and_then(|line| line.split_once('[')?.1.split_once(']')?.0.parse().ok());
        pid.into_iter().collect()
    }

    /// The postmaster and all its children: those with this server's directory open as their own.
    pub fn processes(&self) -> Vec<i32> {
        let masters = self.postmasters();
        let mut all = masters.clone();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            if let Some(pid) = pid.filter(|pid| parent(*pid).is_some_and(|parent| masters.contains(&parent)))
            {
                all.push(pid);
            }
        }
        all
    }

    /// Living `postgres -D DIR` processes.
    fn postmasters(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut arguments = arguments.split(|byte| *byte == 0);
            let is_server = arguments.next().is_some_and(|program| program.ends_with(b"/postgres"));
            if is_server
                && arguments.any(|argument| argument == self.dir.as_os_str().as_encoded_bytes())
                && parent(pid).is_some()
            {
                found.push(pid);
            }
        }
        found
    }

    /// A connection to database `name`.
    #[track_caller]
    pub fn connect(&self, name: &str) -> Client {
        self.try_connect(name).unwrap_or_else(|e| {
            panic!("connect to {name} of {}: {e}\n{}", self.dir.display(), self.log_tail())
        })
    }

    pub fn try_connect(&self, name: &str) -> Result<Client, postgres::Error> {
        Config::new().host_path(&self.socket).user(USER).dbname(name).connect(NoTls)
    }

    /// Runs SQL in the database postgres.
    #[track_caller]
    pub fn sql(&self, sql: &str) {
        self.connect("postgres")
            .batch_execute(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e}\n{}", self.log_tail()));
    }

    /// One number from the database postgres.
    #[track_caller]
    pub fn number(&self, query: &str) -> i64 {
        let row = self
            .connect("postgres")
            .query_one(query, &[])
            .unwrap_or_else(|e| panic!("{query}: {e}\n{}", self.log_tail()));
        row.get(0)
    }

    /// `pgbench ARGS postgres`, to its end.
    #[track_caller]
    pub fn pgbench(&self, args: &[&str]) -> String {
        cmd::run(self.client("pgbench").args(args).arg("postgres")).ok()
    }

    /// pgbench in the background; it may fail when the server goes.
    #[track_caller]
    pub fn pgbench_spawn(&self, args: &[&str]) -> Child {
        let mut command = self.client("pgbench");
        command.args(args).arg("postgres").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("spawn pgbench")
    }

    /// Heaps and indexes of all databases are sound.
    #[track_caller]
    pub fn amcheck(&self) {
        let mut command = self.client("pg_amcheck");
        command.args(["--all", "--install-missing", "--heapallindexed", "--parent-check"]);
        let checked = cmd::run(&mut command);
        assert_eq!(
            checked.code,
            0,
            "pg_amcheck of {}:\n{}{}",
            self.dir.display(),
            checked.stdout,
            checked.stderr
        );
    }

    /// Every page's checksum; the server must be stopped cleanly.
    #[track_caller]
    pub fn checksums(&self) {
        cmd::run(self.command("pg_checksums").arg("--check").arg("-D").arg(&self.dir)).ok();
    }

    /// The end of the server's log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let start = text.len().saturating_sub(3_000);
        format!("--- {}\n{}", self.log.display(), String::from_utf8_lossy(&text[start..]))
    }

    /// A program of PostgreSQL, run by its user.
    pub fn command(&self, program: &str) -> Command {
        cmd::as_user(USER, programs().join(program))
    }

    fn client(&self, program: &str) -> Command {
        let mut command = self.command(program);
        command.arg("-h").arg(&self.socket);
        command
    }

    fn make_log(&self) {
        if !self.log.exists() {
            fs::write(&self.log, "").expect("make the log");
            cmd::call("chown", &[USER.as_ref(), self.log.as_os_str()]).ok();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !self.postmasters().is_empty() {
            self.kill_all();
        }
    }
}

/// Copies a view and gives a server for the copy, not started yet. Its own settings in postgresql.conf apply.
#[track_caller]
pub fn on_copy(place: &Place, name: &str, view: &Path) -> Postgres {
    let dir = place.dir_for(USER, name);
    cmd::rsync(view, &dir);
    Postgres::new(place, name, &dir)
}

/// The newest PostgreSQL's programs.
///
/// # Panics
/// When there is none: it says what to install.
pub fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists() && path.join("bin/pg_amcheck").exists())
        .max_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    newest
        .expect(
            "no PostgreSQL server in /usr/lib/postgresql: run scripts/setup (apt-get install postgresql-15)",
        )
        .join("bin")
}

/// The parent of a living process that is no zombie.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}
