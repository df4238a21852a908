//! FUSE handlers: translate, call, reply. The work is in `handlers`, `live` and `past`.

use crate::convert::{from_system, kind_of_mode, set_time};
use crate::dirs::Offer;
use crate::handlers::{Answer, Found, Line, WeftFs, answer};
use crate::inode::Node;
use crate::live::Make;
use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, Generation, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use weft::disk::buffer::AlignedBuf;
use weft::engine::{Capture, SetAttr};
use weft::types::FileKind;

const MIB: u32 = 1 << 20;

thread_local! {
    /// Where a thread reads bytes for its replies; as long as the longest request it has seen. Aligned: the disk can then
    /// write straight into it.
    static BUFFER: RefCell<AlignedBuf> = RefCell::new(AlignedBuf::new());
}

fn answer_attr(answer: Answer<(fuser::FileAttr, Duration)>, reply: ReplyAttr) {
    match answer {
        Ok((attr, ttl)) => reply.attr(&ttl, &attr),
        Err(errno) => reply.error(errno),
    }
}

fn answer_xattr(answer: Answer<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match answer {
        Err(errno) => reply.error(errno),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
    }
}

impl Filesystem for WeftFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Not FUSE_ATOMIC_O_TRUNC: with it a program that runs is cut before the kernel refuses that (ETXTBSY).
        let mut wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_BIG_WRITES
            | InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_NO_EXPORT_SUPPORT
            // The kernel enforces ACLs; what a umask takes away depends on them.
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DONT_MASK;
        if self.capture == Capture::Writeback {
            wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        for flag in wanted.iter() {
            if config.add_capabilities(flag).is_err() {
                tracing::info!("this kernel has no {flag:?}: going on without it");
            }
        }
        // Each of these answers with the nearest possible value when it cannot have what is asked for.
        let _ = config.set_max_write(MIB);
        let _ = config.set_max_readahead(MIB).or_else(|most| config.set_max_readahead(most));
        let _ = config.set_max_background(64);
        let _ = config.set_time_granularity(Duration::from_nanos(1));
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        Found::send(self.find(self.node(parent), name.as_bytes()), reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        match self.node(ino) {
            Node::Live(_) => {}
            Node::View(slot, _) => self.views.release(slot, lookups),
            Node::Alias(number) => self.views.forget_alias(number, lookups),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        answer_attr(self.may_write(fh).and_then(|()| self.attr(self.node(ino))), reply);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(from_system),
            ..SetAttr::default()
        };
        answer_attr(self.change(req, self.node(ino), set), reply);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.read_link(self.node(ino)) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = kind_of_mode(mode) else { return reply.error(Errno::EINVAL) };
        let make = Make { kind, mode, umask, rdev, target: &[] };
        let made = self.make(req, self.node(parent), name.as_bytes(), make);
        Found::send(made.map(|(file, attr)| Found::live(self.live_attr(file, &attr))), reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let make = Make { kind: FileKind::Directory, mode, umask, rdev: 0, target: &[] };
        let made = self.make(req, self.node(parent), name.as_bytes(), make);
        Found::send(made.map(|(file, attr)| Found::live(self.live_attr(file, &attr))), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes();
        answer(self.remove(self.node(parent), name, |dir| self.core.unlink(dir, name)), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes();
        answer(self.remove(self.node(parent), name, |dir| self.core.remove_dir(dir, name)), reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        let make = Make { kind: FileKind::Symlink, mode: 0o777, umask: 0, rdev: 0, target };
        let made = self.make(req, self.node(parent), name.as_bytes(), make);
        if made.is_ok() {
            self.note_link(self.node(parent), name.as_bytes(), target);
        }
        Found::send(made.map(|(file, attr)| Found::live(self.live_attr(file, &attr))), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = (self.node(parent), name.as_bytes());
        let to = (self.node(newparent), newname.as_bytes());
        match self.movable(from, to, flags) {
            Ok((from, to, mode)) => self.rename_and_reply(from, to, mode, reply),
            Err(errno) => reply.error(errno),
        }
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        Found::send(self.add_link(self.node(ino), self.node(newparent), newname.as_bytes()), reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let node = self.node(ino);
        match self.open_node(node, flags) {
            Ok(how) => reply.opened(self.handle(node, flags), how),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        BUFFER.with_borrow_mut(|buffer| {
            let size = usize::try_from(size).unwrap_or(0);
            if buffer.len() < size {
                buffer.resize(size);
            }
            let Some(buffer) = buffer.get_mut(..size) else { return reply.error(Errno::EINVAL) };
            let node = self.node(ino);
            match self.read(node, offset, buffer) {
                Ok(read) if read < size && self.may_be_longer(node, lock_owner) => {
                    self.read_past_end(node, offset, size, reply);
                }
                Ok(read) => reply.data(buffer.get(..read).unwrap_or_default()),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.put(req, (self.node(ino), offset, data), (how, flags), reply);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let node = self.node(ino);
        self.give_back(node, fh);
        self.close_node(node);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync_node(self.node(ino), reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_dir(self.node(ino)) {
            Ok((handle, flags)) => reply.opened(handle, flags),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.list(self.node(ino), fh, offset, |line| {
            let kind = crate::convert::file_type(line.kind);
            match reply.add(self.ino(line.node), line.next, kind, OsStr::from_bytes(line.name)) {
                true => Offer::Full,
                false => Offer::Taken,
            }
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (mut taken, mut failed) = (false, None);
        let listed = self.list(self.node(ino), fh, offset, |line| match self.offer_plus(line, &mut reply) {
            Ok(offer) => {
                taken |= offer == Offer::Taken;
                offer
            }
            Err(errno) => {
                failed = Some(errno);
                Offer::Full
            }
        });
        // What was taken counts as looked up and must be sent; the next request meets the failure again, at once.
        match listed.err().or(failed) {
            Some(errno) if !taken => reply.error(errno),
            _ => reply.ok(),
        }
    }

    fn releasedir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.close_dir(self.node(ino), fh);
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync_node(self.node(ino), reply);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.told(self.core.space(self.here.root)) {
            Err(errno) => reply.error(errno),
            Ok(space) => {
                let block = u64::from(space.block_size.max(512));
                reply.statfs(
                    space.total / block,
                    space.free / block,
                    space.available / block,
                    space.files,
                    space.files_free,
                    space.block_size,
                    space.name_max,
                    space.block_size,
                );
            }
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        answer(self.put_xattr(req, self.node(ino), name.as_bytes(), value, flags), reply);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        answer_xattr(self.xattr(self.node(ino), name.as_bytes()), size, reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer_xattr(self.xattr_names(self.node(ino)), size, reply);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let file = self.writable(self.node(ino));
        answer(file.and_then(|file| self.told(self.core.remove_xattr(file, name.as_bytes()))), reply);
    }

    /// With `default_permissions` the kernel decides by itself.
    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make_open(req, self.node(parent), name.as_bytes(), (mode, umask)) {
            Ok((found, how)) => {
                let handle = self.handle(self.node(found.attr.ino), OpenFlags(flags));
                reply.created(&found.attr_ttl, &found.attr, found.generation, handle, how);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.reserve(req, self.node(ino), (mode, offset, length), reply);
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.seek(self.node(ino), offset, whence, reply);
    }

    /// The kernel then copies by reading and writing, and does not ask again.
    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

fn is_gone(errno: Errno) -> bool {
    matches!(errno.code(), libc::ENOENT | libc::ESTALE)
}

impl WeftFs {
    /// Adds an entry with its attributes; taking it counts as a lookup, except of `.` and `..`. A live entry may be gone
    /// by now. Any other failure fails the listing: one that is short lets `rsync --delete` remove files.
    fn offer_plus(&self, line: &Line<'_>, reply: &mut ReplyDirectoryPlus) -> Answer<Offer> {
        let dots = line.next <= 2;
        let (attr, ttl) = match self.attr(line.node) {
            Ok(found) => found,
            Err(_) if dots => return Ok(Offer::Taken),
            Err(errno) if matches!(line.node, Node::Live(_)) && is_gone(errno) => return Ok(Offer::Skipped),
            Err(errno) => return Err(errno),
        };
        let slot = match line.node {
            Node::View(slot, _) => Some(slot),
            Node::Live(_) | Node::Alias(_) => None,
        };
        let generation = slot.and_then(|slot| self.views.get(slot)).map_or(0, |open| open.generation);
        let name = OsStr::from_bytes(line.name);
        if reply.add(self.ino(line.node), line.next, name, &ttl, &attr, Generation(generation)) {
            return Ok(Offer::Full);
        }
        if let Some(slot) = slot.filter(|_| !dots) {
            self.views.hold(slot);
        }
        Ok(Offer::Taken)
    }
}
