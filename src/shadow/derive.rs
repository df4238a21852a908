//! Making a file of a snapshot from the one before: what has changed is written, the rest is shared.

use super::extents::{NOWHERE, overlay, push, within};
use super::make::{FileMade, Make, NewData, OrderedFile, empty_head, is_zero};
use super::snapshot::Snapshot;
use crate::disk::OpenHow;
use crate::error::Result;
use crate::format::shadow::{BLOCK_PAGES, Extent, FileBody};
use crate::sync::atomic::Ordering;
use crate::types::{PAGE, PageNo, PageSet};
use std::collections::BTreeSet;
use std::ops::Range;

/// With more changes than one page in so many the whole is made anew.
const CHANGED_SHARE: u64 = 2;
/// Pages to an extent, below which reading in sequence suffers and the whole is made anew; few extents never matter.
const PAGES_PER_EXTENT: u64 = 4;
const EXTENTS_ALWAYS: u64 = 1024;

/// See the head of this file.
pub(super) struct Derive<'a> {
    make: &'a Make<'a>,
    from: &'a Snapshot,
    place: usize,
    ordered: &'a OrderedFile,
    /// Pages of the image that may be others.
    changed: PageSet,
    /// Pages of the image before.
    old_pages: u64,
    old_extents: Vec<Extent>,
}

/// A file in the making.
struct Target<'a> {
    data: NewData<'a>,
    /// It began as a reflink: pages stand at their own place.
    shared: bool,
    /// Where the next page goes when it did not.
    at: u64,
    new: Vec<Extent>,
    own_pages: u64,
}

impl<'a> Derive<'a> {
    /// `None` where making the whole is better, or all that can be done.
    pub(super) fn find(
        make: &'a Make<'a>,
        from: &'a Snapshot,
        ordered: &'a OrderedFile,
    ) -> Result<Option<Derive<'a>>> {
        let Some(place) = from.place_of(ordered.file) else { return Ok(None) };
        let Some(head) = from.head.files.get(place).filter(|head| head.pages == ordered.pages) else {
            return Ok(None);
        };
        let old_pages = head.image_pages();
        let (one, other) = (from.seq(), make.order.seq);
        let range = (one.min(other), one.max(other));
        let most = old_pages / CHANGED_SHARE;
        let Some((pages, _)) = make.shadows.changed_between(ordered.file, range, most)? else {
            return Ok(None);
        };
        let Ok(bodies) = from.bodies().inspect_err(|error| from.mark_broken(error)) else { return Ok(None) };
        let Some(body) = bodies.get(place) else { return Ok(None) };
        let extents = body.extents.len() as u64;
        if extents > EXTENTS_ALWAYS && extents * PAGES_PER_EXTENT > old_pages {
            return Ok(None);
        }
        let changed = in_image(&pages, ordered.pages.as_ref());
        let old_extents = body.extents.clone();
        Ok(Some(Derive { make, from, place, ordered, changed, old_pages, old_extents }))
    }

    /// Makes it; where the one before turns out to be broken, the whole.
    pub(super) fn run(self) -> Result<Option<FileMade>> {
        match self.derive() {
            Err(_) if self.from.broken().is_some() => self.make.whole(self.ordered),
            other => other,
        }
    }

    fn derive(&self) -> Result<Option<FileMade>> {
        let mut head = empty_head(self.ordered);
        let pages = head.image_pages();
        let bodies = self.from.bodies()?;
        let old_hashes = bodies.get(self.place).map_or(&[][..], |body| &body.hashes);
        let mut target = self.target()?;
        let affected = self.affected(pages);
        let mut hashes = Vec::with_capacity(usize::try_from(head.blocks()).unwrap_or(0));
        for block in 0..head.blocks() {
            let kept = usize::try_from(block).ok().and_then(|at| old_hashes.get(at));
            match kept.filter(|_| !affected.contains(&block)) {
                Some(hash) => hashes.push(*hash),
                None => {
                    let range = block * BLOCK_PAGES..((block + 1) * BLOCK_PAGES).min(pages);
                    let bytes = self.block(range.clone())?;
                    hashes.push(*blake3::hash(&bytes).as_bytes());
                    target.put(self, range, &bytes)?;
                    if !self.make.pace.go_on(2 * bytes.len() as u64) {
                        return Ok(None);
                    }
                }
            }
        }
        let body = FileBody { extents: target.finish(self, pages)?, hashes };
        head.stored_pages = body.extents.iter().map(|extent| extent.count).sum();
        head.own_pages = target.own_pages;
        Ok(Some((head, body)))
    }

    /// Blocks whose bytes may be others: with a changed page, and those at an end that has moved.
    fn affected(&self, pages: u64) -> BTreeSet<u64> {
        let mut blocks: BTreeSet<u64> = BTreeSet::new();
        for (first, end) in self.changed.runs() {
            blocks.extend(first / BLOCK_PAGES..end.div_ceil(BLOCK_PAGES));
        }
        if pages != self.old_pages {
            blocks.extend(pages.min(self.old_pages) / BLOCK_PAGES..pages.div_ceil(BLOCK_PAGES));
        }
        blocks
    }

    /// The pages of a block as they are to be.
    fn block(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from((range.end - range.start) * PAGE).unwrap_or(0)];
        let mut rest = bytes.as_mut_slice();
        let mut page = range.start;
        while page < range.end {
            let (changed, end) = self.run_of(page, range.end);
            let (part, behind) =
                std::mem::take(&mut rest).split_at_mut(usize::try_from((end - page) * PAGE).unwrap_or(0));
            match changed {
                true => self.make.read_history(self.ordered, page, part)?,
                false => {
                    self.make.shadows.read.fetch_add(part.len() as u64, Ordering::Relaxed);
                    self.from.read(self.place, page * PAGE, part)?;
                }
            }
            (page, rest) = (end, behind);
        }
        Ok(bytes)
    }

    /// Whether a page changed, and up to where the next ones did the same.
    fn run_of(&self, page: u64, end: u64) -> (bool, u64) {
        let first = self.changed.contains(PageNo(page));
        let same = (page + 1..end).take_while(|page| self.changed.contains(PageNo(*page)) == first).count();
        (first, page + 1 + same as u64)
    }

    /// A reflink of the data file before, if it is all in one and the filesystem can; else an empty one.
    fn target(&self) -> Result<Target<'a>> {
        let (shadows, make) = (self.make.shadows, self.make);
        let name = (make.shadow, make.number, self.ordered.file);
        let mut data = NewData::new(shadows, name);
        let mut shared = false;
        if let Some(number) = self.in_one()
            && shadows.reflinks.load(Ordering::Relaxed)
        {
            let dir = &shadows.dir;
            let (old, new) = (dir.data((make.shadow, number, self.ordered.file)), dir.data(name));
            dir.remove(&new)?;
            shared = dir.disk.reflink("shadow.data.share", &old, &new)?;
            if shared {
                let how = OpenHow { write: true, ..OpenHow::default() };
                data.file = Some(dir.disk.open("shadow.data.create", &new, how)?);
            } else {
                shadows.reflinks.store(false, Ordering::Relaxed);
            }
        }
        Ok(Target { data, shared, at: 0, new: Vec::new(), own_pages: 0 })
    }

    /// The snapshot whose data file holds every page at its own place.
    fn in_one(&self) -> Option<u32> {
        let number = self.old_extents.first()?.snapshot;
        let whole = |extent: &Extent| extent.snapshot == number && extent.page == extent.at;
        self.old_extents.iter().all(whole).then_some(number)
    }
}

