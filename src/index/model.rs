//! A naive model of history: the whole world after every event, and random histories to compare the index with.

use crate::format::event::{Birth, Event, Payload, Record, Slot};
use crate::index::IndexedGroup;
use crate::types::{Attr, FileId, FileKind, FileTime, Location, Name, RootId, SegmentNo, Seq, Timestamp};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A file as it is after some event.
#[derive(Clone)]
pub struct File {
    /// As the last event that carried attributes said.
    recorded: Attr,
    /// A program chose mtime after the last data event.
    chosen: bool,
    data: Option<Timestamp>,
    data_is_newer: bool,
    links: Option<u32>,
    changed: Option<Timestamp>,
    pub bytes: Rc<Vec<u8>>,
    pub target: Option<Vec<u8>>,
    pub xattrs: BTreeMap<Name, Vec<u8>>,
    pub adoption: Option<(Seq, u64)>,
}

impl File {
    fn new(attr: Attr, bytes: Vec<u8>) -> File {
        File {
            recorded: attr,
            chosen: false,
            data: None,
            data_is_newer: false,
            links: None,
            changed: None,
            bytes: Rc::new(bytes),
            target: None,
            xattrs: BTreeMap::new(),
            adoption: None,
        }
    }

    fn record(&mut self, attr: Attr) {
        self.recorded = attr;
        self.data_is_newer = false;
        self.links = None;
        self.changed = None;
    }

    fn touch(&mut self, ts: Timestamp) {
        self.data = Some(ts);
        self.data_is_newer = true;
        self.chosen = false;
        self.changed = None;
    }

    /// What `stat` should say.
    pub fn attr(&self) -> Attr {
        let mut attr = self.recorded;
        match self.data {
            Some(ts) if self.data_is_newer => (attr.mtime, attr.ctime) = (ts.into(), ts.into()),
            Some(ts) if !self.chosen => attr.mtime = attr.mtime.max(ts.into()),
            _ => {}
        }
        if let Some(ts) = self.changed {
            attr.ctime = ts.into();
        }
        attr.nlink = self.links.unwrap_or(attr.nlink);
        if attr.kind == FileKind::Regular {
            attr.size = self.bytes.len() as u64;
        }
        attr
    }
}

/// Everything after some event.
#[derive(Clone, Default)]
pub struct World {
    pub files: BTreeMap<FileId, File>,
    pub names: BTreeMap<(FileId, Name), (FileId, FileKind)>,
}

impl World {
    fn file(&mut self, file: FileId) -> &mut File {
        self.files.get_mut(&file).unwrap()
    }

    fn enter(&mut self, slot: &Slot, file: FileId) {
        let kind = self.files[&file].recorded.kind;
        self.names.insert((slot.dir, slot.name.clone()), (file, kind));
    }

    fn leave(&mut self, slot: &Slot) {
        self.names.remove(&(slot.dir, slot.name.clone()));
    }

    fn touch(&mut self, dir: FileId, ts: Timestamp, nlink: Option<u32>) {
        let dir = self.file(dir);
        dir.touch(ts);
        dir.links = nlink.or(dir.links);
    }

