//! Running programs. Their output goes through files, not pipes: a daemon that holds a pipe open cannot hang a test.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// What was run, for messages.
    pub line: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output without the last newline, if the program succeeded.
    ///
    /// # Panics
    /// When it did not, with all it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "`{}` failed\nstdout: {}\nstderr: {}", self.line, self.stdout, self.stderr);
        self.stdout.trim_end().to_owned()
    }
}

/// Runs to the end; never reads our standard input.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let line = format!("{command:?}");
    let mut out = tempfile::tempfile().expect("a temporary file");
    let mut err = tempfile::tempfile().expect("a temporary file");
    let status = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("dup"))
        .stderr(err.try_clone().expect("dup"))
        .status()
        .unwrap_or_else(|e| panic!("cannot run {line}: {e}; scripts/setup installs what the tests need"));
    Output { line, code: status.code().unwrap_or(-1), stdout: content(&mut out), stderr: content(&mut err) }
}

/// Runs `program` with `args`.
#[track_caller]
pub fn call<S: AsRef<std::ffi::OsStr>>(program: &str, args: &[S]) -> Output {
    run(Command::new(program).args(args))
}

/// A command run as `user` (by runuser; we are root), in a directory that this user can enter.
pub fn as_user(user: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", user, "--"]).arg(program);
    command.current_dir("/");
    command
}

/// `cp -a FROM TO`, where TO does not exist yet.
#[track_caller]
pub fn cp(from: &Path, to: &Path) {
    call("cp", &[Path::new("-aT"), from, to]).ok();
}

/// `rsync -aHAX` of the contents of FROM into TO, without a server's pid file.
#[track_caller]
pub fn rsync(from: &Path, to: &Path) {
    let from = format!("{}/", from.display());
    let to = format!("{}/", to.display());
    call("rsync", &["-aHAX", "--modify-window=-1", "--exclude", "postmaster.pid", &from, &to]).ok();
}

fn content(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("seek");
    file.read_to_end(&mut bytes).expect("read back output");
    String::from_utf8_lossy(&bytes).into_owned()
}
