//! L4: versions of pages, names and attributes, by Seq.
//!
//! - Derived: every entry follows from one event of the journal (or from a durable record elsewhere), so the whole may
//!   be deleted and built anew at any time. Nothing here is a source of truth.
//! - One batch takes in whole groups together with the watermark, so the index is always that of a prefix of the journal.
//!   An event is recorded once: what stands at or before the watermark is skipped.
//! - A lookup at a Seq at or before the watermark that stood when it began is exact, also while a batch is being
//!   committed: what a batch adds lies behind that watermark.
//! - One event changes no entry of another: entries are never overwritten but the watermark and the level masks.

mod apply;
mod attr;
mod base;
mod build;
mod codec;
mod composed;
mod counts;
mod cover;
mod data;
mod history;
mod holes;
pub mod kv;
mod levels;
mod lookup;
mod lost;
pub mod lsm;
pub mod mem;
mod memory;
mod name;
mod naming;
mod page;
mod pin;
mod scan;
mod state;
mod time;
mod written;
mod xattr;

#[cfg(test)]
mod lsm_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use base::{Adoption, BasePage, BaseRecord};
pub use data::{Brought, Change};
pub use history::{Did, Happened};
pub use lookup::{BULK_PAGES, FullVersion, PageVersion, PartialVersion};
pub use lost::LostList;
pub use name::{DirEntry, NamePast, ROOTS};
pub use naming::{Named, Naming};
pub use page::{COMPOSE_AFTER, Compose, advance};
pub use state::Watermark;
pub use time::{GroupPlace, Session};

use crate::error::Result;
use crate::format::event::Record;
use crate::sync::{Arc, Mutex, RwLock};
use crate::types::{
    Attr, FileId, FileKind, Location, Name, PageNo, PageSet, SegmentNo, Seq, StoreId, Timestamp,
};
use build::Build;
use kv::Kv;
use levels::Levels;
use lookup::Window;
use memory::Memory;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A group of the journal, decoded: a write's bytes stand at `offset` plus its payload's offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexedGroup {
    pub segment: SegmentNo,
    /// Byte offset of the group in its segment.
    pub offset: u64,
    /// Its events, in order.
    pub records: Vec<Record>,
    /// Those of its writes of which no byte is kept any more (pruned), rising: the sizes that they left count, their
    /// pages do not.
    pub pruned: Vec<Seq>,
}

/// A write of which not all pages are needed as it left them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unneeded {
    pub file: FileId,
    pub seq: Seq,
    /// First byte, the byte behind the last, bytes in the file after.
    pub range: (u64, u64, u64),
    /// Those that are.
    pub needed: Vec<PageNo>,
}

/// The index. Any number of threads may look up while others write; writers take turns.
pub struct Index {
    kv: Arc<dyn Kv>,
    levels: Levels,
    watermark: RwLock<Watermark>,
    writer: Mutex<Memory>,
}

impl Index {
    /// Opens the index in a store, or begins one. Kind `Version`, `Mismatch` or `Corrupt`: it is of no use; delete it and
    /// index the journal anew.
    pub fn open(kv: Arc<dyn Kv>, store: StoreId) -> Result<Index> {
        let watermark = state::open(&*kv, store)?;
        Ok(Index {
            kv,
            levels: Levels::default(),
            watermark: RwLock::new(watermark),
            writer: Mutex::new(Memory::default()),
        })
    }

    /// How far the index reaches: lookups at or before its Seq are exact.
    pub fn watermark(&self) -> Watermark {
        *self.watermark.read()
    }

    /// Takes in groups that follow the watermark, in order, as one batch. `watermark` is the place behind them. Events
    /// at or before the present watermark are skipped. Tells which pages to compose, oldest first. After an error
    /// all of the batch stands or nothing.
    pub fn apply(&self, groups: &[IndexedGroup], watermark: Watermark) -> Result<Vec<Compose>> {
        let mut memory = self.writer.lock();
        self.make_sure(&mut memory)?;
        let done = self.apply_locked(groups, watermark, &mut memory);
        if done.is_err() {
            memory.forget();
        }
        memory.trim();
        done
    }

