//! The list of features: names and values from one function, so that they cannot come apart.

use super::past::Past;
use super::rates::{Of, finite};
use super::site::Around;
use super::state::State;
use super::{FADE, SPANS, VERSION};
use crate::forecast::predictor::HORIZONS;
use crate::types::{PAGE, Timestamp};
use std::f64::consts::TAU;

/// Features per row.
pub const COUNT: usize = 136;

const DAY_US: i64 = 86_400_000_000;
/// Every value lies within plus and minus this.
const MOST: f64 = 64.0;
/// Logarithm of a ratio beyond which nothing matters.
const FAR: f64 = 10.0;
/// What never was, or will be: ten years.
const NEVER_SECS: f64 = 3.2e8;

/// Takes names and values in order.
trait Out {
    fn put(&mut self, name: &str, span: Option<u32>, value: f64);
}

struct Values<'a>(&'a mut Vec<f32>);

impl Out for Values<'_> {
    fn put(&mut self, _: &str, _: Option<u32>, value: f64) {
        self.0.push(finite(value).clamp(-MOST, MOST) as f32);
    }
}

struct Names(Vec<String>);

impl Out for Names {
    fn put(&mut self, name: &str, span: Option<u32>, _: f64) {
        self.0.push(span.map_or_else(|| name.to_owned(), |span| format!("{name}_{span}s")));
    }
}

/// Names of the features in order; those over a span end in its seconds: `writes_300s`.
pub fn names() -> Vec<String> {
    let mut out = Names(Vec::new());
    fill(&mut out, &State::default(), Timestamp(0), &Around::default(), 1 << 30);
    out.0
}

/// BLAKE3 over the version and the names, in hex: a model for another list is not used.
pub fn schema_hash() -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("weft features {VERSION}\n").as_bytes());
    for name in names() {
        hasher.update(name.as_bytes());
        hasher.update(b"\n");
    }
    hasher.finalize().to_hex().to_string()
}

/// Appends the row of one partition at `now`: [`COUNT`] values.
pub(super) fn push(out: &mut Vec<f32>, state: &State, now: Timestamp, around: &Around, split_bytes: u64) {
    let now = now.clamp(Timestamp::FIRST, Timestamp::LAST);
    fill(&mut Values(out), state, now, around, split_bytes);
}

fn log(value: f64) -> f64 {
    finite(value).max(0.0).ln_1p()
}

/// Share in 0 to 1; 0 of nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 1e-9 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

/// Logarithm of a ratio of two rates, each per minute and smoothed by one.
fn ratio(a: f64, b: f64) -> f64 {
    log(a * 60.0) - log(b * 60.0)
}

fn age(now: Timestamp, then: Option<Timestamp>) -> f64 {
    // What never was is as long ago as anything can be.
    let secs = then.map_or(NEVER_SECS, |then| now.0.saturating_sub(then.0) as f64 / 1e6);
    log(secs.min(NEVER_SECS))
}

fn fill(out: &mut dyn Out, state: &State, now: Timestamp, around: &Around, split_bytes: u64) {
    by_span(out, state, now);
    shape(out, state, now);
    ages(out, state, now);
    edge(out, state, now, split_bytes.max(1));
    past_splits(out, state, now, &around.past);
    goes_on(out, state, now);
    calendar(out, state, now);
    surroundings(out, state, now, around);
}

/// Rates, as logarithms of counts per minute, and shares.
fn by_span(out: &mut dyn Out, state: &State, now: Timestamp) {
    for (index, span) in SPANS.iter().enumerate() {
        let rate = |of| state.fading.at(now.0, index, of);
        let window = state.windows.at(now.0, index);
        let mut put = |name: &str, value: f64| out.put(name, Some(*span), value);
        let (writes, bytes, pages) = (rate(Of::Writes), rate(Of::Bytes), rate(Of::Pages));
        put("writes", log(writes * 60.0));
        put("pages_of_bytes", log(bytes * 60.0 / PAGE as f64));
        put("pages", log(pages * 60.0));
        put("growth", log(rate(Of::Growth) * 60.0 / PAGE as f64));
        put("reads", log(rate(Of::Reads) * 60.0));
        put("fsyncs", log(rate(Of::Fsyncs) * 60.0));
        put("append_share", share(rate(Of::Appends), writes));
        put("distinct_share", share(pages * PAGE as f64, bytes));
        put("busy", rate(Of::Busy).clamp(0.0, 1.0));
        put("burst", log((share_free(rate(Of::WritesSquared), writes * writes) - 1.0).max(0.0)));
        put("window_writes", log(f64::from(window.sum.writes)));
        put("window_pages", log(f64::from(window.sum.bytes) / PAGE as f64));
        put("window_busy", window.busy);
        put("window_read", window.read);
    }
    for (index, span) in SPANS.iter().enumerate().skip(1) {
        let rate = |index| state.fading.at(now.0, index, Of::Bytes) / PAGE as f64;
        out.put("trend", Some(*span), ratio(rate(index - 1), rate(index)));
    }
}

