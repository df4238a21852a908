//! Retention at work: deciding what remains, carrying it out, and making room when space runs out.

use super::Engine;
use super::budget::{self, Budget};
use super::holds::Held;
use super::reclaim::Witnesses;
use super::relief::Relief;
use super::resting::{Looks, Rested};
use super::sweeping::Swept;
use super::thinning::{How, Judged};
use super::undone::Undone;
use crate::error::{Error, Kind, Result};
use crate::format::event::Event;
use crate::format::event::Record;
use crate::journal::Claim;
use crate::journal::reader::records_at;
use crate::live::rest::{RestRule, Resting};
use crate::meta::retention::Retention;
use crate::meta::thinned::Thinned;
use crate::past::plan::Plan;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread;
use crate::sync::{Arc, Mutex};
use crate::types::{Seq, Timestamp};
use crate::weave::{Pace, Remaining, Thinning};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Seqs in one Thin event at most.
const EVENT_SEQS: usize = 50_000;

/// So many groups are looked at for one that is worth to be thinned.
const GROUPS_LOOKED: usize = 1_000;

/// Makes the kernel let go of what nobody has open of these instants, so that they can be pruned.
pub type LetGo = Arc<dyn Fn(&HashSet<Seq>) + Send + Sync>;
/// It is told of it later: so often, and so long apart, is looked whether it has.
const LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Rest between two prunings, between two looks at the space, and after an error.
const PRUNE_EVERY: Duration = Duration::from_secs(300);
const SPACE_EVERY: Duration = Duration::from_secs(10);
const NAP: Duration = Duration::from_millis(50);

/// What pruning did, or would do.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Pruned {
    /// Nothing was changed.
    pub dry: bool,
    /// Up to here history is thinned, and how many instants remain there.
    pub upto: Seq,
    pub points: u64,
    /// Of the points that were there before, how many go.
    pub points_gone: u64,
    /// Where history begins, before and after, in µs.
    pub oldest_before_us: i64,
    pub oldest_us: i64,
    /// What is in use and would else go.
    pub pinned: Vec<Held>,
    pub thinning: Thinning,
    /// Bytes of base files and of files in limbo that went.
    pub bases_bytes: u64,
    /// Bytes of pages that were saved as they were, so that history need not hold the others of their files.
    pub saved_bytes: u64,
    /// Bytes of composed pages that went; a dry run does not look for them.
    pub pages_bytes: u64,
    /// What could not be done, while the rest of it was.
    #[serde(serialize_with = "as_text")]
    pub undone: Option<Error>,
}

fn as_text<S: serde::Serializer>(error: &Option<Error>, to: S) -> std::result::Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&error.as_ref().map(Error::to_string), to)
}

/// The pruner as an engine has it.
pub(super) struct Pruning {
    retention: Mutex<Retention>,
    /// Held through a pruning: one at a time.
    judged: Mutex<Judged>,
    /// What the last one could not do.
    trouble: Mutex<Option<Error>>,
    let_go: Mutex<Option<LetGo>>,
    pub(super) witnesses: Witnesses,
    pub(super) rest_rule: RestRule,
    pub(super) looks: Looks,
    pub(super) page_slack_bytes: u64,
    pub(super) swept: Swept,
    pub(super) relief: Relief,
    /// Where history begins, and its time, as last asked for.
    pub(super) oldest: Mutex<(Seq, Timestamp)>,
}

impl Pruning {
    pub(super) fn new(retention: Retention, rest_rule: RestRule, page_slack_bytes: u64) -> Pruning {
        Pruning {
            retention: Mutex::new(retention),
            judged: Mutex::new(Judged::default()),
            trouble: Mutex::new(None),
            let_go: Mutex::new(None),
            witnesses: Witnesses::default(),
            rest_rule,
            looks: Looks::default(),
            page_slack_bytes,
            swept: Swept::default(),
            relief: Relief::default(),
            oldest: Mutex::new((Seq::ZERO, Timestamp::default())),
        }
    }
}

impl Engine {
    /// How long history is kept.
    pub fn retention(&self) -> Retention {
        self.pruning.retention.lock().clone()
    }

    /// Which instants remain.
    pub fn thinned(&self) -> Thinned {
        self.live.thinned.lock().clone()
    }

