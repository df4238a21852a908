//! Retention on a real mount: what is kept is right to the last byte, what went is ESTALE, space comes back.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use weft_e2e::{Mount, Place, cmd};

/// 2 MiB of pages that differ from one round to the next.
fn write_round(dir: &Path, round: u32) {
    let table = File::options().write(true).create(true).truncate(false).open(dir.join("table")).unwrap();
    let mut state = round.wrapping_mul(2_654_435_761) | 1;
    for number in 0..256u64 {
        let page: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(8192)
        .collect();
        table.write_all_at(&page, number * 8192).unwrap();
    }
    std::fs::write(dir.join("round"), format!("{round}\n")).unwrap();
    table.sync_all().unwrap();
}

/// A mount with sealed journal, and copies of its views.
fn mount_with_past(place: &Place, rounds: u32) -> (Mount, Vec<(PathBuf, PathBuf)>) {
    let mount = Mount::new(place);
    std::fs::create_dir(&mount.store).unwrap();
    // What `weft at` was asked for is leased: not for long here.
    let toml = "segment_mib = 24\nretention = \"every write for ever\"\nlease_secs = 1\n";
    std::fs::write(mount.store.join("weft.toml"), toml).unwrap();
    let mount = mount.mount();
    let mut past = Vec::new();
    for round in 0..rounds {
        write_round(&mount.point, round);
        let (view, copy) = (mount.at("now"), place.join(&format!("copy{round}")));
        cmd::cp(&view, &copy);
        past.push((view, copy));
    }
    // So that all of it is in sealed segments.
    for round in 0..16 {
        write_round(&mount.point, 1000 + round);
    }
    (mount, past)
}

fn json(mount: &Mount, args: &[&str]) -> serde_json::Value {
    let text = cmd::run(mount.weft().args(args).arg("--json").arg(&mount.point)).ok();
    serde_json::from_str(&text).unwrap()
}

/// Whether a view is what it was; `false`: ESTALE. Anything else is a failure.
fn same(view: &Path, copy: &Path) -> bool {
    let is_stale = |error: &std::io::Error| error.raw_os_error() == Some(libc::ESTALE);
    match std::fs::read_dir(view) {
        Err(error) if is_stale(&error) => return false,
        listed => {
            let listed = listed.unwrap().map(|entry| entry.map(|entry| entry.file_name()));
            match listed.collect::<Result<Vec<_>, _>>() {
                Err(error) if is_stale(&error) => return false,
                names => assert_eq!(names.unwrap().len(), 2, "{}", view.display()),
            }
        }
    }
    for name in ["table", "round"] {
        match std::fs::read(view.join(name)) {
            Err(error) if is_stale(&error) => return false,
            seen => assert!(
                seen.unwrap() == std::fs::read(copy.join(name)).unwrap(),
                "{name} of {}",
                view.display()
            ),
        }
    }
    true
}

