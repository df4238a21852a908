//! Shadows as an engine has them: who may have one, within which budget, and what is told of them.
//!
//! - Wishes come from people, from the standard rule, from the forecast, from splits. They are granted one at a time:
//!   urgent ones first, then by benefit, within a budget of bytes kept and a rate of bytes and processor time. What
//!   cannot be granted now waits, and is tried again.
//! - Over the budget the least useful shadow goes; what a person asked for stays until a person takes it back.
//! - Five failures in a row stop the making for a while, with an alert; what is there is served on.

mod asked;
mod children;
mod grant;
mod partition;
mod registry;
mod rule;
mod waiting;

pub use children::ChildShadow;
pub use registry::Foreseen;

use super::Engine;
use super::budget::{self, Rates};
use crate::error::{Error, Kind, Result};
use crate::index::Brought;
use crate::shadow::{Made, Reason, Shadow, Shadows, Subject, Wish};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{PageSet, Seq};
use registry::Noted;
use rule::Rule;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use waiting::Wishes;

/// Failures in a row that stop the making.
const FAILURES: u32 = 5;
/// For so long.
const PAUSE: Duration = Duration::from_secs(600);
/// Rest between two looks for wishes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two rounds of the rule.
const RULE_EVERY: Duration = Duration::from_secs(10);
/// Events since the newest snapshots that a list of all shadows looks at.
const EVENTS_OF_ALL: u64 = 1 << 20;
/// The metadata store hears of what was served this often.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// How much shadows may take, and when the standard rule wants one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShadowLimits {
    /// Make others than those that a person asks for.
    pub on: bool,
    /// Bytes kept.
    pub bytes: u64,
    /// Share of one core, 1 to 100.
    pub cpu_percent: u32,
    /// Bytes read and written in a second.
    pub bytes_per_sec: u64,
    /// The rule wants a shadow after so many bytes of changes since the last one.
    pub after_bytes: u64,
    /// And at latest after so many µs, when anything has changed.
    pub max_age_us: i64,
    /// Snapshots kept of one that is kept up to date.
    pub snapshots: usize,
}

impl Default for ShadowLimits {
    fn default() -> ShadowLimits {
        ShadowLimits {
            on: true,
            bytes: 8 << 30,
            cpu_percent: 15,
            bytes_per_sec: 32 << 20,
            after_bytes: 256 << 20,
            max_age_us: 24 * 3_600_000_000,
            snapshots: 3,
        }
    }
}

impl ShadowLimits {
    fn rates(self) -> Rates {
        Rates { cpu_percent: self.cpu_percent, bytes_per_sec: self.bytes_per_sec }
    }
}

/// What is being made.
struct Making {
    wish: Wish,
    /// Nobody wants it any more.
    taken_back: bool,
}

/// What stops the making.
#[derive(Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
    last: Option<Error>,
}

/// See the head of this file.
pub(super) struct Shadowing {
    pub(super) shadows: Arc<Shadows>,
    trouble: Option<Error>,
    pub(super) limits: ShadowLimits,
    /// Number of the layout that makes partitions of paths.
    layout: AtomicUsize,
    noted: Mutex<Noted>,
    wishes: Mutex<Wishes>,
    rule: Mutex<Rule>,
    breaker: Mutex<Breaker>,
    /// One wish at a time.
    turn: Mutex<()>,
    making: Mutex<Option<Making>>,
    /// Somebody waits: no budget meanwhile.
    hurry: AtomicBool,
    /// Somebody wants the room that shadows take.
    giving_up: AtomicBool,
    cpu_us: AtomicU64,
    /// Shadows that were found broken, and those that went for want of room.
    broken: AtomicU64,
    dropped: AtomicU64,
    /// Why the last wish was not granted, if it was not.
    refused: Mutex<Option<String>>,
}

/// Figures of all shadows, for `weft status`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ShadowStatus {
    pub on: bool,
    pub count: u64,
    pub snapshots: u64,
    pub bytes: u64,
    pub limit_bytes: u64,
    /// Bytes of views that were read from shadows.
    pub served_bytes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub cpu_us: u64,
    pub waiting: u64,
    /// What is being made.
    pub making: Option<String>,
    pub failures: u64,
    /// Seconds until the making goes on after too many failures.
    pub stopped_secs: u64,
    pub broken: u64,
    pub dropped: u64,
    pub refused: Option<String>,
}

