//! Pre-images: pages saved before the live file loses them, and reading them back.
//!
//! A batch is durable in a base file before any of its pages is marked saved, and marked saved before any of them is
//! overwritten. The first record of a page wins for ever, so a replay cannot save a newer page as base.

use super::batches::{Step, Walk, seal};
use super::paths::Paths;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Result};
use crate::format::base::{BaseEntry, MAX_PAGES, encode_header};
use crate::index::{BasePage, BaseRecord, Index, LostList};
use crate::sync::{Arc, Mutex};
use crate::types::{FileId, Location, PAGE, PAGE_LEN, PageNo, PageSet, Seq, StoreId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A base file is closed when it is this long.
const FILE_MAX: u64 = 1 << 30;
/// Base files kept open for reading.
const KEPT_OPEN: usize = 16;

struct Writer {
    number: u64,
    file: Option<Arc<dyn DiskFile>>,
    offset: u64,
}

/// The base files of a STORE.
pub struct BaseStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store: StoreId,
    index: Arc<Index>,
    writer: Mutex<Writer>,
    open: Mutex<BTreeMap<u64, Arc<dyn DiskFile>>>,
    /// Lists of saved pages that the index was made without.
    lost: Vec<LostList>,
}

/// A page to be saved.
pub struct SavedPage {
    pub file: FileId,
    pub adopted: Seq,
    pub page: PageNo,
    pub bytes: Vec<u8>,
}

impl BaseStore {
    /// Goes on in a new file after the ones that are there: what a crash left torn is never written over.
    pub fn open(disk: Arc<dyn Disk>, paths: &Paths, store: StoreId, index: Arc<Index>) -> Result<BaseStore> {
        let dir = paths.base_dir();
        let number = list(&*disk, paths)?.last().map_or(1, |last| last + 1);
        let writer = Mutex::new(Writer { number, file: None, offset: 0 });
        let lost = index.lost_lists()?;
        Ok(BaseStore { disk, dir, store, index, writer, open: Mutex::new(BTreeMap::new()), lost })
    }

    pub(super) fn path(&self, number: u64) -> PathBuf {
        file_path(&self.dir, number)
    }

    /// Makes the places of saved pages durable in the index: a checkpoint relies on them.
    pub fn persist(&self) -> Result<()> {
        self.index.persist()
    }

    /// Where the next batch goes: what is before is in the bitmaps of a checkpoint that is written now.
    pub fn position(&self) -> (u64, u64) {
        let writer = self.writer.lock();
        (writer.number, writer.offset)
    }

    /// Saves pages, durably, and makes them findable.
    pub fn save(&self, pages: &[SavedPage]) -> Result<()> {
        for batch in pages.chunks(MAX_PAGES) {
            self.save_batch(batch)?;
        }
        Ok(())
    }

    fn save_batch(&self, batch: &[SavedPage]) -> Result<()> {
        let entries: Vec<BaseEntry> = batch
            .iter()
            .map(|page| BaseEntry {
                file: page.file,
                adopted: page.adopted,
                page: page.page,
                crc: crc32fast::hash(&page.bytes),
            })
            .collect();
        let mut bytes = Vec::with_capacity((batch.len() + 1) * PAGE_LEN);
        let (number, offset) = {
            let mut writer = self.writer.lock();
            if writer.offset >= FILE_MAX {
                if let Some(full) = &writer.file {
                    seal(&**full, self.store, writer.offset)?;
                }
                *writer = Writer { number: writer.number + 1, file: None, offset: 0 };
            }
            bytes.extend_from_slice(&encode_header(self.store, writer.offset / PAGE, &entries));
            batch.iter().for_each(|page| bytes.extend_from_slice(&page.bytes));
            let file = match &writer.file {
                Some(file) => Arc::clone(file),
                None => {
                    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
                    let file = self.disk.open("base.create", &self.path(writer.number), how)?;
                    self.disk.sync_dir("base.create", &self.dir)?;
                    writer.file = Some(Arc::clone(&file));
                    file
                }
            };
            let at = (writer.number, writer.offset);
            file.write_durable("base.write", &bytes, writer.offset)?;
            writer.offset += bytes.len() as u64;
            at
        };
        self.index.put_base(&located(&entries, number, offset))
    }

