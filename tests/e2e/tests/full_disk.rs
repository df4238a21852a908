//! Full and broken disks beneath STORE and DATA; other kinds of filesystem.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use weft_e2e::holder::Holder;
use weft_e2e::mount::Mount;
use weft_e2e::small::Small;
use weft_e2e::{Capture, Place, cmd};

const BLOCK: usize = 256 << 10;
/// The file that is overwritten is this long.
const BLOCKS: u64 = 64;

/// DATA in `data`, STORE in `store`.
fn mounted(data: &Path, store: &Path, capture: Capture) -> Mount {
    let data = data.join("data");
    fs::create_dir(&data).unwrap();
    // What these tests write is nothing once it is woven: the disk would not become full.
    fs::create_dir(store.join("store")).unwrap();
    fs::write(store.join("store/weft.toml"), "weave = false\n").unwrap();
    Mount::over(&data).store(&store.join("store")).capture(capture).mount()
}

/// A file of blocks, each of which holds the number of the round that wrote it last.
struct Rounds {
    path: PathBuf,
    /// What was fsynced, by block.
    synced: Vec<u8>,
}

impl Rounds {
    fn new(mount: &Mount) -> Rounds {
        Rounds { path: mount.point.join("rounds"), synced: vec![0; BLOCKS as usize] }
    }

    /// Overwrites block after block, each with fsync, until an error.
    fn write_until_full(&mut self, most: usize) -> Option<Error> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path).unwrap();
        for number in 0..most {
            let block = number % self.synced.len();
            let next = self.synced[block].wrapping_add(1).max(1);
            let offset = (block * BLOCK) as u64;
            if let Err(cause) = file.write_all_at(&[next; BLOCK], offset).and_then(|()| file.sync_data()) {
                return Some(cause);
            }
            self.synced[block] = next;
        }
        None
    }

    /// Every block holds at least what was fsynced: the round of then, or the one after it that was not acknowledged.
    #[track_caller]
    fn check(&self, path: &Path) {
        let bytes = fs::read(path).unwrap();
        for (block, synced) in self.synced.iter().enumerate().filter(|(_, synced)| **synced > 0) {
            let found = &bytes[block * BLOCK..(block + 1) * BLOCK];
            let next = synced.wrapping_add(1).max(1);
            let kept = found.iter().all(|byte| *byte == *synced || *byte == next);
            assert!(kept, "block {block} of {} lost round {synced}: {}", path.display(), found[0]);
        }
    }
}

fn is_full(mount: &Mount) -> bool {
    mount.status()["full"].as_bool().unwrap()
}

#[track_caller]
fn problems(mount: &Mount) -> String {
    mount.status()["problems"].to_string()
}

fn available(path: &Path) -> u64 {
    nix::sys::statvfs::statvfs(path).unwrap().blocks_available()
}

/// Waits for what the daemon sees to within a second or so.
#[track_caller]
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not after a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// On a full disk: growth is refused, the rest goes on; with room again all goes on, and nothing was lost.
fn full_and_relieved(capture: Capture, store_is_full: bool) {
    let place = Place::new();
    let (data, store) = (Small::new(&place, "d", "ext4", 400), Small::new(&place, "s", "ext4", 600));
    let mount = mounted(&data.dir, &store.dir, capture);
    let early = mount.point.join("early");
    fs::write(&early, "early").unwrap();
    let mut writer = OpenOptions::new().write(true).open(&early).unwrap();
    let full = if store_is_full { &store } else { &data };
    let filler = full.fill(if store_is_full { 150 } else { 70 });
    let mut rounds = Rounds::new(&mount);
    // Overwriting takes journal, growing takes DATA.
    let first = rounds.write_until_full(if store_is_full { 4_000 } else { 80 });
    let cause = first.or_else(|| grow(&mount.point.join("growing"))).expect("no end of space");
    assert_eq!(cause.kind(), ErrorKind::StorageFull, "{cause}");
    assert!(is_full(&mount), "{}", mount.status());
    assert_eq!(available(&mount.point), 0);
    let told = problems(&mount);
    assert!(told.contains("make room") && !told.contains("no write is accepted"), "{told}");
    // Neither a new name, nor a larger file, nor more bytes in one that is open.
    let refused = |done: std::io::Result<()>| assert_eq!(done.unwrap_err().kind(), ErrorKind::StorageFull);
    refused(File::create(mount.point.join("new")).map(drop));
    refused(OpenOptions::new().write(true).open(&early).unwrap().set_len(1 << 20));
    // Nor is one who only asks where a file ends told that the disk is full.
    assert_eq!(writer.seek(SeekFrom::End(0)).unwrap(), 5);
    drop(writer);
    if capture == Capture::Strict && !store_is_full {
        // What has its blocks already can be overwritten, as on the filesystem beneath.
        assert!(rounds.write_until_full(5).is_none());
    }
    // Reading, removing, cutting, renaming and the past go on.
    assert_eq!(fs::read_to_string(&early).unwrap(), "early");
    rounds.check(&rounds.path);
    let view = mount.at("now");
    let past = Rounds { path: view.join("rounds"), synced: rounds.synced.clone() };
    past.check(&past.path);
    fs::rename(&early, mount.point.join("renamed")).unwrap();
    fs::remove_file(mount.point.join("renamed")).unwrap();
    assert_eq!(fs::read_to_string(view.join("early")).unwrap(), "early");
    fs::remove_file(filler).unwrap();
    wait("room again", || !is_full(&mount));
    assert_eq!(problems(&mount), "[]");
    assert!(available(&mount.point) > 0);
    if let Some(cause) = rounds.write_until_full(200) {
        panic!("after there was room: {cause}");
    }
    fs::write(mount.point.join("new"), "new").unwrap();
    mount.kill9();
    mount.remount();
    rounds.check(&rounds.path);
    past.check(&past.path);
    mount.unmount();
    rounds.check(&mount.data.join("rounds"));
}