    /// `bytes`: of a write its payload, of an adoption or rebase the base.
    fn apply(&mut self, record: &Record, bytes: &[u8]) {
        let ts = record.ts;
        match &record.event {
            Event::Create(birth, xattrs) => {
                self.birth(birth, Vec::new());
                self.file(birth.file).xattrs.extend(xattrs.iter().cloned());
                if let Some(slot) = &birth.slot {
                    self.touch(slot.dir, ts, Some(birth.dir_nlink));
                }
            }
            Event::Adopt { birth, .. } => {
                self.birth(birth, bytes.to_vec());
                if birth.attr.kind == FileKind::Regular {
                    self.file(birth.file).adoption = Some((record.seq, birth.attr.size));
                }
                if let Some(slot) = &birth.slot {
                    self.file(slot.dir).links = Some(birth.dir_nlink);
                }
            }
            Event::Rebase { file, attr, .. } => {
                let file = self.file(*file);
                file.record(*attr);
                file.bytes = Rc::new(bytes.to_vec());
                file.adoption = Some((record.seq, attr.size));
            }
            Event::Link { file, slot, attr } => {
                self.file(*file).record(*attr);
                self.enter(slot, *file);
                self.touch(slot.dir, ts, None);
            }
            Event::Unlink { file, slot, attr, dir_nlink } => {
                self.file(*file).record(*attr);
                self.leave(slot);
                self.touch(slot.dir, ts, Some(*dir_nlink));
            }
            Event::Rename { file, from, to, attr, replaced, from_nlink, to_nlink } => {
                if let Some((replaced, attr)) = replaced {
                    self.file(*replaced).record(*attr);
                }
                self.file(*file).record(*attr);
                self.leave(from);
                self.enter(to, *file);
                self.touch(from.dir, ts, Some(*from_nlink));
                self.touch(to.dir, ts, Some(*to_nlink));
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
                self.file(*left).record(*left_attr);
                self.file(*right).record(*right_attr);
                self.enter(right_slot, *left);
                self.enter(left_slot, *right);
                self.touch(left_slot.dir, ts, Some(*left_nlink));
                self.touch(right_slot.dir, ts, Some(*right_nlink));
            }
            Event::Write { file, offset, .. } => {
                let file = self.file(*file);
                let content = Rc::make_mut(&mut file.bytes);
                let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                let size = if bytes.is_empty() { 0 } else { to };
                content.resize(content.len().max(size), 0);
                if let Some(place) = content.get_mut(from..to) {
                    place.copy_from_slice(bytes);
                }
                file.touch(ts);
            }
            Event::Resize { file, size, .. } => {
                let file = self.file(*file);
                Rc::make_mut(&mut file.bytes).resize(*size as usize, 0);
                file.touch(ts);
            }
            Event::Zero { file, offset, len, size } => {
                let file = self.file(*file);
                let content = Rc::make_mut(&mut file.bytes);
                content.resize(*size as usize, 0);
                let end = content.len().min((offset + len) as usize);
                content[(*offset as usize).min(end)..end].fill(0);
                file.touch(ts);
            }
            Event::SetAttr { file, attr, explicit_mtime, xattrs } => {
                let file = self.file(*file);
                file.record(*attr);
                for (name, value) in xattrs {
                    match value {
                        Some(value) => drop(file.xattrs.insert(name.clone(), value.clone())),
                        None => drop(file.xattrs.remove(name)),
                    }
                }
                file.chosen |= explicit_mtime;
            }
            Event::SetXattr { file, name, value, ctime } => {
                let file = self.file(*file);
                file.xattrs.insert(name.clone(), value.clone());
                file.changed = Some(*ctime);
            }
            Event::RemoveXattr { file, name, ctime } => {
                let file = self.file(*file);
                file.xattrs.remove(name);
                file.changed = Some(*ctime);
            }
            _ => {}
        }
    }

    fn birth(&mut self, birth: &Birth, bytes: Vec<u8>) {
        let mut file = File::new(birth.attr, bytes);
        if birth.attr.kind == FileKind::Symlink {
            file.target = Some(birth.target.clone());
        }
        self.files.insert(birth.file, file);
        if let Some(slot) = &birth.slot {
            self.enter(slot, birth.file);
        }
    }

    /// Links of a directory with one subdirectory more or less.
    fn links(&self, dir: FileId, more: i64) -> u32 {
        let all = self.names.iter();
        let below = all.filter(|((of, _), (_, kind))| *of == dir && *kind == FileKind::Directory);
        (2 + below.count() as i64 + more).max(0) as u32
    }

    fn of_kind(&self, wanted: impl Fn(FileKind) -> bool) -> Vec<FileId> {
        let all = self.files.iter();
        let living = all.filter(|(_, file)| wanted(file.recorded.kind) && file.attr().nlink > 0);
        living.map(|(file, _)| *file).collect()
    }

    fn is_empty_dir(&self, dir: FileId) -> bool {
        !self.names.keys().any(|(of, _)| *of == dir)
    }
}

/// Raw choices for one event.
pub type Choice = (u8, u32, u32, u32);

/// A history, with the worlds it went through.
pub struct History {
    pub groups: Vec<IndexedGroup>,
    /// World after each event, with its Seq and time.
    pub worlds: Vec<(Seq, Timestamp, World)>,
    pub segments: BTreeMap<SegmentNo, Vec<u8>>,
    pub bases: BTreeMap<(FileId, Seq), Vec<u8>>,
    next_file: u64,
    epoch: u32,
}

impl History {
    pub fn new(choices: &[Choice]) -> History {
        let mut history = History {
            groups: Vec::new(),
            worlds: Vec::new(),
            segments: BTreeMap::new(),
            bases: BTreeMap::new(),
            next_file: 1,
            epoch: 0,
        };
        history.next_group();
        let root = history.birth(FileKind::Directory, None, Timestamp(0), 0);
        history.push(Event::Adopt { birth: root, inode: 2 }, &[], 1);
        for choice in choices {
            if choice.3 % 7 == 0 {
                history.next_group();
            }
            if choice.3 % 35 == 0 {
                history.set_clock(i64::from(choice.1 % 40) * 100 - 2_000);
            }
            let ts = Timestamp(history.ts().0 + i64::from(choice.1 % 4) * 300);
            if let Some((event, bytes)) = history.choose(*choice, ts) {
                history.push(event, &bytes, choice.1 % 4);
            }
        }
        history.groups.retain(|group| !group.records.is_empty());
        history
    }

