//! Granting a wish: which files, is there room, what has to go for it, then the making.

use super::Making;
use super::asked::wishes_for;
use super::partition::Member;
use crate::engine::budget::{self, Budget};
use crate::engine::{Engine, splits};
use crate::error::{Error, Kind, Result};
use crate::shadow::{Made, Order, OrderedFile, Pace, Reason, Shadow, Snapshot, Source, Wish};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::types::{PAGE, PageSet, Seq};

/// Pages of a segment of PostgreSQL's: 1 GiB.
const SEGMENT_PAGES: u64 = (1 << 30) / PAGE;
/// Bytes of a view that make up for one second of benefit.
const SERVED_PER_BENEFIT: f64 = 500e6;
/// What was made for a split is worth half as much after so long.
const SPLIT_HALF_LIFE_US: f64 = 2.0 * 3_600e6;
/// What is left of that after a day.
const SPLIT_OF_A_DAY: f64 = splits::BENEFIT / 4096.0;
/// The operation that fails for want of room: there may be some later.
const ROOM: &str = "shadow.room";

/// What a snapshot lacks to have room.
struct Room {
    missing: u64,
    /// For want of what, and how much of it there is.
    what: &'static str,
    have: u64,
}

impl Engine {
    /// Makes what is wished, for a caller that holds the turn; `None`: it is there already. That there is no such partition, or
    /// no room, or that the engine ends, is no failure of the making.
    pub(super) fn grant(&self, wish: &Wish) -> Result<Option<Made>> {
        let making = &self.shadowing.making;
        *making.lock() = Some(Making { wish: wish.clone(), taken_back: false });
        let made = self.try_to_grant(wish);
        *making.lock() = None;
        made
    }

    fn try_to_grant(&self, wish: &Wish) -> Result<Option<Made>> {
        let seq = match wish.at {
            Some(seq) => seq,
            None => self.live.journal.flush().unwrap_or_else(|_| self.live.journal.durable()),
        };
        let view = self.view(seq)?;
        let files = ordered(self.members(&view, &wish.subject)?, wish.pages.as_ref());
        if files.is_empty() {
            let message =
                format!("there is no partition {} at event {seq}: name one of its files", wish.subject);
            return Err(Error::invalid("shadow.add", message));
        }
        let before = self.same_shadow(wish);
        // What a person asks for says so itself: of another's there is one more snapshot, which shares all bytes with it.
        let is_theirs = |shadow: &Shadow| wish.reason != Reason::Asked || shadow.reason == Reason::Asked;
        if before.as_ref().is_some_and(|shadow| {
            let has_it = shadow.snapshots.iter().any(|snapshot| snapshot.seq() == seq);
            has_it && shadow.broken().is_none() && is_theirs(shadow)
        }) {
            return Ok(None);
        }
        self.make_room(wish, &files, before.as_ref(), seq)?;
        let (reason, benefit) =
            claim(wish, before.as_ref().map(|shadow| (shadow.reason, self.worth(shadow))));
        let order = Order {
            shadow: before.as_ref().filter(|shadow| shadow.broken().is_none()).map(|shadow| shadow.id),
            subject: wish.subject.clone(),
            pages: wish.pages.clone(),
            seq,
            now: self.now(),
            follows: wish.at.is_none(),
            reason,
            benefit,
            files,
        };
        self.make(&order)
    }

    /// The shadow that a snapshot for this wish belongs to.
    fn same_shadow(&self, wish: &Wish) -> Option<Shadow> {
        self.shadowing.shadows.list().into_iter().find(|shadow| shadow.is_for(wish))
    }

