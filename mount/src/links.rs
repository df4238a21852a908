//! Where a symlink in a view leads. It never leads from the past into a live directory of the set: a target in any root
//! shows that root's view of the same instant, and what the database keeps outside of every root cannot be followed at
//! all. Everything goes by letters: a handler must not look at paths outside, which may be slow, or its own mounts.

use crate::place::normal;
use crate::profile::{self, Profile};
use crate::roots::Place;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use weft::engine::{Engine, View};
use weft::error::Result;
use weft::past::when;
use weft::types::{FileId, FileKind, Name};

/// What stands before the target of a link to what no root covers.
const NOT_COVERED: &str = "/nonexistent/weft-not-covered";

/// One root as links see it.
#[derive(Clone, Debug)]
pub struct Linked {
    /// By which paths links name it.
    pub place: Place,
    /// Where it is mounted.
    pub point: PathBuf,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Links {
    /// DATA first.
    pub roots: Vec<Linked>,
    /// As configured; otherwise it follows from what is in DATA at the instant: a database may be made on a mount that
    /// was empty, and after a crash nothing of DATA can be seen before it is mounted.
    pub profile: Option<Profile>,
}

/// Where a target leads.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Leads {
    /// It stays in its own root, as it is.
    Within,
    /// Into a root (by its place in the list), and from its directory on along this path.
    Into(usize, PathBuf),
    /// Into a view already.
    Past(PathBuf),
    /// Out of every root, to this absolute path.
    Outside(PathBuf),
}

impl Links {
    /// The target that a symlink of a view shows; `root` is the number in the list of the root whose view it is,
    /// `called` the name of the view.
    pub fn shown(&self, view: &View, called: &str, root: usize, file: FileId) -> Result<Vec<u8>> {
        let target = view.read_link(file)?;
        if !may_leave(&target) {
            return Ok(target);
        }
        let path = view.path(file)?;
        let dir = path.split_last().map_or(&[][..], |(_, dir)| dir);
        Ok(match self.leads(root, dir, Path::new(OsStr::from_bytes(&target))) {
            Leads::Within => target,
            Leads::Past(path) => bytes(path),
            Leads::Into(to, rest) => {
                let Some(Linked { place, point }) = self.roots.get(to) else { return Ok(target) };
                match view.root(place.name.as_bytes())? {
                    Some(_) => bytes(below(&point.join(called), &rest)),
                    None => not_covered(&below(point, &rest)),
                }
            }
            Leads::Outside(outside) if root == 0 && self.past_profile(view)?.holds(&path) => {
                not_covered(&outside)
            }
            Leads::Outside(_) if target.starts_with(b"/") => target,
            Leads::Outside(outside) => bytes(outside),
        })
    }

    fn profile_by(&self, has: impl Fn(&[u8]) -> Result<bool>) -> Result<Profile> {
        if let Some(profile) = self.profile {
            return Ok(profile);
        }
        let mut there = Vec::new();
        for name in profile::TELLING {
            if has(name.as_bytes())? {
                there.push(name);
            }
        }
        Ok(Profile::by_names(|name| there.contains(&name)).unwrap_or(Profile::Generic))
    }

    fn past_profile(&self, view: &View) -> Result<Profile> {
        self.profile_by(|name| Ok(view.lookup(FileId::ROOT, name)?.is_some()))
    }

