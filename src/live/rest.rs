//! Pages that nobody has written since history began: what the live files hold of them is their base from then on, and
//! history need not hold it too. The next overwrite saves a pre-image again, as of any file that was there before Weft.
//!
//! - A file comes to rest as of where history begins. Of the pages written since, what they held then is saved first, as
//!   pre-images; all others lean on the live file.
//! - A file that was at rest, or there before Weft, leans on its live file already, by an older base. So the two must
//!   change at one point: the checkpoint that says so, under the applier's round. Before it nothing is overwritten by the
//!   new base, after it nothing by the old one. If nobody knows whether it stands, another is written, or nothing is
//!   applied any more.
//! - The versions may go once that checkpoint is durable and the index knows the base.

use super::Live;
use super::base::SavedPage;
use super::checkpoint::Unwritten;
use super::content::{Base, in_parts};
use super::node::{Node, NodeState};
use crate::error::{Error, Result};
use crate::format::checkpoint::Phase;
use crate::format::sections::RestedState;
use crate::index::Index;
use crate::sync::Arc;
use crate::types::{FileId, FileKind, PAGE, PAGE_LEN, PageNo, PageSet, Seq};
use std::collections::{BTreeMap, HashMap};

/// The files at rest: since when, and how long they were.
pub type Rested = BTreeMap<FileId, RestedState>;

/// Reads a page as of where history begins.
pub type ReadPage<'a> = &'a dyn Fn(FileId, PageNo) -> Result<Vec<u8>>;

/// Pages saved at once, and of all files together while the applier waits.
pub const SAVE_PAGES: usize = 1024;

/// When it is worth it that a file comes to rest of which pages were written since: each of these is held as it is,
/// while history has its pages compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestRule {
    /// History gets rid of at least so many pages,
    pub least_pages: u64,
    /// and of so many for each one that is saved.
    pub pages_for_one: u64,
    /// It is looked at so often in the time that history reaches back.
    pub looks: u32,
}

impl Default for RestRule {
    fn default() -> RestRule {
        RestRule { least_pages: 256, pages_for_one: 8, looks: 8 }
    }
}

/// A file that is to come to rest.
#[derive(Clone, Debug)]
pub struct Resting {
    pub file: FileId,
    /// Its bytes where history begins.
    pub size: u64,
    /// Pages written since, as far as known; some more may be among them.
    touched: PageSet,
    /// As far as is known what was written.
    upto: Seq,
}

impl Resting {
    /// Bytes of the pages of which what they held is to be saved.
    pub fn saved_bytes(&self) -> u64 {
        self.touched.count_in(0, self.size.div_ceil(PAGE)) * PAGE
    }

    /// These pages.
    fn to_save(&self) -> impl Iterator<Item = PageNo> {
        let end = self.size.div_ceil(PAGE);
        self.touched.runs().flat_map(move |(first, behind)| (first..behind.min(end)).map(PageNo))
    }
}

