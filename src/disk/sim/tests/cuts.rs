//! Bytes, lengths and attributes over power cuts and kills.

use super::*;
use crate::types::PAGE_LEN;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[test]
fn an_unsynced_write_survives_whole_not_at_all_or_torn_at_sectors() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; PAGE_LEN]);
    file.write_at("w", &[2; PAGE_LEN], 0).unwrap();
    let mut seen = BTreeSet::new();
    for image in images(&disk) {
        let found = bytes(&image, "/f").unwrap();
        let sectors: Vec<u8> = found.chunks(512).map(|sector| sector[0]).collect();
        assert!(
            found
                .chunks(512)
                .all(|sector| sector.iter().all(|&b| b == sector[0]))
        );
        seen.insert(sectors);
    }
    assert!(seen.contains(&vec![1; 8]) && seen.contains(&vec![2; 8]));
    assert!(seen.len() > 20, "only {} outcomes", seen.len());
}

#[test]
fn a_sector_written_twice_may_fall_back_to_what_it_was_between() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, "/f", &[1; PAGE_LEN]);
        file.write_at("w", &[2; 512], 0).unwrap();
        file.write_at("w", &[3; 512], 0).unwrap();
        seen.insert(bytes(&disk.cut(seed), "/f").unwrap()[0]);
    }
    assert_eq!(seen, BTreeSet::from([1, 2, 3]));
}

#[test]
fn length_and_bytes_survive_independently() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; 512]);
    file.write_at("w", &[2; 1024], 512).unwrap();
    let mut seen = BTreeSet::new();
    for image in images(&disk) {
        let found = bytes(&image, "/f").unwrap();
        seen.insert(
            found
                .chunks(512)
                .map(|sector| sector[0])
                .collect::<Vec<_>>(),
        );
    }
    let possible = [
        vec![1],
        vec![1, 2, 2],
        vec![1, 0, 0],
        vec![1, 2, 0],
        vec![1, 0, 2],
    ];
    assert_eq!(seen, BTreeSet::from(possible));
}

#[test]
fn a_surviving_truncation_never_lets_old_bytes_come_back() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; 8192]);
    file.set_len("t", 100).unwrap();
    file.set_len("t", 8192).unwrap();
    for image in images(&disk) {
        let found = bytes(&image, "/f").unwrap();
        match found.len() {
            100 => assert_eq!(found, [1; 100]),
            8192 => assert!(
                found == [1; 8192] || (found[..100] == [1; 100] && found[100..] == [0; 8092])
            ),
            other => panic!("length {other} never was"),
        }
    }
}

#[test]
fn a_new_file_without_sync_may_be_there_empty() {
    let disk = SimDisk::new(1);
    open(&disk, "/f").write_at("w", b"hello", 0).unwrap();
    let seen: BTreeSet<_> = images(&disk).map(|image| bytes(&image, "/f")).collect();
    let possible = [
        None,
        Some(vec![]),
        Some(vec![0; 5]),
        Some(b"hello".to_vec()),
    ];
    assert_eq!(seen, BTreeSet::from(possible));
}

#[test]
fn a_preallocated_file_costs_nothing_and_reads_zeros() {
    let disk = SimDisk::new(1);
    let file = open(&disk, "/segment");
    file.allocate("a", 0, 64 << 20).unwrap();
    file.sync("s").unwrap();
    disk.sync_dir("s", Path::new("/")).unwrap();
    assert_eq!(disk.used(), 64 << 20);
    for seed in 0..50 {
        let image = disk.cut(seed);
        let file = open(&image, "/segment");
        assert_eq!(file.len("l").unwrap(), 64 << 20);
        let mut page = [1; 4096];
        assert_eq!(file.read_at("r", &mut page, (64 << 20) - 10).unwrap(), 10);
        assert_eq!(
            image.used(),
            64 << 20,
            "the reservation is as durable as the length"
        );
    }
}

