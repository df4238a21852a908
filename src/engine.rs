//! L7: composes the layers; the only type the edge needs.

use crate::clock::Clock;
use crate::disk::{Disk, Space};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::types::{Attr, FileId, FileKind, FileTime, Name, Seq, StoreId, Timestamp};
use std::path::PathBuf;

/// How writes arrive (DESIGN §2, capture modes).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Capture {
    #[default]
    Strict,
    Writeback,
}

/// What [`Engine::open`] needs to know. Limits come from STORE/weft.toml (parsed by the edge).
#[derive(Clone, Debug)]
pub struct Options {
    pub data: PathBuf,
    pub store: PathBuf,
    pub capture: Capture,
    /// Bytes in a journal segment (default 64 MiB).
    pub segment_bytes: u64,
    /// Unapplied bytes above which replies to writes are delayed (default 256 MiB).
    pub overlay_limit_bytes: u64,
    /// Journal bytes kept in memory for the applier and indexer (default 64 MiB).
    pub cache_bytes: u64,
    /// Journal bytes between checkpoints (default 256 MiB).
    pub checkpoint_bytes: u64,
    /// Descriptors the engine keeps open beneath (default 512).
    pub open_files: usize,
    /// Patterns (relative to DATA) whose contents are not history.
    pub excluded: Vec<String>,
    /// May chown to others (running as root).
    pub privileged: bool,
}

/// Called when a durability request is answered; may run on any thread, must not block long.
pub type Completion = Box<dyn FnOnce(Result<()>) + Send>;

/// Who asks for a new file.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What to make with [`Engine::create`].
#[derive(Clone, Debug)]
pub struct NewFile {
    pub kind: FileKind,
    /// Permission bits, umask already applied.
    pub mode: u32,
    pub rdev: u32,
    /// Symlink target; empty otherwise.
    pub target: Vec<u8>,
    pub owner: Owner,
}

/// A new time of a file.
#[derive(Clone, Copy, Debug)]
pub enum SetTime {
    Now,
    At(FileTime),
}

/// Fields of a SETATTR; `None` leaves a field alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    pub ctime: Option<FileTime>,
    /// The kernel's own batching of mtime (writeback cache), not a program's choice.
    pub from_kernel_cache: bool,
}

/// One entry of a directory listing.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: Name,
    pub file: FileId,
    pub kind: FileKind,
}

/// Flags of `renameat2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// Modes of `fallocate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallocate {
    Reserve { keep_size: bool },
    Punch,
    Zero { keep_size: bool },
}

/// An instant as asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instant {
    Time(Timestamp),
    Seq(Seq),
}

/// The four-way answer.
#[derive(Clone, Debug)]
pub enum Resolution {
    Found(Found),
    /// Later than now (or a Seq not durable yet).
    Future {
        now: Timestamp,
        last: Seq,
    },
    /// Before history began.
    Before {
        first: Timestamp,
    },
    /// Was there; retention took it.
    Pruned {
        oldest: Timestamp,
    },
}

/// A resolved instant: closed, durable, never to change.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub seq: Seq,
    /// Time of the last event at or before the request.
    pub actual: Timestamp,
    /// The clock stepped so that this time is not unique: which epochs it may mean.
    pub epoch: u32,
    pub ambiguous: bool,
}

/// Figures for `weft status`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    pub store_id: String,
    pub capture: String,
    /// First and last instants that can be resolved, µs UTC.
    pub oldest_us: i64,
    pub newest_us: i64,
    pub seq: u64,
    pub durable_seq: u64,
    pub applied_seq: u64,
    pub indexed_seq: u64,
    pub checkpoint_seq: u64,
    pub journal_bytes: u64,
    pub index_bytes: u64,
    pub base_bytes: u64,
    pub overlay_bytes: u64,
    pub files: u64,
    pub open_files: u64,
    pub clock_epoch: u32,
    pub writes: u64,
    pub written_bytes: u64,
    pub fsyncs: u64,
    pub flushes: u64,
    /// Empty when all is well; otherwise what is wrong and what to do.
    pub problems: Vec<String>,
    /// What recovery did when this session began.
    pub recovery: String,
}

/// One past instant, read-only. Cheap to clone through its `Arc`.
pub struct View;

impl View {
    pub fn seq(&self) -> Seq {
        unimplemented!()
    }
    pub fn lookup(&self, _dir: FileId, _name: &[u8]) -> Result<Option<(FileId, Attr)>> {
        unimplemented!()
    }
    pub fn attr(&self, _file: FileId) -> Result<Attr> {
        unimplemented!()
    }
    pub fn read_link(&self, _file: FileId) -> Result<Vec<u8>> {
        unimplemented!()
    }
    /// Entries with names after `after`, in byte order, at most `limit`.
    pub fn read_dir(&self, _dir: FileId, _after: Option<&[u8]>, _limit: usize) -> Result<Vec<Entry>> {
        unimplemented!()
    }
    /// Bytes read: fewer than asked only at the end of the file.
    pub fn read(&self, _file: FileId, _offset: u64, _buf: &mut [u8]) -> Result<usize> {
        unimplemented!()
    }
    pub fn xattrs(&self, _file: FileId) -> Result<Vec<(Name, Vec<u8>)>> {
        unimplemented!()
    }
    /// The next offset at or after `offset` that holds data (or a hole); `None`: ENXIO.
    pub fn seek(&self, _file: FileId, _offset: u64, _hole: bool) -> Result<Option<u64>> {
        unimplemented!()
    }
}

