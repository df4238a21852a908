//! Where things are: DATA, MOUNTPOINT, STORE, and which STORE a path on the command line means.

use crate::{Outcome, mountinfo, roots};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Where DATA's entries stand while it is mounted, and after a crash.
const LIVE: &str = ".weft/live";

/// The directory that holds DATA's entries now.
pub fn contents(data: &Path) -> PathBuf {
    Some(data.join(LIVE)).filter(|live| live.is_dir()).unwrap_or_else(|| data.to_path_buf())
}

/// The STORE beside DATA: `DATA.weft`.
pub fn sibling_store(data: &Path) -> PathBuf {
    let mut name: OsString = data.as_os_str().to_owned();
    name.push(".weft");
    PathBuf::from(name)
}

/// Absolute, without links. A last component that is a dead mount cannot be looked at, only named.
///
/// # Errors
/// One line with the path and the reason.
pub fn real(path: &Path) -> Outcome<PathBuf> {
    path.canonicalize().or_else(|cause| match cause.raw_os_error() {
        Some(libc::ENOTCONN | libc::ECONNABORTED) => named(path),
        Some(libc::ENOENT) => Err(format!("{} does not exist", path.display())),
        _ => Err(format!("cannot look at {}: {cause}", path.display())),
    })
}

fn named(path: &Path) -> Outcome<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
        _ => Ok(normal(&absolute)),
    }
}

/// A path that may not exist yet, its parent without links.
pub fn future(path: &Path) -> Outcome<PathBuf> {
    if path.exists() { real(path) } else { named(path) }
}

/// Takes `.` and `..` out of an absolute path, by its letters alone.
pub fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// Where the mount around a path is, if it is one of a STORE's.
pub fn mount_of(path: Option<&Path>, store: &Path) -> Option<PathBuf> {
    let start = match path {
        Some(path) => real(path).ok()?,
        None => std::env::current_dir().ok()?,
    };
    let mounts = mountinfo::read().ok()?;
    let mount = mountinfo::around(&mounts, &start)?;
    (mount.store()? == store).then(|| mount.point.clone())
}

/// The STORE that a command means: the one named, else that of the mount around `path`, else the one beside it. Without
/// a path, the mount around the current directory.
///
/// # Errors
/// One line saying what to name instead.
pub fn find_store(path: Option<&Path>, store: Option<&Path>) -> Outcome<PathBuf> {
    if let Some(store) = store {
        return real(store);
    }
    let start = match path {
        Some(path) => real(path)?,
        None => std::env::current_dir().map_err(|cause| {
            format!("cannot tell the current directory ({cause}): name the mount, or --store DIR")
        })?,
    };
    if let Some(store) = mountinfo::around(&mountinfo::read()?, &start).and_then(mountinfo::Mount::store) {
        return Ok(store);
    }
    Some(sibling_store(&start)).filter(|store| store.is_dir()).ok_or_else(|| {
        format!(
            "{} is not in a Weft mount: name the mount, a path inside it, or --store DIR",
            start.display()
        )
    })
}

/// A path inside of a mount, or of a DATA that has a STORE: which STORE, and the names from the root on.
pub struct Inside {
    pub store: PathBuf,
    /// The root that it is in; DATA without a name.
    pub root: String,
    pub names: Vec<Vec<u8>>,
}

