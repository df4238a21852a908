//! How far the index reaches, and whose it is.
//!
//! [`Space::State`]: 0 -> version and store, 1 -> watermark, 2 ++ file -> levels in use; 3 stands in `lost.rs`.

use super::codec::{Reader, put_signed, put_varint};
use super::kv::{Batch, Kv, Space};
use crate::error::{Error, Kind, Result};
use crate::types::{SegmentNo, Seq, StoreId, Timestamp};

/// Raised whenever an older build would misread the entries.
const VERSION: u64 = 5;
const HEADER_KEY: &[u8] = &[0];
const WATERMARK_KEY: &[u8] = &[1];
const HEADER: u8 = 1;
const WATERMARK: u8 = 1;

/// What the index has taken in. All but `seq` is the caller's, to go on from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watermark {
    /// Last event indexed.
    pub seq: Seq,
    pub ts: Timestamp,
    pub segment: SegmentNo,
    /// Where the next group begins.
    pub offset: u64,
    /// The journal's chained checksum there.
    pub chain: u32,
    /// Clock epoch of that event. The index finds it itself; what a caller puts here does not count.
    pub epoch: u32,
}

impl Default for Watermark {
    /// Before any event.
    fn default() -> Watermark {
        Watermark {
            seq: Seq::ZERO,
            ts: Timestamp(i64::MIN),
            segment: SegmentNo(0),
            offset: 0,
            chain: 0,
            epoch: 0,
        }
    }
}

/// Checks whose index it is, or marks a new one; tells how far it reaches.
pub(super) fn open(kv: &dyn Kv, store: StoreId) -> Result<Watermark> {
    let known = kv.get(Space::State, WATERMARK_KEY)?;
    match kv.get(Space::State, HEADER_KEY)? {
        Some(header) => check_header(&header, store)?,
        None if known.is_some() => {
            return Err(super::codec::corrupt("it has no header"));
        }
        None => {
            let mut value = vec![HEADER];
            put_varint(&mut value, VERSION);
            value.extend_from_slice(&store.0);
            let mut batch = Batch::default();
            batch.put(Space::State, HEADER_KEY.to_vec(), value);
            kv.commit(batch)?;
        }
    }
    watermark(kv)
}

/// How far an index reaches that was opened before.
pub(super) fn watermark(kv: &dyn Kv) -> Result<Watermark> {
    kv.get(Space::State, WATERMARK_KEY)?.map_or(Ok(Watermark::default()), |value| read(&value))
}

fn check_header(value: &[u8], store: StoreId) -> Result<()> {
    const OP: &str = "index.open";
    let mut reader = Reader::new(value);
    reader.expect_tag(HEADER)?;
    let version = reader.varint()?;
    if version != VERSION {
        let message = format!(
            "the index has version {version}, this build knows {VERSION}; delete it, it is rebuilt from the journal"
        );
        return Err(Error::new(Kind::Version, OP, message));
    }
    let found = reader.bytes(16)?;
    if found != store.0 {
        let message = format!(
            "the index belongs to another store than {store}; delete it, it is rebuilt from the journal"
        );
        return Err(Error::new(Kind::Mismatch, OP, message));
    }
    reader.finish()
}

/// Puts a watermark.
pub(super) fn record(batch: &mut Batch, watermark: &Watermark) {
    let mut value = Vec::with_capacity(32);
    value.push(WATERMARK);
    put_varint(&mut value, watermark.seq.0);
    put_signed(&mut value, watermark.ts.0);
    put_varint(&mut value, watermark.segment.0);
    put_varint(&mut value, watermark.offset);
    put_varint(&mut value, u64::from(watermark.chain));
    put_varint(&mut value, u64::from(watermark.epoch));
    batch.put(Space::State, WATERMARK_KEY.to_vec(), value);
}

fn read(value: &[u8]) -> Result<Watermark> {
    let mut reader = Reader::new(value);
    reader.expect_tag(WATERMARK)?;
    let watermark = Watermark {
        seq: Seq(reader.varint()?),
        ts: Timestamp(reader.signed()?),
        segment: SegmentNo(reader.varint()?),
        offset: reader.varint()?,
        chain: reader.small()?,
        epoch: reader.small()?,
    };
    reader.finish()?;
    Ok(watermark)
}
