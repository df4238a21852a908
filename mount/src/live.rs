//! Changes to the live tree: what the kernel asks, as the engine takes it.

use crate::caller;
use crate::convert::live_attr_ttl;
use crate::handlers::{Answer, Found, WeftFs, answer, answer_written};
use crate::inode::Node;
use crate::patient::{How, Late};
use fuser::{
    Errno, FileAttr, FopenFlags, OpenFlags, RenameFlags, ReplyEmpty, ReplyWrite, Request, WriteFlags,
};
use std::time::Duration;
use weft::acl;
use weft::engine::{Caller, Capture, Completion, Fallocate, NewFile, RenameMode, SetAttr};
use weft::types::{Attr, FileId, FileKind};

/// What a name is made as.
#[derive(Clone, Copy)]
pub struct Make<'a> {
    pub kind: FileKind,
    pub mode: u32,
    pub umask: u32,
    pub rdev: u32,
    /// Of a symlink.
    pub target: &'a [u8],
}

/// A name in a live directory.
pub type Slot<'a> = (FileId, &'a [u8]);

impl WeftFs {
    /// Makes a name, for the caller's filesystem user and group.
    pub fn make(&self, req: &Request, dir: Node, name: &[u8], make: Make<'_>) -> Answer<(FileId, Attr)> {
        let parent = self.writable(dir)?;
        self.may_be_named(dir, name)?;
        let Make { kind, mode, umask, rdev, target } = make;
        let (uid, gid) = (req.uid(), req.gid());
        let new = NewFile { kind, mode, umask, rdev, target: target.to_vec(), uid, gid };
        self.told(self.core.create(parent, name, new))
    }

    /// CREATE: makes a file and opens it.
    pub fn make_open(
        &self,
        req: &Request,
        dir: Node,
        name: &[u8],
        (mode, umask): (u32, u32),
    ) -> Answer<(Found, FopenFlags)> {
        let make = Make { kind: FileKind::Regular, mode, umask, rdev: 0, target: &[] };
        let (file, attr) = self.make(req, dir, name, make)?;
        self.told(self.core.open_file(file))?;
        Ok((Found::live(self.live_attr(file, &attr)), self.open_flags()))
    }

    /// OPEN of any node. Views are held while a handle is open, live files by the engine.
    pub fn open_node(&self, node: Node, flags: OpenFlags) -> Answer<FopenFlags> {
        let changes = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
        match node {
            Node::Live(file) => self.told(self.core.open_file(file))?,
            Node::View(..) if changes => return Err(Errno::EROFS),
            Node::View(slot, _) => self.open_past(slot)?,
            Node::Alias(_) => return Err(Errno::ELOOP),
        }
        Ok(self.open_flags())
    }

    pub fn close_node(&self, node: Node) {
        match node {
            Node::Live(file) => self.core.release_file(file),
            Node::View(slot, _) => self.close_past(slot),
            Node::Alias(_) => {}
        }
    }

