//! Tags, the versions of a file, what differs between instants, and a look into the journal.

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::{Mount, Place, cmd, mount};

/// `weft ARGS`, which must succeed.
#[track_caller]
fn weft(args: &[&str]) -> String {
    cmd::run(mount::weft().args(args)).ok()
}

#[track_caller]
fn weft_json(args: &[&str]) -> Value {
    let text = weft(args);
    serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{args:?} is not JSON ({cause}): {text}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Kinds of the lines of `weft log`, newest first.
fn kinds(log: &Value) -> Vec<String> {
    log["versions"].as_array().unwrap().iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn tags_are_views_and_survive_everything() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let point = text(&mount.point).to_owned();
    fs::write(mount.point.join("f"), "first").unwrap();
    weft(&["tag", "before migration", &point]);
    fs::write(mount.point.join("f"), "second").unwrap();
    weft(&["tag", "after", "--at", "now", &point]);
    fs::write(mount.point.join("f"), "third").unwrap();
    let check = |when: &str| {
        for (tag, expected) in [("before migration", "first"), ("after", "second")] {
            let view = mount.point.join(format!("@tag={tag}"));
            assert!(fs::symlink_metadata(&view).unwrap().is_dir(), "{when}: {tag} is no directory");
            assert_eq!(fs::read_to_string(view.join("f")).unwrap(), expected, "{when}: {tag}");
            for name in [format!("tag:{tag}"), format!("@tag={tag}")] {
                let path = PathBuf::from(weft(&["at", &name, &point]));
                assert!(path.file_name().unwrap().to_str().unwrap().starts_with("@seq="), "{path:?}");
                assert_eq!(fs::read_to_string(path.join("f")).unwrap(), expected, "{when}: {name}");
            }
        }
    };
    check("while mounted");
    // Durable before the command answered.
    mount.crash();
    check("after kill -9");
    mount.unmount();
    let tags = weft_json(&["tags", "--json", "--store", text(&mount.store)]);
    assert_eq!((&tags[0]["tag"], &tags[1]["tag"]), (&"after".into(), &"before migration".into()));
    assert!(tags[0]["actual"].is_string() && tags[0]["made"].is_string(), "{tags}");
    mount.remount();
    check("after unmount and mount");
    // Taken back and given again: the kernel keeps neither the name nor its absence.
    let view = mount.point.join("@tag=after");
    let mut held = fs::File::open(view.join("f")).unwrap();
    fs::write(mount.point.join("f"), "fourth").unwrap();
    weft(&["tag", "rm", "after", &point]);
    assert!(!view.exists());
    weft(&["tag", "after", &point]);
    assert_eq!(fs::read_to_string(view.join("f")).unwrap(), "fourth");
    let mut old = String::new();
    held.read_to_string(&mut old).unwrap();
    assert_eq!(old, "second", "an open file moved to another instant");
    let copy = place.join("copy");
    cmd::cp(&view, &copy);
    assert_eq!(fs::read_to_string(copy.join("f")).unwrap(), "fourth");
}

#[test]
fn bad_tags_are_refused_with_what_to_do() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let point = text(&mount.point).to_owned();
    weft(&["tag", "before-migration", &point]);
    let refused = |args: &[&str], why: &str| {
        let out = cmd::run(mount::weft().args(args).arg(&point));
        let told = out.stderr.trim();
        assert!(out.code != 0 && told.contains(why) && !told.contains('\n'), "{args:?}: {told}");
    };
    refused(&["tag", "before-migration"], "exists already");
    refused(&["tag", "a/b"], "'/'");
    refused(&["tag", "a\nb"], "control");
    refused(&["tag", ""], "needs a name");
    refused(&["tag", &"x".repeat(251)], "at most 250");
    refused(&["tag", "rm", "before-migratoin"], "\"before-migration\"");
    refused(&["tag", "x", "--at", "-1h"], "before history began");
    refused(&["tag", "x", "--at", "2099-01-01T00:00:00Z"], "in the future");
    refused(&["at", "tag:nothing"], "there is no tag");
    weft(&["tag", &"x".repeat(250), &point]);
    assert!(mount.point.join(format!("@tag={}", "x".repeat(250))).exists());
    assert!(!mount.point.join("@tag=nothing").exists());
}

