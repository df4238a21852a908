//! Answers that are given after a failure of the journal: kept in a file of their own until the next mount takes them
//! into the journal. Without it, a clock that is set back before that mount could let events in at or before an
//! instant that was shown.

use crate::disk::{Disk, OpenHow};
use crate::error::{Error, Result};
use crate::format::pins::{KeptPin, decode, encode};
use crate::sync::{Arc, Mutex};
use crate::types::{Seq, StoreId, Timestamp};
use std::path::{Path, PathBuf};

/// See the head of this file.
pub struct Kept {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    store: StoreId,
    pins: Mutex<Vec<KeptPin>>,
}

impl Kept {
    /// `path` in STORE. What an earlier session kept must have been taken in ([`forget`]).
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf, store: StoreId) -> Kept {
        Kept { disk, path, store, pins: Mutex::new(Vec::new()) }
    }

    /// What this session has answered for a time.
    pub fn get(&self, at: Timestamp) -> Option<Seq> {
        find(&self.pins.lock(), at)
    }

    /// Keeps an answer, durably; an earlier one for the same time counts.
    ///
    /// # Errors
    /// When it could not be made durable: then it must not be given.
    pub fn add(&self, at: Timestamp, seq: Seq) -> Result<Seq> {
        let mut pins = self.pins.lock();
        if let Some(seq) = find(&pins, at) {
            return Ok(seq);
        }
        pins.push(KeptPin { at, seq });
        match self.write(&pins) {
            Ok(()) => Ok(seq),
            Err(cause) => {
                pins.pop();
                Err(Error::new(
                    cause.kind,
                    "pins.write",
                    format!(
                        "writing has stopped, and this time cannot be fixed durably either ({cause}): it could come to \
                         mean another moment. @seq={seq} is what it means now, and always works"
                    ),
                )
                .at(&self.path))
            }
        }
    }

    fn write(&self, pins: &[KeptPin]) -> Result<()> {
        let temporary = self.path.with_extension("new");
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let file = self.disk.open("pins.write", &temporary, how)?;
        file.set_len("pins.write", 0)?;
        file.write_durable("pins.write", &encode(self.store, pins), 0)?;
        self.disk.rename("pins.write", &temporary, &self.path)?;
        self.disk.sync_dir("pins.write", self.path.parent().unwrap_or(Path::new("/")))
    }
}

fn find(pins: &[KeptPin], at: Timestamp) -> Option<Seq> {
    pins.iter().find(|pin| pin.at == at).map(|pin| pin.seq)
}

/// What an earlier session kept.
pub fn read(disk: &dyn Disk, path: &Path, store: StoreId) -> Result<Vec<KeptPin>> {
    if disk.stat("pins.read", path)?.is_none() {
        return Ok(Vec::new());
    }
    let file = disk.open("pins.read", path, OpenHow::default())?;
    let len = usize::try_from(file.len("pins.read")?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    let got = file.read_at("pins.read", &mut bytes, 0)?;
    decode(bytes.get(..got).unwrap_or(&[]), store).map_err(|error| error.at(path))
}

/// Removes the file: what it held is durable in the journal.
pub fn forget(disk: &dyn Disk, path: &Path) -> Result<()> {
    disk.unlink("pins.forget", path)?;
    disk.sync_dir("pins.forget", path.parent().unwrap_or(Path::new("/")))
}
