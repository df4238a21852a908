//! A history of real page writes: through the engine, for the sake of time, and looked at through a real mount.

use crate::figures::{Figures, Spread, disk_bytes, timed};
use crate::workload::{PAGE, PAGES, fill, mixed, newest, page_of};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use weft::clock::Clock;
use weft::disk::os::OsDisk;
use weft::engine::{Engine, NewFile, Options, WeaveLimits};
use weft::index::kv::Kv;
use weft::index::lsm::{LsmKv, LsmOptions};
use weft::types::{FileId, FileKind, Timestamp};
use weft_e2e::load::rss_mib;
use weft_e2e::{Mount, Place, cmd};

/// Writes between two looks at how much journal waits to be woven.
const STRIDE: u64 = 250_000;
/// Writes that the last daemon sees before it is killed.
const TAIL: u64 = 20_000;

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        Timestamp(since.as_micros() as i64)
    }

    fn monotonic(&self) -> Duration {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}

/// Makes the history, looks at it, kills the daemon over it.
pub fn measure(entries: u64, reads: usize) -> Figures {
    let place = Place::new();
    let mount = Mount::new(&place);
    let first = make(&mount, entries);
    let mount = mount.mount();
    let at = |write: u64| mount.point.join(format!("@seq={}/table", first + write - 1));
    let random = |salt: u64| move |n: usize| mixed(n as u64 ^ salt) % entries + 1;

    let opened = (0..reads)
        .map(random(1 << 40))
        .map(|write| timed(|| fs::symlink_metadata(at(write)).expect("a view")).0);
    let open = Spread::of(opened.collect());
    let page =
        Spread::of((0..reads).map(|n| read_page(&at, random(2 << 40)(n), mixed(n as u64) % PAGES)).collect());
    let log = Spread::of((0..20).map(|_| timed(|| log(&mount)).0).collect());
    let rss = rss_mib(mount.daemons()[0]);
    let index = disk_bytes(&mount.store.join("index")) + disk_bytes(&mount.store.join("pages"));
    let store = disk_bytes(&mount.store);
    let mount_after_kill = crash(&mount);
    mount.unmount();
    Figures {
        kind: "real",
        entries,
        open,
        page,
        log,
        rss_mib: rss,
        index_bytes_each: index as f64 / entries as f64,
        store_bytes_each: store as f64 / entries as f64,
        mount_after_kill,
    }
}

/// Writes the history, weaving behind; the Seq of its first write.
fn make(mount: &Mount, entries: u64) -> u64 {
    let mut options = Options::new(&mount.data, &mount.store);
    options.weave = WeaveLimits { cpu_percent: 100, bytes_per_sec: 4 << 30, ..options.weave };
    options.new_store_id = [3; 16];
    let engine = Engine::open(Arc::new(OsDisk::new()), Arc::new(SystemClock), options, &|path| {
        Ok(Arc::new(LsmKv::open(path, LsmOptions::default())?) as Arc<dyn Kv>)
    });
    let engine = engine.expect("an engine");
    engine.start().expect("its threads");
    let new = NewFile {
        kind: FileKind::Regular,
        mode: 0o600,
        umask: 0,
        rdev: 0,
        target: Vec::new(),
        uid: 0,
        gid: 0,
    };
    let (table, _) = engine.create(FileId::ROOT, b"table", new).expect("a table");
    engine.write(table, PAGES * PAGE - 1, &[0], false).expect("its last byte");
    let before = engine.status().seq;
    let mut page = vec![0; PAGE as usize];
    for write in 1..=entries {
        fill(write, &mut page);
        engine.write(table, page_of(write) * PAGE, &page, false).expect("a write");
        if write % STRIDE == 0 {
            engine.weave_now().expect("weaving");
        }
    }
    assert_eq!(engine.status().seq, before + entries, "nobody else writes");
    engine.weave_now().expect("weaving");
    engine.close().expect("a clean end");
    before + 1
}

/// Reads a page of an instant that nobody has looked at, and checks it.
fn read_page(at: &impl Fn(u64) -> std::path::PathBuf, write: u64, page: u64) -> Duration {
    let file = File::open(at(write)).expect("a table in a view");
    let mut bytes = vec![0; PAGE as usize];
    let (time, got) = timed(|| file.read_at(&mut bytes, page * PAGE).expect("a page"));
    let mut expected = vec![0; PAGE as usize];
    if let Some(newest) = newest(page, write) {
        fill(newest, &mut expected);
    }
    assert!(got == bytes.len() && bytes == expected, "page {page} at write {write} is not what was written");
    time
}

fn log(mount: &Mount) {
    let said = cmd::run(mount.weft().arg("log").arg(mount.point.join("table"))).ok();
    assert!(!said.is_empty(), "weft log says nothing");
}

/// Writes on, kills the daemon, and mounts again.
fn crash(mount: &Mount) -> Duration {
    let table = File::options().write(true).open(table(&mount.point)).expect("the table");
    let mut page = vec![0; PAGE as usize];
    for write in 1..=TAIL {
        fill(write, &mut page);
        table.write_at(&page, page_of(write) * PAGE).expect("a write");
    }
    table.sync_all().expect("fsync");
    mount.kill9();
    drop(table);
    timed(|| mount.remount()).0
}

fn table(point: &Path) -> std::path::PathBuf {
    point.join("table")
}
