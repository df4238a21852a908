//! The files beneath shadows: their names, and reading data files.

use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};
use crate::types::{FileId, PAGE_LEN};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Data files kept open, each way.
const KEPT_OPEN: usize = 64;
/// Reads of so many bytes bypass the page cache, which has a view's bytes already as the view's: copying a table out of a
/// shadow spends two thirds of the daemon's time on copying from there.
const DIRECT_MIN: usize = 128 << 10;
/// How names end.
const SNAP: &str = ".snap";
const DATA: &str = ".data";
pub(super) const UNFINISHED: &str = ".new";

/// Which data file: shadow, number of the snapshot that brought it, file.
pub(super) type DataName = (u64, u32, FileId);

/// What a name in the directory stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    Snapshot(u64, u32),
    Data(DataName),
    Unfinished,
    Unknown,
}

/// The directory STORE/shadow.
pub(super) struct Dir {
    pub disk: Arc<dyn Disk>,
    pub path: PathBuf,
    open: Mutex<Handles>,
    /// The same for direct reads.
    direct: Mutex<Handles>,
}

type Handles = BTreeMap<DataName, Arc<dyn DiskFile>>;

impl Dir {
    pub(super) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Dir {
        Dir { disk, path, open: Mutex::new(Handles::new()), direct: Mutex::new(Handles::new()) }
    }

    /// Makes it, where it is not there (any more).
    pub(super) fn make(&self) -> Result<()> {
        match self.disk.stat("shadow.dir", &self.path)? {
            Some(_) => Ok(()),
            None => self.disk.create_dir("shadow.dir", &self.path, 0o700),
        }
    }

    pub(super) fn snapshot(&self, shadow: u64, number: u32) -> PathBuf {
        self.path.join(format!("{shadow:08}-{number:06}{SNAP}"))
    }

    pub(super) fn data(&self, (shadow, number, file): DataName) -> PathBuf {
        self.path.join(format!("{shadow:08}-{number:06}-{}{DATA}", file.0))
    }

    pub(super) fn named(name: &[u8]) -> Named {
        let Ok(name) = std::str::from_utf8(name) else { return Named::Unknown };
        if name.ends_with(UNFINISHED) {
            return Named::Unfinished;
        }
        let mut numbers = name.split(['-', '.']).map_while(|part| part.parse::<u64>().ok());
        let (shadow, number, file) = (numbers.next(), numbers.next(), numbers.next());
        let number = number.and_then(|number| u32::try_from(number).ok());
        match (shadow, number, file) {
            (Some(shadow), Some(number), None) if name.ends_with(SNAP) => Named::Snapshot(shadow, number),
            (Some(shadow), Some(number), Some(file)) if name.ends_with(DATA) => {
                Named::Data((shadow, number, FileId(file)))
            }
            _ => Named::Unknown,
        }
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.disk.sync_dir("shadow.dir.sync", &self.path)
    }

    /// Reads exactly `out.len()` bytes of a data file.
    pub(super) fn read(&self, name: DataName, offset: u64, out: &mut [u8]) -> Result<()> {
        let whole = |count: u64| count.is_multiple_of(PAGE_LEN as u64);
        let direct = out.len() >= DIRECT_MIN
            && whole(offset)
            && whole(out.len() as u64)
            && whole(out.as_ptr().addr() as u64);
        let got = self.handle(name, direct)?.read_at("shadow.data.read", out, offset)?;
        match got == out.len() {
            true => Ok(()),
            false => Err(Error::corrupt("shadow.data.read", "the data file is too short")
                .at(&self.data(name))
                .offset(offset)),
        }
    }

    fn handle(&self, name: DataName, direct: bool) -> Result<Arc<dyn DiskFile>> {
        let handles = if direct { &self.direct } else { &self.open };
        if let Some(file) = handles.lock().get(&name) {
            return Ok(Arc::clone(file));
        }
        let how = OpenHow { direct, ..OpenHow::default() };
        let file = self.disk.open("shadow.data.open", &self.data(name), how)?;
        let mut open = handles.lock();
        while open.len() >= KEPT_OPEN {
            open.pop_first();
        }
        open.insert(name, Arc::clone(&file));
        Ok(file)
    }

    /// Removes a data file, if it is there; an open one would hold its space.
    pub(super) fn remove_data(&self, name: DataName) -> Result<()> {
        self.open.lock().remove(&name);
        self.direct.lock().remove(&name);
        self.remove(&self.data(name))
    }

    /// Removes a file that may be gone already.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        self.disk.unlink_if_there("shadow.remove", path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let dir = Dir::new(Arc::new(crate::disk::sim::SimDisk::new(1)), PathBuf::from("/s"));
        let name = |path: PathBuf| path.file_name().unwrap().as_encoded_bytes().to_vec();
        assert_eq!(Dir::named(&name(dir.snapshot(7, 12))), Named::Snapshot(7, 12));
        let data = (123_456_789, 1, FileId(55));
        assert_eq!(Dir::named(&name(dir.data(data))), Named::Data(data));
        for (name, want) in [
            (&b"00000007-000012.snap.new"[..], Named::Unfinished),
            (b"00000007.snap", Named::Unknown),
            (b"x", Named::Unknown),
            (b"\xff", Named::Unknown),
            (b"1-99999999999.snap", Named::Unknown),
        ] {
            assert_eq!(Dir::named(name), want);
        }
    }
}
