//! Everything that can be known to be wrong before a mount changes anything.

use crate::config::Config;
use crate::mountinfo::{self, Mount};
use crate::profile::Profile;
use crate::roots::{self, Place, Root};
use crate::{Outcome, control, holders, kernel, place};
use nix::unistd::{AccessFlags, access};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use weft::engine::Capture;
use weft::past::when;

/// How long a mount whose daemon does not answer may take to turn out dead: moments.
const PATIENCE: u32 = 50;
const MOMENT: std::time::Duration = std::time::Duration::from_millis(100);

/// What `weft mount` was asked to do.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub data: PathBuf,
    pub mountpoint: Option<PathBuf>,
    pub store: Option<PathBuf>,
    /// Name and directory of each `--root`.
    pub roots: Vec<(String, PathBuf)>,
    /// Names of roots that leave the set.
    pub without: Vec<String>,
    pub capture: Option<Capture>,
    /// ONNX Runtime's library; overrides weft.toml.
    pub onnxruntime: Option<PathBuf>,
    pub foreground: bool,
}

/// A request that passed the checks.
#[derive(Clone, Debug)]
pub struct Plan {
    pub data: PathBuf,
    pub point: PathBuf,
    pub store: PathBuf,
    pub roots: Vec<Root>,
    /// Names of roots that leave the set.
    pub without: Vec<String>,
    /// What STORE is to remember of the set.
    pub places: Vec<Place>,
    pub capture: Capture,
    pub config: Config,
    pub profile: Profile,
}

/// Checks a request. The mount of a dead daemon is taken away on the way: nothing beneath it can be seen otherwise.
///
/// # Errors
/// One line saying what is wrong and what to do; nothing is changed then.
pub fn plan(request: &Request) -> Outcome<Plan> {
    let data = place::real(&request.data)
        .map_err(|cause| format!("{cause}: DATA must be an existing directory (mkdir a new one)"))?;
    let point = match &request.mountpoint {
        Some(point) => place::real(point)
            .map_err(|cause| format!("{cause}: MOUNTPOINT must be an existing directory"))?,
        None => data.clone(),
    };
    clear_dead_mounts(&[&data, &point])?;
    directory(&data, "DATA")?;
    directory(&point, "MOUNTPOINT")?;
    let store = store_for(&data, request.store.as_deref())?;
    apart(&data, &point, &store)?;
    not_served(&store)?;
    let (roots, mut places) = roots::choose(&request.roots, &request.without, &roots::load(&store)?)?;
    clear_dead_mounts(&roots.iter().map(|root| root.dir.as_path()).collect::<Vec<_>>())?;
    for root in &roots {
        directory(&root.dir, &format!("the root {}", root.name))?;
        roots::keeps_marks(root)?;
    }
    roots::apart(&data, &point, &store, &roots)?;
    let mut config = Config::load(&store)?;
    let profile = config.profile.choose(&data);
    profile.check_links(&data, &roots)?;
    profile.check_patterns(&config.patterns()?)?;
    for dir in [&data].into_iter().chain(roots.iter().map(|root| &root.dir)) {
        no_reserved_names(dir)?;
        not_in_use(dir)?;
        may_change(dir)?;
    }
    let as_given = std::path::absolute(&request.data).map(|path| place::normal(&path)).unwrap_or_default();
    roots::note_data(&mut places, &data, &[point.clone(), as_given]);
    for link in profile.plain_links(&data) {
        for root in &roots {
            roots::note_alias(&mut places, &root.name, &root.dir, &link.text, &link.real);
        }
    }
    room_for(&store, &config)?;
    kernel::open_device()?;
    if !kernel::is_root() {
        kernel::helper()?;
    }
    let capture = request.capture.unwrap_or(config.capture.into());
    if let Some(library) = &request.onnxruntime {
        let absolute = std::path::absolute(library).map_err(|cause| format!("--onnxruntime: {cause}"))?;
        config.onnxruntime = absolute.to_string_lossy().into_owned();
    }
    let without = request.without.clone();
    Ok(Plan { data, point, store, roots, without, places, capture, config, profile })
}