#[test]
fn what_is_kept_is_right_and_what_went_is_estale_and_space_comes_back() {
    let place = Place::new();
    let (mount, past) = mount_with_past(&place, 8);
    cmd::run(mount.weft().args(["tag", "keep", "--at"]).arg(name_of(&past[2].0)).arg(&mount.point)).ok();
    let held = File::open(past[4].0.join("table")).unwrap();
    for bad in [
        &["every write for 1m"][..],
        &["--cap", "0"],
        &["one per hour"],
        &["every write for 1d, then one per week for 2d"],
        &["every write for 1d, then one per hour for 7d, then one per minute for 7d"],
    ] {
        let before = std::fs::read(mount.store.join("weft.toml")).unwrap();
        let refused =
            cmd::run(mount.weft().args(["retention", "set"]).args(bad).arg("--of").arg(&mount.point));
        assert!(refused.code == 1 && refused.stderr.trim().lines().count() == 1, "{refused:?}");
        assert_eq!(std::fs::read(mount.store.join("weft.toml")).unwrap(), before);
    }
    let misplaced =
        cmd::run(mount.weft().args(["retention", "set"]).arg(&mount.point).args(["--cap", "10GiB"]));
    assert!(misplaced.code == 1 && misplaced.stderr.contains("--of"), "{misplaced:?}");
    let set = ["retention", "set", "every write for 1s", "--minimum", "1s", "--of"];
    let told = cmd::run(mount.weft().args(set).arg(&mount.point)).ok();
    assert!(told.contains("every write for 1s"), "{told}");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    write_round(&mount.point, 99);
    cmd::run(mount.weft().args(["weave", "--now"]).arg(&mount.point)).ok();
    let dry = json(&mount, &["prune", "--dry-run"]);
    assert!(past.iter().all(|(view, copy)| same(view, copy)), "a dry run takes nothing");
    // What was looked at just now is leased for a second.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let before = mount.status()["woven_bytes"].as_u64().unwrap();
    let done = json(&mount, &["prune"]);
    let after = mount.status()["woven_bytes"].as_u64().unwrap();
    assert!(after * 2 < before, "{before} to {after}: {dry} {done}");
    let pinned = done["pinned"].as_array().unwrap();
    let seqs: BTreeSet<u64> = pinned.iter().map(|pin| pin["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs.len(), 2, "{done}");
    let pinned_by = |what: &str| pinned.iter().any(|pin| pin["by"].as_str().unwrap().contains(what));
    assert!(pinned_by("tag keep") && pinned_by("open view"), "{done}");
    let mut bytes = vec![0; 256 * 8192];
    held.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == std::fs::read(past[4].1.join("table")).unwrap());
    // The others stand for the one before that is kept, or were pruned.
    assert!(same(&mount.point.join("@tag=keep"), &past[2].1));
    assert!(!same(&past[0].0, &past[0].1) && !same(&past[1].0, &past[1].1));
    assert!(same(&past[3].0, &past[2].1) && same(&past[7].0, &past[4].1));
    let told =
        cmd::run(mount.weft().args(["resolve"]).arg(name_of(&past[3].0)).arg(&mount.point).arg("--json"))
            .ok();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["note"].as_str().unwrap().contains("thinned") && told["meant"] != told["seq"], "{told}");
    drop(held);
    mount.crash();
    assert!(same(&mount.point.join("@tag=keep"), &past[2].1) && !same(&past[0].0, &past[0].1));
    mount.unmount();
    let sums = cmd::run(mount.weft().args(["journal", "stat", "--check", "--json"]).arg(&mount.data)).ok();
    let sums: serde_json::Value = serde_json::from_str(&sums).unwrap();
    assert!(sums["damage"].as_array().is_some_and(Vec::is_empty), "{sums}");
    cmd::run(mount.weft().args(["index", "rebuild"]).arg(&mount.data)).ok();
    mount.remount();
    assert!(same(&mount.point.join("@tag=keep"), &past[2].1) && !same(&past[0].0, &past[0].1));
    let log = cmd::run(mount.weft().arg("log").arg(mount.point.join("round"))).ok();
    assert!(log.contains("create"), "{log}");
    mount.unmount();
}

/// The time in the name of a view.
fn name_of(view: &Path) -> String {
    view.file_name().unwrap().to_str().unwrap().trim_start_matches("@ts=").to_owned()
}

