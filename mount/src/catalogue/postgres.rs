//! PostgreSQL's catalogue: relations and their paths, partitions and their bounds, and the pages of chosen rows.

use super::{CONNECT, Called, Names, STATEMENT};
use crate::Outcome;
use postgres::error::SqlState;
use postgres::{Client, Config, NoTls};
use std::str::FromStr;
use std::time::{Duration, Instant};
use weft::types::PageSet;

/// Bytes of a block, as every server is built unless its builder chose otherwise.
pub const DEFAULT_BLOCK: u64 = 8_192;
/// Between two looks whether transactions have ended.
const LOOK: Duration = Duration::from_millis(100);

/// One line with what the server said.
fn told(doing: &str) -> impl Fn(postgres::Error) -> String + '_ {
    move |cause| {
        let said = cause.as_db_error().map_or_else(
            || {
                let source = std::error::Error::source(&cause).map(|source| format!(": {source}"));
                format!("{cause}{}", source.unwrap_or_default())
            },
            |error| error.message().to_owned(),
        );
        format!("PostgreSQL, {doing}: {said}")
    }
}

/// The same of statements that the operator may give more time.
fn told_slow(doing: &str) -> impl Fn(postgres::Error) -> String + '_ {
    move |cause| {
        let longer = match cause.code() == Some(&SqlState::QUERY_CANCELED) {
            true => ": give it longer with --timeout SECS",
            false => "",
        };
        format!("{}{longer}", told(doing)(cause))
    }
}

fn connect(conninfo: &str, database: Option<&str>) -> Outcome<Client> {
    connect_for(conninfo, database, STATEMENT)
}

/// `limit`: how long a statement may take.
fn connect_for(conninfo: &str, database: Option<&str>, limit: Duration) -> Outcome<Client> {
    let mut config = Config::from_str(conninfo).map_err(|cause| {
        format!("{conninfo:?} is no conninfo ({cause}): write it as \"host=/run/postgresql user=postgres\"")
    })?;
    config.connect_timeout(CONNECT).application_name("weft");
    if let Some(database) = database {
        config.dbname(database);
    }
    let mut client = config.connect(NoTls).map_err(told("connecting"))?;
    let limit = format!("SET statement_timeout = {}", limit.as_millis());
    client.batch_execute(&limit).map_err(told("SET statement_timeout"))?;
    Ok(client)
}

const DATABASES: &str = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname";

/// Relations with files, those that are partitions with parent and bound.
const RELATIONS: &str = "
    SELECT pg_relation_filepath(c.oid), n.nspname, c.relname,
           (SELECT pn.nspname || '.' || p.relname FROM pg_inherits i
              JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
             WHERE i.inhrelid = c.oid AND c.relispartition LIMIT 1),
           CASE WHEN c.relispartition THEN pg_get_expr(c.relpartbound, c.oid) END
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE pg_relation_filenode(c.oid) IS NOT NULL";

/// All databases that may be connected to.
fn databases(conninfo: &str) -> Outcome<Vec<String>> {
    let failed = told("listing the databases");
    let rows = connect(conninfo, None)?.query(DATABASES, &[]).map_err(&failed)?;
    rows.iter().map(|row| row.try_get(0).map_err(&failed)).collect()
}

/// The names of all relations of all databases that may be connected to.
pub(super) fn names(conninfo: &str) -> Outcome<Names> {
    let mut names = Names::default();
    for database in databases(conninfo)? {
        let mut client = connect(conninfo, Some(&database))?;
        for row in client.query(RELATIONS, &[]).map_err(told("listing the relations"))? {
            let text =
                |at: usize| row.try_get::<_, Option<String>>(at).map_err(told("listing the relations"));
            let (Some(path), Some(schema), Some(name)) = (text(0)?, text(1)?, text(2)?) else { continue };
            let shared = path.starts_with("global/");
            let name =
                if shared { format!("{schema}.{name}") } else { format!("{database}.{schema}.{name}") };
            let parent = text(3)?.map(|parent| format!("{database}.{parent}"));
            names.put(&path, Called { name, parent, bound: text(4)? });
        }
    }
    Ok(names)
}

