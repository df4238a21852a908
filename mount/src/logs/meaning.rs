//! What statements mean for partitions: splits, whose parents are made ready at once, and other changes, of which the
//! forecast is told.

use super::format::Statement;
use super::queries::Asked;
use super::tables::{Named, Tables};
use super::tailer::Counts;
use crate::running::Running;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weft::engine::{Capture, Partition};
use weft::forecast::signal::{Ddl, Key, Signal};
use weft::lineage::ddl::{SchemaChange, Table, recognise};
use weft::lineage::partition::{Fork, Layout};
use weft::lineage::splits::{Child, How, Tie};

/// What is attached so long after something was detached is taken for a part of it.
const TOGETHER_US: i64 = 600_000_000;
/// Detached partitions that are remembered.
const DETACHED_MAX: usize = 64;

/// Carries statements out; remembers what several say together.
pub(super) struct Meaning {
    pub tables: Tables,
    pub detached: Vec<Detached>,
}

/// What left a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Detached {
    /// Where the log tells it.
    #[serde(default)]
    pub database: Option<String>,
    /// Where the statement tells it: the next one for the same table may not.
    #[serde(default)]
    pub schema: Option<String>,
    /// The table's own name.
    pub table: String,
    pub partition: String,
    /// µs UTC, as history dates it.
    pub at_us: i64,
    /// The forecast knows that it is divided.
    #[serde(default)]
    pub told: bool,
}

impl Detached {
    /// Whether it may have left the table that another statement names.
    fn may_be_of(&self, database: Option<&str>, table: &Table) -> bool {
        let may_be = |one: &Option<String>, other: Option<&str>| {
            one.as_deref().zip(other).is_none_or(|(one, other)| one == other)
        };
        self.table == table.name
            && may_be(&self.schema, table.schema.as_deref())
            && may_be(&self.database, database)
    }
}

/// A statement's database and what it changes.
pub(super) struct Change {
    database: Option<String>,
    what: SchemaChange,
}

/// The schema changes among statements.
pub(super) fn changes(statements: Vec<Statement>, counts: &mut Counts) -> Vec<Change> {
    counts.statements += statements.len() as u64;
    let found = statements.into_iter().flat_map(|Statement { database, text }| {
        let whats = recognise(text.as_bytes()).into_iter();
        whats.map(move |what| Change { database: database.clone(), what })
    });
    let found: Vec<Change> = found.collect();
    counts.changes += found.len() as u64;
    found
}

impl Meaning {
    pub fn new(tables: Tables, detached: Vec<Detached>) -> Meaning {
        Meaning { tables, detached }
    }

    /// Whether a change may need what the catalogue says now.
    pub fn asks(change: &Change) -> bool {
        !matches!(change.what, SchemaChange::Alter { .. } | SchemaChange::Create { partition_of: None, .. })
    }

    /// Does what a change asks for; false when the files of a table that it names are not known.
    pub fn take(&mut self, running: &Running, change: &Change, counts: &mut Counts) -> bool {
        let Change { database, what } = change;
        let of = |table, part| Named { database: database.as_deref(), table, part };
        match what {
            SchemaChange::Split { table, parts, into } | SchemaChange::Merge { table, parts, into } => {
                let parents = self.parents(running, &of(table, None), parts);
                for parent in &parents {
                    for child in into {
                        let name = child_name(running, parent, child);
                        let files = self.tables.partition(running, &of(child, None));
                        // Of one that keeps the name of what is divided or merged, the files are made anew.
                        let keeps = |one: &Partition| Some(one) == files.as_ref() || one.to_string() == name;
                        let kept = parents.iter().find(|one| keeps(one));
                        let was = kept.and_then(|kept| first_file(running, kept));
                        let anew = kept.is_some();
                        let row = Child { name: Some(name), anew, was, ..Child::default() };
                        self.split(running, parent, (row, of(child, None)), counts);
                    }
                }
                !parents.is_empty()
            }
            SchemaChange::Detach { parent, child } => {
                let known = self.tables.partition(running, &of(child, None));
                known.map(|partition| self.detach(running, of(parent, None), &partition)).is_some()
            }
            SchemaChange::Attach { parent, child } => self.attach(running, parent, of(child, None), counts),
            _ => self.tell(running, what, of),
        }
    }

