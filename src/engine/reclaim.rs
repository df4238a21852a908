//! Space of what was there before Weft: base files and files in limbo that no instant which remains shows any more go,
//! each as a whole.
//!
//! - What remains was decided before, durably; so this may stop, fail or be cut anywhere, and be done again.
//! - A checkpoint comes first: no recovery asks for what is gone. Then the index forgets, durably; then the files go.

use super::Engine;
use super::thinning::How;
use super::undone::Undone;
use crate::error::Result;
use crate::format::base::BaseEntry;
use crate::index::BasePage;
use crate::live::unneeded::InLimbo;
use crate::sync::Mutex;
use crate::types::{FileId, PageNo, Seq};
use crate::weave::Remaining;
use std::collections::HashMap;

/// Of base files a page that was needed when it was last looked: most often it still is.
pub(super) type Witnesses = Mutex<HashMap<u64, (FileId, Seq, PageNo)>>;

/// What is not needed.
#[derive(Default)]
struct Unneeded {
    bases: Vec<u64>,
    limbo: Vec<InLimbo>,
    bytes: u64,
}

impl Engine {
    /// Removes base files and files in limbo that nothing which remains shows; bytes that came back, or would.
    pub(super) fn reclaim(&self, needs: &Remaining<'_>, how: How<'_>, undone: &mut Undone) -> Result<u64> {
        let unneeded = self.unneeded(needs, how, undone)?;
        if how.dry || unneeded.bytes == 0 {
            return Ok(unneeded.bytes);
        }
        if !self.checkpoint()? {
            return Ok(0);
        }
        for number in &unneeded.bases {
            self.live.each_saved(*number, |entries| {
                let pages: Vec<BasePage> = entries.iter().map(page_of).collect();
                self.index.forget_bases(&pages).map(|()| true)
            })?;
        }
        self.index.persist()?;
        self.live.remove_bases(&unneeded.bases)?;
        self.live.remove_from_limbo(&unneeded.limbo)?;
        Ok(unneeded.bytes)
    }

    fn unneeded(&self, needs: &Remaining<'_>, how: How<'_>, undone: &mut Undone) -> Result<Unneeded> {
        let mut found = Unneeded::default();
        // Not held meanwhile: a dry run keeps nobody waiting.
        let mut witnesses = self.pruning.witnesses.lock().clone();
        let closed = self.live.closed_bases()?;
        witnesses.retain(|number, _| closed.contains(number));
        for number in closed {
            if let Some((file, adopted, page)) = witnesses.get(&number)
                && needs.needs_base(*file, *adopted, *page)?
            {
                continue;
            }
            let (mut witness, mut goes_on) = (None, true);
            let bytes = self.live.each_saved(number, |entries| {
                for entry in entries {
                    if needs.needs_base(entry.file, entry.adopted, entry.page)? {
                        witness = Some((entry.file, entry.adopted, entry.page));
                        return Ok(false);
                    }
                }
                goes_on = how.pace.go_on(crate::types::PAGE);
                Ok(goes_on)
            });
            let bytes = match bytes {
                // A pruning beside a dry run has removed it.
                Err(error) if how.dry && error.is(libc::ENOENT) => continue,
                bytes => undone.go_on(bytes)?,
            };
            // What is in one that cannot be read is not known, and so it is needed.
            let Some(bytes) = bytes else { continue };
            match witness {
                Some(witness) => drop(witnesses.insert(number, witness)),
                None if !goes_on => return Ok(Unneeded::default()),
                None => {
                    found.bases.push(number);
                    found.bytes += bytes;
                }
            }
        }
        *self.pruning.witnesses.lock() = witnesses;
        for file in self.live.in_limbo()? {
            if !needs.needs_file(file.file, file.adopted)? {
                found.bytes += file.bytes.max(1);
                found.limbo.push(file);
            }
        }
        Ok(found)
    }
}

fn page_of(entry: &BaseEntry) -> BasePage {
    BasePage { file: entry.file, adoption: entry.adopted, page: entry.page }
}
