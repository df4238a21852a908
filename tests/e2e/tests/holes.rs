//! Holes: where they are, live and in views, what `st_blocks` tells, and that copies keep them.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use weft_e2e::cmd::call;
use weft_e2e::exercise::{Map, seek};
use weft_e2e::{Capture, Mount, Place};

const PAGE: u64 = 4096;

/// Stretches of data of a file, as (start, end).
fn stretches(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = seek(&file, at, libc::SEEK_DATA) {
        at = seek(&file, start, libc::SEEK_HOLE).unwrap();
        found.push((start, at));
    }
    found
}

fn blocks(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks()
}

fn allocate(file: &File, mode: i32, offset: u64, len: u64) {
    // SAFETY: an open descriptor and plain numbers.
    let done = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) };
    assert_eq!(done, 0, "fallocate {mode}: {}", std::io::Error::last_os_error());
}

/// Sparse files of every sort, each by its own way: far writes, cuts, punched and zeroed ranges.
fn make_sparse_files(dir: &Path) {
    let create =
        |name: &str| OpenOptions::new().read(true).write(true).create_new(true).open(dir.join(name)).unwrap();
    create("empty");
    create("nothing").set_len(1 << 20).unwrap();
    let far = create("far");
    for at in [0, 70 * PAGE, (5 << 30) + PAGE, 6 << 30] {
        far.write_all_at(&[7; 8192], at).unwrap();
    }
    far.set_len(7 << 30).unwrap();
    let punched = create("punched");
    punched.write_all_at(&[3; 40 * 4096], 0).unwrap();
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    allocate(&punched, libc::FALLOC_FL_PUNCH_HOLE | keep, 5 * PAGE, 6 * PAGE);
    allocate(&punched, libc::FALLOC_FL_PUNCH_HOLE | keep, 20 * PAGE + 100, 3 * PAGE);
    let cut = create("cut");
    cut.write_all_at(&[1; 10 * 4096], 0).unwrap();
    cut.set_len(3 * PAGE + 5).unwrap();
    cut.set_len(20 * PAGE).unwrap();
    cut.write_all_at(b"tail", 18 * PAGE + 9).unwrap();
    let dense = create("dense");
    dense.write_all_at(&[9; 3 * 4096 + 1], 0).unwrap();
    for file in [&far, &punched, &cut, &dense] {
        file.sync_all().unwrap();
    }
}

const NAMES: [&str; 6] = ["empty", "nothing", "far", "punched", "cut", "dense"];

#[track_caller]
fn assert_same_holes(label: &str, expected: &Path, found: &Path, least: u64) {
    for name in NAMES {
        let (expected, found) = (expected.join(name), found.join(name));
        assert_eq!(stretches(&found), stretches(&expected), "{label}: data of {name}");
        assert_eq!(blocks(&found), blocks(&expected).max(least_of(&expected, least)), "{label}: {name}");
    }
}

/// A file that has bytes has at least one block while it can be written.
fn least_of(path: &Path, least: u64) -> u64 {
    if fs::metadata(path).unwrap().len() > 0 { least } else { 0 }
}

#[test]
fn holes_and_blocks_are_those_of_the_disk_and_copies_keep_them() {
    let place = Place::new();
    let plain = place.join("plain");
    fs::create_dir(&plain).unwrap();
    make_sparse_files(&plain);
    let mount = Mount::new(&place).mount();
    make_sparse_files(&mount.point);
    assert_same_holes("live", &plain, &mount.point, 1);
    let view = mount.at("now");
    assert_same_holes("view", &plain, &view, 0);

    let held = OpenOptions::new().write(true).open(mount.point.join("far")).unwrap();
    held.write_all_at(&[5; 4096], 3 << 30).unwrap();
    allocate(&held, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 4 * PAGE);
    assert_same_holes("view after changes", &plain, &view, 0);
    drop(held);

    copies_keep_holes(&place, &view);
    mount.crash();
    assert_same_holes("view after a crash", &plain, &view, 0);
    fs::remove_file(mount.point.join("far")).unwrap();
    fs::copy(plain.join("empty"), mount.point.join("far")).unwrap();
    call("cp", &[Path::new("--sparse=always"), &view.join("far"), &mount.point.join("far")]).ok();
    assert_same_holes("live after a crash", &plain, &mount.point, 1);
    mount.unmount();
    // The disk may keep a block more or less than it would by itself; what has no data has no space.
    assert!(blocks(&mount.data.join("far")) < 200, "DATA is not sparse after the unmount");
    mount.remount();
    assert_same_holes("live after an unmount", &plain, &mount.point, 1);
    mount.unmount();
}

