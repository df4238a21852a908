//! STORE/weft.toml: read at mount, written with its defaults at the first one. Unknown keys are refused: a misspelt
//! limit must not be a silent one.

use crate::Outcome;
use crate::logs::Setting;
use crate::profile::{self, Profile};
use serde::Deserialize;
use std::path::Path;
use weft::engine::Capture;
use weft::live::exclude::Patterns;
use weft::meta::retention::Retention;
use weft::types::Name;

/// The file's name in STORE.
pub const FILE: &str = "weft.toml";

/// How writes arrive, as the file and the command line spell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureName {
    Strict,
    Writeback,
}

impl From<CaptureName> for Capture {
    fn from(name: CaptureName) -> Capture {
        match name {
            CaptureName::Strict => Capture::Strict,
            CaptureName::Writeback => Capture::Writeback,
        }
    }
}

/// Which database, or to find out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileName {
    Auto,
    Postgres,
    Mariadb,
    Sqlite,
    Generic,
}

impl ProfileName {
    pub fn choose(self, data: &Path) -> Profile {
        self.fixed().unwrap_or_else(|| Profile::detect(data))
    }

    /// What does not have to be found out.
    pub fn fixed(self) -> Option<Profile> {
        match self {
            ProfileName::Auto => None,
            ProfileName::Postgres => Some(Profile::Postgres),
            ProfileName::Mariadb => Some(Profile::Mariadb),
            ProfileName::Sqlite => Some(Profile::Sqlite),
            ProfileName::Generic => Some(Profile::Generic),
        }
    }

    /// What is left out of history, by the names in DATA's root.
    pub fn patterns(self) -> fn(&[Name]) -> &'static [&'static str] {
        match self {
            ProfileName::Auto => profile::auto_patterns,
            ProfileName::Postgres => |_| Profile::Postgres.patterns(),
            ProfileName::Mariadb => |_| Profile::Mariadb.patterns(),
            ProfileName::Sqlite => |_| Profile::Sqlite.patterns(),
            ProfileName::Generic => |_| Profile::Generic.patterns(),
        }
    }
}

/// All settings; what the file leaves out has its default.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub capture: CaptureName,
    pub profile: ProfileName,
    pub exclude: Vec<String>,
    pub timezone: String,
    pub segment_mib: u64,
    pub overlay_limit_mib: u64,
    pub cache_mib: u64,
    pub checkpoint_mib: u64,
    pub keep_free_mib: u64,
    pub reserve_mib: u64,
    pub open_files: usize,
    pub threads: usize,
    pub clock_step_secs: u64,
    pub lease_secs: u64,
    pub weave: bool,
    pub weave_cpu_percent: u32,
    pub weave_mib_per_sec: u64,
    pub retention: String,
    pub retention_cap: String,
    pub retention_minimum: String,
    pub forecast: bool,
    pub forecast_tick_secs: u64,
    pub forecast_step_secs: u64,
    pub forecast_window_hours: u64,
    pub forecast_split_mib: u64,
    pub forecast_kept_mib: u64,
    pub shadow: bool,
    pub shadow_limit_mib: u64,
    pub shadow_cpu_percent: u32,
    pub shadow_mib_per_sec: u64,
    pub shadow_after_mib: u64,
    pub shadow_max_age_hours: u64,
    pub shadow_snapshots: u64,
    pub onnxruntime: String,
    pub log: Vec<Setting>,
    pub log_catalogue: String,
    pub pg_stat: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            capture: CaptureName::Strict,
            profile: ProfileName::Auto,
            exclude: Vec::new(),
            timezone: "UTC".into(),
            segment_mib: 64,
            overlay_limit_mib: 256,
            cache_mib: 64,
            checkpoint_mib: 256,
            keep_free_mib: 64,
            reserve_mib: 128,
            open_files: 512,
            threads: 4,
            clock_step_secs: 5,
            lease_secs: 600,
            weave: true,
            weave_cpu_percent: 25,
            weave_mib_per_sec: 64,
            retention: Retention::default().tiers_text(),
            retention_cap: Retention::default().cap_text(),
            retention_minimum: Retention::default().minimum_text(),
            forecast: true,
            forecast_tick_secs: 10,
            forecast_step_secs: 60,
            forecast_window_hours: 24,
            forecast_split_mib: 1_024,
            forecast_kept_mib: 64,
            shadow: true,
            shadow_limit_mib: 8_192,
            shadow_cpu_percent: 15,
            shadow_mib_per_sec: 32,
            shadow_after_mib: 256,
            shadow_max_age_hours: 24,
            shadow_snapshots: 3,
            onnxruntime: String::new(),
            log: Vec::new(),
            log_catalogue: String::new(),
            pg_stat: String::new(),
        }
    }
}

