//! Wishes that wait: the most pressing is granted first, and what cannot be granted now is tried again later.
//!
//! Invariant: a wish is here from when it was made until its shadow is there, or never will be.

use crate::shadow::Wish;
use crate::types::PageSet;
use std::collections::HashSet;

/// Wishes that wait; who makes more has lost its measure.
const MOST: usize = 10_000;
/// What was refused is tried again after so long, µs; twice as long after each further time, until it is about an hour.
const AGAIN_US: i64 = 60_000_000;
const DOUBLINGS: u32 = 6;

struct Waiting {
    wish: Wish,
    /// By the clock that nobody sets, µs.
    not_before: i64,
    refusals: u32,
    /// Why it was refused.
    why: Option<String>,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Wishes {
    waiting: Vec<Waiting>,
    /// What is being granted, and how often it was refused before.
    granting: Option<(Wish, u32)>,
}

/// How it stands with a wish.
pub(super) enum Standing {
    /// It waits for its turn, or is being granted.
    Waits,
    /// It was refused, and is tried again later.
    Refused(String),
}

impl Wishes {
    /// Adds a wish; it takes the place of an earlier one for the same, and is tried at once. One that is more pressing stays.
    pub(super) fn add(&mut self, wish: Wish) {
        if self
            .waiting
            .iter()
            .any(|other| other.wish.is_for_the_same_as(&wish) && other.wish.urgent && !wish.urgent)
        {
            return;
        }
        self.put(Waiting { wish, not_before: i64::MIN, refusals: 0, why: None });
    }

    fn put(&mut self, new: Waiting) {
        self.waiting.retain(|other| !other.wish.is_for_the_same_as(&new.wish));
        if self.waiting.len() < MOST {
            self.waiting.push(new);
        }
    }

    /// Takes the most pressing wish: urgent ones first, then by benefit. It is being granted until it is said what came
    /// of it.
    pub(super) fn next(&mut self, now_us: i64) -> Option<Wish> {
        let due = self.waiting.iter().enumerate().filter(|(_, waiting)| waiting.not_before <= now_us);
        let best = due.max_by(|(_, left), (_, right)| {
            let (left, right) = (&left.wish, &right.wish);
            left.urgent.cmp(&right.urgent).then(left.benefit.total_cmp(&right.benefit))
        });
        let at = best.map(|(at, _)| at)?;
        let Waiting { wish, refusals, .. } = self.waiting.swap_remove(at);
        self.granting = Some((wish.clone(), refusals));
        Some(wish)
    }

    /// Whether something urgent can be granted now.
    pub(super) fn is_pressing(&self, now_us: i64) -> bool {
        self.waiting.iter().any(|waiting| waiting.wish.urgent && waiting.not_before <= now_us)
    }

    /// What was being granted has its shadow, or never will.
    pub(super) fn end(&mut self) {
        self.granting = None;
    }

    /// What was being granted cannot be now, and waits again; a newer wish for the same that is as pressing is not held up.
    pub(super) fn put_back(&mut self, why: String, now_us: i64) {
        let Some((wish, refusals)) = self.granting.take() else { return };
        let newer =
            |other: &Waiting| other.wish.is_for_the_same_as(&wish) && (other.wish.urgent || !wish.urgent);
        if self.waiting.iter().any(newer) {
            return;
        }
        let wait_us = AGAIN_US << refusals.min(DOUBLINGS);
        let not_before = now_us.saturating_add(wait_us);
        self.put(Waiting { wish, not_before, refusals: refusals + 1, why: Some(why) });
    }

    /// What was refused is tried at once: there may be room, or a mended disk.
    pub(super) fn try_again(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.not_before = i64::MIN);
    }

