//! Rates that fade (exponentially weighted means) and windows that slide, of bounded size.

use super::SPANS;
use crate::forecast::tick::Tick;

/// What rates are kept of, per second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    Writes,
    /// The square of the rate of writes: for burstiness.
    WritesSquared,
    Bytes,
    Pages,
    Appends,
    Growth,
    Reads,
    Fsyncs,
    /// One while something is written, else zero: the share of time that is busy.
    Busy,
}

const KINDS: usize = 9;

fn per_second(tick: &Tick) -> [f64; KINDS] {
    let secs = tick.secs();
    let writes = tick.writes as f64 / secs;
    [
        writes,
        writes * writes,
        tick.bytes as f64 / secs,
        tick.pages as f64 / secs,
        tick.appends as f64 / secs,
        tick.growth.max(0) as f64 / secs,
        tick.reads as f64 / secs,
        tick.fsyncs as f64 / secs,
        f64::from(u8::from(tick.writes > 0)),
    ]
}

/// Means over the [`SPANS`], each fading with its span. What is not told is silence.
#[derive(Clone, Debug, Default)]
pub struct Fading {
    /// By span, then by kind.
    means: [[f32; KINDS]; SPANS.len()],
    /// Up to when they are.
    at_us: i64,
}

impl Fading {
    /// Adds a tick that ends after all before it.
    pub fn add(&mut self, tick: &Tick) {
        let rates = per_second(tick);
        let begin = tick.end.0.saturating_sub(tick.span_us);
        let silence = begin.saturating_sub(self.at_us).max(0) as f64 / 1e6;
        for (span, means) in SPANS.iter().zip(&mut self.means) {
            let tau = f64::from(*span);
            let keep = (-tick.secs() / tau).exp();
            let before = (-silence / tau).exp() * keep;
            for (mean, rate) in means.iter_mut().zip(rates) {
                *mean = finite(f64::from(*mean) * before + rate * (1.0 - keep)) as f32;
            }
        }
        self.at_us = self.at_us.max(tick.end.0);
    }

    /// The mean rate at `now`, by number of the span.
    pub fn at(&self, now_us: i64, span: usize, of: Of) -> f64 {
        let tau = f64::from(SPANS.get(span).copied().unwrap_or(1));
        let silence = now_us.saturating_sub(self.at_us).max(0) as f64 / 1e6;
        let mean = self.means.get(span).and_then(|means| means.get(of as usize)).copied().unwrap_or(0.0);
        f64::from(mean) * (-silence / tau).exp()
    }
}

/// Parts of a window.
const BUCKETS: usize = 6;

/// What windows count.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Counts {
    pub writes: f32,
    pub bytes: f32,
    pub reads: f32,
}

/// Counts over the last [`SPANS`], each in [`BUCKETS`] parts.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    buckets: [[Counts; BUCKETS]; SPANS.len()],
    /// Number of each ring's newest bucket since the epoch.
    newest: [i64; SPANS.len()],
}

/// A window at a moment: its sum, and how many of its parts are busy, 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Window {
    pub sum: Counts,
    pub busy: f64,
    pub read: f64,
}

fn bucket_us(span: u32) -> i64 {
    i64::from(span) * 1_000_000 / BUCKETS as i64
}

impl Windows {
    /// Adds a tick; one that is longer than a part is spread over the parts that it covers.
    pub fn add(&mut self, tick: &Tick) {
        for (index, span) in SPANS.iter().enumerate() {
            let width = bucket_us(*span);
            let last = (tick.end.0 - 1).div_euclid(width);
            let first = tick.end.0.saturating_sub(tick.span_us).div_euclid(width).min(last);
            let share = 1.0 / (last - first + 1).max(1) as f32;
            self.advance(index, last);
            let Some(ring) = self.buckets.get_mut(index) else { continue };
            for number in first.max(last - BUCKETS as i64 + 1)..=last {
                let slot = usize::try_from(number.rem_euclid(BUCKETS as i64)).unwrap_or(0);
                let Some(counts) = ring.get_mut(slot) else { continue };
                counts.writes += tick.writes as f32 * share;
                counts.bytes += tick.bytes as f32 * share;
                counts.reads += tick.reads as f32 * share;
            }
        }
    }

