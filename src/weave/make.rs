//! Writing a woven file. Everything that goes in is taken out again, from the bytes that are written, and compared.

use super::Pace;
use super::found::Found;
use super::source::{Source, Version};
use super::weaver::Lean;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Result};
use crate::format::woven::contents::{Contents, Keyed, SegmentPart, Span};
use crate::format::woven::data::{Data, DataWriter, RECORDS_MAX};
use crate::format::woven::groups::{self, Groups};
use crate::format::woven::piece::{Packer, PieceKind, unpack};
use crate::format::woven::places::{self, PLACES, Places, WovenPlace};
use crate::format::woven::{Trailer, WovenHeader};
use crate::journal::segment::Segments;
use crate::sync::Arc;
use crate::types::{SegmentNo, StoreId};
use std::path::Path;

/// As zstd counts (docs/decisions/0030).
const LEVEL: i32 = 3;
/// Bytes in a piece, before compression, at which it is closed.
const PIECE: usize = 64 << 10;
/// Written at a time.
const CHUNK: usize = 1 << 20;

/// Figures of a woven segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Made {
    /// Bytes of writes that were left out.
    pub unneeded_bytes: u64,
}

/// A file that grows at its end.
struct Out {
    file: Arc<dyn DiskFile>,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    flushed: u64,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) -> Result<Span> {
        let at = self.flushed + self.buffer.len() as u64;
        self.hasher.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(Span { at, len: u32::try_from(bytes.len()).unwrap_or(u32::MAX) })
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_at("weave.write", &self.buffer, self.flushed)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes the woven form of a segment to `path`, durably, without what `lean` says; `None` when told to stop.
pub(super) fn make(
    disk: &dyn Disk,
    segments: &Arc<Segments>,
    source: &Source,
    path: &Path,
    lean: Option<&Lean<'_>>,
    pace: &dyn Pace,
) -> Result<Option<Made>> {
    let (header, number) = (source.header, source.header.number);
    let begin = WovenHeader { store: header.store, first: number, last: number, thinned: lean.is_some() };
    let mut pen = pen(disk, path, &begin, pace)?;
    let mut found = Found::default();
    let Some(groups) = pen.groups(segments, source, &mut found)? else { return Ok(None) };
    found.versions.sort_unstable();
    let Some(unneeded_bytes) = drop_unneeded(&mut found, lean, pace)? else { return Ok(None) };
    let versions = found.versions;
    let read = |version: &Version, bytes: &mut [u8]| source.version(version, bytes);
    let Some((data, held)) = pen.versions(&versions, read)? else { return Ok(None) };
    let places = pen.places(held)?;
    let (groups, places) = (pen.put_all(groups)?, pen.put_all(places)?);
    let payload_bytes = versions.iter().map(|version| u64::from(version.len)).sum();
    let part = SegmentPart { header, end: source.end, groups, places };
    let contents = Contents { segments: vec![part], data, payload_bytes, journal_bytes: source.end };
    pen.finish(&contents)?;
    Ok(Some(Made { unneeded_bytes }))
}

/// Has the index forget what no instant needs, and drops it; its bytes. `None` when told to stop.
fn drop_unneeded(found: &mut Found, lean: Option<&Lean<'_>>, pace: &dyn Pace) -> Result<Option<u64>> {
    let Some(Lean { needs, index }) = lean else { return Ok(Some(0)) };
    let Some(needed) = found.judge(*needs, pace)? else { return Ok(None) };
    let (_, unneeded_bytes) = found.tally(&needed);
    index.forget(&found.unneeded(&needed))?;
    found.keep(needed);
    Ok(Some(unneeded_bytes))
}

/// Begins a file for what is put together of others, at `path`.
pub(super) fn pen<'a>(
    disk: &dyn Disk,
    path: &Path,
    header: &WovenHeader,
    pace: &'a dyn Pace,
) -> Result<Pen<'a>> {
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let file = disk.open("weave.create", path, how)?;
    file.set_len("weave.create", 0)?;
    let out = Out { file, hasher: blake3::Hasher::new(), buffer: Vec::with_capacity(CHUNK), flushed: 0 };
    let mut pen = Pen { store: header.store, pace, out, packer: Packer::new(LEVEL)? };
    pen.begin(header)?;
    Ok(pen)
}

