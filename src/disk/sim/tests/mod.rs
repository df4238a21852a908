//! What the simulated disk promises, each promise tried.

mod compare;
mod cuts;
mod faults;
mod names;

use super::SimDisk;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::sync::Arc;
use std::path::Path;

const RW: OpenHow = OpenHow {
    write: true,
    create: true,
    exclusive: false,
    direct: false,
};

fn open(disk: &dyn Disk, path: &str) -> Arc<dyn DiskFile> {
    disk.open("test.open", Path::new(path), RW).unwrap()
}

/// A durable file with durable bytes.
fn durable(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = open(disk, path);
    file.write_durable("test.write", bytes, 0).unwrap();
    let parent = Path::new(path).parent().unwrap();
    disk.sync_dir("test.sync_dir", parent).unwrap();
    file
}

/// All bytes of a file; `None` when it is not there.
fn bytes(disk: &dyn Disk, path: &str) -> Option<Vec<u8>> {
    disk.stat("test.stat", Path::new(path)).unwrap()?;
    let how = OpenHow::default();
    let file = disk.open("test.open", Path::new(path), how).unwrap();
    let mut all = vec![0xee; usize::try_from(file.len("test.len").unwrap()).unwrap()];
    assert_eq!(file.read_at("test.read", &mut all, 0).unwrap(), all.len());
    Some(all)
}

fn exists(disk: &dyn Disk, path: &str) -> bool {
    disk.stat("test.stat", Path::new(path)).unwrap().is_some()
}

fn mkdir(disk: &dyn Disk, path: &str) {
    disk.create_dir("test.mkdir", Path::new(path), 0o755)
        .unwrap();
}

fn rename(disk: &dyn Disk, from: &str, to: &str) {
    disk.rename("test.rename", Path::new(from), Path::new(to))
        .unwrap();
}

fn unlink(disk: &dyn Disk, path: &str) {
    disk.unlink("test.unlink", Path::new(path)).unwrap();
}

fn sync_dir(disk: &dyn Disk, path: &str) {
    disk.sync_dir("test.sync_dir", Path::new(path)).unwrap();
}

/// Images of one instant.
fn images(disk: &SimDisk) -> impl Iterator<Item = SimDisk> {
    let disk = disk.clone();
    (0..300).map(move |seed| disk.cut(seed))
}
