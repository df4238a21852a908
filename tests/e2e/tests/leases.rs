//! Leases on a real mount: granted with the answer, few, durable, renewed while something is open, ended.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use weft_e2e::{Mount, Place, cmd};

fn json(mount: &Mount, args: &[&str]) -> Value {
    let text = cmd::run(mount.weft().args(args).arg("--json").arg(&mount.point)).ok();
    serde_json::from_str(&text).unwrap()
}

fn leases(mount: &Mount) -> Vec<Value> {
    json(mount, &["leases"]).as_array().unwrap().clone()
}

fn ids(mount: &Mount) -> Vec<u64> {
    leases(mount).iter().map(|lease| lease["id"].as_u64().unwrap()).collect()
}

/// Lease events in the journal.
fn events(mount: &Mount) -> usize {
    let text = cmd::run(mount.weft().args(["journal", "dump", "--json"]).arg(&mount.point)).ok();
    text.matches("\"lease\"").count()
}

fn set_lease(mount: &Mount, secs: u64) {
    fs::create_dir_all(&mount.store).unwrap();
    fs::write(mount.store.join("weft.toml"), format!("lease_secs = {secs}\n")).unwrap();
}

#[track_caller]
fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "still not: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_lease_comes_with_the_answer_and_survives_a_crash_until_it_is_ended() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    fs::write(mount.point.join("f"), "first").unwrap();
    let answer = json(&mount, &["at", "now"]);
    let lease = &answer["lease"];
    let (id, view) =
        (lease["id"].as_u64().unwrap(), answer["view"].as_str().unwrap().trim_start_matches('@'));
    assert_eq!((id, &lease["durable"]), (answer["seq"].as_u64().unwrap(), &true.into()));
    assert!((590..=600).contains(&lease["left_secs"].as_u64().unwrap()), "{lease}");
    assert!(lease["by"].as_str().unwrap().contains("uid 0"), "{lease}");
    let told = cmd::run(mount.weft().args(["resolve", view]).arg(&mount.point)).ok();
    assert!(told.contains(&format!("lease      {id} until 2")), "{told}");
    // Asked again and again within half its life, it is the same one, and nothing is written.
    let events_before = events(&mount);
    for _ in 0..5 {
        assert_eq!(json(&mount, &["at", view])["lease"]["id"], id);
    }
    assert_eq!(events(&mount), events_before);
    fs::write(mount.point.join("f"), "second").unwrap();
    let second = json(&mount, &["at", "now"])["lease"]["id"].as_u64().unwrap();
    assert_eq!(ids(&mount), [id, second]);
    mount.crash();
    assert_eq!(ids(&mount), [id, second]);
    assert!(leases(&mount)[0]["left_secs"].as_u64() <= Some(600));
    let text = cmd::run(mount.weft().arg("leases").arg(&mount.point)).ok();
    assert!(text.starts_with("LEASE") && text.contains("uid 0"), "{text}");

    let ended = cmd::run(mount.weft().args(["leases", "end", &id.to_string()]).arg(&mount.point)).ok();
    assert!(ended.starts_with(&format!("lease {id} on seq {id} of 2")), "{ended}");
    assert_eq!(ids(&mount), [second]);
    mount.crash();
    assert_eq!(ids(&mount), [second]);
    mount.unmount();
    mount.remount();
    assert_eq!(ids(&mount), [second]);
    assert_eq!(mount.status()["leases"], 1);

    for (args, why) in [
        (vec!["leases", "end", "999999"], "there is no lease 999999"),
        (vec!["leases", "end", "x"], "invalid value"),
        (vec!["leases", "end", &id.to_string()], "there is no lease"),
    ] {
        let out = cmd::run(mount.weft().args(&args).arg(&mount.point));
        assert!(out.code != 0 && out.stderr.contains(why), "{args:?}: {}", out.stderr);
    }
}