/// One shadow, for `weft shadows`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ShadowInfo {
    pub id: u64,
    pub root: String,
    pub partition: String,
    /// Pages of the partition that it is of; without it all.
    pub pages: Option<u64>,
    pub reason: &'static str,
    pub benefit: f64,
    pub follows: bool,
    /// Oldest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// Bytes that it takes, those that it shows, and those of views that came from it.
    pub bytes: u64,
    pub shown_bytes: u64,
    pub served_bytes: u64,
    /// Of one that the forecast asked for: what it said then.
    pub foreseen: Option<Foreseen>,
    /// Of one that is kept up to date, bytes of writes since its newest snapshot; `None`: not known.
    pub behind_bytes: Option<u64>,
    /// They are more: not all events were looked at.
    pub behind_more: bool,
    pub broken: Option<String>,
}

/// A snapshot of one.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SnapshotInfo {
    pub seq: u64,
    /// When it was made, µs UTC.
    pub made_us: i64,
    pub own_bytes: u64,
    pub files: u64,
    /// BLAKE3 over the hashes of all its blocks.
    pub blake3: String,
}

impl Shadowing {
    pub(super) fn new((shadows, trouble): (Shadows, Option<Error>), limits: ShadowLimits) -> Shadowing {
        Shadowing {
            shadows: Arc::new(shadows),
            trouble,
            limits,
            layout: AtomicUsize::new(0),
            noted: Mutex::new(Noted::default()),
            wishes: Mutex::new(Wishes::default()),
            rule: Mutex::new(Rule::default()),
            breaker: Mutex::new(Breaker::default()),
            turn: Mutex::new(()),
            making: Mutex::new(None),
            hurry: AtomicBool::new(false),
            giving_up: AtomicBool::new(false),
            cpu_us: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refused: Mutex::new(None),
        }
    }

    /// Why nothing is made now.
    fn stopped(&self) -> Option<String> {
        let breaker = self.breaker.lock();
        let left = breaker.open_until?.checked_duration_since(Instant::now())?;
        let cause = breaker.last.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
        Some(format!(
            "no shadow is made for {} s after {} failures in a row{cause}: mend that, then `weft shadow resume`",
            left.as_secs().max(1),
            breaker.failures
        ))
    }

    /// If what is being made is not wanted any more, it ends.
    fn take_back(&self, unwanted: impl Fn(&Wish) -> bool) -> bool {
        let mut making = self.making.lock();
        let making = making.as_mut().filter(|making| unwanted(&making.wish));
        making.map(|making| making.taken_back = true).is_some()
    }

    fn is_taken_back(&self) -> bool {
        self.making.lock().as_ref().is_some_and(|making| making.taken_back)
    }

    fn note_success(&self) {
        *self.breaker.lock() = Breaker::default();
    }

    fn note_failure(&self, error: &Error) {
        let mut breaker = self.breaker.lock();
        breaker.failures += 1;
        breaker.last = Some(error.clone());
        if breaker.failures >= FAILURES {
            breaker.open_until = Some(Instant::now() + PAUSE);
            tracing::error!(%error, failures = breaker.failures, "no shadow is made for a while");
        } else {
            tracing::warn!(%error, "a shadow could not be made");
        }
    }
}

/// The thread.
pub(super) fn shadow(engine: &Engine, stop: &AtomicBool) {
    let (mut last_rule, mut noted): (Option<Instant>, Option<Instant>) = (None, None);
    while !stop.load(Ordering::Relaxed) {
        if last_rule.is_none_or(|last| last.elapsed() >= RULE_EVERY) {
            engine.shadow_rule();
            last_rule = Some(Instant::now());
        }
        // A split does not wait for a thread that everybody else goes before.
        budget::yield_unless(engine.shadowing.wishes.lock().is_pressing(engine.shadow_clock_us()));
        let worked = matches!(engine.shadow_step(), Ok(true));
        if worked || noted.is_none_or(|last| last.elapsed() >= NOTE_EVERY) {
            engine.note_shadows();
            noted = Some(Instant::now());
        }
        if !worked {
            budget::sleep(LOOK_EVERY, stop);
        }
    }
}

impl Engine {
    /// Adds a wish; granted later, if at all. One for the same takes the place of an earlier one. Switched off, only
    /// what a person asked for counts.
    pub fn wish(&self, wish: Wish) {
        if !self.shadowing.limits.on && wish.reason != Reason::Asked {
            return;
        }
        self.shadowing.wishes.lock().add(wish);
    }

    /// Mends what is broken, then grants one wish; `false` when there was nothing to do.
    pub fn shadow_step(&self) -> Result<bool> {
        self.shed_shadows();
        self.drop_broken();
        if self.shadowing.stopped().is_some() {
            return Ok(false);
        }
        let next = self.shadowing.wishes.lock().next(self.shadow_clock_us());
        let Some(wish) = next else { return Ok(false) };
        match wish.urgent {
            true => self.in_a_hurry(|| self.grant_in_turn(&wish)),
            false => self.grant_in_turn(&wish),
        }
        Ok(true)
    }

