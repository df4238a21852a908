//! Paths as the databases make them, and any bytes at all.

use super::*;
use proptest::prelude::*;

fn check(layout: Layout, root: &str, cases: &[(&str, &str, Fork, u64)]) {
    for (path, name, fork, segment) in cases {
        let found = member(layout, root.as_bytes(), path.as_bytes());
        let partition = Partition { root: root.into(), name: name.as_bytes().to_vec() };
        assert_eq!(found, Member { partition, fork: *fork, segment: *segment }, "{path}");
    }
}

#[test]
fn a_relation_is_all_its_forks_and_segments() {
    use Fork::{FreeSpace, Init, Main, Visibility};
    check(
        Layout::Postgres,
        "",
        &[
            ("base/5/16397", "base/5/16397", Main, 0),
            ("base/5/16397.12", "base/5/16397", Main, 12),
            ("base/5/16397_fsm", "base/5/16397", FreeSpace, 0),
            ("base/5/16397_fsm.1", "base/5/16397", FreeSpace, 1),
            ("base/5/16397_vm", "base/5/16397", Visibility, 0),
            ("base/5/16397_init", "base/5/16397", Init, 0),
            ("base/5/t3_16397", "base/5/t3_16397", Main, 0),
            ("base/5/t3_16397_fsm", "base/5/t3_16397", FreeSpace, 0),
            ("base/5/t3_16397.1", "base/5/t3_16397", Main, 1),
            ("global/1262", "global/1262", Main, 0),
            ("global/1262_vm", "global/1262", Visibility, 0),
            ("pg_tblspc/16400/PG_15_202209061/5/16401.1", "pg_tblspc/16400/PG_15_202209061/5/16401", Main, 1),
            ("base/5/PG_VERSION", "base/5/PG_VERSION", Main, 0),
            ("base/5/pg_filenode.map", "base/5/pg_filenode.map", Main, 0),
            ("base/5/pg_internal.init", "base/5/pg_internal.init", Main, 0),
            ("global/pg_control", "global/pg_control", Main, 0),
            ("pg_xact/0000", "pg_xact/0000", Main, 0),
            ("postgresql.conf", "postgresql.conf", Main, 0),
            ("base/5/16397_other", "base/5/16397_other", Main, 0),
            ("base/x/16397_fsm", "base/x/16397_fsm", Main, 0),
        ],
    );
    check(
        Layout::Postgres,
        "ts1",
        &[
            ("PG_15_202209061/5/16401", "PG_15_202209061/5/16401", Main, 0),
            ("fast/PG_9.6_201608131/5/16401_vm", "fast/PG_9.6_201608131/5/16401", Visibility, 0),
            ("5/16401_vm", "5/16401_vm", Main, 0),
        ],
    );
}

#[test]
fn the_wal_is_one_partition_wherever_it_stands() {
    let segment = "0000000100000002000000A3";
    check(
        Layout::Postgres,
        "",
        &[
            ("pg_wal/0000000100000002000000A3", "pg_wal", Fork::Main, 0x0000_0002_0000_00A3),
            ("pg_wal/0000000100000002000000A3.partial", "pg_wal", Fork::Main, 0x0000_0002_0000_00A3),
            ("pg_wal/00000002.history", "pg_wal", Fork::Main, u64::MAX),
            ("pg_wal/xlogtemp.17", "pg_wal", Fork::Main, u64::MAX),
            ("pg_xact/0000000100000002000000A3", "pg_xact/0000000100000002000000A3", Fork::Main, 0),
        ],
    );
    assert_eq!(of(Layout::Postgres, b"wal", segment.as_bytes()).to_string(), "wal:.");
    assert_eq!(of(Layout::Postgres, b"wal", format!("pg/{segment}").as_bytes()).to_string(), "wal:pg");
}

