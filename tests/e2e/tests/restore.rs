//! `weft restore`: the past as plain files, proven; and what it refuses.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::{Mount, Place, Postgres, cmd};

const UNFINISHED: &str = ".weft-restore-unfinished";

/// `weft restore ARGS`.
fn restore<S: AsRef<OsStr>>(mount: &Mount, args: &[S]) -> cmd::Output {
    cmd::run(mount.weft().arg("restore").args(args))
}

/// All kinds of entries, below `dir`.
fn fill(dir: &Path) {
    fs::create_dir_all(dir.join("a/b")).unwrap();
    fs::write(dir.join("a/small"), b"small").unwrap();
    fs::write(dir.join("a/empty"), b"").unwrap();
    let sparse = File::create(dir.join("a/b/sparse")).unwrap();
    sparse.set_len(200 << 20).unwrap();
    for at in [0, 70 << 20, (200 << 20) - 4096] {
        sparse.write_all_at(&[7; 4096], at).unwrap();
    }
    fs::hard_link(dir.join("a/small"), dir.join("a/b/second name")).unwrap();
    symlink("../small", dir.join("a/b/link")).unwrap();
    cmd::call("mkfifo", &[dir.join("a/fifo")]).ok();
    cmd::call("setfattr", &["-n", "user.note", "-v", "x", dir.join("a/small").to_str().unwrap()]).ok();
    cmd::call("chown", &["postgres", dir.join("a/empty").to_str().unwrap()]).ok();
    fs::set_permissions(dir.join("a/empty"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(dir.join("a/b"), fs::Permissions::from_mode(0o1700)).unwrap();
    cmd::call("touch", &["-d", "2001-02-03T04:05:06.789", dir.join("a").to_str().unwrap()]).ok();
}

#[test]
fn an_instant_comes_back_whole_and_what_was_there_later_does_not() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    fill(&mount.point);
    let before = mount.at("now");
    fs::write(mount.point.join("a/small"), b"other").unwrap();
    fs::write(mount.point.join("later"), b"").unwrap();
    let time = before.file_name().unwrap().to_str().unwrap().trim_start_matches("@ts=").to_owned();
    let target = place.join("copy");
    let to = target.to_str().unwrap();
    let data = mount.point.to_str().unwrap().to_owned();
    let told = restore(&mount, &[&data, "--at", &time, "--to", to]).ok();
    assert!(told.contains("all read back and right"), "{told}");
    assert_same("restored", &scan(&before), &scan(&target), What::All);
    assert!(fs::metadata(target.join("a/b/sparse")).unwrap().blocks() < 2_048, "holes stay holes");

    let refused = |args: &[&str], why: &str| {
        let output = restore(&mount, args);
        assert!(output.code == 1 && output.stderr.contains(why), "{args:?}: {}", output.stderr);
        assert_eq!(output.stderr.trim().lines().count(), 1, "{}", output.stderr);
    };
    refused(&[&data, "--at", &time, "--to", to], "not empty");
    refused(&[&data, "--at", &time, "--to", &format!("{data}/new")], "is live");
    refused(&[&data, "--at", &time, "--to", mount.store.join("x").to_str().unwrap()], "STORE");
    let other = place.join("other");
    let other = other.to_str().unwrap();
    refused(&[&data, "--at", "2001-01-01T00:00:00Z", "--to", other], "before history began");
    refused(&[&data, "--at", "tomorrow", "--to", other], "tomorrow");
    refused(&[&data, "--at", &time, "--to", other, "--partition", "no/such"], "weft partitions");
    assert!(!Path::new(other).exists(), "what is refused leaves nothing");

    let file = mount.point.join("a/b/sparse");
    restore(&mount, &[file.to_str().unwrap(), "--at", &time, "--to", other]).ok();
    assert_eq!(scan(&place.join("other/a")).keys().filter(|path| path.ends_with("sparse")).count(), 1);
    assert!(!place.join("other/a/small").exists());
    mount.unmount();
}

#[test]
fn an_interrupted_restore_goes_on_where_it_was() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    for number in 0..12u8 {
        fs::write(mount.point.join(format!("f{number}")), vec![number + 1; 6 << 20]).unwrap();
    }
    let view = mount.at("now");
    let time = view.file_name().unwrap().to_str().unwrap().trim_start_matches("@ts=").to_owned();
    let (target, data) = (place.join("copy"), mount.point.to_str().unwrap().to_owned());
    let args = [&data, "--at", &time, "--to", target.to_str().unwrap(), "--jobs", "1"];
    let mut child = mount.weft().arg("restore").args(args).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let noted = || fs::read_to_string(target.join(UNFINISHED)).unwrap_or_default().lines().count();
    while noted() < 4 {
        assert!(
            begun.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(),
            "{}",
            noted()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    weft_e2e::place::kill(child.id() as i32);
    child.wait().unwrap();
    assert!(target.join(UNFINISHED).exists());
    assert_eq!(
        fs::metadata(&target).unwrap().permissions().mode() & 0o777,
        0o700,
        "closed until it is whole"
    );
    fs::write(mount.point.join("f0"), b"later").unwrap();
    let other = restore(&mount, &[&data, "--at", "seq=5", "--to", target.to_str().unwrap()]);
    assert!(other.code == 1 && other.stderr.contains("unfinished restore of"), "{}", other.stderr);
    let told = restore(&mount, &args).ok();
    assert!(told.contains("were there from an earlier run"), "{told}");
    assert_same("restored", &scan(&view), &scan(&target), What::All);
    mount.unmount();
}

/// A whole cluster with its WAL elsewhere: a server starts on the copy as it is, and reaches nothing of production.
#[test]
fn a_cluster_of_several_roots_is_relocated() {
    let place = Place::new();
    let (data, wal) = (place.dir_for("postgres", "data"), place.dir_for("postgres", "wal"));
    let server = Postgres::new(&place, "live", &data);
    server.initdb_with(&[&format!("--waldir={}", wal.display()), "--wal-segsize=1"]);
    let mount = Mount::over(&data).root("wal", &wal).mount();
    server.start();
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 5000) i");
    let view = mount.at("now");
    server.sql("DROP TABLE t");
    let time = view.file_name().unwrap().to_str().unwrap().trim_start_matches("@ts=").to_owned();
    let target = place.join("copy");
    let to = target.to_str().unwrap();
    restore(&mount, &[data.to_str().unwrap(), "--at", &time, "--to", to]).ok();
    assert_eq!(fs::read_link(target.join("pg_wal")).unwrap(), place.join("copy.wal"));
    assert_same(
        "the WAL",
        &scan(&wal.join(format!("@ts={time}"))),
        &scan(&place.join("copy.wal")),
        What::All,
    );
    let copy = Postgres::new(&place, "scratch", &target);
    copy.start();
    assert_eq!(copy.number("SELECT count(*) FROM t"), 5_000);
    copy.amcheck();
    copy.stop();
    server.stop();
    mount.unmount();
}