    fn grant_in_turn(&self, wish: &Wish) {
        let _turn = self.shadowing.turn.lock();
        // Taken back before its turn.
        if self.shadowing.wishes.lock().is_granting() {
            match self.grant(wish) {
                Ok(_) => {
                    self.shadowing.wishes.lock().end();
                    *self.shadowing.refused.lock() = None;
                }
                Err(error) => self.refuse(wish, &error),
            }
        }
    }

    /// What could not be granted waits again, unless it never can be.
    fn refuse(&self, wish: &Wish, error: &Error) {
        *self.shadowing.refused.lock() = Some(format!("{}: {error}", wish.subject));
        if !grant::is_final(wish, error) {
            self.shadowing.wishes.lock().put_back(error.to_string(), self.shadow_clock_us());
            return;
        }
        self.shadowing.wishes.lock().end();
        if wish.reason != Reason::Asked {
            return;
        }
        tracing::warn!(%error, partition = %wish.subject, "a shadow that was asked for cannot be made any more");
        if let Err(error) = self.forget_asked(|asked| asked.is_for_the_same_as(wish)) {
            tracing::warn!(%error, "it is tried once more after the next mount");
        }
    }

    /// Partitions of whose present a whole shadow is wished for or being made, as they are shown.
    pub(super) fn wished_partitions(&self) -> HashSet<String> {
        self.shadowing.wishes.lock().whole()
    }

    /// Makes a shadow at once, without a budget of rates. `at`: of a resolved instant; without it of the present, and
    /// kept up to date from then on.
    pub fn add_shadow(
        &self,
        subject: Subject,
        pages: Option<PageSet>,
        at: Option<Seq>,
    ) -> Result<Option<Made>> {
        if let Some(stopped) = self.shadowing.stopped() {
            return Err(Error::invalid("shadow.add", stopped));
        }
        let wish = Wish { subject, pages, at, benefit: 0.0, reason: Reason::Asked, urgent: true };
        self.in_a_hurry(|| {
            let _turn = self.shadowing.turn.lock();
            let made = self.grant(&wish);
            // What ends with the daemon is made by the next one.
            let counts = made.is_ok() || made.as_ref().is_err_and(|error| error.kind == Kind::Busy);
            if counts && let Err(error) = self.note_asked(&wish) {
                tracing::warn!(%error, "a shadow that was asked for is not made again when it is lost");
            }
            made
        })
    }

    /// Somebody waits: what is being made has no budget meanwhile.
    fn in_a_hurry<T>(&self, work: impl FnOnce() -> T) -> T {
        self.shadowing.hurry.store(true, Ordering::Relaxed);
        let done = work();
        self.shadowing.hurry.store(false, Ordering::Relaxed);
        done
    }

    /// Removes shadows: that of a number, or all of a partition. How many there were, or else were wished for or being
    /// made: that ends early.
    pub fn remove_shadows(&self, root: &[u8], text: &str) -> Result<u64> {
        let subject = self.shadow_subject(root, text.as_bytes());
        let list = || self.shadowing.shadows.list().into_iter();
        // A partition may be called like the number of a shadow of another.
        let id = text.parse::<u64>().ok().filter(|id| list().any(|shadow| shadow.id == *id));
        let is_chosen = |shadow: &Shadow| id.map_or(shadow.subject == subject, |id| shadow.id == id);
        let before: Vec<Shadow> = list().filter(is_chosen).collect();
        let unwanted = |wish: &Wish| {
            id.is_none() && wish.subject == subject || before.iter().any(|shadow| shadow.is_for(wish))
        };
        let was_making = self.shadowing.take_back(unwanted);
        let waited = self.shadowing.wishes.lock().forget(unwanted);
        self.in_a_hurry(|| {
            // None of it is being made from here on.
            let _turn = self.shadowing.turn.lock();
            // First that it was asked for: what is left of one that goes must not come back.
            if let Err(error) = self.forget_asked(unwanted) {
                tracing::warn!(%error, "shadows that are taken away may come back after the next mount");
            }
            let chosen: Vec<Shadow> = list().filter(is_chosen).collect();
            for shadow in &chosen {
                self.shadowing.shadows.remove(shadow.id)?;
            }
            self.shadowing.wishes.lock().try_again();
            let count = if chosen.is_empty() { waited.max(usize::from(was_making)) } else { chosen.len() };
            Ok(count as u64)
        })
    }

    /// Goes on after too many failures, and with what was refused.
    pub fn resume_shadows(&self) {
        self.shadowing.note_success();
        self.shadowing.wishes.lock().try_again();
    }

