//! Past instants through a real mount: each view equals what was seen then, whatever happens afterwards.

use rand::Rng;
use rand::rngs::StdRng;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_e2e::ops::{self, Actor, Op};
use weft_e2e::random::{seeded, steps};
use weft_e2e::tree::{What, assert_same, differences, scan};
use weft_e2e::wall::Wall;
use weft_e2e::{Capture, Mount, Place, Tree, cmd, mount};

/// An instant: what `weft at` printed, a wall-clock time between two operations, and the tree then.
struct Recorded {
    view: PathBuf,
    wall: Wall,
    tree: Tree,
}

/// Random operations on the mount and on a plain directory, with instants recorded in between.
struct History {
    rng: StdRng,
    here: Actor,
    plain: PathBuf,
    there: Actor,
    recorded: Vec<Recorded>,
    what: What,
}

impl History {
    fn new(place: &Place, mount: &Mount, name: &str, what: What) -> History {
        let plain = place.join("plain");
        fs::create_dir(&plain).unwrap();
        History {
            rng: seeded(name).0,
            here: Actor::new(&mount.point),
            there: Actor::new(&plain),
            plain,
            recorded: Vec::new(),
            what,
        }
    }

    fn operations(&mut self, count: usize) {
        for _ in 0..count {
            let op = ops::draw(&mut self.rng, false);
            let (on_mount, on_disk) = (self.here.apply(&op), self.there.apply(&op));
            assert!(on_mount == on_disk, "{op:?} answers differently on the mount and on the disk");
        }
    }

    /// The plain directory vouches for everything but the times; these are what stat says now.
    fn record(&mut self, mount: &Mount) {
        std::thread::sleep(Duration::from_millis(2));
        let wall = Wall::now();
        let view = mount.at("now");
        let tree = scan(&mount.point);
        assert_same("the live tree", &scan(&self.plain), &tree, What::ButTimes);
        self.recorded.push(Recorded { view, wall, tree });
    }

    fn run(&mut self, mount: &Mount, instants: usize) {
        for _ in 0..instants {
            let count = self.rng.random_range(1..40);
            self.operations(count);
            self.record(mount);
        }
    }

    /// All views, by the printed path and by the wall clock.
    #[track_caller]
    fn check(&self, mount: &Mount, when: &str) {
        for (number, instant) in self.recorded.iter().enumerate() {
            let label = format!("{when}: instant {number}, {}", instant.view.display());
            assert_same(&label, &instant.tree, &scan(&instant.view), self.what);
            if number % 5 == 0 {
                let label = format!("{when}: instant {number} by its wall clock {:?}", instant.wall);
                assert_same(&label, &instant.tree, &scan(&mount.at_wall(instant.wall)), self.what);
            }
        }
    }

    fn crash(&mut self, mount: &Mount) {
        self.here.release_all();
        self.there.release_all();
        mount.crash();
    }
}

fn views_stay_as_they_were(name: &str, capture: Capture, what: What) {
    let place = Place::new();
    let mount = Mount::new(&place).capture(capture).mount();
    let mut history = History::new(&place, &mount, name, what);
    history.run(&mount, steps(12));
    history.check(&mount, "while mounted");
    // Everything up to the last recorded instant is durable: a resolve closes it.
    history.crash(&mount);
    let last = history.recorded.last().unwrap();
    assert_same("the live tree after kill -9", &last.tree, &scan(&mount.point), What::ButTimes);
    history.check(&mount, "after kill -9");
    history.run(&mount, steps(6));
    history.here.release_all();
    history.there.release_all();
    mount.unmount();
    assert_same("DATA after the unmount", &scan(&history.plain), &scan(&mount.data), What::ButTimes);
    mount.remount();
    history.check(&mount, "after unmount and mount");
    history.run(&mount, steps(4));
    history.here.release_all();
    mount.unmount();
    cmd::run(mount::weft().args(["index", "rebuild", "--store"]).arg(&mount.store)).ok();
    mount.remount();
    history.check(&mount, "after index rebuild");
}

#[test]
fn views_stay_as_they_were_strict() {
    views_stay_as_they_were("past strict", Capture::Strict, What::All);
}

#[test]
fn views_stay_as_they_were_writeback() {
    views_stay_as_they_were("past writeback", Capture::Writeback, What::ButTimes);
}

/// kill -9 at an arbitrary moment: live is the tree after some prefix of the operations, and that prefix holds
/// everything before the last fsync.
#[test]
fn a_crash_leaves_a_prefix_that_holds_all_that_was_fsynced() {
    let (mut rng, seed) = seeded("past prefix");
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let plain = place.join("plain");
    fs::create_dir(&plain).unwrap();
    for round in 0..steps(6) {
        let (mut here, mut there) = (Actor::new(&mount.point), Actor::new(&plain));
        let mut states = vec![scan(&plain)];
        let mut done = Vec::new();
        let mut durable = 0;
        for _ in 0..rng.random_range(10..80) {
            let op = ops::draw(&mut rng, true);
            let answer = here.apply(&op);
            assert_eq!(answer, there.apply(&op), "seed {seed}, round {round}, {op:?}");
            states.push(scan(&plain));
            done.push(op);
            durable = durable_after(durable, &states, &done, &answer);
        }
        here.release_all();
        there.release_all();
        mount.crash();
        let live = scan(&mount.point);
        let found = states.iter().rposition(|state| differences(state, &live, What::ButTimes).is_empty());
        let found = found.unwrap_or_else(|| {
            let to_last = differences(states.last().unwrap(), &live, What::ButTimes);
            panic!(
                "seed {seed}, round {round}: live is no prefix of {} operations; to the last: {to_last:?}",
                states.len() - 1
            )
        });
        assert!(
            found >= durable,
            "seed {seed}, round {round}: live is operation {found}, but {durable} was fsynced"
        );
        start_over(&mount.point, &plain);
    }
}