/// Makes a file longer, without fsync, until an error; then syncs it.
fn grow(path: &Path) -> Option<Error> {
    let file = File::create(path).unwrap();
    for block in 0..2_000 {
        if let Err(cause) = file.write_all_at(&[7; BLOCK], block * BLOCK as u64) {
            file.sync_data().expect("what was taken is kept");
            assert_eq!(fs::read(path).unwrap()[..(block as usize) * BLOCK], vec![7; block as usize * BLOCK]);
            return Some(cause);
        }
    }
    None
}

#[test]
fn a_full_store_refuses_growth_and_goes_on_strict() {
    full_and_relieved(Capture::Strict, true);
}

#[test]
fn a_full_store_refuses_growth_and_goes_on_writeback() {
    full_and_relieved(Capture::Writeback, true);
}

#[test]
fn a_full_data_refuses_growth_and_goes_on_strict() {
    full_and_relieved(Capture::Strict, false);
}

#[test]
fn a_full_data_refuses_growth_and_goes_on_writeback() {
    full_and_relieved(Capture::Writeback, false);
}

#[test]
fn a_full_store_shortens_history_before_it_refuses() {
    shortens_history_before_it_refuses(false);
}

/// As by default: STORE lies beside DATA.
#[test]
fn a_full_disk_of_both_shortens_history_before_it_refuses() {
    shortens_history_before_it_refuses(true);
}