    /// All shadows.
    pub fn shadows(&self) -> Vec<ShadowInfo> {
        let list = self.shadowing.shadows.list();
        let following = list.iter().filter(|shadow| shadow.follows).count() as u64;
        let events = EVENTS_OF_ALL / following.max(1);
        list.iter().map(|shadow| self.shadow_info(shadow, events)).collect()
    }

    /// Bytes of writes since the newest snapshot of a shadow, as far as so many events tell; `None`: not known.
    fn bytes_since(&self, shadow: &Shadow, events: u64) -> Option<Brought> {
        let newest = shadow.newest()?;
        let range = (newest.seq(), self.index.watermark().seq.max(newest.seq()));
        let mut sum = Brought { bytes: 0, events: 0, is_all: true };
        for file in &newest.head.files {
            let left = events.saturating_sub(sum.events);
            sum.add(self.shadowing.shadows.brought_between(file.file, range, left).ok()??);
        }
        Some(sum)
    }

    /// Of what was written since it looks at so many events.
    fn shadow_info(&self, shadow: &Shadow, events: u64) -> ShadowInfo {
        let behind = if shadow.follows { self.bytes_since(shadow, events) } else { None };
        let snapshot = |snapshot: &Arc<crate::shadow::Snapshot>| SnapshotInfo {
            seq: snapshot.seq().0,
            made_us: snapshot.head.made.0,
            own_bytes: snapshot.head.files.iter().map(|file| file.own_pages * crate::types::PAGE).sum(),
            files: snapshot.head.files.len() as u64,
            blake3: snapshot.hash(),
        };
        ShadowInfo {
            id: shadow.id,
            root: String::from_utf8_lossy(&shadow.subject.root).into_owned(),
            partition: String::from_utf8_lossy(&shadow.subject.partition).into_owned(),
            pages: shadow.pages.as_ref().map(PageSet::count),
            reason: shadow.reason.name(),
            benefit: self.worth(shadow),
            follows: shadow.follows,
            snapshots: shadow.snapshots.iter().map(snapshot).collect(),
            bytes: shadow.stored_bytes(),
            shown_bytes: shadow.shown_bytes(),
            served_bytes: self.shadowing.served_ever(shadow),
            behind_bytes: behind.map(|behind| behind.bytes),
            behind_more: behind.is_some_and(|behind| !behind.is_all),
            foreseen: self.shadowing.foreseen(shadow),
            broken: shadow.broken().map(|error| error.to_string()),
        }
    }

    /// Figures of all of them.
    pub fn shadow_status(&self) -> ShadowStatus {
        let shadowing = &self.shadowing;
        let list = shadowing.shadows.list();
        let (read_bytes, written_bytes) = shadowing.shadows.io_bytes();
        let breaker = shadowing.breaker.lock();
        let left = breaker.open_until.and_then(|until| until.checked_duration_since(Instant::now()));
        ShadowStatus {
            on: shadowing.limits.on,
            count: list.len() as u64,
            snapshots: list.iter().map(|shadow| shadow.snapshots.len() as u64).sum(),
            bytes: list.iter().map(Shadow::stored_bytes).sum(),
            limit_bytes: shadowing.limits.bytes,
            served_bytes: list.iter().map(Shadow::served_bytes).sum(),
            read_bytes,
            written_bytes,
            cpu_us: shadowing.cpu_us.load(Ordering::Relaxed),
            waiting: shadowing.wishes.lock().len() as u64,
            making: shadowing.making.lock().as_ref().map(|making| making.wish.subject.to_string()),
            failures: u64::from(breaker.failures),
            stopped_secs: left.map_or(0, |left| left.as_secs().max(1)),
            broken: shadowing.broken.load(Ordering::Relaxed),
            dropped: shadowing.dropped.load(Ordering::Relaxed),
            refused: shadowing.refused.lock().clone(),
        }
    }

    /// What is wrong with shadows, for the health of the whole.
    pub(super) fn shadow_problem(&self) -> Option<String> {
        let trouble = self.shadowing.trouble.as_ref();
        let trouble =
            trouble.map(|error| format!("the shadows cannot be used, views are read without them: {error}"));
        self.shadowing.stopped().or(trouble)
    }

    /// µs that passed since a shadow was made: steps of the clock do not count.
    fn shadow_age_us(&self, shadow: &Shadow) -> u64 {
        self.age_of_us((shadow.seq(), shadow.made()))
    }

    /// That in which wishes wait, µs.
    fn shadow_clock_us(&self) -> i64 {
        self.live.journal.monotonic_us()
    }
}
