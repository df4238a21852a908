//! A Weft mount under test.

use crate::cmd::{self, Output};
use crate::place::{self, Place};
use crate::steered::Steered;
use crate::wall::Wall;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `--capture`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capture {
    Strict,
    Writeback,
}

impl Capture {
    fn name(self) -> &'static str {
        match self {
            Capture::Strict => "strict",
            Capture::Writeback => "writeback",
        }
    }
}

/// DATA, its STORE and where it is mounted. Declare it after its [`Place`] and before the servers on it: dropping
/// the place cleans up, and locals are dropped in reverse.
pub struct Mount {
    pub data: PathBuf,
    /// Where the mount is seen; DATA itself unless a mount point was given.
    pub point: PathBuf,
    pub store: PathBuf,
    /// `--root NAME=DIR`, given at every mount.
    pub roots: Vec<(String, PathBuf)>,
    capture: Capture,
    user: Option<String>,
    /// Environment of the daemon.
    environment: Vec<(OsString, OsString)>,
}

impl Mount {
    /// A new empty DATA in `place`, mounted over itself, strict. Not mounted yet.
    #[track_caller]
    pub fn new(place: &Place) -> Mount {
        let data = place.join("data");
        if !data.exists() {
            std::fs::create_dir(&data).expect("mkdir DATA");
        }
        Mount::over(&data)
    }

    /// An existing directory. Not mounted yet.
    pub fn over(data: &Path) -> Mount {
        Mount {
            data: data.to_owned(),
            point: data.to_owned(),
            store: PathBuf::from(format!("{}.weft", data.display())),
            roots: Vec::new(),
            capture: Capture::Strict,
            user: None,
            environment: Vec::new(),
        }
    }

    /// With a daemon whose clock the test steers.
    pub fn clock(mut self, clock: &Steered) -> Mount {
        let mut command = Command::new("weft");
        clock.steer(&mut command);
        let set = command.get_envs().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
        self.environment = set.collect();
        self
    }

    /// With a further root.
    pub fn root(mut self, name: &str, dir: &Path) -> Mount {
        self.roots.push((name.to_owned(), dir.to_owned()));
        self
    }

    pub fn capture(mut self, capture: Capture) -> Mount {
        self.capture = capture;
        self
    }

    /// With its STORE elsewhere.
    pub fn store(mut self, store: &Path) -> Mount {
        self.store = store.to_owned();
        self
    }

    /// Shown at `point` instead of over DATA.
    pub fn at_point(mut self, point: &Path) -> Mount {
        self.point = point.to_owned();
        self
    }

    /// All commands are run by `user` instead of root.
    pub fn by_user(mut self, user: &str) -> Mount {
        self.user = Some(user.to_owned());
        self
    }

    /// Mounts.
    ///
    /// # Panics
    /// When the command fails or nothing is mounted after it.
    #[track_caller]
    pub fn mount(self) -> Mount {
        self.remount();
        self
    }

    /// Mounts again, after an unmount or a crash.
    #[track_caller]
    pub fn remount(&self) {
        self.try_mount().ok();
        assert!(
            place::is_mounted(&self.point),
            "weft mount succeeded, but nothing is mounted on {}",
            self.point.display()
        );
        assert!(self.point.read_dir().is_ok(), "{} cannot be read after weft mount", self.point.display());
    }

    pub fn try_mount(&self) -> Output {
        cmd::run(&mut self.mount_command())
    }

    /// Mounts in the foreground, and returns when the daemon says that it is ready; nobody has looked at the mount then. Its
    /// log goes to `log`.
    ///
    /// # Panics
    /// When it ends before.
    #[track_caller]
    pub fn in_foreground(&self, log: &Path) -> std::process::Child {
        let errors = std::fs::File::create(log).expect("a file for the log");
        let mut command = self.mount_command();
        command.arg("--foreground").stdin(std::process::Stdio::null()).stderr(errors);
        let mut daemon = command.spawn().expect("weft mount --foreground");
        loop {
            let text = std::fs::read_to_string(log).expect("the log");
            if text.contains("process: ready") {
                return daemon;
            }
            assert!(daemon.try_wait().expect("wait").is_none(), "weft mount --foreground ended: {text}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn mount_command(&self) -> Command {
        let mut command = self.weft();
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.arg("mount").arg(&self.data).arg("--store").arg(&self.store);
        if self.point != self.data {
            command.arg(&self.point);
        }
        for (name, dir) in &self.roots {
            command.arg("--root").arg(format!("{name}={}", dir.display()));
        }
        if self.capture == Capture::Writeback {
            command.args(["--capture", self.capture.name()]);
        }
        command
    }

    /// Unmounts cleanly, and sees that it is so.
    #[track_caller]
    pub fn unmount(&self) {
        self.try_unmount().ok();
        assert!(!place::is_mounted(&self.point), "{} is still mounted", self.point.display());
    }

    pub fn try_unmount(&self) -> Output {
        cmd::run(self.weft().arg("unmount").arg(&self.data))
    }

    /// kill -9 of the daemon. The dead mount stays, as after a real crash.
    #[track_caller]
    pub fn kill9(&self) {
        let daemons = place::daemons_of(&self.data);
        assert!(!daemons.is_empty(), "no weft process names {}", self.data.display());
        daemons.into_iter().for_each(place::kill);
    }

    /// `kill -9`, then mount again.
    #[track_caller]
    pub fn crash(&self) {
        self.kill9();
        self.remount();
    }

    /// Process ids of the daemon.
    pub fn daemons(&self) -> Vec<i32> {
        place::daemons_of(&self.data)
    }

    /// `weft at TIME`: the path of that instant.
    #[track_caller]
    pub fn at(&self, time: &str) -> PathBuf {
        let printed = self.try_at(time).ok();
        let path = PathBuf::from(&printed);
        assert!(
            path.starts_with(&self.point),
            "weft at {time} printed {printed:?}, which is not in the mount"
        );
        path
    }

    pub fn try_at(&self, time: &str) -> Output {
        cmd::run(self.weft().arg("at").arg(time).arg(&self.point))
    }

    /// The view at a wall-clock instant.
    #[track_caller]
    pub fn at_wall(&self, wall: Wall) -> PathBuf {
        self.at(&wall.canonical())
    }

    /// `MOUNT/@ts=TEXT`, by lookup alone.
    pub fn ts(&self, text: &str) -> PathBuf {
        self.point.join(format!("@ts={text}"))
    }

    /// `weft status --json`.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let text = cmd::run(self.weft().arg("status").arg(&self.point).arg("--json")).ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("weft status --json is not JSON ({e}): {text}"))
    }

    /// `weft`, as the user of this mount.
    pub fn weft(&self) -> Command {
        match &self.user {
            Some(user) => cmd::as_user(user, binary()),
            None => weft(),
        }
    }
}

/// `weft`, as root, in a directory that is in nobody's way.
pub fn weft() -> Command {
    let mut command = Command::new(binary());
    command.current_dir("/");
    command
}

/// The binary under test.
///
/// # Panics
/// When there is none: it says how to build it.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEFT_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "WEFT_BIN={} is not a file", path.display());
        return path;
    }
    let me = std::env::current_exe().expect("own path");
    let beside = me.ancestors().skip(1).take(3).map(|dir| dir.join("weft")).find(|path| path.is_file());
    beside.expect("no weft beside the test executable: run `cargo build -p weft-cli` first, or set WEFT_BIN")
}
