//! How good forecasts were: sums that can be added up over batches.

use serde::{Deserialize, Serialize};

/// Bins of calibration.
pub const BINS: usize = 10;
/// A probability of at least this counts as said.
const SAID: f64 = 0.5;

/// Scores of probabilities. A sum over cases; [`Binary::add`] one, [`Binary::merge`] two.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Binary {
    pub cases: f64,
    /// Cases that came true.
    pub positives: f64,
    /// Sum of squared errors.
    pub squared: f64,
    pub hits: f64,
    pub false_alarms: f64,
    /// By tenth of the probability: cases, sum of the probabilities, cases that came true.
    pub bins: [[f64; 3]; BINS],
    /// Of hits of which it is known: sum of seconds by which they were said ahead, and how many.
    pub lead_secs: f64,
    pub leads: f64,
}

impl Binary {
    /// A case: what was said, what came. `lead_secs`: how long after the forecast it came.
    pub fn add(&mut self, said: f64, came: bool, lead_secs: Option<f64>) {
        let said = said.clamp(0.0, 1.0);
        let truth = f64::from(u8::from(came));
        self.cases += 1.0;
        self.positives += truth;
        self.squared += (said - truth).powi(2);
        if said >= SAID {
            self.hits += truth;
            self.false_alarms += 1.0 - truth;
            if let Some(lead) = lead_secs.filter(|_| came) {
                self.lead_secs += lead;
                self.leads += 1.0;
            }
        }
        let bin = ((said * BINS as f64) as usize).min(BINS - 1);
        if let Some([cases, sum, true_ones]) = self.bins.get_mut(bin) {
            *cases += 1.0;
            *sum += said;
            *true_ones += truth;
        }
    }

    pub fn merge(&mut self, other: &Binary) {
        self.cases += other.cases;
        self.positives += other.positives;
        self.squared += other.squared;
        self.hits += other.hits;
        self.false_alarms += other.false_alarms;
        for (bin, more) in self.bins.iter_mut().zip(&other.bins) {
            bin.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        self.lead_secs += other.lead_secs;
        self.leads += other.leads;
    }

    /// Mean squared error of the probability (Brier, 1950); 0 is perfect. `None` without cases; so below.
    pub fn brier(&self) -> Option<f64> {
        share(self.squared, self.cases)
    }

    pub fn precision(&self) -> Option<f64> {
        share(self.hits, self.hits + self.false_alarms)
    }

    pub fn recall(&self) -> Option<f64> {
        share(self.hits, self.positives)
    }

    pub fn f1(&self) -> Option<f64> {
        share(2.0 * self.hits, self.hits + self.false_alarms + self.positives)
    }

    /// Mean distance between what was said and how often it came true, over the bins, by cases.
    pub fn calibration_error(&self) -> Option<f64> {
        let apart = |[_, sum, true_ones]: &[f64; 3]| (sum - true_ones).abs();
        share(self.bins.iter().map(apart).sum(), self.cases)
    }

    pub fn lead(&self) -> Option<f64> {
        share(self.lead_secs, self.leads)
    }
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// Scores of amounts.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Amount {
    pub cases: f64,
    pub absolute: f64,
    /// Absolute error of the naive forecast: as much as in the stretch before.
    pub naive: f64,
    /// Sum of absolute errors of the logarithms.
    pub log: f64,
    /// Sum of [`deviance`], and of how many cases.
    #[serde(default)]
    pub deviance: f64,
    #[serde(default)]
    pub deviance_cases: f64,
}

/// What it costs to expect `said` on average when `came` comes: the deviance of a gamma distribution, by what is one more, in
/// which a burst beyond a factor of e^2.5 counts no more than in proportion to its logarithm. Models are trained by it.
fn deviance(said: f64, came: f64) -> f64 {
    const BURST: f64 = 2.5;
    let excess = came.max(0.0).ln_1p() - said.max(0.0).ln_1p();
    let most = excess.min(BURST);
    most.exp() - most - 1.0 + (excess - most) * BURST.exp_m1()
}

impl Amount {
    pub fn add(&mut self, said: f64, came: f64, before: f64) {
        self.cases += 1.0;
        self.absolute += (said - came).abs();
        self.naive += (before - came).abs();
        self.log += (said.max(0.0).ln_1p() - came.max(0.0).ln_1p()).abs();
        self.deviance += deviance(said, came);
        self.deviance_cases += 1.0;
    }

    pub fn merge(&mut self, other: &Amount) {
        self.cases += other.cases;
        self.absolute += other.absolute;
        self.naive += other.naive;
        self.log += other.log;
        self.deviance += other.deviance;
        self.deviance_cases += other.deviance_cases;
    }

    /// Absolute error against that of the naive forecast (Hyndman and Koehler, 2006); below 1 is better than it.
    pub fn mase(&self) -> Option<f64> {
        share(self.absolute, self.naive)
    }

    pub fn log_error(&self) -> Option<f64> {
        share(self.log, self.cases)
    }

