//! What the forecast says of itself.

use super::{NO_MODEL, Service};
use crate::forecast::baseline;
use crate::forecast::features;
use crate::forecast::ledger::{Belief, Scores, Verdict};
use crate::forecast::policy::Decision;
use crate::forecast::predictor::Forecast;
use crate::forecast::score::{Amount, Binary, Covered};
use crate::types::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// How it stands with the model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// Its forecasts count.
    InUse,
    /// It is worse than the baselines.
    Doubted,
    /// It does not answer as it should.
    Failing,
    /// There is none.
    None,
}

/// For `weft status` and `weft forecast`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct State {
    pub model: Option<String>,
    pub state: ModelState,
    /// Why the standard rule goes on, if it does.
    pub why: Option<String>,
    pub partitions: u64,
    pub forecasts: u64,
    pub waiting: u64,
    pub scored: u64,
    pub unseen: u64,
    /// When the newest forecasts were made, µs UTC; 0: not yet.
    pub at_us: i64,
    pub made_by: String,
    pub took_ms: f64,
    /// Time and words, oldest first.
    pub events: Vec<(i64, String)>,
    /// What cannot be kept or stored.
    pub problem: Option<String>,
    pub schema: String,
}

/// One partition's forecast, as it is shown.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Shown {
    pub partition: String,
    pub forecast: Option<Forecast>,
    pub size: u64,
    pub last_write_us: Option<i64>,
}

/// Why a partition is treated as it is.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Why {
    #[serde(flatten)]
    pub shown: Shown,
    pub made_by: String,
    /// What the baselines say, by name; null where they say nothing.
    pub baselines: BTreeMap<String, Vec<Option<f32>>>,
    /// The features, by name.
    pub features: Vec<(String, f32)>,
    pub decision: Option<Decision>,
    /// Whose forecasts count, and why.
    pub rule: String,
}

/// Sums of scores of one horizon.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ScoreLine {
    pub name: String,
    pub horizon_secs: u32,
    pub what: &'static str,
    pub cases: f64,
    pub positives: f64,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    pub brier: Option<f64>,
    pub calibration_error: Option<f64>,
    pub lead_secs: Option<f64>,
    /// Of amounts: `bytes`, `pages`, `reads`; with `write` those of bytes.
    pub mase: Option<f64>,
    pub log_error: Option<f64>,
    /// Of `split`: how often it came by the 10, 50 and 90 % quantiles of its time, of those that lie within the horizon,
    /// and how many these are.
    pub covered: Option<[Option<f64>; 3]>,
    pub covered_cases: Option<[f64; 3]>,
}

impl Service {
    pub fn state(&self) -> State {
        let [forecasts, waiting, scored, unseen] = self.ledger.counts();
        let state = match (&self.runner, &self.trouble, self.belief.holds()) {
            (None, ..) => ModelState::None,
            (Some(_), Some(_), _) => ModelState::Failing,
            (Some(_), None, false) => ModelState::Doubted,
            (Some(_), None, true) => ModelState::InUse,
        };
        State {
            model: self.runner.as_ref().map(|runner| runner.id().to_owned()),
            state,
            why: self.why_standard(),
            partitions: self.features.len() as u64,
            forecasts,
            waiting,
            scored,
            unseen,
            at_us: self.latest.rows.at.0,
            made_by: self.latest.model.clone(),
            took_ms: self.latest.took.as_secs_f64() * 1e3,
            events: self.events.iter().map(|(at, event)| (at.0, event.clone())).collect(),
            problem: self.unkept.clone(),
            schema: features::schema_hash(),
        }
    }

    fn why_standard(&self) -> Option<String> {
        let doubted = match &self.belief {
            Belief::Doubted { why } => Some(format!("the model is worse than the baselines: {why}")),
            _ => None,
        };
        self.trouble.clone().or(doubted)
    }

    /// The newest forecasts: partitions that are likely to split first, then those that are written most.
    pub fn shown(&self) -> Vec<Shown> {
        let rows = self.latest.rows.keys.iter().zip(&self.latest.answers);
        let mut shown: Vec<Shown> = rows.map(|(key, forecast)| self.show(key, *forecast)).collect();
        let rank = |shown: &Shown| {
            shown.forecast.map_or((-1.0, -1.0), |forecast| (forecast.p_split[2], forecast.pages[2]))
        };
        shown.sort_by(|a, b| {
            let (a_split, a_pages) = rank(a);
            let (b_split, b_pages) = rank(b);
            b_split.total_cmp(&a_split).then(b_pages.total_cmp(&a_pages)).then(a.partition.cmp(&b.partition))
        });
        shown
    }

