//! Making a snapshot: whole from history, or from the one before and what has changed.

use super::data::{DataName, UNFINISHED};
use super::derive::Derive;
use super::extents::push;
use super::shelf::Shadows;
use super::snapshot::Snapshot;
use super::wish::{Reason, Subject};
use crate::disk::{DiskFile, OpenHow};
use crate::error::Result;
use crate::format::shadow::{BLOCK, BLOCK_PAGES, Extent, FileBody, FileHead, SnapshotHead, digest, encode};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::{FileId, PAGE, PageSet, Seq, Timestamp};

/// Read, hashed and written at a time: whole blocks.
const CHUNK: u64 = 1 << 20;

/// Where the bytes of history come from.
pub trait Source {
    /// Reads the bytes of a file as of a Seq; they lie within its size then.
    fn read(&self, file: FileId, at: Seq, offset: u64, out: &mut [u8]) -> Result<()>;
}

/// What holds the making back.
pub trait Pace {
    /// Called between small pieces of work with the bytes read and written since the last call; returns when the next
    /// piece may begin. `false`: stop, now.
    fn go_on(&self, bytes: u64) -> bool;
}

/// A file to go into a snapshot.
#[derive(Clone, PartialEq, Debug)]
pub struct OrderedFile {
    pub file: FileId,
    /// Bytes at the Seq.
    pub size: u64,
    /// Only these of its pages.
    pub pages: Option<PageSet>,
}

/// A snapshot to be made.
#[derive(Clone, PartialEq, Debug)]
pub struct Order {
    /// The shadow that it is to be one more snapshot of; without it a new shadow.
    pub shadow: Option<u64>,
    pub subject: Subject,
    pub pages: Option<PageSet>,
    /// Durable, and in the index.
    pub seq: Seq,
    pub now: Timestamp,
    pub follows: bool,
    pub reason: Reason,
    pub benefit: f64,
    pub files: Vec<OrderedFile>,
}

/// What was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Made {
    pub shadow: u64,
    pub number: u32,
    /// Bytes of pages that it brought; the rest it shares with the one before.
    pub own_bytes: u64,
    pub shown_bytes: u64,
}

/// A data file in the making.
pub(super) struct NewData<'a> {
    shadows: &'a Shadows,
    name: DataName,
    pub file: Option<Arc<dyn DiskFile>>,
}

impl<'a> NewData<'a> {
    pub(super) fn new(shadows: &'a Shadows, name: DataName) -> NewData<'a> {
        NewData { shadows, name, file: None }
    }

    /// Writes; the file is made with the first bytes.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let dir = &self.shadows.dir;
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let how = OpenHow { write: true, create: true, ..OpenHow::default() };
                let file = dir.disk.open("shadow.data.create", &dir.data(self.name), how)?;
                file.set_len("shadow.data.create", 0)?;
                Arc::clone(self.file.insert(file))
            }
        };
        self.shadows.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        file.write_at("shadow.data.write", bytes, offset)
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync("shadow.data.sync"))
    }
}

/// What is at work on one snapshot.
pub(super) struct Make<'a> {
    pub shadows: &'a Shadows,
    pub order: &'a Order,
    pub source: &'a dyn Source,
    pub pace: &'a dyn Pace,
    pub shadow: u64,
    pub number: u32,
}

impl Shadows {
    /// Makes a snapshot, durably; `None` when told to stop. Nothing is left of one that fails.
    pub fn make(&self, order: &Order, source: &dyn Source, pace: &dyn Pace) -> Result<Option<Made>> {
        let _turn = self.turn.lock();
        // Somebody may have removed it, with all that was in it.
        self.dir.make()?;
        let before = order.shadow.and_then(|id| self.get(id));
        let from = before.as_ref().and_then(|shadow| shadow.newest()).filter(|from| from.broken().is_none());
        let (shadow, number) = match &before {
            Some(shadow) => (shadow.id, shadow.newest().map_or(0, |newest| newest.head.number) + 1),
            None => (self.next_id(), 1),
        };
        let make = Make { shadows: self, order, source, pace, shadow, number };
        let made = make.run(from.map(|from| &**from));
        if !matches!(made, Ok(Some(_))) {
            make.clean_up();
        }
        let Some(snapshot) = made? else { return Ok(None) };
        let files = &snapshot.head.files;
        let made = Made {
            shadow,
            number,
            own_bytes: files.iter().map(|file| file.own_pages * PAGE).sum(),
            shown_bytes: files.iter().map(|file| file.image_pages() * PAGE).sum(),
        };
        self.add(Arc::new(snapshot));
        Ok(Some(made))
    }
}

/// One file, made.
pub(super) type FileMade = (FileHead, FileBody);

