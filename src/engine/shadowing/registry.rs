//! Shadows in the metadata store: for whoever wants to know which there are, and what they have served in all. The files
//! in STORE/shadow say what is there; these tables follow them.

use super::Shadowing;
use crate::engine::Engine;
use crate::error::Result;
use crate::forecast::Forecast;
use crate::meta::store::{Table, Writing};
use crate::shadow::{Reason, Shadow, Subject};
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
    /// Of one that the forecast asked for: what it said then.
    #[serde(default)]
    pub foreseen: Option<Foreseen>,
}

/// What the forecast said of a partition when it asked for a shadow of it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Foreseen {
    /// When it said so, µs UTC.
    pub at_us: i64,
    /// When the partition splits: as likely earlier as later, µs UTC.
    pub split_us: i64,
    /// Probability that it splits within a day of `at_us`.
    pub confidence: f64,
}

impl Foreseen {
    pub(in crate::engine) fn new(at: Timestamp, forecast: &Forecast) -> Foreseen {
        let [_, median, _] = forecast.split_secs;
        let [.., day] = forecast.p_split;
        let split_us = at.0.saturating_add((f64::from(median) * 1e6) as i64);
        Foreseen { at_us: at.0, split_us, confidence: f64::from(day) }
    }
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
    /// Of partitions of which the forecast wishes, or has, a shadow.
    foreseen: BTreeMap<Subject, Foreseen>,
}

impl Shadowing {
    /// Bytes of views that came from a shadow, in all sessions.
    pub(super) fn served_ever(&self, shadow: &Shadow) -> u64 {
        let before = self.noted.lock().served.get(&shadow.id).copied();
        before.unwrap_or(0) + shadow.served_bytes()
    }

    /// The forecast wishes for a shadow; why.
    pub(in crate::engine) fn foresee(&self, subject: Subject, foreseen: Foreseen) {
        self.noted.lock().foreseen.insert(subject, foreseen);
    }

    pub(super) fn foreseen(&self, shadow: &Shadow) -> Option<Foreseen> {
        let is_its = shadow.reason == Reason::Forecast;
        self.noted.lock().foreseen.get(&shadow.subject).copied().filter(|_| is_its)
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
        // In this order: what is wished for is there when it is wished for no more.
        let wished = self.wished_partitions();
        let list = self.shadowing.shadows.list();
        let has = |subject: &Subject| list.iter().any(|shadow| shadow.subject == *subject);
        let is_wanted =
            |subject: &Subject, _: &mut Foreseen| has(subject) || wished.contains(&subject.to_string());
        self.shadowing.noted.lock().foreseen.retain(is_wanted);
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
                    if let Some(foreseen) = row.foreseen {
                        noted.foreseen.entry(shadow.subject.clone()).or_insert(foreseen);
                    }
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
            foreseen: self.shadowing.foreseen(shadow),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As a build wrote it that did not know what was foreseen.
    #[derive(Serialize)]
    struct Earlier {
        root: Vec<u8>,
        partition: Vec<u8>,
        pages: Option<u64>,
        reason: String,
        benefit: f64,
        follows: bool,
        served_bytes: u64,
    }

    #[test]
    fn a_row_of_an_earlier_build_is_read_and_tells_nothing_foreseen() {
        let (root, partition, reason) = (Vec::new(), b"base/5/1".to_vec(), "forecast".to_owned());
        let earlier =
            Earlier { root, partition, pages: None, reason, benefit: 0.5, follows: true, served_bytes: 9 };
        let row: ShadowRow = rmp_serde::from_slice(&rmp_serde::to_vec_named(&earlier).unwrap()).unwrap();
        assert_eq!((row.served_bytes, row.foreseen), (9, None));
        let foreseen = Foreseen { at_us: 1, split_us: 2, confidence: 0.5 };
        let row = ShadowRow { foreseen: Some(foreseen), ..row };
        let again: ShadowRow = rmp_serde::from_slice(&rmp_serde::to_vec_named(&row).unwrap()).unwrap();
        assert_eq!(again, row);
    }

    #[test]
    fn what_is_foreseen_is_the_median_time_and_the_chance_within_a_day() {
        let forecast =
            Forecast { split_secs: [10.0, 90.5, 1e6], p_split: [0.125, 0.25, 0.75], ..Forecast::default() };
        let said = Foreseen::new(Timestamp(1_000_000), &forecast);
        assert_eq!(said, Foreseen { at_us: 1_000_000, split_us: 91_500_000, confidence: 0.75 });
        let never = Forecast { split_secs: [f32::MAX; 3], ..forecast };
        assert_eq!(Foreseen::new(Timestamp(1), &never).split_us, i64::MAX);
    }
}
