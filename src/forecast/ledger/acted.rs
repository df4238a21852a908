//! Forecasts that something followed from: a shadow was made, or a split was said. The ledger notes all partitions a quarter of a
//! horizon apart; these are noted each by itself, when they were made, with what came of them.
//!
//! Invariants: at most [`KEPT`] in the file, the oldest go first, and of them those of the last day wait in memory for what
//! comes; of one partition a split is said again only when what was said of it last is past.

use crate::error::Result;
use crate::forecast::predictor::{Forecast, SPLIT_HORIZONS};
use crate::forecast::signal::Signal;
use crate::meta::store::{Store, Table};
use crate::types::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Rows of the file.
const KEPT: u64 = 4_096;
/// From this probability on a forecast says a split.
const SAID: f32 = 0.5;
/// What came of a forecast is looked for so long, µs.
const WATCHED_US: i64 = 86_400_000_000;
/// Gaps of so long in what is told are none, µs.
const GAP_US: i64 = 300_000_000;

/// When it was made, and of which partition.
pub type Id = (Timestamp, String);

/// By time, then partition.
const ACTED: Table<Id, Acted> = Table::new("acted", 1);

/// A forecast that something followed from.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Acted {
    pub model: String,
    /// BLAKE3 of the features of that moment.
    pub inputs: String,
    /// The outputs, as a model gives them: of every horizon.
    pub said: Vec<f32>,
    /// A shadow was wished for, and why.
    pub baked: Option<String>,
    /// The shortest horizon within which a split was likelier than not, seconds.
    pub split_within: Option<u32>,
    /// Seconds to the first split that came.
    pub split_after: Option<f32>,
    /// Up to here splits would have been seen, µs UTC.
    pub seen_us: i64,
}

impl Acted {
    /// What the model said.
    pub fn forecast(&self) -> Option<Forecast> {
        Forecast::from_row(&self.said)
    }
}

/// The shortest horizon within which a forecast says a split, seconds.
pub fn says_split(forecast: &Forecast) -> Option<u32> {
    let mut said = SPLIT_HORIZONS.into_iter().zip(forecast.p_split);
    said.find(|(_, share)| *share >= SAID).map(|(secs, _)| secs)
}

