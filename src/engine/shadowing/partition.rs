//! Which files a partition has, and which partition a file is of: by names, as PostgreSQL gives them. A relation's
//! files begin with its number; every other file is a partition of its own.

use crate::error::Result;
use crate::past::view::View;
use crate::shadow::Subject;
use crate::types::{FileId, FileKind, Name};

/// A file of a partition, at an instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub file: FileId,
    pub size: u64,
    /// A segment of the main file, counted from 0; `None`: a fork.
    pub segment: Option<u64>,
}

/// The partition that a path (below its root) is of.
pub(super) fn subject_of(root: &[u8], path: &[u8]) -> Subject {
    let (dir, name) = split(path);
    let mut partition = dir.to_vec();
    if !dir.is_empty() {
        partition.push(b'/');
    }
    partition.extend_from_slice(stem(name));
    Subject { root: root.to_vec(), partition }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or(&[]), path.get(at + 1..).unwrap_or(&[])),
        None => (&[], path),
    }
}

/// A relation's number, or the whole name.
fn stem(name: &[u8]) -> &[u8] {
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = name.split_at(digits);
    if !number.is_empty() && segment_of(rest).is_some() { number } else { name }
}

/// What follows a relation's number: the segment of its main file, or (inner `None`) a fork; `None` is neither.
fn segment_of(rest: &[u8]) -> Option<Option<u64>> {
    const FORKS: [&[u8]; 3] = [b"_fsm", b"_vm", b"_init"];
    let (fork, rest) = match FORKS.iter().find_map(|fork| rest.strip_prefix(*fork)) {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let segment = match rest.split_first() {
        None => 0,
        Some((b'.', number)) => std::str::from_utf8(number).ok()?.parse().ok()?,
        Some(_) => return None,
    };
    Some((!fork).then_some(segment))
}

/// The regular files of a partition in a view, in the order of their names.
pub(super) fn members(view: &View, subject: &Subject) -> Result<Vec<Member>> {
    let Some(mut dir) = view.root(&subject.root)? else { return Ok(Vec::new()) };
    let (path, name) = split(&subject.partition);
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        match view.lookup(dir, part)? {
            Some((file, attr)) if attr.kind == FileKind::Directory => dir = file,
            _ => return Ok(Vec::new()),
        }
    }
    let mut found = Vec::new();
    // A name and those that it begins stand together.
    let mut after: Option<Name> = None;
    if let Some((file, attr)) = view.lookup(dir, name)?
        && attr.kind == FileKind::Regular
    {
        found.push(Member { file, size: attr.size, segment: Some(0) });
        after = Some(name.to_vec());
    } else if name.is_empty() || !name.iter().all(u8::is_ascii_digit) {
        return Ok(found);
    }
    let mut from = after.unwrap_or_else(|| name.to_vec());
    loop {
        let entries = view.read_dir(dir, Some(&from), 256)?;
        for entry in &entries {
            let Some(rest) = entry.name.strip_prefix(name) else { return Ok(found) };
            if entry.kind != FileKind::Regular || stem(&entry.name) != name {
                continue;
            }
            if let Some(segment) = segment_of(rest) {
                let attr = view.attr(entry.file)?;
                found.push(Member { file: entry.file, size: attr.size, segment });
            }
        }
        match entries.into_iter().last() {
            Some(last) => from = last.name,
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_is_all_its_files_and_anything_else_is_itself() {
        for (path, want) in [
            ("base/5/16397", "base/5/16397"),
            ("base/5/16397.12", "base/5/16397"),
            ("base/5/16397_fsm", "base/5/16397"),
            ("base/5/16397_vm.1", "base/5/16397"),
            ("base/5/16397_other", "base/5/16397_other"),
            ("base/5/pg_filenode.map", "base/5/pg_filenode.map"),
            ("16397.x", "16397.x"),
            ("db/t#P#p0.ibd", "db/t#P#p0.ibd"),
            ("000000010000000000000001", "000000010000000000000001"),
        ] {
            assert_eq!(subject_of(b"", path.as_bytes()).partition, want.as_bytes(), "{path}");
        }
    }
}
