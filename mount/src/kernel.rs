//! Mounting and unmounting. Done here and not by fuser: its unmount falls back to a lazy one, and a database must not
//! lose its directory while files are open.

use crate::Outcome;
use crate::mountinfo::{FSTYPE, source_of};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use std::fs::{File, OpenOptions};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether this process may use mount(2) itself.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Opens /dev/fuse to see whether it is there.
///
/// # Errors
/// One line saying what to do.
pub fn open_device() -> Outcome<File> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|cause| match cause.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "no /dev/fuse: load the module with `modprobe fuse` (in a container: give it the device)".into()
        }
        Some(libc::EACCES | libc::EPERM) => {
            "cannot open /dev/fuse: mount as root, or `chmod 0666 /dev/fuse` as distributions ship it".into()
        }
        _ => format!("cannot open /dev/fuse: {cause}"),
    })
}

/// The setuid helper that mounts for ordinary users.
pub fn helper() -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join("fusermount3"))
        .find(|file| file.is_file())
        .ok_or_else(|| "no fusermount3: install the package fuse3, or mount as root".into())
}

/// Whether /etc/fuse.conf lets ordinary users share a mount.
fn others_allowed() -> bool {
    let conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    conf.lines().any(|line| line.trim() == "user_allow_other")
}

/// A fresh connection of /dev/fuse, mounted.
pub struct Mounted {
    pub device: OwnedFd,
    /// Other users may use it.
    pub shared: bool,
}

/// Mounts over `point`. As root by mount(2), open to all users under the usual permissions; otherwise by fusermount3.
pub fn mount_over(point: &Path, store: &Path) -> Outcome<Mounted> {
    let source = source_of(store);
    if !is_root() {
        return mount_by_helper(point, &source);
    }
    let device = open_device()?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(source.as_str()), point, Some(FSTYPE), flags, Some(options.as_str()))
        .map_err(|errno| format!("cannot mount over {}: {}", point.display(), errno.desc()))?;
    Ok(Mounted { device: device.into(), shared: true })
}

/// The helper passes the device back over the socket named in `_FUSE_COMMFD` (fusermount3(1), libfuse lib/mount.c).
fn mount_by_helper(point: &Path, source: &str) -> Outcome<Mounted> {
    let failed = |cause: std::io::Error| format!("cannot run fusermount3: {cause}");
    let shared = others_allowed();
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let fd = theirs.as_raw_fd();
    let other = if shared { ",allow_other" } else { "" };
    let mut command = Command::new(helper()?);
    command
        .arg("-o")
        .arg(format!("fsname={source},subtype=weft,default_permissions,nosuid,nodev{other}"))
        .arg("--")
        .arg(point)
        .env("_FUSE_COMMFD", fd.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // SAFETY: the closure only calls fcntl, which is async-signal-safe, on a descriptor that outlives the child's start.
    unsafe {
        command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let child = command.spawn().map_err(failed)?;
    drop(theirs);
    let device = receive_descriptor(&ours);
    let ended = child.wait_with_output().map_err(failed)?;
    match device {
        Some(device) => Ok(Mounted { device, shared }),
        None => {
            let said = String::from_utf8_lossy(&ended.stderr);
            Err(format!("cannot mount over {}: {}", point.display(), said.trim().replace('\n', "; ")))
        }
    }
}

fn receive_descriptor(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0u8];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = loop {
        match recvmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(Errno::EINTR) => {}
            other => break other.ok()?,
        }
    };
    message.cmsgs().ok()?.find_map(|control| match control {
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        ControlMessageOwned::ScmRights(fds) => fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }),
        _ => None,
    })
}

/// Why an unmount did not happen.
#[derive(Debug)]
pub enum NotUnmounted {
    /// Something is open in it.
    Busy,
    Other(String),
}

/// Unmounts, unless something is in use.
pub fn unmount(point: &Path) -> Result<(), NotUnmounted> {
    if !is_root() {
        return unmount_by_helper(point, &["-u"]);
    }
    match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(NotUnmounted::Busy),
        Err(errno) => Err(NotUnmounted::Other(errno.desc().into())),
    }
}

/// Takes away the mount of a daemon that is dead. Nothing can be lost: what was open there fails already.
pub fn clear_dead(point: &Path) -> Outcome<()> {
    let cleared = if is_root() {
        umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(|errno| errno.desc().to_string())
    } else {
        unmount_by_helper(point, &["-u", "-z"]).map_err(|cause| match cause {
            NotUnmounted::Busy => "busy".into(),
            NotUnmounted::Other(cause) => cause,
        })
    };
    cleared.map_err(|cause| {
        let shown = point.display();
        format!(
            "cannot take away the dead mount at {shown} ({cause}): run `fusermount3 -uz {shown}` as its owner"
        )
    })
}

fn unmount_by_helper(point: &Path, flags: &[&str]) -> Result<(), NotUnmounted> {
    let helper = helper().map_err(NotUnmounted::Other)?;
    let run = Command::new(helper).args(flags).arg("--").arg(point).env("LC_ALL", "C").output();
    let ended = run.map_err(|cause| NotUnmounted::Other(format!("fusermount3: {cause}")))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr).trim().to_string();
    if said.contains("busy") { Err(NotUnmounted::Busy) } else { Err(NotUnmounted::Other(said)) }
}

/// Lets the kernel read ahead 1 MiB in this mount; FUSE alone stops at 128 KiB. Only root may, and it is only speed.
pub fn widen_readahead(major: u32, minor: u32) {
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(cause) = std::fs::write(&path, "1024") {
        tracing::debug!("{path}: {cause}: reading ahead less");
    }
}

/// Share of the machine's dirty pages that a FUSE mount may have by default, in millionths: 1 % (fs/fuse/inode.c,
/// `fuse_bdi_init`), and strictly so.
const DIRTY_SHARE: u64 = 10_000;

/// Bytes of dirty pages that the machine allows at most, by `vm.dirty_bytes` or `vm.dirty_ratio` of all its memory.
fn dirty_limit() -> Option<u64> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    match number("/proc/sys/vm/dirty_bytes")? {
        0 => {
            let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
            let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            let total_kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(total_kib * 1_024 / 100 * number("/proc/sys/vm/dirty_ratio")?)
        }
        bytes => Some(bytes),
    }
}

/// What the kernel may hold of one mount when nobody has told it otherwise.
pub fn default_dirty_bytes() -> u64 {
    dirty_limit().map_or(64 << 20, |limit| limit / 1_000_000 * DIRTY_SHARE)
}

/// Sees that the kernel holds no more than `bytes` of a mount's pages before it makes writers wait. Only root may; who is
/// not has a reserve for what is the default.
pub fn bound_dirty(major: u32, minor: u32, bytes: u64) {
    if !is_root() {
        return;
    }
    let Some(limit) = dirty_limit() else {
        return tracing::warn!("cannot read the limits of /proc/sys/vm: dirty pages are bounded as usual");
    };
    let share = (bytes.saturating_mul(1_000_000) / limit.max(1)).clamp(1, DIRTY_SHARE);
    let dir = format!("/sys/class/bdi/{major}:{minor}");
    for (file, value) in [("strict_limit", 1), ("max_ratio_fine", share)] {
        if let Err(cause) = std::fs::write(format!("{dir}/{file}"), value.to_string()) {
            tracing::warn!("{dir}/{file}: {cause}: the kernel may hold more than the reserve is for");
        }
    }
}
