//! Names over power cuts.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Which of the names are there, over many cuts.
fn outcomes(disk: &SimDisk, names: &[&str]) -> BTreeSet<Vec<bool>> {
    images(disk).map(|image| names.iter().map(|name| exists(&image, name)).collect()).collect()
}

#[test]
fn a_name_is_durable_after_its_directory_was_synced_not_its_file() {
    let disk = SimDisk::new(1);
    open(&disk, "/a").sync("s").unwrap();
    open(&disk, "/b");
    assert_eq!(outcomes(&disk, &["/a", "/b"]).len(), 4, "any subset survives");
    let disk = disk.kill();
    sync_dir(&disk, "/");
    assert_eq!(outcomes(&disk, &["/a", "/b"]), BTreeSet::from([vec![true, true]]));
}

#[test]
fn an_unlink_is_pending_until_sync_dir() {
    let disk = SimDisk::new(1);
    durable(&disk, "/a", b"kept");
    unlink(&disk, "/a");
    let seen: BTreeSet<_> = images(&disk).map(|image| bytes(&image, "/a")).collect();
    assert_eq!(seen, BTreeSet::from([None, Some(b"kept".to_vec())]));
    let disk = disk.kill();
    sync_dir(&disk, "/");
    assert_eq!(outcomes(&disk, &["/a"]), BTreeSet::from([vec![false]]));
}

#[test]
fn a_reflink_has_the_bytes_and_is_durable_when_synced() {
    let disk = SimDisk::new(1);
    durable(&disk, "/a", &[7; 10_000]);
    let (from, to) = (Path::new("/a"), Path::new("/b"));
    assert!(!disk.reflink("t", from, to).unwrap() && !exists(&disk, "/b"));
    disk.set_reflinks(true);
    assert!(disk.reflink("t", from, to).unwrap());
    assert!(disk.reflink("t", from, to).is_err_and(|error| error.is(libc::EEXIST)));
    open(&disk, "/a").write_at("w", &[8], 0).unwrap();
    assert_eq!(bytes(&disk, "/b"), Some(vec![7; 10_000]));
    sync_dir(&disk, "/");
    let seen: BTreeSet<_> = images(&disk).map(|image| bytes(&image, "/b")).collect();
    assert!(seen.len() > 2, "its bytes are pending");
    let disk = disk.kill();
    open(&disk, "/b").sync("s").unwrap();
    assert_eq!(bytes(&disk.cut(1), "/b"), Some(vec![7; 10_000]));
}

#[test]
fn a_rename_over_another_file_shows_the_old_or_the_new() {
    let disk = SimDisk::new(1);
    durable(&disk, "/new", b"new");
    durable(&disk, "/old", b"old");
    rename(&disk, "/new", "/old");
    let seen: BTreeSet<_> =
        images(&disk).map(|image| (bytes(&image, "/old").unwrap(), exists(&image, "/new"))).collect();
    let possible = [(b"old".to_vec(), true), (b"new".to_vec(), false)];
    assert_eq!(seen, BTreeSet::from(possible));
}

#[test]
fn a_rename_across_directories_needs_both_synced() {
    for (syncs, expected) in [(&[][..], 2), (&["/a"][..], 2), (&["/b"][..], 2), (&["/a", "/b"][..], 1)] {
        let disk = SimDisk::new(1);
        mkdir(&disk, "/a");
        mkdir(&disk, "/b");
        sync_dir(&disk, "/");
        durable(&disk, "/a/f", b"x");
        rename(&disk, "/a/f", "/b/f");
        syncs.iter().for_each(|dir| sync_dir(&disk, dir));
        let seen = outcomes(&disk, &["/a/f", "/b/f"]);
        assert!(seen.iter().all(|names| names[0] != names[1]), "{seen:?}");
        assert_eq!(seen.len(), expected, "synced {syncs:?}");
        assert!(seen.contains(&vec![false, true]));
    }
}

#[test]
fn a_rename_into_a_directory_that_is_lost_is_lost() {
    let disk = SimDisk::new(1);
    durable(&disk, "/f", b"x");
    mkdir(&disk, "/d");
    mkdir(&disk, "/d/e");
    rename(&disk, "/f", "/d/e/f");
    let seen = outcomes(&disk, &["/f", "/d/e/f"]);
    assert_eq!(seen, BTreeSet::from([vec![true, false], vec![false, true]]));
}

#[test]
fn later_changes_of_a_name_do_not_survive_without_earlier_ones() {
    let disk = SimDisk::new(1);
    durable(&disk, "/t", b"1");
    rename(&disk, "/t", "/t_old");
    open(&disk, "/t").write_durable("w", b"2", 0).unwrap();
    unlink(&disk, "/t_old");
    let seen: BTreeSet<_> =
        images(&disk).map(|image| (bytes(&image, "/t"), bytes(&image, "/t_old"))).collect();
    let (one, two) = (Some(b"1".to_vec()), Some(b"2".to_vec()));
    let possible = [(one.clone(), None), (None, one.clone()), (two.clone(), one), (None, None), (two, None)];
    assert_eq!(seen, BTreeSet::from(possible));
}

