//! The standard rule: a shadow when the changes since the last one pass a threshold, and at latest after some age.

use crate::engine::{Engine, Work};
use crate::error::Result;
use crate::lineage::partition::is_log;
use crate::past::view::View;
use crate::shadow::{Reason, Subject, Wish};
use crate::types::{FileId, PAGE, Timestamp};
use std::collections::HashMap;

/// A smaller partition is read fast enough without.
const LEAST_BYTES: u64 = 4 << 20;
/// What reading one changed page from history costs more than reading it in sequence, s.
const PAGE_COST: f64 = 50e-6;

/// What has changed since the last shadow of each partition.
#[derive(Default)]
pub(super) struct Rule {
    since: HashMap<Subject, Since>,
    /// What earlier sessions left has been counted.
    began: bool,
    /// Bytes written to each file up to the last look.
    seen: HashMap<FileId, u64>,
}

#[derive(Clone, Copy)]
struct Since {
    bytes: u64,
    first: Timestamp,
}

impl Rule {
    /// Bytes written to each file since the last look.
    fn news(&mut self, all: HashMap<FileId, Work>) -> Vec<(FileId, u64)> {
        let seen = std::mem::take(&mut self.seen);
        let new = |(file, work): (&FileId, &Work)| {
            // A file that was not counted for a while counts from the beginning again.
            let known = seen.get(file).copied().filter(|known| *known <= work.bytes).unwrap_or(0);
            (*file, work.bytes - known)
        };
        let news = all.iter().map(new).filter(|(_, bytes)| *bytes > 0).collect();
        self.seen = all.iter().map(|(file, work)| (*file, work.bytes)).collect();
        news
    }

    /// A shadow of it was just made.
    pub(super) fn made(&mut self, subject: &Subject) {
        self.since.remove(subject);
    }
}

impl Engine {
    /// One round of the standard rule, by hand.
    pub fn shadow_rule(&self) {
        if let Err(error) = self.wish_by_rule() {
            tracing::warn!(%error, "the rule for shadows cannot look at what was written");
        }
    }

    fn wish_by_rule(&self) -> Result<()> {
        let (limits, now) = (self.shadowing.limits, self.shadow_now());
        let view = match self.view(self.index.watermark().seq) {
            // Nothing is indexed yet, or it was pruned this moment: at the next look.
            Err(error) if error.is(libc::ESTALE) => return Ok(()),
            other => other?,
        };
        let mut rule = self.shadowing.rule.lock();
        if !std::mem::replace(&mut rule.began, true) {
            self.count_before(&mut rule, now);
        }
        for (file, bytes) in rule.news(self.activity()) {
            if let Some(subject) = self.subject_of_file(&view, file)? {
                rule.since.entry(subject).or_insert(Since { bytes: 0, first: now }).bytes += bytes;
            }
        }
        let due = |since: &Since| {
            since.bytes >= limits.after_bytes || now.0.saturating_sub(since.first.0) >= limits.max_age_us
        };
        let due: Vec<(Subject, u64)> = rule
            .since
            .iter()
            .filter(|(_, since)| since.bytes > 0 && due(since))
            .map(|(subject, since)| (subject.clone(), since.bytes))
            .collect();
        for (subject, bytes) in due {
            // Counted anew, also when the wish comes to nothing: it is not tried at every look.
            rule.since.remove(&subject);
            let members = self.members(&view, &subject)?;
            let size: u64 = members.iter().map(|member| member.size).sum();
            if size < LEAST_BYTES {
                continue;
            }
            let benefit = (bytes.min(size) / PAGE) as f64 * PAGE_COST;
            let (pages, at, reason) = (None, None, Reason::Rule);
            self.wish(Wish { subject, pages, at, benefit, reason, urgent: false });
        }
        Ok(())
    }

    /// What was written since the shadows that earlier sessions left.
    fn count_before(&self, rule: &mut Rule, now: Timestamp) {
        for info in self.shadows().into_iter().filter(|info| info.follows && info.pages.is_none()) {
            let made = info.snapshots.last().map_or(now, |newest| Timestamp(newest.made_us));
            let subject = Subject { root: info.root.into_bytes(), partition: info.partition.into_bytes() };
            // What cannot be told is much.
            let bytes = info.behind_bytes.unwrap_or(self.shadowing.limits.after_bytes);
            rule.since.insert(subject, Since { bytes, first: made });
        }
    }

    /// The partition of a file that has a name, is history, and is no log of the database's own.
    fn subject_of_file(&self, view: &View, file: FileId) -> Result<Option<Subject>> {
        if self.index.attr(file, view.seq())?.is_none_or(|attr| attr.nlink == 0) {
            return Ok(None);
        }
        let names = view.path(file)?;
        let path = names.join(&b'/');
        if path.is_empty() {
            return Ok(None);
        }
        for root in self.roots()? {
            if find(view, &root.name, &names)? == Some(file) {
                let subject = self.shadow_subject(&root.name, &path);
                return Ok(Some(subject).filter(|subject| !is_log(&subject.partition)));
            }
        }
        Ok(None)
    }
}

fn find(view: &View, root: &[u8], names: &[Vec<u8>]) -> Result<Option<FileId>> {
    let mut at = view.root(root)?;
    for name in names {
        let Some(dir) = at else { return Ok(None) };
        at = view.lookup(dir, name)?.map(|(file, _)| file);
    }
    Ok(at)
}