/// Tables with rows of their own.
const TOUCHED: &str = "
    SELECT pg_relation_filepath(relid), (coalesce(seq_scan, 0) + coalesce(idx_scan, 0))::bigint,
           (n_tup_ins + n_tup_upd + n_tup_del)::bigint, d.oid, relid
      FROM pg_stat_user_tables JOIN pg_database d ON d.datname = current_database()
     WHERE pg_relation_filenode(relid) IS NOT NULL";

/// What the server's statistics say of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Touched {
    /// OIDs of its database and its own: they stay when the table is written anew, into other files.
    pub table: (u32, u32),
    /// From DATA on, as the server sees it.
    pub path: String,
    /// Scans that were begun.
    pub reads: u64,
    /// Rows that were inserted, updated and deleted.
    pub writes: u64,
}

/// How much all tables of all databases that may be connected to were read and written since the statistics began.
///
/// # Errors
/// One line with what the server said.
pub fn touched(conninfo: &str) -> Outcome<Vec<Touched>> {
    let failed = told("asking for statistics");
    let mut all = Vec::new();
    for database in databases(conninfo)? {
        let mut client = connect(conninfo, Some(&database))?;
        for row in client.query(TOUCHED, &[]).map_err(&failed)? {
            let Some(path) = row.try_get::<_, Option<String>>(0).map_err(&failed)? else { continue };
            let count = |at: usize| row.try_get::<_, i64>(at).map_err(&failed).map(i64::unsigned_abs);
            let oid = |at: usize| row.try_get::<_, u32>(at).map_err(&failed);
            all.push(Touched { table: (oid(3)?, oid(4)?), path, reads: count(1)?, writes: count(2)? });
        }
    }
    Ok(all)
}

/// A relation as the catalogue has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relation {
    pub oid: u32,
    /// With its schema.
    pub name: String,
    /// The same, as it stands in a statement.
    quoted: String,
    /// From DATA on, as the server sees it: `base/5/16397`.
    pub path: String,
    /// Blocks of its heap.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
}

/// Looks a relation up, by its name or by the path of its files. `limit`: how long each statement may take.
///
/// # Errors
/// One line with what the server said, or that there is none.
pub fn relation(conninfo: &str, name: &str, limit: Duration) -> Outcome<(Client, Relation)> {
    let mut client = connect_for(conninfo, None, limit)?;
    let query = "
        SELECT c.oid, n.nspname || '.' || c.relname, pg_relation_filepath(c.oid),
               pg_relation_size(c.oid) / current_setting('block_size')::bigint, current_setting('block_size')::bigint,
               quote_ident(n.nspname) || '.' || quote_ident(c.relname)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'm') AND (c.oid = to_regclass($1) OR pg_relation_filepath(c.oid) = $1)";
    // A path is no name: to_regclass would refuse its letters.
    let query =
        if name.contains('/') { query.replace("c.oid = to_regclass($1) OR ", "") } else { query.into() };
    let failed = told("looking the relation up");
    let row = client.query_opt(&query, &[&name]).map_err(&failed)?.ok_or_else(|| {
        format!(
            "PostgreSQL knows no table {name:?} with rows of its own in the database of the connection: name it as \
             SCHEMA.TABLE, or by its path, and give dbname= in CONNINFO"
        )
    })?;
    let number = |at: usize| row.try_get::<_, i64>(at).map_err(&failed);
    let relation = Relation {
        oid: row.try_get(0).map_err(&failed)?,
        name: row.try_get(1).map_err(&failed)?,
        quoted: row.try_get(5).map_err(&failed)?,
        path: row.try_get::<_, Option<String>>(2).map_err(&failed)?.unwrap_or_default(),
        blocks: u64::try_from(number(3)?).unwrap_or(0),
        block_bytes: u64::try_from(number(4)?).ok().filter(|bytes| *bytes > 0).unwrap_or(DEFAULT_BLOCK),
    };
    Ok((client, relation))
}

