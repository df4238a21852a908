//! What an engine says of itself.

use super::{Engine, ShadowStatus, WovenSoFar};
use crate::journal::epochs::TimeNow;
use crate::live::recover::Report;
use crate::live::room::Full;
use crate::sync::atomic::Ordering;
use crate::types::Seq;
use std::path::Path;

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
    pub woven_bytes: u64,
    /// Journal segments that are ready to be woven.
    pub weave_waiting: u64,
    pub woven_so_far: WovenSoFar,
    pub index_bytes: u64,
    pub shadow_bytes: u64,
    pub shadows: ShadowStatus,
    pub base_bytes: u64,
    /// The metadata store's file.
    pub meta_bytes: u64,
    pub overlay_bytes: u64,
    pub files: u64,
    pub open_files: u64,
    /// Leases that run.
    pub leases: u64,
    /// Patterns of what is left out of history.
    pub exclude: Vec<String>,
    /// Files whose bytes bypass history, and their bytes.
    pub excluded_files: u64,
    pub excluded_bytes: u64,
    pub clock_epoch: u32,
    /// How far the wall clock is behind history: a small step back that is being waited out.
    pub clock_behind_us: i64,
    pub writes: u64,
    pub written_bytes: u64,
    pub fsyncs: u64,
    pub flushes: u64,
    /// Journal space that is allocated, and how much of it is kept for what the kernel holds acknowledged.
    pub allocated_bytes: u64,
    pub reserve_bytes: u64,
    /// Free for ordinary users on STORE's and DATA's filesystems.
    pub store_free_bytes: u64,
    pub data_free_bytes: u64,
    /// What the kernel may hold acknowledged and not yet sent.
    pub kernel_bytes: u64,
    /// New bytes and names are refused: something is full.
    pub full: bool,
    /// The forecast, and whether its model counts.
    pub forecast: super::ForecastStatus,
    /// Empty when all is well; otherwise what is wrong and what to do.
    pub problems: Vec<String>,
    /// What is no fault of Weft's and still should be known.
    pub warnings: Vec<String>,
    /// What recovery did when this session began.
    pub recovery: String,
}

/// A step of the clock is told of for a day.
const TOLD_FOR_US: i64 = 86_400_000_000;

impl Engine {
    /// The figures of this moment.
    pub fn status(&self) -> Status {
        let journal = &self.live.journal;
        let (flushes, _) = journal.counters();
        let space = journal.space();
        let time = journal.time().ok();
        let (excluded_files, excluded_bytes) = self.live.excluded();
        let shadows = self.shadow_status();
        Status {
            store_id: self.store.to_string(),
            capture: self.capture.name().to_owned(),
            oldest_us: self.oldest().1.0,
            newest_us: self.now().0,
            seq: journal.last_seq().0,
            durable_seq: journal.durable().0,
            applied_seq: self.live.applied().0,
            indexed_seq: self.indexer.reached().0,
            checkpoint_seq: self.live.checkpointed().0,
            journal_bytes: self.journal_bytes(),
            woven_bytes: self.woven_bytes(),
            weave_waiting: self.weaving_state().0,
            woven_so_far: self.woven_so_far(),
            index_bytes: self.index_bytes(),
            shadow_bytes: shadows.bytes,
            shadows,
            base_bytes: self.base_bytes(),
            meta_bytes: self.meta_bytes(),
            overlay_bytes: self.live.overlay_bytes(),
            files: self.live.files(),
            open_files: self.live.open_files(),
            leases: self.leases().len() as u64,
            exclude: self.live.patterns(),
            excluded_files,
            excluded_bytes,
            clock_epoch: self.clock_epoch(),
            clock_behind_us: time.as_ref().map_or(0, |time| time.behind_us),
            writes: self.writes.load(Ordering::Relaxed),
            written_bytes: self.written.load(Ordering::Relaxed),
            fsyncs: self.fsyncs.load(Ordering::Relaxed),
            flushes,
            allocated_bytes: space.left,
            reserve_bytes: space.reserve,
            store_free_bytes: self.free_bytes(&self.paths.store),
            data_free_bytes: self.live.paths.roots.first().map_or(0, |root| self.free_bytes(&root.dir)),
            kernel_bytes: self.kernel_bytes(),
            full: self.full().is_some(),
            forecast: self.forecast_status(),
            problems: self.problems(),
            warnings: self.warnings(time.as_ref()),
            recovery: self.recovery(),
        }
    }

    fn warnings(&self, time: Option<&TimeNow>) -> Vec<String> {
        let clock = time.map(|time| self.clock_warnings(time)).unwrap_or_default();
        let lost = self.meta.known_losses().into_iter().map(|lost| lost.to_string());
        clock.into_iter().chain(lost).collect()
    }

