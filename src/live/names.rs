//! Names and attributes of the present.

use super::Live;
use super::node::{Node, NodeState};
use super::tree::Tree;
use crate::acl::{self, Acl};
use crate::error::{Error, Result};
use crate::format::event::{Birth, Event, Excluded, Slot, Xattrs};
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

/// The attributes of the present: a directory's link count counts the excluded ones below it too.
fn shown(tree: &Tree, node: &Node) -> Attr {
    let mut attr = node.lock().attr;
    attr.nlink += tree.dirs.get(&node.file).map_or(0, |dir| dir.excluded_dirs);
    attr
}

pub(super) fn check_name(op: &'static str, name: &[u8]) -> Result<()> {
    match name {
        [] | b"." | b".." => Err(Error::errno(op, libc::EINVAL)),
        _ if name.len() > NAME_MAX => Err(Error::errno(op, libc::ENAMETOOLONG)),
        _ if name.contains(&b'/') || name.contains(&0) => Err(Error::errno(op, libc::EINVAL)),
        _ => Ok(()),
    }
}

/// Each root is a mount of its own, perhaps on a filesystem of its own.
pub(super) fn same_root(op: &'static str, tree: &Tree, left: FileId, right: FileId) -> Result<()> {
    match tree.node(left)?.root == tree.node(right)?.root {
        true => Ok(()),
        false => Err(Error::errno(op, libc::EXDEV)),
    }
}

pub(super) fn subdirs_change(nlink: u32, gained: bool, lost: bool) -> u32 {
    (nlink + u32::from(gained)).saturating_sub(u32::from(lost))
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

    pub(super) fn state(&mut self, file: FileId) -> Option<&mut NodeState> {
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
    pub(super) fn living(&self, file: FileId) -> Result<Attr> {
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
        let tree = self.tree.read();
        let node = tree.lookup(dir, name)?;
        Ok((node.file, shown(&tree, node)))
    }

    pub(super) fn node(&self, file: FileId) -> Result<Arc<Node>> {
        Ok(Arc::clone(self.tree.read().node(file)?))
    }

    pub fn attr(&self, file: FileId) -> Result<Attr> {
        let tree = self.tree.read();
        Ok(shown(&tree, tree.node(file)?))
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
        let excluded = tree.would_exclude(dir, name, is_dir);
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
            let dir_nlink = subdirs_change(parent.nlink, is_dir && !excluded, false);
            let birth = Birth { file, root, slot, attr, target, dir_nlink };
            Excluded::one(excluded).wrap(Event::Create(birth, xattrs))
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
        let excluded = tree.would_exclude(dir, name, false);
        if let (false, Some(state)) = (excluded, held.state(file)) {
            self.capture(tree.node(file)?, state)?;
        }
        let slot = Slot { dir, name: name.to_vec() };
        self.name_event(&mut tree, &mut held, |ts| {
            attr.ctime = ts.into();
            Excluded::one(excluded).wrap(Event::Link { file, slot, attr })
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
        let excluded = tree.is_excluded(dir, name);
        let dir_nlink = subdirs_change(held.attr(dir)?.nlink, false, is_dir && !excluded);
        let slot = Slot { dir, name: name.to_vec() };
        let mut attr = held.attr(node.file)?;
        attr.nlink = if is_dir { 0 } else { attr.nlink.saturating_sub(1) };
        self.name_event(tree, &mut held, |ts| {
            attr.ctime = ts.into();
            Excluded::one(excluded).wrap(Event::Unlink { file: node.file, slot, attr, dir_nlink })
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
