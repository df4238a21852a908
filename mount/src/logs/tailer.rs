//! The thread that follows all logs, and what it says of itself.

use super::follow::Follow;
use super::format::Parsed;
use super::kept::Kept;
use super::meaning::{Change, Meaning, changes, tell_queries};
use super::place::Places;
use super::queries::Queries;
use super::setting::Setting;
use super::tables::Tables;
use super::when::Said;
use crate::Outcome;
use crate::profile::Profile;
use crate::running::Running;
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;
use weft::types::FileId;

/// Between two looks: a split is to be seen while it runs, and a look is a listing of a directory.
const EVERY: Duration = Duration::from_millis(100);

/// What came of one log since the mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Counts {
    pub log: String,
    pub format: super::format::Format,
    /// Files that are followed now.
    pub files: u64,
    pub lines: u64,
    pub statements: u64,
    /// Changes of the schema among them, and splits among those.
    pub changes: u64,
    pub splits: u64,
    /// Changes of tables whose files are not known.
    pub unknown: u64,
    /// How often tables were read and written whose files are known, and the others: parents of partitions, views.
    pub queries: u64,
    pub queries_unknown: u64,
    /// What is no record of this format, or too long.
    pub skipped: u64,
    /// Messages of PostgreSQL's that tell of no statement, or not in English.
    pub other: u64,
    /// Why it cannot be read.
    pub trouble: Option<String>,
}

impl Counts {
    fn new(setting: &Setting) -> Counts {
        Counts {
            log: setting.path.clone(),
            format: setting.format,
            files: 0,
            lines: 0,
            statements: 0,
            changes: 0,
            splits: 0,
            unknown: 0,
            queries: 0,
            queries_unknown: 0,
            skipped: 0,
            other: 0,
            trouble: None,
        }
    }

    /// Told once for each cause.
    fn cannot_be_read(&mut self, cause: String) {
        if self.trouble.as_ref() != Some(&cause) {
            tracing::warn!("the log {} cannot be read: {cause}", self.log);
        }
        self.trouble = Some(cause);
    }
}

/// How far the following of logs is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    #[default]
    Idle,
    Following,
    /// What was gathered is to be told.
    Ending,
    /// The engine is not used any more.
    Over,
}

/// Who stops the following waits so long for what was gathered to be told.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// The logs of a mount: shown, and stopped.
#[derive(Default)]
pub struct Logs {
    shown: Mutex<(Vec<Counts>, Option<String>)>,
    /// Held while the engine is used.
    phase: Mutex<Phase>,
    over: Condvar,
}

impl Logs {
    /// Each log, and why the catalogue does not answer.
    pub fn shown(&self) -> (Vec<Counts>, Option<String>) {
        self.shown.lock().clone()
    }

    fn begin(&self) {
        let mut phase = self.phase.lock();
        if *phase == Phase::Idle {
            *phase = Phase::Following;
        }
    }

    /// What was read is told; from then on the engine is not used.
    pub fn stop(&self) {
        let mut phase = self.phase.lock();
        if *phase == Phase::Following {
            *phase = Phase::Ending;
            self.over.wait_while_for(&mut phase, |phase| *phase != Phase::Over, LAST_LOOK);
        }
        *phase = Phase::Over;
    }

    fn end(&self, phase: &mut Phase) {
        *phase = Phase::Over;
        self.over.notify_all();
    }

    /// Held while the engine is used; `None`: that is over.
    pub(crate) fn enter(&self) -> Option<MutexGuard<'_, Phase>> {
        let phase = self.phase.lock();
        (*phase != Phase::Over).then_some(phase)
    }
}

struct Tailer {
    logs: Vec<(Setting, Follow, Counts)>,
    /// Those of a profile, which is what DATA turns out to hold: it is no fault when they are not there.
    by_profile: Option<Profile>,
    kept: Kept,
    meaning: Meaning,
    /// By the number of their log: changes that wait for the catalogue's next answer.
    waiting: Vec<(usize, Change)>,
    /// Where such a log was before: from there it is read again after a restart, so that what waits is not lost.
    held: BTreeMap<usize, Places>,
    queries: Queries,
}

/// Starts to follow the logs of a mount. `tick`: how often the forecast hears of queries, if there is one.
///
/// # Errors
/// No thread can be started.
pub fn begin(
    running: &Arc<Running>,
    settings: &[Setting],
    connection: Option<&str>,
    tick: Option<Duration>,
) -> Outcome<()> {
    running.logs.begin();
    let (tables, queries) = (Tables::new(connection.map(str::to_owned)), Queries::new(tick));
    let (running, settings) = (Arc::downgrade(running), settings.to_vec());
    let work = move || {
        let begun = running.upgrade().map(|running| Tailer::new(&running, settings, tables, queries));
        let Some(mut tailer) = begun else { return };
        while tailer.look(&running) {
            thread::sleep(EVERY);
        }
    };
    let started = thread::Builder::new().name("weft-logs".into()).spawn(work);
    started.map(|_| ()).map_err(|cause| format!("cannot start a thread: {cause}"))
}

fn followed(running: &Running, setting: Setting, places: Option<&Places>) -> (Setting, Follow, Counts) {
    let points = running.roots.iter().map(|root| (root.point.clone(), root.here.dir));
    let tops: Vec<(PathBuf, FileId)> = points.chain([(running.data.clone(), FileId::ROOT)]).collect();
    let mut follow = setting.follow(&running.common.engine, &tops);
    places.into_iter().for_each(|places| follow.resume(places));
    let counts = Counts::new(&setting);
    (setting, follow, counts)
}

