//! The names of the present: which directory holds which name for which file.
//!
//! Lock order: the tree, then a node, then the journal. Naming events are made and applied under the tree's write
//! lock, so the tree is always as of one Seq.

use super::content::{Base, Content};
use super::exclude::Patterns;
use super::node::{Node, NodeState};
use crate::error::{Error, Result};
use crate::format::event::{Birth, Event, Excluded, RootStage, Slot};
use crate::sync::Arc;
use crate::types::{Attr, FileId, FileKind, Name, RootId, Seq, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A directory's entries.
pub struct Dir {
    pub parent: FileId,
    /// Its own name in `parent`; empty for a root.
    pub name: Name,
    pub entries: BTreeMap<Name, FileId>,
    /// Those of the names that are excluded from history.
    pub excluded: BTreeSet<Name>,
    /// How many of these are directories: `nlink` in attributes counts the others alone.
    pub excluded_dirs: u32,
}

impl Dir {
    /// Without entries; its place comes with its name.
    pub fn new(file: FileId) -> Dir {
        Dir {
            parent: file,
            name: Name::new(),
            entries: BTreeMap::new(),
            excluded: BTreeSet::new(),
            excluded_dirs: 0,
        }
    }
}

/// A root beside DATA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// Its directory.
    pub file: FileId,
    pub name: Name,
    pub stage: RootStage,
}

/// See the head of this file.
pub struct Tree {
    pub nodes: HashMap<FileId, Arc<Node>>,
    pub dirs: HashMap<FileId, Dir>,
    /// All roots but the first.
    pub roots: BTreeMap<RootId, Root>,
    pub next_file: FileId,
    /// Files that lost their last name, with the Seq of it.
    pub doomed: Vec<(Seq, FileId)>,
    /// What new names are excluded from history.
    pub patterns: Patterns,
}

impl Tree {
    pub fn new() -> Tree {
        Tree {
            nodes: HashMap::new(),
            dirs: HashMap::new(),
            roots: BTreeMap::new(),
            next_file: FileId::ROOT,
            doomed: Vec::new(),
            patterns: Patterns::default(),
        }
    }

    /// The directory of a root.
    pub fn root_dir(&self, root: RootId) -> Result<FileId> {
        match root {
            RootId(0) => Ok(FileId::ROOT),
            _ => self.roots.get(&root).map(|root| root.file).ok_or_else(|| {
                Error::corrupt("live.root", format!("root {} is not among the names", root.0))
            }),
        }
    }

    /// A file by identity; a stale one is ESTALE.
    pub fn node(&self, file: FileId) -> Result<&Arc<Node>> {
        self.nodes.get(&file).ok_or_else(|| Error::errno("live.node", libc::ESTALE))
    }

    /// A directory; ENOTDIR for anything else.
    pub fn dir(&self, file: FileId) -> Result<&Dir> {
        self.dirs.get(&file).ok_or_else(|| {
            let errno = if self.nodes.contains_key(&file) { libc::ENOTDIR } else { libc::ESTALE };
            Error::errno("live.dir", errno)
        })
    }

    /// What stands at a name.
    pub fn find(&self, dir: FileId, name: &[u8]) -> Result<Option<FileId>> {
        Ok(self.dir(dir)?.entries.get(name).copied())
    }

    /// What stands at a name; ENOENT when nothing does.
    pub fn lookup(&self, dir: FileId, name: &[u8]) -> Result<&Arc<Node>> {
        let file = self.find(dir, name)?.ok_or_else(|| Error::errno("live.lookup", libc::ENOENT))?;
        self.node(file)
    }

    /// The next identity.
    pub fn allocate(&mut self) -> Result<FileId> {
        let file = self.next_file;
        if file.0 >= FileId::LIMIT {
            return Err(Error::errno("live.allocate", libc::ENOSPC));
        }
        self.next_file = FileId(file.0 + 1);
        Ok(file)
    }

    /// Whether `dir` is `above` or lies below it.
    pub fn is_within(&self, dir: FileId, above: FileId) -> bool {
        let mut at = dir;
        loop {
            if at == above {
                return true;
            }
            match self.dirs.get(&at) {
                Some(dir) if dir.parent != at => at = dir.parent,
                _ => return false,
            }
        }
    }

