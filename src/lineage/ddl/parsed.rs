//! Creating, dropping and emptying tables, by `sqlparser`.

use super::{SchemaChange, Table};
use sqlparser::ast::{ObjectName, ObjectType, Statement};
use sqlparser::dialect::{Dialect, GenericDialect, MySqlDialect, PostgreSqlDialect};
use sqlparser::parser::Parser;

/// Nesting that is followed.
const DEPTH: usize = 64;
/// Longer statements are left to the tokens: their beginning says enough.
const LEN: usize = 32 << 10;

/// The change that a statement is; `None` when it is none, or is not understood.
pub(super) fn parse(text: &str) -> Option<SchemaChange> {
    if text.len() > LEN {
        return None;
    }
    // Backquotes are MariaDB's alone.
    let dialects: [&dyn Dialect; 3] = match text.contains('`') {
        true => [&MySqlDialect {}, &GenericDialect {}, &PostgreSqlDialect {}],
        false => [&PostgreSqlDialect {}, &MySqlDialect {}, &GenericDialect {}],
    };
    dialects.into_iter().find_map(|dialect| one(dialect, text))
}

fn one(dialect: &dyn Dialect, text: &str) -> Option<SchemaChange> {
    let mut parser = Parser::new(dialect).with_recursion_limit(DEPTH).try_with_sql(text).ok()?;
    match parser.parse_statement().ok()? {
        Statement::CreateTable(create) => {
            Some(SchemaChange::Create { table: table(&create.name)?, partition_of: None })
        }
        Statement::Drop { object_type: ObjectType::Table, names, .. } => {
            Some(SchemaChange::Drop { tables: names.iter().map(table).collect::<Option<_>>()? })
        }
        Statement::Truncate(truncate) => {
            let tables = truncate.table_names.iter().map(|target| table(&target.name));
            Some(SchemaChange::Truncate { tables: tables.collect::<Option<_>>()? })
        }
        _ => None,
    }
}

/// The last two parts of a name, each folded unless it is quoted.
fn table(name: &ObjectName) -> Option<Table> {
    let mut parts = name.0.iter().rev().map(|part| {
        let ident = part.as_ident()?;
        Some(match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_lowercase(),
        })
    });
    let name = parts.next()??;
    Some(Table { schema: parts.next().flatten(), name })
}
