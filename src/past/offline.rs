//! A STORE as it lies on disk, mounted or not, crashed or damaged: looked at, never changed.
//!
//! It uses the journal and the newest checkpoint, not the index: the index's files may not be opened without writing to
//! them. So its answers cost a reading of the journal's records, not of the bytes that were written.

use super::history::{Version, entry_names, kind_of, set_detail, text, xattr_detail};
use super::meaning::Meaning;
use super::paths::in_root;
use crate::disk::{Disk, OpenHow};
use crate::error::{Error, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::event::{Event, Record, RootStage, Slot};
use crate::format::sections::TagState;
use crate::format::superblock;
use crate::index::{Naming, ROOTS};
use crate::journal::reader::Check;
use crate::journal::segment::Segments;
use crate::journal::walk::{Found, From, Walk};
use crate::live::paths::Paths;
use crate::live::{batches, checkpoint};
use crate::meta::tags::Tags;
use crate::sync::Arc;
use crate::types::{Attr, FileId, FileKind, Name, Seq, StoreId, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::path::Path;

/// See the head of this file.
pub struct Offline {
    disk: Arc<dyn Disk>,
    paths: Paths,
    pub store: StoreId,
    pub segments: Arc<Segments>,
}

/// A file found by its path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfflineFile {
    pub file: FileId,
    pub kind: FileKind,
}

impl Offline {
    /// Opens a STORE for looking.
    ///
    /// # Errors
    /// There is no STORE, or it is of a newer format.
    pub fn open(disk: Arc<dyn Disk>, store: &Path) -> Result<Offline> {
        let paths = Paths::new(store, store);
        let path = paths.superblock();
        if disk.stat("store.look", &path)?.is_none() {
            return Err(Error::invalid(
                "store.look",
                "this is no STORE of Weft, or none that was ever mounted",
            )
            .at(store));
        }
        let mut bytes = [0; superblock::LEN];
        let got = disk.open("store.look", &path, OpenHow::default())?.read_at("store.look", &mut bytes, 0)?;
        let found = superblock::decode(bytes.get(..got).unwrap_or(&[])).map_err(|error| error.at(&path))?;
        let segments = Segments::new(Arc::clone(&disk), paths.journal_dir(), found.store);
        Ok(Offline { disk, paths, store: found.store, segments: Arc::new(segments) })
    }

    /// Goes through the journal; nothing when there is none yet.
    pub fn walk(&self, from: From, check: Check) -> Result<Option<Walk>> {
        Walk::begin(Arc::clone(&self.segments), from, check)
    }

    /// The newest checkpoint, if there is one.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        checkpoint::newest(&*self.disk, &self.paths, self.store)
    }

    /// What is damaged of what files held before Weft, each with its place. Reads all of it.
    pub fn check_bases(&self) -> Result<Vec<Error>> {
        let durable = self.checkpoint()?.map_or((0, 0), |checkpoint| checkpoint.base_scanned);
        batches::check(&*self.disk, &self.paths, self.store, durable)
    }

    /// Visits every event from a place on, in order, until `visit` has enough. Damage is an error here.
    fn each(&self, from: From, mut visit: impl FnMut(&Record) -> bool) -> Result<()> {
        let Some(mut walk) = self.walk(from, Check::Records)? else { return Ok(()) };
        loop {
            match walk.step() {
                Found::Group(group) => {
                    if !group.records.iter().all(&mut visit) {
                        return Ok(());
                    }
                }
                Found::Damage(damage) => {
                    return Err(Error::corrupt("store.look", damage.what));
                }
                Found::End(_) => return Ok(()),
            }
        }
    }

    /// All tags, each with the time of its instant.
    pub fn tags(&self) -> Result<Vec<(TagState, Option<Timestamp>)>> {
        let (mut tags, from) = match self.checkpoint()? {
            Some(checkpoint) => (Tags::of(&checkpoint.sections.tags), From::Place(checkpoint.replay)),
            None => (Tags::default(), From::Start),
        };
        self.each(from, |record| {
            tags.fold(record);
            true
        })?;
        tags.states().into_iter().map(|tag| Ok((tag.clone(), self.time_of(tag.at)?))).collect()
    }

    /// The tag of a name.
    pub fn find_tag(&self, name: &str) -> Result<TagState> {
        let states: Vec<TagState> = self.tags()?.into_iter().map(|(tag, _)| tag).collect();
        Tags::of(&states).find(name).cloned()
    }

    /// Time of an event, if the journal has it.
    pub fn time_of(&self, seq: Seq) -> Result<Option<Timestamp>> {
        let mut found = None;
        self.each(From::Seq(seq), |record| {
            if record.seq == seq {
                found = Some(record.ts);
            }
            record.seq < seq
        })?;
        Ok(found)
    }

    /// What a time means: the last event at or before it; zero when there is none. What is damaged is left out.
    pub fn seq_at(&self, at: Timestamp) -> Result<Seq> {
        let mut meaning = Meaning::new(at);
        let Some(mut walk) = self.walk(From::Start, Check::Records)? else { return Ok(Seq::ZERO) };
        loop {
            match walk.step() {
                Found::Group(group) => group.records.iter().for_each(|record| meaning.fold(record)),
                Found::Damage(_) => {}
                Found::End(_) => return Ok(meaning.seq()),
            }
        }
    }

    /// The file that a path in a root led to last, at or before an event.
    pub fn locate(&self, root: &[u8], names: &[Name], at: Seq) -> Result<Option<OfflineFile>> {
        let (top, names) = in_root(root, names);
        let mut tree = Names::default();
        let whole = OfflineFile { file: top, kind: FileKind::Directory };
        let mut found = names.is_empty().then_some(whole);
        self.each(From::Start, |record| {
            if record.seq > at {
                return false;
            }
            tree.fold(&record.event);
            if concerns(&record.event, &names)
                && let Some((file, kind)) = tree.find(top, &names)
            {
                found = Some(OfflineFile { file, kind });
            }
            true
        })?;
        Ok(found)
    }

    /// What happened to a file between two events, the newest `limit` lines of it, newest first; its path then, and
    /// whether it has no name any more.
    pub fn log(&self, file: FileId, wanted: super::history::Wanted) -> Result<(Vec<Version>, String, bool)> {
        let mut teller = Teller::new(file);
        let mut lines: VecDeque<Version> = VecDeque::new();
        self.each(From::Start, |record| {
            let version = teller.tell(record, wanted.all);
            // Again for an event that was told; the second time changes nothing.
            teller.names.fold(&record.event);
            teller.after(&record.event);
            let in_time = record.seq > wanted.after && record.seq <= wanted.upto;
            if let Some(version) = version.filter(|_| in_time) {
                let joined = !wanted.all && lines.back_mut().is_some_and(|last| last.take_in_newer(&version));
                if !joined {
                    lines.push_back(version);
                }
                if lines.len() > wanted.limit {
                    lines.pop_front();
                }
            }
            true
        })?;
        let path = teller.slots.newest().map(|slot| text(&teller.names.path(slot))).unwrap_or_default();
        let gone = teller.attr.is_some_and(|attr| attr.nlink == 0);
        Ok((lines.into_iter().rev().collect(), path, gone))
    }
}

