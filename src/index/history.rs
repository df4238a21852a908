//! What happened to one file, newest first: data events, names, attributes and extended attributes in one order.
//!
//! Each source is a descending scan of the file's own entries, so the cost is that of what is asked for, however long
//! the history of everything else.

use super::attr;
use super::data::{self, Change, Track};
use super::kv::Kv;
use super::naming::{self, Naming};
use crate::error::Result;
use crate::types::{Attr, FileId, Seq, Timestamp};

/// One event of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happened {
    pub seq: Seq,
    pub ts: Timestamp,
    pub did: Did,
}

/// What it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Did {
    /// Bytes changed; of a directory (size 0): an entry came or went.
    Content {
        change: Change,
        bytes: u64,
        size: u64,
    },
    Name(Naming),
    /// Attributes were set.
    Attr {
        attr: Attr,
        chosen_mtime: bool,
    },
    /// An extended attribute was set or removed.
    Xattr,
}

/// Up to `limit` events of a file at or before a Seq, newest first. Fewer may come although there are more: only an
/// empty answer is the end.
pub(super) fn newest(kv: &dyn Kv, file: FileId, at: Seq, limit: usize) -> Result<Vec<Happened>> {
    let names = naming::newest(kv, file, at, limit)?.into_iter().map(|named| Happened {
        seq: named.seq,
        ts: named.ts,
        did: Did::Name(named.naming),
    });
    let attrs = attr::newest_recorded(kv, file, at, limit)?.into_iter().map(|recorded| Happened {
        seq: recorded.seq,
        ts: recorded.ts,
        did: Did::Attr { attr: recorded.attr, chosen_mtime: recorded.chosen_mtime },
    });
    let content =
        data::newest_samples(kv, file, Track::Content, at, limit)?.into_iter().map(|sample| Happened {
            seq: sample.seq,
            ts: sample.ts,
            did: Did::Content { change: sample.change, bytes: sample.bytes, size: sample.value },
        });
    let xattrs = data::newest_samples(kv, file, Track::Change, at, limit)?
        .into_iter()
        .map(|sample| Happened { seq: sample.seq, ts: sample.ts, did: Did::Xattr });
    // One event may stand in several: its names say most, and come first.
    let mut all: Vec<Happened> = names.chain(content).chain(xattrs).chain(attrs).collect();
    all.sort_by_key(|happened| std::cmp::Reverse(happened.seq));
    all.dedup_by_key(|happened| happened.seq);
    all.truncate(limit);
    Ok(all)
}
