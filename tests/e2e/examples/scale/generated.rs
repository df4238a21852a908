//! A history that is only an index: as the indexer makes it of the events, without the events. Pages are looked up in
//! it and read from a file that stands for the segments.

use crate::figures::{Figures, Spread, disk_bytes, timed};
use crate::workload::{PAGE, PAGES, mixed, newest, page_of};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use weft::format::event::{Birth, Event, Payload, Record, Slot};
use weft::index::lsm::{LsmKv, LsmOptions};
use weft::index::{Index, IndexedGroup, Watermark};
use weft::types::{
    Attr, FileId, FileKind, FileTime, Location, PageNo, RootId, SegmentNo, Seq, StoreId, Timestamp,
};
use weft_e2e::Place;
use weft_e2e::load::rss_mib;

const STORE: StoreId = StoreId([9; 16]);
const TABLE: FileId = FileId(2);
/// Events before the first write: the root directory and the table.
const BEFORE: u64 = 2;
/// Writes in a group, as a busy server has them.
const GROUP: u64 = 16;
const GROUPS_A_SEGMENT: u64 = 900;
/// Bytes that stand for all segments.
const BACKING: u64 = 512 << 20;

/// Makes the index in a process that is killed, and looks at it in another.
pub fn measure(entries: u64, reads: usize) -> Figures {
    let place = Place::new();
    let backing = File::create(place.join("segments")).expect("a file");
    let mut block = vec![0; 1 << 20];
    for at in 0..BACKING >> 20 {
        block
            .chunks_mut(8)
            .enumerate()
            .for_each(|(n, bytes)| bytes.copy_from_slice(&mixed(at << 20 | n as u64).to_le_bytes()));
        backing.write_all_at(&block, at << 20).expect("its bytes");
    }
    let made = child("generated-fill", place.path(), entries, reads).status().expect("a child");
    assert!(!made.success(), "it was to be killed");
    let output = child("generated-look", place.path(), entries, reads).output().expect("a child");
    assert!(output.status.success(), "looking failed: {}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    Figures {
        kind: "generated",
        entries,
        open: Spread::from_us(&said["open"]),
        page: Spread::from_us(&said["page"]),
        log: Spread::from_us(&said["log"]),
        rss_mib: said["rss_mib"].as_f64().expect("RSS"),
        index_bytes_each: disk_bytes(&place.join("index")) as f64 / entries as f64,
        store_bytes_each: 0.0,
        mount_after_kill: Duration::from_secs_f64(said["reopen_s"].as_f64().expect("a time")),
    }
}

fn child(mode: &str, dir: &Path, entries: u64, reads: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.arg(mode).arg(dir).args([entries.to_string(), reads.to_string()]);
    command
}

/// What a child does.
pub fn in_child(mode: &str, dir: &Path, entries: &str, reads: &str) {
    let entries: u64 = entries.parse().expect("a number");
    let reads: usize = reads.parse().expect("a number");
    match mode {
        "generated-fill" => fill(dir, entries),
        _ => println!("{}", look(dir, entries, reads)),
    }
}

fn open(dir: &Path) -> Index {
    let kv = LsmKv::open(&dir.join("index"), LsmOptions::default()).expect("an LSM");
    Index::open(Arc::new(kv), STORE).expect("an index")
}

