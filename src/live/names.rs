//! Names and attributes of the present.

use super::Live;
use super::node::{Node, NodeState};
use super::tree::Tree;
use crate::acl::{self, Acl};
use crate::error::{Error, Result};
use crate::format::event::{Birth, Event, Slot, Xattrs};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard};
use crate::types::{Attr, FileId, FileKind, FileTime, NAME_MAX, Name, Timestamp};

/// Most links of one file, as ext4 has it.
const LINK_MAX: u32 = 65_000;
/// What to make.
#[derive(Clone, Debug)]
pub struct NewFile {
    pub kind: FileKind,
    /// Permission bits as the caller asked for them.
    pub mode: u32,
    /// What the caller's umask takes away, unless the directory has a default ACL.
    pub umask: u32,
    pub rdev: u32,
    /// Symlink target; empty otherwise.
    pub target: Vec<u8>,
    pub uid: u32,
    pub gid: u32,
}

/// One entry of a directory listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub name: Name,
    pub file: FileId,
    pub kind: FileKind,
}

/// Flags of `renameat2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

fn check_name(op: &'static str, name: &[u8]) -> Result<()> {
    match name {
        [] | b"." | b".." => Err(Error::errno(op, libc::EINVAL)),
        _ if name.len() > NAME_MAX => Err(Error::errno(op, libc::ENAMETOOLONG)),
        _ if name.contains(&b'/') || name.contains(&0) => Err(Error::errno(op, libc::EINVAL)),
        _ => Ok(()),
    }
}

/// Each root is a mount of its own, perhaps on a filesystem of its own.
fn same_root(op: &'static str, tree: &Tree, left: FileId, right: FileId) -> Result<()> {
    match tree.node(left)?.root == tree.node(right)?.root {
        true => Ok(()),
        false => Err(Error::errno(op, libc::EXDEV)),
    }
}

fn subdirs_change(nlink: u32, gained: bool, lost: bool) -> u32 {
    (nlink + u32::from(gained)).saturating_sub(u32::from(lost))
}

fn slot(at: (FileId, &[u8])) -> Slot {
    Slot { dir: at.0, name: at.1.to_vec() }
}

/// The mode of a new file, and the ACLs that it has from its directory's default one.
fn inherit_acl(new: &NewFile, default: Option<&Vec<u8>>) -> Result<(u32, Xattrs)> {
    let mode = new.mode & 0o7777;
    let default = default.filter(|_| new.kind != FileKind::Symlink);
    let Some(value) = default else { return Ok((mode & !new.umask, Vec::new())) };
    let Some(list) = Acl::decode(value)? else { return Ok((mode & !new.umask, Vec::new())) };
    let (mode, own) = list.inherited(mode);
    let mut xattrs: Xattrs = own.map(|own| (acl::ACCESS.to_vec(), own.encode())).into_iter().collect();
    if new.kind == FileKind::Directory {
        xattrs.push((acl::DEFAULT.to_vec(), value.clone()));
    }
    Ok((mode, xattrs))
}

/// The nodes that a naming event changes, locked. Only one thread at a time holds several: it has the tree.
pub(super) struct Held<'a>(Vec<(FileId, MutexGuard<'a, NodeState>)>);

