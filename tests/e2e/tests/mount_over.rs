//! Mounting over a directory that is already full, and giving it back.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use weft_e2e::ops::bytes;
use weft_e2e::people::PEOPLE;
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::{Mount, Place, Tree, cmd};

const FILES: usize = 120;

/// A tree with everything a directory can hold: bytes, holes, owners, modes, xattrs, links, old times, fifos.
fn populate(root: &Path) {
    for dir in ["base/1", "base/2", "empty", "conf.d"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for number in 0..FILES {
        let path = file(root, number);
        fs::write(&path, bytes(number as u8, number * 1_777)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(if number % 3 == 0 { 0o600 } else { 0o644 }))
            .unwrap();
        chown(&path, Some((number % 4 * 1_000) as u32), Some(50)).unwrap();
    }
    let sparse = fs::File::create(root.join("base/sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    sparse.write_all_at(b"an island", 3 << 20).unwrap();
    fs::hard_link(file(root, 7), root.join("conf.d/also-7")).unwrap();
    symlink("../base/1", root.join("conf.d/link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    cmd::call("mkfifo", &[root.join("fifo")]).ok();
    let attribute = |path: PathBuf| {
        cmd::call("setfattr", &["-n", "user.note", "-v", "kept", path.to_str().unwrap()]).ok()
    };
    attribute(file(root, 3));
    attribute(root.join("base"));
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1770)).unwrap();
    for number in 0..FILES {
        let when = format!("@{}.123456789", 1_500_000_000 + number * 86_400);
        cmd::call("touch", &["-d", &when, file(root, number).to_str().unwrap()]).ok();
    }
    cmd::call("touch", &["-d", "@1400000000", root.join("empty").to_str().unwrap()]).ok();
}

fn file(root: &Path, number: usize) -> PathBuf {
    root.join(format!("base/{}/{number:03}", 1 + number % 2))
}

/// Changes every second file, each in one of the ways a database does.
fn damage(root: &Path) {
    for number in (0..FILES).step_by(2) {
        let path = file(root, number);
        match number / 2 % 6 {
            0 => open(&path).write_all_at(&bytes(200, 10_000), (number * 500) as u64).unwrap(),
            1 => open(&path).set_len(0).unwrap(),
            2 => open(&path).set_len((number * 800) as u64).unwrap(),
            3 => fs::remove_file(&path).unwrap(),
            4 => fs::rename(&path, path.with_extension("moved")).unwrap(),
            _ => fs::rename(file(root, number + 1), &path).unwrap(),
        }
    }
    open(&file(root, 7)).write_all_at(b"seen by both names", 100).unwrap();
    fs::remove_file(root.join("dangling")).unwrap();
    fs::remove_dir(root.join("empty")).unwrap();
    fs::write(root.join("empty"), "a file now").unwrap();
    fs::remove_file(root.join("base/sparse")).unwrap();
}

fn open(path: &Path) -> fs::File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// DATA as a clean unmount must leave it.
#[track_caller]
fn assert_plain(mount: &Mount, live: &Tree) {
    assert!(!mount.data.join(".weft").exists(), "DATA still has .weft");
    assert!(!mount.data.join("WEFT-NOT-UNMOUNTED").exists(), "DATA still has its warning");
    assert_same("DATA after the unmount", live, &scan(&mount.data), What::All);
}

#[test]
fn views_from_before_each_overwrite_equal_a_copy_taken_then() {
    let place = Place::new();
    let data = place.join("data");
    fs::create_dir(&data).unwrap();
    populate(&data);
    let copy = place.join("copy");
    cmd::cp(&data, &copy);
    let original = scan(&copy);
    assert_same("the copy itself", &scan(&data), &original, What::All);

    let mount = Mount::over(&data).mount();
    assert_same("live right after the mount", &original, &scan(&mount.point), What::All);
    let mut views = vec![(mount.at("now"), original)];
    damage(&mount.point);
    views.push((mount.at("now"), scan(&mount.point)));
    check(&views, "while mounted");
    mount.crash();
    check(&views, "after kill -9");
    let live = scan(&mount.point);
    mount.unmount();
    assert_plain(&mount, &live);

    mount.remount();
    check(&views, "mounted again");
    fs::remove_dir_all(mount.point.join("base")).unwrap();
    check(&views, "all removed");
    let live = scan(&mount.point);
    mount.unmount();
    assert_plain(&mount, &live);
    mount.remount();
    check(&views, "mounted a third time");
}

#[track_caller]
fn check(views: &[(PathBuf, Tree)], when: &str) {
    for (number, (view, tree)) in views.iter().enumerate() {
        assert_same(&format!("{when}: view {number}, {}", view.display()), tree, &scan(view), What::All);
    }
}

#[test]
fn a_crash_hides_data_and_recover_gives_it_back() {
    let place = Place::new();
    let data = place.join("data");
    fs::create_dir(&data).unwrap();
    populate(&data);
    let mount = Mount::over(&data).mount();
    damage(&mount.point);
    mount.at("now");
    let live = scan(&mount.point);
    mount.kill9();
    weft_e2e::place::detach(&mount.point);
    let bare = weft_e2e::tree::names(&data);
    assert_eq!(bare, [".weft", "WEFT-NOT-UNMOUNTED"], "bare DATA after a crash");
    let warning = fs::read_to_string(data.join("WEFT-NOT-UNMOUNTED")).unwrap();
    assert!(warning.contains("weft recover"), "the warning does not say what to do: {warning}");
    cmd::run(mount.weft().arg("recover").arg(&data)).ok();
    assert_plain(&mount, &live);
    cmd::run(mount.weft().arg("recover").arg(&data)).ok();
    assert_plain(&mount, &live);
}

#[test]
fn a_change_while_unmounted_is_live_and_never_a_wrong_past() {
    let place = Place::new();
    let data = place.join("data");
    fs::create_dir(&data).unwrap();
    populate(&data);
    let mount = Mount::over(&data).mount();
    let original = scan(&mount.point);
    let view = mount.at("now");
    let old: Vec<Vec<u8>> = (0..FILES).map(|number| fs::read(file(&view, number)).unwrap()).collect();
    open(&file(&mount.point, 20)).write_all_at(b"within Weft", 0).unwrap();
    mount.unmount();

    for number in 10..30 {
        let path = file(&data, number);
        open(&path).write_all_at(b"behind Weft's back", 5_000).unwrap();
    }
    fs::remove_file(file(&data, 31)).unwrap();
    fs::write(data.join("base/new"), "came while unmounted").unwrap();
    let changed = scan(&data);

    mount.remount();
    assert_same("live after a change while unmounted", &changed, &scan(&mount.point), What::ButTimes);
    for (number, bytes) in old.iter().enumerate() {
        match fs::read(file(&view, number)) {
            Ok(read) => assert!(read == *bytes, "view of file {number}: wrong bytes"),
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::EIO), "view of file {number}: {e}");
                assert!(
                    (10..30).contains(&number) || number == 31,
                    "file {number} did not change, but its past is lost"
                );
            }
        }
    }
    let expected: Vec<_> = original
        .keys()
        .filter(|path| path.parent() == Some(Path::new("base/1")))
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(weft_e2e::tree::names(&view.join("base/1")), expected, "names in the old view");
}

/// As PostgreSQL does with the directory of a new tablespace: the first that anybody does with a mount is to change its rights.
/// Until the kernel has asked whose it is, it takes it for root's.
#[test]
fn the_owner_of_a_fresh_mount_may_change_it_also_in_the_foreground() {
    let owner = PEOPLE[2];
    let begun = std::time::Instant::now();
    let change = |mount: &Mount, mode| {
        let allowed = || {
            let change = || fs::set_permissions(&mount.point, fs::Permissions::from_mode(mode));
            owner.does(0o022, change).is_ok()
        };
        while !allowed() {
            assert!(begun.elapsed().as_secs() < 60, "its owner may not change {}", mount.point.display());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(fs::metadata(&mount.point).unwrap().permissions().mode() & 0o7777, mode);
    };
    let place = Place::new();
    fs::create_dir(place.join("data")).unwrap();
    chown(place.join("data"), Some(owner.uid), Some(owner.gid)).unwrap();
    let mount = Mount::new(&place);
    mount.try_mount().ok();
    change(&mount, 0o700);
    mount.unmount();
    let mut daemon = mount.in_foreground(&place.join("daemon.log"));
    change(&mount, 0o750);
    mount.unmount();
    assert!(daemon.wait().unwrap().success());
}
