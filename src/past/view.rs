//! One past instant as a tree of names, attributes and bytes.

use super::pages::Pages;
use super::paths::{names_of, parent_of};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::live::names::Entry;
use crate::sync::Arc;
use crate::types::{Attr, FileId, FileKind, Name, PAGE, Seq};
use std::any::Any;

/// Read-only, never changing.
pub struct View {
    seq: Seq,
    index: Arc<Index>,
    pages: Arc<Pages>,
    /// Keeps the instant from being pruned.
    _hold: Box<dyn Any + Send + Sync>,
}

impl View {
    /// The caller has waited for the index to reach `seq`. `hold`: what keeps the instant, for as long as the view is.
    pub fn new(seq: Seq, index: Arc<Index>, pages: Arc<Pages>, hold: Box<dyn Any + Send + Sync>) -> View {
        View { seq, index, pages, _hold: hold }
    }

    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The directory of a root, DATA's without a name; `None` when the set did not have it.
    pub fn root(&self, name: &[u8]) -> Result<Option<FileId>> {
        if name.is_empty() { Ok(Some(FileId::ROOT)) } else { self.index.root(name, self.seq) }
    }

    /// The names that lead from its root to a file: none for a root's directory.
    pub fn path(&self, file: FileId) -> Result<Vec<Name>> {
        Ok(names_of(&self.index, file, self.seq)?.unwrap_or_default())
    }

    /// What stood at a name.
    pub fn lookup(&self, dir: FileId, name: &[u8]) -> Result<Option<(FileId, Attr)>> {
        match self.index.lookup(dir, name, self.seq)? {
            Some((file, _)) => Ok(Some((file, self.attr(file)?))),
            None => Ok(None),
        }
    }

    /// The directory that holds a directory; `None` for the root.
    pub fn parent(&self, dir: FileId) -> Result<Option<FileId>> {
        parent_of(&self.index, dir, self.seq)
    }

    pub fn attr(&self, file: FileId) -> Result<Attr> {
        self.index.attr(file, self.seq)?.ok_or_else(|| Error::errno("past.attr", libc::ESTALE))
    }

    pub fn read_link(&self, file: FileId) -> Result<Vec<u8>> {
        match self.attr(file)?.kind {
            FileKind::Symlink => {
                let target = self.index.symlink_target(file, self.seq)?;
                target.ok_or_else(|| Error::errno("past.readlink", libc::ESTALE))
            }
            _ => Err(Error::errno("past.readlink", libc::EINVAL)),
        }
    }

    /// Entries with names after `after`, in byte order, at most `limit`.
    pub fn read_dir(&self, dir: FileId, after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        let entries = self.index.read_dir(dir, after, limit, self.seq)?;
        Ok(entries
            .into_iter()
            .map(|entry| Entry { name: entry.name, file: entry.file, kind: entry.kind })
            .collect())
    }

    /// Bytes read: fewer than asked only at the end of the file.
    pub fn read(&self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize> {
        let attr = self.attr(file)?;
        if attr.kind != FileKind::Regular {
            return Err(Error::errno("past.read", libc::EINVAL));
        }
        let len = attr.size.saturating_sub(offset).min(out.len() as u64);
        let len = usize::try_from(len).unwrap_or(0);
        let part = out.get_mut(..len).unwrap_or(&mut []);
        self.pages.read(file, self.seq, offset, part)?;
        Ok(len)
    }

    pub fn xattrs(&self, file: FileId) -> Result<Vec<(Name, Vec<u8>)>> {
        self.index.xattrs(file, self.seq)
    }

    /// The next data (or hole) at or after `offset`, by pages. What stood before Weft counts as data.
    pub fn seek(&self, file: FileId, offset: u64, hole: bool) -> Result<Option<u64>> {
        let size = self.attr(file)?.size;
        self.index.seek(file, self.seq, offset, size, hole)
    }

    /// Bytes of pages that hold data, of a regular file with these attributes; 0 of anything else.
    pub fn data_bytes(&self, file: FileId, attr: &Attr) -> Result<u64> {
        match attr.kind {
            FileKind::Regular => Ok(self.index.data_pages(file, self.seq, attr.size)? * PAGE),
            _ => Ok(0),
        }
    }
}
