//! The harness itself: a comparison that overlooks something would make every other test worthless.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use weft_e2e::tree::{What, differences, scan};
use weft_e2e::wall::Wall;
use weft_e2e::{Place, cmd};

fn populate(root: &Path) {
    fs::create_dir_all(root.join("d/e")).unwrap();
    fs::write(root.join("d/f"), "some bytes").unwrap();
    fs::write(root.join("g"), "others").unwrap();
    fs::hard_link(root.join("g"), root.join("h")).unwrap();
    std::os::unix::fs::symlink("d/f", root.join("s")).unwrap();
}

/// Makes a tree, changes its copy by `change`, and wants the difference seen at `path`.
#[track_caller]
fn assert_seen(what: What, path: &str, change: impl Fn(&Path)) {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    fs::create_dir(&one).unwrap();
    populate(&one);
    cmd::cp(&one, &two);
    assert_eq!(differences(&scan(&one), &scan(&two), What::All), Vec::<String>::new(), "a copy is equal");
    change(&two);
    let found = differences(&scan(&one), &scan(&two), what);
    assert!(
        found.iter().any(|line| line.starts_with(&format!("{path:?}:"))),
        "not seen at {path}: {found:?}"
    );
}

#[test]
fn every_kind_of_difference_is_seen() {
    let bytes = |root: &Path| fs::write(root.join("d/f"), "some bytez").unwrap();
    assert_seen(What::ButTimes, "d/f", bytes);
    assert_seen(What::ButTimes, "d/f", |root| fs::write(root.join("d/f"), "some bytes\0").unwrap());
    assert_seen(What::ButTimes, "d/e", |root| fs::remove_dir(root.join("d/e")).unwrap());
    assert_seen(What::ButTimes, "d/new", |root| fs::write(root.join("d/new"), "").unwrap());
    assert_seen(What::ButTimes, "d/f", |root| {
        fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o4644)).unwrap()
    });
    assert_seen(What::ButTimes, "d", |root| chown(root.join("d"), Some(7), None).unwrap());
    assert_seen(What::ButTimes, "s", |root| {
        fs::remove_file(root.join("s")).unwrap();
        std::os::unix::fs::symlink("d/g", root.join("s")).unwrap();
    });
    assert_seen(What::ButTimes, "d", |root| {
        cmd::call("setfattr", &["-n", "user.a", "-v", "b", root.join("d").to_str().unwrap()]).ok();
    });
    assert_seen(What::ButTimes, "h", |root| {
        fs::remove_file(root.join("h")).unwrap();
        cmd::call("cp", &[Path::new("-p"), &root.join("g"), &root.join("h")]).ok();
    });
    assert_seen(What::All, "g", |root| {
        cmd::call("touch", &["-d", "@1.000000001", root.join("g").to_str().unwrap()]).ok();
    });
}

#[test]
fn an_instant_has_the_spellings_of_the_contract() {
    let at = Wall(1_795_428_000_000_007);
    assert_eq!(at.canonical(), "2026-11-23T10:00:00.000007Z");
    assert_eq!(at.basic(), "20261123T100000.000007Z");
    assert_eq!(at.two_hours_east(), "2026-11-23T12:00:00.000007+02:00");
}
