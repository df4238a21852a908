//! A daemon at work: waits for signals, for requests on the control socket, and for the end of the mount.

use crate::Outcome;
use crate::barrier::{Listed, Unsent};
use crate::config::ProfileName;
use crate::control::{Answer, Ask};
use crate::model::Serving;
use crate::profile::Profile;
use crate::retention;
use crate::served::{Common, Served};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use weft::engine::{ByHand, Capture, Layout, Pace, Status, Unpaced, Work};
use weft::meta::tags;
use weft::past::when;
use weft::types::FileId;

/// What wakes the daemon's main thread.
pub enum Event {
    Signal(String),
    Unmount(Answer),
    /// The kernel has ended a mount: `umount` by hand, or our own.
    Ended,
}

/// What a running daemon knows of itself; shared with the control socket.
pub struct Running {
    pub common: Common,
    pub data: PathBuf,
    /// DATA first.
    pub roots: Vec<Served>,
    /// As configured, and as found at the mount.
    pub profile: (ProfileName, Profile),
    pub started: Instant,
    pub rates: parking_lot::Mutex<Rates>,
    pub model: Arc<Serving>,
    pub logs: crate::logs::Logs,
    pub statistics: crate::statistics::Statistics,
}

/// Between rate samples.
const SAMPLE: Duration = Duration::from_secs(10);

/// Work per second over the last sample.
#[derive(Default)]
pub struct Rates {
    last: Option<(Instant, Status)>,
    shown: [f64; 3],
    /// Of each file that was written to: what was counted, and writes and bytes per second.
    files: HashMap<FileId, (Work, [f64; 2])>,
}

impl Rates {
    fn sample(&mut self, status: Status, work: HashMap<FileId, Work>) {
        let now = Instant::now();
        if let Some((then, last)) = &self.last {
            let secs = now.duration_since(*then).as_secs_f64().max(0.001);
            let old = std::mem::take(&mut self.files);
            let rated = |(file, work): (FileId, Work)| {
                let (before, _) = old.get(&file).copied().unwrap_or_default();
                let per_sec = |new: u64, old: u64| new.saturating_sub(old) as f64 / secs;
                let rates = [per_sec(work.writes, before.writes), per_sec(work.bytes, before.bytes)];
                (file, (work, rates))
            };
            self.files = work.into_iter().map(rated).collect();
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / secs;
            self.shown = [
                rate(status.writes, last.writes),
                rate(status.written_bytes, last.written_bytes),
                rate(status.fsyncs, last.fsyncs),
            ];
        }
        self.last = Some((now, status));
    }

    /// Writes and bytes per second of a file.
    pub(crate) fn of(&self, file: FileId) -> [f64; 2] {
        self.files.get(&file).map_or([0.0; 2], |(_, rates)| *rates)
    }
}

impl Running {
    /// Answers the control socket. An unmount is left to the main thread.
    pub fn answer(&self, ask: Ask, answer: Answer) {
        // What works on history ends early at an unmount, which waits until that is told.
        let by_hand = match ask {
            Ask::Prune { .. } | Ask::WeaveNow | Ask::ShadowAdd { .. } => match self.common.engine.by_hand() {
                None => return drop(answer.send(Err(self.is_leaving()))),
                by_hand => by_hand,
            },
            _ => None,
        };
        let pace = by_hand.as_ref().map_or(&Unpaced as &dyn Pace, |by_hand| by_hand);
        let outcome = match ask {
            Ask::Status => self.status(),
            Ask::Resolve { time } => self.resolve(&time, Some(&answer.asker())),
            Ask::Forecast => self.forecast(),
            Ask::ForecastWhy { partition } => self.forecast_why(&partition),
            Ask::ForecastScores => self.forecast_scores(),
            Ask::WeaveNow => self.weave_now(),
            Ask::Prune { dry_run } => self.prune(pace, dry_run),
            Ask::Retention => self.retention(),
            Ask::SetRetention { tiers, cap, minimum } => {
                let change = retention::Change { tiers, cap, minimum };
                retention::set(&self.common.store, &change, Some(&self.common.engine))
            }
            Ask::Tag { name, time } => self.tag(&name, &time),
            Ask::Untag { name } => self.untag(&name),
            Ask::Tags => self.tags(),
            Ask::Leases => self.leases(),
            Ask::EndLease { id } => self.end_lease(id),
            Ask::Log(ask) => self.log(&ask),
            Ask::Diff { root, from, to, names } => self.diff(&root, (&from, &to), &names),
            Ask::Shadows => self.shadows(),
            Ask::ShadowAdd { root, names, time } => self.add_shadow(&root, &names, time.as_deref()),
            Ask::ShadowRemove { root, what } => self.remove_shadows(&root, &what),
            Ask::ShadowResume => self.resume_shadows(),
            Ask::Partitions => self.partitions(),
            Ask::SplitDeclare(ask) => self.declare_split(&ask),
            Ask::Splits => self.splits(),
            Ask::SplitConfirm { split, child, partition, catalogue } => {
                self.confirm_child((split, child), &partition, catalogue)
            }
            Ask::SplitForget { split, child } => self.forget_split(split, child),
            Ask::PartitionAt { partition, time } => self.partition_at(&partition, &time),
            Ask::Unsent { time } => self.unsent(&time),
            Ask::ModelReload => self.model.load(),
            Ask::Unmount => {
                // The main thread lives as long as the process.
                let _ = self.common.events.send(Event::Unmount(answer));
                return;
            }
        };
        let is_over = by_hand.as_ref().is_some_and(ByHand::is_over);
        answer.send(if is_over { Err(self.is_leaving()) } else { outcome });
    }