    /// Finds out how far the index reaches, after a commit that failed: its batch may have come in all the same.
    fn make_sure(&self, memory: &mut Memory) -> Result<()> {
        if memory.unsure {
            self.levels.empty();
            let watermark = state::watermark(&*self.kv)?;
            *self.watermark.write() = watermark;
            memory.unsure = false;
        }
        Ok(())
    }

    fn apply_locked(
        &self,
        groups: &[IndexedGroup],
        watermark: Watermark,
        memory: &mut Memory,
    ) -> Result<Vec<Compose>> {
        let known = self.watermark();
        if watermark.seq <= known.seq {
            return Ok(Vec::new());
        }
        let mut build = Build::new(&*self.kv, &self.levels, memory, known);
        for group in groups {
            apply::record_group(&mut build, group, known.seq)?;
        }
        let watermark = Watermark { epoch: build.epoch, ..watermark };
        state::record(&mut build.batch, &watermark);
        let composes = build.commit()?;
        *self.watermark.write() = watermark;
        Ok(composes)
    }

    /// Adds full versions of pages composed as of a Seq: the bytes of the page with everything up to that Seq. They
    /// stand in a file that can be built anew, so they are lost with the index.
    pub fn put_composed(&self, pages: &[(Compose, Location)]) -> Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let mut memory = self.writer.lock();
        self.make_sure(&mut memory)?;
        let mut build = Build::new(&*self.kv, &self.levels, &mut memory, self.watermark());
        for (compose, location) in pages {
            page::record_composed(&mut build, *compose, *location)?;
        }
        let done = build.commit().map(|_| ());
        if done.is_err() {
            memory.forget();
        }
        done
    }

    /// The versions that make up a page at `at`. Versions at or before `floor` (the file's adoption; zero without one)
    /// are not seen.
    pub fn page(&self, file: FileId, page: PageNo, at: Seq, floor: Seq) -> Result<PageVersion> {
        let mask = self.levels.of(&*self.kv, file)?;
        lookup::page(&*self.kv, mask, file, page, Window { at, floor })
    }

    /// [`Index::page`] of every page of a range, at most [`BULK_PAGES`]: cheaper than one by one.
    pub fn pages(
        &self,
        file: FileId,
        pages: RangeInclusive<PageNo>,
        at: Seq,
        floor: Seq,
    ) -> Result<Vec<PageVersion>> {
        let mask = self.levels.of(&*self.kv, file)?;
        lookup::pages(&*self.kv, mask, file, pages, Window { at, floor })
    }

    /// The versions that a page shows bytes of at `at`, as they were written: no composed pages.
    pub fn written_page(&self, file: FileId, page: PageNo, at: Seq, floor: Seq) -> Result<PageVersion> {
        let mask = self.levels.of(&*self.kv, file)?;
        written::page(&*self.kv, mask, file, page, Window { at, floor })
    }

    /// Forgets what writes left of pages that nobody needs as of those writes any more; idempotent.
    pub fn forget(&self, unneeded: &[Unneeded]) -> Result<()> {
        let mut removals = Vec::new();
        for write in unneeded {
            let needed = |page: PageNo| write.needed.contains(&page);
            written::keys_of(write.file, write.seq, write.range, &needed, &mut removals);
        }
        if removals.is_empty() {
            return Ok(());
        }
        removals.sort_unstable();
        removals.dedup();
        let _turn = self.writer.lock();
        self.kv.commit(kv::Batch { removals, ..kv::Batch::default() })
    }

    /// Of each page file that has some, the pages that some version leads to. `go_on` is asked now and then with the bytes
    /// that were read; `None` when it says no.
    pub fn composed(&self, go_on: impl FnMut(u64) -> bool) -> Result<Option<BTreeMap<u64, PageSet>>> {
        composed::composed(&*self.kv, go_on)
    }

    /// How many pages of a file hold data, `size` being its bytes at that instant. The others are holes.
    pub fn data_pages(&self, file: FileId, at: Seq, size: u64) -> Result<u64> {
        let mask = self.levels.of(&*self.kv, file)?;
        holes::count(&*self.kv, mask, file, at, size)
    }

    /// The next byte at or after `offset` that is data or in a hole, by pages, as lseek(2) has it; `size`: the file's bytes
    /// at that instant.
    pub fn seek(&self, file: FileId, at: Seq, offset: u64, size: u64, hole: bool) -> Result<Option<u64>> {
        let mask = self.levels.of(&*self.kv, file)?;
        holes::seek(&*self.kv, mask, file, at, (offset, size, hole))
    }

    /// The attributes of a file; `None` before its birth. A file without names (`nlink == 0`) still has them.
    pub fn attr(&self, file: FileId, at: Seq) -> Result<Option<Attr>> {
        attr::attr(&*self.kv, file, at)
    }

    /// The target of a symlink; `None` for anything else.
    pub fn symlink_target(&self, file: FileId, at: Seq) -> Result<Option<Vec<u8>>> {
        attr::symlink_target(&*self.kv, file, at)
    }

    /// The extended attributes of a file, in byte order of names.
    pub fn xattrs(&self, file: FileId, at: Seq) -> Result<Vec<(Name, Vec<u8>)>> {
        xattr::xattrs(&*self.kv, file, at)
    }

    /// What a name in a directory stands for.
    pub fn lookup(&self, dir: FileId, name: &[u8], at: Seq) -> Result<Option<(FileId, FileKind)>> {
        name::lookup(&*self.kv, dir, name, at)
    }

    /// The directory of a root beside DATA; `None` when the set did not have it.
    pub fn root(&self, name: &[u8], at: Seq) -> Result<Option<FileId>> {
        Ok(name::lookup(&*self.kv, name::ROOTS, name, at)?.map(|(file, _)| file))
    }

    /// Up to `limit` entries with names after `after`, in byte order.
    pub fn read_dir(
        &self,
        dir: FileId,
        after: Option<&[u8]>,
        limit: usize,
        at: Seq,
    ) -> Result<Vec<DirEntry>> {
        name::read_dir(&*self.kv, dir, after, limit, at)
    }

    /// The adoption of a file that holds at an instant: its base, and the floor of its versions.
    pub fn adoption(&self, file: FileId, at: Seq) -> Result<Option<Adoption>> {
        base::adoption(&*self.kv, file, at)
    }

    /// A file comes to rest: its bytes as of an instant are its base, and its versions from before do not count any more.
    /// Idempotent.
    pub fn put_rest(&self, file: FileId, seq: Seq, size: u64) -> Result<()> {
        if base::adoption(&*self.kv, file, seq)?.is_some_and(|known| known.seq == seq) {
            return Ok(());
        }
        let _turn = self.writer.lock();
        let mut batch = kv::Batch::default();
        base::put_rest(&mut batch, file, seq, size);
        self.kv.commit(batch)
    }

    /// Whether a file had a page without data at any Seq.
    pub fn had_holes(&self, file: FileId) -> Result<bool> {
        Ok(self.levels.of(&*self.kv, file)? & levels::HOLES != 0)
    }

    /// Adds pre-images. Of two for one page the first put stays.
    pub fn put_base(&self, records: &[(BasePage, BaseRecord)]) -> Result<()> {
        let _turn = self.writer.lock();
        base::put(&*self.kv, records)
    }

    /// Forgets pre-images that nobody needs any more; idempotent.
    pub fn forget_bases(&self, pages: &[BasePage]) -> Result<()> {
        let _turn = self.writer.lock();
        base::forget(&*self.kv, pages)
    }

    /// Whether a pre-image stands in a base file at or behind an offset. Looks at all there are.
    pub fn leads_behind(&self, number: u64, offset: u64) -> Result<bool> {
        base::leads_behind(&*self.kv, number, offset)
    }

    /// Notes lists of saved pages that could not be taken in. Idempotent.
    pub fn put_lost_lists(&self, lost: &[LostList]) -> Result<()> {
        let _turn = self.writer.lock();
        lost::put(&*self.kv, lost)
    }

    /// Lists of saved pages that could not be taken in.
    pub fn lost_lists(&self) -> Result<Vec<LostList>> {
        lost::all(&*self.kv)
    }

    /// The pre-image of a page, if one was saved.
    pub fn base(&self, page: BasePage) -> Result<Option<BaseRecord>> {
        base::get(&*self.kv, page)
    }

    /// The saved pre-images among a range of pages, in order.
    pub fn bases(
        &self,
        file: FileId,
        adoption: Seq,
        pages: RangeInclusive<PageNo>,
    ) -> Result<Vec<(PageNo, BaseRecord)>> {
        base::range(&*self.kv, file, adoption, pages)
    }

    /// The last group of a clock epoch that begins at or before a time.
    pub fn group_at_time(&self, epoch: u32, ts: Timestamp) -> Result<Option<GroupPlace>> {
        time::group_at_time(&*self.kv, epoch, ts)
    }

    /// What a time was pinned to: the Seq of the first pin, if there is one.
    pub fn pin(&self, at: Timestamp) -> Result<Option<Seq>> {
        pin::pin(&*self.kv, at)
    }

    /// The group that holds a Seq.
    pub fn group_of_seq(&self, seq: Seq) -> Result<Option<GroupPlace>> {
        time::group_of_seq(&*self.kv, seq)
    }

    /// The session that a Seq belongs to: how writes arrived then.
    pub fn session(&self, at: Seq) -> Result<Option<Session>> {
        time::session(&*self.kv, at)
    }

    /// Up to `limit` events of a file at or before a Seq, newest first; empty only at the end.
    pub fn history(&self, file: FileId, at: Seq, limit: usize) -> Result<Vec<Happened>> {
        history::newest(&*self.kv, file, at, limit)
    }

    /// Whether a file's content changed after one Seq, up to another.
    pub fn content_changed(&self, file: FileId, after: Seq, upto: Seq) -> Result<bool> {
        let newest = data::newest(&*self.kv, file, data::Track::Content, upto)?;
        let renewed = base::renewed(&*self.kv, file, (after, upto))?;
        Ok(renewed || newest.is_some_and(|sample| sample.seq > after))
    }

    /// Which pages of a file may differ between two Seqs, and the bytes of the events between. `None`: more than `most`, or
    /// all of them, since the file got a new base. `pages` are those known already.
    pub fn changed_pages(
        &self,
        file: FileId,
        (after, upto): (Seq, Seq),
        mut pages: PageSet,
        most: u64,
    ) -> Result<Option<(PageSet, u64)>> {
        if base::renewed(&*self.kv, file, (after, upto))? {
            return Ok(None);
        }
        let bytes = data::changed(&*self.kv, file, (after, upto), &mut pages, most)?;
        Ok(bytes.map(|bytes| (pages, bytes)))
    }

    /// What the events of a file's content brought in `(after, upto]`, the newest ones first, up to about `most` of them.
    /// `None`: it got a new base meanwhile.
    pub fn brought(&self, file: FileId, (after, upto): (Seq, Seq), most: u64) -> Result<Option<Brought>> {
        if base::renewed(&*self.kv, file, (after, upto))? {
            return Ok(None);
        }
        data::brought(&*self.kv, file, (after, upto), most).map(Some)
    }

    /// Pages of a file of which a pre-image may have been saved for an adoption up to a Seq: those that changed before all
    /// of it went to limbo at once. `None`: that cannot be told.
    pub fn may_be_saved(&self, file: FileId, adopted: Seq, upto: Seq) -> Result<Option<PageSet>> {
        if upto > self.watermark().seq || base::renewed(&*self.kv, file, (adopted, upto))? {
            return Ok(None);
        }
        data::changed_until_cut(&*self.kv, file, (adopted, upto)).map(Some)
    }

    /// Up to `limit` events of the names of a file at or before a Seq, newest first.
    pub fn naming(&self, file: FileId, at: Seq, limit: usize) -> Result<Vec<Named>> {
        naming::newest(&*self.kv, file, at, limit)
    }

    /// What a name has stood for: up to `limit` changes at or before a Seq, newest first; `None` where it was gone.
    pub fn past_of_name(&self, dir: FileId, name: &[u8], at: Seq, limit: usize) -> Result<Vec<NamePast>> {
        name::past_of(&*self.kv, dir, name, at, limit)
    }

    /// Makes everything taken in so far durable.
    pub fn persist(&self) -> Result<()> {
        self.kv.persist()
    }

    /// Bytes in use.
    pub fn size_bytes(&self) -> u64 {
        self.kv.size_bytes()
    }
}
