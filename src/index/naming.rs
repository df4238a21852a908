//! What happened to the names of a file, by the file: the inverse of `name.rs`.
//!
//! [`Space::Attr`]: (file, 2, descending Seq) -> kind of event, its time, the names it is about.

use super::attr::{newest_pairs, prefix};
use super::build::Build;
use super::codec::{Reader, corrupt, put_seq, put_signed, put_varint};
use super::kv::{Kv, Space};
use crate::error::Result;
use crate::format::event::{Event, Slot};
use crate::types::{FileId, Seq, Timestamp};

const NAMING: u8 = 1;
/// The form of these entries among those of [`Space::Attr`].
const FORM: u8 = 2;

/// What an event did to the names of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Naming {
    /// It was made; `None` for the root directory.
    Create(Option<Slot>),
    /// It was found beneath.
    Adopt(Option<Slot>),
    /// Its bytes were changed while not mounted.
    Rebase,
    Link(Slot),
    Unlink(Slot),
    Rename {
        from: Slot,
        to: Slot,
    },
    /// Another file was renamed to its name.
    Replaced(Slot),
    Exchange {
        from: Slot,
        to: Slot,
    },
}

impl Naming {
    fn parts(&self) -> (u8, Option<&Slot>, Option<&Slot>) {
        match self {
            Naming::Create(slot) => (0, slot.as_ref(), None),
            Naming::Adopt(slot) => (1, slot.as_ref(), None),
            Naming::Rebase => (2, None, None),
            Naming::Link(slot) => (3, Some(slot), None),
            Naming::Unlink(slot) => (4, Some(slot), None),
            Naming::Rename { from, to } => (5, Some(from), Some(to)),
            Naming::Replaced(slot) => (6, Some(slot), None),
            Naming::Exchange { from, to } => (7, Some(from), Some(to)),
        }
    }

    fn of(code: u8, slots: Vec<Slot>) -> Result<Naming> {
        let mut slots = slots.into_iter();
        let naming = match (code, slots.next(), slots.next()) {
            (0, slot, None) => Naming::Create(slot),
            (1, slot, None) => Naming::Adopt(slot),
            (2, None, None) => Naming::Rebase,
            (3, Some(slot), None) => Naming::Link(slot),
            (4, Some(slot), None) => Naming::Unlink(slot),
            (5, Some(from), Some(to)) => Naming::Rename { from, to },
            (6, Some(slot), None) => Naming::Replaced(slot),
            (7, Some(from), Some(to)) => Naming::Exchange { from, to },
            _ => return Err(corrupt(format!("naming event {code}"))),
        };
        Ok(naming)
    }

    /// The files whose names an event is about.
    pub fn files(event: &Event) -> [Option<FileId>; 2] {
        match event.unwrapped().0 {
            Event::Create(birth, _) | Event::Adopt { birth, .. } => [Some(birth.file), None],
            Event::Rebase { file, .. }
            | Event::Link { file, .. }
            | Event::Unlink { file, .. }
            | Event::Mark { file, .. } => [Some(*file), None],
            Event::Rename { file, replaced, .. } => {
                [Some(*file), replaced.as_ref().map(|(old, _)| *old).filter(|old| old != file)]
            }
            Event::Exchange { left, right, .. } => [Some(*left), Some(*right).filter(|right| right != left)],
            _ => [None, None],
        }
    }

    /// What an event did to the names of a file, as history has it: one that comes out of the excluded is found, one
    /// that goes there is gone.
    pub fn of_event(event: &Event, of: FileId) -> Option<Naming> {
        let (event, excluded) = event.unwrapped();
        let (left, entered) = match event {
            Event::Exchange { right, .. } if *right == of => (excluded.second, excluded.first),
            _ => (excluded.first, excluded.second),
        };
        match Naming::of_any(event, of)? {
            Naming::Rename { from, to } | Naming::Exchange { from, to } if left || entered => {
                match (left, entered) {
                    (true, false) => Some(Naming::Adopt(Some(to))),
                    (false, _) => Some(Naming::Unlink(from)),
                    (true, true) => None,
                }
            }
            Naming::Replaced(_) if entered => None,
            naming @ (Naming::Rename { .. } | Naming::Exchange { .. } | Naming::Replaced(_)) => Some(naming),
            naming => (!left).then_some(naming),
        }
    }