/// Whether an event can change what a path leads to.
fn concerns(event: &Event, names: &[Name]) -> bool {
    let named = |slot: &Slot| names.contains(&slot.name);
    match event.unwrapped().0 {
        Event::Create(birth, _) | Event::Adopt { birth, .. } => birth.slot.as_ref().is_some_and(named),
        Event::Link { slot, .. } | Event::Unlink { slot, .. } => named(slot),
        Event::Rename { from, to, .. } => named(from) || named(to),
        Event::Exchange { left_slot, right_slot, .. } => named(left_slot) || named(right_slot),
        Event::Root { name, .. } => names.contains(name),
        _ => false,
    }
}

/// Which name stands for what, as events tell it.
#[derive(Default)]
pub struct Names {
    children: HashMap<FileId, HashMap<Name, (FileId, FileKind)>>,
    /// Where each directory stands, or stood last.
    dirs: HashMap<FileId, Slot>,
}

impl Names {
    /// Takes an event in.
    pub fn fold(&mut self, event: &Event) {
        match event.unwrapped().0 {
            Event::Create(birth, _) | Event::Adopt { birth, .. } => {
                if let Some(slot) = &birth.slot {
                    self.put(slot, birth.file, birth.attr.kind);
                }
            }
            Event::Link { file, slot, attr } => self.put(slot, *file, attr.kind),
            Event::Unlink { slot, .. } => self.take(slot),
            Event::Root { file, name, stage: RootStage::Present, .. } => {
                let root = (*file, FileKind::Directory);
                self.children.entry(ROOTS).or_default().insert(name.clone(), root);
            }
            Event::Rename { file, from, to, attr, .. } => {
                self.take(from);
                self.put(to, *file, attr.kind);
            }
            Event::Exchange { left, left_slot, left_attr, right, right_slot, right_attr, .. } => {
                self.put(right_slot, *left, left_attr.kind);
                self.put(left_slot, *right, right_attr.kind);
            }
            _ => {}
        }
    }

    fn put(&mut self, slot: &Slot, file: FileId, kind: FileKind) {
        self.children.entry(slot.dir).or_default().insert(slot.name.clone(), (file, kind));
        if kind == FileKind::Directory {
            self.dirs.insert(file, slot.clone());
        }
    }

