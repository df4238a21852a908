//! What a file held before Weft: adoptions, and the pre-images saved of them.
//!
//! - [`Space::Adopt`]: (file, descending Seq) -> size and inode of what was adopted.
//! - [`Space::Base`]: (file, adoption, page) -> where the page's pre-image stands. The first one put stays.

use super::build::Build;
use super::codec::{Reader, location_tag, put_ascending, put_location, put_seq, put_varint, read_location};
use super::kv::{Batch, Kv, Space};
use super::lookup::end_with_seq;
use super::scan::behind;
use crate::error::Result;
use crate::types::{FileId, Location, PageNo, Seq};
use std::collections::HashSet;
use std::ops::RangeInclusive;

const ADOPTION: u8 = 1;
const PAIRS_AT_ONCE: usize = 1024;

/// Stands for the inode where a file came to rest.
const AT_REST: u64 = u64::MAX;

/// A file's bytes at `seq` are its base: nothing older shows from then on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adoption {
    pub seq: Seq,
    /// Bytes in the base; beyond it zeros.
    pub size: u64,
    pub inode: u64,
}

/// Which page of which adoption.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BasePage {
    pub file: FileId,
    pub adoption: Seq,
    pub page: PageNo,
}

/// Where a pre-image stands, and the checksum of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BaseRecord {
    pub location: Location,
    pub crc: u32,
}

/// Records an adoption.
pub(super) fn record(build: &mut Build<'_>, file: FileId, seq: Seq, size: u64, inode: u64) {
    put_adoption(&mut build.batch, file, seq, size, inode);
}

fn put_adoption(batch: &mut Batch, file: FileId, seq: Seq, size: u64, inode: u64) {
    let mut key = Vec::with_capacity(20);
    put_ascending(&mut key, file.0);
    put_seq(&mut key, seq);
    let mut value = vec![ADOPTION];
    put_varint(&mut value, size);
    put_varint(&mut value, inode);
    batch.put(Space::Adopt, key, value);
}

/// A file came to rest: its bytes are the same as before.
pub(super) fn put_rest(batch: &mut Batch, file: FileId, seq: Seq, size: u64) {
    put_adoption(batch, file, seq, size, AT_REST);
}

/// Whether other bytes became the base of a file in `(after, upto]`.
pub(super) fn renewed(kv: &dyn Kv, file: FileId, (after, upto): (Seq, Seq)) -> Result<bool> {
    let mut at = upto;
    while let Some(found) = adoption(kv, file, at)?.filter(|found| found.seq > after) {
        if found.inode != AT_REST {
            return Ok(true);
        }
        at = Seq(found.seq.0 - 1);
    }
    Ok(false)
}

/// The adoption that holds at an instant.
pub(super) fn adoption(kv: &dyn Kv, file: FileId, at: Seq) -> Result<Option<Adoption>> {
    let mut from = Vec::with_capacity(20);
    put_ascending(&mut from, file.0);
    let end = behind(&from);
    put_seq(&mut from, at);
    let Some((key, value)) = kv.first(Space::Adopt, &from, &end)? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&key);
    reader.ascending()?;
    let (_, seq) = end_with_seq(&key, reader)?;
    let mut reader = Reader::new(&value);
    reader.expect_tag(ADOPTION)?;
    let (size, inode) = (reader.varint()?, reader.varint()?);
    reader.finish()?;
    Ok(Some(Adoption { seq, size, inode }))
}

/// Puts records for pages that have none. Callers take turns.
pub(super) fn put(kv: &dyn Kv, records: &[(BasePage, BaseRecord)]) -> Result<()> {
    let mut batch = Batch::default();
    let mut seen = HashSet::with_capacity(records.len());
    for (page, record) in records {
        let key = base_key(page.file, page.adoption, page.page);
        if !seen.insert(page) || kv.get(Space::Base, &key)?.is_some() {
            continue;
        }
        let mut value = Vec::with_capacity(16);
        value.push(location_tag(&record.location));
        put_varint(&mut value, u64::from(record.crc));
        put_location(&mut value, &record.location);
        batch.put(Space::Base, key, value);
    }
    match batch.puts.is_empty() {
        true => Ok(()),
        false => kv.commit(batch),
    }
}

/// Removes the records of pages.
pub(super) fn forget(kv: &dyn Kv, pages: &[BasePage]) -> Result<()> {
    let removals: HashSet<_> =
        pages.iter().map(|page| base_key(page.file, page.adoption, page.page)).collect();
    let removals = removals.into_iter().map(|key| (Space::Base, key)).collect();
    kv.commit(Batch { removals, ..Batch::default() })
}

