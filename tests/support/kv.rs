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
    /// Lookups until something is done, and what.
    awaited: Mutex<Option<(u64, Deed)>>,
}

/// What a test does in the middle of something.
pub type Deed = Box<dyn FnOnce() + Send>;

impl CrashKv {
    pub fn new() -> Arc<CrashKv> {
        Arc::new(CrashKv {
            now: RwLock::new(MemKv::new()),
            persisted: Mutex::new(MemKv::new()),
            refuses: Mutex::new(None),
            awaited: Mutex::new(None),
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
        let (refuses, awaited) = (Mutex::new(None), Mutex::new(None));
        Arc::new(CrashKv { now: RwLock::new(now), persisted, refuses, awaited })
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

    /// At the `nth` lookup from now on (1 is the next) something is done, by the thread that looks up. Whatever makes
    /// shadows, thins or reads the past looks up all along: so this is in the middle of it.
    pub fn at(&self, nth: u64, deed: Deed) {
        *self.awaited.lock() = Some((nth, deed));
    }

    /// Forgets what was to be done; how many lookups before, if it was still to be.
    pub fn forget_deed(&self) -> Option<u64> {
        self.awaited.lock().take().map(|(left, _)| left)
    }

    fn now(&self) -> RwLockReadGuard<'_, MemKv> {
        self.now.read()
    }

    fn looked_up(&self) -> RwLockReadGuard<'_, MemKv> {
        let due = {
            let mut awaited = self.awaited.lock();
            if let Some((left, _)) = &mut *awaited {
                *left -= 1;
            }
            awaited.take_if(|(left, _)| *left == 0)
        };
        if let Some((_, deed)) = due {
            deed();
        }
        self.now()
    }
}

impl Kv for CrashKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.looked_up().get(space, key)
    }

    fn first(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        self.looked_up().first(space, from, end)
    }

    fn last(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        self.looked_up().last(space, from, end)
    }

    fn range(&self, space: Space, from: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>> {
        self.looked_up().range(space, from, end, limit)
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
