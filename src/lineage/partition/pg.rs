//! PostgreSQL: relations and the WAL.

use super::{Canonical, Fork, Place, is_number, names, number, rsplit_at};

/// Digits in the name of a WAL segment: timeline, log, segment; 8 each.
const WAL_NAME: usize = 24;

/// What a file in a directory of a cluster is.
pub(super) fn place<'a>(root: &[u8], dir: &[u8], file: &'a [u8]) -> Option<Place<'a>> {
    if holds_wal(root, dir)
        && let Some(segment) = wal_number(file)
    {
        return Some(Place { name: Canonical::Dir, fork: Fork::Main, segment });
    }
    if !holds_relations(dir) {
        return None;
    }
    relation(file)
}

/// `base/5`, `global`, and below a tablespace `PG_15_202209061/5`.
fn holds_relations(dir: &[u8]) -> bool {
    let names = names(dir);
    match names.as_slice() {
        [only] => only == b"global",
        [.., version, database] if is_number(database) => {
            (version == b"base" && names.len() == 2) || is_version(version)
        }
        _ => false,
    }
}

/// `PG_15_202209061`: what a tablespace's directory is called per major version and catalogue version.
fn is_version(name: &[u8]) -> bool {
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'_').collect();
    matches!(parts.as_slice(), [b"PG", major, catalogue] if is_number(catalogue)
        && major.split(|byte| *byte == b'.').all(is_number))
}

/// In DATA `pg_wal`; a further root may be the WAL, or hold it.
fn holds_wal(root: &[u8], dir: &[u8]) -> bool {
    if root.is_empty() { dir == b"pg_wal" } else { names(dir).len() <= 1 }
}

/// Segments in order of their names; what only belongs to them stands behind.
fn wal_number(file: &[u8]) -> Option<u64> {
    let is_hex = |text: &[u8]| text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    let (head, rest) = file.split_at_checked(WAL_NAME).unwrap_or((file, b""));
    if head.len() == WAL_NAME && is_hex(head) && (rest.is_empty() || rest.starts_with(b".")) {
        // The order of the last 16 digits is that of the WAL within a timeline; names break ties.
        return u64::from_str_radix(std::str::from_utf8(head.get(8..)?).ok()?, 16).ok();
    }
    let is_history = file.strip_suffix(b".history").is_some_and(|head| head.len() == 8 && is_hex(head));
    // xlogtemp.PID becomes a segment by a rename.
    let is_new = file.strip_prefix(b"xlogtemp.").is_some_and(is_number);
    (is_history || is_new).then_some(u64::MAX)
}

/// `16397`, `16397.1`, `16397_fsm`, `16397_vm.2`, `t3_16397`, `t3_16397_fsm.1`.
fn relation(file: &[u8]) -> Option<Place<'_>> {
    let (head, segment) = match rsplit_at(file, b'.') {
        Some((head, digits)) => (head, number(digits)?),
        None => (file, 0),
    };
    let fork = |name: &[u8]| match name {
        b"fsm" => Some(Fork::FreeSpace),
        b"vm" => Some(Fork::Visibility),
        b"init" => Some(Fork::Init),
        _ => None,
    };
    let (relation, fork) = match rsplit_at(head, b'_') {
        Some((relation, name)) if fork(name).is_some() => (relation, fork(name)?),
        _ => (head, Fork::Main),
    };
    let temporary = relation.strip_prefix(b"t").and_then(|rest| rsplit_at(rest, b'_'));
    let known = match temporary {
        Some((backend, number)) => is_number(backend) && is_number(number),
        None => is_number(relation),
    };
    known.then_some(Place { name: Canonical::File(relation), fork, segment })
}
