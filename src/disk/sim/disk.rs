//! The simulated disk as the core sees it: names and attributes.

use super::content::Content;
use super::faults::Fate;
use super::file::{SimFile, failed};
use super::path::Place;
use super::world::{Body, Entries, Node, NodeId, Sys, World};
use super::{Shared, SimDisk};
use crate::disk::{DirEntry, Disk, DiskFile, Filesystem, Lock, Op, OpenHow, Space, Stat};
use crate::error::Result;
use crate::sync::Arc;
use crate::types::{Attr, FileKind, NAME_MAX, Name, PAGE};
use std::path::{Path, PathBuf};

/// Device number of the first simulated filesystem.
const DEV: u64 = 0x5157;
/// Most inodes it claims to have.
const FILES: u64 = 1 << 32;

impl SimDisk {
    /// Runs a call that changes names or attributes; a failing one does nothing.
    fn change<T: Default>(
        &self,
        op: Op,
        path: &Path,
        change: impl FnOnce(&mut World) -> Sys<T>,
    ) -> Result<T> {
        let mut state = self.shared.state.lock();
        let done = state.change(op, path, |world, fate| match fate {
            Fate::Fails(_) => Ok(T::default()),
            Fate::Succeeds | Fate::LosesPower => change(world),
        });
        done.map_err(|errno| failed(op, path, errno))
    }

    /// Runs a sync, which does nothing when the power goes during it.
    fn sync(&self, op: Op, path: &Path, sync: impl FnOnce(&mut World) -> Sys<()>) -> Result<()> {
        let mut state = self.shared.state.lock();
        let done = state.change(op, path, |world, fate| match fate {
            Fate::Succeeds => sync(world),
            Fate::Fails(_) | Fate::LosesPower => Ok(()),
        });
        done.map_err(|errno| failed(op, path, errno))
    }

    fn look<T>(&self, op: Op, path: &Path, look: impl FnOnce(&World) -> Sys<T>) -> Result<T> {
        let mut state = self.shared.state.lock();
        let seen = state.read(op, path).and_then(look);
        seen.map_err(|errno| failed(op, path, errno))
    }

    /// Opens a regular file and counts the handle: in one step, so that of two that create one finds the other's file.
    fn open_node(&self, op: Op, path: &Path, how: OpenHow) -> Result<NodeId> {
        let mut state = self.shared.state.lock();
        let opened = match state.world.find(path) {
            Err(libc::ENOENT) if how.create => state.change(op, path, |world, fate| match fate {
                Fate::Fails(_) => Ok(NodeId::default()),
                Fate::Succeeds | Fate::LosesPower => {
                    let body = Body::File(Content::default());
                    world.make(path, body, FileKind::Regular, 0o600, 0)
                }
            }),
            // Faults come before what is found, as they do in all other calls.
            found => state.read(op, path).and_then(|world| {
                let id = found?;
                openable(world.node(id)?, how).map(|()| id)
            }),
        };
        let id = opened.map_err(|errno| failed(op, path, errno))?;
        state.world.opened(id);
        Ok(id)
    }

    fn node_attr(kind: FileKind) -> Sys<()> {
        match kind {
            FileKind::Regular | FileKind::Directory | FileKind::Symlink => Err(libc::EINVAL),
            _ => Ok(()),
        }
    }
}

fn openable(node: &Node, how: OpenHow) -> Sys<()> {
    if how.create && how.exclusive {
        return Err(libc::EEXIST);
    }
    match node.kind {
        FileKind::Regular => Ok(()),
        FileKind::Directory => Err(libc::EISDIR),
        FileKind::Symlink => Err(libc::ELOOP),
        _ => Err(libc::EINVAL),
    }
}

impl World {
    pub(super) fn make(
        &mut self,
        path: &Path,
        body: Body,
        kind: FileKind,
        mode: u32,
        rdev: u32,
    ) -> Sys<NodeId> {
        let Place { dirs, name } = self.place_or(path, libc::EEXIST)?;
        let dir = dirs.last().copied().unwrap_or(super::world::ROOT);
        self.create(dir, &name, body, kind, mode, rdev)
    }

    /// The place of a name, with what the kernel says when it is a directory that has none here.
    fn place_or(&self, path: &Path, unnamed: i32) -> Sys<Place> {
        self.place(path).map_err(|errno| match errno {
            libc::EBUSY => unnamed,
            other => other,
        })
    }

