//! Statements as logs have them, and any bytes at all.

use super::*;
use proptest::prelude::*;

fn t(name: &str) -> Table {
    match name.split_once('.') {
        Some((schema, name)) => Table { schema: Some(schema.into()), name: name.into() },
        None => Table { schema: None, name: name.into() },
    }
}

fn ts(names: &[&str]) -> Vec<Table> {
    names.iter().map(|name| t(name)).collect()
}

const BOTH: [Dialect; 2] = [Dialect::Postgres, Dialect::Mariadb];

fn check(dialect: Dialect, cases: &[(&str, SchemaChange)]) {
    for (text, change) in cases {
        assert_eq!(recognise(dialect, text.as_bytes()), std::slice::from_ref(change), "{text}");
    }
}

#[test]
fn what_postgres_does_to_partitions() {
    use SchemaChange::{Attach, Create, Detach, Merge, Split};
    check(
        Dialect::Postgres,
        &[
            (
                "CREATE TABLE shop.orders_2026_11 PARTITION OF shop.orders FOR VALUES FROM ('2026-11-01') TO ('2026-12-01')",
                Create { table: t("shop.orders_2026_11"), partition_of: Some(t("shop.orders")) },
            ),
            (
                "create unlogged table if not exists \"Big One\" partition of p default;",
                Create { table: t("Big One"), partition_of: Some(t("p")) },
            ),
            (
                "ALTER TABLE ONLY orders ATTACH PARTITION orders_1 FOR VALUES IN (1, 2)",
                Attach { parent: t("orders"), child: t("orders_1") },
            ),
            (
                "/* who */ ALTER TABLE IF EXISTS orders DETACH PARTITION s.orders_1 CONCURRENTLY",
                Detach { parent: t("orders"), child: t("s.orders_1") },
            ),
            (
                "ALTER TABLE orders SPLIT PARTITION orders_all INTO (PARTITION a FOR VALUES FROM (1) TO (2), \
             PARTITION b FOR VALUES FROM (lower('PARTITION x')) TO (3))",
                Split { table: t("orders"), parts: ts(&["orders_all"]), into: ts(&["a", "b"]) },
            ),
            (
                "ALTER TABLE orders MERGE PARTITIONS (a, b) INTO c",
                Merge { table: t("orders"), parts: ts(&["a", "b"]), into: ts(&["c"]) },
            ),
        ],
    );
}

#[test]
fn what_mariadb_does_to_partitions() {
    use SchemaChange::{AddPartition, Alter, DropPartition, Exchange, Merge, Split, TruncatePartition};
    check(
        Dialect::Mariadb,
        &[
            (
                "ALTER TABLE `shop`.`orders` REORGANIZE PARTITION pmax INTO (PARTITION p9 VALUES LESS THAN (9) ENGINE = \
             InnoDB, PARTITION pmax VALUES LESS THAN MAXVALUE)",
                Split { table: t("shop.orders"), parts: ts(&["pmax"]), into: ts(&["p9", "pmax"]) },
            ),
            (
                "alter table o reorganize partition a, b into (partition c values less than (5))",
                Merge { table: t("o"), parts: ts(&["a", "b"]), into: ts(&["c"]) },
            ),
            (
                "ALTER TABLE o ADD PARTITION (PARTITION p1 VALUES LESS THAN (10), PARTITION p2 VALUES IN (1, 2))",
                AddPartition { table: t("o"), parts: ts(&["p1", "p2"]) },
            ),
            ("ALTER TABLE o ADD PARTITION PARTITIONS 4", AddPartition { table: t("o"), parts: vec![] }),
            (
                "ALTER TABLE o DROP PARTITION IF EXISTS p1, p2",
                DropPartition { table: t("o"), parts: ts(&["p1", "p2"]) },
            ),
            ("ALTER TABLE o TRUNCATE PARTITION ALL", TruncatePartition { table: t("o"), parts: vec![] }),
            (
                "ALTER TABLE o EXCHANGE PARTITION p WITH TABLE s.t",
                Exchange { table: t("o"), part: t("p"), with: t("s.t") },
            ),
            (
                "/*!50100 ALTER TABLE o WAIT 5 CONVERT PARTITION p TO TABLE x */",
                Exchange { table: t("o"), part: t("p"), with: t("x") },
            ),
            (
                "ALTER TABLE o ENGINE=InnoDB, DROP PARTITION p",
                DropPartition { table: t("o"), parts: ts(&["p"]) },
            ),
            ("ALTER TABLE o ADD COLUMN partition_of INT", Alter { table: t("o") }),
        ],
    );
}

