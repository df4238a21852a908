//! MariaDB and MySQL: tables, partitions of tables, and what belongs to the server as a whole.
//!
//! A table is `db/t` with any of the endings of its engine; a partition `db/t#P#p0`, a subpartition
//! `db/t#P#p0#SP#s` (MySQL 8 writes `#p#` and `#sp#`), on the way to its name with `#TMP#` or `#REN#` behind.

use super::{Canonical, Fork, Place, is_number, names, number, rsplit_at};

/// Endings of the files that hold rows: InnoDB; Aria; MyISAM; CSV; Archive.
const ROWS: [&[u8]; 5] = [b"ibd", b"MAD", b"MYD", b"CSV", b"ARZ"];
/// Those beside them: indexes, definitions, the list of partitions, triggers, InnoDB's export.
const BESIDE: [&[u8]; 8] = [b"MAI", b"MYI", b"frm", b"par", b"TRG", b"CSM", b"cfg", b"isl"];

/// What a file in a directory of a server is.
pub(super) fn place<'a>(dir: &[u8], file: &'a [u8]) -> Option<Place<'a>> {
    match names(dir).len() {
        0 => of_the_server(file),
        _ => of_a_table(file),
    }
}

fn of_a_table(file: &[u8]) -> Option<Place<'_>> {
    let (table, ending) = rsplit_at(file, b'.').filter(|(table, _)| !table.is_empty())?;
    let fork = match (ROWS.contains(&ending), BESIDE.contains(&ending)) {
        (true, _) => Fork::Main,
        (_, true) => Fork::Beside,
        _ => return None,
    };
    Some(Place { name: Canonical::File(table), fork, segment: 0 })
}

/// The system tablespace, the redo log, Aria's log and the binary log are one partition each, of numbered files; an undo
/// tablespace is one for itself.
fn of_the_server(file: &[u8]) -> Option<Place<'_>> {
    if file == b"aria_log_control" {
        return Some(Place { name: Canonical::File(b"aria_log"), fork: Fork::Beside, segment: 0 });
    }
    for stem in [&b"ibdata"[..], b"ib_logfile"] {
        if let Some(segment) = file.strip_prefix(stem).and_then(number) {
            return Some(Place { name: Canonical::File(file.get(..stem.len())?), fork: Fork::Main, segment });
        }
    }
    let (stem, ending) = rsplit_at(file, b'.').filter(|(stem, _)| !stem.is_empty())?;
    match ending {
        b"index" => Some(Place { name: Canonical::File(stem), fork: Fork::Beside, segment: 0 }),
        digits if digits.len() >= 6 && is_number(digits) => {
            Some(Place { name: Canonical::File(stem), fork: Fork::Main, segment: number(digits)? })
        }
        _ => of_a_table(file),
    }
}
