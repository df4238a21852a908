//! Splits that were declared or seen coming, and which partition came out of which.
//!
//! - Kept in the metadata store: their loss costs the way into a child's past, never history itself.
//! - A child is a set of pages of its parent, as of the time in which they were looked for; without a set it is all of the
//!   parent. A row of it stood, at any other instant, on one of those pages or on one that changed in between: so the
//!   set and what changed is always enough, provided that the time ends when the database holds back nothing of before.
//! - What ties a child's files to its split is said with it: declared, found in the catalogue, or a guess.
//! - A partition has several origins when several were merged into it, one for each parent. It is its own only where the files
//!   that have its name now are known to be others than those that had it ([`Child::anew`]).
//! - What a person has forgotten stays so until a person says it again: neither a guess, nor a log, nor a catalogue ties it.

use super::partition::{Fork, Layout};
use crate::error::{Error, Result};
use crate::meta::store::{Store, Table, Writing};
use crate::types::{PAGE, PageSet, Seq};
use serde::{Deserialize, Serialize};

const SPLITS: Table<u64, Split> = Table::new("splits", 1);
/// By child.
const LINEAGE: Table<String, Origins> = Table::new("lineage", 1);

/// Children of one parent that are declared within this time belong to one split, µs.
const TOGETHER_US: i64 = 3_600_000_000;
/// A child that has not come so long after its split was declared does not come, µs.
pub const WAITS_US: i64 = 86_400_000_000;
/// Children of one split.
const CHILDREN_MAX: usize = 4_096;
/// What is not wanted between two stretches of a file and costs less to read than a read of its own, bytes.
pub const NEAR: u64 = 32 << 10;
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
    /// The last event before the pages were looked for, and the last one when they were declared and all that the database
    /// had held back was written.
    #[serde(default)]
    pub looked: Option<(u64, u64)>,
    /// The last event when somebody said that it would come: until then its rows were in the parent. 0: not known.
    #[serde(default)]
    pub told: u64,
    #[serde(default)]
    pub rows: Option<u64>,
    #[serde(default)]
    pub predicate: Option<String>,
    /// That it comes out of this parent is a guess, whatever is known of its files.
    #[serde(default)]
    pub presumed: bool,
    /// It has the name of what is divided or merged, and other files: those that were there when it was declared are not its.
    #[serde(default)]
    pub anew: bool,
    /// The number of the first file that had that name then.
    #[serde(default)]
    pub was: Option<u64>,
    /// Its files, once they are known.
    #[serde(default)]
    pub partition: Option<String>,
    #[serde(default)]
    pub tie: Option<Tie>,
    /// It did not come out of this parent, a person says; its files are those of which that was said.
    #[serde(default)]
    pub forgotten: bool,
}

impl Child {
    /// Its files are still to be found.
    pub fn waits(&self) -> bool {
        self.tie.is_none() && !self.forgotten
    }

    /// The pages, where it is not the whole of its parent. Pages that were looked for at a time that is not known are too few
    /// to go by.
    pub fn page_set(&self) -> Option<PageSet> {
        self.looked?;
        PageSet::from_bytes(self.pages.as_deref()?)
    }

    /// The events whose changes, beside its pages, may have moved rows of it between an instant and then: those after the
    /// first, up to the second.
    pub fn moved_between(&self, at: Seq) -> Option<(Seq, Seq)> {
        let (since, upto) = self.looked?;
        Some((Seq(since).min(at), Seq(upto).max(at)))
    }
}

/// A split of a partition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Split {
    pub id: u64,
    /// As [`super::partition::Partition`] shows it.
    pub parent: String,
    pub how: How,
    /// The last event when its (first) child was declared, and when that was, µs UTC.
    pub seq: u64,
    pub at_us: i64,
    pub children: Vec<Child>,
}

impl Split {
    /// Whether it is too late, µs UTC, for children that have not come.
    pub fn is_over(&self, at_us: i64) -> bool {
        at_us.saturating_sub(self.at_us) >= WAITS_US
    }
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
    /// As [`Child::anew`].
    #[serde(default)]
    pub anew: bool,
    /// The parent is what had its rows before they were written anew, to other files.
    #[serde(default)]
    pub rewrite: bool,
}