fn clear_dead_mounts(paths: &[&Path]) -> Outcome<()> {
    for path in paths {
        let mounts = mountinfo::read()?;
        let Some(mount) = mountinfo::at(&mounts, path).filter(|mount| mount.fstype == mountinfo::FSTYPE)
        else {
            continue;
        };
        if !is_dead_soon(mount) {
            return Err(format!("{} is already mounted by Weft: `weft status` tells more", path.display()));
        }
        kernel::clear_dead(path)?;
    }
    Ok(())
}

/// A daemon that was killed takes a moment to go, and its socket still takes connections meanwhile: a mount is alive
/// only if its daemon answers.
fn is_dead_soon(mount: &Mount) -> bool {
    for _ in 0..PATIENCE {
        if is_dead(mount) {
            return true;
        }
        if mount.store().is_some_and(|store| control::ask(&store, &control::Ask::Status).is_ok()) {
            return false;
        }
        std::thread::sleep(MOMENT);
    }
    is_dead(mount)
}

/// Attributes may come from the kernel's cache; the figures of statfs always come from the daemon.
fn is_dead(mount: &Mount) -> bool {
    let served = mount.store().is_some_and(|store| control::is_served(&store));
    let answer = nix::sys::statfs::statfs(&mount.point);
    !served && matches!(answer, Err(nix::errno::Errno::ENOTCONN | nix::errno::Errno::ECONNABORTED))
}

fn directory(path: &Path, what: &str) -> Outcome<()> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(format!("{} is not a directory: {what} must be one", path.display())),
        Err(cause) => Err(format!("cannot look at {}: {cause}", path.display())),
    }
}

fn store_for(data: &Path, asked: Option<&Path>) -> Outcome<PathBuf> {
    let store = match asked {
        Some(store) => place::future(store)?,
        None if mountinfo::at(&mountinfo::read()?, data).is_some() => {
            return Err(format!(
                "{} is a mount point, so the STORE cannot stand beside it on the same filesystem: say where with --store DIR",
                data.display()
            ));
        }
        None => place::sibling_store(data),
    };
    if store.exists() {
        directory(&store, "STORE")?;
    } else if !store.parent().is_some_and(Path::is_dir) {
        return Err(format!("cannot make the STORE {}: its parent does not exist", store.display()));
    }
    Ok(store)
}

fn apart(data: &Path, point: &Path, store: &Path) -> Outcome<()> {
    let nested = |inner: &Path, outer: &Path| inner.starts_with(outer);
    if nested(store, data) || nested(data, store) || nested(store, point) || nested(point, store) {
        return Err(format!(
            "the STORE {} must lie apart from DATA and MOUNTPOINT: use --store DIR",
            store.display()
        ));
    }
    if point != data && (nested(point, data) || nested(data, point)) {
        return Err(format!("{} and {} must not contain each other", point.display(), data.display()));
    }
    Ok(())
}

fn not_served(store: &Path) -> Outcome<()> {
    if control::is_served(store) {
        return Err(format!(
            "the STORE {} is in use by a running Weft: DATA is already mounted (see `weft status --store {}`)",
            store.display(),
            store.display()
        ));
    }
    Ok(())
}

fn no_reserved_names(data: &Path) -> Outcome<()> {
    let root = place::contents(data);
    let entries =
        std::fs::read_dir(&root).map_err(|cause| format!("cannot list {}: {cause}", root.display()))?;
    for entry in entries.flatten() {
        if when::is_reserved(entry.file_name().as_bytes()) {
            return Err(format!(
                "{} begins like the name of a view (@ts=, @seq=, @tag=): rename it first",
                entry.path().display()
            ));
        }
    }
    Ok(())
}

fn not_in_use(dir: &Path) -> Outcome<()> {
    let users = holders::in_tree(dir);
    match users.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{} is in use: {}; stop that first, its writes would bypass Weft",
            dir.display(),
            holders::describe(&users)
        )),
    }
}

fn may_change(data: &Path) -> Outcome<()> {
    access(data, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
        format!("cannot change {} ({}): mount as its owner or as root", data.display(), errno.desc())
    })
}

