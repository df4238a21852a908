//! Views as people use them.

use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::{Capture, Mount, Place, cmd, mount};

/// `weft ARGS`, which must succeed.
#[track_caller]
fn weft(args: &[&str]) -> String {
    cmd::run(mount::weft().args(args)).ok()
}

#[track_caller]
fn weft_json(args: &[&str]) -> Value {
    let text = weft(args);
    serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{args:?} is not JSON ({cause}): {text}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn getxattr(path: &Path, name: &str) -> Option<String> {
    let out = cmd::run(std::process::Command::new("getfattr").args(["--only-values", "-n", name]).arg(path));
    (out.code == 0).then_some(out.stdout)
}

#[test]
fn a_view_tells_which_instant_it_is_and_copies_do_not_claim_it() {
    let place = Place::new();
    for capture in [Capture::Strict, Capture::Writeback] {
        let dir = place.join(&format!("{capture:?}"));
        fs::create_dir(&dir).unwrap();
        let mount = Mount::over(&dir).capture(capture).mount();
        fs::write(mount.point.join("f"), "x").unwrap();
        let view = mount.at("now");
        let resolved = weft_json(&[
            "resolve",
            "--json",
            view.file_name().unwrap().to_str().unwrap(),
            text(&mount.point),
        ]);
        let own = |name: &str| getxattr(&view, &format!("user.weft.{name}"));
        assert_eq!(own("seq"), Some(resolved["seq"].to_string()));
        assert_eq!(own("requested").as_deref(), resolved["requested"].as_str());
        assert_eq!(own("actual").as_deref(), resolved["actual"].as_str());
        assert_eq!(own("consistency").as_deref(), resolved["consistency"]["capture"].as_str());
        assert_eq!(own("consistency"), Some(format!("{capture:?}").to_lowercase()));
        assert_eq!(own("session").as_deref(), resolved["consistency"]["session"].as_str());
        assert_eq!(own("store-id").as_deref(), mount.status()["store_id"].as_str());
        assert_eq!(own("nothing"), None);
        assert_eq!(getxattr(&view.join("f"), "user.weft.seq"), None);
        // Not listed, so not copied; and the live root does not take them.
        let copy = place.join(&format!("copy {capture:?}"));
        cmd::cp(&view, &copy);
        let rsynced = place.join(&format!("rsynced {capture:?}"));
        fs::create_dir(&rsynced).unwrap();
        cmd::rsync(&view, &rsynced);
        for place in [&view, &copy, &rsynced] {
            assert!(weft_e2e::tree::xattrs(place).is_empty(), "{place:?}");
        }
        let set = cmd::run(
            std::process::Command::new("setfattr")
                .args(["-n", "user.weft.store", "-v", "x"])
                .arg(&mount.point),
        );
        assert!(set.code != 0, "the mark of DATA was overwritten");
        mount.unmount();
        mount.remount();
        mount.unmount();
        let of_copy = Mount::over(&copy).mount();
        assert_eq!(fs::read_to_string(of_copy.point.join("f")).unwrap(), "x");
        of_copy.unmount();
    }
}

/// Of two instants a second apart the second is copied over the first: every file that differs must be noticed, also one
/// of the same size whose time a program has set.
#[test]
fn rsync_over_an_older_copy_notices_every_change() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    for number in 0..40_u8 {
        fs::write(mount.point.join(format!("f{number}")), vec![number; 8_192]).unwrap();
    }
    fs::write(mount.point.join("gone"), "x").unwrap();
    let first = mount.at("now");
    let target = place.join("target");
    fs::create_dir(&target).unwrap();
    cmd::rsync(&first, &target);
    // rsync compares whole seconds, unless it is given --modify-window=-1.
    std::thread::sleep(Duration::from_millis(1_010));
    for number in 0..40_u8 {
        let path = mount.point.join(format!("f{number}"));
        let mtime = fs::metadata(&path).unwrap().modified().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        if number % 2 == 0 {
            file.write_all_at(b"changed", 4_000).unwrap();
        }
        if number % 4 == 0 {
            // As `touch -r` or a restore does: before the newest write, so the write's own time counts.
            file.set_modified(mtime).unwrap();
            file.write_all_at(b"again", 100).unwrap();
        }
    }
    fs::remove_file(mount.point.join("gone")).unwrap();
    let second = mount.at("now");
    for number in (0..40_u8).filter(|number| number % 2 == 0) {
        let stat = |view: &Path| {
            let meta = fs::metadata(view.join(format!("f{number}"))).unwrap();
            (meta.size(), meta.mtime(), meta.mtime_nsec())
        };
        assert_ne!(stat(&first), stat(&second), "f{number}: other bytes, same size and time");
    }
    let (from, to) = (format!("{}/", second.display()), format!("{}/", target.display()));
    cmd::call("rsync", &["-aHAX", "--delete", &from, &to]).ok();
    // Times of directories too are compared by the second.
    assert_same("rsync of the second instant over the first", &scan(&second), &scan(&target), What::ButTimes);
    let untouched = fs::metadata(target.join("f1")).unwrap().mtime_nsec();
    assert_eq!(untouched, fs::metadata(first.join("f1")).unwrap().mtime_nsec());
}

