//! All shadows of a STORE: which there are, and which snapshot has a file.

use super::data::Dir;
use super::snapshot::Snapshot;
use super::wish::{Reason, Subject, Wish};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::index::{Brought, Index};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, RwLock};
use crate::types::{FileId, PAGE, PageSet, Seq, StoreId, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

/// One shadow: its snapshots, and what it is of.
#[derive(Clone)]
pub struct Shadow {
    pub id: u64,
    pub subject: Subject,
    /// The pages of the partition that it is of; without them all.
    pub pages: Option<PageSet>,
    /// Kept up to date; otherwise it stays at its Seq.
    pub follows: bool,
    pub reason: Reason,
    pub benefit: f64,
    /// In the order they were made; at least one.
    pub snapshots: Vec<Arc<Snapshot>>,
}

impl Shadow {
    /// Whether a snapshot for a wish belongs to it.
    pub fn is_for(&self, wish: &Wish) -> bool {
        (&self.subject, &self.pages, self.follows) == (&wish.subject, &wish.pages, wish.at.is_none())
    }

    pub(super) fn of(first: Arc<Snapshot>) -> Shadow {
        let head = &first.head;
        Shadow {
            id: head.shadow,
            subject: Subject { root: head.root.clone(), partition: head.partition.clone() },
            pages: head.pages.clone(),
            follows: head.follows,
            reason: Reason::of(&head.reason),
            benefit: head.benefit_milli as f64 / 1e3,
            snapshots: vec![first],
        }
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<&Arc<Snapshot>> {
        self.snapshots.last()
    }

    pub fn seq(&self) -> Seq {
        self.newest().map_or(Seq::ZERO, |newest| newest.seq())
    }

    pub fn made(&self) -> Timestamp {
        self.newest().map_or(Timestamp::default(), |newest| newest.head.made)
    }

    /// Bytes of the pages that it stores: of each snapshot what those before it do not have.
    pub fn stored_bytes(&self) -> u64 {
        let pages = |(at, snapshot): (usize, &Arc<Snapshot>)| snapshot.pages_since(self.number_before(at));
        self.snapshots.iter().enumerate().map(pages).sum::<u64>() * PAGE
    }

    /// The number of the snapshot before the one at a place; 0: there is none. Those between the two are gone.
    pub(super) fn number_before(&self, at: usize) -> u32 {
        let before = at.checked_sub(1).and_then(|before| self.snapshots.get(before));
        before.map_or(0, |before| before.head.number)
    }

    /// Bytes of the state that it shows.
    pub fn shown_bytes(&self) -> u64 {
        let files = self.newest().into_iter().flat_map(|newest| &newest.head.files);
        files.map(|file| file.image_pages() * PAGE).sum()
    }

    pub fn served_bytes(&self) -> u64 {
        self.snapshots.iter().map(|snapshot| snapshot.served_bytes()).sum()
    }

    /// What made it useless.
    pub fn broken(&self) -> Option<Error> {
        self.snapshots.iter().find_map(|snapshot| snapshot.broken())
    }
}

/// A file in a snapshot: its place among the snapshot's files.
#[derive(Clone)]
pub(super) struct Part {
    pub snapshot: Arc<Snapshot>,
    pub place: usize,
}

#[derive(Default)]
pub(super) struct State {
    pub shadows: BTreeMap<u64, Shadow>,
    /// By Seq.
    by_file: HashMap<FileId, BTreeMap<(Seq, u64, u32), Part>>,
    /// Number of the next shadow: none is used twice in a session.
    pub next: u64,
}

/// See the head of this file.
pub struct Shadows {
    pub(super) dir: Arc<Dir>,
    pub(super) store: StoreId,
    pub(super) index: Arc<Index>,
    state: RwLock<State>,
    any: AtomicBool,
    /// One makes or removes at a time.
    pub(super) turn: Mutex<()>,
    /// Shadows of which a removal that failed has left files.
    pub(super) left: Mutex<BTreeSet<u64>>,
    /// False once the filesystem said that it has no reflinks.
    pub(super) reflinks: AtomicBool,
    /// Bytes read from history and from shadows for the making, and bytes written.
    pub(super) read: AtomicU64,
    pub(super) written: AtomicU64,
}

impl Shadows {
    /// None yet, in a directory that [`Shadows::load`] looks into.
    pub(super) fn empty(disk: Arc<dyn Disk>, path: PathBuf, store: StoreId, index: Arc<Index>) -> Shadows {
        Shadows {
            dir: Arc::new(Dir::new(disk, path)),
            store,
            index,
            state: RwLock::new(State { next: 1, ..State::default() }),
            any: AtomicBool::new(false),
            turn: Mutex::new(()),
            left: Mutex::new(BTreeSet::new()),
            reflinks: AtomicBool::new(true),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// All of them, in the order they were made.
    pub fn list(&self) -> Vec<Shadow> {
        self.state.read().shadows.values().cloned().collect()
    }

    pub fn get(&self, id: u64) -> Option<Shadow> {
        self.state.read().shadows.get(&id).cloned()
    }

    pub fn stored_bytes(&self) -> u64 {
        self.state.read().shadows.values().map(Shadow::stored_bytes).sum()
    }

    /// Bytes read and written for making shadows, since the engine was opened.
    pub fn io_bytes(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }

    /// The snapshots next to an instant that have a file: at or before it, and after it.
    pub(super) fn nearest(&self, file: FileId, at: Seq) -> (Option<Part>, Option<Part>) {
        let state = self.state.read();
        let Some(parts) = state.by_file.get(&file) else { return (None, None) };
        let usable =
            |(_, part): (&(Seq, u64, u32), &Part)| part.snapshot.broken().is_none().then(|| part.clone());
        let behind = (at.next(), 0, 0);
        (parts.range(..behind).rev().find_map(usable), parts.range(behind..).find_map(usable))
    }

    pub(super) fn next_id(&self) -> u64 {
        let mut state = self.state.write();
        state.next += 1;
        state.next - 1
    }

    /// Puts a snapshot where reads find it.
    pub(super) fn add(&self, snapshot: Arc<Snapshot>) {
        let mut state = self.state.write();
        let id = snapshot.head.shadow;
        state.next = state.next.max(id + 1);
        for (place, file) in snapshot.head.files.iter().enumerate() {
            let key = (snapshot.seq(), id, snapshot.head.number);
            let part = Part { snapshot: Arc::clone(&snapshot), place };
            state.by_file.entry(file.file).or_default().insert(key, part);
        }
        match state.shadows.get_mut(&id) {
            Some(shadow) => {
                // What it is for is what the newest one says.
                let snapshots = std::mem::take(&mut shadow.snapshots);
                *shadow = Shadow::of(Arc::clone(&snapshot));
                shadow.snapshots = snapshots;
                shadow.snapshots.push(snapshot);
            }
            None => drop(state.shadows.insert(id, Shadow::of(snapshot))),
        }
        self.any.store(true, Ordering::Relaxed);
    }

    /// Takes a snapshot from where reads find it; those that read it are still in it.
    pub(super) fn take_out(&self, snapshot: &Snapshot) {
        let mut state = self.state.write();
        let id = snapshot.head.shadow;
        for file in &snapshot.head.files {
            if let Some(parts) = state.by_file.get_mut(&file.file) {
                parts.remove(&(snapshot.seq(), id, snapshot.head.number));
                if parts.is_empty() {
                    state.by_file.remove(&file.file);
                }
            }
        }
        if let Some(shadow) = state.shadows.get_mut(&id) {
            shadow.snapshots.retain(|kept| kept.head.number != snapshot.head.number);
            if shadow.snapshots.is_empty() {
                state.shadows.remove(&id);
            }
        }
        self.any.store(!state.shadows.is_empty(), Ordering::Relaxed);
    }

    /// The pages of a file that changed between two Seqs, and the bytes of the events between; `None`: more than `most`, or
    /// nobody knows yet.
    pub fn changed_between(
        &self,
        file: FileId,
        (after, upto): (Seq, Seq),
        most: u64,
    ) -> Result<Option<(PageSet, u64)>> {
        match upto > self.index.watermark().seq {
            true => Ok(None),
            false => self.index.changed_pages(file, (after, upto), PageSet::default(), most),
        }
    }

    /// What the events of a file brought between two Seqs, as far as so many of them tell; `None`: it is another file by
    /// now, or nobody knows yet.
    pub fn brought_between(
        &self,
        file: FileId,
        (after, upto): (Seq, Seq),
        most: u64,
    ) -> Result<Option<Brought>> {
        match upto > self.index.watermark().seq {
            true => Ok(None),
            false => self.index.brought(file, (after, upto), most),
        }
    }
}
