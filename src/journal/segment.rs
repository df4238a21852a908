//! The segment files of a journal: their names, and reading from them at a position.
//!
//! A sealed segment may have been woven: then its file goes, and the same bytes and groups are read, by the same
//! addresses, from its woven form. That is there, durable, before the segment goes, so that there is always one.

use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Result};
use crate::format::segment::SegmentHeader;
use crate::journal::woven::{WovenFile, WovenFiles};
use crate::sync::{Arc, Mutex};
use crate::types::{PAGE_LEN, SegmentNo, Seq, StoreId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Open segments kept for reading.
const KEPT_OPEN: usize = 64;

#[derive(Default)]
struct Open {
    files: BTreeMap<SegmentNo, Arc<dyn DiskFile>>,
    /// Segments whose files were removed: an open one would hold their space.
    gone: BTreeSet<SegmentNo>,
}

/// What a segment is read from.
pub enum Form {
    Journal(Arc<dyn DiskFile>),
    Woven(Arc<WovenFile>),
}

/// The directory of segment files, for reading, and that of their woven forms beside it.
pub struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store: StoreId,
    open: Mutex<Open>,
    woven: WovenFiles,
}

impl Segments {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, store: StoreId) -> Segments {
        let woven = WovenFiles::new(Arc::clone(&disk), dir.with_file_name("woven"), store);
        Segments { disk, dir, store, open: Mutex::new(Open::default()), woven }
    }

    pub fn woven(&self) -> &WovenFiles {
        &self.woven
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

    /// Numbers of the segments that are there in either form, ascending.
    pub fn list(&self) -> Result<Vec<SegmentNo>> {
        // In this order: one that changes its form meanwhile is in the second list if not in the first.
        let mut numbers = self.list_journal()?;
        numbers.append(&mut self.woven.list()?);
        numbers.sort();
        numbers.dedup();
        Ok(numbers)
    }

    /// Numbers of the segments that have the journal's own form, ascending.
    pub fn list_journal(&self) -> Result<Vec<SegmentNo>> {
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

    /// A segment opened for reading, in the journal's own form.
    pub fn open(&self, number: SegmentNo) -> Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().files.get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open("journal.segment.open", &self.path(number), OpenHow::default())?;
        let mut open = self.open.lock();
        if open.gone.contains(&number) {
            return Ok(file);
        }
        while open.files.len() >= KEPT_OPEN {
            open.files.pop_first();
        }
        open.files.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// A segment in the form that it has. A reader that opened the journal's before it went reads on in that one.
    pub fn form(&self, number: SegmentNo) -> Result<Form> {
        if let Some(file) = self.woven.kept(number) {
            return Ok(Form::Woven(file));
        }
        match self.open(number) {
            Ok(file) => Ok(Form::Journal(file)),
            Err(missing) if missing.is(libc::ENOENT) => match self.woven.find(number)? {
                Some(file) => Ok(Form::Woven(file)),
                None => Err(missing),
            },
            Err(error) => Err(error),
        }
    }

    /// Removes the file of a segment that has a woven form.
    pub fn remove(&self, number: SegmentNo) -> Result<()> {
        {
            let mut open = self.open.lock();
            open.gone.insert(number);
            open.files.remove(&number);
        }
        self.disk.unlink("journal.segment.remove", &self.path(number))?;
        self.disk.sync_dir("journal.segment.remove", &self.dir)
    }

    /// The header of a segment, `None` when it holds none or is not there.
    pub fn header(&self, number: SegmentNo) -> Result<Option<SegmentHeader>> {
        let mut page = [0; PAGE_LEN];
        // Opened anew: a prepared file may yet be replaced by another of its name.
        let file = match self.disk.open("journal.segment.header", &self.path(number), OpenHow::default()) {
            Ok(file) => file,
            Err(missing) if missing.is(libc::ENOENT) => return self.woven.header(number),
            Err(error) => return Err(error),
        };
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

    /// The first Seq of a segment; of one whose header cannot be read, or that has none, that of the first one behind it
    /// that has, up to `newest`.
    pub fn first_seq_from(&self, number: SegmentNo, newest: SegmentNo) -> Result<Option<Seq>> {
        for number in (number.0..=newest.0.max(number.0)).map(SegmentNo) {
            match self.header(number) {
                Ok(Some(header)) => return Ok(Some(header.first_seq)),
                Ok(None) => {}
                Err(error) if error.is_of_place() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Reads exactly `out.len()` bytes.
    pub fn read(&self, number: SegmentNo, offset: u64, out: &mut [u8]) -> Result<()> {
        let file = match self.form(number)? {
            Form::Journal(file) => file,
            Form::Woven(file) => return self.woven.read(&file, number, offset, out),
        };
        let len = file.read_at("journal.segment.read", out, offset)?;
        if len != out.len() {
            return Err(Error::corrupt("journal.segment.read", "the segment ends before its event does")
                .at(&self.path(number))
                .offset(offset));
        }
        Ok(())
    }
}