#[test]
fn the_log_of_a_file_goes_through_renames_and_past_its_end() {
    let place = Place::new();
    let mount = Mount::new(&place);
    fs::create_dir(mount.data.join("d")).unwrap();
    fs::write(mount.data.join("d/old"), "was there").unwrap();
    let mount = mount.mount();
    let at = |name: &str| mount.point.join(name);
    fs::write(at("a"), "12345").unwrap();
    fs::rename(at("a"), at("d/b")).unwrap();
    let view = mount.at("now");
    fs::rename(at("d"), at("e")).unwrap();
    fs::hard_link(at("e/b"), at("c")).unwrap();
    fs::set_permissions(at("c"), fs::Permissions::from_mode(0o640)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(at("c")).unwrap();
    for page in 0..50 {
        file.write_all_at(&[7; 4_096], page * 4_096).unwrap();
    }
    file.set_len(100).unwrap();
    drop(file);
    let log = weft_json(&["log", "--json", text(&at("c"))]);
    let expected = ["truncate", "write", "attr", "link", "rename", "write", "create"];
    assert_eq!(kinds(&log), expected, "{log:#}");
    let lines = log["versions"].as_array().unwrap();
    assert_eq!((&lines[1]["events"], &lines[1]["bytes"]), (&50.into(), &(50 * 4_096).into()));
    assert_eq!((&lines[0]["size"], &lines[0]["bytes"]), (&100.into(), &(50 * 4_096 - 100).into()));
    assert_eq!((&lines[4]["from"], &lines[4]["to"]), (&"a".into(), &"d/b".into()), "the names of that time");
    assert_eq!(lines[2]["detail"], "mode 0644 to 0640");
    // Any name that it has or had leads to it.
    let same =
        |path: &Path| assert_eq!(weft_json(&["log", "--json", text(path)])["file"], log["file"], "{path:?}");
    for name in ["e/b", "a", "d/b"] {
        same(&at(name));
    }
    same(&view.join("d/b"));
    assert_eq!(kinds(&weft_json(&["log", "--json", text(&at("e/old"))])), ["adopt"]);
    // A line says which instant has that version.
    let seq = lines[5]["seq"].as_u64().unwrap();
    assert_eq!(fs::read_to_string(at(&format!("@seq={seq}/a"))).unwrap(), "12345");
    // --limit, --all, bounds.
    assert_eq!(kinds(&weft_json(&["log", "--json", "--limit", "2", text(&at("c"))])), expected[..2]);
    assert_eq!(kinds(&weft_json(&["log", "--json", "--all", "--limit", "0", text(&at("c"))])).len(), 56);
    let until = format!("seq={}", lines[3]["seq"]);
    assert_eq!(kinds(&weft_json(&["log", "--json", "--until", &until, text(&at("c"))])), expected[3..]);
    let empty = |path: &Path| {
        for (bounds, why) in [
            (&["--until", "2001-01-01T00:00:00Z"][..], "weft resolve 2001"),
            (&["--since", "-1m", "--until", "-2m"], "turn them round"),
        ] {
            let refused = cmd::run(mount::weft().arg("log").args(bounds).arg(path));
            assert!(refused.code == 1 && refused.stderr.contains(why), "{refused:?}");
        }
    };
    empty(&at("c"));
    // A directory's entries.
    let root = weft_json(&["log", "--json", text(&mount.point)]);
    let last = &root["versions"][0];
    assert_eq!((&last["kind"], &last["to"]), (&"entry".into(), &"c".into()));
    // Gone, and another has taken the name.
    fs::remove_file(at("c")).unwrap();
    fs::remove_file(at("e/b")).unwrap();
    let gone = weft_json(&["log", "--json", text(&at("c"))]);
    assert_eq!((&gone["gone"], &gone["file"], &gone["path"]), (&true.into(), &log["file"], &"e/b".into()));
    fs::write(at("c"), "another").unwrap();
    assert_ne!(weft_json(&["log", "--json", text(&at("c"))])["file"], log["file"]);
    let unknown = cmd::run(mount::weft().arg("log").arg(at("never")));
    assert!(unknown.code != 0 && unknown.stderr.contains("knows no file"), "{}", unknown.stderr);
    // The same without a daemon, by the journal alone; and nothing in STORE changes by looking.
    let mounted = weft_json(&["log", "--json", text(&at("e/b"))]);
    mount.unmount();
    let before = scan(&mount.store);
    empty(&mount.data.join("e/b"));
    let offline = weft_json(&["log", "--json", text(&mount.data.join("e/b"))]);
    assert_eq!(offline["versions"], mounted["versions"]);
    assert_eq!((&offline["path"], &offline["gone"]), (&mounted["path"], &mounted["gone"]));
    let relative = weft_json(&["log", "--json", "--store", text(&mount.store), "e/b"]);
    assert_eq!(relative["versions"], mounted["versions"]);
    assert_same("STORE after looking", &before, &scan(&mount.store), What::All);
}

#[test]
fn a_diff_of_two_instants_names_what_changed_and_how_much() {
    let place = Place::new();
    let mount = Mount::new(&place);
    fs::create_dir(mount.data.join("d")).unwrap();
    fs::write(mount.data.join("d/base"), vec![1; 40_000]).unwrap();
    fs::write(mount.data.join("same"), "same").unwrap();
    let mount = mount.mount();
    let at = |name: &str| mount.point.join(name);
    for (name, len) in [("cut", 10_000), ("moved", 5), ("gone", 7), ("swapped", 3), ("mode", 1)] {
        fs::write(at(name), vec![2; len]).unwrap();
    }
    fs::hard_link(at("mode"), at("mode2")).unwrap();
    let point = text(&mount.point).to_owned();
    weft(&["tag", "one", &point]);
    fs::OpenOptions::new().write(true).open(at("d/base")).unwrap().write_all_at(b"x", 8_192).unwrap();
    fs::OpenOptions::new().write(true).open(at("cut")).unwrap().set_len(4_096).unwrap();
    fs::rename(at("moved"), at("d/here")).unwrap();
    fs::rename(at("d"), at("e")).unwrap();
    fs::remove_file(at("gone")).unwrap();
    fs::write(at("new"), "12345678").unwrap();
    fs::rename(at("new"), at("swapped")).unwrap();
    fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(at("mode2")).unwrap();
    fs::hard_link(at("same"), at("same2")).unwrap();
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/added"), "1234").unwrap();
    let diff = weft_json(&["diff", &point, "now", "tag:one", "--json"]);
    let told: Vec<_> = diff["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let word = |key: &str| line[key].as_str().unwrap_or("").to_owned();
            (word("kind"), word("path"), word("from"), line["changed_bytes"].as_u64().unwrap())
        })
        .collect();
    let expected = [
        ("changed", "cut", "", 5_904),
        ("added", "dir", "", 0),
        ("added", "dir/added", "", 4),
        ("renamed", "e", "d", 0),
        ("changed", "e/base", "", 4_096),
        ("renamed", "e/here", "moved", 0),
        ("removed", "gone", "", 0),
        ("changed", "mode", "", 0),
        ("removed", "mode2", "", 0),
        ("linked", "same2", "same", 0),
        ("replaced", "swapped", "", 8),
    ];
    let expected: Vec<_> =
        expected.map(|(kind, path, from, bytes)| (kind.into(), path.into(), from.into(), bytes)).into();
    assert_eq!(told, expected);
    let part = weft_json(&["diff", &point, "tag:one", "now", "dir", "--json"]);
    assert_eq!(part["differences"].as_array().unwrap().len(), 2);
    assert_eq!(weft(&["diff", &point, "tag:one", "tag:one"]), "no difference");
    let out = cmd::run(mount::weft().args(["diff", &point, "tag:one", "2099-01-01T00:00:00Z"]));
    assert!(out.code != 0 && out.stderr.contains("in the future"), "{}", out.stderr);
}