    /// What is split: the parts that are named, each with its files, or all of the table.
    fn parents(&self, running: &Running, of: &Named<'_>, parts: &[Table]) -> Vec<Partition> {
        let part = |part| self.tables.partition(running, &Named { part: Some(part), ..*of });
        match parts.is_empty() {
            true => self.tables.partition(running, of).into_iter().collect(),
            false => parts.iter().filter_map(part).collect(),
        }
    }

    /// Something leaves a table: often to be divided, and if not, to be dropped. Either way its past is soon wanted.
    fn detach(&mut self, running: &Running, table: Named<'_>, partition: &Partition) {
        let engine = &running.common.engine;
        if let Err(error) = engine.prepare_split(running.layout(), partition) {
            tracing::warn!(%error, "what a log says is detached cannot be made ready");
        }
        signal(running, partition, Ddl::Detach);
        let (shown, at_us) = (partition.to_string(), engine.now().0);
        self.detached.retain(|other| other.partition != shown && at_us - other.at_us < TOGETHER_US);
        if self.detached.len() >= DETACHED_MAX {
            self.detached.remove(0);
        }
        let Table { schema, name } = table.table.clone();
        let database = table.database.map(str::to_owned);
        self.detached.push(Detached { database, schema, table: name, partition: shown, at_us, told: false });
    }

    /// Something joins a table: what was detached from it a moment ago may have been divided into this and others, or merged.
    /// Nothing says so, and it may as well be something new: a guess, of all that were detached, unless it is empty or the
    /// same again.
    fn attach(&mut self, running: &Running, table: &Table, child: Named<'_>, counts: &mut Counts) -> bool {
        let now_us = running.common.engine.now().0;
        let known = self.tables.partition(running, &child);
        let shown = known.as_ref().map(Partition::to_string);
        let recent = |other: &Detached| {
            other.may_be_of(child.database, table)
                && now_us - other.at_us < TOGETHER_US
                && shown.as_ref() != Some(&other.partition)
        };
        let is_new = known.as_ref().is_some_and(|files| is_empty(running, files));
        let all = (0..).zip(&self.detached).filter(|(_, other)| !is_new && recent(other));
        let parents: Vec<(usize, Partition)> =
            all.filter_map(|(at, other)| Some((at, running.partition(&other.partition).ok()?))).collect();
        if parents.is_empty() {
            return known.map(|partition| signal(running, &partition, Ddl::Attach)).is_some();
        }
        for (at, parent) in parents {
            let row = Child { name: Some(child.table.to_string()), presumed: true, ..Child::default() };
            let noted = self.split(running, &parent, (row, child), counts);
            let Some(detached) = self.detached.get_mut(at).filter(|other| !other.told) else { continue };
            detached.told = true;
            // It may be dropped by now: no child has a past in it then, and it was divided all the same.
            if !noted {
                let engine = &running.common.engine;
                let (at, children, point) = (engine.now(), Vec::new(), None);
                engine.signal(Signal::Split { partition: key(&parent), at, children, point });
            }
        }
        true
    }

    /// Notes a split; false when it cannot be.
    fn split(
        &self,
        running: &Running,
        parent: &Partition,
        (row, child): (Child, Named<'_>),
        counts: &mut Counts,
    ) -> bool {
        let name = row.name.clone();
        let split = match running.split_of(parent, How::Ddl, row) {
            Ok(split) => split,
            Err(cause) => {
                tracing::warn!("a split that a log tells of is not noted: {cause}");
                return false;
            }
        };
        counts.splits += 1;
        // A child that the catalogue knows already is tied at once.
        let number = split.children.iter().position(|child| child.name == name);
        let files = self.tables.partition(running, &child).filter(|files| files != parent);
        if let (Some(number), Some(files)) = (number, files) {
            let (engine, layout) = (&running.common.engine, running.layout());
            if let Err(error) = engine.confirm_child(layout, (split.id, number), &files, Tie::Catalogue) {
                tracing::debug!(%error, "a child that a log names is not tied yet");
            }
        }
        true
    }

    /// Tells the forecast of a change that is no split.
    fn tell<'a>(
        &self,
        running: &Running,
        what: &'a SchemaChange,
        of: impl Fn(&'a Table, Option<&'a Table>) -> Named<'a>,
    ) -> bool {
        let (ddl, named): (Ddl, Vec<Named<'a>>) = match what {
            SchemaChange::Drop { tables } => {
                (Ddl::Drop, tables.iter().map(|table| of(table, None)).collect())
            }
            SchemaChange::Truncate { tables } => {
                (Ddl::Truncate, tables.iter().map(|table| of(table, None)).collect())
            }
            SchemaChange::DropPartition { table, parts } => {
                (Ddl::Drop, parts.iter().map(|part| of(table, Some(part))).collect())
            }
            SchemaChange::TruncatePartition { table, parts } => {
                (Ddl::Truncate, parts.iter().map(|part| of(table, Some(part))).collect())
            }
            SchemaChange::Create { partition_of: Some(parent), .. } => (Ddl::Create, vec![of(parent, None)]),
            SchemaChange::AddPartition { table, .. } => (Ddl::Create, vec![of(table, None)]),
            SchemaChange::Exchange { table, part, .. } => (Ddl::Other, vec![of(table, Some(part))]),
            _ => return true,
        };
        let known = named.iter().map(|named| self.tables.partition(running, named));
        let known: Vec<Option<Partition>> = known.collect();
        known.iter().flatten().for_each(|partition| signal(running, partition, ddl));
        known.iter().all(Option::is_some)
    }
}

