//! A MariaDB server of the test's own, run by the user mysql, reachable by its own socket only; and clients of it.

use crate::cmd::{self, Output};
use crate::place::Place;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The user who owns data directories.
pub const USER: &str = "mysql";
const PATIENCE: Duration = Duration::from_secs(120);

/// A data directory and how its server is reached. Dropping it ends the server at once.
pub struct Mariadb {
    pub dir: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    /// `--NAME=VALUE` for the server.
    settings: Vec<String>,
}

impl Mariadb {
    /// A server on `dir`, with socket and log in `place` under `name`. Nothing runs yet.
    #[track_caller]
    pub fn new(place: &Place, name: &str, dir: &Path) -> Mariadb {
        let run = place.dir_for(USER, &format!("{name}.m"));
        Mariadb {
            dir: dir.to_owned(),
            socket: run.join("s"),
            log: run.join("log"),
            settings: vec![
                "--skip-networking".into(),
                "--innodb-buffer-pool-size=32M".into(),
                "--innodb-log-file-size=16M".into(),
                "--skip-log-bin".into(),
            ],
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// One more `--NAME=VALUE`.
    pub fn set(mut self, setting: &str) -> Mariadb {
        self.settings.push(setting.to_owned());
        self
    }

    /// Makes the system tables in `dir`, which is there, empty, and the user's.
    #[track_caller]
    pub fn install(&self) {
        let mut command = cmd::as_user(USER, "mariadb-install-db");
        command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        command.arg(format!("--datadir={}", self.dir.display()));
        cmd::run(command.args(&self.settings)).ok();
    }

    /// Starts and waits until it answers.
    ///
    /// # Panics
    /// When it does not; the message holds the end of its log.
    #[track_caller]
    pub fn start(&self) {
        let mut command = cmd::as_user(USER, "mariadbd");
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", self.dir.display()))
            .arg(format!("--socket={}", self.socket.display()))
            .arg(format!("--pid-file={}", self.socket.with_extension("pid").display()))
            .arg(format!("--log-error={}", self.log.display()))
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("mariadbd: {e}; run scripts/setup"));
        let begun = Instant::now();
        while self.admin("ping").code != 0 {
            let ended = child.try_wait().expect("wait");
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "the server on {} did not start ({ended:?}):\n{}",
                self.dir.display(),
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        // Collects it when it ends, so that it does not stay as a zombie.
        std::thread::spawn(move || child.wait());
    }

    /// Orderly shutdown, waited for.
    #[track_caller]
    pub fn stop(&self) {
        self.admin("shutdown").ok();
        self.wait_for_end();
    }

    /// SIGKILL.
    #[track_caller]
    pub fn kill9(&self) {
        self.processes().into_iter().for_each(crate::place::kill);
        self.wait_for_end();
    }

    fn wait_for_end(&self) {
        let begun = Instant::now();
        while !self.processes().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "the server does not end:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn processes(&self) -> Vec<i32> {
        let datadir = format!("--datadir={}", self.dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut arguments = line.split(|byte| *byte == 0);
            let is_server = arguments.next().is_some_and(|program| program.ends_with(b"mariadbd"));
            if is_server && arguments.any(|argument| argument == datadir.as_bytes()) {
                found.push(pid);
            }
        }
        found
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--no-defaults").arg("-uroot").arg("-S").arg(&self.socket).current_dir("/");
        command
    }

    fn admin(&self, what: &str) -> Output {
        cmd::run(self.client("mariadb-admin").arg("--silent").arg(what))
    }

    /// Runs SQL; what it prints, without column names.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        let output = self.try_sql(sql);
        assert_eq!(output.code, 0, "{sql}: {}\n{}", output.stderr, self.log_tail());
        output.stdout.trim_end().to_owned()
    }

    pub fn try_sql(&self, sql: &str) -> Output {
        cmd::run(self.client("mariadb").args(["--batch", "--skip-column-names", "-e"]).arg(sql))
    }

    /// One number.
    #[track_caller]
    pub fn number(&self, query: &str) -> i64 {
        let text = self.sql(query);
        text.parse().unwrap_or_else(|_| panic!("{query}: {text:?} is no number"))
    }

    /// Every table of every engine is sound.
    #[track_caller]
    pub fn check(&self) {
        let checked =
            cmd::run(self.client("mariadb-check").args(["--all-databases", "--extended", "--check"]));
        let bad: Vec<&str> = checked
            .stdout
            .lines()
            .filter(|line| !line.trim_end().ends_with("OK") && !line.starts_with("note"))
            .filter(|line| !line.contains("doesn't support check"))
            .collect();
        let views = bad.iter().all(|line| ["mysql.general_log", "mysql.slow_log"].contains(&line.trim()));
        assert!(checked.code == 0 && views, "mariadb-check: {bad:?}\n{}{}", checked.stderr, self.log_tail());
    }

    /// A connection to a database that stays.
    #[track_caller]
    pub fn connect(&self, database: &str) -> Session {
        let mut command = self.client("mariadb");
        command.args(["--batch", "--skip-column-names", "--unbuffered", database]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("mariadb");
        let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        Session { child, input, output: BufReader::new(output) }
    }

    /// The end of the server's log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let start = text.len().saturating_sub(4_000);
        format!("--- {}\n{}", self.log.display(), String::from_utf8_lossy(&text[start..]))
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        self.processes().into_iter().for_each(crate::place::kill);
    }
}

/// A client process that takes statement after statement.
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Runs statements and waits until the last is answered; `None` when the server has gone or refused.
    pub fn run(&mut self, sql: &str) -> Option<()> {
        const ANSWER: &str = "answered";
        writeln!(self.input, "{sql} SELECT '{ANSWER}';").ok()?;
        self.input.flush().ok()?;
        let mut line = String::new();
        self.output.read_line(&mut line).ok()?;
        (line.trim_end() == ANSWER).then_some(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies a view with nothing left out, and gives a server for the copy, not started yet.
#[track_caller]
pub fn on_copy(place: &Place, name: &str, view: &Path) -> Mariadb {
    let dir = place.join(name);
    cmd::cp(view, &dir);
    Mariadb::new(place, name, &dir)
}