    /// Forgets wishes that are not wanted any more, and says how many those were; one that is being granted ends where that
    /// is looked at.
    pub(super) fn forget(&mut self, unwanted: impl Fn(&Wish) -> bool) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| !unwanted(&waiting.wish));
        let granting = self.granting.take_if(|(wish, _)| unwanted(wish));
        before - self.waiting.len() + usize::from(granting.is_some())
    }

    /// Whether what was taken to be granted is wanted still.
    pub(super) fn is_granting(&self) -> bool {
        self.granting.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Partitions of whose present a whole shadow is wished for or being made, as they are shown.
    pub(super) fn whole(&self) -> HashSet<String> {
        let granting = self.granting.iter().map(|(wish, _)| wish);
        let all = self.waiting.iter().map(|waiting| &waiting.wish).chain(granting);
        let whole = all.filter(|wish| wish.pages.is_none() && wish.at.is_none());
        whole.map(|wish| wish.subject.to_string()).collect()
    }

    /// How it stands with the wish for the present of pages of a partition that `is_it` knows.
    pub(super) fn standing(
        &self,
        is_it: impl Fn(&Wish) -> bool,
        pages: Option<&PageSet>,
    ) -> Option<Standing> {
        let is_it = |wish: &Wish| wish.at.is_none() && wish.pages.as_ref() == pages && is_it(wish);
        if self.granting.as_ref().is_some_and(|(wish, _)| is_it(wish)) {
            return Some(Standing::Waits);
        }
        let waiting = self.waiting.iter().find(|waiting| is_it(&waiting.wish))?;
        Some(waiting.why.clone().map_or(Standing::Waits, Standing::Refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shadow::{Reason, Subject};

    fn wish(name: &str, benefit: f64, urgent: bool) -> Wish {
        let subject = Subject { root: Vec::new(), partition: name.into() };
        Wish { subject, pages: None, at: None, benefit, reason: Reason::Rule, urgent }
    }

    fn next(wishes: &mut Wishes, now_us: i64) -> Option<String> {
        wishes.next(now_us).map(|wish| wish.subject.to_string())
    }

    #[test]
    fn urgent_ones_come_first_then_those_of_most_benefit() {
        let mut wishes = Wishes::default();
        for one in [wish("a", 1.0, false), wish("b", 9.0, false), wish("c", 0.0, true), wish("a", 2.0, false)]
        {
            wishes.add(one);
        }
        assert!(wishes.is_pressing(0));
        let order: Vec<String> = std::iter::from_fn(|| next(&mut wishes, 0)).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }

    #[test]
    fn what_is_refused_waits_longer_each_time_unless_it_is_wished_anew() {
        let mut wishes = Wishes::default();
        wishes.add(wish("a", 1.0, true));
        let mut now = 0;
        for wait_us in [1, 2, 4, 8, 16, 32, 64, 64].map(|minutes| minutes * AGAIN_US) {
            assert_eq!(next(&mut wishes, now).as_deref(), Some("a"));
            assert!(wishes.whole().contains("a"), "it is not wished for twice");
            wishes.put_back("no room".into(), now);
            assert!(wishes.whole().contains("a") && !wishes.is_pressing(now + wait_us - 1));
            assert_eq!(next(&mut wishes, now + wait_us - 1), None);
            now += wait_us;
        }
        let refused = wishes.standing(|_| true, None);
        assert!(matches!(refused, Some(Standing::Refused(why)) if why == "no room"));
        wishes.try_again();
        assert_eq!(next(&mut wishes, 0).as_deref(), Some("a"));
        // A newer wish has come meanwhile, and one that presses less.
        wishes.add(wish("a", 2.0, true));
        wishes.put_back("no room".into(), 0);
        wishes.add(wish("a", 3.0, false));
        assert!(wishes.is_pressing(0));
        assert!(matches!(wishes.standing(|_| true, None), Some(Standing::Waits)));
        assert_eq!((next(&mut wishes, 0).as_deref(), wishes.len()), (Some("a"), 0));
        wishes.end();
        assert!(wishes.standing(|_| true, None).is_none() && wishes.whole().is_empty());
    }

    #[test]
    fn what_is_not_wanted_any_more_is_forgotten() {
        let mut wishes = Wishes::default();
        wishes.add(wish("a", 1.0, false));
        wishes.add(wish("b", 1.0, false));
        assert_eq!(wishes.forget(|wish| wish.subject.partition == b"a"), 1);
        assert_eq!(wishes.len(), 1);
        // Nor one that is being granted: it does not come back when it cannot be.
        assert_eq!(next(&mut wishes, 0).as_deref(), Some("b"));
        assert_eq!(wishes.forget(|_| true), 1);
        assert!(!wishes.is_granting());
        wishes.put_back("no room".into(), 0);
        assert_eq!(wishes.len(), 0);
    }
}
