//! Changes of partitions, from tokens.

use super::cursor::Cursor;
use super::lex::Token;
use super::{NAMES_MAX, SchemaChange, Table};

/// `ALTER TABLE ...`.
pub(super) fn table(tokens: &[Token]) -> Option<SchemaChange> {
    let mut cursor = Cursor { rest: tokens };
    cursor.eat("alter");
    for word in ["online", "ignore"] {
        cursor.eat(word);
    }
    if !cursor.eat("table") {
        return None;
    }
    cursor.eat_all(&["if", "exists"]);
    cursor.eat("only");
    let table = cursor.table()?;
    cursor.eat_sign('*');
    // MariaDB: WAIT n, NOWAIT.
    if cursor.eat("wait") {
        cursor.next();
    }
    cursor.eat("nowait");
    let whole = cursor.rest;
    Some(action(&table, &mut cursor).unwrap_or_else(|| anywhere(&table, whole)))
}

/// In MariaDB a change of partitions may stand behind others, and a comma.
fn anywhere(table: &Table, tokens: &[Token]) -> SchemaChange {
    let commas = tokens.iter().enumerate().filter(|(_, token)| **token == Token::Sign(','));
    let found = commas
        .take(NAMES_MAX)
        .find_map(|(at, _)| action(table, &mut Cursor { rest: tokens.get(at + 1..).unwrap_or(&[]) }));
    found.unwrap_or_else(|| SchemaChange::Alter { table: table.clone() })
}

fn action(table: &Table, cursor: &mut Cursor<'_>) -> Option<SchemaChange> {
    let table = table.clone();
    if cursor.eat_all(&["attach", "partition"]) {
        return Some(SchemaChange::Attach { parent: table, child: cursor.table()? });
    }
    if cursor.eat_all(&["detach", "partition"]) {
        return Some(SchemaChange::Detach { parent: table, child: cursor.table()? });
    }
    if cursor.eat_all(&["split", "partition"]) {
        let parts = vec![cursor.table()?];
        cursor.eat("into");
        return Some(SchemaChange::Split { table, parts, into: cursor.definitions()? });
    }
    if cursor.eat_all(&["merge", "partitions"]) {
        cursor.eat_sign('(');
        let parts = cursor.tables()?;
        cursor.eat_sign(')');
        cursor.eat("into");
        return Some(SchemaChange::Merge { table, parts, into: vec![cursor.table()?] });
    }
    if cursor.eat_all(&["reorganize", "partition"]) {
        let parts = cursor.tables()?;
        cursor.eat("into");
        let into = cursor.definitions()?;
        return Some(match into.len() < parts.len() {
            true => SchemaChange::Merge { table, parts, into },
            false => SchemaChange::Split { table, parts, into },
        });
    }
    if cursor.eat_all(&["exchange", "partition"]) {
        let part = cursor.table()?;
        let with = cursor.eat_all(&["with", "table"]).then(|| cursor.table())??;
        return Some(SchemaChange::Exchange { table, part, with });
    }
    if cursor.eat_all(&["convert", "partition"]) {
        let part = cursor.table()?;
        let child = cursor.eat_all(&["to", "table"]).then(|| cursor.table())??;
        return Some(SchemaChange::Exchange { table, part, with: child });
    }
    if cursor.eat_all(&["convert", "table"]) {
        let child = cursor.table()?;
        let part = cursor.eat_all(&["to", "partition"]).then(|| cursor.table())??;
        return Some(SchemaChange::Exchange { table, part, with: child });
    }
    added_or_gone(table, cursor)
}

fn added_or_gone(table: Table, cursor: &mut Cursor<'_>) -> Option<SchemaChange> {
    if cursor.eat_all(&["add", "partition"]) {
        cursor.eat_all(&["if", "not", "exists"]);
        // ADD PARTITION PARTITIONS n: of a table by hash; its parts have no names here.
        let parts = cursor.definitions().unwrap_or_default();
        return Some(SchemaChange::AddPartition { table, parts });
    }
    if cursor.eat_all(&["drop", "partition"]) {
        cursor.eat_all(&["if", "exists"]);
        return Some(SchemaChange::DropPartition { table, parts: cursor.tables()? });
    }
    if cursor.eat_all(&["truncate", "partition"]) {
        let parts = if cursor.eat("all") { Vec::new() } else { cursor.tables()? };
        return Some(SchemaChange::TruncatePartition { table, parts });
    }
    None
}

/// `CREATE TABLE child PARTITION OF parent ...`.
pub(super) fn partition_of(tokens: &[Token]) -> Option<SchemaChange> {
    let mut cursor = Cursor { rest: tokens };
    let table = created(&mut cursor)?;
    let parent = cursor.eat_all(&["partition", "of"]).then(|| cursor.table())??;
    Some(SchemaChange::Create { table, partition_of: Some(parent) })
}

/// `CREATE [OR REPLACE] [TEMPORARY | UNLOGGED | ...] TABLE [IF NOT EXISTS] name`.
fn created(cursor: &mut Cursor<'_>) -> Option<Table> {
    if !cursor.eat("create") {
        return None;
    }
    cursor.eat_all(&["or", "replace"]);
    for word in ["global", "local", "temporary", "temp", "unlogged"] {
        cursor.eat(word);
    }
    if !cursor.eat("table") {
        return None;
    }
    cursor.eat_all(&["if", "not", "exists"]);
    cursor.table()
}

/// Creating, dropping and emptying, by their first words alone.
pub(super) fn plain(tokens: &[Token]) -> Option<SchemaChange> {
    if let Some(table) = created(&mut Cursor { rest: tokens }) {
        return Some(SchemaChange::Create { table, partition_of: None });
    }
    let mut cursor = Cursor { rest: tokens };
    if cursor.eat("drop") {
        cursor.eat("temporary");
        if !cursor.eat("table") {
            return None;
        }
        cursor.eat_all(&["if", "exists"]);
        return Some(SchemaChange::Drop { tables: cursor.tables()? });
    }
    if cursor.eat("truncate") {
        cursor.eat("table");
        cursor.eat("only");
        return Some(SchemaChange::Truncate { tables: cursor.tables()? });
    }
    None
}
