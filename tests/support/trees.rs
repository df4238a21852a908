//! Reading whole trees: of the present, of a view, of a plain directory on the simulated disk.

use super::model::{Body, Id, Model};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use weft::disk::Disk;
use weft::engine::{Engine, View};
use weft::types::{Attr, FileId, FileKind};

/// Something that answers as a file tree.
pub trait Tree {
    fn root(&self, name: &[u8]) -> Option<FileId>;
    fn list(&self, dir: FileId) -> Vec<(Vec<u8>, FileId)>;
    fn attr(&self, file: FileId) -> Attr;
    fn bytes(&self, file: FileId, size: u64) -> Vec<u8>;
    fn target(&self, file: FileId) -> Vec<u8>;
    fn xattrs(&self, file: FileId) -> BTreeMap<Vec<u8>, Vec<u8>>;
    fn seek(&self, file: FileId, offset: u64, hole: bool) -> Option<u64>;
    fn data_bytes(&self, file: FileId) -> u64;
}

impl Tree for Engine {
    fn root(&self, name: &[u8]) -> Option<FileId> {
        self.roots().unwrap().into_iter().find(|root| root.name == name).map(|root| root.file)
    }
    fn list(&self, dir: FileId) -> Vec<(Vec<u8>, FileId)> {
        let entries = self.read_dir(dir, None, usize::MAX).unwrap();
        entries.into_iter().map(|entry| (entry.name, entry.file)).collect()
    }
    fn attr(&self, file: FileId) -> Attr {
        Engine::attr(self, file).unwrap()
    }
    fn bytes(&self, file: FileId, size: u64) -> Vec<u8> {
        let mut bytes = vec![0xee; size as usize + 10];
        let got = self.read(file, 0, &mut bytes).unwrap();
        bytes.truncate(got);
        bytes
    }
    fn target(&self, file: FileId) -> Vec<u8> {
        self.read_link(file).unwrap()
    }
    fn xattrs(&self, file: FileId) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let names = self.xattr_names(file).unwrap();
        names.into_iter().map(|name| (name.clone(), self.xattr(file, &name).unwrap().unwrap())).collect()
    }
    fn seek(&self, file: FileId, offset: u64, hole: bool) -> Option<u64> {
        Engine::seek(self, file, offset, hole).unwrap()
    }
    fn data_bytes(&self, file: FileId) -> u64 {
        Engine::data_bytes(self, file).unwrap()
    }
}

impl Tree for View {
    fn root(&self, name: &[u8]) -> Option<FileId> {
        View::root(self, name).unwrap()
    }
    fn list(&self, dir: FileId) -> Vec<(Vec<u8>, FileId)> {
        // In small steps, as a listing by the kernel goes.
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|(name, _): &(Vec<u8>, FileId)| name.clone());
            let some = self.read_dir(dir, after.as_deref(), 3).unwrap();
            if some.is_empty() {
                return all;
            }
            all.extend(some.into_iter().map(|entry| (entry.name, entry.file)));
        }
    }
    fn attr(&self, file: FileId) -> Attr {
        View::attr(self, file).unwrap()
    }
    fn bytes(&self, file: FileId, size: u64) -> Vec<u8> {
        let mut bytes = vec![0xee; size as usize + 10];
        let got = self.read(file, 0, &mut bytes).unwrap();
        bytes.truncate(got);
        bytes
    }
    fn target(&self, file: FileId) -> Vec<u8> {
        self.read_link(file).unwrap()
    }
    fn xattrs(&self, file: FileId) -> BTreeMap<Vec<u8>, Vec<u8>> {
        View::xattrs(self, file).unwrap().into_iter().collect()
    }
    fn seek(&self, file: FileId, offset: u64, hole: bool) -> Option<u64> {
        View::seek(self, file, offset, hole).unwrap()
    }
    fn data_bytes(&self, file: FileId) -> u64 {
        View::data_bytes(self, file, &View::attr(self, file).unwrap()).unwrap()
    }
}

/// The first difference between a tree and the model, if there is one.
pub fn difference(tree: &dyn Tree, model: &Model) -> Option<String> {
    let mut seen: BTreeMap<Id, FileId> = BTreeMap::new();
    model.roots.iter().find_map(|(name, id)| {
        let path = String::from_utf8_lossy(name);
        match tree.root(name) {
            Some(dir) => compare(tree, dir, model, *id, &path, &mut seen),
            None => Some(format!("there is no root {path}")),
        }
    })
}

