//! Reading woven segments: the compact form that sealed journal segments take (made by `weave`).
//!
//! Bytes and groups are asked for by the address that they had in the journal, so that no one who has noted a place
//! need know which form it has now. A woven file is complete when it has its name: it is written under another.

mod cache;
mod file;

pub use file::WovenFile;

use crate::disk::Disk;
use crate::error::Result;
use crate::format::event::Record;
use crate::format::group::GroupHeader;
use crate::format::segment::SegmentHeader;
use crate::format::woven::places::WovenPlace;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{PAGE, SegmentNo, StoreId};
use cache::Cache;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Woven files kept open.
const KEPT_OPEN: usize = 256;
/// Memory for pieces taken apart.
const CACHE_BYTES: usize = 16 << 20;
/// How a woven file's name ends.
const ENDING: &str = ".woven";
/// Looks for a file whose neighbours are being put together.
const FIND_TRIES: usize = 8;

/// The segments in a file, from its name.
fn range_of(name: &[u8]) -> Option<(SegmentNo, SegmentNo)> {
    let numbers = std::str::from_utf8(name).ok()?.strip_suffix(ENDING)?;
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    Some((SegmentNo(first.parse().ok()?), SegmentNo(last.parse().ok()?)))
}

/// The directory of woven segments.
pub struct WovenFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store: StoreId,
    /// By the first segment in each: the last one, and the file.
    open: Mutex<BTreeMap<SegmentNo, (SegmentNo, Arc<WovenFile>)>>,
    /// How often files were replaced.
    changes: AtomicU64,
    opened: AtomicU64,
    cache: Mutex<Cache>,
}

impl WovenFiles {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, store: StoreId) -> WovenFiles {
        let cache = Mutex::new(Cache::new(CACHE_BYTES));
        let (open, changes) = (Mutex::new(BTreeMap::new()), AtomicU64::new(0));
        WovenFiles { disk, dir, store, open, changes, opened: AtomicU64::new(0), cache }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// File of the woven form of some segments, `first` to `last`.
    pub fn path(&self, first: SegmentNo, last: SegmentNo) -> PathBuf {
        match first == last {
            true => self.dir.join(format!("{:010}{ENDING}", first.0)),
            false => self.dir.join(format!("{:010}-{:010}{ENDING}", first.0, last.0)),
        }
    }

    /// Which segments the files that are there hold, first and last of each: ascending, those that hold more before those
    /// that hold less of the same. After a crash some may be in two.
    pub fn ranges(&self) -> Result<Vec<(SegmentNo, SegmentNo)>> {
        let entries = match self.disk.read_dir("woven.list", &self.dir) {
            // A store that no weft has opened since weaving came.
            Err(missing) if missing.is(libc::ENOENT) => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut ranges: Vec<_> = entries.iter().filter_map(|entry| range_of(&entry.name)).collect();
        ranges.sort_by_key(|(first, last)| (*first, std::cmp::Reverse(*last)));
        Ok(ranges)
    }

    /// Numbers of the woven segments that are there, ascending.
    pub fn list(&self) -> Result<Vec<SegmentNo>> {
        let mut numbers: Vec<SegmentNo> = Vec::new();
        for (first, last) in self.ranges()? {
            let from = numbers.last().map_or(first.0, |known| first.0.max(known.0 + 1));
            numbers.extend((from..=last.0).map(SegmentNo));
        }
        Ok(numbers)
    }

    /// The woven form of a segment, if it is open already.
    pub fn kept(&self, number: SegmentNo) -> Option<Arc<WovenFile>> {
        let open = self.open.lock();
        let (_, (last, file)) = open.range(..=number).next_back()?;
        (number <= *last).then(|| Arc::clone(file))
    }

    /// The woven form of a segment; `None` when it has none.
    pub fn find(&self, number: SegmentNo) -> Result<Option<Arc<WovenFile>>> {
        if let Some(file) = self.kept(number) {
            return Ok(Some(file));
        }
        // Most stand alone. What is not there under its own number is with others; and while it is looked for it may be
        // moved to others once more.
        for _ in 0..FIND_TRIES {
            for (first, last) in std::iter::once((number, number)).chain(self.holding(number)?) {
                match self.open(first, last) {
                    Ok(file) => return Ok(Some(file)),
                    Err(error) if error.is(libc::ENOENT) => {}
                    Err(error) => return Err(error),
                }
            }
            if self.holding(number)?.is_empty() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn holding(&self, number: SegmentNo) -> Result<Vec<(SegmentNo, SegmentNo)>> {
        let ranges = self.ranges()?.into_iter();
        Ok(ranges.filter(|(first, last)| (*first..=*last).contains(&number)).collect())
    }

    fn open(&self, first: SegmentNo, last: SegmentNo) -> Result<Arc<WovenFile>> {
        let generation = self.changes.load(Ordering::Acquire);
        let file = Arc::new(self.open_now(first, last)?);
        let mut open = self.open.lock();
        // One that was opened before the files changed may be an old one: read from it, and look again next time.
        if generation == self.changes.load(Ordering::Acquire) {
            while open.len() >= KEPT_OPEN {
                open.pop_first();
            }
            open.insert(first, (last, Arc::clone(&file)));
        }
        Ok(file)
    }

    /// Files were replaced: they are opened anew. Who reads from an old one reads on.
    pub fn changed(&self) {
        let mut open = self.open.lock();
        self.changes.fetch_add(1, Ordering::AcqRel);
        open.clear();
    }

    /// A file, from its beginning to its end as it is on disk now.
    pub fn open_now(&self, first: SegmentNo, last: SegmentNo) -> Result<WovenFile> {
        self.open_at(&self.path(first, last), first, last)
    }

    /// The same of one that does not have its name yet.
    pub fn open_at(&self, path: &Path, first: SegmentNo, last: SegmentNo) -> Result<WovenFile> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        WovenFile::open(&*self.disk, path, (first, last), self.store, number)
    }

    /// The header that the journal segment had.
    pub fn header(&self, number: SegmentNo) -> Result<Option<SegmentHeader>> {
        match self.find(number)? {
            Some(file) => file.contents().segment(number).map(|part| Some(part.header)),
            None => Ok(None),
        }
    }

    /// The group that stood at a byte offset of a segment.
    pub fn group(
        &self,
        file: &WovenFile,
        number: SegmentNo,
        offset: u64,
    ) -> Result<Option<(GroupHeader, Vec<Record>)>> {
        file.group(&self.cache, number, offset)
    }

    /// Reads bytes that stood at `address` of a segment.
    pub fn read(&self, file: &WovenFile, number: SegmentNo, address: u64, out: &mut [u8]) -> Result<()> {
        file.read(&self.cache, number, address, out)
    }

    /// Whether a file holds any of the bytes that a write of `len` bytes at byte `offset` of its file left at `address`.
    pub fn holds_any(
        &self,
        file: &WovenFile,
        number: SegmentNo,
        (address, offset, len): (u64, u64, u32),
    ) -> Result<bool> {
        if !file.is_thinned() {
            return Ok(true);
        }
        let mut at = 0;
        while at < u64::from(len) {
            if file.holds(&self.cache, number, address + at)? {
                return Ok(true);
            }
            at += PAGE - (offset + at) % PAGE;
        }
        Ok(false)
    }

    /// Reads the version at a place of a file.
    pub fn version(&self, file: &WovenFile, place: WovenPlace, out: &mut [u8]) -> Result<()> {
        file.version(&self.cache, place, 0, out)
    }
}