    /// Mean [`deviance`]; 0 is perfect.
    pub fn deviance(&self) -> Option<f64> {
        share(self.deviance, self.deviance_cases)
    }
}

/// How often what came lay at or below a quantile that was said. Only cases whose answer is certain count: those whose
/// quantile lies within what was seen, whether it came or not.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Covered {
    pub cases: f64,
    pub below: f64,
}

impl Covered {
    /// A case that was seen for `seen`: what was said, and what came, if it came meanwhile.
    pub fn add(&mut self, said: f64, came: Option<f64>, seen: f64) {
        if said <= seen {
            self.cases += 1.0;
            self.below += f64::from(u8::from(came.is_some_and(|came| came <= said)));
        }
    }

    pub fn merge(&mut self, other: &Covered) {
        self.cases += other.cases;
        self.below += other.below;
    }

    /// The share; of the quantile q it should be q.
    pub fn share(&self) -> Option<f64> {
        share(self.below, self.cases)
    }
}

/// Pinball loss of a quantile: what it costs to say `said` for the quantile `q` when `came` comes.
pub fn pinball(q: f64, said: f64, came: f64) -> f64 {
    if came >= said { q * (came - said) } else { (1.0 - q) * (said - came) }
}

/// Share of what came that the best `share` of the cases had, best by what was said; of `(said, came)`.
pub fn top(cases: &[(f64, f64)], share: f64) -> Option<f64> {
    let all: f64 = cases.iter().map(|(_, came)| came).sum();
    if all <= 0.0 {
        return None;
    }
    let mut sorted = cases.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let count = ((sorted.len() as f64 * share).ceil() as usize).min(sorted.len());
    Some(sorted.iter().take(count).map(|(_, came)| came).sum::<f64>() / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_books() {
        let mut score = Binary::default();
        for (said, came) in [(0.9, true), (0.8, false), (0.3, true), (0.1, false)] {
            score.add(said, came, Some(60.0));
        }
        assert_eq!((score.precision(), score.recall(), score.f1()), (Some(0.5), Some(0.5), Some(0.5)));
        assert!((score.brier().unwrap() - (0.01 + 0.64 + 0.49 + 0.01) / 4.0).abs() < 1e-12);
        assert_eq!(score.lead(), Some(60.0));
        let mut twice = score.clone();
        twice.merge(&score);
        assert_eq!((twice.brier(), twice.f1()), (score.brier(), score.f1()));
        assert_eq!(Binary::default().brier(), None);
    }

    #[test]
    fn what_comes_as_often_as_it_is_said_is_calibrated() {
        let mut score = Binary::default();
        for n in 0..1_000 {
            score.add(0.25, n % 4 == 0, None);
        }
        assert!(score.calibration_error().unwrap() < 1e-9);
        let mut liar = Binary::default();
        (0..1_000).for_each(|n| liar.add(0.95, n % 4 == 0, None));
        assert!(liar.calibration_error().unwrap() > 0.6);
    }

    #[test]
    fn a_quantile_covers_as_often_as_it_says() {
        let mut covered = [Covered::default(), Covered::default(), Covered::default()];
        for came in 0..1_000 {
            // What comes after 600 is not seen any more.
            let seen = Some(f64::from(came)).filter(|came| *came <= 600.0);
            for (one, said) in covered.iter_mut().zip([100.0, 500.0, 900.0]) {
                one.add(said, seen, 600.0);
            }
        }
        let shares = covered.each_ref().map(Covered::share);
        assert_eq!(shares, [Some(0.101), Some(0.501), None], "of 900 nothing is certain, seen or not");
        let mut twice = covered[0].clone();
        twice.merge(&covered[0]);
        assert_eq!((twice.cases, twice.share()), (2_000.0, Some(0.101)));
    }

    #[test]
    fn amounts_quantiles_and_tops() {
        let mut amount = Amount::default();
        amount.add(10.0, 12.0, 8.0);
        assert_eq!(amount.mase(), Some(0.5));
        // Of what comes in one case of four the mean is right: neither nothing nor all of it.
        let costs = |said: f64| {
            let mut amount = Amount::default();
            (0..4).for_each(|n| amount.add(said, if n == 0 { 8.0 } else { 0.0 }, 0.0));
            amount.deviance().unwrap()
        };
        assert!(costs(2.0) < costs(0.0) && costs(2.0) < costs(8.0));
        assert!(
            (pinball(0.9, 10.0, 20.0) - 9.0).abs() < 1e-12 && (pinball(0.9, 20.0, 10.0) - 1.0).abs() < 1e-9
        );
        let cases: Vec<(f64, f64)> = (0..100).map(|n| (f64::from(n), f64::from(u8::from(n >= 95)))).collect();
        assert_eq!((top(&cases, 0.05), top(&cases, 0.01)), (Some(1.0), Some(0.2)));
        assert_eq!(top(&[(1.0, 0.0)], 0.1), None);
    }
}