#[test]
fn the_journal_can_be_looked_at_mounted_crashed_and_damaged() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    for round in 0..20 {
        fs::write(mount.point.join("f"), vec![round; 100_000]).unwrap();
    }
    weft(&["tag", "here", text(&mount.point)]);
    let store = text(&mount.store).to_owned();
    let dump = |more: &[&str]| -> Vec<Value> {
        let args = [&["journal", "dump", "--json", "--store", &store], more].concat();
        weft(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let events = dump(&["--check"]);
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(events.last().unwrap()["kind"], "tag");
    let stat = weft_json(&["journal", "stat", "--json", "--store", &store]);
    assert_eq!(stat["written_bytes"], 2_000_000);
    assert_eq!(
        (&stat["files"][0]["path"], &stat["files"][0]["written_bytes"]),
        (&"f".into(), &2_000_000.into())
    );
    let of_file = dump(&["--file", "f"]);
    assert!(of_file.iter().all(|event| event["file"] == stat["files"][0]["file"]), "{of_file:?}");
    let some = dump(&["--from", "5", "--to", "7"]);
    assert_eq!(some, events[4..7]);
    assert_eq!(dump(&["--from", "5", "--limit", "1"]), events[4..5]);
    let since = events[9]["time"].as_str().unwrap();
    let first = dump(&["--from", since, "--limit", "1"]).remove(0);
    assert!(first["time"].as_str().unwrap() >= since && first["seq"].as_u64() <= events[9]["seq"].as_u64());
    // Of a crashed store, and nothing is changed by looking.
    mount.kill9();
    let before = scan(&mount.store);
    assert_eq!(dump(&["--check"]), events);
    assert_same("STORE after a look", &before, &scan(&mount.store), What::All);
    // Damage in the middle: told with its position, and what is behind it is shown.
    mount.remount();
    fs::write(mount.point.join("f"), "a second session").unwrap();
    mount.unmount();
    let all = dump(&[]).len();
    let hit = events.iter().filter(|event| event["kind"] == "write").nth(2).unwrap();
    let segment = mount.store.join(format!("journal/{:010}.seg", hit["segment"].as_u64().unwrap()));
    let group = hit["group"].as_u64().unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(segment).unwrap();
    file.write_all_at(&[0xee; 4], group + 70).unwrap();
    let out = cmd::run(mount::weft().args(["journal", "dump", "--store", &store]));
    assert!(out.code != 0 && out.stderr.contains("damaged in 1 place"), "{}", out.stderr);
    let line = out
        .stdout
        .lines()
        .find(|line| line.starts_with("DAMAGE"))
        .unwrap_or_else(|| panic!("{}", out.stdout));
    assert!(line.contains(&format!("byte {group} of segment {}", hit["segment"])), "{line}");
    let lines = out.stdout.lines().count();
    assert!(
        lines < all
            && out.stdout.trim_end().lines().last().unwrap().split(' ').next() == Some(&all.to_string())
    );
    let out = cmd::run(mount::weft().args(["journal", "stat", "--json", "--store", &store]));
    let stat: Value = serde_json::from_str(&out.stdout).unwrap();
    assert_eq!((out.code == 0, &stat["damage"][0]["offset"]), (false, &group.into()));
}
