//! The set of directories that one STORE covers, and where each of them is and was. STORE/roots.json remembers it, so
//! that `weft mount DATA` mounts all of them again, and so that a link made when a root stood elsewhere is still known to
//! lead into it. Which roots there are is the core's to say; this file only says where.

use crate::mountinfo::{escape, unescape_path};
use crate::{Outcome, place};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file's name in STORE.
pub const FILE: &str = "roots.json";

/// A root and every path by which it is or was known; the first is where it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// As given with `--root NAME=DIR`; empty for DATA.
    pub name: String,
    pub paths: Vec<PathBuf>,
}

impl Place {
    /// Notes that it is at `now`, and also known as `others`.
    fn moved(&mut self, now: &Path, others: &[PathBuf]) {
        let mut paths = vec![now.to_path_buf()];
        for path in others.iter().chain(&self.paths) {
            if !paths.contains(path) {
                paths.push(path.clone());
            }
        }
        self.paths = paths;
    }
}

/// A further root of a mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    pub name: String,
    /// Without links; the mount goes over it.
    pub dir: PathBuf,
    /// Nobody gave its path: it is where the last mount had it.
    pub remembered: bool,
}

/// What a STORE remembers.
///
/// # Errors
/// One line with the file and the reason.
pub fn load(store: &Path) -> Outcome<Vec<Place>> {
    let path = store.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(format!("cannot read {}: {cause}", path.display())),
    };
    parse(&text).ok_or_else(|| {
        format!("{} is damaged: remove it, and give each root again with --root NAME=DIR", path.display())
    })
}

/// The name of the root that stands at a path; DATA's, which is none, for any other.
///
/// # Errors
/// One line with the file and the reason.
pub fn name_at(store: &Path, dir: &Path) -> Outcome<String> {
    let places = load(store)?;
    let at = places.into_iter().find(|place| place.paths.first().is_some_and(|path| path == dir));
    Ok(at.map(|place| place.name).unwrap_or_default())
}

fn parse(text: &str) -> Option<Vec<Place>> {
    let all: Value = serde_json::from_str(text).ok()?;
    let one = |place: &Value| {
        let paths = place.get("paths")?.as_array()?;
        let paths: Option<Vec<PathBuf>> =
            paths.iter().map(|path| unescape_path(path.as_str()?.as_bytes())).collect();
        Some(Place { name: place.get("name")?.as_str()?.into(), paths: paths.filter(|all| !all.is_empty())? })
    };
    all.as_array()?.iter().map(one).collect()
}

/// Remembers, durably; what is there already is left alone.
///
/// # Errors
/// One line with the file and the reason.
pub fn save(store: &Path, places: &[Place]) -> Outcome<()> {
    if load(store).is_ok_and(|known| known == places) {
        return Ok(());
    }
    let path = store.join(FILE);
    let one = |place: &Place| {
        let paths: Vec<String> = place.paths.iter().map(|path| escape(path)).collect();
        json!({ "name": place.name, "paths": paths })
    };
    let text = format!("{:#}\n", Value::Array(places.iter().map(one).collect()));
    let written = || {
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(store)?.sync_all()
    };
    written().map_err(|cause| format!("cannot write {}: {cause}", path.display()))
}

/// A `--root NAME=DIR`.
///
/// # Errors
/// One line saying how it is written.
pub fn parse_root(text: &str) -> Outcome<(String, PathBuf)> {
    let (name, dir) = text.split_once('=').ok_or_else(|| format!("{text}: write it as NAME=DIR"))?;
    weft::engine::check_root_name(name.as_bytes()).map_err(|cause| cause.message)?;
    if dir.is_empty() {
        return Err(format!("{text}: write it as NAME=DIR, DIR being an existing directory"));
    }
    Ok((name.into(), dir.into()))
}

