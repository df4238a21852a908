//! Whether the model is believed: by its scores against those of the best baseline on the same cases.

use super::{BESIDE, Ledger, Scores};
use crate::forecast::predictor::HORIZONS;
use crate::forecast::score::Binary;
use crate::types::Timestamp;
use serde::Serialize;

/// Scored cases below which nothing is concluded.
const CASES_MIN: f64 = 200.0;
/// A model is worse when its loss is above the baseline's by this factor, and better when it is at most the baseline's.
const WORSE: f64 = 1.05;
/// Losses that differ by less are equal.
const EQUAL: f64 = 1e-4;

/// Whose forecasts count.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(tag = "belief", rename_all = "snake_case")]
pub enum Belief {
    /// Too little is scored yet: it is believed until it is found to be worse.
    #[default]
    Untried,
    /// It is no worse than the best baseline.
    Believed,
    /// It is worse: the standard rule goes on without it.
    Doubted {
        /// Of what, with the figures.
        why: String,
    },
}

impl Belief {
    /// The forecasts count.
    pub fn holds(&self) -> bool {
        !matches!(self, Belief::Doubted { .. })
    }
}

/// One comparison.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verdict {
    /// `write` or `split`.
    pub what: &'static str,
    pub horizon_secs: u32,
    pub cases: f64,
    pub model: f64,
    pub best: String,
    pub best_loss: f64,
}

/// One of the sums of scores.
type Part = fn(&Scores) -> &Binary;
const PARTS: [(&str, Part); 2] = [("write", |scores| &scores.write), ("split", |scores| &scores.split)];

impl Ledger {
    /// Brier scores of the model and of the best baseline, by what and horizon, since `since`.
    pub fn compare(&self, model: &str, since: Timestamp) -> Vec<Verdict> {
        let sums = self.scores(model, since);
        let mut verdicts = Vec::new();
        for horizon in HORIZONS {
            for (what, part) in PARTS {
                let loss = |name: &str| {
                    let binary = part(sums.get(&(name.to_owned(), horizon))?);
                    Some((binary.brier()?, binary.cases, binary.positives))
                };
                let Some((model, cases, positives)) = loss("model") else { continue };
                // Where nothing ever comes nothing can be told of who says it better.
                if cases < CASES_MIN || what == "split" && positives == 0.0 {
                    continue;
                }
                let baselines =
                    BESIDE.iter().filter_map(|baseline| Some((loss(baseline.name())?.0, baseline)));
                let best = baselines.min_by(|a, b| a.0.total_cmp(&b.0));
                if let Some((best_loss, best)) = best {
                    let best = best.name().to_owned();
                    verdicts.push(Verdict { what, horizon_secs: horizon, cases, model, best, best_loss });
                }
            }
        }
        verdicts
    }

    /// What follows from the comparisons, after `before`.
    pub fn judge(&self, model: &str, since: Timestamp, before: &Belief) -> Belief {
        let verdicts = self.compare(model, since);
        let sum = |part: fn(&Verdict) -> f64| verdicts.iter().map(|v| part(v) * v.cases).sum::<f64>();
        let cases: f64 = verdicts.iter().map(|verdict| verdict.cases).sum();
        if cases <= 0.0 {
            return before.clone();
        }
        // All tasks together: one that is worse in a little and better in much is better.
        let (own, best) = (sum(|v| v.model) / cases, sum(|v| v.best_loss) / cases);
        let factor = if before.holds() { WORSE } else { 1.0 };
        if own <= best * factor + EQUAL {
            return Belief::Believed;
        }
        let worst =
            verdicts.iter().max_by(|a, b| (a.model - a.best_loss).total_cmp(&(b.model - b.best_loss)));
        let most = worst.map_or_else(String::new, |v| {
            format!(
                "; most for {} within {} s: {:.4} against {:.4} of {}",
                v.what, v.horizon_secs, v.model, v.best_loss, v.best
            )
        });
        Belief::Doubted {
            why: format!("Brier score {own:.4}, the best baselines' {best:.4}, of {cases:.0} cases{most}"),
        }
    }
}