/// A ratio that may be above one; 0 of nothing.
fn share_free(part: f64, whole: f64) -> f64 {
    if whole > 1e-12 { part / whole } else { 0.0 }
}

/// Where in the partition it is written, and how regularly.
fn shape(out: &mut dyn Out, state: &State, now: Timestamp) {
    let last = &state.last;
    let per_minute = 60.0 / last.secs();
    let fresh = last.span_us > 0 && now.0.saturating_sub(last.end.0) <= 2 * last.span_us;
    let current = |value: u64| if fresh { log(value as f64 * per_minute) } else { 0.0 };
    out.put("last_writes", None, current(last.writes));
    out.put("last_pages", None, current(last.pages));
    out.put("last_reads", None, current(last.reads));
    out.put("spread", None, f64::from(state.spread));
    out.put("overlap", None, f64::from(state.overlap));
    out.put("at_end", None, f64::from(state.at_end));
    let since = state.last_write.map_or(0.0, |then| now.0.saturating_sub(then.0) as f64);
    out.put("gap", None, log(f64::from(state.gap_us) / 1e6));
    out.put("overdue", None, log(share_free(since, f64::from(state.gap_us))));
    let (reads, writes) = state.queries(now);
    out.put("query_reads", None, log(reads));
    out.put("query_writes", None, log(writes));
}

fn ages(out: &mut dyn Out, state: &State, now: Timestamp) {
    out.put("age", None, age(now, Some(state.first_seen)));
    out.put("since_write", None, age(now, state.last_write));
    out.put("since_read", None, age(now, state.last_read));
    out.put("since_split", None, age(now, state.last_split));
    out.put("since_ddl", None, age(now, state.last_ddl));
}

/// Of splits that were, of its family or of the site: how large and old a partition was then, and how far apart they came; and
/// where this one stands beside that. No split was: no features.
fn past_splits(out: &mut dyn Out, state: &State, now: Timestamp, past: &Past) {
    out.put("splits_known", None, log(f64::from(past.splits)));
    let gathered = state.gathered() as f64;
    let beside = |own: f64, usual: Option<f64>| usual.map_or(0.0, |usual| log(own) - log(usual));
    let pages = |bytes: f64| bytes / PAGE as f64;
    out.put("split_size", None, beside(pages(gathered), past.bytes().map(pages)));
    for (index, span) in SPANS.iter().enumerate().take(3) {
        let rate = state.fading.at(now.0, index, Of::Growth);
        let left = past.bytes().map(|bytes| (bytes - gathered).max(0.0));
        let secs = left.filter(|_| rate > 1e-9).map_or(NEVER_SECS, |left| (left / rate).min(NEVER_SECS));
        out.put("split_size_secs", Some(*span), log(secs));
    }
    let whole = state.whole_secs(now);
    out.put("split_age", None, beside(whole, past.age_secs()));
    let since = past.last.map(|last| now.0.saturating_sub(last.0).max(0) as f64 / 1e6);
    let next = past.gap_secs().zip(since).map(|(gap, since)| (gap - since).max(0.0));
    out.put("split_near", None, age(now, past.last));
    out.put("split_overdue", None, since.map_or(0.0, |since| beside(since, past.gap_secs())));
    // Beside the time between two splits: a child's is short. Whose is not known was born far from any.
    let born = state.born_apart.map(|apart| beside(f64::from(apart), past.gap_secs()));
    out.put("split_born", None, born.filter(|_| past.gap_secs().is_some()).unwrap_or(FAR));
    out.put("split_next", None, log(next.unwrap_or(NEVER_SECS)));
}

/// What the baselines expect, by horizon: it is the least that a model should know.
fn goes_on(out: &mut dyn Out, state: &State, now: Timestamp) {
    for (span, horizon) in FADE.into_iter().zip(HORIZONS) {
        out.put("distinct", Some(horizon), log(state.distinct(now, span, f64::from(horizon))));
    }
    for (span, horizon) in FADE.into_iter().zip(HORIZONS) {
        let still = state.still(now, span, horizon).clamp(1e-4, 1.0 - 1e-4);
        out.put("still_odds", Some(horizon), (still / (1.0 - still)).ln());
    }
    for (index, span) in SPANS.iter().enumerate().take(3) {
        let rate = |of| state.fading.at(now.0, index, of);
        let pages = f64::from(state.windows.at(now.0, index).sum.bytes) / PAGE as f64;
        // Of silence nothing is distinct, and nothing is written.
        let distinct = share(rate(Of::Pages) * PAGE as f64, rate(Of::Bytes));
        out.put("window_distinct", Some(*span), log(pages * distinct));
    }
}