/// fsync of a file makes durable all up to that file's last event. Here only what is certain from outside: the last
/// change of this name's bytes, if it was a write through this very name.
fn durable_after(durable: usize, states: &[Tree], done: &[Op], answer: &ops::Answer) -> usize {
    let Some(Op::Fsync { path }) = done.last() else {
        return durable;
    };
    if !matches!(answer, ops::Answer::Done(_)) {
        return durable;
    }
    let content = |state: &Tree| state.get(path).map(|node| node.content);
    let now = content(&states[states.len() - 1]);
    let Some(before) = states.iter().rposition(|state| content(state) != now) else {
        return durable;
    };
    let wrote_it = match &done[before] {
        Op::Write { path: to, .. } | Op::Append { path: to, .. } | Op::Truncate { path: to, .. } => {
            to == path
        }
        _ => false,
    };
    if wrote_it { durable.max(before + 1) } else { durable }
}

/// Makes both directories empty, and durably so on the mount.
fn start_over(point: &Path, plain: &Path) {
    for root in [point, plain] {
        for name in weft_e2e::tree::names(root) {
            let path = root.join(name);
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                fs::remove_dir_all(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
        }
    }
    for attribute in weft_e2e::tree::xattrs(point).keys() {
        eprintln!("the root keeps {attribute:?}");
    }
    fs::File::open(point).unwrap().sync_all().unwrap();
}

/// A mount with one file of two versions, and the instant between them.
fn two_versions(place: &Place) -> (Mount, Wall) {
    let mount = Mount::new(place).mount();
    fs::write(mount.point.join("f"), "first").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let between = Wall::now();
    std::thread::sleep(Duration::from_millis(20));
    fs::write(mount.point.join("f"), "second, longer").unwrap();
    (mount, between)
}

#[test]
fn spellings_of_an_instant_lead_to_one_canonical_name() {
    let place = Place::new();
    let (mount, between) = two_versions(&place);
    let canonical = mount.ts(&between.canonical());
    assert!(fs::symlink_metadata(&canonical).unwrap().is_dir());
    assert_eq!(fs::read_to_string(canonical.join("f")).unwrap(), "first");
    for spelling in [between.two_hours_east(), between.basic()] {
        let path = mount.ts(&spelling);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "{spelling} is no symlink");
        assert_eq!(fs::canonicalize(&path).unwrap(), canonical, "{spelling}");
        assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "first", "{spelling}");
    }
    assert_eq!(mount.at(&between.canonical()), canonical);
}

