//! Writes, and what happens when there is no room for them.

use super::Engine;
use crate::disk::Space;
use crate::error::{Error, Kind, Result};
use crate::journal::Claim;
use crate::live::room::Full;
use crate::sync::atomic::Ordering;
use crate::types::{FileId, RootId};

/// How often somebody may take the room that was made for another.
const TRIES: usize = 8;

impl Engine {
    /// Appends when `append`; otherwise at `offset`. Visible, not yet durable.
    pub fn write(&self, file: FileId, offset: u64, bytes: &[u8], append: bool) -> Result<()> {
        self.roomy(|| self.live.write(file, offset, bytes, append, Claim::Growth))?;
        self.count_write(file, bytes);
        Ok(())
    }

    /// Does what may find the disk of STORE full: then history is shortened, down to the minimum, before that is told.
    pub(super) fn roomy<T>(&self, act: impl Fn() -> Result<T>) -> Result<T> {
        self.with_room(act, || self.live.is_short(), &|| !self.is_over())
    }

    /// Does what may find no space; where history is `short` of it, there is to be `enough` before that is told.
    fn with_room<T>(
        &self,
        act: impl Fn() -> Result<T>,
        short: impl Fn() -> bool,
        enough: &dyn Fn() -> bool,
    ) -> Result<T> {
        let mut done = act();
        // Others may have taken what there was room for.
        for _ in 0..TRIES {
            match &done {
                Err(error) if error.is(libc::ENOSPC) && short() => {}
                _ => break,
            }
            match self.relieve_until(enough) {
                Ok(true) => done = act(),
                Ok(false) => break,
                Err(cause) => {
                    tracing::warn!(error = %cause, "history could not be shortened to make room");
                    break;
                }
            }
        }
        done
    }

    /// Reserves space in DATA: where history takes it from the same filesystem, history is shortened first. Not for so much
    /// that it could be asked for by mistake.
    pub(super) fn reserve(&self, file: FileId, end: u64, (len, keep_size): (u64, bool)) -> Result<()> {
        const MOST: u64 = 256 << 20;
        let act = || self.live.has_room(file, len).and_then(|()| self.live.reserve(file, end, keep_size));
        // What cannot be told is taken for another filesystem.
        let beside = || len <= MOST && self.live.is_beside_store(file).unwrap_or(false);
        self.with_room(|| self.roomy(act), beside, &|| self.live.has_room(file, len).is_ok())
    }

    /// The same for what changes names and attributes; it waits for the thread that looks after the space.
    pub(super) fn roomy_name<T>(&self, act: impl Fn() -> Result<T>) -> Result<T> {
        match act() {
            Err(error) if error.is(libc::ENOSPC) && self.live.is_short() => match self.await_relief() {
                true => act(),
                false => Err(error),
            },
            other => other,
        }
    }

    /// Takes pages from the kernel's writeback cache. Whoever wrote them has been told that they are written: so the
    /// reserve is theirs, and if they cannot be taken all the same, all writing stops.
    pub fn write_back(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        let taken = self.live.write(file, offset, bytes, false, Claim::Owed);
        match taken {
            Ok(_) => self.count_write(file, bytes),
            // Beyond the largest file: it could never be kept, and fsync and close say so.
            Err(error) if error.is(libc::EFBIG) => return Err(error),
            Err(error) => {
                let message =
                    format!("bytes that were acknowledged to a program could not be taken: {error}");
                let error = Error::new(Kind::Stopped, "engine.write_back", message);
                self.live.journal.stop(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    fn count_write(&self, file: FileId, bytes: &[u8]) {
        self.activity.wrote(file, bytes.len());
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// What the kernel may hold acknowledged and not yet sent (writeback capture); the edge sees that it holds no more.
    pub fn kernel_bytes(&self) -> u64 {
        self.live.limits.kernel_bytes
    }

    /// What is full: new bytes and names are refused until there is room.
    pub fn full(&self) -> Option<Full> {
        self.live.full()
    }

    /// Why nothing is written any more, if so.
    pub fn stopped(&self) -> Option<Error> {
        self.live.journal.failure()
    }

    /// Space of the filesystem beneath a root.
    pub fn space(&self, root: RootId) -> Result<Space> {
        self.live.space(root)
    }
}
