//! The ordered key-value store beneath the index: small enough that an LSM (`fjall`) and a map in memory serve alike.

use crate::error::Result;

/// One keyspace of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// Versions of pages: (file, level, block, newest first).
    Page,
    /// Partial versions of pages: (file, page, newest first).
    Partial,
    /// Data events of a file or directory: (file, newest first) -> time and size.
    Data,
    /// Attributes: (file, newest first).
    Attr,
    /// Names: (directory, name, newest first).
    Name,
    /// Extended attributes: (file, name, newest first).
    Xattr,
    /// Adoptions: (file, newest first) -> what was adopted.
    Adopt,
    /// Saved pre-images: (file, adoption, page).
    Base,
    /// Groups by clock epoch and time, and by Seq; pins; sessions.
    Time,
    /// Small state: watermark, format version, levels per file.
    State,
}

impl Space {
    /// Every space, in the order of the declaration.
    pub const ALL: [Space; 10] = [
        Space::Page,
        Space::Partial,
        Space::Data,
        Space::Attr,
        Space::Name,
        Space::Xattr,
        Space::Adopt,
        Space::Base,
        Space::Time,
        Space::State,
    ];
}

/// Key and value, owned.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A set of puts and removals, committed together or not at all. A key stands in it once; keys begin below 0xff
/// (what begins with it is the store's own).
#[derive(Default)]
pub struct Batch {
    pub puts: Vec<(Space, Vec<u8>, Vec<u8>)>,
    pub removals: Vec<(Space, Vec<u8>)>,
}

impl Batch {
    pub fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.puts.push((space, key, value));
    }
}

/// An ordered map per [`Space`]. Reads see every batch committed before they began.
pub trait Kv: Send + Sync {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// The first pair whose key is at or after `from` and below `end`.
    fn first(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>>;
    /// The last pair whose key is at or after `from` and below `end`.
    fn last(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>>;
    /// Up to `limit` pairs in key order, from `from` to below `end`.
    fn range(&self, space: Space, from: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>>;
    /// Applies a batch atomically. Durable some time later; what a crash takes is a suffix of the batches.
    ///
    /// # Errors
    /// The batch is there, or will be with the next one that succeeds, or it is not: whole in any case.
    fn commit(&self, batch: Batch) -> Result<()>;
    /// Makes every batch committed so far durable.
    fn persist(&self) -> Result<()>;
    /// Bytes on disk (in memory for a map).
    fn size_bytes(&self) -> u64;
}
