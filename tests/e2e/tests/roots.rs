//! A set of roots from the outside: what is remembered, all or none, and what is refused in one line.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use weft_e2e::cmd::{self, Output};
use weft_e2e::mount::weft;
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::{Mount, Place, place};

/// DATA and a root on a filesystem of its own, each with something in it.
fn set(place: &Place) -> Mount {
    let (data, wal) = (place.join("data"), place.volume("wal", 24));
    fs::create_dir(&data).unwrap();
    for dir in [&data, &wal] {
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("d/f"), dir.as_os_str().as_encoded_bytes()).unwrap();
    }
    Mount::over(&data).root("wal", &wal)
}

fn wal(mount: &Mount) -> PathBuf {
    mount.data.parent().unwrap().join("wal")
}

/// The Weft mounts below a path; a volume that is mounted itself is none.
fn mounts(below: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = table.lines().filter(|line| line.contains(" - fuse.weft "));
    ours.filter(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(below)))
        .count()
}

#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    assert!(output.code != 0 && output.code != 101, "`{}`: {}", output.line, output.stderr);
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "`{}` says not one line but:\n{}", output.line, output.stderr);
    for word in words {
        assert!(lines[0].contains(word), "`{}` does not name {word:?}: {}", output.line, lines[0]);
    }
}

#[test]
fn the_set_is_remembered_and_unmounted_as_one() {
    let place = Place::new();
    let mut mount = set(&place);
    let wal = wal(&mount);
    let before = (scan(&mount.data), scan(&wal));
    mount.remount();
    mount.roots.clear();
    assert_eq!(mounts(place.path()), 2);
    assert_same("DATA", &before.0, &scan(&mount.data), What::All);
    assert_same("the root", &before.1, &scan(&wal), What::All);
    let early = mount.at("now");
    fs::write(wal.join("d/f"), "changed").unwrap();
    fs::write(mount.data.join("g"), "new").unwrap();
    // Each root has the instants of all, and its own file numbers behind number 1.
    let there = wal.join(early.file_name().unwrap());
    assert_same("the past of the root", &before.1, &scan(&there), What::All);
    let at_wal = cmd::run(weft().args(["at", "now"]).arg(wal.join("d"))).ok();
    assert!(Path::new(&at_wal).starts_with(&wal), "{at_wal}");
    let log = cmd::run(weft().arg("log").arg(wal.join("d/f"))).ok();
    assert!(log.contains("adopt") && log.contains("write"), "{log}");
    let (from, to) = (early.file_name().unwrap().to_str().unwrap().trim_start_matches("@ts="), "now");
    let diff = cmd::run(weft().arg("diff").arg(&wal).args([from, to])).ok();
    assert!(diff.contains("d/f") && !diff.contains(" g"), "{diff}");
    assert_refused(&cmd::run(weft().args(["mount"]).arg(&wal)), &[wal.to_str().unwrap(), "mounted"]);
    assert!(fs::write(wal.join("@ts=x"), "").is_err(), "a reserved name was made in a root");
    let crossed = fs::rename(mount.data.join("g"), wal.join("g")).unwrap_err();
    assert_eq!(crossed.raw_os_error(), Some(libc::EXDEV));
    assert_eq!(
        fs::hard_link(mount.data.join("g"), wal.join("g")).unwrap_err().raw_os_error(),
        Some(libc::EXDEV)
    );
    let roots = mount.status()["roots"].to_string();
    assert!(roots.contains("\"wal\"") && roots.contains(wal.to_str().unwrap()), "{roots}");

    mount.crash();
    assert_eq!(mounts(place.path()), 2, "the root was forgotten in a crash");
    assert_eq!(fs::read_to_string(wal.join("d/f")).unwrap(), "changed");
    assert_same("the past after a crash", &before.1, &scan(&there), What::All);
    mount.kill9();
    cmd::run(weft().arg("recover").arg(&mount.data)).ok();
    let plain = |dir: &Path| !dir.join(".weft").exists() && !dir.join("WEFT-NOT-UNMOUNTED").exists();
    assert!(plain(&mount.data) && plain(&wal) && mounts(place.path()) == 0);
    assert_eq!(fs::read_to_string(wal.join("d/f")).unwrap(), "changed");
    mount.remount();
    // Any of them names all.
    cmd::run(weft().arg("unmount").arg(&wal)).ok();
    assert!(plain(&mount.data) && plain(&wal) && mounts(place.path()) == 0);
}