    fn make(&self, order: &Order) -> Result<Option<Made>> {
        let shadowing = &self.shadowing;
        let before = budget::thread_cpu_us();
        let budget = Budget::new(shadowing.limits.rates(), &shadowing.hurry, self.threads.stopping());
        let source: &dyn Source = &*self.pages;
        let made = shadowing.shadows.make(order, source, &WhileRoom { engine: self, budget });
        shadowing.cpu_us.fetch_add(budget::thread_cpu_us().saturating_sub(before), Ordering::Relaxed);
        let made = made.inspect_err(|error| shadowing.note_failure(error))?;
        if made.is_none() {
            let ends = self.threads.stopping().load(Ordering::Relaxed);
            let ending = || {
                let message = "the daemon is ending: what was asked for is made after the next mount";
                Error::new(Kind::Busy, "shadow.make", message)
            };
            let taken_back =
                || Error::invalid("shadow.make", "it was taken away meanwhile (`weft shadow rm`)");
            return Err(match shadowing.is_taken_back() {
                true => taken_back(),
                false if ends => ending(),
                false => no_room(),
            });
        }
        if let Some(made) = &made {
            shadowing.note_success();
            if order.follows && order.pages.is_none() {
                shadowing.rule.lock().made(&order.subject);
            }
            // It is there: what does not go now goes with the next one.
            if order.follows
                && let Err(error) = self.trim(made.shadow)
            {
                tracing::warn!(%error, "an old snapshot of a shadow could not be removed");
            }
        }
        Ok(made)
    }

    /// Of a shadow that is kept up to date only the newest snapshots stay; and, for as long as it is likely to be wanted, the
    /// one that a split is read through: the rows that move would have it pushed out before anyone asks for it.
    fn trim(&self, id: u64) -> Result<()> {
        let Some(shadow) = self.shadowing.shadows.get(id) else { return Ok(()) };
        let number = |snapshot: &Arc<Snapshot>| snapshot.head.number;
        let kept = self.for_split(&shadow).map(number);
        let is_older = kept != shadow.newest().map(number);
        let most = self.shadowing.limits.snapshots.max(1 + usize::from(kept.is_some() && is_older));
        let excess = shadow.snapshots.len().saturating_sub(most);
        let others = shadow.snapshots.iter().map(number).filter(|number| Some(*number) != kept);
        others.take(excess).try_for_each(|number| self.shadowing.shadows.remove_snapshot(id, number))
    }

    /// Sees to room in the budget and on the disk: the least useful that is less useful than this goes. Nothing goes for
    /// what has no room even then.
    fn make_room(&self, wish: &Wish, files: &[OrderedFile], before: Option<&Shadow>, seq: Seq) -> Result<()> {
        if self.live.is_short() {
            return Err(no_room());
        }
        let needed = self.estimate(files, before, seq);
        let missing = self.room(needed)?.missing;
        if missing == 0 {
            return Ok(());
        }
        let freed = self.less_useful(wish, before.map(|shadow| shadow.id), missing);
        if freed.iter().map(Shadow::stored_bytes).sum::<u64>() >= missing {
            let why = "there is no room for it and a more useful one";
            freed.iter().try_for_each(|shadow| self.drop_shadow(shadow, why))?;
        }
        // What is freed may be less than what was taken: another has the space by now.
        let Room { missing, what, have } = self.room(needed)?;
        if missing == 0 {
            return Ok(());
        }
        let message = format!(
            "{what}: the shadow needs {needed} bytes and there are {have}; `weft shadows` shows what takes them"
        );
        Err(Error::new(Kind::Invalid, ROOM, message))
    }

    fn room(&self, needed: u64) -> Result<Room> {
        let (used, limit) = (self.shadowing.shadows.stored_bytes(), self.shadowing.limits.bytes);
        let free = self.disk.space("shadow.space", &self.paths.store)?.available;
        let free = free.saturating_sub(2 * self.live.limits.keep_free_bytes);
        let allowed = limit.saturating_sub(used);
        let missing = needed.saturating_sub(free).max(used.saturating_add(needed).saturating_sub(limit));
        let (what, have) = match needed > allowed {
            true => ("shadow_limit_mib is reached", allowed),
            false => ("STORE's filesystem has too little space", free),
        };
        Ok(Room { missing, what, have })
    }