    fn take(&mut self, slot: &Slot) {
        if let Some(children) = self.children.get_mut(&slot.dir) {
            children.remove(&slot.name);
            if children.is_empty() {
                self.children.remove(&slot.dir);
            }
        }
    }

    fn find(&self, top: FileId, names: &[Name]) -> Option<(FileId, FileKind)> {
        names.iter().try_fold((top, FileKind::Directory), |(dir, _), name| {
            self.children.get(&dir)?.get(name).copied()
        })
    }

    /// The path of a directory entry.
    pub fn path(&self, slot: &Slot) -> Vec<u8> {
        let mut parts = vec![slot.name.as_slice()];
        let mut dir = slot.dir;
        while let Some(above) = self.dirs.get(&dir)
            && parts.len() < 4_096
        {
            parts.push(&above.name);
            dir = above.dir;
        }
        parts.reverse();
        parts.join(&b'/')
    }
}

/// The names that a file has.
#[derive(Default)]
pub struct Slots {
    held: Vec<Slot>,
    lost: Option<Slot>,
}

impl Slots {
    /// Takes an event on the file's names in.
    pub fn fold(&mut self, naming: &Naming) {
        if let Some(slot) = naming.lost() {
            self.held.retain(|held| held != slot);
            self.lost = Some(slot.clone());
        }
        if let Some(slot) = naming.gained() {
            self.held.push(slot.clone());
        }
    }

    /// The newest name that it has; without one, the last that it had.
    pub fn newest(&self) -> Option<&Slot> {
        self.held.last().or(self.lost.as_ref())
    }
}

/// Tells the events of one file.
struct Teller {
    file: FileId,
    names: Names,
    attr: Option<Attr>,
    slots: Slots,
}

impl Teller {
    fn new(file: FileId) -> Teller {
        Teller { file, names: Names::default(), attr: None, slots: Slots::default() }
    }

    /// The line of an event, before it is folded into the names.
    fn tell(&mut self, record: &Record, all: bool) -> Option<Version> {
        let version = |kind| Version::new(kind, record.seq, record.ts);
        let data = |kind, bytes, size| Version { bytes, size: Some(size), ..version(kind) };
        match &record.event {
            Event::Write { file, len, size, .. } if *file == self.file => {
                Some(data("write", u64::from(*len), *size))
            }
            Event::Zero { file, offset, len, size } if *file == self.file => {
                let end = offset.saturating_add(*len).min(*size);
                Some(data("punch", end.saturating_sub(*offset), *size))
            }
            Event::Resize { file, old_size, size } if *file == self.file => Some(match size < old_size {
                true => data("truncate", old_size - size, *size),
                false => data("extend", size - old_size, *size),
            }),
            Event::SetAttr { file, .. } if *file == self.file => {
                match set_detail(self.attr.as_ref(), &record.event) {
                    None if !all => None,
                    detail => Some(Version { detail: detail.or(Some("times".into())), ..version("attr") }),
                }
            }
            Event::SetXattr { file, .. } | Event::RemoveXattr { file, .. } if *file == self.file => {
                Some(Version { detail: xattr_detail(&record.event), ..version("xattr") })
            }
            event => self.tell_names(event, version("")),
        }
    }

    fn tell_names(&mut self, event: &Event, version: Version) -> Option<Version> {
        if let Some(naming) = Naming::of_event(event, self.file) {
            let from = naming.lost().map(|slot| text(&self.names.path(slot)));
            self.names.fold(event);
            let to = naming.gained().map(|slot| text(&self.names.path(slot)));
            return Some(Version { kind: kind_of(&naming), from, to, ..version });
        }
        let (from, to) = entry_names(event, self.file);
        (from.is_some() || to.is_some()).then_some(Version { kind: "entry", from, to, ..version })
    }

    /// What the file is like after an event.
    fn after(&mut self, event: &Event) {
        let attr = match event.unwrapped().0 {
            Event::Create(birth, _) | Event::Adopt { birth, .. } if birth.file == self.file => {
                Some(birth.attr)
            }
            Event::SetAttr { file, attr, .. }
            | Event::Rebase { file, attr, .. }
            | Event::Link { file, attr, .. }
            | Event::Unlink { file, attr, .. }
            | Event::Rename { file, attr, .. }
                if *file == self.file =>
            {
                Some(*attr)
            }
            Event::Rename { replaced: Some((file, attr)), .. } if *file == self.file => Some(*attr),
            _ => None,
        };
        self.attr = attr.or(self.attr);
        if let Some(naming) = Naming::of_event(event, self.file) {
            self.slots.fold(&naming);
        }
    }
}
