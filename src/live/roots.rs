//! The set of roots: which directories one journal covers, and how one comes and goes.
//!
//! A root is known by its name. It is announced ([`RootStage::Entering`]), its directory is taken in, and from
//! [`RootStage::Present`] on every instant has it; one that did not get that far is dropped at the next opening. One
//! that is taken out loses its entries first, as if they were unlinked.

use super::Live;
use super::names::Held;
use super::paths::{Paths, RootPaths};
use super::tree::{Root, Tree};
use crate::error::{Error, Result};
use crate::format::checkpoint::{Checkpoint, Phase};
use crate::format::event::{Event, RootStage};
use crate::format::sections::RootState;
use crate::types::{FileId, Name, RootId};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Longest name of a root.
const NAME_MAX: usize = 64;
const OP: &str = "roots.set";

/// A further root as asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootDir {
    pub name: Name,
    pub dir: PathBuf,
}

/// What is asked of the set: the directory of every root but DATA, and which roots leave it for good.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    pub roots: Vec<RootDir>,
    pub without: Vec<Name>,
}

impl Asked {
    /// Whether the names can be names, each given once.
    pub fn check(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for root in &self.roots {
            check_name(&root.name)?;
            if !seen.insert(&root.name) {
                let name = String::from_utf8_lossy(&root.name);
                return Err(Error::invalid(OP, format!("the root {name} is given twice")));
            }
        }
        Ok(())
    }
}

/// A root of the running set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootInfo {
    pub root: RootId,
    /// Empty for DATA.
    pub name: Name,
    /// Its directory.
    pub file: FileId,
}

/// Whether a root may be called so: names stand in commands, messages and settings.
pub fn check_name(name: &[u8]) -> Result<()> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let begins_well = name.first().is_some_and(u8::is_ascii_alphanumeric);
    match begins_well && name.len() <= NAME_MAX && name.iter().all(plain) {
        true => Ok(()),
        false => Err(Error::invalid(
            OP,
            format!(
                "{:?} cannot be the name of a root: use 1 to {NAME_MAX} letters, digits, '.', '_' and '-', the first a \
                 letter or digit",
                String::from_utf8_lossy(name)
            ),
        )),
    }
}

/// The directories of the roots that a checkpoint knows; and the new ones, numbered provisionally.
pub fn known(
    data: &Paths,
    checkpoint: Option<&Checkpoint>,
    asked: &Asked,
) -> Result<(Paths, Vec<RootPaths>)> {
    let listed = checkpoint.map_or(&[][..], |checkpoint| &checkpoint.sections.roots);
    let mut paths = data.clone();
    for state in listed {
        let name = String::from_utf8_lossy(&state.name);
        let dir = asked.roots.iter().find(|root| root.name == state.name).map(|root| root.dir.clone());
        match (dir, asked.without.contains(&state.name)) {
            (Some(dir), false) => {
                paths.roots.push(RootPaths { root: state.root, name: state.name.clone(), dir });
            }
            (None, true) => {}
            (Some(_), true) => {
                return Err(Error::invalid(OP, format!("the root {name} is asked for and left out at once")));
            }
            (None, false) => {
                let message = format!(
                    "the history of this store covers the root {name}, which is not given: add --root {name}=DIR, DIR \
                     being where it is now, or take it out for good with --without-root {name}"
                );
                return Err(Error::invalid(OP, message));
            }
        }
    }
    let is_listed = |name: &Name| listed.iter().any(|state| state.name == *name);
    if let Some(stranger) = asked.without.iter().find(|name| !is_listed(name)) {
        let name = String::from_utf8_lossy(stranger);
        return Err(Error::invalid(OP, format!("there is no root {name} that could be left out")));
    }
    let mut new: Vec<RootPaths> = asked
        .roots
        .iter()
        .filter(|root| !is_listed(&root.name))
        .map(|root| RootPaths { root: RootId(0), name: root.name.clone(), dir: root.dir.clone() })
        .collect();
    let changes = !new.is_empty() || !asked.without.is_empty();
    if changes && checkpoint.is_some_and(|checkpoint| checkpoint.phase != Phase::Clean) {
        return Err(Error::invalid(
            OP,
            "DATA was not unmounted, and a root can come or go only after a clean unmount: run `weft recover DATA` \
             first, then mount as you meant to",
        ));
    }
    number(&mut new, paths.roots.iter().map(|root| root.root).max())?;
    Ok((paths, new))
}

