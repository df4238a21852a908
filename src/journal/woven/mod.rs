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
use crate::sync::{Arc, Mutex};
use crate::types::{SegmentNo, StoreId};
use cache::Cache;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Woven files kept open.
const KEPT_OPEN: usize = 256;
/// Memory for pieces taken apart.
const CACHE_BYTES: usize = 16 << 20;
/// How a woven file's name ends.
const ENDING: &str = ".woven";

/// The directory of woven segments.
pub struct WovenFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store: StoreId,
    open: Mutex<BTreeMap<SegmentNo, Arc<WovenFile>>>,
    cache: Mutex<Cache>,
}

impl WovenFiles {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, store: StoreId) -> WovenFiles {
        let cache = Mutex::new(Cache::new(CACHE_BYTES));
        WovenFiles { disk, dir, store, open: Mutex::new(BTreeMap::new()), cache }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// File of a segment's woven form.
    pub fn path(&self, number: SegmentNo) -> PathBuf {
        self.dir.join(format!("{:010}{ENDING}", number.0))
    }

    /// Numbers of the woven segments that are there, ascending.
    pub fn list(&self) -> Result<Vec<SegmentNo>> {
        let entries = match self.disk.read_dir("woven.list", &self.dir) {
            // A store that no weft has opened since weaving came.
            Err(missing) if missing.is(libc::ENOENT) => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut numbers: Vec<SegmentNo> = entries
            .iter()
            .filter_map(|entry| std::str::from_utf8(&entry.name).ok()?.strip_suffix(ENDING)?.parse().ok())
            .map(SegmentNo)
            .collect();
        numbers.sort();
        Ok(numbers)
    }

    /// The woven form of a segment, if it is open already.
    pub fn kept(&self, number: SegmentNo) -> Option<Arc<WovenFile>> {
        self.open.lock().get(&number).cloned()
    }

    /// The woven form of a segment; `None` when it has none.
    pub fn find(&self, number: SegmentNo) -> Result<Option<Arc<WovenFile>>> {
        if let Some(file) = self.kept(number) {
            return Ok(Some(file));
        }
        let opened = WovenFile::open(&*self.disk, &self.path(number), number.0, self.store);
        let file = match opened {
            Ok(file) => Arc::new(file),
            Err(error) if error.is(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        file.contents().segment(number).map_err(|error| error.at(&self.path(number)))?;
        let mut open = self.open.lock();
        while open.len() >= KEPT_OPEN {
            open.pop_first();
        }
        open.insert(number, Arc::clone(&file));
        Ok(Some(file))
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
}
