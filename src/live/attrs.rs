//! Attributes of the present: owner, mode, times, and the privileges that a change takes away.

use super::Live;
use super::content::SIZE_MAX;
use super::node::{Node, NodeState};
use crate::acl::{self, Acl};
use crate::error::{Error, Result};
use crate::format::event::{Event, XattrChanges};
use crate::journal::Claim;
use crate::types::{Attr, FileId, FileKind, FileTime};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;
/// File capabilities (capabilities(7)): they go with every change of bytes or owner, whoever makes it.
const CAPABILITY: &[u8] = b"security.capability";

/// A new time of a file.
#[derive(Clone, Copy, Debug)]
pub enum SetTime {
    Now,
    At(FileTime),
}

/// Fields of a SETATTR; `None` leaves a field alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    pub ctime: Option<FileTime>,
    /// chown(2), also one that changes nothing: setuid, setgid and capabilities go as for this caller.
    pub chown: Option<Caller>,
    /// The kernel's own batching of mtime (writeback cache), not a program's choice.
    pub from_kernel_cache: bool,
}

/// What a caller is to the setuid and setgid bits of a file (`setattr_should_drop_suidgid` in fs/attr.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Has CAP_FSETID.
    Privileged,
    /// In the file's group.
    Member,
    Stranger,
}

impl Caller {
    /// A mode after this caller changed the file's bytes.
    fn after_change(self, mode: u32) -> u32 {
        if self == Caller::Privileged { mode } else { self.after_chown(mode) }
    }

    /// A mode after this caller changed the owner: setgid goes where the group executes, and with strangers always.
    fn after_chown(self, mode: u32) -> u32 {
        let keeps_group = self != Caller::Stranger && mode & GROUP_EXECUTES == 0;
        mode & !SETUID & if keeps_group { !0 } else { !SETGID }
    }

    /// A mode after this caller set an ACL (`posix_acl_update_mode` in fs/posix_acl.c).
    pub(super) fn after_acl(self, mode: u32) -> u32 {
        if self == Caller::Stranger { mode & !SETGID } else { mode }
    }
}

impl Live {
    pub fn set_attr(&self, file: FileId, set: SetAttr) -> Result<Attr> {
        let node = self.node(file)?;
        let mut state = node.lock();
        if let Some(size) = set.size {
            match node.kind {
                FileKind::Regular if size <= SIZE_MAX => {}
                FileKind::Regular => return Err(Error::errno("live.setattr", libc::EFBIG)),
                FileKind::Directory => return Err(Error::errno("live.setattr", libc::EISDIR)),
                _ => return Err(Error::errno("live.setattr", libc::EINVAL)),
            }
        }
        self.check_owner(&node, &state.attr, &set)?;
        if let Some(size) = set.size {
            if size > state.attr.size {
                self.may_grow(node.root)?;
            }
            self.resize(&node, &mut state, size)?;
        }
        let others = set.mode.is_some() || set.uid.is_some() || set.gid.is_some() || set.chown.is_some();
        if others || set.atime.is_some() || set.mtime.is_some() || set.ctime.is_some() {
            self.set_fields(&node, &mut state, &set)?;
        }
        drop(state);
        self.attr(file)
    }

    /// Without privilege nobody else's ownership can be kept beneath.
    fn check_owner(&self, node: &Node, attr: &Attr, set: &SetAttr) -> Result<()> {
        let (uid, gid) = (set.uid.unwrap_or(attr.uid), set.gid.unwrap_or(attr.gid));
        if (uid, gid) == (attr.uid, attr.gid) { Ok(()) } else { self.check_ownable(node.root, uid, gid) }
    }