/// Makes the index, makes it durable as the daemon does at a checkpoint, adds a little, and dies.
fn fill(dir: &Path, entries: u64) {
    let index = open(dir);
    let (mut groups, mut number) = (vec![births()], 0);
    for write in (1..=entries).step_by(GROUP as usize) {
        groups.push(group(number, write, GROUP.min(entries + 1 - write)));
        number += 1;
        if groups.len() == 128 {
            take_in(&index, &mut groups);
        }
        if number % (4 * GROUPS_A_SEGMENT) == 0 {
            index.persist().expect("durable");
        }
    }
    take_in(&index, &mut groups);
    index.persist().expect("durable");
    // SAFETY: ends this process, and nothing else.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

fn take_in(index: &Index, groups: &mut Vec<IndexedGroup>) {
    let Some(last) = groups.last().and_then(|group| Some((group, group.records.last()?))) else { return };
    let mark = Watermark {
        seq: last.1.seq,
        ts: last.1.ts,
        segment: last.0.segment,
        offset: last.0.offset + GROUP * PAGE,
        ..Watermark::default()
    };
    let composes = index.apply(groups, mark).expect("indexing");
    assert!(composes.is_empty(), "whole pages need no composing");
    groups.clear();
}

fn births() -> IndexedGroup {
    let attr = |kind, size| Attr {
        kind,
        mode: 0o700,
        uid: 0,
        gid: 0,
        rdev: 0,
        nlink: 1,
        size,
        atime: FileTime::default(),
        mtime: FileTime::default(),
        ctime: FileTime::default(),
    };
    let root = Event::Adopt {
        birth: Birth {
            file: FileId::ROOT,
            root: RootId(0),
            slot: None,
            attr: attr(FileKind::Directory, 0),
            target: Vec::new(),
            dir_nlink: 2,
        },
        inode: 1,
    };
    let slot = Some(Slot { dir: FileId::ROOT, name: b"table".to_vec() });
    let birth = Birth {
        file: TABLE,
        root: RootId(0),
        slot,
        attr: attr(FileKind::Regular, 0),
        target: Vec::new(),
        dir_nlink: 2,
    };
    let records = [root, Event::Create(birth, Vec::new())].into_iter().zip(1..);
    let records = records.map(|(event, seq)| record(seq, event)).collect();
    IndexedGroup { segment: SegmentNo(1), offset: PAGE, records, pruned: Vec::new() }
}

fn record(seq: u64, event: Event) -> Record {
    let at = time(seq);
    Record { seq: Seq(seq), ts: at, wall: at, event }
}

fn time(seq: u64) -> Timestamp {
    Timestamp(1_800_000_000_000_000 + seq as i64 * 50)
}

/// Where the bytes of a write stand: groups of a page of records, then their payload.
fn group(number: u64, first: u64, count: u64) -> IndexedGroup {
    let segment = SegmentNo(1 + number / GROUPS_A_SEGMENT);
    let offset = PAGE * 2 + number % GROUPS_A_SEGMENT * (GROUP + 1) * PAGE;
    let write = |at: u64| {
        let payload = Payload { offset: ((1 + at) * PAGE) as u32, crc: 0 };
        let (offset, size) = (page_of(first + at) * PAGE, PAGES * PAGE);
        record(BEFORE + first + at, Event::Write { file: TABLE, offset, len: PAGE as u32, size, payload })
    };
    IndexedGroup { segment, offset, records: (0..count).map(write).collect(), pruned: Vec::new() }
}

fn look(dir: &Path, entries: u64, reads: usize) -> Value {
    let (reopen, index) = timed(|| open(dir));
    assert_eq!(index.watermark().seq.0, BEFORE + entries, "the index has it all");
    let segments = File::open(dir.join("segments")).expect("the bytes");
    let random = |n: usize, salt: u64| mixed(n as u64 ^ salt) % entries + 1;
    settle();
    // The caches fill first: what is measured is a server in use.
    (0..reads).for_each(|n| {
        read_page(&index, &segments, random(n, 3 << 40), mixed(n as u64) % PAGES);
    });
    let open = (0..reads).map(|n| view(&index, random(n, 1 << 40)));
    let open: Vec<f64> = open.map(us).collect();
    let page = (0..reads).map(|n| {
        let (write, page) = (random(n, 2 << 40), mixed(n as u64 ^ 7) % PAGES);
        let (time, found) = read_page(&index, &segments, write, page);
        let expected = newest(page, write).map(place_of);
        assert_eq!(found, expected, "page {page} at write {write}");
        us(time)
    });
    let page: Vec<f64> = page.collect();
    let log = (0..50).map(|n| {
        let (time, versions) = timed(|| index.history(TABLE, Seq(BEFORE + random(n, 4 << 40)), 100));
        assert!(!versions.expect("a log").is_empty(), "a log without versions");
        us(time)
    });
    let log: Vec<f64> = log.collect();
    json!({"open": open, "page": page, "log": log, "rss_mib": rss_mib(std::process::id() as i32), "reopen_s": reopen.as_secs_f64()})
}

/// Returns when what the kill left to tidy up is done, or after five minutes: looked at meanwhile, a compaction is measured.
fn settle() {
    const LOOKS: usize = 600;
    const STILL_US: i64 = 5_000;
    for _ in 0..LOOKS {
        let before = cpu_us();
        std::thread::sleep(Duration::from_millis(500));
        if cpu_us() - before < STILL_US {
            return;
        }
    }
}

/// Processor time of this process.
fn cpu_us() -> i64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("own usage");
    let us = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    us(usage.user_time()) + us(usage.system_time())
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What the lookups of a view's root and a file in it cost: the group of the time, names, attributes.
fn view(index: &Index, write: u64) -> Duration {
    let at = Seq(BEFORE + write);
    let look = || {
        let group = index.group_at_time(0, time(at.0)).expect("a group");
        let (file, _) = index.lookup(FileId::ROOT, b"table", at).expect("a lookup").expect("a table");
        (group, index.attr(file, at).expect("attributes"))
    };
    let (time, (group, attr)) = timed(look);
    assert!(group.is_some() && attr.is_some(), "nothing at {at}");
    time
}

fn read_page(index: &Index, segments: &File, write: u64, page: u64) -> (Duration, Option<Location>) {
    let mut bytes = vec![0; PAGE as usize];
    timed(|| {
        let found = index.page(TABLE, PageNo(page), Seq(BEFORE + write), Seq::ZERO).expect("a page");
        let full = found.full.map(|full| full.location);
        if let Some(Location::Journal { segment, offset }) = full {
            let at = (segment.0 * (64 << 20) + offset) % (BACKING - PAGE) / PAGE * PAGE;
            segments.read_exact_at(&mut bytes, at).expect("its bytes");
        }
        full
    })
}

/// Where the bytes of a write are said to stand.
fn place_of(write: u64) -> Location {
    let group = group((write - 1) / GROUP, write - (write - 1) % GROUP, GROUP);
    Location::Journal { segment: group.segment, offset: group.offset + (1 + (write - 1) % GROUP) * PAGE }
}
