//! An open file of the simulated disk.

use super::content::Content;
use super::faults::{Class, Fate};
use super::world::{Body, NodeId, Sys, World};
use super::{Shared, State};
use crate::disk::{DiskFile, Op};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::types::{PAGE, PAGE_LEN};
use std::io;
use std::path::{Path, PathBuf};

/// Largest file, as ext4 with 4 KiB blocks has it.
const SIZE_MAX: u64 = (1 << 44) - PAGE;

/// An open file. It outlives its names, and dies with its disk.
pub struct SimFile {
    pub(super) shared: Arc<Shared>,
    pub(super) node: NodeId,
    pub(super) path: PathBuf,
    pub(super) write: bool,
    pub(super) direct: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.shared.state.lock().world.closed(self.node);
    }
}

pub(super) fn failed(op: Op, path: &Path, errno: i32) -> Error {
    Error::io(op, path, &io::Error::from_raw_os_error(errno))
}

impl State {
    /// Runs a call that changes something. `change` is told the call's fate only if it may change anything at all.
    pub(super) fn change<T>(
        &mut self,
        op: Op,
        path: &Path,
        change: impl FnOnce(&mut World, Fate) -> Sys<T>,
    ) -> Sys<T> {
        let was_dead = self.faults.dead;
        let fate = self.faults.fate(op, path, Class::Changes);
        let result = match fate {
            Fate::Fails(failure) if was_dead => return Err(failure.errno),
            _ => change(&mut self.world, fate),
        };
        match fate {
            Fate::Succeeds => result,
            Fate::Fails(failure) => Err(failure.errno),
            Fate::LosesPower => Err(libc::EIO),
        }
    }

    /// Lets a call that reads pass, or not.
    pub(super) fn read(&mut self, op: Op, path: &Path) -> Sys<&World> {
        match self.faults.fate(op, path, Class::Reads) {
            Fate::Fails(failure) => Err(failure.errno),
            Fate::Succeeds | Fate::LosesPower => Ok(&self.world),
        }
    }
}

impl World {
    fn content(&self, id: NodeId) -> Sys<&Content> {
        match &self.node(id)?.body {
            Body::File(content) => Ok(content),
            _ => Err(libc::EINVAL),
        }
    }

    /// Changes a file's content, counts its space and notes the time.
    pub(super) fn edit(
        &mut self,
        id: NodeId,
        edit: impl FnOnce(&mut Content, &mut super::rng::Rng),
    ) -> Sys<()> {
        let node = self.nodes.get_mut(&id).ok_or(libc::EIO)?;
        let Body::File(content) = &mut node.body else {
            return Err(libc::EINVAL);
        };
        let before = content.allocated_pages();
        edit(content, &mut self.rng);
        self.used_pages = self.used_pages + content.allocated_pages() - before;
        self.touch(id, true);
        Ok(())
    }

    /// Pages that may still be taken.
    pub(super) fn free_pages(&self) -> u64 {
        (self.capacity / PAGE).saturating_sub(self.used_pages)
    }

    /// Writes, as much of it as there is space for.
    fn write(&mut self, id: NodeId, buf: &[u8], offset: u64) -> Sys<()> {
        let end = offset.checked_add(buf.len() as u64).ok_or(libc::EFBIG)?;
        if end > SIZE_MAX {
            return Err(libc::EFBIG);
        }
        let fits = self.fitting(id, buf.len(), offset)?;
        self.edit(id, |content, rng| content.write(&buf[..fits], offset, rng))?;
        if fits == buf.len() { Ok(()) } else { Err(libc::ENOSPC) }
    }

    /// How many bytes at `offset` there is space for.
    fn fitting(&self, id: NodeId, len: usize, offset: u64) -> Sys<usize> {
        let (content, free) = (self.content(id)?, self.free_pages());
        if content.missing_pages(offset, offset + len as u64) <= free {
            return Ok(len);
        }
        let mut fits = 0;
        while fits < len {
            let page_end = (offset + fits as u64) / PAGE * PAGE + PAGE;
            let next = usize::try_from(page_end - offset).unwrap_or(len).min(len);
            if content.missing_pages(offset, offset + next as u64) > free {
                break;
            }
            fits = next;
        }
        Ok(fits)
    }

    fn allocate(&mut self, id: NodeId, offset: u64, len: u64) -> Sys<()> {
        let end = offset.checked_add(len).ok_or(libc::EFBIG)?;
        if end > SIZE_MAX {
            return Err(libc::EFBIG);
        }
        if self.content(id)?.missing_pages(offset, end) > self.free_pages() {
            return Err(libc::ENOSPC);
        }
        self.edit(id, |content, _| content.allocate(offset, len))
    }