/// History is shortened before anyone is told: neither who writes nor who makes a name hears of a full disk, and what is
/// held stays. When there is nothing left to shorten, it is ENOSPC.
fn shortens_history_before_it_refuses(one_disk: bool) {
    let place = Place::new();
    let store = Small::new(&place, "s", "ext4", 600);
    let other = (!one_disk).then(|| Small::new(&place, "d", "ext4", 300));
    let data = other.as_ref().unwrap_or(&store);
    let settings = "segment_mib = 24\nkeep_free_mib = 32\nlease_secs = 1\nweave_cpu_percent = 100\n\
                    retention = \"every write for ever\"\nretention_cap = \"1TiB\"\nretention_minimum = \"1s\"\n";
    let (inside, kept) = (data.dir.join("data"), store.dir.join("store"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("weft.toml"), settings).unwrap();
    let mount = Mount::over(&inside).store(&kept).mount();
    let file = mount.point.join("noise");
    let mut state = 1_u64;
    // Nothing to compress.
    let mut noise = || -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33).to_le_bytes()
        };
        std::iter::repeat_with(next)
            .take(BLOCK / 8 * 2)
            .flat_map(|bytes| [bytes[0], bytes[1], bytes[2], bytes[3]])
            .collect()
    };
    let tagged = noise();
    fs::write(&file, &tagged).unwrap();
    cmd::run(mount.weft().args(["tag", "held"]).arg(&mount.point)).ok();
    let growing = File::create(mount.point.join("growing")).unwrap();
    // More than twice what STORE can hold.
    let out = OpenOptions::new().write(true).open(&file).unwrap();
    for round in 0..3_000_u64 {
        let bytes = noise();
        // What the last second wrote may not be shortened.
        thread::sleep(Duration::from_millis(1));
        out.write_all_at(&bytes[..BLOCK], (round % 32) * BLOCK as u64)
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        if round % 10 == 0 {
            let name = mount.point.join(format!("name{}", round % 100));
            fs::write(&name, "x").unwrap_or_else(|e| panic!("round {round}: {e}"));
            fs::rename(&name, mount.point.join("renamed")).unwrap_or_else(|e| panic!("round {round}: {e}"));
            out.set_len(40 * BLOCK as u64).unwrap_or_else(|e| panic!("round {round}: {e}"));
            let (linked, at) = (mount.point.join("linked"), format!("{}", 48 << 20));
            fs::hard_link(&file, &linked).unwrap_or_else(|e| panic!("round {round}: {e}"));
            fs::remove_file(&linked).unwrap();
            let call = |program, args: &[&str]| drop(cmd::call(program, args).ok());
            let noise = file.to_str().unwrap();
            call("setfattr", &["-n", "user.round", "-v", &round.to_string(), noise]);
            call("fallocate", &["-n", "-o", &at, "-l", "1048576", noise]);
            call("fallocate", &["-z", "-n", "-o", "100", "-l", "5000", noise]);
        }
        if round % 16 == 0 {
            // DATA grows too, where both need the same space. What is written once is in history once, and stays.
            let grown = round / 16 * BLOCK as u64;
            growing.write_all_at(&noise()[..BLOCK], grown).unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
    }
    assert!(mount.status()["written_bytes"].as_u64() > Some(700 << 20));
    assert_eq!(fs::read(mount.point.join("@tag=held/noise")).unwrap(), tagged, "what is tagged stays");
    let points = mount.weft().args(["prune", "--dry-run", "--json"]).arg(&mount.point).output().unwrap();
    let points: serde_json::Value = serde_json::from_slice(&points.stdout).unwrap();
    assert!(points["upto"].as_u64() > Some(1), "history was shortened: {points}");
    mount.crash();
    assert_eq!(fs::read(mount.point.join("@tag=held/noise")).unwrap(), tagged);
    // When nothing may be shortened, that is told; and when it may again, all goes on.
    let keep = |minimum: &str| {
        let args = ["retention", "set", "--minimum", minimum, "every write for ever", "--of"];
        cmd::run(mount.weft().args(args).arg(&mount.point)).ok();
    };
    keep("1d");
    let mut write = |round: u64| {
        let block = noise();
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(mount.point.join("more"))?;
        file.write_all_at(&block[..BLOCK], round % 8 * BLOCK as u64)?;
        file.sync_data()
    };
    let cause = (0..4_000).find_map(|round| write(round).err()).expect("no end of space");
    assert_eq!(cause.kind(), ErrorKind::StorageFull, "{cause}");
    keep("1s");
    wait("room again", || write(0).is_ok());
    for round in 0..400 {
        write(round).unwrap_or_else(|cause| panic!("round {round}: {cause}"));
        // What the last second wrote may not be shortened.
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(fs::read(mount.point.join("@tag=held/noise")).unwrap(), tagged);
    mount.unmount();
}

/// Stores through a map cannot be refused: when even the reserve is used up everything stops, and says so.
#[test]
fn a_page_that_cannot_be_taken_stops_all_writing() {
    const LEN: usize = 8 << 20;
    let place = Place::new();
    let (data, store) = (Small::new(&place, "d", "ext4", 300), Small::new(&place, "s", "ext4", 500));
    let mount = mounted(&data.dir, &store.dir, Capture::Writeback);
    let mut mapped = Holder::open(&mount.point.join("mapped"));
    mapped.write(1, 0, LEN).unwrap();
    mapped.map(LEN).unwrap();
    mapped.msync().unwrap();
    let view = mount.at("now");
    let filler = store.fill(30);
    let mut synced = 1;
    let cause = loop {
        assert!(synced < 250, "no end of space");
        mapped.store(synced + 1, 0, LEN).unwrap();
        match mapped.msync() {
            Ok(()) => synced += 1,
            Err(cause) => break cause,
        }
    };
    assert_eq!(cause.raw_os_error(), Some(libc::EIO), "{cause}");
    let stopped = problems(&mount);
    assert!(stopped.contains("no write is accepted any more"), "{stopped}");
    let eio = |done: std::io::Result<()>| assert_eq!(done.unwrap_err().raw_os_error(), Some(libc::EIO));
    eio(mapped.write(9, 0, 10));
    eio(fs::write(mount.point.join("new"), "new"));
    eio(fs::rename(mount.point.join("mapped"), mount.point.join("other")));
    assert_eq!(fs::read(view.join("mapped")).unwrap(), vec![1; LEN]);
    let log = fs::read_to_string(mount.store.join("weft.log")).unwrap();
    assert!(log.contains("no further write is accepted"), "{log}");
    drop(mapped);
    fs::remove_file(filler).unwrap();
    mount.kill9();
    mount.remount();
    let found = fs::read(mount.point.join("mapped")).unwrap();
    assert!(found.iter().all(|byte| *byte == synced || *byte == synced + 1), "msynced {synced} is lost");
    assert_eq!(fs::read(view.join("mapped")).unwrap(), vec![1; LEN]);
    mount.unmount();
}

/// EIO from beneath STORE: the first stops all writing, reading and the past go on, a mount on a sound disk has all that was
/// fsynced.
fn a_broken_disk_beneath_the_store(capture: Capture) {
    let place = Place::new();
    let store = Small::broken(&place, "s", 600, 160);
    let mount = mounted(place.path(), &store.dir, capture);
    let mut rounds = Rounds::new(&mount);
    let cause = rounds.write_until_full(4_000).expect("the disk did not break");
    assert_eq!(cause.raw_os_error(), Some(libc::EIO), "{cause}");
    assert!(problems(&mount).contains("no write is accepted any more"), "{}", mount.status());
    let refused = fs::write(mount.point.join("new"), "new").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EIO));
    let file = File::open(&rounds.path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), BLOCK as u64 * BLOCKS);
    rounds.check(&rounds.path);
}