    /// Reads saved pages from `page` on into `out`, as far as they stand one behind the other. `known` is what an earlier
    /// call has found of the pages up to the end of `out`: looked up anew only where it has not the page.
    pub fn read(
        &self,
        (file, adopted): (FileId, Seq),
        page: PageNo,
        out: &mut [u8],
        known: &mut SavedPlaces,
    ) -> Result<SavedRun> {
        let mut at = known.0.partition_point(|(found, _)| *found < page);
        if known.0.get(at).is_none_or(|(found, _)| *found != page) {
            let last = PageNo(page.0 + (out.len() as u64).div_ceil(PAGE).saturating_sub(1));
            (known.0, at) = (self.index.bases(file, adopted, page..=last)?, 0);
        }
        let records = known.0.get(at..).unwrap_or(&[]);
        let Some((first, start)) = records.first() else { return Ok(SavedRun { read: 0, next: None }) };
        if *first != page {
            return Ok(SavedRun { read: 0, next: Some(*first) });
        }
        let Location::Base { number, offset } = start.location else {
            return Err(Error::corrupt("base.read", "the index names a place that is not in a base file"));
        };
        let in_line = records.iter().zip(0u64..).take_while(|((found, record), ahead)| {
            found.0 == page.0 + ahead
                && record.location == Location::Base { number, offset: offset + ahead * PAGE }
        });
        let run: Vec<&BaseRecord> = in_line.map(|((_, record), _)| record).collect();
        let handle = self.handle(number)?;
        let damaged = |ahead: usize| {
            let (page, offset) = (page.0 + ahead as u64, offset + ahead as u64 * PAGE);
            Error::corrupt("base.read", format!("the saved page {page} of {file} is damaged"))
                .at(&self.path(number))
                .offset(offset)
        };
        let whole = run.len().min(out.len() / PAGE_LEN);
        let part = out.get_mut(..whole * PAGE_LEN).unwrap_or(&mut []);
        let got = handle.read_at("base.read", part, offset)?;
        for ((bytes, record), ahead) in part.chunks(PAGE_LEN).zip(&run).zip(0..) {
            if (ahead + 1) * PAGE_LEN > got || crc32fast::hash(bytes) != record.crc {
                return Err(damaged(ahead));
            }
        }
        let mut read = whole * PAGE_LEN;
        if let Some(record) = run.get(whole)
            && let Some(rest) = out.get_mut(read..).filter(|rest| !rest.is_empty())
        {
            let mut bytes = [0; PAGE_LEN];
            let got = handle.read_at("base.read", &mut bytes, offset + read as u64)?;
            if got != PAGE_LEN || crc32fast::hash(&bytes) != record.crc {
                return Err(damaged(whole));
            }
            rest.copy_from_slice(bytes.get(..rest.len()).unwrap_or(&bytes));
            read = out.len();
        }
        Ok(SavedRun { read, next: None })
    }

    /// Base files that are written no more, but for the newest there is: by its number the next one is known.
    pub fn closed(&self) -> Result<Vec<u64>> {
        let mut numbers = list_dir(&*self.disk, &self.dir)?;
        let current = self.writer.lock().number;
        numbers.pop();
        numbers.retain(|number| *number < current);
        Ok(numbers)
    }

