//! What the handlers share: the filesystem's state, and answers for a node of any sort.

use crate::cached::Cached;
use crate::convert::{Complaints, LIVE_TTL, VIEW_TTL, file_attr, live_attr_ttl};
use crate::dirs::{Dirs, Offer};
use crate::held::{Ask, Held};
use crate::inode::Node;
use crate::links::Links;
use crate::patient::Patient;
use crate::views::{Open, Views};
use fuser::{
    Errno, FileAttr, FileHandle, FopenFlags, Generation, INodeNo, LockOwner, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyWrite,
};
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::time::Duration;
use weft::engine::{Capture, Engine, View};
use weft::error::Result;
use weft::types::{Attr, FileId, FileKind, Name, RootId};

/// The answer of a handler.
pub type Answer<T> = std::result::Result<T, Errno>;

/// Sends that it is done, or why not.
pub fn answer(answer: Answer<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

/// Sends how many bytes were written, or why none.
pub fn answer_written(answer: Answer<usize>, reply: ReplyWrite) {
    match answer.and_then(|written| u32::try_from(written).map_err(|_| Errno::EINVAL)) {
        Ok(written) => reply.written(written),
        Err(errno) => reply.error(errno),
    }
}

/// The root that a mount shows.
#[derive(Clone, Debug)]
pub struct Here {
    pub root: RootId,
    /// Empty for DATA.
    pub name: Name,
    /// Its live directory.
    pub dir: FileId,
    /// Its number in the list of [`Links`].
    pub number: usize,
}

/// One root of a mounted Weft filesystem: translates, calls the engine, replies.
pub struct WeftFs {
    pub core: Arc<Engine>,
    pub capture: Capture,
    /// How view names without an offset are read.
    pub zone: TimeZone,
    /// Which root this mount shows.
    pub here: Here,
    pub links: Arc<Links>,
    pub cached: Arc<Cached>,
    pub views: Arc<Views<View>>,
    pub dirs: Dirs,
    pub complaints: Complaints,
    pub held: Held,
    pub patient: Patient,
}

/// The answer to a lookup.
pub struct Found {
    pub attr: FileAttr,
    pub generation: Generation,
    pub attr_ttl: Duration,
    pub name_ttl: Duration,
}

impl Found {
    pub fn live(attr: FileAttr) -> Found {
        let attr_ttl = live_attr_ttl(&attr);
        Found { attr, generation: Generation(0), attr_ttl, name_ttl: LIVE_TTL }
    }

    pub fn past(attr: FileAttr, generation: u64) -> Found {
        Found { attr, generation: Generation(generation), attr_ttl: VIEW_TTL, name_ttl: VIEW_TTL }
    }

    /// Sends it, or the error.
    pub fn send(answer: Answer<Found>, reply: ReplyEntry) {
        match answer {
            Ok(found) => {
                reply.entry_with_ttls(&found.attr_ttl, &found.name_ttl, &found.attr, found.generation);
            }
            Err(errno) => reply.error(errno),
        }
    }
}

/// One line of a listing as it is offered to a reply.
pub struct Line<'a> {
    pub node: Node,
    pub next: u64,
    pub kind: weft::types::FileKind,
    pub name: &'a [u8],
}

impl WeftFs {
    pub fn new(
        core: Arc<Engine>,
        capture: Capture,
        zone: TimeZone,
        (here, links): (Here, Arc<Links>),
        (held, patient, cached): (Held, Patient, Arc<Cached>),
    ) -> WeftFs {
        WeftFs {
            core,
            capture,
            zone,
            here,
            links,
            cached,
            views: Arc::new(Views::new()),
            dirs: Dirs::default(),
            complaints: Complaints::default(),
            held,
            patient,
        }
    }

    /// What an inode number of this mount stands for.
    pub fn node(&self, ino: INodeNo) -> Node {
        Node::of(ino, self.here.dir)
    }

    pub fn ino(&self, node: Node) -> INodeNo {
        node.ino(self.here.dir)
    }

    /// The core's answer, its error turned into an errno (and logged if it is news).
    pub fn told<T>(&self, result: Result<T>) -> Answer<T> {
        result.map_err(|error| self.complaints.errno(&error))
    }

