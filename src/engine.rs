//! L7: composes the layers; the only type the edge needs.
//!
//! Threads: the writer's own callers flush (group commit); one housekeeper flushes what nobody asked for and
//! allocates ahead; one applier; one indexer. None of them is needed for an answer to be right, only for it to be
//! soon: tests run without, and step by hand.

mod threads;

use crate::clock::Clock;
use crate::disk::{Disk, Lock, OpenHow, Space as DiskSpace};
use crate::error::{Error, Kind, Result};
use crate::format::superblock;
use crate::index::Index;
use crate::index::kv::Kv;
use crate::journal::Config;
use crate::live::paths::Paths;
use crate::live::recover::{Report, Setup};
use crate::live::{Limits, Live};
use crate::past::indexer::Indexer;
use crate::past::pages::{PageFiles, Pages};
use crate::past::resolve::Resolver;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::{Attr, FileId, Name, Seq, StoreId, Timestamp};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use crate::journal::Completion;
pub use crate::live::names::{Entry, NewFile, RenameMode, SetAttr, SetTime};
pub use crate::past::resolve::{Found, Resolution};
pub use crate::past::view::View;
pub use crate::past::when::Instant;

/// How writes arrive (DESIGN §2, capture modes).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Capture {
    #[default]
    Strict,
    Writeback,
}

impl Capture {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Capture::Strict => "strict",
            Capture::Writeback => "writeback",
        }
    }
}

/// What [`Engine::open`] needs to know. Limits come from STORE/weft.toml (parsed by the edge).
#[derive(Clone, Debug)]
pub struct Options {
    pub data: PathBuf,
    pub store: PathBuf,
    pub capture: Capture,
    /// Bytes in a journal segment.
    pub segment_bytes: u64,
    /// Unapplied bytes above which replies to writes are delayed.
    pub overlay_limit_bytes: u64,
    /// Journal bytes kept in memory for the applier and indexer.
    pub cache_bytes: u64,
    /// Journal bytes between checkpoints.
    pub checkpoint_bytes: u64,
    /// Descriptors the engine keeps open beneath.
    pub open_files: usize,
    /// May chown to others (running as root).
    pub privileged: bool,
    /// Id of the store, if it has to be made: random bytes.
    pub new_store_id: [u8; 16],
}

impl Options {
    /// The defaults, for a DATA and a STORE.
    pub fn new(data: &Path, store: &Path) -> Options {
        Options {
            data: data.to_path_buf(),
            store: store.to_path_buf(),
            capture: Capture::Strict,
            segment_bytes: 64 << 20,
            overlay_limit_bytes: 256 << 20,
            cache_bytes: 64 << 20,
            checkpoint_bytes: 256 << 20,
            open_files: 512,
            privileged: true,
            new_store_id: [0; 16],
        }
    }
}

/// Modes of `fallocate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallocate {
    Reserve { keep_size: bool },
    Punch,
    Zero { keep_size: bool },
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

/// How the index is kept: opens the store in a directory, or makes a new one.
pub type OpenKv<'a> = &'a dyn Fn(&Path) -> Result<Arc<dyn Kv>>;

/// The core, running.
pub struct Engine {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    paths: Paths,
    store: StoreId,
    capture: Capture,
    checkpoint_bytes: u64,
    live: Arc<Live>,
    index: Arc<Index>,
    pages: Arc<Pages>,
    indexer: Arc<Indexer>,
    report: Report,
    threads: threads::Threads,
    writes: AtomicU64,
    written: AtomicU64,
    fsyncs: AtomicU64,
    _lock: Box<dyn Lock>,
}

