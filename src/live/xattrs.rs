//! Extended attributes of the present. The two ACLs are attributes with a meaning: one changes the mode with it.

use super::Live;
use super::attrs::Caller;
use super::node::{Node, NodeState};
use crate::acl::{self, Acl};
use crate::error::{Error, Result};
use crate::format::event::Event;
use crate::types::{FileId, FileKind, Name};

/// Longest extended attribute name and value, as the kernel has them.
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 65_536;
/// On the root these are Weft's own: DATA's mark while it is plain, and what views tell of themselves.
const RESERVED: &[u8] = b"user.weft.";

impl Live {
    /// One attribute's value.
    pub fn xattr(&self, file: FileId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.node(file)?.lock().xattrs.get(name).cloned())
    }

    pub fn xattr_names(&self, file: FileId) -> Result<Vec<Name>> {
        Ok(self.node(file)?.lock().xattrs.keys().cloned().collect())
    }

    /// `create` and `replace` as XATTR_CREATE and XATTR_REPLACE. `by` counts for ACLs.
    pub fn set_xattr(
        &self,
        file: FileId,
        name: &[u8],
        value: &[u8],
        (create, replace): (bool, bool),
        by: Caller,
    ) -> Result<()> {
        if name.is_empty() || name.len() > XATTR_NAME_MAX {
            return Err(Error::errno("live.setxattr", libc::ERANGE));
        }
        if value.len() > XATTR_SIZE_MAX {
            return Err(Error::errno("live.setxattr", libc::E2BIG));
        }
        self.may_change(file, name)?;
        let guarded = name.starts_with(b"trusted.") || name.starts_with(b"security.");
        if guarded && !self.limits.privileged {
            return Err(Error::errno("live.setxattr", libc::EPERM));
        }
        let node = self.node(file)?;
        let mut state = node.lock();
        let present = state.xattrs.contains_key(name);
        if create && present {
            return Err(Error::errno("live.setxattr", libc::EEXIST));
        }
        if replace && !present {
            return Err(Error::errno("live.setxattr", libc::ENODATA));
        }
        let others = state.xattrs.iter().filter(|(other, _)| *other != name);
        self.check_xattrs(
            (node.root, node.kind),
            others.map(|(name, value)| (&name[..], &value[..])).chain([(name, value)]),
        )?;
        match name {
            acl::ACCESS | acl::DEFAULT => self.set_acl(&node, &mut state, name, value, by),
            // The value it has already: nothing happens, as on ext4.
            _ if state.xattrs.get(name).is_some_and(|present| present == value) => Ok(()),
            _ => {
                let (name, value) = (name.to_vec(), value.to_vec());
                self.emit(&node, &mut state, &[], |ts| Event::SetXattr { file, name, value, ctime: ts })?;
                Ok(())
            }
        }
    }

    /// Sets an ACL, and the mode that stands for it, in one event. A list that says no more than a mode is not kept.
    fn set_acl(
        &self,
        node: &Node,
        state: &mut NodeState,
        name: &[u8],
        value: &[u8],
        by: Caller,
    ) -> Result<()> {
        let is_access = name == acl::ACCESS;
        match node.kind {
            FileKind::Symlink => return Err(Error::errno("live.setacl", libc::EOPNOTSUPP)),
            FileKind::Directory => {}
            _ if is_access => {}
            _ => return Err(Error::errno("live.setacl", libc::EACCES)),
        }
        let list = Acl::decode(value)?;
        let mut attr = state.attr;
        if let (true, Some(list)) = (is_access, &list) {
            attr.mode = by.after_acl(attr.mode & !0o777 | list.mode());
        }
        let kept = list.filter(|list| !is_access || list.is_extended()).map(|list| list.encode());
        if attr == state.attr && state.xattrs.get(name) == kept.as_ref() {
            return Ok(());
        }
        let xattrs = vec![(name.to_vec(), kept)];
        self.emit(node, state, &[], |ts| {
            attr.ctime = ts.into();
            Event::SetAttr { file: node.file, attr, explicit_mtime: false, xattrs }
        })?;
        Ok(())
    }

    pub fn remove_xattr(&self, file: FileId, name: &[u8]) -> Result<()> {
        self.may_change(file, name)?;
        let node = self.node(file)?;
        let mut state = node.lock();
        if !state.xattrs.contains_key(name) {
            // Taking away an ACL that is not there is no error (`vfs_remove_acl`): setfacl -b does it.
            let is_acl = name == acl::ACCESS || name == acl::DEFAULT;
            return if is_acl { Ok(()) } else { Err(Error::errno("live.removexattr", libc::ENODATA)) };
        }
        let name = name.to_vec();
        self.emit(&node, &mut state, &[], |ts| Event::RemoveXattr { file, name, ctime: ts })?;
        Ok(())
    }

    /// What Weft keeps on the directory of a root is not a program's to change.
    fn may_change(&self, file: FileId, name: &[u8]) -> Result<()> {
        let is_root =
            || file == FileId::ROOT || self.tree.read().roots.values().any(|root| root.file == file);
        match name.starts_with(RESERVED) && is_root() {
            true => Err(Error::errno("live.xattr", libc::EPERM)),
            false => Ok(()),
        }
    }
}