    /// The view a node is in.
    pub fn open_view(&self, slot: crate::inode::Slot) -> Answer<Open<View>> {
        self.views.get(slot).ok_or(Errno::ESTALE)
    }

    /// The live file that may be changed; everything else is read-only.
    pub fn writable(&self, node: Node) -> Answer<FileId> {
        match node {
            Node::Live(file) => Ok(file),
            Node::View(..) | Node::Alias(_) => Err(Errno::EROFS),
        }
    }

    /// Attributes of a live file as the kernel takes them, with the space of its data.
    pub fn live_attr(&self, file: FileId, attr: &Attr) -> FileAttr {
        self.keep_asking(file);
        let mut told = file_attr(self.ino(Node::Live(file)), attr);
        if attr.kind == FileKind::Regular
            && let Ok(bytes) = self.core.data_bytes(file)
        {
            // tar takes a file without blocks for a hole and does not read it; the kernel may hold bytes of one.
            let may_hold = attr.size > 0 || self.capture == Capture::Writeback;
            told.blocks = (bytes / 512).max(u64::from(may_hold));
        }
        told
    }

    /// Attributes of a file in a view, with the space of its data.
    pub fn past_attr(&self, open: &Open<View>, file: FileId, attr: &Attr) -> FileAttr {
        let mut told = file_attr(self.ino(Node::View(open.slot, file)), attr);
        match self.told(open.view.data_bytes(file, attr)) {
            Ok(bytes) if attr.kind == FileKind::Regular => told.blocks = bytes / 512,
            // It stays what follows from the size.
            _ => {}
        }
        told
    }

    pub fn attr(&self, node: Node) -> Answer<(FileAttr, Duration)> {
        match node {
            Node::Live(file) => {
                let attr = self.live_attr(file, &self.told(self.core.attr(file))?);
                Ok((attr, live_attr_ttl(&attr)))
            }
            Node::View(slot, file) => {
                let open = self.open_view(slot)?;
                let attr = self.as_shown(&open, file, self.told(open.view.attr(file))?)?;
                Ok((self.past_attr(&open, file, &attr), VIEW_TTL))
            }
            Node::Alias(number) => Ok((file_attr(self.ino(node), &self.alias_attr(number)?), VIEW_TTL)),
        }
    }

    pub fn read_link(&self, node: Node) -> Answer<Vec<u8>> {
        match node {
            Node::Live(file) => self.told(self.core.read_link(file)),
            Node::View(slot, file) => self.past_link(&self.open_view(slot)?, file),
            Node::Alias(number) => {
                self.views.target(number).map(|target| target.as_bytes().to_vec()).ok_or(Errno::ESTALE)
            }
        }
    }

    pub fn read(&self, node: Node, offset: u64, buf: &mut [u8]) -> Answer<usize> {
        match node {
            Node::Live(file) => self.told(self.core.read(file, offset, buf)),
            Node::View(slot, file) => self.told(self.open_view(slot)?.view.read(file, offset, buf)),
            Node::Alias(_) => Err(Errno::EINVAL),
        }
    }

    /// Whether the end that a read has met may not be the file's: the kernel's writeback cache may have made it longer.
    /// Cached reads know that themselves. Only reads past the cache name an owner (fs/fuse/file.c, `fuse_send_read`), and
    /// only those hold no page locked that would have to be written back.
    pub fn may_be_longer(&self, node: Node, owner: Option<LockOwner>) -> bool {
        self.capture == Capture::Writeback && owner.is_some() && matches!(node, Node::Live(_))
    }

    /// Reads again when the kernel has written back what lies behind the end.
    pub fn read_past_end(&self, node: Node, offset: u64, len: usize, reply: ReplyData) {
        match node {
            Node::Live(file) => self.held.ask(Ask::Read { file, offset, len, reply }),
            Node::View(..) | Node::Alias(_) => reply.error(Errno::EINVAL),
        }
    }

