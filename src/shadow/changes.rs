//! Which pages of a file differ between a snapshot and another instant, kept for the next read at it.

use crate::error::Result;
use crate::index::Index;
use crate::sync::Arc;
use crate::types::{FileId, PageSet, Seq};

/// Instants kept for one file of one snapshot.
const KEPT: usize = 16;

/// See the head of this file. `None`: too many, or all.
#[derive(Default)]
pub(super) struct Changes {
    known: Vec<(Seq, Option<Arc<PageSet>>)>,
}

impl Changes {
    /// What is known already.
    pub(super) fn cached(&self, at: Seq) -> Option<Option<Arc<PageSet>>> {
        self.known.iter().find(|(seq, _)| *seq == at).map(|(_, pages)| pages.clone())
    }

    /// The pages that may have changed between the snapshot's Seq and `at`; `None` when they are more than `most`.
    pub(super) fn between(
        &mut self,
        index: &Index,
        file: FileId,
        (snapshot, at): (Seq, Seq),
        most: u64,
    ) -> Result<Option<Arc<PageSet>>> {
        if let Some(known) = self.cached(at) {
            return Ok(known);
        }
        // The widest interval on the same side that lies within: the scan goes on from its end.
        let later = at >= snapshot;
        let within =
            |seq: Seq| if later { seq >= snapshot && seq <= at } else { seq <= snapshot && seq >= at };
        let inner = self.known.iter().filter(|(seq, _)| within(*seq));
        let widest =
            if later { inner.max_by_key(|known| known.0) } else { inner.min_by_key(|known| known.0) };
        let found = match widest {
            Some((_, None)) => None,
            other => {
                let (from, pages) = match other {
                    Some((seq, Some(pages))) => (*seq, PageSet::clone(pages)),
                    _ => (snapshot, PageSet::default()),
                };
                let range = if later { (from, at) } else { (at, from) };
                index.changed_pages(file, range, pages, most)?.map(|(pages, _)| Arc::new(pages))
            }
        };
        if self.known.len() >= KEPT {
            self.known.remove(0);
        }
        self.known.push((at, found.clone()));
        Ok(found)
    }
}