/// A row of [`LINEAGE`]: the fields of the first stand in the row itself.
#[derive(Serialize, Deserialize)]
struct Origins {
    #[serde(flatten)]
    first: Origin,
    /// Of what was merged out of several.
    #[serde(default)]
    also: Vec<Origin>,
}

impl From<Origins> for Vec<Origin> {
    fn from(row: Origins) -> Vec<Origin> {
        [vec![row.first], row.also].concat()
    }
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
                    // A log may be told again; what a person says again is looked for again.
                    *known = match (known.forgotten, how) {
                        (true, How::Declared) => child.clone(),
                        (forgotten, _) => {
                            let (partition, was) = (known.partition.take(), known.was.or(child.was));
                            Child { partition, tie: known.tie, forgotten, was, ..child.clone() }
                        }
                    };
                }
            }
        }
        tx.put(&SPLITS, &split.id, &split)?;
        Ok(split)
    })
}

/// The child of a parent that a person declared last, of those that fit.
pub fn declared(store: &Store, parent: &str, fits: impl Fn(&Child) -> bool) -> Result<Option<(u64, usize)>> {
    let theirs = |split: &Split| split.parent == parent && split.how == How::Declared;
    let mut splits = all(store)?.into_iter().rev().filter(theirs);
    Ok(splits.find_map(|split| Some((split.id, split.children.iter().position(&fits)?))))
}

/// Somebody told of a child again.
pub fn tell(store: &Store, (split, child): (u64, usize), seq: Seq) -> Result<()> {
    store.write(|tx| {
        let Some(mut row) = tx.get(&SPLITS, &split)? else { return Ok(()) };
        row.children.iter_mut().skip(child).take(1).for_each(|child| child.told = seq.0);
        tx.put(&SPLITS, &split, &row)
    })
}

