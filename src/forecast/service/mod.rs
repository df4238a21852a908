//! The forecast at work: takes signals, keeps ticks, asks the model, notes and scores what it says, and says whether it
//! counts. Stepped by a thread of the engine; time comes in.
//!
//! Invariants: nothing here fails the caller. What cannot be kept or stored is told in the state; without a model,
//! with one that fails, or with one that is worse than the baselines, [`Service::counts`] is false and the standard
//! rule goes on.

mod doubts;
mod state;

pub use state::{ModelState, Shown, State};

use super::baseline;
use super::features::{Features, Rows, Setup};
use super::ledger::{Acted, ActedOn, Belief, Ledger, says_split};
use super::policy::{self, Candidate, Costs, Decision};
use super::predictor::{Forecast, Predictor};
use super::purse::Purse;
use super::runner::{Runner, Trouble};
use super::signal::{Key, Signal};
use super::trace::kept::{self, Kept};
use super::trace::{What, replay};
use crate::disk::Disk;
use crate::meta::store::Store;
use crate::sync::Arc;
use crate::types::Timestamp;
use doubts::Doubts;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How it works; from the settings of a STORE.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct How {
    /// Length of a tick.
    pub tick_us: i64,
    /// Between two forecasts; a multiple of a tick.
    pub step_us: i64,
    /// A model that takes longer has no forecast.
    pub deadline: Duration,
    /// Scores of so long count when the model is judged.
    pub window_us: i64,
    /// Ticks kept in STORE, about.
    pub kept_bytes: u64,
    /// Size at whose multiples a partition splits.
    pub split_bytes: u64,
    /// Partitions remembered at most.
    pub partitions: usize,
}

impl Default for How {
    fn default() -> How {
        How {
            tick_us: 10_000_000,
            step_us: 60_000_000,
            deadline: Duration::from_secs(2),
            window_us: 86_400_000_000,
            kept_bytes: 64 << 20,
            split_bytes: 1 << 30,
            partitions: 20_000,
        }
    }
}

/// Text of ticks that is read at the start at most: what was told before a restart.
const WARM_BYTES: u64 = 32 << 20;
/// How far back that goes.
const WARM_US: i64 = 26 * 3_600_000_000;
/// Events that are remembered.
const EVENTS: usize = 16;
/// What forecasts are called that no model made.
pub const NO_MODEL: &str = "baselines";

/// The newest forecasts.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    pub rows: Arc<Rows>,
    pub answers: Vec<Option<Forecast>>,
    /// Who made them, and the hash of what from.
    pub model: String,
    pub inputs: String,
    /// How long it took.
    pub took: Duration,
}

/// See the head of this file.
pub struct Service {
    how: How,
    disk: Arc<dyn Disk>,
    store: PathBuf,
    features: Features,
    ledger: Ledger,
    acted: ActedOn,
    kept: Kept,
    runner: Option<Runner>,
    /// Why there is no model, or why it has no forecasts at present.
    trouble: Option<String>,
    belief: Belief,
    doubts: Doubts,
    latest: Latest,
    decisions: Vec<Decision>,
    purse: Purse,
    events: VecDeque<(Timestamp, String)>,
    /// What could not be kept or stored.
    unkept: Option<String>,
    told: Timestamp,
}

impl Service {
    /// In a STORE, with nothing known yet.
    pub fn new(disk: Arc<dyn Disk>, store: &Path, how: How) -> Service {
        Service {
            how,
            kept: Kept::new(Arc::clone(&disk), store, how.kept_bytes, how.tick_us),
            disk,
            store: store.to_owned(),
            features: features(&how),
            ledger: Ledger::new(how.window_us),
            acted: ActedOn::default(),
            runner: None,
            trouble: Some("there is no model".into()),
            belief: Belief::default(),
            doubts: Doubts::default(),
            latest: Latest::default(),
            decisions: Vec::new(),
            purse: Purse::default(),
            events: VecDeque::new(),
            unkept: None,
            told: Timestamp(0),
        }
    }

    pub fn how(&self) -> &How {
        &self.how
    }

