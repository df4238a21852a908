//! The best that can be done by someone who knows what comes: which partition to bake after which step.
//!
//! Baking is a choice of steps for each partition. Its cost is what the instants between two bakes have to look for, and
//! its price the bytes. For a price per byte the best choice of one partition is a shortest path, and partitions do not
//! depend on each other (Lagrange's relaxation; Fisher, Management Science 1981). Two plans at nearly the same price stand on
//! both sides of the budget: mixed so that together they take just the budget they are the best of all mixtures, and no
//! plan that takes at most the budget has a lower cost. That the budget gathers over time does not bind them.

use super::clock::Clock;
use super::instants::Instants;
use super::report::Weights;
use super::world::World;
use crate::forecast::policy::bake_bytes;
use crate::forecast::tick::{Tick, Union};
use crate::forecast::trace::{Trace, What};
use std::collections::BTreeMap;

/// Prices that are tried at once.
const PRICES: usize = 16;
/// How often the gap between two of them is divided again.
const ROUNDS: usize = 6;
/// Prices from 2^-`BELOW` per budget on, each this many times the one before.
const BELOW: i32 = 40;
const APART: f64 = 16.0;

/// Partitions to bake after each step.
pub(super) type Plan = BTreeMap<usize, Vec<u32>>;

/// A partition from where it is at the beginning, or from its first line, until it is gone.
struct Life {
    partition: u32,
    gathered: Union,
    has_shadow: bool,
    stops: Vec<Stop>,
}

/// A step after which it may be baked, and what happens in it.
#[derive(Default)]
struct Stop {
    step: usize,
    size: u64,
    ticks: Vec<Tick>,
    /// Of the instants after it, up to the next stop: what an extent counts.
    weight: f64,
}

/// Plans from `world` as it is after step `clock.begin`: one that takes at most the budget, and one that takes at least the
/// budget or all that is of use.
pub(super) fn plans(
    (trace, clock): (&Trace, &Clock),
    world: &World,
    (instants, weights): (&Instants, &Weights),
    budget: f64,
) -> [Plan; 2] {
    let lives = lives(trace, clock, world, instants, weights);
    let bytes_at = |prices: &[f64]| {
        let mut sums = vec![0.0; prices.len()];
        for life in &lives {
            for (sum, way) in sums.iter_mut().zip(ways(life, prices)) {
                *sum += way.bytes;
            }
        }
        sums
    };
    let prices = prices(budget, bytes_at);
    let mut plans = [Plan::new(), Plan::new()];
    for life in &lives {
        for (plan, way) in plans.iter_mut().zip(ways(life, &prices)) {
            for stop in way.stops.iter().filter_map(|stop| life.stops.get(*stop)) {
                plan.entry(stop.step).or_default().push(life.partition);
            }
        }
    }
    plans
}

/// Two prices next to each other: at the first at most the budget is taken, at the other more, unless nothing more is of use.
fn prices(budget: f64, bytes_at: impl Fn(&[f64]) -> Vec<f64>) -> [f64; 2] {
    if budget <= 0.0 {
        return [f64::INFINITY; 2];
    }
    // Costs are shares of one, so a price is a share per byte. The first is too high for anything.
    let (mut high, mut low, mut apart) = (f64::INFINITY, 0.0, APART);
    let mut from = 2f64.powi(-BELOW) / budget;
    for round in 0..ROUNDS {
        let tried: Vec<f64> = (0i32..).take(PRICES).map(|n| from * apart.powi(n)).collect();
        let bytes = bytes_at(&tried);
        let Some(at) = bytes.iter().rposition(|bytes| *bytes > budget) else {
            if round == 0 {
                return [0.0; 2];
            }
            break;
        };
        low = tried.get(at).copied().unwrap_or(low);
        high = tried.get(at + 1).copied().unwrap_or(high);
        (from, apart) = (low, apart.powf(1.0 / PRICES as f64));
    }
    [high, low]
}

/// What is best from a stop on.
#[derive(Clone, Default)]
struct Way {
    /// Cost and price.
    sum: f64,
    bytes: f64,
    /// Where it is baked next; `None`: never again.
    next: Option<usize>,
    stops: Vec<usize>,
}

/// The best way through a life, for each price.
fn ways(life: &Life, prices: &[f64]) -> Vec<Way> {
    let count = life.stops.len();
    // From each stop at which it was baked, and last from the beginning.
    let mut best: Vec<Vec<Way>> = vec![vec![Way::default(); prices.len()]; count];
    for from in (0..count).rev() {
        let ways = onward(life, &best, (from + 1, Union::default(), true), prices);
        if let Some(slot) = best.get_mut(from) {
            *slot = ways;
        }
    }
    let mut first = onward(life, &best, (0, life.gathered.clone(), life.has_shadow), prices);
    for (index, way) in first.iter_mut().enumerate() {
        let mut next = way.next;
        while let Some(stop) = next {
            way.stops.push(stop);
            next = best.get(stop).and_then(|ways| ways.get(index)).and_then(|way| way.next);
        }
    }
    first
}