#[test]
fn readers_see_right_bytes_or_estale_while_it_prunes_as_hard_as_it_can() {
    let place = Place::new();
    let (mount, past) = mount_with_past(&place, 8);
    let tables: Vec<Vec<u8>> =
        past.iter().map(|(_, copy)| std::fs::read(copy.join("table")).unwrap()).collect();
    let done = AtomicBool::new(false);
    let (right, stale, resting) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (past, tables, done) = (&past, &tables, &done);
            let (right, stale, resting) = (&right, &stale, &resting);
            scope.spawn(move || {
                for (view, copy) in past.iter().cycle().skip(thread * 3) {
                    while resting.load(Ordering::Relaxed) {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    // An instant that was thinned may show the one before that is kept: its round says which.
                    let shown = std::fs::read_to_string(view.join("round"));
                    let copy = match &shown {
                        Ok(round) => copy.with_file_name(format!("copy{}", round.trim())),
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
                            copy.clone()
                        }
                    };
                    // Between two looks at its name it may be pruned once more; what is open stays.
                    match std::fs::File::open(view.join("table")) {
                        Ok(table) => {
                            let mut bytes = vec![0; 256 * 8192];
                            table.read_exact_at(&mut bytes, 0).unwrap();
                            let known = tables.contains(&bytes);
                            assert!(known, "{} shows what never was ({})", view.display(), copy.display());
                            right.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
                            stale.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        // Who looks at a view holds it, and would for ever: a lease lasts a second here, so the readers rest for more.
        let rest = |prune: &dyn Fn()| {
            resting.store(true, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(1300));
            prune();
            resting.store(false, Ordering::Relaxed);
        };
        let prune = || drop(json(&mount, &["prune"]));
        for secs in [30, 20, 10, 5, 4, 3, 2, 1] {
            let tiers = format!("every write for {secs}s");
            cmd::run(
                mount.weft().args(["retention", "set", &tiers, "--minimum", "1s", "--of"]).arg(&mount.point),
            )
            .ok();
            // They come back to views that go under their eyes.
            rest(&|| ());
            prune();
            write_round(&mount.point, 2000 + secs);
        }
        // Bounded: readers that failed count nothing any more, and are to be heard.
        for _ in 0..20 {
            if stale.load(Ordering::Relaxed) >= 9 {
                break;
            }
            write_round(&mount.point, 3000);
            rest(&prune);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(right.into_inner() > 3 && stale.into_inner() >= 9);
    mount.unmount();
}

/// Whoever waits for a pruning keeps no mount busy: it ends, they are told, and nothing is half done.
#[test]
fn an_unmount_ends_a_pruning_that_somebody_waits_for() {
    let place = Place::new();
    let (mount, past) = mount_with_past(&place, 40);
    // Half of what is there stays, and has to be packed anew.
    let kept: Vec<_> = past.iter().step_by(2).enumerate().collect();
    for (number, (view, _)) in &kept {
        let name = format!("kept{number}");
        cmd::run(mount.weft().args(["tag", &name, "--at"]).arg(name_of(view)).arg(&mount.point)).ok();
    }
    let is_kept = || {
        for (number, (_, copy)) in &kept {
            assert!(same(&mount.point.join(format!("@tag=kept{number}")), copy), "kept{number}");
        }
    };
    let set = ["retention", "set", "every write for 1s", "--minimum", "1s", "--of"];
    cmd::run(mount.weft().args(set).arg(&mount.point)).ok();
    cmd::run(mount.weft().args(["weave", "--now"]).arg(&mount.point)).ok();
    let woven = mount.store.join("woven");
    let is_at_work = || {
        let mut names = woven.read_dir().unwrap().map(|entry| entry.unwrap().path());
        names.any(|path| path.extension().is_some_and(|ending| ending == "new"))
    };
    let pruned = std::thread::scope(|scope| {
        let prune = scope.spawn(|| cmd::run(mount.weft().arg("prune").arg(&mount.point)));
        while !is_at_work() {
            assert!(!prune.is_finished(), "it was over before it could be met: {:?}", prune.join());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        mount.unmount();
        prune.join().unwrap()
    });
    let told = pruned.stderr.trim();
    assert!(
        pruned.code == 1 && told.contains("is being unmounted") && told.lines().count() == 1,
        "{pruned:?}"
    );
    assert!(!is_at_work(), "something is left half done");
    assert_eq!(std::fs::read_to_string(mount.data.join("round")).unwrap(), "1015\n");
    let sums = cmd::run(mount.weft().args(["journal", "stat", "--check", "--json"]).arg(&mount.data)).ok();
    let sums: serde_json::Value = serde_json::from_str(&sums).unwrap();
    assert!(sums["damage"].as_array().is_some_and(Vec::is_empty), "{sums}");
    mount.remount();
    is_kept();
    let done = json(&mount, &["prune"]);
    assert!(done["undone"].is_null() && done["thinning"]["unneeded_bytes"].as_u64() > Some(0), "{done}");
    is_kept();
    mount.unmount();
}
