//! The store on disk: what survives, what is refused, what it costs.

use super::kv::{Batch, Kv, Space};
use super::lsm::{LsmKv, LsmOptions};
use super::*;
use crate::error::Kind;
use crate::format::event::{Event, Payload};
use std::fs;
use std::path::{Path, PathBuf};

const SMALL: LsmOptions = LsmOptions { memory_bytes: 1 << 20 };
const LAST: &[u8] = &[7];

fn key(number: u32) -> Vec<u8> {
    [&[1], &number.to_be_bytes()[..]].concat()
}

/// A batch of every number: the number in two spaces, and that it is the last in a third.
fn fill(kv: &LsmKv, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let mut batch = Batch::default();
        let value: Vec<u8> = (0..100).map(|at| (number * 31 + at * at) as u8).collect();
        batch.put(Space::Page, key(number), value.clone());
        batch.put(Space::Data, key(number), value);
        batch.put(Space::State, LAST.to_vec(), number.to_be_bytes().to_vec());
        kv.commit(batch).unwrap();
    }
}

/// Every batch up to the last is there: anything else is stale.
fn is_prefix(kv: &LsmKv) -> Result<bool> {
    let last = kv.get(Space::State, LAST)?;
    let count = last.map_or(0, |last| u32::from_be_bytes(last.try_into().unwrap()) + 1);
    for space in [Space::Page, Space::Data] {
        let pairs = kv.range(space, &[0], &[0xff], usize::MAX)?;
        if !pairs.into_iter().map(|pair| pair.0).eq((0..count).map(key)) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[test]
fn what_was_committed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let kv = LsmKv::open(dir.path(), SMALL).unwrap();
    let busy = LsmKv::open(dir.path(), SMALL).err().unwrap();
    assert_eq!(busy.kind, Kind::Busy);
    fill(&kv, 0..50);
    kv.persist().unwrap();
    assert!(kv.size_bytes() > 0);
    drop(kv);
    let kv = LsmKv::open(dir.path(), SMALL).unwrap();
    fill(&kv, 50..60);
    assert!(is_prefix(&kv).unwrap());
    let found = kv.last(Space::Page, &key(3), &key(58)).unwrap();
    assert_eq!(found.unwrap().0, key(57));
    let found = kv.first(Space::Page, &key(3), &key(58)).unwrap();
    assert_eq!(found.unwrap().0, key(3));
    assert_eq!(kv.first(Space::Page, &key(60), &key(99)).unwrap(), None);
    assert_eq!(kv.first(Space::Page, &key(9), &key(3)).unwrap(), None);
    let mut batch = Batch::default();
    batch.removals.push((Space::Page, key(59)));
    kv.commit(batch).unwrap();
    assert_eq!(kv.get(Space::Page, &key(59)).unwrap(), None);
    drop(kv);
    let kv = LsmKv::open(dir.path(), SMALL).unwrap();
    assert_eq!(kv.get(Space::Page, &key(59)).unwrap(), None);
    fill(&kv, 59..70);
    assert!(is_prefix(&kv).unwrap());
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, found),
            false => found.push(path),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}

fn cases(files: &[PathBuf]) -> impl Iterator<Item = (&PathBuf, usize)> {
    files.iter().flat_map(|file| (0..7).map(move |how| (file, how)))
}

