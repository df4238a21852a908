//! Processes that use one SQLite database.

use crate::cmd;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A database file.
#[derive(Clone)]
pub struct Sqlite(pub PathBuf);

impl Sqlite {
    /// Runs SQL in a process of its own.
    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        cmd::run(Command::new("sqlite3").args(["-bail", "-cmd", ".timeout 20000"]).arg(&self.0).arg(text))
            .ok()
    }

    /// A process that stays. `pragmas` are its own.
    #[track_caller]
    pub fn connect(&self, pragmas: &str) -> Session {
        let mut child = Command::new("sqlite3")
            .args(["-bail", "-cmd", ".timeout 20000"])
            .arg(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sqlite3: run scripts/setup");
        let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let mut session = Session { child, input, output: BufReader::new(output) };
        session.run(pragmas).unwrap_or_else(|| panic!("{pragmas} of {}", Path::display(&self.0)));
        session
    }

    /// Signals every process that uses it.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut arguments = line.split(|byte| *byte == 0);
            if arguments.next().is_some_and(|program| program.ends_with(b"sqlite3"))
                && arguments.any(|argument| argument == self.0.as_os_str().as_encoded_bytes())
            {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
            }
        }
    }

    #[track_caller]
    pub fn check(&self) {
        assert_eq!(self.sql("PRAGMA integrity_check;"), "ok", "{}", self.0.display());
    }
}

/// A process that takes statement after statement; it ends at the first that fails.
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Runs statements and waits until all are done; `None` when the process ended.
    pub fn run(&mut self, sql: &str) -> Option<()> {
        const ANSWER: &str = "answered";
        writeln!(self.input, "{sql} SELECT '{ANSWER}';").ok()?;
        self.input.flush().ok()?;
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim_end() == ANSWER {
                return Some(());
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