    fn set_attr(&mut self, id: NodeId, attr: &Attr) -> Sys<()> {
        let node = self.node_mut(id)?;
        (node.meta.uid, node.meta.gid) = (attr.uid, attr.gid);
        if node.kind != FileKind::Symlink {
            node.meta.mode = attr.mode & 0o7777;
        }
        (node.meta.atime, node.meta.mtime) = (attr.atime, attr.mtime);
        self.touch(id, false);
        Ok(())
    }

    /// The extended attributes of a node, to change the one called `name`.
    fn xattrs_mut(
        &mut self,
        path: &Path,
        name: &[u8],
    ) -> Sys<(NodeId, &mut std::collections::BTreeMap<Name, Vec<u8>>)> {
        let id = self.find(path)?;
        let node = self.node_mut(id)?;
        check_xattr_name(name, node.kind)?;
        Ok((id, &mut node.meta.xattrs))
    }
}

/// xattr(7): namespaces, and `user.` only for files and directories.
fn check_xattr_name(name: &[u8], kind: FileKind) -> Sys<()> {
    let spaces: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];
    let space = spaces.iter().find(|space| name.starts_with(space));
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(libc::ERANGE);
    }
    match (space, kind) {
        (None, _) => Err(libc::EOPNOTSUPP),
        (Some(space), _) if name.len() == space.len() => Err(libc::EINVAL),
        (_, FileKind::Regular | FileKind::Directory) => Ok(()),
        (Some(space), _) if *space == b"user." => Err(libc::EPERM),
        _ => Ok(()),
    }
}

impl Disk for SimDisk {
    fn open(&self, op: Op, path: &Path, how: OpenHow) -> Result<Arc<dyn DiskFile>> {
        let node = self.open_node(op, path, how)?;
        Ok(Arc::new(SimFile {
            shared: Arc::clone(&self.shared),
            node,
            path: path.to_path_buf(),
            write: how.write,
            direct: how.direct,
        }))
    }

    fn stat(&self, op: Op, path: &Path) -> Result<Option<Stat>> {
        self.look(op, path, |world| match world.find(path) {
            Ok(id) => {
                let node = world.node(id)?;
                Ok(Some(Stat {
                    attr: node.attr(),
                    dev: DEV + node.fs,
                    ino: node.ino,
                    allocated: node.allocated(),
                }))
            }
            Err(libc::ENOENT | libc::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        })
    }

    fn read_dir(&self, op: Op, path: &Path) -> Result<Vec<DirEntry>> {
        self.look(op, path, |world| {
            let entries = world.dir(world.find_dir(path)?)?.iter();
            let listed = entries
                .map(|(name, &node)| Ok(DirEntry { name: name.clone(), kind: world.node(node)?.kind }));
            listed.collect()
        })
    }

    fn create_dir(&self, op: Op, path: &Path, mode: u32) -> Result<()> {
        self.change(op, path, |world| {
            let body = Body::Dir(Entries::default());
            world.make(path, body, FileKind::Directory, mode, 0)?;
            Ok(())
        })
    }

    fn remove_dir(&self, op: Op, path: &Path) -> Result<()> {
        self.change(op, path, |world| {
            let place = world.place(path)?;
            world.remove(place.dir(), &place.name, true)
        })
    }

    fn rename(&self, op: Op, from: &Path, to: &Path) -> Result<()> {
        self.change(op, from, |world| {
            let (from, to) = (world.place(from)?, world.place(to)?);
            let (source, target) = ((from.dir(), &from.name[..]), (to.dir(), &to.name[..]));
            world.rename(source, target, &from.dirs, &to.dirs)
        })
    }

    fn link(&self, op: Op, existing: &Path, new: &Path) -> Result<()> {
        self.change(op, existing, |world| {
            let node = world.find(existing)?;
            let place = world.place_or(new, libc::EEXIST)?;
            world.link(node, place.dir(), &place.name)
        })
    }

    fn reflink(&self, op: Op, existing: &Path, new: &Path) -> Result<bool> {
        self.change(op, existing, |world| world.reflink(existing, new))
    }

    fn unlink(&self, op: Op, path: &Path) -> Result<()> {
        self.change(op, path, |world| {
            let place = world.place_or(path, libc::EISDIR)?;
            world.remove(place.dir(), &place.name, false)
        })
    }

    fn symlink(&self, op: Op, target: &[u8], path: &Path) -> Result<()> {
        self.change(op, path, |world| {
            if target.is_empty() {
                return Err(libc::ENOENT);
            }
            let body = Body::Link(target.to_vec());
            world.make(path, body, FileKind::Symlink, 0o777, 0)?;
            Ok(())
        })
    }

    fn read_link(&self, op: Op, path: &Path) -> Result<Vec<u8>> {
        self.look(op, path, |world| match &world.node(world.find(path)?)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(libc::EINVAL),
        })
    }