    /// A sync of a file with its fate: done, failed with the kernel's forgetting, or not reached.
    fn sync_or_fail(&mut self, id: NodeId, fate: Fate) -> Sys<()> {
        match fate {
            Fate::Succeeds => {
                let forgotten = match &mut self.nodes.get_mut(&id).ok_or(libc::EIO)?.body {
                    Body::File(content) => std::mem::take(&mut content.forgotten),
                    _ => false,
                };
                if forgotten { Err(libc::EIO) } else { self.sync_file(id) }
            }
            Fate::LosesPower => Ok(()),
            Fate::Fails(_) => {
                let node = self.nodes.get_mut(&id).ok_or(libc::EIO)?;
                if let Body::File(content) = &mut node.body {
                    content.sync_failed(&mut self.rng);
                }
                Ok(())
            }
        }
    }
}

/// What of a write happens: all, or what a failing one leaves.
fn part_of(buf: &[u8], fate: Fate) -> &[u8] {
    match fate {
        Fate::Fails(failure) => &buf[..failure.torn.min(buf.len())],
        Fate::Succeeds | Fate::LosesPower => buf,
    }
}

impl SimFile {
    /// Direct I/O wants whole pages, in memory as in the file.
    fn check_direct(&self, address: usize, len: usize, offset: u64) -> Sys<()> {
        let whole =
            address.is_multiple_of(PAGE_LEN) && len.is_multiple_of(PAGE_LEN) && offset.is_multiple_of(PAGE);
        if self.direct && !whole {
            return Err(libc::EINVAL);
        }
        Ok(())
    }

    fn check_write(&self, buf: &[u8], offset: u64) -> Sys<()> {
        if !self.write {
            return Err(libc::EBADF);
        }
        self.check_direct(buf.as_ptr() as usize, buf.len(), offset)
    }

    fn change(
        &self,
        op: Op,
        offset: Option<u64>,
        change: impl FnOnce(&mut World, Fate) -> Sys<()>,
    ) -> Result<()> {
        let result = self.shared.state.lock().change(op, &self.path, change);
        result.map_err(|errno| self.error(op, offset, errno))
    }

    fn error(&self, op: Op, offset: Option<u64>, errno: i32) -> Error {
        let error = failed(op, &self.path, errno);
        match offset {
            Some(offset) => error.offset(offset),
            None => error,
        }
    }

    /// Changes space or length; a failing call does nothing.
    fn reshape(
        &self,
        op: Op,
        offset: u64,
        readonly: i32,
        reshape: impl FnOnce(&mut World) -> Sys<()>,
    ) -> Result<()> {
        self.change(op, Some(offset), |world, fate| match fate {
            _ if !self.write => Err(readonly),
            Fate::Fails(_) => Ok(()),
            Fate::Succeeds | Fate::LosesPower => reshape(world),
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, op: Op, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut state = self.shared.state.lock();
        let read = state.read(op, &self.path).and_then(|world| {
            self.check_direct(buf.as_ptr() as usize, buf.len(), offset)?;
            Ok(world.content(self.node)?.read(buf, offset))
        });
        read.map_err(|errno| self.error(op, Some(offset), errno))
    }

    fn write_at(&self, op: Op, buf: &[u8], offset: u64) -> Result<()> {
        self.change(op, Some(offset), |world, fate| {
            self.check_write(buf, offset)?;
            world.write(self.node, part_of(buf, fate), offset)
        })
    }

    fn write_durable(&self, op: Op, buf: &[u8], offset: u64) -> Result<()> {
        self.change(op, Some(offset), |world, fate| {
            self.check_write(buf, offset)?;
            world.write(self.node, part_of(buf, fate), offset)?;
            world.sync_or_fail(self.node, fate)
        })
    }

    fn sync(&self, op: Op) -> Result<()> {
        self.change(op, None, |world, fate| world.sync_or_fail(self.node, fate))
    }

    fn len(&self, op: Op) -> Result<u64> {
        let mut state = self.shared.state.lock();
        let len = state.read(op, &self.path).and_then(|world| Ok(world.content(self.node)?.len()));
        len.map_err(|errno| self.error(op, None, errno))
    }

    fn next_data(&self, op: Op, offset: u64) -> Result<Option<(u64, u64)>> {
        let mut state = self.shared.state.lock();
        let found =
            state.read(op, &self.path).and_then(|world| Ok(world.content(self.node)?.next_data(offset)));
        found.map_err(|errno| self.error(op, Some(offset), errno))
    }

    fn set_len(&self, op: Op, len: u64) -> Result<()> {
        self.reshape(op, len, libc::EINVAL, |world| match len > SIZE_MAX {
            true => Err(libc::EFBIG),
            false => world.edit(self.node, |content, _| content.set_len(len)),
        })
    }

    fn punch(&self, op: Op, offset: u64, len: u64) -> Result<()> {
        self.reshape(op, offset, libc::EBADF, |world| {
            world.edit(self.node, |content, _| content.punch(offset, len))
        })
    }

    fn allocate(&self, op: Op, offset: u64, len: u64) -> Result<()> {
        self.reshape(op, offset, libc::EBADF, |world| match len {
            0 => Ok(()),
            _ => world.allocate(self.node, offset, len),
        })
    }
}
