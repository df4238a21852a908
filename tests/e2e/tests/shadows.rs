//! Shadows on real mounts and real filesystems: the commands, and what snapshots cost.
//!
//! `WEFT_SHADOW_MIB=N` makes the table of the measurements larger (scripts/shadow-space: 1 GiB).

use rand::Rng;
use rand::rngs::StdRng;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use weft_e2e::random::seeded;
use weft_e2e::small::Small;
use weft_e2e::{Mount, Place, cmd};

const PAGE: usize = 8192;

/// Bytes that no filesystem makes smaller.
fn noise(random: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill(&mut bytes[..]);
    bytes
}

fn write_table(random: &mut StdRng, path: &Path, mib: usize) {
    let file = File::create(path).unwrap();
    for at in 0..mib {
        file.write_all_at(&noise(random, 1 << 20), (at << 20) as u64).unwrap();
    }
    file.sync_all().unwrap();
}

/// One page in a hundred is written.
fn change_table(random: &mut StdRng, path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let pages = file.metadata().unwrap().len() / PAGE as u64;
    for _ in 0..pages / 100 {
        let at = random.random_range(0..pages) * PAGE as u64;
        file.write_all_at(&noise(random, PAGE), at).unwrap();
    }
    file.sync_all().unwrap();
}

fn used(dir: &Path) -> u64 {
    cmd::call("sync", &["-f".as_ref(), dir.as_os_str()]).ok();
    let space = nix::sys::statvfs::statvfs(dir).unwrap();
    (space.blocks() - space.blocks_free()) * space.fragment_size()
}

fn weft(mount: &Mount, args: &[&str]) -> cmd::Output {
    cmd::run(mount.weft().args(args).arg(&mount.point))
}

fn shadows(mount: &Mount) -> serde_json::Value {
    serde_json::from_str(&weft(mount, &["shadows", "--json"]).ok()).unwrap()
}