    /// Empties the parts between the newest and `to`.
    fn advance(&mut self, index: usize, to: i64) {
        let (Some(ring), Some(newest)) = (self.buckets.get_mut(index), self.newest.get_mut(index)) else {
            return;
        };
        let from = (*newest + 1).max(to - BUCKETS as i64 + 1);
        for number in from..=to {
            let slot = usize::try_from(number.rem_euclid(BUCKETS as i64)).unwrap_or(0);
            if let Some(counts) = ring.get_mut(slot) {
                *counts = Counts::default();
            }
        }
        *newest = (*newest).max(to);
    }

    /// The window of a span at `now`.
    pub fn at(&self, now_us: i64, span: usize) -> Window {
        let mut window = Window::default();
        let width = bucket_us(SPANS.get(span).copied().unwrap_or(1));
        let (Some(ring), Some(newest)) = (self.buckets.get(span), self.newest.get(span)) else {
            return window;
        };
        let current = (now_us - 1).div_euclid(width);
        for number in (current - BUCKETS as i64 + 1)..=current.min(*newest) {
            if number <= *newest - BUCKETS as i64 {
                continue;
            }
            let slot = usize::try_from(number.rem_euclid(BUCKETS as i64)).unwrap_or(0);
            let Some(counts) = ring.get(slot) else { continue };
            window.sum.writes += counts.writes;
            window.sum.bytes += counts.bytes;
            window.sum.reads += counts.reads;
            window.busy += f64::from(u8::from(counts.writes > 0.0));
            window.read += f64::from(u8::from(counts.reads > 0.0));
        }
        window.busy /= BUCKETS as f64;
        window.read /= BUCKETS as f64;
        window
    }
}

/// Hours of a day.
const HOURS: usize = 24;

/// Bytes written by hour of the day (UTC): yesterday's, and a mean over days.
#[derive(Clone, Debug, Default)]
pub struct Day {
    yesterday: [f32; HOURS],
    mean: [f32; HOURS],
    /// Days that the mean is of, per hour, up to 255.
    days: [u8; HOURS],
    /// Number of the running hour since the epoch, and its bytes so far.
    hour: i64,
    bytes: f64,
    begun: bool,
}

const HOUR_US: i64 = 3_600_000_000;
/// Weight of a new day in the mean, once there are several.
const NEW_DAY: f32 = 0.3;

fn slot(hour: i64) -> usize {
    usize::try_from(hour.rem_euclid(HOURS as i64)).unwrap_or(0)
}

impl Day {
    /// Adds a tick; it counts for the hour that holds its end.
    pub fn add(&mut self, tick: &Tick) {
        self.roll((tick.end.0 - 1).div_euclid(HOUR_US));
        self.bytes += tick.bytes as f64;
    }

    /// Closes the hours before `hour`. Of a silence of days the last one counts.
    fn roll(&mut self, hour: i64) {
        if !self.begun {
            (self.begun, self.hour) = (true, hour);
            return;
        }
        while self.hour < hour {
            let (at, bytes) = (slot(self.hour), finite(self.bytes) as f32);
            self.bytes = 0.0;
            if let (Some(last), Some(mean), Some(days)) =
                (self.yesterday.get_mut(at), self.mean.get_mut(at), self.days.get_mut(at))
            {
                let weight = NEW_DAY.max(1.0 / (f32::from(*days) + 1.0));
                *last = bytes;
                *mean += (bytes - *mean) * weight;
                *days = days.saturating_add(1);
            }
            self.hour = (self.hour + 1).max(hour - 2 * HOURS as i64);
        }
    }

    /// What is known at `now`.
    pub fn at(&self, now_us: i64) -> Hours {
        let now = (now_us - 1).div_euclid(HOUR_US);
        let next = slot(now_us.div_euclid(HOUR_US));
        if self.begun && self.hour >= now {
            return self.look(next);
        }
        let mut day = self.clone();
        day.roll(now);
        day.look(next)
    }

    fn look(&self, next: usize) -> Hours {
        let known = self.days.iter().filter(|days| **days > 0).count();
        let sum = |list: &[f32]| list.iter().map(|bytes| f64::from(*bytes)).sum::<f64>();
        let get = |list: &[f32]| list.get(next).copied().map_or(0.0, f64::from);
        Hours {
            known: known as f64 / HOURS as f64,
            yesterday: get(&self.yesterday),
            usual: get(&self.mean),
            // Hours that were never seen are zero.
            mean: sum(&self.mean) / known.max(1) as f64,
            day: sum(&self.yesterday),
            is_known: self.days.get(next).is_some_and(|days| *days > 0),
        }
    }
}

