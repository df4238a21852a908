//! Bytes of a file, driven through every way in at once, on a real mount in both capture modes.
//!
//! `scripts/fsx` runs the same for a million operations; `WEFT_E2E_OPERATIONS` sets the number here.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use weft_e2e::again;
use weft_e2e::exercise::{Exercise, Map};
use weft_e2e::ops::{Aligned, bytes};
use weft_e2e::random::count;
use weft_e2e::{Capture, Mount, Place};

/// Just below 4 GiB: the exercised part goes across it.
const FAR: u64 = (1 << 32) - 128 * 1024;

fn operations(default: usize) -> usize {
    count("WEFT_E2E_OPERATIONS", default)
}

fn exercise(name: &str, capture: Capture, base: u64, steps: usize) {
    let place = Place::new();
    let mount = Mount::new(&place).capture(capture).mount();
    let path = mount.point.join("file");
    let now = || -> PathBuf { mount.at("now").join("file") };
    let mut exercise = Exercise::new(name, &path, base, Some(&now));
    exercise.run(steps);
    drop(exercise);
    mount.unmount();
}

/// The exerciser itself: what it expects is what the disk beneath does.
#[test]
fn the_exerciser_agrees_with_a_plain_directory() {
    let place = Place::new();
    let mut exercise = Exercise::new("exercise plain", &place.join("file"), 0, None);
    exercise.run(operations(1_500));
}

#[test]
fn every_way_into_a_file_agrees_strict() {
    exercise("exercise strict", Capture::Strict, 0, operations(15_000));
}

#[test]
fn every_way_into_a_file_agrees_writeback() {
    exercise("exercise writeback", Capture::Writeback, 0, operations(15_000));
}

#[test]
fn every_way_into_a_file_agrees_across_4_gib_strict() {
    exercise("exercise far strict", Capture::Strict, FAR, operations(4_000));
}

#[test]
fn every_way_into_a_file_agrees_across_4_gib_writeback() {
    exercise("exercise far writeback", Capture::Writeback, FAR, operations(1_500));
}

/// What fsx draws from: every sort of operation that it knows. What waits for the disk is drawn seldom.
const FSX: &str = "flen = 524288
[opsize]
min = 1
max = 65536
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 4
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 2
punch_hole = 3
sendfile = 3
posix_fadvise = 2
copy_file_range = 4
";

/// fsx, the classic exerciser, on a file of the mount.
fn fsx(capture: Capture) {
    let fsx = std::env::var_os("WEFT_FSX").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/bin/fsx")),
        PathBuf::from,
    );
    assert!(fsx.is_file(), "no fsx at {}: scripts/setup installs it", fsx.display());
    let (_, seed) = weft_e2e::random::seeded("fsx");
    let place = Place::new();
    let mount = Mount::new(&place).capture(capture).mount();
    fs::write(place.join("fsx.toml"), FSX).unwrap();
    let mut command = std::process::Command::new(fsx);
    command.arg("-q").arg("-f").arg(place.join("fsx.toml")).arg("-P").arg(place.path());
    command.args(["-S", &seed.to_string(), "-N", &operations(5_000).to_string()]);
    weft_e2e::cmd::run(command.arg(mount.point.join("file"))).ok();
    mount.unmount();
}

#[test]
fn fsx_agrees_strict() {
    fsx(Capture::Strict);
}

#[test]
fn fsx_agrees_writeback() {
    fsx(Capture::Writeback);
}

/// Records of 32 bytes to 5000, each saying who wrote it, which it is and how long it is.
fn record(writer: u8, number: u32) -> Vec<u8> {
    let len = 32 + (number as usize * 977 + writer as usize * 131) % 4968;
    let mut bytes = vec![writer; len];
    bytes[1..5].copy_from_slice(&number.to_le_bytes());
    bytes[5..9].copy_from_slice(&(len as u32).to_le_bytes());
    bytes
}

const WRITERS: u8 = 4;
const RECORDS: u32 = 400;
/// Bytes of each writer's own range.
const RANGE: u64 = 1 << 20;

