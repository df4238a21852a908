//! Steps of a simulation: at the end of each a policy decides.

use super::How;
use crate::forecast::trace::Trace;
use crate::types::Timestamp;

/// Step `n` is the stretch of `step_us` that ends at `end(n)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Clock {
    first_end: i64,
    step_us: i64,
    pub steps: usize,
    /// Up to and with this step the standard rule decides; afterwards whoever is judged.
    pub begin: usize,
}

impl Clock {
    /// `None`: the trace is empty.
    pub(super) fn of(trace: &Trace, how: &How) -> Option<Clock> {
        let (first, last) = trace.reach()?;
        let step_us = if how.step_us > 0 { how.step_us } else { trace.tick_us.max(1) };
        // The smallest multiple of a step at or after the first line.
        let first_end = (first.0 - 1).div_euclid(step_us).saturating_add(1).saturating_mul(step_us);
        let mut clock = Clock { first_end, step_us, steps: 0, begin: 0 };
        clock.steps = clock.step_of(last).saturating_add(1);
        clock.begin = (clock.steps as f64 * how.skip_share.clamp(0.0, 1.0)) as usize;
        Some(clock)
    }

    pub(super) fn end(&self, step: usize) -> Timestamp {
        let passed = i64::try_from(step).unwrap_or(i64::MAX).saturating_mul(self.step_us);
        Timestamp(self.first_end.saturating_add(passed))
    }

    /// The step in which a moment lies: at or before its end.
    pub(super) fn step_of(&self, at: Timestamp) -> usize {
        let steps = (at.0 - self.first_end - 1).div_euclid(self.step_us).saturating_add(1);
        usize::try_from(steps.max(0)).unwrap_or(usize::MAX)
    }

    /// Seconds that are judged.
    pub(super) fn judged_secs(&self) -> f64 {
        self.steps.saturating_sub(self.begin + 1) as f64 * self.step_secs()
    }

    /// How much of that has passed when a step begins.
    pub(super) fn share(&self, step: usize) -> f64 {
        step.saturating_sub(self.begin + 1) as f64 * self.step_secs() / self.judged_secs().max(1e-6)
    }

    pub(super) fn step_secs(&self) -> f64 {
        self.step_us as f64 / 1e6
    }
}
