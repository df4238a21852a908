//! What is done within one transaction.

use super::fault::{After, Fault, fault};
use super::key::{Key, bytes_of, key_of};
use super::table::Table;
use crate::error::{Error, Result};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::ops::{Bound, RangeBounds};

type Stored<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

/// Rows of a table, by rising key.
pub type Rows<K, V> = Vec<(K, V)>;

/// One moment of the store: what others write meanwhile is not seen.
pub struct Reading<'a> {
    pub(super) tx: &'a redb::ReadTransaction,
    pub(super) after: Cell<Option<After>>,
}

/// Changes that become durable together, or none of them.
pub struct Writing<'a> {
    pub(super) tx: &'a redb::WriteTransaction,
    pub(super) after: Cell<Option<After>>,
}

/// Notes what a fault means for the store; the first counts.
fn note(after: &Cell<Option<After>>, fault: Fault) -> Error {
    if fault.after != After::GoOn && after.get().is_none() {
        after.set(Some(fault.after));
    }
    fault.error
}

fn listed<K: Key, V: Serialize + DeserializeOwned>(table: &Table<K, V>) -> Result<String> {
    if table.is_listed() {
        return Ok(table.stored_name());
    }
    Err(Error::invalid("meta.table", format!("{} is not listed in meta::store::TABLES", table.name)))
}

fn row<V: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<V> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| Error::corrupt("meta.row", format!("a row of table {name} cannot be read: {error}")))
}

/// The bytes of the keys in a range, whose ends may be open.
fn bounds<K: Key>(range: &impl RangeBounds<K>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let bound = |bound: Bound<&K>| bound.map(|key| bytes_of(key));
    (bound(range.start_bound()), bound(range.end_bound()))
}

/// The bytes that begin with `prefix`.
fn below(prefix: Vec<u8>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let mut end = prefix.clone();
    while end.last() == Some(&0xff) {
        end.pop();
    }
    let end = match end.last_mut() {
        Some(last) => {
            *last += 1;
            Bound::Excluded(end)
        }
        None => Bound::Unbounded,
    };
    (Bound::Included(prefix), end)
}

/// Whether nothing can lie between two bounds: `redb`'s range, as the standard library's, is for others.
fn is_empty((start, end): &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
    }
}

/// Walks over rows until `each` says false.
fn walk<K: Key, V: DeserializeOwned>(
    name: &str,
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    after: &Cell<Option<After>>,
    mut each: impl FnMut(K, V) -> Result<bool>,
) -> Result<()> {
    if is_empty(&bounds) {
        return Ok(());
    }
    let slices = (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice));
    let range = table.range::<&[u8]>(slices).map_err(|error| note(after, fault("meta.read", error)))?;
    for found in range {
        let (key, value) = found.map_err(|error| note(after, fault("meta.read", error)))?;
        if !each(key_of(key.value())?, row(name, value.value())?)? {
            break;
        }
    }
    Ok(())
}

