//! What a model has to beat: forecasts that need no training. Each answers only some of the outputs.

use super::features::rates::Of;
use super::features::{FADE, State};
use super::predictor::{Forecast, HORIZONS, SPLIT_HORIZONS, WIDTH};
use crate::types::{PAGE, Timestamp};

/// The baselines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// As in the stretch just past.
    Persistence,
    /// As the fading mean.
    Ewma,
    /// As usual: at this hour of the day; splits at the mean rate of all partitions.
    Climatology,
    /// Grows on as it does; splits when that reaches the edge.
    Linear,
    /// Splits soon when it is at nine tenths of the edge.
    Ninety,
    /// The rate of the newest tick goes on.
    LastValue,
    /// As in the same hour yesterday.
    Yesterday,
}

/// All of them, in order.
pub const ALL: [Baseline; 7] = [
    Baseline::Persistence,
    Baseline::Ewma,
    Baseline::Climatology,
    Baseline::Linear,
    Baseline::Ninety,
    Baseline::LastValue,
    Baseline::Yesterday,
];

/// Where each output begins in a row, in the order of `predictor::OUTPUTS`.
pub mod at {
    pub const P_SPLIT: usize = 0;
    pub const SPLIT_SECS: usize = 3;
    pub const SPLIT_POINT: usize = 6;
    pub const PAGES: usize = 7;
    pub const BYTES: usize = 11;
    pub const READS: usize = 15;
    pub const P_QUIET: usize = 19;
}

/// Span whose window is the stretch just past, and the share of the horizon that it is.
const WINDOW: [(usize, f64); 4] = [(0, 1.0), (1, 1.0), (2, 2.0), (4, 1.0)];
/// No rate of growth gives a later split: a hundred years.
const NEVER_SECS: f64 = 3.2e9;

impl Baseline {
    pub fn name(self) -> &'static str {
        match self {
            Baseline::Persistence => "persistence",
            Baseline::Ewma => "ewma",
            Baseline::Climatology => "climatology",
            Baseline::Linear => "linear",
            Baseline::Ninety => "ninety",
            Baseline::LastValue => "last_value",
            Baseline::Yesterday => "yesterday",
        }
    }

    /// One row of outputs at `now`; NaN where it says nothing. `split_bytes`: the edge; `split_rate`: splits per
    /// partition and second.
    pub fn row(self, state: &State, now: Timestamp, split_bytes: u64, split_rate: f64) -> [f32; WIDTH] {
        let mut row = [f32::NAN; WIDTH];
        let mut put = |index: usize, value: f64| {
            if let Some(slot) = row.get_mut(index) {
                *slot = value as f32;
            }
        };
        match self {
            Baseline::Persistence => persistence(state, now, &mut put),
            Baseline::Ewma => ewma(state, now, &mut put),
            Baseline::Climatology => climatology(state, now, split_rate, &mut put),
            Baseline::Linear => linear(state, now, split_bytes.max(1), &mut put),
            Baseline::Ninety => {
                let fill = (state.last().size % split_bytes.max(1)) as f64 / split_bytes.max(1) as f64;
                let full = if fill >= 0.9 { 1.0 } else { 0.0 };
                (0..SPLIT_HORIZONS.len()).for_each(|index| put(at::P_SPLIT + index, full));
            }
            Baseline::LastValue => rates(now_rate(state, now), &mut put),
            Baseline::Yesterday => {
                let hours = state.hours(now);
                let hour = if hours.is_known { hours.yesterday } else { now_rate(state, now) * 3_600.0 };
                rates(hour / 3_600.0, &mut put);
                if hours.is_known {
                    put(at::BYTES + 3, hours.day);
                    put(at::P_QUIET + 3, quiet(hours.day));
                }
            }
        }
        row
    }
}

/// A whole forecast without a model: amounts and quiet as fading means, splits by growth.
pub fn without_model(state: &State, now: Timestamp, split_bytes: u64) -> Option<Forecast> {
    let mut row = Baseline::Ewma.row(state, now, split_bytes, 0.0);
    let linear = Baseline::Linear.row(state, now, split_bytes, 0.0);
    for (slot, value) in row.iter_mut().zip(linear).take(at::SPLIT_POINT) {
        *slot = value;
    }
    if let Some(point) = row.get_mut(at::SPLIT_POINT) {
        *point = 0.5;
    }
    Forecast::from_row(&row)
}