    /// Applies a naming event to the names, and says what it changes of which nodes. Events that the tree cannot
    /// take (a name in a directory that is not there) are damage: this code never wrote such a journal.
    pub fn apply(&mut self, seq: Seq, event: &Event) -> Result<Vec<(FileId, Update)>> {
        let (event, names) = event.unwrapped();
        match event {
            Event::Create(birth, xattrs) => {
                let direct = names.first && birth.attr.kind == FileKind::Regular;
                let content = Content { direct, ..Content::default() };
                let updates = self.born(seq, birth, content, names.first)?;
                self.node(birth.file)?.lock().xattrs = xattrs.iter().cloned().collect();
                Ok(updates)
            }
            Event::Adopt { birth, .. } if birth.attr.kind == FileKind::Regular => {
                let content = match names.first {
                    true => Content::bypassing(birth.attr.size),
                    false => Content::adopted(Base::new(seq, birth.attr.size)),
                };
                self.born(seq, birth, content, names.first)
            }
            Event::Adopt { birth, .. } => self.born(seq, birth, Content::default(), names.first),
            Event::Link { file, slot, attr } => {
                self.put(slot, *file, names.first)?;
                Ok(vec![(*file, Update::Attr(*attr)), (slot.dir, Update::Entries { nlink: None })])
            }
            Event::Unlink { file, slot, attr, dir_nlink } => {
                self.take(slot)?;
                self.nameless(*file, attr.nlink, seq);
                Ok(vec![(*file, Update::Attr(*attr)), (slot.dir, entries(*dir_nlink))])
            }
            Event::Rename { file, from, to, attr, replaced, from_nlink, to_nlink } => {
                self.take(from)?;
                self.put(to, *file, names.second)?;
                let mut updates = vec![(*file, Update::Attr(*attr)), (from.dir, entries(*from_nlink))];
                if let Some((old, attr)) = replaced {
                    self.nameless(*old, attr.nlink, seq);
                    updates.push((*old, Update::Attr(*attr)));
                }
                if to.dir != from.dir {
                    updates.push((to.dir, entries(*to_nlink)));
                }
                Ok(updates)
            }
            Event::Exchange { .. } => self.exchange(event, names),
            Event::Root { root, file, name, stage } => {
                self.root_changed(*root, Root { file: *file, name: name.clone(), stage: *stage });
                Ok(Vec::new())
            }
            Event::Mark { file, slot, attr, dir_nlink, excluded } => {
                self.put(slot, *file, *excluded)?;
                Ok(vec![(*file, Update::Attr(*attr)), (slot.dir, Update::Links(*dir_nlink))])
            }
            _ => Ok(Vec::new()),
        }
    }

    fn root_changed(&mut self, root: RootId, now: Root) {
        self.next_file = self.next_file.max(FileId(now.file.0 + 1));
        if now.stage == RootStage::Left {
            self.nodes.remove(&now.file);
            self.dirs.remove(&now.file);
            self.roots.remove(&root);
        } else {
            self.roots.insert(root, now);
        }
    }

    fn exchange(&mut self, event: &Event, names: Excluded) -> Result<Vec<(FileId, Update)>> {
        let Event::Exchange {
            left,
            left_slot,
            left_attr,
            right,
            right_slot,
            right_attr,
            left_nlink,
            right_nlink,
        } = event
        else {
            return Ok(Vec::new());
        };
        self.put(left_slot, *right, names.first)?;
        self.put(right_slot, *left, names.second)?;
        let mut updates = vec![
            (*left, Update::Attr(*left_attr)),
            (*right, Update::Attr(*right_attr)),
            (left_slot.dir, entries(*left_nlink)),
        ];
        if right_slot.dir != left_slot.dir {
            updates.push((right_slot.dir, entries(*right_nlink)));
        }
        Ok(updates)
    }

