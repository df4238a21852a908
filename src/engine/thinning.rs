//! Which files of segments are thinned, and which of them together.
//!
//! What cannot be read stays as it is, and keeps nothing else: neither what lies behind it nor its neighbours.

use super::Engine;
use super::undone::Undone;
use crate::error::{Error, Result};
use crate::meta::thinned::Thinned;
use crate::types::{SegmentNo, Seq};
use crate::weave::{Pace, Range, Remaining, Thinning};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Woven files are put together up to so many segments and bytes.
const TOGETHER_SEGMENTS: u64 = 16;
const TOGETHER_BYTES: u64 = 32 << 20;

/// What is known of woven files from prunings before.
#[derive(Default)]
pub(super) struct Judged {
    /// Files that were judged, and by which points.
    by: HashMap<Range, u64>,
    /// Those that could not be thinned: none is put together with them.
    failed: HashSet<Range>,
}

impl Judged {
    /// Every file is to be judged anew.
    pub(super) fn forget(&mut self) {
        self.by.clear();
    }

    fn retain(&mut self, groups: &[Vec<Thinnable>]) {
        let there: HashSet<Range> = groups.iter().flatten().map(|(range, ..)| *range).collect();
        self.by.retain(|range, _| there.contains(range));
        self.failed.retain(|range| there.contains(range));
    }
}

/// How a pruning is carried out.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub pace: &'a dyn Pace,
    /// Nothing is changed.
    pub dry: bool,
}

impl Engine {
    /// Thins the files that lie in what is thinned.
    pub(super) fn carry_out(
        &self,
        thinned: &Thinned,
        needs: &Remaining<'_>,
        judged: &mut Judged,
        how: How<'_>,
        undone: &mut Undone,
    ) -> Result<Thinning> {
        let mut told = Thinning::default();
        let mut full = None;
        if self.thin_unwoven(thinned, needs, how, (&mut told, &mut full), undone)? {
            self.thin_woven(thinned, needs, judged, how, (&mut told, &mut full), undone)?;
        }
        // Where something came back all the same there is more room the next time.
        full.filter(|_| told.after_bytes >= told.before_bytes)
            .into_iter()
            .for_each(|error| undone.note(error));
        Ok(told)
    }

    /// Weaves what is not woven yet, without what goes; `false`: told to stop.
    fn thin_unwoven(
        &self,
        thinned: &Thinned,
        needs: &Remaining<'_>,
        How { pace, dry }: How<'_>,
        (told, full): (&mut Thinning, &mut Option<Error>),
        undone: &mut Undone,
    ) -> Result<bool> {
        let weaver = self.weaver.weaver();
        for number in weaver.waiting(self.settled().min(thinned.upto()))? {
            match weaver.thin_journal(number, needs, &self.index, pace, dry) {
                Ok(Some(done)) => told.add(&done),
                Ok(None) => return Ok(false),
                // Of the next, less may be needed.
                Err(error) if error.is(libc::ENOSPC) => *full = Some(error),
                failed => drop(undone.go_on(failed)?),
            }
        }
        Ok(true)
    }

