//! L7: composes the layers; the only type the edge needs.
//!
//! Threads: the writer's own callers flush (group commit); one housekeeper flushes what nobody asked for and
//! allocates ahead; one applier; one indexer. None of them is needed for an answer to be right, only for it to be
//! soon: tests run without, and step by hand.

mod activity;
mod budget;
mod coming;
mod forecasting;
mod history;
mod holds;
mod instants;
mod leases;
mod options;
mod partitions;
mod pruning;
mod reclaim;
mod relief;
mod resting;
mod room;
mod shadowing;
mod splits;
mod status;
mod store;
mod sweeping;
mod thinning;
mod threads;
mod undone;
mod weaving;

pub use activity::Work;
pub use forecasting::{ForecastLimits, ForecastStatus};
pub use history::{Located, Origin};
pub use holds::{Held, Hold};
pub use leases::{Granted, Lease};
pub use options::{Capture, Options};
pub use partitions::Figures;
pub use pruning::{LetGo, Pruned};
pub use shadowing::{ChildShadow, Foreseen, ShadowInfo, ShadowLimits, ShadowStatus, SnapshotInfo};
pub use splits::Ancestry;
pub use status::Status;
pub use store::remove_index;
use store::{Opened, make_dirs, next_page_file, open_store};
pub use threads::ByHand;
pub use weaving::{WeaveLimits, WovenSoFar};

use crate::clock::Clock;
use crate::disk::{Disk, Lock};
use crate::error::{Error, Kind, Result};
use crate::index::Index;
use crate::index::kv::Kv;
use crate::journal::Config;
use crate::live::paths::Paths;
use crate::live::recover::{Report, Setup};
use crate::live::{Limits, Live};
use crate::meta::store as meta;
use crate::past::indexer::Indexer;
use crate::past::kept::{self, Kept};
use crate::past::pages::{PageFiles, Pages};
use crate::shadow::Shadows;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use crate::types::{Attr, FileId, Name, Seq, StoreId};
use std::collections::HashMap;
use std::path::Path;

pub use crate::format::sections::TagState;
pub use crate::journal::Completion;
pub use crate::lineage::find::{Part, Tree};
pub use crate::lineage::partition::{Layout, Partition};
pub use crate::live::attrs::{Caller, SetAttr, SetTime};
pub use crate::live::names::{Entry, NewFile, RenameMode};
pub use crate::live::room::Full;
pub use crate::live::roots::{Asked, RootDir, RootInfo, check_name as check_root_name};
pub use crate::past::resolve::{Found, Resolution};
pub use crate::past::view::View;
pub use crate::past::when::Instant;
pub use crate::shadow::{Made as ShadowMade, Reason as ShadowReason, Subject, Wish};
pub use crate::weave::{Outcome as Weaving, Pace, Unpaced, Woven};

/// Modes of `fallocate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallocate {
    Reserve { keep_size: bool },
    Punch,
    Zero { keep_size: bool },
}

/// How the index is kept: opens the store in a directory, or makes a new one.
pub type OpenKv<'a> = &'a dyn Fn(&Path) -> Result<Arc<dyn Kv>>;

