//! Directory handles: the position in a listing is a name, so that it stays right while the directory changes.
//!
//! Offset 1 follows `.`, 2 follows `..`, and 2 + n follows the n-th name that was sent on this handle. A listing goes on
//! after that name in byte order, whatever was created or removed meanwhile. An offset that was given out means the
//! same name until the handle is rewound, also when the listing was taken up again before it (seekdir(3); and the
//! kernel, which asks again for what did not fit its caller's buffer).

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
    /// Names as they were sent: each number once, some names twice.
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
        if offset == 0 {
            self.sent.clear();
        }
        for dot in offset + 1..=2 {
            if offer(None, dot) == Offer::Full {
                return Ok(());
            }
        }
        let mut place = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
        self.know(place, &mut page)?;
        place = place.min(self.sent.len());
        let mut after: Option<Name> = place.checked_sub(1).and_then(|last| self.sent.get(last)).cloned();
        loop {
            let entries = page(after.as_deref(), PAGE)?;
            let last = entries.len() < PAGE;
            for entry in entries {
                // The number that it had before, if nothing came in between.
                let known = self.sent.get(place) == Some(&entry.name);
                let number = if known { place } else { self.sent.len() };
                match offer(Some(&entry), number as u64 + 3) {
                    Offer::Full => return Ok(()),
                    Offer::Taken if known => place = number + 1,
                    Offer::Taken => {
                        self.sent.push(entry.name.clone());
                        place = number + 1;
                    }
                    Offer::Skipped => {}
                }
                after = Some(entry.name);
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Sees to it that the first `count` names have numbers: the kernel may go on with one that it has from another
    /// handle's listing, which it kept (of a view, where every listing is the same).
    fn know<E>(
        &mut self,
        count: usize,
        page: &mut impl FnMut(Option<&[u8]>, usize) -> Result<Vec<Entry>, E>,
    ) -> Result<(), E> {
        while self.sent.len() < count {
            let limit = (count - self.sent.len()).min(PAGE);
            let entries = page(self.sent.last().map(Vec::as_slice), limit)?;
            if entries.is_empty() {
                return Ok(());
            }
            self.sent.extend(entries.into_iter().map(|entry| entry.name));
        }
        Ok(())
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

    /// Lists from an offset until `room` names have come; each with the offset behind it.
    fn some(cursor: &mut Cursor, names: &BTreeSet<String>, offset: u64, room: usize) -> Vec<(String, u64)> {
        let mut seen = Vec::new();
        let offer = |entry: Option<&Entry>, next| {
            if seen.len() == room {
                return Offer::Full;
            }
            if let Some(entry) = entry {
                seen.push((String::from_utf8_lossy(&entry.name).into_owned(), next));
            }
            Offer::Taken
        };
        cursor.list(offset, |after, limit| page(names, after, limit), offer).unwrap();
        seen
    }

    #[test]
    fn going_back_to_an_offset_resumes_there() {
        let names: BTreeSet<String> = ["a", "b", "c"].iter().map(ToString::to_string).collect();
        let mut cursor = Cursor::default();
        some(&mut cursor, &names, 0, 9);
        assert_eq!(some(&mut cursor, &names, 3, 9), [("b".into(), 4), ("c".into(), 5)]);
    }

    #[test]
    fn an_offset_keeps_its_meaning_when_the_listing_was_taken_up_before_it() {
        let mut names: BTreeSet<String> = ["a", "c", "e"].iter().map(ToString::to_string).collect();
        let mut cursor = Cursor::default();
        let first = some(&mut cursor, &names, 0, 9);
        names.insert("b".into());
        let again = some(&mut cursor, &names, first[0].1, 1);
        assert_eq!(again[0].0, "b");
        assert_eq!(some(&mut cursor, &names, first[1].1, 9), [("e".into(), first[2].1)]);
        assert_eq!(some(&mut cursor, &names, again[0].1, 1)[0].0, "c");
    }

    #[test]
    fn another_handles_offset_is_found_in_a_listing_that_does_not_change() {
        let names: BTreeSet<String> = (0..900).map(|n| format!("f{n:04}")).collect();
        let rest = some(&mut Cursor::default(), &names, 2 + 600, 400);
        assert_eq!((rest[0].0.as_str(), rest[0].1, rest.len()), ("f0600", 603, 300));
        assert!(some(&mut Cursor::default(), &names, 2 + 5_000, 400).is_empty());
    }
}