    fn thin_woven(
        &self,
        thinned: &Thinned,
        needs: &Remaining<'_>,
        judged: &mut Judged,
        How { pace, dry }: How<'_>,
        (told, full): (&mut Thinning, &mut Option<Error>),
        undone: &mut Undone,
    ) -> Result<()> {
        // An index that is being made anew has not read the rest: it knows nothing of what that shows, and all of it would seem
        // to be shown by nobody.
        let settled = self.settled();
        let groups = self.thinnable(thinned.upto().min(settled), &judged.failed, undone)?;
        judged.retain(&groups);
        // What is put together takes space beside what it is made of, and is made of all of it. Where there is too little
        // space, or one file cannot be read, less is put together.
        let mut groups = VecDeque::from(groups);
        while let Some(group) = groups.pop_front() {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let (range, seqs) = ((first.0.0, last.0.1), (first.1.0, last.1.1));
            let by = signature(thinned, seqs);
            if group.len() == 1 && judged.by.get(&range) == Some(&by) {
                continue;
            }
            let files: Vec<Range> = group.iter().map(|(range, ..)| *range).collect();
            match self.weaver.weaver().thin(&files, needs, &self.index, pace, dry) {
                Ok(Some(done)) => {
                    told.add(&done);
                    // What is judged by an instant that the index has not reached keeps too much.
                    if thinned.at_or_after(seqs.1) <= settled {
                        judged.by.insert(range, by);
                    }
                    judged.failed.remove(&range);
                    continue;
                }
                Ok(None) => break,
                Err(error) if error.is(libc::ENOSPC) => *full = Some(error),
                // It is in another by now.
                Err(error) if error.is(libc::ENOENT) => {}
                failed => {
                    undone.go_on(failed)?;
                    if group.len() == 1 {
                        judged.failed.insert(range);
                    }
                }
            }
            if group.len() > 1 {
                group.into_iter().rev().for_each(|file| groups.push_front(vec![file]));
            }
        }
        Ok(())
    }

    /// Woven files that end at or before an event and of which no journal segment is there: neighbours that may be put
    /// together, with their first and last events. Those that have `failed` stand alone.
    fn thinnable(
        &self,
        upto: Seq,
        failed: &HashSet<Range>,
        undone: &mut Undone,
    ) -> Result<Vec<Vec<Thinnable>>> {
        let segments = self.live.journal.segments();
        let unwoven = segments.list_journal()?;
        let newest = segments.list()?.last().copied().unwrap_or(SegmentNo(0));
        let mut groups: Vec<Vec<Thinnable>> = Vec::new();
        let mut alone = false;
        for (first, last) in segments.woven().ranges()? {
            let Some(header) = undone.go_on(segments.header(first))? else { continue };
            // Where the next one cannot be read that is later than it could be: it may be thinned later, not earlier.
            let next = segments.first_seq_from(SegmentNo(last.0 + 1), newest)?;
            let (Some(begin), Some(next)) = (header.map(|header| header.first_seq), next) else { continue };
            let end = Seq(next.0.saturating_sub(1));
            if end > upto {
                break;
            }
            if unwoven.iter().any(|number| (first..=last).contains(number)) {
                continue;
            }
            let path = segments.woven().path(first, last);
            let bytes = self.disk.stat("thin.size", &path)?.map_or(0, |stat| stat.attr.size);
            let file = ((first, last), (begin, end), bytes);
            let was_alone = std::mem::replace(&mut alone, failed.contains(&(first, last)));
            match groups.last_mut() {
                Some(group) if !alone && !was_alone && fits(group, &file) => group.push(file),
                _ => groups.push(vec![file]),
            }
        }
        Ok(groups)
    }
}

/// A woven file, its first and last event, its bytes.
type Thinnable = (Range, (Seq, Seq), u64);

fn fits(group: &[Thinnable], file: &Thinnable) -> bool {
    let bytes: u64 = group.iter().map(|(_, _, bytes)| bytes).sum();
    let (Some(((first, _), ..)), Some(((_, last), ..))) = (group.first(), group.last()) else { return false };
    let ((next, end), _, more) = file;
    next.0 == last.0 + 1 && end.0 - first.0 < TOGETHER_SEGMENTS && bytes + more <= TOGETHER_BYTES
}

/// What judged a file with these events: the points that stand for them.
fn signature(thinned: &Thinned, (first, last): (Seq, Seq)) -> u64 {
    let mut hasher = DefaultHasher::new();
    let upto = thinned.at_or_after(last);
    thinned.kept().range(first..=upto.max(first)).for_each(|seq| seq.hash(&mut hasher));
    upto.hash(&mut hasher);
    hasher.finish()
}