impl Make<'_> {
    fn run(&self, from: Option<&Snapshot>) -> Result<Option<Snapshot>> {
        let (mut files, mut bodies) = (Vec::new(), Vec::new());
        for ordered in &self.order.files {
            let made = match from.map(|from| Derive::find(self, from, ordered)).transpose()?.flatten() {
                Some(derive) => derive.run()?,
                None => self.whole(ordered)?,
            };
            let Some((head, body)) = made else { return Ok(None) };
            files.push(head);
            bodies.push(body);
        }
        let order = self.order;
        let head = SnapshotHead {
            store: self.shadows.store,
            shadow: self.shadow,
            number: self.number,
            seq: order.seq,
            made: order.now,
            root: order.subject.root.clone(),
            partition: order.subject.partition.clone(),
            pages: order.pages.clone(),
            follows: order.follows,
            benefit_milli: (order.benefit.clamp(0.0, 1e12) * 1e3) as u64,
            reason: order.reason.name().as_bytes().to_vec(),
            digest: digest(&files, &bodies),
            files,
        };
        self.commit(&encode(&head, &bodies))?;
        Ok(Some(Snapshot::new(head, Arc::clone(&self.shadows.dir), None)))
    }

    /// Gives the snapshot its name, when all it leads to is durable.
    fn commit(&self, bytes: &[u8]) -> Result<()> {
        let dir = &self.shadows.dir;
        let path = dir.snapshot(self.shadow, self.number);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let file = dir.disk.open("shadow.create", unfinished.as_ref(), how)?;
        file.set_len("shadow.create", 0)?;
        file.write_durable("shadow.write", bytes, 0)?;
        self.shadows.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        dir.sync()?;
        dir.disk.rename("shadow.name", unfinished.as_ref(), &path)?;
        dir.sync()
    }

    /// Removes what was begun; what cannot be removed goes at the next opening.
    fn clean_up(&self) {
        let dir = &self.shadows.dir;
        let path = dir.snapshot(self.shadow, self.number);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(UNFINISHED);
        // Its name first: it must not outlive its bytes.
        let named =
            dir.remove(&path).and_then(|()| dir.remove(unfinished.as_ref())).and_then(|()| dir.sync());
        if named.is_ok() {
            for ordered in &self.order.files {
                let _ = dir.remove_data((self.shadow, self.number, ordered.file));
            }
        }
    }

    /// Makes one file from history alone.
    pub(super) fn whole(&self, ordered: &OrderedFile) -> Result<Option<FileMade>> {
        let mut head = empty_head(ordered);
        let mut body = FileBody::default();
        let mut data = NewData::new(self.shadows, (self.shadow, self.number, ordered.file));
        let pages = head.image_pages();
        let mut page = 0;
        let mut chunk = Vec::new();
        while page < pages {
            let count = (pages - page).min(CHUNK / PAGE);
            chunk.clear();
            chunk.resize(usize::try_from(count * PAGE).unwrap_or(0), 0);
            self.read_history(ordered, page, &mut chunk)?;
            let zero: Vec<bool> = chunk.chunks(BLOCK as usize).map(is_zero).collect();
            for (at, bytes) in chunk.chunks(BLOCK as usize).enumerate() {
                body.hashes.push(*blake3::hash(bytes).as_bytes());
                let first = page + at as u64 * BLOCK_PAGES;
                let count = bytes.len() as u64 / PAGE;
                if zero.get(at) == Some(&false) {
                    push(&mut body.extents, Extent { page: first, count, snapshot: self.number, at: first });
                    head.stored_pages += count;
                }
            }
            for (skip, bytes) in stretches(&chunk, &zero) {
                data.write(bytes, page * PAGE + skip)?;
            }
            if !self.pace.go_on(2 * count * PAGE) {
                return Ok(None);
            }
            page += count;
        }
        data.sync()?;
        head.own_pages = head.stored_pages;
        Ok(Some((head, body)))
    }

    /// Reads pages of an image from history: `out` is whole pages, from image page `page` on.
    pub(super) fn read_history(&self, ordered: &OrderedFile, page: u64, out: &mut [u8]) -> Result<()> {
        self.shadows.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        let read = |first: u64, out: &mut [u8]| {
            let offset = first * PAGE;
            let inside = usize::try_from(ordered.size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (inside, beyond) = out.split_at_mut(inside.min(out.len()));
            beyond.fill(0);
            self.source.read(ordered.file, self.order.seq, offset, inside)
        };
        let Some(set) = &ordered.pages else { return read(page, out) };
        let (mut page, mut rest) = (page, out);
        while let Some(first) = set.nth(page).filter(|_| !rest.is_empty()) {
            let most = rest.len() as u64 / PAGE;
            let count = (1..most)
                .take_while(|ahead| set.nth(page + ahead).map(|p| p.0) == Some(first.0 + ahead))
                .count();
            let (part, behind) = rest.split_at_mut((count + 1) * PAGE as usize);
            read(first.0, part)?;
            (page, rest) = (page + count as u64 + 1, behind);
        }
        Ok(())
    }
}

pub(super) fn empty_head(ordered: &OrderedFile) -> FileHead {
    let OrderedFile { file, size, pages } = ordered.clone();
    FileHead { file, size, pages, stored_pages: 0, own_pages: 0 }
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The stretches of blocks that are not zero, with their offsets.
fn stretches<'a>(chunk: &'a [u8], zero: &'a [bool]) -> impl Iterator<Item = (u64, &'a [u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += zero.get(at..)?.iter().take_while(|zero| **zero).count();
        let count = zero.get(at..)?.iter().take_while(|zero| !**zero).count();
        let start = at * BLOCK as usize;
        let bytes = chunk.get(start..(start + count * BLOCK as usize).min(chunk.len()))?;
        at += count;
        (count > 0).then_some((start as u64, bytes))
    })
}

/// Counts bytes for tests and for those who hurry.
#[derive(Default)]
pub struct Unpaced(AtomicU64);

impl Unpaced {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Pace for Unpaced {
    fn go_on(&self, bytes: u64) -> bool {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        true
    }
}
