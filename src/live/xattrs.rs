//! Extended attributes of the present.

use super::Live;
use crate::error::{Error, Result};
use crate::format::event::Event;
use crate::types::{FileId, Name};

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

    /// `create` and `replace` as XATTR_CREATE and XATTR_REPLACE.
    pub fn set_xattr(
        &self,
        file: FileId,
        name: &[u8],
        value: &[u8],
        create: bool,
        replace: bool,
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
        let (name, value) = (name.to_vec(), value.to_vec());
        self.emit(&node, &mut state, &[], |ts| Event::SetXattr { file, name, value, ctime: ts })?;
        Ok(())
    }

    pub fn remove_xattr(&self, file: FileId, name: &[u8]) -> Result<()> {
        self.may_change(file, name)?;
        let node = self.node(file)?;
        let mut state = node.lock();
        if !state.xattrs.contains_key(name) {
            return Err(Error::errno("live.removexattr", libc::ENODATA));
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