    pub fn seq(&self) -> Seq {
        self.worlds.last().map_or(Seq(0), |(seq, _, _)| *seq)
    }

    pub fn ts(&self) -> Timestamp {
        let first = Timestamp(1_700_000_000_000_000);
        self.worlds.last().map_or(first, |(_, ts, _)| *ts)
    }

    fn world(&self) -> &World {
        &self.worlds.last().unwrap().2
    }

    fn next_group(&mut self) {
        let segment = SegmentNo(1 + self.groups.len() as u64 / 5);
        let bytes = self.segments.entry(segment).or_default();
        bytes.resize(bytes.len() + 64, 0xee);
        self.groups.push(IndexedGroup {
            segment,
            offset: bytes.len() as u64,
            records: Vec::new(),
            pruned: Vec::new(),
        });
    }

    /// The clock is set by so many µs: a group begins.
    fn set_clock(&mut self, by: i64) {
        self.epoch += 1;
        let ts = Timestamp(self.ts().0 + by);
        self.push_at(ts, Event::Epoch { epoch: self.epoch, wall: ts }, &[]);
    }

    fn push(&mut self, event: Event, bytes: &[u8], step: u32) {
        self.push_at(Timestamp(self.ts().0 + i64::from(step) * 300), event, bytes);
    }

    fn push_at(&mut self, ts: Timestamp, mut event: Event, bytes: &[u8]) {
        let seq = self.seq().next();
        let group = self.groups.last_mut().unwrap();
        match &mut event {
            Event::Write { payload, .. } => {
                let segment = self.segments.get_mut(&group.segment).unwrap();
                payload.offset = (segment.len() as u64 - group.offset) as u32;
                segment.extend_from_slice(bytes);
            }
            Event::Adopt { birth, .. } => drop(self.bases.insert((birth.file, seq), bytes.to_vec())),
            Event::Rebase { file, .. } => drop(self.bases.insert((*file, seq), bytes.to_vec())),
            _ => {}
        }
        let wall = ts;
        let record = Record { seq, ts, wall, event };
        let mut world = self.worlds.last().map(|last| last.2.clone()).unwrap_or_default();
        world.apply(&record, bytes);
        group.records.push(record);
        self.worlds.push((seq, ts, world));
    }

    fn birth(&mut self, kind: FileKind, slot: Option<Slot>, ts: Timestamp, size: u64) -> Birth {
        let file = FileId(self.next_file);
        self.next_file += 1;
        let is_dir = kind == FileKind::Directory;
        let dir_nlink = match &slot {
            Some(slot) => self.world().links(slot.dir, i64::from(is_dir)),
            None => 0,
        };
        let time = FileTime::from(ts);
        Birth {
            file,
            root: RootId(0),
            slot,
            attr: Attr {
                kind,
                mode: 0o600,
                uid: 1,
                gid: 70_000,
                rdev: 0,
                nlink: if is_dir { 2 } else { 1 },
                size,
                atime: time,
                mtime: time,
                ctime: time,
            },
            target: match kind {
                FileKind::Symlink => b"../there".to_vec(),
                _ => Vec::new(),
            },
            dir_nlink,
        }
    }

    fn choose(&mut self, choice: Choice, ts: Timestamp) -> Option<(Event, Vec<u8>)> {
        let (kind, a, b, c) = choice;
        match kind % 32 {
            0..=2 => self.choose_birth(a, b, c, ts),
            3..=7 => self.choose_names(kind, a, b, c, ts),
            8..=10 => self.choose_attr(a, b, c, ts),
            11 => {
                let file = pick(&self.world().of_kind(is_regular), a)?;
                let mut attr = self.world().files[&file].attr();
                attr.size = u64::from(b % 40_000);
                attr.mtime = FileTime::from(Timestamp(ts.0 - 5_000_000));
                let bytes = pattern(c, attr.size as usize);
                let inode = u64::from(c);
                Some((Event::Rebase { file, attr, inode }, bytes))
            }
            12..=13 => self.choose_xattr(a, b, c, ts),
            14..=16 => self.choose_size(kind, a, b, c),
            17..=22 => self.choose_write(pick(&self.world().of_kind(is_regular), a)?, b, c),
            // One file, written piece by piece: what composing is for.
            _ => {
                let file = *self.world().of_kind(is_regular).first()?;
                let (offset, len) = (u64::from(b % 9_000), c % 300 + 1);
                Some(self.write(file, offset, len, a))
            }
        }
    }

