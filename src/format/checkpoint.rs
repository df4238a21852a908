//! A checkpoint: the whole namespace at a Seq, and from where the journal must be replayed. docs/FORMAT.md,
//! "Checkpoints". It bounds recovery; nothing in it is history.

use super::codec::{Reader, put_bytes, put_signed, put_u32, put_varint};
use super::event::Slot;
use super::fields::{get_attr, get_slot, put_attr, put_slot};
use super::sections::Sections;
use crate::error::{Error, Kind, Result};
use crate::types::{Attr, FileId, Name, RootId, SegmentNo, Seq, StoreId, Timestamp};

const MAGIC: [u8; 8] = *b"WEFTCKPT";
/// Version 1 has no sections behind the nodes.
const VERSION: u32 = 2;
const OLDEST: u32 = 1;

/// Where DATA's entries stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// DATA is plain and current; nothing to do.
    Clean,
    /// On their way in: each entry is either at its path or already in.
    Gathering,
    /// In; the journal may have more than this checkpoint.
    Serving,
    /// On their way out; everything is applied.
    Scattering,
}

/// A place in the journal: the group that begins there is the first to replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub segment: SegmentNo,
    pub offset: u64,
    /// CRC of the group before.
    pub chain: u32,
    /// Seq of the first event there.
    pub seq: Seq,
}

/// What a plain file looked like when DATA was left plain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    pub ino: u64,
    pub size: u64,
    pub mtime: crate::types::FileTime,
    pub ctime: crate::types::FileTime,
}

/// Bytes of a file that come from before Weft (or from a time when it was unmounted).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseState {
    /// Seq of the Adopt or Rebase event.
    pub adopted: Seq,
    /// Bytes of the file then.
    pub size: u64,
    /// Pages that need no pre-image any more: a serialized roaring bitmap of page numbers.
    pub saved: Vec<u8>,
    /// The rest of the base is in limbo, not in the live file.
    pub in_limbo: bool,
}

/// One file, directory, link or node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeState {
    pub file: FileId,
    pub root: RootId,
    /// Seq of the last event that is in here.
    pub seq: Seq,
    pub attr: Attr,
    pub slots: Vec<Slot>,
    pub target: Vec<u8>,
    pub xattrs: Vec<(Name, Vec<u8>)>,
    /// There is a live file for it.
    pub live: bool,
    pub base: Option<BaseState>,
    pub fingerprint: Option<Fingerprint>,
}

/// The checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub store: StoreId,
    pub id: u64,
    pub phase: Phase,
    pub replay: Place,
    /// Names are as of this Seq.
    pub names_seq: Seq,
    pub last_ts: Timestamp,
    pub next_file: FileId,
    /// First instant that can be shown: the end of the first adoption.
    pub birth: (Seq, Timestamp),
    /// Base file and offset up to which saved pages are in [`BaseState::saved`].
    pub base_scanned: (u64, u64),
    pub nodes: Vec<NodeState>,
    pub sections: Sections,
}

