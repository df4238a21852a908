//! Whether the model is believed: by its scores against those of the best baseline on the same cases.

use super::{BESIDE, Ledger, Scores};
use crate::forecast::predictor::HORIZONS;
use crate::forecast::score::Binary;
use crate::types::Timestamp;
use serde::Serialize;

/// Scored cases below which nothing is concluded.
const CASES_MIN: f64 = 200.0;
/// By how much a loss may be above the best baseline's: a factor, and what is added.
#[derive(Clone, Copy)]
struct Bound {
    factor: f64,
    equal: f64,
}

impl Bound {
    fn holds(self, own: f64, best: f64) -> bool {
        own <= best * self.factor + self.equal
    }
}

/// Of probabilities, while a model is believed and when it is to be believed again.
const BRIER: [Bound; 2] = [Bound { factor: 1.05, equal: 1e-4 }, Bound { factor: 1.0, equal: 1e-4 }];
/// Of expected pages, which say how long a shadow is worth something. Wide: their scores hang on few bursts.
const DEVIANCE: [Bound; 2] = [Bound { factor: 1.5, equal: 0.1 }, Bound { factor: 1.25, equal: 0.1 }];
/// Where no split came none is told who says it better, unless a model says them everywhere: from a Brier score of this on.
const SPLITS_UNFOUNDED: f64 = 0.01;

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
    /// `write`, `split` or `pages`.
    pub what: &'static str,
    pub horizon_secs: u32,
    pub cases: f64,
    /// Brier score; of pages the mean deviance.
    pub model: f64,
    pub best: String,
    pub best_loss: f64,
}

/// One of the sums of scores: loss, cases, and how many of them came true.
type Part = fn(&Scores) -> Option<(f64, f64, f64)>;
const PAGES: &str = "pages";
const SPLIT: &str = "split";
const PARTS: [(&str, Part); 3] = [
    ("write", |scores| of_binary(&scores.write)),
    (SPLIT, |scores| of_binary(&scores.split)),
    (PAGES, |scores| {
        let cases = scores.pages.deviance_cases;
        Some((scores.pages.deviance()?, cases, cases))
    }),
];

fn of_binary(binary: &Binary) -> Option<(f64, f64, f64)> {
    Some((binary.brier()?, binary.cases, binary.positives))
}

impl Ledger {
    /// Losses of the model and of the best baseline, by what and horizon, since `since`.
    pub fn compare(&self, model: &str, since: Timestamp) -> Vec<Verdict> {
        let sums = self.scores(model, since);
        let mut verdicts = Vec::new();
        for horizon in HORIZONS {
            for (what, part) in PARTS {
                let loss = |name: &str| part(sums.get(&(name.to_owned(), horizon))?);
                let Some((model, cases, positives)) = loss("model") else { continue };
                let unfounded = what == SPLIT && positives == 0.0 && model < SPLITS_UNFOUNDED;
                if cases < CASES_MIN || unfounded {
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
        let (pages, shares): (Vec<Verdict>, Vec<Verdict>) =
            self.compare(model, since).into_iter().partition(|verdict| verdict.what == PAGES);
        if shares.is_empty() && pages.is_empty() {
            return before.clone();
        }
        let again = usize::from(!before.holds());
        let worse = [("Brier score", shares, BRIER), ("error of expected pages", pages, DEVIANCE)]
            .into_iter()
            .find_map(|(name, verdicts, bounds)| worse(name, &verdicts, bounds[again]));
        worse.map_or(Belief::Believed, |why| Belief::Doubted { why })
    }
}

/// Why a model is worse, if it is: by all tasks together, for one that is worse in a little and better in much is better.
fn worse(name: &str, verdicts: &[Verdict], bound: Bound) -> Option<String> {
    let sum = |part: fn(&Verdict) -> f64| verdicts.iter().map(|v| part(v) * v.cases).sum::<f64>();
    let cases: f64 = verdicts.iter().map(|verdict| verdict.cases).sum();
    if cases <= 0.0 {
        return None;
    }
    let (own, best) = (sum(|v| v.model) / cases, sum(|v| v.best_loss) / cases);
    if bound.holds(own, best) {
        return None;
    }
    let most = verdicts.iter().max_by(|a, b| (a.model - a.best_loss).total_cmp(&(b.model - b.best_loss)))?;
    Some(format!(
        "{name} {own:.4}, the best baselines' {best:.4}, of {cases:.0} cases; most for {} within {} s: {:.4} against {:.4} of {}",
        most.what, most.horizon_secs, most.model, most.best_loss, most.best
    ))
}
