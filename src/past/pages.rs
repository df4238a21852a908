//! Pages of the past: putting the versions that the index names together.

use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Result};
use crate::index::{Adoption, Index, PageVersion, advance};
use crate::journal::segment::Segments;
use crate::live::Live;
use crate::shadow::{Cover, Shadows, Source as ShadowSource};
use crate::sync::{Arc, Mutex, RwLock};
use crate::types::{FileId, Location, PAGE, PAGE_LEN, PageNo, PageSet, Seq};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Pages looked up at once.
const BATCH: u64 = 256;
/// Page files kept open.
const KEPT_OPEN: usize = 16;

/// Reads pages as of a Seq. Shared by all views.
pub struct Pages {
    index: Arc<Index>,
    live: Arc<Live>,
    segments: Arc<Segments>,
    page_files: PageFiles,
    shadows: Arc<Shadows>,
}

/// Pages composed by the indexer: rebuildable, but durable before the index names them.
pub struct PageFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: Mutex<BTreeMap<u64, Arc<dyn DiskFile>>>,
    /// Held by whoever reads, from the lookup on: what the index does not lead to any more may be read until then.
    reading: RwLock<()>,
}

/// Pages that lie together and are not in use go when they are so many: a filesystem gives back whole blocks, and the
/// fewer extents a file has the better.
const RUN: u64 = 16;

impl PageFiles {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> PageFiles {
        PageFiles { disk, dir, open: Mutex::new(BTreeMap::new()), reading: RwLock::new(()) }
    }

    /// The page files before one, and the bytes that each takes.
    pub fn before(&self, number: u64) -> Result<Vec<(u64, u64)>> {
        let mut found = Vec::new();
        for (known, path) in list(&*self.disk, &self.dir)?.into_iter().filter(|(known, _)| *known < number) {
            found.push((known, self.disk.stat("pages.size", &path)?.map_or(0, |stat| stat.allocated)));
        }
        Ok(found)
    }

    /// Returns when all reads that have begun are done.
    pub fn wait_for_readers(&self) {
        drop(self.reading.write());
    }

    /// Gives back the pages of a file that are not `used`, in runs. The index does not lead to them, durably, and nobody
    /// who was led there reads any more.
    pub fn give_back(&self, number: u64, used: Option<&PageSet>) -> Result<()> {
        let Some(used) = used else {
            self.open.lock().remove(&number);
            return self.disk.unlink_if_there("pages.remove", &self.path(number));
        };
        let file = self.file(number)?;
        let mut from = 0;
        let end = file.len("pages.size")? / PAGE;
        for (first, behind) in used.runs().chain([(end, end)]) {
            if first.saturating_sub(from) >= RUN {
                file.punch("pages.punch", from * PAGE, (first - from) * PAGE)?;
            }
            from = behind;
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:010}.pages"))
    }

    /// Makes a file's pages durable, and its name.
    pub fn sync(&self, number: u64) -> Result<()> {
        self.file(number)?.sync("pages.sync")?;
        self.disk.sync_dir("pages.sync", &self.dir)
    }

    /// The file of a number, made when absent.
    pub fn file(&self, number: u64) -> Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        let path = self.path(number);
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let file = self.disk.open("pages.open", &path, how)?;
        while open.len() >= KEPT_OPEN {
            open.pop_first();
        }
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }
}

impl Pages {
    pub fn new(index: Arc<Index>, live: Arc<Live>, page_files: PageFiles, shadows: Arc<Shadows>) -> Pages {
        let segments = Arc::clone(live.journal.segments());
        Pages { index, live, segments, page_files, shadows }
    }

    pub fn page_files(&self) -> &PageFiles {
        &self.page_files
    }

    /// Reads `out.len()` bytes of a file as of `at`; the caller has seen to it that they lie within its size. Through a
    /// shadow where one has them: the bytes are the same.
    pub fn read(&self, file: FileId, at: Seq, offset: u64, out: &mut [u8]) -> Result<()> {
        match self.shadows.cover(file, at, offset, out.len() as u64) {
            Some(cover) => self.read_covered(&cover, (file, at), offset, out),
            None => self.read_history(file, at, offset, out),
        }
    }

