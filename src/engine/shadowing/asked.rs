//! What people asked for, in the metadata store: it is made anew when it was lost, until they take it back. And what else
//! an earlier session was to make and has not.

use super::children::ChildShadow;
use crate::engine::{Engine, splits};
use crate::error::Result;
use crate::lineage;
use crate::lineage::partition::{Layout, Partition};
use crate::lineage::splits::{Split, WAITS_US};
use crate::meta::store::Table;
use crate::shadow::{Reason, Shadow, Subject, Wish};
use crate::types::{PageSet, Seq, Timestamp};
use serde::{Deserialize, Serialize};

/// Shadows that people asked for, by number.
pub const ASKED: Table<u64, AskedRow> = Table::new("asked", 1);

/// A shadow that a person asked for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AskedRow {
    pub root: Vec<u8>,
    pub partition: Vec<u8>,
    /// As [`PageSet::to_bytes`] gives them; without them all pages.
    #[serde(default)]
    pub pages: Option<Vec<u8>>,
    /// The Seq that it stays at; without it it is kept up to date.
    #[serde(default)]
    pub at: Option<u64>,
}

impl AskedRow {
    fn of(wish: &Wish) -> AskedRow {
        AskedRow {
            root: wish.subject.root.clone(),
            partition: wish.subject.partition.clone(),
            pages: wish.pages.as_ref().map(PageSet::to_bytes),
            at: wish.at.map(|Seq(at)| at),
        }
    }

    /// `None`: its pages cannot be read.
    fn wish(self) -> Option<Wish> {
        let pages = match self.pages {
            Some(bytes) => Some(PageSet::from_bytes(&bytes)?),
            None => None,
        };
        let subject = Subject { root: self.root, partition: self.partition };
        Some(Wish { subject, pages, at: self.at.map(Seq), benefit: 0.0, reason: Reason::Asked, urgent: true })
    }
}

/// Wishes for a shadow as it is.
pub(super) fn wishes_for(shadow: &Shadow, benefit: f64) -> Vec<Wish> {
    let instants: Vec<Option<Seq>> = match shadow.follows {
        true => vec![None],
        false => shadow.snapshots.iter().map(|snapshot| Some(snapshot.seq())).collect(),
    };
    let wish = |at| Wish {
        subject: shadow.subject.clone(),
        pages: shadow.pages.clone(),
        at,
        benefit,
        reason: shadow.reason,
        urgent: shadow.reason == Reason::Asked,
    };
    instants.into_iter().map(wish).collect()
}

impl Engine {
    /// Remembers what a person asked for.
    pub(super) fn note_asked(&self, wish: &Wish) -> Result<()> {
        let row = AskedRow::of(wish);
        if self.meta.read(|tx| Ok(tx.range(&ASKED, ..)?.iter().any(|(_, known)| *known == row)))? {
            return Ok(());
        }
        self.meta.write(|tx| {
            let number = tx.last(&ASKED, ..)?.map_or(1, |(last, _)| last + 1);
            tx.put(&ASKED, &number, &row)
        })
    }

    /// Forgets what a person took back, or what can never be made again.
    pub(super) fn forget_asked(&self, unwanted: impl Fn(&Wish) -> bool) -> Result<()> {
        let rows = self.meta.read(|tx| tx.range(&ASKED, ..))?;
        let gone = |(number, row): (u64, AskedRow)| match row.wish() {
            Some(wish) if !unwanted(&wish) => None,
            _ => Some(number),
        };
        let gone: Vec<u64> = rows.into_iter().filter_map(gone).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.meta.write(|tx| gone.iter().try_for_each(|number| tx.remove(&ASKED, number)))
    }

    /// Wishes for what an earlier session was asked for or was to make, and is not there. Called when the layout is known.
    pub fn take_up_wishes(&self, layout: Layout) {
        self.set_layout(layout);
        for lost in [self.lost_asked(), self.lost_splits(layout)] {
            match lost {
                Ok(wishes) => wishes.into_iter().for_each(|wish| self.wish(wish)),
                Err(error) => tracing::warn!(%error, "which shadows were lost cannot be told"),
            }
        }
    }

    fn lost_asked(&self) -> Result<Vec<Wish>> {
        let list = self.shadowing.shadows.list();
        let asked = list.iter().filter(|shadow| shadow.reason == Reason::Asked);
        let there: Vec<Wish> = asked.flat_map(|shadow| wishes_for(shadow, 0.0)).collect();
        // The table may have been lost, or be younger than they are.
        there.iter().try_for_each(|wish| self.note_asked(wish))?;
        let rows = self.meta.read(|tx| tx.range(&ASKED, ..))?;
        let wishes = rows.into_iter().filter_map(|(_, row)| row.wish());
        Ok(wishes.filter(|wish| !there.contains(wish)).collect())
    }

    fn lost_splits(&self, layout: Layout) -> Result<Vec<Wish>> {
        let roots: Vec<Vec<u8>> = self.roots()?.into_iter().map(|root| root.name).collect();
        // Of what is longer ago the shadows have been made, or nobody waits.
        let is_new = |split: &Split| {
            self.age_of_us((Seq(split.seq), Timestamp(split.at_us))) < WAITS_US.unsigned_abs()
        };
        let mut lost = Vec::new();
        for split in lineage::splits::all(&self.meta)?.into_iter().filter(is_new) {
            let parent = Partition::parse(layout, &split.parent, &roots);
            // A child that is there has left its parent: what is made of that now is too late.
            for child in split.children.iter().filter(|child| child.waits()) {
                let pages = child.page_set();
                let stands = self.child_shadow(layout, &parent, pages.as_ref(), None);
                if matches!(stands, ChildShadow::Missing(_)) {
                    lost.push(splits::wish_for(parent.clone().into(), pages));
                }
            }
        }
        Ok(lost)
    }
}
