//! PostgreSQL with its WAL and two tablespaces elsewhere, on another filesystem: several roots, one history. A server
//! on a copy of the past runs beside production and changes nothing of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_e2e::bank::{self, Bank};
use weft_e2e::cluster::on_copy;
use weft_e2e::tree::{What, differences, scan};
use weft_e2e::wall::Wall;
use weft_e2e::{Mount, Place, Postgres, Tree, cmd};

/// A cluster whose WAL is beside it and whose two tablespaces are on a volume of their own.
struct Spread {
    data: PathBuf,
    wal: PathBuf,
    volume: PathBuf,
}

impl Spread {
    fn new(place: &Place) -> Spread {
        let volume = place.volume("volume", 160);
        cmd::call("chown", &["postgres".as_ref(), volume.as_os_str()]).ok();
        for name in ["ts1", "ts2"] {
            cmd::run(cmd::as_user("postgres", "mkdir").arg(volume.join(name))).ok();
        }
        Spread { data: place.dir_for("postgres", "data"), wal: place.dir_for("postgres", "wal"), volume }
    }

    /// Makes the cluster, without Weft, with the bank's tables in the tablespaces.
    fn fill(&self, place: &Place) {
        let server = Postgres::new(place, "first", &self.data);
        server.initdb_with(&[&format!("--waldir={}", self.wal.display()), "--wal-segsize=1"]);
        server.start();
        for name in ["ts1", "ts2"] {
            let sql = format!("CREATE TABLESPACE {name} LOCATION '{}'", self.volume.join(name).display());
            server.connect("postgres").batch_execute(&sql).unwrap();
        }
        bank::open(&server);
        server.sql("ALTER TABLE account SET TABLESPACE ts1");
        server.sql("ALTER TABLE transfer SET TABLESPACE ts2");
        server.stop();
    }

    /// Everything that production consists of.
    fn scan(&self) -> Vec<Tree> {
        let parts = [&self.data, &self.wal, &self.volume.join("ts1"), &self.volume.join("ts2")];
        parts.into_iter().map(|part| scan(part)).collect()
    }

