//! Pages of the past: putting the versions that the index names together.

use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Result};
use crate::index::{Adoption, Index, PageVersion};
use crate::journal::segment::Segments;
use crate::live::Live;
use crate::sync::{Arc, Mutex};
use crate::types::{FileId, Location, PAGE, PAGE_LEN, PageNo, Seq};
use std::path::PathBuf;

/// Pages looked up at once.
const BATCH: u64 = 256;

/// Reads pages as of a Seq. Shared by all views.
pub struct Pages {
    index: Arc<Index>,
    live: Arc<Live>,
    segments: Arc<Segments>,
    page_files: PageFiles,
}

/// Pages composed by the indexer: rebuildable, so never synced on their own.
pub struct PageFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: Mutex<Option<(u64, Arc<dyn DiskFile>)>>,
}

impl PageFiles {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> PageFiles {
        PageFiles { disk, dir, open: Mutex::new(None) }
    }

    /// The file of a number, made when absent.
    pub fn file(&self, number: u64) -> Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        if let Some((held, file)) = &*open
            && *held == number
        {
            return Ok(Arc::clone(file));
        }
        let path = self.dir.join(format!("{number:010}.pages"));
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let file = self.disk.open("pages.open", &path, how)?;
        *open = Some((number, Arc::clone(&file)));
        Ok(file)
    }
}

impl Pages {
    pub fn new(index: Arc<Index>, live: Arc<Live>, page_files: PageFiles) -> Pages {
        let segments = Arc::clone(live.journal.segments());
        Pages { index, live, segments, page_files }
    }

    pub fn page_files(&self) -> &PageFiles {
        &self.page_files
    }

    /// Reads `out.len()` bytes of a file as of `at`; the caller has seen to it that they lie within its size.
    pub fn read(&self, file: FileId, at: Seq, offset: u64, out: &mut [u8]) -> Result<()> {
        let Some(last_byte) = offset.checked_add(out.len() as u64).and_then(|end| end.checked_sub(1)) else {
            return Ok(());
        };
        let adoption = self.index.adoption(file, at)?;
        let floor = adoption.map_or(Seq::ZERO, |adoption| adoption.seq);
        let (mut page, last) = (offset / PAGE, last_byte / PAGE);
        while page <= last {
            let upto = last.min(page + BATCH - 1);
            let versions = self.index.pages(file, PageNo(page)..=PageNo(upto), at, floor)?;
            let mut index = 0;
            while index < versions.len() {
                let run = run_length(&versions, index);
                let start = page + index as u64;
                self.run(file, adoption, start, run, &versions, index, offset, out)?;
                index += run;
            }
            page = upto + 1;
        }
        Ok(())
    }

    /// `count` pages from `start`: several only if they stand one behind the other in one segment.
    #[expect(clippy::too_many_arguments, reason = "one loop body of `read`, on its variables")]
    fn run(
        &self,
        file: FileId,
        adoption: Option<Adoption>,
        start: u64,
        count: usize,
        versions: &[PageVersion],
        index: usize,
        offset: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let mut bytes = vec![0; count * PAGE_LEN];
        let Some(version) = versions.get(index) else { return Ok(()) };
        match (count, version.full) {
            (2.., Some(full)) => self.fetch(full.location, &mut bytes)?,
            _ => self.compose(file, adoption, PageNo(start), version, &mut bytes)?,
        }
        let run_start = start * PAGE;
        let from = run_start.max(offset);
        let to = (run_start + bytes.len() as u64).min(offset + out.len() as u64);
        let (source, target) =
            ((from - run_start) as usize..(to - run_start) as usize, (from - offset) as usize);
        if let (Some(source), Some(target)) =
            (bytes.get(source.clone()), out.get_mut(target..target + source.len()))
        {
            target.copy_from_slice(source);
        }
        Ok(())
    }

    /// One page of the past.
    pub fn page(&self, file: FileId, page: PageNo, at: Seq) -> Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE_LEN];
        let adoption = self.index.adoption(file, at)?;
        let floor = adoption.map_or(Seq::ZERO, |adoption| adoption.seq);
        let version = self.index.page(file, page, at, floor)?;
        self.compose(file, adoption, page, &version, &mut bytes)?;
        Ok(bytes)
    }

    fn compose(
        &self,
        file: FileId,
        adoption: Option<Adoption>,
        page: PageNo,
        version: &PageVersion,
        bytes: &mut [u8],
    ) -> Result<()> {
        match (version.full, adoption) {
            (Some(full), _) => {
                let valid = (full.valid_len as usize).min(bytes.len());
                self.fetch(full.location, bytes.get_mut(..valid).unwrap_or(&mut []))?;
            }
            (None, Some(base)) if page.0 * PAGE < base.size => {
                self.live.read_base(file, base.seq, page, bytes)?;
            }
            _ => {}
        }
        for part in version.partials.iter().rev() {
            let range = part.start as usize..(part.start + part.len) as usize;
            let target = bytes
                .get_mut(range)
                .ok_or_else(|| Error::corrupt("past.page", "a partial version reaches beyond its page"))?;
            self.fetch(part.location, target)?;
        }
        Ok(())
    }

    fn fetch(&self, location: Location, out: &mut [u8]) -> Result<()> {
        match location {
            Location::Zero => {
                out.fill(0);
                Ok(())
            }
            Location::Journal { segment, offset } => self.segments.read(segment, offset, out),
            Location::PageFile { number, offset } => {
                let got = self.page_files.file(number)?.read_at("past.pages.read", out, offset)?;
                if got < out.len() {
                    return Err(Error::corrupt(
                        "past.pages.read",
                        "a composed page is missing; `weft index rebuild` makes it anew",
                    ));
                }
                Ok(())
            }
            Location::Base { .. } => {
                Err(Error::corrupt("past.page", "the index names a base file as a version of a page"))
            }
        }
    }
}

/// How many versions from `index` on are whole pages standing one behind the other in a segment.
fn run_length(versions: &[PageVersion], index: usize) -> usize {
    let place = |version: &PageVersion| match (version.full, version.partials.is_empty()) {
        (Some(full), true) if full.valid_len as usize == PAGE_LEN => match full.location {
            Location::Journal { segment, offset } => Some((segment, offset)),
            _ => None,
        },
        _ => None,
    };
    let Some(first) = versions.get(index).and_then(place) else { return 1 };
    versions
        .iter()
        .skip(index)
        .zip(0u64..)
        .take_while(|(version, ahead)| place(version) == Some((first.0, first.1 + ahead * PAGE)))
        .count()
        .max(1)
}
