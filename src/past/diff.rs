//! What differs between two instants: names and attributes by walking both trees, bytes by the index. No file is read.

use super::history::text;
use super::paths::{find_last, path_of};
use crate::error::{Error, Result};
use crate::index::{DirEntry, Index};
use crate::types::{Attr, FileId, FileKind, Name, PAGE, PageNo, Seq};

/// Entries of a directory, and pages of a file, looked up at a time.
const AT_ONCE: usize = 1_024;
/// Differences told at most.
const TOLD_MAX: usize = 100_000;
const OP: &str = "diff";

/// One path that is not the same at both instants.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Difference {
    /// `added`, `removed`, `changed`, `renamed`, `linked` (one more name of a file that was there), `replaced` (another
    /// file has the name).
    pub kind: &'static str,
    /// The path at the later instant; of what was removed, at the earlier one.
    pub path: String,
    /// Of what was renamed or linked: a path at the earlier instant.
    pub from: Option<String>,
    pub file_kind: FileKindName,
    pub file: u64,
    /// Bytes in pages that were written, zeroed or dropped in between; of what was added or replaced, all.
    pub changed_bytes: u64,
    pub size_before: Option<u64>,
    pub size_after: Option<u64>,
    /// Which attributes differ: `mode`, `owner`, `xattrs`.
    pub attributes: Vec<&'static str>,
}

/// A kind of file in a word.
pub type FileKindName = &'static str;

/// Both instants, and how a kind of file is called.
pub struct Diff<'a> {
    pub index: &'a Index,
    pub before: Seq,
    pub after: Seq,
    pub kind_name: fn(FileKind) -> FileKindName,
}

/// A directory to be compared with itself, or one side of it.
struct Pair {
    before: Option<FileId>,
    after: Option<FileId>,
    path: Vec<u8>,
}

