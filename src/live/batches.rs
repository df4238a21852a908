//! Going through the batches of a base file, and telling a torn end from damage.
//!
//! - Batches are written one behind the other, each durable before the next begins, and a file that is closed ends with a
//!   seal. So whatever stands before a seal, a later batch or the place that a checkpoint names was durable. Where it cannot
//!   be read it is damaged, and what stands behind is found by looking for the next header.
//! - Only behind all of these a crash may have torn a batch: nothing that it would have covered was overwritten.

use super::base::{file_path, list, located};
use super::paths::Paths;
use crate::disk::{Disk, DiskFile, Op, OpenHow};
use crate::error::{Error, Result};
use crate::format::base::{BaseEntry, BaseHeader, decode_header, encode_header};
use crate::index::{Index, LostList};
use crate::types::{PAGE, PAGE_LEN, Seq, StoreId};

/// What stands next in a base file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Batch {
        offset: u64,
        entries: Vec<BaseEntry>,
    },
    /// No list can be read here, and the next one that can be stands at `end`.
    Gap {
        offset: u64,
        end: u64,
    },
    /// The file was closed here.
    Sealed,
    /// Nothing that can be read stands here or behind.
    End(u64),
}

/// Goes through a base file.
#[derive(Clone)]
pub(super) struct Walk<'a> {
    file: &'a dyn DiskFile,
    op: Op,
    store: StoreId,
    offset: u64,
    pub len: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, op: Op, store: StoreId, offset: u64) -> Result<Walk<'a>> {
        let len = file.len(op)?;
        Ok(Walk { file, op, store, offset, len })
    }

    pub(super) fn step(&mut self) -> Result<Step> {
        let offset = self.offset;
        // A seal says where it is: earlier builds wrote none.
        let fits = |header: &BaseHeader| {
            header.is_surely_at(offset / PAGE) || header.is_at(offset / PAGE) && !header.entries.is_empty()
        };
        match self.header(offset)?.filter(fits) {
            None => self.search(),
            Some(seal) if seal.entries.is_empty() => Ok(Step::Sealed),
            Some(BaseHeader { entries, .. }) => {
                self.offset += (entries.len() as u64 + 1) * PAGE;
                Ok(Step::Batch { offset, entries })
            }
        }
    }

    /// Whether something that can be read stands behind.
    fn goes_on(&self) -> Result<bool> {
        Ok(!matches!(self.clone().step()?, Step::End(_)))
    }

    /// Whether all pages of a batch are what was written.
    fn is_whole(&self, offset: u64, entries: &[BaseEntry]) -> Result<bool> {
        Ok(self.not_whole(offset, entries)?.is_empty())
    }

    /// Where the pages of a batch stand that are not what was written.
    fn not_whole(&self, offset: u64, entries: &[BaseEntry]) -> Result<Vec<u64>> {
        let mut page = [0; PAGE_LEN];
        let mut damaged = Vec::new();
        for (entry, at) in entries.iter().zip(1u64..) {
            let at = offset + at * PAGE;
            let got = self.file.read_at(self.op, &mut page, at)?;
            if got != PAGE_LEN || crc32fast::hash(&page) != entry.crc {
                damaged.push(at);
            }
        }
        Ok(damaged)
    }

    fn header(&self, offset: u64) -> Result<Option<BaseHeader>> {
        let mut page = [0; PAGE_LEN];
        let got = self.file.read_at(self.op, &mut page, offset)?;
        Ok(page.get(..got).and_then(|page| decode_header(page, self.store)))
    }

    /// The next header. A saved page may look like one: in a database that holds a copy of a base file.
    fn search(&mut self) -> Result<Step> {
        let offset = self.offset;
        let mut at = offset + PAGE;
        while at < self.len {
            if let Some(header) = self.header(at)? {
                let fits = header.is_at(at / PAGE) && !header.entries.is_empty();
                if header.is_surely_at(at / PAGE) || fits && self.is_whole(at, &header.entries)? {
                    self.offset = at;
                    return Ok(Step::Gap { offset, end: at });
                }
            }
            at += PAGE;
        }
        Ok(Step::End(offset))
    }
}

