//! Who asks: what the kernel would decide by credentials that a FUSE request does not carry. The caller waits for its
//! answer meanwhile, so what /proc says of it holds.
//!
//! The kernel has flags for these decisions (FATTR_KILL_SUIDGID, FUSE_OPEN_KILL_SUIDGID, FUSE_SETXATTR_ACL_KILL_SGID);
//! fuser 0.18 does not show them, and cannot read a SETXATTR that has room for the last.

use fuser::Request;
use weft::engine::Caller;
use weft::types::Attr;

/// Numbers of capabilities(7).
const CAP_FOWNER: u32 = 3;
const CAP_FSETID: u32 = 4;

/// What the caller is to the setuid and setgid bits of a file of this group. Whatever cannot be found out counts
/// against it: bits that go are no danger.
pub fn of(req: &Request, gid: u32) -> Caller {
    let status = status(req);
    if may(req, &status, CAP_FSETID) {
        return Caller::Privileged;
    }
    if req.gid() == gid || groups(&status).any(|group| group == gid) {
        Caller::Member
    } else {
        Caller::Stranger
    }
}

/// What the caller is in a chown of a file. The group that it gives counts too where setuid goes: the kernel then sets
/// the mode after the group (`notify_change` and `setattr_copy` in fs/attr.c).
pub fn of_chown(req: &Request, attr: &Attr, gid: Option<u32>) -> Caller {
    let by = of(req, attr.gid);
    let stranger_there = || gid.is_some_and(|gid| of(req, gid) == Caller::Stranger);
    if attr.mode & libc::S_ISUID != 0 && stranger_there() { Caller::Stranger } else { by }
}

/// Whether the caller may change the mode of a file that belongs to `uid`.
pub fn owns(req: &Request, uid: u32) -> bool {
    req.uid() == uid || may(req, &status(req), CAP_FOWNER)
}

fn status(req: &Request) -> String {
    std::fs::read_to_string(format!("/proc/{}/status", req.pid())).unwrap_or_default()
}

/// Capabilities in another user namespace say nothing about files here.
fn may(req: &Request, status: &str, capability: u32) -> bool {
    has(status, capability) && same_namespace(req.pid())
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

fn has(status: &str, capability: u32) -> bool {
    let effective = field(status, "CapEff:").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|set| set & 1 << capability != 0)
}

fn groups(status: &str) -> impl Iterator<Item = u32> {
    field(status, "Groups:").unwrap_or_default().split_whitespace().filter_map(|group| group.parse().ok())
}

fn same_namespace(pid: u32) -> bool {
    let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/user")).ok();
    let ours = of("self");
    ours.is_some() && ours == of(&pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tpostgres\nGid:\t104\t104\t104\t104\nGroups:\t103 104 \nCapEff:\t0000000000000000\n";

    #[test]
    fn what_proc_says_is_read() {
        assert!(!has(STATUS, CAP_FSETID));
        assert!(has("CapEff:\t000001ffffffffff\n", CAP_FSETID));
        assert!(has("CapEff:\t0000000000000010\n", CAP_FSETID));
        assert!(!has("CapEff:\t000001ffffffffef\n", CAP_FSETID));
        assert!(has("CapEff:\t0000000000000008\n", CAP_FOWNER));
        assert!(!has("", CAP_FSETID));
        assert_eq!(groups(STATUS).collect::<Vec<_>>(), [103, 104]);
        assert_eq!(groups("").count(), 0);
    }

    #[test]
    fn this_process_is_in_its_own_namespace() {
        assert!(same_namespace(std::process::id()));
        assert!(!same_namespace(0));
    }
}