#[test]
fn all_are_unmounted_or_none() {
    let place = Place::new();
    let mount = set(&place).mount();
    let wal = wal(&mount);
    let file = File::create(wal.join("held")).unwrap();
    let mut holder = Command::new("sleep").arg("60").stdout(Stdio::from(file)).spawn().unwrap();
    let refused = mount.try_unmount();
    assert_refused(&refused, &["sleep", "root wal", wal.to_str().unwrap()]);
    let daemon = mount.daemons()[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon), nix::sys::signal::Signal::SIGTERM).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(mounts(place.path()), 2, "a signal took one of them away");
    // By hand the other can be unmounted; it comes back, as the set is still in use.
    nix::mount::umount(&mount.data).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while mounts(place.path()) < 2 && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(mounts(place.path()), 2, "what was unmounted by hand did not come back");
    fs::write(mount.data.join("still"), "works").unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    mount.unmount();
    assert_eq!(mounts(place.path()), 0);
    assert_eq!(fs::read_to_string(mount.data.join("still")).unwrap(), "works");
    assert!(wal.join("held").exists());
}

#[test]
fn roots_come_move_and_go() {
    let place = Place::new();
    let mut mount = set(&place);
    mount.remount();
    mount.roots.clear();
    let wal = wal(&mount);
    symlink(&wal, mount.data.join("link")).unwrap();
    let early = mount.at("now");
    mount.unmount();
    // The root moves; the old link of an old view still leads into its past.
    let moved = place.join("moved");
    cmd::cp(&wal, &moved);
    cmd::call("setfattr", &["-x", "user.weft.store", wal.to_str().unwrap()]).ok();
    cmd::run(Command::new("sh").arg("-c").arg(format!(
        "setfattr -n user.weft.store -v \"$(getfattr --only-values -n user.weft.store '{}'):1\" '{}'",
        mount.data.display(),
        moved.display()
    )))
    .ok();
    assert_refused(&mount.try_mount(), &["root wal", wal.to_str().unwrap()]);
    let (late, named) = (place.join("late"), early.file_name().unwrap());
    fs::create_dir(&late).unwrap();
    fs::write(late.join("f"), "late").unwrap();
    mount = mount.root("wal", &moved).root("late", &late);
    mount.remount();
    mount.roots.clear();
    assert_eq!(fs::read_link(early.join("link")).unwrap(), moved.join(named));
    assert!(!late.join(named).exists(), "a root is in a view from before it came");
    let refused =
        cmd::run(weft().arg("at").arg(named.to_str().unwrap().trim_start_matches("@ts=")).arg(&late));
    assert_refused(&refused, &["not in the set"]);
    let with = mount.at("now");
    assert_eq!(fs::read_to_string(late.join(with.file_name().unwrap()).join("f")).unwrap(), "late");
    mount.unmount();
    assert_refused(
        &cmd::run(weft().arg("mount").arg(&mount.data).args(["--without-root", "lat"])),
        &["no root lat"],
    );
    cmd::run(weft().arg("mount").arg(&mount.data).args(["--without-root", "late"])).ok();
    assert_eq!(mounts(place.path()), 2);
    assert_eq!(fs::read_to_string(late.join("f")).unwrap(), "late");
    mount.unmount();
    mount.remount();
    assert_eq!(mounts(place.path()), 2);
    mount.unmount();
}