/// What the first mount writes: every key, commented out, with its default.
pub const DEFAULT_FILE: &str = r#"# Weft settings of this STORE. Read at mount; a key that is not known here is refused.
# A line without its leading '#' changes a default.

# How writes arrive. "strict": each write is in history before it returns. "writeback": the kernel collects writes
# first; faster for bulk loads, and a view is then a state that a power cut could have left. `weft mount --capture`
# overrides this.
#capture = "strict"

# What DATA holds: "auto" (look), "postgres", "mariadb", "sqlite" or "generic".
#profile = "auto"

# More that is not history: it works as ever, and no view shows it. The profile's own come without being named. "name": in
# any directory; "/name": in the root only; "cache/": everything in directories of that name; * and ? within a name.
#exclude = []

# Zone of times given without an offset: an IANA name such as "Europe/Berlin".
#timezone = "UTC"

# Size of one journal file, in MiB (8 to 1024).
#segment_mib = 64

# Unapplied writes above which further writes wait for the live files to catch up, in MiB (at least 16).
#overlay_limit_mib = 256

# Journal kept in memory for applying and indexing, in MiB (at least 8).
#cache_mib = 64

# Journal between two checkpoints, in MiB: bounds what recovery has to replay (at least 16).
#checkpoint_mib = 256

# Space left free on the filesystems of DATA and STORE, in MiB (at most 1048576; of a small filesystem one twentieth).
# Writers are told that the disk is full before it is: what they were promised must still fit.
#keep_free_mib = 64

# Capture "writeback" only: journal allocated ahead for what the kernel holds and programs take for written, in MiB
# (32 to 65536). The kernel is told to hold less than half of it.
#reserve_mib = 128

# Files of DATA that the daemon keeps open at once (at least 16).
#open_files = 512

# Threads that answer the kernel (1 to 64). On a full disk all but two of them may wait until there is room for a name.
#threads = 4

# A step of the wall clock by more seconds than this, either way, begins a new clock epoch; a smaller one is waited out
# (1 to 3600).
#clock_step_secs = 5

# An instant that `weft at` or `weft resolve` has told of, or that is open, is kept from pruning for so many seconds more
# (1 to 2592000: 30 days).
#lease_secs = 600

# Make old journal compact in the background ("weave" it), at lowest priority and within the two limits that follow. Both
# rise when 512 MiB and more wait, or a busy database would fill STORE with journal. `weft weave --now` is not bound by them.
#weave = true

# Share of one core that weaving may take, in percent (1 to 100).
#weave_cpu_percent = 25

# What weaving may read and write in a second, in MiB (1 to 65536).
#weave_mib_per_sec = 64

# How long history is kept, and how densely (`weft retention` shows and sets it). Each span counts from the end of the one
# before; "for ever" is a span too. Tags and what is open are kept whatever this says.
#retention = "every write for 1d, then one per minute for 7d, then one per hour for 30d"

# What history may take of STORE's filesystem: "80%", or a size such as "200GiB". Above it the oldest goes first.
#retention_cap = "80%"

# Every write of so long stays, even when the disk is full: then writers are told so.
#retention_minimum = "1h"

# Forecast which partitions will be written, read and split (`weft forecast`). History does not need it.
#forecast = true

# Work is counted in ticks of so many seconds (1 to 3600), and forecast every so many (a multiple, up to 86400).
#forecast_tick_secs = 10
#forecast_step_secs = 60

# A model is judged by its scores of so many hours (1 to 8760).
#forecast_window_hours = 24

# Size at whose multiples a partition counts as split, in MiB (1 to 1048576): PostgreSQL's segments by default.
#forecast_split_mib = 1024

# Past ticks kept in STORE for `weft trace export` and for training, in MiB (1 to 65536).
#forecast_kept_mib = 64

# Make shadows by the standard rule: contiguous copies of a partition's past state, from which views are read fast. What
# `weft shadow add` makes is not bound by this.
#shadow = true

