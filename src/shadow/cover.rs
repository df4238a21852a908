//! Which snapshot helps a read, and with which pages.

use super::shelf::{Part, Shadows};
use crate::error::Result;
use crate::sync::Arc;
use crate::types::{FileId, PAGE, PageNo, PageSet, Seq};

/// A read of fewer bytes, and not of the whole, is not worth the reading of whole blocks, unless they are known to be
/// right.
const WORTH_CHECKING: u64 = 32 << 10;
/// With more changes than one page in so many, a snapshot is no help.
const CHANGED_SHARE: u64 = 2;

/// A snapshot that has some pages of a file as they were at an instant.
pub struct Cover {
    part: Part,
    changed: Arc<PageSet>,
}

impl Part {
    fn is_worth(&self, len: u64) -> bool {
        let pages = self.snapshot.head.files.get(self.place).map_or(0, |file| file.image_pages());
        len >= WORTH_CHECKING.min(pages * PAGE)
    }
}

impl Shadows {
    /// The snapshot to read a range of a file through at `at`; `None`: read without one.
    pub fn cover(&self, file: FileId, at: Seq, offset: u64, len: u64) -> Option<Cover> {
        if self.is_empty() {
            return None;
        }
        let (before, after) = self.nearest(file, at);
        let mut best: Option<Cover> = None;
        for part in [before, after].into_iter().flatten() {
            if best.as_ref().is_some_and(|best| best.changed.is_empty()) {
                break;
            }
            let found = self.changes_of(&part, file, at, !part.is_worth(len));
            let Some(changed) = found else { continue };
            if best.as_ref().is_none_or(|best| changed.count() < best.changed.count()) {
                best = Some(Cover { part, changed });
            }
        }
        best.filter(|cover| cover.part.is_worth(len) || cover.is_verified(offset, len))
    }

    /// What changed between a snapshot and an instant; `only_known`: a small read does not pay for finding out.
    fn changes_of(&self, part: &Part, file: FileId, at: Seq, only_known: bool) -> Option<Arc<PageSet>> {
        let snapshot = &part.snapshot;
        // What the index does not have yet it cannot tell.
        if snapshot.broken().is_some() || snapshot.seq() > self.index.watermark().seq {
            return None;
        }
        let mut changes = snapshot.changes.get(part.place)?.lock();
        if only_known {
            return changes.cached(at)?;
        }
        let pages = snapshot.head.files.get(part.place)?.image_pages();
        let most = (pages / CHANGED_SHARE).max(1);
        match changes.between(&self.index, file, (snapshot.seq(), at), most) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the index cannot tell what changed since a shadow");
                None
            }
        }
    }
}

impl Cover {
    fn pages(&self) -> Option<&PageSet> {
        self.part.snapshot.head.files.get(self.part.place)?.pages.as_ref()
    }

    /// Whether the page that `page` is of the snapshot is that of the instant, and up to which page (below `end`) the
    /// same is true.
    pub fn run(&self, page: u64, end: u64) -> (bool, u64) {
        let pages = self.pages();
        let has = |page: u64| {
            let page = PageNo(page);
            pages.is_none_or(|pages| pages.contains(page)) && !self.changed.contains(page)
        };
        let first = has(page);
        let same = (page + 1..end).take_while(|page| has(*page) == first).count() as u64;
        (first, page + 1 + same)
    }

    /// Reads bytes of pages that [`Cover::run`] found one behind the other.
    ///
    /// # Errors
    /// The snapshot is broken (and will not be found again): read without it.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.part.snapshot.read(self.part.place, self.in_image(offset), out)
    }

    fn in_image(&self, offset: u64) -> u64 {
        match self.pages() {
            None => offset,
            Some(pages) => pages.before(PageNo(offset / PAGE)) * PAGE + offset % PAGE,
        }
    }

    fn is_verified(&self, offset: u64, len: u64) -> bool {
        let whole = |page: u64| self.pages().is_none_or(|pages| pages.contains(PageNo(page)));
        let first = self.in_image(offset);
        whole(offset / PAGE) && self.part.snapshot.is_verified(self.part.place, first..first + len)
    }
}