impl Engine {
    /// Locks STORE, recovers what a crash left, moves DATA's entries in (DESIGN §1). Nothing is copied. Threads run
    /// after [`Engine::start`].
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: Options,
        open_kv: OpenKv<'_>,
    ) -> Result<Arc<Engine>> {
        let paths = Paths { data: options.data.clone(), store: options.store.clone() };
        make_dirs(&*disk, &paths)?;
        let lock = disk.lock("store.lock", &paths.lock())?.ok_or_else(|| {
            Error::new(Kind::Busy, "store.lock", "a running weft uses this store; `weft unmount` it first")
                .at(&paths.store)
        })?;
        let (store, index, index_is_new) = open_index(&*disk, &paths, &options, open_kv)?;
        let setup = Setup {
            disk: Arc::clone(&disk),
            clock: Arc::clone(&clock),
            paths: paths.clone(),
            store,
            index: Arc::clone(&index),
            index_is_new,
            journal: Config { segment_bytes: options.segment_bytes, cache_bytes: options.cache_bytes },
            limits: Limits {
                overlay_bytes: options.overlay_limit_bytes,
                open_files: options.open_files,
                privileged: options.privileged,
            },
            writeback: options.capture == Capture::Writeback,
        };
        let (live, report) = Live::open(setup)?;
        let live = Arc::new(live);
        let page_dir = paths.store.join("pages");
        let page_file = next_page_file(&*disk, &page_dir)?;
        let page_files = PageFiles::new(Arc::clone(&disk), page_dir);
        let pages = Arc::new(Pages::new(Arc::clone(&index), Arc::clone(&live), page_files));
        let indexer =
            Indexer::new(Arc::clone(&index), Arc::clone(&live.journal), Arc::clone(&pages), page_file);
        Ok(Arc::new(Engine {
            disk,
            clock,
            paths,
            store,
            capture: options.capture,
            checkpoint_bytes: options.checkpoint_bytes,
            live,
            index,
            pages,
            indexer: Arc::new(indexer),
            report,
            threads: threads::Threads::default(),
            writes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            fsyncs: AtomicU64::new(0),
            _lock: lock,
        }))
    }

    /// Starts the background threads.
    pub fn start(self: &Arc<Engine>) -> Result<()> {
        self.threads.start(self)
    }

    /// Applies everything, puts DATA's entries back, marks both sides clean. The mount must be gone before.
    pub fn close(&self) -> Result<()> {
        self.threads.stop();
        crate::live::scatter::scatter(&self.live)?;
        while self.indexer.step()? {}
        self.index.persist()
    }

    /// Stops the threads and leaves everything as a crash would; for a mount that cannot be finished.
    pub fn abandon(&self) {
        self.threads.stop();
    }

    pub fn store_id(&self) -> StoreId {
        self.store
    }

    pub fn capture(&self) -> Capture {
        self.capture
    }

    /// One round of the applier, by hand.
    pub fn apply(&self) -> Result<Seq> {
        self.live.apply_round()
    }

    /// A checkpoint, by hand; `false` when something could not be applied yet.
    pub fn checkpoint(&self) -> Result<bool> {
        self.live.try_checkpoint(crate::format::checkpoint::Phase::Serving, &HashMap::new())
    }

    /// One batch of the indexer, by hand; `false` when there was nothing to do.
    pub fn index_some(&self) -> Result<bool> {
        self.indexer.step()
    }

    pub fn status(&self) -> Status {
        let journal = &self.live.journal;
        let (flushes, _) = journal.counters();
        let birth = *self.live.birth.lock();
        Status {
            store_id: self.store.to_string(),
            capture: self.capture.name().to_owned(),
            oldest_us: birth.1.0,
            newest_us: self.now().0,
            seq: journal.last_seq().0,
            durable_seq: journal.durable().0,
            applied_seq: self.live.applied().0,
            indexed_seq: self.indexer.reached().0,
            checkpoint_seq: self.live.checkpointed().0,
            journal_bytes: self.dir_bytes(&self.paths.journal_dir()),
            index_bytes: self.index.size_bytes() + self.dir_bytes(&self.paths.store.join("pages")),
            base_bytes: self.dir_bytes(&self.paths.base_dir()) + self.limbo_bytes(),
            overlay_bytes: self.live.overlay_bytes(),
            files: self.live.files(),
            open_files: self.live.open_files(),
            clock_epoch: 0,
            writes: self.writes.load(Ordering::Relaxed),
            written_bytes: self.written.load(Ordering::Relaxed),
            fsyncs: self.fsyncs.load(Ordering::Relaxed),
            flushes,
            problems: self.problems(),
            recovery: self.recovery(),
        }
    }

    fn problems(&self) -> Vec<String> {
        let journal = self.live.journal.failure().map(|error| {
            format!("no write is accepted any more: {error}. Unmount, mend the disk, mount again")
        });
        let applier = self.live.trouble().map(|error| {
            format!("changes cannot be applied to DATA (they are safe in the journal): {error}. Make room, or mend the disk")
        });
        let indexer = self.indexer.trouble().map(|error| {
            format!("the index cannot go on, new views fail: {error}. Try `weft index rebuild`")
        });
        [journal, applier, indexer].into_iter().flatten().collect()
    }

    /// What opening did, in words.
    pub fn recovery(&self) -> String {
        let Report { crashed, replayed, stock } = &self.report;
        let mut words = Vec::new();
        if *crashed {
            let torn = if replayed.torn {
                ", left out a torn write at the end that was never acknowledged"
            } else {
                ""
            };
            words.push(format!(
                "recovered after a crash: replayed {} events ({} bytes of journal){torn}",
                replayed.events, replayed.bytes
            ));
        }
        if stock.adopted > 0 {
            words.push(format!("took in {} files and directories", stock.adopted));
        }
        if stock.changed > 0 {
            words.push(format!(
                "{} files were changed while not mounted: their new content is a new base, and what history only had \
                 in the old content is gone",
                stock.changed
            ));
        }
        if stock.removed > 0 {
            words.push(format!("{} names were removed while not mounted", stock.removed));
        }
        if words.is_empty() { "clean".to_owned() } else { words.join("; ") }
    }

    fn dir_bytes(&self, dir: &Path) -> u64 {
        let entries = self.disk.read_dir("status.size", dir).unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| {
                let path = crate::live::paths::join_bytes(dir, &entry.name);
                self.disk.stat("status.size", &path).ok().flatten()
            })
            .map(|stat| stat.allocated)
            .sum()
    }

    fn limbo_bytes(&self) -> u64 {
        self.dir_bytes(&self.paths.limbo_dir()) + self.dir_bytes(&self.paths.store_limbo_dir())
    }

    // -- names --

    pub fn lookup(&self, dir: FileId, name: &[u8]) -> Result<(FileId, Attr)> {
        self.live.lookup(dir, name)
    }

    pub fn attr(&self, file: FileId) -> Result<Attr> {
        self.live.attr(file)
    }

    pub fn create(&self, dir: FileId, name: &[u8], new: NewFile) -> Result<(FileId, Attr)> {
        self.live.create(dir, name, new)
    }

    pub fn link(&self, file: FileId, dir: FileId, name: &[u8]) -> Result<Attr> {
        self.live.link(file, dir, name)
    }

    pub fn unlink(&self, dir: FileId, name: &[u8]) -> Result<()> {
        self.live.unlink(dir, name)
    }

    pub fn remove_dir(&self, dir: FileId, name: &[u8]) -> Result<()> {
        self.live.remove_dir(dir, name)
    }

    pub fn rename(&self, from: (FileId, &[u8]), to: (FileId, &[u8]), mode: RenameMode) -> Result<()> {
        self.live.rename(from, to, mode)
    }

    pub fn read_link(&self, file: FileId) -> Result<Vec<u8>> {
        self.live.read_link(file)
    }

    /// The directory that holds a directory (itself for the root).
    pub fn parent(&self, dir: FileId) -> Result<FileId> {
        self.live.parent(dir)
    }

    /// Entries with names after `after`, in byte order, at most `limit`; without `.` and `..`.
    pub fn read_dir(&self, dir: FileId, after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        self.live.read_dir(dir, after, limit)
    }

    // -- attributes --

    pub fn set_attr(&self, file: FileId, set: SetAttr) -> Result<Attr> {
        self.live.set_attr(file, set)
    }

    pub fn xattr(&self, file: FileId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.live.xattr(file, name)
    }

    pub fn xattr_names(&self, file: FileId) -> Result<Vec<Name>> {
        self.live.xattr_names(file)
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
        self.live.set_xattr(file, name, value, create, replace)
    }

    pub fn remove_xattr(&self, file: FileId, name: &[u8]) -> Result<()> {
        self.live.remove_xattr(file, name)
    }

    // -- bytes --

    /// Counts an open handle: an unlinked file lives until the last is released.
    pub fn open_file(&self, file: FileId) -> Result<()> {
        self.live.open_file(file)
    }

    pub fn release_file(&self, file: FileId) {
        self.live.release_file(file);
    }

    pub fn read(&self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.live.read(file, offset, out)
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
        self.live.write(file, offset, bytes, append, kill_priv)?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    pub fn fallocate(&self, file: FileId, mode: Fallocate, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len).ok_or_else(|| Error::errno("live.fallocate", libc::EFBIG))?;
        match mode {
            Fallocate::Reserve { keep_size: true } => Ok(()),
            Fallocate::Reserve { keep_size: false } => self.live.reserve(file, end),
            Fallocate::Punch => self.live.zero(file, offset, len, true),
            Fallocate::Zero { keep_size } => self.live.zero(file, offset, len, keep_size),
        }
    }

    pub fn seek(&self, file: FileId, offset: u64, hole: bool) -> Result<Option<u64>> {
        self.live.seek(file, offset, hole)
    }

    /// Durable up to the file's last event (data, size, its name), then `done`.
    pub fn fsync(&self, file: FileId, done: Completion) {
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        match self.live.last_event(file) {
            Ok(seq) => self.live.journal.commit(seq, done),
            Err(error) => done(Err(error)),
        }
    }

    /// Everything so far is durable, then `done`.
    pub fn sync(&self, done: Completion) {
        self.live.journal.commit(self.live.journal.last_seq(), done);
    }

    pub fn space(&self) -> Result<DiskSpace> {
        self.disk.space("live.statfs", &self.paths.data)
    }

    // -- the past --

    /// Closes the instant (durably) when it is found, so that its view can never change.
    pub fn resolve(&self, instant: Instant) -> Result<Resolution> {
        let birth = *self.live.birth.lock();
        let resolver = Resolver {
            clock: &*self.clock,
            journal: &self.live.journal,
            index: &self.index,
            indexer: &self.indexer,
            birth,
        };
        resolver.resolve(instant)
    }

    /// Opens the view of a resolved instant, waiting for the index to reach it.
    pub fn view(&self, seq: Seq) -> Result<Arc<View>> {
        self.indexer.wait_for(seq)?;
        Ok(Arc::new(View::new(seq, Arc::clone(&self.index), Arc::clone(&self.pages))))
    }

    /// Now, as history counts it.
    pub fn now(&self) -> Timestamp {
        self.clock.now().max(self.live.journal.last_ts())
    }
}