    fn live_profile(&self, core: &Engine) -> Result<Profile> {
        self.profile_by(|name| match core.lookup(FileId::ROOT, name) {
            Ok(_) => Ok(true),
            Err(error) if error.is(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        })
    }

    fn leads(&self, root: usize, dir: &[Name], target: &Path) -> Leads {
        if target.is_absolute() {
            let path = normal(target);
            return self.find(&path).unwrap_or(Leads::Outside(path));
        }
        if !climbs_out(dir.len(), target) {
            return Leads::Within;
        }
        // Above a root it matters where that stands, or stood.
        let home: PathBuf = dir.iter().map(|name| OsStr::from_bytes(name)).collect();
        let homes = self.roots.get(root).map_or(&[][..], |linked| &linked.place.paths);
        let mut paths = homes.iter().map(|path| normal(&path.join(&home).join(target)));
        let first = paths.next().unwrap_or_default();
        let found = self.find(&first).or_else(|| paths.find_map(|path| self.find(&path)));
        found.unwrap_or(Leads::Outside(first))
    }

    /// The root that holds an absolute path: by the longest of the paths it is known by.
    fn find(&self, path: &Path) -> Option<Leads> {
        let known = self.roots.iter().enumerate().flat_map(|(number, linked)| {
            let rest = move |known: &PathBuf| path.strip_prefix(known).ok().map(|rest| (number, rest));
            linked.place.paths.iter().filter_map(rest)
        });
        let (number, rest) = known.min_by_key(|(_, rest)| rest.components().count())?;
        let first = rest.components().next().map(|part| part.as_os_str().as_bytes());
        Some(match first.is_some_and(when::is_reserved) {
            true => Leads::Past(path.to_path_buf()),
            false => Leads::Into(number, rest.to_path_buf()),
        })
    }

    /// What a live link of the database leads to, when no root covers it.
    fn uncovered_target(&self, profile: Profile, path: &[Name], target: &[u8]) -> Option<PathBuf> {
        let dir = path.split_last().map_or(&[][..], |(_, dir)| dir);
        match self.leads(0, dir, Path::new(OsStr::from_bytes(target))) {
            Leads::Outside(outside) if profile.holds(path) => Some(outside),
            _ => None,
        }
    }

    /// One line for each link by which the live database keeps parts of itself outside of every root.
    ///
    /// # Errors
    /// When the live names cannot be read.
    pub fn uncovered(&self, core: &Engine) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let profile = self.live_profile(core)?;
        for path in profile.links(core)? {
            let target = read_live(core, &path)?;
            if let Some(outside) = target.and_then(|target| self.uncovered_target(profile, &path, &target)) {
                lines.push(complaint(&path, &outside));
            }
        }
        Ok(lines)
    }

    /// Where the live database keeps parts of itself by links: the path of each, and the root and the path in it that it
    /// leads to, of those that a root covers.
    ///
    /// # Errors
    /// When the live names cannot be read.
    pub fn covered(&self, core: &Engine) -> Result<Vec<(Vec<u8>, &Linked, PathBuf)>> {
        let mut found = Vec::new();
        for path in self.live_profile(core)?.links(core)? {
            let Some(target) = read_live(core, &path)? else { continue };
            let dir = path.split_last().map_or(&[][..], |(_, dir)| dir);
            let leads = self.leads(0, dir, Path::new(OsStr::from_bytes(&target)));
            let Leads::Into(number, rest) = leads else { continue };
            found.extend(self.roots.get(number).map(|root| (path.join(&b'/'), root, rest)));
        }
        Ok(found)
    }

    /// The same of one link that has just been made in the live tree.
    pub fn complaint_of(&self, core: &Engine, dir: FileId, name: &[u8], target: &[u8]) -> Option<String> {
        let mut path = vec![name.to_vec()];
        let profile = self.live_profile(core).ok()?;
        if dir != FileId::ROOT {
            let parent = profile.dirs_of_links().iter().find(|parent| {
                core.lookup(FileId::ROOT, parent.as_bytes()).is_ok_and(|(file, _)| file == dir)
            })?;
            path.insert(0, parent.as_bytes().to_vec());
        }
        self.uncovered_target(profile, &path, target).map(|outside| complaint(&path, &outside))
    }
}

fn complaint(path: &[Name], outside: &Path) -> String {
    let shown: Vec<_> = path.iter().map(|name| String::from_utf8_lossy(name)).collect();
    let (shown, outside) = (shown.join("/"), outside.display());
    format!(
        "{shown} leads to {outside}, which no root covers: it has no history, and no view shows it. Stop the server, \
         unmount, and mount with --root {}={outside}",
        profile::root_name(&shown)
    )
}

