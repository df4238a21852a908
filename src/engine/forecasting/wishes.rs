//! From forecasts to wishes for shadows: what the policy finds worth its cost, within what shadows may read and write.

use super::collect::Collector;
use crate::engine::{Engine, Foreseen};
use crate::forecast::policy::{Candidate, Costs, Decision};
use crate::forecast::tick::{Tick, Union};
use crate::forecast::{Forecast, Key};
use crate::lineage::partition::is_log;
use crate::shadow::{Reason, Subject, Wish};
use crate::types::Timestamp;
use std::collections::HashMap;

/// A smaller partition is read fast enough without a shadow.
const LEAST_BYTES: u64 = 4 << 20;

/// What has gathered of each partition since its newest shadow, or since the mount.
#[derive(Default)]
pub(super) struct Gathered {
    since: HashMap<Key, (Timestamp, Union)>,
}

impl Gathered {
    pub fn add(&mut self, key: &Key, tick: &Tick) {
        if tick.writes > 0 {
            let begun = Timestamp(tick.end.0 - tick.span_us);
            self.since.entry(Key::clone(key)).or_insert_with(|| (begun, Union::default())).1.add(tick);
        }
    }

    pub fn forget(&mut self, key: &str) {
        self.since.remove(key);
    }

    /// Pages and extents since the newest shadow, which was made at `made`.
    fn of(&mut self, key: &str, made: Option<Timestamp>) -> (f64, f64) {
        let Some((since, union)) = self.since.get_mut(key) else { return (0.0, 0.0) };
        if let Some(made) = made.filter(|made| made > since) {
            *since = made;
            union.clear();
        }
        (union.pages(), union.extents())
    }
}

impl Engine {
    /// Decides on all partitions, and wishes for what is worth it. Where the forecasts do not count, the standard rule of
    /// the shadows goes on alone.
    pub(super) fn forecast_wishes(&self) {
        let forecasting = &self.forecasting;
        if !self.shadowing.limits.on {
            return;
        }
        let made = self.newest_shadows();
        let candidates = self.bake_candidates(&made);
        let rate = self.shadowing.limits.bytes_per_sec as f64;
        let mut service = forecasting.service.lock();
        let decisions = service.decide(candidates, &Costs::default(), rate).to_vec();
        let (counts, made_at) = (service.counts(), service.made_at());
        let said = |decision: Decision| (service.forecast_of(&decision.partition), decision);
        let wanted = decisions.into_iter().filter(|decision| counts && decision.bake).map(said);
        let wanted: Vec<(Option<Forecast>, Decision)> = wanted.collect();
        drop(service);
        for (forecast, decision) in wanted {
            let subject = self.subject(&decision.partition);
            let (benefit, reason) = (decision.benefit_secs, Reason::Forecast);
            self.wish(Wish {
                subject: subject.clone(),
                pages: None,
                at: None,
                benefit,
                reason,
                urgent: false,
            });
            if let Some(forecast) = forecast {
                self.shadowing.foresee(subject, Foreseen::new(made_at, &forecast));
            }
        }
    }

    /// When the newest shadow of each partition was made, of those that are kept up to date.
    fn newest_shadows(&self) -> HashMap<String, Timestamp> {
        let list = self.shadowing.shadows.list();
        let whole = list.iter().filter(|shadow| shadow.follows && shadow.pages.is_none());
        whole.map(|shadow| (shadow.subject.to_string(), shadow.made())).collect()
    }

    fn bake_candidates(&self, made: &HashMap<String, Timestamp>) -> Vec<Candidate> {
        let now = self.now();
        let wished = self.wished_partitions();
        let limit = self.shadowing.limits.bytes;
        let mut collector = self.forecasting.collector.lock();
        let Collector { sizes, gathered, .. } = &mut *collector;
        let large = sizes.iter().filter(|(key, size)| {
            let name = key.rsplit_once(':').map_or(&***key, |(_, name)| name);
            **size >= LEAST_BYTES && !is_log(name.as_bytes())
        });
        let mut candidates: Vec<Candidate> = large
            .map(|(key, size)| {
                let made = made.get(&**key).copied();
                let (delta_pages, extents) = gathered.of(key, made);
                Candidate {
                    key: Key::clone(key),
                    forecast: None,
                    new_share: 0.0,
                    delta_pages,
                    extents,
                    size: *size,
                    shadow_secs: made.map(|made| (now.0 - made.0).max(0) as f64 / 1e6),
                    held: match made {
                        _ if wished.contains(&**key) => Some("a shadow of it is wished for already"),
                        None if *size > limit => Some("it is larger than shadow_limit_mib"),
                        _ => None,
                    },
                }
            })
            .collect();
        candidates.sort_by(|a, b| a.key.cmp(&b.key));
        candidates
    }

    fn subject(&self, key: &str) -> Subject {
        let roots = self.roots().unwrap_or_default();
        let of_root = key
            .split_once(':')
            .filter(|(root, _)| !root.is_empty() && roots.iter().any(|info| info.name == root.as_bytes()));
        let (root, name) = of_root.unwrap_or(("", key));
        Subject { root: root.into(), partition: name.into() }
    }
}
