//! From events to entries: each follows from one event alone.

use super::build::Build;
use super::data::{self, Sample, Start, Track};
use super::holes::{self, Touch};
use super::naming::{self, Naming};
use super::page::Change;
use super::{IndexedGroup, attr, base, name, page, pin, time, xattr};
use crate::error::Result;
use crate::format::event::{Birth, Event, Excluded, Record, RootStage, Slot};
use crate::types::{Attr, FileId, FileKind, Location, Seq, Timestamp};

/// When an event happened.
#[derive(Clone, Copy)]
struct When {
    seq: Seq,
    ts: Timestamp,
}

/// Records the events of a group after `known`.
pub(super) fn record_group(build: &mut Build<'_>, group: &IndexedGroup, known: Seq) -> Result<()> {
    if group.records.last().is_none_or(|last| last.seq <= known) {
        return Ok(());
    }
    // An epoch begins with its group.
    if let Some(Record { event: Event::Epoch { epoch, .. }, .. }) = group.records.first() {
        build.epoch = *epoch;
    }
    time::record(build, (group.segment, group.offset), &group.records);
    let new = group.records.iter().filter(|record| record.seq > known);
    for record in new {
        record_event(build, group, record)?;
    }
    Ok(())
}

fn record_event(build: &mut Build<'_>, group: &IndexedGroup, record: &Record) -> Result<()> {
    let when = When { seq: record.seq, ts: record.ts };
    match &record.event {
        Event::Write { .. } | Event::Resize { .. } | Event::Zero { .. } => {
            record_bytes(build, group, when, &record.event)
        }
        Event::Pin { at, seq, kept } => {
            pin::record(build, when.seq, (*at, *seq), *kept);
            Ok(())
        }
        Event::Session { writeback } => {
            time::record_session(build, (when.seq, when.ts), *writeback);
            Ok(())
        }
        event => {
            record_naming(build, when, event);
            // Excluded names are left out. What is said of their files is kept: they may become history.
            let (event, excluded) = event.unwrapped();
            record_names(build, when, event, excluded);
            record_attrs(build, when, event);
            match event {
                Event::Rebase { file, attr, .. } | Event::Capture { file, attr } => {
                    holes::rebased(build, *file, (when.seq, when.ts), attr.size)
                }
                _ => Ok(()),
            }
        }
    }
}

fn record_bytes(build: &mut Build<'_>, group: &IndexedGroup, when: When, event: &Event) -> Result<()> {
    let (file, size, touch, change, what) = match *event {
        Event::Write { file, offset, len, size, payload } => {
            let source = Location::Journal {
                segment: group.segment,
                offset: group.offset.saturating_add(u64::from(payload.offset)),
            };
            let change = Change {
                file,
                seq: when.seq,
                offset,
                end: offset.saturating_add(u64::from(len)),
                size,
                source,
            };
            (file, size, Touch::Write(offset, change.end), change, (data::Change::Write, u64::from(len)))
        }
        Event::Zero { file, offset, len, size } => {
            // Beyond the end of the file there is nothing to zero.
            let end = offset.saturating_add(len).min(size);
            let what = (data::Change::Zero, end.saturating_sub(offset));
            let change = Change::zero(file, when.seq, offset, end, size);
            (file, size, Touch::Zero(offset, change.end), change, what)
        }
        Event::Resize { file, old_size, size } => {
            let change = Change::zero(file, when.seq, size, old_size, size);
            let what = match size < old_size {
                true => (data::Change::Shrink, old_size - size),
                false => (data::Change::Extend, size - old_size),
            };
            (file, size, Touch::Resize, change, what)
        }
        _ => return Ok(()),
    };
    let (kind, bytes) = what;
    let start = Start::of(change.offset);
    let sample = Sample { seq: when.seq, ts: when.ts, value: size, change: kind, bytes, start };
    build.push_sample(file, Track::Content, sample);
    holes::record(build, file, (when.seq, when.ts), touch, size)?;
    match change.offset < change.end && group.pruned.binary_search(&when.seq).is_err() {
        true => page::record(build, &change),
        false => Ok(()),
    }
}

