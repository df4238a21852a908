//! Which tables a statement reads and which it writes, from its tokens: names behind the words that take tables.
//!
//! A count of interest, no analysis: names that are none of a table's (of a query in WITH, of a function's argument behind
//! FROM) may be among them, and whoever looks them up finds nothing. A list that goes on behind a subquery is cut there.

use super::cursor::Cursor;
use super::lex::{Lexed, Token, lex};
use super::{Dialect, NAMES_MAX, STATEMENTS_MAX, Table};

/// Bytes of a text that are looked at: names stand before values.
const TEXT_MAX: usize = 16 << 10;

/// A table, or a part of it, that a statement names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Use {
    pub table: Table,
    /// MariaDB: `PARTITION (p0, p1)` behind the table's name, each by itself.
    pub part: Option<Table>,
    pub writes: bool,
}

/// What a text of one or more statements reads and writes; what one statement names twice is there once.
pub fn uses(dialect: Dialect, text: &[u8]) -> Vec<Use> {
    let text = text.get(..TEXT_MAX).unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    let Lexed { tokens, ends } = lex(dialect, &text);
    let mut found = Vec::new();
    let mut begin = 0;
    for (end, ..) in ends.into_iter().take(STATEMENTS_MAX) {
        let mut uses = Uses { found: Vec::new() };
        uses.statement(tokens.get(begin..end).unwrap_or(&[]));
        begin = end;
        found.extend(uses.found);
    }
    found.truncate(NAMES_MAX);
    found
}

/// The words that begin a statement which reads or writes rows.
const FIRST: [&str; 9] = ["select", "with", "insert", "update", "delete", "replace", "merge", "copy", "load"];
/// Words before the name of a table that say how, not which.
const HOW: [&str; 8] =
    ["only", "low_priority", "high_priority", "delayed", "ignore", "quick", "lateral", "table"];
/// Words that are no other name of the table before them.
const GOES_ON: [&str; 9] =
    ["from", "join", "using", "into", "update", "delete", "insert", "replace", "partition"];

struct Uses {
    found: Vec<Use>,
}

impl Uses {
    fn statement(&mut self, tokens: &[Token]) {
        let first = tokens.iter().find(|token| **token != Token::Sign('('));
        let Some(first) = first.filter(|first| FIRST.iter().any(|word| first.is(word))) else { return };
        if first.is("copy") {
            return self.copy(tokens);
        }
        let mut cursor = Cursor { rest: tokens };
        let mut before: Option<&Token> = None;
        while let Some(token) = cursor.next() {
            // Where a statement begins, also one in parentheses or behind a WITH.
            let begins = before.is_none_or(|before| matches!(before, Token::Sign('(' | ')')));
            match token {
                _ if token.is("into") => self.one(&mut cursor, true),
                _ if token.is("from") && before.is_some_and(|before| before.is("distinct")) => {}
                _ if ["from", "join", "using"].iter().any(|word| token.is(word)) => {
                    self.list(&mut cursor, false);
                }
                _ if begins && (token.is("insert") || token.is("replace")) => {
                    how(&mut cursor);
                    cursor.eat("into");
                    self.one(&mut cursor, true);
                }
                _ if begins && token.is("update") => self.list(&mut cursor, true),
                _ if begins && token.is("delete") => {
                    how(&mut cursor);
                    cursor.eat("from");
                    self.list(&mut cursor, true);
                }
                _ => {}
            }
            before = Some(token);
        }
        self.without_those_of_with(tokens);
    }

    /// `COPY t (a, b) FROM ...` writes, `TO` reads; of a query what that reads.
    fn copy(&mut self, tokens: &[Token]) {
        let mut cursor = Cursor { rest: tokens.get(1..).unwrap_or(&[]) };
        if let Some(table) = cursor.table() {
            let way = cursor.rest.iter().find(|token| token.is("from") || token.is("to"));
            if let Some(way) = way {
                self.put(table, Vec::new(), way.is("from"));
            }
        } else if let Some(inner) = cursor.rest.get(1..) {
            self.statement(inner);
        }
    }

