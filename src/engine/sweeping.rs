//! Space of composed pages: those of instants that were thinned lie in the page files beside those that are in use.
//!
//! Whoever was led to a page before the index forgot it may read it still: so the index forgets, durably; then all who
//! read at that moment finish; then the pages go.

use super::Engine;
use crate::error::Result;
use crate::sync::Mutex;
use crate::weave::Pace;

/// Bytes of page files when they were last swept: looking costs a scan of the index.
pub(super) type Swept = Mutex<Option<u64>>;

impl Engine {
    /// Gives back composed pages that no version leads to, when the page files have grown by half, and some, since the
    /// last time; bytes that came back.
    pub(super) fn sweep_pages(&self, pace: &dyn Pace) -> Result<u64> {
        let files = self.pages.page_files();
        // What is written meanwhile is in later ones.
        let closed = files.before(self.indexer.page_file())?;
        let bytes = |files: &[(u64, u64)]| files.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let before = bytes(&closed);
        let mut swept = self.pruning.swept.lock();
        let worth = swept.unwrap_or(0) / 2 * 3 + self.pruning.page_slack_bytes;
        if closed.is_empty() || before < worth {
            return Ok(0);
        }
        let Some(used) = self.index.composed(|bytes| pace.go_on(bytes))? else { return Ok(0) };
        self.index.persist()?;
        files.wait_for_readers();
        for (number, _) in &closed {
            files.give_back(*number, used.get(number))?;
            if !pace.go_on(0) {
                return Ok(0);
            }
        }
        let left = bytes(&files.before(self.indexer.page_file())?);
        *swept = Some(left);
        Ok(before.saturating_sub(left))
    }
}
