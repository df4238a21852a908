//! Names of the past: `@ts=...` and `@seq=...` in the root of the mount, resolved by lookup and never listed.

use crate::convert::file_attr;
use crate::handlers::{Answer, Found, WeftFs};
use crate::inode::{Node, Slot};
use crate::views::Open;
use fuser::Errno;
use weft::engine::{Resolution, View};
use weft::past::when::{self, Instant, ViewName};
use weft::types::{Attr, FileId, FileKind, FileTime, Seq};

impl WeftFs {
    /// Looks a name up in the live tree, in a view, or as the name of a view.
    pub fn find(&self, dir: Node, name: &[u8]) -> Answer<Found> {
        match dir {
            Node::Live(FileId::ROOT) if when::is_reserved(name) => self.find_view(name),
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
        let reserved = dir == Node::Live(FileId::ROOT) && when::is_reserved(name);
        if reserved { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn find_past(&self, slot: Slot, dir: FileId, name: &[u8]) -> Answer<Found> {
        let open = self.open_view(slot)?;
        let (file, attr) = self.told(open.view.lookup(dir, name))?.ok_or(Errno::ENOENT)?;
        self.views.hold(slot);
        Ok(Found::past(self.past_attr(&open, file, &attr), open.generation))
    }

    fn find_view(&self, name: &[u8]) -> Answer<Found> {
        match when::parse_view_name(name, &self.zone) {
            ViewName::Canonical(instant) => self.enter(instant),
            ViewName::Alias(target) => self.find_alias(name, target),
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
        Ok(Found::past(file_attr(Node::Alias(number), &attr), 0))
    }

    fn enter(&self, instant: Instant) -> Answer<Found> {
        let open = match self.views.enter(instant) {
            Some(open) => open,
            None => self.resolve(instant)?,
        };
        let attr =
            self.told(open.view.attr(FileId::ROOT)).inspect_err(|_| self.views.release(open.slot, 1))?;
        Ok(Found::past(self.past_attr(&open, FileId::ROOT, &attr), open.generation))
    }

    fn resolve(&self, instant: Instant) -> Answer<Open<View>> {
        let view = self.told(self.core.view(self.resolved(instant)?))?;
        self.views.add(instant, view).ok_or(Errno::ENFILE)
    }

    fn resolved(&self, instant: Instant) -> Answer<Seq> {
        match self.told(self.core.resolve(instant))? {
            Resolution::Found(found) => Ok(found.seq),
            Resolution::Pruned { .. } => Err(Errno::ESTALE),
            Resolution::Future { .. } | Resolution::Before { .. } => Err(Errno::ENOENT),
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
