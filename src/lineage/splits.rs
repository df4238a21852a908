//! Splits that were declared or seen coming, and which partition came out of which.
//!
//! - Kept in the metadata store: their loss costs the way into a child's past, never history itself.
//! - A child is a set of pages of its parent, as of the moment of the split's declaration; without a set it is all of the
//!   parent. A row of it stood, at any other instant, on one of those pages or on one that changed in between: so the
//!   set and what changed is always enough.
//! - What ties a child's files to its split is said with it: declared, found in the catalogue, or a guess.

use super::partition::{Fork, Layout};
use crate::error::{Error, Result};
use crate::meta::store::{Store, Table};
use crate::types::{PAGE, PageSet, Seq};
use serde::{Deserialize, Serialize};

const SPLITS: Table<u64, Split> = Table::new("splits", 1);
/// By child.
const LINEAGE: Table<String, Origin> = Table::new("lineage", 1);

/// Children of one parent that are declared within this time belong to one split, µs.
const TOGETHER_US: i64 = 3_600_000_000;
/// Children of one split.
const CHILDREN_MAX: usize = 4_096;
/// Pages of a segment of PostgreSQL's: 1 GiB.
pub const SEGMENT_PAGES: u64 = (1 << 30) / PAGE;

/// Who says that a partition splits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    Declared,
    Ddl,
}

/// How a child's files are known to be its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tie {
    Declared,
    Catalogue,
    /// They appeared where and when the child's would.
    Guess,
}

/// What a partition splits into.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Child {
    /// As the database will call it.
    #[serde(default)]
    pub name: Option<String>,
    /// The pages of the parent that hold its rows, as [`PageSet::to_bytes`] gives them.
    #[serde(default)]
    pub pages: Option<Vec<u8>>,
    #[serde(default)]
    pub rows: Option<u64>,
    #[serde(default)]
    pub predicate: Option<String>,
    /// Its files, once they are known.
    #[serde(default)]
    pub partition: Option<String>,
    #[serde(default)]
    pub tie: Option<Tie>,
}

impl Child {
    /// The pages, where it is not the whole of its parent.
    pub fn page_set(&self) -> Option<PageSet> {
        PageSet::from_bytes(self.pages.as_deref()?)
    }
}

/// A split of a partition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Split {
    pub id: u64,
    /// As [`super::partition::Partition`] shows it.
    pub parent: String,
    pub how: How,
    /// The last event when its (first) child was declared, and when that was, µs UTC. Page sets are of that moment or
    /// later.
    pub seq: u64,
    pub at_us: i64,
    pub children: Vec<Child>,
}

/// Where a partition came from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Origin {
    pub parent: String,
    pub split: u64,
    /// Which of its children.
    pub child: u64,
    /// The last event before its files were there.
    pub born: u64,
    pub tie: Tie,
}

/// The splits of a store, oldest first.
pub fn all(store: &Store) -> Result<Vec<Split>> {
    Ok(store.read(|tx| tx.range(&SPLITS, ..))?.into_iter().map(|(_, split)| split).collect())
}

/// Adds a child to the split of a parent: to the one that was declared just now, or to a new one.
pub fn declare(
    store: &Store,
    (parent, how): (&str, How),
    (seq, at_us): (Seq, i64),
    child: Child,
) -> Result<Split> {
    store.write(|tx| {
        let splits = tx.range(&SPLITS, ..)?;
        let next = splits.last().map_or(1, |(id, _)| id + 1);
        let open = splits.into_iter().map(|(_, split)| split).rev().find(|split| {
            split.parent == parent && split.how == how && at_us.saturating_sub(split.at_us) < TOGETHER_US
        });
        let mut split = open.unwrap_or_else(|| Split {
            id: next,
            parent: parent.to_owned(),
            how,
            seq: seq.0,
            at_us,
            children: Vec::new(),
        });
        // Declared again: what is new of it counts.
        let same = |other: &Child| {
            other.name == child.name
                && (child.name.is_some() || other.predicate == child.predicate && other.pages == child.pages)
        };
        match split.children.iter().position(same) {
            None if split.children.len() >= CHILDREN_MAX => {
                return Err(Error::invalid("split.declare", "this split has too many children"));
            }
            None => split.children.push(child.clone()),
            Some(at) => {
                if let Some(known) = split.children.get_mut(at) {
                    *known = Child { partition: known.partition.take(), tie: known.tie, ..child.clone() };
                }
            }
        }
        tx.put(&SPLITS, &split.id, &split)?;
        Ok(split)
    })
}

