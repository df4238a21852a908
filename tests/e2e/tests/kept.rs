//! What retention keeps, as its users have it: a server started on a kept instant, copies made while it prunes, and a
//! lease that outlives prunes and crashes.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use weft_e2e::bank::{self, Bank};
use weft_e2e::cluster::on_copy;
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::wall::Wall;
use weft_e2e::{Mount, Place, Postgres, cmd};

fn configured(mount: Mount, text: &str) -> Mount {
    std::fs::create_dir(&mount.store).unwrap();
    std::fs::write(mount.store.join("weft.toml"), text).unwrap();
    mount.mount()
}

fn json(mount: &Mount, args: &[&str]) -> Value {
    let text = cmd::run(mount.weft().args(args).arg("--json").arg(&mount.point)).ok();
    serde_json::from_str(&text).unwrap()
}

fn secs(count: u64) {
    std::thread::sleep(Duration::from_secs(count));
}

#[test]
fn a_server_starts_on_a_kept_instant_after_pruning() {
    let place = Place::new();
    let tiers = "segment_mib = 16\nlease_secs = 1\nretention_minimum = \"1s\"\n\
                 retention = \"every write for 2s, then one per second for 10m\"\n";
    let mount = configured(Mount::over(&place.dir_for("postgres", "data")), tiers);
    let server = Postgres::new(&place, "live", &mount.point);
    server.initdb();
    server.start();
    bank::open(&server);
    let bank = Bank::start(&server, 4, 1);
    secs(3);
    // A multiple of the tier's period is kept as it was; what follows within the second is not.
    let now = Wall::now();
    let kept = now.plus_us(-now.0.rem_euclid(1_000_000));
    secs(2);
    let commits = bank.stop();
    assert!(commits.len() > 100, "only {} commits: this says little", commits.len());
    // So that all of it is in sealed segments, and old.
    server.sql(
        "CREATE TABLE filler AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 60000) i; CHECKPOINT",
    );
    secs(4);
    cmd::run(mount.weft().args(["weave", "--now"]).arg(&mount.point)).ok();
    let said = json(&mount, &["prune", "--dry-run"]);
    let done = json(&mount, &["prune"]);
    let of = |told: &Value, what: &str| told["thinning"][what].as_u64().unwrap();
    // What the versions of WAL pages that went brought, the next one brings: little comes back of it.
    let (before, after) = (of(&done, "before_bytes"), of(&done, "after_bytes"));
    assert!(of(&done, "unneeded_bytes") > 0 && after < before + before / 50, "{done}");
    println!(
        "dry run: {} to {} bytes; {before} to {after}",
        of(&said, "before_bytes"),
        of(&said, "after_bytes")
    );
    let off = of(&said, "after_bytes").abs_diff(after);
    assert!(off <= of(&said, "before_bytes") / 10, "{off} bytes off: {said} {done}");
    let between = kept.plus_us(700_000).canonical();
    let resolved = json(&mount, &["resolve", &between]);
    assert!(resolved["note"].as_str().is_some_and(|note| note.contains("thinned")), "{resolved}");
    assert!(resolved["actual"].as_str() <= Some(&kept.canonical()), "{resolved}");

    for (name, at) in [("kept", kept.canonical()), ("between", between)] {
        let copy = on_copy(&place, name, &mount.at(&at));
        copy.start();
        bank::check(&copy, &commits, kept);
        copy.amcheck();
        copy.stop();
        copy.checksums();
    }
    server.amcheck();
    server.stop();
    mount.unmount();
}

/// 2 MiB in files and directories that differ from one round to the next.
fn write_round(dir: &Path, round: u32) {
    for number in 0..32_u32 {
        let dir = dir.join(format!("dir{}", number % 4));
        std::fs::create_dir_all(&dir).unwrap();
        let mut state = (round * 64 + number).wrapping_mul(2_654_435_761) | 1;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let bytes: Vec<u8> = noise.take(64 << 10).collect();
        std::fs::write(dir.join(format!("file{}", (number + round) % 40)), bytes).unwrap();
    }
}

/// Ends what goes on beside, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A view of now, and the number of its lease.
fn asked(mount: &Mount) -> (PathBuf, u64) {
    let answer = json(mount, &["at", "now"]);
    (PathBuf::from(answer["path"].as_str().unwrap()), answer["lease"]["id"].as_u64().unwrap())
}

/// Ends all leases but one.
fn end_all_but(mount: &Mount, kept: u64) {
    for lease in json(mount, &["leases"]).as_array().unwrap().iter().filter(|lease| lease["id"] != kept) {
        cmd::run(mount.weft().args(["leases", "end", &lease["id"].to_string()]).arg(&mount.point)).ok();
    }
}

