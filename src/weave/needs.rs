//! Which versions the instants that remain show.
//!
//! A version is needed if bytes of it show at the first remaining instant at or after it: what is covered there is
//! covered at every later one, too.

use super::found::Needs;
use crate::error::Result;
use crate::index::Index;
use crate::live::Live;
use crate::meta::thinned::Thinned;
use crate::sync::Mutex;
use crate::types::{FileId, PageNo, Seq};
use std::collections::{HashMap, HashSet};

/// Answers kept of which files were there.
const KNOWN_MAX: usize = 1 << 16;

/// See the head of this file.
pub struct Remaining<'a> {
    index: &'a Index,
    live: &'a Live,
    thinned: Thinned,
    /// Files that would come to rest where history begins: what they show from then on is in their live files.
    resting: HashSet<FileId>,
    /// Whether a file was there at an instant.
    known: Mutex<HashMap<(FileId, Seq), bool>>,
}

impl<'a> Remaining<'a> {
    pub fn new(index: &'a Index, live: &'a Live, thinned: Thinned) -> Remaining<'a> {
        Remaining { index, live, thinned, resting: HashSet::new(), known: Mutex::new(HashMap::new()) }
    }

    /// What would remain if these files came to rest.
    pub fn resting(self, resting: HashSet<FileId>) -> Remaining<'a> {
        Remaining { resting, ..self }
    }

    /// Whether an instant shows bytes of what a page of a file held at its adoption.
    pub fn needs_base(&self, file: FileId, adopted: Seq, page: PageNo) -> Result<bool> {
        let at = self.thinned.at_or_after(adopted);
        if at == adopted {
            return Ok(true);
        }
        if self.is_superseded(file, adopted, at)? || !self.is_there(file, at)? {
            return Ok(false);
        }
        let mut written = self.index.written_page(file, page, at, adopted)?;
        Ok(written.full.is_none() && written.uncover())
    }

    /// Whether an instant, or something open, leads to a file since its adoption.
    pub fn needs_file(&self, file: FileId, adopted: Seq) -> Result<bool> {
        let at = self.thinned.at_or_after(adopted);
        if at == adopted {
            return Ok(true);
        }
        Ok(!self.is_superseded(file, adopted, at)? && (self.live.knows(file) || self.is_there(file, at)?))
    }

    /// Whether a file has, or would have, another base at an instant.
    fn is_superseded(&self, file: FileId, adopted: Seq, at: Seq) -> Result<bool> {
        let first = self.thinned.first();
        if self.resting.contains(&file) && adopted < first && at >= first {
            return Ok(true);
        }
        Ok(self.index.adoption(file, at)?.is_some_and(|known| known.seq > adopted))
    }

    /// Whether a view of an instant leads to a file, or something open does.
    fn is_there(&self, file: FileId, at: Seq) -> Result<bool> {
        if let Some(known) = self.known.lock().get(&(file, at)) {
            return Ok(*known);
        }
        // One that is not known at all is not judged.
        let named = self.index.attr(file, at)?.is_none_or(|attr| attr.nlink > 0);
        let there = named || self.live.knows(file);
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert((file, at), there);
        Ok(there)
    }

    /// The events whose bytes a page shows at an instant.
    fn shown(&self, file: FileId, page: PageNo, at: Seq) -> Result<HashSet<Seq>> {
        if !self.is_there(file, at)? {
            return Ok(HashSet::new());
        }
        let floor = self.index.adoption(file, at)?.map_or(Seq::ZERO, |adoption| adoption.seq);
        let first = self.thinned.first();
        let floor = if self.resting.contains(&file) && at >= first { floor.max(first) } else { floor };
        Ok(self.index.written_page(file, page, at, floor)?.seqs().collect())
    }
}

impl Needs for Remaining<'_> {
    fn needed(&self, file: FileId, page: PageNo, seqs: &[Seq]) -> Result<Vec<bool>> {
        let mut needed = Vec::with_capacity(seqs.len());
        let mut last: Option<(Seq, HashSet<Seq>)> = None;
        for seq in seqs {
            let at = self.thinned.at_or_after(*seq);
            // What is open and has no name reads whatever it wrote.
            if at == *seq {
                needed.push(true);
                continue;
            }
            let shown = match last.take() {
                Some((known, shown)) if known == at => shown,
                _ => self.shown(file, page, at)?,
            };
            needed.push(shown.contains(seq));
            last = Some((at, shown));
        }
        Ok(needed)
    }
}