    /// Shadows that may go for a wish, the least useful first, until they take so many bytes.
    fn less_useful(&self, wish: &Wish, own: Option<u64>, missing: u64) -> Vec<Shadow> {
        let useful = |shadow: &Shadow| self.usefulness(shadow);
        let may_go = |shadow: &Shadow| {
            Some(shadow.id) != own
                && shadow.reason != Reason::Asked
                && (wish.urgent || useful(shadow) < wish.benefit)
        };
        let mut others: Vec<Shadow> = self.shadowing.shadows.list().into_iter().filter(may_go).collect();
        others.sort_by(|left, right| useful(left).total_cmp(&useful(right)));
        let mut freed = 0u64;
        let needed = |shadow: &Shadow| {
            let before = freed;
            freed = freed.saturating_add(shadow.stored_bytes());
            before < missing
        };
        others.into_iter().take_while(needed).collect()
    }

    /// Bytes that a snapshot brings.
    fn estimate(&self, files: &[OrderedFile], before: Option<&Shadow>, seq: Seq) -> u64 {
        let one = |file: &OrderedFile| {
            let whole = file.pages.as_ref().map_or(file.size, |pages| pages.count() * PAGE);
            let newest = before.and_then(Shadow::newest)?.clone();
            newest.head.files.iter().find(|head| head.file == file.file)?;
            let range = (newest.seq().min(seq), newest.seq().max(seq));
            let (pages, _) =
                self.shadowing.shadows.changed_between(file.file, range, whole / PAGE).ok()??;
            Some((pages.count() * PAGE).min(whole))
        };
        let whole = |file: &OrderedFile| file.pages.as_ref().map_or(file.size, |pages| pages.count() * PAGE);
        files.iter().map(|file| one(file).unwrap_or_else(|| whole(file))).sum()
    }

    fn drop_shadow(&self, shadow: &Shadow, why: &str) -> Result<()> {
        tracing::info!(shadow = shadow.id, partition = %shadow.subject, "a shadow goes: {why}");
        self.shadowing.dropped.fetch_add(1, Ordering::Relaxed);
        self.shadowing.shadows.remove(shadow.id)
    }

    /// What broke goes, and is made anew.
    pub(super) fn drop_broken(&self) {
        if let Err(error) = self.shadowing.shadows.remove_left() {
            tracing::warn!(%error, "files of shadows that were removed cannot be removed yet");
        }
        for shadow in self.shadowing.shadows.list().into_iter().filter(|shadow| shadow.broken().is_some()) {
            self.shadowing.broken.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.shadowing.shadows.remove(shadow.id) {
                tracing::warn!(%error, "a broken shadow cannot be removed yet; it is not used");
            }
            wishes_for(&shadow, self.worth(&shadow)).into_iter().for_each(|wish| self.wish(wish));
        }
    }

    /// On a full disk shadows go.
    pub(super) fn shed_shadows(&self) {
        if self.live.is_short() {
            self.give_up_shadows();
        }
    }

    /// Where room is wanted in STORE's filesystem, shadows go before anything else: all that nobody asked for. They can be
    /// made anew, history cannot. One that is being made is given up: this waits for it. Whether there were any.
    pub(in crate::engine) fn give_up_shadows(&self) -> bool {
        let shadowing = &self.shadowing;
        let mut list = shadowing.shadows.list();
        list.retain(|shadow| shadow.reason != Reason::Asked);
        shadowing.giving_up.store(true, Ordering::Relaxed);
        for shadow in &list {
            if let Err(error) = self.drop_shadow(shadow, "the disk is full") {
                tracing::warn!(%error, "a shadow cannot be removed");
            }
        }
        shadowing.giving_up.store(false, Ordering::Relaxed);
        !list.is_empty()
    }
}

/// Makes shadows within their budget, and none from the last of the room.
struct WhileRoom<'a> {
    engine: &'a Engine,
    budget: Budget<'a>,
}

impl Pace for WhileRoom<'_> {
    fn go_on(&self, bytes: u64) -> bool {
        let shadowing = &self.engine.shadowing;
        let gives_up = || {
            shadowing.giving_up.load(Ordering::Relaxed)
                || shadowing.is_taken_back()
                || self.engine.live.is_short()
        };
        self.budget.rest(bytes) && !gives_up()
    }
}