/// How far it is to the next multiple of the size at which a partition splits.
fn edge(out: &mut dyn Out, state: &State, now: Timestamp, split_bytes: u64) {
    let size = state.last.size;
    let left = (split_bytes - size % split_bytes) as f64;
    out.put("size", None, log(size as f64 / PAGE as f64));
    out.put("fill", None, (size % split_bytes) as f64 / split_bytes as f64);
    out.put("fill_log", None, log(size as f64 / split_bytes as f64 * 1_000.0));
    for (index, span) in SPANS.iter().enumerate() {
        let rate = state.fading.at(now.0, index, Of::Growth);
        // At most a hundred years.
        let secs = if rate > 1e-9 { (left / rate).min(3.2e9) } else { 3.2e9 };
        out.put("edge_secs", Some(*span), log(secs));
    }
}

/// Time of day and of week, UTC, and what the same hour usually brings.
fn calendar(out: &mut dyn Out, state: &State, now: Timestamp) {
    let day = now.0.rem_euclid(DAY_US) as f64 / DAY_US as f64 * TAU;
    let week = now.0.rem_euclid(7 * DAY_US) as f64 / (7 * DAY_US) as f64 * TAU;
    out.put("day_sin", None, day.sin());
    out.put("day_cos", None, day.cos());
    out.put("week_sin", None, week.sin());
    out.put("week_cos", None, week.cos());
    let hours = state.day.at(now.0);
    let pages = |bytes: f64| log(bytes / PAGE as f64);
    let lately = state.fading.at(now.0, 2, Of::Bytes) * 3_600.0;
    // What was not seen yet is taken to be as of late: models believe these as they stand.
    let seen = |bytes: f64| if hours.is_known { bytes } else { lately };
    out.put("hours_known", None, hours.known);
    out.put("hour_yesterday", None, pages(seen(hours.yesterday)));
    out.put("hour_usual", None, pages(seen(hours.usual)));
    let day = if hours.known > 0.0 { hours.day / hours.known } else { lately * 24.0 };
    out.put("day_before", None, pages(day));
    out.put("hour_against_day", None, pages(hours.usual) - pages(hours.mean));
    out.put("hour_against_now", None, if hours.is_known { pages(hours.usual) - pages(lately) } else { 0.0 });
}

/// The rest of the site, and the neighbours by name.
fn surroundings(out: &mut dyn Out, state: &State, now: Timestamp, around: &Around) {
    let own = |index| state.fading.at(now.0, index, Of::Writes);
    out.put("site_writes", Some(60), log(around.site_writes[0] * 60.0));
    out.put("site_writes", Some(1_800), log(around.site_writes[1] * 60.0));
    out.put("site_trend", None, ratio(around.site_writes[0], around.site_writes[1]));
    out.put("site_share", None, share(own(1), around.site_writes[2]));
    out.put("site_busy", None, around.site_busy);
    out.put("before_writes", None, log(around.before[0] * 60.0));
    out.put("before_at_end", None, around.before[1]);
    out.put("after_writes", None, log(around.after[0] * 60.0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::tick::Tick;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_many_and_each_is_one() {
        let names = names();
        assert_eq!(names.len(), COUNT);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), COUNT);
        assert!(names.contains(&"writes_300s".to_owned()));
    }

    #[test]
    fn the_schema_is_pinned() {
        // Whoever changes a feature changes this hash; raise VERSION when a meaning changes, and train anew.
        assert_eq!(schema_hash(), "11173bae3871c01db484ac2cfdc049e97c7918cc0e8956da98ea4a388a052d2d");
    }

    fn any_tick() -> impl Strategy<Value = Tick> {
        let number = prop_oneof![Just(0u64), 1u64..1_000, Just(u64::MAX), Just(1 << 53)];
        (any::<i64>(), any::<i64>(), number.clone(), number.clone(), number, any::<i64>(), any::<u64>())
            .prop_map(|(end, span_us, writes, bytes, size, growth, touched)| Tick {
                end: Timestamp(end),
                span_us,
                writes,
                bytes,
                appends: bytes,
                overwrites: writes,
                pages: bytes,
                growth,
                size,
                reads: writes,
                read_bytes: bytes,
                fsyncs: size,
                touched,
            })
    }

    proptest! {
        #[test]
        fn every_value_is_finite_whatever_comes_in(
            ticks in prop::collection::vec(any_tick(), 0..12),
            now in any::<i64>(),
            split_bytes in any::<u64>(),
        ) {
            let (mut state, mut past) = (State::new(Timestamp(now)), Past::default());
            for tick in &ticks {
                state.add(tick);
                state.add_queries(tick.end, u32::MAX, 1);
                past.add(tick.end, Some((tick.size, state.whole_secs(tick.end))));
                state.add_split(tick.end);
            }
            let around = Around { site_writes: [f64::NAN, f64::INFINITY, -1.0], past, ..Around::default() };
            let mut row = Vec::new();
            push(&mut row, &state, Timestamp(now), &around, split_bytes);
            prop_assert_eq!(row.len(), COUNT);
            prop_assert!(row.iter().all(|value| value.is_finite() && value.abs() <= MOST as f32));
        }
    }
}