#[test]
fn roots_that_cannot_be_are_refused_and_nothing_is_changed() {
    let place = Place::new();
    let (data, other) = (place.join("data"), place.join("other"));
    for dir in [&data, &other] {
        fs::create_dir_all(dir.join("d")).unwrap();
        fs::write(dir.join("d/f"), "precious").unwrap();
    }
    let before = (scan(&data), scan(&other));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let root = |name: &str, dir: &Path| format!("{name}={}", dir.display());
    symlink(&other, place.join("alias")).unwrap();
    let bare = place.join("bare");
    fs::create_dir(&bare).unwrap();
    nix::mount::mount(Some("none"), &bare, Some("ramfs"), nix::mount::MsFlags::empty(), None::<&str>)
        .unwrap();
    let cases: Vec<(Vec<String>, Vec<String>)> = vec![
        (vec!["nothing".into()], vec!["NAME=DIR".into()]),
        (vec![root("a b", &other)], vec!["a b".into(), "letters".into()]),
        (vec![root("../x", &other)], vec!["../x".into()]),
        (vec![root("r", &place.join("none"))], vec![text(&place.join("none")), "root r".into()]),
        (vec![root("r", &other.join("d/f"))], vec!["not a directory".into()]),
        (vec![root("r", &data)], vec!["root r".into(), "DATA".into(), "apart".into()]),
        (vec![root("r", &data.join("d"))], vec!["root r".into(), "DATA".into(), "apart".into()]),
        (vec![root("r", place.path())], vec!["root r".into(), "apart".into()]),
        (vec![root("r", &other), root("s", &other.join("d"))], vec!["root s".into(), "apart".into()]),
        (vec![root("r", &other), root("s", &place.join("alias"))], vec!["root s".into(), "apart".into()]),
        (vec![root("r", &other), root("r", &bare)], vec!["root r".into(), "twice".into()]),
        (vec![root("r", &bare)], vec!["root r".into(), "extended attributes".into()]),
    ];
    for (roots, words) in cases {
        let mut command = weft();
        command.arg("mount").arg(&data);
        for root in &roots {
            command.arg("--root").arg(root);
        }
        let refused = cmd::run(&mut command);
        let last = refused.stderr.lines().next().unwrap_or_default().to_owned();
        let refused = Output { stderr: last, ..refused };
        assert_refused(&refused, &words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!place.join("data.weft").exists(), "`{}` left a STORE", refused.line);
    }
    let file = File::open(other.join("d/f")).unwrap();
    let mut reader = Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
    let in_use = cmd::run(weft().arg("mount").arg(&data).args(["--root", &root("r", &other)]));
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert_refused(&in_use, &["sleep", other.to_str().unwrap()]);
    fs::write(other.join("@seq=mine"), "").unwrap();
    let named = cmd::run(weft().arg("mount").arg(&data).args(["--root", &root("r", &other)]));
    fs::remove_file(other.join("@seq=mine")).unwrap();
    assert_refused(&named, &["@seq=mine"]);
    let others = Mount::over(&other).mount();
    let taken = cmd::run(weft().arg("mount").arg(&data).args(["--root", &root("r", &other)]));
    assert_refused(&taken, &[other.to_str().unwrap(), "mounted"]);
    others.unmount();
    let taken = cmd::run(weft().arg("mount").arg(&data).args(["--root", &root("r", &other)]));
    assert_refused(&taken, &["root r", "store"]);
    assert_eq!(mounts(place.path()), 0);
    assert_same("DATA", &before.0, &scan(&data), What::All);
    assert_same("the other", &before.1, &scan(&other), What::ButTimes);
    place::detach(&bare);
}

/// A root swapped with another, or put back from a backup, is refused before anything is touched.
#[test]
fn roots_of_another_time_or_place_are_refused() {
    let place = Place::new();
    let mut mount = set(&place);
    let ts = place.join("ts");
    fs::create_dir(&ts).unwrap();
    fs::write(ts.join("f"), "ts").unwrap();
    let wal = wal(&mount);
    mount = mount.root("ts", &ts);
    mount.remount();
    mount.unmount();
    let old = place.join("old");
    cmd::cp(&ts, &old);
    mount.remount();
    fs::write(ts.join("f"), "newer").unwrap();
    mount.unmount();
    mount.roots = vec![("wal".into(), ts.clone()), ("ts".into(), wal.clone())];
    assert_refused(&mount.try_mount(), &["another root of the set"]);
    mount.roots = vec![("wal".into(), wal.clone()), ("ts".into(), ts.clone())];
    let kept = place.join("kept");
    fs::rename(&ts, &kept).unwrap();
    assert_refused(&mount.try_mount(), &[ts.to_str().unwrap(), "root ts"]);
    fs::rename(&old, &ts).unwrap();
    let before = scan(&ts);
    assert_refused(&mount.try_mount(), &["root ts", ts.to_str().unwrap(), "one moment"]);
    assert_same("the root of another time", &before, &scan(&ts), What::All);
    fs::rename(&ts, &old).unwrap();
    fs::rename(&kept, &ts).unwrap();
    mount.remount();
    assert_eq!(fs::read_to_string(ts.join("f")).unwrap(), "newer");
    mount.unmount();
}