/// The reading half, which both kinds of transaction have.
macro_rules! reads {
    ($kind:ident, $handle:ty) => {
        impl $kind<'_> {
            /// The row of a key.
            pub fn get<K: Key, V: Serialize + DeserializeOwned>(
                &self,
                table: &Table<K, V>,
                key: &K,
            ) -> Result<Option<V>> {
                let name = listed(table)?;
                let Some(open) = self.opened(&name)? else { return Ok(None) };
                let found = open.get(bytes_of(key).as_slice());
                let found = found.map_err(|error| note(&self.after, fault("meta.read", error)))?;
                found.map(|value| row(&name, value.value())).transpose()
            }

            /// The rows of a range of keys.
            pub fn range<K: Key, V: Serialize + DeserializeOwned>(
                &self,
                table: &Table<K, V>,
                range: impl RangeBounds<K>,
            ) -> Result<Rows<K, V>> {
                let mut rows = Vec::new();
                self.each(table, range, |key, value| {
                    rows.push((key, value));
                    Ok(true)
                })?;
                Ok(rows)
            }

            /// All rows whose keys begin with a first part of theirs.
            pub fn beginning<P: Key, K: Key, V: Serialize + DeserializeOwned>(
                &self,
                table: &Table<K, V>,
                first: &P,
            ) -> Result<Rows<K, V>> {
                let mut rows = Vec::new();
                let name = listed(table)?;
                let Some(open) = self.opened(&name)? else { return Ok(rows) };
                walk(&name, &open, below(bytes_of(first)), &self.after, |key, value| {
                    rows.push((key, value));
                    Ok(true)
                })?;
                Ok(rows)
            }

            /// Goes through the rows of a range until `each` says false; for tables that are large.
            pub fn each<K: Key, V: Serialize + DeserializeOwned>(
                &self,
                table: &Table<K, V>,
                range: impl RangeBounds<K>,
                each: impl FnMut(K, V) -> Result<bool>,
            ) -> Result<()> {
                let name = listed(table)?;
                let Some(open) = self.opened(&name)? else { return Ok(()) };
                walk(&name, &open, bounds(&range), &self.after, each)
            }

            /// The row with the greatest key of a range.
            pub fn last<K: Key, V: Serialize + DeserializeOwned>(
                &self,
                table: &Table<K, V>,
                range: impl RangeBounds<K>,
            ) -> Result<Option<(K, V)>> {
                let (name, bounds) = (listed(table)?, bounds(&range));
                let Some(open) = self.opened(&name)? else { return Ok(None) };
                if is_empty(&bounds) {
                    return Ok(None);
                }
                let slices = (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice));
                let faulty = |error| note(&self.after, fault("meta.read", error));
                let found = open.range::<&[u8]>(slices).map_err(faulty)?.next_back();
                let Some((key, value)) = found.transpose().map_err(faulty)? else { return Ok(None) };
                Ok(Some((key_of(key.value())?, row(&name, value.value())?)))
            }

            /// How many rows a table has.
            pub fn count<K: Key, V: Serialize + DeserializeOwned>(&self, table: &Table<K, V>) -> Result<u64> {
                let Some(open) = self.opened(&listed(table)?)? else { return Ok(0) };
                open.len().map_err(|error| note(&self.after, fault("meta.read", error)))
            }

            fn opened(&self, name: &str) -> Result<Option<$handle>> {
                match self.tx.open_table(Stored::new(name)) {
                    Ok(open) => Ok(Some(open)),
                    Err(TableError::TableDoesNotExist(_)) => Ok(None),
                    Err(error) => Err(note(&self.after, fault("meta.table", error))),
                }
            }
        }
    };
}

reads!(Reading, redb::ReadOnlyTable<&'static [u8], &'static [u8]>);
reads!(Writing, redb::Table<'_, &'static [u8], &'static [u8]>);

impl Writing<'_> {
    /// Sets the row of a key.
    pub fn put<K: Key, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<()> {
        let bytes = rmp_serde::to_vec_named(value).map_err(|error| {
            Error::invalid("meta.row", format!("a row of {} cannot be stored: {error}", table.name))
        })?;
        self.changed(table, |open| open.insert(bytes_of(key).as_slice(), bytes.as_slice()).map(|_| ()))
    }

    /// Removes the row of a key; there may be none.
    pub fn remove<K: Key, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        key: &K,
    ) -> Result<()> {
        self.changed(table, |open| open.remove(bytes_of(key).as_slice()).map(|_| ()))
    }

    /// Removes the rows of a range of keys.
    pub fn remove_range<K: Key, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        range: impl RangeBounds<K>,
    ) -> Result<()> {
        let bounds = bounds(&range);
        if is_empty(&bounds) {
            return Ok(());
        }
        let slices = (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice));
        self.changed(table, |open| open.retain_in::<&[u8], _>(slices, |_, _| false))
    }

    fn changed<K: Key, V: Serialize + DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        change: impl FnOnce(
            &mut redb::Table<'_, &'static [u8], &'static [u8]>,
        ) -> std::result::Result<(), redb::StorageError>,
    ) -> Result<()> {
        let name = listed(table)?;
        let Some(mut open) = self.opened(&name)? else { return Ok(()) };
        change(&mut open).map_err(|error| note(&self.after, fault("meta.write", error)))
    }
}
