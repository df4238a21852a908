//! The store beneath an index, with what a crash does to it.

use weft::error::{Error, Result};
use weft::index::kv::{Batch, Kv, Pair, Space};
use weft::index::mem::MemKv;
use weft::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

/// A map that remembers its state at the last persist.
pub struct CrashKv {
    now: RwLock<MemKv>,
    persisted: Mutex<MemKv>,
    /// No batch is taken, and this is why.
    refuses: Mutex<Option<i32>>,
}

impl CrashKv {
    pub fn new() -> Arc<CrashKv> {
        Arc::new(CrashKv {
            now: RwLock::new(MemKv::new()),
            persisted: Mutex::new(MemKv::new()),
            refuses: Mutex::new(None),
        })
    }

    /// After a crash: 0: everything is there; 1: what was persisted; otherwise nothing.
    pub fn crash(&self, what: u64) -> Arc<CrashKv> {
        let now = match what {
            0 => self.now().snapshot(),
            1 => self.persisted.lock().snapshot(),
            _ => MemKv::new(),
        };
        let persisted = Mutex::new(now.snapshot());
        Arc::new(CrashKv { now: RwLock::new(now), persisted, refuses: Mutex::new(None) })
    }

    /// From now on a batch is refused with this errno.
    pub fn refuse(&self, errno: i32) {
        *self.refuses.lock() = Some(errno);
    }

    /// Its directory was removed.
    pub fn clear(&self) {
        *self.now.write() = MemKv::new();
        *self.persisted.lock() = MemKv::new();
    }

    fn now(&self) -> RwLockReadGuard<'_, MemKv> {
        self.now.read()
    }
}

impl Kv for CrashKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.now().get(space, key)
    }

    fn first(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        self.now().first(space, from, end)
    }

    fn last(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        self.now().last(space, from, end)
    }

    fn range(&self, space: Space, from: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>> {
        self.now().range(space, from, end, limit)
    }

    fn commit(&self, batch: Batch) -> Result<()> {
        if let Some(errno) = *self.refuses.lock() {
            return Err(Error::errno("index.commit", errno));
        }
        self.now().commit(batch)
    }

    fn persist(&self) -> Result<()> {
        *self.persisted.lock() = self.now().snapshot();
        self.now().persist()
    }

    fn size_bytes(&self) -> u64 {
        self.now().size_bytes()
    }
}
