//! When the files of a child came: whether they are those that a split was to make, and until when its rows were in its
//! parent.

use super::Engine;
use crate::error::Result;
use crate::index::Named;
use crate::lineage::find::{self, Part};
use crate::lineage::partition::{Fork, Layout, Partition, is_in_making};
use crate::lineage::splits::{self, Child, How, Origin, Split, Tie, WAITS_US};
use crate::past::view::View;
use crate::types::{FileId, Seq, Timestamp};

/// Names of a file that are looked through.
const NAMES: usize = 64;
/// Some logs have a statement when it has ended, and all are read a moment later: the files may be older than its word.
const EARLY_US: i64 = 600_000_000;

/// When a file came.
pub(super) struct Came {
    /// The last event before its first name, and before the one that it was made to have; when it had that.
    pub born: Seq,
    placed: Seq,
    at: Timestamp,
}

impl Came {
    /// Whether the files may be those of a child that this split was to make.
    pub(super) fn is_in_time(&self, split: &Split) -> bool {
        let is_after = match split.how {
            How::Declared => self.placed.0 >= split.seq,
            How::Ddl => self.at.0 >= split.at_us.saturating_sub(EARLY_US),
        };
        is_after && !split.is_over(self.at.0)
    }
}

impl Engine {
    /// The last event before a file had its first name.
    pub fn born(&self, file: FileId) -> Result<Seq> {
        let (now, names) = self.names_of(file)?;
        Ok(first_of(&names, now))
    }

    /// Names that a file has had, the newest first, up to the present.
    fn names_of(&self, file: FileId) -> Result<(Seq, Vec<Named>)> {
        let now = self.catch_up()?;
        Ok((now, self.index.naming(file, now, NAMES)?))
    }

    pub(super) fn came(&self, layout: Layout, part: &Part) -> Result<Came> {
        let (now, names) = self.names_of(part.file)?;
        let is_done = |name: &[u8]| !is_in_making(layout, name);
        let placed =
            names.iter().rev().find(|named| named.naming.gained().is_some_and(|slot| is_done(&slot.name)));
        let born = first_of(&names, now);
        Ok(match placed {
            Some(placed) => Came { born, placed: before(placed.seq), at: placed.ts },
            None => Came { born, placed: now, at: self.now() },
        })
    }

    /// Whether the rows of a child were in the parent at the instant of a view, whatever of its files was there: these had not
    /// come; or, where its parent is known, somebody said later that the rows would leave it; or they were being made.
    pub(super) fn is_in_parent(
        &self,
        (layout, partition): (Layout, &Partition),
        origin: &Origin,
        view: &View,
    ) -> Result<bool> {
        let at = view.seq();
        let counts_word = origin.tie != Tie::Guess && !origin.rewrite;
        let told = if counts_word { self.child_of(origin)?.map_or(0, |child| child.told) } else { 0 };
        if at.0 <= origin.born.max(told) {
            return Ok(true);
        }
        let making = partition.in_making(layout);
        making.map_or(Ok(false), |making| Ok(!find::files(view, layout, &making)?.is_empty()))
    }

    /// Origins of a partition that may have had rows of it at the instant of a view, although its files were there: for some
    /// time nothing tells a table that is being filled from one that is full.
    pub fn unsettled(&self, layout: Layout, partition: &Partition, view: &View) -> Result<Vec<Origin>> {
        // It fills partitions under other names.
        if layout == Layout::Mariadb {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for origin in self.origins_of(layout, partition)? {
            if !self.is_soon(&origin, view.seq()) || self.is_in_parent((layout, partition), &origin, view)? {
                continue;
            }
            let parts = find::files(view, layout, &self.named(layout, &origin.parent)?)?;
            if parts.iter().any(|part| part.fork == Fork::Main && part.attr.size > 0) {
                found.push(origin);
            }
        }
        Ok(found)
    }

    /// Whether an instant is one of the time in which rows may still have been moved. Of what was pruned nobody knows.
    fn is_soon(&self, origin: &Origin, at: Seq) -> bool {
        let time = |seq| self.resolver().time_of(seq).ok();
        let both = time(at).zip(time(Seq(origin.born).next()));
        both.is_some_and(|(at, born)| at.0.saturating_sub(born.0) < WAITS_US)
    }

    /// Which child of its split an origin is of.
    pub(super) fn child_of(&self, origin: &Origin) -> Result<Option<Child>> {
        let split = splits::get(&self.meta, origin.split)?;
        let child = usize::try_from(origin.child).ok().zip(split);
        Ok(child.and_then(|(number, split)| split.children.into_iter().nth(number)))
    }
}

/// The last event before the first of these names; `now`: there is none yet.
fn first_of(names: &[Named], now: Seq) -> Seq {
    names.last().map_or(now, |first| before(first.seq))
}

fn before(seq: Seq) -> Seq {
    Seq(seq.0.saturating_sub(1))
}