    /// Takes up what was known before a restart: scores, forecasts that wait, doubts, and the ticks of the last day.
    pub fn warm(&mut self, meta: &Store, now: Timestamp) {
        let loaded = self.ledger.load(meta, now).and_then(|()| self.acted.load(meta, now));
        if let Err(error) = loaded.and_then(|()| self.doubts.load(meta)) {
            self.unkept = Some(format!("what was forecast before cannot be read: {error}"));
        }
        self.recall(now);
        // Its model may have come first.
        self.believe(now);
    }

    /// Takes up the ticks of the last day.
    fn recall(&mut self, now: Timestamp) {
        let since = Timestamp(now.0.saturating_sub(WARM_US));
        match kept::read(&*self.disk, &self.store, (since, now), WARM_BYTES) {
            Ok((trace, problems)) => {
                problems.iter().for_each(|problem| tracing::warn!("ticks are left out: {problem}"));
                let mut before = since;
                for line in &trace.lines {
                    let name = usize::try_from(line.partition).ok().and_then(|index| trace.names.get(index));
                    let Some(partition) = name.map(Key::clone) else { continue };
                    self.take(&replay::signal(partition, &line.what));
                    // Of each stretch that was seen something was kept, or it was too short to matter.
                    let at = line.at();
                    let seen = Timestamp(before.0.max(at.0 - 6 * self.how.tick_us));
                    self.features.unseen(seen);
                    self.pass(seen, at);
                    self.features.pass(at);
                    before = at;
                }
            }
            Err(error) => self.unkept = Some(format!("past ticks cannot be read: {error}")),
        }
        self.features.unseen(now);
        self.told = now;
    }

    /// Takes a model into service, or hears why there is none; and why it is not the one that was wanted.
    pub fn set_model(
        &mut self,
        model: Result<Box<dyn Predictor>, String>,
        instead: Option<&str>,
        now: Timestamp,
    ) {
        if let Some(why) = instead {
            self.tell(now, why.to_owned());
        }
        let taken = model.and_then(|model| Runner::new(model).map_err(|trouble| trouble.to_string()));
        match taken {
            Ok(runner) => {
                self.tell(now, format!("model {} is in service", runner.id()));
                self.runner = Some(runner);
                self.trouble = None;
                self.believe(now);
            }
            Err(why) => {
                self.tell(now, format!("no model: {why}"));
                self.runner = None;
                self.trouble = Some(why);
            }
        }
    }

    /// What to believe of the model that is in service now, by all that is known of it.
    fn believe(&mut self, now: Timestamp) {
        let Some(model) = self.runner.as_ref().map(|runner| runner.id().to_owned()) else { return };
        self.belief = self.ledger.judge(&model, self.since(now), &self.doubts.of(&model));
        self.doubts.note(&model, &self.belief, now);
    }

    /// The clock was set back: what is known lies ahead of it, and would hide all that comes until then.
    fn set_back(&mut self, now: Timestamp) {
        let secs = (self.told.0 - now.0) / 1_000_000;
        self.tell(now, format!("the clock was set back by {secs} s; what was forecast before is not scored"));
        self.features = features(&self.how);
        self.ledger.give_up();
        self.acted.give_up();
        self.kept.end_file();
        self.latest = Latest::default();
        self.recall(now);
    }

    /// What happened since the last call, up to `now`.
    pub fn tick(&mut self, signals: &[Signal], now: Timestamp) {
        if now.0.saturating_add(self.how.step_us) < self.told.0 {
            self.set_back(now);
        }
        let since = if self.told.0 == 0 { now } else { self.told };
        // Others than the sweep tell when they like, by clocks of their own, and a trace ascends.
        let within = |signal: &Signal| {
            let at = signal.at().0.max(since.0).min(now.0);
            signal.clone().told_at(Timestamp(at))
        };
        let mut signals: Vec<Signal> = signals.iter().map(within).collect();
        signals.sort_by_key(Signal::at);
        signals.iter().for_each(|signal| self.take(signal));
        let lines: Vec<(Key, What)> = signals.iter().filter_map(line).collect();
        self.features.pass(now);
        self.pass(since, now);
        self.told = now;
        match self.kept.append(now, &lines) {
            Ok(()) => {}
            Err(error) => self.unkept = Some(format!("ticks cannot be kept: {error}")),
        }
    }

