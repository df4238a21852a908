//! Writing checkpoints, and finding the newest.
//!
//! Order: live files durable; the journal durable past everything the checkpoint knows; the copy in each root; the one
//! in STORE. So no root is ever behind STORE's checkpoint: if one is, it or STORE was rolled back.

use super::Live;
use super::paths::Paths;
use super::sparse;
use crate::disk::{Disk, Op, OpenHow};
use crate::error::{Error, Result};
use crate::format::checkpoint::{Checkpoint, Fingerprint, NodeState, Phase, Place};
use crate::format::sections::Sections;
use crate::sync::atomic::Ordering;
use crate::types::{FileId, FileKind, RootId, Seq, StoreId};
use std::collections::HashMap;
use std::collections::btree_map::Entry;
use std::path::Path;

/// Why a checkpoint was not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// The last one stands.
    Surely(Error),
    /// It has its name; after a power cut either of the two may stand. It replays from this place.
    Perhaps(Error, Place),
}

impl From<Error> for Unwritten {
    fn from(error: Error) -> Unwritten {
        Unwritten::Surely(error)
    }
}

impl From<Unwritten> for Error {
    fn from(unwritten: Unwritten) -> Error {
        match unwritten {
            Unwritten::Surely(error) | Unwritten::Perhaps(error, _) => error,
        }
    }
}

/// Checkpoints kept in STORE.
const KEPT: usize = 2;

impl Live {
    /// Applies what is durable and writes a checkpoint. `false`: something came in between and could not be applied
    /// yet (a file that is cut again and again); the last checkpoint stands, try again.
    pub fn try_checkpoint(&self, phase: Phase, prints: &HashMap<FileId, Fingerprint>) -> Result<bool> {
        let mut id = self.round.lock();
        Ok(self.checkpoint_locked(&mut id, phase, prints, |_| Ok(()))?)
    }

    /// The same for a caller that holds the round, and does something when all up to some event is applied.
    pub(super) fn checkpoint_locked(
        &self,
        id: &mut u64,
        phase: Phase,
        prints: &HashMap<FileId, Fingerprint>,
        before: impl FnOnce(Seq) -> Result<()>,
    ) -> std::result::Result<bool, Unwritten> {
        if phase == Phase::Serving && self.leaving.load(Ordering::Acquire) {
            return Ok(false);
        }
        self.journal.flush()?;
        let place = self.journal.durable_end();
        let applied = self.round_locked()?;
        if phase != Phase::Clean {
            self.sync_live("checkpoint.live.sync")?;
        }
        let behind = self.oldest_pending().is_some_and(|oldest| oldest < place.seq);
        if behind {
            return Ok(false);
        }
        before(applied)?;
        self.write_checkpoint(id, phase, place, prints)?;
        Ok(true)
    }

    /// Writes down how it is, for a replay from `place`: what is applied up to there is durable.
    pub(super) fn write_checkpoint(
        &self,
        id: &mut u64,
        phase: Phase,
        place: Place,
        prints: &HashMap<FileId, Fingerprint>,
    ) -> std::result::Result<(), Unwritten> {
        let checkpoint = self.image(*id + 1, phase, place, prints);
        self.journal.flush()?;
        self.base.persist()?;
        if self.unnamed.load(Ordering::Acquire) {
            // The roots' copies are never further than one ahead of what stands in STORE.
            self.disk.sync_dir("checkpoint.rename", &self.paths.checkpoint_dir())?;
        }
        let written = write(&*self.disk, &self.paths, &checkpoint);
        if !matches!(written, Err(Unwritten::Surely(_))) {
            // The next one is newer than what may stand there.
            *id += 1;
            self.unnamed.store(written.is_err(), Ordering::Release);
        }
        written?;
        self.checkpointed.store(place.seq.0 - 1, Ordering::Relaxed);
        self.drop_old();
        Ok(())
    }

    /// Removes all but the newest checkpoints. One that is left harms nothing.
    fn drop_old(&self) {
        let removed = list(&*self.disk, &self.paths).and_then(|ids| {
            let mut old = ids.iter().rev().skip(KEPT);
            old.try_for_each(|id| self.disk.unlink("checkpoint.prune", &self.paths.checkpoint(*id)))
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "an old checkpoint could not be removed");
        }
    }

