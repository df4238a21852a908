//! Whether a directory may take a restore.

use crate::{Outcome, mountinfo, place, roots};
use std::path::{Path, PathBuf};

/// The target without links, when nothing lives there: absent, empty, or with an unfinished restore in it.
///
/// # Errors
/// One line saying what stands there and what to do.
pub fn check(target: &Path, store: &Path) -> Outcome<PathBuf> {
    let real = place::future(target)?;
    let taken = |what: &str| Err(format!("{} {what}: give --to a directory of its own", target.display()));
    if let Some(mount) = mountinfo::around(&mountinfo::read()?, &real)
        && let Some(of) = mount.store()
    {
        let point = mount.point.display();
        return taken(&format!("is in the mount {point} of {}, which is live", of.display()));
    }
    let store = place::real(store)?;
    if real.starts_with(&store) || store.starts_with(&real) {
        return taken(&format!("and the STORE {} contain one another", store.display()));
    }
    for known in roots::load(&store)?.iter().filter_map(|place| place.paths.first()) {
        if real.starts_with(known) || known.starts_with(&real) {
            return taken(&format!("and {}, which is live, contain one another", known.display()));
        }
    }
    let parent = real.parent().filter(|parent| parent.is_dir());
    match std::fs::symlink_metadata(&real) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && parent.is_some() => Ok(real),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("{} cannot be made: its parent is not there", target.display()))
        }
        Err(cause) => Err(format!("cannot look at {}: {cause}", target.display())),
        Ok(meta) if !meta.is_dir() => taken("is no directory"),
        Ok(_) => {
            let mut entries = std::fs::read_dir(&real)
                .map_err(|cause| format!("cannot list {}: {cause}", target.display()))?;
            if real.join(super::state::FILE).exists() || entries.next().is_none() {
                Ok(real)
            } else {
                taken("is not empty")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_live_or_not_empty_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (data, store) = (root.join("data"), root.join("data.weft"));
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(&store).unwrap();
        roots::save(&store, &[roots::Place { name: String::new(), paths: vec![data.clone()] }]).unwrap();
        assert_eq!(check(&root.join("new"), &store), Ok(root.join("new")));
        for bad in [&data, &data.join("sub"), &root, &store, &store.join("x"), &root.join("no/such")] {
            assert!(check(bad, &store).unwrap_err().contains("--to") || bad.ends_with("no/such"), "{bad:?}");
        }
        let full = root.join("full");
        std::fs::create_dir(&full).unwrap();
        assert_eq!(check(&full, &store), Ok(full.clone()));
        std::fs::write(full.join("x"), "").unwrap();
        assert!(check(&full, &store).unwrap_err().contains("not empty"));
        std::fs::write(full.join(super::super::state::FILE), "").unwrap();
        assert_eq!(check(&full, &store), Ok(full));
        std::fs::write(root.join("file"), "").unwrap();
        assert!(check(&root.join("file"), &store).unwrap_err().contains("no directory"));
    }
}
