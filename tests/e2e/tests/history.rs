//! Tags, the versions of a file, a look into the journal, and views as people use them.

use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
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

/// Kinds of the lines of `weft log`, newest first.
fn kinds(log: &Value) -> Vec<String> {
    log["versions"].as_array().unwrap().iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect()
}

fn getxattr(path: &Path, name: &str) -> Option<String> {
    let out = cmd::run(std::process::Command::new("getfattr").args(["--only-values", "-n", name]).arg(path));
    (out.code == 0).then_some(out.stdout)
}

#[test]
fn tags_are_views_and_survive_everything() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let point = text(&mount.point).to_owned();
    fs::write(mount.point.join("f"), "first").unwrap();
    weft(&["tag", "before migration", &point]);
    fs::write(mount.point.join("f"), "second").unwrap();
    weft(&["tag", "after", "--at", "now", &point]);
    fs::write(mount.point.join("f"), "third").unwrap();
    let check = |when: &str| {
        for (tag, expected) in [("before migration", "first"), ("after", "second")] {
            let view = mount.point.join(format!("@tag={tag}"));
            assert!(fs::symlink_metadata(&view).unwrap().is_dir(), "{when}: {tag} is no directory");
            assert_eq!(fs::read_to_string(view.join("f")).unwrap(), expected, "{when}: {tag}");
            for name in [format!("tag:{tag}"), format!("@tag={tag}")] {
                let path = PathBuf::from(weft(&["at", &name, &point]));
                assert!(path.file_name().unwrap().to_str().unwrap().starts_with("@seq="), "{path:?}");
                assert_eq!(fs::read_to_string(path.join("f")).unwrap(), expected, "{when}: {name}");
            }
        }
    };
    check("while mounted");
    // Durable before the command answered.
    mount.crash();
    check("after kill -9");
    mount.unmount();
    let tags = weft_json(&["tags", "--json", "--store", text(&mount.store)]);
    assert_eq!((&tags[0]["tag"], &tags[1]["tag"]), (&"after".into(), &"before migration".into()));
    assert!(tags[0]["actual"].is_string() && tags[0]["made"].is_string(), "{tags}");
    mount.remount();
    check("after unmount and mount");
    // Taken back and given again: the kernel keeps neither the name nor its absence.
    let view = mount.point.join("@tag=after");
    let mut held = fs::File::open(view.join("f")).unwrap();
    fs::write(mount.point.join("f"), "fourth").unwrap();
    weft(&["tag", "rm", "after", &point]);
    assert!(!view.exists());
    weft(&["tag", "after", &point]);
    assert_eq!(fs::read_to_string(view.join("f")).unwrap(), "fourth");
    let mut old = String::new();
    held.read_to_string(&mut old).unwrap();
    assert_eq!(old, "second", "an open file moved to another instant");
    let copy = place.join("copy");
    cmd::cp(&view, &copy);
    assert_eq!(fs::read_to_string(copy.join("f")).unwrap(), "fourth");
}

#[test]
fn bad_tags_are_refused_with_what_to_do() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let point = text(&mount.point).to_owned();
    weft(&["tag", "before-migration", &point]);
    let refused = |args: &[&str], why: &str| {
        let out = cmd::run(mount::weft().args(args).arg(&point));
        let told = out.stderr.trim();
        assert!(out.code != 0 && told.contains(why) && !told.contains('\n'), "{args:?}: {told}");
    };
    refused(&["tag", "before-migration"], "exists already");
    refused(&["tag", "a/b"], "'/'");
    refused(&["tag", "a\nb"], "control");
    refused(&["tag", ""], "needs a name");
    refused(&["tag", &"x".repeat(251)], "at most 250");
    refused(&["tag", "rm", "before-migratoin"], "\"before-migration\"");
    refused(&["tag", "x", "--at", "-1h"], "before history began");
    refused(&["tag", "x", "--at", "2099-01-01T00:00:00Z"], "in the future");
    refused(&["at", "tag:nothing"], "there is no tag");
    weft(&["tag", &"x".repeat(250), &point]);
    assert!(mount.point.join(format!("@tag={}", "x".repeat(250))).exists());
    assert!(!mount.point.join("@tag=nothing").exists());
}

