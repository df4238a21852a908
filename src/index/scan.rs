//! Skip-scan over versions: of each subject (a block, a name) the newest entry at or before a Seq.
//!
//! Keys are `subject ++ descending Seq`. A scan reads pairs in runs: long ones where most subjects have one version
//! (a cold file, read in sequence), short ones, with a seek behind each, where single subjects have thousands.

use super::codec::put_seq;
use super::kv::{Kv, Space};
use crate::error::Result;
use crate::types::Seq;
use std::ops::ControlFlow;

/// About as many pairs as can be stepped over in the time of one seek.
const SHORTEST: usize = 8;
const LONGEST: usize = 512;

/// What to scan.
pub(super) struct Scan<'a> {
    pub kv: &'a dyn Kv,
    pub space: Space,
    pub from: Vec<u8>,
    pub end: &'a [u8],
    pub at: Seq,
}

/// One subject's newest entry.
pub(super) struct Hit<'a> {
    pub subject: &'a [u8],
    pub seq: Seq,
    pub value: &'a [u8],
}

impl Scan<'_> {
    /// Visits the hits in key order. `split` tells the length of a key's subject, and its Seq; `after` tells where to go
    /// on once a subject is decided.
    pub(super) fn newest(
        self,
        split: impl Fn(&[u8]) -> Result<(usize, Seq)>,
        after: impl Fn(&[u8]) -> Result<Vec<u8>>,
        mut visit: impl FnMut(Hit<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut cursor = self.from;
        let mut limit = SHORTEST;
        loop {
            let pairs = self.kv.range(self.space, &cursor, self.end, limit)?;
            let mut hits = 0;
            let mut last: &[u8] = &[];
            let mut decided = false;
            for (key, value) in &pairs {
                let (len, seq) = split(key)?;
                let subject = &key[..len.min(key.len())];
                if subject != last {
                    (last, decided) = (subject, false);
                }
                if decided || seq > self.at {
                    continue;
                }
                (decided, hits) = (true, hits + 1);
                let hit = Hit {
                    subject,
                    seq,
                    value,
                };
                if visit(hit)?.is_break() {
                    return Ok(());
                }
            }
            if pairs.len() < limit {
                return Ok(());
            }
            cursor = match decided {
                true => after(last)?,
                false => {
                    let mut key = last.to_vec();
                    put_seq(&mut key, self.at);
                    key
                }
            };
            limit = match hits * 2 >= limit {
                true => (limit * 4).min(LONGEST),
                false => (limit / 2).max(SHORTEST),
            };
        }
    }
}

/// The key behind every version of a subject: no Seq is encoded as high.
pub(super) fn behind(subject: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(subject.len() + 1);
    key.extend_from_slice(subject);
    key.push(0xff);
    key
}
