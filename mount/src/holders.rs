//! Who uses a directory tree: a scan of /proc. Links are read and (but for containers) never followed, so that a scan does
//! not wait for the filesystem it asks about.

use crate::mountinfo::Mount;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A process that holds something, and what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    pub pid: u32,
    pub command: String,
    /// `has PATH open`, `has its working directory in PATH`, `maps PATH`.
    pub how: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({}) {}", self.pid, self.command, self.how)
    }
}

/// The first few, for a message of one line.
pub fn describe(holders: &[Holder]) -> String {
    const SHOWN: usize = 5;
    let mut text = holders.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if holders.len() > SHOWN {
        text.push_str(&format!("; and {} more", holders.len() - SHOWN));
    }
    text
}

/// Processes but this one that use anything in a plain directory tree. In another mount namespace (a container) the same
/// directory has other paths: there a process is known by its working directory, which for a database server is its
/// data directory.
pub fn in_tree(root: &Path) -> Vec<Holder> {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let ours = fs::read_link("/proc/self/ns/mnt").ok();
    let wanted = identity(root);
    processes(|process| {
        let inside = |link: &Path| link.starts_with(root);
        let theirs = fs::read_link(process.dir.join("ns/mnt")).ok();
        if theirs.is_some() && theirs != ours {
            let here = wanted.is_some() && identity(&process.dir.join("cwd")) == wanted;
            return here.then(|| "has it as its working directory, from a container".into());
        }
        process
            .link_to(inside)
            .or_else(|| process.descriptor(|_, link| inside(link)))
            .or_else(|| process.maps(|_, path| inside(path)))
    })
}

/// Processes but this one that use anything through a mount.
pub fn on_mount(mount: &Mount) -> Vec<Holder> {
    let device = format!("{:02x}:{:02x}", mount.major, mount.minor);
    processes(|process| {
        process
            .link_to(|link| link.starts_with(&mount.point))
            .or_else(|| process.descriptor(|fd, _| process.mount_of(fd) == Some(mount.id)))
            .or_else(|| process.maps(|dev, _| dev == device))
    })
}

struct Process {
    pid: u32,
    dir: PathBuf,
}

/// Processes that end meanwhile, or that this user may not look into, are passed over.
fn processes(how: impl Fn(&Process) -> Option<String>) -> Vec<Holder> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let process = Process { pid, dir: PathBuf::from(format!("/proc/{pid}")) };
            let how = how(&process)?;
            Some(Holder { pid: process.pid, command: process.command(), how })
        })
        .collect()
}

impl Process {
    fn command(&self) -> String {
        fs::read_to_string(self.dir.join("comm"))
            .map_or_else(|_| "?".into(), |name| name.trim_end().to_string())
    }

    fn link_to(&self, inside: impl Fn(&Path) -> bool) -> Option<String> {
        let kinds = [("cwd", "has its working directory in"), ("root", "has its root in"), ("exe", "runs")];
        kinds.iter().find_map(|(link, what)| {
            let target = fs::read_link(self.dir.join(link)).ok()?;
            inside(&target).then(|| format!("{what} {}", target.display()))
        })
    }

    fn descriptor(&self, held: impl Fn(&str, &Path) -> bool) -> Option<String> {
        fs::read_dir(self.dir.join("fd")).ok()?.flatten().find_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let name = entry.file_name();
            held(name.to_str()?, &target).then(|| format!("has {} open", target.display()))
        })
    }

    /// The mount that an open file was opened through (proc_pid_fdinfo(5)).
    fn mount_of(&self, fd: &str) -> Option<u64> {
        let info = fs::read_to_string(self.dir.join("fdinfo").join(fd)).ok()?;
        info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
    }

    /// proc_pid_maps(5): address, permissions, offset, device, inode, path.
    fn maps(&self, held: impl Fn(&str, &Path) -> bool) -> Option<String> {
        let maps = fs::read(self.dir.join("maps")).ok()?;
        let maps = String::from_utf8_lossy(&maps);
        maps.lines().find_map(|line| {
            let mut fields = line.splitn(6, ' ');
            let device = fields.nth(3)?;
            let path = fields.nth(1)?.trim_start();
            (path.starts_with('/') && held(device, Path::new(path))).then(|| format!("maps {path}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_in_a_tree_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        assert_eq!(in_tree(&root), []);
        let mut child =
            Command::new("sleep").arg("60").current_dir(&root).stdin(Stdio::null()).spawn().unwrap();
        let holders = in_tree(&root);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(holders.len(), 1);
        assert_eq!((holders[0].pid, holders[0].command.as_str()), (child.id(), "sleep"));
        assert!(holders[0].how.contains("working directory"), "{}", holders[0]);
    }

    #[test]
    fn an_open_file_is_seen_and_a_sibling_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("data")).unwrap();
        let file = fs::File::create(root.join("data/x")).unwrap();
        let mut child = Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
        let (inside, beside) = (in_tree(&root.join("data")), in_tree(&root.join("dat")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(inside.iter().any(|holder| holder.how.contains("data/x open")), "{inside:?}");
        assert_eq!(beside, []);
    }

    #[test]
    fn long_lists_are_cut() {
        let holder = |pid| Holder { pid, command: "c".into(), how: "has /x open".into() };
        let text = describe(&(1..=7).map(holder).collect::<Vec<_>>());
        assert!(text.starts_with("process 1 (c) has /x open; ") && text.ends_with("; and 2 more"), "{text}");
    }
}