fn read_live(core: &Engine, path: &[Name]) -> Result<Option<Vec<u8>>> {
    let mut at = FileId::ROOT;
    for name in path {
        match core.lookup(at, name) {
            Ok((file, _)) => at = file,
            Err(error) if error.is(libc::ENOENT) || error.is(libc::ENOTDIR) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    match core.attr(at)?.kind {
        FileKind::Symlink => core.read_link(at).map(Some),
        _ => Ok(None),
    }
}

/// Most links do not: they need no look at where they stand.
fn may_leave(target: &[u8]) -> bool {
    target.starts_with(b"/") || target.split(|byte| *byte == b'/').any(|part| part == b"..")
}

fn climbs_out(depth: usize, target: &Path) -> bool {
    let mut depth = depth;
    for part in target.components() {
        match part {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    false
}

fn below(base: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { base.to_path_buf() } else { base.join(rest) }
}

fn bytes(path: PathBuf) -> Vec<u8> {
    path.into_os_string().into_vec()
}

/// A target that says what it is, and leads nowhere.
fn not_covered(path: &Path) -> Vec<u8> {
    [NOT_COVERED.as_bytes(), path.as_os_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        let linked = |name: &str, point: &str, paths: &[&str]| Linked {
            place: Place { name: name.into(), paths: paths.iter().map(PathBuf::from).collect() },
            point: point.into(),
        };
        Links {
            roots: vec![
                linked("", "/db/main", &["/db/main", "/old/main"]),
                linked("wal", "/srv/wal", &["/srv/wal", "/alias"]),
                linked("ts", "/srv/wal-ts", &["/srv/wal-ts"]),
            ],
            profile: None,
        }
    }

    fn leads(root: usize, dir: &str, target: &str) -> Leads {
        let dir: Vec<Name> =
            dir.split('/').filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()).collect();
        links().leads(root, &dir, Path::new(target))
    }

    fn into(root: usize, rest: &str) -> Leads {
        Leads::Into(root, rest.into())
    }

    #[test]
    fn links_within_their_root_stay() {
        for (dir, target) in [("", "base/5"), ("base", "../global"), ("a/b", "../../c"), ("", "./x")] {
            assert_eq!(leads(0, dir, target), Leads::Within, "{dir} {target}");
        }
    }

    #[test]
    fn links_into_a_root_are_found_however_they_are_written() {
        assert_eq!(leads(0, "", "/srv/wal"), into(1, ""));
        assert_eq!(leads(0, "", "/srv/./x/../wal//a/b"), into(1, "a/b"));
        assert_eq!(leads(0, "", "/alias/a"), into(1, "a"));
        assert_eq!(leads(0, "pg_tblspc", "/srv/wal-ts"), into(2, ""));
        assert_eq!(leads(0, "", "../../srv/wal/a"), into(1, "a"));
        assert_eq!(leads(0, "pg_tblspc", "../../../srv/wal-ts/x"), into(2, "x"));
        assert_eq!(leads(1, "", "../../db/main/base"), into(0, "base"));
        assert_eq!(leads(0, "", "/db/main/base"), into(0, "base"));
        assert_eq!(leads(0, "", "../main/base"), into(0, "base"));
        assert_eq!(leads(2, "", "/old/main"), into(0, ""));
    }

    #[test]
    fn links_out_of_all_roots_are_told_from_their_neighbours() {
        assert_eq!(leads(0, "", "/srv/wall"), Leads::Outside("/srv/wall".into()));
        assert_eq!(leads(0, "", "/srv"), Leads::Outside("/srv".into()));
        assert_eq!(leads(0, "a", "../../etc"), Leads::Outside("/db/etc".into()));
        assert_eq!(leads(0, "", "/srv/wal/../x"), Leads::Outside("/srv/x".into()));
    }

    #[test]
    fn links_into_a_view_are_in_the_past_already() {
        let view = "/srv/wal/@ts=2026-01-01T00:00:00.000000Z/a";
        assert_eq!(leads(0, "", view), Leads::Past(view.into()));
        assert_eq!(leads(0, "", "/srv/wal/a/@ts=x"), into(1, "a/@ts=x"));
    }

    #[test]
    fn what_the_database_keeps_outside_is_complained_of() {
        let links = links();
        let path = |text: &str| text.split('/').map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
        let outside =
            |at: &str, target: &str| links.uncovered_target(Profile::Postgres, &path(at), target.as_bytes());
        assert_eq!(outside("pg_tblspc/16400", "/mnt/x"), Some("/mnt/x".into()));
        assert_eq!(outside("pg_tblspc/16400", "/srv/wal-ts"), None);
        assert_eq!(outside("server.crt", "/etc/ssl/x"), None);
        let line = complaint(&path("pg_tblspc/16400"), Path::new("/mnt/x"));
        assert!(line.contains("--root ts16400=/mnt/x"), "{line}");
    }
}
