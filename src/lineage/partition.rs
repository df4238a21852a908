//! The unit that a database splits, from the paths of its files alone.
//!
//! - Every path belongs to exactly one partition, whatever stands there; the function is pure and total.
//! - All files of a partition lie in one directory, so that they are found by listing it.
//! - A partition's name, as the databases make them, maps to itself: a user may name any of its files, or the
//!   partition.
//!
//! Sources: PostgreSQL's storage layout (<https://www.postgresql.org/docs/current/storage-file-layout.html>,
//! `src/common/relpath.c`), MariaDB's file names (`sql/sql_partition.cc`: `#P#`, `#SP#`), SQLite's
//! (<https://www.sqlite.org/tempfiles.html>).

mod mariadb;
mod pg;
mod sqlite;

use crate::types::Name;
use std::fmt;

/// What MariaDB adds to the name of a partition that it fills.
const MAKING: &[u8] = b"#TMP#";

/// Whose rules map paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// A relation with its forks and 1 GiB segments; the WAL as one.
    Postgres,
    /// A table, or a partition of one, with all its files.
    Mariadb,
    /// A database with its journals.
    Sqlite,
    /// Each file for itself.
    Generic,
}

/// A partition: a root, and a canonical name in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Partition {
    /// Name of the root; empty for DATA.
    pub root: Name,
    /// A path from the root, without a `/` before it: `base/5/16397`, `db/t#P#p0`, `pg_wal`; `.` for the WAL that is a
    /// whole root.
    pub name: Vec<u8>,
}

impl fmt::Display for Partition {
    /// `base/5/16397`; in a further root `ts1:PG_15_202209061/5/16401`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.root.is_empty() {
            write!(f, "{}:", String::from_utf8_lossy(&self.root))?;
        }
        write!(f, "{}", String::from_utf8_lossy(&self.name))
    }
}

/// What a file is to its partition. The order is that of reading: the rows first, segment by segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fork {
    /// The rows; anything of which nothing else is known.
    Main,
    /// PostgreSQL's `_fsm`: where there is room.
    FreeSpace,
    /// PostgreSQL's `_vm`: what all can see.
    Visibility,
    /// PostgreSQL's `_init`: what an unlogged relation is reset to.
    Init,
    /// An index or definition beside the rows, a journal.
    Beside,
}

/// Where a file stands in its partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub partition: Partition,
    pub fork: Fork,
    /// Number of the 1 GiB segment, or of the WAL segment's name in order; 0 where there is one file.
    pub segment: u64,
}

/// The partition that a file belongs to; `path` from the root on, without a `/` before it.
pub fn of(layout: Layout, root: &[u8], path: &[u8]) -> Partition {
    member(layout, root, path).partition
}

/// The partition of a file, and its place in it.
pub fn member(layout: Layout, root: &[u8], path: &[u8]) -> Member {
    let (dir, file) = split(path);
    let found = match layout {
        Layout::Postgres => pg::place(root, dir, file),
        Layout::Mariadb => mariadb::place(dir, file),
        Layout::Sqlite => sqlite::place(file),
        Layout::Generic => None,
    };
    let (name, fork, segment) = match found {
        None => (path.to_vec(), Fork::Main, 0),
        Some(Place { name: Canonical::Dir, fork, segment }) => {
            (if dir.is_empty() { b".".to_vec() } else { dir.to_vec() }, fork, segment)
        }
        Some(Place { name: Canonical::File(name), fork, segment }) => (join(dir, name), fork, segment),
    };
    Member { partition: Partition { root: root.to_vec(), name }, fork, segment }
}

/// What a layout says of a file in a directory.
struct Place<'a> {
    name: Canonical<'a>,
    fork: Fork,
    segment: u64,
}

/// The last part of a partition's name.
enum Canonical<'a> {
    /// A name in the file's directory.
    File(&'a [u8]),
    /// The directory itself.
    Dir,
}

impl Partition {
    /// As a user writes it: the name, or any file of it, with `ROOT:` before it for a further root.
    pub fn parse(layout: Layout, text: &str, roots: &[Name]) -> Partition {
        let named = text.split_once(':').filter(|(root, _)| roots.iter().any(|name| name == root.as_bytes()));
        let (root, path) = named.unwrap_or(("", text));
        let path = path.trim_start_matches("./").trim_end_matches('/');
        match path.is_empty() {
            true => Partition { root: root.into(), name: b".".to_vec() },
            false => of(layout, root.as_bytes(), path.as_bytes()),
        }
    }

    /// What it is called while a server makes it, where that is another name.
    pub fn in_making(&self, layout: Layout) -> Option<Partition> {
        let name = [self.name.as_slice(), MAKING].concat();
        (layout == Layout::Mariadb).then(|| Partition { root: self.root.clone(), name })
    }

    /// Directories that may hold its files, each from the root on: its own, and the one that it is.
    pub fn dirs(&self) -> Vec<Vec<Name>> {
        let names = names(&self.name);
        let parent = names.get(..names.len().saturating_sub(1)).unwrap_or(&[]).to_vec();
        if self.name == b"." { vec![Vec::new()] } else { vec![parent, names] }
    }

    /// Those of the files of a directory (from the root on, name by name) that are its own, in order: each with its place.
    pub fn pick(&self, layout: Layout, dir: &[Name], files: &[Name]) -> Vec<(Vec<u8>, Member)> {
        let dir = dir.join(&b'/');
        let mut own: Vec<(Vec<u8>, Member)> = files
            .iter()
            .map(|name| join(&dir, name))
            .map(|path| (path.clone(), member(layout, &self.root, &path)))
            .filter(|(_, member)| member.partition == *self)
            .collect();
        own.sort_by(|(left, a), (right, b)| (a.fork, a.segment, left).cmp(&(b.fork, b.segment, right)));
        own
    }
}

/// Whether the partition of this name is a database's log of its own changes: written once and never read as a state, so
/// that no shadow of it is of use. PostgreSQL's WAL; of MariaDB redo logs and logs of statements, as they are called by
/// default.
pub fn is_log(name: &[u8]) -> bool {
    let file = split(name).1;
    let numbered = |prefix: &[u8]| file.strip_prefix(prefix).is_some_and(is_number);
    let is_binary = rsplit_at(file, b'.').is_some_and(|(stem, end)| {
        let ends = stem.ends_with(b"-bin") || stem.ends_with(b"-relay-bin");
        ends && (is_number(end) || end == b"index")
    });
    name == b"pg_wal" || name == b"." || numbered(b"ib_logfile") || numbered(b"aria_log.") || is_binary
}

/// Whether a file with this name is one that a server makes, to have another name when it is done.
pub fn is_in_making(layout: Layout, name: &[u8]) -> bool {
    let stem = rsplit_at(name, b'.').map_or(name, |(stem, _)| stem);
    layout == Layout::Mariadb && (stem.ends_with(MAKING) || stem.starts_with(b"#sql"))
}

/// A path as its names.
pub fn names(path: &[u8]) -> Vec<Name> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or(&[]), path.get(at + 1..).unwrap_or(&[])),
        None => (&[], path),
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, name].join(&b'/') }
}

/// All of it decimal digits, and at least one.
fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// What stands before and behind the last of a byte.
fn rsplit_at(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|found| *found == byte)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// A decimal number that fits.
fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| is_number(text.as_bytes()))?.parse().ok()
}

#[cfg(test)]
mod tests;
