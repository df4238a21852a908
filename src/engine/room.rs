//! Writes, and what happens when there is no room for them.

use super::{Engine, Fallocate};
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

    /// As [`Engine::write`], but `false`, with nothing written, where that would wait: for the applier, or until history was
    /// shortened.
    pub fn try_write(&self, file: FileId, offset: u64, bytes: &[u8], append: bool) -> Result<bool> {
        let taken = match self.live.try_write(file, offset, bytes, append, Claim::Growth) {
            Err(error) if error.is(libc::ENOSPC) && self.live.is_short() => false,
            taken => taken?,
        };
        if taken {
            self.count_write(file, bytes);
        }
        Ok(taken)
    }

    /// As [`Engine::write_back`], but `false`, with nothing taken, where that would wait for the applier.
    pub fn try_write_back(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<bool> {
        self.took_back(file, bytes, self.live.try_write(file, offset, bytes, false, Claim::Owed))
    }

    /// Reserves space, or zeroes a range. Where history takes space from the same filesystem it is shortened before a full
    /// disk is told of; not for so much that it could be asked for by mistake.
    pub fn fallocate(&self, file: FileId, mode: Fallocate, offset: u64, len: u64) -> Result<()> {
        let act = || self.allocate(file, mode, offset, len);
        if !matches!(mode, Fallocate::Reserve { .. }) {
            return self.roomy(act);
        }
        let relieve = || self.relieve_now(&|| self.live.has_room(file, len).is_ok());
        with_room(|| self.roomy(act), || self.may_relieve(file, len), relieve)
    }

    /// As [`Engine::fallocate`], but `false`, with nothing done, where that would wait: for the applier, or until history was
    /// shortened.
    pub fn try_fallocate(&self, file: FileId, mode: Fallocate, offset: u64, len: u64) -> Result<bool> {
        if self.live.is_crowded() {
            return Ok(false);
        }
        let reserves = matches!(mode, Fallocate::Reserve { .. });
        match self.allocate(file, mode, offset, len) {
            Err(error) if error.is(libc::ENOSPC) => {
                match self.live.is_short() || reserves && self.may_relieve(file, len) {
                    true => Ok(false),
                    false => Err(error),
                }
            }
            done => done.map(|()| true),
        }
    }

    fn allocate(&self, file: FileId, mode: Fallocate, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len).ok_or_else(|| Error::errno("live.fallocate", libc::EFBIG))?;
        match mode {
            Fallocate::Reserve { keep_size } => {
                self.live.has_room(file, len)?;
                self.live.reserve(file, end, keep_size)
            }
            // Parts of pages are written.
            Fallocate::Punch => self.live.zero(file, offset, len, true),
            Fallocate::Zero { keep_size } => self.live.zero(file, offset, len, keep_size),
        }
    }

    /// Whether shortening history may make room for so many bytes.
    fn may_relieve(&self, file: FileId, len: u64) -> bool {
        const MOST: u64 = 256 << 20;
        // What cannot be told is taken for another filesystem.
        len <= MOST && self.live.is_beside_store(file).unwrap_or(false)
    }

    /// Does what may find the disk of STORE full: then history is shortened, down to the minimum, before that is told.
    pub(super) fn roomy<T>(&self, act: impl Fn() -> Result<T>) -> Result<T> {
        with_room(act, || self.live.is_short(), || self.relieve_now(&|| !self.is_over()))
    }

    /// The same for what changes names and attributes; it waits for the thread that looks after the space.
    pub(super) fn roomy_name<T>(&self, act: impl Fn() -> Result<T>) -> Result<T> {
        with_room(act, || self.live.is_short(), || Ok(self.await_relief()))
    }

    /// Takes pages from the kernel's writeback cache. Whoever wrote them has been told that they are written: so the
    /// reserve is theirs, and if they cannot be taken all the same, all writing stops.
    pub fn write_back(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        let taken = self.live.write(file, offset, bytes, false, Claim::Owed);
        self.took_back(file, bytes, taken.map(|_| true)).map(drop)
    }

    fn took_back(&self, file: FileId, bytes: &[u8], taken: Result<bool>) -> Result<bool> {
        match taken {
            Ok(true) => self.count_write(file, bytes),
            Ok(false) => return Ok(false),
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
        Ok(true)
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

/// Does what may find no space; where history is `short` of it, history is relieved before that is told.
fn with_room<T>(
    act: impl Fn() -> Result<T>,
    short: impl Fn() -> bool,
    relieve: impl Fn() -> Result<bool>,
) -> Result<T> {
    let mut done = act();
    let mut again = true;
    // Others may have taken what there was room for.
    for _ in 0..TRIES {
        if !matches!(&done, Err(error) if error.is(libc::ENOSPC)) {
            break;
        }
        if short() {
            match relieve() {
                Ok(true) => {}
                Ok(false) => break,
                Err(cause) => {
                    tracing::warn!(error = %cause, "history could not be shortened to make room");
                    break;
                }
            }
        } else if !std::mem::take(&mut again) {
            // Not room that another had made meanwhile: it is another filesystem that is full.
            break;
        }
        done = act();
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn full() -> Error {
        Error::errno("test", libc::ENOSPC)
    }

    #[test]
    fn room_that_another_made_meanwhile_is_used() {
        let calls = Cell::new(0);
        let act = || {
            calls.set(calls.get() + 1);
            if calls.get() == 1 { Err(full()) } else { Ok(calls.get()) }
        };
        assert_eq!(with_room(act, || false, || panic!("nothing is short")).unwrap(), 2);
    }

    #[test]
    fn what_history_has_no_part_in_is_refused_after_a_second_try() {
        let calls = Cell::new(0);
        let act = || -> Result<()> {
            calls.set(calls.get() + 1);
            Err(full())
        };
        assert!(with_room(act, || false, || panic!("nothing is short")).unwrap_err().is(libc::ENOSPC));
        assert_eq!(calls.get(), 2);
    }

    #[test]
    fn relief_that_others_use_up_is_asked_for_again_but_not_for_ever() {
        let (calls, relieved) = (Cell::new(0), Cell::new(0));
        let act = || -> Result<()> {
            calls.set(calls.get() + 1);
            Err(full())
        };
        let relieve = || {
            relieved.set(relieved.get() + 1);
            Ok(true)
        };
        assert!(with_room(act, || true, relieve).unwrap_err().is(libc::ENOSPC));
        assert_eq!((calls.get(), relieved.get()), (TRIES + 1, TRIES));
        assert!(with_room(act, || true, || Ok(false)).is_err());
    }
}
