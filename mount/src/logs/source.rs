//! Where the files of a log are: on another filesystem, or in a root, which is read through the engine.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::fs::{DirEntry, File};
use std::io::{Error, Result};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft::engine::Engine;
use weft::lineage::partition::names;
use weft::live::exclude::glob;
use weft::types::{FileId, FileKind};

/// Files of one log at most: a pattern that fits more is a mistake, and the newest count.
pub(super) const FILES_MAX: usize = 256;

/// Links that a path may go through (as the kernel has it: MAXSYMLINKS).
const LINKS_MAX: u32 = 40;

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

/// Where an absolute path leads: links are followed as far as it does not enter one of `tops`, what the daemon itself has
/// mounted. From there on it goes by its letters.
pub(super) fn reach(path: &Path, tops: &[PathBuf]) -> PathBuf {
    let parts =
        |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let (mut left, mut reached, mut links) = (parts(path), PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        if part == ".." {
            reached.pop();
            continue;
        }
        reached.push(part);
        let is_own = tops.iter().any(|top| reached.starts_with(top));
        if let Some(target) =
            (!is_own && links < LINKS_MAX).then(|| std::fs::read_link(&reached).ok()).flatten()
        {
            links += 1;
            reached.pop();
            left.extend(parts(&target));
        }
    }
    reached
}

/// Where a log is.
pub(super) enum Spot {
    /// In a root: its directory, and the path from there on.
    Inside(FileId, PathBuf),
    Outside(PathBuf),
}

/// Where a path leads, from DATA on if it is relative, by whatever links: those of the system as [`reach`] has it, those in a
/// root through the engine. `tops`: where roots are seen, DATA's first, and the directory of each.
pub(super) fn locate(core: &Engine, path: &Path, tops: &[(PathBuf, FileId)]) -> Spot {
    let points: Vec<PathBuf> = tops.iter().map(|(point, _)| point.clone()).collect();
    let below = |path: &Path| {
        let within = |(point, top): &(PathBuf, FileId)| {
            Some((point.clone(), *top, path.strip_prefix(point).ok()?.into()))
        };
        tops.iter().find_map(within)
    };
    let (mut path, mut links) = (path.to_path_buf(), 0);
    loop {
        let found: Option<(PathBuf, FileId, PathBuf)> = match path.is_absolute() {
            true => {
                path = reach(&path, &points);
                below(&path)
            }
            false => tops.first().map(|(point, _)| (point.clone(), FileId::ROOT, path.clone())),
        };
        let Some((point, top, rest)) = found else { return Spot::Outside(path) };
        links += 1;
        match through_link(core, top, &rest).filter(|_| links < LINKS_MAX) {
            Some(onward) => path = point.join(onward),
            None => return Spot::Inside(top, rest),
        }
    }
}

/// Where a path in a root goes by the first link among its directories; `None`: there is none.
fn through_link(core: &Engine, top: FileId, path: &Path) -> Option<PathBuf> {
    let (mut at, mut gone) = (top, PathBuf::new());
    let mut parts = path.components();
    parts.next_back();
    while let Some(part) = parts.next() {
        let (file, attr) = core.lookup(at, part.as_os_str().as_bytes()).ok()?;
        if attr.kind == FileKind::Symlink {
            let target = PathBuf::from(OsString::from_vec(core.read_link(file).ok()?));
            return Some(gone.join(target).join(parts.as_path()).join(path.file_name()?));
        }
        gone.push(part);
        at = file;
    }
    None
}

/// A log outside of every root.
pub(super) struct Outside {
    path: PathBuf,
    /// What the daemon itself has mounted: nothing there is opened by a path.
    tops: Vec<PathBuf>,
    open: HashMap<Identity, (String, File)>,
    unreadable: Option<Error>,
}

impl Outside {
    pub fn new(path: &Path, tops: Vec<PathBuf>) -> Outside {
        Outside { path: path.to_path_buf(), tops, open: HashMap::new(), unreadable: None }
    }

    /// A link into what the daemon has mounted: held open it would keep the mount busy.
    fn leads_inside(&self, entry: &DirEntry) -> bool {
        if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            return false;
        }
        let reached = reach(&entry.path(), &self.tops);
        self.tops.iter().any(|top| reached.starts_with(top))
    }
}

fn of_file(name: &str, cause: &Error) -> Error {
    Error::new(cause.kind(), format!("{name}: {cause}"))
}

