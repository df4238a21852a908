//! Shadows in the metadata store: for whoever wants to know which there are, and what they have served in all. The files
//! in STORE/shadow say what is there; these tables follow them.

use super::Shadowing;
use crate::engine::Engine;
use crate::error::Result;
use crate::meta::store::{Table, Writing};
use crate::shadow::Shadow;
use crate::types::{PAGE, PageSet, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Shadows by number.
pub const SHADOWS: Table<u64, ShadowRow> = Table::new("shadows", 1);
/// Their snapshots, by number and Seq.
pub const SNAPSHOTS: Table<(u64, Seq), SnapshotRow> = Table::new("snapshots", 1);

/// A shadow of a partition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ShadowRow {
    pub root: Vec<u8>,
    pub partition: Vec<u8>,
    /// Pages of the partition that it is of; without it all.
    pub pages: Option<u64>,
    pub reason: String,
    pub benefit: f64,
    pub follows: bool,
    /// Bytes of views that came from it, in all sessions.
    pub served_bytes: u64,
}

/// A snapshot of one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SnapshotRow {
    pub number: u32,
    pub made_us: i64,
    pub own_bytes: u64,
    pub blake3: String,
}

/// What earlier sessions have noted, and whether it has been read.
#[derive(Default)]
pub(super) struct Noted {
    read: bool,
    /// Bytes served before this session.
    served: BTreeMap<u64, u64>,
}

impl Shadowing {
    /// Bytes of views that came from a shadow, in all sessions.
    pub(super) fn served_ever(&self, shadow: &Shadow) -> u64 {
        let before = self.noted.lock().served.get(&shadow.id).copied();
        before.unwrap_or(0) + shadow.served_bytes()
    }
}

impl Engine {
    /// Brings the tables up to what is there, by hand. That it cannot be done costs what they tell, and nothing else.
    pub fn note_shadows(&self) {
        if let Err(error) = self.try_note_shadows() {
            tracing::warn!(%error, "the list of shadows cannot be kept");
        }
    }

    fn try_note_shadows(&self) -> Result<()> {
        if !self.shadowing.noted.lock().read {
            self.read_noted()?;
        }
        let list = self.shadowing.shadows.list();
        let rows: BTreeMap<u64, ShadowRow> =
            list.iter().map(|shadow| (shadow.id, self.row(shadow))).collect();
        let snapshots: BTreeMap<(u64, Seq), SnapshotRow> = list.iter().flat_map(snapshot_rows).collect();
        let same = self.meta.read(|tx| {
            Ok(tx.range(&SHADOWS, ..)?.into_iter().eq(rows.clone())
                && tx.range(&SNAPSHOTS, ..)?.into_iter().eq(snapshots.clone()))
        })?;
        if same {
            return Ok(());
        }
        self.meta.write(|tx| {
            replace(tx, &SHADOWS, &rows)?;
            replace(tx, &SNAPSHOTS, &snapshots)
        })
    }

    /// What was served before, of those that are still there: a number that is used again is another shadow.
    fn read_noted(&self) -> Result<()> {
        let there: BTreeMap<u64, Shadow> =
            self.shadowing.shadows.list().into_iter().map(|shadow| (shadow.id, shadow)).collect();
        let rows = self.meta.read(|tx| tx.range(&SHADOWS, ..))?;
        let mut noted = self.shadowing.noted.lock();
        for (id, row) in rows {
            match there.get(&id) {
                Some(shadow) if shadow.subject.partition == row.partition => {
                    noted.served.insert(id, row.served_bytes);
                }
                _ => tracing::info!(shadow = id, "a shadow that was noted is not there any more"),
            }
        }
        noted.read = true;
        Ok(())
    }

    fn row(&self, shadow: &Shadow) -> ShadowRow {
        ShadowRow {
            root: shadow.subject.root.clone(),
            partition: shadow.subject.partition.clone(),
            pages: shadow.pages.as_ref().map(PageSet::count),
            reason: shadow.reason.name().to_owned(),
            benefit: shadow.benefit,
            follows: shadow.follows,
            served_bytes: self.shadowing.served_ever(shadow),
        }
    }
}

fn snapshot_rows(shadow: &Shadow) -> Vec<((u64, Seq), SnapshotRow)> {
    let row = |snapshot: &crate::sync::Arc<crate::shadow::Snapshot>| {
        let Timestamp(made_us) = snapshot.head.made;
        let own_bytes = snapshot.head.files.iter().map(|file| file.own_pages * PAGE).sum();
        let blake3 = snapshot.hash();
        (
            (shadow.id, snapshot.seq()),
            SnapshotRow { number: snapshot.head.number, made_us, own_bytes, blake3 },
        )
    };
    shadow.snapshots.iter().map(row).collect()
}

/// A table with these rows and no others.
fn replace<K, V>(tx: &Writing<'_>, table: &Table<K, V>, rows: &BTreeMap<K, V>) -> Result<()>
where
    K: crate::meta::store::Key + Ord + Clone,
    V: Serialize + serde::de::DeserializeOwned + PartialEq,
{
    let old = tx.range(table, ..)?;
    let gone: BTreeSet<&K> = old.iter().map(|(key, _)| key).filter(|key| !rows.contains_key(*key)).collect();
    gone.into_iter().try_for_each(|key| tx.remove(table, key))?;
    let known: BTreeMap<&K, &V> = old.iter().map(|(key, row)| (key, row)).collect();
    let changed = rows.iter().filter(|(key, row)| known.get(key) != Some(row));
    changed.into_iter().try_for_each(|(key, row)| tx.put(table, key, row))
}