    /// Time has passed, and its signals were told.
    fn pass(&mut self, since: Timestamp, now: Timestamp) {
        self.ledger.pass(since, now);
        self.acted.pass(since, now);
    }

    /// For all that wait for what comes of them.
    fn learn(&mut self, signal: &Signal) {
        self.ledger.take(signal);
        self.acted.take(signal);
        self.features.take(signal);
    }

    /// Takes in a signal; and that its partition splits, if it grew past a multiple of the size: models are trained on
    /// such splits. They are not kept: a trace says what was split, and `weft trace features` finds sizes itself.
    fn take(&mut self, signal: &Signal) {
        let before = match signal {
            Signal::Activity { partition, .. } => self.features.state(partition).map(|state| *state.last()),
            _ => None,
        };
        self.learn(signal);
        if let (Signal::Activity { partition, tick }, Some(before)) = (signal, before)
            && before.span_us > 0
            && replay::passes(self.how.split_bytes, before.size, tick.size)
        {
            let (partition, children, point) = (Key::clone(partition), Vec::new(), None);
            let split = Signal::Split { partition, at: tick.end, children, point };
            self.learn(&split);
        }
    }

    /// Scores what is due, and asks the model anew.
    pub fn forecast(&mut self, meta: &Store, now: Timestamp) {
        let settled = self.ledger.settle(now);
        // The rows before are many megabytes; nobody looks until there are newer ones.
        self.latest = Latest::default();
        let begun = std::time::Instant::now();
        let rows = Arc::new(self.features.rows(now));
        let (model, answers) = self.ask(&rows, now);
        let took = begun.elapsed();
        let inputs = rows.hash();
        let moment = (now, self.how.step_us);
        let made = self.ledger.note(&model, &inputs, moment, (&rows.keys, &answers), &self.features);
        self.unkept = match self.ledger.save(meta, &made, &settled) {
            Ok(()) => None,
            Err(error) => Some(format!("forecasts cannot be stored: {error}")),
        };
        self.latest = Latest { rows, answers, model, inputs, took };
        self.judge(now);
        if let Err(error) = self.doubts.save(meta) {
            self.unkept = Some(format!("which models are doubted cannot be stored: {error}"));
        }
    }

    fn ask(&mut self, rows: &Arc<Rows>, now: Timestamp) -> (String, Vec<Option<Forecast>>) {
        let asked =
            self.runner.as_mut().map(|runner| (runner.run(rows, self.how.deadline), runner.id().to_owned()));
        match asked {
            Some((Ok(answers), id)) => {
                if let Some(trouble) = self.trouble.take() {
                    self.tell(now, format!("the model answers again (before: {trouble})"));
                }
                return (id, answers);
            }
            Some((Err(trouble), _)) => self.note_trouble(&trouble, now),
            None => {}
        }
        let answer = |key: &Key| {
            let state = self.features.state(key)?;
            baseline::without_model(state, now, self.how.split_bytes)
        };
        (NO_MODEL.to_owned(), rows.keys.iter().map(answer).collect())
    }

    fn note_trouble(&mut self, trouble: &Trouble, now: Timestamp) {
        let trouble = trouble.to_string();
        if self.trouble.as_ref() != Some(&trouble) {
            self.tell(now, format!("the standard rule goes on: {trouble}"));
            self.trouble = Some(trouble);
        }
    }

