//! What the kernel keeps to itself with its writeback cache, and how to get at it.
//!
//! - Pages wait in the kernel only while a handle is open for writing, or a map of one is there (which keeps the handle):
//!   close and munmap send them, and RELEASE comes after (fs/fuse/file.c: `fuse_flush`, `fuse_vma_close`,
//!   `fuse_release`). So the files open for writing are all that a barrier has to fsync.
//! - write(2) into the cache asks for attributes when the mode it knows was invalidated (`fuse_cache_write_iter`). While
//!   nothing more can be taken every file open for writing is kept so, and the answer to the question is the error. That is
//!   the only place where write(2) can be refused; it costs nothing while there is room.
//! - An answer with attributes makes them valid again, unless an invalidation overtook it
//!   (`fuse_change_attributes`: `attr_version`). So one goes before each such answer.

use crate::handlers::{Answer, WeftFs};
use crate::inode::Node;
use crate::live::Slot;
use fuser::{Errno, FileHandle, INodeNo, Notifier, OpenFlags, ReplyEmpty};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use weft::engine::{Capture, Engine, RenameMode};
use weft::types::FileId;

/// Handle of a file that is open for writing in a mount with the kernel's writeback cache.
const WRITER: FileHandle = FileHandle(1);

/// The files of a mount that are open for writing, and the way to the kernel.
#[derive(Default)]
pub struct Cached {
    /// With the number of handles.
    writers: Mutex<HashMap<FileId, u32>>,
    notifier: OnceLock<Notifier>,
    /// The files above have been told to ask before they write.
    shut: AtomicBool,
}

impl Cached {
    /// The session is there: the kernel can be told things.
    pub fn connect(&self, notifier: Notifier) {
        // A mount has one session.
        let _ = self.notifier.set(notifier);
    }

    /// Files with pages that the kernel may not have sent.
    pub fn writers(&self) -> Vec<FileId> {
        let mut files: Vec<FileId> = self.writers.lock().keys().copied().collect();
        files.sort_unstable();
        files
    }

    fn writes(&self, file: FileId) -> bool {
        self.writers.lock().contains_key(&file)
    }

    fn add(&self, file: FileId) {
        *self.writers.lock().entry(file).or_insert(0) += 1;
    }

    fn remove(&self, file: FileId) {
        let mut writers = self.writers.lock();
        if let Some(count) = writers.get_mut(&file) {
            *count -= 1;
            if *count == 0 {
                writers.remove(&file);
            }
        }
    }

    /// The next write(2) to a file asks first. Takes no lock in the kernel that a request could hold.
    fn ask_first(&self, ino: INodeNo) {
        if let Some(Err(cause)) = self.notifier.get().map(|notifier| notifier.inval_inode(ino, -1, 0)) {
            tracing::warn!("cannot make writers of inode {} ask first: {cause}", ino.0);
        }
    }

    /// Makes the kernel send all it has of a file, and waits for it. It takes the locks of pages: never on a thread that
    /// answers the kernel.
    fn send_all(&self, ino: INodeNo) {
        if let Some(Err(cause)) = self.notifier.get().map(|notifier| notifier.inval_inode(ino, 0, 0)) {
            // Busy: some page stays in the cache, though what was dirty has been sent.
            if cause.raw_os_error() != Some(libc::EBUSY) {
                tracing::warn!("cannot make the kernel send the pages of inode {}: {cause}", ino.0);
            }
        }
    }
}

impl WeftFs {
    /// The handle for an OPEN, which is counted if it can write.
    pub fn handle(&self, node: Node, flags: OpenFlags) -> FileHandle {
        let reads = flags.0 & libc::O_ACCMODE == libc::O_RDONLY;
        match node {
            Node::Live(file) if self.capture == Capture::Writeback && !reads => {
                self.cached.add(file);
                self.keep_asking(file);
                WRITER
            }
            _ => FileHandle(0),
        }
    }