/// What the other processes of the tests below do.
#[test]
#[ignore = "runs in processes that other tests start"]
fn a_writer() {
    let Some(role) = again::role() else { return };
    let (writer, path) = (role[1].parse::<u8>().unwrap(), &role[2]);
    match role[0].as_str() {
        "append" => {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            (0..RECORDS).for_each(|number| file.write_all(&record(writer, number)).unwrap());
        }
        "range" => write_range(writer, Path::new(path)),
        "count" => {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            let map = Map::new(&file, 0);
            for _ in 0..RECORDS {
                map.counter(64).fetch_add(1, Ordering::SeqCst);
            }
        }
        other => panic!("no role {other}"),
    }
}

/// Fills its own range in every way, over and over; what stays is known.
fn write_range(writer: u8, path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let start = u64::from(writer) * RANGE;
    let map = Map::new(&file, start);
    for round in 0..40_u8 {
        let fill = bytes(writer.wrapping_mul(50) + round, 3 * 4096);
        file.write_all_at(&fill, start).unwrap();
        direct.write_all_at(Aligned::filled(writer + round).as_slice(), start + 16_384).unwrap();
        map.store(40_960, &fill[..5000]);
        let mut found = vec![0; fill.len()];
        file.read_exact_at(&mut found, start).unwrap();
        assert_eq!(found, fill, "writer {writer}, round {round}");
        assert_eq!(map.load(16_384, 4096), Aligned::filled(writer + round).as_slice());
    }
}

fn run_all(role: &str, path: &Path) {
    let path = path.to_str().unwrap();
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| again::child("a_writer", &[role, &writer.to_string(), path])).collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success(), "a process with the role {role} failed");
    }
}

/// O_APPEND from several processes, disjoint ranges in every way from several, one map of several.
fn several_processes(capture: Capture) {
    let place = Place::new();
    let mount = Mount::new(&place).capture(capture).mount();
    let (log, ranges, shared) =
        (mount.point.join("log"), mount.point.join("ranges"), mount.point.join("shared"));
    File::create(&log).unwrap();
    run_all("append", &log);
    let found = fs::read(&log).unwrap();
    let (mut at, mut next) = (0, [0; WRITERS as usize]);
    while at < found.len() {
        let writer = found[at];
        let expected = record(writer, next[writer as usize]);
        assert_eq!(found[at..(at + expected.len()).min(found.len())], expected, "at {at}, {capture:?}");
        next[writer as usize] += 1;
        at += expected.len();
    }
    assert_eq!(next, [RECORDS; WRITERS as usize], "{capture:?}");

    File::create(&ranges).unwrap().set_len(u64::from(WRITERS) * RANGE).unwrap();
    run_all("range", &ranges);
    let found = fs::read(&ranges).unwrap();
    for writer in 0..WRITERS {
        let mine = &found[(u64::from(writer) * RANGE) as usize..][..RANGE as usize];
        let fill = bytes(writer.wrapping_mul(50) + 39, 3 * 4096);
        assert_eq!(mine[..fill.len()], fill, "writer {writer}, {capture:?}");
        assert_eq!(&mine[16_384..20_480], Aligned::filled(writer + 39).as_slice(), "writer {writer}");
        assert_eq!(mine[40_960..45_960], fill[..5000], "writer {writer}, {capture:?}");
    }

    let file = File::options().read(true).write(true).create_new(true).open(&shared).unwrap();
    file.set_len(32_768).unwrap();
    let map = Map::new(&file, 0);
    run_all("count", &shared);
    let all = u64::from(RECORDS) * u64::from(WRITERS);
    assert_eq!(map.counter(64).load(Ordering::SeqCst), all, "a map of several processes is one memory");
    map.sync();
    let view = mount.at("now");
    assert_eq!(fs::read(view.join("shared")).unwrap()[64..72], all.to_le_bytes());
    drop((map, file));
    mount.unmount();
}

#[test]
fn several_processes_write_one_file_strict() {
    several_processes(Capture::Strict);
}

#[test]
fn several_processes_write_one_file_writeback() {
    several_processes(Capture::Writeback);
}
