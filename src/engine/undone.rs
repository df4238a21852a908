//! What of a pruning could not be done, while the rest of it went on.

use crate::error::{Error, Result};

/// See the head of this file.
#[derive(Default)]
pub(super) struct Undone(Option<Error>);

impl Undone {
    /// Remembers an error. Of several the first counts; damage least: that it is there is no news the next time.
    pub(super) fn note(&mut self, error: Error) {
        let counts = match &self.0 {
            None => true,
            Some(known) => known.is_damage() && !error.is_damage(),
        };
        if counts {
            tracing::warn!(%error, "a part of history is not pruned and keeps its space");
            self.0 = Some(error);
        }
    }

    /// What was done; `None` where one place could not be read or written, or there was no room: what does not need these
    /// goes on.
    pub(super) fn go_on<T>(&mut self, done: Result<T>) -> Result<Option<T>> {
        match done {
            Err(error) if error.is_of_place() || error.is(libc::ENOSPC) => {
                self.note(error);
                Ok(None)
            }
            done => done.map(Some),
        }
    }

    pub(super) fn into_error(self) -> Option<Error> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_told_and_damage_only_where_there_is_no_other() {
        let mut undone = Undone::default();
        assert_eq!(undone.go_on(Ok(7)).unwrap(), Some(7));
        assert_eq!(undone.go_on::<u8>(Err(Error::corrupt("test", "rotten"))).unwrap(), None);
        for errno in [libc::EIO, libc::ENOSPC] {
            assert_eq!(undone.go_on::<u8>(Err(Error::errno("test", errno))).unwrap(), None);
        }
        assert!(undone.go_on::<u8>(Err(Error::errno("test", libc::EACCES))).is_err());
        assert!(undone.into_error().unwrap().is(libc::EIO));
    }
}