impl Target<'_> {
    /// Writes what changed of a block.
    fn put(&mut self, derive: &Derive<'_>, range: Range<u64>, bytes: &[u8]) -> Result<()> {
        if is_zero(bytes) && !self.shared {
            let count = range.end - range.start;
            self.new.push(Extent { page: range.start, count, snapshot: NOWHERE, at: 0 });
            return Ok(());
        }
        let mut page = range.start;
        while page < range.end {
            let (changed, end) = derive.run_of(page, range.end);
            // Pages of a block that stood nowhere are zero, and stay so.
            if changed {
                let start = usize::try_from((page - range.start) * PAGE).unwrap_or(0);
                let len = usize::try_from((end - page) * PAGE).unwrap_or(0);
                let at = if self.shared { page } else { self.at };
                self.data.write(bytes.get(start..start + len).unwrap_or(&[]), at * PAGE)?;
                push(&mut self.new, Extent { page, count: end - page, snapshot: derive.make.number, at });
                self.at += end - page;
                self.own_pages += end - page;
            }
            page = end;
        }
        Ok(())
    }

    /// All is durable; the extents of the whole.
    fn finish(&mut self, derive: &Derive<'_>, pages: u64) -> Result<Vec<Extent>> {
        if self.shared
            && let Some(file) = &self.data.file
        {
            file.set_len("shadow.data.write", pages * PAGE)?;
        }
        self.data.sync()?;
        let old = within(&derive.old_extents, 0..pages);
        let old: Vec<Extent> = match self.shared {
            true => old.map(|extent| Extent { snapshot: derive.make.number, ..extent }).collect(),
            false => old.collect(),
        };
        Ok(overlay(&old, &self.new, pages))
    }
}

/// Pages of a file as pages of its image: of a set by their rank.
fn in_image(changed: &PageSet, set: Option<&PageSet>) -> PageSet {
    let Some(set) = set else { return changed.clone() };
    let mut wanted = changed.clone();
    wanted.keep(set);
    let mut image = PageSet::default();
    for (first, end) in wanted.runs() {
        let at = set.before(PageNo(first));
        image.write(at * PAGE, (at + end - first) * PAGE);
    }
    image
}