impl Checkpoint {
    /// Magic, version, length, body, CRC.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(256 + self.nodes.len() * 128);
        body.extend_from_slice(&self.store.0);
        put_varint(&mut body, self.id);
        body.push(match self.phase {
            Phase::Clean => 0,
            Phase::Gathering => 1,
            Phase::Serving => 2,
            Phase::Scattering => 3,
        });
        put_place(&mut body, &self.replay);
        put_varint(&mut body, self.names_seq.0);
        put_signed(&mut body, self.last_ts.0);
        put_varint(&mut body, self.next_file.0);
        put_varint(&mut body, self.birth.0.0);
        put_signed(&mut body, self.birth.1.0);
        put_varint(&mut body, self.base_scanned.0);
        put_varint(&mut body, self.base_scanned.1);
        put_varint(&mut body, self.nodes.len() as u64);
        for node in &self.nodes {
            put_node(&mut body, node);
        }
        self.sections.put(&mut body);
        let mut out = Vec::with_capacity(body.len() + 24);
        out.extend_from_slice(&MAGIC);
        put_u32(&mut out, VERSION);
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&body);
        let crc = crc32fast::hash(&out);
        put_u32(&mut out, crc);
        out
    }

    /// Reads a checkpoint; damage, a newer version and another store are told apart.
    pub fn decode(bytes: &[u8], store: Option<StoreId>) -> Result<Checkpoint> {
        let mut reader = Reader::new(bytes, "checkpoint");
        if reader.array::<8>()? != MAGIC {
            return Err(Error::corrupt("checkpoint.read", "this is not a checkpoint"));
        }
        let version = reader.u32()?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(Error::new(
                Kind::Version,
                "checkpoint.read",
                format!(
                    "format {version} is not known to this build (it knows {OLDEST} to {VERSION}); use a newer weft"
                ),
            ));
        }
        let len = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        let mut body = Reader::new(reader.take(len)?, "checkpoint");
        let crc = reader.u32()?;
        if bytes.get(..20 + len).map(crc32fast::hash) != Some(crc) {
            return Err(Error::corrupt("checkpoint.read", "the checksum does not fit"));
        }
        let found = StoreId(body.array()?);
        if store.is_some_and(|store| store != found) {
            return Err(Error::new(
                Kind::Mismatch,
                "checkpoint.read",
                format!("it belongs to store {found}"),
            ));
        }
        let mut checkpoint = get_body(&mut body, found)?;
        if version > 1 {
            checkpoint.sections = Sections::get(&mut body)?;
        }
        Ok(checkpoint)
    }
}

fn get_body(body: &mut Reader<'_>, store: StoreId) -> Result<Checkpoint> {
    let id = body.varint()?;
    let phase = match body.byte()? {
        0 => Phase::Clean,
        1 => Phase::Gathering,
        2 => Phase::Serving,
        3 => Phase::Scattering,
        other => return Err(Error::corrupt("checkpoint.read", format!("unknown phase {other}"))),
    };
    let replay = get_place(body)?;
    let names_seq = Seq(body.varint()?);
    let last_ts = Timestamp(body.signed()?);
    let next_file = FileId(body.varint()?);
    let birth = (Seq(body.varint()?), Timestamp(body.signed()?));
    let base_scanned = (body.varint()?, body.varint()?);
    let count = usize::try_from(body.varint()?).unwrap_or(usize::MAX);
    let mut nodes = Vec::with_capacity(count.min(body.remaining()));
    for _ in 0..count {
        nodes.push(get_node(body)?);
    }
    let sections = Sections::default();
    Ok(Checkpoint {
        store,
        id,
        phase,
        replay,
        names_seq,
        last_ts,
        next_file,
        birth,
        base_scanned,
        nodes,
        sections,
    })
}

fn put_place(out: &mut Vec<u8>, place: &Place) {
    put_varint(out, place.segment.0);
    put_varint(out, place.offset);
    put_u32(out, place.chain);
    put_varint(out, place.seq.0);
}

fn get_place(reader: &mut Reader<'_>) -> Result<Place> {
    Ok(Place {
        segment: SegmentNo(reader.varint()?),
        offset: reader.varint()?,
        chain: reader.u32()?,
        seq: Seq(reader.varint()?),
    })
}

fn put_node(out: &mut Vec<u8>, node: &NodeState) {
    put_varint(out, node.file.0);
    put_varint(out, u64::from(node.root.0));
    put_varint(out, node.seq.0);
    put_attr(out, &node.attr);
    put_varint(out, node.slots.len() as u64);
    for slot in &node.slots {
        put_slot(out, slot);
    }
    put_bytes(out, &node.target);
    put_varint(out, node.xattrs.len() as u64);
    for (name, value) in &node.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
    out.push(
        u8::from(node.live) | u8::from(node.base.is_some()) << 1 | u8::from(node.fingerprint.is_some()) << 2,
    );
    if let Some(base) = &node.base {
        put_varint(out, base.adopted.0);
        put_varint(out, base.size);
        put_bytes(out, &base.saved);
        out.push(u8::from(base.in_limbo));
    }
    if let Some(print) = &node.fingerprint {
        put_varint(out, print.ino);
        put_varint(out, print.size);
        for time in [print.mtime, print.ctime] {
            put_signed(out, time.secs);
            put_varint(out, u64::from(time.nanos));
        }
    }
}

