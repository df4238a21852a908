//! What a checkpoint holds beside the nodes: small lists, each a section with an id of its own. docs/FORMAT.md,
//! "Checkpoints". An empty list is left out; a section that is not known is refused, for it may hold what must not be
//! lost.

use super::codec::{Reader, put_bytes, put_signed, put_varint};
use super::event::Slot;
use super::fields::{get_rising, get_slot, put_rising, put_slot};
use crate::error::{Error, Kind, Result};
use crate::types::{FileId, Name, RootId, Seq, Timestamp};

const ROOTS: u64 = 1;
const TAGS: u64 = 2;
const EPOCHS: u64 = 3;
const LEASES: u64 = 4;
const EXCLUDED: u64 = 5;
const DATA_PAGES: u64 = 6;
const THINNED: u64 = 7;
const RESTED: u64 = 8;

/// One of several roots in the journal. The first is not listed: it is root 0, without a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootState {
    pub root: RootId,
    /// Its directory.
    pub file: FileId,
    /// As given with `--root NAME=DIR`.
    pub name: Name,
}

/// A named instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TagState {
    pub name: Name,
    pub at: Seq,
    /// When it was given, as history counts time.
    pub made: Timestamp,
}

/// A time without steps of the wall clock. The first, from the beginning of history, is not listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochState {
    pub epoch: u32,
    /// Seq of the Epoch event.
    pub seq: Seq,
    /// Time of history there.
    pub ts: Timestamp,
    /// The wall clock after the step.
    pub wall: Timestamp,
}

/// An instant that is held for a while.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseState {
    pub at: Seq,
    /// Seq of its last event; zero when none could be written.
    pub event: Seq,
    /// How much longer, in µs.
    pub left_us: i64,
    /// Who asked for it: text.
    pub by: Vec<u8>,
}

/// A file whose bytes bypass the journal, or that has names which are excluded from history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExcludedState {
    pub file: FileId,
    /// Its bytes bypass the journal.
    pub direct: bool,
    /// Those of its names that no view shows.
    pub names: Vec<Slot>,
}

/// Which pages of a file hold data. Files without holes are not listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataPages {
    pub file: FileId,
    /// A serialised roaring bitmap of page numbers.
    pub pages: Vec<u8>,
}

/// What thinning left of history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThinnedState {
    /// Up to here; every later instant is there.
    pub upto: Seq,
    /// The instants at or before it that remain, rising.
    pub kept: Vec<Seq>,
}

/// A file whose live file holds, or held, what it had at an instant: its versions from before are not needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestedState {
    pub file: FileId,
    pub since: Seq,
    /// Bytes then.
    pub size: u64,
}

/// All sections.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sections {
    pub roots: Vec<RootState>,
    pub tags: Vec<TagState>,
    pub epochs: Vec<EpochState>,
    pub leases: Vec<LeaseState>,
    pub excluded: Vec<ExcludedState>,
    pub data_pages: Vec<DataPages>,
    /// None before the first thinning; else one.
    pub thinned: Vec<ThinnedState>,
    pub rested: Vec<RestedState>,
}

impl Sections {
    /// Number of sections, then each: id, contents.
    pub fn put(&self, out: &mut Vec<u8>) {
        let sections = [
            (ROOTS, list(&self.roots, put_root)),
            (TAGS, list(&self.tags, put_tag)),
            (EPOCHS, list(&self.epochs, put_epoch)),
            (LEASES, list(&self.leases, put_lease)),
            (EXCLUDED, list(&self.excluded, put_excluded)),
            (DATA_PAGES, list(&self.data_pages, put_data_pages)),
            (THINNED, list(&self.thinned, put_thinned)),
            (RESTED, list(&self.rested, put_rested)),
        ];
        let present = sections.iter().filter_map(|(id, body)| body.as_ref().map(|body| (*id, body)));
        put_varint(out, present.clone().count() as u64);
        for (id, body) in present {
            put_varint(out, id);
            put_bytes(out, body);
        }
    }

    /// The inverse of [`Sections::put`].
    pub fn get(reader: &mut Reader<'_>) -> Result<Sections> {
        let mut sections = Sections::default();
        for _ in 0..reader.varint()? {
            let id = reader.varint()?;
            let body = reader.bytes()?;
            match id {
                ROOTS => sections.roots = items(body, get_root)?,
                TAGS => sections.tags = items(body, get_tag)?,
                EPOCHS => sections.epochs = items(body, get_epoch)?,
                LEASES => sections.leases = items(body, get_lease)?,
                EXCLUDED => sections.excluded = items(body, get_excluded)?,
                DATA_PAGES => sections.data_pages = items(body, get_data_pages)?,
                THINNED => sections.thinned = items(body, get_thinned)?,
                RESTED => sections.rested = items(body, get_rested)?,
                other => {
                    let message =
                        format!("section {other} is not known to this build; use the weft that wrote it");
                    return Err(Error::new(Kind::Version, "checkpoint.read", message));
                }
            }
        }
        Ok(sections)
    }
}

fn list<T>(items: &[T], put: impl Fn(&mut Vec<u8>, &T)) -> Option<Vec<u8>> {
    if items.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    items.iter().for_each(|item| put(&mut out, item));
    Some(out)
}

fn items<'a, T>(body: &'a [u8], get: impl Fn(&mut Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
    let mut reader = Reader::new(body, "checkpoint section");
    let mut items = Vec::new();
    while reader.remaining() > 0 {
        items.push(get(&mut reader)?);
    }
    Ok(items)
}