fn compare(
    tree: &dyn Tree,
    file: FileId,
    model: &Model,
    id: Id,
    path: &str,
    seen: &mut BTreeMap<Id, FileId>,
) -> Option<String> {
    if let Some(other) = seen.insert(id, file) {
        return (other != file)
            .then(|| format!("{path}: two names of one file stand for {file} and {other}"));
    }
    let attr = tree.attr(file);
    let inode = &model.inodes[id];
    if attr.mode != inode.mode {
        return Some(format!("{path}: mode {:o}, expected {:o}", attr.mode, inode.mode));
    }
    let xattrs = tree.xattrs(file);
    if xattrs != inode.xattrs {
        return Some(format!("{path}: xattrs {xattrs:?}, expected {:?}", inode.xattrs));
    }
    match &inode.body {
        Body::Link(target) => (attr.kind != FileKind::Symlink || tree.target(file) != *target)
            .then(|| format!("{path}: another target")),
        Body::File(bytes) => compare_file(tree, file, attr, bytes, model.links(id), path),
        Body::Dir(entries) => {
            let listed = tree.list(file);
            let names: Vec<&Vec<u8>> = listed.iter().map(|(name, _)| name).collect();
            if names != entries.keys().collect::<Vec<_>>() {
                return Some(format!("{path}: entries {}, expected {}", show(names), show(entries.keys())));
            }
            let below = entries.values().filter(|id| matches!(model.inodes[**id].body, Body::Dir(_))).count();
            if attr.nlink as usize != below + 2 {
                return Some(format!("{path}: nlink {}, expected {}", attr.nlink, below + 2));
            }
            listed.iter().find_map(|(name, file)| {
                let path = format!("{path}/{}", String::from_utf8_lossy(name));
                compare(tree, *file, model, entries[name], &path, seen)
            })
        }
    }
}

fn show<'a>(names: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    names.into_iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(" ")
}

fn compare_file(
    tree: &dyn Tree,
    file: FileId,
    attr: Attr,
    bytes: &[u8],
    links: usize,
    path: &str,
) -> Option<String> {
    if attr.kind != FileKind::Regular || attr.size != bytes.len() as u64 || attr.nlink as usize != links {
        return Some(format!("{path}: {attr:?}, expected {} bytes and {links} links", bytes.len()));
    }
    let found = tree.bytes(file, attr.size);
    if found == bytes {
        return compare_holes(tree, file, bytes, path);
    }
    let at = found.iter().zip(bytes).position(|(left, right)| left != right);
    Some(format!("{path}: bytes differ at {at:?} (lengths {} and {})", found.len(), bytes.len()))
}

/// A hole may hold zeros only, and what is not a hole counts as space.
fn compare_holes(tree: &dyn Tree, file: FileId, bytes: &[u8], path: &str) -> Option<String> {
    let (mut at, mut pages) = (0, 0);
    let end = bytes.len() as u64;
    while at < end {
        let data = tree.seek(file, at, false).unwrap_or(end);
        if bytes[at as usize..data as usize].iter().any(|byte| *byte != 0) {
            return Some(format!("{path}: bytes in the hole {at}..{data}"));
        }
        if data == end {
            break;
        }
        let hole = tree.seek(file, data, true);
        let Some(hole) = hole.filter(|hole| *hole > data && *hole <= end) else {
            return Some(format!(
                "{path}: the hole behind the data at {data} is at {hole:?}, the end at {end}"
            ));
        };
        at = hole;
        pages += at.div_ceil(4096) - data / 4096;
    }
    // What was only partly zeroed may count as data in one of the two.
    let told = tree.data_bytes(file) / 4096;
    (told > pages).then(|| format!("{path}: {told} pages of data, and {pages} were found"))
}

/// The first difference between a plain directory and a root of the model.
pub fn plain_difference(disk: &dyn Disk, path: &Path, model: &Model, root: Id) -> Option<String> {
    plain(disk, path, model, root)
}

fn plain(disk: &dyn Disk, path: &Path, model: &Model, id: Id) -> Option<String> {
    let stat = disk.stat("test", path).unwrap()?;
    let inode = &model.inodes[id];
    if stat.attr.mode != inode.mode {
        return Some(format!("{}: mode {:o}, expected {:o}", path.display(), stat.attr.mode, inode.mode));
    }
    let mut xattrs: BTreeMap<_, _> = disk.xattrs("test", path).unwrap().into_iter().collect();
    xattrs.remove(&b"user.weft.store"[..]);
    if xattrs != inode.xattrs {
        return Some(format!("{}: xattrs {xattrs:?}, expected {:?}", path.display(), inode.xattrs));
    }
    match &inode.body {
        Body::Link(target) => (disk.read_link("test", path).unwrap() != *target).then(|| "target".to_owned()),
        Body::File(bytes) => {
            let file = disk.open("test", path, Default::default()).unwrap();
            let mut found = vec![0; bytes.len() + 10];
            let got = file.read_at("test", &mut found, 0).unwrap();
            found.truncate(got);
            (found != *bytes || stat.attr.nlink as usize != model.links(id))
                .then(|| format!("{}: bytes or links differ", path.display()))
        }
        Body::Dir(entries) => {
            let listed: BTreeSet<Vec<u8>> =
                disk.read_dir("test", path).unwrap().into_iter().map(|entry| entry.name).collect();
            if listed != entries.keys().cloned().collect() {
                return Some(format!(
                    "{}: {}, expected {}",
                    path.display(),
                    show(&listed),
                    show(entries.keys())
                ));
            }
            entries.iter().find_map(|(name, id)| {
                let below = path.join(String::from_utf8_lossy(name).as_ref());
                plain(disk, &below, model, *id)
            })
        }
    }
}
