//! The same operations on the real filesystem and on the simulated one show the same.

use super::*;
use crate::disk::os::OsDisk;
use crate::error::Result;
use crate::types::{Attr, FileKind, FileTime};
use proptest::prelude::*;
use std::path::PathBuf;

/// (what, one path, another, offset, length)
type Step = (u8, usize, usize, u64, usize);

const NAMES: [&str; 9] = ["a", "b", "d", "e", "d/a", "d/b", "d/d", "e/a", "e/d"];

struct Side<'a> {
    disk: &'a dyn Disk,
    root: PathBuf,
}

/// What a call showed: its errno, or what it answered.
fn answer<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(err) => format!("errno {}", err.to_errno()),
    }
}

/// What must be equal of the attributes: not times of the clock, not owners, not directories' link counts of
/// filesystems that count otherwise.
fn comparable(attr: Attr) -> (FileKind, u32, u32, u64) {
    let nlink = if attr.kind == FileKind::Directory { 0 } else { attr.nlink };
    (attr.kind, attr.mode, nlink, attr.size)
}

impl Side<'_> {
    fn path(&self, number: usize) -> PathBuf {
        self.root.join(NAMES[number])
    }

    fn file(&self, number: usize, create: bool) -> Result<Arc<dyn DiskFile>> {
        let how = OpenHow { create, ..RW };
        self.disk.open("t", &self.path(number), how)
    }

    fn step(&self, (what, one, two, offset, len): Step) -> String {
        let (disk, path, other) = (self.disk, self.path(one), self.path(two));
        match what {
            0 => answer(self.file(one, true).map(drop)),
            1 => answer(disk.create_dir("t", &path, 0o750)),
            2 => answer(disk.unlink("t", &path)),
            3 => answer(disk.remove_dir("t", &path)),
            4 | 5 => answer(disk.rename("t", &path, &other)),
            6 => answer(disk.link("t", &path, &other)),
            7 => answer(disk.symlink("t", NAMES[two].as_bytes(), &path)),
            8 => answer(disk.read_link("t", &path)),
            9..12 => answer(
                self.file(one, true)
                    .and_then(|f| f.write_at("t", &vec![what.wrapping_add(len as u8); len], offset)),
            ),
            12 => answer(self.file(one, false).and_then(|f| f.set_len("t", offset))),
            13 => answer(self.file(one, false).and_then(|f| f.punch("t", offset, len as u64))),
            14 => answer(self.file(one, false).and_then(|f| f.allocate("t", offset, len as u64))),
            15 => answer(self.file(one, true).and_then(|f| f.write_durable("t", &vec![what; len], offset))),
            16 => answer(self.set_attr(&path, offset)),
            17 => answer(disk.set_xattr("t", &path, format!("user.{two}").as_bytes(), &[what; 9])),
            18 => answer(disk.remove_xattr("t", &path, format!("user.{two}").as_bytes())),
            19 => answer(self.fifo(&path)),
            20 => answer(disk.open("t", &path, OpenHow { exclusive: true, ..RW }).map(drop)),
            21 => answer(disk.read_dir("t", &path).map(|entries| entries.len())),
            _ => answer(disk.sync_dir("t", &path)),
        }
    }

    fn set_attr(&self, path: &Path, number: u64) -> Result<()> {
        let Some(stat) = self.disk.stat("t", path)? else {
            return Ok(());
        };
        let time = FileTime { secs: 1_000_000 + number as i64, nanos: 123_456_789 };
        let attr = Attr { mode: 0o700 | (number as u32 & 0o77), atime: time, mtime: time, ..stat.attr };
        self.disk.set_attr("t", path, &attr)?;
        let after = self.disk.stat("t", path)?.unwrap().attr;
        assert_eq!((after.atime, after.mtime), (time, time));
        Ok(())
    }

    fn fifo(&self, path: &Path) -> Result<()> {
        let zero = FileTime::default();
        let attr = Attr {
            kind: FileKind::Fifo,
            mode: 0o622,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: 1,
            size: 0,
            atime: zero,
            mtime: zero,
            ctime: zero,
        };
        self.disk.make_node("t", path, &attr)
    }

    /// Between the stretches of data there is nothing but zeros.
    fn check_data(&self, path: &Path, content: &[u8]) {
        let file = self.disk.open("t", path, OpenHow::default()).unwrap();
        let mut at = 0;
        while let Some((start, end)) = file.next_data("t", at as u64).unwrap() {
            let (start, end) = (start as usize, end as usize);
            assert!(at <= start && start < end && end <= content.len());
            assert!(content[at..start].iter().all(|byte| *byte == 0));
            at = end;
        }
        assert!(content[at..].iter().all(|byte| *byte == 0));
    }

    /// Everything to be seen below the root.
    fn show(&self) -> Vec<String> {
        let mut shown = Vec::new();
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            let mut entries = self.disk.read_dir("t", &self.root.join(&dir)).unwrap();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in entries {
                let below = dir.join(String::from_utf8(entry.name).unwrap());
                let path = self.root.join(&below);
                let attr = self.disk.stat("t", &path).unwrap().unwrap().attr;
                assert_eq!(attr.kind, entry.kind);
                let mut xattrs = self.disk.xattrs("t", &path).unwrap();
                xattrs.retain(|(name, _)| name.starts_with(b"user."));
                xattrs.sort();
                let content = match attr.kind {
                    FileKind::Regular => {
                        let content = bytes(self.disk, path.to_str().unwrap()).unwrap();
                        self.check_data(&path, &content);
                        content
                    }
                    FileKind::Symlink => self.disk.read_link("t", &path).unwrap(),
                    _ => Vec::new(),
                };
                let summed = content.iter().enumerate().fold(0_u64, |sum, (at, &byte)| {
                    sum.wrapping_mul(31).wrapping_add(at as u64 ^ u64::from(byte))
                });
                shown.push(format!("{below:?} {:?} {xattrs:?} {summed}", comparable(attr)));
                if attr.kind == FileKind::Directory {
                    todo.push(below);
                }
            }
        }
        shown
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn real_and_simulated_show_the_same(
        seed in any::<u64>(),
        steps in prop::collection::vec((0..23_u8, 0..9_usize, 0..9_usize, 0..20_000_u64, 1..6_000_usize), 1..80),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (real, sim) = (OsDisk::new(), SimDisk::new(seed));
        let real = Side { disk: &real, root: dir.path().to_path_buf() };
        let sim = Side { disk: &sim, root: PathBuf::from("/") };
        for step in steps {
            prop_assert_eq!(real.step(step), sim.step(step), "{:?} {} {}", step, NAMES[step.1], NAMES[step.2]);
        }
        prop_assert_eq!(real.show(), sim.show());
    }
}