    /// Takes effect with the next pruning.
    pub fn set_retention(&self, retention: Retention) {
        *self.pruning.retention.lock() = retention;
    }

    /// What has the kernel let go of the past, before anything of it is pruned.
    pub fn set_let_go(&self, let_go: LetGo) {
        *self.pruning.let_go.lock() = Some(let_go);
    }

    /// Prunes what the retention does not keep and nobody uses. A `dry` run only says what would go. An error that another
    /// try may not meet is told when all else is done; damage stays, and is told with what was done.
    pub fn prune(&self, pace: &dyn Pace, dry: bool) -> Result<Pruned> {
        let mut pruned = self.prune_by(&self.retention(), pace, dry)?;
        match pruned.undone.take_if(|error| !error.is_damage()) {
            Some(error) => Err(error),
            None => Ok(pruned),
        }
    }

    /// The same by another retention, and whatever could not be done is told with the rest.
    pub(super) fn prune_by(&self, retention: &Retention, pace: &dyn Pace, dry: bool) -> Result<Pruned> {
        let pruned = self.prune_all(retention, How { pace, dry });
        if !dry {
            *self.pruning.trouble.lock() = match &pruned {
                Ok(pruned) => pruned.undone.clone(),
                Err(error) => Some(error.clone()),
            };
        }
        pruned
    }

    fn prune_all(&self, retention: &Retention, how: How<'_>) -> Result<Pruned> {
        let How { pace, dry } = how;
        // A dry run keeps nobody waiting: who wants room may be. It judges every file, and what it finds counts for itself.
        let mut dry_judged = Judged::default();
        let mut held = (!dry).then(|| self.pruning.judged.lock());
        let judged = held.as_deref_mut().unwrap_or(&mut dry_judged);
        if !dry {
            // What was decided before may not have become durable.
            self.live.journal.accepts()?;
        }
        let before = self.oldest().1;
        let mut undone = Undone::default();
        let (thinned, pinned, gone) = self.decide(retention, dry, &mut undone)?;
        let mut pruned = Pruned {
            dry,
            upto: thinned.upto(),
            points: thinned.kept().len() as u64,
            points_gone: gone,
            oldest_before_us: before.0,
            oldest_us: self.time_of_first(&thinned, before).0,
            pinned,
            ..Pruned::default()
        };
        if !dry {
            let rested = self.rest_if_room(&thinned, pace, &mut undone)?;
            pruned.saved_bytes = rested.saved_bytes;
            if rested.files > 0 {
                judged.forget();
            }
        }
        if thinned.upto() != Seq::ZERO {
            let needs = self.needs(&thinned, how, &mut pruned)?;
            pruned.thinning = self.carry_out(&thinned, &needs, judged, how, &mut undone)?;
            let reclaimed = self.reclaim(&needs, how, &mut undone);
            pruned.bases_bytes = undone.go_on(reclaimed)?.unwrap_or(0);
            if !dry {
                let swept = self.sweep_pages(pace);
                pruned.pages_bytes = undone.go_on(swept)?.unwrap_or(0);
            }
        }
        pruned.undone = undone.into_error();
        Ok(pruned)
    }

    /// Files come to rest where there is room for what that takes. Where there is not, what needs none goes on.
    fn rest_if_room(&self, thinned: &Thinned, pace: &dyn Pace, undone: &mut Undone) -> Result<Rested> {
        match self.rest(thinned, pace) {
            Err(error) if error.is(libc::ENOSPC) => {
                undone.note(error);
                // It may have stopped all writing.
                self.live.journal.accepts()?;
                Ok(Rested::default())
            }
            rested => rested,
        }
    }

    /// What keeps history from being pruned, for the health of the whole. That there is no room, or that nothing is written
    /// any more, is told by others.
    pub(super) fn prune_problem(&self) -> Option<String> {
        let trouble = self.pruning.trouble.lock().clone();
        let error = trouble.filter(|error| !error.is(libc::ENOSPC) && error.kind != Kind::Stopped)?;
        let remedy = match error.is_of_place() {
            true => {
                "all else is pruned. Look after the disk; `weft journal stat --check` reads all of the journal"
            }
            false => "it is tried again every few minutes",
        };
        Some(format!("a part of history cannot be pruned and keeps its space: {error}; {remedy}"))
    }

