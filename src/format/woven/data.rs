//! Versions of pages, in a piece: neighbours by file, page and Seq stand behind each other, and each is either there
//! as it is or as what differs from the ones before it.
//!
//! - A version is the part of one write that lies in one page.
//! - A *chain* is up to [`CHAIN_MAX`] versions of one page: the first stands as it is, so reading any version reads at
//!   most that many records, all in one piece. What a version is compared with is the page as the chain has made it so
//!   far, from zeros on.
//! - What differs is a list of runs: bytes to skip, bytes that follow.

use crate::error::{Error, Result};
use crate::format::codec::{Reader, put_varint};
use crate::types::{FileId, PAGE_LEN, PageNo};

/// Records that reading a version touches at most.
pub const CHAIN_MAX: usize = 8;
/// Records in a piece at most.
pub const RECORDS_MAX: usize = 1024;
/// Equal bytes between two runs that are cheaper to repeat than to skip.
const GAP: usize = 6;

const LEADS: u8 = 1;
const RUNS: u8 = 2;
const WHOLE: u8 = 4;

type Canvas = [u8; PAGE_LEN];

/// Puts versions into a piece.
pub struct DataWriter {
    heads: Vec<u8>,
    bytes: Vec<u8>,
    count: usize,
    chain: usize,
    page: Option<(FileId, PageNo)>,
    canvas: Box<Canvas>,
    runs: Vec<u8>,
}

impl Default for DataWriter {
    fn default() -> DataWriter {
        DataWriter::new()
    }
}

impl DataWriter {
    pub fn new() -> DataWriter {
        DataWriter {
            heads: Vec::new(),
            bytes: Vec::new(),
            count: 0,
            chain: 0,
            page: None,
            canvas: Box::new([0; PAGE_LEN]),
            runs: Vec::new(),
        }
    }

    /// Records so far: the number of the next one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes so far.
    pub fn len_bytes(&self) -> usize {
        self.heads.len() + self.bytes.len()
    }

    /// Adds the version `bytes` that begins at byte `start` of a page. Versions of one page come one after the other,
    /// oldest first.
    pub fn push(&mut self, page: (FileId, PageNo), start: usize, bytes: &[u8]) -> Result<()> {
        let beyond = || Error::invalid("woven.write", "a version beyond its page");
        let range = start..start.checked_add(bytes.len()).ok_or_else(beyond)?;
        let leads = self.page != Some(page) || self.chain >= CHAIN_MAX;
        if leads {
            (self.page, self.chain) = (Some(page), 0);
            self.canvas.fill(0);
        }
        self.runs.clear();
        let before = self.canvas.get_mut(range).filter(|part| !part.is_empty()).ok_or_else(beyond)?;
        if !leads {
            put_runs(before, bytes, &mut self.runs);
        }
        before.copy_from_slice(bytes);
        let runs = !leads && self.runs.len() < bytes.len();
        let stored = if runs { &self.runs[..] } else { bytes };
        let whole = start == 0 && bytes.len() == PAGE_LEN;
        let flags = [(LEADS, leads), (RUNS, runs), (WHOLE, whole)];
        self.heads.push(flags.iter().map(|(flag, on)| if *on { *flag } else { 0 }).sum());
        if !whole {
            put_varint(&mut self.heads, start as u64);
            put_varint(&mut self.heads, bytes.len() as u64);
        }
        put_varint(&mut self.heads, stored.len() as u64);
        self.bytes.extend_from_slice(stored);
        self.chain += 1;
        self.count += 1;
        Ok(())
    }

    /// The contents of the piece; then it is empty.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len_bytes() + 4);
        put_varint(&mut out, self.count as u64);
        out.append(&mut self.heads);
        out.append(&mut self.bytes);
        (self.count, self.page) = (0, None);
        out
    }
}