impl Live {
    /// The files that could come to rest as of `first`, where history begins; nothing is changed. `due` says whether it
    /// is time to look closely at one that is being written. None, where it is not to `go_on`.
    pub fn may_rest(
        &self,
        first: Seq,
        index: &Index,
        rule: RestRule,
        mut due: impl FnMut(FileId) -> bool,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Vec<Resting>> {
        let upto = index.watermark().seq;
        let nodes: Vec<_> = self.tree.read().nodes.values().cloned().collect();
        let mut found = Vec::new();
        for node in nodes.iter().filter(|node| node.kind == FileKind::Regular) {
            if !go_on() {
                return Ok(Vec::new());
            }
            let Some(size) = held_twice(index, node.file, first)? else { continue };
            if index.content_changed(node.file, first, upto)? && !due(node.file) {
                continue;
            }
            let own = own_pages(node, size);
            if let Some(touched) = touched(node, index, (first, upto), (size, own), rule)? {
                let resting = Resting { file: node.file, size, touched, upto };
                if is_whole(&node.lock(), &resting) {
                    found.push(resting);
                }
            }
        }
        Ok(found)
    }

    /// Saves what was written since history began of the pages of a file that is to come to rest; `false` when told to
    /// stop. What is saved in vain harms nothing: it is what the pages held then, whoever asks.
    pub fn save_touched(
        &self,
        resting: &Resting,
        first: Seq,
        read: ReadPage<'_>,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<bool> {
        for pages in in_parts(resting.to_save(), SAVE_PAGES) {
            let saves = saved_pages(resting, first, pages.into_iter(), read)?;
            self.base.save(&saves)?;
            if !go_on(2 * saves.len() as u64 * PAGE) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Saves what was written of such a file since it was looked at, up to an event that is indexed, if it is `room` pages at
    /// most. How many it was; `None`: it was more.
    pub fn catch_up(
        &self,
        resting: &mut Resting,
        (first, upto): (Seq, Seq),
        index: &Index,
        read: ReadPage<'_>,
        room: u64,
    ) -> Result<Option<u64>> {
        if upto <= resting.upto {
            return Ok(Some(0));
        }
        let known = resting.touched.clone();
        let (between, most) = ((resting.upto, upto), known.count() + room);
        let Some((touched, _)) = index.changed_pages(resting.file, between, known.clone(), most)? else {
            return Ok(None);
        };
        let now = Resting { touched, upto, ..*resting };
        let new = now.to_save().filter(|page| !known.contains(*page));
        let saves = saved_pages(&now, first, new, read)?;
        self.base.save(&saves)?;
        *resting = now;
        Ok(Some(saves.len() as u64))
    }

    /// Lets files come to rest as of `first`, of which the pages touched up to now were saved, with a checkpoint that says
    /// so. `ready` brings the index up to everything that is applied: it should be nearly there, since the applier waits
    /// for it. How many did; not those of which too much was written meanwhile.
    pub fn rest(
        &self,
        first: Seq,
        index: &Index,
        planned: Vec<Resting>,
        read: ReadPage<'_>,
        ready: impl FnOnce(Seq) -> Result<()>,
    ) -> Result<u64> {
        let mut id = self.round.lock();
        let mut nodes = Vec::new();
        let mut room = SAVE_PAGES as u64;
        let written = self.checkpoint_locked(&mut id, Phase::Serving, &HashMap::new(), |applied| {
            ready(applied)?;
            for resting in planned {
                match self.begin_rest(resting, (first, applied), index, read, &mut room) {
                    Ok(node) => nodes.extend(node),
                    // Its versions stay.
                    Err(error) => tracing::warn!(%error, "a file could not come to rest"),
                }
            }
            Ok(())
        });
        if !matches!(written, Ok(true)) {
            nodes.iter().for_each(|node| node.lock().content.resting = None);
        }
        match written {
            Ok(true) => self.end_rest(index, &nodes),
            Ok(false) => Ok(0),
            Err(unwritten) => Err(self.sure(&mut id, unwritten)),
        }
    }

    /// What was written of a file since it was looked at is saved too; then its new base stands beside the old one.
    fn begin_rest(
        &self,
        mut resting: Resting,
        (first, applied): (Seq, Seq),
        index: &Index,
        read: ReadPage<'_>,
        room: &mut u64,
    ) -> Result<Option<Arc<Node>>> {
        let node = self.tree.read().nodes.get(&resting.file).cloned();
        let Some(node) = node else { return Ok(None) };
        let saved = self.catch_up(&mut resting, (first, applied), index, read, *room)?;
        let Some(saved) = saved else { return Ok(None) };
        *room = room.saturating_sub(saved);
        let mut state = node.lock();
        let waits = state.content.oldest_pending().is_some_and(|oldest| oldest <= applied);
        if waits || !is_whole(&state, &resting) {
            return Ok(None);
        }
        let mut base = Base::new(first, resting.size);
        base.saved.extend(resting.to_save().filter_map(|page| u32::try_from(page.0).ok()));
        state.content.resting = Some(base);
        drop(state);
        Ok(Some(node))
    }

    /// The checkpoint is durable: the index is told, then the old bases go.
    fn end_rest(&self, index: &Index, nodes: &[Arc<Node>]) -> Result<u64> {
        let mut told = Ok(());
        for node in nodes {
            let Some(rested) = node.lock().content.resting.as_ref().map(|base| base.rested(node.file)) else {
                continue;
            };
            self.rested.lock().insert(node.file, rested);
            // It is told again when the next pruning finds that it does not know.
            told = told.and(index.put_rest(node.file, rested.since, rested.size));
            let content = &mut node.lock().content;
            content.base = content.resting.take();
        }
        told.map(|()| nodes.len() as u64)
    }

    /// If a checkpoint that was not written may stand all the same, one is written that says how it is. Until that is
    /// durable nothing more is applied: what it overwrites would be saved for the old base only. If it fails as well
    /// nothing is applied any more: by the one the live files are the base, by the other they are not.
    fn sure(&self, id: &mut u64, unwritten: Unwritten) -> Error {
        let Unwritten::Perhaps(cause, place) = unwritten else { return unwritten.into() };
        if self.write_checkpoint(id, Phase::Serving, place, &HashMap::new()).is_err() {
            self.freeze(cause.clone());
        }
        cause
    }

    /// The files at rest, as a checkpoint keeps them.
    pub fn rested(&self) -> Vec<RestedState> {
        self.rested.lock().values().copied().collect()
    }

    /// Forgets those of which no instant from `first` on shows anything.
    pub fn forget_rested(&self, first: Seq, index: &Index) -> Result<()> {
        let mut gone = Vec::new();
        for rested in self.rested() {
            let shown = index.attr(rested.file, first)?.is_none_or(|attr| attr.nlink > 0);
            if !shown && !self.knows(rested.file) {
                gone.push(rested.file);
            }
        }
        let mut rested = self.rested.lock();
        rested.retain(|file, _| !gone.contains(file));
        Ok(())
    }
}

/// The bytes that a file had at `first`, if it has versions in the journal from before, and never had holes: a base counts
/// as data.
fn held_twice(index: &Index, file: FileId, first: Seq) -> Result<Option<u64>> {
    let floor = index.adoption(file, first)?.map_or(Seq::ZERO, |adoption| adoption.seq);
    if floor >= first || !index.content_changed(file, floor, first)? || index.had_holes(file)? {
        return Ok(None);
    }
    let attr = index.attr(file, first)?.filter(|attr| attr.nlink > 0 && attr.size > 0);
    Ok(attr.map(|attr| attr.size))
}

/// How many of the pages that a file of `size` bytes had do not lean on the live file: history holds them.
fn own_pages(node: &Node, size: u64) -> u64 {
    let state = node.lock();
    let leaning = state.content.base.as_ref().filter(|base| base.leans_on_live());
    size.div_ceil(PAGE).saturating_sub(leaning.map_or(0, |base| base.pages() - base.saved.len()))
}

/// The pages written since, where they are few enough.
fn touched(
    node: &Node,
    index: &Index,
    between: (Seq, Seq),
    (size, own): (u64, u64),
    rule: RestRule,
) -> Result<Option<PageSet>> {
    let pages = size.div_ceil(PAGE);
    let appended = node.lock().attr.size.div_ceil(PAGE).saturating_sub(pages);
    let most = own / rule.pages_for_one.max(1) + appended;
    let Some((touched, _)) = index.changed_pages(node.file, between, PageSet::default(), most)? else {
        return Ok(None);
    };
    let saved = touched.count_in(0, pages);
    let gained = own.saturating_sub(saved);
    let worth = match saved {
        0 => gained > 0,
        _ => gained >= rule.least_pages.max(1) && gained >= saved.saturating_mul(rule.pages_for_one),
    };
    Ok(worth.then_some(touched))
}

/// Whether the live file holds every page that was not touched, and may be a base.
fn is_whole(state: &NodeState, resting: &Resting) -> bool {
    let content = &state.content;
    let pages = resting.size.div_ceil(PAGE);
    let leaning = (0..pages).rev().find(|page| !resting.touched.contains(PageNo(*page)));
    let end = leaning.map_or(0, |page| ((page + 1) * PAGE).min(resting.size));
    state.attr.nlink > 0
        && content.exists
        && !content.direct
        && !content.detached
        && !content.buried
        && content.shrink.is_none()
        && content.live_len >= end
}

/// What pages held where history begins, to be saved.
fn saved_pages(
    resting: &Resting,
    first: Seq,
    pages: impl Iterator<Item = PageNo>,
    read: ReadPage<'_>,
) -> Result<Vec<SavedPage>> {
    let saved = |page| {
        let bytes = page_of(resting, page, read)?;
        Ok(SavedPage { file: resting.file, adopted: first, page, bytes })
    };
    pages.map(saved).collect()
}

/// What a page held where history begins; behind the end of the file there is nothing.
fn page_of(resting: &Resting, page: PageNo, read: ReadPage<'_>) -> Result<Vec<u8>> {
    let mut bytes = read(resting.file, page)?;
    let valid = usize::try_from(resting.size.saturating_sub(page.0 * PAGE)).unwrap_or(PAGE_LEN).min(PAGE_LEN);
    bytes.truncate(valid);
    bytes.resize(PAGE_LEN, 0);
    Ok(bytes)
}
