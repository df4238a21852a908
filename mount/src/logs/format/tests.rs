//! Records as servers write them.

use super::*;

fn run(format: Format, text: &str) -> (Vec<(Option<String>, String)>, u64) {
    let mut parser = Parser::new(format);
    let mut all = Parsed::default();
    for line in text.lines() {
        let parsed = parser.line(line.as_bytes());
        all.statements.extend(parsed.statements);
        all.skipped += parsed.skipped;
    }
    all.statements.extend(parser.idle().statements);
    let statements = all.statements.into_iter().map(|one| (one.database, one.text)).collect();
    (statements, all.skipped)
}

fn of(database: &str, text: &str) -> (Option<String>, String) {
    (Some(database.to_owned()).filter(|name| !name.is_empty()), text.to_owned())
}

#[test]
fn postgres_csvlog_with_ends_of_lines_in_statements() {
    let head = "2026-11-25 02:16:59.164 UTC,\"postgres\",\"shop\",7,\"[local]\",x.1,2,\"CREATE TABLE\",2026-11-25 02:16:58 UTC,3/7,0";
    let text = format!(
        "{head},LOG,00000,\"statement: CREATE TABLE \"\"a b\"\"\n  PARTITION OF p, DEFAULT\",,,,,,,,,\"psql\",\"client backend\",,0\n\
         {head},LOG,00000,\"duration: 1.2 ms  execute s1: DROP TABLE a\",,,,,,,,,\"psql\",\"client backend\",,0\n\
         {head},ERROR,42P01,\"relation does not exist\",,,,,,,,,\"psql\",\"client backend\",,0\n\
         rubbish\n"
    );
    let expected =
        vec![of("shop", "CREATE TABLE \"a b\"\n  PARTITION OF p, DEFAULT"), of("shop", "DROP TABLE a")];
    assert_eq!(run(Format::PgCsv, &text), (expected, 1));
}

#[test]
fn a_record_of_csvlog_that_is_too_long_is_skipped_alone() {
    let head = "2026-11-25 02:16:59.164 UTC,\"postgres\",\"shop\",7,\"[local]\",x.1,2,\"INSERT\",2026-11-25 02:16:58 UTC,3/7,0";
    let record = |text: &str| {
        format!("{head},LOG,00000,\"statement: {text}\",,,,,,,,,\"psql\",\"client backend\",,0\n")
    };
    let values = "('it''s', \"\"b\"\"),\n".repeat(100_000);
    let after = [record("DROP TABLE\n a"), record("DROP TABLE b")].concat();
    let expected = vec![of("shop", "DROP TABLE\n a"), of("shop", "DROP TABLE b")];
    let text = record(&format!("INSERT INTO a VALUES {values} ('end')")) + &after;
    assert_eq!(run(Format::PgCsv, &text), (expected.clone(), 1));
    // The server was killed while it wrote.
    let torn = format!("{head},LOG,00000,\"statement: INSERT INTO a VALUES {values}\n{after}");
    assert_eq!(run(Format::PgCsv, &torn), (expected, 1));
}

#[test]
fn postgres_jsonlog_and_stderr() {
    let text = r#"{"dbname":"shop","error_severity":"LOG","message":"statement: DROP TABLE a"}
{"error_severity":"LOG","message":"checkpoint starting: time"}
no json"#;
    assert_eq!(run(Format::PgJson, text), (vec![of("shop", "DROP TABLE a")], 1));
    let text = "2026-11-25 02:16:57 UTC [12057] LOG:  starting PostgreSQL 15\n\
                2026-11-25 02:16:59 UTC [7] postgres@shop LOG:  statement: ALTER TABLE a\n\tATTACH PARTITION b\n\
                2026-11-25 02:16:59 UTC [7] ERROR:  no\nwhat is this\n\
                x LOG:  duration: 0.1 ms  statement: DROP TABLE c\n";
    let expected = vec![of("", "ALTER TABLE a\nATTACH PARTITION b"), of("", "DROP TABLE c")];
    assert_eq!(run(Format::PgStderr, text), (expected, 1));
}