/// Three snapshots of a table, one page in a hundred changed between them, take little more than the table.
fn snapshots_share(kind: &str) {
    let mib: usize = std::env::var("WEFT_SHADOW_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(48);
    let place = Place::new();
    let small = Small::new(&place, "volume", kind, 400 + 5 * mib as u64);
    let store = small.dir.join("store");
    fs::create_dir(&store).unwrap();
    let limit = 4 * mib;
    fs::write(
        store.join("weft.toml"),
        format!("segment_mib = 16\nweave = false\nshadow = false\nshadow_limit_mib = {limit}\n"),
    )
    .unwrap();
    let mount = Mount::new(&place).store(&store).mount();
    let (table, mut random) = (mount.point.join("table"), seeded(kind).0);
    write_table(&mut random, &table, mib);
    let (mut taken, mut copies) = (0, Vec::new());
    for round in 0..3 {
        change_table(&mut random, &table);
        let view = mount.at("now");
        let copy = place.join(&format!("copy{round}"));
        fs::copy(view.join("table"), &copy).unwrap();
        let at = view.file_name().unwrap().to_str().unwrap().replace("@ts=", "");
        let before = used(&small.dir);
        cmd::run(mount.weft().args(["shadow", "add", "--at", &at]).arg(&table)).ok();
        taken += used(&small.dir).saturating_sub(before);
        copies.push((view, copy));
    }
    let all = shadows(&mount);
    let shadow = &all["shadows"][0];
    assert_eq!(shadow["snapshots"].as_array().unwrap().len(), 3, "{all}");
    let size = (mib << 20) as f64;
    let (told, real) = (shadow["bytes"].as_u64().unwrap() as f64 / size, taken as f64 / size);
    eprintln!("{kind}: three snapshots of {mib} MiB take {real:.3} of it, {told:.3} by our own count");
    assert!(told < 1.03, "{kind}: {told}");
    // What the filesystem keeps of its own for files of tens of MiB weighs more than for large ones.
    assert!(real < if mib < 512 { 1.08 } else { 1.04 }, "{kind}: {real}");
    let shared = File::open(store.join("shadow/00000001-000003-2.data")).unwrap().metadata().unwrap().len();
    assert_eq!(
        shared as f64 > size / 2.0,
        kind != "ext4",
        "reflinks where there are some, our own extents elsewhere"
    );
    // Out of the kernel's cache, so that it is the shadow that is read.
    mount.unmount();
    mount.remount();
    for (view, copy) in &copies {
        cmd::call("cmp", &[view.join("table").as_os_str(), copy.as_os_str()]).ok();
    }
    let served = shadows(&mount)["status"]["served_bytes"].as_u64().unwrap() as f64;
    assert!(served > 2.9 * size, "{served}");
    let before = used(&small.dir);
    weft(&mount, &["shadow", "rm", "1"]).ok();
    // XFS and btrfs give back in the background what a removed file held.
    let back = || before.saturating_sub(used(&small.dir)) as f64 / size;
    for _ in 0..200 {
        if back() > 0.98 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(back() > 0.98, "{kind}: {} came back", back());
    mount.unmount();
}

#[test]
fn snapshots_share_their_extents_on_ext4() {
    snapshots_share("ext4");
}

#[test]
fn snapshots_share_their_extents_on_xfs() {
    snapshots_share("xfs");
}

#[test]
fn snapshots_share_their_extents_on_btrfs() {
    snapshots_share("btrfs");
}

#[test]
fn the_commands_make_show_and_remove_and_a_broken_shadow_serves_nothing() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let (mut random, _) = seeded("shadows");
    fs::create_dir_all(mount.point.join("base/5")).unwrap();
    let table = mount.point.join("base/5/16397");
    write_table(&mut random, &table, 4);
    let view = mount.at("now");
    let copy = place.join("copy");
    fs::copy(&table, &copy).unwrap();
    change_table(&mut random, &table);
    assert!(weft(&mount, &["shadows"]).ok().starts_with("no shadows"));
    // By its name, and by its path; of then, and of now.
    let at = view.file_name().unwrap().to_str().unwrap().replace("@ts=", "");
    let told = weft(&mount, &["shadow", "add", "--at", &at, "base/5/16397"]).ok();
    assert!(told.contains("shadow 1 of base/5/16397, as of") && told.contains("4.0 MiB"), "{told}");
    let told = cmd::run(mount.weft().args(["shadow", "add"]).arg(&table)).ok();
    assert!(told.contains("kept up to date"), "{told}");
    let told = cmd::run(mount.weft().args(["shadow", "add"]).arg(&table)).ok();
    assert!(told.contains("already"), "{told}");
    for list in [weft(&mount, &["shadows"]).ok(), weft(&mount, &["shadow", "list"]).ok()] {
        assert_eq!(list.matches("base/5/16397").count(), 2, "{list}");
        assert!(list.contains("2 shadows in 8.0 MiB"), "{list}");
    }
    let status = mount.status();
    assert!(
        status["shadow_bytes"].as_u64().unwrap() == 8 << 20 && status["shadows"]["count"] == 2,
        "{status}"
    );
    for key in ["live_bytes", "daemon_cpu_us", "daemon_read_bytes", "daemon_written_bytes"] {
        assert!(status[key].as_u64().is_some(), "{key}: {status}");
    }
    // Across a crash; then damaged: the bytes are those of then all the same, and the shadow is made anew.
    mount.crash();
    assert_eq!(fs::read(view.join("base/5/16397")).unwrap(), fs::read(&copy).unwrap());
    assert!(shadows(&mount)["shadows"][0]["served_bytes"].as_u64().unwrap() >= 4 << 20);
    mount.unmount();
    for entry in fs::read_dir(mount.store.join("shadow")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().ends_with(".data") {
            let file = File::options().write(true).open(entry.path()).unwrap();
            file.write_all_at(b"not what was written", 1_000_000).unwrap();
        }
    }
    mount.remount();
    assert_eq!(fs::read(view.join("base/5/16397")).unwrap(), fs::read(&copy).unwrap());
    let mended = || shadows(&mount)["status"]["broken"] == 1 && shadows(&mount)["status"]["count"] == 2;
    while !mended() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // What makes no sense.
    for (args, want) in [
        (&["shadow", "add", "base/5/1"][..], "no partition"),
        (&["shadow", "add", "--at", "2000-01-01T00:00:00Z", "base/5/16397"], "before history began"),
        (&["shadow", "add", "--at", "2999-01-01T00:00:00Z", "base/5/16397"], "in the future"),
        (&["shadow", "add", "--at", "seq=99999999", "base/5/16397"], "in the future"),
        (&["shadow", "add", "--at", "yesterdayish", "base/5/16397"], ""),
        (&["shadow", "rm", "base/5/1"], "no shadow of base/5/1"),
        (&["shadow", "rm", "77"], "no shadow of 77"),
    ] {
        let refused = weft(&mount, args);
        assert!(refused.code == 1 && refused.stderr.contains(want), "{args:?}: {refused:?}");
        assert_eq!(refused.stderr.trim_end().lines().count(), 1, "{refused:?}");
    }
    assert_eq!(shadows(&mount)["status"]["count"], 2);
    weft(&mount, &["shadow", "resume"]).ok();
    assert_eq!(weft(&mount, &["shadow", "rm", "base/5/16397"]).ok(), "2 removed");
    assert_eq!(fs::read_dir(mount.store.join("shadow")).unwrap().count(), 0);
    mount.unmount();
}
