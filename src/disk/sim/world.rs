//! Nodes and names: a whole filesystem, as it is seen and as it is on the medium.
//!
//! Invariants:
//! - A node lives as long as something holds it: a name, an open handle, a durable name, a pending change.
//! - `NodeId`s are never reused. Inode numbers are, lowest first, as soon as nothing seen uses them; the new file's name
//!   then needs the removals that freed the number, so no image ever has two files of one number.

use super::changes::{Change, ChangeId, Changes, EntryChange};
pub(super) use super::node::{Body, Entries, Meta, Node};
use super::numbers::Numbers;
use super::rng::Rng;
use crate::types::{FileKind, FileTime, NAME_MAX, Name, PAGE};
use std::collections::BTreeMap;

/// Identity of a node within one simulated disk and its images.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct NodeId(pub(super) u64);

pub(super) const ROOT: NodeId = NodeId(1);
/// ext4's number of the root.
const ROOT_INO: u64 = 2;

/// The answer of a system call: an errno when it fails.
pub(super) type Sys<T> = Result<T, i32>;

#[derive(Clone)]
pub(super) struct World {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    next_node: u64,
    /// Of each filesystem.
    numbers: BTreeMap<u64, Numbers>,
    pub(super) changes: Changes,
    pub(super) rng: Rng,
    /// Counts changes; file times are made of it.
    ticks: u64,
    /// Pages that files seen now have.
    pub(super) used_pages: u64,
    pub(super) capacity: u64,
    /// Files can share their space.
    pub(super) reflinks: bool,
}

impl World {
    pub(super) fn new(rng: Rng) -> World {
        let mut world = World {
            nodes: BTreeMap::new(),
            next_node: ROOT.0,
            numbers: BTreeMap::new(),
            changes: Changes::default(),
            rng,
            ticks: 0,
            used_pages: 0,
            capacity: 1 << 40,
            reflinks: false,
        };
        let body = Body::Dir(Entries::default());
        let root = world.add_node(FileKind::Directory, body, 0o755, 0, (0, ROOT_INO));
        if let Some(node) = world.nodes.get_mut(&root) {
            (node.links, node.holds) = (1, 1);
        }
        world
    }

    pub(super) fn node(&self, id: NodeId) -> Sys<&Node> {
        self.nodes.get(&id).ok_or(libc::EIO)
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> Sys<&mut Node> {
        self.nodes.get_mut(&id).ok_or(libc::EIO)
    }

    pub(super) fn dir(&self, id: NodeId) -> Sys<&BTreeMap<Name, NodeId>> {
        match &self.node(id)?.body {
            Body::Dir(entries) => Ok(&entries.now),
            _ => Err(libc::ENOTDIR),
        }
    }

    fn entries_mut(&mut self, id: NodeId) -> Sys<&mut Entries> {
        match &mut self.node_mut(id)?.body {
            Body::Dir(entries) => Ok(entries),
            _ => Err(libc::ENOTDIR),
        }
    }

    /// A time later than every earlier one.
    fn tick(&mut self) -> FileTime {
        self.ticks += 1;
        FileTime {
            secs: 1_700_000_000 + i64::try_from(self.ticks / 1_000_000).unwrap_or(0),
            nanos: u32::try_from(self.ticks % 1_000_000).unwrap_or(0) * 1000,
        }
    }

    /// Notes that a node changed: its data (mtime) or only its inode (ctime).
    pub(super) fn touch(&mut self, id: NodeId, data: bool) {
        let now = self.tick();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.meta.ctime = now;
            if data {
                node.meta.mtime = now;
            }
            node.meta_pending = true;
        }
    }

    fn add_node(
        &mut self,
        kind: FileKind,
        body: Body,
        mode: u32,
        rdev: u32,
        (fs, ino): (u64, u64),
    ) -> NodeId {
        let now = self.tick();
        let meta = Meta {
            mode: mode & 0o7777,
            uid: 0,
            gid: 0,
            rdev,
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
        };
        let id = NodeId(self.next_node);
        self.next_node += 1;
        let node = Node {
            fs,
            ino,
            kind,
            durable_meta: meta.clone(),
            meta,
            meta_pending: false,
            body,
            links: 0,
            subdirs: 0,
            opens: 0,
            holds: 0,
            removals: Vec::new(),
            freed_by: Vec::new(),
            placed: None,
        };
        self.nodes.insert(id, node);
        id
    }