    fn read_covered(
        &self,
        cover: &Cover,
        (file, at): (FileId, Seq),
        offset: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        let (mut offset, mut rest) = (offset, out);
        while offset < end {
            let (has, behind) = cover.run(offset / PAGE, end.div_ceil(PAGE));
            let len = usize::try_from((behind * PAGE).min(end) - offset).unwrap_or(usize::MAX);
            let (part, later) = rest.split_at_mut(len.min(rest.len()));
            // A broken shadow has said so, and is not asked again.
            if !has || cover.read(offset, part).is_err() {
                self.read_history(file, at, offset, part)?;
            }
            (offset, rest) = (offset + len as u64, later);
        }
        Ok(())
    }

    /// [`Pages::read`] from history itself.
    pub fn read_history(&self, file: FileId, at: Seq, offset: u64, out: &mut [u8]) -> Result<()> {
        self.by_adoption(file, at, |adoption| self.read_by(adoption, file, at, offset, out))
    }

    /// Reads by the adoption of a file, and again if it has come to rest meanwhile: then its versions may be gone.
    fn by_adoption<T>(
        &self,
        file: FileId,
        at: Seq,
        mut read: impl FnMut(Option<Adoption>) -> Result<T>,
    ) -> Result<T> {
        let _reading = self.page_files.reading.read();
        let mut adoption = self.index.adoption(file, at)?;
        loop {
            let result = read(adoption);
            let now = self.index.adoption(file, at)?;
            if now == adoption {
                return result;
            }
            adoption = now;
        }
    }

    fn read_by(
        &self,
        adoption: Option<Adoption>,
        file: FileId,
        at: Seq,
        offset: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let Some(last_byte) = offset.checked_add(out.len() as u64).and_then(|end| end.checked_sub(1)) else {
            return Ok(());
        };
        let floor = adoption.map_or(Seq::ZERO, |adoption| adoption.seq);
        let (mut page, last) = (offset / PAGE, last_byte / PAGE);
        while page <= last {
            let upto = last.min(page + BATCH - 1);
            let versions = self.index.pages(file, PageNo(page)..=PageNo(upto), at, floor)?;
            let mut rest = versions.as_slice();
            while let Some(version) = rest.first() {
                let stretch = Stretch::at(page, rest, adoption);
                // The bytes of the stretch that are asked for, and where they go.
                let begin = page * PAGE;
                let (from, to) = (begin.max(offset), (stretch.end * PAGE).min(last_byte + 1));
                let target = usize::try_from(from - offset).unwrap_or(usize::MAX);
                let len = usize::try_from(to - from).unwrap_or(usize::MAX);
                let part = out.get_mut(target..target.saturating_add(len)).unwrap_or(&mut []);
                self.fill(file, adoption, (PageNo(page), version), stretch.source, from - begin, part)?;
                rest = rest.get((stretch.end - page) as usize..).unwrap_or(&[]);
                page = stretch.end;
            }
        }
        Ok(())
    }

    /// Reads a stretch from `skip` bytes behind its beginning on.
    fn fill(
        &self,
        file: FileId,
        adoption: Option<Adoption>,
        (page, version): (PageNo, &PageVersion),
        source: Source,
        skip: u64,
        part: &mut [u8],
    ) -> Result<()> {
        match (source, adoption) {
            (Source::Zero, _) => {
                part.fill(0);
                Ok(())
            }
            (Source::Stored { location, valid }, _) => {
                let valid = usize::try_from(valid.saturating_sub(skip)).unwrap_or(usize::MAX).min(part.len());
                let (stored, zeros) = part.split_at_mut(valid);
                zeros.fill(0);
                match stored.is_empty() {
                    true => Ok(()),
                    false => self.fetch(advance(location, skip), stored),
                }
            }
            (Source::Base, Some(base)) if skip == 0 => self.live.read_base(file, base.seq, page, part),
            // One page, or the part of a base that begins inside of one.
            _ => {
                let len = (usize::try_from(skip).unwrap_or(usize::MAX).saturating_add(part.len()))
                    .next_multiple_of(PAGE_LEN);
                let mut bytes = vec![0; len];
                match (source, adoption) {
                    (Source::Base, Some(base)) => self.live.read_base(file, base.seq, page, &mut bytes)?,
                    _ => self.compose(file, adoption, page, version, &mut bytes)?,
                }
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                if let Some(found) = bytes.get(skip..skip + part.len()) {
                    part.copy_from_slice(found);
                }
                Ok(())
            }
        }
    }

