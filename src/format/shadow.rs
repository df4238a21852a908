//! STORE/shadow/*.snap: what a snapshot of a shadow is of, and where its bytes stand. docs/FORMAT.md, "Shadows".
//!
//! A file is a head, which says all that lists and decisions need, and a body: for each file its extents and the BLAKE3
//! of each block. The head has a CRC and the digest of all block hashes; extents that are wrong lead to bytes whose hash
//! is wrong.

use super::codec::{Reader, put_bytes, put_signed, put_u32, put_varint};
use crate::error::{Error, Kind, Result};
use crate::types::{FileId, Name, PAGE, PageSet, Seq, StoreId, Timestamp};

const MAGIC: &[u8; 8] = b"WEFTSHDW";
const VERSION: u32 = 1;
const OP: &str = "shadow.open";
/// Magic, version, length of the head.
pub const PREFIX_LEN: usize = 16;
/// Longest head: a partition of thousands of files.
const HEAD_MAX: usize = 64 << 20;

/// Pages in a block: what one hash covers.
pub const BLOCK_PAGES: u64 = 16;
/// Bytes in a block.
pub const BLOCK: u64 = BLOCK_PAGES * PAGE;

/// BLAKE3 of some bytes.
pub type Hash = [u8; 32];

/// What a snapshot is of.
#[derive(Clone, PartialEq, Debug)]
pub struct SnapshotHead {
    pub store: StoreId,
    pub shadow: u64,
    /// Counts within the shadow, from 1.
    pub number: u32,
    pub seq: Seq,
    pub made: Timestamp,
    /// Name of the root; empty for DATA.
    pub root: Name,
    /// The partition's name in it.
    pub partition: Vec<u8>,
    /// The pages of the partition that it is of; without them all.
    pub pages: Option<PageSet>,
    /// Kept up to date; otherwise it stays at its Seq.
    pub follows: bool,
    /// How useful whoever asked for it found it, in thousandths.
    pub benefit_milli: u64,
    /// Who asked: as [`crate::shadow::Reason`] is written.
    pub reason: Vec<u8>,
    pub files: Vec<FileHead>,
    /// Of all block hashes, with files and sizes ([`digest`]).
    pub digest: Hash,
}

/// One file of a snapshot.
#[derive(Clone, PartialEq, Debug)]
pub struct FileHead {
    pub file: FileId,
    /// Bytes at the Seq.
    pub size: u64,
    /// The pages of the file that it is of; without them all.
    pub pages: Option<PageSet>,
    /// Pages that stand somewhere (the others are zero), and those that this snapshot brought.
    pub stored_pages: u64,
    pub own_pages: u64,
}

impl FileHead {
    /// Pages that the image has: of a set only those in it, one behind the other.
    pub fn image_pages(&self) -> u64 {
        let whole = self.size.div_ceil(PAGE);
        self.pages.as_ref().map_or(whole, |pages| pages.count_in(0, whole))
    }

    pub fn blocks(&self) -> u64 {
        self.image_pages().div_ceil(BLOCK_PAGES)
    }
}

/// Pages of an image that stand one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First page in the image.
    pub page: u64,
    pub count: u64,
    /// Number of the snapshot whose data file holds them, and the page in it.
    pub snapshot: u32,
    pub at: u64,
}

/// Where the bytes of one file stand, and what they are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileBody {
    /// In order, apart; what lies between is zero.
    pub extents: Vec<Extent>,
    /// Of each block.
    pub hashes: Vec<Hash>,
}

/// One hash of everything: files, sizes, and the hashes of their blocks.
pub fn digest(files: &[FileHead], bodies: &[FileBody]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for (head, body) in files.iter().zip(bodies) {
        hasher.update(&head.file.0.to_le_bytes());
        hasher.update(&head.size.to_le_bytes());
        hasher.update(&(body.hashes.len() as u64).to_le_bytes());
        for hash in &body.hashes {
            hasher.update(hash);
        }
    }
    *hasher.finalize().as_bytes()
}

