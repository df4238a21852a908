//! The store on disk: an LSM (`fjall`), one keyspace per space.
//!
//! - A batch is atomic; without [`Kv::persist`] a power cut takes a suffix of the batches (a crash of the process alone
//!   takes none).
//! - Every batch leaves its number as a mark in each space it touches, and the numbers of all spaces in
//!   [`Space::State`]. They are compared when the store is opened: a space that lost its end (damage that the LSM
//!   takes for the end of its own log) would otherwise answer with stale versions.
//! - Damage is an error, never a panic: panics of the LSM are caught at this boundary.
//! - After an error of its own (a full disk is one) the LSM takes no batch any more until it is opened again. That is done
//!   here, once there is room; every batch that was acknowledged is there then, and the one that failed whole or not.

use super::kv::{Batch, Kv, Pair, Space};
use crate::error::{Error, Kind, Result};
use crate::sync::{Mutex, RwLock};
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy, PartitioningPolicy, PinningPolicy};
use fjall::{AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the LSM keeps a directory per keyspace.
const KEYSPACES: &str = "keyspaces";
/// Key of the mark in each space: above every key of the index.
const MARK: &[u8] = &[0xff];
/// Smallest the LSM allows for its log.
const LOG_BYTES: u64 = 64 << 20;
const BLOCK_BYTES: u32 = 8 << 10;
/// Write buffers that a commit waits for, at least.
const BUFFERS_MIN: u64 = 16 << 20;
/// A commit waits for them and for tables so often, and then goes on.
const BUFFER_WAITS: u32 = 200;
/// Full buffers of a space, waiting to be written, with which a commit begins: one more may be full by then, and one
/// while it is at it.
const SEALED_MAX: usize = 2;
/// Tables that are not yet merged, with which a commit begins.
const TABLES_MAX: usize = 20;
/// Commits that find a buffer too full. Each asks for it to be taken away, once per space, in a queue of 1,000: when that is
/// full its one reader may be the next to wait for room in it.
const OVERFULL_MAX: u32 = 32;
const BUFFER_WAIT: Duration = Duration::from_millis(10);
/// Room that opening it again needs, about: else it would fail again at once.
const REOPEN_BYTES: u64 = 16 << 20;
/// It is tried no more often.
const REOPEN_EVERY: Duration = Duration::from_millis(500);

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
    options: LsmOptions,
    /// Held while a batch is committed.
    commits: Mutex<Commits>,
    /// Bytes of write buffers above which commits wait.
    buffers_max: u64,
    /// `None`: it could not be opened again yet.
    opened: RwLock<Option<Opened>>,
}

/// What commits go by.
#[derive(Default)]
struct Commits {
    /// Number of the last batch that touched each space.
    marks: Marks,
    /// It takes no batch any more, and why; when it is tried next to open it again.
    broken: Option<(Error, Instant)>,
    /// How many in a row found a buffer too full.
    overfull: u32,
}

/// The LSM.
struct Opened {
    spaces: Vec<Keyspace>,
    database: Database,
}

impl LsmKv {
    /// Opens or creates the store in a directory. [`Kind::Busy`]: another process has it. [`Kind::Corrupt`] and
    /// [`Kind::Version`]: delete the directory and index anew. Any other error says nothing against the store.
    pub fn open(path: &Path, options: LsmOptions) -> Result<LsmKv> {
        check_names(path)?;
        let (opened, marks) = Opened::new("index.open", path, options)?;
        Ok(LsmKv {
            path: path.to_path_buf(),
            options,
            commits: Mutex::new(Commits { marks, ..Commits::default() }),
            buffers_max: options.memory_bytes.max(BUFFERS_MIN),
            opened: RwLock::new(Some(opened)),
        })
    }