    /// One table. What has parentheses and is read is a function.
    fn one(&mut self, cursor: &mut Cursor<'_>, writes: bool) {
        how(cursor);
        let Some(table) = cursor.table() else { return };
        let parts = parts(cursor);
        if !writes && cursor.rest.first() == Some(&Token::Sign('(')) {
            return skip(cursor);
        }
        self.put(table, parts, writes);
    }

    /// Tables between commas, each perhaps with another name.
    fn list(&mut self, cursor: &mut Cursor<'_>, writes: bool) {
        for _ in 0..NAMES_MAX {
            self.one(cursor, writes);
            cursor.eat("as");
            if !GOES_ON.iter().any(|word| cursor.rest.first().is_some_and(|token| token.is(word))) {
                cursor.word();
            }
            if !cursor.eat_sign(',') {
                break;
            }
        }
    }

    fn put(&mut self, table: Table, parts: Vec<Table>, writes: bool) {
        let whole = parts.is_empty().then_some(None);
        for part in parts.into_iter().map(Some).chain(whole) {
            let one = Use { table: table.clone(), part, writes };
            if self.found.len() < NAMES_MAX && !self.found.contains(&one) {
                self.found.push(one);
            }
        }
    }

    /// `WITH name AS (...)`: a name of the statement's own.
    fn without_those_of_with(&mut self, tokens: &[Token]) {
        let own = tokens.windows(3).filter_map(|three| match three {
            [Token::Word { text, .. }, with, Token::Sign('(')] if with.is("as") => Some(text),
            [Token::Word { text, .. }, with, how] if with.is("as") && how.is("materialized") => Some(text),
            _ => None,
        });
        for name in own {
            self.found.retain(|one| one.table.schema.is_some() || one.table.name != *name);
        }
    }
}

fn how(cursor: &mut Cursor<'_>) {
    while HOW.iter().any(|word| cursor.eat(word)) {}
}