    fn make_node(&self, op: Op, path: &Path, attr: &Attr) -> Result<()> {
        self.change(op, path, |world| {
            SimDisk::node_attr(attr.kind)?;
            let device = matches!(attr.kind, FileKind::CharDevice | FileKind::BlockDevice);
            let rdev = if device { attr.rdev } else { 0 };
            world.make(path, Body::Other, attr.kind, attr.mode, rdev)?;
            Ok(())
        })
    }

    fn set_attr(&self, op: Op, path: &Path, attr: &Attr) -> Result<()> {
        self.change(op, path, |world| {
            let id = world.find(path)?;
            world.set_attr(id, attr)
        })
    }

    fn xattrs(&self, op: Op, path: &Path) -> Result<Vec<(Name, Vec<u8>)>> {
        self.look(op, path, |world| {
            let xattrs = &world.node(world.find(path)?)?.meta.xattrs;
            Ok(xattrs.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
        })
    }

    fn set_xattr(&self, op: Op, path: &Path, name: &[u8], value: &[u8]) -> Result<()> {
        self.change(op, path, |world| {
            let (id, xattrs) = world.xattrs_mut(path, name)?;
            xattrs.insert(name.to_vec(), value.to_vec());
            world.touch(id, false);
            Ok(())
        })
    }

    fn remove_xattr(&self, op: Op, path: &Path, name: &[u8]) -> Result<()> {
        self.change(op, path, |world| {
            let (id, xattrs) = world.xattrs_mut(path, name)?;
            xattrs.remove(name).ok_or(libc::ENODATA)?;
            world.touch(id, false);
            Ok(())
        })
    }

    fn sync_dir(&self, op: Op, path: &Path) -> Result<()> {
        self.sync(op, path, |world| {
            let id = world.find_dir(path)?;
            world.sync_dir(id)
        })
    }

    fn filesystem(&self, op: Op, path: &Path) -> Result<Arc<dyn Filesystem>> {
        let find = |world: &World| world.find_dir(path).and_then(|id| Ok(world.node(id)?.fs));
        let fs = find(&self.shared.state.lock().world).map_err(|errno| failed(op, path, errno))?;
        Ok(Arc::new(SimFilesystem { shared: Arc::clone(&self.shared), fs, path: path.to_owned() }))
    }

    fn space(&self, op: Op, path: &Path) -> Result<Space> {
        self.look(op, path, |world| {
            let found = world.find(path)?;
            let free = world.capacity.saturating_sub(world.used_pages * PAGE);
            Ok(Space {
                device: world.node(found)?.fs,
                block_size: 4096,
                total: world.capacity,
                free,
                available: free,
                files: FILES,
                files_free: FILES.saturating_sub(world.nodes.len() as u64),
                name_max: 255,
                copy_on_write: false,
            })
        })
    }

    fn lock(&self, op: Op, path: &Path) -> Result<Option<Box<dyn Lock>>> {
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        // Opened as the real one is: created when absent, held open while locked.
        let node = self.open_node(op, path, how)?;
        let shared = Arc::clone(&self.shared);
        let mut state = self.shared.state.lock();
        if !state.locks.insert(node) {
            state.world.closed(node);
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { shared, node })))
    }
}

struct SimFilesystem {
    shared: Arc<Shared>,
    fs: u64,
    path: PathBuf,
}

impl Filesystem for SimFilesystem {
    fn sync(&self, op: Op) -> Result<()> {
        let mut state = self.shared.state.lock();
        let done = state.change(op, &self.path, |world, fate| match fate {
            Fate::Succeeds => world.sync_filesystem(self.fs),
            Fate::LosesPower => Ok(()),
            Fate::Fails(_) => {
                world.filesystem_sync_failed(self.fs);
                Ok(())
            }
        });
        done.map_err(|errno| failed(op, &self.path, errno))
    }
}

struct SimLock {
    shared: Arc<Shared>,
    node: NodeId,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.locks.remove(&self.node);
        state.world.closed(self.node);
    }
}