fn get_node(reader: &mut Reader<'_>) -> Result<NodeState> {
    let file = FileId(reader.varint()?);
    let root = RootId(u16::try_from(reader.varint()?).unwrap_or(u16::MAX));
    let seq = Seq(reader.varint()?);
    let attr = get_attr(reader)?;
    let slots = get_list(reader, get_slot)?;
    let target = reader.bytes()?.to_vec();
    let xattrs = get_list(reader, |reader| Ok((reader.bytes()?.to_vec(), reader.bytes()?.to_vec())))?;
    let flags = reader.byte()?;
    let base = match flags & 2 {
        0 => None,
        _ => Some(BaseState {
            adopted: Seq(reader.varint()?),
            size: reader.varint()?,
            saved: reader.bytes()?.to_vec(),
            in_limbo: reader.byte()? != 0,
        }),
    };
    let fingerprint = match flags & 4 {
        0 => None,
        _ => Some(Fingerprint {
            ino: reader.varint()?,
            size: reader.varint()?,
            mtime: get_time(reader)?,
            ctime: get_time(reader)?,
        }),
    };
    Ok(NodeState { file, root, seq, attr, slots, target, xattrs, live: flags & 1 != 0, base, fingerprint })
}

fn get_time(reader: &mut Reader<'_>) -> Result<crate::types::FileTime> {
    Ok(crate::types::FileTime { secs: reader.signed()?, nanos: reader.varint32()? })
}

fn get_list<'a, T>(reader: &mut Reader<'a>, one: impl Fn(&mut Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    let mut list = Vec::with_capacity(count.min(reader.remaining()));
    for _ in 0..count {
        list.push(one(reader)?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FileKind, FileTime};

    fn sample() -> Checkpoint {
        let time = FileTime { secs: 5, nanos: 6 };
        let attr = Attr {
            kind: FileKind::Regular,
            mode: 0o600,
            uid: 1,
            gid: 2,
            rdev: 0,
            nlink: 1,
            size: 10,
            atime: time,
            mtime: time,
            ctime: time,
        };
        Checkpoint {
            store: StoreId([7; 16]),
            id: 3,
            phase: Phase::Scattering,
            replay: Place { segment: SegmentNo(2), offset: 4096, chain: 9, seq: Seq(44) },
            names_seq: Seq(50),
            last_ts: Timestamp(-3),
            next_file: FileId(12),
            birth: (Seq(3), Timestamp(4)),
            base_scanned: (1, 8192),
            nodes: vec![NodeState {
                file: FileId(2),
                root: RootId(0),
                seq: Seq(49),
                attr,
                slots: vec![Slot { dir: FileId(1), name: b"a".to_vec() }],
                target: Vec::new(),
                xattrs: vec![(b"user.x".to_vec(), b"y".to_vec())],
                live: true,
                base: Some(BaseState { adopted: Seq(2), size: 5, saved: vec![1, 2], in_limbo: true }),
                fingerprint: Some(Fingerprint { ino: 9, size: 10, mtime: time, ctime: time }),
            }],
            sections: Sections::default(),
        }
    }

    #[test]
    fn a_checkpoint_comes_back() {
        let bytes = sample().encode();
        assert_eq!(Checkpoint::decode(&bytes, Some(StoreId([7; 16]))).unwrap(), sample());
        assert_eq!(Checkpoint::decode(&bytes, Some(StoreId([8; 16]))).unwrap_err().kind, Kind::Mismatch);
    }

    #[test]
    fn any_damage_is_refused() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Checkpoint::decode(&bad, None).is_err(), "byte {at}");
            assert!(Checkpoint::decode(&bytes[..at], None).is_err(), "cut at {at}");
        }
    }
}