/// `cp`, `rsync` and `tar` as people use them on sparse files.
fn copies_keep_holes(place: &Place, from: &Path) {
    let to = |name: &str| {
        let dir = place.join(name);
        fs::create_dir(&dir).unwrap();
        dir
    };
    let (cp, rsync, tar) = (to("cp"), to("rsync"), to("tar"));
    call("cp", &[Path::new("-aT"), Path::new("--sparse=auto"), from, &cp]).ok();
    // rsync reads every byte of a hole, so it gets no file of 7 GiB.
    let source = format!("{}/", from.display());
    call("rsync", &["-aS", "--exclude", "far", &source, rsync.to_str().unwrap()]).ok();
    let archive = place.join("tar.tar");
    let dir = from.to_str().unwrap();
    call("tar", &["-C", dir, "-Scf", archive.to_str().unwrap(), "."]).ok();
    assert!(fs::metadata(&archive).unwrap().len() < 1 << 20, "tar wrote the holes");
    call("tar", &["-C", tar.to_str().unwrap(), "-xf", archive.to_str().unwrap()]).ok();
    for copy in [&cp, &rsync, &tar] {
        for name in NAMES.into_iter().filter(|name| *copy != rsync || *name != "far") {
            let (copied, original) = (copy.join(name), from.join(name));
            assert!(blocks(&copied) <= blocks(&original) + 16, "{} is not sparse", copied.display());
            for (start, end) in stretches(&original) {
                assert_eq!(part(&copied, start, end), part(&original, start, end), "{}", copied.display());
            }
            assert_eq!(fs::metadata(copied).unwrap().len(), fs::metadata(original).unwrap().len());
        }
    }
}

fn part(path: &Path, start: u64, end: u64) -> Vec<u8> {
    let mut bytes = vec![0; (end - start) as usize];
    File::open(path).unwrap().read_exact_at(&mut bytes, start).unwrap();
    bytes
}

#[test]
fn files_that_were_sparse_before_keep_their_holes() {
    let place = Place::new();
    let (plain, data) = (place.join("plain"), place.join("data"));
    for dir in [&plain, &data] {
        fs::create_dir(dir).unwrap();
        make_sparse_files(dir);
    }
    let mount = Mount::new(&place).mount();
    assert_same_holes("live", &plain, &mount.point, 1);
    // A view knows of no hole beneath Weft: it tells data, and reads zeros.
    let view = mount.at("now").join("punched");
    assert_eq!(stretches(&view), [(0, 40 * PAGE)]);
    assert_eq!(fs::read(&view).unwrap(), fs::read(plain.join("punched")).unwrap());
    mount.crash();
    assert_same_holes("live after a crash", &plain, &mount.point, 1);
    mount.unmount();
}

/// What a map or the writeback cache holds is no hole, though the daemon has not seen it.
fn what_the_kernel_holds_is_data(capture: Capture) {
    let place = Place::new();
    let mount = Mount::new(&place).capture(capture).mount();
    let path = mount.point.join("file");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(80 * PAGE).unwrap();
    let map = Map::new(&file, 0);
    map.store(60 * 4096 + 5, b"stored");
    file.write_all_at(b"written", 30 * PAGE).unwrap();
    assert_eq!(stretches(&path), [(30 * PAGE, 31 * PAGE), (60 * PAGE, 61 * PAGE)]);
    map.store(70 * 4096, b"and more");
    let archive = place.join("a.tar");
    let (dir, archive) = (mount.point.to_str().unwrap(), archive.to_str().unwrap());
    // It may say that the file changed: writing back sets the time.
    assert!(call("tar", &["-C", dir, "-Scf", archive, "file"]).code <= 1);
    call("tar", &["-C", place.path().to_str().unwrap(), "-xf", archive]).ok();
    assert_eq!(fs::read(place.join("file")).unwrap(), fs::read(&path).unwrap());
    drop((map, file));
    mount.unmount();
}

#[test]
fn what_the_kernel_holds_is_data_strict() {
    what_the_kernel_holds_is_data(Capture::Strict);
}

#[test]
fn what_the_kernel_holds_is_data_writeback() {
    what_the_kernel_holds_is_data(Capture::Writeback);
}
