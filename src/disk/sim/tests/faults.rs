//! Failures that a test asks for.

use super::*;
use crate::disk::buffer::AlignedBuf;
use std::collections::BTreeSet;

#[test]
fn the_nth_call_of_a_name_fails_and_does_nothing() {
    let disk = SimDisk::new(1);
    disk.fail("two", 2, libc::ENOSPC);
    let file = open(&disk, "/f");
    file.write_at("one", b"1", 0).unwrap();
    file.write_at("two", b"2", 1).unwrap();
    let err = file.write_at("two", b"3", 2).unwrap_err();
    assert!(err.is(libc::ENOSPC), "{err}");
    assert_eq!((err.op, err.offset), ("two", Some(2)));
    assert_eq!(err.path.as_deref(), Some(Path::new("/f")));
    file.write_at("two", b"4", 2).unwrap();
    assert_eq!(bytes(&disk, "/f").unwrap(), b"124");
    disk.fail("read", 1, libc::EIO);
    assert!(file.read_at("read", &mut [0], 0).unwrap_err().is(libc::EIO));
    disk.fail("stat", 1, libc::EACCES);
    assert!(
        disk.stat("stat", Path::new("/f"))
            .unwrap_err()
            .is(libc::EACCES)
    );
    disk.fail("open", 1, libc::EMFILE);
    assert!(
        disk.open("open", Path::new("/g"), RW)
            .is_err_and(|err| err.is(libc::EMFILE))
    );
    assert!(!exists(&disk, "/g"));
    disk.fail("rename", 1, libc::EIO);
    assert!(
        disk.rename("rename", Path::new("/f"), Path::new("/g"))
            .is_err()
    );
    assert!(exists(&disk, "/f"));
}

#[test]
fn a_failing_write_may_leave_its_head() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", &[1; 10]);
    disk.fail_torn("w", 1, libc::EIO, 4);
    assert!(file.write_at("w", &[2; 10], 0).is_err());
    assert_eq!(bytes(&disk, "/f").unwrap(), [2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn after_a_failed_sync_a_later_one_does_not_save_all() {
    let mut saved = BTreeSet::new();
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let file = durable(&disk, "/f", &[1; 40_960]);
        file.write_at("w", &[2; 40_960], 0).unwrap();
        disk.fail("sync", 1, libc::EIO);
        assert!(file.sync("sync").unwrap_err().is(libc::EIO));
        assert_eq!(bytes(&disk, "/f").unwrap(), [2; 40_960], "it is still seen");
        file.sync("sync").unwrap();
        let found = bytes(&disk.cut(seed), "/f").unwrap();
        let sectors = found.chunks(512).filter(|sector| sector[0] == 2).count();
        assert!(0 < sectors && sectors < 80, "{sectors} of 80 sectors");
        saved.insert(sectors);
        let disk = disk.cut(seed);
        let file = open(&disk, "/f");
        file.write_durable("w", &[3; 40_960], 0).unwrap();
        assert_eq!(bytes(&disk.cut(seed), "/f").unwrap(), [3; 40_960]);
    }
    assert!(saved.len() > 3);
}

#[test]
fn all_changes_fail_after_a_number() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/f", b"x");
    disk.fail_all_after(disk.operations() + 1);
    file.write_at("w", b"y", 0).unwrap();
    assert!(file.write_at("w", b"z", 0).unwrap_err().is(libc::EIO));
    assert!(file.sync("s").is_err());
    assert!(disk.unlink("u", Path::new("/f")).is_err());
    assert_eq!(bytes(&disk, "/f").unwrap(), b"y", "reading goes on");
    assert!(!disk.is_dead());
    disk.clear_faults();
    file.write_at("w", b"z", 0).unwrap();
}

/// Commits one record after the other and says how many were acknowledged.
fn commit_records(disk: &SimDisk) -> usize {
    let Ok(file) = disk.open("open", Path::new("/log"), RW) else {
        return 0;
    };
    if disk.sync_dir("sync_dir", Path::new("/")).is_err() {
        return 0;
    }
    let commit = |n: u8| {
        file.write_at("write", &[n; 600], u64::from(n - 1) * 600)?;
        file.sync("sync")
    };
    (1..=10).take_while(|&n| commit(n).is_ok()).count()
}