/// A new STORE needs at least two journal files before it can acknowledge anything. One that is there may hold files that
/// are free to be used: it is found out by using them.
fn room_for(store: &Path, config: &Config) -> Outcome<()> {
    let parent = store.parent().unwrap_or(store);
    let place = if store.exists() { store } else { parent };
    let place_failed =
        |errno: nix::errno::Errno| format!("cannot look at {}: {}", place.display(), errno.desc());
    access(place, AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(|errno| format!("cannot write in {}: {}", place.display(), errno.desc()))?;
    if store.join("journal").exists() {
        return Ok(());
    }
    let stat = nix::sys::statvfs::statvfs(place).map_err(place_failed)?;
    let free_mib = (stat.blocks_available() * stat.fragment_size()) >> 20;
    let needed_mib = 2 * config.segment_mib + 16;
    if free_mib < needed_mib {
        return Err(format!(
            "no space for the STORE {}: {free_mib} MiB are free, {needed_mib} MiB are needed to begin; make room, lower \
             segment_mib in weft.toml, or use --store DIR on another disk",
            store.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::{Command, Stdio};

    struct Dirs {
        _temp: tempfile::TempDir,
        root: PathBuf,
        data: PathBuf,
    }

    fn dirs() -> Dirs {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let data = root.join("data");
        fs::create_dir(&data).unwrap();
        Dirs { _temp: temp, root, data }
    }

    fn refused(request: &Request) -> String {
        let cause = plan(request).unwrap_err();
        assert!(!cause.contains('\n'), "{cause}");
        cause
    }

    fn over(data: &Path) -> Request {
        Request { data: data.to_path_buf(), ..Request::default() }
    }

    #[test]
    fn an_empty_directory_passes_and_nothing_is_made() {
        let dirs = dirs();
        let plan = plan(&over(&dirs.data)).unwrap();
        assert_eq!((&plan.point, plan.store.clone()), (&dirs.data, dirs.root.join("data.weft")));
        assert_eq!(plan.profile, Profile::Generic);
        assert_eq!(fs::read_dir(&dirs.root).unwrap().count(), 1);
    }

    #[test]
    fn data_must_be_an_existing_directory() {
        let dirs = dirs();
        assert!(refused(&over(&dirs.root.join("no"))).contains("does not exist"));
        fs::write(dirs.root.join("file"), "").unwrap();
        assert!(refused(&over(&dirs.root.join("file"))).contains("not a directory"));
    }

    #[test]
    fn a_mount_point_needs_a_store() {
        assert!(refused(&over(Path::new("/proc"))).contains("--store"));
    }

    #[test]
    fn a_store_lies_apart() {
        let dirs = dirs();
        for store in [dirs.data.join("store"), dirs.data.clone(), dirs.root.clone()] {
            let request = Request { store: Some(store), ..over(&dirs.data) };
            assert!(refused(&request).contains("apart"));
        }
        let request = Request { store: Some(dirs.root.join("no/such")), ..over(&dirs.data) };
        assert!(refused(&request).contains("parent"));
    }

    #[test]
    fn reserved_names_are_refused() {
        let dirs = dirs();
        fs::create_dir(dirs.data.join("@ts=x")).unwrap();
        assert!(refused(&over(&dirs.data)).contains("rename it first"));
    }

    #[test]
    fn data_in_use_is_refused_by_name() {
        let dirs = dirs();
        let mut child =
            Command::new("sleep").arg("60").current_dir(&dirs.data).stdin(Stdio::null()).spawn().unwrap();
        let cause = refused(&over(&dirs.data));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(cause.contains("(sleep)") && cause.contains(&child.id().to_string()), "{cause}");
    }

    #[test]
    fn a_bad_configuration_is_refused() {
        let dirs = dirs();
        fs::create_dir(dirs.root.join("data.weft")).unwrap();
        fs::write(dirs.root.join("data.weft/weft.toml"), "colour = 1\n").unwrap();
        assert!(refused(&over(&dirs.data)).contains("colour"));
    }

    #[test]
    fn a_full_disk_is_told_before_anything_is_made() {
        let dirs = dirs();
        fs::create_dir(dirs.root.join("data.weft")).unwrap();
        let config = Config { segment_mib: 1 << 40, ..Config::default() };
        assert!(room_for(&dirs.root.join("data.weft"), &config).unwrap_err().contains("make room"));
    }
}