    /// One page of the past.
    pub fn page(&self, file: FileId, page: PageNo, at: Seq) -> Result<Vec<u8>> {
        self.by_adoption(file, at, |adoption| {
            let mut bytes = vec![0; PAGE_LEN];
            let floor = adoption.map_or(Seq::ZERO, |adoption| adoption.seq);
            let version = self.index.page(file, page, at, floor)?;
            self.compose(file, adoption, page, &version, &mut bytes)?;
            Ok(bytes)
        })
    }

    fn compose(
        &self,
        file: FileId,
        adoption: Option<Adoption>,
        page: PageNo,
        version: &PageVersion,
        bytes: &mut [u8],
    ) -> Result<()> {
        // What newer parts cover may have been pruned.
        let mut version = version.clone();
        let beneath = version.uncover();
        match (version.full, adoption) {
            _ if !beneath => {}
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

/// The page files of a directory, by number.
pub fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = disk.read_dir("pages.list", dir)?;
    let numbered = entries.into_iter().filter_map(|entry| {
        let name = std::str::from_utf8(&entry.name).ok()?;
        Some((name.strip_suffix(".pages")?.parse().ok()?, dir.join(name)))
    });
    Ok(numbered.collect())
}

impl ShadowSource for Pages {
    fn read(&self, file: FileId, at: Seq, offset: u64, out: &mut [u8]) -> Result<()> {
        self.read_history(file, at, offset, out)
    }
}

/// Where the bytes of a stretch are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// In one place, one behind the other; `valid` bytes of them, the rest is zero.
    Stored {
        location: Location,
        valid: u64,
    },
    Zero,
    /// Nothing was written over the base.
    Base,
    /// Of one page: several pieces.
    Pieces,
}

/// Pages that can be read at once: up to `end`, without it.
struct Stretch {
    source: Source,
    end: u64,
}

impl Stretch {
    /// The stretch that begins with the first of `versions`, which is that of `page`.
    fn at(page: u64, versions: &[PageVersion], adoption: Option<Adoption>) -> Stretch {
        let mut sources = versions.iter().zip(page..).map(|(version, page)| source(page, version, adoption));
        let mut stretch = Stretch { source: sources.next().unwrap_or(Source::Zero), end: page + 1 };
        for next in sources {
            let joined = match (stretch.source, next) {
                (Source::Zero, Source::Zero) | (Source::Base, Source::Base) => stretch.source,
                (Source::Stored { location, valid }, Source::Stored { location: next, valid: more })
                    if valid == (stretch.end - page) * PAGE && advance(location, valid) == next =>
                {
                    Source::Stored { location, valid: valid + more }
                }
                _ => break,
            };
            stretch = Stretch { source: joined, end: stretch.end + 1 };
        }
        stretch
    }
}

fn source(page: u64, version: &PageVersion, adoption: Option<Adoption>) -> Source {
    match (version.full, version.partials.is_empty()) {
        (_, false) => Source::Pieces,
        (Some(full), true) if full.location == Location::Zero => Source::Zero,
        (Some(full), true) => Source::Stored { location: full.location, valid: u64::from(full.valid_len) },
        (None, true) if adoption.is_some_and(|base| page * PAGE < base.size) => Source::Base,
        (None, true) => Source::Zero,
    }
}
