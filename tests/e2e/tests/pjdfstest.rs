//! The cases of pjdfstest (a crate; scripts/setup installs the program): all that pass on the disk pass on a mount.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use weft_e2e::{Capture, Mount, Place, cmd};

/// As many cases as the pinned version has.
const CASES: usize = 398;
/// It asks for the limit of links by the filesystem's type, which the C library does not know for FUSE. The limit is
/// held by `names.rs: a_hundred_thousand_names_list_once_while_others_come_and_go`.
const UNKNOWN_TO_LIBC: &str = "link::link_count_max";
/// Cases that remount the filesystem read-only. They run by themselves: others leave files open, which is in their way.
const READ_ONLY: &str = "erofs";

fn program() -> PathBuf {
    let path = std::env::var_os("WEFT_PJDFSTEST")
        .expect("WEFT_PJDFSTEST is not set: run scripts/test or scripts/posix");
    let path = PathBuf::from(path);
    assert!(path.is_file(), "{} is not there: scripts/setup installs it", path.display());
    path
}

/// A user of the machine and its group, as the configuration names them.
fn entry(name: &str) -> String {
    let user = nix::unistd::User::from_name(name).unwrap().unwrap_or_else(|| panic!("no user {name}"));
    let group = nix::unistd::Group::from_gid(user.gid).unwrap().expect("its group");
    format!("[{name:?}, {:?}]", group.name)
}

/// The settings; two ticks of the kernel's file times between changes.
fn configuration(place: &Place, remount: bool) -> PathBuf {
    let path = place.join(if remount { "remount.toml" } else { "plain.toml" });
    let text = format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = 0.01\nallow_remount = {remount}\n\
         [dummy_auth]\nentries = [{}, {}]\n",
        entry("nobody"),
        entry("postgres"),
    );
    fs::write(&path, text).unwrap();
    path
}

/// mount(8) would run a helper for FUSE, which cannot remount. This one does not.
fn plain_mount(place: &Place) -> String {
    let dir = place.join("bin");
    fs::create_dir_all(&dir).unwrap();
    let real = cmd::run(Command::new("sh").args(["-c", "command -v mount"])).ok();
    fs::write(dir.join("mount"), format!("#!/bin/sh\nexec {real} -i \"$@\"\n")).unwrap();
    fs::set_permissions(dir.join("mount"), fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
}

/// Runs the cases whose names contain `pattern` in `dir`; what became of each.
fn run(place: &Place, dir: &Path, remount: bool, pattern: &str) -> BTreeMap<String, String> {
    let mut command = Command::new(program());
    command.arg("-c").arg(configuration(place, remount)).arg("-p").arg(dir).args(["-s", "/dev/shm", pattern]);
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").env("PATH", plain_mount(place)).current_dir("/");
    let output = cmd::run(&mut command);
    let mut found = BTreeMap::new();
    let mut reasons = String::new();
    for line in output.stdout.lines() {
        match line.rsplit_once(' ') {
            Some((name, became @ ("ok" | "skipped" | "FAILED"))) => {
                found.insert(name.trim().to_owned(), became.to_owned());
            }
            _ => reasons.push_str(&format!("{line}\n")),
        }
    }
    assert!(!found.is_empty(), "pjdfstest ran nothing: {output:?}");
    if found.values().any(|became| became == "FAILED") {
        eprintln!("{reasons}");
    }
    found
}

fn of<'a>(found: &'a BTreeMap<String, String>, became: &str) -> Vec<&'a str> {
    found.iter().filter(|(_, is)| *is == became).map(|(name, _)| name.as_str()).collect()
}

fn every_case_passes(capture: Capture) {
    let place = Place::new();
    let plain = place.join("plain");
    fs::create_dir(&plain).unwrap();
    let disk = run(&place, &plain, false, "");
    assert_eq!(disk.len(), CASES);
    let mount = Mount::new(&place).capture(capture).mount();
    let mut weft = run(&place, &mount.point, false, "");
    weft.extend(run(&place, &mount.point, true, READ_ONLY));
    println!(
        "pjdfstest: {} of {CASES} pass on {capture:?}, {} on the disk (which is not remounted)",
        of(&weft, "ok").len(),
        of(&disk, "ok").len()
    );
    let lost: Vec<&str> =
        of(&disk, "ok").into_iter().filter(|name| weft.get(*name).is_none_or(|is| is != "ok")).collect();
    assert_eq!(lost, [UNKNOWN_TO_LIBC], "pass on the disk and not on the mount");
    assert_eq!(of(&weft, "FAILED"), [""; 0]);
    assert_eq!(of(&weft, "skipped"), [UNKNOWN_TO_LIBC]);
    assert_eq!(of(&weft, "ok").len(), CASES - 1);
    mount.unmount();
}

#[test]
fn every_case_passes_strict() {
    every_case_passes(Capture::Strict);
}

#[test]
fn every_case_passes_writeback() {
    every_case_passes(Capture::Writeback);
}