/// The record of one page.
pub(super) fn get(kv: &dyn Kv, page: BasePage) -> Result<Option<BaseRecord>> {
    let value = kv.get(Space::Base, &base_key(page.file, page.adoption, page.page))?;
    value.map(|value| read(&value)).transpose()
}

/// The records of a range of pages, in order; pages without one are left out.
pub(super) fn range(
    kv: &dyn Kv,
    file: FileId,
    adoption: Seq,
    pages: RangeInclusive<PageNo>,
) -> Result<Vec<(PageNo, BaseRecord)>> {
    let mut found = Vec::new();
    let mut from = base_key(file, adoption, *pages.start());
    let mut end = base_key(file, adoption, *pages.end());
    end.push(0);
    loop {
        let pairs = kv.range(Space::Base, &from, &end, PAIRS_AT_ONCE)?;
        for (key, value) in &pairs {
            found.push((page_of(key)?, read(value)?));
        }
        match pairs.into_iter().nth(PAIRS_AT_ONCE - 1) {
            Some((mut last, _)) => {
                last.push(0);
                from = last;
            }
            None => return Ok(found),
        }
    }
}

/// Whether a pre-image stands in a base file at or behind an offset.
pub(super) fn leads_behind(kv: &dyn Kv, number: u64, offset: u64) -> Result<bool> {
    let mut from = Vec::new();
    loop {
        let pairs = kv.range(Space::Base, &from, &[0xff], PAIRS_AT_ONCE)?;
        for (_, value) in &pairs {
            match read(value)?.location {
                Location::Base { number: there, offset: at } if there == number && at >= offset => {
                    return Ok(true);
                }
                _ => {}
            }
        }
        match pairs.into_iter().nth(PAIRS_AT_ONCE - 1) {
            Some((mut last, _)) => {
                last.push(0);
                from = last;
            }
            None => return Ok(false),
        }
    }
}

fn base_key(file: FileId, adoption: Seq, page: PageNo) -> Vec<u8> {
    let mut key = Vec::with_capacity(28);
    put_ascending(&mut key, file.0);
    put_ascending(&mut key, adoption.0);
    put_ascending(&mut key, page.0);
    key
}

fn page_of(key: &[u8]) -> Result<PageNo> {
    let mut reader = Reader::new(key);
    reader.ascending()?;
    reader.ascending()?;
    let page = PageNo(reader.ascending()?);
    reader.finish()?;
    Ok(page)
}

fn read(value: &[u8]) -> Result<BaseRecord> {
    let mut reader = Reader::new(value);
    let tag = reader.byte()?;
    let crc = reader.small()?;
    let location = read_location(tag, &mut reader)?;
    reader.finish()?;
    Ok(BaseRecord { location, crc })
}

#[cfg(test)]
mod tests {
    use super::super::mem::MemKv;
    use super::*;

    fn base(page: u64, number: u64) -> (BasePage, BaseRecord) {
        let place = BasePage { file: FileId(3), adoption: Seq(9), page: PageNo(page) };
        let location = Location::Base { number, offset: page * 4096 };
        let crc = u32::MAX;
        (place, BaseRecord { location, crc })
    }

    #[test]
    fn the_first_record_stays() {
        let kv = MemKv::new();
        put(&kv, &[base(1, 1), base(300, 1), base(1, 2)]).unwrap();
        put(&kv, &[base(300, 2), base(2, 2)]).unwrap();
        let found = range(&kv, FileId(3), Seq(9), PageNo(1)..=PageNo(300)).unwrap();
        let expected = [base(1, 1), base(2, 2), base(300, 1)];
        assert_eq!(found, expected.map(|(place, record)| (place.page, record)));
        assert_eq!(get(&kv, base(300, 0).0).unwrap(), Some(base(300, 1).1));
        assert_eq!(get(&kv, base(3, 0).0).unwrap(), None);
        let none = range(&kv, FileId(3), Seq(9), PageNo(3)..=PageNo(299)).unwrap();
        assert_eq!(none, []);
    }

    #[test]
    fn more_records_than_one_round() {
        let kv = MemKv::new();
        let records: Vec<_> = (0..3000).map(|page| base(page, 1)).collect();
        put(&kv, &records).unwrap();
        let found = range(&kv, FileId(3), Seq(9), PageNo(10)..=PageNo(2999)).unwrap();
        assert_eq!(found.len(), 2990);
        assert!(leads_behind(&kv, 1, 2999 * 4096).unwrap());
        assert!(!leads_behind(&kv, 1, 2999 * 4096 + 1).unwrap() && !leads_behind(&kv, 2, 0).unwrap());
    }
}