#[test]
fn a_table_of_mariadb_is_all_its_files() {
    use Fork::{Beside, Main};
    check(
        Layout::Mariadb,
        "",
        &[
            ("db/t.ibd", "db/t", Main, 0),
            ("db/t.frm", "db/t", Beside, 0),
            ("db/t#P#p0.ibd", "db/t#P#p0", Main, 0),
            ("db/t#P#p0#SP#s.ibd", "db/t#P#p0#SP#s", Main, 0),
            ("db/t#p#p0.ibd", "db/t#p#p0", Main, 0),
            ("db/t#P#p1#TMP#.ibd", "db/t#P#p1#TMP#", Main, 0),
            ("db/a.MAD", "db/a", Main, 0),
            ("db/a.MAI", "db/a", Beside, 0),
            ("db/db.opt", "db/db.opt", Main, 0),
            ("ibdata1", "ibdata", Main, 1),
            ("ib_logfile0", "ib_logfile", Main, 0),
            ("undo001", "undo001", Main, 0),
            ("aria_log.00000001", "aria_log", Main, 1),
            ("aria_log_control", "aria_log", Beside, 0),
            ("mysql-bin.000007", "mysql-bin", Main, 7),
            ("mysql-bin.index", "mysql-bin", Beside, 0),
            ("ib_buffer_pool", "ib_buffer_pool", Main, 0),
        ],
    );
}

#[test]
fn a_database_of_sqlite_has_its_journals_and_generic_files_stand_alone() {
    for file in ["app.db", "app.db-wal", "app.db-journal", "app.db-shm", "app.db-mj01234ABCD"] {
        let path = format!("var/{file}");
        assert_eq!(of(Layout::Sqlite, b"", path.as_bytes()).to_string(), "var/app.db");
        assert_eq!(of(Layout::Generic, b"", path.as_bytes()).to_string(), path);
    }
    assert_eq!(of(Layout::Sqlite, b"", b"-wal").to_string(), "-wal");
}

#[test]
fn logs_are_told_from_what_is_read_as_a_state() {
    for log in [
        "pg_wal",
        ".",
        "ib_logfile0",
        "aria_log.00000001",
        "mysql-bin.000042",
        "mariadb-bin.index",
        "db1-relay-bin.000001",
    ] {
        assert!(is_log(log.as_bytes()), "{log}");
    }
    for state in [
        "base/5/16397",
        "shop/orders#P#p0",
        "ibdata1",
        "undo001",
        "ib_logfile",
        "a/bin.1",
        "my-bin.ibd",
        "aria_log_control",
        "",
    ] {
        assert!(!is_log(state.as_bytes()), "{state}");
    }
}

#[test]
fn files_come_in_the_order_of_reading() {
    let files = ["16397_vm", "16397.10", "16398", "16397.2", "16397_fsm", "16397", "16397.1"];
    let files: Vec<Name> = files.iter().map(|name| name.as_bytes().to_vec()).collect();
    let partition = of(Layout::Postgres, b"", b"base/5/16397.2");
    let dirs = partition.dirs();
    assert_eq!(dirs[0], names(b"base/5"));
    let picked = partition.pick(Layout::Postgres, &dirs[0], &files);
    let paths: Vec<String> =
        picked.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect();
    let expected = ["", ".1", ".2", ".10", "_fsm", "_vm"].map(|end| format!("base/5/16397{end}"));
    assert_eq!(paths, expected);
    let wal = of(Layout::Postgres, b"wal", b"0000000100000002000000A3");
    assert_eq!(wal.dirs(), [Vec::<Name>::new()]);
}

#[test]
fn users_name_partitions_by_any_file() {
    let roots = [b"ts1".to_vec()];
    let parse = |text: &str| Partition::parse(Layout::Postgres, text, &roots).to_string();
    assert_eq!(parse("./base/5/16397_fsm"), "base/5/16397");
    assert_eq!(parse("ts1:PG_15_202209061/5/7.3"), "ts1:PG_15_202209061/5/7");
    assert_eq!(parse("other:x"), "other:x");
    assert_eq!(parse("pg_wal/"), "pg_wal");
    assert_eq!(parse(""), ".");
}

proptest! {
    #[test]
    fn any_bytes_have_a_partition_that_maps_to_itself(
        path in proptest::collection::vec(any::<u8>(), 0..80),
        shaped in "(base/5|global|PG_15_1/7|db)/[a-z0-9_.#P-]{1,24}",
        root in prop_oneof![Just(&b""[..]), Just(&b"ts"[..])],
    ) {
        for layout in [Layout::Postgres, Layout::Mariadb, Layout::Sqlite, Layout::Generic] {
            for path in [path.as_slice(), shaped.as_bytes()] {
                let found = member(layout, root, path);
                prop_assert_eq!(&found.partition.root, root);
                // A name of several endings, as `a.ibd.frm`, loses one at a time: of a table `a.ibd`.
                if layout == Layout::Postgres {
                    let again = of(layout, root, &found.partition.name);
                    prop_assert_eq!(&again, &found.partition);
                }
            }
        }
    }
}
