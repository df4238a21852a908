//! One file, directory, link or node of the simulated disk.

use super::changes::ChangeId;
use super::content::Content;
use super::world::NodeId;
use crate::types::{Attr, FileKind, FileTime, Name, PAGE};
use std::collections::BTreeMap;

/// The inode's own fields.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) atime: FileTime,
    pub(super) mtime: FileTime,
    pub(super) ctime: FileTime,
    pub(super) xattrs: BTreeMap<Name, Vec<u8>>,
}

#[derive(Clone, Default)]
pub(super) struct Entries {
    pub(super) now: BTreeMap<Name, NodeId>,
    pub(super) durable: BTreeMap<Name, NodeId>,
}

#[derive(Clone)]
pub(super) enum Body {
    File(Content),
    Dir(Entries),
    Link(Vec<u8>),
    Other,
}

#[derive(Clone)]
pub(super) struct Node {
    /// The filesystem it is on.
    pub(super) fs: u64,
    pub(super) ino: u64,
    pub(super) kind: FileKind,
    pub(super) meta: Meta,
    pub(super) durable_meta: Meta,
    pub(super) meta_pending: bool,
    pub(super) body: Body,
    /// Names seen now.
    pub(super) links: u32,
    /// Directories among a directory's entries.
    pub(super) subdirs: u32,
    pub(super) opens: u32,
    /// Names, handles, durable names and mentions in pending changes.
    pub(super) holds: u32,
    /// Changes that took names away.
    pub(super) removals: Vec<ChangeId>,
    /// Changes that freed the node's number: every name of it needs them.
    pub(super) freed_by: Vec<ChangeId>,
    /// The newest change that gave the node a name.
    pub(super) placed: Option<ChangeId>,
}

impl Node {
    pub(super) fn attr(&self) -> Attr {
        let size = match &self.body {
            Body::File(content) => content.len(),
            Body::Link(target) => target.len() as u64,
            Body::Dir(_) | Body::Other => 0,
        };
        let nlink = match self.kind {
            FileKind::Directory if self.links > 0 => 2 + self.subdirs,
            _ => self.links,
        };
        Attr {
            kind: self.kind,
            mode: self.meta.mode,
            uid: self.meta.uid,
            gid: self.meta.gid,
            rdev: self.meta.rdev,
            nlink,
            size,
            atime: self.meta.atime,
            mtime: self.meta.mtime,
            ctime: self.meta.ctime,
        }
    }

    pub(super) fn allocated(&self) -> u64 {
        match &self.body {
            Body::File(content) => content.allocated_pages() * PAGE,
            _ => 0,
        }
    }

    pub(super) fn sync_meta(&mut self) {
        if self.meta_pending {
            self.durable_meta = self.meta.clone();
            self.meta_pending = false;
        }
    }

    pub(super) fn sync(&mut self) {
        self.sync_meta();
        if let Body::File(content) = &mut self.body {
            content.sync();
        }
    }
}
