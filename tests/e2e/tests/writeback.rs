//! Capture writeback: the barrier before the present, and the order of writes and renames.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use weft_e2e::holder::Holder;
use weft_e2e::mount::Mount;
use weft_e2e::{Capture, Place, cmd};

fn mounted(place: &Place) -> Mount {
    let data = place.join("data");
    fs::create_dir(&data).unwrap();
    Mount::over(&data).capture(Capture::Writeback).mount()
}

/// `weft at now`, with more arguments.
fn now(mount: &Mount, more: &[&str]) -> cmd::Output {
    cmd::run(mount.weft().args(["at", "now"]).arg(&mount.point).args(more))
}

#[track_caller]
fn bytes(view: &str, name: &str) -> Vec<u8> {
    fs::read(Path::new(view).join(name)).unwrap()
}

#[test]
fn what_the_kernel_holds_is_in_the_view_of_now() {
    let place = Place::new();
    let mount = mounted(&place);
    let mut written = Holder::open(&mount.point.join("written"));
    let mut mapped = Holder::open(&mount.point.join("mapped"));
    written.write(b'a', 0, 100_000).unwrap();
    mapped.write(b'a', 0, 100_000).unwrap();
    mapped.map(100_000).unwrap();
    let without = now(&mount, &["--no-flush"]).ok();
    assert_eq!(bytes(&without, "written").len(), 0, "the kernel had sent it anyway: this says nothing");
    let view = now(&mount, &[]).ok();
    assert_eq!(bytes(&view, "written"), vec![b'a'; 100_000]);
    mapped.store(b'm', 50_000, 10).unwrap();
    // The map goes on without the descriptor.
    mapped.close().unwrap();
    mapped.store(b'n', 60_000, 10).unwrap();
    written.write(b'b', 0, 5).unwrap();
    let view = now(&mount, &[]).ok();
    assert_eq!(bytes(&view, "written")[..6], *b"bbbbba");
    let mapped = bytes(&view, "mapped");
    assert_eq!((mapped[50_009], mapped[60_000], mapped[60_010]), (b'm', b'n', b'a'));
    // An earlier view stays as it was.
    assert_eq!(bytes(&without, "written").len(), 0);
}

#[test]
fn a_tag_of_now_has_what_the_kernel_holds() {
    let place = Place::new();
    let mount = mounted(&place);
    let mut holder = Holder::open(&mount.point.join("f"));
    let tag = |name: &str, more: &[&str]| {
        cmd::run(mount.weft().args(["tag", name]).arg(&mount.point).args(more)).ok();
        fs::read(mount.point.join(format!("@tag={name}/f"))).unwrap()
    };
    holder.write(b'x', 0, 50_000).unwrap();
    assert_eq!(tag("without", &["--no-flush"]).len(), 0);
    assert_eq!(tag("with", &[]), vec![b'x'; 50_000]);
}

