//! From paths to identities and back, at an instant and through time.

use crate::error::{Error, Result};
use crate::format::event::Slot;
use crate::index::{Index, Named, ROOTS};
use crate::types::{FileId, FileKind, Name, Seq};

/// Entries of a name's or a file's history read at a time.
const AT_ONCE: usize = 16;
/// Entries looked at in one search: a name that stood for hundreds of thousands of files is given up.
const LOOKS: usize = 200_000;
/// Deeper than any path the kernel takes (PATH_MAX is 4096 bytes).
const DEPTH: usize = 4_096;

/// Where a path in a root begins: DATA's (without a name) in its directory, those of others in the directory of all
/// roots.
pub fn in_root(root: &[u8], names: &[Name]) -> (FileId, Vec<Name>) {
    match root.is_empty() {
        true => (FileId::ROOT, names.to_vec()),
        false => (ROOTS, [root.to_vec()].into_iter().chain(names.iter().cloned()).collect()),
    }
}

/// The file that a path in a root led to last, at or before an instant: the one that has it then, else the one that had
/// it last. A directory of the path may be gone too. `None`: the path never was.
pub fn find_last(index: &Index, root: &[u8], names: &[Name], at: Seq) -> Result<Option<(FileId, FileKind)>> {
    let mut looks = LOOKS;
    let (top, names) = in_root(root, names);
    search(index, top, FileKind::Directory, &names, at, &mut looks)
}

fn search(
    index: &Index,
    file: FileId,
    kind: FileKind,
    names: &[Name],
    at: Seq,
    looks: &mut usize,
) -> Result<Option<(FileId, FileKind)>> {
    let Some((name, rest)) = names.split_first() else { return Ok(Some((file, kind))) };
    let mut seen = Vec::new();
    let mut from = at;
    loop {
        let past = index.past_of_name(file, name, from, AT_ONCE)?;
        for (child, kind) in past.iter().filter_map(|(_, child)| *child) {
            *looks = looks.checked_sub(1).ok_or_else(|| {
                Error::invalid("log.find", "this path has been too many files; name it inside of a view")
            })?;
            if seen.contains(&child) {
                continue;
            }
            seen.push(child);
            if let Some(found) = search(index, child, kind, rest, at, looks)? {
                return Ok(Some(found));
            }
        }
        match past.get(AT_ONCE - 1) {
            Some((seq, _)) if seq.0 > 1 => from = Seq(seq.0 - 1),
            _ => return Ok(None),
        }
    }
}

/// The path of a file at an instant, from the root, without a `/` before it; of one that has no name then, the path
/// that it had last. `None`: it was not there yet.
pub fn path_of(index: &Index, file: FileId, at: Seq) -> Result<Option<Vec<u8>>> {
    Ok(names_of(index, file, at)?.map(|names| names.join(&b'/')))
}

/// The same, name by name.
pub fn names_of(index: &Index, file: FileId, at: Seq) -> Result<Option<Vec<Name>>> {
    let mut parts = Vec::new();
    let mut here = file;
    while here != FileId::ROOT && parts.len() < DEPTH {
        match slot_of(index, here, at)? {
            Place::Slot(slot) => {
                here = slot.dir;
                parts.push(slot.name);
            }
            Place::Top => break,
            Place::Nowhere => return Ok(None),
        }
    }
    parts.reverse();
    Ok(Some(parts))
}

/// The directory that holds a directory at an instant; `None` for the top of a tree.
pub fn parent_of(index: &Index, dir: FileId, at: Seq) -> Result<Option<FileId>> {
    Ok(match slot_of(index, dir, at)? {
        Place::Slot(slot) => Some(slot.dir),
        Place::Top | Place::Nowhere => None,
    })
}

/// The path of a directory entry at an instant.
pub fn path_of_slot(index: &Index, slot: &Slot, at: Seq) -> Result<Vec<u8>> {
    let mut path = path_of(index, slot.dir, at)?.unwrap_or_default();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(&slot.name);
    Ok(path)
}

enum Place {
    Slot(Slot),
    /// It is the root of a tree.
    Top,
    Nowhere,
}

/// Where a file stands at an instant; without a name then, where it stood last.
fn slot_of(index: &Index, file: FileId, at: Seq) -> Result<Place> {
    let mut last = None;
    let mut from = at;
    loop {
        let events = index.naming(file, from, AT_ONCE)?;
        for Named { naming, .. } in &events {
            if let Some(slot) = naming.gained()
                && index.lookup(slot.dir, &slot.name, at)?.is_some_and(|(found, _)| found == file)
            {
                return Ok(Place::Slot(slot.clone()));
            }
            last = last.or_else(|| naming.lost().or(naming.gained()).cloned());
        }
        match events.get(AT_ONCE - 1) {
            Some(event) if event.seq.0 > 1 => from = Seq(event.seq.0 - 1),
            _ => break,
        }
    }
    let known = last.is_some() || !index.naming(file, at, 1)?.is_empty();
    Ok(match (last, known) {
        (Some(slot), _) => Place::Slot(slot),
        (None, true) => Place::Top,
        (None, false) => Place::Nowhere,
    })
}