impl<'a> Held<'a> {
    pub(super) fn lock(nodes: &'a [Arc<Node>]) -> Held<'a> {
        let mut guards: Vec<(FileId, MutexGuard<'a, NodeState>)> = Vec::with_capacity(nodes.len());
        for node in nodes {
            if guards.iter().all(|(file, _)| *file != node.file) {
                guards.push((node.file, node.lock()));
            }
        }
        Held(guards)
    }

    fn state(&mut self, file: FileId) -> Option<&mut NodeState> {
        self.0.iter_mut().find(|(held, _)| *held == file).map(|(_, guard)| &mut **guard)
    }

    pub(super) fn attr(&self, file: FileId) -> Result<Attr> {
        let found = self.0.iter().find(|(held, _)| *held == file).map(|(_, guard)| guard.attr);
        found.ok_or_else(|| Error::errno("live.names", libc::ESTALE))
    }

    fn xattr(&self, file: FileId, name: &[u8]) -> Option<&Vec<u8>> {
        self.0.iter().find(|(held, _)| *held == file)?.1.xattrs.get(name)
    }

    /// The attributes of what still has a name; ENOENT otherwise.
    fn living(&self, file: FileId) -> Result<Attr> {
        match self.attr(file)? {
            attr if attr.nlink > 0 => Ok(attr),
            _ => Err(Error::errno("live.names", libc::ENOENT)),
        }
    }
}

impl Live {
    /// What stands at a name, with its attributes.
    pub fn lookup(&self, dir: FileId, name: &[u8]) -> Result<(FileId, Attr)> {
        if name.len() > NAME_MAX {
            return Err(Error::errno("live.lookup", libc::ENAMETOOLONG));
        }
        let node = Arc::clone(self.tree.read().lookup(dir, name)?);
        let attr = node.lock().attr;
        Ok((node.file, attr))
    }

    pub(super) fn node(&self, file: FileId) -> Result<Arc<Node>> {
        Ok(Arc::clone(self.tree.read().node(file)?))
    }

    pub fn attr(&self, file: FileId) -> Result<Attr> {
        Ok(self.node(file)?.lock().attr)
    }

    pub fn read_link(&self, file: FileId) -> Result<Vec<u8>> {
        let node = self.node(file)?;
        match node.kind {
            FileKind::Symlink => Ok(node.target.clone()),
            _ => Err(Error::errno("live.readlink", libc::EINVAL)),
        }
    }

    /// The directory that holds a directory; the root holds itself.
    pub fn parent(&self, dir: FileId) -> Result<FileId> {
        Ok(self.tree.read().dir(dir)?.parent)
    }

    /// Entries after `after`, in byte order.
    pub fn read_dir(&self, dir: FileId, after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        use std::ops::Bound;
        let tree = self.tree.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = tree.dir(dir)?.entries.range::<[u8], _>((from, Bound::Unbounded));
        entries
            .take(limit)
            .map(|(name, file)| Ok(Entry { name: name.clone(), file: *file, kind: tree.node(*file)?.kind }))
            .collect()
    }

    /// Appends a naming event and applies it. The caller holds the tree and every node that the event changes, so
    /// that the attributes in the event are those of its own moment.
    pub(super) fn name_event(
        &self,
        tree: &mut Tree,
        held: &mut Held<'_>,
        make: impl FnOnce(Timestamp) -> Event,
    ) -> Result<()> {
        let mut made = None;
        let appended = self.journal.append(&[], |ts| {
            let event = make(ts);
            made = Some(event.clone());
            event
        })?;
        let Some(event) = made else { return Ok(()) };
        for (file, update) in tree.apply(appended.seq, &event)? {
            if let Some(state) = held.state(file) {
                update.apply(state, appended.seq, appended.ts);
            }
        }
        Ok(())
    }

    pub fn create(&self, dir: FileId, name: &[u8], new: NewFile) -> Result<(FileId, Attr)> {
        check_name("live.create", name)?;
        let mut tree = self.tree.write();
        if tree.find(dir, name)?.is_some() {
            return Err(Error::errno("live.create", libc::EEXIST));
        }
        let nodes = [Arc::clone(tree.node(dir)?)];
        let root = tree.node(dir)?.root;
        self.may_grow(root)?;
        let mut held = Held::lock(&nodes);
        let parent = held.living(dir)?;
        let is_dir = new.kind == FileKind::Directory;
        let default = nodes.first().and_then(|dir| held.xattr(dir.file, acl::DEFAULT));
        let (mode, xattrs) = inherit_acl(&new, default)?;
        // A setgid directory hands down its group, and to directories its setgid bit (inode(7)).
        let inherits = parent.mode & 0o2000 != 0;
        let gid = if inherits { parent.gid } else { new.gid };
        self.check_kind(new.kind)?;
        self.check_ownable(root, new.uid, gid)?;
        self.check_xattrs((root, new.kind), xattrs.iter().map(|(name, value)| (&name[..], &value[..])))?;
        let file = tree.allocate()?;
        let mut attr = Attr {
            kind: new.kind,
            mode: mode | if is_dir && inherits { 0o2000 } else { 0 },
            uid: new.uid,
            gid,
            rdev: new.rdev,
            nlink: if is_dir { 2 } else { 1 },
            size: new.target.len() as u64,
            atime: FileTime::default(),
            mtime: FileTime::default(),
            ctime: FileTime::default(),
        };
        let target = new.target;
        self.name_event(&mut tree, &mut held, |ts| {
            (attr.atime, attr.mtime, attr.ctime) = (ts.into(), ts.into(), ts.into());
            let slot = Some(Slot { dir, name: name.to_vec() });
            let dir_nlink = subdirs_change(parent.nlink, is_dir, false);
            Event::Create(Birth { file, root, slot, attr, target, dir_nlink }, xattrs)
        })?;
        Ok((file, attr))
    }

    pub fn link(&self, file: FileId, dir: FileId, name: &[u8]) -> Result<Attr> {
        check_name("live.link", name)?;
        let mut tree = self.tree.write();
        if tree.find(dir, name)?.is_some() {
            return Err(Error::errno("live.link", libc::EEXIST));
        }
        let nodes = [Arc::clone(tree.node(dir)?), Arc::clone(tree.node(file)?)];
        if tree.node(file)?.kind == FileKind::Directory {
            return Err(Error::errno("live.link", libc::EPERM));
        }
        same_root("live.link", &tree, dir, file)?;
        let mut held = Held::lock(&nodes);
        held.living(dir)?;
        let mut attr = held.living(file)?;
        if attr.nlink >= LINK_MAX {
            return Err(Error::errno("live.link", libc::EMLINK));
        }
        attr.nlink += 1;
        let slot = Slot { dir, name: name.to_vec() };
        self.name_event(&mut tree, &mut held, |ts| {
            attr.ctime = ts.into();
            Event::Link { file, slot, attr }
        })?;
        Ok(attr)
    }

    pub fn unlink(&self, dir: FileId, name: &[u8]) -> Result<()> {
        let mut tree = self.tree.write();
        let node = Arc::clone(tree.lookup(dir, name)?);
        if node.kind == FileKind::Directory {
            return Err(Error::errno("live.unlink", libc::EISDIR));
        }
        self.remove_name(&mut tree, dir, name, &node)
    }

    pub fn remove_dir(&self, dir: FileId, name: &[u8]) -> Result<()> {
        let mut tree = self.tree.write();
        let node = Arc::clone(tree.lookup(dir, name)?);
        if !tree.dir(node.file)?.entries.is_empty() {
            return Err(Error::errno("live.rmdir", libc::ENOTEMPTY));
        }
        self.remove_name(&mut tree, dir, name, &node)
    }

    fn remove_name(&self, tree: &mut Tree, dir: FileId, name: &[u8], node: &Arc<Node>) -> Result<()> {
        let is_dir = node.kind == FileKind::Directory;
        let nodes = [Arc::clone(tree.node(dir)?), Arc::clone(node)];
        let mut held = Held::lock(&nodes);
        let dir_nlink = subdirs_change(held.attr(dir)?.nlink, false, is_dir);
        let slot = Slot { dir, name: name.to_vec() };
        let mut attr = held.attr(node.file)?;
        attr.nlink = if is_dir { 0 } else { attr.nlink.saturating_sub(1) };
        self.name_event(tree, &mut held, |ts| {
            attr.ctime = ts.into();
            Event::Unlink { file: node.file, slot, attr, dir_nlink }
        })
    }

    pub fn rename(&self, from: (FileId, &[u8]), to: (FileId, &[u8]), mode: RenameMode) -> Result<()> {
        check_name("live.rename", to.1)?;
        let mut tree = self.tree.write();
        same_root("live.rename", &tree, from.0, to.0)?;
        let moved = Arc::clone(tree.lookup(from.0, from.1)?);
        let target = match tree.find(to.0, to.1)? {
            Some(file) => Some(Arc::clone(tree.node(file)?)),
            None => None,
        };
        if moved.kind == FileKind::Directory && tree.is_within(to.0, moved.file) {
            return Err(Error::errno("live.rename", libc::EINVAL));
        }
        let mut nodes =
            vec![Arc::clone(tree.node(from.0)?), Arc::clone(tree.node(to.0)?), Arc::clone(&moved)];
        nodes.extend(target.clone());
        let mut held = Held::lock(&nodes);
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => Err(Error::errno("live.rename", libc::EEXIST)),
            (RenameMode::Exchange, None) => Err(Error::errno("live.rename", libc::ENOENT)),
            (RenameMode::Exchange, Some(target)) => {
                self.exchange(&mut tree, &mut held, from, to, &moved, &target)
            }
            (_, target) => self.replace(&mut tree, &mut held, from, to, &moved, target),
        }
    }

    fn replace(
        &self,
        tree: &mut Tree,
        held: &mut Held<'_>,
        from: (FileId, &[u8]),
        to: (FileId, &[u8]),
        moved: &Arc<Node>,
        target: Option<Arc<Node>>,
    ) -> Result<()> {
        let is_dir = moved.kind == FileKind::Directory;
        held.living(to.0)?;
        let mut replaced = None;
        if let Some(target) = &target {
            if target.file == moved.file {
                return Ok(());
            }
            let target_is_dir = target.kind == FileKind::Directory;
            match (is_dir, target_is_dir) {
                (true, false) => return Err(Error::errno("live.rename", libc::ENOTDIR)),
                (false, true) => return Err(Error::errno("live.rename", libc::EISDIR)),
                (true, true) if !tree.dir(target.file)?.entries.is_empty() => {
                    return Err(Error::errno("live.rename", libc::ENOTEMPTY));
                }
                _ => {}
            }
            let mut attr = held.attr(target.file)?;
            attr.nlink = if target_is_dir { 0 } else { attr.nlink.saturating_sub(1) };
            replaced = Some((target.file, attr));
        }
        let lost_dir = is_dir && target.is_some();
        let (from_before, to_before) = (held.attr(from.0)?.nlink, held.attr(to.0)?.nlink);
        let (from_nlink, to_nlink) = if from.0 == to.0 {
            let after = subdirs_change(from_before, false, lost_dir);
            (after, after)
        } else {
            (subdirs_change(from_before, false, is_dir), subdirs_change(to_before, is_dir, lost_dir))
        };
        let mut attr = held.attr(moved.file)?;
        self.name_event(tree, held, |ts| {
            attr.ctime = ts.into();
            if let Some((_, attr)) = &mut replaced {
                attr.ctime = ts.into();
            }
            let (from, to) = (slot(from), slot(to));
            Event::Rename { file: moved.file, from, to, attr, replaced, from_nlink, to_nlink }
        })
    }

    fn exchange(
        &self,
        tree: &mut Tree,
        held: &mut Held<'_>,
        from: (FileId, &[u8]),
        to: (FileId, &[u8]),
        left: &Arc<Node>,
        right: &Arc<Node>,
    ) -> Result<()> {
        let (left_dir, right_dir) = (left.kind == FileKind::Directory, right.kind == FileKind::Directory);
        if right_dir && tree.is_within(from.0, right.file) {
            return Err(Error::errno("live.rename", libc::EINVAL));
        }
        if left.file == right.file {
            return Ok(());
        }
        let (from_before, to_before) = (held.attr(from.0)?.nlink, held.attr(to.0)?.nlink);
        let (left_nlink, right_nlink) = if from.0 == to.0 {
            (from_before, from_before)
        } else {
            (subdirs_change(from_before, right_dir, left_dir), subdirs_change(to_before, left_dir, right_dir))
        };
        let (mut left_attr, mut right_attr) = (held.attr(left.file)?, held.attr(right.file)?);
        self.name_event(tree, held, |ts| {
            left_attr.ctime = ts.into();
            right_attr.ctime = ts.into();
            Event::Exchange {
                left: left.file,
                left_slot: slot(from),
                left_attr,
                right: right.file,
                right_slot: slot(to),
                right_attr,
                left_nlink,
                right_nlink,
            }
        })
    }

    /// Counts an open handle.
    pub fn open_file(&self, file: FileId) -> Result<()> {
        let node = self.node(file)?;
        let mut state = node.lock();
        if state.content.buried {
            return Err(Error::errno("live.open", libc::ESTALE));
        }
        state.open += 1;
        self.open_files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Gives all handles back: whoever held them is gone.
    pub(super) fn release_all(&self) {
        for node in self.tree.read().nodes.values() {
            node.lock().open = 0;
        }
        self.open_files.store(0, Ordering::Relaxed);
    }

    /// Gives a handle back.
    pub fn release_file(&self, file: FileId) {
        let Ok(node) = self.node(file) else { return };
        let mut state = node.lock();
        state.open = state.open.saturating_sub(1);
        self.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}
