//! One open woven file.

use super::cache::{Cache, Piece};
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Kind, Result};
use crate::format::event::Record;
use crate::format::group::GroupHeader;
use crate::format::woven::contents::{Contents, SegmentPart, Span, holder};
use crate::format::woven::data::Data;
use crate::format::woven::groups::Groups;
use crate::format::woven::piece::{HEAD_LEN, PieceKind, RAW_MAX, unpack};
use crate::format::woven::places::{Places, WovenPlace};
use crate::format::woven::{HEADER_LEN, TRAILER_LEN, Trailer, WovenHeader};
use crate::sync::{Arc, Mutex};
use crate::types::{SegmentNo, StoreId};
use std::path::{Path, PathBuf};

/// Read at a time when the whole file is checked.
const CHECK_CHUNK: usize = 1 << 20;

/// See the head of this file.
pub struct WovenFile {
    /// Tells its pieces from those of others in the cache; no two that were opened have the same.
    number: u64,
    thinned: bool,
    path: PathBuf,
    store: StoreId,
    file: Arc<dyn DiskFile>,
    contents: Contents,
    contents_at: u64,
    blake3: [u8; 32],
}

impl WovenFile {
    /// Opens a file and reads its contents; ENOENT when there is none. `number`: see there.
    pub fn open(
        disk: &dyn Disk,
        path: &Path,
        range: (SegmentNo, SegmentNo),
        store: StoreId,
        number: u64,
    ) -> Result<WovenFile> {
        let file = disk.open("woven.open", path, OpenHow::default())?;
        let read = |at: u64, out: &mut [u8]| {
            let got = file.read_at("woven.open", out, at)?;
            match got == out.len() {
                true => Ok(()),
                false => Err(Error::corrupt("woven.open", "the woven segment is too short").offset(at)),
            }
        };
        let open = || {
            let mut header = [0; HEADER_LEN];
            read(0, &mut header)?;
            let header = WovenHeader::decode(&header, store)?;
            let len = file.len("woven.open")?;
            let mut trailer = [0; TRAILER_LEN];
            read(len.saturating_sub(TRAILER_LEN as u64), &mut trailer)?;
            let trailer = Trailer::decode(&trailer)?;
            let span = Span { at: trailer.contents_at, len: trailer.contents_len };
            if span.at.checked_add(u64::from(span.len) + TRAILER_LEN as u64) != Some(len) {
                return Err(Error::corrupt("woven.open", "the woven segment is not as long as it says"));
            }
            let raw = unpack(PieceKind::Contents, &bytes_of(&*file, span)?)?;
            let contents = Contents::decode(&raw, store, span.at)?;
            let numbers = [contents.segments.first(), contents.segments.last()];
            let held = numbers.map(|part| part.map(|part| part.header.number));
            if held != [Some(header.first), Some(header.last)] || (header.first, header.last) != range {
                return Err(Error::corrupt(
                    "woven.open",
                    "its contents are not those of its header and its name",
                ));
            }
            Ok((contents, trailer, header.thinned))
        };
        let (contents, trailer, thinned) = open().map_err(|error: Error| error.at(path))?;
        let (path, contents_at) = (path.to_path_buf(), trailer.contents_at);
        let blake3 = trailer.blake3;
        Ok(WovenFile { number, thinned, path, store, file, contents, contents_at, blake3 })
    }

    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Compares the whole file with its BLAKE3.
    pub fn check(&self) -> Result<()> {
        let end = self.file.len("woven.check")?.saturating_sub(TRAILER_LEN as u64);
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; CHECK_CHUNK];
        let mut at = 0;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(CHECK_CHUNK).min(CHECK_CHUNK);
            let part = chunk.get_mut(..want).unwrap_or(&mut []);
            let got = self.file.read_at("woven.check", part, at)?;
            if got == 0 {
                break;
            }
            hasher.update(part.get(..got).unwrap_or(&[]));
            at += got as u64;
        }
        match hasher.finalize().as_bytes() == &self.blake3 {
            true => Ok(()),
            false => Err(Error::corrupt(
                "woven.check",
                "the woven segment is not what was written; restore it from a copy of the store",
            )
            .at(&self.path)),
        }
    }

    /// The group that stood at a byte offset of a journal segment.
    pub(super) fn group(
        &self,
        cache: &Mutex<Cache>,
        segment: SegmentNo,
        offset: u64,
    ) -> Result<Option<(GroupHeader, Vec<Record>)>> {
        let part = self.contents.segment(segment).map_err(|error| error.at(&self.path))?;
        let Some(keyed) = holder(&part.groups, offset) else { return Ok(None) };
        let piece = self.piece(cache, keyed.span, |bytes| {
            let groups = Groups::decode(unpack(PieceKind::Groups, bytes)?, self.store)?;
            Ok(Piece::Groups(Arc::new(groups)))
        })?;
        match piece {
            Piece::Groups(groups) => groups.at(offset).map_err(|error| self.placed(error, keyed.span)),
            _ => Err(self.mixed(keyed.span)),
        }
    }

    /// Reads bytes that stood at `address` of a journal segment.
    pub(super) fn read(
        &self,
        cache: &Mutex<Cache>,
        segment: SegmentNo,
        address: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let part = self.contents.segment(segment).map_err(|error| error.at(&self.path))?;
        let (mut at, mut rest) = (address, out);
        while !rest.is_empty() {
            let found = match holder(&part.places, at) {
                Some(keyed) => self.place(cache, keyed.span, at)?,
                None => None,
            };
            let place = found.ok_or_else(|| self.missing(segment, at))?;
            let skip = at - place.address;
            let len = usize::try_from(u64::from(place.len) - skip).unwrap_or(0).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            self.version(cache, place, usize::try_from(skip).unwrap_or(usize::MAX), now)?;
            (at, rest) = (at + len as u64, later);
        }
        Ok(())
    }

    fn missing(&self, segment: SegmentNo, at: u64) -> Error {
        if self.thinned {
            let message =
                format!("byte {at} of journal segment {} was pruned: no instant needs it", segment.0);
            return Error::new(Kind::Lost, "woven.read", message).at(&self.path);
        }
        let message = format!("no bytes were woven from byte {at} of journal segment {}", segment.0);
        Error::corrupt("woven.read", message).at(&self.path)
    }

    /// Versions that no instant needs are left out.
    pub fn is_thinned(&self) -> bool {
        self.thinned
    }

    /// The first and the last segment in here.
    pub fn range(&self) -> (SegmentNo, SegmentNo) {
        let number = |part: Option<&SegmentPart>| part.map_or(SegmentNo(0), |part| part.header.number);
        (number(self.contents.segments.first()), number(self.contents.segments.last()))
    }

    /// The groups pieces of a segment, as they stand here and taken apart.
    pub fn groups_of(&self, part: &SegmentPart) -> impl Iterator<Item = Result<(u64, Vec<u8>, Groups)>> {
        part.groups.iter().map(|keyed| {
            let bytes = bytes_of(&*self.file, keyed.span)?;
            let groups = unpack(PieceKind::Groups, &bytes).and_then(|raw| Groups::decode(raw, self.store));
            Ok((keyed.first, bytes, groups.map_err(|error| self.placed(error, keyed.span))?))
        })
    }

    /// The places of a segment, by rising address.
    pub fn places_of(&self, part: &SegmentPart) -> Result<Vec<WovenPlace>> {
        let mut all = Vec::new();
        for keyed in &part.places {
            let places = bytes_of(&*self.file, keyed.span)
                .and_then(|bytes| Places::decode(&unpack(PieceKind::Places, &bytes)?))
                .map_err(|error| self.placed(error, keyed.span))?;
            all.extend_from_slice(places.all());
        }
        Ok(all)
    }

    /// Whether the byte at an address of a segment is here.
    pub(super) fn holds(&self, cache: &Mutex<Cache>, segment: SegmentNo, address: u64) -> Result<bool> {
        let part = self.contents.segment(segment).map_err(|error| error.at(&self.path))?;
        match holder(&part.places, address) {
            Some(keyed) => Ok(self.place(cache, keyed.span, address)?.is_some()),
            None => Ok(false),
        }
    }

    fn place(&self, cache: &Mutex<Cache>, span: Span, address: u64) -> Result<Option<WovenPlace>> {
        let piece = self.piece(cache, span, |bytes| {
            Ok(Piece::Places(Arc::new(Places::decode(&unpack(PieceKind::Places, bytes)?)?)))
        })?;
        match piece {
            Piece::Places(places) => Ok(places.find(address)),
            _ => Err(self.mixed(span)),
        }
    }

    pub(super) fn version(
        &self,
        cache: &Mutex<Cache>,
        place: WovenPlace,
        skip: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let span = self.contents.data.get(place.piece as usize).copied().ok_or_else(|| {
            Error::corrupt("woven.read", "a place names a piece that is not there").at(&self.path)
        })?;
        let piece = self.piece(cache, span, |bytes| {
            Ok(Piece::Data(Arc::new(Data::decode(unpack(PieceKind::Data, bytes)?)?)))
        })?;
        match piece {
            Piece::Data(data) => {
                data.read(place.record as usize, skip, out).map_err(|error| self.placed(error, span))
            }
            _ => Err(self.mixed(span)),
        }
    }

    fn piece(
        &self,
        cache: &Mutex<Cache>,
        span: Span,
        take_apart: impl FnOnce(&[u8]) -> Result<Piece>,
    ) -> Result<Piece> {
        let key = (self.number, span.at);
        let kept = cache.lock().get(key);
        if let Some(piece) = kept {
            return Ok(piece);
        }
        let piece = bytes_of(&*self.file, span)
            .and_then(|bytes| take_apart(&bytes))
            .map_err(|error| self.placed(error, span))?;
        cache.lock().put(key, &piece);
        Ok(piece)
    }

    fn placed(&self, error: Error, span: Span) -> Error {
        if error.path.is_some() { error } else { error.at(&self.path).offset(span.at) }
    }

    fn mixed(&self, span: Span) -> Error {
        Error::corrupt("woven.read", "two pieces of one place").at(&self.path).offset(span.at)
    }

    /// Bytes of the whole file.
    pub fn len_bytes(&self) -> u64 {
        self.contents_at + TRAILER_LEN as u64
    }
}

fn bytes_of(file: &dyn DiskFile, span: Span) -> Result<Vec<u8>> {
    let len = span.len as usize;
    if len > RAW_MAX + HEAD_LEN {
        return Err(Error::corrupt("woven.read", "a piece is longer than any can be"));
    }
    let mut bytes = vec![0; len];
    let got = file.read_at("woven.read", &mut bytes, span.at)?;
    match got == len {
        true => Ok(bytes),
        false => Err(Error::corrupt("woven.read", "the woven segment ends before its piece does")),
    }
}
