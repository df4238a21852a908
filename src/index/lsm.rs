//! The store on disk: an LSM (`fjall`), one keyspace per space.
//!
//! - A batch is atomic; without [`Kv::persist`] a power cut takes a suffix of the batches (a crash of the process alone
//!   takes none).
//! - Every batch leaves its number as a mark in each space it touches, and the numbers of all spaces in
//!   [`Space::State`]. They are compared when the store is opened: a space that lost its end (damage that the LSM
//!   takes for the end of its own log) would otherwise answer with stale versions.
//! - Damage is an error, never a panic: panics of the LSM are caught at this boundary.

use super::kv::{Batch, Kv, Pair, Space};
use crate::error::{Error, Kind, Result};
use crate::sync::Mutex;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy, PartitioningPolicy, PinningPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Where the LSM keeps a directory per keyspace.
const KEYSPACES: &str = "keyspaces";
/// Key of the mark in each space: above every key of the index.
const MARK: &[u8] = &[0xff];
/// Smallest the LSM allows for its log.
const LOG_BYTES: u64 = 64 << 20;
const BLOCK_BYTES: u32 = 8 << 10;
/// Write buffers that a commit waits for, at least.
const BUFFERS_MIN: u64 = 16 << 20;
/// A commit waits for them so often, and then goes on: nothing is to hang on the LSM's thread.
const BUFFER_WAITS: u32 = 200;
const BUFFER_WAIT: std::time::Duration = std::time::Duration::from_millis(10);

/// Limits of the store.
#[derive(Clone, Copy, Debug)]
pub struct LsmOptions {
    /// Memory for the block cache (half of it) and the write buffers.
    pub memory_bytes: u64,
}

impl Default for LsmOptions {
    fn default() -> LsmOptions {
        LsmOptions { memory_bytes: 64 << 20 }
    }
}

type Marks = [u64; Space::ALL.len()];

/// An ordered map per space, on disk.
pub struct LsmKv {
    path: PathBuf,
    spaces: Vec<Keyspace>,
    /// Number of the last batch that touched each space; held while a batch is committed.
    marks: Mutex<Marks>,
    /// Bytes of write buffers above which commits wait.
    buffers_max: u64,
    database: Database,
}

impl LsmKv {
    /// Opens or creates the store in a directory. [`Kind::Busy`]: another process has it. Any other error but those of
    /// a full disk and the like means that it is damaged: delete the directory and index anew.
    pub fn open(path: &Path, options: LsmOptions) -> Result<LsmKv> {
        check_names(path)?;
        guard("index.open", path, || LsmKv::open_unguarded(path, options))
    }

    fn open_unguarded(path: &Path, options: LsmOptions) -> Result<LsmKv> {
        let fail = |error| translate("index.open", path, &error);
        let database = Database::builder(path)
            .cache_size(options.memory_bytes / 2)
            .max_journaling_size(LOG_BYTES)
            .worker_threads(1)
            .open()
            .map_err(fail)?;
        let mut spaces = Vec::with_capacity(Space::ALL.len());
        for space in Space::ALL {
            let keyspace = database.keyspace(name(space), || keyspace_options(space, options));
            spaces.push(keyspace.map_err(fail)?);
        }
        let marks = Mutex::new(Marks::default());
        let buffers_max = options.memory_bytes.max(BUFFERS_MIN);
        let store = LsmKv { path: path.to_path_buf(), spaces, marks, buffers_max, database };
        let marks = store.check_marks()?;
        *store.marks.lock() = marks;
        Ok(store)
    }

    fn check_marks(&self) -> Result<Marks> {
        let mut marks = Marks::default();
        let state = self.get(Space::State, MARK)?.unwrap_or_default();
        if !state.is_empty() && state.len() != size_of::<Marks>() {
            return Err(self.damaged("its marks have the wrong length"));
        }
        for (mark, bytes) in marks.iter_mut().zip(state.chunks_exact(8)) {
            *mark = number(bytes);
        }
        for space in Space::ALL {
            let found = match space {
                Space::State => continue,
                _ => self.get(space, MARK)?.map_or(0, |bytes| number(&bytes)),
            };
            let expected = marks[space as usize];
            if found != expected {
                let name = name(space);
                return Err(self.damaged(&format!("{name} ends at batch {found}, not at {expected}")));
            }
        }
        Ok(marks)
    }

