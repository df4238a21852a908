//! Which database a directory holds, and what follows from it.

use crate::Outcome;
use crate::roots::Root;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use weft::engine::{Engine, Layout};
use weft::live::exclude::Patterns;
use weft::types::{FileId, FileKind, Name};

/// What is known of a kind of database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    Postgres,
    Mariadb,
    Sqlite,
    Generic,
}

/// The names that tell one database from another.
pub const TELLING: [&str; 4] = ["PG_VERSION", "global", "ibdata1", "aria_log_control"];

/// Temporary files of PostgreSQL (storage/file/fd.h, PG_TEMP_FILES_DIR; pg_stat_tmp: statistics that a start throws
/// away), and the file that says which server runs: wrong in every copy.
const POSTGRES: [&str; 3] = ["pgsql_tmp/", "pg_stat_tmp/", "postmaster.pid"];
/// Temporary tablespaces of InnoDB (made anew at each start; the directory is MySQL's), and temporary tables where
/// `tmpdir` lies in the data directory. Not `#sql-alter-*` and its like: ALTER TABLE renames those to real tables.
const MARIADB: [&str; 3] = ["ibtmp1", "#innodb_temp/", "#sql-temptable*"];
/// For a directory of which nothing is known yet: a database made there later has the right ones from the beginning,
/// and nothing else has such names.
const UNKNOWN: [&str; 6] =
    ["pgsql_tmp/", "pg_stat_tmp/", "postmaster.pid", "ibtmp1", "#innodb_temp/", "#sql-temptable*"];

/// Files without which a copy of a view is worth nothing, by example.
const VITAL_POSTGRES: [&str; 13] = [
    "PG_VERSION",
    "backup_label",
    "base/5/16397",
    "base/5/16397_fsm",
    "base/5/PG_VERSION",
    "base/5/pg_filenode.map",
    "global/pg_control",
    "pg_multixact/offsets/0000",
    "pg_tblspc/16400",
    "pg_tblspc/16400/PG_15_202209061/5/16401",
    "pg_twophase/00000001",
    "pg_wal/000000010000000000000001",
    "pg_xact/0000",
];
const VITAL_MARIADB: [&str; 9] = [
    "aria_log.00000001",
    "aria_log_control",
    "db/#sql-alter-1f-3.ibd",
    "db/db.opt",
    "db/t.frm",
    "db/t.ibd",
    "ib_logfile0",
    "ibdata1",
    "undo001",
];
const VITAL_SQLITE: [&str; 4] = ["app.db", "app.db-journal", "app.db-shm", "app.db-wal"];

/// What `profile = "auto"` leaves out, by the names in DATA's root.
pub fn auto_patterns(top: &[Name]) -> &'static [&'static str] {
    Profile::by_names(|name| top.iter().any(|have| have == name.as_bytes()))
        .map_or(&UNKNOWN, Profile::patterns)
}

/// How paths map to partitions, by the names in DATA's root, where the mount has found `found`.
pub fn layout_by_names(found: Profile) -> fn(&[Name]) -> Layout {
    match found {
        Profile::Postgres => |_| Layout::Postgres,
        Profile::Mariadb => |_| Layout::Mariadb,
        Profile::Sqlite => |_| Layout::Sqlite,
        Profile::Generic => |top| {
            Profile::by_names(|name| top.iter().any(|have| have == name.as_bytes()))
                .map_or(Layout::Generic, Profile::layout)
        },
    }
}