/// The roots to mount: those given, and those remembered that are neither given nor left out.
///
/// # Errors
/// One line naming the root that cannot be found.
pub fn choose(
    given: &[(String, PathBuf)],
    without: &[String],
    known: &[Place],
) -> Outcome<(Vec<Root>, Vec<Place>)> {
    let mut roots = Vec::new();
    let mut places: Vec<Place> =
        known.iter().filter(|place| !without.contains(&place.name)).cloned().collect();
    for (name, path) in given {
        if roots.iter().any(|root: &Root| root.name == *name) {
            return Err(format!("the root {name} is given twice"));
        }
        if without.contains(name) {
            return Err(format!("the root {name} is asked for and left out at once"));
        }
        let dir = place::real(path)
            .map_err(|cause| format!("{cause}: the root {name} must be an existing directory"))?;
        let as_given = std::path::absolute(path).map(|path| place::normal(&path)).unwrap_or_default();
        match places.iter_mut().find(|place| place.name == *name) {
            Some(place) => place.moved(&dir, &[as_given]),
            None => {
                let mut place = Place { name: name.clone(), paths: Vec::new() };
                place.moved(&dir, &[as_given]);
                places.push(place);
            }
        }
        roots.push(Root { name: name.clone(), dir, remembered: false });
    }
    for place in places.iter().filter(|place| !place.name.is_empty()) {
        let Some(path) = place.paths.first() else { continue };
        if roots.iter().all(|root| root.name != place.name) {
            let name = &place.name;
            let dir = place::real(path).map_err(|cause| {
                format!("{cause}: the root {name} was there; say where it is with --root {name}=DIR")
            })?;
            roots.push(Root { name: name.clone(), dir, remembered: true });
        }
    }
    Ok((roots, places))
}

/// Notes where DATA is, and by which other paths a link may name it.
pub fn note_data(places: &mut Vec<Place>, data: &Path, others: &[PathBuf]) {
    match places.iter_mut().find(|place| place.name.is_empty()) {
        Some(place) => place.moved(data, others),
        None => {
            let mut place = Place { name: String::new(), paths: Vec::new() };
            place.moved(data, others);
            places.insert(0, place);
        }
    }
}

/// Notes a path by which a link of the database names a root: `text` leads to `real`, which lies in the root's
/// directory `dir`.
pub fn note_alias(places: &mut [Place], name: &str, dir: &Path, text: &Path, real: &Path) {
    let Ok(below) = real.strip_prefix(dir) else { return };
    let depth = below.components().count();
    if !text.ends_with(below) {
        return;
    }
    let Some(alias) = text.ancestors().nth(depth) else { return };
    if let Some(place) = places.iter_mut().find(|place| place.name == name)
        && !place.paths.iter().any(|path| path == alias)
    {
        place.paths.push(alias.to_path_buf());
    }
}

/// Whether the directories of a set lie apart from each other, from STORE and from MOUNTPOINT.
///
/// # Errors
/// One line naming the two that do not.
pub fn apart(data: &Path, point: &Path, store: &Path, roots: &[Root]) -> Outcome<()> {
    let mut others = vec![("DATA".to_string(), data), ("the STORE".to_string(), store)];
    if point != data {
        others.push(("MOUNTPOINT".to_string(), point));
    }
    for root in roots {
        for (what, other) in &others {
            if root.dir.starts_with(other) || other.starts_with(&root.dir) || is_same(&root.dir, other) {
                return Err(format!(
                    "the root {} ({}) and {what} ({}) must lie apart: neither may be or contain the other",
                    root.name,
                    root.dir.display(),
                    other.display()
                ));
            }
        }
        others.push((format!("the root {}", root.name), &root.dir));
    }
    Ok(())
}

/// The same directory under two paths, as bind mounts make it.
fn is_same(left: &Path, right: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    identity(left).is_some_and(|left| Some(left) == identity(right))
}

/// Whether the filesystem of a root keeps the mark by which Weft knows it again. Nothing is changed.
///
/// # Errors
/// One line saying what to use.
pub fn keeps_marks(root: &Root) -> Outcome<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(root.dir.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: both names are C strings that outlive the call; a length of 0 asks for the size and writes nothing.
    let size =
        unsafe { libc::lgetxattr(path.as_ptr(), c"user.weft.store".as_ptr(), std::ptr::null_mut(), 0) };
    let cause = std::io::Error::last_os_error();
    match size < 0 && cause.raw_os_error() == Some(libc::EOPNOTSUPP) {
        false => Ok(()),
        true => Err(format!(
            "the filesystem of the root {} ({}) has no extended attributes of users, by which Weft knows a root again: \
             use one that has (ext4, xfs, btrfs)",
            root.name,
            root.dir.display()
        )),
    }
}

