//! Letting files come to rest where history begins: what their live files hold goes from history.

use super::Engine;
use crate::error::Result;
use crate::format::sections::RestedState;
use crate::index::Index;
use crate::live::Live;
use crate::live::rest::{ReadPage, Resting, SAVE_PAGES};
use crate::meta::thinned::Thinned;
use crate::sync::Mutex;
use crate::types::{FileId, PAGE, PageNo, Seq};
use crate::weave::Pace;
use std::collections::HashMap;

/// Files that are being written: where history began, in µs, when they were last looked at closely.
pub(super) type Looks = Mutex<HashMap<FileId, i64>>;

/// Files remembered.
const LOOKED_MAX: usize = 1 << 16;

/// What came to rest.
#[derive(Clone, Copy, Default)]
pub(super) struct Rested {
    pub files: u64,
    /// Bytes of pages that were saved as they were.
    pub saved_bytes: u64,
}

impl Engine {
    /// The files at rest: their live files hold, or held, what instants show of then.
    pub fn rested(&self) -> Vec<RestedState> {
        self.live.rested()
    }

    /// Lets files come to rest of which most pages were not written since history began.
    pub(super) fn rest(&self, thinned: &Thinned, pace: &dyn Pace) -> Result<Rested> {
        let mut done = Rested::default();
        let first = thinned.first();
        // An index that is made anew does not know what was written.
        if first <= self.live.birth.lock().0 || self.indexer.is_far_from(self.begun) {
            return Ok(done);
        }
        self.live.forget_rested(first, &self.index)?;
        // What could not be told the last time.
        index_rested(&self.live, &self.index)?;
        let read = |file: FileId, page: PageNo| self.pages.page(file, page, first);
        let mut planned = Vec::new();
        for resting in self.plan_rest(thinned, pace, |file, began| self.is_due(file, began))? {
            match self.live.save_touched(&resting, first, &read, |bytes| pace.go_on(bytes)) {
                Ok(true) => {
                    done.saved_bytes += resting.saved_bytes();
                    planned.push(resting);
                }
                Ok(false) => return Ok(Rested::default()),
                // It needs room first, or is damaged; its versions stay.
                Err(error) => tracing::info!(%error, "a file cannot come to rest"),
            }
        }
        if planned.is_empty() {
            return Ok(done);
        }
        // The applier waits for no more than what is written between here and its round.
        self.indexer.wait_for(self.live.journal.flush()?)?;
        let Some((planned, saved)) = self.catch_up_resting(planned, first, &read, pace)? else {
            return Ok(Rested::default());
        };
        done.saved_bytes += saved;
        if !self.indexer.is_far_from(self.live.journal.durable()) {
            let ready = |applied| self.indexer.wait_for(applied);
            done.files = self.live.rest(first, &self.index, planned, &read, ready)?;
        }
        Ok(done)
    }

    /// Saves what was written of such files while others were saved; those of which it was not too much, and bytes that were
    /// saved. `None`: told to stop.
    fn catch_up_resting(
        &self,
        planned: Vec<Resting>,
        first: Seq,
        read: ReadPage<'_>,
        pace: &dyn Pace,
    ) -> Result<Option<(Vec<Resting>, u64)>> {
        let upto = self.indexer.reached();
        let mut ready = Vec::with_capacity(planned.len());
        let mut bytes = 0;
        for mut resting in planned {
            let room = SAVE_PAGES as u64;
            match self.live.catch_up(&mut resting, (first, upto), &self.index, read, room) {
                Ok(Some(saved)) => {
                    bytes += saved * PAGE;
                    ready.push(resting);
                    if saved > 0 && !pace.go_on(2 * saved * PAGE) {
                        return Ok(None);
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::info!(%error, "a file cannot come to rest"),
            }
        }
        Ok(Some((ready, bytes)))
    }

    /// The files that would come to rest.
    pub(super) fn would_rest(&self, thinned: &Thinned, pace: &dyn Pace) -> Result<Vec<Resting>> {
        let birth = self.live.birth.lock().0;
        match thinned.first() <= birth {
            true => Ok(Vec::new()),
            false => self.plan_rest(thinned, pace, |_, _| true),
        }
    }

    fn plan_rest(
        &self,
        thinned: &Thinned,
        pace: &dyn Pace,
        due: impl Fn(FileId, i64) -> bool,
    ) -> Result<Vec<Resting>> {
        let first = thinned.first();
        let began = self.resolver().time_of(first).unwrap_or(self.now()).0;
        let due = |file| due(file, began);
        self.live.may_rest(first, &self.index, self.pruning.rest_rule, due, || pace.go_on(0))
    }

    /// Looking costs as much as was written since history began: so it is done again when that has moved on.
    fn is_due(&self, file: FileId, began: i64) -> bool {
        let reach = u64::try_from(self.now().0.saturating_sub(began)).unwrap_or(0);
        let step = reach / u64::from(self.pruning.rest_rule.looks.max(1));
        let mut looks = self.pruning.looks.lock();
        // Either way: the clock may have been set back since.
        let due = looks.get(&file).is_none_or(|looked| began.abs_diff(*looked) >= step);
        if due {
            if looks.len() >= LOOKED_MAX {
                looks.clear();
            }
            looks.insert(file, began);
        }
        due
    }
}

/// Tells the index of the files at rest that a checkpoint knows.
pub(super) fn index_rested(live: &Live, index: &Index) -> Result<()> {
    let rested = live.rested();
    rested.iter().try_for_each(|rested| index.put_rest(rested.file, rested.since, rested.size))
}
