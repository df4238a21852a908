//! From paths to nodes, as the kernel walks them.

use super::world::{Body, NodeId, ROOT, Sys, World};
use std::collections::VecDeque;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// As many symlinks as Linux follows in one walk.
const LINKS_MAX: usize = 40;

/// Where a name is, or would be: the directories from the root to its parent, and the name.
pub(super) struct Place {
    pub(super) dirs: Vec<NodeId>,
    pub(super) name: Vec<u8>,
}

impl Place {
    pub(super) fn dir(&self) -> NodeId {
        self.dirs.last().copied().unwrap_or(ROOT)
    }
}

enum Step {
    Root,
    Up,
    Name(Vec<u8>),
}

fn steps(path: &Path) -> impl DoubleEndedIterator<Item = Step> {
    path.components().filter_map(|component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Name(name.as_bytes().to_vec())),
        Component::CurDir | Component::Prefix(_) => None,
    })
}

impl World {
    /// The place of a path's last name; symlinks on the way to it are followed, the last is not. `None` when the path
    /// ends in a directory without a name here (the root, `..`): then the place is the directory itself.
    fn walk(&self, path: &Path) -> Sys<(Vec<NodeId>, Option<Vec<u8>>)> {
        let mut todo: VecDeque<Step> = steps(path).collect();
        let mut dirs = vec![ROOT];
        let mut links = 0;
        while let Some(step) = todo.pop_front() {
            match step {
                Step::Root => dirs.truncate(1),
                Step::Up if dirs.len() > 1 => {
                    dirs.pop();
                }
                Step::Up => {}
                Step::Name(name) if todo.is_empty() => return Ok((dirs, Some(name))),
                Step::Name(name) => {
                    let dir = dirs.last().copied().unwrap_or(ROOT);
                    let node = *self.dir(dir)?.get(&name).ok_or(libc::ENOENT)?;
                    match &self.node(node)?.body {
                        Body::Dir(_) => dirs.push(node),
                        Body::Link(target) => {
                            links += 1;
                            if links > LINKS_MAX {
                                return Err(libc::ELOOP);
                            }
                            let target = std::ffi::OsString::from_vec(target.clone());
                            for step in steps(&PathBuf::from(target)).rev() {
                                todo.push_front(step);
                            }
                        }
                        _ => return Err(libc::ENOTDIR),
                    }
                }
            }
        }
        Ok((dirs, None))
    }

    /// Where a name is to be made or removed; the root has none.
    pub(super) fn place(&self, path: &Path) -> Sys<Place> {
        let (dirs, name) = self.walk(path)?;
        let name = name.ok_or(libc::EBUSY)?;
        let place = Place { dirs, name };
        self.dir(place.dir())?;
        Ok(place)
    }

    /// The node of a name; a symlink itself, not what it leads to.
    pub(super) fn find(&self, path: &Path) -> Sys<NodeId> {
        let (dirs, name) = self.walk(path)?;
        let dir = dirs.last().copied().unwrap_or(ROOT);
        match name {
            None => Ok(dir),
            Some(name) => self.dir(dir)?.get(&name).copied().ok_or(libc::ENOENT),
        }
    }
}
