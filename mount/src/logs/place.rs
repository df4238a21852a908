//! Where to go on in the files of a log after a restart, and by what they are known again.

use super::source::{Identity, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Result;

/// Where to go on after a restart, by file.
pub(super) type Places = BTreeMap<Identity, Place>;

/// Where to go on in a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Place {
    /// Bytes that are told.
    pub told: u64,
    /// How it begins; `None`: not known.
    pub head: Option<Head>,
}

/// How a file begins. A network's filesystem and btrfs have another device number at each boot, and an inode number is
/// given to another file: by its number and its first bytes a file is known again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub len: u64,
    blake3: String,
}

/// Bytes of a file that are its beginning, if so many are told.
pub(super) const HEAD: usize = 512;

impl Head {
    /// Of the first `len` bytes; `None` when there are not so many.
    pub fn of(source: &mut dyn Source, file: Identity, len: u64) -> Result<Option<Head>> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(HEAD).min(HEAD)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match source.read(file, filled as u64, rest)? {
                0 => return Ok(None),
                more => filled += more,
            }
        }
        Ok(Some(Head { len, blake3: crate::models::hash(&bytes) }))
    }

    /// Whether a file begins so; `None`: it cannot be read now.
    pub fn is_of(&self, source: &mut dyn Source, file: Identity) -> Option<bool> {
        Head::of(source, file, self.len).ok().map(|head| head.as_ref() == Some(self))
    }
}