#[test]
fn a_sequence_number_is_a_view_too() {
    let place = Place::new();
    let (mount, between) = two_versions(&place);
    let answer =
        cmd::run(mount.weft().arg("resolve").arg(between.canonical()).arg(&mount.point).arg("--json")).ok();
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("weft resolve --json is JSON");
    let seq =
        answer["seq"].as_u64().unwrap_or_else(|| panic!("weft resolve --json has no number `seq`: {answer}"));
    let view = mount.point.join(format!("@seq={seq}"));
    assert_eq!(fs::read_to_string(view.join("f")).unwrap(), "first");
    assert_eq!(
        fs::read_to_string(mount.point.join("@seq=999999999").join("f")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn views_are_never_listed() {
    let place = Place::new();
    let (mount, between) = two_versions(&place);
    let view = mount.at_wall(between);
    assert!(view.join("f").exists());
    assert_eq!(weft_e2e::tree::names(&mount.point), ["f"]);
    assert_eq!(weft_e2e::tree::names(&view), ["f"]);
}

#[test]
fn what_cannot_be_resolved_is_not_there() {
    let place = Place::new();
    let before = Wall::now().plus_us(-3_600_000_000);
    let (mount, between) = two_versions(&place);
    let future = Wall::now().plus_us(3_600_000_000);
    let canonical_future = future.canonical();
    for name in [
        canonical_future.as_str(),
        &before.canonical(),
        "yesterday",
        "-5m",
        "now",
        "",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
    ] {
        let error = fs::symlink_metadata(mount.ts(name)).expect_err(name);
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "@ts={name}: {error}");
    }
    // Never cached: a future instant is there once it has come.
    let soon = Wall::now().plus_us(300_000);
    assert!(!mount.ts(&soon.canonical()).exists());
    while Wall::now() <= soon {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(mount.ts(&soon.canonical()).exists(), "an instant that has come is not there");
    assert!(mount.ts(&between.canonical()).exists());
}

#[test]
fn views_cannot_be_written() {
    let place = Place::new();
    let (mount, between) = two_versions(&place);
    let view = mount.at_wall(between);
    let errno = |result: std::io::Result<()>| result.expect_err("a view was changed").raw_os_error();
    let read_only = Some(libc::EROFS);
    assert_eq!(errno(fs::write(view.join("f"), "x")), read_only);
    assert_eq!(errno(fs::write(view.join("new"), "x")), read_only);
    assert_eq!(errno(fs::remove_file(view.join("f"))), read_only);
    assert_eq!(errno(fs::create_dir(view.join("d"))), read_only);
    assert_eq!(errno(fs::rename(view.join("f"), view.join("g"))), read_only);
    assert_eq!(errno(fs::hard_link(view.join("f"), view.join("g"))), read_only);
    assert_eq!(errno(std::os::unix::fs::symlink("x", view.join("s"))), read_only);
    assert_eq!(
        errno(fs::set_permissions(view.join("f"), std::os::unix::fs::PermissionsExt::from_mode(0o600))),
        read_only
    );
    assert_eq!(fs::read_to_string(view.join("f")).unwrap(), "first");
}

#[test]
fn names_of_views_are_reserved_in_the_root_only() {
    let place = Place::new();
    let (mount, _) = two_versions(&place);
    let errno = |result: std::io::Result<()>| result.expect_err("a reserved name was made").raw_os_error();
    for name in ["@ts=x", "@seq=1x", "@tag=t"] {
        let path = mount.point.join(name);
        assert_eq!(errno(fs::write(&path, "x")), Some(libc::EPERM), "create {name}");
        assert_eq!(errno(fs::create_dir(&path)), Some(libc::EPERM), "mkdir {name}");
        assert_eq!(errno(fs::rename(mount.point.join("f"), &path)), Some(libc::EPERM), "rename to {name}");
    }
    fs::create_dir(mount.point.join("d")).unwrap();
    fs::write(mount.point.join("d/@ts=x"), "allowed here").unwrap();
    fs::write(mount.point.join("@other"), "and this").unwrap();
    assert_eq!(fs::read_to_string(mount.point.join("d/@ts=x")).unwrap(), "allowed here");
}

#[test]
fn copies_of_a_view_are_identical() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let mut history = History::new(&place, &mount, "past copies", What::All);
    history.run(&mount, 3);
    let view = history.recorded[1].view.clone();
    let (one, two, three) = (place.join("one"), place.join("two"), place.join("three"));
    cmd::cp(&view, &one);
    history.operations(50);
    cmd::cp(&view, &two);
    fs::create_dir(&three).unwrap();
    cmd::rsync(&view, &three);
    let first = scan(&one);
    assert_same("cp -a of the view", &history.recorded[1].tree, &first, What::All);
    assert_same("a second cp -a", &first, &scan(&two), What::All);
    assert_same("rsync", &first, &scan(&three), What::All);
    assert!(history.recorded[1].tree.len() > 3, "the tree is too small to say anything");
}

/// rsync's quick check compares size and mtime: views that differ in bytes must differ there.
#[test]
fn versions_close_in_time_differ_in_size_or_mtime() {
    for capture in [Capture::Strict, Capture::Writeback] {
        let place = Place::new();
        let mount = Mount::new(&place).capture(capture).mount();
        let path = mount.point.join("page");
        let mut views = Vec::new();
        for version in 0..8_u8 {
            fs::write(&path, vec![version; 8_192]).unwrap();
            views.push(mount.at("now").join("page"));
        }
        let stat = |path: &PathBuf| {
            let meta = fs::metadata(path).unwrap();
            (meta.size(), meta.mtime(), meta.mtime_nsec())
        };
        for (version, view) in views.iter().enumerate() {
            assert_eq!(fs::read(view).unwrap(), vec![version as u8; 8_192], "{capture:?}");
        }
        for pair in views.windows(2) {
            assert_ne!(stat(&pair[0]), stat(&pair[1]), "{capture:?}: {} and the next", pair[0].display());
        }
    }
}

#[test]
fn an_open_file_of_a_view_outlives_what_happens_to_the_live_one() {
    use std::io::Read;
    let place = Place::new();
    let (mount, between) = two_versions(&place);
    let mut held = fs::File::open(mount.at_wall(between).join("f")).unwrap();
    fs::remove_file(mount.point.join("f")).unwrap();
    fs::write(mount.point.join("f"), "third").unwrap();
    let mut text = String::new();
    held.read_to_string(&mut text).unwrap();
    assert_eq!(text, "first");
}

#[test]
fn relative_times_print_a_fixed_path() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    fs::write(mount.point.join("f"), "first").unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    fs::write(mount.point.join("f"), "second").unwrap();
    let view = mount.at("-1s");
    let text = fs::read_to_string(view.join("f")).unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(text, "first");
    assert_eq!(fs::read_to_string(view.join("f")).unwrap(), "first");
    let name = view.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("@ts=2") && name.ends_with('Z'), "weft at -1s printed {name}");
}