#[test]
fn tables_come_and_go() {
    use SchemaChange::{Create, Drop, Truncate};
    let create = |name: &str| Create { table: t(name), partition_of: None };
    let cases = [
        ("CREATE TABLE Orders (id int PRIMARY KEY, note text DEFAULT 'DROP TABLE x; --')", create("orders")),
        ("CREATE TABLE o (id INT) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (5))", create("o")),
        ("CREATE TABLE s.c AS SELECT * FROM d", create("s.c")),
        ("CREATE TABLE c (EXOTIC !! 5) WITH (nobody = 'knows')", create("c")),
        ("DROP TABLE IF EXISTS a, s.b CASCADE", Drop { tables: ts(&["a", "s.b"]) }),
        ("TRUNCATE TABLE ONLY a, b RESTART IDENTITY", Truncate { tables: ts(&["a", "b"]) }),
        ("TRUNCATE a", Truncate { tables: ts(&["a"]) }),
    ];
    BOTH.into_iter().for_each(|dialect| check(dialect, &cases));
    for nothing in [
        "SELECT 'DROP TABLE x'",
        "CREATE INDEX ON t (a)",
        "DROP INDEX i",
        "-- DROP TABLE x",
        "DO $x$ BEGIN EXECUTE 'DROP TABLE y'; DROP TABLE z; END $x$",
        "INSERT INTO t VALUES ('a''; DROP TABLE y; --')",
        "ALTER SYSTEM SET x = 1",
        "",
    ] {
        for dialect in BOTH {
            assert_eq!(recognise(dialect, nothing.as_bytes()), [], "{nothing}");
        }
    }
    let hidden = "INSERT INTO t VALUES ('\\'); DROP TABLE a; SELECT '\\'";
    assert_eq!(recognise(Dialect::Postgres, hidden.as_bytes()), [Drop { tables: ts(&["a"]) }]);
    assert_eq!(recognise(Dialect::Mariadb, hidden.as_bytes()), []);
}

#[test]
fn a_text_of_several_statements_is_several_changes() {
    let text =
        "BEGIN; CREATE TABLE a PARTITION OF p DEFAULT; INSERT INTO a SELECT ';' ; DROP TABLE b; COMMIT";
    let changes = recognise(Dialect::Postgres, text.as_bytes());
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(matches!(&changes[1], SchemaChange::Drop { tables } if *tables == ts(&["b"])));
    let many = "DROP TABLE x;".repeat(STATEMENTS_MAX + 50);
    assert_eq!(recognise(Dialect::Postgres, many.as_bytes()).len(), STATEMENTS_MAX);
    let long = format!("CREATE TABLE t (a int DEFAULT {}", "(".repeat(TEXT_MAX));
    assert_eq!(recognise(Dialect::Postgres, long.as_bytes()).len(), 1, "its beginning says enough");
}

/// Texts of the largest size that is looked at, made to be hard: were one of them taken apart in more than about linear time,
/// this would never end.
#[test]
fn texts_that_are_made_to_be_hard_have_an_answer() {
    let heads = [
        "CREATE TABLE t (a int DEFAULT ",
        "CREATE TABLE t AS SELECT ",
        "DROP TABLE ",
        "ALTER TABLE t SPLIT PARTITION ",
    ];
    let pieces = [
        "(",
        "((a),",
        "CASE WHEN ",
        "a.",
        "a,",
        "[",
        "{",
        "NOT ",
        "- ",
        "$a$",
        "$",
        "$a",
        "/*",
        "/*! ",
        "/* */",
        "'",
        "\"",
        "`",
        "'' ",
        "E'",
        "--",
        "#\n",
        "(SELECT ",
        "a IN (",
        "ARRAY[",
        "INTERVAL ",
        "a::b",
        "\u{fc}",
        "CAST(",
        "EXISTS (",
        "a BETWEEN ",
        "ROW(",
    ];
    for head in heads {
        for piece in pieces {
            for len in [2_000, 30_000, TEXT_MAX] {
                let text = format!("{head}{}", piece.repeat((len - head.len()) / piece.len()));
                let of = |text: &str| drop(recognise(Dialect::Postgres, text.as_bytes()));
                of(&text);
                of(&format!("{};", piece.repeat(20)).repeat(100));
                of(&format!("{head}{};", piece.repeat(40)));
                // Tokens alone are another server's.
                lex::lex(Dialect::Mariadb, &text);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        BOTH.into_iter().for_each(|dialect| drop(recognise(dialect, &bytes)));
    }

    #[test]
    fn pieces_of_statements_have_an_answer(pieces in proptest::collection::vec(prop_oneof![
        Just("ALTER TABLE "), Just("CREATE TABLE "), Just("PARTITION "), Just("OF "), Just("INTO "), Just("("), Just(")"),
        Just("REORGANIZE PARTITION "), Just("SPLIT PARTITION "), Just("MERGE PARTITIONS "), Just("t "), Just("\"q\" "),
        Just(","), Just(";"), Just("'"), Just("`"), Just("$$"), Just("/*"), Just("*/"), Just("--"), Just("\n"),
        Just("TRUNCATE "), Just("DROP TABLE "), Just("."), Just("\u{fc}"), Just("VALUES LESS THAN (1) "),
    ], 0..24)) {
        BOTH.into_iter().for_each(|dialect| drop(recognise(dialect, pieces.concat().as_bytes())));
    }
}
