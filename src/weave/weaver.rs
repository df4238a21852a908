//! Which segment is woven next, and the steps from one form to the other.

use super::Pace;
use super::found::Needs;
use super::make::make;
use super::source::Source;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::index::Index;
use crate::journal::segment::Segments;
use crate::live::paths::join_bytes;
use crate::sync::{Arc, Mutex};
use crate::types::{SegmentNo, Seq};
use std::collections::BTreeSet;

/// How the name of an unfinished file ends.
pub(super) const UNFINISHED: &str = "new";

/// A segment that was woven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Woven {
    pub segment: SegmentNo,
    /// Bytes that writes brought, and beside them those that were left out.
    pub payload_bytes: u64,
    pub unneeded_bytes: u64,
    /// Bytes of groups in the journal segment.
    pub journal_bytes: u64,
    pub woven_bytes: u64,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No segment is ready to be woven.
    Nothing,
    /// Told to stop; nothing has changed.
    Stopped,
    Wove(Woven),
}

/// What leaves out versions that no remaining instant needs; the index forgets them first.
pub(super) struct Lean<'a> {
    pub needs: &'a dyn Needs,
    pub index: &'a Index,
}

/// Segments that could not be woven.
#[derive(Default)]
pub(super) struct Failed {
    /// What stands there is not what was written.
    damaged: BTreeSet<SegmentNo>,
    /// May succeed another time: the others come first.
    later: BTreeSet<SegmentNo>,
}

impl Failed {
    /// The oldest that has not failed; when all have, each is tried once more.
    fn next(&mut self, waiting: &[SegmentNo]) -> Option<SegmentNo> {
        let sound: Vec<SegmentNo> =
            waiting.iter().filter(|number| !self.damaged.contains(number)).copied().collect();
        if sound.iter().all(|number| self.later.contains(number)) {
            self.later.clear();
        }
        sound.into_iter().find(|number| !self.later.contains(number))
    }

    pub(super) fn is_damaged(&self, number: SegmentNo) -> bool {
        self.damaged.contains(&number)
    }

    fn note(&mut self, number: SegmentNo, error: &Error) {
        match error.is_damage() {
            true => drop(self.damaged.insert(number)),
            // Where there is no space for this one there is none for the next.
            false if error.is(libc::ENOSPC) => {}
            false => drop(self.later.insert(number)),
        }
    }

    /// It was woven; whether all have been that had failed.
    fn done(&mut self, number: SegmentNo) -> bool {
        self.later.remove(&number);
        self.damaged.is_empty() && self.later.is_empty()
    }
}

/// Weaves one segment at a time.
pub struct Weaver {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) segments: Arc<Segments>,
    /// Held through a step.
    pub(super) turn: Mutex<Failed>,
    trouble: Mutex<Option<Error>>,
}

impl Weaver {
    /// Removes what an earlier weaver left unfinished.
    pub fn new(segments: Arc<Segments>) -> Result<Weaver> {
        let disk = Arc::clone(segments.disk());
        let dir = segments.woven().dir();
        for entry in disk.read_dir("weave.tidy", dir)? {
            let path = join_bytes(dir, &entry.name);
            if path.extension().is_some_and(|ending| ending == UNFINISHED) {
                disk.unlink("weave.tidy", &path)?;
            }
        }
        let (turn, trouble) = (Mutex::new(Failed::default()), Mutex::new(None));
        let weaver = Weaver { disk, segments, turn, trouble };
        weaver.remove_superseded()?;
        Ok(weaver)
    }

    /// What kept a segment from being woven.
    pub fn trouble(&self) -> Option<Error> {
        self.trouble.lock().clone()
    }