    /// Makes a node with its first name.
    pub(super) fn create(
        &mut self,
        dir: NodeId,
        name: &[u8],
        body: Body,
        kind: FileKind,
        mode: u32,
        rdev: u32,
    ) -> Sys<NodeId> {
        self.check_new(dir, name)?;
        let fs = self.node(dir)?.fs;
        let (ino, freed_by) = self.numbers.entry(fs).or_default().give();
        let node = self.add_node(kind, body, mode, rdev, (fs, ino));
        self.node_mut(node)?.freed_by.clone_from(&freed_by);
        self.record(vec![entry(dir, name, None, Some(node))], freed_by, false)?;
        Ok(node)
    }

    pub(super) fn check_new(&self, dir: NodeId, name: &[u8]) -> Sys<()> {
        if name.len() > NAME_MAX {
            return Err(libc::ENAMETOOLONG);
        }
        if self.node(dir)?.links == 0 {
            return Err(libc::ENOENT);
        }
        match self.dir(dir)?.contains_key(name) {
            true => Err(libc::EEXIST),
            false => Ok(()),
        }
    }

    pub(super) fn link(&mut self, node: NodeId, dir: NodeId, name: &[u8]) -> Sys<()> {
        self.check_new(dir, name)?;
        self.same_fs(node, dir)?;
        let existing = self.node(node)?;
        if existing.kind == FileKind::Directory {
            return Err(libc::EPERM);
        }
        let needs = existing.freed_by.clone();
        self.record(vec![entry(dir, name, None, Some(node))], needs, false)?;
        self.touch(node, false);
        Ok(())
    }

    /// Takes a name away; `as_dir` says whether it must be an (empty) directory's.
    pub(super) fn remove(&mut self, dir: NodeId, name: &[u8], as_dir: bool) -> Sys<()> {
        let node = *self.dir(dir)?.get(name).ok_or(libc::ENOENT)?;
        let is_dir = self.node(node)?.kind == FileKind::Directory;
        let mut needs = Vec::new();
        match (is_dir, as_dir) {
            (true, false) => return Err(libc::EISDIR),
            (false, true) => return Err(libc::ENOTDIR),
            (true, true) => needs = self.emptied(node)?,
            (false, false) => {}
        }
        self.record(vec![entry(dir, name, Some(node), None)], needs, false)?;
        self.touch(node, false);
        Ok(())
    }

    /// The changes that made a directory empty: its removal needs them.
    fn emptied(&self, dir: NodeId) -> Sys<Vec<ChangeId>> {
        if !self.dir(dir)?.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        Ok(self.changes.in_dir(dir))
    }

    /// Renames; the callers have resolved both parents. The paths are the directories from the root to
    /// each of them.
    pub(super) fn rename(
        &mut self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        from_path: &[NodeId],
        to_path: &[NodeId],
    ) -> Sys<()> {
        let node = *self.dir(from.0)?.get(from.1).ok_or(libc::ENOENT)?;
        self.same_fs(node, to.0)?;
        let target = self.dir(to.0)?.get(to.1).copied();
        if to.1.len() > NAME_MAX {
            return Err(libc::ENAMETOOLONG);
        }
        let is_dir = self.node(node)?.kind == FileKind::Directory;
        if is_dir && to_path.contains(&node) {
            return Err(libc::EINVAL);
        }
        if target.is_some_and(|target| from_path.contains(&target)) {
            return Err(libc::ENOTEMPTY);
        }
        if target == Some(node) {
            return Ok(());
        }
        let mut needs = match target {
            Some(target) => self.check_replace(target, is_dir)?,
            None => Vec::new(),
        };
        if from.0 != to.0 {
            // Into a directory that is lost the file would be lost under both names.
            let above = to_path.iter().filter_map(|dir| self.nodes.get(dir));
            needs.extend(above.filter_map(|dir| dir.placed));
        }
        let moves_dir = is_dir && from.0 != to.0;
        if moves_dir {
            // Without the earlier moves this one might put a directory below itself.
            needs.extend(self.changes.dir_moves(self.node(node)?.fs));
        }
        let entries = vec![entry(from.0, from.1, Some(node), None), entry(to.0, to.1, target, Some(node))];
        self.record(entries, needs, moves_dir)?;
        self.touch(node, false);
        Ok(())
    }

