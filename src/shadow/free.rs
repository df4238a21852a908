//! Taking shadows away, and what only they needed.

use super::data::{DataName, Dir, Named};
use super::shelf::{Shadow, Shadows};
use super::snapshot::Snapshot;
use crate::disk::OpenHow;
use crate::error::Result;
use crate::format::shadow::FileBody;
use crate::types::PAGE;
use std::collections::BTreeSet;

impl Shadows {
    /// Removes a shadow with all its snapshots. Not served any more from the beginning of the call on; what an error leaves
    /// of it goes with [`Shadows::remove_left`].
    pub fn remove(&self, id: u64) -> Result<()> {
        let _turn = self.turn.lock();
        self.get(id).map_or(Ok(()), |shadow| self.remove_whole(&shadow))
    }

    /// Removes what removals that failed have left: until then it takes space, and after a crash it would be a shadow again.
    pub fn remove_left(&self) -> Result<()> {
        if self.left.lock().is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock();
        let left: Vec<u64> = self.left.lock().iter().copied().collect();
        left.into_iter().try_for_each(|id| self.remove_files(id))
    }

    fn remove_whole(&self, shadow: &Shadow) -> Result<()> {
        for snapshot in &shadow.snapshots {
            self.take_out(snapshot);
            snapshot.retire();
        }
        self.remove_files(shadow.id)
    }

    /// Removes all files of a shadow that is not served any more.
    fn remove_files(&self, id: u64) -> Result<()> {
        self.left.lock().insert(id);
        self.dir.make()?;
        let (mut names, mut data) = (Vec::new(), Vec::new());
        for entry in self.dir.disk.read_dir("shadow.list", &self.dir.path)? {
            match Dir::named(&entry.name) {
                Named::Snapshot(shadow, number) if shadow == id => names.push(self.dir.snapshot(id, number)),
                Named::Data(name) if name.0 == id => data.push(name),
                _ => {}
            }
        }
        names.iter().try_for_each(|path| self.dir.remove(path))?;
        // Durably: a name that comes back must find its bytes.
        self.dir.sync()?;
        data.into_iter().try_for_each(|name| self.dir.remove_data(name))?;
        self.dir.sync()?;
        self.left.lock().remove(&id);
        Ok(())
    }

    /// Removes a snapshot of a shadow that has a later one, and frees what only it needed: later ones need nothing of it that
    /// the next one does not, and earlier ones nothing that came after them.
    pub fn remove_snapshot(&self, id: u64, number: u32) -> Result<()> {
        let _turn = self.turn.lock();
        let Some(shadow) = self.get(id) else { return Ok(()) };
        let Some(at) = shadow.snapshots.iter().position(|snapshot| snapshot.head.number == number) else {
            return Ok(());
        };
        let [gone, next, ..] = shadow.snapshots.get(at..).unwrap_or(&[]) else { return Ok(()) };
        let (before, kept) = match (gone.bodies(), next.bodies()) {
            (Ok(before), Ok(kept)) => (before, kept),
            (Err(error), _) | (_, Err(error)) => {
                gone.mark_broken(&error);
                return self.remove_whole(&shadow);
            }
        };
        self.take_out(gone);
        gone.retire();
        let named = self.dir.remove(&self.dir.snapshot(id, number)).and_then(|()| self.dir.sync());
        if named.is_err() {
            // A name that may come back must not find its bytes gone: the others go with it.
            let rest = self.get(id).map_or(Ok(()), |shadow| self.remove_whole(&shadow));
            return named.and(rest);
        }
        let earlier = shadow.number_before(at);
        let needed: BTreeSet<_> = leads_to(next, &kept).collect();
        let own = gone.head.files.iter().map(|file| (id, number, file.file));
        let only_its = |name: &DataName| name.1 > earlier && !needed.contains(name);
        for name in leads_to(gone, &before).chain(own).filter(only_its) {
            self.dir.remove_data(name)?;
        }
        self.get(id).map_or(Ok(()), |shadow| self.free_unneeded(&shadow))?;
        self.dir.sync()
    }

    /// Frees the pages that only snapshots needed that are gone: of the data of those between two that are there, the later
    /// one tells what is needed.
    pub(super) fn free_unneeded(&self, shadow: &Shadow) -> Result<()> {
        for (at, next) in shadow.snapshots.iter().enumerate() {
            let gone = shadow.number_before(at) + 1..next.head.number;
            if gone.is_empty() {
                continue;
            }
            let bodies = next.bodies()?;
            let names = leads_to(next, &bodies).filter(|name| gone.contains(&name.1));
            names.into_iter().try_for_each(|name| self.punch_unneeded(next, name))?;
        }
        Ok(())
    }

    /// Frees the pages of a data file that a snapshot does not lead to.
    fn punch_unneeded(&self, next: &Snapshot, name: DataName) -> Result<()> {
        let bodies = next.bodies()?;
        let places = next.head.files.iter().zip(bodies.iter()).filter(|(file, _)| file.file == name.2);
        let mut ranges: Vec<(u64, u64)> = places
            .flat_map(|(_, body)| &body.extents)
            .filter(|extent| extent.snapshot == name.1)
            .map(|extent| (extent.at, extent.at + extent.count))
            .collect();
        ranges.sort_unstable();
        let how = OpenHow { write: true, ..OpenHow::default() };
        let file = self.dir.disk.open("shadow.data.free", &self.dir.data(name), how)?;
        let end = file.len("shadow.data.free")?.div_ceil(PAGE);
        let mut at = 0;
        for (first, behind) in ranges.into_iter().chain([(end, end)]) {
            if at < first {
                file.punch("shadow.data.free", at * PAGE, (first - at) * PAGE)?;
            }
            at = at.max(behind);
        }
        Ok(())
    }
}

/// The data files that a snapshot leads to.
fn leads_to<'a>(snapshot: &'a Snapshot, bodies: &'a [FileBody]) -> impl Iterator<Item = DataName> + 'a {
    let files = snapshot.head.files.iter().zip(bodies);
    let mut names: Vec<_> = files
        .flat_map(|(file, body)| {
            body.extents.iter().map(|extent| (snapshot.head.shadow, extent.snapshot, file.file))
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}