    /// Journal segments whose successors begin at or before `settled`, ascending. First Seqs rise with the numbers, so
    /// few headers have to be read.
    pub fn waiting(&self, settled: Seq) -> Result<Vec<SegmentNo>> {
        let mut numbers = self.segments.list_journal()?;
        let (mut ready, mut unknown) = (0, numbers.len());
        let newest = numbers.last().copied().unwrap_or(SegmentNo(0));
        while ready < unknown {
            let middle = ready + (unknown - ready) / 2;
            let Some(number) = numbers.get(middle) else { break };
            match self.segments.first_seq_from(SegmentNo(number.0 + 1), newest)? {
                Some(next) if next <= settled => ready = middle + 1,
                _ => unknown = middle,
            }
        }
        numbers.truncate(ready);
        Ok(numbers)
    }

    /// Weaves the oldest segment that is ready. `settled`: no recovery replays an event at or before it, and the index
    /// has them all. One that cannot be woven is an error, and stays as it is; the next step goes on behind it. It is tried
    /// again when no other is left, unless it is damaged.
    pub fn step(&self, settled: Seq, pace: &dyn Pace) -> Result<Outcome> {
        let mut failed = self.turn.lock();
        let waiting = self.waiting(settled)?;
        match failed.next(&waiting) {
            Some(number) => self.weave_noting(number, None, pace, &mut failed),
            None => Ok(Outcome::Nothing),
        }
    }

    /// Weaves a segment, and remembers what kept it from that.
    pub(super) fn weave_noting(
        &self,
        number: SegmentNo,
        lean: Option<&Lean<'_>>,
        pace: &dyn Pace,
        failed: &mut Failed,
    ) -> Result<Outcome> {
        let result = self.weave(number, lean, pace);
        match &result {
            Err(error) => {
                *self.trouble.lock() = Some(error.clone());
                failed.note(number, error);
            }
            Ok(Outcome::Wove(_)) if failed.done(number) => *self.trouble.lock() = None,
            Ok(_) => {}
        }
        result
    }

    fn weave(&self, number: SegmentNo, lean: Option<&Lean<'_>>, pace: &dyn Pace) -> Result<Outcome> {
        let path = self.segments.woven().path(number, number);
        if let Some(done) = self.finished(number)? {
            return Ok(Outcome::Wove(done));
        }
        let source = Source::open(&self.segments, number)?;
        let unfinished = path.with_extension(UNFINISHED);
        let made = make(&*self.disk, &self.segments, &source, &unfinished, lean, pace);
        if !matches!(made, Ok(Some(_))) {
            // It is of no use to anyone, least of all on a full disk; the next start removes it at latest.
            let _ = self.disk.unlink("weave.drop", &unfinished);
        }
        let Some(made) = made? else { return Ok(Outcome::Stopped) };
        self.disk.rename("weave.name", &unfinished, &path)?;
        self.disk.sync_dir("weave.name", self.segments.woven().dir())?;
        match self.finished(number)? {
            Some(done) => Ok(Outcome::Wove(Woven { unneeded_bytes: made.unneeded_bytes, ..done })),
            None => Err(Error::corrupt("weave.check", "what was written cannot be read back").at(&path)),
        }
    }

    /// Removes the journal's form of a segment if the woven one is there and whole. One that is not is removed itself:
    /// as long as the journal's is there nobody needs it.
    fn finished(&self, number: SegmentNo) -> Result<Option<Woven>> {
        let path = self.segments.woven().path(number, number);
        let opened = self.segments.woven().open_now(number, number).and_then(|file| {
            file.check()?;
            Ok(file)
        });
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.is(libc::ENOENT) => return Ok(None),
            Err(error) if error.kind == Kind::Corrupt => {
                tracing::warn!(%error, "a woven segment is damaged, and made anew from the journal's");
                self.disk.unlink("weave.drop", &path)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let contents = file.contents();
        let done = Woven {
            segment: number,
            payload_bytes: contents.payload_bytes,
            unneeded_bytes: 0,
            journal_bytes: contents.journal_bytes,
            woven_bytes: file.len_bytes(),
        };
        // Its name may stand in memory only, if a daemon was killed after it had given it.
        self.disk.sync_dir("weave.name", self.segments.woven().dir())?;
        self.segments.remove(number)?;
        Ok(Some(done))
    }
}