# Space that shadows may take, in MiB (0 to 1073741824). Over it the least useful goes; what was asked for by hand stays.
#shadow_limit_mib = 8192

# Share of one core that making shadows may take, in percent (1 to 100).
#shadow_cpu_percent = 15

# What making shadows may read and write in a second, in MiB (1 to 65536).
#shadow_mib_per_sec = 32

# The rule wants a shadow of a partition after so much was written to it since the last one, in MiB (1 to 1073741824) ...
#shadow_after_mib = 256

# ... and at latest after so many hours, when anything was (1 to 87600).
#shadow_max_age_hours = 24

# Snapshots kept of a shadow that is kept up to date; they share what is the same (1 to 1000).
#shadow_snapshots = 3

# Logs of the database, in which splits of partitions are seen before they run. PATH: from DATA on, or absolute; names
# may be patterns. FORMAT: pg-csv, pg-json, pg-stderr, mariadb-general, mariadb-slow. Without any, those of PostgreSQL's
# collector (log/*.csv, *.json, *.log in DATA). For example: log = [{ path = "/var/log/pg/*.csv", format = "pg-csv" }]
#log = []

# Whom to ask which files a table has that a log of PostgreSQL's names, as for `--pg`; the password belongs into .pgpass.
# Empty: nobody, and splits of PostgreSQL are not recognised in logs.
#log_catalogue = ""

# Whom to ask, once a tick of the forecast, which tables are read and written (PostgreSQL's pg_stat_user_tables), as for
# `--pg`: reads that the server's cache answers are seen nowhere else. Statements in logs count no tables then. Empty: nobody.
#pg_stat = ""

# ONNX Runtime's library (libonnxruntime.so, 1.24 or later), which runs the models of the forecast; "": look beside the
# program and in /usr/lib/weft. `weft mount --onnxruntime` overrides this. Without one the standard rule decides.
#onnxruntime = ""
"#;