/// Ends a base file.
pub(super) fn seal(file: &dyn DiskFile, store: StoreId, offset: u64) -> Result<()> {
    file.write_durable("base.seal", &encode_header(store, offset / PAGE, &[]), offset)
}

/// Goes through the batches from `from` (base file, offset) on: puts each into `index`, and tells `each` its entries. What
/// is before `durable` was durable. Ends the files that were not closed; what cannot be read any more is returned.
pub(super) fn scan(
    disk: &dyn Disk,
    paths: &Paths,
    store: StoreId,
    (from, durable): ((u64, u64), (u64, u64)),
    index: &Index,
    mut each: impl FnMut(&[BaseEntry]),
) -> Result<Vec<LostList>> {
    let mut lost = Vec::new();
    for number in list(disk, paths)?.into_iter().filter(|number| *number >= from.0) {
        let how = OpenHow { write: true, ..OpenHow::default() };
        let path = file_path(&paths.base_dir(), number);
        let file = disk.open("base.scan", &path, how)?;
        let begin = if number == from.0 { from.1 } else { 0 };
        let upto = if number == durable.0 { durable.1 } else { 0 };
        let mut walk = Walk::new(&*file, "base.scan", store, begin)?;
        let mut lose = |offset, end| {
            tracing::error!(path = %path.display(), offset, end, "a list of saved pages is damaged");
            lost.push(LostList { number, offset, end, upto: Seq::ZERO });
        };
        let end = loop {
            match walk.step()? {
                Step::Sealed => break None,
                Step::Gap { offset, end } => lose(offset, end),
                Step::End(offset) if offset < upto => {
                    lose(offset, upto);
                    break Some(upto);
                }
                Step::End(offset) => break Some(offset),
                Step::Batch { offset, entries } => {
                    if !walk.is_whole(offset, &entries)? {
                        if offset >= upto && !walk.goes_on()? {
                            break Some(offset);
                        }
                        // Who reads the page that is damaged is told so.
                        tracing::error!(path = %path.display(), offset, "a saved page is damaged");
                    }
                    index.put_base(&located(&entries, number, offset))?;
                    each(&entries);
                }
            }
        };
        // What is older was closed, or an earlier build left it.
        if let Some(end) = end.filter(|_| number >= durable.0) {
            match seal(&*file, store, end) {
                // What is torn behind it then is taken for damage, if anything; there is nothing of it.
                Err(error) if error.is(libc::ENOSPC) => {
                    tracing::warn!(%error, "a base file is not closed");
                }
                sealed => sealed?,
            }
        }
        // What was read may stand in the page cache only; it is relied on from now on.
        file.sync("base.scan")?;
    }
    Ok(lost)
}