    fn is_leaving(&self) -> String {
        let data = self.data.display();
        format!("{data} is being unmounted: what is done stays done, the rest is for after the next mount")
    }

    fn status(&self) -> Outcome<Value> {
        let status = serde_json::to_value(self.common.engine.status()).map_err(|cause| cause.to_string())?;
        let [writes, bytes, fsyncs] = self.rates.lock().shown;
        let (logs, trouble) = self.logs.shown();
        let mut all = json!({
            "data": self.data.display().to_string(),
            "mountpoint": self.point().display().to_string(),
            "store": self.common.store.display().to_string(),
            "profile": self.profile().name(),
            "pid": std::process::id(),
            "uptime_secs": self.started.elapsed().as_secs(),
            "version": env!("CARGO_PKG_VERSION"),
            "roots": self.further_roots(),
            "timezone": self.common.zone.iana_name().unwrap_or("UTC"),
            "writes_per_sec": writes,
            "written_bytes_per_sec": bytes,
            "fsyncs_per_sec": fsyncs,
            "live_bytes": self.common.engine.live_bytes(),
            "model": self.model.status(),
            "logs": logs,
            "log_catalogue_trouble": trouble,
            "pg_stat": self.statistics.shown(),
        });
        if let Some(all) = all.as_object_mut() {
            all.extend(crate::cost::of_this_process());
        }
        if let (Some(all), Value::Object(status)) = (all.as_object_mut(), status) {
            all.extend(status);
        }
        let uncovered =
            self.common.links.uncovered(&self.common.engine).map_err(|cause| cause.to_string())?;
        if let Some(problems) = all.get_mut("problems").and_then(Value::as_array_mut) {
            problems.extend(uncovered.into_iter().map(Value::from));
        }
        Ok(all)
    }

    /// What DATA holds: with `auto` also a database that was made there since the mount.
    pub(crate) fn profile(&self) -> Profile {
        let (configured, found) = self.profile;
        let has = |name: &str| self.common.engine.lookup(FileId::ROOT, name.as_bytes()).is_ok();
        match configured {
            ProfileName::Auto => Profile::by_names(has).unwrap_or(found),
            _ => found,
        }
    }

    /// Where DATA is mounted.
    pub(crate) fn point(&self) -> &Path {
        self.roots.first().map_or(&self.data, |root| &root.point)
    }

    /// How DATA's files make up partitions: it may have become a database since the mount. The engine knows it from here
    /// too, so that what one of both names, the other finds.
    pub(crate) fn layout(&self) -> Layout {
        let layout = self.profile().layout();
        self.common.engine.set_layout(layout);
        layout
    }

    fn further_roots(&self) -> Vec<Value> {
        let root = |root: &Served| {
            let space = self.common.engine.space(root.here.root);
            json!({
                "name": String::from_utf8_lossy(&root.here.name),
                "mountpoint": root.point.display().to_string(),
                "free_bytes": space.map_or(Value::Null, |space| Value::from(space.available)),
            })
        };
        self.roots.iter().skip(1).map(root).collect()
    }

    fn weave_now(&self) -> Outcome<Value> {
        let woven = self.common.engine.weave_now().map_err(|cause| cause.to_string())?;
        serde_json::to_value(woven).map_err(|cause| cause.to_string())
    }

