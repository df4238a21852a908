//! The standard rule: a shadow when the changes since the last one pass a threshold, and at latest after some age. So
//! shadows that follow are kept up to date, whatever of a partition they are of; those that a person asked for also when
//! no others are made.

use crate::engine::{Engine, Work};
use crate::error::Result;
use crate::lineage::partition::is_log;
use crate::past::view::View;
use crate::shadow::{Reason, Shadow, Subject, Wish};
use crate::types::{FileId, PAGE};
use std::collections::HashMap;

/// A smaller partition is read fast enough without.
const LEAST_BYTES: u64 = 4 << 20;
/// What reading one changed page from history costs more than reading it in sequence, s.
const PAGE_COST: f64 = 50e-6;

/// Events of earlier sessions that are counted, since the newest snapshot of one shadow.
const EVENTS_BEFORE: u64 = 1 << 20;

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
    /// When it was first written, in µs that have passed: the clock may be set.
    first_us: i64,
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

    /// A shadow of all of it was just made.
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
        let (limits, now_us) = (self.shadowing.limits, self.shadow_clock_us());
        if !limits.on && self.kept_shadows().is_empty() {
            return Ok(());
        }
        let view = match self.view(self.index.watermark().seq) {
            // Nothing is indexed yet, or it was pruned this moment: at the next look.
            Err(error) if error.is(libc::ESTALE) => return Ok(()),
            other => other?,
        };
        let mut rule = self.shadowing.rule.lock();
        if !std::mem::replace(&mut rule.began, true) {
            self.count_before(&mut rule, now_us);
        }
        let kept = self.kept_shadows();
        for (file, bytes) in rule.news(self.activity()) {
            let subject = self.subject_of_file(&view, file)?;
            let of_rule = |subject: &Subject| limits.on && !is_log(&subject.partition);
            if let Some(subject) = subject.filter(|subject| of_rule(subject) || kept.contains_key(subject)) {
                rule.since.entry(subject).or_insert(Since { bytes: 0, first_us: now_us }).bytes += bytes;
            }
        }
        let due = |since: &Since| {
            since.bytes >= limits.after_bytes || now_us.saturating_sub(since.first_us) >= limits.max_age_us
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
            let benefit = (bytes.min(size) / PAGE) as f64 * PAGE_COST;
            let shadows = kept.get(&subject).map_or(&[][..], Vec::as_slice);
            shadows.iter().for_each(|shadow| self.wish(renewal(shadow, benefit)));
            let has_whole = shadows.iter().any(|shadow| shadow.pages.is_none());
            if !has_whole && size >= LEAST_BYTES && !is_log(&subject.partition) {
                let (pages, at, reason) = (None, None, Reason::Rule);
                self.wish(Wish { subject, pages, at, benefit, reason, urgent: false });
            }
        }
        Ok(())
    }

    /// Shadows that are to be kept up to date, by partition.
    fn kept_shadows(&self) -> HashMap<Subject, Vec<Shadow>> {
        let on = self.shadowing.limits.on;
        let mut kept: HashMap<Subject, Vec<Shadow>> = HashMap::new();
        for shadow in self.shadowing.shadows.list() {
            if shadow.follows && (on || shadow.reason == Reason::Asked) {
                kept.entry(shadow.subject.clone()).or_default().push(shadow);
            }
        }
        kept
    }

    /// What was written since the shadows that earlier sessions left.
    fn count_before(&self, rule: &mut Rule, now_us: i64) {
        for (subject, shadows) in self.kept_shadows() {
            // What cannot be told, or not all of it, is much.
            let much = self.shadowing.limits.after_bytes;
            let bytes = |shadow: &Shadow| match self.bytes_since(shadow, EVENTS_BEFORE) {
                Some(since) if since.is_all => since.bytes,
                since => much.max(since.map_or(0, |since| since.bytes)),
            };
            let most = shadows.iter().map(bytes).max().unwrap_or(0);
            let age_us = shadows.iter().map(|shadow| self.shadow_age_us(shadow)).max().unwrap_or(0);
            let first_us = now_us.saturating_sub_unsigned(age_us);
            rule.since.insert(subject, Since { bytes: most, first_us });
        }
    }

    /// The partition of a file that has a name and is history.
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
                return Ok(Some(self.shadow_subject(&root.name, &path)));
            }
        }
        Ok(None)
    }
}

/// Brings a shadow up to date, whoever it is of.
fn renewal(shadow: &Shadow, benefit: f64) -> Wish {
    let reason = if shadow.reason == Reason::Asked { Reason::Asked } else { Reason::Rule };
    let (subject, pages) = (shadow.subject.clone(), shadow.pages.clone());
    Wish { subject, pages, at: None, benefit, reason, urgent: false }
}

fn find(view: &View, root: &[u8], names: &[Vec<u8>]) -> Result<Option<FileId>> {
    let mut at = view.root(root)?;
    for name in names {
        let Some(dir) = at else { return Ok(None) };
        at = view.lookup(dir, name)?.map(|(file, _)| file);
    }
    Ok(at)
}
