//! Changes to the live tree: what the kernel asks, as the engine takes it.

use crate::convert::{kind_of_mode, live_attr_ttl};
use crate::handlers::{Answer, Found, WeftFs};
use crate::inode::Node;
use fuser::{Errno, FileAttr, FopenFlags, OpenFlags, RenameFlags, ReplyEmpty, Request, WriteFlags};
use std::time::Duration;
use weft::engine::{Capture, Completion, Fallocate, NewFile, RenameMode, SetAttr};
use weft::types::{Attr, FileId, FileKind};

const SETGID: u32 = libc::S_ISGID;
/// What file capabilities are stored as (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";

impl WeftFs {
    /// Makes a name. A setgid directory hands its group down, and its setgid bit to directories (mkdir(2)).
    pub fn make(
        &self,
        req: &Request,
        dir: Node,
        name: &[u8],
        (kind, mode, rdev): (FileKind, u32, u32),
        target: &[u8],
    ) -> Answer<(FileId, Attr)> {
        let parent = self.writable(dir)?;
        self.may_be_named(dir, name)?;
        let above = self.told(self.core.attr(parent))?;
        let inherits = above.mode & SETGID != 0;
        let gid = if inherits { above.gid } else { req.gid() };
        let bit = if inherits && kind == FileKind::Directory { SETGID } else { 0 };
        let new =
            NewFile { kind, mode: mode & 0o7777 | bit, rdev, target: target.to_vec(), uid: req.uid(), gid };
        self.told(self.core.create(parent, name, new))
    }

    /// [`WeftFs::make`] for MKNOD, which also makes regular files.
    pub fn make_node(
        &self,
        req: &Request,
        dir: Node,
        name: &[u8],
        mode: u32,
        rdev: u32,
    ) -> Answer<(FileId, Attr)> {
        let kind = kind_of_mode(mode).ok_or(Errno::EINVAL)?;
        self.make(req, dir, name, (kind, mode, rdev), &[])
    }

    /// CREATE: makes a file and opens it.
    pub fn make_open(&self, req: &Request, dir: Node, name: &[u8], mode: u32) -> Answer<(Found, FopenFlags)> {
        let (file, attr) = self.make(req, dir, name, (FileKind::Regular, mode, 0), &[])?;
        self.told(self.core.open_file(file))?;
        Ok((Found::live(self.live_attr(file, &attr)), self.open_flags()))
    }

    /// OPEN of any node. Views are held while a handle is open, live files by the engine.
    pub fn open_node(&self, req: &Request, node: Node, flags: OpenFlags) -> Answer<FopenFlags> {
        let changes = flags.0 & libc::O_ACCMODE != libc::O_RDONLY || flags.0 & libc::O_TRUNC != 0;
        match node {
            Node::Live(file) => {
                self.told(self.core.open_file(file))?;
                if flags.0 & libc::O_TRUNC != 0 {
                    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
                    let cut = self.without_privileges(req, file, cut);
                    let cut = cut.and_then(|cut| self.told(self.core.set_attr(file, cut)));
                    cut.inspect_err(|_| self.core.release_file(file))?;
                }
            }
            Node::View(..) if changes => return Err(Errno::EROFS),
            Node::View(slot, _) => {
                self.open_view(slot)?;
                self.views.hold(slot);
            }
            Node::Alias(_) => return Err(Errno::ELOOP),
        }
        Ok(self.open_flags())
    }

    pub fn close_node(&self, node: Node) {
        match node {
            Node::Live(file) => self.core.release_file(file),
            Node::View(slot, _) => self.views.release(slot, 1),
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
        let set = self.without_privileges(req, file, set)?;
        let attr = self.live_attr(file, &self.told(self.core.set_attr(file, set))?);
        Ok((attr, live_attr_ttl(&attr)))
    }

    /// FUSE_HANDLE_KILLPRIV_V2 leaves it to us to clear setuid, setgid and file capabilities on chown and truncation
    /// (include/uapi/linux/fuse.h). fuser does not show FATTR_KILL_SUIDGID; the kernel sets it for callers without
    /// CAP_FSETID, which here means: not root.
    fn without_privileges(&self, req: &Request, file: FileId, mut set: SetAttr) -> Answer<SetAttr> {
        let chown = set.uid.is_some() || set.gid.is_some();
        if !chown && set.size.is_none() {
            return Ok(set);
        }
        set.kill_priv = chown || req.uid() != 0;
        if self.told(self.core.xattr(file, CAPABILITY))?.is_some() {
            self.told(self.core.remove_xattr(file, CAPABILITY))?;
        }
        Ok(set)
    }

    /// WRITE. Pages that the kernel writes back carry the flags of whichever handle it found: O_APPEND means nothing on them.
    pub fn put(
        &self,
        node: Node,
        offset: u64,
        bytes: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
    ) -> Answer<u32> {
        let file = self.writable(node)?;
        let cached = how.contains(WriteFlags::FUSE_WRITE_CACHE);
        let append = self.capture == Capture::Strict && !cached && flags.0 & libc::O_APPEND != 0;
        let kill = how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        self.told(self.core.write(file, offset, bytes, append, kill))?;
        u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)
    }

    pub fn reserve(&self, node: Node, mode: i32, offset: u64, len: u64) -> Answer<()> {
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
        self.told(self.core.fallocate(file, mode, offset, len))
    }

    pub fn move_name(&self, from: (Node, &[u8]), to: (Node, &[u8]), flags: RenameFlags) -> Answer<()> {
        let mode = match flags.bits() {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Errno::EINVAL),
        };
        let (source, target) = (self.writable(from.0)?, self.writable(to.0)?);
        self.may_be_named(from.0, from.1).map_err(|_| Errno::EROFS)?;
        self.may_be_named(to.0, to.1)?;
        self.told(self.core.rename((source, from.1), (target, to.1), mode))
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

    /// Sets an extended attribute. ACLs are refused: nothing would enforce them yet.
    pub fn put_xattr(&self, node: Node, name: &[u8], value: &[u8], flags: i32) -> Answer<()> {
        let file = self.writable(node)?;
        if name.starts_with(b"system.posix_acl_") {
            return Err(Errno::EOPNOTSUPP);
        }
        let (create, replace) = (flags & libc::XATTR_CREATE != 0, flags & libc::XATTR_REPLACE != 0);
        self.told(self.core.set_xattr(file, name, value, create, replace))
    }

    /// Answers when the file is durable, from whichever thread made it so; the handler's thread is free meanwhile.
    pub fn sync_node(&self, node: Node, reply: ReplyEmpty) {
        match node {
            Node::Live(file) => self.core.fsync(file, answer_later(reply)),
            Node::View(..) | Node::Alias(_) => reply.ok(),
        }
    }
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