fn quiet(expected: f64) -> f64 {
    if expected > 0.0 { 0.0 } else { 1.0 }
}

fn persistence(state: &State, now: Timestamp, put: &mut dyn FnMut(usize, f64)) {
    for (index, (span, times)) in WINDOW.into_iter().enumerate() {
        let sum = state.window(now, span).sum;
        let bytes = f64::from(sum.bytes) * times;
        put(at::BYTES + index, bytes);
        put(at::PAGES + index, bytes / PAGE as f64 * distinct(state, now, span));
        put(at::READS + index, f64::from(sum.reads) * times);
        put(at::P_QUIET + index, quiet(f64::from(sum.writes)));
    }
    let split = |horizon: u32| {
        let recent = state.last_split().is_some_and(|then| now.0 - then.0 <= i64::from(horizon) * 1_000_000);
        f64::from(u8::from(recent))
    };
    SPLIT_HORIZONS.iter().enumerate().for_each(|(index, horizon)| put(at::P_SPLIT + index, split(*horizon)));
}

/// Distinct pages per page of bytes written.
fn distinct(state: &State, now: Timestamp, span: usize) -> f64 {
    let bytes = state.rate(now, span, Of::Bytes);
    if bytes > 1e-9 { (state.rate(now, span, Of::Pages) * PAGE as f64 / bytes).clamp(0.0, 1.0) } else { 1.0 }
}

fn ewma(state: &State, now: Timestamp, put: &mut dyn FnMut(usize, f64)) {
    for (index, (span, horizon)) in FADE.into_iter().zip(HORIZONS).enumerate() {
        let secs = f64::from(horizon);
        put(at::BYTES + index, state.rate(now, span, Of::Bytes) * secs);
        put(at::PAGES + index, state.rate(now, span, Of::Pages) * secs);
        put(at::READS + index, state.rate(now, span, Of::Reads) * secs);
        put(at::P_QUIET + index, state.still(now, span, horizon));
    }
}

fn climatology(state: &State, now: Timestamp, split_rate: f64, put: &mut dyn FnMut(usize, f64)) {
    let hours = state.hours(now);
    for (index, horizon) in HORIZONS.into_iter().enumerate() {
        let secs = f64::from(horizon);
        let day = state.rate(now, 4, Of::Bytes) * secs;
        let bytes = match (hours.is_known, index) {
            (true, 3) => hours.day,
            (true, _) => hours.usual * secs / 3_600.0,
            (false, _) => day,
        };
        put(at::BYTES + index, bytes);
        put(at::PAGES + index, bytes / PAGE as f64 * distinct(state, now, 4));
        put(at::READS + index, state.rate(now, 4, Of::Reads) * secs);
        put(at::P_QUIET + index, state.still(now, 4, horizon));
    }
    for (index, horizon) in SPLIT_HORIZONS.into_iter().enumerate() {
        put(at::P_SPLIT + index, 1.0 - (-split_rate * f64::from(horizon)).exp());
    }
}

fn linear(state: &State, now: Timestamp, split_bytes: u64, put: &mut dyn FnMut(usize, f64)) {
    let left = (split_bytes - state.last().size % split_bytes) as f64;
    let rate = state.rate(now, 4, Of::Growth);
    let secs = if rate > 1e-9 { (left / rate).min(NEVER_SECS) } else { NEVER_SECS };
    for (index, horizon) in SPLIT_HORIZONS.into_iter().enumerate() {
        put(at::P_SPLIT + index, if secs <= f64::from(horizon) { 1.0 } else { 0.0 });
    }
    for (index, times) in [0.5, 1.0, 2.0].into_iter().enumerate() {
        put(at::SPLIT_SECS + index, secs * times);
    }
}

/// Bytes per second in the newest tick; zero when it is not of the present.
fn now_rate(state: &State, now: Timestamp) -> f64 {
    let last = state.last();
    let fresh = last.span_us > 0 && now.0.saturating_sub(last.end.0) < last.span_us;
    if fresh { last.bytes as f64 / last.secs() } else { 0.0 }
}

