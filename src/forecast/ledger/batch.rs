//! The forecasts of one moment for one horizon, and what came of them.

use super::BESIDE;
use crate::forecast::baseline::at;
use crate::forecast::features::Features;
use crate::forecast::predictor::{Forecast, HORIZONS, SPLIT_HORIZONS};
use crate::forecast::score::{Amount, Binary};
use crate::forecast::signal::{Key, Signal};
use crate::types::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// What one said of one partition; NaN where it said nothing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Said {
    /// Probability that something is written.
    pub write: f32,
    pub bytes: f32,
    /// Probability of a split; NaN of horizons that have none.
    pub split: f32,
}

/// What was said of a partition, and what has come so far.
#[derive(Clone, Debug)]
pub struct Case {
    pub model: Said,
    /// In the order of [`BESIDE`].
    pub beside: [Said; BESIDE.len()],
    /// Bytes in as long a stretch before.
    pub before: f32,
    pub bytes: f32,
    pub written_at: Option<i64>,
    pub split_at: Option<i64>,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Batch {
    pub model: String,
    /// BLAKE3 of the features.
    pub inputs: String,
    pub at_us: i64,
    pub horizon: u32,
    pub keys: Vec<String>,
    pub cases: Vec<Case>,
    /// Up to when what happened was told, without a gap.
    told_us: i64,
    unseen_us: i64,
    index: HashMap<String, usize>,
}

impl Case {
    pub(super) fn new(model: Said, beside: [Said; BESIDE.len()], before: f32) -> Case {
        Case { model, beside, before, bytes: 0.0, written_at: None, split_at: None }
    }
}

/// Scores of one model or baseline.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Scores {
    pub write: Binary,
    pub split: Binary,
    pub bytes: Amount,
}

impl Scores {
    pub fn merge(&mut self, other: &Scores) {
        self.write.merge(&other.write);
        self.split.merge(&other.split);
        self.bytes.merge(&other.bytes);
    }
}

/// A batch that was scored.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scored {
    pub model: String,
    pub inputs: String,
    pub at_us: i64,
    pub due_us: i64,
    pub horizon: u32,
    /// By name: `model`, and the baselines'.
    pub scores: BTreeMap<String, Scores>,
}

/// Share of a horizon that may have been missed.
const UNSEEN_SHARE: i64 = 20;

fn split_index(horizon: u32) -> Option<usize> {
    SPLIT_HORIZONS.iter().position(|secs| *secs == horizon)
}

fn of_row(row: &[f32], index: usize, horizon: u32) -> Said {
    let get = |at: usize| row.get(at).copied().unwrap_or(f32::NAN);
    Said {
        write: 1.0 - get(at::P_QUIET + index),
        bytes: get(at::BYTES + index),
        split: split_index(horizon).map_or(f32::NAN, |index| get(at::P_SPLIT + index)),
    }
}

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
            let beside = BESIDE
                .map(|baseline| of_row(&baseline.row(state, now, split_bytes, split_rate), index, horizon));
            let before = beside.first().map_or(0.0, |said| said.bytes);
            names.push(key.to_string());
            cases.push(Case::new(of_row(&forecast.to_row(), index, horizon), beside, before));
        }
        Batch::restored((model, inputs), (now, horizon), names, cases)
    }

    /// As it was stored: what happened since it was made has to be told again.
    pub(super) fn restored(
        (model, inputs): (&str, &str),
        (at, horizon): (Timestamp, u32),
        keys: Vec<String>,
        cases: Vec<Case>,
    ) -> Batch {
        let mut batch = Batch {
            model: model.to_owned(),
            inputs: inputs.to_owned(),
            at_us: at.0,
            horizon,
            keys,
            cases,
            told_us: at.0,
            unseen_us: 0,
            index: HashMap::new(),
        };
        batch.number();
        batch
    }

    fn number(&mut self) {
        self.index = self.keys.iter().enumerate().map(|(index, key)| (key.clone(), index)).collect();
    }

    /// When its horizon has passed.
    pub fn due(&self) -> Timestamp {
        Timestamp(self.at_us.saturating_add(i64::from(self.horizon) * 1_000_000))
    }

    pub(super) fn take(&mut self, signal: &Signal) {
        let (key, at) = match signal {
            Signal::Activity { partition, tick } if tick.writes > 0 => (partition, tick.end),
            Signal::Split { partition, at, .. } => (partition, *at),
            _ => return,
        };
        if at.0 <= self.at_us || at > self.due() {
            return;
        }
        let Some(case) = self.index.get(&**key).and_then(|index| self.cases.get_mut(*index)) else { return };
        match signal {
            Signal::Activity { tick, .. } => {
                case.bytes += tick.bytes as f32;
                case.written_at.get_or_insert(at.0);
            }
            _ => {
                case.split_at.get_or_insert(at.0);
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
        let mut scores = BTreeMap::new();
        let mut put = |name: &str, said: &dyn Fn(&Case) -> Option<Said>| {
            let mut sum = Scores::default();
            for case in &self.cases {
                if let Some(said) = said(case) {
                    self.add(&mut sum, case, said);
                }
            }
            scores.insert(name.to_owned(), sum);
        };
        put("model", &|case| Some(case.model));
        for (index, baseline) in BESIDE.iter().enumerate() {
            put(baseline.name(), &|case| case.beside.get(index).copied());
        }
        let (model, inputs) = (self.model.clone(), self.inputs.clone());
        let (at_us, due_us, horizon) = (self.at_us, due.0, self.horizon);
        Some(Scored { model, inputs, at_us, due_us, horizon, scores })
    }

    fn add(&self, sum: &mut Scores, case: &Case, said: Said) {
        let lead = |at: Option<i64>| at.map(|at| (at - self.at_us) as f64 / 1e6);
        if said.write.is_finite() {
            sum.write.add(f64::from(said.write), case.written_at.is_some(), lead(case.written_at));
        }
        if said.split.is_finite() {
            sum.split.add(f64::from(said.split), case.split_at.is_some(), lead(case.split_at));
        }
        if said.bytes.is_finite() {
            sum.bytes.add(f64::from(said.bytes), f64::from(case.bytes), f64::from(case.before));
        }
    }
}