/// The best ways from before stop `from`, with what has gathered by then.
fn onward(
    life: &Life,
    best: &[Vec<Way>],
    (from, mut gathered, has_shadow): (usize, Union, bool),
    prices: &[f64],
) -> Vec<Way> {
    let mut ways = vec![Way { sum: f64::INFINITY, ..Way::default() }; prices.len()];
    let mut cost = 0.0;
    for (index, stop) in life.stops.iter().enumerate().skip(from) {
        stop.ticks.iter().for_each(|tick| gathered.add(tick));
        let bytes = bake_bytes(gathered.pages(), stop.size, has_shadow);
        for ((way, price), then) in ways.iter_mut().zip(prices).zip(best.get(index).into_iter().flatten()) {
            let (sum, bytes) = (cost + price * bytes + then.sum, bytes + then.bytes);
            // Of equal ones the one that takes less.
            let better = sum < way.sum || sum <= way.sum && bytes < way.bytes;
            if better && gathered.pages() > 0.0 {
                *way = Way { sum, bytes, next: Some(index), stops: Vec::new() };
            }
        }
        cost += stop.weight * gathered.extents();
    }
    for way in &mut ways {
        if cost <= way.sum {
            *way = Way { sum: cost, ..Way::default() };
        }
    }
    ways
}

fn lives(trace: &Trace, clock: &Clock, world: &World, instants: &Instants, weights: &Weights) -> Vec<Life> {
    let mut open: Vec<Option<Life>> =
        (0u32..).zip(&trace.names).map(|(number, _)| at_begin(number, clock, world)).collect();
    let mut done = Vec::new();
    for line in &trace.lines {
        let step = clock.step_of(line.at());
        let slot = usize::try_from(line.partition).ok().and_then(|index| open.get_mut(index));
        let Some(slot) = slot.filter(|_| step > clock.begin) else { continue };
        match line.what {
            What::Tick(tick) => {
                let life = slot.get_or_insert_with(|| Life::new(line.partition));
                life.take(step, tick);
            }
            // In the step in which it goes nobody decides on it any more.
            What::Gone { .. } => done.extend(slot.take().map(|mut life| {
                life.stops.retain(|stop| stop.step < step);
                (life, step)
            })),
            What::Split { .. } | What::Query { .. } | What::Ddl { .. } => {}
        }
    }
    done.extend(open.into_iter().flatten().map(|life| (life, usize::MAX)));
    weigh(&mut done, instants, weights, trace.names.len());
    done.into_iter().map(|(life, _)| life).collect()
}

/// The partition as the world has it: it may be baked at once.
fn at_begin(number: u32, clock: &Clock, world: &World) -> Option<Life> {
    let partition = world.get(number)?;
    let stop = Stop { step: clock.begin, size: partition.size, ..Stop::default() };
    Some(Life {
        partition: number,
        gathered: partition.gathered.clone(),
        has_shadow: partition.has_shadow(),
        stops: vec![stop],
    })
}

impl Life {
    fn new(partition: u32) -> Life {
        Life { partition, gathered: Union::default(), has_shadow: false, stops: Vec::new() }
    }

    fn take(&mut self, step: usize, tick: Tick) {
        if self.stops.last().is_none_or(|stop| stop.step != step) {
            self.stops.push(Stop { step, ..Stop::default() });
        }
        if let Some(stop) = self.stops.last_mut() {
            stop.size = tick.size;
            stop.ticks.push(tick);
        }
    }
}

/// Lays each instant's weight on the stop before it.
fn weigh(lives: &mut [(Life, usize)], instants: &Instants, weights: &Weights, partitions: usize) {
    let mut by_partition: Vec<Vec<usize>> = vec![Vec::new(); partitions];
    for (index, (life, _)) in lives.iter().enumerate() {
        let list = usize::try_from(life.partition).ok().and_then(|number| by_partition.get_mut(number));
        list.into_iter().for_each(|list| list.push(index));
    }
    let mut lay = |index: usize, step: usize, weight: f64| {
        let Some((life, end)) = lives.get_mut(index) else { return };
        let before = life.stops.partition_point(|stop| stop.step < step);
        if let Some(stop) =
            before.checked_sub(1).and_then(|at| life.stops.get_mut(at)).filter(|_| step <= *end)
        {
            stop.weight += weight;
        }
    };
    for (step, restored) in instants.all() {
        let weight = weights.at(*restored);
        match restored.partition() {
            None => by_partition.iter().flatten().for_each(|index| lay(*index, *step, weight)),
            Some(number) => {
                let list = usize::try_from(number).ok().and_then(|number| by_partition.get(number));
                list.into_iter().flatten().for_each(|index| lay(*index, *step, weight));
            }
        }
    }
}