fn put_runs(before: &[u8], after: &[u8], out: &mut Vec<u8>) {
    let differs = |at: usize| before.get(at) != after.get(at);
    let (mut at, mut done) = (0, 0);
    while at < after.len() {
        if !differs(at) {
            at += 1;
            continue;
        }
        let (start, mut end) = (at, at + 1);
        at = end;
        while at < after.len() && at - end < GAP {
            at += 1;
            if differs(at - 1) {
                end = at;
            }
        }
        put_varint(out, (start - done) as u64);
        put_varint(out, (end - start) as u64);
        out.extend_from_slice(after.get(start..end).unwrap_or(&[]));
        (at, done) = (end, end);
    }
}

#[derive(Clone, Copy)]
struct Head {
    leads: bool,
    runs: bool,
    start: u32,
    len: u32,
    /// Where its bytes stand in the piece.
    at: u32,
    stored: u32,
}

/// A piece, taken apart.
pub struct Data {
    heads: Vec<Head>,
    raw: Vec<u8>,
}

fn damaged(what: &str) -> Error {
    Error::corrupt("woven.read", format!("a piece of page versions is damaged: {what}"))
}

impl Data {
    pub fn decode(raw: Vec<u8>) -> Result<Data> {
        let mut reader = Reader::new(&raw, "woven versions");
        let count = reader.varint()?;
        if count > RECORDS_MAX as u64 {
            return Err(damaged("too many records"));
        }
        let mut heads: Vec<Head> = Vec::with_capacity(count as usize);
        let (mut chain, mut at) = (0, 0u32);
        for _ in 0..count {
            let flags = reader.byte()?;
            let (start, len) = match flags & WHOLE {
                0 => (reader.varint32()?, reader.varint32()?),
                _ => (0, PAGE_LEN as u32),
            };
            let stored = reader.varint32()?;
            let (leads, runs) = (flags & LEADS != 0, flags & RUNS != 0);
            chain = if leads { 1 } else { chain + 1 };
            let fits = len > 0 && start.checked_add(len).is_some_and(|end| end as usize <= PAGE_LEN);
            let stored_fits = if runs { stored < len } else { stored == len };
            let in_chain = chain <= CHAIN_MAX && (leads || !heads.is_empty()) && !(leads && runs);
            if !fits || !stored_fits || !in_chain {
                return Err(damaged("an impossible record"));
            }
            heads.push(Head { leads, runs, start, len, at, stored });
            at += stored;
        }
        if reader.remaining() != at as usize {
            return Err(damaged("its length"));
        }
        let base = (raw.len() - at as usize) as u32;
        heads.iter_mut().for_each(|head| head.at += base);
        Ok(Data { heads, raw })
    }

    /// Bytes in memory.
    pub fn weight(&self) -> usize {
        self.raw.len() + self.heads.len() * size_of::<Head>()
    }

    /// Copies the version of record `index`, from its byte `skip` on, into `out`.
    pub fn read(&self, index: usize, skip: usize, out: &mut [u8]) -> Result<()> {
        let upto = self.heads.get(..=index).ok_or_else(|| damaged("a record is missing"))?;
        let first = upto.iter().rposition(|head| head.leads).unwrap_or(0);
        let mut canvas: Canvas = [0; PAGE_LEN];
        let mut version = 0..0;
        for head in upto.get(first..).unwrap_or(&[]) {
            let (start, at) = (head.start as usize, head.at as usize);
            version = start..start + head.len as usize;
            let stored = self.raw.get(at..at + head.stored as usize);
            let target = canvas.get_mut(version.clone());
            let (Some(stored), Some(target)) = (stored, target) else { return Err(damaged("a record")) };
            match head.runs {
                true => apply_runs(stored, target)?,
                false => target.copy_from_slice(stored),
            }
        }
        let wanted = canvas.get(version).and_then(|version| version.get(skip..skip.checked_add(out.len())?));
        out.copy_from_slice(wanted.ok_or_else(|| damaged("a record is shorter than its place says"))?);
        Ok(())
    }
}