/// The directories of a STORE; what is there already stays.
fn make_dirs(disk: &dyn Disk, paths: &Paths) -> Result<()> {
    let dirs = [
        paths.store.clone(),
        paths.journal_dir(),
        paths.base_dir(),
        paths.checkpoint_dir(),
        paths.store_limbo_dir(),
        paths.store.join("pages"),
    ];
    for dir in &dirs {
        if disk.stat("store.create", dir)?.is_none() {
            disk.create_dir("store.create", dir, 0o700)?;
        }
    }
    disk.sync_dir("store.create", &paths.store)
}

/// The store's id (made when it is new) and its index. A damaged or foreign index is derived data: made anew. So is
/// one that is there before the first checkpoint.
fn open_index(
    disk: &dyn Disk,
    paths: &Paths,
    options: &Options,
    open_kv: OpenKv<'_>,
) -> Result<(StoreId, Arc<Index>, bool)> {
    let store = open_superblock(disk, paths, StoreId(options.new_store_id))?;
    let unborn = crate::live::checkpoint::newest(disk, paths, store)?.is_none();
    if unborn {
        remove_index(disk, paths)?;
    }
    let opened = open_kv(&paths.index_dir()).and_then(|kv| Index::open(kv, store));
    let index = match opened {
        Ok(index) => index,
        Err(error) if error.kind == Kind::Busy => return Err(error),
        Err(error) => {
            tracing::warn!(%error, "the index cannot be used and is made anew from the journal");
            remove_index(disk, paths)?;
            Index::open(open_kv(&paths.index_dir())?, store)?
        }
    };
    let is_new = index.watermark().seq == Seq::ZERO;
    Ok((store, Arc::new(index), is_new))
}

