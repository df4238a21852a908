//! What an engine tells of files over time, and of instants.

use super::{Capture, Engine};
use crate::error::Result;
use crate::past::diff::{Diff, Difference, FileKindName};
use crate::past::history::{Teller, Told, Wanted};
use crate::past::paths::find_last;
use crate::types::{FileId, FileKind, Name, Seq, Timestamp};

/// A file that a path leads to, or led to last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    pub file: FileId,
    pub kind: FileKind,
    /// Its path now, or the one it had last.
    pub path: String,
    /// It has no name any more.
    pub gone: bool,
}

/// How an instant came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    pub capture: Capture,
    /// First event of the session, and its time.
    pub session: (Seq, Timestamp),
}

impl Engine {
    /// Everything that has happened is durable and in the index; its Seq. After a failure: everything durable.
    pub(super) fn catch_up(&self) -> Result<Seq> {
        let last = self.live.journal.flush().unwrap_or_else(|_| self.live.journal.durable());
        self.indexer.wait_for(last)?;
        Ok(last)
    }

    /// The file that a path in a root led to last, at or before an instant (now without one). `None`: the path never
    /// was.
    pub fn locate(&self, root: &[u8], names: &[Name], at: Option<Seq>) -> Result<Option<Located>> {
        let now = self.catch_up()?;
        let found = find_last(&self.index, root, names, at.unwrap_or(now))?;
        let Some((file, kind)) = found else { return Ok(None) };
        let teller = Teller::new(&self.index, self.live.journal.segments());
        let path = teller.path(file, now)?.unwrap_or_default();
        let gone = self.index.attr(file, now)?.is_none_or(|attr| attr.nlink == 0);
        Ok(Some(Located { file, kind, path, gone }))
    }

    /// What happened to a file, newest first.
    pub fn log(&self, file: FileId, wanted: Wanted) -> Result<Told> {
        let now = self.catch_up()?;
        let wanted = Wanted { upto: wanted.upto.min(now), ..wanted };
        Teller::new(&self.index, self.live.journal.segments()).tell(file, wanted)
    }

    /// What differs at or below a path in a root between two instants that are resolved, by path.
    pub fn diff(
        &self,
        (before, after): (Seq, Seq),
        (root, names): (&[u8], &[Name]),
        kind_name: fn(FileKind) -> FileKindName,
    ) -> Result<Vec<Difference>> {
        Diff { index: &self.index, before, after, kind_name }.below(root, names)
    }

    /// In which session, and how, the events up to a Seq arrived. The Seq is that of a resolved instant.
    pub fn origin(&self, at: Seq) -> Result<Option<Origin>> {
        let session = self.index.session(at)?;
        Ok(session.map(|session| Origin {
            capture: if session.writeback { Capture::Writeback } else { Capture::Strict },
            session: (session.seq, session.ts),
        }))
    }
}
