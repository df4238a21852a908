//! Names of the past: `@ts=...`, `@seq=...` and `@tag=...` in the root of the mount, resolved by lookup and never listed.
//!
//! A tag is a directory of its own, not a link to one: `cp -a` and `find` do not follow links. As a tag can be taken back
//! and given to another instant, the kernel asks at every look whose it is; what it leads to never changes.

use crate::convert::file_attr;
use crate::handlers::{Answer, Found, WeftFs};
use crate::inode::{Node, Slot};
use crate::views::{Called, Open};
use fuser::Errno;
use std::time::Duration;
use weft::engine::{Resolution, View};
use weft::past::when::{self, Instant, ViewName};
use weft::types::{Attr, FileId, FileKind, FileTime, RootId, Seq};

/// Longest path that the kernel takes (path_resolution(7)).
const PATH_MAX: usize = 4096;

impl WeftFs {
    /// Looks a name up in the live tree, in a view, or as the name of a view.
    pub fn find(&self, dir: Node, name: &[u8]) -> Answer<Found> {
        match dir {
            Node::Live(top) if top == self.here.dir && when::is_reserved(name) => self.find_view(name),
            Node::Live(dir) => {
                let (file, attr) = self.told(self.core.lookup(dir, name))?;
                Ok(Found::live(self.live_attr(file, &attr)))
            }
            Node::View(slot, dir) => self.find_past(slot, dir, name),
            Node::Alias(_) => Err(Errno::ENOTDIR),
        }
    }

    /// A reserved name may not be made: the root of a mount is where views are looked up.
    pub fn may_be_named(&self, dir: Node, name: &[u8]) -> Answer<()> {
        let reserved = dir == Node::Live(self.here.dir) && when::is_reserved(name);
        if reserved { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Counts a handle of something in a view: both the view and its instant are held until it is closed.
    pub fn open_past(&self, slot: Slot) -> Answer<()> {
        let open = self.open_view(slot)?;
        self.views.hold(slot);
        self.core.open_past(open.view.seq());
        Ok(())
    }

    pub fn close_past(&self, slot: Slot) {
        if let Some(open) = self.views.get(slot) {
            self.core.release_past(open.view.seq());
        }
        self.views.release(slot, 1);
    }

    fn find_past(&self, slot: Slot, dir: FileId, name: &[u8]) -> Answer<Found> {
        let open = self.open_view(slot)?;
        let (file, attr) = self.told(open.view.lookup(dir, name))?.ok_or(Errno::ENOENT)?;
        let attr = self.as_shown(&open, file, attr)?;
        self.views.hold(slot);
        Ok(Found::past(self.past_attr(&open, file, &attr), open.generation))
    }

    fn find_view(&self, name: &[u8]) -> Answer<Found> {
        match when::parse_view_name(name, &self.zone) {
            ViewName::Canonical(instant) => self.enter(Called::At(instant)),
            ViewName::Alias(target) => self.find_alias(name, target),
            ViewName::Tag(tag) => self.find_tag(&tag),
            ViewName::NotAView | ViewName::Malformed(_) => Err(Errno::ENOENT),
        }
    }

    /// A symlink, but only to what can be resolved: another spelling of nothing is nothing.
    fn find_alias(&self, name: &[u8], target: String) -> Answer<Found> {
        if let ViewName::Canonical(instant) = when::parse_view_name(target.as_bytes(), &self.zone) {
            self.resolved(instant)?;
        }
        let number = self.views.alias(name, target);
        let attr = self.alias_attr(number).inspect_err(|_| self.views.forget_alias(number, 1))?;
        Ok(Found::past(file_attr(self.ino(Node::Alias(number)), &attr), 0))
    }

    fn find_tag(&self, name: &str) -> Answer<Found> {
        let tag = self.core.find_tag(name).map_err(|_| Errno::ENOENT)?;
        let found = self.enter(Called::Tag { name: name.into(), at: tag.at })?;
        Ok(Found { name_ttl: Duration::ZERO, ..found })
    }

    fn enter(&self, called: Called) -> Answer<Found> {
        let open = match self.views.enter(&called) {
            Some(open) => open,
            None => self.resolve(called)?,
        };
        let top = self.told(open.view.root(&self.here.name)).and_then(|top| {
            // At that instant the set did not have this root yet, or no more.
            let top = top.ok_or(Errno::ENOENT)?;
            Ok((top, self.told(open.view.attr(top))?))
        });
        let (top, attr) = top.inspect_err(|_| self.views.release(open.slot, 1))?;
        Ok(Found::past(self.past_attr(&open, top, &attr), open.generation))
    }

    fn resolve(&self, called: Called) -> Answer<Open<View>> {
        let view = self.told(self.core.view(self.resolved(called.instant())?))?;
        self.views.add(called, view).ok_or(Errno::ENFILE)
    }

    fn resolved(&self, instant: Instant) -> Answer<Seq> {
        match self.told(self.core.try_resolve(instant))? {
            Resolution::Found(found) => Ok(found.seq),
            Resolution::Pruned { .. } => Err(Errno::ESTALE),
            Resolution::Future { .. } | Resolution::Before { .. } => Err(Errno::ENOENT),
        }
    }

    /// A symlink of a view is as long as what it shows.
    pub fn as_shown(&self, open: &Open<View>, file: FileId, mut attr: Attr) -> Answer<Attr> {
        if attr.kind == FileKind::Symlink {
            attr.size = self.past_link(open, file)?.len() as u64;
        }
        Ok(attr)
    }

    /// Where a symlink of a view leads: never into a live root.
    pub fn past_link(&self, open: &Open<View>, file: FileId) -> Answer<Vec<u8>> {
        let called = open.called.instant().view_name();
        let target = self.told(self.links.shown(&open.view, &called, self.here.number, file))?;
        // The kernel takes a page; a target cut short would lead elsewhere.
        if target.len() < PATH_MAX { Ok(target) } else { Err(Errno::ENAMETOOLONG) }
    }

    /// Says so when a link that was just made takes a part of the database out of reach.
    pub fn note_link(&self, dir: Node, name: &[u8], target: &[u8]) {
        if let (Node::Live(dir), RootId(0)) = (dir, self.here.root)
            && let Some(complaint) = self.links.complaint_of(&self.core, dir, name, target)
        {
            tracing::warn!("{complaint}");
        }
    }

    /// Attributes of an alias symlink: owned by root, as old as time itself, since it was always there.
    pub fn alias_attr(&self, number: u64) -> Answer<Attr> {
        let target = self.views.target(number).ok_or(Errno::ESTALE)?;
        Ok(Attr {
            kind: FileKind::Symlink,
            mode: 0o777,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: 1,
            size: target.len() as u64,
            atime: FileTime::default(),
            mtime: FileTime::default(),
            ctime: FileTime::default(),
        })
    }
}