/// Bytes written in the hour that begins now.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Hours {
    /// Share of the day's hours that have been seen.
    pub known: f64,
    /// In the same hour yesterday; zero when unknown.
    pub yesterday: f64,
    /// In the same hour of a usual day.
    pub usual: f64,
    /// In a usual hour.
    pub mean: f64,
    /// In the last 24 whole hours.
    pub day: f64,
    /// The same hour has been seen.
    pub is_known: bool,
}

/// A number that is one: not finite becomes zero, and nothing is beyond what an f32 can hold.
pub fn finite(value: f64) -> f64 {
    if value.is_finite() { value.clamp(-1e30, 1e30) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    const S: i64 = 1_000_000;

    fn tick(end_s: i64, span_s: i64, writes: u64) -> Tick {
        let (end, span_us) = (Timestamp(end_s * S), span_s * S);
        Tick {
            end,
            span_us,
            writes,
            overwrites: writes,
            bytes: writes * 4096,
            pages: writes,
            ..Tick::default()
        }
    }

    #[test]
    fn a_steady_rate_is_its_mean_whatever_the_length_of_a_tick() {
        for span in [10, 60, 300] {
            let mut fading = Fading::default();
            let mut at = 1_000_000;
            for _ in 0..2_000 {
                at += span;
                fading.add(&tick(at, span, 2 * span as u64));
            }
            for (index, _) in SPANS.iter().enumerate().take(3) {
                let rate = fading.at(at * S, index, Of::Writes);
                assert!((rate - 2.0).abs() < 0.01, "{span} {index}: {rate}");
            }
            // After one span of silence 1/e is left.
            let later = fading.at((at + 300) * S, 1, Of::Writes);
            assert!((later - 2.0 / std::f64::consts::E).abs() < 0.01, "{later}");
        }
    }

    #[test]
    fn windows_forget_what_is_older_than_their_span() {
        let mut windows = Windows::default();
        windows.add(&tick(1_000_000, 10, 6));
        let sum = |at: i64, span| windows.at(at * S, span).sum.writes;
        assert_eq!(sum(1_000_000, 0), 6.0);
        assert_eq!(sum(1_000_049, 0), 6.0);
        assert_eq!(sum(1_000_061, 0), 0.0);
        assert_eq!(sum(1_000_200, 1), 6.0);
        assert_eq!(sum(1_050_000, 4), 6.0);
        assert_eq!(sum(1_100_000, 4), 0.0);
        let busy = windows.at(1_000_000 * S, 0).busy;
        assert!((busy - 1.0 / 6.0).abs() < 1e-9);
        // Long before: nothing, and no panic.
        assert_eq!(sum(0, 0), 0.0);
    }

    #[test]
    fn a_long_tick_fills_its_parts() {
        let mut windows = Windows::default();
        windows.add(&tick(999_960, 60, 60));
        let window = windows.at(999_960 * S, 0);
        assert_eq!(window.sum.writes, 60.0);
        assert_eq!(window.busy, 1.0);
    }

    #[test]
    fn the_same_hour_of_yesterday_is_known_after_a_day() {
        let mut day = Day::default();
        // A burst at 02:00 to 03:00 of each of three days.
        for n in 0..3 {
            day.add(&tick(n * 86_400 + 9_000, 600, 100 * (n as u64 + 1)));
        }
        let at = day.at((3 * 86_400 + 7_200) * S);
        assert!(at.is_known);
        assert_eq!(at.yesterday, 300.0 * 4096.0);
        assert!(at.usual > at.mean && at.known == 1.0);
        let quiet = day.at((3 * 86_400 + 10_800) * S);
        assert_eq!((quiet.yesterday, quiet.usual), (0.0, 0.0));
        assert!(!Day::default().at(0).is_known);
    }

    #[test]
    fn years_of_silence_cost_no_time() {
        let mut day = Day::default();
        day.add(&tick(1, 1, 1));
        assert_eq!(day.at(i64::MAX / 2).yesterday, 0.0);
    }
}