/// The core, running: its threads (flusher, applier, indexer) live until [`Engine::close`].
pub struct Engine;

#[allow(unused_variables, clippy::missing_errors_doc)]
impl Engine {
    /// Locks DATA and STORE, recovers what a crash left, moves DATA's entries in (DESIGN §1). Nothing is copied.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: Options) -> Result<Arc<Engine>> {
        unimplemented!()
    }
    /// Applies everything, puts DATA's entries back, marks both sides clean. The mount must be gone before.
    pub fn close(&self) -> Result<()> {
        unimplemented!()
    }
    pub fn store_id(&self) -> StoreId {
        unimplemented!()
    }
    pub fn status(&self) -> Status {
        unimplemented!()
    }

    // -- names --
    pub fn lookup(&self, dir: FileId, name: &[u8]) -> Result<(FileId, Attr)> {
        unimplemented!()
    }
    pub fn attr(&self, file: FileId) -> Result<Attr> {
        unimplemented!()
    }
    pub fn create(&self, dir: FileId, name: &[u8], new: NewFile) -> Result<(FileId, Attr)> {
        unimplemented!()
    }
    pub fn link(&self, file: FileId, dir: FileId, name: &[u8]) -> Result<Attr> {
        unimplemented!()
    }
    pub fn unlink(&self, dir: FileId, name: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub fn remove_dir(&self, dir: FileId, name: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub fn rename(&self, from: (FileId, &[u8]), to: (FileId, &[u8]), mode: RenameMode) -> Result<()> {
        unimplemented!()
    }
    pub fn read_link(&self, file: FileId) -> Result<Vec<u8>> {
        unimplemented!()
    }
    /// The directory that holds a directory (itself for the root).
    pub fn parent(&self, dir: FileId) -> Result<FileId> {
        unimplemented!()
    }
    /// Entries with names after `after`, in byte order, at most `limit`; without `.` and `..`.
    pub fn read_dir(&self, dir: FileId, after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        unimplemented!()
    }

    // -- attributes --
    pub fn set_attr(&self, file: FileId, set: SetAttr) -> Result<Attr> {
        unimplemented!()
    }
    pub fn xattr(&self, file: FileId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        unimplemented!()
    }
    pub fn xattr_names(&self, file: FileId) -> Result<Vec<Name>> {
        unimplemented!()
    }
    /// `create`/`replace` as XATTR_CREATE/XATTR_REPLACE.
    pub fn set_xattr(
        &self,
        file: FileId,
        name: &[u8],
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Result<()> {
        unimplemented!()
    }
    pub fn remove_xattr(&self, file: FileId, name: &[u8]) -> Result<()> {
        unimplemented!()
    }

    // -- bytes --
    /// Counts an open handle: an unlinked file lives until the last is released.
    pub fn open_file(&self, file: FileId) -> Result<()> {
        unimplemented!()
    }
    pub fn release_file(&self, file: FileId) {
        unimplemented!()
    }
    pub fn read(&self, file: FileId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        unimplemented!()
    }
    /// Appends when `append`; otherwise at `offset`. Visible, not yet durable. `kill_priv`: clear setuid/setgid.
    pub fn write(
        &self,
        file: FileId,
        offset: u64,
        bytes: &[u8],
        append: bool,
        kill_priv: bool,
    ) -> Result<()> {
        unimplemented!()
    }
    pub fn fallocate(&self, file: FileId, mode: Fallocate, offset: u64, len: u64) -> Result<()> {
        unimplemented!()
    }
    pub fn seek(&self, file: FileId, offset: u64, hole: bool) -> Result<Option<u64>> {
        unimplemented!()
    }
    /// Durable up to the file's last event (data, size, its name), then `done`.
    pub fn fsync(&self, file: FileId, done: Completion) {
        unimplemented!()
    }
    /// Everything so far is durable, then `done`.
    pub fn sync(&self, done: Completion) {
        unimplemented!()
    }
    pub fn space(&self) -> Result<Space> {
        unimplemented!()
    }

    // -- the past --
    /// Closes the instant (durably) when it is found, so that its view can never change.
    pub fn resolve(&self, instant: Instant) -> Result<Resolution> {
        unimplemented!()
    }
    /// Opens the view of a resolved instant, waiting for the index to reach it.
    pub fn view(&self, seq: Seq) -> Result<Arc<View>> {
        unimplemented!()
    }
    /// Now, as history counts it.
    pub fn now(&self) -> Timestamp {
        unimplemented!()
    }
}

#[allow(dead_code)]
fn _unused(_: Error) {}
