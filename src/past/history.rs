//! The versions of one file: what happened to it, newest first, with bursts of writes told in one line.

use super::paths::{path_of, path_of_slot};
use crate::error::Result;
use crate::format::event::{Event, Record, Slot};
use crate::index::{Change, Did, Happened, Index, Naming};
use crate::journal::reader::records_at;
use crate::journal::segment::Segments;
use crate::types::{Attr, FileId, Name, SegmentNo, Seq, Timestamp};

/// Data events at most this far apart are one burst.
const GAP_US: i64 = 1_000_000;
/// A burst is not told longer than this.
const BURST_US: i64 = 60_000_000;
/// Events read at a time.
const AT_ONCE: usize = 256;
/// Events read for one answer at most: a burst longer than that is told in parts.
const EVENTS_MAX: u64 = 200_000;

/// One line of a file's history. Times are µs, UTC.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Version {
    /// `write`, `punch`, `truncate`, `extend`, `create`, `adopt`, `rebase`, `link`, `unlink`, `rename`, `replaced`,
    /// `exchange`, `attr`, `xattr`, `entry` (of a directory).
    pub kind: &'static str,
    /// The last event of the line: `@seq=` of the file after it.
    pub seq: u64,
    pub first_seq: u64,
    pub time_us: i64,
    pub first_time_us: i64,
    pub events: u64,
    /// Bytes written, zeroed, cut or added; what was written twice counts twice.
    pub bytes: u64,
    /// Bytes in the file after, where the event says it.
    pub size: Option<u64>,
    /// The path that was left, or lost.
    pub from: Option<String>,
    /// The path that was gained.
    pub to: Option<String>,
    pub detail: Option<String>,
}

impl Version {
    /// A line of one event.
    pub fn new(kind: &'static str, seq: Seq, ts: Timestamp) -> Version {
        Version {
            kind,
            seq: seq.0,
            first_seq: seq.0,
            time_us: ts.0,
            first_time_us: ts.0,
            events: 1,
            bytes: 0,
            size: None,
            from: None,
            to: None,
            detail: None,
        }
    }

    fn is_data(&self) -> bool {
        matches!(self.kind, "write" | "punch" | "truncate" | "extend")
    }

    /// Takes in the event before this line's first, if both are one burst.
    fn take_in(&mut self, older: &Version) -> bool {
        let near = self.first_time_us.saturating_sub(older.time_us) <= GAP_US
            && self.time_us.saturating_sub(older.time_us) <= BURST_US;
        if !self.is_data() || self.kind != older.kind || !near {
            return false;
        }
        self.first_seq = older.first_seq;
        self.first_time_us = older.first_time_us;
        self.events += older.events;
        self.bytes = self.bytes.saturating_add(older.bytes);
        true
    }

    /// The same from the other side: takes in the event after this line's last.
    pub fn take_in_newer(&mut self, newer: &Version) -> bool {
        let mut joined = newer.clone();
        let near = newer.time_us.saturating_sub(self.first_time_us) <= BURST_US;
        if !near || !joined.take_in(self) {
            return false;
        }
        *self = joined;
        true
    }
}

/// Gathers lines from events that come newest first.
#[derive(Default)]
pub struct Lines {
    lines: Vec<Version>,
    /// Each event has a line of its own.
    all: bool,
}

impl Lines {
    pub fn new(all: bool) -> Lines {
        Lines { lines: Vec::new(), all }
    }

    /// Takes the next older event; gives it back when it would begin a line more than `limit`.
    pub fn push(&mut self, version: Version, limit: usize) -> Option<Version> {
        if !self.all && self.lines.last_mut().is_some_and(|last| last.take_in(&version)) {
            return None;
        }
        if self.lines.len() >= limit {
            return Some(version);
        }
        self.lines.push(version);
        None
    }

    pub fn finish(self) -> Vec<Version> {
        self.lines
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Events at or before this one.
    pub upto: Seq,
    /// Events after this one.
    pub after: Seq,
    /// Lines.
    pub limit: usize,
    /// A line for each event, time stamps of the kernel's own included.
    pub all: bool,
}

/// Some lines, newest first, and where to go on (`upto` of the next request); `None` at the end.
#[derive(Debug)]
pub struct Told {
    pub versions: Vec<Version>,
    pub next: Option<Seq>,
}

/// Tells what happened to a file.
pub struct Teller<'a> {
    pub index: &'a Index,
    pub segments: &'a Segments,
    /// Records of the group read last.
    group: Option<(SegmentNo, u64, Vec<Record>)>,
}

