//! What has to be made, before anything is.

use super::link::Relocate;
use crate::Outcome;
use std::collections::btree_map::{BTreeMap, Entry as Slot};
use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A directory of a view, and where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Name of its root; empty for DATA.
    pub root: String,
    pub view: PathBuf,
    pub target: PathBuf,
}

/// Begin and end of stretches of bytes, in order and apart.
pub type Ranges = Vec<(u64, u64)>;

/// Which of the entries of a source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selected {
    /// Only what stands at or below one of these paths (from the view on), and the directories that lead there; all when
    /// none is given. Of a file with ranges only these bytes are wanted; the others become zero.
    pub only: BTreeMap<PathBuf, Option<Ranges>>,
    /// Files that are left out.
    pub except: HashSet<PathBuf>,
}

/// A thing to make.
pub struct Entry {
    pub source: PathBuf,
    pub target: PathBuf,
    pub meta: Metadata,
}

/// See the head of this file.
#[derive(Default)]
pub struct Plan {
    /// From the outside in.
    pub dirs: Vec<Entry>,
    /// The outermost directories.
    pub tops: Vec<PathBuf>,
    /// Each with what is wanted of it; all of it without.
    pub files: Vec<(Entry, Option<Ranges>)>,
    /// Links, with what they will say.
    pub links: Vec<(Entry, PathBuf)>,
    /// Further names of files: made of the first.
    pub names: Vec<(Entry, PathBuf)>,
    /// Fifos, sockets, devices.
    pub nodes: Vec<Entry>,
    /// What has to be written, at most.
    pub bytes: u64,
}

impl Plan {
    /// Adds what is selected of a source.
    ///
    /// # Errors
    /// One line: something cannot be read, or leads to what has no history.
    pub fn add(&mut self, source: &Source, selected: &Selected, relocate: &Relocate) -> Outcome<()> {
        let mut firsts = HashMap::new();
        self.tops.push(source.target.clone());
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let from = source.view.join(&path);
            let told = |cause: std::io::Error| format!("cannot read {}: {cause}", from.display());
            let meta = std::fs::symlink_metadata(&from).map_err(told)?;
            let target =
                if path.as_os_str().is_empty() { source.target.clone() } else { source.target.join(&path) };
            let entry = Entry { source: from.clone(), target, meta };
            let kind = entry.meta.file_type();
            if kind.is_dir() {
                for child in std::fs::read_dir(&from).map_err(told)? {
                    let child = path.join(child.map_err(told)?.file_name());
                    if selected.leads_to(&child) {
                        waiting.push(child);
                    }
                }
                self.dirs.push(entry);
            } else if selected.takes(&path) {
                self.put(entry, &path, selected, relocate, &mut firsts)?;
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        entry: Entry,
        path: &Path,
        selected: &Selected,
        relocate: &Relocate,
        firsts: &mut HashMap<u64, PathBuf>,
    ) -> Outcome<()> {
        let kind = entry.meta.file_type();
        if kind.is_symlink() {
            let text = std::fs::read_link(&entry.source)
                .map_err(|cause| format!("cannot read {}: {cause}", entry.source.display()))?;
            let text = relocate.link(path, &text)?;
            self.links.push((entry, text));
            return Ok(());
        }
        if entry.meta.nlink() > 1 {
            if let Some(first) = firsts.get(&entry.meta.ino()) {
                self.names.push((entry, first.clone()));
                return Ok(());
            }
            firsts.insert(entry.meta.ino(), entry.target.clone());
        }
        if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
            self.nodes.push(entry);
            return Ok(());
        }
        let ranges = selected.only.get(path).cloned().flatten();
        // What is a hole in the view becomes one: blocks tell how much is data.
        self.bytes += match &ranges {
            Some(ranges) => ranges.iter().map(|(start, end)| end - start).sum(),
            None => entry.meta.size().min(entry.meta.blocks() * 512),
        };
        self.files.push((entry, ranges));
        Ok(())
    }

    /// Puts those files last, in this order, by the end of their path: without them no server starts.
    pub fn keep_back(&mut self, endings: &[&str]) {
        self.files.sort_by_key(|(entry, _)| endings.iter().any(|ending| entry.target.ends_with(ending)));
    }
}

impl Selected {
    /// Adds a file, or some bytes of it, to what is wanted.
    pub fn want(&mut self, path: PathBuf, ranges: Option<Ranges>) {
        match self.only.entry(path) {
            Slot::Vacant(slot) => drop(slot.insert(ranges)),
            Slot::Occupied(mut slot) => {
                let both = slot.get_mut().take().zip(ranges).map(|(known, more)| union(known, more));
                slot.insert(both);
            }
        }
    }

    /// Whether a path is wanted, or something below it.
    fn leads_to(&self, path: &Path) -> bool {
        !self.except.contains(path)
            && (self.only.is_empty()
                || self.only.keys().any(|only| path.starts_with(only) || only.starts_with(path)))
    }

    fn takes(&self, path: &Path) -> bool {
        self.only.is_empty() || self.only.keys().any(|only| path.starts_with(only))
    }
}

/// What is in one of two, in order and apart.
fn union(left: Ranges, right: Ranges) -> Ranges {
    let mut all = [left, right].concat();
    all.sort_unstable();
    let mut joined: Ranges = Vec::with_capacity(all.len());
    for (start, end) in all {
        match joined.last_mut() {
            Some((_, last)) if start <= *last => *last = end.max(*last),
            _ => joined.push((start, end)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_twice_is_wanted_in_all_and_whole_wins() {
        let mut selected = Selected::default();
        let mut want = |ranges: Option<Ranges>| {
            selected.want("base/5/1".into(), ranges);
            selected.only["base/5/1".as_ref() as &Path].clone()
        };
        assert_eq!(want(Some(vec![(0, 10), (40, 50)])), Some(vec![(0, 10), (40, 50)]));
        assert_eq!(want(Some(vec![(5, 20), (50, 60), (90, 95)])), Some(vec![(0, 20), (40, 60), (90, 95)]));
        assert_eq!(want(None), None);
        assert_eq!(want(Some(vec![(0, 10)])), None, "the whole has it");
    }
}