/// What is damaged in base files, each with its place. Reads all of them, and changes nothing: what a crash has torn, or a
/// daemon is about to write behind `durable`, is no damage.
pub fn check(disk: &dyn Disk, paths: &Paths, store: StoreId, durable: (u64, u64)) -> Result<Vec<Error>> {
    let mut found = Vec::new();
    for number in list(disk, paths)? {
        let path = file_path(&paths.base_dir(), number);
        let file = match disk.open("base.check", &path, OpenHow::default()) {
            // It was pruned a moment ago.
            Err(error) if error.is(libc::ENOENT) => continue,
            file => file?,
        };
        let upto = if number == durable.0 { durable.1 } else { 0 };
        let mut walk = Walk::new(&*file, "base.check", store, 0)?;
        let mut damaged = |what: &str, offset| {
            found.push(Error::corrupt("base.check", what).at(&path).offset(offset));
        };
        loop {
            match walk.step()? {
                Step::Gap { offset, .. } => damaged("a list of saved pages is damaged", offset),
                Step::End(offset) if offset < upto => {
                    damaged("a list of saved pages is damaged", offset);
                    break;
                }
                Step::Sealed | Step::End(_) => break,
                Step::Batch { offset, entries } => {
                    let pages = walk.not_whole(offset, &entries)?;
                    if !pages.is_empty() && (offset < upto || walk.goes_on()?) {
                        pages.into_iter().for_each(|at| damaged("a saved page is damaged", at));
                    }
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::sync::Arc;
    use crate::types::{FileId, PageNo};
    use std::path::Path;

    const STORE: StoreId = StoreId([3; 16]);

    fn file() -> Arc<dyn DiskFile> {
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        SimDisk::new(1).open("test", Path::new("/base"), how).unwrap()
    }

    /// Writes a batch of pages that begin with `first`; where the next one goes. `tells`: where it stands, as this build
    /// does.
    fn batch(file: &dyn DiskFile, offset: u64, (first, count): (u64, u64), tells: bool) -> u64 {
        let bytes = |page: u64| vec![page as u8; PAGE_LEN];
        let entry = |page| BaseEntry {
            file: FileId(9),
            adopted: Seq(2),
            page: PageNo(page),
            crc: crc32fast::hash(&bytes(page)),
        };
        let entries: Vec<BaseEntry> = (first..first + count).map(entry).collect();
        let at = if tells { offset / PAGE } else { 0 };
        file.write_at("test", &encode_header(STORE, at, &entries), offset).unwrap();
        for (page, ahead) in (first..first + count).zip(1..) {
            file.write_at("test", &bytes(page), offset + ahead * PAGE).unwrap();
        }
        offset + (count + 1) * PAGE
    }

    /// First pages of the batches, `None` for gaps; how it ends.
    fn walk(file: &dyn DiskFile) -> (Vec<Option<u64>>, Step) {
        let mut walk = Walk::new(file, "test", STORE, 0).unwrap();
        let mut found = Vec::new();
        loop {
            match walk.step().unwrap() {
                Step::Batch { entries, .. } => found.push(Some(entries[0].page.0)),
                Step::Gap { .. } => found.push(None),
                end => return (found, end),
            }
        }
    }

    #[test]
    fn what_stands_behind_a_damaged_list_is_found() {
        for tells in [true, false] {
            for damaged in 0..3 {
                let file = file();
                let mut places = vec![0];
                for first in [10, 20, 30] {
                    let at = places[places.len() - 1];
                    places.push(batch(&*file, at, (first, 3), tells));
                }
                seal(&*file, STORE, places[3]).unwrap();
                assert_eq!(walk(&*file), (vec![Some(10), Some(20), Some(30)], Step::Sealed));
                file.write_at("test", &[0; 512], places[damaged]).unwrap();
                let mut expected = vec![Some(10), Some(20), Some(30)];
                expected[damaged] = None;
                assert_eq!(walk(&*file), (expected, Step::Sealed), "{damaged}, {tells}");
            }
        }
    }

    #[test]
    fn without_a_seal_the_last_list_may_be_torn() {
        let file = file();
        let at = batch(&*file, 0, (10, 3), true);
        let end = batch(&*file, at, (20, 3), true);
        assert_eq!(walk(&*file), (vec![Some(10), Some(20)], Step::End(end)));
        file.write_at("test", &[1; 512], at).unwrap();
        assert_eq!(walk(&*file), (vec![Some(10)], Step::End(at)));
    }

    /// A database may hold a copy of a base file, which is saved page by page like anything else.
    #[test]
    fn a_saved_page_that_looks_like_a_header_is_none() {
        let (file, other) = (file(), encode_header(STORE, 77, &[]));
        let entry = BaseEntry { file: FileId(1), adopted: Seq(1), page: PageNo(5), crc: 7 };
        let old = encode_header(STORE, 0, &[entry; 100]);
        let end = batch(&*file, 0, (10, 2), true);
        file.write_at("test", &other, PAGE).unwrap();
        file.write_at("test", &old, 2 * PAGE).unwrap();
        seal(&*file, STORE, end).unwrap();
        assert_eq!(walk(&*file), (vec![Some(10)], Step::Sealed));
        file.write_at("test", &[0; 512], 0).unwrap();
        let mut walk = Walk::new(&*file, "test", STORE, 0).unwrap();
        assert_eq!(walk.step().unwrap(), Step::Gap { offset: 0, end });
    }
}
