//! One snapshot: what it is of, and reading its bytes against their hashes.

use super::changes::Changes;
use super::data::Dir;
use super::extents::within;
use crate::disk::OpenHow;
use crate::error::{Error, Kind, Result};
use crate::format::shadow::{
    BLOCK, FileBody, PREFIX_LEN, SnapshotHead, decode_bodies, decode_head, head_len,
};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, RwLock};
use crate::types::{FileId, PAGE, PAGE_LEN, Seq, StoreId};
use std::ops::Range;

/// See the head of this file.
pub struct Snapshot {
    pub head: SnapshotHead,
    dir: Arc<Dir>,
    /// Taken away: whoever reads holds it for reading, so that nothing is freed beneath.
    gone: RwLock<bool>,
    broken: Mutex<Option<Error>>,
    bodies: Mutex<Option<Arc<Vec<FileBody>>>>,
    /// A bit for each block of each file whose bytes were right when they were read first.
    verified: Vec<Vec<AtomicU64>>,
    pub(super) changes: Vec<Mutex<Changes>>,
    /// Bytes of views that came from here.
    served: AtomicU64,
}

impl Snapshot {
    pub(super) fn new(head: SnapshotHead, dir: Arc<Dir>, bodies: Option<Vec<FileBody>>) -> Snapshot {
        let bits = |blocks: u64| (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Snapshot {
            verified: head.files.iter().map(|file| bits(file.blocks())).collect(),
            changes: head.files.iter().map(|_| Mutex::new(Changes::default())).collect(),
            dir,
            gone: RwLock::new(false),
            broken: Mutex::new(None),
            bodies: Mutex::new(bodies.map(Arc::new)),
            served: AtomicU64::new(0),
            head,
        }
    }

    /// Reads the head of a snapshot's file.
    pub(super) fn open(dir: &Arc<Dir>, (shadow, number): (u64, u32), store: StoreId) -> Result<Snapshot> {
        let path = dir.snapshot(shadow, number);
        let read = || {
            let file = dir.disk.open("shadow.open", &path, OpenHow::default())?;
            let mut bytes = vec![0; PREFIX_LEN];
            let got = file.read_at("shadow.open", &mut bytes, 0)?;
            let len = head_len(bytes.get(..got).unwrap_or(&[]))?;
            // What is not there need not be allocated.
            let len = len.min(usize::try_from(file.len("shadow.open")?).unwrap_or(len));
            bytes = vec![0; len];
            let got = file.read_at("shadow.open", &mut bytes, 0)?;
            let head = decode_head(bytes.get(..got).unwrap_or(&[]), store)?;
            match (head.shadow, head.number) == (shadow, number) {
                true => Ok(head),
                false => Err(Error::corrupt("shadow.open", "it is not the snapshot that its name says")),
            }
        };
        let head =
            read().map_err(|error: Error| if error.path.is_none() { error.at(&path) } else { error })?;
        Ok(Snapshot::new(head, Arc::clone(dir), None))
    }

    pub fn seq(&self) -> Seq {
        self.head.seq
    }

    /// BLAKE3 over the hashes of all its blocks, in hexadecimal digits.
    pub fn hash(&self) -> String {
        self.head.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Why it is not used any more.
    pub fn broken(&self) -> Option<Error> {
        self.broken.lock().clone()
    }

    pub fn served_bytes(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn place_of(&self, file: FileId) -> Option<usize> {
        self.head.files.iter().position(|head| head.file == file)
    }

    /// Where all bytes stand, read when first wanted.
    pub(super) fn bodies(&self) -> Result<Arc<Vec<FileBody>>> {
        let mut kept = self.bodies.lock();
        if let Some(bodies) = &*kept {
            return Ok(Arc::clone(bodies));
        }
        let path = self.dir.snapshot(self.head.shadow, self.head.number);
        let read = || {
            let file = self.dir.disk.open("shadow.open", &path, OpenHow::default())?;
            let mut bytes = vec![0; usize::try_from(file.len("shadow.open")?).unwrap_or(0)];
            let got = file.read_at("shadow.open", &mut bytes, 0)?;
            let bytes = bytes.get(..got).unwrap_or(&[]);
            decode_bodies(bytes.get(head_len(bytes)?..).unwrap_or(&[]), &self.head)
        };
        let bodies = Arc::new(read().map_err(|error: Error| error.at(&path))?);
        *kept = Some(Arc::clone(&bodies));
        Ok(bodies)
    }

    /// Pages that it stores and a snapshot of an earlier number does not: its own, and what it has taken over of those that
    /// came between and are gone. Of reflinks, which do not tell, no fewer than there are.
    pub(super) fn pages_since(&self, earlier: u32) -> u64 {
        let files = self.head.files.iter();
        let own = || files.clone().map(|file| file.own_pages).sum();
        if earlier == 0 {
            return files.clone().map(|file| file.stored_pages).sum();
        }
        if earlier + 1 == self.head.number {
            return own();
        }
        // They have been read since the one before it went, or at the opening.
        let Ok(bodies) = self.bodies() else { return own() };
        let extents = bodies.iter().flat_map(|body| &body.extents);
        extents.filter(|extent| extent.snapshot > earlier).map(|extent| extent.count).sum()
    }

    /// No reader is within, and none will be: what only this snapshot needs may be freed.
    pub(super) fn retire(&self) {
        *self.gone.write() = true;
    }

    /// Reads bytes of a file's image; beyond its end zeros. After an error this snapshot is broken.
    pub(super) fn read(&self, place: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        let gone = self.gone.read();
        if *gone {
            return Err(Error::new(Kind::Invalid, "shadow.read", "the snapshot is gone"));
        }
        let done = self.read_checked(place, offset, out);
        match &done {
            Ok(()) => drop(self.served.fetch_add(out.len() as u64, Ordering::Relaxed)),
            Err(error) => self.mark_broken(error),
        }
        done
    }

    pub(super) fn mark_broken(&self, error: &Error) {
        let mut broken = self.broken.lock();
        if broken.is_none() {
            tracing::warn!(%error, shadow = self.head.shadow, "a shadow is broken: it is left out, and made anew");
            *broken = Some(error.clone());
        }
    }

    /// Whether all blocks of a range of the image are known to be right.
    pub(super) fn is_verified(&self, place: usize, range: Range<u64>) -> bool {
        (range.start / BLOCK..range.end.div_ceil(BLOCK)).all(|block| self.block_is_verified(place, block))
    }

    fn read_checked(&self, place: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        let bodies = self.bodies()?;
        let (Some(head), Some(body)) = (self.head.files.get(place), bodies.get(place)) else {
            return Err(Error::corrupt("shadow.read", "the snapshot has no such file"));
        };
        let image = head.image_pages() * PAGE;
        let inside = usize::try_from(image.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (out, beyond) = out.split_at_mut(inside);
        beyond.fill(0);
        let end = offset + out.len() as u64;
        // Blocks that are wanted whole are read as one, the pieces before and behind each by itself.
        let whole_end = if end == image { end.div_ceil(BLOCK) } else { end / BLOCK } * BLOCK;
        let middle = offset.next_multiple_of(BLOCK).min(end)..whole_end.clamp(offset, end);
        if middle.start >= middle.end {
            return self.read_piece(place, (body, image), offset, out);
        }
        let (before, rest) = out.split_at_mut(usize::try_from(middle.start - offset).unwrap_or(0));
        let (wanted, behind) = rest.split_at_mut(usize::try_from(middle.end - middle.start).unwrap_or(0));
        self.read_piece(place, (body, image), offset, before)?;
        self.fetch(place, body, middle.start, wanted)?;
        for (block, bytes) in (middle.start / BLOCK..).zip(wanted.chunks(BLOCK as usize)) {
            self.verify(place, body, block, bytes)?;
        }
        self.read_piece(place, (body, image), middle.end, behind)
    }

    /// Reads less than a block of each block that it touches.
    fn read_piece(
        &self,
        place: usize,
        (body, image): (&FileBody, u64),
        offset: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let (mut offset, mut rest) = (offset, out);
        while !rest.is_empty() {
            let block = offset / BLOCK;
            let range = block * BLOCK..((block + 1) * BLOCK).min(image);
            let len = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at_mut(len);
            if self.block_is_verified(place, block) {
                self.fetch(place, body, offset, part)?;
            } else {
                let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
                self.fetch(place, body, range.start, &mut bytes)?;
                self.verify(place, body, block, &bytes)?;
                let skip = usize::try_from(offset - range.start).unwrap_or(0);
                part.copy_from_slice(bytes.get(skip..skip + len).unwrap_or(&[]));
            }
            (offset, rest) = (offset + len as u64, behind);
        }
        Ok(())
    }

    fn bit(&self, place: usize, block: u64) -> Option<(&AtomicU64, u64)> {
        let word = self.verified.get(place)?.get(usize::try_from(block / 64).ok()?)?;
        Some((word, 1 << (block % 64)))
    }

    fn block_is_verified(&self, place: usize, block: u64) -> bool {
        self.bit(place, block).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn verify(&self, place: usize, body: &FileBody, block: u64, bytes: &[u8]) -> Result<()> {
        if self.block_is_verified(place, block) {
            return Ok(());
        }
        let expected = usize::try_from(block).ok().and_then(|block| body.hashes.get(block));
        if expected != Some(blake3::hash(bytes).as_bytes()) {
            let message = format!("block {block} of {} is not what was written", self.name_of(place));
            let path = self.dir.snapshot(self.head.shadow, self.head.number);
            return Err(Error::corrupt("shadow.read", message).at(&path));
        }
        if let Some((word, bit)) = self.bit(place, block) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }

    fn name_of(&self, place: usize) -> String {
        self.head.files.get(place).map_or_else(String::new, |file| file.file.to_string())
    }

    /// The bytes as they stand, unchecked.
    fn fetch(&self, place: usize, body: &FileBody, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset + out.len() as u64;
        let Some(head) = self.head.files.get(place) else { return Ok(()) };
        let (mut offset, mut rest) = (offset, out);
        let zeros_until = |offset: &mut u64, rest: &mut &mut [u8], until: u64| {
            let len = usize::try_from(until.saturating_sub(*offset)).unwrap_or(usize::MAX).min(rest.len());
            let (zeros, behind) = std::mem::take(rest).split_at_mut(len);
            zeros.fill(0);
            (*offset, *rest) = (*offset + len as u64, behind);
        };
        for extent in within(&body.extents, offset / PAGE..end.div_ceil(PAGE)) {
            zeros_until(&mut offset, &mut rest, extent.page * PAGE);
            let skip = offset - extent.page * PAGE;
            let len = usize::try_from(extent.count * PAGE - skip).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
            let name = (self.head.shadow, extent.snapshot, head.file);
            self.dir.read(name, extent.at * PAGE + skip, part)?;
            (offset, rest) = (offset + len as u64, behind);
        }
        zeros_until(&mut offset, &mut rest, end);
        Ok(())
    }
}

const _: () = assert!((BLOCK as usize).is_multiple_of(PAGE_LEN), "a block is whole pages");