/// The file of a snapshot. `bodies`: one for each file of the head, in its order.
pub fn encode(head: &SnapshotHead, bodies: &[FileBody]) -> Vec<u8> {
    let mut fields = Vec::new();
    fields.extend_from_slice(&head.store.0);
    put_varint(&mut fields, head.shadow);
    put_varint(&mut fields, u64::from(head.number));
    put_varint(&mut fields, head.seq.0);
    put_signed(&mut fields, head.made.0);
    put_bytes(&mut fields, &head.root);
    put_bytes(&mut fields, &head.partition);
    put_pages(&mut fields, head.pages.as_ref());
    fields.push(u8::from(head.follows));
    put_varint(&mut fields, head.benefit_milli);
    put_bytes(&mut fields, &head.reason);
    fields.extend_from_slice(&head.digest);
    put_varint(&mut fields, head.files.len() as u64);
    for file in &head.files {
        put_varint(&mut fields, file.file.0);
        put_varint(&mut fields, file.size);
        put_pages(&mut fields, file.pages.as_ref());
        put_varint(&mut fields, file.stored_pages);
        put_varint(&mut fields, file.own_pages);
    }
    let mut out = MAGIC.to_vec();
    put_u32(&mut out, VERSION);
    put_u32(&mut out, u32::try_from(fields.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(&fields);
    let crc = crc32fast::hash(&out);
    put_u32(&mut out, crc);
    bodies.iter().for_each(|body| put_body(&mut out, body));
    out
}

/// A set as bytes; none as no bytes.
fn put_pages(out: &mut Vec<u8>, pages: Option<&PageSet>) {
    put_bytes(out, &pages.map(PageSet::to_bytes).unwrap_or_default());
}

fn get_pages(reader: &mut Reader<'_>) -> Result<Option<PageSet>> {
    match reader.bytes()? {
        [] => Ok(None),
        bytes => PageSet::from_bytes(bytes).map(Some).ok_or_else(|| damaged("a set of pages is damaged")),
    }
}

fn put_body(out: &mut Vec<u8>, body: &FileBody) {
    put_varint(out, body.extents.len() as u64);
    let mut last = 0;
    for extent in &body.extents {
        put_varint(out, extent.page.saturating_sub(last));
        put_varint(out, extent.count);
        put_varint(out, u64::from(extent.snapshot));
        put_varint(out, extent.at);
        last = extent.page + extent.count;
    }
    put_varint(out, body.hashes.len() as u64);
    body.hashes.iter().for_each(|hash| out.extend_from_slice(hash));
}

fn damaged(what: &'static str) -> Error {
    Error::corrupt(OP, format!("{what}: this snapshot of a shadow is of no use, and nothing is lost with it"))
}

/// Length of the whole head, with what comes before it and its CRC; from the first [`PREFIX_LEN`] bytes.
pub fn head_len(prefix: &[u8]) -> Result<usize> {
    let mut reader = Reader::new(prefix, "shadow");
    if reader.take(8)? != MAGIC {
        return Err(damaged("it does not begin as one"));
    }
    let version = reader.u32()?;
    if version != VERSION {
        let message = format!("shadow format {version} is not known to this build (it knows {VERSION})");
        return Err(Error::new(Kind::Version, OP, message));
    }
    match reader.u32()? as usize {
        len if len <= HEAD_MAX => Ok(PREFIX_LEN + len + 4),
        _ => Err(damaged("its head is too long")),
    }
}

/// The head, from as many bytes as [`head_len`] says.
pub fn decode_head(bytes: &[u8], store: StoreId) -> Result<SnapshotHead> {
    let len = head_len(bytes)?;
    let (covered, crc) = bytes
        .get(..len)
        .and_then(|bytes| bytes.split_at_checked(len - 4))
        .ok_or_else(|| damaged("it is too short"))?;
    if crc != crc32fast::hash(covered).to_le_bytes() {
        return Err(damaged("its head is damaged"));
    }
    let mut reader = Reader::new(covered.get(PREFIX_LEN..).unwrap_or(&[]), "shadow");
    let found = StoreId(reader.array()?);
    if found != store {
        return Err(Error::new(Kind::Mismatch, OP, format!("this shadow belongs to store {found}")));
    }
    let mut head = SnapshotHead {
        store,
        shadow: reader.varint()?,
        number: reader.varint32()?,
        seq: Seq(reader.varint()?),
        made: Timestamp(reader.signed()?),
        root: reader.bytes()?.to_vec(),
        partition: reader.bytes()?.to_vec(),
        pages: get_pages(&mut reader)?,
        follows: reader.byte()? != 0,
        benefit_milli: reader.varint()?,
        reason: reader.bytes()?.to_vec(),
        digest: reader.array()?,
        files: Vec::new(),
    };
    for _ in 0..reader.varint()? {
        head.files.push(FileHead {
            file: FileId(reader.varint()?),
            size: reader.varint()?,
            pages: get_pages(&mut reader)?,
            stored_pages: reader.varint()?,
            own_pages: reader.varint()?,
        });
    }
    match reader.remaining() {
        0 => Ok(head),
        _ => Err(damaged("something follows its head")),
    }
}

/// The bodies that follow a head, checked against it.
pub fn decode_bodies(bytes: &[u8], head: &SnapshotHead) -> Result<Vec<FileBody>> {
    let mut reader = Reader::new(bytes, "shadow");
    let mut bodies = Vec::new();
    for file in &head.files {
        bodies.push(get_body(&mut reader, file, head.number)?);
    }
    match reader.remaining() == 0 && digest(&head.files, &bodies) == head.digest {
        true => Ok(bodies),
        false => Err(damaged("its hashes are not those of its head")),
    }
}

fn get_body(reader: &mut Reader<'_>, file: &FileHead, newest: u32) -> Result<FileBody> {
    let mut body = FileBody::default();
    let mut last = 0u64;
    for _ in 0..reader.varint()? {
        let skipped = reader.varint()?;
        let (count, snapshot, at) = (reader.varint()?, reader.varint32()?, reader.varint()?);
        let page = last.checked_add(skipped).ok_or_else(|| damaged("an extent is out of range"))?;
        last = page
            .checked_add(count)
            .filter(|end| count > 0 && *end <= file.image_pages() && snapshot <= newest)
            .filter(|_| at.checked_add(count).is_some_and(|end| end <= u64::MAX / PAGE))
            .ok_or_else(|| damaged("an extent is out of range"))?;
        body.extents.push(Extent { page, count, snapshot, at });
    }
    let hashes = reader.varint()?;
    if hashes != file.blocks() {
        return Err(damaged("it has not a hash for each block"));
    }
    for _ in 0..hashes {
        body.hashes.push(reader.array()?);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORE: StoreId = StoreId([3; 16]);

    fn sample() -> (SnapshotHead, Vec<FileBody>) {
        let mut some = PageSet::default();
        some.write(PAGE, 3 * PAGE);
        let file =
            |file, size, pages| FileHead { file: FileId(file), size, pages, stored_pages: 2, own_pages: 1 };
        let files =
            vec![file(7, 17 * PAGE - 5, None), file(9, 40 * PAGE, Some(some.clone())), file(11, 0, None)];
        let extent = |page, count, snapshot, at| Extent { page, count, snapshot, at };
        let bodies = vec![
            FileBody {
                extents: vec![extent(0, 3, 1, 5), extent(9, 8, 2, 0)],
                hashes: vec![[1; 32], [2; 32]],
            },
            FileBody { extents: vec![extent(0, 2, 2, 9)], hashes: vec![[3; 32]] },
            FileBody::default(),
        ];
        let head = SnapshotHead {
            store: STORE,
            shadow: 4,
            number: 2,
            seq: Seq(99),
            made: Timestamp(-7),
            root: b"ts".to_vec(),
            partition: b"base/5/16397".to_vec(),
            pages: Some(some),
            follows: true,
            benefit_milli: 1500,
            reason: b"rule".to_vec(),
            digest: digest(&files, &bodies),
            files,
        };
        (head, bodies)
    }

    #[test]
    fn a_snapshot_comes_back_and_damage_is_seen() {
        let (head, bodies) = sample();
        let bytes = encode(&head, &bodies);
        let len = head_len(&bytes).unwrap();
        assert_eq!(decode_head(&bytes, STORE).unwrap(), head);
        assert_eq!(decode_bodies(&bytes[len..], &head).unwrap(), bodies);
        assert_eq!(decode_head(&bytes, StoreId([4; 16])).unwrap_err().kind, Kind::Mismatch);
        for at in 0..bytes.len() {
            let read = |bytes: &[u8]| {
                let head = decode_head(bytes, STORE)?;
                let body = bytes.get(head_len(bytes)?..).unwrap_or(&[]);
                decode_bodies(body, &head)
            };
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            // A wrong extent is found by the hash of the bytes it leads to.
            assert!(read(&bytes).map_or(true, |found| at > len && found.len() == bodies.len()), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode_head(&bytes, STORE);
            let (head, _) = sample();
            let _ = decode_bodies(&bytes, &head);
            let mut whole = encode(&head, &[])[..PREFIX_LEN].to_vec();
            whole[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            whole.extend_from_slice(&bytes);
            let crc = crc32fast::hash(&whole);
            put_u32(&mut whole, crc);
            let _ = decode_head(&whole, STORE);
        }
    }
}