    /// Writes everything out and compacts it.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        for keyspace in &self.spaces {
            keyspace.rotate_memtable_and_wait().unwrap();
            keyspace.major_compact().unwrap();
        }
    }

    /// Bytes of the sorted tables.
    #[cfg(test)]
    pub(super) fn table_bytes(&self) -> u64 {
        self.spaces.iter().map(Keyspace::disk_space).sum()
    }

    fn damaged(&self, what: &str) -> Error {
        damaged("index.open", &self.path, what)
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    /// Runs a read, with the LSM's errors and panics made ours.
    fn read<T>(&self, op: &'static str, run: impl FnOnce() -> fjall::Result<T>) -> Result<T> {
        guard(op, &self.path, || run().map_err(|error| translate(op, &self.path, &error)))
    }

    /// One thread of the LSM empties the buffers and compacts, in turn: during a long compaction they would grow without
    /// bounds, and with them the log that the next opening reads.
    fn wait_for_buffers(&self) {
        for _ in 0..BUFFER_WAITS {
            if self.database.write_buffer_size() <= self.buffers_max {
                return;
            }
            std::thread::sleep(BUFFER_WAIT);
        }
    }

    fn commit_marked(&self, batch: Batch) -> Result<()> {
        let mut marks = self.marks.lock();
        let mut next = *marks;
        let number = marks[Space::State as usize] + 1;
        let mut items = self.database.batch();
        let mut puts = batch.puts;
        // Neighbours in the memtable are found sooner one after the other.
        puts.sort_unstable_by(|left, right| (left.0, &left.1).cmp(&(right.0, &right.1)));
        for (space, key, value) in puts {
            next[space as usize] = number;
            items.insert(self.keyspace(space), key, value);
        }
        for (space, key) in batch.removals {
            next[space as usize] = number;
            items.remove(self.keyspace(space), key);
        }
        next[Space::State as usize] = number;
        for space in Space::ALL {
            if space != Space::State && next[space as usize] == number {
                items.insert(self.keyspace(space), MARK, number.to_le_bytes());
            }
        }
        let state: Vec<u8> = next.iter().flat_map(|mark| mark.to_le_bytes()).collect();
        items.insert(self.keyspace(Space::State), MARK, state);
        let done = items.commit();
        done.map_err(|error| translate("index.commit", &self.path, &error))?;
        *marks = next;
        Ok(())
    }
}

impl Kv for LsmKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read("index.get", || Ok(self.keyspace(space).get(key)?.map(|value| value.to_vec())))
    }

    fn first(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        if from >= end {
            return Ok(None);
        }
        self.read("index.first", || {
            let mut found = self.keyspace(space).range(from..end);
            found.next().map(pair).transpose()
        })
    }

    fn last(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        if from >= end {
            return Ok(None);
        }
        self.read("index.last", || {
            let mut found = self.keyspace(space).range(from..end);
            found.next_back().map(pair).transpose()
        })
    }

    fn range(&self, space: Space, from: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>> {
        if from >= end {
            return Ok(Vec::new());
        }
        self.read("index.range", || {
            let found = self.keyspace(space).range(from..end);
            found.take(limit).map(pair).collect()
        })
    }

    fn commit(&self, batch: Batch) -> Result<()> {
        guard("index.commit", &self.path, || {
            self.wait_for_buffers();
            self.commit_marked(batch)
        })
    }

    fn persist(&self) -> Result<()> {
        self.read("index.persist", || self.database.persist(PersistMode::SyncData))
    }

    fn size_bytes(&self) -> u64 {
        let space = catch_unwind(AssertUnwindSafe(|| self.database.disk_space()));
        space.ok().and_then(|bytes| bytes.ok()).unwrap_or(0)
    }
}

fn pair(guard: fjall::Guard) -> fjall::Result<Pair> {
    let (key, value) = guard.into_inner()?;
    Ok((key.to_vec(), value.to_vec()))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn name(space: Space) -> &'static str {
    match space {
        Space::Page => "page",
        Space::Partial => "partial",
        Space::Data => "data",
        Space::Attr => "attr",
        Space::Name => "name",
        Space::Xattr => "xattr",
        Space::Adopt => "adopt",
        Space::Base => "base",
        Space::Time => "time",
        Space::State => "state",
    }
}

/// Only Base and State are read by whole key: elsewhere a filter is dead weight.
fn keyspace_options(space: Space, options: LsmOptions) -> KeyspaceCreateOptions {
    let share = match space {
        Space::Page => 8,
        Space::Data => 16,
        _ => 32,
    };
    let made = KeyspaceCreateOptions::default()
        .max_memtable_size((options.memory_bytes / share).max(64 << 10))
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        // Which block holds a key is always in memory (28 MiB for 10^8 versions): else a lookup among so many reads blocks of
        // indexes as often as blocks of data.
        .index_block_partitioning_policy(PartitioningPolicy::all(false))
        .index_block_pinning_policy(PinningPolicy::all(true));
    match space {
        Space::Base | Space::State => made,
        _ => made.filter_policy(FilterPolicy::disabled()),
    }
}

/// The LSM takes a stray directory for a bug of its own and ends the process: look before it does.
fn check_names(path: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(path.join(KEYSPACES)) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_number = name.to_str().is_some_and(|text| text.parse::<u64>().is_ok());
        if !is_number && entry.path().is_dir() {
            return Err(damaged("index.open", path, &format!("{name:?} is not its own")));
        }
    }
    Ok(())
}

fn guard<T>(op: &'static str, path: &Path, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(damaged(op, path, "the store beneath it gave up")))
}

fn damaged(op: &'static str, path: &Path, what: &str) -> Error {
    let message = format!("the index is damaged ({what}); delete it, it is rebuilt from the journal");
    Error::corrupt(op, message).at(path)
}

fn translate(op: &'static str, path: &Path, error: &fjall::Error) -> Error {
    match error {
        fjall::Error::Locked => Error::new(Kind::Busy, op, "another process has the index open").at(path),
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source))
            if source.raw_os_error().is_some() =>
        {
            Error::io(op, path, source)
        }
        fjall::Error::InvalidVersion(_) => {
            let message = "made by another version; delete it, it is rebuilt from the journal";
            Error::new(Kind::Version, op, message).at(path)
        }
        fjall::Error::Poisoned => {
            let message = "stopped after an earlier failure; open it again";
            Error::new(Kind::Stopped, op, message).at(path)
        }
        other => damaged(op, path, &other.to_string()),
    }
}
