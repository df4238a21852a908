//! All partitions of a site: their states, and rows for a model.
//!
//! Invariant: at most `Setup::most` partitions; beyond that the one that was told of longest ago goes.

use super::past::Past;
use super::rates::Of;
use super::row;
use super::state::State;
use crate::forecast::signal::{Key, Signal};
use crate::types::Timestamp;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// What features are measured against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Size at whose multiples a partition splits: PostgreSQL's segments by default.
    pub split_bytes: u64,
    /// Partitions remembered at most.
    pub most: usize,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { split_bytes: 1 << 30, most: 20_000 }
    }
}

/// Newest partitions that are looked at when one of their kin is split: children are often made before it is told.
const NEWEST: usize = 64;
/// Families whose splits are remembered, at most.
const FAMILIES_MOST: usize = 4_096;

/// What is around a partition.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Around {
    /// Writes per second of the whole site: over 60 s, 1800 s, 300 s.
    pub site_writes: [f64; 3],
    /// Share of the partitions that were written in their newest tick.
    pub site_busy: f64,
    /// Of the neighbour before it in its family: writes per second over 60 s; whether its newest tick wrote its end.
    pub before: [f64; 2],
    /// Of the neighbour after it: writes per second over 60 s.
    pub after: [f64; 1],
    /// Splits of its family; of the site, when its family had none.
    pub(super) past: Past,
}

/// The family of a name and its number in it: `base/5/16397` is 16397 in `base/5/`. The last digits count.
pub fn family(name: &str) -> (&str, u64) {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (head, tail) = name.split_at(name.len() - digits);
    (head, tail.parse().unwrap_or(0))
}

/// Rows of a moment, ready for a model.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub at: Timestamp,
    /// Names, row by row; sorted by family and number.
    pub keys: Vec<Key>,
    /// [`row::COUNT`] values for each name.
    pub values: Vec<f32>,
}

impl Rows {
    /// The values of one row.
    pub fn row(&self, index: usize) -> &[f32] {
        self.values.get(index * row::COUNT..(index + 1) * row::COUNT).unwrap_or(&[])
    }