    /// The kernel's pages stay good between opens: nothing else changes these files. Without its writeback cache a
    /// close has nothing to flush.
    fn open_flags(&self) -> FopenFlags {
        match self.capture {
            Capture::Strict => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
            Capture::Writeback => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }

    pub fn change(&self, req: &Request, node: Node, mut set: SetAttr) -> Answer<(FileAttr, Duration)> {
        let file = self.writable(node)?;
        // Only with its writeback cache does the kernel send a ctime; without an atime it is its own batching.
        set.from_kernel_cache = self.capture == Capture::Writeback
            && set.ctime.is_some()
            && set.mtime.is_some()
            && set.atime.is_none();
        if set.uid.is_some() || set.gid.is_some() || is_empty(&set) {
            self.prepare_chown(req, file, &mut set)?;
        }
        if set.size.is_some() {
            self.drop_privileges(req, file)?;
        }
        let attr = self.live_attr(file, &self.told(self.core.set_attr(file, set))?);
        Ok((attr, live_attr_ttl(&attr)))
    }

    /// A chown takes privileges away. So does chown(-1, -1), which comes as a SETATTR of nothing. So does what the kernel
    /// sends before a write that will take them; the writer need not be the owner. Where it is not, this waits for the
    /// write: nobody else may strip a file without one.
    fn prepare_chown(&self, req: &Request, file: FileId, set: &mut SetAttr) -> Answer<()> {
        let attr = self.told(self.core.attr(file))?;
        if !is_empty(set) || caller::owns(req, attr.uid) {
            set.chown = Some(caller::of_chown(req, &attr, set.gid));
        }
        Ok(())
    }

    /// FUSE_HANDLE_KILLPRIV_V2 leaves it to us to take setuid, setgid and file capabilities away on writes, truncation
    /// and chown (include/uapi/linux/fuse.h).
    fn drop_privileges(&self, req: &Request, file: FileId) -> Answer<()> {
        match self.told(self.core.privileges(file))? {
            None => Ok(()),
            Some(attr) => self.told(self.core.drop_privileges(file, caller::of(req, attr.gid))),
        }
    }

    /// WRITE. Pages that the kernel writes back carry the flags of whichever handle it found: O_APPEND means nothing on
    /// them. Nor does anyone ask for them: a map takes nothing away, and with the writeback cache the kernel writes
    /// through where setuid or setgid must go, so that capabilities are what is left.
    pub fn put(
        &self,
        req: &Request,
        (node, offset, bytes): (Node, u64, &[u8]),
        (how, flags): (WriteFlags, OpenFlags),
        reply: ReplyWrite,
    ) {
        match self.try_put(req, (node, offset, bytes), (how, flags)) {
            Ok(Put::Taken) => answer_written(Ok(bytes.len()), reply),
            Ok(Put::Waits(file, how)) => {
                self.patient.hand(Late::Write { file, offset, bytes: bytes.to_vec(), how, reply });
            }
            Err(errno) => answer_written(Err(errno), reply),
        }
    }

    fn try_put(
        &self,
        req: &Request,
        (node, offset, bytes): (Node, u64, &[u8]),
        (how, flags): (WriteFlags, OpenFlags),
    ) -> Answer<Put> {
        let file = self.writable(node)?;
        let cached = how.contains(WriteFlags::FUSE_WRITE_CACHE);
        let append = self.capture == Capture::Strict && !cached && flags.0 & libc::O_APPEND != 0;
        if cached && self.capture == Capture::Writeback {
            // Whatever comes of this, the bytes are to be taken.
            let _ = self.told(self.core.drop_privileges(file, Caller::Privileged));
            let taken = self.core.try_write_back(file, offset, bytes);
            self.watch_gate();
            return Ok(if self.told(taken)? { Put::Taken } else { Put::Waits(file, How::Back) });
        }
        if !cached {
            self.drop_privileges(req, file)?;
        }
        let taken = self.told(self.core.try_write(file, offset, bytes, append))?;
        Ok(if taken { Put::Taken } else { Put::Waits(file, How::Write { append }) })
    }

    /// FALLOCATE.
    pub fn reserve(
        &self,
        req: &Request,
        node: Node,
        (mode, offset, len): (i32, u64, u64),
        reply: ReplyEmpty,
    ) {
        let reserved = self.reservable(req, node, mode).and_then(|(file, mode)| {
            Ok((file, mode, self.told(self.core.try_fallocate(file, mode, offset, len))?))
        });
        match reserved {
            Ok((file, mode, false)) => {
                self.patient.hand(Late::Allocate { file, mode, offset, len, reply });
            }
            reserved => answer(reserved.map(drop), reply),
        }
    }

    fn reservable(&self, req: &Request, node: Node, mode: i32) -> Answer<(FileId, Fallocate)> {
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        const ZERO_KEEP: i32 = ZERO | KEEP;
        let file = self.writable(node)?;
        let mode = match mode {
            0 => Fallocate::Reserve { keep_size: false },
            KEEP => Fallocate::Reserve { keep_size: true },
            PUNCH => Fallocate::Punch,
            ZERO => Fallocate::Zero { keep_size: false },
            ZERO_KEEP => Fallocate::Zero { keep_size: true },
            _ => return Err(Errno::EOPNOTSUPP),
        };
        self.drop_privileges(req, file)?;
        Ok((file, mode))
    }

    /// What a RENAME means, if it may be.
    pub fn movable<'a>(
        &self,
        from: (Node, &'a [u8]),
        to: (Node, &'a [u8]),
        flags: RenameFlags,
    ) -> Answer<(Slot<'a>, Slot<'a>, RenameMode)> {
        let mode = match flags.bits() {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Errno::EINVAL),
        };
        let (source, target) = (self.writable(from.0)?, self.writable(to.0)?);
        self.may_be_named(from.0, from.1).map_err(|_| Errno::EROFS)?;
        self.may_be_named(to.0, to.1)?;
        Ok(((source, from.1), (target, to.1), mode))
    }

    /// A view and the live tree are different filesystems to link(2), so that tools copy instead.
    pub fn add_link(&self, node: Node, dir: Node, name: &[u8]) -> Answer<Found> {
        let parent = self.writable(dir)?;
        self.may_be_named(dir, name)?;
        let file = self.writable(node).map_err(|_| Errno::EXDEV)?;
        let attr = self.told(self.core.link(file, parent, name))?;
        Ok(Found::live(self.live_attr(file, &attr)))
    }

    /// UNLINK and RMDIR; `remove` is the engine's call for the sort of name.
    pub fn remove(
        &self,
        dir: Node,
        name: &[u8],
        remove: impl FnOnce(FileId) -> weft::error::Result<()>,
    ) -> Answer<()> {
        let parent = self.writable(dir)?;
        self.may_be_named(dir, name).map_err(|_| Errno::EROFS)?;
        self.told(remove(parent))
    }

    /// Sets an extended attribute, or an ACL.
    pub fn put_xattr(&self, req: &Request, node: Node, name: &[u8], value: &[u8], flags: i32) -> Answer<()> {
        let file = self.writable(node)?;
        let how = (flags & libc::XATTR_CREATE != 0, flags & libc::XATTR_REPLACE != 0);
        let by = match name {
            acl::ACCESS => caller::of(req, self.told(self.core.attr(file))?.gid),
            _ => Caller::Privileged,
        };
        self.told(self.core.set_xattr(file, name, value, how, by))
    }

    /// Answers when the file is durable, from whichever thread made it so; the handler's thread is free meanwhile.
    pub fn sync_node(&self, node: Node, reply: ReplyEmpty) {
        match node {
            Node::Live(file) => self.core.fsync(file, answer_later(reply)),
            Node::View(..) | Node::Alias(_) => reply.ok(),
        }
    }
}

/// What became of a write.
enum Put {
    Taken,
    /// For the applier, or for room.
    Waits(FileId, How),
}

/// Nothing is set but what the kernel adds by itself.
fn is_empty(set: &SetAttr) -> bool {
    let owner = set.uid.is_some() || set.gid.is_some();
    let times = set.atime.is_some() || set.mtime.is_some();
    !owner && !times && set.mode.is_none() && set.size.is_none()
}

fn answer_later(reply: ReplyEmpty) -> Completion {
    Box::new(move |done| match done {
        Ok(()) => reply.ok(),
        Err(error) => {
            tracing::error!("{error}");
            reply.error(Errno::from_i32(error.to_errno()));
        }
    })
}