    fn since(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_sub(self.how.window_us))
    }

    fn judge(&mut self, now: Timestamp) {
        let Some(runner) = &self.runner else { return };
        let belief = self.ledger.judge(runner.id(), self.since(now), &self.belief);
        self.doubts.note(runner.id(), &belief, now);
        if belief.holds() != self.belief.holds() {
            match &belief {
                Belief::Doubted { why } => self.tell(
                    now,
                    format!("the model is worse than the baselines, the standard rule goes on: {why}"),
                ),
                _ => self.tell(now, "the model is as good as the baselines again, and counts".into()),
            }
        }
        self.belief = belief;
    }

    fn tell(&mut self, now: Timestamp, event: String) {
        tracing::info!("forecast: {event}");
        self.events.push_back((now, event));
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    /// The model's forecasts count: otherwise the standard rule goes on.
    pub fn counts(&self) -> bool {
        self.runner.is_some()
            && self.trouble.is_none()
            && self.belief.holds()
            && self.latest.model != NO_MODEL
    }

    /// Decides what to bake, by the model where it counts, else by the standard rule. Forecasts are filled in here.
    /// Called once a step: as much as `bytes_per_sec` gives in one has gathered since.
    pub fn decide(
        &mut self,
        mut candidates: Vec<Candidate>,
        costs: &Costs,
        bytes_per_sec: f64,
    ) -> &[Decision] {
        let secs = self.how.step_us as f64 / 1e6;
        let free = candidates.iter().filter(|candidate| candidate.held.is_none());
        self.purse.gather(secs, bytes_per_sec, policy::largest(free));
        let now = self.latest.rows.at;
        self.decisions = if self.counts() {
            let answers = self.latest.rows.keys.iter().zip(&self.latest.answers);
            let forecasts: HashMap<&Key, Forecast> =
                answers.filter_map(|(key, answer)| Some((key, (*answer)?))).collect();
            for candidate in &mut candidates {
                candidate.forecast = forecasts.get(&candidate.key).copied();
                candidate.new_share =
                    self.features.state(&candidate.key).map_or(0.0, |state| state.new_share(now));
            }
            // The standard rule of the shadows goes on beside, by its own settings: nothing is due here.
            policy::decide(&candidates, costs, &mut self.purse, |_| false)
        } else {
            policy::standard(&candidates, &mut self.purse)
        };
        &self.decisions
    }

    /// Stores the forecasts of this step that something follows from: those that a shadow is wished for by, and those that
    /// say a split.
    pub fn keep_acted(&mut self, meta: &Store, now: Timestamp) {
        if self.counts() {
            let Latest { rows, answers, model, inputs, .. } = &self.latest;
            let baked = self.decisions.iter().filter(|decision| decision.bake);
            let baked: HashMap<&str, &Decision> =
                baked.map(|decision| (decision.partition.as_str(), decision)).collect();
            for (key, forecast) in rows.keys.iter().zip(answers) {
                let Some(forecast) = forecast else { continue };
                let why = baked.get(&**key).map(|decision| decision.why.clone());
                let split_within = says_split(forecast);
                if why.is_none() && split_within.is_none() {
                    continue;
                }
                let (model, inputs, said) = (model.clone(), inputs.clone(), forecast.to_row().to_vec());
                let acted = Acted { model, inputs, said, baked: why, split_within, ..Acted::default() };
                self.acted.note((rows.at, key), acted);
            }
        }
        if let Err(error) = self.acted.save(meta, now) {
            self.unkept = Some(format!("forecasts that shadows were made by cannot be stored: {error}"));
        }
    }

    /// The forecasts that something followed from, and what came of them.
    pub fn acted(&self) -> &ActedOn {
        &self.acted
    }

    /// The newest forecast of a partition.
    pub fn forecast_of(&self, key: &str) -> Option<Forecast> {
        let index = self.latest.rows.keys.iter().position(|known| **known == *key)?;
        self.latest.answers.get(index).copied().flatten()
    }

    /// When the newest forecasts were made.
    pub fn made_at(&self) -> Timestamp {
        self.latest.rows.at
    }

    /// Makes durable what was kept.
    pub fn close(&mut self) {
        if let Err(error) = self.kept.sync() {
            tracing::warn!(%error, "the newest ticks may be lost");
        }
    }
}

fn features(how: &How) -> Features {
    Features::new(Setup { split_bytes: how.split_bytes, most: how.partitions })
}

/// What is kept of a signal.
fn line(signal: &Signal) -> Option<(Key, What)> {
    let (partition, what) = match signal {
        Signal::Activity { partition, tick } => (partition, What::Tick(*tick)),
        Signal::Gone { partition, at } => (partition, What::Gone { at: *at }),
        Signal::Split { partition, at, point, .. } => (partition, What::Split { at: *at, point: *point }),
        Signal::Query { partition, at, reads, writes } => {
            (partition, What::Query { at: *at, reads: *reads, writes: *writes })
        }
        Signal::Ddl { partition, at, what } => (partition.as_ref()?, What::Ddl { at: *at, what: *what }),
    };
    Some((Key::clone(partition), what))
}

#[cfg(test)]
mod tests;