    /// What of production is not as it was, in words.
    fn changes(&self, before: &[Tree]) -> Vec<String> {
        let now = self.scan();
        before.iter().zip(&now).flat_map(|(before, now)| differences(before, now, What::All)).collect()
    }
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Makes a server write wherever it can: tables in both tablespaces, WAL segments, checkpoints.
fn scribble(server: &Postgres) {
    server.sql(
        "UPDATE account SET filler = repeat('s', 80); DELETE FROM transfer; CREATE TABLE scribble (i int)",
    );
    for _ in 0..3 {
        server.sql("INSERT INTO scribble SELECT * FROM generate_series(1, 20000); SELECT pg_switch_wal()");
        server.sql("CHECKPOINT");
    }
}

/// The guide's recipe for a copy with links, as it stands there.
fn relink(scratch: &Path) {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/postgresql.md")).unwrap();
    let after = guide.split_once("<!-- run by tests/e2e/tests/pg_roots.rs").expect("the recipe's mark").1;
    let recipe = after.split("```").nth(1).expect("the recipe");
    assert!(recipe.contains("rsync") && recipe.contains("ln -sfn"), "{recipe}");
    cmd::run(std::process::Command::new("sh").arg("-euc").arg(recipe).env("scratch", scratch)).ok();
}

/// A server on a copy of a view, made as the guide says.
fn scratch_server(place: &Place, name: &str, view: &Path) -> Postgres {
    let server = on_copy(place, name, view);
    relink(&server.dir);
    server
}

/// The `--root` arguments that a refusal proposes.
fn proposed(refusal: &str) -> Vec<(String, PathBuf)> {
    let parts = refusal.trim().split("--root ").skip(1);
    parts
        .map(|part| part.trim().split_once('=').unwrap())
        .map(|(name, dir)| (name.into(), dir.into()))
        .collect()
}

#[test]
fn wal_and_tablespaces_travel_together_and_production_is_left_alone() {
    let place = Place::new();
    let spread = Spread::new(&place);
    spread.fill(&place);
    let before = spread.scan();
    let mut mount = Mount::over(&spread.data);
    let refused = mount.try_mount();
    assert_ne!(refused.code, 0, "mounted without its WAL");
    mount.roots = proposed(&refused.stderr);
    assert_eq!(mount.roots.len(), 3, "{}", refused.stderr);
    assert_eq!(spread.changes(&before), Vec::<String>::new(), "the refusal changed something");
    let mount = mount.mount();
    assert_eq!(spread.changes(&before), Vec::<String>::new(), "mounting changed something");

    let server = Postgres::new(&place, "live", &mount.point);
    server.start();
    let bank = Bank::start(&server, 3, 1);
    pause(1_500);
    let at = Wall::now();
    pause(300);
    // The copy starts while the original runs, and holds exactly what it must.
    let view = mount.at_wall(at);
    let copy = scratch_server(&place, "copy", &view);
    copy.start();
    let commits = bank.stop();
    assert!(commits.len() > 50, "only {} commits: this says little", commits.len());
    bank::check(&copy, &commits, at);
    copy.amcheck();
    // A table of a tablespace is found in its root by what the catalogue calls it.
    let conninfo = format!("host={} user=postgres dbname=postgres", server.socket.display());
    let asked = ["--pg", &conninfo, "--where", "true", "--json"];
    let declare = mount.weft().args(["split", "declare", "account"]).arg(&mount.point).args(asked).output();
    let declared = String::from_utf8(declare.unwrap().stdout).unwrap();
    assert!(declared.contains(":PG_"), "{declared}");

    // Whatever the copy writes, production stays as it is.
    server.stop();
    let quiet = spread.scan();
    scribble(&copy);
    copy.stop();
    copy.checksums();
    assert_eq!(spread.changes(&quiet), Vec::<String>::new(), "the copy wrote into production");
    // Nor does one whose links were left as the view shows them.
    let naive = on_copy(&place, "naive", &view);
    assert_ne!(naive.try_start().code, 0, "a server started on a read-only WAL");
    assert_eq!(spread.changes(&quiet), Vec::<String>::new(), "the naive copy wrote into production");

    // Without Weft the plain directories are the database.
    mount.unmount();
    assert_eq!(spread.changes(&quiet), Vec::<String>::new(), "unmounting changed something");
    server.checksums();
    server.start();
    bank::check(&server, &commits, Wall::now());
    server.amcheck();
}

/// The check above would see it: a copy that follows links into production, as a copy without Weft does, does write
/// there. On throw-away data.
#[test]
fn a_copy_that_reaches_production_is_noticed() {
    let place = Place::new();
    let spread = Spread::new(&place);
    spread.fill(&place);
    let quiet = spread.scan();
    let copy = on_copy(&place, "copy", &spread.data);
    assert_eq!(spread.changes(&quiet), Vec::<String>::new(), "copying changed something");
    copy.start();
    scribble(&copy);
    copy.stop();
    let changes = spread.changes(&quiet);
    let wal = changes.iter().any(|line| line.starts_with("\"0000000"));
    let table = changes.iter().any(|line| line.starts_with("\"PG_"));
    assert!(wal && table, "not seen: {changes:?}");
}

#[test]
fn kill9_of_server_and_daemon_together_and_a_tablespace_outside_of_the_set() {
    let place = Place::new();
    let spread = Spread::new(&place);
    spread.fill(&place);
    let mut mount = Mount::over(&spread.data).root("wal", &spread.wal).root("tablespaces", &spread.volume);
    mount.remount();
    // From now on STORE knows the set.
    mount.roots.clear();
    let server = Postgres::new(&place, "live", &mount.point);
    server.start();
    // A table of a tablespace in a directory of a root is found there, by whatever path.
    let conninfo = format!("host={} user=postgres dbname=postgres", server.socket.display());
    let asked = ["split", "declare", "account", "--pg", &conninfo, "--json"];
    let declared = cmd::run(mount.weft().args(asked).arg(&mount.point)).ok();
    let declared: serde_json::Value = serde_json::from_str(&declared).unwrap();
    let parent = declared["parent"].as_str().unwrap();
    let (place_of, below) = parent.split_once("/PG_").unwrap();
    assert!(place_of.starts_with("tablespaces:"), "{parent}");
    let asked = ["split", "declare", &format!("PG_{below}"), "--json"];
    let again = cmd::run(mount.weft().args(asked).arg(&mount.point)).ok();
    assert!(again.contains(&format!("{parent:?}")), "{again}");
    let mut commits = Vec::new();
    let mut instants = Vec::new();
    for round in 0..2 {
        let bank = Bank::start(&server, 2, round + 1);
        pause(900);
        let view = mount.at("now");
        instants.push((scan(&view.join("pg_wal")), scan(&view.join("pg_tblspc")), view));
        pause(300);
        mount.kill9();
        commits.extend(bank.stop());
        server.kill_all();
        mount.remount();
        for (number, (wal, tablespaces, view)) in instants.iter().enumerate() {
            let found = differences(wal, &scan(&view.join("pg_wal")), What::All);
            assert_eq!(found, Vec::<String>::new(), "round {round}: the WAL of view {number}");
            let found = differences(tablespaces, &scan(&view.join("pg_tblspc")), What::All);
            assert_eq!(found, Vec::<String>::new(), "round {round}: the links of view {number}");
        }
        server.start();
        bank::check(&server, &commits, Wall::now());
    }
    server.amcheck();

    let outside = place.dir_for("postgres", "outside");
    let sql = format!("CREATE TABLESPACE stray LOCATION '{}'", outside.display());
    server.connect("postgres").batch_execute(&sql).unwrap();
    let oid = server.number("SELECT oid::bigint FROM pg_tablespace WHERE spcname = 'stray'");
    let view = mount.at("now");
    let shown = fs::read_link(view.join(format!("pg_tblspc/{oid}"))).unwrap();
    assert_eq!(shown, Path::new(&format!("/nonexistent/weft-not-covered{}", outside.display())));
    let problems = mount.status()["problems"].to_string();
    assert!(problems.contains(&format!("--root ts{oid}={}", outside.display())), "{problems}");
    let log = fs::read_to_string(mount.store.join("weft.log")).unwrap();
    assert!(log.contains("which no root covers"), "the log does not tell");
    server.stop();
    mount.unmount();
    // Now it is asked for, by what is said; and then it is covered.
    let refused = mount.try_mount();
    mount.roots = proposed(&refused.stderr);
    assert_eq!(mount.roots, [(format!("ts{oid}"), outside.clone())], "{}", refused.stderr);
    mount.remount();
    let shown = fs::read_link(mount.at("now").join(format!("pg_tblspc/{oid}"))).unwrap();
    assert!(shown.starts_with(&outside) && shown != outside, "{}", shown.display());
    server.start();
    bank::check(&server, &commits, Wall::now());
    server.stop();
    mount.unmount();
}

/// A link by another path of the same place, and one with `..`, are known for what they are.
#[test]
fn links_are_known_by_any_path_of_a_root() {
    let place = Place::new();
    let (data, wal) = (place.join("data"), place.join("wal"));
    for dir in ["base", "global", "pg_tblspc"] {
        fs::create_dir_all(data.join(dir)).unwrap();
    }
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    fs::create_dir(&wal).unwrap();
    fs::write(wal.join("1"), "live").unwrap();
    symlink(place.path(), place.join("alias")).unwrap();
    symlink(place.join("alias/wal"), data.join("pg_wal")).unwrap();
    symlink("../../wal", data.join("pg_tblspc/1")).unwrap();
    let mount = Mount::over(&data).root("wal", &wal).mount();
    let view = mount.at("now");
    let expected = wal.join(view.file_name().unwrap());
    for link in ["pg_wal", "pg_tblspc/1"] {
        let path = view.join(link);
        let shown = fs::read_link(&path).unwrap();
        assert_eq!(shown, expected, "{link}");
        let size = fs::symlink_metadata(&path).unwrap().len();
        assert_eq!(size, shown.as_os_str().len() as u64, "{link}");
        assert_eq!(fs::read_to_string(path.join("1")).unwrap(), "live");
    }
    fs::write(wal.join("1"), "changed").unwrap();
    assert_eq!(fs::read_to_string(view.join("pg_wal/1")).unwrap(), "live");
    assert_eq!(fs::read_to_string(data.join("pg_wal/1")).unwrap(), "changed");
    mount.unmount();
    assert_eq!(fs::read_link(data.join("pg_wal")).unwrap(), place.join("alias/wal"));
}