fn apply_runs(stored: &[u8], target: &mut [u8]) -> Result<()> {
    let mut reader = Reader::new(stored, "woven version");
    let mut at = 0usize;
    while reader.remaining() > 0 {
        let skip = reader.varint32()? as usize;
        let bytes = reader.bytes()?;
        let start = at.saturating_add(skip);
        at = start.saturating_add(bytes.len());
        target.get_mut(start..at).ok_or_else(|| damaged("a run beyond its version"))?.copy_from_slice(bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Versions of a few pages: mostly small changes of what was there.
    fn versions() -> impl Strategy<Value = Vec<(u64, usize, Vec<u8>)>> {
        let change = (0usize..PAGE_LEN, 1usize..300, any::<u8>());
        let version = (0u64..3, any::<bool>(), prop::collection::vec(change, 0..5), 0usize..4000, 1usize..96);
        prop::collection::vec(version, 1..60).prop_map(|made| {
            let mut pages = vec![vec![0u8; PAGE_LEN]; 3];
            let mut versions: Vec<(u64, usize, Vec<u8>)> = Vec::new();
            for (page, whole, changes, start, len) in made {
                let bytes = &mut pages[page as usize];
                for (at, len, fill) in changes {
                    let end = (at + len).min(PAGE_LEN);
                    bytes[at..end].iter_mut().enumerate().for_each(|(i, byte)| *byte = fill ^ i as u8);
                }
                let range = if whole { 0..PAGE_LEN } else { start..start + len };
                versions.push((page, range.start, bytes[range].to_vec()));
            }
            versions.sort_by_key(|version| version.0);
            versions
        })
    }

    fn write(versions: &[(u64, usize, Vec<u8>)]) -> Vec<u8> {
        let mut writer = DataWriter::new();
        for (page, start, bytes) in versions {
            writer.push((FileId(9), PageNo(*page)), *start, bytes).unwrap();
        }
        writer.finish()
    }

    proptest! {
        #[test]
        fn every_version_comes_back(versions in versions(), skip in 0usize..8) {
            let data = Data::decode(write(&versions)).unwrap();
            for (index, (_, _, bytes)) in versions.iter().enumerate() {
                let skip = skip.min(bytes.len() - 1);
                let mut out = vec![0; bytes.len() - skip];
                data.read(index, skip, &mut out).unwrap();
                prop_assert_eq!(&out[..], &bytes[skip..]);
                let mut longer = vec![0; bytes.len() + 1];
                prop_assert!(data.read(index, 0, &mut longer).is_err());
            }
            prop_assert!(data.read(versions.len(), 0, &mut [0]).is_err());
        }

        #[test]
        fn damage_is_survived(versions in versions(), at: prop::sample::Index, byte: u8, cut: bool) {
            let mut raw = write(&versions);
            let at = at.index(raw.len());
            if cut { raw.truncate(at) } else { raw[at] = byte }
            if let Ok(data) = Data::decode(raw) {
                for index in 0..versions.len() {
                    let _ = data.read(index, 0, &mut [0; 64]);
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(raw in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(data) = Data::decode(raw) {
                (0..8).for_each(|index| drop(data.read(index, 0, &mut [0; 16])));
            }
        }
    }

    #[test]
    fn a_small_change_is_small_and_chains_are_bounded() {
        let mut writer = DataWriter::new();
        let mut page: Vec<u8> = (0..PAGE_LEN).map(|at| (at * at % 251) as u8).collect();
        for change in 0..CHAIN_MAX * 2 {
            page[100 + change] ^= 0x55;
            writer.push((FileId(1), PageNo(0)), 0, &page).unwrap();
        }
        assert!(writer.len_bytes() < 2 * PAGE_LEN + 16 * CHAIN_MAX, "{}", writer.len_bytes());
        let data = Data::decode(writer.finish()).unwrap();
        let leads: Vec<usize> = (0..data.heads.len()).filter(|index| data.heads[*index].leads).collect();
        assert_eq!(leads, [0, CHAIN_MAX]);
        assert_eq!(writer.count(), 0);
    }

    #[test]
    fn versions_beyond_a_page_are_refused() {
        let mut writer = DataWriter::new();
        assert!(writer.push((FileId(1), PageNo(0)), 4000, &[0; 97]).is_err());
        assert!(writer.push((FileId(1), PageNo(0)), 0, &[]).is_err());
    }
}
