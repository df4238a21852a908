//! The forecasts of one moment for one horizon, and what came of them.

use super::BESIDE;
use super::case::{Case, Packed, Said, TIMED, times_of};
use crate::forecast::features::Features;
use crate::forecast::predictor::{Forecast, HORIZONS};
use crate::forecast::score::{Amount, Binary, Covered};
use crate::forecast::signal::{Key, Signal};
use crate::forecast::tick::Union;
use crate::types::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What has come of a case so far. Seconds are from when it was said.
#[derive(Clone, Debug, Default)]
struct Outcome {
    bytes: f32,
    reads: f32,
    written: Union,
    written_after: Option<f32>,
    split_after: Option<f32>,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Batch {
    pub model: String,
    /// BLAKE3 of the features.
    pub inputs: String,
    pub at_us: i64,
    pub horizon: u32,
    /// Whose cases they are: batches of the same partitions share this.
    pub(super) names: Arc<Names>,
    said: Packed,
    /// By the number of the case. Of most nothing comes, and many batches wait.
    came: HashMap<u32, Outcome>,
    /// Up to when what happened was told, without a gap.
    told_us: i64,
    unseen_us: i64,
}

/// Partitions in an order, and where each stands in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    keys: Vec<Key>,
    index: HashMap<Key, u32>,
}

impl Names {
    fn new(keys: Vec<Key>) -> Arc<Names> {
        let index = keys.iter().map(Key::clone).zip(0..).collect();
        Arc::new(Names { keys, index })
    }
}

/// Scores of one model or baseline.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Scores {
    pub write: Binary,
    pub split: Binary,
    pub bytes: Amount,
    #[serde(default)]
    pub pages: Amount,
    #[serde(default)]
    pub reads: Amount,
    /// Of the 10, 50 and 90 % quantiles of the time to a split.
    #[serde(default)]
    pub times: [Covered; 3],
}

impl Scores {
    pub fn merge(&mut self, other: &Scores) {
        self.write.merge(&other.write);
        self.split.merge(&other.split);
        self.bytes.merge(&other.bytes);
        self.pages.merge(&other.pages);
        self.reads.merge(&other.reads);
        self.times.iter_mut().zip(&other.times).for_each(|(sum, more)| sum.merge(more));
    }
}

/// A batch that was scored, or several of one model and horizon: then the times and inputs are the first one's.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scored {
    pub model: String,
    pub inputs: String,
    pub at_us: i64,
    pub due_us: i64,
    pub horizon: u32,
    /// By name: `model`, and the baselines'.
    pub scores: BTreeMap<String, Scores>,
    /// How many.
    #[serde(default = "one")]
    pub batches: u64,
}

fn one() -> u64 {
    1
}

impl Scored {
    /// Another one of the same model and horizon, due not so much later, is counted with it.
    pub(super) fn takes(&self, other: &Scored, within_us: i64) -> bool {
        let later = other.due_us - self.due_us;
        self.model == other.model && self.horizon == other.horizon && (0..within_us).contains(&later)
    }

    pub(super) fn merge(&mut self, other: &Scored) {
        for (name, scores) in &other.scores {
            self.scores.entry(name.clone()).or_default().merge(scores);
        }
        self.batches += other.batches;
    }
}

/// Share of a horizon that may have been missed.
const UNSEEN_SHARE: i64 = 20;

impl Batch {
    /// For the horizon of number `index` in `HORIZONS`.
    pub(super) fn new(
        (model, inputs): (&str, &str),
        (now, index): (Timestamp, usize),
        (keys, answers): (&[Key], &[Option<Forecast>]),
        features: &Features,
    ) -> Batch {
        let horizon = HORIZONS.get(index).copied().unwrap_or(0);
        let (mut names, mut cases) = (Vec::new(), Vec::new());
        let (split_bytes, split_rate) = (features.split_bytes(), features.split_rate());
        for (key, answer) in keys.iter().zip(answers) {
            let (Some(forecast), Some(state)) = (answer, features.state(key)) else { continue };
            let own = forecast.to_row();
            let mut timed = [f32::NAN; 3];
            let beside = BESIDE.map(|baseline| {
                let row = baseline.row(state, now, split_bytes, split_rate);
                if baseline == TIMED {
                    timed = times_of(&row, horizon);
                }
                Said::of(&row, (index, horizon))
            });
            let before = beside.first().map_or([0.0; 3], |said| [said.bytes, said.pages, said.reads]);
            let (model, times) = (Said::of(&own, (index, horizon)), [times_of(&own, horizon), timed]);
            names.push(Key::clone(key));
            cases.push(Case { model, beside, times, before });
        }
        let said = Packed::of(&names, &cases);
        Batch::restored((model, inputs), (now, horizon), names, said)
    }

