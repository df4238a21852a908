//! Directory handles: the position in a listing is a name, so that it stays right while the directory changes.
//!
//! Offset 1 follows `.`, 2 follows `..`, and 2 + n follows the n-th name that was sent on this handle. A listing goes on
//! after that name in byte order, whatever was created or removed meanwhile.
//!
//! The kernel keeps the listings of views, for all handles. Where a part of one is gone from its memory, or is not there
//! yet, it asks on with an offset that another handle was given: this one then goes by the names up to there first.

use fuser::FileHandle;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use weft::engine::Entry;
use weft::types::Name;

/// What came of offering one entry to a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    Taken,
    /// The entry is gone meanwhile.
    Skipped,
    /// The reply is full; the entry comes again.
    Full,
}

const PAGE: usize = 256;

/// One open directory.
#[derive(Default)]
pub struct Cursor {
    sent: Vec<Name>,
}

impl Cursor {
    /// Offers the entries after `offset`. `page(after, limit)` lists; `offer(entry, next_offset)` takes one, where
    /// `None` entries stand for `.` (next offset 1) and `..` (2).
    pub fn list<E>(
        &mut self,
        offset: u64,
        mut page: impl FnMut(Option<&[u8]>, usize) -> Result<Vec<Entry>, E>,
        mut offer: impl FnMut(Option<&Entry>, u64) -> Offer,
    ) -> Result<(), E> {
        for dot in offset + 1..=2 {
            if offer(None, dot) == Offer::Full {
                return Ok(());
            }
        }
        let known = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
        self.sent.truncate(known);
        while self.sent.len() < known {
            let missing = page(self.sent.last().map(Vec::as_slice), PAGE.min(known - self.sent.len()))?;
            if missing.is_empty() {
                break;
            }
            self.sent.extend(missing.into_iter().map(|entry| entry.name));
        }
        let mut after: Option<Name> = self.sent.last().cloned();
        loop {
            let entries = page(after.as_deref(), PAGE)?;
            let last = entries.len() < PAGE;
            for entry in entries {
                match offer(Some(&entry), self.sent.len() as u64 + 3) {
                    Offer::Full => return Ok(()),
                    Offer::Taken => self.sent.push(entry.name.clone()),
                    Offer::Skipped => {}
                }
                after = Some(entry.name);
            }
            if last {
                return Ok(());
            }
        }
    }
}

/// All open directories.
#[derive(Default)]
pub struct Dirs {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Mutex<Cursor>>>>,
}

impl Dirs {
    pub fn open(&self) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().insert(handle, Arc::default());
        FileHandle(handle)
    }

    pub fn get(&self, handle: FileHandle) -> Option<Arc<Mutex<Cursor>>> {
        self.open.lock().get(&handle.0).cloned()
    }

    pub fn close(&self, handle: FileHandle) {
        self.open.lock().remove(&handle.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use weft::types::{FileId, FileKind};

    fn page(names: &BTreeSet<String>, after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, ()> {
        let later = names.iter().filter(|name| after.is_none_or(|after| name.as_bytes() > after));
        let entry =
            |name: &String| Entry { name: name.clone().into(), file: FileId(2), kind: FileKind::Regular };
        Ok(later.take(limit).map(entry).collect())
    }

    /// Lists in replies of `room` entries, calling `between` after each.
    fn walk(
        names: &mut BTreeSet<String>,
        room: usize,
        mut between: impl FnMut(&mut BTreeSet<String>),
    ) -> Vec<String> {
        let (mut cursor, mut offset, mut seen) = (Cursor::default(), 0, Vec::new());
        loop {
            let (mut left, from) = (room, offset);
            let before = seen.len();
            let offer = |entry: Option<&Entry>, next| {
                if left == 0 {
                    return Offer::Full;
                }
                left -= 1;
                offset = next;
                seen.push(
                    entry.map_or(".".into(), |entry| String::from_utf8_lossy(&entry.name).into_owned()),
                );
                Offer::Taken
            };
            cursor.list(from, |after, limit| page(names, after, limit), offer).unwrap();
            if seen.len() == before {
                return seen;
            }
            between(names);
        }
    }

    #[test]
    fn every_entry_comes_once_whatever_the_size_of_replies() {
        let mut names: BTreeSet<String> = (0..700).map(|n| format!("f{n:04}")).collect();
        let mut want = vec![".".to_string(), ".".to_string()];
        want.extend(names.iter().cloned());
        for room in [1, 2, 3, 255, 256, 257, 1000] {
            assert_eq!(walk(&mut names, room, |_| ()), want, "{room}");
        }
    }

    #[test]
    fn removing_what_was_listed_skips_nothing() {
        let mut names: BTreeSet<String> = (0..600).map(|n| format!("f{n:04}")).collect();
        let keep = names.clone();
        let seen = walk(&mut names, 7, |names| {
            names.pop_first();
            names.pop_first();
        });
        assert_eq!(seen[2..].iter().cloned().collect::<BTreeSet<_>>(), keep);
    }

    #[test]
    fn going_back_to_an_offset_resumes_there() {
        let names: BTreeSet<String> = ["a", "b", "c"].iter().map(ToString::to_string).collect();
        let mut cursor = Cursor::default();
        cursor.list(0, |after, limit| page(&names, after, limit), |_, _| Offer::Taken).unwrap();
        let mut again = Vec::new();
        cursor
            .list(
                3,
                |after, limit| page(&names, after, limit),
                |entry, next| {
                    again.push((entry.unwrap().name.clone(), next));
                    Offer::Taken
                },
            )
            .unwrap();
        assert_eq!(again, [(b"b".to_vec(), 4), (b"c".to_vec(), 5)]);
    }

    #[test]
    fn a_handle_goes_on_where_another_one_was() {
        let names: BTreeSet<String> = (0..700).map(|number| format!("f{number:03}")).collect();
        for offset in [0, 1, 2, 3, 299, 702, 900] {
            let (mut cursor, mut seen) = (Cursor::default(), Vec::new());
            let offer = |entry: Option<&Entry>, _| {
                seen.extend(entry.map(|entry| String::from_utf8(entry.name.clone()).unwrap()));
                Offer::Taken
            };
            cursor.list(offset, |after, limit| page(&names, after, limit), offer).unwrap();
            assert!(seen.iter().eq(names.iter().skip(offset.saturating_sub(2) as usize)), "offset {offset}");
        }
    }
}