    /// Writes everything out and compacts it.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        for keyspace in &self.opened.read().as_ref().unwrap().spaces {
            keyspace.rotate_memtable_and_wait().unwrap();
            keyspace.major_compact().unwrap();
        }
    }

    /// Bytes of the sorted tables.
    #[cfg(test)]
    pub(super) fn table_bytes(&self) -> u64 {
        self.opened.read().as_ref().unwrap().spaces.iter().map(Keyspace::disk_space).sum()
    }

    /// Runs a read, with the LSM's errors and panics made ours.
    fn read<T>(&self, op: &'static str, run: impl FnOnce(&Opened) -> fjall::Result<T>) -> Result<T> {
        let opened = self.opened.read();
        let opened = opened.as_ref().ok_or_else(|| self.stopped(op))?;
        guard(op, &self.path, || run(opened).map_err(|error| translate(op, &self.path, &error)))
    }

    fn stopped(&self, op: &'static str) -> Error {
        translate(op, &self.path, &fjall::Error::Poisoned)
    }

    /// One thread of the LSM empties the buffers and compacts, in turn: during a long compaction they would grow without
    /// bounds, and with them the log that the next opening reads. A commit that finds four full buffers, or too many small
    /// tables, waits for that thread in the LSM, and for ever if it has ended meanwhile: so that is waited for here.
    fn wait_for_buffers(&self, overfull: &mut u32) -> Result<()> {
        let mut tables = TABLES_MAX;
        for waited in 0.. {
            if waited == BUFFER_WAITS {
                tables = usize::MAX;
            }
            let behind = self.read("index.commit", |opened| {
                // It says whether the thread has ended.
                opened.database.persist(PersistMode::Buffer)?;
                let full = opened.database.write_buffer_size() > self.buffers_max && waited < BUFFER_WAITS;
                let mut spaces = Space::ALL.into_iter().zip(&opened.spaces);
                let is_overfull = spaces.any(|(space, keyspace)| {
                    keyspace.tree.active_memtable().size() > memtable_bytes(space, self.options)
                });
                *overfull = if is_overfull { *overfull } else { 0 };
                let behind = |space: &Keyspace| {
                    space.sealed_memtable_count() >= SEALED_MAX || space.l0_table_count() >= tables
                };
                Ok(full || *overfull >= OVERFULL_MAX || opened.spaces.iter().any(behind))
            })?;
            if !behind {
                break;
            }
            std::thread::sleep(BUFFER_WAIT);
        }
        Ok(())
    }

    /// Opens it again after an error of its own.
    fn reopen(&self, commits: &mut Commits) -> Result<()> {
        let Some((cause, next)) = &commits.broken else { return Ok(()) };
        if Instant::now() < *next {
            return Err(cause.clone());
        }
        let done = self.try_reopen(&commits.marks);
        if let Ok(marks) = done {
            // What was asked of the thread before is not asked any more.
            (commits.marks, commits.overfull) = (marks, 0);
        }
        commits.broken = done.as_ref().err().map(|error| (error.clone(), Instant::now() + REOPEN_EVERY));
        done.map(|_| ())
    }

    fn try_reopen(&self, expected: &Marks) -> Result<Marks> {
        const OP: &str = "index.reopen";
        let space = nix::sys::statvfs::statvfs(&self.path)
            .map_err(|errno| Error::io(OP, &self.path, &std::io::Error::from(errno)))?;
        if space.blocks_available().saturating_mul(space.fragment_size()) < REOPEN_BYTES {
            return Err(Error::errno(OP, libc::ENOSPC).at(&self.path));
        }
        let mut opened = self.opened.write();
        // Readers are out. Its lock is free once the last of it is gone.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(opened.take())));
        let (again, marks) = Opened::new(OP, &self.path, self.options)?;
        *opened = Some(again);
        drop(opened);
        // The batch that failed may have come in after all; one before it may not be missing.
        let (found, last) = (marks[Space::State as usize], expected[Space::State as usize]);
        if found < last {
            let what = format!("it ends at batch {found}, not at {last}");
            return Err(damaged(OP, &self.path, &what));
        }
        tracing::info!("the index was opened again after an error");
        Ok(marks)
    }
}

impl Opened {
    /// Opens it, and tells where it ends.
    fn new(op: &'static str, path: &Path, options: LsmOptions) -> Result<(Opened, Marks)> {
        guard(op, path, || {
            let opened = Opened::unguarded(path, options)?;
            let marks = opened.check_marks(path)?;
            Ok((opened, marks))
        })
    }