/// The file is renamed and its directories moved all the while; its number finds it.
#[test]
fn the_barrier_finds_files_that_are_being_renamed() {
    let place = Place::new();
    let mount = mounted(&place);
    let dir = mount.point.join("d/e");
    fs::create_dir_all(&dir).unwrap();
    let mut holder = Holder::open(&dir.join("f"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (one, other) = (mount.point.join("d"), mount.point.join("x"));
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&one, &other).unwrap();
                std::thread::sleep(Duration::from_millis(3));
                fs::rename(&other, &one).unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        for round in 1..20u8 {
            holder.write(round, 0, 10_000).unwrap();
            let at = now(&mount, &[]);
            if at.code != 0 {
                assert!(at.stderr.contains("renamed again and again"), "{}", at.stderr);
                continue;
            }
            let view = PathBuf::from(at.ok());
            let found = ["d/e/f", "x/e/f"].iter().find_map(|name| fs::read(view.join(name)).ok());
            assert_eq!(found.expect("the file has one of its names"), vec![round; 10_000], "round {round}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Writers at full speed do not keep the barrier from ending.
#[test]
fn the_barrier_ends_while_files_are_written_at_full_speed() {
    let place = Place::new();
    let mount = mounted(&place);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (path, stop) = (mount.point.join(format!("f{number}")), &stop);
            scope.spawn(move || {
                let file = File::create(path).unwrap();
                for block in 0u64.. {
                    file.write_all_at(&[block as u8; 64 << 10], block % 256 * (64 << 10)).unwrap();
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..3 {
            let view = now(&mount, &[]).ok();
            assert!(!bytes(&view, "f0").is_empty());
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Who may not open a file is told which one, and how to go on; root may.
#[test]
fn a_file_that_may_not_be_opened_is_named() {
    let place = Place::new();
    let home = place.dir_for("postgres", "home");
    let data = home.join("data");
    cmd::run(cmd::as_user("postgres", "mkdir").arg(&data)).ok();
    let mount = Mount::over(&data).capture(Capture::Writeback).by_user("postgres").mount();
    let script = "umask 0777; exec 3>\"$1\"; chmod 000 \"$1\"; echo there >&3; echo ready; read end";
    let mut writer = cmd::as_user("postgres", "bash")
        .args(["-c", script, "-"])
        .arg(mount.point.join("locked"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let refused = now(&mount, &[]);
    assert_ne!(refused.code, 0);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("locked") && refused.stderr.contains("--no-flush"), "{}", refused.stderr);
    now(&mount, &["--no-flush"]).ok();
    writer.stdin.take().unwrap().write_all(b"\n").unwrap();
    writer.wait().unwrap();
    now(&mount, &[]).ok();
}

/// What was written later does not come into an instant that is over.
#[test]
fn an_earlier_instant_needs_no_barrier() {
    let place = Place::new();
    let mount = mounted(&place);
    let mut holder = Holder::open(&mount.point.join("f"));
    holder.write(b'x', 0, 10).unwrap();
    std::thread::sleep(Duration::from_millis(1_200));
    let before = cmd::run(mount.weft().args(["at", "-1s"]).arg(&mount.point)).ok();
    assert_eq!(bytes(&before, "f").len(), 0, "an earlier instant was filled afterwards");
}

/// write, close, rename over: no view shows the target empty or short.
fn a_replaced_file_is_whole_in_every_view(close_first: bool, by_map: bool) {
    const LEN: usize = 100_000;
    let place = Place::new();
    let mount = mounted(&place);
    let target = mount.point.join("target");
    fs::write(&target, vec![0; LEN]).unwrap();
    let begun = Instant::now();
    let mut rounds = 0u8;
    let mut instants = Vec::new();
    while begun.elapsed() < Duration::from_millis(1_500) && rounds < 12 {
        rounds += 1;
        let temporary = mount.point.join("temporary");
        let mut holder = Holder::open(&temporary);
        holder.write(rounds, 0, LEN).unwrap();
        if by_map {
            holder.map(LEN).unwrap();
            holder.store(rounds, 0, LEN).unwrap();
        }
        if close_first {
            holder.close().unwrap();
        }
        fs::rename(&temporary, &target).unwrap();
        instants.push(weft_e2e::wall::Wall::now());
    }
    assert!(rounds > 5, "only {rounds} rounds");
    let last = mount.status()["seq"].as_u64().unwrap();
    let mut seen = 0;
    for seq in 1..=last {
        let view = mount.point.join(format!("@seq={seq}"));
        let Ok(found) = fs::read(view.join("target")) else { continue };
        // The very first is written in place.
        if found.len() == LEN {
            seen += 1;
            assert!(found.iter().all(|byte| *byte == found[0]), "a mixture at seq {seq}");
        }
        assert!(seen == 0 || found.len() == LEN, "{} bytes at seq {seq}", found.len());
    }
    assert!(seen > usize::from(rounds), "{seen} views had it");
    for (round, at) in (1u8..).zip(&instants) {
        assert_eq!(fs::read(mount.at_wall(*at).join("target")).unwrap()[0], round, "round {round}");
    }
}

#[test]
fn a_file_closed_and_renamed_over_another_is_whole_in_every_view() {
    a_replaced_file_is_whole_in_every_view(true, false);
}

#[test]
fn a_file_mapped_and_renamed_over_another_is_whole_in_every_view() {
    a_replaced_file_is_whole_in_every_view(true, true);
}

#[test]
fn a_file_renamed_over_another_while_open_is_whole_in_every_view() {
    a_replaced_file_is_whole_in_every_view(false, false);
}