    fn born(
        &mut self,
        seq: Seq,
        birth: &Birth,
        content: Content,
        excluded: bool,
    ) -> Result<Vec<(FileId, Update)>> {
        let node = Node::new(birth.file, birth.root, birth.target.clone(), birth.attr, seq);
        node.lock().content = content;
        self.nodes.insert(birth.file, Arc::new(node));
        if birth.attr.kind == FileKind::Directory {
            self.dirs.insert(birth.file, Dir::new(birth.file));
        }
        self.next_file = self.next_file.max(FileId(birth.file.0 + 1));
        match &birth.slot {
            None => Ok(Vec::new()),
            Some(slot) => {
                self.put(slot, birth.file, excluded)?;
                Ok(vec![(slot.dir, entries(birth.dir_nlink))])
            }
        }
    }

    fn dir_mut(&mut self, dir: FileId) -> Result<&mut Dir> {
        self.dirs
            .get_mut(&dir)
            .ok_or_else(|| Error::corrupt("live.apply", format!("directory {dir} is not there")))
    }

    /// Puts a name, instead of what stood there. A directory knows its place.
    pub(super) fn put(&mut self, slot: &Slot, file: FileId, excluded: bool) -> Result<()> {
        self.take(slot)?;
        let is_dir = match self.dirs.get_mut(&file) {
            Some(dir) => {
                (dir.parent, dir.name) = (slot.dir, slot.name.clone());
                true
            }
            None => false,
        };
        let dir = self.dir_mut(slot.dir)?;
        dir.entries.insert(slot.name.clone(), file);
        if excluded {
            dir.excluded.insert(slot.name.clone());
            dir.excluded_dirs += u32::from(is_dir);
        }
        Ok(())
    }

    fn take(&mut self, slot: &Slot) -> Result<()> {
        let dir = self.dir_mut(slot.dir)?;
        let Some(file) = dir.entries.remove(&slot.name) else { return Ok(()) };
        if dir.excluded.remove(&slot.name) && self.dirs.contains_key(&file) {
            let dir = self.dir_mut(slot.dir)?;
            dir.excluded_dirs = dir.excluded_dirs.saturating_sub(1);
        }
        Ok(())
    }

    /// Whether a name that stands is excluded from history.
    pub fn is_excluded(&self, dir: FileId, name: &[u8]) -> bool {
        self.dirs.get(&dir).is_some_and(|dir| dir.excluded.contains(name))
    }

    /// Whether a name would be excluded.
    pub fn would_exclude(&self, dir: FileId, name: &[u8], is_dir: bool) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let mut path = self.path(dir);
        path.push(name);
        self.patterns.excludes(&path, is_dir)
    }

    /// The names that lead to a directory, from its root down.
    pub(super) fn path(&self, dir: FileId) -> Vec<&[u8]> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = dir;
        while let Some(dir) = self.dirs.get(&at).filter(|dir| dir.parent != at) {
            names.push(&dir.name);
            at = dir.parent;
        }
        names.reverse();
        names
    }

    fn nameless(&mut self, file: FileId, nlink: u32, seq: Seq) {
        if nlink == 0 {
            self.dirs.remove(&file);
            self.doomed.push((seq, file));
        }
    }

    /// Every name of every file.
    pub fn slots(&self) -> HashMap<FileId, Vec<Slot>> {
        let mut slots: HashMap<FileId, Vec<Slot>> = HashMap::new();
        for (dir, entries) in &self.dirs {
            for (name, file) in &entries.entries {
                slots.entry(*file).or_default().push(Slot { dir: *dir, name: name.clone() });
            }
        }
        slots
    }
}

/// What a naming event changes of a node.
#[derive(Clone, Copy, Debug)]
pub enum Update {
    /// Its attributes are these.
    Attr(Attr),
    /// As a directory: an entry came or went; its link count, where that changed.
    Entries { nlink: Option<u32> },
    /// As a directory: its link count alone.
    Links(u32),
}

impl Update {
    /// Changes the node's state, unless it has seen a later event.
    pub fn apply(self, state: &mut NodeState, seq: Seq, ts: Timestamp) {
        match self {
            Update::Attr(attr) => state.set_attr(seq, attr),
            Update::Entries { nlink } => {
                let nlink = nlink.unwrap_or(state.attr.nlink);
                state.entries_changed(seq, ts, nlink);
            }
            Update::Links(nlink) => {
                let attr = Attr { nlink, ..state.attr };
                state.set_attr(seq, attr);
            }
        }
    }
}

fn entries(nlink: u32) -> Update {
    Update::Entries { nlink: Some(nlink) }
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}