fn due_us(at: Timestamp) -> i64 {
    at.0.saturating_add(WATCHED_US)
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct ActedOn {
    waiting: BTreeMap<Id, Acted>,
    /// Until when what was said of a partition stands, µs UTC.
    said_until: HashMap<String, i64>,
    /// Not stored yet as they are.
    changed: BTreeSet<Id>,
}

impl ActedOn {
    /// Notes a forecast, unless nothing followed from it: no shadow, and no split that was not said already.
    pub fn note(&mut self, (at, partition): (Timestamp, &str), mut acted: Acted) {
        let is_said = self.said_until.get(partition).is_some_and(|until| at.0 < *until);
        let id = (at, partition.to_owned());
        let is_new = acted.baked.is_some() || acted.split_within.is_some() && !is_said;
        if !is_new || self.waiting.contains_key(&id) {
            return;
        }
        self.say(at, partition, &acted);
        if self.waiting.len() as u64 >= KEPT {
            self.waiting.pop_first();
        }
        acted.seen_us = at.0;
        self.changed.insert(id.clone());
        self.waiting.insert(id, acted);
    }

    fn say(&mut self, at: Timestamp, partition: &str, acted: &Acted) {
        if let (Some(secs), None) = (acted.split_within, acted.split_after) {
            let until = self.said_until.entry(partition.to_owned()).or_default();
            *until = at.0.saturating_add(i64::from(secs) * 1_000_000).max(*until);
        }
    }

    /// Takes in what happened.
    pub fn take(&mut self, signal: &Signal) {
        let Signal::Split { partition, at, .. } = signal else { return };
        self.said_until.remove(&**partition);
        for (id, acted) in &mut self.waiting {
            let is_of = id.1 == **partition && (id.0.0 + 1..=due_us(id.0)).contains(&at.0);
            if is_of && acted.split_after.is_none() {
                acted.split_after = Some((at.0 - id.0.0) as f32 / 1e6);
                self.changed.insert(id.clone());
            }
        }
    }

    /// Time has passed, and its signals were told: from `since` to `now`.
    pub fn pass(&mut self, since: Timestamp, now: Timestamp) {
        for (id, acted) in &mut self.waiting {
            if since.0.saturating_sub(acted.seen_us) <= GAP_US {
                acted.seen_us = acted.seen_us.max(now.0.min(due_us(id.0)));
            }
        }
    }

    /// Gives up what waits: nobody will see what comes of it.
    pub fn give_up(&mut self) {
        *self = ActedOn::default();
    }

    /// Stores what is new, and what has become of those that are past. One transaction.
    ///
    /// # Errors
    /// Nothing of it is stored; it is tried again.
    pub fn save(&mut self, store: &Store, now: Timestamp) -> Result<()> {
        let past = self.waiting.keys().filter(|id| due_us(id.0) <= now.0);
        let past: Vec<Id> = past.cloned().collect();
        self.changed.extend(past.iter().cloned());
        if self.changed.is_empty() {
            return Ok(());
        }
        store.write(|tx| {
            for id in &self.changed {
                if let Some(acted) = self.waiting.get(id) {
                    tx.put(&ACTED, id, acted)?;
                }
            }
            let over = tx.count(&ACTED)?.saturating_sub(KEPT);
            let mut old = Vec::new();
            if over > 0 {
                tx.each(&ACTED, .., |id, _| {
                    old.push(id);
                    Ok((old.len() as u64) < over)
                })?;
            }
            old.iter().try_for_each(|id| tx.remove(&ACTED, id))
        })?;
        self.changed.clear();
        past.iter().for_each(|id| drop(self.waiting.remove(id)));
        self.said_until.retain(|_, until| *until > now.0);
        Ok(())
    }

    /// Takes up those whose time has not passed: what happened since has to be told again.
    ///
    /// # Errors
    /// It begins empty.
    pub fn load(&mut self, store: &Store, now: Timestamp) -> Result<()> {
        let since = (Timestamp(now.0.saturating_sub(WATCHED_US)), String::new());
        let rows = store.read(|tx| tx.range(&ACTED, since..))?;
        for (id, acted) in rows.into_iter().filter(|(id, _)| id.0 <= now) {
            self.say(id.0, &id.1, &acted);
            self.waiting.insert(id, acted);
        }
        Ok(())
    }

    /// Those of the partitions that are asked for.
    ///
    /// # Errors
    /// Of the store.
    pub fn of(&self, store: &Store, is_asked: impl Fn(&str) -> bool) -> Result<BTreeMap<Id, Acted>> {
        let mut found = BTreeMap::new();
        store.read(|tx| {
            tx.each(&ACTED, .., |id: Id, acted| {
                if is_asked(&id.1) {
                    found.insert(id, acted);
                }
                Ok(true)
            })
        })?;
        // What waits is newer than what is stored of it.
        let waiting = self.waiting.iter().filter(|(id, _)| is_asked(&id.1));
        found.extend(waiting.map(|(id, acted)| (id.clone(), acted.clone())));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Still;
    use crate::disk::os::OsDisk;
    use crate::sync::Arc;
    use crate::types::StoreId;

    fn store(dir: &std::path::Path) -> Store {
        Store::new(Arc::new(OsDisk::new()), Arc::new(Still), dir, StoreId([1; 16])).unwrap()
    }

    fn says(split_within: Option<u32>, baked: Option<&str>) -> Acted {
        Acted { split_within, baked: baked.map(str::to_owned), ..Acted::default() }
    }

    fn split(partition: &str, at: i64) -> Signal {
        Signal::Split { partition: partition.into(), at: Timestamp(at), children: Vec::new(), point: None }
    }

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_split_is_said_once_and_what_came_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let mut acted = ActedOn::default();
        let at = |secs: i64| Timestamp(secs * SECOND);
        acted.note((at(10), "p"), says(None, None));
        acted.note((at(10), "p"), says(Some(300), None));
        acted.note((at(60), "p"), says(Some(300), None));
        acted.note((at(70), "p"), says(Some(300), Some("worth it")));
        acted.note((at(60), "q"), says(Some(300), None));
        acted.pass(at(10), at(130));
        acted.take(&split("p", 130 * SECOND));
        // It has split: what is said now is of the next one.
        acted.note((at(140), "p"), says(Some(300), None));
        acted.save(&store, at(140)).unwrap();
        let of = |acted: &ActedOn, name: &str| -> Vec<(i64, Option<f32>)> {
            let found = acted.of(&store, |partition| partition == name).unwrap();
            found.into_iter().map(|((at, _), acted)| (at.0 / SECOND, acted.split_after)).collect()
        };
        let p = [(10, Some(120.0)), (70, Some(60.0)), (140, None)];
        assert_eq!((of(&acted, "p"), of(&acted, "q")), (p.to_vec(), vec![(60, None)]));
        // After a restart it waits for what comes, and knows what was said.
        let mut acted = ActedOn::default();
        acted.load(&store, at(200)).unwrap();
        acted.note((at(200), "p"), says(Some(300), None));
        assert_eq!(of(&acted, "p"), p);
        acted.take(&split("p", 210 * SECOND));
        acted.pass(at(140), at(86_400));
        // A daemon that was down has not seen what came.
        acted.pass(at(90_000), at(100_000));
        acted.save(&store, at(100_000)).unwrap();
        let seen = ActedOn::default().of(&store, |_| true).unwrap();
        let seen: Vec<i64> = seen.into_values().map(|acted| acted.seen_us / SECOND).collect();
        assert_eq!(seen, [86_400; 4]);
        assert_eq!(of(&ActedOn::default(), "p")[2], (140, Some(70.0)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let mut acted = ActedOn::default();
        for n in 0..i64::try_from(KEPT).unwrap() + 50 {
            acted.note((Timestamp(n), "p"), says(None, Some("")));
            if n % 1_000 == 0 {
                acted.save(&store, Timestamp(n)).unwrap();
            }
        }
        acted.save(&store, Timestamp(9_999)).unwrap();
        let kept = acted.of(&store, |_| true).unwrap();
        assert_eq!((kept.len() as u64, kept.first_key_value().unwrap().0.0), (KEPT, Timestamp(50)));
    }
}