    /// As it was stored: what happened since it was made has to be told again.
    pub(super) fn restored(
        (model, inputs): (&str, &str),
        (at, horizon): (Timestamp, u32),
        keys: Vec<Key>,
        said: Packed,
    ) -> Batch {
        Batch {
            model: model.to_owned(),
            inputs: inputs.to_owned(),
            at_us: at.0,
            horizon,
            names: Names::new(keys),
            said,
            came: HashMap::new(),
            told_us: at.0,
            unseen_us: 0,
        }
    }

    /// How many cases it has.
    pub fn len(&self) -> usize {
        self.names.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.keys.is_empty()
    }

    /// What was said, for a file.
    pub(super) fn said(&self) -> &Packed {
        &self.said
    }

    /// Takes the names of another batch, where they are the same.
    pub(super) fn share(&mut self, names: &Arc<Names>) {
        if self.names.keys == names.keys {
            self.names = Arc::clone(names);
        }
    }

    /// When its horizon has passed.
    pub fn due(&self) -> Timestamp {
        Timestamp(self.at_us.saturating_add(i64::from(self.horizon) * 1_000_000))
    }

    pub(super) fn take(&mut self, signal: &Signal) {
        let (key, at) = match signal {
            Signal::Activity { partition, tick } if tick.writes + tick.reads > 0 => (partition, tick.end),
            Signal::Split { partition, at, .. } => (partition, *at),
            _ => return,
        };
        if at.0 <= self.at_us || at > self.due() {
            return;
        }
        let Some(index) = self.names.index.get(key) else { return };
        let after = (at.0 - self.at_us) as f32 / 1e6;
        let came = self.came.entry(*index).or_default();
        match signal {
            Signal::Activity { tick, .. } => {
                came.reads += tick.reads as f32;
                if tick.writes > 0 {
                    came.bytes += tick.bytes as f32;
                    came.written.add(tick);
                    came.written_after.get_or_insert(after);
                }
            }
            _ => {
                came.split_after.get_or_insert(after);
            }
        }
    }

    pub(super) fn pass(&mut self, since: Timestamp, now: Timestamp) {
        let (since, now) = (since.0.max(self.at_us), now.0.min(self.due().0));
        if now <= self.told_us {
            return;
        }
        self.unseen_us += (since - self.told_us).max(0);
        self.told_us = now;
    }

    /// The scores; `None` when not enough of the horizon was seen.
    pub(super) fn score(&self) -> Option<Scored> {
        let due = self.due();
        let unseen = self.unseen_us + (due.0 - self.told_us).max(0);
        if unseen > i64::from(self.horizon) * 1_000_000 / UNSEEN_SHARE {
            return None;
        }
        let (_, cases) = self.said.unpack()?;
        let mut scores = BTreeMap::new();
        scores.insert("model".to_owned(), self.sum(&cases, |case| Some((case.model, case.times[0]))));
        for (index, baseline) in BESIDE.iter().enumerate() {
            let times = |case: &Case| if *baseline == TIMED { case.times[1] } else { [f32::NAN; 3] };
            let sum = self.sum(&cases, |case| Some((*case.beside.get(index)?, times(case))));
            scores.insert(baseline.name().to_owned(), sum);
        }
        let (model, inputs) = (self.model.clone(), self.inputs.clone());
        let (at_us, due_us, horizon) = (self.at_us, due.0, self.horizon);
        Some(Scored { model, inputs, at_us, due_us, horizon, scores, batches: 1 })
    }

    /// The scores of what one said.
    fn sum(&self, cases: &[Case], said: impl Fn(&Case) -> Option<(Said, [f32; 3])>) -> Scores {
        let mut sum = Scores::default();
        let nothing = Outcome::default();
        for (case, index) in cases.iter().zip(0..) {
            if let Some((said, times)) = said(case) {
                let came = self.came.get(&index).unwrap_or(&nothing);
                add(&mut sum, (case, came), said);
                add_times(&mut sum, came, (times, self.horizon));
            }
        }
        sum
    }
}

fn add(sum: &mut Scores, (case, came): (&Case, &Outcome), said: Said) {
    let lead = |after: Option<f32>| after.map(f64::from);
    if said.write.is_finite() {
        sum.write.add(f64::from(said.write), came.written_after.is_some(), lead(came.written_after));
    }
    if said.split.is_finite() {
        sum.split.add(f64::from(said.split), came.split_after.is_some(), lead(came.split_after));
    }
    let [bytes_before, pages_before, reads_before] = case.before.map(f64::from);
    for (sum, said, came, before) in [
        (&mut sum.bytes, said.bytes, f64::from(came.bytes), bytes_before),
        (&mut sum.pages, said.pages, came.written.pages(), pages_before),
        (&mut sum.reads, said.reads, f64::from(came.reads), reads_before),
    ] {
        if said.is_finite() {
            sum.add(f64::from(said), came, before);
        }
    }
}

fn add_times(sum: &mut Scores, came: &Outcome, (times, horizon): ([f32; 3], u32)) {
    let split = came.split_after.map(f64::from);
    for (sum, said) in sum.times.iter_mut().zip(times).filter(|(_, said)| said.is_finite()) {
        sum.add(f64::from(said), split, f64::from(horizon));
    }
}
