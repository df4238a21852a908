//! The files of partitions in a tree of names, live or past.

use super::partition::{Fork, Layout, Partition, member, names};
use crate::error::Result;
use crate::types::{Attr, FileId, FileKind, Name};
use std::collections::BTreeMap;

/// Entries asked for at a time.
const AT_ONCE: usize = 1_024;
/// Deeper than any path the kernel takes.
const DEPTH: usize = 4_096;

/// Names and attributes at one moment.
pub trait Tree {
    /// The directory of a root, DATA's without a name; `None` when the set did not have it.
    fn top(&self, root: &[u8]) -> Result<Option<FileId>>;
    /// What stands at a name.
    fn at(&self, dir: FileId, name: &[u8]) -> Result<Option<(FileId, Attr)>>;
    /// Entries with names after `after`, at most `limit`.
    fn entries(
        &self,
        dir: FileId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Name, FileId, FileKind)>>;
    /// The attributes of a file that was found here; `None` when it has gone since.
    fn attr_of(&self, file: FileId) -> Result<Option<Attr>>;
}

/// A file of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// From its root on, without a `/` before it.
    pub path: Vec<u8>,
    pub file: FileId,
    pub attr: Attr,
    pub fork: Fork,
    pub segment: u64,
}

/// The files of a partition, in order; none when it is not there.
pub fn files(tree: &dyn Tree, layout: Layout, partition: &Partition) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for dir in partition.dirs() {
        let Some(at) = directory(tree, &partition.root, &dir)? else { continue };
        let (mut known, mut names) = (BTreeMap::new(), Vec::new());
        each(tree, at, |name, file, kind| {
            if kind == FileKind::Regular {
                known.insert(name.clone(), file);
                names.push(name);
            }
            Ok(())
        })?;
        for (path, member) in partition.pick(layout, &dir, &names) {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(&path);
            let Some(file) = known.get(name).copied() else { continue };
            let Some(attr) = tree.attr_of(file)? else { continue };
            parts.push(Part { path, file, attr, fork: member.fork, segment: member.segment });
        }
    }
    Ok(parts)
}

/// The partitions in the directory of a partition, with their files in it.
pub fn beside(
    tree: &dyn Tree,
    layout: Layout,
    partition: &Partition,
) -> Result<BTreeMap<Partition, Vec<Part>>> {
    let mut found: BTreeMap<Partition, Vec<Part>> = BTreeMap::new();
    let dir = partition.dirs().into_iter().next().unwrap_or_default();
    let Some(at) = directory(tree, &partition.root, &dir)? else { return Ok(found) };
    let dir = dir.join(&b'/');
    each(tree, at, |name, file, kind| {
        let path = if dir.is_empty() { name } else { [dir.as_slice(), &name].join(&b'/') };
        if let (FileKind::Regular, Some(attr)) = (kind, tree.attr_of(file)?) {
            let member = member(layout, &partition.root, &path);
            let part = Part { path, file, attr, fork: member.fork, segment: member.segment };
            found.entry(member.partition).or_default().push(part);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Every partition of some roots, with its files in no order.
pub fn all(tree: &dyn Tree, layout: Layout, roots: &[Name]) -> Result<BTreeMap<Partition, Vec<Part>>> {
    let mut found: BTreeMap<Partition, Vec<Part>> = BTreeMap::new();
    for root in roots {
        let Some(top) = tree.top(root)? else { continue };
        let mut waiting = vec![(top, Vec::new(), 0)];
        while let Some((dir, path, depth)) = waiting.pop() {
            each(tree, dir, |name, file, kind| {
                let path = if path.is_empty() { name } else { [path.as_slice(), &name].join(&b'/') };
                match kind {
                    FileKind::Directory if depth < DEPTH => waiting.push((file, path, depth + 1)),
                    FileKind::Regular => {
                        let Some(attr) = tree.attr_of(file)? else { return Ok(()) };
                        let member = member(layout, root, &path);
                        let part = Part { path, file, attr, fork: member.fork, segment: member.segment };
                        found.entry(member.partition).or_default().push(part);
                    }
                    _ => {}
                }
                Ok(())
            })?;
        }
    }
    Ok(found)
}

/// The directory at a path of a root.
fn directory(tree: &dyn Tree, root: &[u8], path: &[Name]) -> Result<Option<FileId>> {
    let Some(mut here) = tree.top(root)? else { return Ok(None) };
    for name in path {
        match tree.at(here, name)? {
            Some((file, attr)) if attr.kind == FileKind::Directory => here = file,
            _ => return Ok(None),
        }
    }
    Ok(Some(here))
}

/// Goes through a directory.
fn each(
    tree: &dyn Tree,
    dir: FileId,
    mut visit: impl FnMut(Name, FileId, FileKind) -> Result<()>,
) -> Result<()> {
    let mut after: Option<Name> = None;
    loop {
        let entries = tree.entries(dir, after.as_deref(), AT_ONCE)?;
        let more = entries.len() == AT_ONCE;
        after = entries.last().map(|(name, _, _)| name.clone());
        for (name, file, kind) in entries {
            visit(name, file, kind)?;
        }
        if !more {
            return Ok(());
        }
    }
}

/// The file at a path of a root.
pub fn file_at(tree: &dyn Tree, root: &[u8], path: &[u8]) -> Result<Option<(FileId, Attr)>> {
    let path = names(path);
    let Some((last, dirs)) = path.split_last() else { return Ok(None) };
    match directory(tree, root, dirs)? {
        Some(dir) => tree.at(dir, last),
        None => Ok(None),
    }
}