    /// The pages that a base file holds, batch by batch, until `each` says false; the bytes of the file. Of a list of pages
    /// that cannot be read it is not known who needs them: that is an error, except of a last one that a crash has torn.
    pub fn each_batch(&self, number: u64, mut each: impl FnMut(&[BaseEntry]) -> Result<bool>) -> Result<u64> {
        let file = self.handle(number)?;
        let mut walk = Walk::new(&*file, "base.look", self.store, 0)?;
        let damaged = |offset| {
            let message = "a list of saved pages is damaged; all of this file stays";
            Error::corrupt("base.look", message).at(&self.path(number)).offset(offset)
        };
        loop {
            match walk.step()? {
                Step::Batch { entries, .. } if each(&entries)? => {}
                Step::Batch { .. } | Step::Sealed => return Ok(walk.len),
                Step::Gap { offset, .. } => return Err(damaged(offset)),
                // An earlier build left it so, torn or not: of a list that was there the index knows the pages.
                Step::End(offset) if offset < walk.len && self.index.leads_behind(number, offset)? => {
                    return Err(damaged(offset));
                }
                Step::End(_) => return Ok(walk.len),
            }
        }
    }

    /// Lists of saved pages that cannot be read any more, of which the index knows nothing: their base files, and the bytes
    /// from where on.
    pub fn lost(&self) -> &[LostList] {
        &self.lost
    }

    /// That a page may have stood in a list that is lost, if there is one.
    pub fn lost_with(&self, page: PageNo, file: FileId) -> Option<Error> {
        let lost = self.lost.first()?;
        let message = format!(
            "page {} of {file} may have been saved in a list of pages that is damaged: put this file back from a copy \
             of STORE, then `weft index rebuild`",
            page.0
        );
        Some(Error::corrupt("base.read", message).at(&self.path(lost.number)).offset(lost.offset))
    }

    /// Pages of a file that may have stood in a list that is lost: that no saved page of theirs is known does not mean that
    /// there was none. `None`: all of them.
    pub fn unsure(&self, file: FileId, adopted: Seq) -> Result<Option<PageSet>> {
        match self.lost.iter().map(|lost| lost.upto).max() {
            None => Ok(Some(PageSet::default())),
            Some(upto) => self.index.may_be_saved(file, adopted, upto),
        }
    }

    /// Removes a base file of which no page is needed; the index is to forget them first.
    pub fn remove(&self, number: u64) -> Result<()> {
        self.open.lock().remove(&number);
        self.disk.unlink_if_there("base.remove", &self.path(number))
    }

    /// Makes removals durable.
    pub fn sync_dir(&self) -> Result<()> {
        self.disk.sync_dir("base.remove", &self.dir)
    }

    fn handle(&self, number: u64) -> Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open("base.open", &self.path(number), OpenHow::default())?;
        while open.len() >= KEPT_OPEN {
            open.pop_first();
        }
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }
}

/// Where some saved pages of one file stand, in order.
#[derive(Default)]
pub struct SavedPlaces(Vec<(PageNo, BaseRecord)>);

/// What a reading of saved pages found.
pub struct SavedRun {
    /// Bytes read: whole pages, or all that was asked for. 0: the first page was not saved.
    pub read: usize,
    /// Then the first page of those asked for that was saved, if any.
    pub next: Option<PageNo>,
}

pub(super) fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.base"))
}

pub(super) fn located(entries: &[BaseEntry], number: u64, offset: u64) -> Vec<(BasePage, BaseRecord)> {
    entries
        .iter()
        .zip(1u64..)
        .map(|(entry, at)| {
            let location = Location::Base { number, offset: offset + at * PAGE };
            let page = BasePage { file: entry.file, adoption: entry.adopted, page: entry.page };
            (page, BaseRecord { location, crc: entry.crc })
        })
        .collect()
}

pub(super) fn list(disk: &dyn Disk, paths: &Paths) -> Result<Vec<u64>> {
    list_dir(disk, &paths.base_dir())
}

fn list_dir(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let mut numbers: Vec<u64> = disk
        .read_dir("base.list", dir)?
        .iter()
        .filter_map(|entry| std::str::from_utf8(&entry.name).ok()?.strip_suffix(".base")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}