#[test]
fn a_cut_at_every_operation_loses_nothing_acknowledged() {
    let disk = SimDisk::new(1);
    assert_eq!(commit_records(&disk), 10);
    assert_eq!(disk.operations(), 22);
    for at in 1..=disk.operations() {
        for seed in 0..10 {
            let disk = SimDisk::new(seed);
            disk.cut_at(at);
            let acknowledged = commit_records(&disk);
            assert!(disk.is_dead() && acknowledged < 10);
            assert!(disk.stat("stat", Path::new("/")).unwrap_err().is(libc::EIO));
            let found = bytes(&disk.cut(seed), "/log").unwrap_or_default();
            assert!(found.len() >= acknowledged * 600);
            for (n, record) in found.chunks(600).take(acknowledged).enumerate() {
                assert_eq!(record, [n as u8 + 1; 600], "cut at {at}");
            }
        }
    }
}

#[test]
fn the_operation_that_loses_power_may_have_happened() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new(1);
        let file = durable(&disk, "/f", &[1; 1024]);
        disk.cut_at(disk.operations() + 1);
        assert!(
            file.write_durable("w", &[2; 1024], 0)
                .unwrap_err()
                .is(libc::EIO)
        );
        let found = bytes(&disk.cut(seed), "/f").unwrap();
        seen.insert((found[0], found[512]));
    }
    assert_eq!(seen, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
}

#[test]
fn a_full_disk_says_so() {
    let disk = SimDisk::new(1);
    disk.set_capacity(4 * 4096);
    let file = open(&disk, "/f");
    file.allocate("a", 0, 2 * 4096).unwrap();
    let other = open(&disk, "/g");
    let err = other.write_at("w", &[1; 3 * 4096], 100).unwrap_err();
    assert!(err.is(libc::ENOSPC));
    assert_eq!(
        other.len("l").unwrap(),
        2 * 4096,
        "what fits is written, as write(2) does"
    );
    file.write_at("w", &[1; 2 * 4096], 0).unwrap();
    assert!(
        file.allocate("a", 0, 3 * 4096)
            .unwrap_err()
            .is(libc::ENOSPC)
    );
    assert_eq!(disk.space("s", Path::new("/")).unwrap().free, 0);
    other.punch("p", 0, 4096).unwrap();
    assert_eq!(disk.space("s", Path::new("/")).unwrap().free, 4096);
    drop(other);
    unlink(&disk, "/g");
    assert_eq!(disk.used(), 2 * 4096);
    file.set_len("t", 0).unwrap();
    assert_eq!(disk.used(), 0);
}

#[test]
fn direct_files_want_whole_aligned_pages() {
    let disk = SimDisk::new(1);
    let how = OpenHow { direct: true, ..RW };
    let file = disk.open("o", Path::new("/f"), how).unwrap();
    let mut buf = AlignedBuf::new();
    buf.extend_from_slice(b"hello");
    assert!(file.write_at("w", &buf, 0).unwrap_err().is(libc::EINVAL));
    buf.pad_to(4096);
    file.write_at("w", &buf, 0).unwrap();
    assert!(file.write_at("w", &buf, 512).unwrap_err().is(libc::EINVAL));
    assert!(
        file.read_at("r", &mut buf[..512], 0)
            .unwrap_err()
            .is(libc::EINVAL)
    );
}

#[test]
fn the_log_tells_the_last_calls() {
    let disk = SimDisk::new(1);
    disk.keep_log(2);
    let file = open(&disk, "/f");
    file.write_at("a", b"x", 0).unwrap();
    file.sync("b").unwrap();
    let log: Vec<_> = disk.log().into_iter().map(|(op, _)| op).collect();
    assert_eq!(log, ["a", "b"]);
}

#[test]
fn threads_share_it() {
    let disk = SimDisk::new(1);
    std::thread::scope(|scope| {
        for n in 0..8_u8 {
            let disk = disk.clone();
            scope.spawn(move || {
                let shared = open(&disk, "/shared");
                let own = open(&disk, &format!("/{n}"));
                for round in 0..100 {
                    shared.write_at("w", &[n; 100], u64::from(n) * 100).unwrap();
                    own.write_durable("w", &[round], u64::from(round)).unwrap();
                    disk.sync_dir("s", Path::new("/")).unwrap();
                }
            });
        }
    });
    let image = disk.cut(1);
    for n in 0..8_u8 {
        assert_eq!(bytes(&image, &format!("/{n}")).unwrap().len(), 100);
    }
    let shared = bytes(&disk.kill(), "/shared").unwrap();
    assert!(
        shared
            .chunks(100)
            .enumerate()
            .all(|(n, part)| part == [n as u8; 100])
    );
}
