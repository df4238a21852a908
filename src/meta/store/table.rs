//! Tables: a name, the version of its rows, what stands in it. How to add one is told at the head of `meta::store`.

use super::key::Key;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// What becomes of a table when the file is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// It is made again from what stands elsewhere in STORE.
    Rebuilt,
    /// It is gone, or begins again.
    Gone,
}

/// All tables there are, what stands in them in words, and what becomes of them when the file is lost. What an event tells
/// has no table: tags, leases, how far pruning has come (decision 0054).
pub const TABLES: &[(&str, &str, Loss)] = &[
    ("losses", "the record of earlier losses", Loss::Gone),
    ("shadows", "the list of shadows, but for what they served in earlier sessions", Loss::Rebuilt),
    ("snapshots", "the list of their snapshots", Loss::Rebuilt),
    ("asked", "which shadows were asked for, of those that are there", Loss::Rebuilt),
    ("forecasts", "forecasts", Loss::Gone),
    ("scores", "scores of forecasts", Loss::Gone),
    ("doubts", "which models are doubted", Loss::Gone),
    ("acted", "forecasts that something followed from", Loss::Gone),
    ("lineage", "lineage of partitions", Loss::Gone),
    ("splits", "splits that were declared or seen", Loss::Gone),
];

/// A table with keys `K` and rows `V`. Rows are MessagePack with the names of fields: a field that is added has
/// `#[serde(default)]`, one that is no more is skipped.
pub struct Table<K, V> {
    pub(super) name: &'static str,
    pub(super) version: u32,
    kinds: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Serialize + DeserializeOwned> Table<K, V> {
    /// `name` stands in [`TABLES`]. Another `version` is another table: raise it where old rows cannot be read.
    pub const fn new(name: &'static str, version: u32) -> Table<K, V> {
        Table { name, version, kinds: PhantomData }
    }

    /// Its name in the file.
    pub(super) fn stored_name(&self) -> String {
        format!("{}.{}", self.name, self.version)
    }

    pub(super) fn is_listed(&self) -> bool {
        TABLES.iter().any(|(name, ..)| *name == self.name)
    }
}
