//! What "correct" means: a file tree in memory, changed by the same operations.

use std::collections::BTreeMap;
use weft::live::exclude::Patterns;

/// Index of a file in a [`Model`].
pub type Id = usize;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    File(Vec<u8>),
    Dir(BTreeMap<Vec<u8>, Id>),
    Link(Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    pub body: Body,
    pub mode: u32,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Its bytes bypass history.
    pub direct: bool,
    /// Whatever is written to it while it bypasses history, from its birth on: this byte, or its complement.
    pub mark: Option<u8>,
    /// Names that were taken out of this model.
    pub hidden_links: usize,
}

impl Inode {
    fn new(body: Body, mode: u32) -> Inode {
        Inode { body, mode, xattrs: BTreeMap::new(), direct: false, mark: None, hidden_links: 0 }
    }
}

/// A name of a [`Model`].
pub struct Named {
    pub dir: Id,
    /// Names that lead to the directory.
    pub path: Vec<Vec<u8>>,
    pub name: Vec<u8>,
    pub id: Id,
}

/// Directories are never moved below themselves by the tests; files keep their index when renamed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Model {
    pub inodes: Vec<Inode>,
    /// Name and directory of each root; DATA's name is empty.
    pub roots: Vec<(Vec<u8>, Id)>,
}

pub const ROOT: Id = 0;

impl Model {
    pub fn new() -> Model {
        let mut model = Model { inodes: Vec::new(), roots: Vec::new() };
        model.add_root(b"");
        model
    }

    /// A further root, empty.
    pub fn add_root(&mut self, name: &[u8]) -> Id {
        self.inodes.push(Inode::new(Body::Dir(BTreeMap::new()), 0o755));
        let id = self.inodes.len() - 1;
        self.roots.push((name.to_vec(), id));
        id
    }

    pub fn entries(&self, dir: Id) -> &BTreeMap<Vec<u8>, Id> {
        match &self.inodes[dir].body {
            Body::Dir(entries) => entries,
            other => panic!("not a directory: {other:?}"),
        }
    }

    fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<Vec<u8>, Id> {
        match &mut self.inodes[dir].body {
            Body::Dir(entries) => entries,
            other => panic!("not a directory: {other:?}"),
        }
    }

    pub fn add(&mut self, dir: Id, name: &[u8], body: Body, mode: u32) -> Id {
        self.inodes.push(Inode::new(body, mode));
        let id = self.inodes.len() - 1;
        self.entries_mut(dir).insert(name.to_vec(), id);
        id
    }

    pub fn link(&mut self, file: Id, dir: Id, name: &[u8]) {
        self.entries_mut(dir).insert(name.to_vec(), file);
    }

    pub fn remove(&mut self, dir: Id, name: &[u8]) {
        self.entries_mut(dir).remove(name);
    }

    pub fn rename(&mut self, from: (Id, &[u8]), to: (Id, &[u8])) {
        let file = self.entries_mut(from.0).remove(from.1).unwrap();
        self.entries_mut(to.0).insert(to.1.to_vec(), file);
    }

    pub fn exchange(&mut self, left: (Id, &[u8]), right: (Id, &[u8])) {
        let (at_left, at_right) = (self.entries(left.0)[left.1], self.entries(right.0)[right.1]);
        self.entries_mut(left.0).insert(left.1.to_vec(), at_right);
        self.entries_mut(right.0).insert(right.1.to_vec(), at_left);
    }

    pub fn bytes(&mut self, file: Id) -> &mut Vec<u8> {
        match &mut self.inodes[file].body {
            Body::File(bytes) => bytes,
            other => panic!("not a file: {other:?}"),
        }
    }

    pub fn write(&mut self, file: Id, offset: usize, data: &[u8]) {
        let bytes = self.bytes(file);
        if bytes.len() < offset + data.len() {
            bytes.resize(offset + data.len(), 0);
        }
        bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    pub fn zero(&mut self, file: Id, offset: usize, len: usize) {
        let bytes = self.bytes(file);
        let end = (offset + len).min(bytes.len());
        if offset < end {
            bytes[offset..end].fill(0);
        }
    }

    /// Names of a file.
    pub fn links(&self, file: Id) -> usize {
        let dirs = self.inodes.iter().filter_map(|inode| match &inode.body {
            Body::Dir(entries) => Some(entries),
            _ => None,
        });
        let shown = dirs.flat_map(|entries| entries.values()).filter(|id| **id == file).count();
        shown + self.inodes[file].hidden_links
    }

    /// Every name.
    pub fn names(&self) -> Vec<Named> {
        let mut names = Vec::new();
        for (dir, _, path) in self.dirs() {
            for (name, id) in self.entries(dir) {
                names.push(Named { dir, path: path.clone(), name: name.clone(), id: *id });
            }
        }
        names
    }

    fn is_excluded(&self, patterns: &Patterns, named: &Named) -> bool {
        let is_dir = matches!(self.inodes[named.id].body, Body::Dir(_));
        let mut whole: Vec<&[u8]> = named.path.iter().map(Vec::as_slice).collect();
        whole.push(&named.name);
        patterns.excludes(&whole, is_dir)
    }

    /// What a view of it shows.
    pub fn visible(&self, patterns: &Patterns) -> Model {
        let mut visible = self.clone();
        for named in self.names() {
            if self.is_excluded(patterns, &named) {
                visible.entries_mut(named.dir).remove(&named.name);
                visible.inodes[named.id].hidden_links += 1;
            }
        }
        visible
    }

    /// A file with a name that is not excluded is history from then on.
    pub fn capture(&mut self, patterns: &Patterns) {
        for named in self.names() {
            if !self.is_excluded(patterns, &named) {
                (self.inodes[named.id].direct, self.inodes[named.id].mark) = (false, None);
            }
        }
    }

    /// Whether a name in a directory would be excluded.
    pub fn would_exclude(&self, patterns: &Patterns, dir: Id, name: &[u8], is_dir: bool) -> bool {
        let (.., path) = self.dirs().into_iter().find(|(id, ..)| *id == dir).unwrap();
        let mut whole: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        whole.push(name);
        patterns.excludes(&whole, is_dir)
    }

    /// All directories that can be reached, with the root and the path in it of each.
    pub fn dirs(&self) -> Vec<(Id, Id, Vec<Vec<u8>>)> {
        let mut found: Vec<_> = self.roots.iter().map(|(_, id)| (*id, *id, Vec::new())).collect();
        let mut at = 0;
        while at < found.len() {
            let (dir, root, path) = found[at].clone();
            for (name, id) in self.entries(dir) {
                if matches!(self.inodes[*id].body, Body::Dir(_)) {
                    let mut below: Vec<Vec<u8>> = path.clone();
                    below.push(name.clone());
                    found.push((*id, root, below));
                }
            }
            at += 1;
        }
        found
    }

    /// The root that a directory is in.
    pub fn root_of(&self, dir: Id) -> Id {
        self.dirs().into_iter().find(|(id, _, _)| *id == dir).unwrap().1
    }
}