    fn show(&self, key: &str, forecast: Option<Forecast>) -> Shown {
        let state = self.features.state(key);
        Shown {
            partition: key.to_owned(),
            forecast,
            size: state.map_or(0, |state| state.last().size),
            last_write_us: state.and_then(|state| state.last_write()).map(|at| at.0),
        }
    }

    /// Why a partition is treated as it is; `None`: nothing is known of it.
    pub fn why(&self, key: &str) -> Option<Why> {
        let state = self.features.state(key)?;
        let rows = &self.latest.rows;
        let index = rows.keys.iter().position(|known| **known == *key);
        let values = index.map(|index| rows.row(index).to_vec()).unwrap_or_default();
        let said = |baseline: &baseline::Baseline| {
            let row = baseline.row(state, rows.at, self.how.split_bytes, self.features.split_rate());
            let row = row.iter().map(|value| value.is_finite().then_some(*value)).collect();
            (baseline.name().to_owned(), row)
        };
        let rule = match self.why_standard() {
            Some(why) => format!("the standard rule: {why}"),
            None if self.latest.model == NO_MODEL => "the standard rule: the model was not asked yet".into(),
            None => format!("the forecasts of {}", self.latest.model),
        };
        Some(Why {
            shown: self.show(key, self.forecast_of(key)),
            made_by: self.latest.model.clone(),
            baselines: baseline::ALL.iter().map(said).collect(),
            features: features::names().into_iter().zip(values).collect(),
            decision: self.decisions.iter().find(|decision| decision.partition == key).cloned(),
            rule,
        })
    }

    /// Scores of whoever makes the forecasts now, and of the baselines on the same cases.
    pub fn scores(&self, now: Timestamp) -> (Vec<ScoreLine>, Vec<Verdict>) {
        let model = self.runner.as_ref().map_or(NO_MODEL, |runner| runner.id());
        let since = self.since(now);
        let mut lines = Vec::new();
        for ((name, horizon), scores) in self.ledger.scores(model, since) {
            let name = if name == "model" { model.to_owned() } else { name };
            lines.extend(score_lines(&name, horizon, &scores));
        }
        lines.sort_by(|a, b| (a.what, a.horizon_secs).cmp(&(b.what, b.horizon_secs)));
        (lines, self.ledger.compare(model, since))
    }
}

fn score_lines(name: &str, horizon_secs: u32, scores: &Scores) -> Vec<ScoreLine> {
    let line = |what, binary: &Binary| ScoreLine {
        name: name.to_owned(),
        horizon_secs,
        what,
        cases: binary.cases,
        positives: binary.positives,
        precision: binary.precision(),
        recall: binary.recall(),
        f1: binary.f1(),
        brier: binary.brier(),
        calibration_error: binary.calibration_error(),
        lead_secs: binary.lead(),
        mase: None,
        log_error: None,
        covered: None,
        covered_cases: None,
    };
    let amount = |what, amount: &Amount| ScoreLine {
        cases: amount.cases,
        mase: amount.mase(),
        log_error: amount.log_error(),
        ..line(what, &Binary::default())
    };
    let mut lines = Vec::new();
    if scores.write.cases + scores.bytes.cases > 0.0 {
        let mut write = line("write", &scores.write);
        (write.mase, write.log_error) = (scores.bytes.mase(), scores.bytes.log_error());
        lines.push(write);
    }
    if scores.split.cases > 0.0 {
        let mut split = line("split", &scores.split);
        if scores.times.iter().any(|covered| covered.cases > 0.0) {
            split.covered = Some(scores.times.each_ref().map(Covered::share));
            split.covered_cases = Some(scores.times.each_ref().map(|covered| covered.cases));
        }
        lines.push(split);
    }
    let amounts = [("pages", &scores.pages), ("reads", &scores.reads)].into_iter();
    lines.extend(amounts.filter(|(_, sum)| sum.cases > 0.0).map(|(what, sum)| amount(what, sum)));
    lines
}