#[test]
fn a_directory_is_removed_only_with_what_was_in_it() {
    let disk = SimDisk::new(1);
    mkdir(&disk, "/d");
    sync_dir(&disk, "/");
    durable(&disk, "/d/f", b"x");
    unlink(&disk, "/d/f");
    disk.remove_dir("rmdir", Path::new("/d")).unwrap();
    let seen = outcomes(&disk, &["/d", "/d/f"]);
    let possible = [vec![true, true], vec![true, false], vec![false, false]];
    assert_eq!(seen, BTreeSet::from(possible));
    let disk = disk.kill();
    sync_dir(&disk, "/");
    assert_eq!(outcomes(&disk, &["/d"]), BTreeSet::from([vec![false]]));
}

#[test]
fn inode_numbers_are_reused_and_never_shared_in_an_image() {
    let disk = SimDisk::new(1);
    let ino = |disk: &SimDisk, path: &str| disk.stat("t", Path::new(path)).unwrap().map(|stat| stat.ino);
    durable(&disk, "/a", b"a");
    let first = ino(&disk, "/a");
    unlink(&disk, "/a");
    let held = open(&disk, "/b");
    assert_eq!(ino(&disk, "/b"), first, "reused right after the unlink");
    for image in images(&disk) {
        assert!(!(exists(&image, "/a") && exists(&image, "/b")));
    }
    let disk = disk.kill();
    drop(held);
    let held = open(&disk, "/b");
    unlink(&disk, "/b");
    open(&disk, "/c");
    assert_ne!(ino(&disk, "/c"), first, "an open file keeps its number");
    held.write_at("w", b"still works", 0).unwrap();
    drop(held);
    open(&disk, "/d");
    assert_eq!(ino(&disk, "/d"), first);
}

#[test]
fn hard_links_share_bytes_and_count() {
    let disk = SimDisk::new(1);
    durable(&disk, "/a", b"one");
    disk.link("l", Path::new("/a"), Path::new("/b")).unwrap();
    open(&disk, "/b").write_at("w", b"two", 0).unwrap();
    assert_eq!(bytes(&disk, "/a").unwrap(), b"two");
    let nlink = |disk: &SimDisk| disk.stat("t", Path::new("/a")).unwrap().unwrap().attr.nlink;
    assert_eq!(nlink(&disk), 2);
    let seen: BTreeSet<_> = images(&disk).map(|image| (exists(&image, "/b"), nlink(&image))).collect();
    assert_eq!(seen, BTreeSet::from([(false, 1), (true, 2)]));
}

/// Every path below the root, with inode number and, for links counted, how often each number occurs.
fn tree(disk: &SimDisk) -> BTreeMap<String, u64> {
    let (mut found, mut todo) = (BTreeMap::new(), vec![String::new()]);
    while let Some(dir) = todo.pop() {
        let path = format!("{dir}/");
        for entry in disk.read_dir("t", Path::new(&path)).unwrap() {
            let path = format!("{dir}/{}", String::from_utf8(entry.name).unwrap());
            let stat = disk.stat("t", Path::new(&path)).unwrap().unwrap();
            found.insert(path.clone(), stat.ino);
            assert!(found.len() < 1000, "a loop");
            if entry.kind == crate::types::FileKind::Directory {
                todo.push(path);
            }
        }
    }
    found
}

fn check_tree(disk: &SimDisk) {
    let tree = tree(disk);
    for (path, ino) in &tree {
        let attr = disk.stat("t", Path::new(path)).unwrap().unwrap().attr;
        let names = tree.values().filter(|other| *other == ino).count();
        if attr.kind == crate::types::FileKind::Directory {
            assert_eq!(names, 1, "{path} is a directory with two names or a shared number");
        } else {
            assert_eq!(attr.nlink as usize, names, "{path}");
        }
    }
}

/// (what, from, to): indexes of a few paths, so that they meet often.
type Step = (u8, usize, usize);

const PATHS: [&str; 10] = ["/a", "/b", "/d", "/e", "/d/a", "/d/b", "/e/a", "/d/d", "/d/d/a", "/e/d"];

fn apply(disk: &SimDisk, (what, from, to): Step) {
    let (from, to) = (Path::new(PATHS[from]), Path::new(PATHS[to]));
    // Most fail with an errno, which is as it should be.
    let _ = match what {
        0 | 1 => disk.open("t", from, RW).map(drop),
        2 | 3 => disk.create_dir("t", from, 0o700),
        4 => disk.unlink("t", from),
        5 => disk.remove_dir("t", from),
        6..9 => disk.rename("t", from, to),
        9 => disk.link("t", from, to),
        10 => disk.sync_dir("t", from),
        _ => disk.sync_dir("t", Path::new("/")),
    };
}

proptest! {
    #[test]
    fn every_image_is_a_tree(
        seed in any::<u64>(),
        steps in prop::collection::vec((0..12_u8, 0..10_usize, 0..10_usize), 1..60),
    ) {
        let disk = SimDisk::new(seed);
        for step in &steps {
            apply(&disk, *step);
            check_tree(&disk);
        }
        for seed in 0..10 {
            let image = disk.cut(seed);
            check_tree(&image);
            steps.iter().rev().for_each(|step| apply(&image, *step));
            check_tree(&image);
            check_tree(&image.cut(seed));
        }
        let after = disk.kill();
        after.sync_filesystem("t", Path::new("/")).unwrap();
        let expected = tree(&after);
        prop_assert_eq!(tree(&after.cut(seed)), expected);
    }
}