    fn check_replace(&self, target: NodeId, by_dir: bool) -> Sys<Vec<ChangeId>> {
        match (by_dir, self.node(target)?.kind == FileKind::Directory) {
            (true, true) => self.emptied(target),
            (true, false) => Err(libc::ENOTDIR),
            (false, true) => Err(libc::EISDIR),
            (false, false) => Ok(Vec::new()),
        }
    }

    /// Does a change of names and notes it as pending.
    fn record(&mut self, entries: Vec<EntryChange>, needs: Vec<ChangeId>, moves_dir: bool) -> Sys<()> {
        for entry in &entries {
            for node in entry.before.iter().chain(&entry.after) {
                self.hold(*node);
            }
        }
        for entry in &entries {
            self.set_entry(entry)?;
            self.touch(entry.dir, true);
        }
        let gone: Vec<NodeId> = entries
            .iter()
            .filter_map(|entry| entry.before)
            .filter(|node| !entries.iter().any(|entry| entry.after == Some(*node)))
            .collect();
        let placed: Vec<NodeId> = entries.iter().filter_map(|entry| entry.after).collect();
        let fs = match entries.first() {
            Some(entry) => self.node(entry.dir)?.fs,
            None => 0,
        };
        let id = self.changes.add(fs, entries, needs, moves_dir);
        for node in placed {
            self.node_mut(node)?.placed = Some(id);
        }
        for node in gone {
            self.node_mut(node)?.removals.push(id);
            self.retire(node);
        }
        Ok(())
    }

    /// Applies one side of a change to what is seen.
    fn set_entry(&mut self, entry: &EntryChange) -> Sys<()> {
        let mut subdirs = 0_i32;
        if let Some(node) = entry.before {
            self.entries_mut(entry.dir)?.now.remove(&entry.name);
            let node_ref = self.node_mut(node)?;
            node_ref.links -= 1;
            subdirs -= i32::from(node_ref.kind == FileKind::Directory);
            self.release(node);
        }
        if let Some(node) = entry.after {
            let entries = self.entries_mut(entry.dir)?;
            entries.now.insert(entry.name.clone(), node);
            let node_ref = self.node_mut(node)?;
            node_ref.links += 1;
            subdirs += i32::from(node_ref.kind == FileKind::Directory);
            self.hold(node);
        }
        let dir = self.node_mut(entry.dir)?;
        dir.subdirs = dir.subdirs.saturating_add_signed(subdirs);
        Ok(())
    }

