//! Excluded paths: they work as ever, no view has them, and nothing of them is in the journal.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use weft_e2e::cluster::on_copy;
use weft_e2e::{Capture, Mount, Place, Postgres, cmd};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn written(mount: &Mount) -> u64 {
    let stat = cmd::run(mount.weft().args(["journal", "stat", "--json"]).arg(&mount.point)).ok();
    let stat: serde_json::Value = serde_json::from_str(&stat).unwrap();
    stat["written_bytes"].as_u64().unwrap_or_else(|| panic!("no written_bytes in {stat}"))
}

fn works_and_is_in_no_view(capture: Capture) {
    let place = Place::new();
    let mount = Mount::new(&place).capture(capture).mount();
    let (root, tmp) = (&mount.point, mount.point.join("base/pgsql_tmp"));
    fs::create_dir_all(&tmp).unwrap();
    let before = written(&mount);
    let sort = tmp.join("pgsql_tmp1.0");
    fs::write(&sort, vec![7; 20 << 20]).unwrap();
    fs::create_dir(tmp.join("set")).unwrap();
    fs::write(tmp.join("set/0.0"), b"shared").unwrap();
    fs::write(root.join("postmaster.pid"), b"4711\n").unwrap();
    OpenOptions::new().write(true).open(root.join("postmaster.pid")).unwrap().sync_all().unwrap();
    let open = OpenOptions::new().read(true).write(true).open(&sort).unwrap();
    open.write_all_at(b"here", 5 << 20).unwrap();
    open.set_len(6 << 20).unwrap();
    open.sync_all().unwrap();
    assert!(written(&mount) - before < 1 << 20, "temporary bytes went to the journal");

    let view = mount.at("now");
    assert_eq!(names(&view.join("base/pgsql_tmp")), Vec::<String>::new());
    assert!(!view.join("postmaster.pid").exists() && root.join("postmaster.pid").exists());
    assert_eq!(fs::metadata(view.join("base/pgsql_tmp")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(&tmp).unwrap().nlink(), 3);

    // Out of the excluded: captured, with all its bytes.
    fs::rename(&sort, root.join("kept")).unwrap();
    let captured = mount.at("now");
    open.write_all_at(b"later", 0).unwrap();
    open.sync_all().unwrap();
    fs::hard_link(tmp.join("set/0.0"), root.join("linked")).unwrap();
    // Into the excluded: its past stays.
    fs::write(root.join("table"), b"rows").unwrap();
    let with_table = mount.at("now");
    fs::rename(root.join("table"), tmp.join("table")).unwrap();
    let without = mount.at("now");
    // A directory with something in it does not cross; mv copies.
    let crossed = fs::rename(tmp.join("set"), root.join("set")).unwrap_err();
    assert_eq!(crossed.raw_os_error(), Some(libc::EXDEV));
    cmd::call("mv", &[tmp.join("set"), root.join("set")]).ok();

    let check = |round: &str| {
        let mut expected = vec![7; 6 << 20];
        expected[5 << 20..(5 << 20) + 4].copy_from_slice(b"here");
        assert!(fs::read(captured.join("kept")).unwrap() == expected, "{round}: what was captured");
        expected[..5].copy_from_slice(b"later");
        assert!(fs::read(root.join("kept")).unwrap() == expected, "{round}: the present");
        assert!(!captured.join("linked").exists());
        assert_eq!(fs::read(without.join("linked")).unwrap(), b"shared", "{round}");
        assert_eq!(fs::read(with_table.join("table")).unwrap(), b"rows", "{round}");
        assert_eq!(names(&without.join("base/pgsql_tmp")), Vec::<String>::new(), "{round}");
        assert_eq!(fs::read(tmp.join("table")).unwrap(), b"rows", "{round}");
        assert_eq!(fs::read(root.join("set/0.0")).unwrap(), b"shared", "{round}");
        assert_eq!(fs::read(root.join("postmaster.pid")).unwrap(), b"4711\n", "{round}");
    };
    check("at once");
    drop(open);
    cmd::call("sync", &["-f".as_ref(), root.join("set/0.0").as_os_str()]).ok();
    fs::File::open(root.join("set/0.0")).unwrap().sync_all().unwrap();
    mount.crash();
    check("after a crash");
    mount.unmount();
    assert_eq!(fs::read(mount.data.join("postmaster.pid")).unwrap(), b"4711\n");
    mount.remount();
    check("mounted again");
    let status = mount.status();
    assert!(status["exclude"].as_array().unwrap().iter().any(|text| text == "pgsql_tmp/"), "{status}");
    assert_eq!(status["excluded_files"], 2, "{status}");
}

#[test]
fn excluded_paths_strict() {
    works_and_is_in_no_view(Capture::Strict);
}

#[test]
fn excluded_paths_writeback() {
    works_and_is_in_no_view(Capture::Writeback);
}

/// Patterns of weft.toml: checked, and brought to bear on what was history before, and back.
#[test]
fn patterns_change_between_mounts() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    fs::create_dir(mount.point.join("log")).unwrap();
    fs::write(mount.point.join("log/today"), vec![1; 3 << 20]).unwrap();
    let with = mount.at("now");
    mount.unmount();
    let settings = mount.store.join("weft.toml");
    fs::write(&settings, "exclude = [\"log/\"]\n").unwrap();
    mount.remount();
    let before = written(&mount);
    let log = OpenOptions::new().write(true).open(mount.point.join("log/today")).unwrap();
    log.write_all_at(&[2; 1 << 20], 0).unwrap();
    log.sync_all().unwrap();
    drop(log);
    assert!(written(&mount) - before < 64 << 10);
    assert_eq!(names(&mount.at("now").join("log")), Vec::<String>::new());
    assert!(fs::read(with.join("log/today")).unwrap() == vec![1; 3 << 20], "the past of an excluded file");
    mount.crash();
    assert!(fs::read(with.join("log/today")).unwrap() == vec![1; 3 << 20]);
    mount.unmount();
    fs::write(&settings, "").unwrap();
    mount.remount();
    let again = mount.at("now");
    let mut now = vec![2; 1 << 20];
    now.resize(3 << 20, 1);
    assert!(fs::read(again.join("log/today")).unwrap() == now, "captured when the pattern went");
    mount.unmount();
    for (text, want) in [("exclude = [\"*\"]", "everything"), ("exclude = [\"a//b\"]", "is not a pattern")] {
        fs::write(&settings, text).unwrap();
        let refused = mount.try_mount();
        assert!(refused.code != 0 && refused.stderr.contains(want), "{}", refused.stderr);
        assert_eq!(refused.stderr.trim_end().lines().count(), 1, "{}", refused.stderr);
    }
}

