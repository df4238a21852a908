//! Weaving on a real mount: less space, the same past, whatever becomes of the daemon.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use weft_e2e::{Mount, Place, cmd};

/// 4 MiB of pages that are alike but not equal, as those of a database.
fn write_table(dir: &Path, round: u32) {
    let table = File::options().write(true).create(true).truncate(false).open(dir.join("table")).unwrap();
    let log = File::options().append(true).create(true).open(dir.join("log")).unwrap();
    for number in 0..512u32 {
        let line = format!("{number} {round} {}\n", number.wrapping_mul(round + 7));
        let page: Vec<u8> = line.bytes().cycle().take(8192).collect();
        table.write_all_at(&page, u64::from(number) * 8192).unwrap();
        std::io::Write::write_all(&mut &log, line.as_bytes()).unwrap();
    }
    table.sync_all().unwrap();
}

/// A mount whose journal has several sealed segments, and copies of its views.
fn mount_with_past(place: &Place) -> (Mount, Vec<(PathBuf, PathBuf)>) {
    let mount = Mount::new(place);
    std::fs::create_dir(&mount.store).unwrap();
    std::fs::write(mount.store.join("weft.toml"), "segment_mib = 24\nweave = false\n").unwrap();
    let mount = mount.mount();
    let mut past = Vec::new();
    for round in 0..16 {
        write_table(&mount.point, round);
        if round % 4 == 3 {
            let (view, copy) = (mount.at("now"), place.join(&format!("copy{round}")));
            cmd::cp(&view, &copy);
            past.push((view, copy));
        }
    }
    (mount, past)
}

#[track_caller]
fn check(past: &[(PathBuf, PathBuf)]) {
    for (view, copy) in past {
        for name in ["table", "log"] {
            let (seen, then) =
                (std::fs::read(view.join(name)).unwrap(), std::fs::read(copy.join(name)).unwrap());
            assert!(seen == then, "{name} of {}", view.display());
        }
    }
}

fn weave_now(mount: &Mount) -> serde_json::Value {
    let text = cmd::run(mount.weft().args(["weave", "--now", "--json"]).arg(&mount.point)).ok();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn woven_history_is_small_and_the_same() {
    let place = Place::new();
    let (mount, past) = mount_with_past(&place);
    let before = mount.status();
    let woven = weave_now(&mount);
    assert!(woven["segments"].as_u64() >= Some(2), "{woven}");
    let after = mount.status();
    let bytes = |status: &serde_json::Value, key: &str| status[key].as_u64().unwrap();
    let freed = bytes(&before, "journal_bytes") - bytes(&after, "journal_bytes");
    assert!(bytes(&after, "woven_bytes") * 4 < freed, "{freed} bytes freed, and now {after}");
    check(&past);
    let told = cmd::run(mount.weft().arg("weave").arg(&mount.point)).ok();
    assert!(told.contains("0 segments wait"), "{told}");
    let log = cmd::run(mount.weft().arg("log").arg(mount.point.join("log"))).ok();
    assert!(log.contains("events since"), "{log}");

    mount.crash();
    check(&past);
    mount.unmount();
    let sums = cmd::run(mount.weft().args(["journal", "stat", "--check", "--json"]).arg(&mount.data)).ok();
    let sums: serde_json::Value = serde_json::from_str(&sums).unwrap();
    assert!(
        sums["events"].as_u64() > Some(16 * 1024) && sums["damage"].as_array().is_some_and(Vec::is_empty),
        "{sums}"
    );
    cmd::run(mount.weft().args(["index", "rebuild"]).arg(&mount.data)).ok();
    mount.remount();
    check(&past);
    mount.unmount();
}

#[test]
fn a_daemon_killed_while_it_weaves_loses_nothing() {
    let place = Place::new();
    let (mount, past) = mount_with_past(&place);
    for millis in [5, 20, 60] {
        let mut weaving = mount.weft();
        let mut weaving = weaving.args(["weave", "--now"]).arg(&mount.point).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        mount.crash();
        weaving.wait().unwrap();
        check(&past);
    }
    weave_now(&mount);
    check(&past);
    mount.unmount();
}