impl Diff<'_> {
    /// Everything at or below a path in a root that differs, by path. The path is that of the later instant, or was there at the
    /// earlier one.
    pub fn below(&self, root: &[u8], names: &[Name]) -> Result<Vec<Difference>> {
        let unknown = || {
            let path = text(&names.join(&b'/'));
            Error::invalid(OP, format!("neither instant has a file {path:?}"))
        };
        let at = |seq| -> Result<Option<(FileId, FileKind)>> {
            let found = find_last(self.index, root, names, seq)?;
            let path = found.map(|(file, _)| path_of(self.index, file, seq)).transpose()?.flatten();
            Ok(found.filter(|_| path == Some(names.join(&b'/'))))
        };
        let (before, after) = (at(self.before)?, at(self.after)?);
        let mut told = Vec::new();
        let mut pairs = Vec::new();
        if before.is_none() && after.is_none() {
            return Err(unknown());
        }
        self.entry(&names.join(&b'/'), before, after, &mut told, &mut pairs)?;
        while let Some(pair) = pairs.pop() {
            self.directory(&pair, &mut told, &mut pairs)?;
            if told.len() > TOLD_MAX {
                let message =
                    format!("more than {TOLD_MAX} differences: name a PATH below, or nearer instants");
                return Err(Error::invalid(OP, message));
            }
        }
        told.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(told)
    }

    fn directory(&self, pair: &Pair, told: &mut Vec<Difference>, pairs: &mut Vec<Pair>) -> Result<()> {
        let left = self.entries(pair.before, self.before)?;
        let right = self.entries(pair.after, self.after)?;
        let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(left), Some(right)) => left.name.cmp(&right.name),
            };
            let before = left.next_if(|_| order.is_le());
            let after = right.next_if(|_| order.is_ge());
            let Some(name) = after.as_ref().or(before.as_ref()).map(|entry| entry.name.clone()) else {
                return Ok(());
            };
            let mut path = pair.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let of = |entry: Option<DirEntry>| entry.map(|entry| (entry.file, entry.kind));
            self.entry(&path, of(before), of(after), told, pairs)?;
        }
    }

    fn entries(&self, dir: Option<FileId>, at: Seq) -> Result<Vec<DirEntry>> {
        let Some(dir) = dir else { return Ok(Vec::new()) };
        let mut all: Vec<DirEntry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.name.clone());
            let some = self.index.read_dir(dir, after.as_deref(), AT_ONCE, at)?;
            let last = some.len() < AT_ONCE;
            all.extend(some);
            if last {
                return Ok(all);
            }
        }
    }

    /// One name at both instants.
    fn entry(
        &self,
        path: &[u8],
        before: Option<(FileId, FileKind)>,
        after: Option<(FileId, FileKind)>,
        told: &mut Vec<Difference>,
        pairs: &mut Vec<Pair>,
    ) -> Result<()> {
        match (before, after) {
            (Some(before), Some(after)) if before.0 == after.0 => {
                told.extend(self.changed("changed", path, after)?.filter(Difference::is_one));
                self.descend(path, Some(before), Some(after), pairs);
            }
            (Some(before), Some(after)) => {
                // Another file has the name; where the old one went is told there.
                let mut replaced = self.arrived(path, after)?;
                if replaced.kind == "added" {
                    replaced.kind = "replaced";
                    replaced.size_before = self.attr(before.0, self.before)?.map(|attr| attr.size);
                }
                let was_there = replaced.kind == "renamed";
                told.push(replaced);
                self.descend(path, was_there.then_some(after), Some(after), pairs);
                self.departed(path, before, false, told, pairs)?;
            }
            (None, Some(after)) => {
                let arrived = self.arrived(path, after)?;
                let was_there = arrived.kind == "renamed";
                told.push(arrived);
                self.descend(path, was_there.then_some(after), Some(after), pairs);
            }
            (Some(before), None) => self.departed(path, before, true, told, pairs)?,
            (None, None) => {}
        }
        Ok(())
    }

    /// A name that only the later instant has.
    fn arrived(&self, path: &[u8], (file, kind): (FileId, FileKind)) -> Result<Difference> {
        let was = self.attr(file, self.before)?.filter(|attr| attr.nlink > 0);
        let from = match was {
            Some(_) => path_of(self.index, file, self.before)?,
            None => None,
        };
        let Some(from) = from else {
            let mut added = self.tell("added", path, (file, kind));
            let attr = self.attr(file, self.after)?;
            added.size_after = attr.map(|attr| attr.size);
            added.changed_bytes = attr.map_or(0, |attr| attr.size);
            return Ok(added);
        };
        let kept = self.at_path(&from, self.after)? == Some(file);
        let kind_of_line = if kept { "linked" } else { "renamed" };
        let mut arrived = match self.changed(kind_of_line, path, (file, kind))? {
            Some(changed) => changed,
            None => self.tell(kind_of_line, path, (file, kind)),
        };
        arrived.from = Some(text(&from));
        Ok(arrived)
    }

    /// A name that the file at the earlier instant has no more. If it has another one, that is told there.
    fn departed(
        &self,
        path: &[u8],
        (file, kind): (FileId, FileKind),
        told_if_gone: bool,
        told: &mut Vec<Difference>,
        pairs: &mut Vec<Pair>,
    ) -> Result<()> {
        let lives = self.attr(file, self.after)?.is_some_and(|attr| attr.nlink > 0);
        if lives {
            let now = path_of(self.index, file, self.after)?.unwrap_or_default();
            // With its other name in both instants, this one was a link that went.
            if self.at_path(&now, self.before)? != Some(file) || !told_if_gone {
                return Ok(());
            }
        }
        if told_if_gone {
            let mut removed = self.tell("removed", path, (file, kind));
            removed.size_before = self.attr(file, self.before)?.map(|attr| attr.size);
            told.push(removed);
        }
        if !lives {
            self.descend(path, Some((file, kind)), None, pairs);
        }
        Ok(())
    }

    fn descend(
        &self,
        path: &[u8],
        before: Option<(FileId, FileKind)>,
        after: Option<(FileId, FileKind)>,
        pairs: &mut Vec<Pair>,
    ) {
        let dir = |side: Option<(FileId, FileKind)>| {
            side.filter(|(_, kind)| *kind == FileKind::Directory).map(|(file, _)| file)
        };
        let (before, after) = (dir(before), dir(after));
        if before.is_some() || after.is_some() {
            pairs.push(Pair { before, after, path: path.to_vec() });
        }
    }

    fn at_path(&self, path: &[u8], at: Seq) -> Result<Option<FileId>> {
        let mut here = FileId::ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match self.index.lookup(here, name, at)? {
                Some((file, _)) => here = file,
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    fn attr(&self, file: FileId, at: Seq) -> Result<Option<Attr>> {
        self.index.attr(file, at)
    }

    fn tell(&self, kind: &'static str, path: &[u8], (file, file_kind): (FileId, FileKind)) -> Difference {
        Difference {
            kind,
            path: text(path),
            from: None,
            file_kind: (self.kind_name)(file_kind),
            file: file.0,
            changed_bytes: 0,
            size_before: None,
            size_after: None,
            attributes: Vec::new(),
        }
    }

    /// What changed of a file that is there at both instants.
    fn changed(
        &self,
        kind: &'static str,
        path: &[u8],
        (file, file_kind): (FileId, FileKind),
    ) -> Result<Option<Difference>> {
        let (Some(before), Some(after)) = (self.attr(file, self.before)?, self.attr(file, self.after)?)
        else {
            return Ok(None);
        };
        let mut told = self.tell(kind, path, (file, file_kind));
        if file_kind == FileKind::Regular {
            told.size_before = Some(before.size);
            told.size_after = Some(after.size);
            told.changed_bytes = self.changed_bytes(file, before.size, after.size)?;
        }
        if before.mode != after.mode {
            told.attributes.push("mode");
        }
        if (before.uid, before.gid) != (after.uid, after.gid) {
            told.attributes.push("owner");
        }
        if self.index.xattrs(file, self.before)? != self.index.xattrs(file, self.after)? {
            told.attributes.push("xattrs");
        }
        Ok(Some(told))
    }

    /// Bytes in pages that have a version in between, and bytes that were cut off.
    fn changed_bytes(&self, file: FileId, size_before: u64, size: u64) -> Result<u64> {
        let cut = size_before.saturating_sub(size);
        if !self.index.content_changed(file, self.before, self.after)? {
            return Ok(cut);
        }
        let floor = self.index.adoption(file, self.after)?.map_or(Seq::ZERO, |adoption| adoption.seq);
        if floor > self.before {
            return Ok(size.saturating_add(cut));
        }
        let mut bytes = 0;
        let pages = size.div_ceil(PAGE);
        let mut page = 0;
        while page < pages {
            let last = pages.min(page + AT_ONCE as u64) - 1;
            let versions = self.index.pages(file, PageNo(page)..=PageNo(last), self.after, floor)?;
            for (version, number) in versions.iter().zip(page..) {
                let newest =
                    version.full.map(|full| full.seq).max(version.partials.first().map(|part| part.seq));
                if newest.is_some_and(|seq| seq > self.before) {
                    bytes += PAGE.min(size - number * PAGE);
                }
            }
            page = last + 1;
        }
        Ok(bytes.saturating_add(cut))
    }
}

impl Difference {
    /// Whether anything differs at all.
    fn is_one(&self) -> bool {
        self.changed_bytes > 0 || self.size_before != self.size_after || !self.attributes.is_empty()
    }
}
