//! The index on a disk that becomes full beneath it, and has room again.

use std::fs;
use std::time::{Duration, Instant};
use weft::index::kv::{Batch, Kv, Space};
use weft::index::lsm::{LsmKv, LsmOptions};
use weft_e2e::Place;
use weft_e2e::small::Small;

const OPTIONS: LsmOptions = LsmOptions { memory_bytes: 4 << 20 };

fn key(number: u32) -> Vec<u8> {
    [&[1], &number.to_be_bytes()[..]].concat()
}

/// 4 KiB that do not compress, of a number.
fn value(number: u32) -> Vec<u8> {
    let mut state = number.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..1024).flat_map(|_| next().to_le_bytes()).collect()
}

fn put(kv: &LsmKv, number: u32) -> weft::error::Result<()> {
    let mut batch = Batch::default();
    batch.put(Space::Page, key(number), value(number));
    batch.put(Space::Data, key(number), number.to_be_bytes().to_vec());
    kv.commit(batch)
}

#[track_caller]
fn check(kv: &LsmKv, count: u32) {
    for number in 0..count {
        assert_eq!(kv.get(Space::Page, &key(number)).unwrap(), Some(value(number)), "{number} of {count}");
    }
    let data = kv.range(Space::Data, &[0], &[0xff], usize::MAX).unwrap();
    assert!(data.iter().map(|pair| pair.0.clone()).filter(|found| *found != [0xff]).eq((0..count).map(key)));
}

/// Commits until it fails; how many there are then.
fn fill(kv: &LsmKv, from: u32) -> (u32, weft::error::Error) {
    (from..from + 100_000)
        .find_map(|number| Some((number, put(kv, number).err()?)))
        .expect("it is never full")
}

#[test]
fn it_goes_on_when_there_is_room_again_and_every_batch_is_there() {
    let place = Place::new();
    let disk = Small::new(&place, "disk", "ext4", 400);
    let dir = disk.dir.join("index");
    fs::create_dir(&dir).unwrap();
    let kv = LsmKv::open(&dir, OPTIONS).unwrap();
    let mut count = 0;
    for round in 0..4 {
        let held = disk.fill(40);
        let (there, error) = fill(&kv, count);
        println!("round {round}: full after {there}: {error}");
        count = there;
        // Whatever is asked meanwhile is answered or refused, and nothing of it is wrong.
        for _ in 0..3 {
            println!("{}", put(&kv, count).unwrap_err());
            std::thread::sleep(Duration::from_millis(200));
        }
        fs::remove_file(held).unwrap();
        let begun = Instant::now();
        while let Err(error) = put(&kv, count) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
        count += 1;
        check(&kv, count);
        if round == 1 {
            // What it takes over from before goes: its tables are compacted.
            let mut batch = Batch::default();
            for number in 0..count {
                batch.removals.push((Space::Page, key(number)));
                batch.removals.push((Space::Data, key(number)));
            }
            kv.commit(batch).unwrap();
            count = 0;
        }
    }
    kv.persist().unwrap();
    drop(kv);
    check(&LsmKv::open(&dir, OPTIONS).unwrap(), count);
}