/// Logs are extended ahead with zeros that take no space: cut them off, or every copy pays for them.
fn trim(path: &Path) {
    let len = used(&fs::read(path).unwrap()) as u64;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Bytes that a damaged file has, or `None` where it is gone.
fn damaged(bytes: &[u8], how: usize) -> Option<Vec<u8>> {
    let used = used(bytes);
    let mut bytes = bytes.to_vec();
    match how {
        0 => return None,
        1 => bytes.truncate(used / 2),
        2 => bytes.clear(),
        3 => bytes[used / 3..(used / 3 + 40).min(used)].fill(0),
        4 => bytes.iter_mut().take(used).skip(used / 5).step_by(997).for_each(|byte| *byte ^= 0x5a),
        5 => bytes[..used].iter_mut().rev().take(3).for_each(|byte| *byte ^= 0xff),
        _ => bytes[..used].iter_mut().take(9).for_each(|byte| *byte ^= 0xff),
    }
    Some(bytes)
}

/// Each file damaged in each way: an error, or the state after some batch; never a panic, never a stale space.
#[test]
fn damage_is_an_error_or_an_earlier_state() {
    let whole = tempfile::tempdir().unwrap();
    let kv = LsmKv::open(whole.path(), SMALL).unwrap();
    fill(&kv, 0..3000);
    std::thread::sleep(std::time::Duration::from_millis(300));
    fill(&kv, 3000..3100);
    kv.persist().unwrap();
    drop(kv);
    let mut files = Vec::new();
    files_below(whole.path(), &mut files);
    files.sort();
    let logs = files.iter().filter(|path| path.extension().is_some_and(|name| name == "jnl"));
    logs.for_each(|log| trim(log));
    assert!(files.iter().any(|path| path.to_string_lossy().contains("tables")));
    let (mut refused, mut opened) = (0, 0);
    for (index, (file, how)) in cases(&files).enumerate() {
        let short = file.strip_prefix(whole.path()).unwrap();
        // Spaces are alike: every damage to the files of two and to those of all, one in seven elsewhere.
        let depth = short.components().count();
        let first = ["keyspaces/0/", "keyspaces/1/"].iter();
        let thorough = first.fold(depth == 1, |yes, dir| yes || short.to_string_lossy().contains(dir));
        if !thorough && index % 7 != index / 7 % 7 {
            continue;
        }
        let copied = tempfile::tempdir().unwrap();
        copy(whole.path(), copied.path());
        let target = copied.path().join(short);
        match damaged(&fs::read(&target).unwrap(), how) {
            Some(bytes) => fs::write(&target, bytes).unwrap(),
            None => fs::remove_file(&target).unwrap(),
        }
        let outcome = LsmKv::open(copied.path(), SMALL).and_then(|kv| is_prefix(&kv));
        assert!(!matches!(outcome, Ok(false)), "{} damaged by {how}", short.display());
        match outcome {
            Ok(_) => opened += 1,
            Err(error) => {
                // What is to be made anew is told from what only cannot be opened now.
                let is_damage = matches!(error.kind, Kind::Corrupt | Kind::Version);
                assert!(is_damage, "{} damaged by {how}: {error}", short.display());
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {opened} opened");
    assert!(refused > 0);
}

/// Not a test: what `apply` and lookups cost. `cargo nextest run --release -p weft speed --run-ignored only --no-capture`
#[test]
#[ignore = "a measurement"]
fn speed_of_apply_on_disk() {
    const EVENTS: u64 = 1_000_000;
    const PER_GROUP: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let kv = Arc::new(LsmKv::open(dir.path(), LsmOptions::default()).unwrap());
    let index = Index::open(kv.clone(), StoreId([1; 16])).unwrap();
    let mut random = 88_172_645_463_325_252u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut spent = std::time::Duration::ZERO;
    let (mut seq, mut offset) = (0, 0);
    let cpu = cpu_seconds();
    while seq < EVENTS {
        let mut groups = Vec::new();
        for _ in 0..25 {
            let mut records = Vec::new();
            for at in 0..PER_GROUP {
                seq += 1;
                let ts = Timestamp(1_700_000_000_000_000 + seq as i64 * 37);
                let event = Event::Write {
                    file: FileId(1000 + next() % 50),
                    offset: next() % 16_384 * 8192,
                    len: 8192,
                    size: 16_384 * 8192,
                    payload: Payload { offset: (at * 8250) as u32, crc: 0 },
                };
                records.push(Record { seq: Seq(seq), ts, wall: ts, event });
            }
            offset += PER_GROUP * 8250;
            let segment = SegmentNo(1 + offset / (64 << 20));
            groups.push(IndexedGroup { segment, offset: offset % (64 << 20), records, pruned: Vec::new() });
        }
        let watermark = Watermark { seq: Seq(seq), ..Watermark::default() };
        let begin = std::time::Instant::now();
        index.apply(&groups, watermark).unwrap();
        spent += begin.elapsed();
    }
    let cpu = cpu_seconds() - cpu;
    println!(
        "apply: {:.2} us/event, process CPU {:.2} us/event (workers and generator included)",
        spent.as_micros() as f64 / EVENTS as f64,
        cpu * 1e6 / EVENTS as f64
    );
    index.persist().unwrap();
    println!("size now {:.1} bytes/event (log included)", kv.size_bytes() as f64 / EVENTS as f64);
    kv.settle();
    println!("size settled {:.1} bytes/event without log", kv.table_bytes() as f64 / EVENTS as f64);
    let rounds = 20_000;
    let begin = std::time::Instant::now();
    for _ in 0..rounds {
        let (file, page) = (FileId(1000 + next() % 50), PageNo(next() % 32_768));
        std::hint::black_box(index.page(file, page, Seq(next() % EVENTS), Seq(0)).unwrap());
    }
    println!("page: {:.2} us", begin.elapsed().as_micros() as f64 / f64::from(rounds));
    let begin = std::time::Instant::now();
    for _ in 0..rounds {
        let file = FileId(1000 + next() % 50);
        std::hint::black_box(data::newest(&*kv, file, data::Track::Content, Seq(next() % EVENTS)).unwrap());
    }
    println!("newest data: {:.2} us", begin.elapsed().as_micros() as f64 / f64::from(rounds));
    let begin = std::time::Instant::now();
    for file in 0..50 {
        for chunk in 0..32 {
            let pages = PageNo(chunk * 1024)..=PageNo(chunk * 1024 + 1023);
            std::hint::black_box(index.pages(FileId(1000 + file), pages, Seq(EVENTS / 2), Seq(0)).unwrap());
        }
    }
    println!("pages: {:.2} us/page", begin.elapsed().as_micros() as f64 / (50.0 * 32_768.0));
}

/// CPU time of this process.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