/// What stands in parentheses.
fn skip(cursor: &mut Cursor<'_>) {
    let mut depth = 0usize;
    while let Some(token) = cursor.next() {
        match token {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
}

/// `PARTITION (p0, p1)`.
fn parts(cursor: &mut Cursor<'_>) -> Vec<Table> {
    if !cursor.eat_all(&["partition"]) || !cursor.eat_sign('(') {
        return Vec::new();
    }
    let parts = cursor.tables().unwrap_or_default();
    cursor.eat_sign(')');
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `r:` and `w:` before the names, in order.
    fn told(text: &str) -> String {
        told_in(Dialect::Postgres, text)
    }

    fn told_in(dialect: Dialect, text: &str) -> String {
        let one = |one: Use| {
            let part = one.part.map_or_else(String::new, |part| format!("#{part}"));
            format!("{}:{}{part}", if one.writes { "w" } else { "r" }, one.table)
        };
        uses(dialect, text.as_bytes()).into_iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_read_and_written() {
        for (text, want) in [
            ("SELECT a, b FROM t WHERE x = 'FROM u'", "r:t"),
            (
                "select * from s.a as x, b y left join c using (id) join \"D d\" on true",
                "r:s.a r:b r:c r:D d",
            ),
            ("SELECT * FROM (SELECT * FROM a) x JOIN b ON x.i = b.i", "r:a r:b"),
            ("SELECT i FROM generate_series(1, 9) i, t", "r:t"),
            ("INSERT INTO t (a, b) SELECT a, b FROM u", "w:t r:u"),
            ("insert ignore t values (1); replace into u values (2)", "w:t w:u"),
            ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b", "w:t"),
            ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE b = 2", "w:t"),
            ("UPDATE ONLY t SET a = (SELECT max(b) FROM u) WHERE a IS DISTINCT FROM b", "w:t r:u"),
            ("UPDATE t AS x SET a = y.a FROM u y", "w:t r:u"),
            ("DELETE FROM t USING u WHERE t.a = u.a", "w:t r:u"),
            ("DELETE FROM t WHERE id % 5 = 0", "w:t"),
            ("DELETE a FROM a JOIN b ON a.i = b.i", "w:a r:a r:b"),
            ("SELECT * FROM t FOR UPDATE", "r:t"),
            ("SELECT replace(a, 'x', 'y') FROM t", "r:t"),
            ("WITH a AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM a", "w:t w:u"),
            ("WITH a AS MATERIALIZED (SELECT 1 FROM t) SELECT * FROM a, s.a", "r:t r:s.a"),
            ("COPY t (a, b) FROM STDIN", "w:t"),
            ("COPY t TO '/tmp/x'", "r:t"),
            ("COPY (SELECT * FROM t) TO STDOUT", "r:t"),
            ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = 1", "w:t r:u"),
            ("LOAD DATA INFILE 'x' INTO TABLE t", "w:t"),
            ("SELECT * FROM t PARTITION (p0, p1) WHERE a", "r:t#p0 r:t#p1"),
            ("INSERT INTO s.t PARTITION (p0) VALUES (1)", "w:s.t#p0"),
            ("SELECT a FROM t, t, t", "r:t"),
            ("EXPLAIN SELECT * FROM t", ""),
            ("DROP TABLE t", ""),
            ("VACUUM t", ""),
            ("SET x = 1", ""),
            ("", ""),
        ] {
            assert_eq!(told(text), want, "{text}");
        }
    }

    #[test]
    fn signs_mean_what_they_mean_to_their_server() {
        let (pg, maria) = (Dialect::Postgres, Dialect::Mariadb);
        for (dialect, text, want) in [
            (pg, "SELECT data #>> '{a,b}' FROM orders", "r:orders"),
            (pg, "SELECT data #- '{a}', 5 # 3 FROM orders", "r:orders"),
            (maria, "SELECT 1 # FROM a\nFROM b", "r:b"),
            (pg, "SELECT '\\' FROM a; SELECT '\\', 'FROM b'", "r:a"),
            (pg, "SELECT E'\\'FROM a', e'\\\\' FROM b", "r:b"),
            (pg, "SELECT e.x, date FROM e", "r:e"),
            (pg, "SELECT 1 FROM \"a\\\" WHERE x", "r:a\\"),
            (maria, "SELECT '\\' FROM a', \"\\\" FROM a\" FROM b", "r:b"),
        ] {
            assert_eq!(told_in(dialect, text), want, "{text}");
        }
    }

    #[test]
    fn a_long_statement_is_read_as_far_as_names_are_and_no_further() {
        let text = format!("INSERT INTO t VALUES {}, (SELECT 1 FROM u)", "(1, 'x'), ".repeat(100_000));
        assert_eq!(told(&text), "w:t");
        let many: Vec<String> = (0..5_000).map(|n| format!("t{n}")).collect();
        assert!(
            uses(Dialect::Mariadb, format!("SELECT * FROM {}", many.join(",")).as_bytes()).len() <= NAMES_MAX
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            words in prop::collection::vec(
                prop_oneof![
                    Just("from"), Just("("), Just(")"), Just(","), Just("insert"), Just("into"), Just("update"),
                    Just("with"), Just("a"), Just("as"), Just("partition"), Just("delete"), Just("copy"), Just("."),
                    Just("'"), Just("join"), Just("select"), Just(";"), Just("é"), Just("\""),
                ],
                0..60,
            ),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            for dialect in [Dialect::Postgres, Dialect::Mariadb] {
                uses(dialect, words.join(" ").as_bytes());
                uses(dialect, format!("select {}", words.join(" ")).as_bytes());
                uses(dialect, &bytes);
            }
        }
    }
}