/// Writes a woven file, piece by piece.
pub(super) struct Pen<'a> {
    store: StoreId,
    pace: &'a dyn Pace,
    out: Out,
    packer: Packer,
}

/// Where versions of some segments went.
pub(super) type Held = Vec<(SegmentNo, WovenPlace)>;

/// Pieces made and not yet written, by their first address.
pub(super) type Packed = Vec<(u64, Vec<u8>)>;

impl Pen<'_> {
    fn begin(&mut self, header: &WovenHeader) -> Result<()> {
        self.out.put(&header.encode()).map(|_| ())
    }

    /// The groups as pieces, and the versions in them.
    fn groups(
        &mut self,
        segments: &Arc<Segments>,
        source: &Source,
        found: &mut Found,
    ) -> Result<Option<Packed>> {
        let mut packed = Packed::new();
        let (mut raw, mut first) = (Vec::new(), 0);
        let mut since = Vec::new();
        let (store, number, packer) = (self.store, source.header.number, &mut self.packer);
        let mut close = |raw: &mut Vec<u8>, since: &mut Vec<_>, first: u64| -> Result<()> {
            if raw.is_empty() {
                return Ok(());
            }
            let piece = packer.pack(PieceKind::Groups, raw)?;
            let seen = Groups::decode(unpack(PieceKind::Groups, &piece)?, store)?;
            for (offset, records) in since.drain(..) {
                same(seen.at(offset)?.map(|(_, records)| records) == Some(records), "a group")?;
            }
            packed.push((first, piece));
            raw.clear();
            Ok(())
        };
        let whole = source.groups(segments, self.pace, |offset, mut head, records| {
            found.take((number, offset), records, |_| true);
            if raw.is_empty() {
                first = offset;
            }
            groups::put(&mut raw, offset, &mut head, records);
            since.push((offset, records.to_vec()));
            if raw.len() < PIECE { Ok(()) } else { close(&mut raw, &mut since, first) }
        })?;
        close(&mut raw, &mut since, first)?;
        Ok(whole.then_some(packed))
    }

    /// Writes the versions, in their order; where each piece stands, and which holds what.
    pub(super) fn versions(
        &mut self,
        versions: &[Version],
        read: impl Fn(&Version, &mut [u8]) -> Result<()>,
    ) -> Result<Option<(Vec<Span>, Held)>> {
        let (mut spans, mut held) = (Vec::new(), Vec::with_capacity(versions.len()));
        let mut writer = DataWriter::new();
        let mut raw = Vec::new();
        let mut begun = 0;
        for (index, version) in versions.iter().enumerate() {
            let from = raw.len();
            raw.resize(from + usize::from(version.len), 0);
            let bytes = raw.get_mut(from..).unwrap_or(&mut []);
            read(version, bytes)?;
            let place = WovenPlace {
                address: version.address,
                len: u32::from(version.len),
                piece: u32::try_from(spans.len()).unwrap_or(u32::MAX),
                record: u32::try_from(writer.count()).unwrap_or(u32::MAX),
            };
            held.push((version.segment, place));
            writer.push((version.file, version.page), usize::from(version.start), bytes)?;
            let last = index + 1 == versions.len();
            if writer.len_bytes() < PIECE && writer.count() < RECORDS_MAX && !last {
                continue;
            }
            let piece = self.packer.pack(PieceKind::Data, &writer.finish())?;
            compare(&piece, versions.get(begun..=index).unwrap_or(&[]), &raw)?;
            spans.push(self.out.put(&piece)?);
            let moved = (raw.len() + piece.len()) as u64;
            raw.clear();
            begun = index + 1;
            if !self.pace.go_on(moved) {
                return Ok(None);
            }
        }
        Ok(Some((spans, held)))
    }

    /// The places of what one segment holds.
    pub(super) fn places(&mut self, held: Held) -> Result<Packed> {
        let mut held: Vec<WovenPlace> = held.into_iter().map(|(_, place)| place).collect();
        held.sort_unstable_by_key(|place| place.address);
        let mut packed = Packed::new();
        for chunk in held.chunks(PLACES) {
            let piece = self.packer.pack(PieceKind::Places, &places::encode(chunk))?;
            let seen = Places::decode(&unpack(PieceKind::Places, &piece)?)?;
            for place in chunk {
                same(seen.find(place.address) == Some(*place), "a place")?;
            }
            packed.push((chunk.first().map_or(0, |place| place.address), piece));
        }
        Ok(packed)
    }

    pub(super) fn put_all(&mut self, pieces: Packed) -> Result<Vec<Keyed>> {
        let put = |(first, piece): (u64, Vec<u8>)| Ok(Keyed { first, span: self.out.put(&piece)? });
        pieces.into_iter().map(put).collect()
    }

    /// The end of the file, durable; its length in bytes.
    pub(super) fn finish(mut self, contents: &Contents) -> Result<u64> {
        let piece = self.packer.pack(PieceKind::Contents, &contents.encode())?;
        let span = self.out.put(&piece)?;
        let raw = unpack(PieceKind::Contents, &piece)?;
        let seen = Contents::decode(&raw, self.store, span.at)?;
        same(seen == *contents, "the contents")?;
        let blake3 = *self.out.hasher.finalize().as_bytes();
        self.out.put(&Trailer { contents_at: span.at, contents_len: span.len, blake3 }.encode())?;
        self.out.flush()?;
        self.out.file.sync("weave.sync")?;
        Ok(self.out.flushed)
    }
}