    fn choose_birth(&mut self, a: u32, b: u32, c: u32, ts: Timestamp) -> Option<(Event, Vec<u8>)> {
        let slot = self.free_slot(a, b)?;
        let kind = match c % 6 {
            0 => FileKind::Directory,
            1 => FileKind::Symlink,
            _ => FileKind::Regular,
        };
        if c % 5 < 3 {
            let birth = self.birth(kind, Some(slot), ts, 0);
            let xattrs = if b.is_multiple_of(3) { vec![(name(b), pattern(c, 5))] } else { Vec::new() };
            return Some((Event::Create(birth, xattrs), Vec::new()));
        }
        let size = match kind {
            FileKind::Regular => u64::from(b % 30_000),
            _ => 0,
        };
        let old = Timestamp(ts.0 - 9_000_000);
        let birth = self.birth(kind, Some(slot), old, size);
        let inode = u64::from(b);
        Some((Event::Adopt { birth, inode }, pattern(b, size as usize)))
    }

    fn choose_names(&self, kind: u8, a: u32, b: u32, c: u32, ts: Timestamp) -> Option<(Event, Vec<u8>)> {
        let world = self.world();
        let names: Vec<_> = world.names.iter().collect();
        let ((dir, name), (file, what)) = pick(&names, a)?;
        let from = Slot { dir: *dir, name: name.clone() };
        let is_dir = *what == FileKind::Directory;
        let mut attr = world.files[file].attr();
        attr.ctime = ts.into();
        let event = match kind % 32 {
            3 if !is_dir => {
                attr.nlink += 1;
                let slot = self.free_slot(b, c)?;
                Event::Link { file: *file, slot, attr }
            }
            4 | 5 if !is_dir || world.is_empty_dir(*file) => {
                attr.nlink = if is_dir { 0 } else { attr.nlink - 1 };
                let dir_nlink = world.links(*dir, -i64::from(is_dir));
                Event::Unlink { file: *file, slot: from, attr, dir_nlink }
            }
            6 => {
                let ((dir, name), (other, kind)) = pick(&names, b)?;
                let to = Slot { dir: *dir, name: name.clone() };
                let apart = [*file, *other].iter().all(|file| *file != from.dir && *file != to.dir);
                if file == other || !apart || is_dir != (*kind == FileKind::Directory) {
                    return None;
                }
                let mut right_attr = world.files[other].attr();
                right_attr.ctime = ts.into();
                Event::Exchange {
                    left: *file,
                    left_nlink: world.links(from.dir, 0),
                    right_nlink: world.links(to.dir, 0),
                    left_slot: from,
                    left_attr: attr,
                    right: *other,
                    right_slot: to,
                    right_attr,
                }
            }
            7 => self.choose_rename(*file, from, attr, b, c)?,
            _ => return None,
        };
        Some((event, Vec::new()))
    }

    fn choose_rename(&self, file: FileId, from: Slot, attr: Attr, b: u32, c: u32) -> Option<Event> {
        let world = self.world();
        let is_dir = attr.kind == FileKind::Directory;
        let dir = pick(&world.of_kind(|kind| kind == FileKind::Directory), b)?;
        let to = Slot { dir, name: name(c) };
        if dir == file || to == from {
            return None;
        }
        let replaced = match world.names.get(&(to.dir, to.name.clone())) {
            Some((other, kind)) => {
                let fits = is_dir == (*kind == FileKind::Directory) && world.is_empty_dir(*other);
                if !fits || *other == file || *other == from.dir {
                    return None;
                }
                let mut attr = world.files[other].attr();
                attr.nlink = if is_dir { 0 } else { attr.nlink - 1 };
                Some((*other, attr))
            }
            None => None,
        };
        let gained = i64::from(is_dir && replaced.is_none());
        let (lost, gained) = match from.dir == to.dir {
            true => (gained - i64::from(is_dir), gained - i64::from(is_dir)),
            false => (-i64::from(is_dir), gained),
        };
        Some(Event::Rename {
            file,
            from_nlink: world.links(from.dir, lost),
            to_nlink: world.links(to.dir, gained),
            from,
            to,
            attr,
            replaced,
        })
    }

