//! A store on the simulated disk, opened as a daemon opens it.

use super::Ticking;
use super::kv::CrashKv;
use std::path::Path;
use std::sync::Arc;
use weft::disk::Disk;
use weft::disk::sim::SimDisk;
use weft::engine::{Engine, NewFile, Options};
use weft::error::Result;
use weft::index::kv::Kv;
use weft::types::FileKind;

pub const DATA: &str = "/data";
pub const STORE: &str = "/store";

/// A disk with an empty DATA, durably.
#[allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
pub fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir("test", Path::new(DATA), 0o755).unwrap();
    disk.sync_filesystem("test", Path::new("/")).unwrap();
    disk
}

pub fn options() -> Options {
    let mut options = Options::new(Path::new(DATA), Path::new(STORE));
    options.new_store_id = [5; 16];
    options
}

/// The map stands for the index's directory: when that was removed, it is empty.
pub fn open(
    disk: &SimDisk,
    kv: &Arc<CrashKv>,
    clock: &Arc<Ticking>,
    options: Options,
) -> Result<Arc<Engine>> {
    Engine::open(Arc::new(disk.clone()), Arc::clone(clock) as _, options, &|path| {
        if disk.stat("test", path)?.is_none() {
            disk.create_dir("test", path, 0o700)?;
            kv.clear();
        }
        Ok(Arc::clone(kv) as Arc<dyn Kv>)
    })
}

/// What a directory is made with.
pub fn directory() -> NewFile {
    NewFile { kind: FileKind::Directory, mode: 0o700, ..regular() }
}

/// What a regular file is made with.
pub fn regular() -> NewFile {
    let kind = FileKind::Regular;
    NewFile { kind, mode: 0o600, umask: 0, rdev: 0, target: Vec::new(), uid: 0, gid: 0 }
}
