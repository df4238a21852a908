//! Which partition a table is that a statement names: of MariaDB by its path, of PostgreSQL as its catalogue says.

use crate::catalogue::{self, Names, Source};
use crate::running::Running;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use weft::engine::Partition;
use weft::forecast::Key;
use weft::lineage::ddl::Table;
use weft::lineage::find::file_at;
use weft::lineage::partition::Layout;
use weft::types::{FileId, FileKind};

/// The catalogue is asked no oftener, and rests so many times as long as it took to answer.
const ASK_AFTER: Duration = Duration::from_millis(200);
const REST: u32 = 5;
/// While statements come that change nothing, it is asked again when it is so old.
const OLD: Duration = Duration::from_secs(60);
/// What tables are called is looked up again after so long where no catalogue says that it has changed.
const REMEMBERED: Duration = Duration::from_secs(30);
/// What a table's rows stand in, in the order of likelihood, by layout (MariaDB: InnoDB, MyISAM, Aria).
const ROWS_OF_MARIADB: [&str; 3] = [".ibd", ".MYD", ".MAD"];
/// Directories of databases that are looked into when a log does not say which.
const DIRS_MAX: usize = 4_096;

/// See the head of this file.
pub(super) struct Tables {
    /// A conninfo or URL; without one PostgreSQL's tables have no files.
    connection: Option<String>,
    names: Names,
    /// When it answered last, and how long that took.
    asked: Option<(Instant, Duration)>,
    /// What it says was as new as can be when it was last to be asked.
    pub is_new: bool,
    /// Why the catalogue did not answer.
    pub trouble: Option<String>,
    /// Paths of tables that statements name, since when.
    paths: (Instant, HashMap<Spelt, Option<String>>),
}

/// A table as a log has it: database, table and part.
type Spelt = (Option<String>, Table, Option<Table>);

impl Tables {
    pub fn new(connection: Option<String>) -> Tables {
        let paths = (Instant::now(), HashMap::new());
        Tables { connection, names: Names::default(), asked: None, is_new: true, trouble: None, paths }
    }

    /// Asks the catalogue again, if it is time; whether what it says is as new as can be. It is a server on this mount:
    /// whoever calls this must hold nothing that a request of the kernel's waits for.
    pub fn ask(&mut self) -> bool {
        let Some(connection) = &self.connection else { return true };
        self.is_new = self.asked.is_none_or(|(at, took)| at.elapsed() >= ASK_AFTER.max(took * REST));
        if !self.is_new {
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
        self.forget();
        true
    }

    /// Whether what the catalogue said is too old for statements that only read and write.
    pub fn is_old(&self) -> bool {
        self.connection.is_some() && self.asked.is_none_or(|(at, _)| at.elapsed() > OLD)
    }

    fn forget(&mut self) {
        self.paths = (Instant::now(), HashMap::new());
    }

    /// The partition of a table that statements read and write, as the forecast calls it, if it has files. It is asked for
    /// oftener than [`Tables::partition`], and lists no directory.
    pub fn key(&mut self, running: &Running, of: &Named<'_>) -> Option<Key> {
        let layout = running.layout();
        if self.paths.0.elapsed() > REMEMBERED {
            self.forget();
        }
        let spelt = (of.database.map(str::to_owned), of.table.clone(), of.part.cloned());
        let path = match self.paths.1.get(&spelt) {
            Some(path) => path.clone(),
            None => {
                let path = self.path(layout, running, of);
                self.paths.1.insert(spelt, path.clone());
                path
            }
        }?;
        let partition = located(running, layout, &path)?;
        let endings = if layout == Layout::Mariadb { &ROWS_OF_MARIADB[..] } else { &[""] };
        let is_there = |ending: &&str| {
            let path = [partition.name.as_slice(), ending.as_bytes()].concat();
            matches!(file_at(&*running.common.engine, &partition.root, &path), Ok(Some(_)))
        };
        endings.iter().any(is_there).then(|| Key::from(partition.to_string()))
    }

    fn path(&self, layout: Layout, running: &Running, of: &Named<'_>) -> Option<String> {
        match layout {
            Layout::Mariadb => of.path_of_mariadb(running),
            _ => of.path_of_postgres(&self.names).map(str::to_owned),
        }
    }

    /// The partition of a table, or of a part of it, if it has files.
    pub fn partition(&self, running: &Running, of: &Named<'_>) -> Option<Partition> {
        let layout = running.layout();
        let partition = located(running, layout, &self.path(layout, running, of)?)?;
        let files = running.common.engine.partition_files(layout, &partition).ok()?;
        (!files.is_empty()).then_some(partition)
    }
}

/// Of MariaDB a path names several files.
fn located(running: &Running, layout: Layout, path: &str) -> Option<Partition> {
    match layout {
        Layout::Mariadb => running.partition(path).ok(),
        _ => running.relation(path),
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
    /// As the catalogue has it.
    fn path_of_postgres<'a>(&self, names: &'a Names) -> Option<&'a str> {
        let Table { schema, name } = self.part.unwrap_or(self.table);
        match (self.database, schema) {
            (Some(database), schema) => names.path_in(database, schema.as_deref(), name),
            (None, Some(schema)) => names.path(&format!("{schema}.{name}")),
            (None, None) => names.path(name),
        }
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
