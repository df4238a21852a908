//! Statements that change what a database divides its data into, from the text of a statement as a log has it; and of
//! others, which tables they read and write.
//!
//! - Pure and bounded: at most [`TEXT_MAX`] bytes and [`STATEMENTS_MAX`] statements of a text are looked at.
//! - Whatever the bytes, there is an answer: what is not understood is no change, and never a failure.
//! - What partitions do is recognised here, from the tokens (`sqlparser` 0.63 knows ATTACH and DETACH in some dialects, and
//!   neither SPLIT, MERGE nor REORGANIZE); creating, dropping and emptying tables is parsed by `sqlparser`, and recognised
//!   from the tokens where it does not know the statement.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-altertable.html>,
//! <https://mariadb.com/kb/en/alter-table/#partitions>.

mod alter;
mod cursor;
mod lex;
mod parsed;
mod uses;

pub use uses::{Use, uses};

use lex::{Lexed, Token};

/// Bytes of a text that are looked at.
pub const TEXT_MAX: usize = 256 << 10;
/// Statements of a text that are looked at.
pub const STATEMENTS_MAX: usize = 256;
/// Names in one statement that are told.
const NAMES_MAX: usize = 1_024;

/// Whose SQL a text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    Postgres,
    Mariadb,
}

/// A table or partition as a statement names it: folded as the server folds it when it is not quoted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Table {
    /// Schema (PostgreSQL) or database (MariaDB), when it is given.
    pub schema: Option<String>,
    pub name: String,
}

/// What a statement does to the parts of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SchemaChange {
    Create {
        table: Table,
        partition_of: Option<Table>,
    },
    Drop {
        tables: Vec<Table>,
    },
    Truncate {
        tables: Vec<Table>,
    },
    Attach {
        parent: Table,
        child: Table,
    },
    Detach {
        parent: Table,
        child: Table,
    },
    /// One or more partitions of a table become as many or more.
    Split {
        table: Table,
        parts: Vec<Table>,
        into: Vec<Table>,
    },
    /// Several become fewer.
    Merge {
        table: Table,
        parts: Vec<Table>,
        into: Vec<Table>,
    },
    AddPartition {
        table: Table,
        parts: Vec<Table>,
    },
    DropPartition {
        table: Table,
        parts: Vec<Table>,
    },
    /// No parts: all of them.
    TruncatePartition {
        table: Table,
        parts: Vec<Table>,
    },
    /// A partition and a table change places.
    Exchange {
        table: Table,
        part: Table,
        with: Table,
    },
    /// Anything else that is done to a table's definition.
    Alter {
        table: Table,
    },
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// The changes that a text of one or more statements makes, in order. Bytes that are no UTF-8 are replaced.
pub fn recognise(dialect: Dialect, text: &[u8]) -> Vec<SchemaChange> {
    let text = text.get(..TEXT_MAX).unwrap_or(text);
    if !may_change(text) {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(text);
    let Lexed { tokens, ends } = lex::lex(dialect, &text);
    let mut found = Vec::new();
    let mut begin = 0;
    for (end, from, to) in ends.into_iter().take(STATEMENTS_MAX) {
        let tokens = tokens.get(begin..end).unwrap_or(&[]);
        begin = end;
        found.extend(statement(tokens, text.get(from..to).unwrap_or("")));
    }
    found
}

/// Most of a log is something else: a look at the letters, before any work.
fn may_change(text: &[u8]) -> bool {
    const VERBS: [&[u8]; 4] = [b"create", b"alter", b"drop", b"truncate"];
    let is = |at: usize, verb: &[u8]| {
        text.get(at..at + verb.len()).is_some_and(|word| word.eq_ignore_ascii_case(verb))
    };
    (0..text.len()).any(|at| {
        matches!(text.get(at), Some(b'c' | b'C' | b'a' | b'A' | b'd' | b'D' | b't' | b'T'))
            && VERBS.iter().any(|verb| is(at, verb))
    })
}

fn statement(tokens: &[Token], text: &str) -> Option<SchemaChange> {
    let first = tokens.first()?;
    if first.is("alter") {
        return alter::table(tokens);
    }
    if first.is("create") || first.is("drop") || first.is("truncate") {
        // What `sqlparser` has no words for, or takes for less than it is.
        return alter::partition_of(tokens).or_else(|| parsed::parse(text)).or_else(|| alter::plain(tokens));
    }
    None
}

#[cfg(test)]
mod tests;
