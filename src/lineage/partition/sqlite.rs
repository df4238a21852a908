//! SQLite: a database with its journals. The rows are in the database and, until a checkpoint, in the WAL.

use super::{Canonical, Fork, Place};

const BESIDE: [&[u8]; 3] = [b"-wal", b"-journal", b"-shm"];
/// A super-journal is called `DB-mj` and nine characters (`src/vdbeaux.c`, `vdbeCommit`).
const SUPER: usize = 12;

/// What a file is to a database beside it.
pub(super) fn place(file: &[u8]) -> Option<Place<'_>> {
    let ended = BESIDE.iter().find_map(|ending| file.strip_suffix(*ending));
    let base = ended.or_else(|| {
        let (base, ending) = file.split_at_checked(file.len().checked_sub(SUPER)?)?;
        ending.starts_with(b"-mj").then_some(base)
    });
    let name = base.filter(|base| !base.is_empty())?;
    Some(Place { name: Canonical::File(name), fork: Fork::Beside, segment: 0 })
}