    fn set_fields(&self, node: &Node, state: &mut NodeState, set: &SetAttr) -> Result<()> {
        let mut attr = state.attr;
        let mut xattrs = XattrChanges::new();
        if let Some(mode) = set.mode {
            attr.mode = mode & 0o7777;
            xattrs.extend(chmod_acl(state, mode)?);
        }
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        if let Some(by) = set.chown.filter(|_| attr.kind != FileKind::Directory) {
            attr.mode = by.after_chown(attr.mode);
            if state.xattrs.contains_key(CAPABILITY) {
                xattrs.push((CAPABILITY.to_vec(), None));
            }
        }
        let data: FileTime = state.data_ts.into();
        // With fsync in writeback capture: it must not fail when the bytes did not.
        let claim = if set.from_kernel_cache { Claim::Owed } else { Claim::Upkeep };
        self.emit_as(claim, node, state, &[], |ts| {
            let at = |time: SetTime| match time {
                SetTime::Now => ts.into(),
                SetTime::At(time) => time,
            };
            attr.atime = set.atime.map_or(attr.atime, at);
            attr.mtime = set.mtime.map_or(attr.mtime, at);
            if set.from_kernel_cache && set.mtime.is_some() {
                // The kernel dates several writes with one earlier time: two states must not look alike.
                attr.mtime = attr.mtime.max(data);
            }
            attr.ctime = ts.into();
            let explicit_mtime = set.mtime.is_some() && !set.from_kernel_cache;
            Event::SetAttr { file: node.file, attr, explicit_mtime, xattrs }
        })?;
        Ok(())
    }

    /// Moves mtime and ctime of a file whose bytes were asked to change and did not.
    pub(super) fn touch(&self, node: &Node, state: &mut NodeState) -> Result<()> {
        let mut attr = state.attr;
        self.emit(node, state, &[], |ts| {
            (attr.mtime, attr.ctime) = (ts.into(), ts.into());
            Event::SetAttr { file: node.file, attr, explicit_mtime: false, xattrs: Vec::new() }
        })?;
        Ok(())
    }

    /// The attributes of a regular file that has setuid, setgid or capabilities.
    pub fn privileges(&self, file: FileId) -> Result<Option<Attr>> {
        let node = self.node(file)?;
        let state = node.lock();
        let has = state.attr.mode & (SETUID | SETGID) != 0 || state.xattrs.contains_key(CAPABILITY);
        Ok((node.kind == FileKind::Regular && has).then_some(state.attr))
    }

    /// Takes from a regular file what it must not keep when `by` changes its bytes. Before the change, so that no cut
    /// shows new bytes with old privileges.
    pub fn drop_privileges(&self, file: FileId, by: Caller) -> Result<()> {
        let node = self.node(file)?;
        let mut state = node.lock();
        let mut attr = state.attr;
        attr.mode = by.after_change(attr.mode);
        let capability = state.xattrs.contains_key(CAPABILITY).then(|| (CAPABILITY.to_vec(), None));
        if node.kind != FileKind::Regular || (attr.mode == state.attr.mode && capability.is_none()) {
            return Ok(());
        }
        self.emit(&node, &mut state, &[], |ts| {
            attr.ctime = ts.into();
            let xattrs = capability.into_iter().collect();
            Event::SetAttr { file, attr, explicit_mtime: false, xattrs }
        })?;
        Ok(())
    }
}

/// chmod(2) changes the ACL too, where there is one.
fn chmod_acl(state: &NodeState, mode: u32) -> Result<XattrChanges> {
    let Some(value) = state.xattrs.get(acl::ACCESS) else { return Ok(Vec::new()) };
    let list = Acl::decode(value)?.map(|list| list.with_mode(mode).encode());
    Ok(vec![(acl::ACCESS.to_vec(), list)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_takes_is_as_the_kernel_has_it() {
        let modes =
            |change: fn(Caller, u32) -> u32, by| [0o6755, 0o6745, 0o1644].map(|mode| change(by, mode));
        assert_eq!(modes(Caller::after_change, Caller::Privileged), [0o6755, 0o6745, 0o1644]);
        assert_eq!(modes(Caller::after_change, Caller::Member), [0o755, 0o2745, 0o1644]);
        assert_eq!(modes(Caller::after_change, Caller::Stranger), [0o755, 0o745, 0o1644]);
        assert_eq!(modes(Caller::after_chown, Caller::Privileged), [0o755, 0o2745, 0o1644]);
        assert_eq!(modes(Caller::after_acl, Caller::Member), [0o6755, 0o6745, 0o1644]);
        assert_eq!(modes(Caller::after_acl, Caller::Stranger), [0o4755, 0o4745, 0o1644]);
    }
}