/// Removes the index and the pages that were composed for it: the next open makes them anew.
pub fn remove_index(disk: &dyn Disk, paths: &Paths) -> Result<()> {
    remove_tree(disk, &paths.index_dir())?;
    let pages = paths.store.join("pages");
    for entry in disk.read_dir("index.remove", &pages)? {
        disk.unlink("index.remove", &crate::live::paths::join_bytes(&pages, &entry.name))?;
    }
    Ok(())
}

fn remove_tree(disk: &dyn Disk, dir: &Path) -> Result<()> {
    if disk.stat("index.remove", dir)?.is_none() {
        return Ok(());
    }
    for entry in disk.read_dir("index.remove", dir)? {
        let path = crate::live::paths::join_bytes(dir, &entry.name);
        match entry.kind {
            crate::types::FileKind::Directory => remove_tree(disk, &path)?,
            _ => disk.unlink("index.remove", &path)?,
        }
    }
    disk.remove_dir("index.remove", dir)
}

fn open_superblock(disk: &dyn Disk, paths: &Paths, fresh: StoreId) -> Result<StoreId> {
    let path = paths.superblock();
    if disk.stat("store.open", &path)?.is_none() {
        let temporary = path.with_extension("new");
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        disk.open("store.create", &temporary, how)?.write_durable(
            "store.create",
            &superblock::encode(fresh),
            0,
        )?;
        disk.rename("store.create", &temporary, &path)?;
        disk.sync_dir("store.create", &paths.store)?;
        return Ok(fresh);
    }
    let mut bytes = [0; superblock::LEN];
    let file = disk.open("store.open", &path, OpenHow::default())?;
    let got = file.read_at("store.open", &mut bytes, 0)?;
    superblock::decode(bytes.get(..got).unwrap_or(&[])).map_err(|error| error.at(&path))
}

fn next_page_file(disk: &dyn Disk, dir: &Path) -> Result<u64> {
    let numbers = disk.read_dir("pages.list", dir)?.into_iter().filter_map(|entry| {
        std::str::from_utf8(&entry.name).ok()?.strip_suffix(".pages")?.parse::<u64>().ok()
    });
    Ok(numbers.max().map_or(1, |last| last + 1))
}
