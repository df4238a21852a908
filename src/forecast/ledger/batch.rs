//! The forecasts of one moment for one horizon, and what came of them.

use super::BESIDE;
use crate::forecast::baseline::{Baseline, at};
use crate::forecast::features::Features;
use crate::forecast::predictor::{Forecast, HORIZONS, SPLIT_HORIZONS};
use crate::forecast::score::{Amount, Binary, Covered};
use crate::forecast::signal::{Key, Signal};
use crate::forecast::tick::Union;
use crate::types::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What one said of one partition; NaN where it said nothing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Said {
    /// Probability that something is written.
    pub write: f32,
    pub bytes: f32,
    /// Probability of a split; NaN of horizons that have none.
    pub split: f32,
    /// Distinct pages written.
    pub pages: f32,
    pub reads: f32,
}

/// What was said of a partition, and what has come so far.
#[derive(Clone, Debug)]
pub struct Case {
    pub model: Said,
    /// In the order of [`BESIDE`].
    pub beside: [Said; BESIDE.len()],
    /// Seconds to the next split, quantiles: of the model, and of the one baseline that says any ([`TIMED`]). NaN of
    /// horizons that splits have not.
    pub times: [[f32; 3]; 2],
    /// Bytes, pages and reads in as long a stretch before.
    pub before: [f32; 3],
    pub bytes: f32,
    pub reads: f32,
    /// Where it was written; most are not.
    pub union: Option<Box<Union>>,
    pub written_at: Option<i64>,
    pub split_at: Option<i64>,
}

/// The baseline that says when a partition splits.
pub const TIMED: Baseline = Baseline::Linear;

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
    pub cases: Vec<Case>,
    /// Up to when what happened was told, without a gap.
    told_us: i64,
    unseen_us: i64,
}

/// Partitions in an order, and where each stands in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    keys: Vec<Key>,
    index: HashMap<Key, usize>,
}

impl Names {
    fn new(keys: Vec<Key>) -> Arc<Names> {
        let index = keys.iter().enumerate().map(|(index, key)| (Key::clone(key), index)).collect();
        Arc::new(Names { keys, index })
    }
}

impl Case {
    pub(super) fn new(
        model: Said,
        beside: [Said; BESIDE.len()],
        times: [[f32; 3]; 2],
        before: [f32; 3],
    ) -> Case {
        let (bytes, reads, union) = (0.0, 0.0, None);
        Case { model, beside, times, before, bytes, reads, union, written_at: None, split_at: None }
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
        pages: get(at::PAGES + index),
        reads: get(at::READS + index),
    }
}

fn times_of(row: &[f32], horizon: u32) -> [f32; 3] {
    let get = |at: usize| row.get(at).copied().unwrap_or(f32::NAN);
    split_index(horizon).map_or([f32::NAN; 3], |_| [0, 1, 2].map(|index| get(at::SPLIT_SECS + index)))
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
            let own = forecast.to_row();
            let mut timed = [f32::NAN; 3];
            let beside = BESIDE.map(|baseline| {
                let row = baseline.row(state, now, split_bytes, split_rate);
                if baseline == TIMED {
                    timed = times_of(&row, horizon);
                }
                of_row(&row, index, horizon)
            });
            let before = beside.first().map_or([0.0; 3], |said| [said.bytes, said.pages, said.reads]);
            names.push(Key::clone(key));
            cases.push(Case::new(
                of_row(&own, index, horizon),
                beside,
                [times_of(&own, horizon), timed],
                before,
            ));
        }
        Batch::restored((model, inputs), (now, horizon), names, cases)
    }

    /// As it was stored: what happened since it was made has to be told again.
    pub(super) fn restored(
        (model, inputs): (&str, &str),
        (at, horizon): (Timestamp, u32),
        keys: Vec<Key>,
        cases: Vec<Case>,
    ) -> Batch {
        Batch {
            model: model.to_owned(),
            inputs: inputs.to_owned(),
            at_us: at.0,
            horizon,
            names: Names::new(keys),
            cases,
            told_us: at.0,
            unseen_us: 0,
        }
    }

    /// The partitions, in the order of the cases.
    pub fn keys(&self) -> &[Key] {
        &self.names.keys
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
        let Some(case) = self.names.index.get(key).and_then(|index| self.cases.get_mut(*index)) else {
            return;
        };
        match signal {
            Signal::Activity { tick, .. } => {
                case.reads += tick.reads as f32;
                if tick.writes > 0 {
                    case.bytes += tick.bytes as f32;
                    case.union.get_or_insert_default().add(tick);
                    case.written_at.get_or_insert(at.0);
                }
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
        scores.insert("model".to_owned(), self.sum(|case| Some((case.model, case.times[0]))));
        for (index, baseline) in BESIDE.iter().enumerate() {
            let times = |case: &Case| if *baseline == TIMED { case.times[1] } else { [f32::NAN; 3] };
            let sum = self.sum(|case| Some((*case.beside.get(index)?, times(case))));
            scores.insert(baseline.name().to_owned(), sum);
        }
        let (model, inputs) = (self.model.clone(), self.inputs.clone());
        let (at_us, due_us, horizon) = (self.at_us, due.0, self.horizon);
        Some(Scored { model, inputs, at_us, due_us, horizon, scores })
    }

    /// The scores of what one said.
    fn sum(&self, said: impl Fn(&Case) -> Option<(Said, [f32; 3])>) -> Scores {
        let mut sum = Scores::default();
        for case in &self.cases {
            if let Some((said, times)) = said(case) {
                self.add(&mut sum, case, said);
                self.add_times(&mut sum, case, times);
            }
        }
        sum
    }

    fn add(&self, sum: &mut Scores, case: &Case, said: Said) {
        let lead = |at: Option<i64>| at.map(|at| (at - self.at_us) as f64 / 1e6);
        if said.write.is_finite() {
            sum.write.add(f64::from(said.write), case.written_at.is_some(), lead(case.written_at));
        }
        if said.split.is_finite() {
            sum.split.add(f64::from(said.split), case.split_at.is_some(), lead(case.split_at));
        }
        let pages = case.union.as_ref().map_or(0.0, |union| union.pages());
        let [bytes_before, pages_before, reads_before] = case.before.map(f64::from);
        for (sum, said, came, before) in [
            (&mut sum.bytes, said.bytes, f64::from(case.bytes), bytes_before),
            (&mut sum.pages, said.pages, pages, pages_before),
            (&mut sum.reads, said.reads, f64::from(case.reads), reads_before),
        ] {
            if said.is_finite() {
                sum.add(f64::from(said), came, before);
            }
        }
    }

    fn add_times(&self, sum: &mut Scores, case: &Case, times: [f32; 3]) {
        let came = case.split_at.map(|at| (at - self.at_us) as f64 / 1e6);
        for (sum, said) in sum.times.iter_mut().zip(times).filter(|(_, said)| said.is_finite()) {
            sum.add(f64::from(said), came, f64::from(self.horizon));
        }
    }
}