/// The core, running.
pub struct Engine {
    disk: Arc<dyn Disk>,
    paths: Paths,
    store: StoreId,
    capture: Capture,
    checkpoint_bytes: u64,
    name_waiters: usize,
    live: Arc<Live>,
    index: Arc<Index>,
    pages: Arc<Pages>,
    meta: meta::Store,
    indexer: Arc<Indexer>,
    kept: Kept,
    /// What was durable when the session began.
    begun: Seq,
    weaver: weaving::Weaving,
    /// How long a lease runs, and when open handles were last looked at, in µs.
    lease_us: i64,
    leases_looked_us: AtomicI64,
    forecasting: forecasting::Forecasting,
    shadowing: shadowing::Shadowing,
    holds: Arc<holds::Holds>,
    pruning: pruning::Pruning,
    report: Report,
    threads: threads::Threads,
    writes: AtomicU64,
    written: AtomicU64,
    fsyncs: AtomicU64,
    activity: activity::Activity,
    taken: partitions::Taken,
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
        options.asked.check()?;
        let paths = Paths::new(&options.data, &options.store);
        make_dirs(&*disk, &paths)?;
        let lock = disk.lock("store.lock", &paths.lock())?.ok_or_else(|| {
            Error::new(Kind::Busy, "store.lock", "a running weft uses this store; `weft unmount` it first")
                .at(&paths.store)
        })?;
        let Opened { store, index, index_is_new, meta } =
            open_store(&disk, &clock, &paths, &options, open_kv)?;
        let kept = kept::read(&*disk, &paths.kept_pins(), store)?;
        let is_kept = !kept.is_empty();
        let kernel_bytes = store::kernel_share(&*disk, &paths, &options)?;
        let setup = Setup {
            disk: Arc::clone(&disk),
            clock,
            paths: paths.clone(),
            asked: options.asked.clone(),
            store,
            index: Arc::clone(&index),
            index_is_new,
            journal: Config {
                segment_bytes: options.segment_bytes,
                cache_bytes: options.cache_bytes,
                clock_step_us: options.clock_step_us,
                reserve_bytes: store::reserve(kernel_bytes),
                keep_free_bytes: options.keep_free_bytes,
            },
            limits: Limits {
                overlay_bytes: options.overlay_limit_bytes,
                open_files: options.open_files,
                privileged: options.privileged,
                keep_free_bytes: options.keep_free_bytes,
                kernel_bytes,
            },
            exclude: options.exclude.clone(),
            writeback: options.capture == Capture::Writeback,
            kept,
        };
        let (live, report) = Live::open(setup)?;
        if is_kept {
            live.journal.flush()?;
            kept::forget(&*disk, &paths.kept_pins())?;
        }
        if index.watermark().seq > live.journal.last_seq() {
            return Err(Error::new(
                Kind::Mismatch,
                "index.open",
                "the index knows events that the journal does not have: the journal was put back to an older state. \
                 If that was meant, `weft index rebuild` makes the index anew",
            )
            .at(&paths.index_dir()));
        }
        let live = Arc::new(live);
        let page_dir = paths.store.join("pages");
        let page_file = next_page_file(&*disk, &page_dir)?;
        let page_files = PageFiles::new(Arc::clone(&disk), page_dir);
        let shadow_dir = paths.store.join("shadow");
        let shadows =
            Shadows::open(Arc::clone(&disk), shadow_dir, store, Arc::clone(&index), live.journal.last_seq());
        let shadowing = shadowing::Shadowing::new(shadows, options.shadow);
        let shadows = Arc::clone(&shadowing.shadows);
        let pages = Arc::new(Pages::new(Arc::clone(&index), Arc::clone(&live), page_files, shadows));
        resting::index_rested(&live, &index)?;
        let indexer =
            Indexer::new(Arc::clone(&index), Arc::clone(&live.journal), Arc::clone(&pages), page_file);
        let weaver = weaving::Weaving::new(Arc::clone(live.journal.segments()), options.weave)?;
        let forecasting = forecasting::Forecasting::new(&disk, &paths.store, options.forecast);
        Ok(Arc::new(Engine {
            kept: Kept::new(Arc::clone(&disk), paths.kept_pins(), store),
            begun: live.journal.durable(),
            disk,
            paths,
            store,
            capture: options.capture,
            checkpoint_bytes: options.checkpoint_bytes,
            name_waiters: options.name_waiters,
            live,
            index,
            pages,
            meta,
            indexer: Arc::new(indexer),
            weaver,
            lease_us: options.lease_us.max(1),
            leases_looked_us: AtomicI64::new(0),
            forecasting,
            shadowing,
            holds: Arc::default(),
            pruning: pruning::Pruning::new(options.retention, options.rest, options.page_slack_bytes),
            report,
            threads: threads::Threads::default(),
            writes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            fsyncs: AtomicU64::new(0),
            activity: activity::Activity::default(),
            taken: partitions::Taken::default(),
            _lock: lock,
        }))
    }

    /// Starts the background threads. The reserve is allocated, or growth is refused from the start.
    pub fn start(self: &Arc<Engine>) -> Result<()> {
        if self.capture == Capture::Writeback {
            // What is missing is logged, and shown by the status.
            let _ = self.live.journal.prepare_spares();
        }
        // Nothing of history needs it: why it cannot be opened is logged, and shown by the status.
        let _ = self.meta.open();
        self.threads.start(self)
    }

    /// Applies everything, puts DATA's entries back, marks both sides clean. The mount must be gone before.
    pub fn close(&self) -> Result<()> {
        self.stop();
        crate::live::scatter::scatter(&self.live)?;
        self.live.journal.release_spares();
        self.meta.close();
        // DATA is finished, whatever becomes of what is derived.
        if let Err(error) = self.finish_index() {
            tracing::warn!(%error, "the index is behind the journal: the next mount goes on from there");
        }
        Ok(())
    }

    /// The index takes in the rest, unless it is being made anew: the next mount goes on with that.
    fn finish_index(&self) -> Result<()> {
        while !self.indexer.is_far_from(self.live.journal.durable()) && self.indexer.step()? {}
        self.index.persist()
    }

    /// Stops the threads and leaves everything as a crash would; for a mount that cannot be finished.
    pub fn abandon(&self) {
        self.stop();
    }

    fn stop(&self) {
        // Some of the threads may be waiting for it.
        self.end_waiting();
        self.threads.stop();
    }

    /// Begins work on history that somebody waits for; `None` when all is about to end.
    pub fn by_hand(&self) -> Option<ByHand<'_>> {
        self.threads.by_hand()
    }

    /// From now on nobody waits for the index any more: the engine is to be closed.
    pub fn end_waiting(&self) {
        self.indexer.end();
    }

    pub fn store_id(&self) -> StoreId {
        self.store
    }

    pub fn capture(&self) -> Capture {
        self.capture
    }

    /// What is known beside history: shadows, forecasts, lineage. Whoever asks goes on without it when it fails.
    pub fn meta(&self) -> &meta::Store {
        &self.meta
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

    // -- names --

    /// The roots, DATA first.
    pub fn roots(&self) -> Result<Vec<RootInfo>> {
        self.live.roots()
    }

    pub fn lookup(&self, dir: FileId, name: &[u8]) -> Result<(FileId, Attr)> {
        self.live.lookup(dir, name)
    }

    pub fn attr(&self, file: FileId) -> Result<Attr> {
        self.live.attr(file)
    }

    pub fn create(&self, dir: FileId, name: &[u8], new: NewFile) -> Result<(FileId, Attr)> {
        self.roomy_name(|| self.live.create(dir, name, new.clone()))
    }

    pub fn link(&self, file: FileId, dir: FileId, name: &[u8]) -> Result<Attr> {
        self.roomy_name(|| self.live.link(file, dir, name))
    }

    pub fn unlink(&self, dir: FileId, name: &[u8]) -> Result<()> {
        self.live.unlink(dir, name)
    }

    pub fn remove_dir(&self, dir: FileId, name: &[u8]) -> Result<()> {
        self.live.remove_dir(dir, name)
    }

    pub fn rename(&self, from: (FileId, &[u8]), to: (FileId, &[u8]), mode: RenameMode) -> Result<()> {
        self.roomy_name(|| self.live.rename(from, to, mode))
    }

    pub fn read_link(&self, file: FileId) -> Result<Vec<u8>> {
        self.live.read_link(file)
    }

    /// The directory that holds a directory (itself for the root).
    pub fn parent(&self, dir: FileId) -> Result<FileId> {
        self.live.parent(dir)
    }

    /// A path, below its root, of each of these files that has a name.
    pub fn paths(&self, files: &[FileId]) -> Result<Vec<(FileId, Vec<u8>)>> {
        self.live.paths_of(files)
    }

    /// Entries with names after `after`, in byte order, at most `limit`; without `.` and `..`.
    pub fn read_dir(&self, dir: FileId, after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        self.live.read_dir(dir, after, limit)
    }

    // -- attributes --

    pub fn set_attr(&self, file: FileId, set: SetAttr) -> Result<Attr> {
        self.roomy_name(|| self.live.set_attr(file, set))
    }

    /// The attributes of a regular file that has setuid, setgid or capabilities, which a write to it takes away.
    pub fn privileges(&self, file: FileId) -> Result<Option<Attr>> {
        self.live.privileges(file)
    }

    /// Takes from a file what it must not keep when `by` changes its bytes.
    pub fn drop_privileges(&self, file: FileId, by: Caller) -> Result<()> {
        self.live.drop_privileges(file, by)
    }

    pub fn xattr(&self, file: FileId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.live.xattr(file, name)
    }

    pub fn xattr_names(&self, file: FileId) -> Result<Vec<Name>> {
        self.live.xattr_names(file)
    }

    /// `create`/`replace` as XATTR_CREATE/XATTR_REPLACE. An ACL changes the mode with it; `by` is who sets it.
    pub fn set_xattr(
        &self,
        file: FileId,
        name: &[u8],
        value: &[u8],
        (create, replace): (bool, bool),
        by: Caller,
    ) -> Result<()> {
        self.roomy_name(|| self.live.set_xattr(file, name, value, (create, replace), by))
    }

    pub fn remove_xattr(&self, file: FileId, name: &[u8]) -> Result<()> {
        self.live.remove_xattr(file, name)
    }

    /// Whether a file's bytes are left out of history now.
    pub fn bypasses_history(&self, file: FileId) -> Result<bool> {
        self.live.bypasses_history(file)
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

    /// [`Engine::read`] by Weft itself: the forecast does not hear of it.
    pub fn read_uncounted(&self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.live.read_uncounted(file, offset, out)
    }

    /// Bytes of pages that hold data: what `st_blocks` tells.
    pub fn data_bytes(&self, file: FileId) -> Result<u64> {
        self.live.data_bytes(file)
    }

    /// The next data or hole, by pages, as far as it has been written here.
    pub fn seek(&self, file: FileId, offset: u64, hole: bool) -> Result<Option<u64>> {
        self.live.seek(file, offset, hole)
    }

    /// Durable up to the file's last event (data, size, its name), then `done`.
    pub fn fsync(&self, file: FileId, done: Completion) {
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        match self.live.sync_direct(file).and_then(|()| self.live.last_event(file)) {
            Ok(seq) => self.live.journal.commit(seq, done),
            Err(error) => done(Err(error)),
        }
    }

    /// Everything so far is durable, then `done`.
    pub fn sync(&self, done: Completion) {
        self.live.journal.commit(self.live.journal.last_seq(), done);
    }
}