/// The number of the first file of a partition.
fn first_file(running: &Running, partition: &Partition) -> Option<u64> {
    let parts = running.common.engine.partition_files(running.layout(), partition).ok()?;
    parts.first().map(|part| part.file.0)
}

/// Whether a table has no rows yet. What the kernel still holds of it is not seen here, and may be all of it.
fn is_empty(running: &Running, partition: &Partition) -> bool {
    let engine = &running.common.engine;
    let parts = engine.partition_files(running.layout(), partition).unwrap_or_default();
    let rows = parts.iter().filter(|part| part.fork == Fork::Main).map(|part| part.attr.size).sum::<u64>();
    rows == 0 && engine.capture() == Capture::Strict
}

/// A child of MariaDB's has its files' name from the start.
fn child_name(running: &Running, parent: &Partition, child: &Table) -> String {
    let shown = parent.to_string();
    match running.layout() {
        Layout::Mariadb => {
            let table = shown.split("#P#").next().unwrap_or(&shown);
            format!("{table}#P#{}", child.name)
        }
        _ => child.to_string(),
    }
}

/// Tells the forecast what was read and written; of each whether its files are known.
pub(super) fn tell_queries(running: &Running, tables: &mut Tables, all: &[Asked]) -> Vec<bool> {
    let mut told: BTreeMap<Key, (u32, u32)> = BTreeMap::new();
    let mut known = Vec::with_capacity(all.len());
    for one in all {
        let key = tables.key(running, &one.named());
        known.push(key.is_some());
        if let Some(key) = key {
            let (reads, writes) = told.entry(key).or_default();
            *reads = reads.saturating_add(one.reads);
            *writes = writes.saturating_add(one.writes);
        }
    }
    let engine = &running.common.engine;
    let at = engine.now();
    for (partition, (reads, writes)) in told {
        engine.signal(Signal::Query { partition, at, reads, writes });
    }
    known
}

fn key(partition: &Partition) -> Key {
    Key::from(partition.to_string())
}

fn signal(running: &Running, partition: &Partition, what: Ddl) {
    let engine = &running.common.engine;
    engine.signal(Signal::Ddl { partition: Some(key(partition)), at: engine.now(), what });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_another_table_of_the_same_name_is_told_apart() {
        let text = |text: &str| Some(text.to_owned());
        let detached = |database: Option<String>, schema: Option<String>| Detached {
            database,
            schema,
            table: "orders".into(),
            partition: "base/5/1".into(),
            at_us: 0,
            told: false,
        };
        let table = |schema: Option<String>| Table { schema, name: "orders".into() };
        let one = detached(text("shop"), text("a"));
        assert!(one.may_be_of(Some("shop"), &table(text("a"))));
        assert!(one.may_be_of(None, &table(None)), "what is not said may be the same");
        assert!(!one.may_be_of(Some("shop"), &table(text("b"))));
        assert!(!one.may_be_of(Some("store"), &table(text("a"))));
        assert!(detached(None, None).may_be_of(Some("shop"), &table(text("a"))));
        assert!(!one.may_be_of(None, &Table { schema: None, name: "order".into() }));
    }
}
