//! Moving names, also across the border between what is history and what is excluded.
//!
//! - Out of the excluded: the file's bytes are captured first (an event of its own: between the two the file is
//!   history without a visible name, which is a state like any other).
//! - Into the excluded: the name leaves history. The bytes go on being journaled as before.
//! - A directory with entries does not cross: EXDEV, so that `mv` copies, and everything is captured or not by its
//!   own name.

use super::Live;
use super::names::{Held, RenameMode, check_name, same_root, subdirs_change};
use super::node::Node;
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::format::event::{Event, Excluded, Slot};
use crate::sync::Arc;
use crate::types::{FileId, FileKind};

fn slot(at: (FileId, &[u8])) -> Slot {
    Slot { dir: at.0, name: at.1.to_vec() }
}

impl Live {
    pub fn rename(&self, from: (FileId, &[u8]), to: (FileId, &[u8]), mode: RenameMode) -> Result<()> {
        check_name("live.rename", to.1)?;
        // What will be captured is made durable before anybody has to wait for it.
        if let Some(file) = self.leaves_excluded(from, to)? {
            self.sync_direct(file)?;
        }
        let mut tree = self.tree.write();
        same_root("live.rename", &tree, from.0, to.0)?;
        let moved = Arc::clone(tree.lookup(from.0, from.1)?);
        let target = match tree.find(to.0, to.1)? {
            Some(file) => Some(Arc::clone(tree.node(file)?)),
            None => None,
        };
        if moved.kind == FileKind::Directory && tree.is_within(to.0, moved.file) {
            return Err(Error::errno("live.rename", libc::EINVAL));
        }
        let mut nodes =
            vec![Arc::clone(tree.node(from.0)?), Arc::clone(tree.node(to.0)?), Arc::clone(&moved)];
        nodes.extend(target.clone());
        let mut held = Held::lock(&nodes);
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => Err(Error::errno("live.rename", libc::EEXIST)),
            (RenameMode::Exchange, None) => Err(Error::errno("live.rename", libc::ENOENT)),
            (RenameMode::Exchange, Some(target)) => {
                self.exchange(&mut tree, &mut held, from, to, &moved, &target)
            }
            (_, target) => self.replace(&mut tree, &mut held, from, to, &moved, target),
        }
    }

    /// The file that a rename would take out of the excluded.
    fn leaves_excluded(&self, from: (FileId, &[u8]), to: (FileId, &[u8])) -> Result<Option<FileId>> {
        let tree = self.tree.read();
        same_root("live.rename", &tree, from.0, to.0)?;
        let leaves = tree.is_excluded(from.0, from.1) && !tree.would_exclude(to.0, to.1, false);
        if leaves { tree.find(from.0, from.1) } else { Ok(None) }
    }

    /// Whether a name would be excluded where it is going; a file that becomes history there is captured.
    fn cross(&self, tree: &Tree, held: &mut Held<'_>, node: &Node, to: (FileId, &[u8])) -> Result<bool> {
        let is_dir = node.kind == FileKind::Directory;
        if is_dir && !tree.same_below(node.file, to) {
            return Err(Error::errno("live.rename", libc::EXDEV));
        }
        let excluded = tree.would_exclude(to.0, to.1, is_dir);
        if let (false, Some(state)) = (excluded, held.state(node.file)) {
            self.capture(node, state)?;
        }
        Ok(excluded)
    }

    fn replace(
        &self,
        tree: &mut Tree,
        held: &mut Held<'_>,
        from: (FileId, &[u8]),
        to: (FileId, &[u8]),
        moved: &Arc<Node>,
        target: Option<Arc<Node>>,
    ) -> Result<()> {
        let is_dir = moved.kind == FileKind::Directory;
        held.living(to.0)?;
        let mut replaced = None;
        if let Some(target) = &target {
            if target.file == moved.file {
                return Ok(());
            }
            let target_is_dir = target.kind == FileKind::Directory;
            match (is_dir, target_is_dir) {
                (true, false) => return Err(Error::errno("live.rename", libc::ENOTDIR)),
                (false, true) => return Err(Error::errno("live.rename", libc::EISDIR)),
                (true, true) if !tree.dir(target.file)?.entries.is_empty() => {
                    return Err(Error::errno("live.rename", libc::ENOTEMPTY));
                }
                _ => {}
            }
            let mut attr = held.attr(target.file)?;
            attr.nlink = if target_is_dir { 0 } else { attr.nlink.saturating_sub(1) };
            replaced = Some((target.file, attr));
        }
        let second = self.cross(tree, held, moved, to)?;
        let names = Excluded { first: tree.is_excluded(from.0, from.1), second };
        // Directories that are excluded are not counted.
        let lost = is_dir && target.is_some() && !tree.is_excluded(to.0, to.1);
        let (leaves, enters) = (is_dir && !names.first, is_dir && !names.second);
        let (from_before, to_before) = (held.attr(from.0)?.nlink, held.attr(to.0)?.nlink);
        let (from_nlink, to_nlink) = if from.0 == to.0 {
            let after = subdirs_change(subdirs_change(from_before, enters, leaves), false, lost);
            (after, after)
        } else {
            (subdirs_change(from_before, false, leaves), subdirs_change(to_before, enters, lost))
        };
        let mut attr = held.attr(moved.file)?;
        self.name_event(tree, held, |ts| {
            attr.ctime = ts.into();
            if let Some((_, attr)) = &mut replaced {
                attr.ctime = ts.into();
            }
            let (from, to) = (slot(from), slot(to));
            names.wrap(Event::Rename { file: moved.file, from, to, attr, replaced, from_nlink, to_nlink })
        })?;
        self.count_rename(moved, held.state(moved.file));
        Ok(())
    }

    fn exchange(
        &self,
        tree: &mut Tree,
        held: &mut Held<'_>,
        from: (FileId, &[u8]),
        to: (FileId, &[u8]),
        left: &Arc<Node>,
        right: &Arc<Node>,
    ) -> Result<()> {
        let (left_dir, right_dir) = (left.kind == FileKind::Directory, right.kind == FileKind::Directory);
        if right_dir && tree.is_within(from.0, right.file) {
            return Err(Error::errno("live.rename", libc::EINVAL));
        }
        if left.file == right.file {
            return Ok(());
        }
        let was = Excluded { first: tree.is_excluded(from.0, from.1), second: tree.is_excluded(to.0, to.1) };
        let names = Excluded {
            second: self.cross(tree, held, left, to)?,
            first: self.cross(tree, held, right, from)?,
        };
        let change = |nlink, gains: bool, loses: bool| subdirs_change(nlink, gains, loses);
        let (from_before, to_before) = (held.attr(from.0)?.nlink, held.attr(to.0)?.nlink);
        let at_left = (right_dir && !names.first, left_dir && !was.first);
        let at_right = (left_dir && !names.second, right_dir && !was.second);
        let (left_nlink, right_nlink) = if from.0 == to.0 {
            let after = change(change(from_before, at_left.0, at_left.1), at_right.0, at_right.1);
            (after, after)
        } else {
            (change(from_before, at_left.0, at_left.1), change(to_before, at_right.0, at_right.1))
        };
        let (mut left_attr, mut right_attr) = (held.attr(left.file)?, held.attr(right.file)?);
        self.name_event(tree, held, |ts| {
            left_attr.ctime = ts.into();
            right_attr.ctime = ts.into();
            names.wrap(Event::Exchange {
                left: left.file,
                left_slot: slot(from),
                left_attr,
                right: right.file,
                right_slot: slot(to),
                right_attr,
                left_nlink,
                right_nlink,
            })
        })?;
        [left, right].into_iter().for_each(|node| self.count_rename(node, held.state(node.file)));
        Ok(())
    }
}