fn number(new: &mut [RootPaths], last: Option<RootId>) -> Result<()> {
    let mut last = last.unwrap_or_default();
    for root in new {
        let next = last.0.checked_add(1).ok_or_else(|| Error::invalid(OP, "there are too many roots"))?;
        last = RootId(next);
        root.root = last;
    }
    Ok(())
}

/// Numbers the new roots apart from all that the journal has numbered, and puts them beside the others.
pub fn admit(paths: &mut Paths, mut new: Vec<RootPaths>, tree: &Tree) -> Result<()> {
    let used = tree.roots.keys().copied().chain(paths.roots.iter().map(|root| root.root));
    number(&mut new, used.max())?;
    paths.roots.append(&mut new);
    Ok(())
}

/// The set as checkpoints keep it.
pub fn states(tree: &Tree) -> Vec<RootState> {
    let state =
        |(root, at): (&RootId, &Root)| RootState { root: *root, file: at.file, name: at.name.clone() };
    tree.roots.iter().map(state).collect()
}

impl Live {
    /// All roots, DATA first.
    pub fn roots(&self) -> Result<Vec<RootInfo>> {
        let tree = self.tree.read();
        let info = |paths: &RootPaths| {
            let file = tree.root_dir(paths.root)?;
            Ok(RootInfo { root: paths.root, name: paths.name.clone(), file })
        };
        self.paths.roots.iter().map(info).collect()
    }

    /// The directory of a root; one that is new is announced.
    pub(super) fn enter_root(&self, root: &RootPaths) -> Result<FileId> {
        let mut tree = self.tree.write();
        if let Ok(dir) = tree.root_dir(root.root) {
            return Ok(dir);
        }
        let file = tree.allocate()?;
        let entering = Root { file, name: root.name.clone(), stage: RootStage::Entering };
        self.root_event(&mut tree, root.root, entering)?;
        Ok(file)
    }

    /// All of a root is taken in.
    pub(super) fn root_entered(&self, root: &RootPaths) -> Result<()> {
        let mut tree = self.tree.write();
        match tree.roots.get(&root.root).cloned() {
            Some(at) if at.stage == RootStage::Entering => {
                self.root_event(&mut tree, root.root, Root { stage: RootStage::Present, ..at })
            }
            _ => Ok(()),
        }
    }

    /// A root whose entries are gone leaves the set.
    pub(super) fn root_left(&self, root: RootId, at: &Root) -> Result<()> {
        let mut tree = self.tree.write();
        self.root_event(&mut tree, root, Root { stage: RootStage::Left, ..at.clone() })
    }

    /// Roots that the names know and nobody asked for.
    pub(super) fn unwanted_roots(&self) -> Vec<(RootId, Root)> {
        let tree = self.tree.read();
        let is_wanted = |root: &RootId| self.paths.roots.iter().any(|paths| paths.root == *root);
        let unwanted = tree.roots.iter().filter(|(root, _)| !is_wanted(root));
        unwanted.map(|(root, at)| (*root, at.clone())).collect()
    }

    fn root_event(&self, tree: &mut Tree, root: RootId, now: Root) -> Result<()> {
        let Root { file, name, stage } = now;
        self.name_event(tree, &mut Held::lock(&[]), |_| Event::Root { root, file, name, stage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn asked(names: &[&str]) -> Asked {
        let root = |name: &&str| RootDir { name: name.as_bytes().to_vec(), dir: Path::new("/").join(name) };
        Asked { roots: names.iter().map(root).collect(), without: Vec::new() }
    }

    #[test]
    fn names_are_plain() {
        for good in ["wal", "ts1", "A.b_c-9", "0"] {
            check_name(good.as_bytes()).unwrap();
        }
        for bad in ["", "-x", ".x", "a b", "a/b", "ä", "a=b", &"x".repeat(65)] {
            check_name(bad.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn new_roots_are_numbered_and_none_is_given_twice() {
        let data = Paths::new(Path::new("/data"), Path::new("/store"));
        let (paths, new) = known(&data, None, &asked(&["a", "b"])).unwrap();
        assert_eq!(paths.roots.len(), 1);
        assert_eq!(new.iter().map(|root| root.root.0).collect::<Vec<_>>(), [1, 2]);
        assert!(asked(&["a", "a"]).check().unwrap_err().message.contains("twice"));
        let without = Asked { without: vec![b"a".to_vec()], ..Asked::default() };
        assert!(known(&data, None, &without).unwrap_err().message.contains("no root a"));
    }
}