/// Takes the mark off a root that has left the set; one that is not there does not need it.
pub fn unmark(dir: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_bytes()) else { return };
    // SAFETY: both names are C strings that outlive the call.
    if unsafe { libc::lremovexattr(path.as_ptr(), c"user.weft.store".as_ptr()) } != 0 {
        let cause = std::io::Error::last_os_error();
        tracing::warn!("{}: its mark could not be taken off: {cause}", dir.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, paths: &[&str]) -> Place {
        Place { name: name.into(), paths: paths.iter().map(PathBuf::from).collect() }
    }

    #[test]
    fn what_is_remembered_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), Ok(Vec::new()));
        let places = vec![place("", &["/data"]), place("wal", &["/w al", "/\u{fc}"])];
        save(dir.path(), &places).unwrap();
        assert_eq!(load(dir.path()), Ok(places));
        std::fs::write(dir.path().join(FILE), "[{}]").unwrap();
        assert!(load(dir.path()).unwrap_err().contains("--root"));
    }

    #[test]
    fn roots_are_given_by_name() {
        assert_eq!(parse_root("wal=/srv/a=b").unwrap(), ("wal".into(), "/srv/a=b".into()));
        for bad in ["wal", "=/srv", "wal=", "a b=/srv", "../x=/srv"] {
            assert!(!parse_root(bad).unwrap_err().contains('\n'), "{bad}");
        }
    }

    #[test]
    fn what_is_given_goes_before_what_is_remembered_and_old_paths_stay_known() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (old, new) = (root.join("old"), root.join("new"));
        [&old, &new].into_iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        std::os::unix::fs::symlink(&new, root.join("alias")).unwrap();
        let known = [place("", &["/data"]), Place { name: "wal".into(), paths: vec![old.clone()] }];
        let (roots, _) = choose(&[], &[], &known).unwrap();
        assert_eq!(roots, [Root { name: "wal".into(), dir: old.clone(), remembered: true }]);
        let (roots, places) = choose(&[("wal".into(), root.join("alias"))], &[], &known).unwrap();
        assert_eq!(roots[0].dir, new);
        assert_eq!(places[1].paths, [new, root.join("alias"), old]);
        let (roots, places) = choose(&[], &["wal".into()], &known).unwrap();
        assert_eq!((roots.len(), places.len()), (0, 1));
        let gone = [place("wal", &["/no/such/dir"])];
        assert!(choose(&[], &[], &gone).unwrap_err().contains("--root wal=DIR"));
    }

    #[test]
    fn links_tell_other_names_of_a_root() {
        let mut places = vec![place("wal", &["/mnt/wal"])];
        let mut note = |text: &str, real: &str| {
            note_alias(&mut places, "wal", Path::new("/mnt/wal"), Path::new(text), Path::new(real));
        };
        note("/srv/alias/pg", "/mnt/wal/pg");
        note("/elsewhere/x", "/mnt/wal/pg");
        note("/srv/w", "/mnt/wal");
        assert_eq!(places[0].paths, [Path::new("/mnt/wal"), Path::new("/srv/alias"), Path::new("/srv/w")]);
    }

    #[test]
    fn roots_lie_apart() {
        let root = |name: &str, dir: &str| Root { name: name.into(), dir: dir.into(), remembered: false };
        let check = |roots: &[Root]| {
            apart(Path::new("/x/data"), Path::new("/x/data"), Path::new("/x/data.weft"), roots)
        };
        check(&[root("a", "/x/a"), root("b", "/x/ab")]).unwrap();
        for bad in ["/x/data", "/x/data/pg_wal", "/x", "/x/data.weft/y", "/x/a/b", "/x/a"] {
            let refused = check(&[root("a", "/x/a"), root("b", bad)]).unwrap_err();
            assert!(refused.contains("root b") && refused.contains("apart"), "{bad}: {refused}");
        }
    }
}