fn no_room() -> Error {
    let message = "STORE's filesystem is full: make room there; no shadow is made until then";
    Error::new(Kind::Invalid, ROOM, message)
}

impl Engine {
    /// In seconds: what it is thought to save, and what it has saved.
    fn usefulness(&self, shadow: &Shadow) -> f64 {
        self.worth(shadow) + self.shadowing.served_ever(shadow) as f64 / SERVED_PER_BENEFIT
    }

    /// What it is thought to save from now on, in seconds.
    pub(super) fn worth(&self, shadow: &Shadow) -> f64 {
        worth(shadow, self.shadow_age_us(shadow))
    }

    /// The snapshot of a shadow that a split of the last day is read through: the first that was made for it, before rows moved.
    /// Those that bring it up to date have no more of a benefit than is left of that one's; a later split has a new one.
    pub(super) fn for_split<'a>(&self, shadow: &'a Shadow) -> Option<&'a Arc<Snapshot>> {
        let worth = |snapshot: &Arc<Snapshot>| {
            let is_one = [Reason::Split, Reason::Asked].contains(&Reason::of(&snapshot.head.reason));
            let benefit = snapshot.head.benefit_milli as f64 / 1e3;
            let age_us = || self.age_of_us((snapshot.head.seq, snapshot.head.made));
            if is_one { decayed(benefit, age_us()) } else { 0.0 }
        };
        let most = shadow.snapshots.iter().map(worth).fold(0.0, f64::max);
        // Children of one split are declared one after the other.
        let is_first = |snapshot: &&Arc<Snapshot>| most >= SPLIT_OF_A_DAY && worth(snapshot) >= most / 2.0;
        shadow.snapshots.iter().find(is_first)
    }
}

/// What a shadow of some age is thought to save from now on, in seconds. A restore to the moment before a split becomes less
/// likely with time: a day and a half later such a shadow is one among others, and goes for room as they do.
fn worth(shadow: &Shadow, age_us: u64) -> f64 {
    match shadow.reason {
        Reason::Split => decayed(shadow.benefit, age_us),
        Reason::Asked | Reason::Rule | Reason::Forecast => shadow.benefit,
    }
}

fn decayed(benefit: f64, age_us: u64) -> f64 {
    benefit * (-(age_us as f64) / SPLIT_HALF_LIFE_US).exp2()
}

/// Whose a shadow is with the snapshot for a wish, and what it is worth, after whose it was and what it was worth: what a
/// person asked for stays theirs, and what was made for a split is so until others find more in it.
fn claim(wish: &Wish, before: Option<(Reason, f64)>) -> (Reason, f64) {
    match before {
        Some((Reason::Asked, _)) => (Reason::Asked, wish.benefit),
        Some((Reason::Split, worth)) if worth > wish.benefit && wish.reason != Reason::Asked => {
            (Reason::Split, worth)
        }
        _ => (wish.reason, wish.benefit),
    }
}

/// Whether what failed can never be granted: there is no such partition, or the instant was pruned.
pub(super) fn is_final(wish: &Wish, error: &Error) -> bool {
    let is_past = error.is(libc::ESTALE) || error.kind == Kind::Lost;
    error.kind == Kind::Invalid && error.op != ROOM || wish.at.is_some() && is_past
}

/// The files of a partition that go into a snapshot, with their share of a set of its pages.
fn ordered(members: Vec<Member>, pages: Option<&PageSet>) -> Vec<OrderedFile> {
    let one = |member: Member| {
        let Member { file, size, segment } = member;
        let Some(pages) = pages else { return Some(OrderedFile { file, size, pages: None }) };
        let first = segment?.checked_mul(SEGMENT_PAGES)?;
        let mut own = PageSet::default();
        for (from, end) in pages.runs() {
            let (from, end) = (from.max(first), end.min(first + SEGMENT_PAGES));
            if from < end {
                own.write((from - first) * PAGE, (end - first) * PAGE);
            }
        }
        Some(OrderedFile { file, size, pages: Some(own) })
    };
    members.into_iter().filter_map(one).collect()
}