/// Bytes that the pieces of versions would take.
pub(super) fn weigh<'a>(
    versions: impl Iterator<Item = &'a Version>,
    read: impl Fn(&Version, &mut [u8]) -> Result<()>,
) -> Result<u64> {
    let (mut writer, mut packer) = (DataWriter::new(), Packer::new(LEVEL)?);
    let mut bytes = [0; crate::types::PAGE_LEN];
    let mut sum = 0;
    let mut pack = |writer: &mut DataWriter| -> Result<u64> {
        Ok(packer.pack(PieceKind::Data, &writer.finish())?.len() as u64)
    };
    for version in versions {
        let bytes = bytes.get_mut(..usize::from(version.len)).unwrap_or(&mut []);
        read(version, bytes)?;
        writer.push((version.file, version.page), usize::from(version.start), bytes)?;
        if writer.len_bytes() >= PIECE || writer.count() >= RECORDS_MAX {
            sum += pack(&mut writer)?;
        }
    }
    if writer.count() > 0 {
        sum += pack(&mut writer)?;
    }
    Ok(sum)
}

/// What was packed, against what it was made from: `raw`, one version behind the other.
fn compare(piece: &[u8], versions: &[Version], raw: &[u8]) -> Result<()> {
    let data = Data::decode(unpack(PieceKind::Data, piece)?)?;
    let mut seen = [0; crate::types::PAGE_LEN];
    let mut at = 0;
    for (index, version) in versions.iter().enumerate() {
        let len = usize::from(version.len);
        let seen = seen.get_mut(..len).unwrap_or(&mut []);
        data.read(index, 0, seen)?;
        same(raw.get(at..at + len) == Some(&*seen), "a page version")?;
        at += len;
    }
    same(at == raw.len(), "a piece of page versions")
}

fn same(fits: bool, what: &str) -> Result<()> {
    match fits {
        true => Ok(()),
        false => Err(Error::corrupt(
            "weave.compare",
            format!(
                "{what} did not come back as it was; the journal segment stays. Check this machine's memory"
            ),
        )),
    }
}