/// What a log is called in STORE/logs.json.
fn place(setting: &Setting) -> String {
    format!("{:?} {}", setting.format, setting.path)
}

impl Tailer {
    /// On its own thread: to see where a path leads may take long, on a network's filesystem.
    fn new(running: &Running, settings: Vec<Setting>, tables: Tables, queries: Queries) -> Tailer {
        let by_profile = settings.is_empty().then(|| running.profile());
        let settings = by_profile.map_or(settings, Setting::of_profile);
        let kept = Kept::load(&running.common.store);
        let begun = |setting: Setting| {
            let places = kept.of(&place(&setting)).cloned();
            followed(running, setting, places.as_ref())
        };
        let logs = settings.into_iter().map(begun).collect();
        let meaning = Meaning::new(tables, kept.detached());
        Tailer { logs, by_profile, kept, meaning, waiting: Vec::new(), held: BTreeMap::new(), queries }
    }

    /// Reads what is new and does what it asks for; false when the mount ends.
    fn look(&mut self, running: &Weak<Running>) -> bool {
        let Some(running) = running.upgrade() else { return false };
        let mut found = std::mem::take(&mut self.waiting);
        let Some(entered) = running.logs.enter() else { return false };
        let is_last = *entered == Phase::Ending;
        self.follow_profile(&running);
        let before: Vec<Option<Places>> =
            self.logs.iter_mut().map(|(_, follow, _)| follow.places()).collect();
        for (number, (_, follow, counts)) in self.logs.iter_mut().enumerate() {
            let mut parsed = Parsed::default();
            let looked = follow.look(&mut parsed);
            counts.skipped += parsed.skipped;
            counts.other += parsed.other;
            let now = running.common.engine.now();
            for statement in parsed.statements.iter().filter(|said| Said::new(said.at, now).is_news) {
                counts.queries_unknown += self.queries.add((number, counts.format.dialect()), statement);
            }
            let changes = changes(parsed.statements, counts);
            found.extend(changes.into_iter().map(|change| (number, change)));
            match looked {
                Ok(()) => counts.trouble = None,
                Err(cause) if self.by_profile.is_some() && cause.kind() == ErrorKind::NotFound => {}
                Err(cause) => counts.cannot_be_read(cause.to_string()),
            }
            (counts.files, counts.lines) = (follow.files() as u64, follow.lines);
        }
        drop(entered);
        // What stands in a log before it runs may name what a moment ago was not there.
        let newest = !found.iter().any(|(_, change)| Meaning::asks(change)) || self.meaning.tables.ask();
        let queries = match (is_last, newest) {
            (true, _) => self.queries.rest(),
            (false, true) => self.queries.due(),
            // They may name what the catalogue is about to be asked for.
            (false, false) => Vec::new(),
        };
        if !queries.is_empty() && !is_last && self.meaning.tables.is_old() {
            self.meaning.tables.ask();
        }
        let Some(mut entered) = running.logs.enter() else { return false };
        for (number, change) in found {
            let Some((.., counts)) = self.logs.get_mut(number) else { continue };
            // The server may have ended before the mount: the next mount can ask it.
            let asked = newest && !(is_last && self.meaning.tables.trouble.is_some());
            match self.meaning.take(&running, &change, counts) {
                true => {}
                false if asked => counts.unknown += 1,
                false => self.waiting.push((number, change)),
            }
        }
        self.hold(before);
        let known = tell_queries(&running, &mut self.meaning.tables, &queries);
        for (one, known) in queries.iter().zip(known) {
            let Some((.., counts)) = self.logs.get_mut(one.log) else { continue };
            let count = if known { &mut counts.queries } else { &mut counts.queries_unknown };
            *count += u64::from(one.reads) + u64::from(one.writes);
        }
        self.tell(&running);
        if is_last {
            running.logs.end(&mut entered);
        }
        !is_last
    }

    /// Holds the places of logs of which something waits since this look: `before` are those from before it.
    fn hold(&mut self, before: Vec<Option<Places>>) {
        let waits = |number: usize| self.waiting.iter().any(|(of, _)| *of == number);
        self.held.retain(|number, _| waits(*number));
        for (number, places) in before.into_iter().enumerate() {
            if let Some(places) = places.filter(|_| waits(number)) {
                self.held.entry(number).or_insert(places);
            }
        }
    }

    /// DATA has become a database since the mount: all that its logs hold has come since.
    fn follow_profile(&mut self, running: &Running) {
        let Some(followed_one) = self.by_profile else { return };
        let profile = running.profile();
        if profile != followed_one {
            self.by_profile = Some(profile);
            self.held.clear();
            let all = Setting::of_profile(profile).into_iter();
            self.logs = all.map(|setting| followed(running, setting, Some(&Places::new()))).collect();
        }
    }

    fn tell(&mut self, running: &Running) {
        let places = self.logs.iter_mut().enumerate().filter_map(|(number, (setting, follow, _))| {
            let held = self.held.get(&number).cloned();
            Some((place(setting), held.or_else(|| follow.places())?))
        });
        let places: BTreeMap<String, Places> = places.collect();
        if let Err(cause) = self.kept.put(places, &self.meaning.detached) {
            tracing::debug!("STORE/logs.json cannot be written: {cause}");
        }
        let counts = self.logs.iter().map(|(.., counts)| counts.clone());
        // A log of the profile that never had a line is not worth one.
        let counts =
            counts.filter(|counts| self.by_profile.is_none() || counts.files > 0 || counts.trouble.is_some());
        *running.logs.shown.lock() = (counts.collect(), self.meaning.tables.trouble.clone());
    }
}
