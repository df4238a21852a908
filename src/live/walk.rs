//! Looking at plain roots before they are taken in: what is there, and what differs from what is known.

use super::Live;
use super::content::Content;
use super::names::Held;
use super::node::Node;
use super::paths::{NOTICE, OWN_DIR, join_bytes};
use super::sparse;
use crate::disk::Stat;
use crate::error::{Error, Result};
use crate::format::checkpoint::Fingerprint;
use crate::format::event::{Birth, Event, Excluded, Slot};
use crate::sync::Arc;
use crate::types::{Attr, FileId, FileKind, Name, RootId};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// What a look at the roots found to be different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    pub adopted: u64,
    /// Known files whose bytes were changed: earlier versions that lived in them are gone.
    pub changed: u64,
    pub removed: u64,
}

/// One look.
struct Look<'a> {
    live: &'a Live,
    prints: &'a HashMap<FileId, Fingerprint>,
    root: RootId,
    /// The root's directory.
    top: FileId,
    dev: u64,
    by_inode: HashMap<u64, FileId>,
    /// The files in `by_inode`.
    seen: HashSet<FileId>,
    found: Differences,
}

/// How a file looks now, to be compared with its fingerprint.
pub fn fingerprint(stat: &Stat) -> Fingerprint {
    Fingerprint { ino: stat.ino, size: stat.attr.size, mtime: stat.attr.mtime, ctime: stat.attr.ctime }
}

impl Live {
    /// Compares the plain roots with the names and fingerprints known, and journals the differences: of a new root, all
    /// is new. Nothing in them is touched. Roots that nobody asked for leave the set.
    pub fn take_stock(&self, prints: &HashMap<FileId, Fingerprint>) -> Result<Differences> {
        let mut found = Differences::default();
        for (root, at) in self.unwanted_roots() {
            let mut look = Look::new(self, prints, root, at.file, 0, found);
            if self.tree.read().dirs.contains_key(&at.file) {
                look.missing(at.file, &[])?;
            }
            found = look.found;
            self.root_left(root, &at)?;
        }
        for root in &self.paths.roots {
            let stat = self.stat(&root.dir)?;
            let top = self.enter_root(root)?;
            let mut look = Look::new(self, prints, root.root, top, stat.dev, found);
            let known = self.tree.read().nodes.contains_key(&top);
            match known {
                true => look.attributes(top, &root.dir, &stat)?,
                false => drop(look.adopt(None, &root.dir, &stat)?),
            }
            look.directory(top, &root.dir, &stat)?;
            found = look.found;
            self.root_entered(root)?;
        }
        Ok(found)
    }

    fn stat(&self, path: &Path) -> Result<Stat> {
        self.disk.stat("stock.stat", path)?.ok_or_else(|| Error::errno("stock.stat", libc::ENOENT).at(path))
    }

    fn find(&self, dir: FileId, name: &[u8]) -> Result<Option<Arc<Node>>> {
        let tree = self.tree.read();
        Ok(match tree.find(dir, name)? {
            Some(file) => Some(Arc::clone(tree.node(file)?)),
            None => None,
        })
    }
}

