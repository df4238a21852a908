//! What an engine is told when it is opened.

use super::{ForecastLimits, ShadowLimits, WeaveLimits};
use crate::live::exclude::Exclude;
use crate::live::rest::RestRule;
use crate::live::roots::Asked;
use crate::meta::retention::Retention;
use std::path::{Path, PathBuf};

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
    /// The further roots, and what is to become of the set.
    pub asked: Asked,
    pub capture: Capture,
    /// Bytes in a journal segment.
    pub segment_bytes: u64,
    /// Unapplied bytes above which replies to writes are delayed.
    pub overlay_limit_bytes: u64,
    /// Journal bytes kept in memory for the applier and indexer.
    pub cache_bytes: u64,
    /// Journal bytes between checkpoints.
    pub checkpoint_bytes: u64,
    /// Space left free on the filesystems of the roots and of STORE, where they are large enough.
    pub keep_free_bytes: u64,
    /// Journal space kept for what the kernel may hold acknowledged, at most; in writeback capture only.
    pub reserve_bytes: u64,
    /// What the kernel may hold at least, because nobody may tell it otherwise.
    pub kernel_floor_bytes: u64,
    /// Who asks for a name on a full disk waits for room, but only so many at once: each of them takes one of the threads
    /// that answer everybody.
    pub name_waiters: usize,
    /// Descriptors the engine keeps open beneath.
    pub open_files: usize,
    /// A step of the wall clock by more µs, either way, begins a clock epoch.
    pub clock_step_us: i64,
    /// How long a lease runs, in µs.
    pub lease_us: i64,
    /// How much of the machine the weaver takes.
    pub weave: WeaveLimits,
    /// How much shadows may take, and when the standard rule wants one.
    pub shadow: ShadowLimits,
    /// How long history is kept.
    pub retention: Retention,
    /// When a file of which pages are being written comes to rest.
    pub rest: RestRule,
    /// Composed pages are looked through for such as nobody needs when they take so much more.
    pub page_slack_bytes: u64,
    /// Whether and how to forecast.
    pub forecast: ForecastLimits,
    /// May chown to others (running as root).
    pub privileged: bool,
    /// What is left out of history.
    pub exclude: Exclude,
    /// Id of the store, if it has to be made: random bytes.
    pub new_store_id: [u8; 16],
}

impl Options {
    /// The defaults, for a DATA and a STORE.
    pub fn new(data: &Path, store: &Path) -> Options {
        Options {
            data: data.to_path_buf(),
            store: store.to_path_buf(),
            asked: Asked::default(),
            capture: Capture::Strict,
            segment_bytes: 64 << 20,
            overlay_limit_bytes: 256 << 20,
            cache_bytes: 64 << 20,
            checkpoint_bytes: 256 << 20,
            keep_free_bytes: 64 << 20,
            reserve_bytes: 128 << 20,
            kernel_floor_bytes: 0,
            name_waiters: 2,
            open_files: 512,
            clock_step_us: 5_000_000,
            lease_us: 600_000_000,
            weave: WeaveLimits::default(),
            shadow: ShadowLimits::default(),
            retention: Retention::everything(),
            rest: RestRule::default(),
            page_slack_bytes: 64 << 20,
            forecast: ForecastLimits::default(),
            privileged: true,
            exclude: Exclude::nothing(),
            new_store_id: [0; 16],
        }
    }
}