#[test]
fn leases_end_by_themselves_and_what_is_open_is_leased_on() {
    let place = Place::new();
    let mount = Mount::new(&place);
    set_lease(&mount, 2);
    let mount = mount.mount();
    fs::write(mount.point.join("f"), "first").unwrap();
    let view = mount.at("now");
    let id = ids(&mount)[0];
    wait_until("the lease has ended", || ids(&mount).is_empty());

    // An open file has a lease that goes on, durable like any other; a few events are enough.
    fs::write(mount.point.join("f"), "second").unwrap();
    let held = fs::File::open(view.join("f")).unwrap();
    let before = events(&mount);
    wait_until("what is open is leased", || ids(&mount) == [id]);
    assert!(leases(&mount)[0]["by"].as_str().unwrap().contains("open view"));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(ids(&mount), [id], "after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    let written = events(&mount) - before;
    assert!((2..=10).contains(&written), "{written} events in 5 s of a lease of 2 s");
    drop(held);
    wait_until("the last lease has ended", || ids(&mount).is_empty());
    assert_eq!(fs::read_to_string(view.join("f")).unwrap(), "first");
}

#[test]
fn a_lease_length_that_makes_no_sense_is_refused() {
    let place = Place::new();
    let mount = Mount::new(&place);
    for secs in ["0", "2592001", "-1", "\"ten\""] {
        fs::create_dir_all(&mount.store).unwrap();
        fs::write(mount.store.join("weft.toml"), format!("lease_secs = {secs}\n")).unwrap();
        let out = cmd::run(mount.weft().arg("mount").arg(&mount.data));
        assert!(out.code != 0 && out.stderr.contains("weft.toml"), "{secs}: {}", out.stderr);
        assert_eq!(out.stderr.trim().lines().count(), 1, "{}", out.stderr);
        assert!(!Path::new(&mount.data).join(".weft").exists());
    }
}

/// Changes a byte where the journal holds this.
fn damage(store: &Path, needle: &[u8]) {
    let mut damaged = 0;
    for entry in fs::read_dir(store.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(needle.len()).position(|window| window == needle);
        if let Some(at) = at {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).and_then(|()| file.sync_all()).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1, "nothing was damaged");
}

#[test]
fn what_cannot_be_read_of_one_instant_hides_no_other_lease_or_tag() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let tag = |name: &str| cmd::run(mount.weft().args(["tag", name]).arg(&mount.point)).ok();
    fs::File::create(mount.point.join("needle-in-the-journal")).unwrap();
    tag("lost");
    let lost = json(&mount, &["at", "tag:lost"])["lease"]["id"].as_u64().unwrap();
    fs::write(mount.point.join("other"), "later").unwrap();
    tag("found");
    json(&mount, &["at", "tag:found"]);
    damage(&mount.store, b"needle-in-the-journal");

    let tags = json(&mount, &["tags"]);
    let row = |name: &str| {
        let row = tags.as_array().unwrap().iter().find(|row| row["tag"] == name).unwrap();
        (row["actual"].is_string(), row["trouble"].is_string())
    };
    assert_eq!((row("lost"), row("found")), ((false, true), (true, false)), "{tags}");
    let troubled = |lease: &Value| (lease["actual"].is_string(), lease["trouble"].is_string());
    let all: Vec<(bool, bool)> = leases(&mount).iter().map(troubled).collect();
    assert_eq!(all, [(false, true), (true, false)]);
    for listed in ["tags", "leases"] {
        let text = cmd::run(mount.weft().arg(listed).arg(&mount.point)).ok();
        assert!(text.contains("? (") && text.lines().count() == 3, "{text}");
    }
    // What was done is not said to have failed.
    let ended = cmd::run(mount.weft().args(["leases", "end", &lost.to_string()]).arg(&mount.point)).ok();
    assert!(ended.contains("has ended"), "{ended}");
    cmd::run(mount.weft().args(["tag", "rm", "lost"]).arg(&mount.point)).ok();
    assert_eq!(json(&mount, &["tags"]).as_array().unwrap().len(), 1);
    mount.unmount();
}
