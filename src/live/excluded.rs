//! What is excluded from history, across a whole tree: moving directories, changed patterns, checkpoints, recovery.
//!
//! While a mount serves, a name is excluded if and only if the patterns say so. What was decided stands in events and
//! checkpoints; patterns that have changed since are brought to bear when the tree is opened.

use super::Live;
use super::content::Base;
use super::names::{Held, subdirs_change};
use super::node::Node;
use super::paths::Paths;
use super::tree::Tree;
use crate::disk::Disk;
use crate::error::Result;
use crate::format::event::{Event, Slot};
use crate::format::sections::ExcludedState;
use crate::sync::Arc;
use crate::types::{FileId, FileKind, Name, PageSet, Seq};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, HashMap};

/// Saved pages of bases that a checkpoint does not know yet, by file and adoption.
pub type Unclaimed = HashMap<(FileId, Seq), RoaringBitmap>;

impl Tree {
    /// Whether everything in a directory stays excluded, or not, when it moves from one name to another.
    pub fn same_below(&self, dir: FileId, to: (FileId, &[u8])) -> bool {
        if self.patterns.is_empty() {
            return true;
        }
        let mut path: Vec<&[u8]> = self.path(to.0);
        path.push(to.1);
        self.as_patterns_say(dir, &mut path)
    }

    fn as_patterns_say<'a>(&'a self, dir: FileId, path: &mut Vec<&'a [u8]>) -> bool {
        let Some(here) = self.dirs.get(&dir) else { return true };
        here.entries.iter().all(|(name, file)| {
            path.push(name);
            let is_dir = self.dirs.contains_key(file);
            let same = self.patterns.excludes(path, is_dir) == here.excluded.contains(name)
                && (!is_dir || self.as_patterns_say(*file, path));
            path.pop();
            same
        })
    }

    /// Files with excluded names, and those whose bytes bypass the journal, as a checkpoint keeps them.
    pub(super) fn excluded_states(&self) -> Vec<ExcludedState> {
        let mut names: BTreeMap<FileId, Vec<Slot>> = BTreeMap::new();
        for (dir, entries) in &self.dirs {
            for name in &entries.excluded {
                if let Some(file) = entries.entries.get(name) {
                    names.entry(*file).or_default().push(Slot { dir: *dir, name: name.clone() });
                }
            }
        }
        for (file, node) in &self.nodes {
            if node.lock().content.direct {
                names.entry(*file).or_default();
            }
        }
        let direct = |file| self.nodes.get(&file).is_some_and(|node| node.lock().content.direct);
        names.into_iter().map(|(file, names)| ExcludedState { file, direct: direct(file), names }).collect()
    }
}

impl Live {
    /// How many files bypass the journal, and their bytes.
    pub fn excluded(&self) -> (u64, u64) {
        let tree = self.tree.read();
        let sizes = tree.nodes.values().filter_map(|node| {
            let state = node.lock();
            (state.content.direct && state.attr.nlink > 0).then_some(state.attr.size)
        });
        sizes.fold((0, 0), |(files, bytes), size| (files + 1, bytes + size))
    }

    /// Whether a file's bytes bypass the journal.
    pub fn bypasses_history(&self, file: FileId) -> Result<bool> {
        Ok(self.node(file)?.lock().content.direct)
    }

    /// The patterns in force, as they were written.
    pub fn patterns(&self) -> Vec<String> {
        self.tree.read().patterns.texts()
    }

    /// Marks every name of an opened tree as the patterns say it, captures what is history from now on, and lets the
    /// bytes of the rest bypass the journal. Durable when it returns.
    pub(super) fn reconcile(&self) -> Result<()> {
        let mut dirs: Vec<FileId> = {
            let tree = self.tree.read();
            tree.dirs.iter().filter(|(file, dir)| dir.parent == **file).map(|(file, _)| *file).collect()
        };
        let before = self.journal.last_seq();
        while let Some(dir) = dirs.pop() {
            let entries: Vec<(Name, FileId)> = {
                let tree = self.tree.read();
                tree.dir(dir)?.entries.iter().map(|(name, file)| (name.clone(), *file)).collect()
            };
            for (name, file) in entries {
                if self.reconcile_name(dir, &name, file)? {
                    dirs.push(file);
                }
            }
        }
        if self.journal.last_seq() > before {
            self.journal.flush()?;
        }
        Ok(())
    }

    /// One name; whether it is a directory.
    fn reconcile_name(&self, dir: FileId, name: &[u8], file: FileId) -> Result<bool> {
        let mut tree = self.tree.write();
        let nodes = [Arc::clone(tree.node(dir)?), Arc::clone(tree.node(file)?)];
        let [_, node] = &nodes;
        let is_dir = node.kind == FileKind::Directory;
        let excluded = tree.would_exclude(dir, name, is_dir);
        let mut held = Held::lock(&nodes);
        if excluded != tree.is_excluded(dir, name) {
            if let (false, Some(state)) = (excluded, held.state(file)) {
                self.capture(node, state)?;
            }
            let (attr, nlink) = (held.attr(file)?, held.attr(dir)?.nlink);
            let dir_nlink = subdirs_change(nlink, is_dir && !excluded, is_dir && excluded);
            let slot = Slot { dir, name: name.to_vec() };
            self.name_event(&mut tree, &mut held, |_| Event::Mark { file, slot, attr, dir_nlink, excluded })?;
        }
        if let Some(state) = held.state(file)
            && excluded
            && node.kind == FileKind::Regular
            && state.attr.nlink == 1
        {
            self.release(node, state)?;
        }
        Ok(is_dir)
    }
}

/// After the replay: what bypasses the journal is what the disk has.
pub(super) fn bypassing_on_disk(disk: &dyn Disk, paths: &Paths, tree: &Tree) -> Result<()> {
    for node in tree.nodes.values() {
        let mut state = node.lock();
        if !state.content.direct {
            continue;
        }
        let stat = disk.stat("recover.live", &paths.live(node.root, node.file)?)?;
        let size = stat.map_or(0, |stat| stat.attr.size);
        let content = &mut state.content;
        (content.exists, content.live_len, content.disk_len) = (stat.is_some(), size, size);
        content.data = PageSet::dense(size);
        state.attr.size = size;
        if let Some(stat) = stat {
            state.attr.mtime = state.attr.mtime.max(stat.attr.mtime);
        }
    }
    Ok(())
}

/// Replayed: a file was captured at `seq`. Its base is in the live file, or (in parts or whole) where it has been saved
/// since. `false`: it is nowhere.
pub(super) fn captured_on_disk(
    disk: &dyn Disk,
    paths: &Paths,
    node: &Node,
    seq: Seq,
    unclaimed: &mut Unclaimed,
) -> Result<bool> {
    let stat = disk.stat("recover.live", &paths.live(node.root, node.file)?)?;
    let in_limbo = disk.stat("recover.limbo", &paths.root(node.root)?.limbo(node.file, seq))?.is_some();
    let mut state = node.lock();
    let size = state.attr.size;
    let content = &mut state.content;
    let len = stat.map_or(0, |stat| stat.attr.size);
    (content.exists, content.live_len, content.disk_len) = (stat.is_some(), len, len);
    let saved = unclaimed.remove(&(node.file, seq)).unwrap_or_default();
    content.base = (size > 0 || in_limbo).then(|| Base { saved, in_limbo, ..Base::new(seq, size) });
    Ok(stat.is_some() || in_limbo || size == 0)
}
