//! What a model is asked and what it answers: **the one place that fixes the graph's names and shapes**.
//!
//! | tensor | name | type | shape | unit |
//! |---|---|---|---|---|
//! | input | `features` | f32 | [N, `features::COUNT`] | as `features::NAMES` |
//! | output | `p_split` | f32 | [N, 3] | probability of a split within 5 min, 1 h, 1 d |
//! | output | `split_secs` | f32 | [N, 3] | seconds to the next split: 10, 50, 90 % quantiles |
//! | output | `split_point` | f32 | [N, 1] | share of the page range that stays with the first child, 0 to 1 |
//! | output | `pages` | f32 | [N, 4] | expected distinct 4 KiB pages written within 1 min, 5 min, 1 h, 1 d |
//! | output | `bytes` | f32 | [N, 4] | expected bytes written within the same |
//! | output | `reads` | f32 | [N, 4] | expected reads within the same |
//! | output | `p_quiet` | f32 | [N, 4] | probability that nothing is written within the same |
//!
//! All in plain units (no logarithms outside the graph). Metadata of the graph: `schema` must be
//! `features::schema_hash()`. A row with an output that is not finite, negative, or a probability above one, is no
//! forecast; quantiles that cross are put in order.

use crate::error::Result;

/// Name of the input tensor.
pub const INPUT: &str = "features";
/// Seconds of the horizons of splits.
pub const SPLIT_HORIZONS: [u32; 3] = [300, 3_600, 86_400];
/// Seconds of the horizons of writes, reads and quiet.
pub const HORIZONS: [u32; 4] = [60, 300, 3_600, 86_400];
/// Output tensors in order, with their widths.
pub const OUTPUTS: [(&str, usize); 7] = [
    ("p_split", 3),
    ("split_secs", 3),
    ("split_point", 1),
    ("pages", 4),
    ("bytes", 4),
    ("reads", 4),
    ("p_quiet", 4),
];
/// Numbers per row in all outputs together.
pub const WIDTH: usize = 23;
/// A probability may be above one by rounding, not by more.
const ROUNDING: f32 = 1e-3;

/// A model at work. It runs on a thread of its own, with a deadline; it may fail, hang or panic.
pub trait Predictor: Send {
    /// Which model: name and hash of its file.
    fn id(&self) -> String;

    /// The schema hash that the model was trained for, as `features::schema_hash()` spells it.
    fn schema(&self) -> String;

    /// Answers a batch: `features` is [`rows`, `features::COUNT`] row by row, `out` is [`rows`, [`WIDTH`]] row by row,
    /// each row the outputs of [`OUTPUTS`] one after the other.
    ///
    /// # Errors
    /// The batch has no forecast; the message is shown in `weft status`.
    fn predict(&mut self, features: &[f32], rows: usize, out: &mut [f32]) -> Result<()>;
}

/// What is forecast for one partition at one moment.
#[derive(Clone, Copy, PartialEq, Debug, Default, serde::Serialize)]
pub struct Forecast {
    pub p_split: [f32; 3],
    pub split_secs: [f32; 3],
    pub split_point: f32,
    pub pages: [f32; 4],
    pub bytes: [f32; 4],
    pub reads: [f32; 4],
    pub p_quiet: [f32; 4],
}

impl Forecast {
    /// Checks one row of outputs; `None` when it is no forecast.
    pub fn from_row(row: &[f32]) -> Option<Forecast> {
        if row.len() != WIDTH || row.iter().any(|value| !value.is_finite() || *value < 0.0) {
            return None;
        }
        let mut at = 0;
        let mut forecast = Forecast {
            p_split: part(row, &mut at)?,
            split_secs: part(row, &mut at)?,
            split_point: part::<1>(row, &mut at)?[0],
            pages: part(row, &mut at)?,
            bytes: part(row, &mut at)?,
            reads: part(row, &mut at)?,
            p_quiet: part(row, &mut at)?,
        };
        let shares = forecast.p_split.iter().chain(&forecast.p_quiet).chain([&forecast.split_point]);
        if shares.into_iter().any(|share| *share > 1.0 + ROUNDING) {
            return None;
        }
        forecast.put_in_order();
        Some(forecast)
    }

    /// The outputs one after the other, as a model gives them.
    pub fn to_row(&self) -> [f32; WIDTH] {
        let mut row = [0.0; WIDTH];
        let point = [self.split_point];
        let parts: [&[f32]; 7] =
            [&self.p_split, &self.split_secs, &point, &self.pages, &self.bytes, &self.reads, &self.p_quiet];
        let values = parts.into_iter().flatten();
        row.iter_mut().zip(values).for_each(|(slot, value)| *slot = *value);
        row
    }

    /// What holds of any forecast: shares up to one; more within a longer horizon, less quiet; quantiles in order.
    fn put_in_order(&mut self) {
        self.split_point = self.split_point.min(1.0);
        rising(&mut self.p_split, 1.0);
        rising(&mut self.split_secs, f32::MAX);
        rising(&mut self.pages, f32::MAX);
        rising(&mut self.bytes, f32::MAX);
        rising(&mut self.reads, f32::MAX);
        let mut least = 1.0f32;
        for share in &mut self.p_quiet {
            least = least.min(*share);
            *share = least;
        }
    }
}

fn rising(values: &mut [f32], most: f32) {
    let mut least = 0.0f32;
    for value in values {
        least = least.max(*value).min(most);
        *value = least;
    }
}

fn part<const N: usize>(row: &[f32], at: &mut usize) -> Option<[f32; N]> {
    let values = row.get(*at..*at + N)?.try_into().ok()?;
    *at += N;
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_widths_add_up() {
        assert_eq!(OUTPUTS.iter().map(|(_, width)| width).sum::<usize>(), WIDTH);
    }

    #[test]
    fn what_cannot_be_is_no_forecast() {
        let good = [0.5; WIDTH];
        assert!(Forecast::from_row(&good).is_some());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.1] {
            for at in 0..WIDTH {
                let mut row = good;
                row[at] = bad;
                assert_eq!(Forecast::from_row(&row), None, "{bad} at {at}");
            }
        }
        let mut row = good;
        row[0] = 1.2;
        assert_eq!(Forecast::from_row(&row), None);
        assert_eq!(Forecast::from_row(&good[1..]), None);
    }

    proptest! {
        #[test]
        fn a_forecast_is_in_order_and_stays_itself(row in prop::collection::vec(0.0f32..1.0, WIDTH)) {
            let forecast = Forecast::from_row(&row).unwrap();
            prop_assert!(forecast.p_split.is_sorted() && forecast.split_secs.is_sorted());
            prop_assert!(forecast.p_quiet.iter().rev().is_sorted());
            prop_assert_eq!(Forecast::from_row(&forecast.to_row()), Some(forecast));
        }
    }
}
