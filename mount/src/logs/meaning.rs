//! What statements mean for partitions: splits, whose parents are made ready at once, and other changes, of which the
//! forecast is told.

use super::format::Statement;
use super::queries::Asked;
use super::tables::{Named, Tables};
use super::tailer::Counts;
use super::when::Said;
use crate::running::Running;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weft::engine::{Capture, Partition};
use weft::forecast::signal::{Ddl, Key, Signal};
use weft::lineage::ddl::{SchemaChange, Table, recognise};
use weft::lineage::partition::{Fork, Layout};
use weft::lineage::splits::{Child, How, Tie};
use weft::types::Timestamp;

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

/// A statement's database and time, and what it changes.
pub(super) struct Change {
    database: Option<String>,
    at: Option<Timestamp>,
    what: SchemaChange,
}

/// The schema changes among statements.
pub(super) fn changes(statements: Vec<Statement>, counts: &mut Counts) -> Vec<Change> {
    counts.statements += statements.len() as u64;
    let dialect = counts.format.dialect();
    let found = statements.into_iter().flat_map(|Statement { database, at, text }| {
        let whats = recognise(dialect, text.as_bytes()).into_iter();
        whats.map(move |what| Change { database: database.clone(), at, what })
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

    /// Does what a change asks for; false when the files of a table that it names are not known. Of what is no news the
    /// lineage alone is told.
    pub fn take(&mut self, running: &Running, change: &Change, counts: &mut Counts) -> bool {
        let Change { database, at, what } = change;
        let said = Said::new(*at, running.common.engine.now());
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
                        self.split(running, parent, (row, of(child, None), said), counts);
                    }
                }
                !parents.is_empty()
            }
            SchemaChange::Detach { parent, child } => {
                let known = self.tables.partition(running, &of(child, None));
                known.map(|partition| self.detach(running, of(parent, None), &partition, said)).is_some()
            }
            SchemaChange::Attach { parent, child } => {
                self.attach(running, parent, (of(child, None), said), counts)
            }
            _ => self.tell(running, what, said, of),
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
    fn detach(&mut self, running: &Running, table: Named<'_>, partition: &Partition, said: Said) {
        if said.is_news {
            prepare(running, partition);
            signal(running, partition, Ddl::Detach);
        }
        let (shown, at_us) = (partition.to_string(), said.at.0);
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
    fn attach(
        &mut self,
        running: &Running,
        table: &Table,
        (child, said): (Named<'_>, Said),
        counts: &mut Counts,
    ) -> bool {
        let known = self.tables.partition(running, &child);
        // The catalogue is asked again in a moment: what is declared is tied by what it says.
        if known.is_none() && !self.tables.is_new {
            return false;
        }
        let shown = known.as_ref().map(Partition::to_string);
        let recent = |other: &Detached| {
            other.may_be_of(child.database, table)
                && said.at.0.abs_diff(other.at_us) < TOGETHER_US.unsigned_abs()
                && shown.as_ref() != Some(&other.partition)
        };
        let is_new = known.as_ref().is_some_and(|files| is_empty(running, files));
        let all = (0..).zip(&self.detached).filter(|(_, other)| !is_new && recent(other));
        let parents: Vec<(usize, Partition)> =
            all.filter_map(|(at, other)| Some((at, running.partition(&other.partition).ok()?))).collect();
        if parents.is_empty() {
            if let Some(partition) = known.as_ref().filter(|_| said.is_news) {
                signal(running, partition, Ddl::Attach);
            }
            return known.is_some();
        }
        for (at, parent) in parents {
            let row = Child { name: Some(child.table.to_string()), presumed: true, ..Child::default() };
            let noted = self.split(running, &parent, (row, child, said), counts);
            let Some(detached) = self.detached.get_mut(at).filter(|other| !other.told) else { continue };
            detached.told = true;
            // It may be dropped by now: no child has a past in it then, and it was divided all the same.
            if !noted && said.is_news {
                let engine = &running.common.engine;
                let (at, children, point) = (engine.now(), Vec::new(), None);
                engine.signal(Signal::Split { partition: key(&parent), at, children, point });
            }
        }
        true
    }

    /// Notes a split; false when it cannot be. What was declared is not noted once more: the pages that were told with it
    /// would be lost.
    fn split(
        &self,
        running: &Running,
        parent: &Partition,
        (row, child, said): (Child, Named<'_>, Said),
        counts: &mut Counts,
    ) -> bool {
        let (engine, layout) = (&running.common.engine, running.layout());
        let name = row.name.clone();
        // Of MariaDB's the child is a part of the table, not a table; its path says which files it will have.
        let files = match layout {
            Layout::Mariadb => None,
            _ => self.tables.partition(running, &child).filter(|files| files != parent),
        };
        let declared = engine.declared_child(parent, name.as_deref(), files.as_ref(), said.is_news);
        if let Some(declared) = declared.unwrap_or_default() {
            if let Some(files) = files {
                confirm(running, declared, &files);
            } else if said.is_news && !row.presumed {
                // It has not run yet: what was made ready may be of long ago.
                prepare(running, parent);
            }
            return true;
        }
        let noted = match said.is_news {
            true => running.split_of(parent, How::Ddl, row),
            false => running.past_split_of(parent, (How::Ddl, said.at), row),
        };
        let split = match noted {
            Ok(split) => split,
            Err(cause) => {
                tracing::warn!("a split that a log tells of is not noted: {cause}");
                return false;
            }
        };
        counts.splits += 1;
        // A child that the catalogue knows already is tied at once.
        let number = split.children.iter().position(|child| child.name == name);
        if let (Some(number), Some(files)) = (number, files) {
            confirm(running, (split.id, number), &files);
        }
        true
    }

    /// Tells the forecast of a change that is no split.
    fn tell<'a>(
        &self,
        running: &Running,
        what: &'a SchemaChange,
        said: Said,
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
        known.iter().flatten().filter(|_| said.is_news).for_each(|partition| signal(running, partition, ddl));
        known.iter().all(Option::is_some)
    }
}

/// Makes ready what a log says is detached, or divided.
fn prepare(running: &Running, partition: &Partition) {
    if let Err(error) = running.common.engine.prepare_split(running.layout(), partition) {
        tracing::warn!(%error, "what a log says is detached cannot be made ready");
    }
}

/// Ties a child to the files that the catalogue knows.
fn confirm(running: &Running, child: (u64, usize), files: &Partition) {
    let engine = &running.common.engine;
    if let Err(error) = engine.confirm_child(running.layout(), child, files, Tie::Catalogue) {
        tracing::debug!(%error, "a child that a log names is not tied yet");
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