    fn of_any(event: &Event, of: FileId) -> Option<Naming> {
        match event {
            Event::Create(birth, _) if birth.file == of => Some(Naming::Create(birth.slot.clone())),
            Event::Adopt { birth, .. } if birth.file == of => Some(Naming::Adopt(birth.slot.clone())),
            Event::Rebase { file, .. } if *file == of => Some(Naming::Rebase),
            Event::Link { file, slot, .. } if *file == of => Some(Naming::Link(slot.clone())),
            Event::Mark { file, slot, excluded, .. } if *file == of => Some(match excluded {
                true => Naming::Unlink(slot.clone()),
                false => Naming::Adopt(Some(slot.clone())),
            }),
            Event::Unlink { file, slot, .. } if *file == of => Some(Naming::Unlink(slot.clone())),
            Event::Rename { file, from, to, .. } if *file == of => {
                Some(Naming::Rename { from: from.clone(), to: to.clone() })
            }
            Event::Rename { replaced: Some((file, _)), to, .. } if *file == of => {
                Some(Naming::Replaced(to.clone()))
            }
            Event::Exchange { left, left_slot, right_slot, .. } if *left == of => {
                Some(Naming::Exchange { from: left_slot.clone(), to: right_slot.clone() })
            }
            Event::Exchange { right, left_slot, right_slot, .. } if *right == of => {
                Some(Naming::Exchange { from: right_slot.clone(), to: left_slot.clone() })
            }
            _ => None,
        }
    }

    /// The name that the file has by this event.
    pub fn gained(&self) -> Option<&Slot> {
        match self {
            Naming::Create(slot) | Naming::Adopt(slot) => slot.as_ref(),
            Naming::Link(slot) => Some(slot),
            Naming::Rename { to, .. } | Naming::Exchange { to, .. } => Some(to),
            Naming::Rebase | Naming::Unlink(_) | Naming::Replaced(_) => None,
        }
    }

    /// The name that the file had before this event and has no more.
    pub fn lost(&self) -> Option<&Slot> {
        match self {
            Naming::Unlink(slot) | Naming::Replaced(slot) => Some(slot),
            Naming::Rename { from, .. } | Naming::Exchange { from, .. } => Some(from),
            _ => None,
        }
    }
}

/// A naming event of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    pub seq: Seq,
    pub ts: Timestamp,
    pub naming: Naming,
}

/// Records a naming event of a file.
pub(super) fn record(build: &mut Build<'_>, file: FileId, (seq, ts): (Seq, Timestamp), naming: &Naming) {
    let mut key = prefix(file, FORM);
    put_seq(&mut key, seq);
    let (code, first, second) = naming.parts();
    let mut value = vec![NAMING, code];
    put_signed(&mut value, ts.0);
    for slot in [first, second].into_iter().flatten() {
        put_varint(&mut value, slot.dir.0);
        put_varint(&mut value, slot.name.len() as u64);
        value.extend_from_slice(&slot.name);
    }
    build.batch.put(Space::Attr, key, value);
}

/// Up to `limit` naming events of a file at or before a Seq, newest first.
pub(super) fn newest(kv: &dyn Kv, file: FileId, at: Seq, limit: usize) -> Result<Vec<Named>> {
    let pairs = newest_pairs(kv, file, FORM, at, limit)?;
    pairs.iter().map(|(seq, value)| read(*seq, value)).collect()
}

fn read(seq: Seq, value: &[u8]) -> Result<Named> {
    let mut reader = Reader::new(value);
    reader.expect_tag(NAMING)?;
    let code = reader.byte()?;
    let ts = Timestamp(reader.signed()?);
    let mut slots = Vec::new();
    while !reader.is_empty() {
        let dir = FileId(reader.varint()?);
        let len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        slots.push(Slot { dir, name: reader.bytes(len)?.to_vec() });
    }
    Ok(Named { seq, ts, naming: Naming::of(code, slots)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_entries_are_errors() {
        for value in [&[][..], &[NAMING], &[NAMING, 3, 0], &[NAMING, 9, 0], &[NAMING, 3, 0, 1, 200, 1]] {
            assert!(read(Seq(1), value).is_err(), "{value:?}");
        }
        let read = read(Seq(1), &[NAMING, 4, 2, 1, 1, b'a']).unwrap();
        assert_eq!((read.ts, read.naming.lost().unwrap().name.clone()), (Timestamp(1), b"a".to_vec()));
    }
}