impl<'a> Look<'a> {
    fn new(
        live: &'a Live,
        prints: &'a HashMap<FileId, Fingerprint>,
        root: RootId,
        top: FileId,
        dev: u64,
        found: Differences,
    ) -> Look<'a> {
        Look { live, prints, root, top, dev, by_inode: HashMap::new(), seen: HashSet::new(), found }
    }

    fn directory(&mut self, dir: FileId, path: &Path, stat: &Stat) -> Result<()> {
        let mut entries = self.live.disk.read_dir("stock.list", path)?;
        if dir == self.top {
            entries.retain(|entry| entry.name != OWN_DIR.as_bytes() && entry.name != NOTICE.as_bytes());
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        self.missing(dir, &entries.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>())?;
        for entry in entries {
            let below = join_bytes(path, &entry.name);
            let stat = self.live.stat(&below)?;
            if stat.dev != self.dev {
                return Err(Error::invalid(
                    "stock.list",
                    "another filesystem is mounted here; Weft covers one filesystem per root: unmount it or mount \
                     Weft elsewhere",
                )
                .at(&below));
            }
            let file = self.entry(dir, entry.name, &below, &stat)?;
            if stat.attr.kind == FileKind::Directory {
                self.directory(file, &below, &stat)?;
            }
        }
        self.attributes(dir, path, stat)
    }

    /// Names that are known and no longer there.
    fn missing(&mut self, dir: FileId, present: &[Name]) -> Result<()> {
        let known: Vec<Name> = self.live.tree.read().dir(dir)?.entries.keys().cloned().collect();
        for name in known {
            if present.binary_search(&name).is_err() {
                self.remove(dir, &name)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, dir: FileId, name: &[u8]) -> Result<()> {
        let Some(node) = self.live.find(dir, name)? else { return Ok(()) };
        if node.kind == FileKind::Directory {
            self.missing(node.file, &[])?;
            self.live.remove_dir(dir, name)?;
        } else {
            if node.kind == FileKind::Regular {
                // Its live file is gone with whatever history leaned on it.
                node.lock().content.exists = false;
            }
            self.live.unlink(dir, name)?;
        }
        self.found.removed += 1;
        Ok(())
    }

    /// One entry that is there: known, another link of a known file, or new.
    fn entry(&mut self, dir: FileId, name: Name, path: &Path, stat: &Stat) -> Result<FileId> {
        let known = self.live.find(dir, &name)?;
        let linked = match stat.attr.kind {
            FileKind::Directory => None,
            _ => self.by_inode.get(&stat.ino).copied(),
        };
        if let Some(node) = known {
            let same_file = linked.map_or(!self.seen.contains(&node.file), |file| file == node.file)
                || node.kind == FileKind::Directory;
            if same_file && self.is_kind(&node, path, stat)? {
                self.known(&node, path, stat)?;
                return Ok(node.file);
            }
            self.remove(dir, &name)?;
        }
        match linked {
            Some(file) => {
                self.captured_by_link(file, dir, &name)?;
                self.live.link(file, dir, &name)?;
                Ok(file)
            }
            None => self.adopt(Some(Slot { dir, name }), path, stat),
        }
    }

    /// Notes which file an inode is; whether one was noted before.
    fn note(&mut self, inode: u64, file: FileId) -> bool {
        self.seen.insert(file);
        self.by_inode.insert(inode, file).is_some()
    }

    /// A file of excluded names alone has got one that is not. Its bytes are durable before anything is served.
    fn captured_by_link(&self, file: FileId, dir: FileId, name: &[u8]) -> Result<()> {
        let tree = self.live.tree.write();
        if tree.would_exclude(dir, name, false) {
            return Ok(());
        }
        let node = tree.node(file)?;
        let mut state = node.lock();
        if state.content.direct {
            let attr = state.attr;
            self.live.emit(node, &mut state, &[], |_| Event::Capture { file, attr })?;
        }
        Ok(())
    }

    fn is_kind(&self, node: &Node, path: &Path, stat: &Stat) -> Result<bool> {
        Ok(node.kind == stat.attr.kind
            && match node.kind {
                FileKind::Symlink => self.live.disk.read_link("stock.readlink", path)? == node.target,
                FileKind::CharDevice | FileKind::BlockDevice => node.lock().attr.rdev == stat.attr.rdev,
                _ => true,
            })
    }

    fn known(&mut self, node: &Node, path: &Path, stat: &Stat) -> Result<()> {
        if node.kind != FileKind::Directory && self.note(stat.ino, node.file) {
            return Ok(());
        }
        if node.kind == FileKind::Regular && self.prints.get(&node.file) != Some(&fingerprint(stat)) {
            let mut state = node.lock();
            if state.content.direct {
                // It is what it is now; what the past had in it is gone.
                state.content = Content::bypassing(stat.attr.size);
                state.attr.size = stat.attr.size;
                drop(state);
                return self.attributes(node.file, path, stat);
            }
            let attr = Attr { nlink: state.attr.nlink, ..stat.attr };
            let event = Event::Rebase { file: node.file, attr, inode: stat.ino };
            self.live.emit(node, &mut state, &[], |_| event)?;
            drop(state);
            sparse::look(self.live, node, path, stat)?;
            self.found.changed += 1;
        }
        match node.kind {
            FileKind::Directory => Ok(()),
            _ => self.attributes(node.file, path, stat),
        }
    }

    fn adopt(&mut self, slot: Option<Slot>, path: &Path, stat: &Stat) -> Result<FileId> {
        let is_dir = stat.attr.kind == FileKind::Directory;
        let target = match stat.attr.kind {
            FileKind::Symlink => self.live.disk.read_link("stock.readlink", path)?,
            _ => Vec::new(),
        };
        let nlink = if is_dir { 2 } else { 1 };
        let size = if is_dir { 0 } else { stat.attr.size };
        let attr = Attr { nlink, size, ..stat.attr };
        let mut tree = self.live.tree.write();
        let parents = match &slot {
            Some(slot) => vec![Arc::clone(tree.node(slot.dir)?)],
            None => Vec::new(),
        };
        let mut held = Held::lock(&parents);
        let excluded = slot.as_ref().is_some_and(|slot| tree.would_exclude(slot.dir, &slot.name, is_dir));
        let dir_nlink = match &slot {
            Some(slot) => held.attr(slot.dir)?.nlink + u32::from(is_dir && !excluded),
            None => 0,
        };
        let file = if slot.is_some() { tree.allocate()? } else { self.top };
        let birth = Birth { file, root: self.root, slot, attr, target, dir_nlink };
        let event = Excluded::one(excluded).wrap(Event::Adopt { birth, inode: stat.ino });
        self.live.name_event(&mut tree, &mut held, |_| event)?;
        drop(held);
        drop(tree);
        if !is_dir {
            self.note(stat.ino, file);
            self.attributes(file, path, stat)?;
            let node = self.live.node(file)?;
            sparse::look(self.live, &node, path, stat)?;
        }
        self.found.adopted += 1;
        Ok(file)
    }

    /// Owner, mode, times and extended attributes as they are now.
    fn attributes(&self, file: FileId, path: &Path, stat: &Stat) -> Result<()> {
        let node = Arc::clone(self.live.tree.read().node(file)?);
        let present = self.live.disk.xattrs("stock.xattrs", path)?;
        let mut state = node.lock();
        let known: Vec<Name> = state.xattrs.keys().cloned().collect();
        for name in known {
            if present.iter().all(|(have, _)| *have != name) {
                self.live.emit(&node, &mut state, &[], |ts| Event::RemoveXattr { file, name, ctime: ts })?;
            }
        }
        for (name, value) in present {
            if state.xattrs.get(&name) != Some(&value) && name != super::paths::STORE_XATTR {
                self.live.emit(&node, &mut state, &[], |ts| Event::SetXattr {
                    file,
                    name,
                    value,
                    ctime: ts,
                })?;
            }
        }
        let now = state.attr;
        let attr = Attr { nlink: now.nlink, size: now.size, atime: now.atime, ctime: now.ctime, ..stat.attr };
        if attr != now {
            let attr = Attr { ctime: stat.attr.ctime, atime: stat.attr.atime, ..attr };
            let event = Event::SetAttr { file, attr, explicit_mtime: true, xattrs: Vec::new() };
            self.live.emit(&node, &mut state, &[], |_| event)?;
        }
        Ok(())
    }
}