fn record_names(build: &mut Build<'_>, when: When, event: &Event, excluded: Excluded) {
    match event {
        Event::Create(birth, xattrs) => {
            record_birth(build, when, birth, excluded);
            for (name, value) in xattrs {
                xattr::record(build, birth.file, name, when.seq, Some(value));
            }
            if let (Some(slot), false) = (&birth.slot, excluded.first) {
                touch_dir(build, when, slot, Some(birth.dir_nlink));
            }
        }
        Event::Adopt { birth, inode } => {
            record_birth(build, when, birth, excluded);
            if birth.attr.kind == FileKind::Regular && !excluded.first {
                base::record(build, birth.file, when.seq, birth.attr.size, *inode);
            }
            // It was there before: its directory's times stay, only the count of links is news.
            if let (Some(slot), false) = (&birth.slot, excluded.first) {
                count_links(build, when, slot.dir, birth.dir_nlink);
            }
        }
        Event::Link { file, slot, attr } if !excluded.first => {
            name::record(build, slot, when.seq, *file, attr.kind);
            touch_dir(build, when, slot, None);
        }
        Event::Unlink { slot, dir_nlink, .. } if !excluded.first => {
            name::record_gone(build, slot, when.seq);
            touch_dir(build, when, slot, Some(*dir_nlink));
        }
        Event::Rename { file, from, to, attr, from_nlink, to_nlink, .. } => {
            if !excluded.first {
                if from != to {
                    name::record_gone(build, from, when.seq);
                }
                touch_dir(build, when, from, Some(*from_nlink));
            }
            if !excluded.second {
                name::record(build, to, when.seq, *file, attr.kind);
                touch_dir(build, when, to, Some(*to_nlink));
            }
        }
        Event::Mark { file, slot, attr, dir_nlink, excluded } => {
            match excluded {
                true => name::record_gone(build, slot, when.seq),
                false => name::record(build, slot, when.seq, *file, attr.kind),
            }
            count_links(build, when, slot.dir, *dir_nlink);
        }
        Event::Exchange {
            left,
            left_slot,
            left_attr,
            right,
            right_slot,
            right_attr,
            left_nlink,
            right_nlink,
        } => {
            if !excluded.second {
                name::record(build, right_slot, when.seq, *left, left_attr.kind);
                touch_dir(build, when, right_slot, Some(*right_nlink));
            }
            if !excluded.first {
                if left_slot != right_slot {
                    name::record(build, left_slot, when.seq, *right, right_attr.kind);
                }
                touch_dir(build, when, left_slot, Some(*left_nlink));
            }
        }
        Event::Root { file, name, stage, .. } => {
            let slot = Slot { dir: name::ROOTS, name: name.clone() };
            match stage {
                RootStage::Entering => {}
                RootStage::Present => name::record(build, &slot, when.seq, *file, FileKind::Directory),
                RootStage::Left => name::record_gone(build, &slot, when.seq),
            }
        }
        _ => {}
    }
}

fn record_birth(build: &mut Build<'_>, when: When, birth: &Birth, excluded: Excluded) {
    if let (Some(slot), false) = (&birth.slot, excluded.first) {
        name::record(build, slot, when.seq, birth.file, birth.attr.kind);
    }
    holes::born(build, birth.file, birth.attr.size);
    if birth.attr.kind == FileKind::Symlink {
        attr::record_target(build, birth.file, when.seq, &birth.target);
    }
}

/// A directory's entries changed: its times move, and its count of links where the event tells it.
fn touch_dir(build: &mut Build<'_>, when: When, slot: &Slot, nlink: Option<u32>) {
    build.sample(slot.dir, Track::Content, when.seq, when.ts, 0);
    if let Some(nlink) = nlink {
        count_links(build, when, slot.dir, nlink);
    }
}

fn count_links(build: &mut Build<'_>, when: When, dir: FileId, nlink: u32) {
    build.sample(dir, Track::Links, when.seq, when.ts, u64::from(nlink));
}

fn record_attrs(build: &mut Build<'_>, when: When, event: &Event) {
    let mut whole = |file: &FileId, attr: &Attr| attr::record(build, *file, (when.seq, when.ts), attr);
    match event {
        Event::Create(birth, _) | Event::Adopt { birth, .. } => whole(&birth.file, &birth.attr),
        Event::Link { file, attr, .. }
        | Event::Unlink { file, attr, .. }
        | Event::Mark { file, attr, .. } => whole(file, attr),
        Event::Capture { file, attr } => {
            whole(file, attr);
            base::record(build, *file, when.seq, attr.size, 0);
        }
        Event::Rename { file, attr, replaced, .. } => {
            whole(file, attr);
            if let Some((replaced, attr)) = replaced
                && replaced != file
            {
                whole(replaced, attr);
            }
        }
        Event::Exchange { left, left_attr, right, right_attr, .. } => {
            whole(left, left_attr);
            if left != right {
                whole(right, right_attr);
            }
        }
        Event::Rebase { file, attr, inode } => {
            whole(file, attr);
            base::record(build, *file, when.seq, attr.size, *inode);
        }
        Event::SetAttr { file, attr, explicit_mtime, xattrs } => {
            attr::record_set(build, *file, (when.seq, when.ts), attr, *explicit_mtime);
            for (name, value) in xattrs {
                xattr::record(build, *file, name, when.seq, value.as_deref());
                build.sample(*file, Track::Change, when.seq, when.ts, 0);
            }
        }
        Event::SetXattr { file, name, value, ctime } => {
            xattr::record(build, *file, name, when.seq, Some(value));
            build.sample(*file, Track::Change, when.seq, *ctime, 0);
        }
        Event::RemoveXattr { file, name, ctime } => {
            xattr::record(build, *file, name, when.seq, None);
            build.sample(*file, Track::Change, when.seq, *ctime, 0);
        }
        _ => {}
    }
}

/// The same by file: what became of its names.
fn record_naming(build: &mut Build<'_>, when: When, event: &Event) {
    for file in Naming::files(event).into_iter().flatten() {
        if let Some(naming) = Naming::of_event(event, file) {
            naming::record(build, file, (when.seq, when.ts), &naming);
        }
    }
}