/// A cluster made on an empty mount: its temporary files are excluded from the beginning, and a copy of a view starts
/// without anything being left out of it by hand.
#[test]
fn a_new_cluster_spills_past_the_journal() {
    let place = Place::new();
    let mount = Mount::over(&place.dir_for("postgres", "data")).mount();
    let server = Postgres::new(&place, "live", &mount.point).set("work_mem=1MB").set("log_temp_files=0");
    server.initdb();
    server.start();
    server.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS text FROM generate_series(1, 200000) i");
    // So that reading it writes no hints into its pages.
    server.sql("VACUUM (FREEZE, ANALYZE) t");
    server.sql("CHECKPOINT");
    let before = written(&mount);
    assert_eq!(server.number("SELECT count(*) FROM (SELECT * FROM t ORDER BY text, i OFFSET 10) s"), 199_990);
    let spilled = server.log_tail().contains("temporary file: path \"base/pgsql_tmp/");
    assert!(spilled, "nothing was spilled: {}", server.log_tail());
    assert!(written(&mount) - before < 4 << 20, "temporary files are in the journal");
    let view = mount.at("now");
    assert!(mount.point.join("postmaster.pid").exists() && !view.join("postmaster.pid").exists());
    assert_eq!(mount.status()["profile"], "postgres");
    let copy = place.dir_for("postgres", "copy");
    cmd::call("cp", &[Path::new("-aT"), &view, &copy]).ok();
    let past = Postgres::new(&place, "copy-server", &copy);
    past.start();
    assert_eq!(past.number("SELECT count(*) FROM t"), 200_000);
    past.stop();
    let again = on_copy(&place, "again", &view);
    again.start();
    again.stop();
    server.stop();
}
