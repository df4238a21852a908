//! Finding the shadows that an earlier session left. Whatever is wrong with one costs that one.

use super::data::{DataName, Dir, Named};
use super::shelf::Shadows;
use super::snapshot::Snapshot;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::index::Index;
use crate::sync::Arc;
use crate::types::{FileKind, Seq, StoreId};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

impl Shadows {
    /// Opens the directory, made when absent. `reach`: the last event of the journal; a shadow of a later one is of
    /// another history. Never fails: without its shadows a store is slower, and nothing else.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        store: StoreId,
        index: Arc<Index>,
        reach: Seq,
    ) -> (Shadows, Option<Error>) {
        let shadows = Shadows::empty(disk, path, store, index);
        let trouble = shadows.load(reach).err();
        if let Some(error) = &trouble {
            tracing::warn!(%error, "the shadows cannot be looked at: history is read without them");
        }
        (shadows, trouble)
    }

    fn load(&self, reach: Seq) -> Result<()> {
        let dir = &self.dir;
        dir.make()?;
        let (mut snapshots, mut data) = (BTreeMap::<u64, Vec<u32>>::new(), Vec::new());
        for entry in dir.disk.read_dir("shadow.list", &dir.path)? {
            match Dir::named(&entry.name) {
                Named::Snapshot(shadow, number) => snapshots.entry(shadow).or_default().push(number),
                Named::Data(name) => data.push(name),
                Named::Unfinished if entry.kind == FileKind::Regular => {
                    dir.remove(&dir.path.join(OsStr::from_bytes(&entry.name)))?;
                }
                Named::Unfinished | Named::Unknown => {}
            }
        }
        for (shadow, mut numbers) in snapshots {
            numbers.sort_unstable();
            if let Err(error) = self.load_shadow(shadow, &numbers, reach) {
                tracing::warn!(%error, "a shadow is of no use: it is dropped");
                for number in numbers {
                    dir.remove(&dir.snapshot(shadow, number))?;
                }
            }
        }
        dir.sync()?;
        let needed = self.needed_data();
        data.iter().filter(|name| !needed.contains(name)).try_for_each(|name| dir.remove_data(*name))?;
        // A cut may have come between the end of a snapshot and the freeing of its pages.
        for shadow in self.list() {
            if let (Err(error), Some(oldest)) = (self.free_unneeded(&shadow), shadow.snapshots.first()) {
                oldest.mark_broken(&error);
            }
        }
        Ok(())
    }

    /// All snapshots of a shadow, or none: they share their bytes.
    fn load_shadow(&self, shadow: u64, numbers: &[u32], reach: Seq) -> Result<()> {
        let mut found = Vec::new();
        for number in numbers {
            let snapshot = Snapshot::open(&self.dir, (shadow, *number), self.store)?;
            if snapshot.seq() > reach {
                let message = format!("it is of event {}, and history ends at {reach}", snapshot.seq());
                return Err(Error::new(Kind::Mismatch, "shadow.open", message));
            }
            found.push(Arc::new(snapshot));
        }
        // Those that follow others which are gone lead to their data.
        let before = std::iter::once(0).chain(numbers.iter().copied());
        for (snapshot, before) in found.iter().zip(before) {
            if snapshot.head.number > before + 1 || before == 0 {
                snapshot.bodies()?;
            }
        }
        found.into_iter().for_each(|snapshot| self.add(snapshot));
        Ok(())
    }

    /// Data files that snapshots lead to: their own, and those of others that are gone.
    fn needed_data(&self) -> BTreeSet<DataName> {
        let mut needed = BTreeSet::new();
        for shadow in self.list() {
            for (at, snapshot) in shadow.snapshots.iter().enumerate() {
                for file in &snapshot.head.files {
                    needed.insert((shadow.id, snapshot.head.number, file.file));
                }
                if snapshot.head.number == shadow.number_before(at) + 1 {
                    continue;
                }
                let bodies = snapshot.bodies().ok();
                let bodies = bodies.iter().flat_map(|bodies| bodies.iter());
                for (file, body) in snapshot.head.files.iter().zip(bodies) {
                    needed.extend(body.extents.iter().map(|extent| (shadow.id, extent.snapshot, file.file)));
                }
            }
        }
        needed
    }
}
