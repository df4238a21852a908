//! What an engine tells of partitions: their files now and in the past, and what they cost.

use super::{Engine, Work};
use crate::error::Result;
use crate::index::{Change, Did};
use crate::lineage::find::{self, Part, Tree};
use crate::lineage::partition::{Layout, Partition};
use crate::past::view::View;
use crate::sync::Mutex;
use crate::types::{Attr, FileId, FileKind, Name, Seq};
use std::collections::HashMap;

/// Events of a file read at a time.
const AT_ONCE: usize = 4_096;

/// Figures of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figures {
    pub partition: Partition,
    pub files: Vec<Part>,
    /// Bytes of its files now, holes included.
    pub size: u64,
    /// Bytes that history took of its files since they are there.
    pub history: u64,
    /// Since the engine began.
    pub work: Work,
}

/// What history took of a file, up to a Seq: so that telling it again costs what is new.
#[derive(Default)]
pub(super) struct Taken {
    files: Mutex<HashMap<FileId, (Seq, u64)>>,
}

impl Tree for Engine {
    fn top(&self, root: &[u8]) -> Result<Option<FileId>> {
        Ok(self.roots()?.into_iter().find(|info| info.name == root).map(|info| info.file))
    }

    fn at(&self, dir: FileId, name: &[u8]) -> Result<Option<(FileId, Attr)>> {
        absent(self.lookup(dir, name))
    }

    fn entries(
        &self,
        dir: FileId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Name, FileId, FileKind)>> {
        let entries = absent(self.read_dir(dir, after, limit))?.unwrap_or_default();
        Ok(entries.into_iter().map(|entry| (entry.name, entry.file, entry.kind)).collect())
    }

    fn attr_of(&self, file: FileId) -> Result<Option<Attr>> {
        absent(self.attr(file))
    }
}

impl Tree for View {
    fn top(&self, root: &[u8]) -> Result<Option<FileId>> {
        self.root(root)
    }

    fn at(&self, dir: FileId, name: &[u8]) -> Result<Option<(FileId, Attr)>> {
        self.lookup(dir, name)
    }

    fn entries(
        &self,
        dir: FileId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Name, FileId, FileKind)>> {
        let entries = self.read_dir(dir, after, limit)?;
        Ok(entries.into_iter().map(|entry| (entry.name, entry.file, entry.kind)).collect())
    }

    fn attr_of(&self, file: FileId) -> Result<Option<Attr>> {
        self.attr(file).map(Some)
    }
}

/// A live file may go between two looks.
fn absent<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is(libc::ENOENT) || error.is(libc::ESTALE) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Engine {
    /// The files of a partition now, in order.
    pub fn partition_files(&self, layout: Layout, partition: &Partition) -> Result<Vec<Part>> {
        find::files(self, layout, partition)
    }

    /// What was written to which file since the engine began.
    pub fn activity(&self) -> HashMap<FileId, Work> {
        self.activity.all()
    }

    /// Every partition of the present, by name. Costs a look at every file, and at what history took since the last
    /// time this was asked.
    pub fn partitions(&self, layout: Layout) -> Result<Vec<Figures>> {
        let roots: Vec<Name> = self.roots()?.into_iter().map(|root| root.name).collect();
        let upto = self.indexer.reached();
        let work = self.activity();
        let all = find::all(self, layout, &roots)?;
        let figures = all.into_iter().map(|(partition, files)| self.figures(partition, files, upto, &work));
        figures.collect()
    }

    fn figures(
        &self,
        partition: Partition,
        files: Vec<Part>,
        upto: Seq,
        work: &HashMap<FileId, Work>,
    ) -> Result<Figures> {
        let mut figures = Figures { partition, files, size: 0, history: 0, work: Work::default() };
        for part in &figures.files {
            let done = work.get(&part.file).copied().unwrap_or_default();
            figures.size += part.attr.size;
            figures.history += self.taken_of(part.file, upto)?;
            figures.work =
                Work { writes: figures.work.writes + done.writes, bytes: figures.work.bytes + done.bytes };
        }
        Ok(figures)
    }

    /// Bytes that events up to a Seq brought for a file.
    fn taken_of(&self, file: FileId, upto: Seq) -> Result<u64> {
        let (known, mut bytes) = self.taken.files.lock().get(&file).copied().unwrap_or_default();
        let mut from = upto;
        'history: while from > known {
            let events = self.index.history(file, from, AT_ONCE)?;
            for event in &events {
                if event.seq <= known {
                    break 'history;
                }
                if let Did::Content { change: Change::Write, bytes: more, .. } = event.did {
                    bytes += more;
                }
            }
            match events.last() {
                Some(last) if last.seq.0 > 0 => from = Seq(last.seq.0 - 1),
                _ => break,
            }
        }
        self.taken.files.lock().insert(file, (upto.max(known), bytes));
        Ok(bytes)
    }
}