    /// What the instants that remain show; for a dry run as if what would come to rest had.
    fn needs(&self, thinned: &Thinned, how: How<'_>, pruned: &mut Pruned) -> Result<Remaining<'_>> {
        let needs = Remaining::new(&self.index, &self.live, thinned.clone());
        if !how.dry {
            return Ok(needs);
        }
        let resting = self.would_rest(thinned, how.pace)?;
        pruned.saved_bytes = resting.iter().map(Resting::saved_bytes).sum();
        Ok(needs.resting(resting.iter().map(|resting| resting.file).collect()))
    }

    fn time_of_first(&self, thinned: &Thinned, before: Timestamp) -> Timestamp {
        let first = thinned.first();
        if first <= self.live.birth.lock().0 {
            return before;
        }
        self.time_if_near(first).unwrap_or(before)
    }

    /// Decides what remains, durably; with it what was pinned, and how many points go.
    fn decide(
        &self,
        retention: &Retention,
        dry: bool,
        undone: &mut Undone,
    ) -> Result<(Thinned, Vec<Held>, u64)> {
        let known = self.live.thinned.lock().clone();
        let mut unread = |error| undone.note(error);
        let plan = self.resolver().plan(retention, &known, self.settled(), &mut unread)?;
        if !dry {
            self.let_go(&plan);
        }
        // From here on nobody can hold an instant that goes: whoever comes sees what was decided.
        let decision = self.decide_holds();
        // What only the kernel remembers would be let go.
        let used = dry && self.pruning.let_go.lock().is_some();
        let (kept, gone, pinned) = difference(&known, &plan, self.held_by(&decision, used));
        let points_gone = gone.len() as u64;
        // Where the time begins of which all is kept moves on with every event.
        let is_same = gone.iter().all(|point| *point == known.upto());
        if is_same && !self.shows_more(known.upto(), plan.upto) {
            return Ok((known, pinned, 0));
        }
        if dry {
            let mut thinned = known;
            thinned.thin(plan.upto, &kept, &gone);
            return Ok((thinned, pinned, points_gone));
        }
        let mut last = Seq::ZERO;
        for event in events(plan.upto, kept, gone) {
            let mut thinned = self.live.thinned.lock();
            let given = event.clone();
            let appended = self.live.journal.append_as(Claim::Freeing, &[], |_| given)?;
            thinned.fold(&Record { seq: appended.seq, ts: appended.ts, wall: appended.ts, event });
            last = appended.seq;
        }
        drop(decision);
        self.live.journal.commit_wait(last)?;
        Ok((self.live.thinned.lock().clone(), pinned, points_gone))
    }

    /// Whether there may be an instant in `(after, upto]` that shows something else than the one before. To thin others is
    /// not worth an event: on a full disk these would use up the last of the journal, each for the sake of the one before.
    fn shows_more(&self, after: Seq, upto: Seq) -> bool {
        let mut next = after.next();
        for _ in 0..GROUPS_LOOKED {
            if next > upto {
                return false;
            }
            let Ok(Some(place)) = self.index.group_of_seq(next) else { return true };
            let Ok(records) = records_at(self.live.journal.segments(), place.segment, place.offset) else {
                return true;
            };
            let mut within = records.iter().filter(|record| record.seq > after && record.seq <= upto);
            if within.any(|record| record.event.shows()) {
                return true;
            }
            next = place.last_seq.next();
        }
        true
    }

    /// Views of what is to go are in the kernel's cache, perhaps without anyone who has them open.
    fn let_go(&self, plan: &Plan) {
        let going = || -> HashSet<Seq> {
            let viewed = self.idle_views();
            viewed.into_iter().filter(|seq| *seq <= plan.upto && !plan.points.contains(seq)).collect()
        };
        let Some(let_go) = self.pruning.let_go.lock().clone() else { return };
        let views = going();
        if views.is_empty() {
            return;
        }
        let_go(&views);
        for _ in 0..LOOKS {
            if going().is_empty() {
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// The thread: prunes now and then, and looks after the space.
pub(super) fn keep(engine: &Engine, stop: &AtomicBool) {
    let relief = &engine.pruning.relief;
    let _keeping = relief.keep();
    budget::yield_to_others();
    let budget = Budget::new(engine.weaver.rates(), relief.wanted(), stop);
    let (mut pruned, mut looked) = (Instant::now(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(NAP);
        let wanted = relief.is_wanted();
        if wanted || looked.elapsed() > SPACE_EVERY {
            looked = Instant::now();
            relief.looking();
            budget::yield_unless(wanted);
            if let Err(error) = engine.relieve() {
                tracing::warn!(%error, "history could not be shortened to make room");
            }
            budget::yield_unless(false);
            relief.done();
        }
        if pruned.elapsed() > PRUNE_EVERY {
            pruned = Instant::now();
            match engine.prune(&budget, false) {
                Ok(done) if done.thinning.unneeded_bytes > 0 => tracing::info!(
                    upto = %done.upto,
                    bytes = done.thinning.before_bytes.saturating_sub(done.thinning.after_bytes),
                    "history was thinned"
                ),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "history could not be pruned, or not all of it"),
            }
        }
    }
}

/// What a plan adds and takes, and what is held that it would take.
fn difference(known: &Thinned, plan: &Plan, held: Vec<Held>) -> (Vec<Seq>, Vec<Seq>, Vec<Held>) {
    let mut points = plan.points.clone();
    let mut pinned = Vec::new();
    for held in held.into_iter().filter(|held| held.seq <= plan.upto) {
        if !points.contains(&held.seq) || pinned.iter().any(|known: &Held| known.seq == held.seq) {
            points.insert(held.seq);
            pinned.push(held);
        }
    }
    let kept = points.iter().filter(|point| **point > known.upto()).copied().collect();
    let gone = known.kept().iter().filter(|point| !points.contains(point)).copied().collect();
    (kept, gone, pinned)
}

/// The same as events of bounded length; only the last moves `upto`.
fn events(upto: Seq, kept: Vec<Seq>, gone: Vec<Seq>) -> Vec<Event> {
    let mut events: Vec<Event> = gone
        .chunks(EVENT_SEQS)
        .map(|chunk| Event::Thin { upto: Seq::ZERO, kept: Vec::new(), gone: chunk.to_vec() })
        .collect();
    // Each moves it over what it adds.
    let mut chunks = kept.chunks(EVENT_SEQS).peekable();
    while let Some(chunk) = chunks.next() {
        let upto = if chunks.peek().is_some() { chunk.last().copied().unwrap_or(upto) } else { upto };
        events.push(Event::Thin { upto, kept: chunk.to_vec(), gone: Vec::new() });
    }
    if kept.is_empty() {
        events.push(Event::Thin { upto, kept, gone: Vec::new() });
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_what_was_decided_in_parts() {
        let seqs = |from: u64, to: u64| (from..to).map(Seq).collect::<Vec<_>>();
        let mut thinned = Thinned::default();
        thinned.thin(Seq(200_000), &seqs(1, 150_000), &[]);
        let mut whole = thinned.clone();
        let (kept, gone) = (seqs(200_001, 320_000), seqs(10, 120_000));
        whole.thin(Seq(400_000), &kept, &gone);
        let events = events(Seq(400_000), kept, gone);
        assert_eq!(events.len(), 6);
        for event in events {
            let ts = Timestamp(0);
            thinned.fold(&Record { seq: Seq(1), ts, wall: ts, event });
        }
        assert_eq!(thinned, whole);
    }

    #[test]
    fn what_is_held_stays_and_is_told() {
        let mut known = Thinned::default();
        known.thin(Seq(10), &[Seq(3), Seq(5), Seq(9)], &[]);
        let plan = Plan { upto: Seq(20), points: [Seq(9), Seq(20)].into() };
        let held = |seq, by: &str| Held { seq: Seq(seq), by: by.into() };
        let all = vec![
            held(5, "tag a"),
            held(5, "tag b"),
            held(9, "tag c"),
            held(15, "1 open view"),
            held(21, "tag d"),
        ];
        let (kept, gone, pinned) = difference(&known, &plan, all);
        assert_eq!((kept, gone), (vec![Seq(15), Seq(20)], vec![Seq(3)]));
        assert_eq!(
            pinned.iter().map(|held| held.by.as_str()).collect::<Vec<_>>(),
            ["tag a", "tag b", "1 open view"]
        );
    }
}