impl Profile {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Postgres => "postgres",
            Profile::Mariadb => "mariadb",
            Profile::Sqlite => "sqlite",
            Profile::Generic => "generic",
        }
    }

    /// How its files make up partitions.
    pub fn layout(self) -> Layout {
        match self {
            Profile::Postgres => Layout::Postgres,
            Profile::Mariadb => Layout::Mariadb,
            Profile::Sqlite => Layout::Sqlite,
            Profile::Generic => Layout::Generic,
        }
    }

    /// From what lies in DATA; an empty directory is generic until something is made there.
    pub fn detect(data: &Path) -> Profile {
        let root = crate::place::contents(data);
        let other = || if holds_sqlite(&root) { Profile::Sqlite } else { Profile::Generic };
        Profile::by_names(|name| root.join(name).exists()).unwrap_or_else(other)
    }

    /// From the names in DATA's root alone.
    pub fn by_names(has: impl Fn(&str) -> bool) -> Option<Profile> {
        if has("PG_VERSION") && has("global") {
            Some(Profile::Postgres)
        } else if has("ibdata1") || has("aria_log_control") {
            Some(Profile::Mariadb)
        } else {
            None
        }
    }

    /// What is left out of history.
    pub fn patterns(self) -> &'static [&'static str] {
        match self {
            Profile::Postgres => &POSTGRES,
            Profile::Mariadb => &MARIADB,
            Profile::Sqlite | Profile::Generic => &[],
        }
    }

    /// Refuses patterns that would leave out what the database cannot do without.
    ///
    /// # Errors
    /// One line naming the pattern and what it would leave out.
    pub fn check_patterns(self, patterns: &Patterns) -> Outcome<()> {
        let vital: &[&str] = match self {
            Profile::Postgres => &VITAL_POSTGRES,
            Profile::Mariadb => &VITAL_MARIADB,
            Profile::Sqlite => &VITAL_SQLITE,
            Profile::Generic => &[],
        };
        for path in vital {
            let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            if let Some(pattern) = patterns.by(&names, false) {
                return Err(format!(
                    "exclude: {pattern:?} would leave files such as {path} out of history, and a copy of a view would \
                     be no {} database: take it out of weft.toml",
                    self.name()
                ));
            }
        }
        Ok(())
    }

    /// Refuses a PostgreSQL cluster parts of which lie outside DATA and every root: their history would be missing, and a
    /// server started on a copy of a view would write into the live ones.
    ///
    /// # Errors
    /// One line naming the links and what to do.
    pub fn check_links(self, data: &Path, roots: &[Root]) -> Outcome<()> {
        let covered =
            |real: &Path| real.starts_with(data) || roots.iter().any(|root| real.starts_with(&root.dir));
        let outside: Vec<Link> =
            self.plain_links(data).into_iter().filter(|link| !covered(&link.real)).collect();
        if outside.is_empty() {
            return Ok(());
        }
        let leads: Vec<String> =
            outside.iter().map(|link| format!("{} to {}", link.name, link.real.display())).collect();
        let mut proposals: Vec<String> = Vec::new();
        for link in &outside {
            let name = free_name(&link.name, roots);
            proposals.push(format!("--root {name}={}", quoted(&link.real)));
        }
        Err(format!(
            "{} leads out of DATA: {}; history would not cover it, and a copy of the past would write into it; mount \
             each as a root of the same history: {}",
            data.display(),
            leads.join(", "),
            proposals.join(" ")
        ))
    }

    /// The links by which a plain database keeps parts of itself elsewhere.
    pub fn plain_links(self, data: &Path) -> Vec<Link> {
        let root = crate::place::contents(data);
        let mut names: Vec<String> = self.single_links().iter().map(ToString::to_string).collect();
        for dir in self.dirs_of_links() {
            let entries = std::fs::read_dir(root.join(dir));
            let mut below: Vec<String> = entries
                .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>())
                .unwrap_or_default()
                .into_iter()
                .map(|name| format!("{dir}/{}", name.to_string_lossy()))
                .collect();
            below.sort();
            names.append(&mut below);
        }
        names.into_iter().filter_map(|name| link_at(&root, data, name)).collect()
    }

    /// The same of the live database: the paths from DATA on, name by name.
    pub fn links(self, core: &Engine) -> weft::error::Result<Vec<Vec<Name>>> {
        let mut paths: Vec<Vec<Name>> =
            self.single_links().iter().map(|name| vec![name.as_bytes().to_vec()]).collect();
        for dir in self.dirs_of_links() {
            match core.lookup(FileId::ROOT, dir.as_bytes()) {
                Ok((file, attr)) if attr.kind == FileKind::Directory => {
                    for entry in core.read_dir(file, None, usize::MAX)? {
                        paths.push(vec![dir.as_bytes().to_vec(), entry.name]);
                    }
                }
                Ok(_) => {}
                Err(error) if error.is(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(paths)
    }

    /// Names in DATA that may be links to parts of the database.
    fn single_links(self) -> &'static [&'static str] {
        if self == Profile::Postgres { &["pg_wal"] } else { &[] }
    }

    /// Directories in DATA whose entries may be.
    pub fn dirs_of_links(self) -> &'static [&'static str] {
        if self == Profile::Postgres { &["pg_tblspc"] } else { &[] }
    }

    /// Whether what stands at a path (from DATA on, name by name) is the database's own, so that a copy of the past must
    /// not reach the live one. Certificates, settings and logs are not.
    pub fn holds(self, path: &[Name]) -> bool {
        let first = path.first().map_or(&b""[..], |name| name);
        self == Profile::Postgres && PG_DIRS.iter().any(|dir| dir.as_bytes() == first)
    }
}

/// The directories of a PostgreSQL cluster
/// (<https://www.postgresql.org/docs/current/storage-file-layout.html>).
const PG_DIRS: [&str; 17] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

/// A link of a plain database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// From DATA on.
    pub name: String,
    /// What it says, made absolute.
    pub text: PathBuf,
    /// Where it leads.
    pub real: PathBuf,
}

/// A name for the root that a link leads to: `wal`, `ts16400`.
pub fn root_name(link: &str) -> String {
    match link.rsplit_once('/') {
        Some(("pg_tblspc", oid)) => format!("ts{oid}"),
        _ => link.trim_start_matches("pg_").to_string(),
    }
}

