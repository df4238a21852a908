//! What a database calls its partitions: asked of the database itself, over a connection that the operator names. Run in
//! the process of the command, and in the daemon on threads of their own that hold nothing: a server on the mount may wait
//! for the daemon.

mod mysql;
mod postgres;

pub use postgres::{
    DEFAULT_BLOCK, PageSetOf, Relation as PgRelation, Touched, pages_where, relation, touched,
    wait_for_writers, write_back,
};

use crate::Outcome;
use std::collections::HashMap;
use std::time::Duration;

/// How long a connection, and a statement, may take.
const CONNECT: Duration = Duration::from_secs(5);
const STATEMENT: Duration = Duration::from_secs(60);

/// Whom to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source<'a> {
    /// A conninfo string or URL of libpq.
    Postgres(&'a str),
    /// `mysql://USER:PASSWORD@HOST/?socket=PATH`.
    Mysql(&'a str),
}

/// What a partition is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Called {
    /// With its database.
    pub name: String,
    /// The table that it is a partition of.
    pub parent: Option<String>,
    /// Which rows it holds, as the database says it.
    pub bound: Option<String>,
}

/// Names by path.
#[derive(Default)]
pub struct Names {
    by_path: HashMap<String, Called>,
}

impl Names {
    /// The name of a partition by its canonical path. A path below a tablespace is known from `PG_...` on, wherever the
    /// tablespace stands.
    pub fn of(&self, path: &str) -> Option<&Called> {
        self.by_path.get(path).or_else(|| self.by_path.get(below_tablespace(path)?))
    }

    /// The path of a partition by its name: as the database of the connection calls it, with or without what stands
    /// before it, as long as one alone fits.
    pub fn path(&self, name: &str) -> Option<&str> {
        let fits = |called: &Called| {
            called.name == name
                || called.name.strip_suffix(name).is_some_and(|rest| rest.ends_with(['.', ' ']))
        };
        self.the_only(fits)
    }

    /// The path of a table of PostgreSQL's, as a session in this database names it. Without a schema one alone must fit: in
    /// which a session looks first nobody tells, and another database's is never meant.
    pub fn path_in(&self, database: &str, schema: Option<&str>, name: &str) -> Option<&str> {
        let fits = |called: &Called| {
            let within = called.name.strip_prefix(database)?.strip_prefix('.')?;
            let own = within.strip_suffix(name)?.strip_suffix('.')?;
            Some(schema.map_or(!own.contains('.'), |schema| own == schema))
        };
        self.the_only(|called| fits(called) == Some(true))
    }

    fn the_only(&self, fits: impl Fn(&Called) -> bool) -> Option<&str> {
        let mut found = self.by_path.iter().filter(|(_, called)| fits(called)).map(|(path, _)| path.as_str());
        let first = found.next()?;
        // MariaDB's and MySQL's spelling of one file are both known.
        found.all(|other| other.eq_ignore_ascii_case(first)).then_some(first)
    }

    fn put(&mut self, path: &str, called: Called) {
        let key = below_tablespace(path).unwrap_or(path);
        self.by_path.entry(key.to_owned()).or_insert(called);
    }
}

/// What of a path is below the directory of a tablespace.
pub(crate) fn below_tablespace(path: &str) -> Option<&str> {
    let at = if path.starts_with("PG_") { 0 } else { path.find("/PG_")? + 1 };
    path.get(at..)
}

/// Asks for all names.
///
/// # Errors
/// One line with what the database said.
pub fn names(source: Source<'_>) -> Outcome<Names> {
    match source {
        Source::Postgres(conninfo) => postgres::names(conninfo),
        Source::Mysql(url) => mysql::names(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablespaces_are_known_wherever_they_stand() {
        let mut names = Names::default();
        let called = |name: &str| Called { name: name.into(), parent: None, bound: None };
        names.put("base/5/1", called("a"));
        names.put("pg_tblspc/16400/PG_15_202209061/5/2", called("b"));
        assert_eq!(names.of("base/5/1").unwrap().name, "a");
        for path in ["PG_15_202209061/5/2", "fast/PG_15_202209061/5/2", "pg_tblspc/9/PG_15_202209061/5/2"] {
            assert_eq!(names.of(path).unwrap().name, "b", "{path}");
        }
        assert!(names.of("5/2").is_none());
    }

    #[test]
    fn a_session_means_tables_of_its_own_database() {
        let mut names = Names::default();
        let tables = [
            ("base/1/1", "prod.public.orders_1"),
            ("base/1/2", "prod.public.twice"),
            ("base/1/3", "prod.store.twice"),
            ("base/1/4", "prod.store.alone"),
            ("base/2/1", "staging.public.other"),
        ];
        for (path, name) in tables {
            names.put(path, Called { name: name.into(), parent: None, bound: None });
        }
        assert_eq!(names.path_in("prod", None, "orders_1"), Some("base/1/1"));
        assert_eq!(names.path_in("staging", None, "orders_1"), None, "that was dropped, or never was");
        assert_eq!(names.path_in("staging", Some("public"), "orders_1"), None);
        assert_eq!(names.path_in("prod", None, "twice"), None, "nobody knows which");
        assert_eq!(names.path_in("prod", Some("public"), "twice"), Some("base/1/2"));
        assert_eq!(names.path_in("prod", None, "alone"), Some("base/1/4"));
        assert_eq!(names.path_in("pro", None, "orders_1"), None);
        assert_eq!(names.path_in("prod", None, "rders_1"), None);
        assert_eq!(names.path("orders_1"), Some("base/1/1"), "where nobody says which database");
    }
}