#[test]
fn the_log_of_a_file_goes_through_renames_and_past_its_end() {
    let place = Place::new();
    let mount = Mount::new(&place);
    fs::create_dir(mount.data.join("d")).unwrap();
    fs::write(mount.data.join("d/old"), "was there").unwrap();
    let mount = mount.mount();
    let at = |name: &str| mount.point.join(name);
    fs::write(at("a"), "12345").unwrap();
    fs::rename(at("a"), at("d/b")).unwrap();
    let view = mount.at("now");
    fs::rename(at("d"), at("e")).unwrap();
    fs::hard_link(at("e/b"), at("c")).unwrap();
    fs::set_permissions(at("c"), fs::Permissions::from_mode(0o640)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(at("c")).unwrap();
    for page in 0..50 {
        file.write_all_at(&[7; 4_096], page * 4_096).unwrap();
    }
    file.set_len(100).unwrap();
    drop(file);
    let log = weft_json(&["log", "--json", text(&at("c"))]);
    let expected = ["truncate", "write", "attr", "link", "rename", "write", "create"];
    assert_eq!(kinds(&log), expected, "{log:#}");
    let lines = log["versions"].as_array().unwrap();
    assert_eq!((&lines[1]["events"], &lines[1]["bytes"]), (&50.into(), &(50 * 4_096).into()));
    assert_eq!((&lines[0]["size"], &lines[0]["bytes"]), (&100.into(), &(50 * 4_096 - 100).into()));
    assert_eq!((&lines[4]["from"], &lines[4]["to"]), (&"a".into(), &"d/b".into()), "the names of that time");
    assert_eq!(lines[2]["detail"], "mode 0644 to 0640");
    // Any name that it has or had leads to it.
    let same =
        |path: &Path| assert_eq!(weft_json(&["log", "--json", text(path)])["file"], log["file"], "{path:?}");
    for name in ["e/b", "a", "d/b"] {
        same(&at(name));
    }
    same(&view.join("d/b"));
    assert_eq!(kinds(&weft_json(&["log", "--json", text(&at("e/old"))])), ["adopt"]);
    // A line says which instant has that version.
    let seq = lines[5]["seq"].as_u64().unwrap();
    assert_eq!(fs::read_to_string(at(&format!("@seq={seq}/a"))).unwrap(), "12345");
    // --limit, --all, bounds.
    assert_eq!(kinds(&weft_json(&["log", "--json", "--limit", "2", text(&at("c"))])), expected[..2]);
    assert_eq!(kinds(&weft_json(&["log", "--json", "--all", "--limit", "0", text(&at("c"))])).len(), 56);
    let until = format!("seq={}", lines[3]["seq"]);
    assert_eq!(kinds(&weft_json(&["log", "--json", "--until", &until, text(&at("c"))])), expected[3..]);
    // A directory's entries.
    let root = weft_json(&["log", "--json", text(&mount.point)]);
    let last = &root["versions"][0];
    assert_eq!((&last["kind"], &last["to"]), (&"entry".into(), &"c".into()));
    // Gone, and another has taken the name.
    fs::remove_file(at("c")).unwrap();
    fs::remove_file(at("e/b")).unwrap();
    let gone = weft_json(&["log", "--json", text(&at("c"))]);
    assert_eq!((&gone["gone"], &gone["file"], &gone["path"]), (&true.into(), &log["file"], &"e/b".into()));
    fs::write(at("c"), "another").unwrap();
    assert_ne!(weft_json(&["log", "--json", text(&at("c"))])["file"], log["file"]);
    let unknown = cmd::run(mount::weft().arg("log").arg(at("never")));
    assert!(unknown.code != 0 && unknown.stderr.contains("knows no file"), "{}", unknown.stderr);
    // The same without a daemon, by the journal alone; and nothing in STORE changes by looking.
    let mounted = weft_json(&["log", "--json", text(&at("e/b"))]);
    mount.unmount();
    let before = scan(&mount.store);
    let offline = weft_json(&["log", "--json", text(&mount.data.join("e/b"))]);
    assert_eq!(offline["versions"], mounted["versions"]);
    assert_eq!((&offline["path"], &offline["gone"]), (&mounted["path"], &mounted["gone"]));
    let relative = weft_json(&["log", "--json", "--store", text(&mount.store), "e/b"]);
    assert_eq!(relative["versions"], mounted["versions"]);
    assert_same("STORE after looking", &before, &scan(&mount.store), What::All);
}

#[test]
fn the_journal_can_be_looked_at_mounted_crashed_and_damaged() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    for round in 0..20 {
        fs::write(mount.point.join("f"), vec![round; 100_000]).unwrap();
    }
    weft(&["tag", "here", text(&mount.point)]);
    let store = text(&mount.store).to_owned();
    let dump = |more: &[&str]| -> Vec<Value> {
        let args = [&["journal", "dump", "--json", "--store", &store], more].concat();
        weft(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let events = dump(&["--check"]);
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(events.last().unwrap()["kind"], "tag");
    let stat = weft_json(&["journal", "stat", "--json", "--store", &store]);
    assert_eq!(stat["written_bytes"], 2_000_000);
    assert_eq!(
        (&stat["files"][0]["path"], &stat["files"][0]["written_bytes"]),
        (&"f".into(), &2_000_000.into())
    );
    let of_file = dump(&["--file", "f"]);
    assert!(of_file.iter().all(|event| event["file"] == stat["files"][0]["file"]), "{of_file:?}");
    let some = dump(&["--from", "5", "--to", "7"]);
    assert_eq!(some, events[4..7]);
    assert_eq!(dump(&["--from", "5", "--limit", "1"]), events[4..5]);
    let since = events[9]["time"].as_str().unwrap();
    let first = dump(&["--from", since, "--limit", "1"]).remove(0);
    assert!(first["time"].as_str().unwrap() >= since && first["seq"].as_u64() <= events[9]["seq"].as_u64());
    // Of a crashed store, and nothing is changed by looking.
    mount.kill9();
    let before = scan(&mount.store);
    assert_eq!(dump(&["--check"]), events);
    assert_same("STORE after a look", &before, &scan(&mount.store), What::All);
    // Damage in the middle: told with its position, and what is behind it is shown.
    mount.remount();
    fs::write(mount.point.join("f"), "a second session").unwrap();
    mount.unmount();
    let all = dump(&[]).len();
    let hit = events.iter().filter(|event| event["kind"] == "write").nth(2).unwrap();
    let segment = mount.store.join(format!("journal/{:010}.seg", hit["segment"].as_u64().unwrap()));
    let group = hit["group"].as_u64().unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(segment).unwrap();
    file.write_all_at(&[0xee; 4], group + 70).unwrap();
    let out = cmd::run(mount::weft().args(["journal", "dump", "--store", &store]));
    assert!(out.code != 0 && out.stderr.contains("damaged in 1 place"), "{}", out.stderr);
    let line = out
        .stdout
        .lines()
        .find(|line| line.starts_with("DAMAGE"))
        .unwrap_or_else(|| panic!("{}", out.stdout));
    assert!(line.contains(&format!("byte {group} of segment {}", hit["segment"])), "{line}");
    let lines = out.stdout.lines().count();
    assert!(
        lines < all
            && out.stdout.trim_end().lines().last().unwrap().split(' ').next() == Some(&all.to_string())
    );
    let out = cmd::run(mount::weft().args(["journal", "stat", "--json", "--store", &store]));
    let stat: Value = serde_json::from_str(&out.stdout).unwrap();
    assert_eq!((out.code == 0, &stat["damage"][0]["offset"]), (false, &group.into()));
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
    assert_same("rsync of the second instant over the first", &scan(&second), &scan(&target), What::All);
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