    /// Counts a handle back.
    pub fn give_back(&self, node: Node, handle: FileHandle) {
        if let (Node::Live(file), WRITER) = (node, handle) {
            self.cached.remove(file);
        }
    }

    /// Why write(2) is refused: something is full, or all writing has stopped.
    fn refusal(&self) -> Option<Errno> {
        if self.core.stopped().is_some() {
            return Some(Errno::EIO);
        }
        self.core.full().map(|_| Errno::ENOSPC)
    }

    /// [`WeftFs::refusal`]; notes when the gate is open, for whoever is told attributes now will not ask again.
    fn gate(&self) -> Option<Errno> {
        let refusal = self.refusal();
        if refusal.is_none() {
            self.cached.shut.store(false, Ordering::Relaxed);
        }
        refusal
    }

    /// Whether a question for attributes on a handle may be answered: on one that can write, it comes from write(2).
    pub fn may_write(&self, handle: Option<FileHandle>) -> Answer<()> {
        match handle {
            Some(WRITER) => self.gate().map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }

    /// After something was taken from the kernel: shuts the gate once nothing more may come in.
    pub fn watch_gate(&self) {
        if self.gate().is_some() && !self.cached.shut.swap(true, Ordering::Relaxed) {
            for file in self.cached.writers() {
                self.cached.ask_first(self.ino(Node::Live(file)));
            }
        }
    }

    /// Before attributes of a file are told: they must not let its writers go ahead.
    pub fn keep_asking(&self, file: FileId) {
        if self.capture == Capture::Writeback && self.cached.writes(file) && self.gate().is_some() {
            self.cached.ask_first(self.ino(Node::Live(file)));
        }
    }

    /// RENAME. A file that replaces another and is still open for writing is sent first, as ext4 does it
    /// (`auto_da_alloc`): no view shows the new name with less than was written before the rename.
    pub fn rename_and_reply(&self, from: Slot<'_>, to: Slot<'_>, mode: RenameMode, reply: ReplyEmpty) {
        let Some(inos) = self.unsent(from, to, mode) else {
            return match self.told(self.core.rename(from, to, mode)) {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            };
        };
        let (cached, core) = (Arc::clone(&self.cached), Arc::clone(&self.core));
        let (from, to) = ((from.0, from.1.to_vec()), (to.0, to.1.to_vec()));
        // The kernel holds directories meanwhile, but no pages: it can send them while it waits for this reply.
        let work = move || {
            inos.into_iter().for_each(|ino| cached.send_all(ino));
            rename(&core, (from.0, &from.1), (to.0, &to.1), mode, reply);
        };
        if let Err(cause) = thread::Builder::new().name("rename".into()).spawn(work) {
            tracing::error!("a rename fails for want of a thread: {cause}");
        }
    }

    /// The files that stand in another's place after a rename, with pages that may not have been sent.
    fn unsent(&self, from: Slot<'_>, to: Slot<'_>, mode: RenameMode) -> Option<Vec<INodeNo>> {
        if self.capture == Capture::Strict || mode == RenameMode::NoReplace {
            return None;
        }
        let (moved, _) = self.core.lookup(from.0, from.1).ok()?;
        let (target, _) = self.core.lookup(to.0, to.1).ok()?;
        let both = [Some(moved), Some(target).filter(|_| mode == RenameMode::Exchange)];
        let unsent: Vec<INodeNo> = both
            .into_iter()
            .flatten()
            .filter(|file| self.cached.writes(*file))
            .map(|file| self.ino(Node::Live(file)))
            .collect();
        Some(unsent).filter(|unsent| !unsent.is_empty())
    }
}

fn rename(core: &Engine, from: Slot<'_>, to: Slot<'_>, mode: RenameMode, reply: ReplyEmpty) {
    match core.rename(from, to, mode) {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(Errno::from_i32(error.to_errno())),
    }
}
