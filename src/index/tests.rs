//! The index against the model, at every Seq of random histories.

use super::kv::{Kv, Space};
use super::lsm::{LsmKv, LsmOptions};
use super::mem::MemKv;
use super::model::{Choice, History, World};
use super::*;
use crate::error::Kind;
use crate::format::event::Event;
use crate::types::{PAGE, PAGE_LEN};
use proptest::prelude::*;
use std::collections::BTreeSet;

const STORE: StoreId = StoreId([7; 16]);

fn choices(len: usize) -> impl Strategy<Value = Vec<Choice>> {
    let numbers = (any::<u8>(), any::<u32>(), any::<u32>(), any::<u32>());
    proptest::collection::vec(numbers, 1..len)
}

/// An index with the bytes it points at.
struct Rig<'a> {
    index: Index,
    history: &'a History,
    page_file: Vec<Vec<u8>>,
}

impl<'a> Rig<'a> {
    fn new(kv: Arc<dyn Kv>, history: &'a History) -> Rig<'a> {
        Rig { index: Index::open(kv, STORE).unwrap(), history, page_file: Vec::new() }
    }

    /// Takes in everything after the watermark, `at_once` groups at a time, composing what is asked for.
    fn apply_all(&mut self, at_once: usize) {
        let known = self.index.watermark().seq;
        let history = self.history;
        let last = |group: &IndexedGroup| group.records.last().unwrap().clone();
        let mut groups: &[IndexedGroup] = &history.groups;
        while groups.first().is_some_and(|group| last(group).seq <= known) {
            groups = &groups[1..];
        }
        for some in groups.chunks(at_once) {
            let end = last(some.last().unwrap());
            let watermark = Watermark {
                seq: end.seq,
                ts: end.ts,
                segment: some[0].segment,
                offset: some[0].offset,
                chain: end.seq.0 as u32,
                epoch: 0,
            };
            for compose in self.index.apply(some, watermark).unwrap() {
                let bytes = self.page(compose.file, compose.page, compose.seq);
                let offset = self.page_file.len() as u64 * PAGE;
                self.page_file.push(bytes);
                let place = Location::PageFile { number: 1, offset };
                self.index.put_composed(&[(compose, place)]).unwrap();
            }
            let reached = self.index.watermark();
            assert_eq!(reached, Watermark { epoch: reached.epoch, ..watermark });
        }
    }

    fn floor(&self, file: FileId, at: Seq) -> Seq {
        let adoption = self.index.adoption(file, at).unwrap();
        adoption.map_or(Seq::ZERO, |adoption| adoption.seq)
    }

    fn page(&self, file: FileId, page: PageNo, at: Seq) -> Vec<u8> {
        let floor = self.floor(file, at);
        let version = self.index.page(file, page, at, floor).unwrap();
        self.compose(file, page, floor, &version)
    }

    fn bytes_at(&self, location: Location, len: usize) -> Vec<u8> {
        match location {
            Location::PageFile { offset, .. } => self.page_file[(offset / PAGE) as usize][..len].to_vec(),
            other => self.history.bytes_at(other, len),
        }
    }

    fn compose(&self, file: FileId, page: PageNo, floor: Seq, version: &PageVersion) -> Vec<u8> {
        let mut bytes = match &version.full {
            Some(full) => self.bytes_at(full.location, full.valid_len as usize),
            None => {
                let base = self.history.bases.get(&(file, floor));
                let from = (page.0 * PAGE) as usize;
                let base = base.and_then(|base| base.get(from..)).unwrap_or(&[]);
                base[..base.len().min(PAGE_LEN)].to_vec()
            }
        };
        bytes.resize(PAGE_LEN, 0);
        let mut newer = Seq(u64::MAX);
        for partial in version.partials.iter() {
            assert!(partial.seq < newer && version.full.is_none_or(|full| partial.seq > full.seq));
            newer = partial.seq;
        }
        for partial in version.partials.iter().rev() {
            let (start, len) = (partial.start as usize, partial.len as usize);
            let piece = self.bytes_at(partial.location, len);
            bytes[start..start + len].copy_from_slice(&piece);
        }
        bytes
    }

    fn check_all(&self, bound: usize) {
        for (seq, _, world) in &self.history.worlds {
            self.check_files(*seq, world, bound);
            self.check_names(*seq, world);
        }
        self.check_times();
        for apart in [1, 4, 17] {
            for (before, after) in self.history.worlds.iter().zip(self.history.worlds.iter().skip(apart)) {
                self.check_changed((before.0, &before.2), (after.0, &after.2));
            }
        }
    }

    /// Pages that are not told to have changed have not.
    fn check_changed(&self, before: (Seq, &World), after: (Seq, &World)) {
        for (file, old) in &before.1.files {
            let new = &after.1.files[file];
            let between = (before.0, after.0);
            let found = self.index.changed_pages(*file, between, PageSet::default(), u64::MAX).unwrap();
            let Some((pages, _)) = found else {
                assert_ne!(old.adoption, new.adoption);
                continue;
            };
            assert_eq!(old.adoption, new.adoption);
            let page = |bytes: &[u8], number: usize| {
                let from = (number * PAGE_LEN).min(bytes.len());
                let mut page = bytes[from..bytes.len().min(from + PAGE_LEN)].to_vec();
                page.resize(PAGE_LEN, 0);
                page
            };
            for number in 0..old.bytes.len().max(new.bytes.len()).div_ceil(PAGE_LEN) {
                let told = pages.contains(PageNo(number as u64));
                let same = page(&old.bytes, number) == page(&new.bytes, number);
                assert!(told || same, "{file} page {number} between {} and {}", before.0, after.0);
            }
        }
    }

    fn check_files(&self, at: Seq, world: &World, bound: usize) {
        for (file, expected) in &world.files {
            let attr = self.index.attr(*file, at).unwrap();
            assert_eq!(attr, Some(expected.attr()), "{file} at {at}");
            let target = self.index.symlink_target(*file, at).unwrap();
            assert_eq!(target, expected.target);
            let xattrs = self.index.xattrs(*file, at).unwrap();
            assert!(xattrs.into_iter().eq(expected.xattrs.clone()), "{file} at {at}");
            let adoption = self.index.adoption(*file, at).unwrap();
            let adoption = adoption.map(|adoption| (adoption.seq, adoption.size));
            assert_eq!(adoption, expected.adoption);
            self.check_bytes(*file, at, &expected.bytes, bound);
            self.check_holes(*file, at, &expected.bytes);
        }
        let unborn = FileId(1 + world.files.len() as u64);
        assert_eq!(self.index.attr(unborn, at).unwrap(), None);
    }

    fn check_bytes(&self, file: FileId, at: Seq, expected: &[u8], bound: usize) {
        let floor = self.floor(file, at);
        let last = PageNo(expected.len() as u64 / PAGE + 1);
        let versions = self.index.pages(file, PageNo(0)..=last, at, floor).unwrap();
        for (number, version) in versions.iter().enumerate() {
            let page = PageNo(number as u64);
            let single = self.index.page(file, page, at, floor).unwrap();
            assert_eq!(&single, version, "{file} page {number} at {at}");
            assert!(version.partials.len() <= bound);
            let bytes = self.compose(file, page, floor, version);
            let from = (number * PAGE_LEN).min(expected.len());
            let mut page = expected[from..expected.len().min(from + PAGE_LEN)].to_vec();
            page.resize(PAGE_LEN, 0);
            assert!(bytes == page, "{file} page {number} at {at}: {version:?}");
        }
        let part = self.index.pages(file, PageNo(1)..=last, at, floor).unwrap();
        assert_eq!(part, versions[1..]);
    }

    /// A hole holds zeros only, and is no page that has data; the count is that of the pages found.
    fn check_holes(&self, file: FileId, at: Seq, expected: &[u8]) {
        let size = expected.len() as u64;
        let seek = |offset, hole| self.index.seek(file, at, offset, size, hole).unwrap();
        let (mut offset, mut pages) = (0, 0);
        while let Some(data) = seek(offset, false) {
            assert!(expected[offset as usize..data as usize].iter().all(|byte| *byte == 0));
            offset = seek(data, true).unwrap();
            assert!(offset > data && offset <= size);
            pages += offset.div_ceil(PAGE) - data / PAGE;
        }
        assert!(expected[offset as usize..].iter().all(|byte| *byte == 0), "{file} at {at} from {offset}");
        // A page that was only partly zeroed is sought as data, and may be counted as none.
        let told = self.index.data_pages(file, at, size).unwrap();
        assert!(told <= pages, "{file} at {at}: {told} pages told, {pages} found");
        assert_eq!(seek(size, false), None);
    }

    fn check_names(&self, at: Seq, world: &World) {
        let dirs: BTreeSet<FileId> = world.files.keys().copied().collect();
        for dir in dirs {
            let expected: Vec<_> = world.names.iter().filter(|((of, _), _)| *of == dir).collect();
            let found = self.index.read_dir(dir, None, 99, at).unwrap();
            let same = found.iter().map(|entry| (&entry.name, entry.file, entry.kind));
            assert!(same.eq(expected.iter().map(|((_, name), (file, kind))| (name, *file, *kind))));
            let mut after: Option<Name> = None;
            for ((_, name), child) in expected {
                let one = self.index.read_dir(dir, after.as_deref(), 1, at).unwrap();
                assert_eq!(&one[0].name, name);
                assert_eq!(self.index.lookup(dir, name, at).unwrap(), Some(*child));
                after = Some(name.clone());
            }
            assert_eq!(self.index.lookup(dir, b"never", at).unwrap(), None);
        }
    }

    fn check_times(&self) {
        let mut epoch = 0;
        let epochs = self.history.groups.iter().map(|group| {
            if let Event::Epoch { epoch: number, .. } = group.records[0].event {
                epoch = number;
            }
            (epoch, group)
        });
        let groups: Vec<(u32, &IndexedGroup)> = epochs.collect();
        for (epoch, group) in &groups {
            let (first, last) = (group.records.first().unwrap(), group.records.last().unwrap());
            for record in &group.records {
                let found = self.index.group_of_seq(record.seq).unwrap().unwrap();
                assert_eq!((found.segment, found.offset), (group.segment, group.offset));
                assert_eq!((found.first_seq, found.last_seq), (first.seq, last.seq));
                assert_eq!((found.first_ts, found.last_ts), (first.ts, last.ts));
            }
            for ts in [first.ts, last.ts, Timestamp(last.ts.0 + 1)] {
                let found = self.index.group_at_time(*epoch, ts).unwrap().unwrap();
                let mut same = groups.iter().filter(|(of, _)| of == epoch).map(|(_, group)| group);
                let expected = same.rfind(|group| group.records[0].ts <= ts).unwrap();
                assert_eq!(found.first_seq, expected.records[0].seq);
            }
        }
        assert_eq!(self.index.watermark().epoch, epoch);
        let behind = self.index.group_of_seq(self.history.seq().next()).unwrap();
        assert_eq!(behind, None);
        assert_eq!(self.index.group_at_time(0, Timestamp(-5)).unwrap(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_instant_in_memory(choices in choices(160), at_once in 1usize..9) {
        let history = History::new(&choices);
        let mut rig = Rig::new(Arc::new(MemKv::new()), &history);
        rig.apply_all(at_once);
        rig.check_all(usize::from(COMPOSE_AFTER));
    }

    /// A crash took the end of the index: the rest is taken in again, in other batches.
    #[test]
    fn every_instant_after_a_loss(choices in choices(120), cut in 0usize..40) {
        let history = History::new(&choices);
        let kv = Arc::new(MemKv::new());
        let mut rig = Rig::new(kv.clone(), &history);
        let all = history.groups.len();
        for group in &history.groups[..cut.min(all)] {
            let last = group.records.last().unwrap();
            let watermark = Watermark { seq: last.seq, ..Watermark::default() };
            rig.index.apply(std::slice::from_ref(group), watermark).unwrap();
        }
        let old = Arc::new(kv.snapshot());
        rig.apply_all(3);
        let mut rig = Rig::new(old, &history);
        rig.apply_all(2);
        rig.check_all(usize::MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn every_instant_on_disk(choices in choices(120)) {
        let history = History::new(&choices);
        let dir = tempfile::tempdir().unwrap();
        let open = || LsmKv::open(dir.path(), LsmOptions { memory_bytes: 1 << 20 }).unwrap();
        let mut rig = Rig::new(Arc::new(open()), &history);
        rig.apply_all(3);
        rig.check_all(usize::from(COMPOSE_AFTER));
        let page_file = std::mem::take(&mut rig.page_file);
        drop(rig);
        let mut rig = Rig::new(Arc::new(open()), &history);
        rig.page_file = page_file;
        prop_assert_eq!(rig.index.watermark().seq, history.seq());
        rig.apply_all(3);
        rig.check_all(usize::from(COMPOSE_AFTER));
    }
}

/// A file of one page, written a few bytes at a time.
#[test]
fn pieces_of_one_page_are_bounded_by_composing() {
    use crate::format::event::Payload;
    let index = Index::open(Arc::new(MemKv::new()), STORE).unwrap();
    let (file, page) = (FileId(9), PageNo(0));
    let mut composed = Vec::new();
    for seq in 1..=100 {
        let write = Event::Write {
            file,
            offset: seq * 10,
            len: 10,
            size: 4096,
            payload: Payload { offset: 64, crc: 0 },
        };
        let (seq, ts) = (Seq(seq), Timestamp(0));
        let (segment, offset) = (SegmentNo(3), 1000 * seq.0);
        let record = Record { seq, ts, wall: ts, event: write };
        let group = IndexedGroup { segment, offset, records: vec![record], pruned: Vec::new() };
        let watermark = Watermark { seq, ..Watermark::default() };
        for compose in index.apply(&[group], watermark).unwrap() {
            let place = Location::PageFile { number: 1, offset: 0 };
            index.put_composed(&[(compose, place)]).unwrap();
            composed.push(compose.seq.0);
        }
    }
    assert!(composed.iter().copied().eq((8..=96).step_by(8)));
    for at in 1..=100 {
        let found = index.page(file, page, Seq(at), Seq(0)).unwrap();
        let pieces: Vec<u64> = found.partials.iter().map(|piece| piece.seq.0).collect();
        assert!(pieces.into_iter().eq((at / 8 * 8 + 1..=at).rev()));
        assert_eq!(found.full.map_or(0, |full| full.seq.0), at / 8 * 8);
        let hidden = index.page(file, page, Seq(at), Seq(at)).unwrap();
        assert_eq!(hidden, PageVersion::default());
    }
    let newest = index.page(file, page, Seq(100), Seq(99)).unwrap();
    let location = Location::Journal { segment: SegmentNo(3), offset: 100_064 };
    let piece = PartialVersion { seq: Seq(100), start: 1000, len: 10, location };
    assert_eq!(newest, PageVersion { full: None, partials: vec![piece] });
}

#[test]
fn another_store_and_another_version_are_told_apart() {
    let kv: Arc<MemKv> = Arc::new(MemKv::new());
    drop(Index::open(kv.clone(), STORE).unwrap());
    assert!(Index::open(kv.clone(), STORE).is_ok());
    let foreign = Index::open(kv.clone(), StoreId([8; 16])).err().unwrap();
    assert_eq!(foreign.kind, Kind::Mismatch);
    let mut batch = kv::Batch::default();
    batch.put(Space::State, vec![0], vec![1, 99]);
    kv.commit(batch).unwrap();
    let newer = Index::open(kv, STORE).err().unwrap();
    assert_eq!(newer.kind, Kind::Version);
}
