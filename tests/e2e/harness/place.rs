//! A directory of the test's own, cleaned up whatever happens.

use crate::cmd;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A temporary directory on a real disk. Dropping it ends the daemons that work below it, takes their mounts away
/// and removes it.
pub struct Place {
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Place {
    /// # Panics
    /// When not root: mounts for other users and chown need it.
    #[track_caller]
    pub fn new() -> Place {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the e2e tests run as root (they mount for, and start servers as, the user postgres)"
        );
        let base = std::env::var_os("WEFT_E2E_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let dir = tempfile::Builder::new()
            .prefix("wt")
            .tempdir_in(&base)
            .unwrap_or_else(|e| panic!("cannot make a directory in {}: {e}", base.display()));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let path = fs::canonicalize(dir.path()).expect("canonical path");
        Place { dir: Some(dir), path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A new empty directory `name`, owned by `user` alone.
    #[track_caller]
    pub fn dir_for(&self, user: &str, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir(&path).expect("mkdir");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("chmod");
        cmd::call("chown", &[user.as_ref(), path.as_os_str()]).ok();
        path
    }

    /// An empty ext4 filesystem of its own, mounted at `name`.
    #[track_caller]
    pub fn volume(&self, name: &str, mib: u64) -> PathBuf {
        let (image, point) = (self.join(&format!("{name}.img")), self.join(name));
        fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("make an image");
        fs::create_dir(&point).expect("mkdir");
        cmd::call("mkfs.ext4", &["-q".as_ref(), image.as_os_str()]).ok();
        cmd::call("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), point.as_os_str()]).ok();
        point
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        for pid in daemons_of(&self.path) {
            kill(pid);
        }
        for mount in mounts_below(&self.path) {
            detach(&mount);
        }
        if std::env::var_os("WEFT_E2E_KEEP").is_some() {
            eprintln!("kept: {}", dir.keep().display());
            return;
        }
        if let Err(e) = dir.close() {
            eprintln!("could not remove {}: {e}", self.path.display());
        }
    }
}

/// The living `weft` processes whose arguments name a path at or below `path`.
pub fn daemons_of(path: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if is_weft(pid) && names_path(pid, path) {
            found.push(pid);
        }
    }
    found
}

/// SIGKILL, and a wait until the process is gone (or a zombie that its parent has not collected).
pub fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    while is_running(pid) {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Mount points at or below `path`, the deepest first.
pub fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|mount| mount.starts_with(path))
        .collect();
    found.sort();
    found.reverse();
    found
}

/// Whether something is mounted exactly on `path`.
pub fn is_mounted(path: &Path) -> bool {
    mounts_below(path).iter().any(|mount| mount == path)
}

/// Lazy unmount.
pub fn detach(mount: &Path) {
    let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
}

fn is_weft(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| {
        let exe = exe.to_string_lossy();
        exe.trim_end_matches(" (deleted)").ends_with("/weft")
    })
}

fn names_path(pid: i32, path: &Path) -> bool {
    let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let path = path.as_os_str().as_encoded_bytes();
    arguments
        .split(|byte| *byte == 0)
        .any(|argument| argument.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'))
}

fn is_running(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// mountinfo writes space, tab, newline and backslash as octal.
fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}
