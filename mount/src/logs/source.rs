//! Where the files of a log are: on another filesystem, or in DATA, which is read through the engine.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft::engine::Engine;
use weft::lineage::find::file_at;
use weft::lineage::partition::names;
use weft::live::exclude::glob;
use weft::types::{FileId, FileKind};

/// Files of one log at most: a pattern that fits more is a mistake, and the newest count.
pub(super) const FILES_MAX: usize = 256;

/// What a file is: stays the same through renames, and differs for a file that takes its place.
pub(super) type Identity = (u64, u64);

/// A file as it is found: what it is, by which name, and how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub identity: Identity,
    pub name: String,
    pub size: u64,
}

/// Files that a pattern names, and their bytes.
pub(super) trait Source: Send {
    /// Those that are there, in the order of their names.
    fn list(&mut self) -> Result<Vec<Found>>;
    /// Bytes at an offset; none at the end, and of a file that is gone. One that was listed stays readable until the next
    /// listing without it.
    fn read(&mut self, file: Identity, offset: u64, out: &mut [u8]) -> Result<usize>;
    /// Why one of those that were listed last cannot be read; the others can.
    fn unreadable(&mut self) -> Option<Error> {
        None
    }
}

/// A directory, and a pattern of names in it: `*` and `?`.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// A log outside of every root.
pub(super) struct Outside {
    pub path: PathBuf,
    open: HashMap<Identity, File>,
    unreadable: Option<Error>,
}

impl Outside {
    pub fn new(path: &Path) -> Outside {
        Outside { path: path.to_path_buf(), open: HashMap::new(), unreadable: None }
    }
}

impl Source for Outside {
    fn list(&mut self) -> Result<Vec<Found>> {
        let shown = self.path.to_string_lossy().into_owned();
        let (dir, pattern) = split(&shown);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(if dir.is_empty() { "/" } else { dir })? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !glob(pattern.as_bytes(), name.as_bytes()) {
                continue;
            }
            let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
            if meta.is_file() {
                found.push(Found { identity: (meta.dev(), meta.ino()), name, size: meta.len() });
            }
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        let skipped = found.len().saturating_sub(FILES_MAX);
        found.drain(..skipped);
        self.open.retain(|identity, _| found.iter().any(|file| file.identity == *identity));
        self.unreadable = None;
        for file in &found {
            if let Entry::Vacant(free) = self.open.entry(file.identity) {
                match File::open(Path::new(dir).join(&file.name)) {
                    Ok(open) => {
                        free.insert(open);
                    }
                    Err(cause) => {
                        self.unreadable = Some(Error::new(cause.kind(), format!("{}: {cause}", file.name)));
                    }
                }
            }
        }
        Ok(found)
    }

    fn unreadable(&mut self) -> Option<Error> {
        self.unreadable.take()
    }

    fn read(&mut self, file: Identity, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.open.get(&file).map_or(Ok(0), |open| open.read_at(out, offset))
    }
}

/// A log in DATA.
pub(super) struct Inside {
    pub core: Arc<Engine>,
    /// From DATA on.
    pub path: String,
}

fn told(error: weft::error::Error) -> Error {
    Error::from_raw_os_error(error.to_errno())
}

impl Source for Inside {
    fn list(&mut self) -> Result<Vec<Found>> {
        let (dir, pattern) = split(&self.path);
        let at = match names(dir.as_bytes()).is_empty() {
            true => FileId::ROOT,
            false => match file_at(&*self.core, b"", dir.as_bytes()).map_err(told)? {
                Some((file, attr)) if attr.kind == FileKind::Directory => file,
                _ => return Err(Error::from_raw_os_error(libc::ENOENT)),
            },
        };
        let mut found = Vec::new();
        for entry in self.core.read_dir(at, None, usize::MAX).map_err(told)? {
            if entry.kind != FileKind::Regular || !glob(pattern.as_bytes(), &entry.name) {
                continue;
            }
            let Ok(attr) = self.core.attr(entry.file) else { continue };
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            found.push(Found { identity: (0, entry.file.0), name, size: attr.size });
        }
        let skipped = found.len().saturating_sub(FILES_MAX);
        found.drain(..skipped);
        Ok(found)
    }

    fn read(&mut self, file: Identity, offset: u64, out: &mut [u8]) -> Result<usize> {
        match self.core.read(FileId(file.1), offset, out) {
            Err(error) if error.is(libc::ENOENT) || error.is(libc::ESTALE) => Ok(0),
            other => other.map_err(told),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, fit) in [
            ("postgresql-*.csv", "postgresql-2026-11-25.csv", true),
            ("postgresql-*.csv", "postgresql-2026.log", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b", "ac", false),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), fit, "{pattern} {name}");
        }
    }
}
