//! What was kept for history beside the live files, whole file by whole file: base files and files in limbo. Whoever knows
//! which of them no instant shows has them removed here.
//!
//! - The newest base file stays, and the one that is written: the next one's number follows from theirs, and checkpoints
//!   name a place in them.
//! - Nothing of a base file goes alone: a page that does not fit its checksum ends its file for whoever reads all of it.

use super::Live;
use super::paths::{join_bytes, limbo_named};
use crate::error::Result;
use crate::format::base::BaseEntry;
use crate::index::LostList;
use crate::types::{FileId, Seq};
use std::path::PathBuf;

/// A whole file that was kept as a base.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InLimbo {
    pub file: FileId,
    pub adopted: Seq,
    pub bytes: u64,
    dir: PathBuf,
    path: PathBuf,
}

impl Live {
    /// Base files that could go.
    pub fn closed_bases(&self) -> Result<Vec<u64>> {
        self.base.closed()
    }

    /// The pages that a base file holds, batch by batch, until `each` says false; the bytes of the file.
    pub fn each_saved(&self, number: u64, each: impl FnMut(&[BaseEntry]) -> Result<bool>) -> Result<u64> {
        self.base.each_batch(number, each)
    }

    /// Saved pages to which no list leads any more, at most; where the first such list stands.
    pub fn lost_saves(&self) -> Option<(u64, String)> {
        let lost = self.base.lost();
        let first = lost.first()?;
        let path = self.base.path(first.number);
        let place = format!("{} at byte {}", path.display(), first.offset);
        Some((lost.iter().map(LostList::pages).sum(), place))
    }

    /// Removes base files of which the index knows nothing any more, durably.
    pub fn remove_bases(&self, numbers: &[u64]) -> Result<()> {
        numbers.iter().try_for_each(|number| self.base.remove(*number))?;
        if numbers.is_empty() { Ok(()) } else { self.base.sync_dir() }
    }

    /// All files in limbo, of the roots and of STORE.
    pub fn in_limbo(&self) -> Result<Vec<InLimbo>> {
        let dirs = self.paths.roots.iter().map(|root| root.limbo_dir()).chain([self.paths.store_limbo_dir()]);
        let mut found = Vec::new();
        for dir in dirs {
            for entry in self.disk.read_dir("limbo.list", &dir)? {
                let Some((file, adopted)) = limbo_named(&entry.name) else { continue };
                let path = join_bytes(&dir, &entry.name);
                let bytes = self.disk.stat("limbo.list", &path)?.map_or(0, |stat| stat.allocated);
                found.push(InLimbo { file, adopted, bytes, dir: dir.clone(), path });
            }
        }
        Ok(found)
    }

    /// Removes files from limbo, durably.
    pub fn remove_from_limbo(&self, files: &[InLimbo]) -> Result<()> {
        let mut dirs: Vec<&PathBuf> = Vec::new();
        for InLimbo { dir, path, .. } in files {
            self.pool.forget(path);
            self.disk.unlink_if_there("limbo.remove", path)?;
            dirs.push(dir);
        }
        dirs.dedup();
        dirs.into_iter().try_for_each(|dir| self.disk.sync_dir("limbo.remove", dir))
    }
}
