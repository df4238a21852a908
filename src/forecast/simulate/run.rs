//! One policy's way through a trace.

use super::oracle::Plan;
use super::report::{Report, Tally};
use super::world::World;
use super::{Policy, Site};
use crate::error::{Error, Result};
use crate::forecast::baseline;
use crate::forecast::features::{Features, Setup, State};
use crate::forecast::policy::{self, Candidate, Decision, bake_bytes};
use crate::forecast::predictor::{Forecast, Predictor, WIDTH};
use crate::forecast::purse::Purse;
use crate::forecast::signal::Key;
use crate::forecast::trace::replay::Replay;
use std::collections::HashMap;

/// See the head of this file.
pub(super) struct Run<'a> {
    site: &'a Site<'a>,
    policy: Policy,
    plan: &'a Plan,
    world: World,
    purse: Purse,
    next_line: usize,
    /// What forecasts are made from; only of those who forecast.
    views: Option<(Features, Replay<'a>)>,
}

impl<'a> Run<'a> {
    pub fn new(site: &'a Site<'a>, policy: Policy, plan: &'a Plan) -> Run<'a> {
        let names = site.trace.names.len();
        let setup = Setup { split_bytes: site.how.splits.split_bytes(), most: names + 1 };
        let forecasts = matches!(policy, Policy::Ewma | Policy::Model);
        let views = || (Features::new(setup), Replay::new(site.trace, site.how.splits));
        let (world, purse) = (World::new(names), Purse::default());
        Run { site, policy, plan, world, purse, next_line: 0, views: forecasts.then(views) }
    }

    /// The world when judging begins.
    pub fn begun(mut self) -> World {
        (0..=self.site.clock.begin).for_each(|step| self.before(step));
        self.world
    }

    /// From the first step to the last.
    pub fn whole(mut self, mut model: Option<&mut (dyn Predictor + '_)>) -> Result<Report> {
        let (site, mut tally) = (self.site, Tally::new());
        let clock = site.clock;
        for step in 0..clock.steps {
            // Instants lie before what happens in their step: nobody knew of it.
            for restored in site.instants.at(step) {
                if let Some(taken) = self.world.restore(restored) {
                    tally.add(restored, &taken, clock.share(step));
                }
            }
            if step <= clock.begin {
                self.before(step);
            } else {
                self.hear(step);
            }
            if step >= clock.begin {
                self.judged(step, model.as_deref_mut())?;
            }
        }
        let budget = site.rate * clock.judged_secs();
        Ok(tally.report(self.policy.name(), &self.world, budget, site.how))
    }

    /// A step before the judged ones: the standard rule, whoever is judged.
    fn before(&mut self, step: usize) {
        self.hear(step);
        let candidates = self.candidates(step);
        self.gather(&candidates);
        let (numbers, candidates): (Vec<u32>, Vec<Candidate>) = candidates.into_iter().unzip();
        let decisions = policy::standard(&candidates, &mut self.purse);
        self.bake(step, &numbers, &candidates, &decisions);
        if step == self.site.clock.begin {
            self.world.begin_count();
            self.purse = Purse::default();
        }
    }

    /// A step that is judged. In the first nothing has gathered yet.
    fn judged(&mut self, step: usize, model: Option<&mut (dyn Predictor + '_)>) -> Result<()> {
        match self.policy {
            Policy::None => return Ok(()),
            Policy::Oracle => {
                self.follow(step);
                return Ok(());
            }
            _ => {}
        }
        let candidates = self.candidates(step);
        if step > self.site.clock.begin {
            self.gather(&candidates);
        }
        let (numbers, mut candidates): (Vec<u32>, Vec<Candidate>) = candidates.into_iter().unzip();
        self.fill_in(step, &mut candidates, model)?;
        let decisions = match self.policy {
            Policy::Standard => policy::standard(&candidates, &mut self.purse),
            _ => policy::decide(&candidates, &self.site.how.costs, &mut self.purse, policy::is_due),
        };
        self.bake(step, &numbers, &candidates, &decisions);
        Ok(())
    }

    /// Hears what happened in a step.
    fn hear(&mut self, step: usize) {
        let end = self.site.clock.end(step);
        let rest = self.site.trace.lines.get(self.next_line..).unwrap_or(&[]);
        let told = rest.iter().take_while(|line| line.at() <= end);
        for line in told {
            self.world.take(line);
            self.next_line += 1;
        }
        if let Some((features, replay)) = &mut self.views {
            replay.upto(end, features);
        }
    }

    fn candidates(&self, step: usize) -> Vec<(u32, Candidate)> {
        let (site, end) = (self.site, self.site.clock.end(step));
        self.world.candidates(&site.trace.names, end, site.how.least_bytes)
    }

    fn gather(&mut self, candidates: &[(u32, Candidate)]) {
        let largest = policy::largest(candidates.iter().map(|(_, candidate)| candidate));
        self.purse.gather(self.site.clock.step_secs(), self.site.rate, largest);
    }

    /// Forecasts, from whoever the policy believes.
    fn fill_in(
        &self,
        step: usize,
        candidates: &mut [Candidate],
        model: Option<&mut (dyn Predictor + '_)>,
    ) -> Result<()> {
        let Some((features, _)) = &self.views else { return Ok(()) };
        let now = self.site.clock.end(step);
        for candidate in candidates.iter_mut() {
            let state = features.state(&candidate.key);
            candidate.new_share = state.map_or(0.0, |state| state.new_share(now));
        }
        if self.policy == Policy::Ewma {
            for candidate in candidates {
                let state = features.state(&candidate.key);
                candidate.forecast =
                    state.and_then(|state| baseline::without_model(state, now, features.split_bytes()));
            }
            return Ok(());
        }
        let model = model.ok_or_else(|| Error::invalid("simulate", "there is no model to ask"))?;
        let asked: HashMap<Key, usize> = candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| (Key::clone(&candidate.key), index))
            .collect();
        let rows = features.rows_of(now, &|key: &Key, _: &State| asked.contains_key(key));
        let mut out = vec![0.0; rows.keys.len() * WIDTH];
        if !rows.keys.is_empty() {
            model.predict(&rows.values, rows.keys.len(), &mut out)?;
        }
        for (key, row) in rows.keys.iter().zip(out.chunks_exact(WIDTH)) {
            let candidate = asked.get(key).and_then(|index| candidates.get_mut(*index));
            candidate.into_iter().for_each(|candidate| candidate.forecast = Forecast::from_row(row));
        }
        Ok(())
    }

    fn bake(&mut self, step: usize, numbers: &[u32], candidates: &[Candidate], decisions: &[Decision]) {
        let now = self.site.clock.end(step);
        let by_name: HashMap<&str, u32> =
            candidates.iter().map(|candidate| &*candidate.key).zip(numbers.iter().copied()).collect();
        for decision in decisions.iter().filter(|decision| decision.bake) {
            if let Some(number) = by_name.get(&*decision.partition) {
                self.world.bake(*number, decision.bytes, now);
            }
        }
    }

    /// Bakes what the plan says.
    fn follow(&mut self, step: usize) {
        let now = self.site.clock.end(step);
        for number in self.plan.get(&step).into_iter().flatten() {
            let Some(partition) = self.world.get(*number) else { continue };
            let bytes = bake_bytes(partition.gathered.pages(), partition.size, partition.has_shadow());
            self.world.bake(*number, bytes, now);
        }
    }
}