    /// Bytes of pages that the live files hold. Looks at every file.
    pub fn live_bytes(&self) -> u64 {
        self.live.data_total()
    }

    /// What the clock has done: for a day, and as long as time stands still.
    fn clock_warnings(&self, time: &TimeNow) -> Vec<String> {
        let mut warnings = Vec::new();
        if time.behind_us > 1_000_000 {
            warnings.push(format!(
                "the wall clock was set back by a little: time stands still until it has caught up, in {} s",
                time.behind_us / 1_000_000
            ));
        }
        if let Some(epoch) = time.epochs.list().last()
            && time.now.0.saturating_sub(epoch.ts.0) < TOLD_FOR_US
        {
            let before = self.index.group_of_seq(Seq(epoch.seq.0 - 1)).ok().flatten();
            let how = before.map_or_else(String::new, |group| {
                let way = if epoch.ts < group.last_ts { "back" } else { "forward" };
                format!(" {way} (the event before has {})", group.last_ts)
            });
            warnings.push(format!(
                "the wall clock was set{how}: clock epoch {} began at {}. A time that occurs in two epochs is \
                 ambiguous: `weft resolve TIME` tells",
                epoch.epoch, epoch.ts
            ));
        }
        warnings
    }

    fn problems(&self) -> Vec<String> {
        let journal = self.live.journal.failure().map(|error| {
            format!("no write is accepted any more: {error}. Unmount, mend the disk, mount again")
        });
        let applier = self.live.trouble().map(|error| {
            format!("changes cannot be applied to DATA (they are safe in the journal): {error}. Make room, or mend the disk")
        });
        let indexer = self.indexer.trouble().map(|error| {
            let remedy =
                if error.is(libc::ENOSPC) { "Make room on STORE" } else { "Try `weft index rebuild`" };
            format!("the index cannot go on, new views fail: {error}. {remedy}")
        });
        let weaver = self
            .weaving_state()
            .1
            .map(|error| format!("a journal segment cannot be woven and takes its full space: {error}"));
        let pruner = self.prune_problem();
        let lost = self.live.lost_saves().map(|(pages, first)| {
            format!(
                "up to {pages} pages of what files held before Weft are not found any more, as the lists that led to them \
                 are damaged, the first one in {first}: what a view needs of them is an error (EIO), all else is right. \
                 Put that file back from a copy of STORE, then `weft index rebuild`"
            )
        });
        let meta = self.meta.trouble().map(|error| {
            format!("shadows and forecasts rest, history does not: the metadata store has stopped ({error}). Mount again")
        });
        [journal, self.fullness(), applier, indexer, weaver, pruner, lost, meta, self.shadow_problem()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn free_bytes(&self, dir: &Path) -> u64 {
        self.disk.space("status.space", dir).map_or(0, |space| space.available)
    }

    /// What is full, and what to do.
    fn fullness(&self) -> Option<String> {
        let told =
            "new bytes and names are refused (ENOSPC) until then; nothing that was acknowledged is lost";
        match self.full()? {
            Full::Store => {
                let space = self.live.journal.space();
                let cause = space.low.map_or_else(String::new, |error| format!(" ({error})"));
                Some(format!("no space for the journal{cause}: make room on the filesystem of STORE; {told}"))
            }
            Full::Root(root) => {
                let shown = self.live.paths.root(root).map_or_else(|_| "a root".into(), |root| root.shown());
                Some(format!("the filesystem of {shown} is full: make room there; {told}"))
            }
        }
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

    pub(super) fn journal_bytes(&self) -> u64 {
        self.dir_bytes(&self.paths.journal_dir())
    }

    pub(super) fn woven_bytes(&self) -> u64 {
        self.dir_bytes(self.live.journal.segments().woven().dir())
    }

    pub(super) fn base_bytes(&self) -> u64 {
        self.dir_bytes(&self.paths.base_dir()) + self.limbo_bytes()
    }

    pub(super) fn index_bytes(&self) -> u64 {
        self.index.size_bytes() + self.dir_bytes(&self.paths.store.join("pages"))
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

    fn meta_bytes(&self) -> u64 {
        let stat = self.disk.stat("status.size", self.meta.path()).ok().flatten();
        stat.map_or(0, |stat| stat.allocated)
    }

    fn limbo_bytes(&self) -> u64 {
        let limbos = self.live.paths.roots.iter().map(|root| self.dir_bytes(&root.limbo_dir()));
        limbos.sum::<u64>() + self.dir_bytes(&self.paths.store_limbo_dir())
    }
}