/// Writes to a directory as fast as it goes, until dropped.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Load {
    fn begin(dir: &Path) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..2_u64)
            .map(|thread| {
                let (stop, dir) = (Arc::clone(&stop), dir.to_owned());
                std::thread::spawn(move || {
                    let mut round = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        round += 1;
                        let name = dir.join(format!("t{thread}-{}", round % 7));
                        let file = fs::OpenOptions::new()
                            .create(true)
                            .truncate(false)
                            .write(true)
                            .open(&name)
                            .unwrap();
                        file.write_all_at(&round.to_le_bytes().repeat(1_024), round % 11 * 8_192).unwrap();
                        if round.is_multiple_of(5) {
                            file.sync_data().unwrap();
                        }
                        if round.is_multiple_of(13) {
                            fs::rename(&name, dir.join(format!("r{thread}-{}", round % 3))).unwrap();
                        }
                        if round.is_multiple_of(29) {
                            file.set_len(round % 5 * 1_000).unwrap();
                        }
                    }
                    round
                })
            })
            .collect();
        Load { stop, threads }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().unwrap()).sum()
    }
}

#[test]
fn tools_read_a_view_twice_the_same_while_files_are_written() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    fs::create_dir(mount.point.join("dir")).unwrap();
    let load = Load::begin(&mount.point.join("dir"));
    std::thread::sleep(Duration::from_millis(300));
    let view = mount.at("now");
    let shell = |script: &str| {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &format!("set -euo pipefail; {script}"), "bash"]).arg(&view).arg(place.path());
        cmd::run(&mut command).ok()
    };
    let once = |number: u32| {
        let tree = scan(&view);
        let tar = shell("tar -C \"$1\" --sort=name -cf - . | sha256sum");
        let found = shell("cd \"$1\" && find . -type f -print0 | sort -z | xargs -0 sha256sum");
        let used = shell("du -s --apparent-size \"$1\" | cut -f1");
        let (copy, rsynced) = (place.join(&format!("c{number}")), place.join(&format!("r{number}")));
        cmd::cp(&view, &copy);
        fs::create_dir(&rsynced).unwrap();
        cmd::rsync(&view, &rsynced);
        for copy in [&copy, &rsynced] {
            shell(&format!("diff -r --no-dereference \"$1\" '{}'", copy.display()));
            assert_same("a copy of the view", &tree, &scan(copy), What::All);
        }
        (tree, tar, found, used)
    };
    let (first, second) = (once(1), once(2));
    assert!(load.end() > 100, "hardly anything was written meanwhile");
    assert!(first.0.len() > 3);
    assert_same("the view, read again", &first.0, &second.0, What::All);
    assert_eq!((first.1, first.2, first.3), (second.1, second.2, second.3));
}

/// Resident memory of a process, in bytes.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

#[test]
fn a_thousand_instants_are_open_at_once() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let mut file = fs::File::create(mount.point.join("f")).unwrap();
    for number in 0..1_000_u64 {
        file.write_all(&number.to_le_bytes()).unwrap();
    }
    drop(file);
    let first = mount.status()["seq"].as_u64().unwrap() - 999;
    let pid = mount.daemons()[0];
    let before = resident(pid);
    let mut held = Vec::new();
    for number in 0..1_000_u64 {
        let path = mount.point.join(format!("@seq={}/f", first + number));
        held.push(fs::File::open(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display())));
    }
    let mut sizes = Vec::new();
    for file in &held {
        let mut bytes = Vec::new();
        file.try_clone().unwrap().read_to_end(&mut bytes).unwrap();
        sizes.push(bytes.len());
    }
    let grown = resident(pid).saturating_sub(before);
    eprintln!("1,000 views: {} KiB more in the daemon", grown >> 10);
    assert!(sizes.windows(2).all(|pair| pair[0] + 8 == pair[1]), "{sizes:?}");
    assert!(grown < 32 << 20, "1,000 open instants took {grown} bytes");
}

/// The tables of the index, but for the small ones.
fn tables(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => tables(&path, found),
            false if text(&path).contains("/tables/") && path.metadata().unwrap().len() > 256 << 10 => {
                found.push(path);
            }
            false => {}
        }
    }
}

#[test]
fn a_listing_of_a_view_that_fails_is_an_error() {
    const COUNT: usize = 60_000;
    let place = Place::new();
    let many = place.join("data/many");
    fs::create_dir_all(&many).unwrap();
    // So many and so long that most of them are not in the index's memory.
    let name = |number: usize| format!("{number:06}{}", "-".repeat(200));
    fs::write(many.join(name(0)), "x").unwrap();
    (1..COUNT).for_each(|number| fs::hard_link(many.join(name(0)), many.join(name(number))).unwrap());
    let mount = Mount::over(&place.join("data")).mount();
    let view = mount.at("now").join("many");
    let list = |dir: &Path| fs::read_dir(dir)?.map(|entry| entry.map(|_| ())).collect::<Result<Vec<_>, _>>();
    assert_eq!(list(&view).unwrap().len(), COUNT);
    mount.unmount();
    mount.remount();
    let mut damaged = Vec::new();
    tables(&mount.store.join("index"), &mut damaged);
    assert!(!damaged.is_empty(), "there are no tables to be damaged");
    for path in &damaged {
        let table = fs::File::options().write(true).open(path).unwrap();
        let len = table.metadata().unwrap().len();
        for at in (16 << 10..len - (64 << 10)).step_by(8 << 10) {
            table.write_all_at(&[0xa5; 512], at).unwrap();
        }
    }
    for _ in 0..2 {
        let failed = list(&view).expect_err("it is short, or what was damaged is not read");
        assert_eq!(failed.raw_os_error(), Some(libc::EIO), "{failed}");
        let told = cmd::run(std::process::Command::new("ls").arg(&view));
        assert!(told.code != 0 && told.stderr.contains("Input/output error"), "{}", told.stderr);
    }
    // The present needs no index.
    assert_eq!(list(&mount.point.join("many")).unwrap().len(), COUNT);
    mount.unmount();
    cmd::run(mount.weft().args(["index", "rebuild"]).arg(&mount.data)).ok();
    mount.remount();
    assert_eq!(list(&view).unwrap().len(), COUNT);
    mount.unmount();
}