    /// Makes all live files durable: once for each filesystem that holds some.
    ///
    /// If one cannot be, the kernel has forgotten what it could not write, and so has the overlay: trying again would
    /// succeed and lose it. The journal has it from the last checkpoint on, so all ends here, and the next mount applies
    /// it anew.
    pub(super) fn sync_live(&self, op: Op) -> Result<()> {
        let mut synced = Vec::new();
        for root in &self.paths.roots {
            let Some(stat) = self.disk.stat("live.filesystem", &root.dir)? else { continue };
            if synced.contains(&stat.dev) {
                continue;
            }
            synced.push(stat.dev);
            let mut held = self.filesystems.lock();
            let filesystem = match held.entry(stat.dev) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(free) => free.insert(self.disk.filesystem("live.filesystem", &root.dir)?),
            };
            if let Err(error) = filesystem.sync(op) {
                tracing::error!(%error, "live files could not be made durable: writing stops, history has all of it");
                self.freeze(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Nothing is applied or written any more; what is in the journal stays for the next mount.
    pub(super) fn freeze(&self, cause: Error) {
        self.frozen.store(true, Ordering::Release);
        self.journal.stop(cause);
    }

    /// A checkpoint that must be: while nobody writes, the first try succeeds.
    pub fn checkpoint(&self, phase: Phase, prints: &HashMap<FileId, Fingerprint>) -> Result<()> {
        if self.try_checkpoint(phase, prints)? || self.try_checkpoint(phase, prints)? {
            return Ok(());
        }
        Err(Error::invalid(
            "checkpoint.write",
            "files are being changed; stop what writes to them and try again",
        ))
    }

    fn image(
        &self,
        id: u64,
        phase: Phase,
        replay: Place,
        prints: &HashMap<FileId, Fingerprint>,
    ) -> Checkpoint {
        let tree = self.tree.read();
        // Before the nodes: pages that bypass the applier may be saved meanwhile, and are then found again.
        let base_scanned = self.base.position();
        let names_seq = self.journal.last_seq();
        let mut slots = tree.slots();
        let mut nodes = Vec::with_capacity(tree.nodes.len());
        let mut rested = self.rested.lock().clone();
        let mut sections = Sections {
            roots: super::roots::states(&tree),
            tags: self.tags.lock().states(),
            leases: self.leases.lock().states(self.journal.monotonic_us()),
            thinned: self.thinned.lock().states(),
            epochs: self.journal.epochs().list().to_vec(),
            excluded: tree.excluded_states(),
            ..Sections::default()
        };
        for (file, node) in &tree.nodes {
            let state = node.lock();
            if state.attr.nlink == 0 && node.kind != FileKind::Regular {
                continue;
            }
            let resting = state.content.resting.as_ref();
            rested.extend(resting.map(|base| (*file, base.rested(*file))));
            let base = resting.or(state.content.base.as_ref());
            sections.data_pages.extend(sparse::to_section(*file, &state));
            nodes.push(NodeState {
                file: *file,
                root: node.root,
                seq: state.seq,
                attr: state.attr,
                slots: slots.remove(file).unwrap_or_default(),
                target: node.target.clone(),
                xattrs: state.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
                live: state.content.exists,
                base: base.map(|base| base.to_state()),
                fingerprint: prints.get(file).copied(),
            });
        }
        sections.rested = rested.into_values().collect();
        nodes.sort_by_key(|node| node.file);
        sections.data_pages.sort_by_key(|data| data.file);
        Checkpoint {
            store: self.journal.segments().store(),
            id,
            phase,
            replay,
            names_seq,
            last_ts: self.journal.last_ts(),
            next_file: tree.next_file,
            birth: *self.birth.lock(),
            base_scanned,
            nodes,
            sections,
        }
    }
}

/// Makes a checkpoint durable: the roots' copies first. That of DATA is whole, the others do without the nodes.
fn write(disk: &dyn Disk, paths: &Paths, checkpoint: &Checkpoint) -> std::result::Result<(), Unwritten> {
    let bytes = checkpoint.encode();
    if checkpoint.phase != Phase::Clean {
        let mut further = Vec::new();
        for root in &paths.roots {
            let is_data = root.root == RootId(0);
            if !is_data && further.is_empty() {
                further = Checkpoint { nodes: Vec::new(), ..checkpoint.clone() }.encode();
            }
            write_file(disk, &root.copy(), if is_data { &bytes } else { &further })?;
            disk.sync_dir("checkpoint.rename", &root.own())?;
        }
    }
    write_file(disk, &paths.checkpoint(checkpoint.id), &bytes)?;
    disk.sync_dir("checkpoint.rename", &paths.checkpoint_dir())
        .map_err(|error| Unwritten::Perhaps(error, checkpoint.replay))
}

/// Writes a file durably and gives it its name, which is not durable yet.
fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let file = disk.open("checkpoint.write", temporary, how)?;
    file.set_len("checkpoint.write", 0)?;
    file.write_durable("checkpoint.write", bytes, 0)?;
    disk.rename("checkpoint.rename", temporary, path)
}

fn list(disk: &dyn Disk, paths: &Paths) -> Result<Vec<u64>> {
    let mut ids: Vec<u64> = disk
        .read_dir("checkpoint.list", &paths.checkpoint_dir())?
        .iter()
        .filter_map(|entry| std::str::from_utf8(&entry.name).ok()?.strip_suffix(".ckpt")?.parse().ok())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// The newest checkpoint of STORE, if it has one. One that is damaged is an error: it was durable under its name.
pub fn newest(disk: &dyn Disk, paths: &Paths, store: StoreId) -> Result<Option<Checkpoint>> {
    match list(disk, paths)?.last() {
        Some(id) => read(disk, &paths.checkpoint(*id), store).map(Some),
        None => Ok(None),
    }
}

/// Reads one checkpoint file.
pub fn read(disk: &dyn Disk, path: &Path, store: StoreId) -> Result<Checkpoint> {
    let file = disk.open("checkpoint.read", path, OpenHow::default())?;
    let len = usize::try_from(file.len("checkpoint.read")?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    file.read_at("checkpoint.read", &mut bytes, 0)?;
    Checkpoint::decode(&bytes, Some(store)).map_err(|error| error.at(path))
}
