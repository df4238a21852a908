//! Which partition a table is that a statement names: of MariaDB by its path, of PostgreSQL as its catalogue says.

use crate::catalogue::{self, Names, Source};
use crate::running::Running;
use std::time::{Duration, Instant};
use weft::engine::Partition;
use weft::lineage::ddl::Table;
use weft::lineage::partition::Layout;
use weft::types::{FileId, FileKind};

/// The catalogue is asked no oftener, and rests so many times as long as it took to answer.
const ASK_AFTER: Duration = Duration::from_millis(200);
const REST: u32 = 5;
/// Directories of databases that are looked into when a log does not say which.
const DIRS_MAX: usize = 4_096;

/// See the head of this file.
pub(super) struct Tables {
    /// A conninfo or URL; without one PostgreSQL's tables have no files.
    connection: Option<String>,
    names: Names,
    /// When it answered last, and how long that took.
    asked: Option<(Instant, Duration)>,
    /// Why the catalogue did not answer.
    pub trouble: Option<String>,
}

impl Tables {
    pub fn new(connection: Option<String>) -> Tables {
        Tables { connection, names: Names::default(), asked: None, trouble: None }
    }

    /// Asks the catalogue again, if it is time; whether what it says is as new as can be. It is a server on this mount:
    /// whoever calls this must hold nothing that a request of the kernel's waits for.
    pub fn ask(&mut self) -> bool {
        let Some(connection) = &self.connection else { return true };
        if self.asked.is_some_and(|(at, took)| at.elapsed() < ASK_AFTER.max(took * REST)) {
            return false;
        }
        let source = match connection.starts_with("mysql:") {
            true => Source::Mysql(connection),
            false => Source::Postgres(connection),
        };
        let begun = Instant::now();
        match catalogue::names(source) {
            Ok(names) => (self.names, self.trouble) = (names, None),
            Err(cause) => self.trouble = Some(cause),
        }
        self.asked = Some((Instant::now(), begun.elapsed()));
        true
    }

    /// The partition of a table, or of a part of it, if it has files.
    pub fn partition(&self, running: &Running, of: &Named<'_>) -> Option<Partition> {
        let layout = running.layout();
        let path = match layout {
            Layout::Mariadb => of.path_of_mariadb(running)?,
            _ => of.names().iter().find_map(|name| self.names.path(name))?.to_owned(),
        };
        let partition = running.partition(&path).ok()?;
        let files = running.common.engine.partition_files(layout, &partition).ok()?;
        (!files.is_empty()).then_some(partition)
    }
}

/// A table as a log has it.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    /// The database of the session, where the log tells.
    pub database: Option<&'a str>,
    pub table: &'a Table,
    /// Of MariaDB: a partition of the table.
    pub part: Option<&'a Table>,
}

impl Named<'_> {
    /// As the catalogue may call it, the surest first.
    fn names(&self) -> Vec<String> {
        let Table { schema, name } = self.part.unwrap_or(self.table);
        let schema = schema.as_deref();
        let with = |database: &str| match schema {
            Some(schema) => format!("{database}.{schema}.{name}"),
            None => format!("{database}.public.{name}"),
        };
        let bare = match schema {
            Some(schema) => format!("{schema}.{name}"),
            None => name.clone(),
        };
        self.database.map(with).into_iter().chain([bare]).collect()
    }

    /// `db/t#P#p` from DATA on; names of other letters than these are spelt otherwise in files, and not looked for.
    fn path_of_mariadb(&self, running: &Running) -> Option<String> {
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let part = match self.part {
            Some(part) if plain(&part.name) => format!("#P#{}", part.name),
            Some(_) => return None,
            None => String::new(),
        };
        let file = format!("{}{part}", self.table.name);
        let database = self.table.schema.as_deref().or(self.database);
        match database {
            _ if !plain(&self.table.name) => None,
            Some(database) => plain(database).then(|| format!("{database}/{file}")),
            None => the_only(running, &file),
        }
    }
}

/// The path of a table that one database alone has.
fn the_only(running: &Running, file: &str) -> Option<String> {
    let engine = &running.common.engine;
    let entries = engine.read_dir(FileId::ROOT, None, DIRS_MAX).ok()?;
    let dirs = entries.into_iter().filter(|entry| entry.kind == FileKind::Directory);
    let ending = format!("{file}.ibd");
    let mut found = dirs.filter(|dir| engine.lookup(dir.file, ending.as_bytes()).is_ok());
    let dir = found.next()?;
    found.next().is_none().then(|| format!("{}/{file}", String::from_utf8_lossy(&dir.name)))
}