fn put_root(out: &mut Vec<u8>, root: &RootState) {
    put_varint(out, u64::from(root.root.0));
    put_varint(out, root.file.0);
    put_bytes(out, &root.name);
}

fn get_root(reader: &mut Reader<'_>) -> Result<RootState> {
    let root = u16::try_from(reader.varint()?)
        .map_err(|_| Error::corrupt("checkpoint.read", "a root has a number out of range"))?;
    Ok(RootState { root: RootId(root), file: FileId(reader.varint()?), name: reader.bytes()?.to_vec() })
}

fn put_tag(out: &mut Vec<u8>, tag: &TagState) {
    put_bytes(out, &tag.name);
    put_varint(out, tag.at.0);
    put_signed(out, tag.made.0);
}

fn get_tag(reader: &mut Reader<'_>) -> Result<TagState> {
    Ok(TagState {
        name: reader.bytes()?.to_vec(),
        at: Seq(reader.varint()?),
        made: Timestamp(reader.signed()?),
    })
}

fn put_epoch(out: &mut Vec<u8>, epoch: &EpochState) {
    put_varint(out, u64::from(epoch.epoch));
    put_varint(out, epoch.seq.0);
    put_signed(out, epoch.ts.0);
    put_signed(out, epoch.wall.0);
}

fn get_epoch(reader: &mut Reader<'_>) -> Result<EpochState> {
    Ok(EpochState {
        epoch: reader.varint32()?,
        seq: Seq(reader.varint()?),
        ts: Timestamp(reader.signed()?),
        wall: Timestamp(reader.signed()?),
    })
}

fn put_lease(out: &mut Vec<u8>, lease: &LeaseState) {
    put_varint(out, lease.at.0);
    put_varint(out, lease.event.0);
    put_signed(out, lease.left_us);
    put_bytes(out, &lease.by);
}

fn get_lease(reader: &mut Reader<'_>) -> Result<LeaseState> {
    Ok(LeaseState {
        at: Seq(reader.varint()?),
        event: Seq(reader.varint()?),
        left_us: reader.signed()?,
        by: reader.bytes()?.to_vec(),
    })
}

fn put_excluded(out: &mut Vec<u8>, excluded: &ExcludedState) {
    put_varint(out, excluded.file.0);
    out.push(u8::from(excluded.direct));
    put_varint(out, excluded.names.len() as u64);
    excluded.names.iter().for_each(|slot| put_slot(out, slot));
}

fn get_excluded(reader: &mut Reader<'_>) -> Result<ExcludedState> {
    let (file, direct) = (FileId(reader.varint()?), reader.byte()? != 0);
    let count = reader.varint()?;
    let names = (0..count).map(|_| get_slot(reader)).collect::<Result<_>>()?;
    Ok(ExcludedState { file, direct, names })
}

fn put_data_pages(out: &mut Vec<u8>, data: &DataPages) {
    put_varint(out, data.file.0);
    put_bytes(out, &data.pages);
}

fn get_data_pages(reader: &mut Reader<'_>) -> Result<DataPages> {
    Ok(DataPages { file: FileId(reader.varint()?), pages: reader.bytes()?.to_vec() })
}

fn put_thinned(out: &mut Vec<u8>, thinned: &ThinnedState) {
    put_varint(out, thinned.upto.0);
    put_rising(out, &thinned.kept);
}

fn get_thinned(reader: &mut Reader<'_>) -> Result<ThinnedState> {
    Ok(ThinnedState { upto: Seq(reader.varint()?), kept: get_rising(reader)? })
}

fn put_rested(out: &mut Vec<u8>, rested: &RestedState) {
    put_varint(out, rested.file.0);
    put_varint(out, rested.since.0);
    put_varint(out, rested.size);
}

fn get_rested(reader: &mut Reader<'_>) -> Result<RestedState> {
    Ok(RestedState { file: FileId(reader.varint()?), since: Seq(reader.varint()?), size: reader.varint()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_back_and_strangers_are_refused() {
        let sections = Sections {
            roots: vec![RootState { root: RootId(1), file: FileId(7), name: b"wal".to_vec() }],
            tags: vec![TagState { name: b"before".to_vec(), at: Seq(4), made: Timestamp(-9) }],
            epochs: vec![EpochState { epoch: 1, seq: Seq(8), ts: Timestamp(5), wall: Timestamp(-6) }],
            leases: vec![LeaseState { at: Seq(3), event: Seq(7), left_us: 600, by: b"weft at".to_vec() }],
            excluded: vec![ExcludedState {
                file: FileId(9),
                direct: true,
                names: vec![Slot { dir: FileId(1), name: b"postmaster.pid".to_vec() }],
            }],
            data_pages: vec![DataPages { file: FileId(9), pages: vec![1, 0, 2] }],
            thinned: vec![ThinnedState { upto: Seq(900), kept: vec![Seq(3), Seq(4), Seq(899)] }],
            rested: vec![RestedState { file: FileId(9), since: Seq(3), size: 70_000 }],
        };
        for sections in [sections, Sections::default()] {
            let mut bytes = Vec::new();
            sections.put(&mut bytes);
            assert_eq!(Sections::get(&mut Reader::new(&bytes, "test")).unwrap(), sections);
        }
        let stranger = [1, 99, 0];
        let refused = Sections::get(&mut Reader::new(&stranger, "test")).unwrap_err();
        assert_eq!(refused.kind, Kind::Version);
    }
}