    /// A time, or a tag, as people write it.
    pub(crate) fn when(&self, time: &str) -> Outcome<when::When> {
        if let Some(tag) = tags::named(time) {
            let tag = self.common.engine.find_tag(tag).map_err(|cause| cause.message)?;
            return Ok(when::When { instant: when::Instant::Seq(tag.at), moving: false, ago_us: None });
        }
        when::parse_time(time, self.common.engine.now(), &self.common.zone).map_err(|cause| cause.message)
    }

    /// What a barrier has to fsync before an instant is the present. In strict capture a write is an event when it
    /// returns, and maps come with msync: there is nothing.
    fn unsent(&self, time: &str) -> Outcome<Value> {
        let engine = &self.common.engine;
        let now = engine.now();
        // A tag is not the present; that something is no time is said by what is asked next.
        let when = when::parse_time(time, now, &self.common.zone).ok();
        let present = when
            .is_some_and(|when| when.moving && matches!(when.instant, when::Instant::Time(ts) if ts >= now));
        let mut listed = Listed::default();
        if let Some(cause) = engine.stopped() {
            listed.stopped = Some(cause.to_string());
        } else if present && self.common.capture == Capture::Writeback {
            for root in &self.roots {
                let found = engine.paths(&root.cached.writers()).map_err(|cause| cause.to_string())?;
                let unsent =
                    |(file, path): (FileId, Vec<u8>)| Unsent { point: root.point.clone(), ino: file.0, path };
                listed.files.extend(found.into_iter().map(unsent));
            }
        }
        serde_json::to_value(listed).map_err(|cause| cause.to_string())
    }

    /// Waits until the mounts end, and closes the engine.
    ///
    /// # Errors
    /// What went wrong in closing; DATA is then finished by `weft recover`.
    pub fn run(&self, events: &Receiver<Event>) -> Outcome<()> {
        let mut asked = Vec::new();
        self.common.engine.take_up_wishes(self.layout());
        loop {
            match events.recv_timeout(SAMPLE) {
                Err(RecvTimeoutError::Timeout) => {
                    self.layout();
                    let engine = &self.common.engine;
                    self.rates.lock().sample(engine.status(), engine.activity());
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
                // What came back up is over with.
                Ok(Event::Ended) if self.roots.iter().all(Served::is_up) => continue,
                Ok(Event::Ended) => tracing::info!("unmounted by hand: unmounting all of the set"),
                Ok(Event::Signal(name)) => tracing::info!("{name}: unmounting"),
                Ok(Event::Unmount(answer)) => match self.unmount() {
                    Ok(()) => {
                        asked.push(answer);
                        break;
                    }
                    Err(cause) => {
                        drop(answer.send(Err(cause)));
                        continue;
                    }
                },
            }
            match self.unmount() {
                Ok(()) => break,
                Err(cause) => tracing::warn!("staying up: {cause}"),
            }
        }
        self.roots.iter().for_each(Served::join);
        self.common.engine.end_waiting();
        self.logs.stop();
        let closed = self.common.engine.close().map_err(|cause| {
            format!(
                "unmounted, but DATA could not be finished: {cause}; run `weft recover {}`",
                self.data.display()
            )
        });
        // Kept open until the process ends: whoever asked waits for that.
        let waiting: Vec<_> =
            asked.into_iter().map(|answer| answer.send(closed.clone().map(|()| json!({})))).collect();
        let _ = std::fs::remove_file(self.common.store.join(crate::control::SOCKET));
        std::mem::forget(waiting);
        closed
    }

    /// Unmounts all roots, or none: says who is in the way where. Processes that are just ending get a second.
    fn unmount(&self) -> Outcome<()> {
        let unmounted =
            self.nobody_is_in_the_way().and_then(|()| self.roots.iter().try_for_each(Served::unmount));
        if unmounted.is_err() {
            for root in self.roots.iter().filter(|root| !root.is_up()) {
                root.join();
                if let Err(cause) = root.mount(&self.common) {
                    tracing::error!("{} could not be mounted again: {cause}", root.shown());
                }
            }
        }
        unmounted
    }

    /// Looked at before the first of several is unmounted; the kernel has the last word.
    fn nobody_is_in_the_way(&self) -> Outcome<()> {
        if self.roots.len() < 2 {
            return Ok(());
        }
        let mut users = Vec::new();
        for _ in 0..10 {
            let up = self.roots.iter().filter(|root| root.is_up());
            users = up
                .filter_map(|root| match root.users() {
                    users if users.is_empty() => None,
                    users => Some(format!("{} is in use: {users}", root.shown())),
                })
                .collect();
            if users.is_empty() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("{}; stop that first", users.join("; ")))
    }
}
