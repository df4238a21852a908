//! The segment files of a journal: their names, and reading from them at a position.

use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Result};
use crate::format::segment::SegmentHeader;
use crate::sync::{Arc, Mutex};
use crate::types::{PAGE_LEN, SegmentNo, StoreId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Open segments kept for reading.
const KEPT_OPEN: usize = 64;

/// The directory of segment files, for reading.
pub struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store: StoreId,
    open: Mutex<BTreeMap<SegmentNo, Arc<dyn DiskFile>>>,
}

impl Segments {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, store: StoreId) -> Segments {
        Segments { disk, dir, store, open: Mutex::new(BTreeMap::new()) }
    }

    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn store(&self) -> StoreId {
        self.store
    }

    /// File of a segment.
    pub fn path(&self, number: SegmentNo) -> PathBuf {
        self.dir.join(format!("{:010}.seg", number.0))
    }

    /// Numbers of the segment files that are there, ascending.
    pub fn list(&self) -> Result<Vec<SegmentNo>> {
        let mut numbers: Vec<SegmentNo> = self
            .disk
            .read_dir("journal.list", &self.dir)?
            .iter()
            .filter_map(|entry| std::str::from_utf8(&entry.name).ok()?.strip_suffix(".seg")?.parse().ok())
            .map(SegmentNo)
            .collect();
        numbers.sort();
        Ok(numbers)
    }

    /// A segment opened for reading.
    pub fn open(&self, number: SegmentNo) -> Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open("journal.segment.open", &self.path(number), OpenHow::default())?;
        let mut open = self.open.lock();
        while open.len() >= KEPT_OPEN {
            open.pop_first();
        }
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// The header of a segment, `None` when it holds none.
    pub fn header(&self, number: SegmentNo) -> Result<Option<SegmentHeader>> {
        let mut page = [0; PAGE_LEN];
        // Opened anew: a prepared file may yet be replaced by another of its name.
        let file = self.disk.open("journal.segment.header", &self.path(number), OpenHow::default())?;
        let len = file.read_at("journal.segment.header", &mut page, 0)?;
        let header = SegmentHeader::decode(page.get(..len).unwrap_or(&[]), self.store)
            .map_err(|error| error.at(&self.path(number)))?;
        match header {
            Some(header) if header.number != number => Err(Error::corrupt(
                "journal.segment.header",
                format!("it says it is segment {}", header.number.0),
            )
            .at(&self.path(number))),
            other => Ok(other),
        }
    }

    /// Reads exactly `out.len()` bytes.
    pub fn read(&self, number: SegmentNo, offset: u64, out: &mut [u8]) -> Result<()> {
        let len = self.open(number)?.read_at("journal.segment.read", out, offset)?;
        if len != out.len() {
            return Err(Error::corrupt("journal.segment.read", "the segment ends before its event does")
                .at(&self.path(number))
                .offset(offset));
        }
        Ok(())
    }
}