    fn unguarded(path: &Path, options: LsmOptions) -> Result<Opened> {
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
        Ok(Opened { spaces, database })
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    fn mark(&self, path: &Path, space: Space) -> Result<Vec<u8>> {
        let found = self.keyspace(space).get(MARK).map_err(|error| translate("index.open", path, &error))?;
        Ok(found.map(|value| value.to_vec()).unwrap_or_default())
    }

    fn check_marks(&self, path: &Path) -> Result<Marks> {
        let mut marks = Marks::default();
        let state = self.mark(path, Space::State)?;
        if !state.is_empty() && state.len() != size_of::<Marks>() {
            return Err(damaged("index.open", path, "its marks have the wrong length"));
        }
        for (mark, bytes) in marks.iter_mut().zip(state.chunks_exact(8)) {
            *mark = number(bytes);
        }
        for space in Space::ALL.into_iter().filter(|space| *space != Space::State) {
            let found = number(&self.mark(path, space)?);
            let expected = marks[space as usize];
            if found != expected {
                let what = format!("{} ends at batch {found}, not at {expected}", name(space));
                return Err(damaged("index.open", path, &what));
            }
        }
        Ok(marks)
    }

    /// Commits a batch with its marks.
    fn commit(&self, batch: Batch, marks: &mut Marks) -> fjall::Result<()> {
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
        items.commit()?;
        *marks = next;
        Ok(())
    }
}

impl Kv for LsmKv {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read("index.get", |opened| Ok(opened.keyspace(space).get(key)?.map(|value| value.to_vec())))
    }

    fn first(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        if from >= end {
            return Ok(None);
        }
        self.read("index.first", |opened| {
            let mut found = opened.keyspace(space).range(from..end);
            found.next().map(pair).transpose()
        })
    }

    fn last(&self, space: Space, from: &[u8], end: &[u8]) -> Result<Option<Pair>> {
        if from >= end {
            return Ok(None);
        }
        self.read("index.last", |opened| {
            let mut found = opened.keyspace(space).range(from..end);
            found.next_back().map(pair).transpose()
        })
    }

    fn range(&self, space: Space, from: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>> {
        if from >= end {
            return Ok(Vec::new());
        }
        self.read("index.range", |opened| {
            let found = opened.keyspace(space).range(from..end);
            found.take(limit).map(pair).collect()
        })
    }

    fn commit(&self, batch: Batch) -> Result<()> {
        let mut commits = self.commits.lock();
        self.reopen(&mut commits)?;
        let Commits { marks, overfull, .. } = &mut *commits;
        let done = self
            .wait_for_buffers(overfull)
            .and_then(|()| self.read("index.commit", |opened| opened.commit(batch, marks)));
        *overfull += 1;
        commits.broken = done.as_ref().err().map(|error| (error.clone(), Instant::now()));
        done
    }

    fn persist(&self) -> Result<()> {
        let mut commits = self.commits.lock();
        self.reopen(&mut commits)?;
        self.read("index.persist", |opened| opened.database.persist(PersistMode::SyncData))
    }

    fn size_bytes(&self) -> u64 {
        self.read("index.size", |opened| opened.database.disk_space()).unwrap_or(0)
    }
}

fn pair(guard: fjall::Guard) -> fjall::Result<Pair> {
    let (key, value) = guard.into_inner()?;
    Ok((key.to_vec(), value.to_vec()))
}

/// A mark; 0 where there is none.
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

/// A buffer with more than this is taken away, and written out.
fn memtable_bytes(space: Space, options: LsmOptions) -> u64 {
    let share = match space {
        Space::Page => 8,
        Space::Data => 16,
        _ => 32,
    };
    (options.memory_bytes / share).max(64 << 10)
}

/// Only Base and State are read by whole key: elsewhere a filter is dead weight.
fn keyspace_options(space: Space, options: LsmOptions) -> KeyspaceCreateOptions {
    let made = KeyspaceCreateOptions::default()
        .max_memtable_size(memtable_bytes(space, options))
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

/// Whether the operating system says that a file of the store is gone, in another's place or too short.
fn is_misplaced(source: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AlreadyExists, InvalidInput, IsADirectory, NotADirectory, NotFound};
    matches!(source.kind(), NotFound | NotADirectory | IsADirectory | AlreadyExists | InvalidInput)
}

fn translate(op: &'static str, path: &Path, error: &fjall::Error) -> Error {
    match error {
        fjall::Error::Locked => Error::new(Kind::Busy, op, "another process has the index open").at(path),
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source))
            if source.raw_os_error().is_some() && !is_misplaced(source) =>
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