impl Config {
    /// Reads STORE/weft.toml; the defaults when there is none.
    ///
    /// # Errors
    /// One line with the file, the position and the reason.
    pub fn load(store: &Path) -> Outcome<Config> {
        let path = store.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Config::parse(&text).map_err(|cause| format!("{}: {cause}", path.display())),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
            Err(cause) => Err(format!("cannot read {}: {cause}", path.display())),
        }
    }

    /// # Errors
    /// One line with the position and the reason.
    pub(crate) fn parse(text: &str) -> Outcome<Config> {
        let config: Config = toml::from_str(text).map_err(|cause| {
            let line = cause
                .span()
                .map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
            let reason = cause.message().replace('\n', "; ");
            line.map_or_else(|| reason.clone(), |line| format!("line {line}: {reason}"))
        })?;
        config.check()?;
        Ok(config)
    }

    /// The library that was asked for; `None`: look in the usual places.
    pub fn onnxruntime(&self) -> Option<&Path> {
        Some(Path::new(&self.onnxruntime)).filter(|path| !path.as_os_str().is_empty())
    }

    /// Whom to ask which files the tables have that logs name.
    pub fn log_catalogue(&self) -> Option<&str> {
        Some(self.log_catalogue.as_str()).filter(|connection| !connection.is_empty())
    }

    /// Whom to ask for PostgreSQL's statistics.
    pub fn pg_stat(&self) -> Option<&str> {
        Some(self.pg_stat.as_str()).filter(|connection| !connection.is_empty())
    }

    /// What is left out of history besides what the profile leaves out.
    pub fn patterns(&self) -> Outcome<Patterns> {
        Patterns::parse(&self.exclude).map_err(|cause| format!("exclude: {}", cause.message))
    }

    /// How long history is kept.
    pub fn retention(&self) -> Outcome<Retention> {
        Retention::parse(&self.retention, &self.retention_cap, &self.retention_minimum)
            .map_err(|cause| format!("retention: {}", cause.message))
    }

    fn check(&self) -> Outcome<()> {
        let limits = [
            ("segment_mib", self.segment_mib, 8, 1_024),
            ("overlay_limit_mib", self.overlay_limit_mib, 16, 1 << 20),
            ("cache_mib", self.cache_mib, 8, 1 << 20),
            ("checkpoint_mib", self.checkpoint_mib, 16, 1 << 20),
            ("keep_free_mib", self.keep_free_mib, 0, 1 << 20),
            ("reserve_mib", self.reserve_mib, 32, 1 << 16),
            ("open_files", self.open_files as u64, 16, 1 << 20),
            ("threads", self.threads as u64, 1, 64),
            ("clock_step_secs", self.clock_step_secs, 1, 3_600),
            ("lease_secs", self.lease_secs, 1, 2_592_000),
            ("weave_cpu_percent", u64::from(self.weave_cpu_percent), 1, 100),
            ("weave_mib_per_sec", self.weave_mib_per_sec, 1, 1 << 16),
            ("forecast_tick_secs", self.forecast_tick_secs, 1, 3_600),
            ("forecast_step_secs", self.forecast_step_secs, self.forecast_tick_secs.max(1), 86_400),
            ("forecast_window_hours", self.forecast_window_hours, 1, 8_760),
            ("forecast_split_mib", self.forecast_split_mib, 1, 1 << 20),
            ("forecast_kept_mib", self.forecast_kept_mib, 1, 1 << 16),
            ("shadow_limit_mib", self.shadow_limit_mib, 0, 1 << 30),
            ("shadow_cpu_percent", u64::from(self.shadow_cpu_percent), 1, 100),
            ("shadow_mib_per_sec", self.shadow_mib_per_sec, 1, 1 << 16),
            ("shadow_after_mib", self.shadow_after_mib, 1, 1 << 30),
            ("shadow_max_age_hours", self.shadow_max_age_hours, 1, 87_600),
            ("shadow_snapshots", self.shadow_snapshots, 1, 1_000),
        ];
        for (key, value, least, most) in limits {
            if value < least || value > most {
                return Err(format!("{key} = {value}: use {least} to {most}"));
            }
        }
        self.patterns()?;
        if self.onnxruntime().is_some_and(|path| !path.is_absolute()) {
            return Err(format!("onnxruntime = \"{}\": use an absolute path", self.onnxruntime));
        }
        self.retention()?;
        self.log.iter().try_for_each(Setting::check)?;
        weft::past::when::zone(&self.timezone)
            .map(|_| ())
            .map_err(|cause| format!("timezone: {}", cause.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_file_says_what_the_defaults_are() {
        assert_eq!(Config::parse(DEFAULT_FILE).unwrap(), Config::default());
        let active: String = DEFAULT_FILE
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(active.lines().count(), 37);
        assert_eq!(Config::parse(&active).unwrap(), Config::default());
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused_with_their_line() {
        for (text, want) in [
            ("\ncaptur = \"strict\"", "line 2"),
            ("capture = \"lazy\"", "line 1"),
            ("threads = 0", "threads = 0: use 1 to 64"),
            ("segment_mib = 4", "8 to 1024"),
            ("weave_cpu_percent = 101", "1 to 100"),
            ("forecast_tick_secs = 0", "1 to 3600"),
            ("forecast_tick_secs = 90", "forecast_step_secs = 60: use 90 to 86400"),
            ("shadow_snapshots = 0", "1 to 1000"),
            ("timezone = \"Mars\"", "timezone"),
            ("exclude = [\"a//b\"]", "is not a pattern"),
            ("exclude = [\"*\"]", "everything"),
            ("exclude = \"cache/\"", "line 1"),
            ("threads = ", "line 1"),
            ("onnxruntime = \"lib/x.so\"", "absolute path"),
            ("log = [{ path = \"log/*.csv\", format = \"csv\" }]", "pg-csv"),
            ("log = [{ path = \"log/\", format = \"pg-csv\" }]", "names no file"),
            ("log = [{ path = \"a\", format = \"pg-csv\", tail = true }]", "unknown field"),
            ("retention_cap = \"0GiB\"", "retention: a cap of 0GiB"),
            ("retention = \"every write for 5m\"", "shorter than the minimum"),
        ] {
            let refused = Config::parse(text).unwrap_err();
            assert!(refused.contains(want), "{text}: {refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn no_file_means_defaults() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Config::load(dir.path()).unwrap(), Config::default());
        std::fs::write(dir.path().join(FILE), "capture = \"writeback\"\n").unwrap();
        assert_eq!(Config::load(dir.path()).unwrap().capture, CaptureName::Writeback);
    }
}