fn rates(bytes_per_sec: f64, put: &mut dyn FnMut(usize, f64)) {
    for (index, horizon) in HORIZONS.into_iter().enumerate() {
        let bytes = bytes_per_sec * f64::from(horizon);
        put(at::BYTES + index, bytes);
        put(at::P_QUIET + index, quiet(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::predictor::OUTPUTS;
    use crate::forecast::tick::Tick;

    const S: i64 = 1_000_000;

    fn busy_state(ticks: i64) -> (State, Timestamp) {
        let mut state = State::new(Timestamp(0));
        for n in 1..=ticks {
            let end = Timestamp(n * 60 * S);
            state.add(&Tick {
                end,
                span_us: 60 * S,
                writes: 6,
                overwrites: 6,
                bytes: 6 * 4096,
                pages: 3,
                growth: 4096,
                size: n as u64 * 4096,
                ..Tick::default()
            });
        }
        (state, Timestamp(ticks * 60 * S))
    }

    #[test]
    fn the_outputs_stand_where_they_are_looked_for() {
        let mut begin = 0;
        let begins: Vec<usize> = OUTPUTS
            .iter()
            .map(|(_, width)| {
                begin += width;
                begin - width
            })
            .collect();
        let named =
            [at::P_SPLIT, at::SPLIT_SECS, at::SPLIT_POINT, at::PAGES, at::BYTES, at::READS, at::P_QUIET];
        assert_eq!(begins, named);
    }

    #[test]
    fn steady_writing_goes_on() {
        let (state, now) = busy_state(600);
        for baseline in [Baseline::Persistence, Baseline::Ewma, Baseline::LastValue] {
            let row = baseline.row(&state, now, 1 << 30, 0.0);
            assert!((row[at::BYTES + 1] - 30.0 * 4096.0).abs() < 4096.0, "{baseline:?} {row:?}");
            assert!(row[at::P_QUIET] < 0.05);
        }
        // An hour later all but the long means say that it is quiet.
        let later = Timestamp(now.0 + 3_600 * S);
        assert_eq!(Baseline::Persistence.row(&state, later, 1 << 30, 0.0)[at::P_QUIET + 1], 1.0);
        assert_eq!(Baseline::LastValue.row(&state, later, 1 << 30, 0.0)[at::BYTES], 0.0);
    }

    #[test]
    fn growth_reaches_the_edge_when_it_does() {
        let (state, now) = busy_state(2_000);
        // One page a minute: 100 pages are left.
        let edge = 2_100 * 4096;
        let row = Baseline::Linear.row(&state, now, edge, 0.0);
        let secs = row[at::SPLIT_SECS + 1];
        assert!((5_000.0..9_000.0).contains(&secs), "{secs}");
        assert_eq!((row[at::P_SPLIT], row[at::P_SPLIT + 2]), (0.0, 1.0));
        assert_eq!(Baseline::Ninety.row(&state, now, edge, 0.0)[at::P_SPLIT], 1.0);
        assert_eq!(Baseline::Ninety.row(&state, now, 2 * edge, 0.0)[at::P_SPLIT], 0.0);
        let climate = Baseline::Climatology.row(&state, now, edge, 1.0 / 3_600.0);
        assert!((climate[at::P_SPLIT + 1] - 0.632).abs() < 0.01);
    }

    #[test]
    fn there_is_a_forecast_without_a_model() {
        let (state, now) = busy_state(600);
        let forecast = without_model(&state, now, 1 << 30).unwrap();
        assert!(forecast.bytes[1] > 0.0 && forecast.p_quiet[0] < 0.05 && forecast.split_secs[1] > 0.0);
        assert!(without_model(&State::default(), Timestamp(0), 0).is_some());
    }

    #[test]
    fn nothing_known_is_no_panic() {
        for baseline in ALL {
            let row = baseline.row(&State::default(), Timestamp(0), 0, f64::NAN);
            assert_eq!(row.len(), WIDTH);
            assert!(!baseline.name().is_empty());
        }
    }
}