    /// Answers SEEK_DATA and SEEK_HOLE: of a live file when the kernel has written back what stands in the way.
    pub fn seek(&self, node: Node, offset: i64, whence: i32, reply: ReplyLseek) {
        let hole = match whence {
            libc::SEEK_DATA => false,
            libc::SEEK_HOLE => true,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match node {
            Node::Live(file) => self.held.ask(Ask::Seek { file, offset, hole, reply }),
            Node::View(slot, file) => match self.seek_past(slot, file, offset, hole) {
                Ok(at) => reply.offset(at),
                Err(errno) => reply.error(errno),
            },
            Node::Alias(_) => reply.error(Errno::EINVAL),
        }
    }

    fn seek_past(&self, slot: crate::inode::Slot, file: FileId, offset: u64, hole: bool) -> Answer<i64> {
        let at = self.told(self.open_view(slot)?.view.seek(file, offset, hole))?;
        at.and_then(|at| i64::try_from(at).ok()).ok_or(Errno::ENXIO)
    }

    pub fn xattr(&self, node: Node, name: &[u8]) -> Answer<Vec<u8>> {
        let value = match node {
            Node::Live(file) => self.told(self.core.xattr(file, name))?,
            Node::View(slot, file) => {
                let open = self.open_view(slot)?;
                let own = if file == self.here.dir { self.about(&open, name)? } else { None };
                match own {
                    Some(value) => Some(value),
                    None => {
                        let all = self.told(open.view.xattrs(file))?;
                        all.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
                    }
                }
            }
            Node::Alias(_) => None,
        };
        value.ok_or(Errno::ENODATA)
    }

    /// The names, each ended by a NUL, as listxattr(2) gives them.
    pub fn xattr_names(&self, node: Node) -> Answer<Vec<u8>> {
        let names = match node {
            Node::Live(file) => self.told(self.core.xattr_names(file))?,
            Node::View(slot, file) => {
                let all = self.told(self.open_view(slot)?.view.xattrs(file))?;
                all.into_iter().map(|(name, _)| name).collect()
            }
            Node::Alias(_) => Vec::new(),
        };
        Ok(names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect())
    }

    /// Opens a directory. The kernel may keep listings of views.
    pub fn open_dir(&self, node: Node) -> Answer<(FileHandle, FopenFlags)> {
        let flags = match node {
            Node::Live(_) => FopenFlags::empty(),
            Node::View(slot, _) => {
                self.open_past(slot)?;
                FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
            }
            Node::Alias(_) => return Err(Errno::ENOTDIR),
        };
        Ok((self.dirs.open(), flags))
    }

    pub fn close_dir(&self, node: Node, handle: FileHandle) {
        self.dirs.close(handle);
        if let Node::View(slot, _) = node {
            self.close_past(slot);
        }
    }

    /// Lists a directory after `offset` until the reply is full.
    pub fn list(
        &self,
        dir: Node,
        handle: FileHandle,
        offset: u64,
        mut offer: impl FnMut(&Line<'_>) -> Offer,
    ) -> Answer<()> {
        let cursor = self.dirs.get(handle).ok_or(Errno::EBADF)?;
        let (file, slot) = match dir {
            Node::Live(file) => (file, None),
            Node::View(slot, file) => (file, Some(slot)),
            Node::Alias(_) => return Err(Errno::ENOTDIR),
        };
        let past = slot.map(|slot| self.open_view(slot)).transpose()?;
        let page = |after: Option<&[u8]>, limit| match &past {
            None => self.core.read_dir(file, after, limit),
            Some(open) => open.view.read_dir(file, after, limit),
        };
        let node = |file| slot.map_or(Node::Live(file), |slot| Node::View(slot, file));
        let listed = cursor.lock().list(offset, page, |entry, next| {
            offer(&match entry {
                Some(entry) => Line { node: node(entry.file), next, kind: entry.kind, name: &entry.name },
                None if next == 1 => {
                    Line { node: dir, next, kind: weft::types::FileKind::Directory, name: b"." }
                }
                None => {
                    let node = self.parent(dir);
                    Line { node, next, kind: weft::types::FileKind::Directory, name: b".." }
                }
            })
        });
        self.told(listed)
    }

    /// The directory above, for the number beside `..`. A view's root stands in the root of the mount.
    fn parent(&self, dir: Node) -> Node {
        let past = |slot, file| self.open_view(slot).ok()?.view.parent(file).ok()?;
        match dir {
            Node::Live(file) => Node::Live(self.core.parent(file).unwrap_or(self.here.dir)),
            Node::View(slot, file) => {
                past(slot, file).map_or(Node::Live(self.here.dir), |above| Node::View(slot, above))
            }
            Node::Alias(_) => Node::Live(self.here.dir),
        }
    }
}