impl<'a> Teller<'a> {
    pub fn new(index: &'a Index, segments: &'a Segments) -> Teller<'a> {
        Teller { index, segments, group: None }
    }

    /// The history of a file, as far as wanted. The index has reached `wanted.upto`.
    pub fn tell(&mut self, file: FileId, wanted: Wanted) -> Result<Told> {
        let mut lines = Lines::new(wanted.all);
        let mut upto = wanted.upto;
        let mut seen = 0;
        loop {
            let events = self.index.history(file, upto, AT_ONCE)?;
            let Some(oldest) = events.last().map(|event| event.seq) else {
                return Ok(Told { versions: lines.finish(), next: None });
            };
            for happened in events {
                if happened.seq <= wanted.after {
                    return Ok(Told { versions: lines.finish(), next: None });
                }
                let seq = happened.seq;
                seen += 1;
                let full = match self.version(file, happened, wanted.all)? {
                    Some(version) => lines.push(version, wanted.limit).is_some(),
                    None => false,
                };
                if full || seen > EVENTS_MAX {
                    return Ok(Told { versions: lines.finish(), next: Some(seq) });
                }
            }
            match oldest.0.checked_sub(1) {
                Some(before) if before > 0 => upto = Seq(before),
                _ => return Ok(Told { versions: lines.finish(), next: None }),
            }
        }
    }

    /// The line of one event; `None` for time stamps that the kernel keeps by itself.
    fn version(&mut self, file: FileId, happened: Happened, all: bool) -> Result<Option<Version>> {
        let Happened { seq, ts, did } = happened;
        let mut version = Version::new("", seq, ts);
        match did {
            Did::Content { change, bytes, size } => {
                let (kind, is_entry) = match change {
                    Change::Write if bytes == 0 => ("entry", true),
                    Change::Write => ("write", false),
                    Change::Zero => ("punch", false),
                    Change::Shrink => ("truncate", false),
                    Change::Extend => ("extend", false),
                };
                version.kind = kind;
                version.bytes = bytes;
                if is_entry {
                    self.tell_entry(file, seq, &mut version)?;
                } else {
                    version.size = Some(size);
                }
            }
            Did::Name(naming) => self.tell_name(seq, &naming, &mut version)?,
            Did::Attr { attr, chosen_mtime } => {
                version.kind = "attr";
                let before = self.index.attr(file, Seq(seq.0.saturating_sub(1)))?;
                match what_changed(before.as_ref(), &attr, chosen_mtime) {
                    Some(detail) => version.detail = Some(detail),
                    None if all => version.detail = Some("times".into()),
                    None => return Ok(None),
                }
            }
            Did::Xattr => {
                version.kind = "xattr";
                let record = self.record(seq)?;
                version.detail = match record.map(|record| record.event) {
                    Some(event @ Event::SetAttr { .. }) => {
                        version.kind = "attr";
                        let before = self.index.attr(file, Seq(seq.0.saturating_sub(1)))?;
                        set_detail(before.as_ref(), &event)
                    }
                    event => event.as_ref().and_then(xattr_detail),
                };
            }
        }
        Ok(Some(version))
    }

    fn tell_name(&self, seq: Seq, naming: &Naming, version: &mut Version) -> Result<()> {
        version.kind = kind_of(naming);
        let before = Seq(seq.0.saturating_sub(1));
        if let Some(slot) = naming.lost() {
            version.from = Some(text(&path_of_slot(self.index, slot, before)?));
        }
        if let Some(slot) = naming.gained() {
            version.to = Some(text(&path_of_slot(self.index, slot, seq)?));
        }
        Ok(())
    }

    /// Which entry of a directory came or went.
    fn tell_entry(&mut self, dir: FileId, seq: Seq, version: &mut Version) -> Result<()> {
        if let Some(record) = self.record(seq)? {
            (version.from, version.to) = entry_names(&record.event, dir);
        }
        Ok(())
    }

    /// The record of an event, while the journal has it.
    fn record(&mut self, seq: Seq) -> Result<Option<Record>> {
        let Some(place) = self.index.group_of_seq(seq)? else { return Ok(None) };
        let known = self
            .group
            .as_ref()
            .is_some_and(|(segment, offset, _)| (*segment, *offset) == (place.segment, place.offset));
        if !known {
            let records = records_at(self.segments, place.segment, place.offset)?;
            self.group = Some((place.segment, place.offset, records));
        }
        let records = self.group.iter().flat_map(|(_, _, records)| records);
        Ok(records.into_iter().find(|record| record.seq == seq).cloned())
    }

    /// The path that a file has at an instant, or had last.
    pub fn path(&self, file: FileId, at: Seq) -> Result<Option<String>> {
        Ok(path_of(self.index, file, at)?.map(|path| text(&path)))
    }
}

/// A path or name for people: what is no UTF-8 is shown as such.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The kind of line of a naming event.
pub fn kind_of(naming: &Naming) -> &'static str {
    match naming {
        Naming::Create(_) => "create",
        Naming::Adopt(_) => "adopt",
        Naming::Rebase => "rebase",
        Naming::Link(_) => "link",
        Naming::Unlink(_) => "unlink",
        Naming::Rename { .. } => "rename",
        Naming::Replaced(_) => "replaced",
        Naming::Exchange { .. } => "exchange",
    }
}