#[test]
fn a_lease_holds_its_instant_through_prunes_copies_and_crashes_until_it_is_ended() {
    let place = Place::new();
    let text = "segment_mib = 24\nretention = \"every write for ever\"\nretention_minimum = \"1s\"\n";
    let mount = configured(Mount::new(&place), text);
    write_round(&mount.point, 1);
    let (other, _) = asked(&mount);
    write_round(&mount.point, 2);
    let (leased, lease) = asked(&mount);
    let expected = scan(&leased);
    (3..20).for_each(|round| write_round(&mount.point, round));
    end_all_but(&mount, lease);
    secs(2);
    cmd::run(mount.weft().args(["retention", "set", "every write for 1s", "--of"]).arg(&mount.point)).ok();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 100;
            while !over.load(Ordering::Relaxed) {
                json(&mount, &["prune"]);
                write_round(&mount.point, round);
                round += 1;
            }
        });
        let _over = Over(&over);
        for (name, copy) in [("cp", cmd::cp as fn(&Path, &Path)), ("rsync", cmd::rsync)] {
            let to = place.join(name);
            if name == "rsync" {
                std::fs::create_dir(&to).unwrap();
            }
            copy(&leased, &to);
            assert_same(name, &expected, &scan(&to), What::All);
        }
    });
    let is_there = |view: &Path| match std::fs::read_dir(view) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
            false
        }
    };
    assert!(!is_there(&other), "what nothing holds has gone");
    mount.crash();
    json(&mount, &["prune"]);
    assert!(is_there(&leased));
    assert_same("after a crash and a prune", &expected, &scan(&leased), What::All);
    end_all_but(&mount, 0);
    // The kernel's own cache of the view is let go when it prunes.
    json(&mount, &["prune"]);
    assert!(!is_there(&leased), "{:#}", json(&mount, &["leases"]));
    mount.unmount();
}

/// Contents of the files below a directory, by path.
fn contents(root: &Path) -> BTreeMap<PathBuf, u64> {
    let files = scan(root).into_iter().filter(|(_, node)| node.kind == 'f');
    files.map(|(path, node)| (path, node.content)).collect()
}

/// Copies as a slow program does: a directory is listed, then one file after the other is opened by its path, with
/// nothing open in between. The first error ends it.
fn copy_slowly(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for dir in std::fs::read_dir(from)?.collect::<Result<Vec<_>, _>>()? {
        let (from, to) = (dir.path(), to.join(dir.file_name()));
        std::fs::create_dir_all(&to)?;
        for file in std::fs::read_dir(&from)?.collect::<Result<Vec<_>, _>>()? {
            std::thread::sleep(Duration::from_millis(100));
            std::fs::write(to.join(file.file_name()), std::fs::read(file.path())?)?;
        }
    }
    Ok(())
}

/// Writes, and prunes all that is older than a second, as fast as it goes.
fn prune_hard(mount: &Mount, over: &AtomicBool) {
    for round in 1000.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        write_round(&mount.point, round);
        cmd::run(mount.weft().args(["weave", "--now"]).arg(&mount.point)).ok();
        json(mount, &["prune"]);
    }
}

#[test]
fn copies_without_a_lease_are_of_one_instant_or_say_estale_while_history_is_pruned() {
    const LEASE_SECS: u64 = 3;
    let place = Place::new();
    let text = format!(
        "segment_mib = 24\nlease_secs = {LEASE_SECS}\nretention_minimum = \"1s\"\nretention = \"every write for 1s\"\n"
    );
    let mount = configured(Mount::new(&place), &text);
    // An earlier instant that stays: what is thinned would show it, and a copy could be of two.
    write_round(&mount.point, 0);
    cmd::run(mount.weft().args(["tag", "early"]).arg(&mount.point)).ok();
    let over = AtomicBool::new(false);
    for (number, name) in ["slow", "cp", "rsync", "slow again"].into_iter().enumerate() {
        write_round(&mount.point, number as u32 + 1);
        let expected = contents(&mount.point);
        let view = mount.point.join(format!("@ts={}", Wall::now().canonical()));
        let to = place.join(&name.replace(' ', "-"));
        over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| prune_hard(&mount, &over));
            let _over = Over(&over);
            match name {
                "cp" => cmd::cp(&view, &to),
                "rsync" => {
                    let (from, to) = (format!("{}/", view.display()), format!("{}/", to.display()));
                    cmd::call("rsync", &["-a", "--bwlimit=700", &from, &to]).ok();
                }
                _ => copy_slowly(&view, &to).unwrap(),
            }
        });
        assert!(contents(&to) == expected, "{name}");
    }
    // Nobody has had anything open for longer than a lease runs: the instant goes, and is never another's or empty. What is
    // open is what it was.
    cmd::run(mount.weft().args(["tag", "rm", "early"]).arg(&mount.point)).ok();
    let mut stale = 0;
    for round in 10..12 {
        write_round(&mount.point, round);
        let expected = contents(&mount.point);
        let view = mount.point.join(format!("@ts={}", Wall::now().canonical()));
        let held = (round % 2 == 0).then(|| std::fs::File::open(view.join("dir1/file1")).unwrap());
        let first = std::fs::read(view.join("dir1/file1"));
        over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| prune_hard(&mount, &over));
            let _over = Over(&over);
            secs(LEASE_SECS + 4);
            for path in expected.keys() {
                match std::fs::read(view.join(path)) {
                    Ok(bytes) => {
                        let copy = place.join("one");
                        std::fs::create_dir_all(&copy).unwrap();
                        std::fs::write(copy.join("file"), bytes).unwrap();
                        assert_eq!(contents(&copy)[Path::new("file")], expected[path], "{}", path.display());
                    }
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{}: {error}", path.display());
                        assert!(held.is_none(), "an instant of which a file is open went");
                        stale += 1;
                    }
                }
            }
        });
        if let Some(mut held) = held {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut held, &mut bytes).unwrap();
            assert!(bytes == first.unwrap());
        }
    }
    assert!(stale > 10, "{stale}: nothing went");
    mount.unmount();
}