/// Finds the STORE that a path belongs to; the path itself need not be there any more. Links on the way are followed,
/// the last name is taken as it is. With `store` named, a path that is not below its mount is taken from its root.
///
/// # Errors
/// One line saying what to name instead.
pub fn inside(path: &Path, store: Option<&Path>) -> Outcome<Inside> {
    let whole = reach(path)?;
    let named = store.map(real).transpose()?;
    let mounts = mountinfo::read()?;
    let below = |root: &Path| whole.strip_prefix(root).ok().map(names_of);
    for root in whole.ancestors() {
        let mounted = mountinfo::at(&mounts, root).and_then(mountinfo::Mount::store);
        let beside = Some(sibling_store(root)).filter(|store| store.is_dir());
        let Some(store) = mounted.or(beside) else { continue };
        if let Some(names) = below(root)
            && named.as_ref().is_none_or(|named| *named == store)
        {
            return Ok(Inside { root: roots::name_at(&store, root)?, store, names });
        }
    }
    if let Some(store) = &named {
        // Of a STORE that is not mounted: a root of its set, where that was last.
        for place in roots::load(store)? {
            let names = place.paths.iter().find_map(|dir| below(dir));
            if let Some(names) = names.filter(|_| path.is_absolute()) {
                return Ok(Inside { store: store.clone(), root: place.name, names });
            }
        }
    }
    match named {
        Some(store) if path.is_relative() => {
            Ok(Inside { store, root: String::new(), names: names_of(&normal(path)) })
        }
        Some(store) => Err(format!(
            "{} is not below what {} is mounted on: give the path from the root of DATA",
            path.display(),
            store.display()
        )),
        None => Err(format!(
            "{} is not in a Weft mount: name a path inside it, or --store DIR and the path from the root of DATA",
            whole.display()
        )),
    }
}

/// Absolute and without links as far as it is there.
fn reach(path: &Path) -> Outcome<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    let (Some(parent), Some(last)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(normal(&absolute));
    };
    for there in parent.ancestors() {
        if let (Ok(real), Ok(rest)) = (there.canonicalize(), parent.strip_prefix(there)) {
            return Ok(normal(&real.join(rest).join(last)));
        }
    }
    Ok(normal(&absolute))
}

fn names_of(path: &Path) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_bytes().to_vec()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain_by_their_letters() {
        assert_eq!(normal(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(normal(Path::new("/../a")), Path::new("/a"));
    }

    #[test]
    fn the_store_stands_beside_data() {
        assert_eq!(sibling_store(Path::new("/srv/pg/main")), Path::new("/srv/pg/main.weft"));
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().canonicalize().unwrap().join("data");
        std::fs::create_dir(&data).unwrap();
        assert!(find_store(Some(&data), None).unwrap_err().contains("--store"));
        std::fs::create_dir(sibling_store(&data)).unwrap();
        assert_eq!(find_store(Some(&data), None).unwrap(), sibling_store(&data));
        assert_eq!(find_store(None, Some(&data)).unwrap(), data);
        assert!(find_store(Some(&data.join("no")), None).unwrap_err().contains("does not exist"));
    }

    #[test]
    fn a_path_that_is_gone_still_belongs_to_its_store() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (data, store) = (root.join("data"), root.join("data.weft"));
        std::fs::create_dir_all(data.join("base")).unwrap();
        std::fs::create_dir(&store).unwrap();
        std::os::unix::fs::symlink("base", data.join("link")).unwrap();
        let names = |path: &Path, store: Option<&Path>| inside(path, store).map(|inside| inside.names);
        let base: Vec<Vec<u8>> = vec![b"base".to_vec(), b"gone".to_vec(), b"1".to_vec()];
        assert_eq!(names(&data.join("link/gone/1"), None).unwrap(), base);
        assert_eq!(names(Path::new("base/gone/1"), Some(&store)).unwrap(), base);
        assert_eq!(names(&data.join("link"), None).unwrap(), [b"link".to_vec()]);
        assert_eq!(names(&data, Some(&store)).unwrap(), Vec::<Vec<u8>>::new());
        assert!(names(&root.join("other/x"), Some(&store)).unwrap_err().contains("root of DATA"));
        assert!(names(&root.join("other/x"), None).unwrap_err().contains("--store"));
    }

    #[test]
    fn after_a_crash_the_entries_stand_in_live() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(contents(dir.path()), dir.path());
        std::fs::create_dir_all(dir.path().join(LIVE)).unwrap();
        assert_eq!(contents(dir.path()), dir.path().join(LIVE));
    }
}