/// What setting attributes changed, in words; `None` when only times, and no program chose them.
fn what_changed(before: Option<&Attr>, after: &Attr, chosen_mtime: bool) -> Option<String> {
    let mut words = Vec::new();
    match before {
        Some(before) => {
            if before.mode != after.mode {
                words.push(format!("mode {:04o} to {:04o}", before.mode, after.mode));
            }
            if (before.uid, before.gid) != (after.uid, after.gid) {
                words.push(format!("owner {}:{} to {}:{}", before.uid, before.gid, after.uid, after.gid));
            }
        }
        None => words.push(format!("mode {:04o}, owner {}:{}", after.mode, after.uid, after.gid)),
    }
    if chosen_mtime {
        words.push("mtime chosen".into());
    }
    (!words.is_empty()).then(|| words.join(", "))
}

/// What setting attributes changed, an ACL with its mode too.
pub fn set_detail(before: Option<&Attr>, event: &Event) -> Option<String> {
    let Event::SetAttr { attr, explicit_mtime, xattrs, .. } = event else { return None };
    let changed = xattrs.iter().map(|(name, value)| match value {
        Some(value) => set_text(name, value),
        None => removed_text(name),
    });
    let words: Vec<String> = what_changed(before, attr, *explicit_mtime).into_iter().chain(changed).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn set_text(name: &Name, value: &[u8]) -> String {
    format!("{} set ({} bytes)", text(name), value.len())
}

fn removed_text(name: &Name) -> String {
    format!("{} removed", text(name))
}

/// What an event did to an extended attribute.
pub fn xattr_detail(event: &Event) -> Option<String> {
    match event {
        Event::SetXattr { name, value, .. } => Some(set_text(name, value)),
        Event::RemoveXattr { name, .. } => Some(removed_text(name)),
        _ => None,
    }
}

/// The names that a directory lost and gained by an event.
pub fn entry_names(event: &Event, dir: FileId) -> (Option<String>, Option<String>) {
    let (event, excluded) = event.unwrapped();
    let here = |slot: &Slot| (slot.dir == dir).then(|| text(&slot.name));
    let first = |slot: &Slot| here(slot).filter(|_| !excluded.first);
    let second = |slot: &Slot| here(slot).filter(|_| !excluded.second);
    match event {
        Event::Create(birth, _) | Event::Adopt { birth, .. } => (None, birth.slot.as_ref().and_then(first)),
        Event::Link { slot, .. } => (None, first(slot)),
        Event::Unlink { slot, .. } => (first(slot), None),
        Event::Rename { from, to, .. } => (first(from), second(to)),
        Event::Exchange { left_slot, right_slot, .. } => (first(left_slot), second(right_slot)),
        Event::Mark { slot, excluded: true, .. } => (here(slot), None),
        Event::Mark { slot, excluded: false, .. } => (None, here(slot)),
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: &'static str, seq: u64, us: i64, bytes: u64) -> Version {
        Version { bytes, ..Version::new(kind, Seq(seq), Timestamp(us)) }
    }

    #[test]
    fn a_burst_is_one_line_and_a_pause_ends_it() {
        let mut lines = Lines::new(false);
        let events = [
            at("write", 9, 5_000_000, 1),
            at("write", 8, 4_500_000, 2),
            at("write", 6, 3_600_000, 4),
            at("truncate", 5, 3_500_000, 8),
            at("write", 4, 3_400_000, 16),
            at("write", 3, 1_000_000, 32),
        ];
        for event in events {
            assert_eq!(lines.push(event, 9), None);
        }
        let lines = lines.finish();
        let shown: Vec<_> =
            lines.iter().map(|line| (line.kind, line.first_seq, line.seq, line.events, line.bytes)).collect();
        assert_eq!(
            shown,
            [("write", 6, 9, 3, 7), ("truncate", 5, 5, 1, 8), ("write", 4, 4, 1, 16), ("write", 3, 3, 1, 32)]
        );
    }

    #[test]
    fn no_line_is_begun_beyond_the_limit() {
        let mut lines = Lines::new(true);
        assert_eq!(lines.push(at("write", 2, 2, 1), 1), None);
        assert_eq!(lines.push(at("write", 1, 1, 1), 1).unwrap().seq, 1);
        let mut lines = Lines::new(false);
        assert_eq!(lines.push(at("write", 2, 2, 1), 1), None);
        assert_eq!(lines.push(at("write", 1, 1, 1), 1), None);
    }

    #[test]
    fn a_burst_is_not_told_longer_than_a_minute() {
        let mut lines = Lines::new(false);
        for second in (0..200).rev() {
            lines.push(at("write", second + 1, second as i64 * 1_000_000, 1), 99);
        }
        let lines = lines.finish();
        assert!(lines.len() == 4 && lines.iter().all(|line| line.events <= 61), "{lines:?}");
    }
}
