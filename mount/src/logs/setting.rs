//! Which logs are followed, as weft.toml says it or the profile knows it.

use super::follow::Follow;
use super::format::Format;
use super::source::{Inside, Outside, Source, Spot, locate};
use crate::Outcome;
use crate::profile::Profile;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft::engine::Engine;
use weft::types::FileId;

/// One log.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// A file, or a pattern of names (`*`, `?`) in a directory; from DATA on when it does not begin with `/`.
    pub path: String,
    pub format: Format,
}

impl Setting {
    /// # Errors
    /// One line: no file can be meant.
    pub fn check(&self) -> Outcome<()> {
        let (dir, name) = super::source::split(&self.path);
        match () {
            () if name.is_empty() || name == "." || name == ".." => Err(format!(
                "log: {:?} names no file: give a path, or a pattern of names such as log/*.csv",
                self.path
            )),
            () if dir.contains(['*', '?']) => {
                Err(format!("log: {:?} has a pattern in its directory: patterns fit names only", self.path))
            }
            () if Path::new(&self.path).components().any(|part| part.as_os_str() == "..") => {
                Err(format!("log: {:?} goes up by \"..\": give the path itself", self.path))
            }
            () => Ok(()),
        }
    }

    /// Where PostgreSQL's collector writes unless it is told otherwise. Their absence is no fault.
    pub fn of_profile(profile: Profile) -> Vec<Setting> {
        let inside = |path: &str, format| Setting { path: path.into(), format };
        match profile {
            Profile::Postgres => vec![
                inside("log/*.csv", Format::PgCsv),
                inside("log/*.json", Format::PgJson),
                inside("log/*.log", Format::PgStderr),
            ],
            _ => Vec::new(),
        }
    }

    /// Follows it: through the engine what lies in a root, however its path is spelt, as the daemon must not wait for
    /// itself. `tops`: where roots are seen, DATA's first, and the directory of each.
    pub(super) fn follow(&self, engine: &Arc<Engine>, tops: &[(PathBuf, FileId)]) -> Follow {
        let source: Box<dyn Source> = match locate(engine, Path::new(&self.path), tops) {
            Spot::Inside(top, path) => {
                Box::new(Inside { core: Arc::clone(engine), top, path: path.to_string_lossy().into_owned() })
            }
            Spot::Outside(path) => {
                Box::new(Outside::new(&path, tops.iter().map(|(point, _)| point.clone()).collect()))
            }
        };
        Follow::new(self.format, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_can_mean_no_log_is_refused() {
        for (path, fits) in [
            ("log/*.csv", true),
            ("/var/log/mysql/mysql.log", true),
            ("log/", false),
            ("", false),
            ("log/..", false),
            ("../log/a", false),
            ("l*g/a", false),
        ] {
            let setting = Setting { path: path.into(), format: Format::PgCsv };
            assert_eq!(setting.check().is_ok(), fits, "{path}");
        }
    }
}
