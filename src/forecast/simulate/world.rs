//! Partitions, their shadows, and what has gathered since.

use super::instants::Restored;
use super::{Report, Restores};
use crate::forecast::policy::{Candidate, Costs};
use crate::forecast::predictor::Forecast;
use crate::forecast::signal::Key;
use crate::forecast::tick::Union;
use crate::forecast::trace::{Line, Trace, What};
use crate::types::{PAGE, Timestamp};
use std::collections::{BTreeMap, HashMap};

#[derive(Default)]
struct Shadow {
    made: Timestamp,
    bytes: f64,
    used: bool,
}

#[derive(Default)]
struct Partition {
    size: u64,
    /// Since its shadow, and since the trace began.
    gathered: Union,
    written: f64,
    shadow: Option<Shadow>,
}

/// See the head of this file.
pub(super) struct World {
    policy: &'static str,
    costs: Costs,
    partitions: BTreeMap<Key, Partition>,
    /// Names by number, as far as they were seen.
    names: HashMap<u32, Key>,
    told: Timestamp,
    restores: [(Restores, f64); 4],
    ready: (u64, u64),
    pub budget_bytes: f64,
    baked: f64,
    bakes: u64,
    wasted: f64,
}

const SITE: usize = 0;
const BURSTS: usize = 1;
const SPLITS: usize = 2;
const LOSSES: usize = 3;
/// A child is ready when so much of what was written is in the shadow.
const READY: f64 = 0.9;

impl World {
    pub fn new(policy: &'static str, costs: Costs) -> World {
        World {
            policy,
            costs,
            partitions: BTreeMap::new(),
            names: HashMap::new(),
            told: Timestamp(0),
            restores: Default::default(),
            ready: (0, 0),
            budget_bytes: 0.0,
            baked: 0.0,
            bakes: 0,
            wasted: 0.0,
        }
    }

    /// What a line tells happens.
    pub fn take(&mut self, line: &Line, trace: &Trace) {
        let name = usize::try_from(line.partition).ok().and_then(|index| trace.names.get(index));
        let Some(name) = name else { return };
        self.told = line.at();
        match line.what {
            What::Tick(tick) => {
                self.names.entry(line.partition).or_insert_with(|| Key::clone(name));
                let partition = self.partitions.entry(Key::clone(name)).or_default();
                partition.size = tick.size;
                partition.gathered.add(&tick);
                partition.written += tick.pages as f64;
            }
            What::Gone { .. } => {
                if let Some(shadow) = self.partitions.remove(name).and_then(|gone| gone.shadow) {
                    self.wasted += if shadow.used { 0.0 } else { shadow.bytes };
                }
            }
            What::Split { .. } => {}
        }
    }

    /// What may be baked.
    pub fn candidates(&self, said: Vec<(Key, Option<Forecast>)>) -> Vec<Candidate> {
        let said: HashMap<Key, Option<Forecast>> = said.into_iter().collect();
        let candidate = |(key, partition): (&Key, &Partition)| Candidate {
            key: Key::clone(key),
            forecast: said.get(key).copied().flatten(),
            delta_pages: partition.gathered.pages(),
            size: partition.size,
            shadow_secs: partition
                .shadow
                .as_ref()
                .map(|shadow| (self.told.0 - shadow.made.0).max(0) as f64 / 1e6),
        };
        let changed = self.partitions.iter().filter(|(_, partition)| partition.gathered.pages() >= 1.0);
        changed.map(candidate).collect()
    }

    /// A shadow of the present is made.
    pub fn bake(&mut self, name: &str, bytes: f64, now: Timestamp) {
        let Some(partition) = self.partitions.get_mut(name) else { return };
        let made = Shadow { made: now, bytes, used: false };
        if let Some(before) = partition.shadow.replace(made) {
            self.wasted += if before.used { 0.0 } else { before.bytes };
        }
        partition.gathered.clear();
        partition.written = 0.0;
        self.baked += bytes;
        self.bakes += 1;
    }

    /// Restores that are wanted now, of what was before now.
    pub fn restore(&mut self, wanted: &[Restored]) {
        for restored in wanted {
            match restored {
                Restored::Site => {
                    let all: Vec<Key> = self.partitions.keys().map(Key::clone).collect();
                    let one = all.iter().map(|key| self.one(key));
                    let sum = one.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
                    self.count(SITE, sum);
                }
                Restored::Burst(number) => self.incident(BURSTS, *number),
                Restored::Split(number) => {
                    self.note_ready(*number);
                    self.incident(SPLITS, *number);
                }
                Restored::Loss(number) => self.incident(LOSSES, *number),
            }
        }
    }

    fn incident(&mut self, kind: usize, number: u32) {
        let Some(key) = self.names.get(&number).map(Key::clone) else { return };
        if self.partitions.contains_key(&key) {
            let cost = self.one(&key);
            self.count(kind, cost);
        }
    }

    fn note_ready(&mut self, number: u32) {
        let Some(partition) = self.names.get(&number).and_then(|key| self.partitions.get(key)) else { return };
        let whole = (partition.size as f64 / PAGE as f64).max(1.0);
        let ready = partition.shadow.is_some() && partition.gathered.pages() <= (1.0 - READY) * whole;
        self.ready.0 += u64::from(ready);
        self.ready.1 += 1;
    }

    /// Extents to look for, and bytes to read, to restore one.
    fn one(&mut self, key: &str) -> (f64, f64) {
        let Some(partition) = self.partitions.get_mut(key) else { return (0.0, 0.0) };
        if let Some(shadow) = &mut partition.shadow {
            shadow.used = true;
        }
        let extents = partition.gathered.pages();
        (extents, partition.size as f64 + extents * PAGE as f64)
    }

    fn count(&mut self, kind: usize, (extents, bytes): (f64, f64)) {
        let Some((sum, secs)) = self.restores.get_mut(kind) else { return };
        sum.instants += 1;
        sum.extents += extents;
        sum.bytes += bytes;
        *secs += extents * self.costs.seek_secs + bytes / self.costs.bytes_per_sec;
    }

    fn mean(&self, kinds: &[usize]) -> Restores {
        let mut all = Restores::default();
        for (sum, secs) in kinds.iter().filter_map(|kind| self.restores.get(*kind)) {
            all.instants += sum.instants;
            all.extents += sum.extents;
            all.bytes += sum.bytes;
            all.secs += secs;
        }
        let count = all.instants.max(1) as f64;
        let (extents, bytes, secs) = (all.extents / count, all.bytes / count, all.secs / count);
        Restores { instants: all.instants, extents, bytes, secs }
    }

    /// What came of it. Shadows that are left and were not used are wasted, too.
    pub fn report(&self) -> Report {
        let left = self.partitions.values().filter_map(|partition| partition.shadow.as_ref());
        let unused: f64 = left.filter(|shadow| !shadow.used).map(|shadow| shadow.bytes).sum();
        let (ready, all) = self.ready;
        Report {
            policy: self.policy,
            random: self.mean(&[SITE]),
            incidents: self.mean(&[BURSTS, SPLITS, LOSSES]),
            bursts: self.mean(&[BURSTS]),
            splits: self.mean(&[SPLITS]),
            losses: self.mean(&[LOSSES]),
            splits_ready: (all > 0).then(|| ready as f64 / all as f64),
            budget_bytes: self.budget_bytes,
            baked_bytes: self.baked,
            bakes: self.bakes,
            wasted_bytes: self.wasted + unused,
        }
    }
}
