//! Who may do what, and what each call leaves of owners, modes, ACLs and times: as on the disk.

use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_e2e::random::{seeded, steps};
use weft_e2e::rights::{self, Watch};
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::{Capture, Mount, Place};

/// File times of the kernel move by ticks, 4 ms at most with the usual 250 of them in a second.
const TICK: Duration = Duration::from_millis(5);

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
}

/// A plain directory that, as a Weft mount, lends no powers to device nodes and setuid programs.
fn on_the_disk(place: &Place) -> PathBuf {
    let plain = place.join("plain");
    fs::create_dir(&plain).unwrap();
    let none: Option<&str> = None;
    mount(Some(&plain), &plain, none, MsFlags::MS_BIND, none).unwrap();
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(none, &plain, none, flags, none).unwrap();
    plain
}

/// A line of what was seen, but for which times moved.
fn without_times(line: &str) -> String {
    let (before, rest) = line.split_once("[mtime, ctime]").unwrap();
    format!("{before}{}", rest.split_once("xattrs").unwrap().1)
}

/// The same random deeds of several users on the mount and on the disk: equal answers, and equal trees after each.
fn differential(name: &str, capture: Capture) {
    let (mut rng, seed) = seeded(name);
    let place = Place::new();
    let weft = Mount::new(&place).capture(capture).mount();
    let plain = on_the_disk(&place);
    open_to_all(&plain);
    open_to_all(&weft.point);
    let (mut here, mut there) = (Watch::default(), Watch::default());
    for step in 0..steps(350) {
        let deed = rights::draw(&mut rng);
        std::thread::sleep(TICK);
        let (on_mount, on_disk) = (rights::attempt(&weft.point, &deed), rights::attempt(&plain, &deed));
        assert_eq!(
            on_mount, on_disk,
            "seed {seed}, step {step}, {deed:?}: mount (left) and disk (right) differ"
        );
        let (seen, expected) = (here.look(&weft.point), there.look(&plain));
        let all_times = capture == Capture::Strict || !deed.may_set_what_is();
        for (seen, expected) in seen.iter().zip(&expected) {
            let part = |line: &str| if all_times { line.to_owned() } else { without_times(line) };
            let (seen, expected) = (part(seen), part(expected));
            assert_eq!(
                seen, expected,
                "seed {seed}, step {step}, {deed:?}: mount (left) and disk (right) differ"
            );
        }
        assert_eq!(seen.len(), expected.len());
    }
    weft.unmount();
    assert_same("DATA after the unmount", &scan(&plain), &scan(&weft.data), What::ButTimes);
}

#[test]
fn deeds_of_many_users_agree_with_the_disk_strict() {
    differential("rights strict", Capture::Strict);
}

#[test]
fn deeds_of_many_users_agree_with_the_disk_writeback() {
    differential("rights writeback", Capture::Writeback);
}