#[test]
fn a_broken_disk_beneath_the_store_strict() {
    a_broken_disk_beneath_the_store(Capture::Strict);
}

#[test]
fn a_broken_disk_beneath_the_store_writeback() {
    a_broken_disk_beneath_the_store(Capture::Writeback);
}

/// EIO from beneath DATA: the kernel says so once, when live files are made durable, and forgets what it could not write. All
/// writing stops then; what was acknowledged is in the journal.
#[test]
fn a_broken_disk_beneath_data_stops_writing() {
    let place = Place::new();
    let disk = Small::broken(&place, "d", 600, 100);
    let (data, store) = (disk.dir.join("data"), place.join("store"));
    fs::create_dir(&data).unwrap();
    let mount = Mount::over(&data).store(&store).mount();
    fs::write(mount.point.join("first"), "first").unwrap();
    let view = mount.at("now");
    let file = File::create(mount.point.join("big")).unwrap();
    let mut synced = 0u64;
    let stopped = (0..300u64).find_map(|mib| {
        let written = file.write_all_at(&[mib as u8 + 1; 1 << 20], mib << 20).and_then(|()| file.sync_data());
        if written.is_ok() {
            synced = mib + 1;
        }
        if mib % 16 == 15 {
            // Checkpoints; what it says does not matter here.
            let _ = cmd::run(mount.weft().args(["weave", "--now"]).arg(&mount.point));
        }
        written.err()
    });
    let stopped = stopped.expect("writing went on, onto a disk that keeps nothing");
    assert_eq!(stopped.raw_os_error(), Some(libc::EIO), "after {synced} MiB: {stopped}");
    assert!(problems(&mount).contains("no write is accepted any more"), "{}", mount.status());
    assert_eq!(fs::read(view.join("first")).unwrap(), b"first");
    // All that was acknowledged is in history.
    let past = fs::read(mount.at("now").join("big")).unwrap();
    for mib in 0..synced {
        let block = &past[(mib << 20) as usize..][..1 << 20];
        assert!(block.iter().all(|byte| *byte == mib as u8 + 1), "MiB {mib} of {synced}");
    }
}

/// Mount, write, look back, crash, unmount, on another kind of filesystem.
fn on_another_filesystem(kind: &str, mib: u64, capture: Capture) {
    let place = Place::new();
    let (data, store) = (Small::new(&place, "d", kind, mib), Small::new(&place, "s", kind, mib));
    let mount = mounted(&data.dir, &store.dir, capture);
    let mut rounds = Rounds::new(&mount);
    assert!(rounds.write_until_full(80).is_none());
    let (view, then) = (mount.at("now"), rounds.synced.clone());
    assert!(rounds.write_until_full(40).is_none());
    let sparse = OpenOptions::new().create_new(true).write(true).open(mount.point.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 10 << 30).unwrap();
    sparse.sync_all().unwrap();
    weft_e2e::cmd::call("fallocate", &["-p", "-o", "4096", "-l", "8192", rounds.path.to_str().unwrap()]).ok();
    mount.crash();
    let past = Rounds { path: view.join("rounds"), synced: then };
    past.check(&past.path);
    mount.unmount();
    let plain = fs::read(mount.data.join("rounds")).unwrap();
    assert!(plain[4_096..12_288].iter().all(|byte| *byte == 0));
    assert_eq!(fs::metadata(mount.data.join("sparse")).unwrap().len(), (10 << 30) + 3);
    mount.remount();
    past.check(&past.path);
    mount.unmount();
}

#[test]
fn on_xfs() {
    on_another_filesystem("xfs", 400, Capture::Writeback);
}

#[test]
fn on_btrfs() {
    on_another_filesystem("btrfs", 400, Capture::Strict);
}