#[test]
fn mariadb_general_and_slow() {
    let text = "mariadbd, Version: 10.11.6-MariaDB (Debian 12). started with:\nTcp port: 0  Unix socket: s\n\
                Time\t\t    Id Command\tArgument\n\
                261125  2:16:59\t     5 Connect\troot@localhost on shop using Socket\n\
                \t\t     5 Query\tALTER TABLE o\n REORGANIZE PARTITION p INTO (PARTITION a VALUES LESS THAN (5))\n\
                \t\t     5 Quit\t\n";
    let expected =
        vec![of("", "ALTER TABLE o\n REORGANIZE PARTITION p INTO (PARTITION a VALUES LESS THAN (5))")];
    assert_eq!(run(Format::MariaGeneral, text), (expected, 0));
    assert_eq!(run(Format::MariaGeneral, "rubbish\n").1, 1);
    let text = "# Time: 261125  2:16:59\n# User@Host: root[root] @ localhost []\n\
                # Thread_id: 5  Schema: shop  QC_hit: No\n# Query_time: 1.0  Lock_time: 0.0\n\
                use shop;\nSET timestamp=1700000000;\nDROP TABLE a,\n b;\n# Time: 261125  2:17:00\n";
    assert_eq!(run(Format::MariaSlow, text), (vec![of("shop", "DROP TABLE a,\n b;")], 0));
    assert_eq!(run(Format::MariaSlow, "rubbish\n").1, 1);
}

/// A server that speaks German says `Anweisung: ...`: no statement is seen, and that there are messages is.
#[test]
fn messages_that_tell_of_no_statement_are_counted() {
    let csv = |message: &str| {
        format!(
            "2026-11-25 02:16:59.164 UTC,,,7,,x.1,2,,2026-11-25 02:16:58 UTC,,0,LOG,00000,\"{message}\",,,,,,,,,,,,0\n"
        )
    };
    let json = |message: &str| format!("{{\"error_severity\":\"LOG\",\"message\":\"{message}\"}}\n");
    let stderr = |message: &str| format!("x LOG:  {message}\n");
    type Write<'a> = &'a dyn Fn(&str) -> String;
    let formats: [(Format, Write<'_>); 3] =
        [(Format::PgCsv, &csv), (Format::PgJson, &json), (Format::PgStderr, &stderr)];
    for (format, write) in formats {
        let mut parser = Parser::new(format);
        let mut of = |message: &str| {
            let parsed = parser.line(write(message).trim_end().as_bytes());
            (parsed.other, parsed.skipped)
        };
        assert_eq!(of("Anweisung: DROP TABLE a"), (1, 0), "{format:?}");
        assert_eq!(of("checkpoint starting: time"), (1, 0), "{format:?}");
        assert_eq!(of("statement: DROP TABLE a"), (0, 0), "{format:?}");
    }
}

#[test]
fn statements_have_the_time_that_their_log_gives_them() {
    let csv = "2026-11-25 02:16:59.164 UTC,\"a\",\"shop\",7,\"[local]\",x.1,2,\"DROP\",2026-11-25 02:16:58 UTC,3/7,0,LOG,00000,\"statement: DROP TABLE a\",,,,,,,,,\"psql\",\"client backend\",,0\n";
    let json = "{\"timestamp\":\"2026-11-25 02:16:59.164 UTC\",\"error_severity\":\"LOG\",\"message\":\"statement: DROP TABLE a\"}\n";
    let general = "261125  2:16:59\t     5 Query\tDROP TABLE a\n\t\t     5 Query\tDROP TABLE b\n261125  2:17:00\t     5 Quit\t\n";
    let slow = "# Schema: shop  QC_hit: No\nSET timestamp=1700000000;\nDROP TABLE a;\n# Schema: shop  QC_hit: No\n# Query_time: 9.000000  Lock_time: 0.1\nSET timestamp=1700000001.5;\nDROP TABLE\nSET timestamp=1;\n";
    let whole = "2026-11-25T02:16:59.164Z";
    for (format, text, times) in [
        (Format::PgCsv, csv, vec![Some(whole)]),
        (Format::PgJson, json, vec![Some(whole)]),
        (
            Format::PgStderr,
            "2026-11-25 02:16:59.164 UTC [7] LOG:  statement: DROP TABLE a\nLOG:  statement: b\n",
            vec![Some(whole), None],
        ),
        (Format::MariaGeneral, general, vec![Some("2026-11-25T14:16:59Z"); 2]),
        (Format::MariaSlow, slow, vec![Some("2023-11-14T22:13:20Z"), Some("2023-11-14T22:13:30Z")]),
    ] {
        let mut parser = Parser::new(format);
        let mut told: Vec<Statement> =
            text.lines().flat_map(|line| parser.line(line.as_bytes()).statements).collect();
        told.extend(parser.idle().statements);
        let told: Vec<Option<i64>> = told.iter().map(|one| one.at.map(|at| at.0)).collect();
        let us = |time: &str| time.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let times: Vec<Option<i64>> = times.into_iter().map(|time| time.map(us)).collect();
        assert_eq!(told, times, "{format:?}");
    }
}