    /// BLAKE3 of the values, in hex: what a forecast was made from.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for value in &self.values {
            hasher.update(&value.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub struct Features {
    setup: Setup,
    /// Boxed: a table that grows has room for twice as many.
    states: HashMap<Key, Box<State>>,
    /// By family and number; the order of rows.
    order: BTreeSet<(String, u64, Key)>,
    /// Splits told of since the start, of the site and of families; and partitions times seconds in which there were as many.
    past: Past,
    pasts: HashMap<String, Past>,
    newest: VecDeque<Key>,
    exposure_secs: f64,
    told: Timestamp,
}

impl Features {
    pub fn new(setup: Setup) -> Features {
        Features { setup, ..Features::default() }
    }

    pub fn len(&self) -> usize {
        self.states.len()
    }

    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// What is known of a partition.
    pub fn state(&self, key: &str) -> Option<&State> {
        self.states.get(key).map(Box::as_ref)
    }

    /// Takes in a signal.
    pub fn take(&mut self, signal: &Signal) {
        match signal {
            Signal::Activity { partition, tick } => {
                let begin = Timestamp(tick.end.0.saturating_sub(tick.span_us.max(0)));
                self.of(partition, begin).add(tick);
            }
            Signal::Gone { partition, .. } => self.forget(partition),
            Signal::Ddl { partition: Some(partition), at, .. } => self.of(partition, *at).add_ddl(*at),
            Signal::Ddl { partition: None, .. } => {}
            Signal::Query { partition, at, reads, writes } => {
                self.of(partition, *at).add_queries(*at, *reads, *writes);
            }
            Signal::Split { partition, at, .. } => {
                // One that is gone by now does not come back for it.
                let state = self.states.get_mut(&**partition);
                let grown = state.map(|state| {
                    let grown = (state.gathered(), state.whole_secs(*at));
                    state.add_split(*at);
                    grown
                });
                self.past.add(*at, grown);
                let (head, _) = family(partition);
                self.family_past(head).add(*at, grown);
                for key in self.newest.iter().filter(|key| *key != partition && family(key).0 == head) {
                    if let Some(state) = self.states.get_mut(&**key) {
                        state.add_split_of_kin(*at);
                    }
                }
            }
        }
    }

    /// What is remembered of a family's splits. Of too many families the one whose last split is oldest is forgotten.
    fn family_past(&mut self, family: &str) -> &mut Past {
        if !self.pasts.contains_key(family) && self.pasts.len() >= FAMILIES_MOST {
            let oldest = self.pasts.iter().min_by_key(|(name, past)| (past.last, (*name).clone()));
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.pasts.remove(&name);
            }
        }
        self.pasts.entry(family.to_owned()).or_default()
    }

    /// Counts the time until `now` towards the mean rate of splits.
    pub fn pass(&mut self, now: Timestamp) {
        if self.told.0 != 0 {
            let secs = now.0.saturating_sub(self.told.0).max(0) as f64 / 1e6;
            self.exposure_secs += secs * self.states.len() as f64;
        }
        self.told = self.told.max(now);
    }

    /// Nobody looked until then: that time does not count towards the mean rate of splits.
    pub fn unseen(&mut self, until: Timestamp) {
        self.told = self.told.max(until);
    }

    /// Splits per partition and second, over all that has been told.
    pub fn split_rate(&self) -> f64 {
        if self.exposure_secs > 0.0 { f64::from(self.past.splits) / self.exposure_secs } else { 0.0 }
    }

    /// Size at whose multiples a partition splits.
    pub fn split_bytes(&self) -> u64 {
        self.setup.split_bytes.max(1)
    }

    fn of(&mut self, key: &Key, at: Timestamp) -> &mut State {
        if !self.states.contains_key(key) {
            if self.states.len() >= self.setup.most {
                self.make_room();
            }
            let (head, number) = family(key);
            self.order.insert((head.to_owned(), number, Key::clone(key)));
            self.newest.push_back(Key::clone(key));
            if self.newest.len() > NEWEST {
                self.newest.pop_front();
            }
        }
        let pasts = &self.pasts;
        self.states.entry(Key::clone(key)).or_insert_with(|| {
            let mut state = State::new(at);
            if let Some(last) = pasts.get(family(key).0).and_then(|past| past.last) {
                state.add_split_of_kin(last);
            }
            Box::new(state)
        })
    }

    /// Forgets a partition.
    pub fn forget(&mut self, key: &str) {
        if let Some((key, _)) = self.states.remove_entry(key) {
            let (head, number) = family(&key);
            let head = head.to_owned();
            self.order.remove(&(head, number, key));
        }
    }

    /// Forgets a sixteenth of the partitions, those told of longest ago: seldom, and then many at once.
    fn make_room(&mut self) {
        let mut all: Vec<(Timestamp, Key)> =
            self.states.iter().map(|(key, state)| (state.last_told(), Key::clone(key))).collect();
        all.sort();
        for (_, key) in all.iter().take(self.setup.most / 16 + 1) {
            self.forget(key);
        }
    }

    /// The rows of all partitions at `now`.
    pub fn rows(&self, now: Timestamp) -> Rows {
        self.rows_of(now, &|_, _| true)
    }

    /// The rows at `now` of those partitions that `wanted` picks.
    pub fn rows_of(&self, now: Timestamp, wanted: &dyn Fn(&Key, &State) -> bool) -> Rows {
        let listed: Vec<(&str, u64, &Key, &State)> = self
            .order
            .iter()
            .filter_map(|(head, number, key)| Some((head.as_str(), *number, key, self.state(key)?)))
            .collect();
        // Grown bit by bit they would be copied, and take twice as much at times.
        let most = listed.len();
        let (keys, values) = (Vec::with_capacity(most), Vec::with_capacity(most * row::COUNT));
        let mut rows = Rows { at: now, keys, values };
        let site = self.site(now);
        for (index, (head, _, key, state)) in listed.iter().enumerate() {
            if !wanted(key, state) {
                continue;
            }
            let near = |at: Option<usize>| {
                let found = at.and_then(|at| listed.get(at)).filter(|other| other.0 == *head)?;
                Some(neighbour(found.3, now))
            };
            let before = near(index.checked_sub(1)).unwrap_or_default();
            let [after, _] = near(Some(index + 1)).unwrap_or_default();
            let past = self.pasts.get(*head).copied().unwrap_or(self.past);
            let around = Around { before, after: [after], past, ..site };
            row::push(&mut rows.values, state, now, &around, self.setup.split_bytes);
            rows.keys.push(Key::clone(key));
        }
        rows
    }

    fn site(&self, now: Timestamp) -> Around {
        let mut around = Around::default();
        let mut busy = 0usize;
        for (_, _, key) in &self.order {
            let Some(state) = self.states.get(key) else { continue };
            for (sum, span) in around.site_writes.iter_mut().zip([0, 2, 1]) {
                *sum += state.fading.at(now.0, span, Of::Writes);
            }
            busy += usize::from(state.last.writes > 0 && is_fresh(state, now));
        }
        around.site_busy = busy as f64 / self.states.len().max(1) as f64;
        around
    }
}

/// The newest tick is of the present: it ended at most two of its lengths ago.
fn is_fresh(state: &State, now: Timestamp) -> bool {
    now.0.saturating_sub(state.last.end.0) <= state.last.span_us.saturating_mul(2)
}

fn neighbour(state: &State, now: Timestamp) -> [f64; 2] {
    let at_end = is_fresh(state, now) && state.last.touched >> 63 != 0;
    [state.fading.at(now.0, 0, Of::Writes), f64::from(u8::from(at_end))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::tick::Tick;

    fn activity(name: &str, end_s: i64, writes: u64) -> Signal {
        let end = Timestamp(end_s * 1_000_000);
        let tick = Tick { end, span_us: 10_000_000, writes, overwrites: writes, ..Tick::default() };
        Signal::Activity { partition: name.into(), tick }
    }

    #[test]
    fn rows_are_sorted_as_people_count() {
        let mut features = Features::new(Setup::default());
        for name in ["t/10", "t/9", "s/1", "t/9"] {
            features.take(&activity(name, 100, 1));
        }
        let rows = features.rows(Timestamp(100_000_000));
        assert_eq!(rows.keys.iter().map(|key| &**key).collect::<Vec<_>>(), ["s/1", "t/9", "t/10"]);
        assert_eq!(rows.values.len(), 3 * row::COUNT);
        assert_eq!(rows.row(2).len(), row::COUNT);
        let names = row::names();
        let before = names.iter().position(|name| name == "before_writes").unwrap();
        assert!(rows.row(2)[before] > 0.0, "t/9 is busy beside t/10");
        assert_eq!(rows.row(1)[before], 0.0, "s/1 is of another family");
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let signals: Vec<Signal> = (0..50).map(|n| activity(&format!("p{n}"), 100, n)).collect();
        let rows = |signals: &mut dyn Iterator<Item = &Signal>| {
            let mut features = Features::new(Setup::default());
            signals.for_each(|signal| features.take(signal));
            features.rows(Timestamp(200_000_000)).hash()
        };
        assert_eq!(rows(&mut signals.iter()), rows(&mut signals.iter().rev()));
    }

    #[test]
    fn there_are_never_more_than_allowed_and_the_busy_ones_stay() {
        let mut features = Features::new(Setup { most: 100, ..Setup::default() });
        for n in 0..1_000 {
            features.take(&activity(&format!("p{n}"), n + 10, 1));
            features.take(&activity("hot", n + 10, 1));
            assert!(features.len() <= 100);
        }
        assert!(features.state("hot").is_some() && features.state("p999").is_some());
        assert!(features.state("p0").is_none());
        features.take(&Signal::Gone { partition: "hot".into(), at: Timestamp(0) });
        assert!(features.state("hot").is_none());
        assert_eq!(features.rows(Timestamp(0)).keys.len(), features.len());
    }

    fn grown(name: &str, end_s: i64, size: u64) -> Signal {
        let end = Timestamp(end_s * 1_000_000);
        let (span_us, growth) = (10_000_000, 1 << 20);
        let tick = Tick { end, span_us, writes: 1, appends: 1, pages: 256, growth, size, ..Tick::default() };
        Signal::Activity { partition: name.into(), tick }
    }

    /// A partition that grows by a MiB every ten seconds, and is split with ten of them; so is the next one.
    fn dividing(features: &mut Features, family: &str, first: u64, count: u64) {
        for n in first..first + count {
            let name = format!("{family}{n}");
            for step in 1..=10 {
                features.take(&grown(&name, (n * 100 + step * 10) as i64, step << 20));
            }
            let at = Timestamp((n as i64 * 100 + 101) * 1_000_000);
            let (children, point) = (Vec::new(), None);
            features.take(&Signal::Split { partition: Key::from(name.as_str()), at, children, point });
            features.take(&Signal::Gone { partition: name.into(), at: Timestamp(at.0 + 1) });
        }
    }

    fn value(features: &Features, now_s: i64, key: &str, name: &str) -> f64 {
        let rows = features.rows(Timestamp(now_s * 1_000_000));
        let index = rows.keys.iter().position(|have| &**have == key).unwrap();
        let column = row::names().iter().position(|have| have == name).unwrap();
        f64::from(rows.row(index)[column])
    }

    #[test]
    fn a_partition_is_measured_against_the_splits_of_its_kin() {
        let mut features = Features::new(Setup::default());
        features.take(&grown("t/1000", 90, 10 << 20));
        assert_eq!(value(&features, 95, "t/1000", "splits_known"), 0.0, "nothing is known yet");
        dividing(&mut features, "t/", 1, 5);
        // The sixth has half of what the others were split with.
        for step in 1..=5 {
            features.take(&grown("t/6", 600 + step * 10, (step as u64) << 20));
        }
        let value = |name: &str| value(&features, 650, "t/6", name);
        assert!((value("splits_known") - 6f64.ln()).abs() < 1e-3);
        assert!((value("split_size") + 2f64.ln()).abs() < 0.01, "{}", value("split_size"));
        assert!((value("split_age") + 2f64.ln()).abs() < 0.05, "{}", value("split_age"));
        // Five MiB more at the rate of the last minute, which does not know all of its ten seconds a MiB yet.
        let secs = value("split_size_secs_60s").exp_m1();
        assert!((45.0..120.0).contains(&secs), "{secs}");
        // The last split was 49 s ago, and they come every 100 s.
        assert!((value("split_near").exp_m1() - 49.0).abs() < 0.1);
        assert!((value("split_next").exp_m1() - 51.0).abs() < 1.0);
        assert!((value("split_overdue") - (50f64.ln() - 101f64.ln())).abs() < 0.05);
    }

    #[test]
    fn a_family_without_splits_is_measured_against_those_of_the_site() {
        let mut features = Features::new(Setup::default());
        dividing(&mut features, "a/", 1, 3);
        features.take(&grown("b/7", 500, 5 << 20));
        let known = |features: &Features, key: &str| value(features, 500, key, "splits_known");
        assert!((known(&features, "b/7") - 4f64.ln()).abs() < 1e-3);
        let at = Timestamp(501_000_000);
        features.take(&Signal::Split { partition: "b/7".into(), at, children: Vec::new(), point: None });
        assert!((known(&features, "b/7") - 2f64.ln()).abs() < 1e-3, "its own count now");
        // It lives on, and is measured from its split.
        features.take(&grown("b/7", 510, 6 << 20));
        assert_eq!(features.state("b/7").unwrap().gathered(), 1 << 20);
        features.take(&grown("b/7", 520, 1 << 19));
        assert_eq!(features.state("b/7").unwrap().gathered(), 1 << 19, "it was made smaller");
    }

    #[test]
    fn a_child_is_born_when_its_parent_is_split() {
        let mut features = Features::new(Setup::default());
        dividing(&mut features, "t/", 1, 5);
        // The last split was told at 601 s, and they come every 100 s: born one second after it, and half way.
        let born = |features: &Features, key: &str| value(features, 700, key, "split_born");
        let new = |features: &mut Features, key: &str, first_s: i64| {
            features.take(&grown(key, first_s + 10, 1 << 20));
        };
        new(&mut features, "t/6", 602);
        new(&mut features, "t/7", 650);
        assert!((born(&features, "t/6") - (2f64.ln() - 101f64.ln())).abs() < 0.05);
        assert!((born(&features, "t/7") - (50f64.ln() - 101f64.ln())).abs() < 0.05);
        // The next split makes the other a child, for it was made just before.
        let (at, children, point) = (Timestamp(651_000_000), Vec::new(), None);
        features.take(&Signal::Split { partition: "t/6".into(), at, children, point });
        assert!(features.state("t/7").unwrap().born_apart == Some(1.0));
        assert!(features.state("t/6").unwrap().born_apart == Some(1.0), "not by its own");
        new(&mut features, "s/1", 651);
        assert_eq!(born(&features, "s/1"), 10.0, "of another family");
    }

    #[test]
    fn families_with_splits_are_never_more_than_allowed() {
        let mut features = Features::new(Setup::default());
        for n in 0..FAMILIES_MOST as i64 + 9 {
            let partition = Key::from(format!("f{n}/1"));
            features.take(&Signal::Split { partition, at: Timestamp(n), children: Vec::new(), point: None });
        }
        assert_eq!(features.pasts.len(), FAMILIES_MOST);
        assert!(!features.pasts.contains_key("f8/") && features.pasts.contains_key("f9/"));
    }

    #[test]
    fn families_end_in_numbers() {
        assert_eq!(family("base/5/16397"), ("base/5/", 16397));
        assert_eq!(family("shop/t#P#p0"), ("shop/t#P#p", 0));
        assert_eq!(family("app.db"), ("app.db", 0));
        assert_eq!(family("x99999999999999999999999999"), ("x", 0));
        assert_eq!(family(""), ("", 0));
    }
}
