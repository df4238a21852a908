//! Which database a directory holds, and what follows from it.

use crate::Outcome;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is known of a kind of database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    Postgres,
    Mariadb,
    Sqlite,
    Generic,
}

impl Profile {
    /// From what lies in DATA; an empty directory is generic until the configuration says otherwise.
    pub fn detect(data: &Path) -> Profile {
        let root = crate::place::contents(data);
        let has = |name: &str| root.join(name).exists();
        if has("PG_VERSION") && has("global") {
            Profile::Postgres
        } else if has("ibdata1") || has("aria_log_control") {
            Profile::Mariadb
        } else if holds_sqlite(&root) {
            Profile::Sqlite
        } else {
            Profile::Generic
        }
    }

    /// Refuses a PostgreSQL cluster parts of which lie outside DATA: their history would be missing, and a server
    /// started on a copy of a view would write into the live ones.
    ///
    /// # Errors
    /// One line naming the link and what to do.
    pub fn check_links(self, data: &Path) -> Outcome<()> {
        if self != Profile::Postgres {
            return Ok(());
        }
        let root = crate::place::contents(data);
        for link in std::iter::once(root.join("pg_wal")).chain(tablespaces(&root)) {
            let Some(target) = target_of(&link, &root, data) else { continue };
            if !target.starts_with(data) {
                return Err(format!(
                    "{} leads out of DATA to {}: history would not cover it; stop the server, move that directory \
                     inside, and link to it there",
                    link.display(),
                    target.display()
                ));
            }
        }
        Ok(())
    }
}

/// Where a link leads when its entry stands in DATA, as it does once mounted (after a crash it stands in `root`).
fn target_of(link: &Path, root: &Path, data: &Path) -> Option<PathBuf> {
    let target = std::fs::read_link(link).ok()?;
    let home = data.join(link.strip_prefix(root).ok()?);
    let target = crate::place::normal(&home.parent()?.join(target));
    Some(target.canonicalize().unwrap_or(target))
}

fn tablespaces(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("pg_tblspc"));
    entries.map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
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
    fn links_out_of_data_are_refused_for_postgres_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (data, other) = (root.join("data"), root.join("wal"));
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::create_dir(data.join("inside")).unwrap();
        symlink(data.join("inside"), data.join("pg_wal")).unwrap();
        assert_eq!(Profile::Postgres.check_links(&data), Ok(()));
        symlink(&other, data.join("pg_tblspc/16400")).unwrap();
        let refused = Profile::Postgres.check_links(&data).unwrap_err();
        assert!(refused.contains("pg_tblspc/16400") && refused.contains("wal"), "{refused}");
        assert_eq!(Profile::Generic.check_links(&data), Ok(()));
    }
}