fn free_name(link: &str, roots: &[Root]) -> String {
    let name = root_name(link);
    let taken = |name: &str| roots.iter().any(|root| root.name == name);
    let mut numbered = (2..).map(|number| format!("{name}-{number}"));
    if taken(&name) { numbered.find(|name| !taken(name)).unwrap_or(name) } else { name }
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Where a link leads when its entry stands in DATA, as it does once mounted (after a crash it stands in `root`).
fn link_at(root: &Path, data: &Path, name: String) -> Option<Link> {
    let target = std::fs::read_link(root.join(&name)).ok()?;
    let text = crate::place::normal(&data.join(&name).parent()?.join(target));
    let real = text.canonicalize().unwrap_or_else(|_| text.clone());
    Some(Link { name, text, real })
}

/// Looks at the first bytes of the files in DATA itself (<https://www.sqlite.org/fileformat.html>, section 1.3).
fn holds_sqlite(data: &Path) -> bool {
    use std::io::Read;
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let Ok(entries) = std::fs::read_dir(data) else { return false };
    entries.flatten().take(1_000).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).any(
        |entry| {
            let mut head = [0; 16];
            std::fs::File::open(entry.path()).and_then(|mut file| file.read_exact(&mut head)).is_ok()
                && &head == MAGIC
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn databases_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert_eq!(Profile::detect(data), Profile::Generic);
        fs::write(data.join("app.db"), b"SQLite format 3\0 and more").unwrap();
        assert_eq!(Profile::detect(data), Profile::Sqlite);
        fs::write(data.join("ibdata1"), b"").unwrap();
        assert_eq!(Profile::detect(data), Profile::Mariadb);
        fs::write(data.join("PG_VERSION"), b"15\n").unwrap();
        assert_eq!(Profile::detect(data), Profile::Mariadb);
        fs::create_dir(data.join("global")).unwrap();
        assert_eq!(Profile::detect(data), Profile::Postgres);
    }

    #[test]
    fn each_database_has_its_patterns_and_an_unknown_directory_those_of_all() {
        let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(auto_patterns(&names(&["PG_VERSION", "global", "base"])), POSTGRES);
        assert_eq!(auto_patterns(&names(&["ibdata1", "mysql"])), MARIADB);
        let unknown = auto_patterns(&[]);
        assert!(POSTGRES.iter().chain(&MARIADB).all(|pattern| unknown.contains(pattern)));
        for profile in [Profile::Postgres, Profile::Mariadb, Profile::Sqlite] {
            profile.check_patterns(&Patterns::parse(unknown).unwrap()).unwrap();
        }
    }

    #[test]
    fn nothing_vital_can_be_left_out() {
        for (profile, pattern) in [
            (Profile::Postgres, "pg_wal/"),
            (Profile::Postgres, "/base/"),
            (Profile::Postgres, "*_fsm"),
            (Profile::Mariadb, "#sql*"),
            (Profile::Mariadb, "aria_log*"),
            (Profile::Sqlite, "*-shm"),
            (Profile::Sqlite, "*-wal"),
        ] {
            let patterns = Patterns::parse(&[pattern]).unwrap();
            let refused = profile.check_patterns(&patterns).unwrap_err();
            assert!(refused.contains(pattern) && !refused.contains('\n'), "{refused}");
            assert_eq!(Profile::Generic.check_patterns(&patterns), Ok(()));
        }
        let logs = Patterns::parse(&["log/", "*.csv"]).unwrap();
        assert_eq!(Profile::Postgres.check_patterns(&logs), Ok(()));
    }

    #[test]
    fn links_out_of_data_are_refused_for_postgres_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (data, other) = (root.join("data"), root.join("wal"));
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::create_dir(data.join("inside")).unwrap();
        symlink(data.join("inside"), data.join("pg_wal")).unwrap();
        assert_eq!(Profile::Postgres.check_links(&data, &[]), Ok(()));
        symlink(&other, data.join("pg_tblspc/16400")).unwrap();
        let refused = Profile::Postgres.check_links(&data, &[]).unwrap_err();
        let proposal = format!("--root ts16400={}", other.display());
        assert!(refused.contains("pg_tblspc/16400") && refused.ends_with(&proposal), "{refused}");
        assert_eq!(Profile::Generic.check_links(&data, &[]), Ok(()));
        let root = |name: &str, dir: &Path| Root { name: name.into(), dir: dir.into(), remembered: false };
        assert_eq!(Profile::Postgres.check_links(&data, &[root("ts", &other)]), Ok(()));
        let refused = Profile::Postgres.check_links(&data, &[root("ts16400", &data)]).unwrap_err();
        assert!(refused.contains("--root ts16400-2="), "{refused}");
    }
}