/// Waits until all transactions have ended that write a relation now. What they write may be on disk, and is seen by no
/// other before.
///
/// # Errors
/// One line: the server refused, or they go on for longer than `limit`.
pub fn wait_for_writers(client: &mut Client, relation: &Relation, limit: Duration) -> Outcome<()> {
    const WRITERS: &str = "
        SELECT DISTINCT virtualtransaction FROM pg_locks
         WHERE relation = $1 AND mode = 'RowExclusiveLock'
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let failed = told("asking who writes the table");
    let (begun, mut first) = (Instant::now(), None);
    loop {
        let rows = client.query(WRITERS, &[&relation.oid]).map_err(&failed)?;
        let now = rows.iter().map(|row| row.try_get(0).map_err(&failed)).collect::<Outcome<Vec<String>>>()?;
        let first = first.get_or_insert_with(|| now.clone());
        if !first.iter().any(|writer| now.contains(writer)) {
            return Ok(());
        }
        if begun.elapsed() > limit {
            return Err(format!(
                "transactions that write {} go on (pg_locks shows them): end them, or give it longer with --timeout SECS",
                relation.name
            ));
        }
        std::thread::sleep(LOOK);
    }
}

/// Has the server write everything that it holds back of a relation, and make it durable.
///
/// # Errors
/// One line: it may not be asked to, or its checkpoints do not do that.
pub fn write_back(client: &mut Client, relation: &Relation) -> Outcome<()> {
    let failed = told("asking what a checkpoint writes");
    let query = "SELECT pg_is_in_recovery(), relpersistence <> 'p' FROM pg_class WHERE oid = $1";
    let row = client.query_one(query, &[&relation.oid]).map_err(&failed)?;
    let is = |at: usize| row.try_get::<_, bool>(at).map_err(&failed);
    if is(0)? {
        return Err("the server is a standby, whose checkpoints leave pages in its buffers".into());
    }
    if is(1)? {
        return Err(format!(
            "{} is not logged, and checkpoints leave its pages in the buffers",
            relation.name
        ));
    }
    client.batch_execute("CHECKPOINT").map_err(|cause| match cause.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            "only CHECKPOINT writes what is in PostgreSQL's buffers, and this user may not: grant it pg_checkpoint, or be \
             superuser"
                .into()
        }
        _ => told_slow("CHECKPOINT")(cause),
    })
}

/// The pages (of 4 KiB) of the heap that hold rows of a predicate.
#[derive(Clone, PartialEq, Debug)]
pub struct PageSetOf {
    pub pages: PageSet,
    pub rows: u64,
}

/// Asks in which blocks the rows of a predicate stand: `SELECT ... FROM table WHERE (predicate)`, in a transaction that
/// cannot write.
///
/// # Errors
/// One line: the predicate fails, or matches nothing.
pub fn pages_where(client: &mut Client, relation: &Relation, predicate: &str) -> Outcome<PageSetOf> {
    let failed = told_slow("the predicate");
    let mut transaction =
        client.build_transaction().read_only(true).start().map_err(told("beginning a transaction"))?;
    let table = &relation.quoted;
    let query = format!(
        "SELECT (ctid::text::point)[0]::bigint AS block, count(*) FROM ONLY {table} WHERE ({predicate}\n) GROUP BY 1 \
         ORDER BY 1"
    );
    let rows = transaction.query(&query, &[]).map_err(&failed)?;
    let mut found = PageSetOf { pages: PageSet::default(), rows: 0 };
    for row in rows {
        let number = |at: usize| row.try_get::<_, i64>(at).map_err(&failed).map(i64::unsigned_abs);
        let (block, count) = (number(0)?, number(1)?);
        found.pages.write(block * relation.block_bytes, (block + 1) * relation.block_bytes);
        found.rows += count;
    }
    if found.rows == 0 {
        return Err(format!(
            "the predicate matches no row of {}: a child without rows needs no past; check it with SELECT count(*)",
            relation.name
        ));
    }
    Ok(found)
}