#[test]
fn a_punch_is_pending_until_sync() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[7; 3 * PAGE_LEN]);
    file.punch("p", 1000, 8000).unwrap();
    let mut now = vec![7; 3 * PAGE_LEN];
    now[1000..9000].fill(0);
    assert_eq!(bytes(&disk, "/f").unwrap(), now);
    let seen: BTreeSet<_> = images(&disk.kill())
        .map(|i| bytes(&i, "/f").unwrap())
        .collect();
    assert!(seen.contains(&now) && seen.contains(&vec![7; 3 * PAGE_LEN]) && seen.len() > 2);
}

#[test]
fn attributes_are_pending_until_a_sync_that_covers_them() {
    let syncs: [fn(&SimDisk); 4] = [
        |_| {},
        |disk| open(disk, "/f").sync("s").unwrap(),
        |disk| sync_dir(disk, "/"),
        |disk| disk.sync_filesystem("s", Path::new("/")).unwrap(),
    ];
    for (number, sync) in syncs.into_iter().enumerate() {
        let disk = SimDisk::new(1);
        durable(&disk, "/f", b"x");
        let path = Path::new("/f");
        let mut attr = disk.stat("t", path).unwrap().unwrap().attr;
        attr.mode = 0o4755;
        disk.set_attr("t", path, &attr).unwrap();
        disk.set_xattr("t", path, b"user.a", b"1").unwrap();
        disk.set_xattr("t", path, b"user.b", b"2").unwrap();
        sync(&disk);
        let look = |image: SimDisk| {
            let mode = image.stat("t", path).unwrap().unwrap().attr.mode;
            (mode, image.xattrs("t", path).unwrap().len())
        };
        let seen: BTreeSet<_> = images(&disk).map(look).collect();
        let all = [
            (0o600, 0),
            (0o600, 1),
            (0o600, 2),
            (0o4755, 0),
            (0o4755, 1),
            (0o4755, 2),
        ];
        let expected = if number == 0 { &all[..] } else { &all[5..] };
        assert_eq!(seen, expected.iter().copied().collect(), "sync {number}");
    }
}

#[test]
fn kill_keeps_what_is_seen_and_leaves_it_pending() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; 512]);
    let lock = disk.lock("lock", Path::new("/lock")).unwrap();
    assert!(lock.is_some() && disk.lock("lock", Path::new("/lock")).unwrap().is_none());
    file.write_at("w", &[2; 512], 0).unwrap();
    open(&disk, "/new");
    let after = disk.kill();
    assert!(file.write_at("w", &[3; 512], 0).unwrap_err().is(libc::EIO));
    assert_eq!(bytes(&after, "/f").unwrap(), [2; 512]);
    assert!(exists(&after, "/new"));
    assert!(after.lock("lock", Path::new("/lock")).unwrap().is_some());
    let seen: BTreeSet<_> = images(&after)
        .map(|image| (bytes(&image, "/f").unwrap()[0], exists(&image, "/new")))
        .collect();
    assert_eq!(seen.len(), 4, "both are still pending: {seen:?}");
}

#[test]
fn a_cut_image_is_settled() {
    let disk = SimDisk::new(1);
    mkdir(&disk, "/d");
    for n in 0..20 {
        open(&disk, &format!("/d/{n}"))
            .write_at("w", &[n; 3000], 0)
            .unwrap();
    }
    for image in images(&disk).take(30) {
        let dump = dump(&image);
        for again in images(&image).take(10) {
            assert_eq!(super::cuts::dump(&again), dump);
        }
    }
}

/// Every file's bytes.
fn dump(disk: &SimDisk) -> Vec<(Vec<u8>, Vec<u8>)> {
    if !exists(disk, "/d") {
        return Vec::new();
    }
    let entries = disk.read_dir("t", Path::new("/d")).unwrap().into_iter();
    let content = |name: Vec<u8>| {
        let path = format!("/d/{}", String::from_utf8(name.clone()).unwrap());
        (name, bytes(disk, &path).unwrap())
    };
    entries.map(|entry| content(entry.name)).collect()
}

