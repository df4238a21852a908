//! Partitions, their shadows, and what has gathered since.

use super::instants::Restored;
use crate::forecast::policy::Candidate;
use crate::forecast::signal::Key;
use crate::forecast::tick::Union;
use crate::forecast::trace::{Line, What};
use crate::types::{PAGE, Timestamp};

/// A child is ready when so much of the parent is in the shadow.
const READY: f64 = 0.9;

#[derive(Clone, Debug)]
struct Shadow {
    made: Timestamp,
    bytes: f64,
    used: bool,
}

/// A partition that is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Partition {
    pub size: u64,
    /// Since its shadow; without one since it was first seen.
    pub gathered: Union,
    shadow: Option<Shadow>,
}

impl Partition {
    pub fn has_shadow(&self) -> bool {
        self.shadow.is_some()
    }
}

/// What a restore takes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Taken {
    pub extents: f64,
    pub bytes: f64,
    /// Of a split: its shadow had nearly all of it.
    pub ready: bool,
}

/// See the head of this file. Partitions by their number in the trace.
#[derive(Clone, Debug)]
pub(super) struct World {
    partitions: Vec<Option<Partition>>,
    pub baked: f64,
    pub bakes: u64,
    wasted: f64,
}

impl World {
    pub fn new(partitions: usize) -> World {
        World { partitions: vec![None; partitions], baked: 0.0, bakes: 0, wasted: 0.0 }
    }

    /// From here on bytes are counted anew; what is there stays.
    pub fn begin_count(&mut self) {
        (self.baked, self.bakes, self.wasted) = (0.0, 0, 0.0);
        for shadow in self.partitions.iter_mut().flatten().filter_map(|partition| partition.shadow.as_mut()) {
            // Not of those who are judged.
            shadow.bytes = 0.0;
        }
    }

    pub fn get(&self, number: u32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(number).ok()?)?.as_ref()
    }

    fn slot(&mut self, number: u32) -> Option<&mut Option<Partition>> {
        self.partitions.get_mut(usize::try_from(number).ok()?)
    }

    /// What a line tells happens.
    pub fn take(&mut self, line: &Line) {
        let Some(slot) = self.slot(line.partition) else { return };
        match line.what {
            What::Tick(tick) => {
                let partition = slot.get_or_insert_default();
                partition.size = tick.size;
                partition.gathered.add(&tick);
            }
            What::Gone { .. } => {
                let gone = slot.take();
                self.wasted += gone.and_then(|gone| gone.shadow).map_or(0.0, |shadow| unused(&shadow));
            }
            What::Split { .. } | What::Query { .. } | What::Ddl { .. } => {}
        }
    }

    /// What may be baked at `now`, with its number.
    pub fn candidates(&self, names: &[Key], now: Timestamp, least_bytes: u64) -> Vec<(u32, Candidate)> {
        let candidate = |(number, (partition, key)): (u32, (&Option<Partition>, &Key))| {
            let partition = partition.as_ref()?;
            let delta_pages = partition.gathered.pages();
            let worth = delta_pages >= 1.0 && partition.size >= least_bytes;
            let made = partition.shadow.as_ref().map(|shadow| shadow.made);
            worth.then(|| {
                let candidate = Candidate {
                    key: Key::clone(key),
                    forecast: None,
                    new_share: 0.0,
                    delta_pages,
                    extents: partition.gathered.extents(),
                    size: partition.size,
                    shadow_secs: made.map(|made| (now.0 - made.0).max(0) as f64 / 1e6),
                    held: None,
                };
                (number, candidate)
            })
        };
        (0..).zip(self.partitions.iter().zip(names)).filter_map(candidate).collect()
    }

    /// A shadow of the present is made.
    pub fn bake(&mut self, number: u32, bytes: f64, now: Timestamp) {
        let Some(partition) = self.slot(number).and_then(Option::as_mut) else { return };
        let made = Shadow { made: now, bytes, used: false };
        let before = partition.shadow.replace(made);
        partition.gathered.clear();
        self.wasted += before.as_ref().map_or(0.0, unused);
        self.baked += bytes;
        self.bakes += 1;
    }

    /// Restores something as it is now.
    pub fn restore(&mut self, restored: Restored) -> Option<Taken> {
        match restored.partition() {
            None => {
                let mut sum = Taken::default();
                for partition in self.partitions.iter_mut().flatten() {
                    let taken = one(partition);
                    sum.extents += taken.extents;
                    sum.bytes += taken.bytes;
                }
                Some(sum)
            }
            Some(number) => self.slot(number)?.as_mut().map(one),
        }
    }

    /// Bytes baked for shadows that no restore used.
    pub fn wasted(&self) -> f64 {
        let left = self.partitions.iter().flatten().filter_map(|partition| partition.shadow.as_ref());
        self.wasted + left.map(unused).sum::<f64>()
    }
}

fn unused(shadow: &Shadow) -> f64 {
    if shadow.used { 0.0 } else { shadow.bytes }
}

fn one(partition: &mut Partition) -> Taken {
    let pages = partition.gathered.pages();
    let whole = (partition.size as f64 / PAGE as f64).max(1.0);
    let ready = partition.shadow.is_some() && pages <= (1.0 - READY) * whole;
    if let Some(shadow) = &mut partition.shadow {
        shadow.used = true;
    }
    Taken { extents: partition.gathered.extents(), bytes: partition.size as f64 + pages * PAGE as f64, ready }
}