impl Source for Outside {
    fn list(&mut self) -> Result<Vec<Found>> {
        let shown = self.path.to_string_lossy().into_owned();
        let (dir, pattern) = split(&shown);
        let mut found = Vec::new();
        self.unreadable = None;
        for entry in std::fs::read_dir(if dir.is_empty() { "/" } else { dir })? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !glob(pattern.as_bytes(), name.as_bytes()) {
                continue;
            }
            if self.leads_inside(&entry) {
                let why = format!(
                    "{name} is a link into the mount: follow it by its own path, as a log of its own"
                );
                self.unreadable = Some(Error::other(why));
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
        for file in &found {
            if let Entry::Vacant(free) = self.open.entry(file.identity) {
                match File::open(Path::new(dir).join(&file.name)) {
                    Ok(open) => {
                        free.insert((file.name.clone(), open));
                    }
                    Err(cause) => self.unreadable = Some(of_file(&file.name, &cause)),
                }
            }
        }
        Ok(found)
    }

    fn unreadable(&mut self) -> Option<Error> {
        self.unreadable.take()
    }

    fn read(&mut self, file: Identity, offset: u64, out: &mut [u8]) -> Result<usize> {
        let Some((name, open)) = self.open.get(&file) else { return Ok(0) };
        let read = open.read_at(out, offset).map_err(|cause| of_file(name, &cause));
        if read.is_err() {
            // What is opened anew may be read again: of a network's filesystem handles go stale.
            self.open.remove(&file);
        }
        read
    }
}

/// A log in a root.
pub(super) struct Inside {
    pub core: Arc<Engine>,
    /// The root's directory.
    pub top: FileId,
    /// From there on.
    pub path: String,
}

impl Inside {
    fn dir(&self, path: &str) -> Result<FileId> {
        let mut at = self.top;
        for name in names(path.as_bytes()) {
            let (file, attr) = self.core.lookup(at, &name).map_err(told)?;
            match attr.kind {
                FileKind::Directory => at = file,
                // Where it leads was seen when the following began.
                FileKind::Symlink => {
                    let name = String::from_utf8_lossy(&name);
                    return Err(Error::other(format!("{name} is a link now: the next mount goes by it")));
                }
                _ => return Err(Error::from_raw_os_error(libc::ENOENT)),
            }
        }
        Ok(at)
    }
}

fn told(error: weft::error::Error) -> Error {
    Error::from_raw_os_error(error.to_errno())
}

impl Source for Inside {
    fn list(&mut self) -> Result<Vec<Found>> {
        let (dir, pattern) = split(&self.path);
        let at = self.dir(dir)?;
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
        match self.core.read_uncounted(FileId(file.1), offset, out) {
            Err(error) if error.is(libc::ENOENT) || error.is(libc::ESTALE) => Ok(0),
            other => other.map_err(told),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_up_to_what_the_daemon_has_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(at("data/log")).unwrap();
        std::fs::create_dir(at("logs")).unwrap();
        symlink(at("data"), at("main")).unwrap();
        symlink("../main/log", at("logs/pg")).unwrap();
        symlink("/nowhere", at("data/out")).unwrap();
        symlink("round", at("round")).unwrap();
        let tops = [at("data")];
        for (path, reached) in [
            ("main/log/*.csv", "data/log/*.csv"),
            ("logs/pg/x", "data/log/x"),
            ("data/out/x", "data/out/x"),
            ("logs/x", "logs/x"),
            ("no/such/x", "no/such/x"),
            ("round", "round"),
        ] {
            assert_eq!(reach(&at(path), &tops), at(reached), "{path}");
        }
    }

    #[test]
    fn what_leads_into_the_mount_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        std::fs::create_dir(at("data")).unwrap();
        std::fs::create_dir(at("logs")).unwrap();
        std::fs::write(at("data/x.csv"), "x").unwrap();
        std::fs::write(at("logs/a.csv"), "a").unwrap();
        symlink(at("data/x.csv"), at("logs/now.csv")).unwrap();
        let mut outside = Outside::new(&at("logs/*.csv"), vec![at("data")]);
        let names: Vec<String> = outside.list().unwrap().into_iter().map(|found| found.name).collect();
        assert_eq!(names, ["a.csv"]);
        let told = outside.unreadable().unwrap().to_string();
        assert!(told.contains("now.csv is a link into the mount"), "{told}");
    }

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