#[test]
fn the_same_seeds_give_the_same_image() {
    let run = || {
        let disk = SimDisk::new(5);
        mkdir(&disk, "/d");
        for n in 0..50_u8 {
            let file = open(&disk, &format!("/d/{}", n % 7));
            file.write_at("w", &[n; 700], u64::from(n) * 300).unwrap();
            if n % 9 == 0 {
                file.sync("s").unwrap();
                sync_dir(&disk, "/d");
                sync_dir(&disk, "/");
            }
        }
        dump(&disk.cut(77))
    };
    assert_eq!(run(), run());
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize),
    Durable(u64, usize),
    SetLen(u64),
    Punch(u64, u64),
    Allocate(u64, u64),
    Sync,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let (at, len) = (0..20_000_u64, 1..9_000_usize);
    prop_oneof![
        6 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Write(at, len)),
        1 => (at.clone(), len).prop_map(|(at, len)| Step::Durable(at, len)),
        2 => at.clone().prop_map(Step::SetLen),
        1 => (at.clone(), 1..9_000_u64).prop_map(|(at, len)| Step::Punch(at, len)),
        1 => (at, 1..9_000_u64).prop_map(|(at, len)| Step::Allocate(at, len)),
        2 => Just(Step::Sync),
        1 => Just(Step::Kill),
    ]
}

/// The file and what each byte may be after a cut: everything it was since the last sync.
#[derive(Default)]
struct Model {
    now: Vec<u8>,
    may: Vec<BTreeSet<u8>>,
    lens: BTreeSet<usize>,
}

impl Model {
    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.reach(at + bytes.len());
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
        self.note();
    }

    fn reach(&mut self, len: usize) {
        let len = len.max(self.now.len());
        self.now.resize(len, 0);
        self.note();
    }

    fn note(&mut self) {
        self.lens.insert(self.now.len());
        if self.may.len() < self.now.len() {
            // Bytes beyond the durable end were zeros, if anything.
            self.may.resize(self.now.len(), BTreeSet::from([0]));
        }
        self.may.iter_mut().zip(&self.now).for_each(|(may, &now)| {
            may.insert(now);
        });
    }

    fn synced(&mut self) {
        self.may = self.now.iter().map(|&b| BTreeSet::from([b])).collect();
        self.lens = BTreeSet::from([self.now.len()]);
    }
}

proptest! {
    #[test]
    fn what_was_synced_survives_every_cut_and_nothing_is_made_up(
        seed in any::<u64>(), steps in prop::collection::vec(step(), 1..25),
    ) {
        let mut disk = SimDisk::new(seed);
        let mut file = durable(&disk, "/f", b"");
        let mut model = Model::default();
        model.synced();
        for (number, step) in steps.into_iter().enumerate() {
            let fill = number as u8 + 1;
            match step {
                Step::Write(at, len) => {
                    file.write_at("w", &vec![fill; len], at).unwrap();
                    model.set(at as usize, &vec![fill; len]);
                }
                Step::Durable(at, len) => {
                    file.write_durable("w", &vec![fill; len], at).unwrap();
                    model.set(at as usize, &vec![fill; len]);
                    model.synced();
                }
                Step::SetLen(len) => {
                    file.set_len("t", len).unwrap();
                    let len = len as usize;
                    // A truncated tail may read as zeros whatever else survives.
                    model.may.iter_mut().skip(len).for_each(|may| { may.insert(0); });
                    model.now.resize(len, 0);
                    model.note();
                }
                Step::Punch(at, len) => {
                    file.punch("p", at, len).unwrap();
                    let end = ((at + len) as usize).min(model.now.len());
                    let start = (at as usize).min(end);
                    model.set(start, &vec![0; end - start]);
                }
                Step::Allocate(at, len) => {
                    file.allocate("a", at, len).unwrap();
                    model.reach((at + len) as usize);
                }
                Step::Sync => {
                    file.sync("s").unwrap();
                    model.synced();
                }
                Step::Kill => {
                    disk = disk.kill();
                    file = open(&disk, "/f");
                }
            }
            prop_assert_eq!(&bytes(&disk, "/f").unwrap(), &model.now);
        }
        for seed in 0..20 {
            let image = disk.cut(seed);
            let found = bytes(&image, "/f").unwrap();
            prop_assert!(model.lens.contains(&found.len()), "length {} never was", found.len());
            for (at, byte) in found.iter().enumerate() {
                prop_assert!(model.may[at].contains(byte), "byte {at} is {byte}, not of {:?}", model.may[at]);
            }
        }
    }
}