/// Whether what was declared at `at_us` is the first word of this division: of no earlier child, and of nobody else.
pub fn is_first(store: &Store, split: &Split, at_us: i64) -> Result<bool> {
    let is_same = |other: &Split| {
        other.id != split.id
            && other.parent == split.parent
            && at_us.saturating_sub(other.at_us) < TOGETHER_US
    };
    Ok(split.at_us == at_us && split.children.len() == 1 && !all(store)?.iter().any(is_same))
}

/// Ties a partition's files to a child of a split; a guess never takes the place of what is known.
pub fn tie(store: &Store, (split, child): (u64, usize), partition: &str, tie: Tie, born: Seq) -> Result<()> {
    store.write(|tx| {
        let mut row: Split = tx.get(&SPLITS, &split)?.ok_or_else(|| {
            Error::invalid("split.tie", format!("there is no split {split}: `weft splits` lists them"))
        })?;
        let parent = row.parent.clone();
        let one = row.children.get_mut(child).ok_or_else(|| {
            Error::invalid(
                "split.tie",
                format!("split {split} has no child {child}: `weft splits` lists them"),
            )
        })?;
        if tie == Tie::Guess && one.tie.is_some() {
            return Ok(());
        }
        if let Some(before) = one.partition.take().filter(|before| before != partition) {
            tx.remove(&LINEAGE, &before)?;
        }
        one.partition = Some(partition.to_owned());
        one.tie = Some(tie);
        tx.put(&SPLITS, &split, &row)?;
        let origin = Origin { parent, split, child: child as u64, born: born.0, tie };
        tx.put(&LINEAGE, &partition.to_owned(), &origin)?;
        Ok(())
    })
}

/// Where a partition came from, if that is known.
pub fn origin(store: &Store, partition: &str) -> Result<Option<Origin>> {
    store.read(|tx| tx.get(&LINEAGE, &partition.to_owned()))
}

/// Every tie, by child.
pub fn lineage(store: &Store) -> Result<Vec<(String, Origin)>> {
    store.read(|tx| tx.range(&LINEAGE, ..))
}

/// The split of a number.
pub fn get(store: &Store, id: u64) -> Result<Option<Split>> {
    store.read(|tx| tx.get(&SPLITS, &id))
}

/// Whether pages lie within a partition whose main files have so many bytes; `Invalid`, saying so, where not.
pub fn check_pages(pages: &PageSet, main_bytes: u64) -> Result<()> {
    let last = pages.last().map_or(0, |page| page.0 + 1);
    let there = main_bytes.div_ceil(PAGE);
    match (pages.is_empty(), last <= there) {
        (true, _) => Err(Error::invalid("split.declare", "no page was named: a child has at least one")),
        (_, true) => Ok(()),
        (_, false) => Err(Error::invalid(
            "split.declare",
            format!("the range ends at byte {}, and the partition has {main_bytes} bytes", last * PAGE),
        )),
    }
}

/// What of a segment a page set wants: stretches of bytes, begin and end, within `size`.
pub fn ranges_of(pages: &PageSet, segment: u64, size: u64) -> Vec<(u64, u64)> {
    let first = segment * SEGMENT_PAGES;
    let within = |(start, end): (u64, u64)| {
        let (start, end) = (start.max(first), end.min(first + SEGMENT_PAGES));
        let bytes = (start.saturating_sub(first) * PAGE, (end.saturating_sub(first) * PAGE).min(size));
        (start < end && bytes.0 < bytes.1).then_some(bytes)
    };
    pages.runs().filter_map(within).collect()
}

