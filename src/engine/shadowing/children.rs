//! How it stands with the shadows of those that a partition splits into.

use super::waiting::Standing;
use crate::engine::Engine;
use crate::lineage::partition::{self, Layout, Partition};
use crate::shadow::{Shadow, Subject};
use crate::types::{PageSet, Seq};

/// Why a shadow does not serve a child although it is there.
const NEWER: &str =
    "what there is shows the parent after the split, and what was before is read from history";

/// How it stands with the shadow of a child.
#[derive(Clone, PartialEq, Debug)]
pub enum ChildShadow {
    /// It is there: bytes that it takes, and for whom it was made.
    Ready { bytes: u64, reason: &'static str },
    /// It waits for its turn, or is being made.
    Waits,
    /// It is not there and is not made now; why, and what to do.
    Missing(String),
}

impl Engine {
    /// How it stands with the shadow of a child that has these pages of its parent, or all. One of the whole parent serves
    /// each of its children; of a child that has `come`, behind that event, only a state of before the split does.
    pub fn child_shadow(
        &self,
        layout: Layout,
        parent: &Partition,
        pages: Option<&PageSet>,
        come: Option<Seq>,
    ) -> ChildShadow {
        let is_of = |subject: &Subject| partition::of(layout, &subject.root, &subject.partition) == *parent;
        // The wish first: it is there until the shadow is.
        let standing = self.shadowing.wishes.lock().standing(|wish| is_of(&wish.subject), pages);
        let stopped = self.shadowing.stopped();
        let serves = |shadow: &&Shadow| {
            let has = shadow.pages.is_none() || shadow.pages.as_ref() == pages;
            has && shadow.follows && is_of(&shadow.subject) && shadow.broken().is_none()
        };
        let is_before = |shadow: &&Shadow| {
            let oldest = shadow.snapshots.iter().map(|snapshot| snapshot.seq()).min();
            come.is_none_or(|come| oldest.is_some_and(|oldest| oldest <= come))
                || self.for_split(shadow).is_some()
        };
        let list = self.shadowing.shadows.list();
        let of_it: Vec<&Shadow> = list.iter().filter(serves).collect();
        let before = of_it.iter().copied().filter(is_before);
        let ready = before.max_by_key(|shadow| shadow.pages.as_ref() == pages);
        match (standing, ready) {
            (Some(Standing::Waits), _) if stopped.is_none() => ChildShadow::Waits,
            (_, Some(shadow)) => {
                ChildShadow::Ready { bytes: shadow.stored_bytes(), reason: shadow.reason.name() }
            }
            (Some(Standing::Refused(why)), None) => ChildShadow::Missing(why),
            (_, None) if !of_it.is_empty() => ChildShadow::Missing(NEWER.into()),
            (_, None) => ChildShadow::Missing(stopped.unwrap_or_else(|| self.why_missing(parent))),
        }
    }

    fn why_missing(&self, parent: &Partition) -> String {
        match self.shadowing.limits.on {
            false => format!("`shadow = false` is set: `weft shadow add {parent}` makes one all the same"),
            true => format!("it went for room, or was taken away: `weft shadow add {parent}` makes one"),
        }
    }
}
