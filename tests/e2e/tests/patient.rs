//! While writers wait for the applier, everything else is answered: no writer holds one of the daemon's few handlers.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use weft_e2e::mount::Mount;
use weft_e2e::small::Small;
use weft_e2e::{Capture, Place};

const WRITERS: usize = 12;
const BLOCK: usize = 256 << 10;
/// Blocks of each writer: all together more than the overlay may hold.
const BLOCKS: u64 = 24;

/// A filesystem that takes no writes until this is dropped, or this process is gone. Another thaws it: one that is begun while
/// files are open here closes them, and a close waits for what the kernel holds of them.
struct Frozen(Child);

impl Frozen {
    fn new(dir: &Path) -> Frozen {
        let script = r#"fsfreeze -f "$0" && echo frozen; read -r _; fsfreeze -u "$0""#;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut told = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut told).unwrap();
        assert_eq!(told, "frozen\n");
        Frozen(child)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Runs `act` in another thread; nothing is to hang the test.
#[track_caller]
fn answered<T: Send + 'static>(what: &str, act: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> T {
    let (done, wait) = std::sync::mpsc::channel();
    thread::spawn(move || done.send(act()));
    let answer = wait.recv_timeout(Duration::from_secs(60));
    answer.unwrap_or_else(|_| panic!("{what}: no answer while others wait")).unwrap()
}

fn everything_else_goes_on(capture: Capture) {
    let place = Place::new();
    let disk = Small::new(&place, "disk", "ext4", 400);
    let (data, store) = (disk.dir.join("data"), place.join("store"));
    fs::create_dir(&data).and_then(|()| fs::create_dir(&store)).unwrap();
    fs::write(store.join("weft.toml"), "overlay_limit_mib = 16\nforecast = false\n").unwrap();
    let mount = Mount::over(&data).store(&store).capture(capture).mount();
    let point = mount.point.clone();
    fs::write(point.join("other"), b"before").unwrap();
    File::open(point.join("other")).unwrap().sync_all().unwrap();

    let frozen = Frozen::new(&disk.dir);
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    WRITTEN.store(0, Ordering::Relaxed);
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let path = point.join(format!("file{number}"));
            thread::spawn(move || {
                let file = OpenOptions::new().create(true).truncate(true).write(true).open(path).unwrap();
                for block in 0..BLOCKS {
                    file.write_all_at(&[number as u8 + 1; BLOCK], block * BLOCK as u64).unwrap();
                    WRITTEN.fetch_add(1, Ordering::Relaxed);
                }
                file.sync_all().unwrap();
            })
        })
        .collect();
    // Until none of them gets on: all wait.
    let (mut last, mut still) = (u64::MAX, Instant::now());
    while still.elapsed() < Duration::from_secs(2) {
        let now = WRITTEN.load(Ordering::Relaxed);
        if now != last {
            (last, still) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(50));
    }
    // What the kernel holds of them is written already, as far as they are told.
    let waiting = capture == Capture::Writeback || last < WRITERS as u64 * BLOCKS;
    assert!(waiting, "nobody waits: this says nothing");

    for round in 0..8 {
        let dir = point.clone();
        let name = format!("new{round}");
        let names = answered("names", move || {
            fs::create_dir(dir.join(&name))?;
            fs::rename(dir.join(&name), dir.join("renamed"))?;
            File::open(&dir)?.sync_all()?;
            fs::remove_dir(dir.join("renamed"))?;
            Ok(fs::read_dir(&dir)?.count())
        });
        assert!(names > WRITERS, "{names}");
        let other = point.join("other");
        let bytes = answered("a read", move || {
            let file = File::open(&other)?;
            file.sync_all()?;
            fs::metadata(&other)?;
            fs::read(&other)
        });
        assert_eq!(bytes, b"before");
    }
    // With its cache an instant waits for what the kernel holds.
    if capture == Capture::Strict {
        assert_eq!(mount.try_at("-1s").code, 0);
    }
    drop(frozen);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    for number in 0..WRITERS {
        let bytes = fs::read(point.join(format!("file{number}"))).unwrap();
        assert_eq!(bytes.len() as u64, BLOCKS * BLOCK as u64);
        assert!(bytes.iter().all(|byte| *byte == number as u8 + 1), "file{number}");
    }
    mount.unmount();
}

/// More than a filesystem has to spare is asked for, more often than there are handlers; history lies on it too and is to be
/// shortened first, which cannot go on.
#[test]
fn everything_else_goes_on_while_reservations_wait() {
    const ASKED: usize = 8;
    let place = Place::new();
    let disk = Small::new(&place, "disk", "ext4", 300);
    let (data, store) = (disk.dir.join("data"), disk.dir.join("store"));
    fs::create_dir(&data).and_then(|()| fs::create_dir(&store)).unwrap();
    fs::write(store.join("weft.toml"), "segment_mib = 24\nforecast = false\n").unwrap();
    let mount = Mount::over(&data).store(&store).mount();
    let point = mount.point.clone();
    fs::write(point.join("other"), b"before").unwrap();
    let files: Vec<File> =
        (0..ASKED).map(|number| File::create(point.join(format!("file{number}"))).unwrap()).collect();
    let frozen = Frozen::new(&disk.dir);
    let answers: Vec<_> = files
        .into_iter()
        .map(|file| {
            thread::spawn(move || {
                nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, 250 << 20)
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(2));
    assert!(!answers.iter().any(thread::JoinHandle::is_finished), "nobody waits: this says nothing");
    for round in 0..8 {
        let dir = point.clone();
        let name = format!("new{round}");
        let names = answered("names", move || {
            fs::create_dir(dir.join(&name))?;
            fs::rename(dir.join(&name), dir.join("renamed"))?;
            fs::remove_dir(dir.join("renamed"))?;
            Ok(fs::read_dir(&dir)?.count())
        });
        assert!(names > ASKED, "{names}");
        let other = point.join("other");
        assert_eq!(answered("a read", move || fs::read(&other)), b"before");
    }
    drop(frozen);
    for answer in answers {
        assert_eq!(answer.join().unwrap(), Err(nix::errno::Errno::ENOSPC));
    }
    mount.unmount();
}

#[test]
fn everything_else_goes_on_while_writers_wait_strict() {
    everything_else_goes_on(Capture::Strict);
}

#[test]
fn everything_else_goes_on_while_writers_wait_writeback() {
    everything_else_goes_on(Capture::Writeback);
}
