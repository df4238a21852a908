//! The daemon's clock is set, forward and back, on a real mount.

use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weft_e2e::bank::{self, Bank};
use weft_e2e::cluster::on_copy;
use weft_e2e::steered::Steered;
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::wall::Wall;
use weft_e2e::{Mount, Place, Postgres, Tree, cmd};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
/// 2099-06-01T00:00:00Z.
const IN_2099: Wall = Wall(4_083_955_200 * SECOND);

/// `weft resolve TIME --json`, whether found or not.
#[track_caller]
fn resolve(mount: &Mount, time: &str) -> Value {
    let output = cmd::run(mount.weft().args(["resolve", time, "--json"]).arg(&mount.point));
    serde_json::from_str(&output.stdout).unwrap_or_else(|cause| panic!("{cause}: {output:?}"))
}

/// An instant as it was seen when it was shown first.
struct Shown {
    phase: &'static str,
    view: PathBuf,
    tree: Tree,
}

/// Leaves a mark on the mount and looks at now: the mark is there.
#[track_caller]
fn show(mount: &Mount, phase: &'static str) -> Shown {
    let mark = mount.point.join("mark");
    fs::write(&mark, phase).unwrap();
    File::open(&mark).unwrap().sync_all().unwrap();
    let view = mount.at("now");
    assert_eq!(fs::read_to_string(view.join("mark")).unwrap(), phase, "{}", view.display());
    let tree = scan(&view);
    Shown { phase, view, tree }
}

#[track_caller]
fn unchanged(all: &[Shown], when: &str) {
    for shown in all {
        let label = format!("{when}: {} {}", shown.phase, shown.view.display());
        assert_same(&label, &shown.tree, &scan(&shown.view), What::All);
    }
}

/// The time in a view's name, µs.
fn named(view: &Path) -> Wall {
    let name = view.file_name().unwrap().to_str().unwrap();
    let ts: jiff::Timestamp = name.strip_prefix("@ts=").expect("named by a time").parse().unwrap();
    Wall(ts.as_microsecond())
}

#[test]
fn the_clock_is_set_back_and_to_2099_and_back_while_a_database_writes() {
    let place = Place::new();
    let clock = Steered::new(&place);
    let data = place.dir_for("postgres", "data");
    // An hour fast to begin with.
    clock.set_us(HOUR);
    let mount = Mount::over(&data).clock(&clock).mount();
    let server = Postgres::new(&place, "live", &mount.point);
    server.initdb();
    server.start();
    bank::open(&server);
    let bank = Bank::start(&server, 4, 1);
    std::thread::sleep(Duration::from_millis(1_500));
    let mut all = vec![show(&mount, "fast")];
    assert_eq!(mount.status()["clock_epoch"], 0);
    let ahead = named(&all[0].view);
    assert!((ahead.0 - HOUR - Wall::now().0).abs() < 60 * SECOND, "{ahead:?}");

    clock.set_us(0);
    all.push(show(&mount, "right"));
    assert!((named(&all[1].view).0 - Wall::now().0).abs() < 60 * SECOND, "time stands still");
    let status = mount.status();
    assert_eq!(status["clock_epoch"], 1);
    assert!(status["warnings"][0].as_str().unwrap().contains("set back"), "{status}");

    clock.set(IN_2099);
    all.push(show(&mount, "2099"));
    assert!(all[2].view.to_str().unwrap().contains("@ts=2099-06-01T00:0"));
    clock.set_us(0);
    all.push(show(&mount, "right again"));
    assert!((named(&all[3].view).0 - Wall::now().0).abs() < 60 * SECOND, "time stands in 2099");
    unchanged(&all, "under load");

    // The hour of the first phase comes a second time.
    std::thread::sleep(Duration::from_millis(1_500));
    let set = Instant::now();
    clock.set(Wall(ahead.0 - SECOND / 2));
    std::thread::sleep(Duration::from_millis(1_500));
    all.push(show(&mount, "that hour again"));
    assert_eq!(mount.status()["clock_epoch"], 4);
    unchanged(&all, "the same hour again");
    let twice = resolve(&mount, &ahead.plus_us(-300_000).canonical());
    assert_eq!((&twice["answer"], &twice["ambiguous"]), (&"found".into(), &true.into()), "{twice}");
    let candidates = twice["candidates"].as_array().unwrap();
    let epochs: Vec<_> = candidates.iter().map(|one| one["epoch"].as_u64().unwrap()).collect();
    assert_eq!((epochs, &twice["epoch"]), (vec![0, 4], &4.into()), "{twice}");
    let pinned = resolve(&mount, &ahead.canonical());
    assert_eq!((&pinned["epoch"], &pinned["ambiguous"]), (&0.into(), &true.into()), "{pinned}");

    // Some seconds ago is by the time that passed, whatever the clock showed.
    let mark = |time: &str| fs::read_to_string(mount.at(time).join("mark")).unwrap();
    assert_eq!(mark(&format!("-{}s", set.elapsed().as_secs() + 1)), "right again");

    let commits = bank.stop();
    assert!(commits.len() > 100, "only {} commits: this says little", commits.len());
    server.stop();
    mount.kill9();
    clock.set_us(0);
    mount.remount();
    assert_eq!(mount.status()["clock_epoch"], 5);
    all.push(show(&mount, "after kill -9"));
    unchanged(&all, "after kill -9 and the right time");
    let copy = on_copy(&place, "copy", &all[2].view);
    copy.start();
    bank::check_sum(&copy);
    copy.stop();
    mount.unmount();
}