    fn hold(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.holds += 1;
        }
    }

    fn release(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.holds -= 1;
        if node.holds == 0 {
            self.nodes.remove(&id);
        }
    }

    /// Frees number and space of a node that nothing seen uses any more.
    fn retire(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        if node.links == 0 && node.opens == 0 {
            self.used_pages -= node.allocated() / PAGE;
            let (fs, ino, removals) = (node.fs, node.ino, node.removals.clone());
            self.numbers.entry(fs).or_default().take_back(ino, removals);
        }
    }

    pub(super) fn opened(&mut self, id: NodeId) {
        self.hold(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opens += 1;
        }
    }

    pub(super) fn closed(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opens -= 1;
            self.retire(id);
            self.release(id);
        }
    }

    /// The process is gone: all its handles are closed.
    pub(super) fn close_all(&mut self) {
        let open = self.nodes.iter().filter(|(_, node)| node.opens > 0);
        for (id, opens) in open.map(|(&id, node)| (id, node.opens)).collect::<Vec<_>>() {
            for _ in 0..opens {
                self.closed(id);
            }
        }
    }

    pub(super) fn sync_file(&mut self, id: NodeId) -> Sys<()> {
        self.node_mut(id)?.sync();
        Ok(())
    }

    /// Names in a directory, its attributes and those of what is in it.
    pub(super) fn sync_dir(&mut self, id: NodeId) -> Sys<()> {
        let children: Vec<NodeId> = self.dir(id)?.values().copied().collect();
        for node in children.into_iter().chain([id]) {
            self.node_mut(node)?.sync_meta();
        }
        let durable = self.changes.synced(id);
        self.settle(durable)
    }

    /// Everything on one filesystem.
    pub(super) fn sync_filesystem(&mut self, fs: u64) -> Sys<()> {
        self.nodes.values_mut().filter(|node| node.fs == fs).for_each(Node::sync);
        let durable = self.changes.take_all(fs);
        self.settle(durable)
    }

    /// A sync of a whole filesystem failed: pages of its files are forgotten, and each file's own next sync says so.
    pub(super) fn filesystem_sync_failed(&mut self, fs: u64) {
        for node in self.nodes.values_mut().filter(|node| node.fs == fs) {
            if let Body::File(content) = &mut node.body {
                content.forgotten |= content.sync_failed(&mut self.rng);
            }
        }
    }

    /// Makes an empty directory the root of a filesystem of its own.
    pub(super) fn mount(&mut self, dir: NodeId) -> Sys<()> {
        if !self.dir(dir)?.is_empty() {
            return Err(libc::EBUSY);
        }
        let fs = self.nodes.values().map(|node| node.fs).max().unwrap_or(0) + 1;
        let node = self.node_mut(dir)?;
        (node.fs, node.ino) = (fs, ROOT_INO);
        Ok(())
    }

    fn same_fs(&self, left: NodeId, right: NodeId) -> Sys<()> {
        if self.node(left)?.fs == self.node(right)?.fs { Ok(()) } else { Err(libc::EXDEV) }
    }

    /// Makes changes durable, in order.
    fn settle(&mut self, changes: Vec<Change>) -> Sys<()> {
        for change in changes {
            for entry in &change.entries {
                self.settle_entry(entry)?;
            }
            for node in change.entries.iter().flat_map(|entry| entry.before.iter().chain(&entry.after)) {
                self.release(*node);
            }
        }
        Ok(())
    }

    fn settle_entry(&mut self, entry: &EntryChange) -> Sys<()> {
        // The directory itself may be gone, names and all.
        let Ok(entries) = self.entries_mut(entry.dir) else {
            return Ok(());
        };
        let old = match entry.after {
            Some(node) => entries.durable.insert(entry.name.clone(), node),
            None => entries.durable.remove(&entry.name),
        };
        if let Some(node) = entry.after {
            self.hold(node);
        }
        if let Some(node) = old {
            self.release(node);
        }
        Ok(())
    }

    /// An empty world that hands out the same numbers: for an image to be filled in.
    pub(super) fn image(&self, rng: Rng) -> World {
        World {
            nodes: BTreeMap::new(),
            next_node: self.next_node,
            numbers: self.numbers.clone(),
            changes: Changes::default(),
            rng,
            ticks: self.ticks,
            used_pages: 0,
            capacity: self.capacity,
            reflinks: self.reflinks,
        }
    }

    /// Puts a node into an image: settled, with the number of names that lead to it.
    pub(super) fn restore(&mut self, id: NodeId, mut node: Node, links: u32) {
        node.durable_meta = node.meta.clone();
        (node.meta_pending, node.opens) = (false, 0);
        node.removals.clear();
        node.freed_by.clear();
        node.placed = None;
        // Names are there twice: as seen and as durable. The root needs a name that is neither.
        node.links = links;
        node.holds = if id == ROOT { 1 } else { links * 2 };
        self.used_pages += node.allocated() / PAGE;
        self.nodes.insert(id, node);
    }

    /// Frees the numbers that no node of an image has.
    pub(super) fn free_unused_inos(&mut self) {
        for (fs, numbers) in &mut self.numbers {
            let nodes = self.nodes.values().filter(|node| node.fs == *fs);
            numbers.free_but(nodes.map(|node| node.ino));
        }
    }
}

fn entry(dir: NodeId, name: &[u8], before: Option<NodeId>, after: Option<NodeId>) -> EntryChange {
    EntryChange { dir, name: name.to_vec(), before, after }
}
