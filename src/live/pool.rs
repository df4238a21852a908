//! A bounded number of open live files.

use crate::disk::{Disk, DiskFile, Op, OpenHow};
use crate::error::Result;
use crate::sync::{Arc, Mutex};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

#[derive(Default)]
struct Shelf {
    files: HashMap<PathBuf, (Arc<dyn DiskFile>, u64)>,
    by_use: BTreeMap<u64, PathBuf>,
    tick: u64,
}

/// Keeps the most recently used descriptors open. A handle that someone still holds outlives its eviction.
pub struct Pool {
    disk: Arc<dyn Disk>,
    limit: usize,
    shelf: Mutex<Shelf>,
}

impl Pool {
    pub fn new(disk: Arc<dyn Disk>, limit: usize) -> Pool {
        Pool { disk, limit: limit.max(1), shelf: Mutex::new(Shelf::default()) }
    }

    /// The file at `path`, for reading and writing; made when `create` and absent.
    pub fn open(&self, op: Op, path: &Path, create: bool) -> Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.reuse(path) {
            return Ok(file);
        }
        let how = OpenHow { write: true, create, ..OpenHow::default() };
        let file = self.disk.open(op, path, how)?;
        let mut shelf = self.shelf.lock();
        while shelf.files.len() >= self.limit {
            let Some((_, oldest)) = shelf.by_use.pop_first() else { break };
            shelf.files.remove(&oldest);
        }
        shelf.tick += 1;
        let tick = shelf.tick;
        if let Some((_, old)) = shelf.files.insert(path.to_path_buf(), (Arc::clone(&file), tick)) {
            shelf.by_use.remove(&old);
        }
        shelf.by_use.insert(tick, path.to_path_buf());
        Ok(file)
    }

    fn reuse(&self, path: &Path) -> Option<Arc<dyn DiskFile>> {
        let mut shelf = self.shelf.lock();
        shelf.tick += 1;
        let tick = shelf.tick;
        let (file, old) = {
            let entry = shelf.files.get_mut(path)?;
            (Arc::clone(&entry.0), std::mem::replace(&mut entry.1, tick))
        };
        if let Some(path) = shelf.by_use.remove(&old) {
            shelf.by_use.insert(tick, path);
        }
        Some(file)
    }

    /// What is at `path` changes: the next open looks again.
    pub fn forget(&self, path: &Path) {
        let mut shelf = self.shelf.lock();
        if let Some((_, tick)) = shelf.files.remove(path) {
            shelf.by_use.remove(&tick);
        }
    }

    /// Closes everything.
    pub fn clear(&self) {
        *self.shelf.lock() = Shelf::default();
    }
}