/// Whether two names may be of one table: with and without what stands before it.
pub fn may_be_same(one: &str, other: &str) -> bool {
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !one.is_empty() && !other.is_empty() && (ends(one, other) || ends(other, one))
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

/// Ties a partition's files to a child of a split; a guess never takes the place of what is known. What was guessed of
/// these files is taken back; what they came from besides, if another split merged it into them, stays.
pub fn tie(store: &Store, (split, child): (u64, usize), partition: &str, tie: Tie, born: Seq) -> Result<()> {
    store.write(|tx| {
        let mut row = split_in(tx, split)?;
        let one = child_of(&mut row, child)?;
        if tie == Tie::Guess && one.tie.is_some() || tie != Tie::Declared && one.forgotten {
            return Ok(());
        }
        one.forgotten = false;
        let tie = if one.presumed && tie == Tie::Catalogue { Tie::Guess } else { tie };
        let before = one.partition.replace(partition.to_owned()).filter(|before| before != partition);
        one.tie = Some(tie);
        let anew = one.anew;
        tx.put(&SPLITS, &split, &row)?;
        if let Some(before) = before {
            remove_origin(tx, &before, (split, child as u64))?;
        }
        let (child, rewrite) = (child as u64, false);
        let origin = Origin { parent: row.parent, split, child, born: born.0, tie, anew, rewrite };
        add_origin(tx, partition, origin)
    })
}

/// A person says that a child, or all children, of a split did not come out of its parent.
///
/// # Errors
/// `Invalid`: there is no such split, or child.
pub fn forget(store: &Store, split: u64, child: Option<usize>) -> Result<Split> {
    store.write(|tx| {
        let mut row = split_in(tx, split)?;
        let mut which = 0..row.children.len();
        if let Some(child) = child {
            child_of(&mut row, child)?;
            which = child..child + 1;
        }
        for (number, one) in (0..).zip(&mut row.children).filter(|(number, _)| which.contains(number)) {
            one.forgotten = true;
            if let Some(partition) = &one.partition {
                remove_origin(tx, partition, (split, number as u64))?;
            }
        }
        tx.put(&SPLITS, &split, &row)?;
        Ok(row)
    })
}

fn split_in(tx: &Writing<'_>, split: u64) -> Result<Split> {
    tx.get(&SPLITS, &split)?.ok_or_else(|| {
        Error::invalid("split", format!("there is no split {split}: `weft splits` lists them"))
    })
}

fn child_of(split: &mut Split, child: usize) -> Result<&mut Child> {
    let id = split.id;
    split.children.get_mut(child).ok_or_else(|| {
        Error::invalid("split", format!("split {id} has no child {}: `weft splits` lists them", child + 1))
    })
}

/// Takes back that a partition is a child of a split.
fn remove_origin(tx: &Writing<'_>, partition: &str, (split, child): (u64, u64)) -> Result<()> {
    let mut others = origins_in(tx, partition)?;
    others.retain(|origin| (origin.split, origin.child) != (split, child));
    put_origins(tx, partition, others)
}

/// The rows of a child were written anew, to the files of another partition (VACUUM FULL, TRUNCATE, ALTER TABLE): what came
/// before is the past of those that it had.
pub fn rewrite(store: &Store, (split, child): (u64, usize), partition: &str, born: Seq) -> Result<()> {
    store.write(|tx| {
        let Some(mut row) = tx.get(&SPLITS, &split)? else { return Ok(()) };
        let Some(one) = row.children.get_mut(child) else { return Ok(()) };
        let Some(parent) = one.partition.replace(partition.to_owned()) else { return Ok(()) };
        let (tie, child, born) = (one.tie.unwrap_or(Tie::Guess), child as u64, born.0);
        tx.put(&SPLITS, &split, &row)?;
        add_origin(tx, partition, Origin { parent, split, child, born, tie, anew: false, rewrite: true })
    })
}

/// Notes where a partition came from, too. What is said of files that had its name before them, or of the same parent, it
/// replaces; and guesses, unless it is one itself: then all may be right.
fn add_origin(tx: &Writing<'_>, partition: &str, origin: Origin) -> Result<()> {
    let mut all = origins_in(tx, partition)?;
    all.retain(|other| other.born == origin.born);
    let is_known = |other: &Origin| other.tie != Tie::Guess;
    let is_own = partition == origin.parent && !origin.anew;
    if is_own || origin.tie == Tie::Guess && all.iter().any(is_known) {
        return Ok(());
    }
    let goes = |other: &mut Origin| {
        other.tie == Tie::Guess && origin.tie != Tie::Guess || other.parent == origin.parent
    };
    for other in all.extract_if(.., goes) {
        if other.tie == Tie::Guess && (other.split == origin.split || other.parent != origin.parent) {
            take_back(tx, (other.split, other.child), &origin, partition)?;
        }
    }
    all.push(origin);
    put_origins(tx, partition, all)
}

/// A child for which files were guessed that are now known for another's is looked for again.
fn take_back(tx: &Writing<'_>, (split, child): (u64, u64), by: &Origin, partition: &str) -> Result<()> {
    let Some(mut row) = tx.get(&SPLITS, &split)? else { return Ok(()) };
    let at = usize::try_from(child).ok().filter(|_| (split, child) != (by.split, by.child));
    let guessed = at.and_then(|at| row.children.get_mut(at));
    let Some(one) = guessed.filter(|one| one.partition.as_deref() == Some(partition)) else { return Ok(()) };
    (one.partition, one.tie) = (None, None);
    tx.put(&SPLITS, &split, &row)
}

fn origins_in(tx: &Writing<'_>, partition: &str) -> Result<Vec<Origin>> {
    Ok(tx.get(&LINEAGE, &partition.to_owned())?.map_or_else(Vec::new, Vec::from))
}

fn put_origins(tx: &Writing<'_>, partition: &str, all: Vec<Origin>) -> Result<()> {
    let mut all = all.into_iter();
    match all.next() {
        Some(first) => tx.put(&LINEAGE, &partition.to_owned(), &Origins { first, also: all.collect() }),
        None => tx.remove(&LINEAGE, &partition.to_owned()),
    }
}

/// Where a partition came from, as far as that is known: of each parent once.
pub fn origins(store: &Store, partition: &str) -> Result<Vec<Origin>> {
    let row = store.read(|tx| tx.get(&LINEAGE, &partition.to_owned()))?;
    let all = row.map_or_else(Vec::new, Vec::from).into_iter();
    Ok(all.filter(|origin| origin.parent != partition || origin.anew).collect())
}

/// Every tie, by child.
pub fn lineage(store: &Store) -> Result<Vec<(String, Origin)>> {
    let rows = store.read(|tx| tx.range(&LINEAGE, ..))?.into_iter();
    let each = |(child, row): (String, Origins)| {
        Vec::from(row).into_iter().map(move |origin| (child.clone(), origin))
    };
    Ok(rows.flat_map(each).collect())
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

/// Files, each by its pages that are wanted (all without) and its size, as stretches of bytes: as long as those are no more
/// than `most`, or no more when what stands near each other is read as one. Else all: what would be told takes more than it
/// saves.
pub fn in_stretches(files: &[(Option<PageSet>, u64)], most: usize) -> Vec<Option<Vec<(u64, u64)>>> {
    let within = |near: u64| {
        let mut left = most;
        let one = |(pages, size): &(Option<PageSet>, u64)| {
            let stretches = pages.as_ref().map(|pages| stretches(pages, *size, near));
            left = left.checked_sub(stretches.as_ref().map_or(0, Vec::len))?;
            Some(stretches)
        };
        files.iter().map(one).collect::<Option<Vec<_>>>()
    };
    within(0).or_else(|| within(NEAR)).unwrap_or_else(|| vec![None; files.len()])
}

/// Those that stand no further than `near` apart are one.
fn stretches(pages: &PageSet, size: u64, near: u64) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in pages.runs() {
        let (start, end) = (start * PAGE, (end * PAGE).min(size));
        match joined.last_mut() {
            _ if start >= end => break,
            Some((_, last)) if start - *last <= near => *last = end,
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// Whether a file of a partition has pages that a page set counts.
pub fn counts_pages(fork: Fork) -> bool {
    fork == Fork::Main
}

/// Bytes of a file, at most, that tell whether it is a table: the largest page that PostgreSQL has.
pub const HEAD: usize = 32 << 10;

/// Whether the first bytes of a file are those of a table, not of an index: PostgreSQL's heap pages have nothing behind
/// their items (`pd_special` is the page's size, `src/include/storage/bufpage.h`). Nor those of the long values of another
/// table, which stand in a heap of their own that is made with it.
pub fn may_be_table(layout: Layout, head: &[u8]) -> bool {
    match (layout, head.get(16..20)) {
        (Layout::Postgres, Some([low, high, size, size_high])) => {
            let special = u16::from_le_bytes([*low, *high]);
            // pd_pagesize_version: the size, and the version of the layout in the lowest byte.
            let page = u16::from_le_bytes([*size, *size_high]) & 0xff00;
            page != 0 && special == page && has_long_values(head) != Some(true)
        }
        (Layout::Postgres, _) => false,
        _ => true,
    }
}

/// Whether a heap begins with the first piece of a long value, as PostgreSQL stores it: the value's number, the piece's, which
/// is 0, and bytes to the end of the row, with their length before them in four bytes (`src/include/access/htup_details.h`,
/// `src/backend/access/common/toast_internals.c`). `None`: it begins with no row.
fn has_long_values(head: &[u8]) -> Option<bool> {
    let half = |bytes: &[u8], at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    // The first line pointer: offset, flags (1: a row), length.
    let pointer = word(head, 24)?;
    let (offset, flags, len) = (pointer & 0x7fff, pointer >> 15 & 3, pointer >> 17);
    let row = head.get(offset as usize..)?.get(..len as usize).filter(|_| flags == 1)?;
    let (columns, has_nulls) = (half(row, 18)? & 0x07ff, half(row, 20)? & 1 != 0);
    let values = usize::from(*row.get(22)?);
    let (piece, length) = (word(row, values + 4)?, word(row, values + 8)?);
    let rest = row.len().checked_sub(values + 8)? as u32;
    Some(columns == 3 && !has_nulls && piece == 0 && length & 3 == 0 && length >> 2 == rest)
}

#[cfg(test)]
mod tests;