/// Whether a file of a partition has pages that a page set counts.
pub fn counts_pages(fork: Fork) -> bool {
    fork == Fork::Main
}

/// Whether the first bytes of a file are those of a table, not of an index: PostgreSQL's heap pages have nothing behind
/// their items (`pd_special` is the page's size, `src/include/storage/bufpage.h`).
pub fn may_be_table(layout: Layout, head: &[u8]) -> bool {
    match (layout, head.get(16..20)) {
        (Layout::Postgres, Some([low, high, size, size_high])) => {
            let special = u16::from_le_bytes([*low, *high]);
            // pd_pagesize_version: the size, and the version of the layout in the lowest byte.
            let page = u16::from_le_bytes([*size, *size_high]) & 0xff00;
            page != 0 && special == page
        }
        (Layout::Postgres, _) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Arc;
    use crate::types::StoreId;

    #[test]
    fn ranges_are_cut_at_segments_and_at_the_end() {
        let mut pages = PageSet::default();
        pages.write(0, 2 * PAGE);
        pages.write((SEGMENT_PAGES - 1) * PAGE, (SEGMENT_PAGES + 3) * PAGE);
        let gib = 1 << 30;
        assert_eq!(ranges_of(&pages, 0, gib), [(0, 2 * PAGE), (gib - PAGE, gib)]);
        assert_eq!(ranges_of(&pages, 1, 2 * PAGE + 5), [(0, 2 * PAGE + 5)]);
        assert_eq!(ranges_of(&pages, 2, gib), []);
        assert!(check_pages(&pages, gib + 3 * PAGE).is_ok());
        assert!(check_pages(&pages, gib + 2 * PAGE).unwrap_err().message.contains("the partition has"));
        assert!(check_pages(&PageSet::default(), gib).is_err());
    }

    /// A clock that stands.
    struct Still;

    impl crate::clock::Clock for Still {
        fn now(&self) -> crate::types::Timestamp {
            crate::types::Timestamp(0)
        }
        fn monotonic(&self) -> std::time::Duration {
            std::time::Duration::ZERO
        }
    }

    #[test]
    fn one_division_is_told_once_whoever_names_whichever_child() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(crate::disk::os::OsDisk::new());
        let store = Store::new(disk, Arc::new(Still), dir.path(), StoreId([7; 16])).unwrap();
        let told = |how, parent: &str, name: &str, at_us: i64| {
            let child = Child { name: Some(name.into()), ..Child::default() };
            let split = declare(&store, (parent, how), (Seq(1), at_us), child).unwrap();
            is_first(&store, &split, at_us).unwrap()
        };
        assert!(told(How::Ddl, "p", "a", 10));
        assert!(!told(How::Ddl, "p", "a", 20), "told again, as after a restart");
        assert!(!told(How::Ddl, "p", "b", 30), "the second child");
        assert!(!told(How::Declared, "p", "a", 40), "by another");
        assert!(told(How::Ddl, "q", "a", 50));
        assert!(told(How::Ddl, "p", "c", 40 + TOGETHER_US), "another time");
    }

    #[test]
    fn heaps_are_told_from_indexes() {
        let mut head = [0u8; 24];
        head[16..20].copy_from_slice(&[0x00, 0x20, 0x04, 0x20]);
        assert!(may_be_table(Layout::Postgres, &head));
        head[16..18].copy_from_slice(&[0xf0, 0x1f]);
        assert!(!may_be_table(Layout::Postgres, &head));
        assert!(!may_be_table(Layout::Postgres, &[0; 24]));
        assert!(may_be_table(Layout::Mariadb, &[]));
    }
}