#[test]
fn local_times_mean_one_instant_or_none() {
    let place = Place::new();
    let clock = Steered::new(&place);
    let wall = |text: &str| Wall(text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
    // From noon until after Berlin's clocks were set back, in one step.
    clock.set(wall("2026-10-24T10:00:00Z"));
    let data = place.join("data");
    fs::create_dir(&data).unwrap();
    let mount = Mount::over(&data).clock(&clock);
    fs::create_dir(&mount.store).unwrap();
    fs::write(mount.store.join("weft.toml"), "timezone = \"Europe/Berlin\"\n").unwrap();
    let mount = mount.mount();
    fs::write(mount.point.join("f"), "noon").unwrap();
    clock.set(wall("2026-10-25T02:00:00Z"));
    fs::write(mount.point.join("f"), "night").unwrap();

    let target = |text: &str| fs::read_link(mount.ts(text)).map(|target| target.display().to_string());
    assert_eq!(target("2026-10-24T20:00").unwrap(), "@ts=2026-10-24T18:00:00.000000Z");
    assert_eq!(target("20261025t030000,5").unwrap(), "@ts=2026-10-25T02:00:00.500000Z");
    // Both hours are in history; without an offset it is neither.
    let twice = target("2026-10-25T02:30").unwrap_err();
    assert_eq!(twice.raw_os_error(), Some(libc::ENOENT));
    assert!(fs::metadata(mount.ts("2026-10-25T02:30")).is_err());
    let why = resolve(&mount, "2026-10-25T02:30");
    assert_eq!((&why["answer"], &why["timezone"]), (&"malformed".into(), &"Europe/Berlin".into()));
    let because = why["because"].as_str().unwrap();
    assert!(because.contains("2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00"), "{because}");
    for (text, utc) in [("02:30+02:00", "00:30"), ("02:30+01:00", "01:30"), ("02:30+0100", "01:30")] {
        let name = format!("2026-10-25T{text}");
        assert_eq!(target(&name).unwrap(), format!("@ts=2026-10-25T{utc}:00.000000Z"));
        assert_eq!(fs::read_to_string(mount.ts(&name).join("f")).unwrap(), "noon");
    }
    let never = cmd::run(mount.weft().args(["at", "2026-03-29T02:30"]).arg(&mount.point));
    assert!(never.code == 1 && never.stderr.contains("never happened in Europe/Berlin"), "{never:?}");
    // What no calendar has, or no clock shows.
    for text in ["2026-10-24T23:59:60Z", "2026-10-24T24:00Z", "10000-01-01T00:00Z", "-0001-01-01T00:00Z"] {
        assert_eq!(target(text).unwrap_err().raw_os_error(), Some(libc::ENOENT), "{text}");
        assert_eq!(resolve(&mount, &format!("@ts={text}"))["answer"], "malformed", "{text}");
    }
    assert_eq!(resolve(&mount, "2026-10-24T06:00Z")["answer"], "before");
    assert_eq!(resolve(&mount, "2027-01-01T00:00Z")["answer"], "future");
    assert_eq!(resolve(&mount, "seq=999999")["answer"], "future");
    let found = resolve(&mount, "2026-10-24T20:00");
    assert_eq!((&found["answer"], &found["consistency"]["capture"]), (&"found".into(), &"strict".into()));
    assert_eq!(found["requested"], "ts=2026-10-24T18:00:00.000000Z");
    assert!(found["note"].as_str().unwrap().contains("no clock has shown"), "{found}");
    mount.unmount();
}