    fn choose_attr(&self, a: u32, b: u32, c: u32, ts: Timestamp) -> Option<(Event, Vec<u8>)> {
        let file = pick(&self.world().of_kind(|_| true), a)?;
        let mut attr = self.world().files[&file].attr();
        attr.mode = b % 0o1000;
        attr.ctime = ts.into();
        let explicit_mtime = c.is_multiple_of(3);
        if explicit_mtime || c % 3 == 1 {
            attr.mtime = Timestamp(ts.0 - i64::from(b % 2_000)).into();
        }
        let xattrs = match c % 4 {
            0 => vec![(name(b), Some(pattern(c, 3)))],
            1 => vec![(name(b), None)],
            _ => Vec::new(),
        };
        let event = Event::SetAttr { file, attr, explicit_mtime, xattrs };
        Some((event, Vec::new()))
    }

    fn choose_xattr(&self, a: u32, b: u32, c: u32, ts: Timestamp) -> Option<(Event, Vec<u8>)> {
        let file = pick(&self.world().of_kind(|_| true), a)?;
        let (name, ctime) = (name(b), ts);
        let event = match c % 3 {
            0 => Event::RemoveXattr { file, name, ctime },
            _ => Event::SetXattr { file, name, value: pattern(c, c as usize % 9), ctime },
        };
        Some((event, Vec::new()))
    }

    fn choose_size(&self, kind: u8, a: u32, b: u32, c: u32) -> Option<(Event, Vec<u8>)> {
        let file = pick(&self.world().of_kind(is_regular), a)?;
        let old_size = self.world().files[&file].bytes.len() as u64;
        let event = match kind % 32 {
            14 => Event::Resize { file, old_size, size: place(b, old_size) },
            _ => {
                let (offset, len) = (place(b, old_size), u64::from(c % 20_000));
                let size = match c % 2 {
                    0 => old_size,
                    _ => old_size.max(offset + len),
                };
                Event::Zero { file, offset, len, size }
            }
        };
        Some((event, Vec::new()))
    }

    fn choose_write(&self, file: FileId, b: u32, c: u32) -> Option<(Event, Vec<u8>)> {
        let size = self.world().files[&file].bytes.len() as u64;
        let len = match c % 4 {
            0 => 4096 << (c / 4 % 4),
            1 => c / 4 % 100,
            _ => c / 4 % 14_000,
        };
        Some(self.write(file, place(b, size), len, c))
    }

    fn write(&self, file: FileId, offset: u64, len: u32, seed: u32) -> (Event, Vec<u8>) {
        let old_size = self.world().files[&file].bytes.len() as u64;
        let size = match len {
            0 => old_size,
            _ => old_size.max(offset + u64::from(len)),
        };
        let payload = Payload { offset: 0, crc: 0 };
        let event = Event::Write { file, offset, len, size, payload };
        (event, pattern(seed ^ self.seq().0 as u32, len as usize))
    }

    fn free_slot(&self, a: u32, b: u32) -> Option<Slot> {
        let world = self.world();
        let dir = pick(&world.of_kind(|kind| kind == FileKind::Directory), a)?;
        let name = name(b);
        let free = !world.names.contains_key(&(dir, name.clone()));
        free.then_some(Slot { dir, name })
    }

    /// The bytes at a location.
    pub fn bytes_at(&self, location: Location, len: usize) -> Vec<u8> {
        match location {
            Location::Journal { segment, offset } => {
                self.segments[&segment][offset as usize..offset as usize + len].to_vec()
            }
            Location::Zero => vec![0; len],
            other => panic!("{other:?} is not in the journal"),
        }
    }
}

fn is_regular(kind: FileKind) -> bool {
    kind == FileKind::Regular
}

/// A place in a file: on a page's edge, at the end, anywhere.
fn place(choice: u32, size: u64) -> u64 {
    match choice % 4 {
        0 => u64::from(choice / 4 % 12) * 4096,
        1 => size.min(50_000),
        _ => u64::from(choice / 4 % 45_000),
    }
}

fn name(choice: u32) -> Name {
    let names: [&[u8]; 8] = [b"a", b"a\x01", b"aa", b"ab", b"b", b"\xff", b"t.tmp", b"\x01"];
    names[choice as usize % names.len()].to_vec()
}

fn pick<T: Clone>(from: &[T], choice: u32) -> Option<T> {
    from.get(choice as usize % from.len().max(1)).cloned()
}

/// Bytes that tell where they come from.
fn pattern(seed: u32, len: usize) -> Vec<u8> {
    let byte = |index: usize| (seed.wrapping_mul(31) as usize + index * 7 + index / 251) as u8 | 1;
    (0..len).map(byte).collect()
}
