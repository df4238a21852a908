//! Past ticks in STORE/trace: text, a file an hour, older ones compressed; the oldest go when there is too much.
//!
//! A file is named by the time of its first tick. Lines are appended; a daemon that is killed leaves whole lines and
//! perhaps a part of one, which does not count. Nothing here is needed for history.

use super::text;
use super::{Line, Trace, What};
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::{Error, Result};
use crate::forecast::signal::Key;
use crate::sync::Arc;
use crate::types::Timestamp;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const HOUR_US: i64 = 3_600_000_000;
/// A file is closed when it is this long.
const FILE_MAX: u64 = 16 << 20;
/// What a file may unpack to.
const UNPACKED_MAX: usize = 64 << 20;
const LEVEL: i32 = 3;

/// The directory in a STORE.
pub fn dir(store: &Path) -> PathBuf {
    store.join("trace")
}

struct Open {
    begun: Timestamp,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
}

/// Keeps ticks; one at a time.
pub struct Kept {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Bytes kept at most, about.
    most_bytes: u64,
    tick_us: i64,
    open: Option<Open>,
}

impl Kept {
    /// In a STORE. What a killed daemon left open is closed with the first tick.
    pub fn new(disk: Arc<dyn Disk>, store: &Path, most_bytes: u64, tick_us: i64) -> Kept {
        Kept { disk, dir: dir(store), most_bytes, tick_us, open: None }
    }

    /// Appends what happened up to `now`.
    ///
    /// # Errors
    /// The lines may be there or not; the next call begins a new file.
    pub fn append(&mut self, now: Timestamp, lines: &[(Key, What)]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text: String = lines.iter().map(|(name, what)| text::line(name, what)).collect();
        let result = self.put(now, &text);
        if result.is_err() {
            self.open = None;
        }
        result
    }

    fn put(&mut self, now: Timestamp, text: &str) -> Result<()> {
        let full = self.open.as_ref().is_none_or(|open| {
            open.len > FILE_MAX || open.begun.0.div_euclid(HOUR_US) != now.0.div_euclid(HOUR_US)
        });
        if full {
            self.begin(now)?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.file.write_at("trace.append", text.as_bytes(), open.len)?;
        open.len += text.len() as u64;
        Ok(())
    }

    fn begin(&mut self, now: Timestamp) -> Result<()> {
        self.open = None;
        if self.disk.stat("trace.dir", &self.dir)?.is_none() {
            self.disk.create_dir("trace.dir", &self.dir, 0o700)?;
        }
        for (begun, path) in files(&*self.disk, &self.dir)? {
            if path.extension().is_some_and(|extension| extension == "csv") && begun < now {
                self.pack(&path)?;
            }
        }
        self.trim()?;
        let path = self.dir.join(format!("{}.csv", now.0));
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let file = self.disk.open("trace.open", &path, how)?;
        let head = text::head(self.tick_us, "live");
        file.set_len("trace.open", 0)?;
        file.write_at("trace.append", head.as_bytes(), 0)?;
        self.open = Some(Open { begun: now, path, file, len: head.len() as u64 });
        Ok(())
    }

    /// Compresses a file that is closed.
    fn pack(&self, path: &Path) -> Result<()> {
        let bytes = whole_lines(read_file(&*self.disk, path)?);
        let packed =
            zstd::bulk::compress(&bytes, LEVEL).map_err(|error| Error::io("trace.pack", path, &error))?;
        let unfinished = path.with_extension("tmp");
        let how = OpenHow { write: true, create: true, ..OpenHow::default() };
        let file = self.disk.open("trace.pack", &unfinished, how)?;
        file.set_len("trace.pack", 0)?;
        file.write_at("trace.pack", &packed, 0)?;
        file.sync("trace.pack")?;
        self.disk.rename("trace.pack", &unfinished, &path.with_extension("zst"))?;
        self.disk.unlink("trace.pack", path)
    }

    /// Removes the oldest files until the rest is within the limit.
    fn trim(&self) -> Result<()> {
        let files = files(&*self.disk, &self.dir)?;
        let mut kept = 0;
        for (_, path) in files.iter().rev() {
            kept += self.disk.stat("trace.trim", path)?.map_or(0, |stat| stat.attr.size);
            if kept > self.most_bytes {
                self.disk.unlink("trace.trim", path)?;
            }
        }
        Ok(())
    }

    /// Makes what was appended durable.
    pub fn sync(&self) -> Result<()> {
        self.open.as_ref().map_or(Ok(()), |open| open.file.sync("trace.sync"))
    }

    /// The next lines go into a new file: they are older than the last ones.
    pub fn end_file(&mut self) {
        self.open = None;
    }

    /// The file that is being written.
    pub fn path(&self) -> Option<&Path> {
        self.open.as_ref().map(|open| open.path.as_path())
    }
}

/// The files of a directory, by time. Others in it are left alone.
fn files(disk: &dyn Disk, dir: &Path) -> Result<Vec<(Timestamp, PathBuf)>> {
    if disk.stat("trace.list", dir)?.is_none() {
        return Ok(Vec::new());
    }
    let mut found: Vec<(Timestamp, PathBuf)> = disk
        .read_dir("trace.list", dir)?
        .iter()
        .filter_map(|entry| {
            let name = std::str::from_utf8(&entry.name).ok()?;
            let (number, extension) = name.split_once('.')?;
            matches!(extension, "csv" | "zst").then_some(())?;
            Some((Timestamp(number.parse().ok()?), dir.join(name)))
        })
        .collect();
    found.sort();
    Ok(found)
}

fn read_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>> {
    let file = disk.open("trace.read", path, OpenHow::default())?;
    let len = usize::try_from(file.len("trace.read")?).unwrap_or(usize::MAX).min(UNPACKED_MAX);
    let mut bytes = vec![0; len];
    let got = file.read_at("trace.read", &mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// Without what stands behind the last line's end.
fn whole_lines(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.truncate(end);
    bytes
}

/// What is kept of a stretch of time, and what could not be read of it, a line each. At most `most_bytes` of text, the
/// newest.
///
/// # Errors
/// The directory cannot be listed.
pub fn read(
    disk: &dyn Disk,
    store: &Path,
    (since, until): (Timestamp, Timestamp),
    most_bytes: u64,
) -> Result<(Trace, Vec<String>)> {
    let files = files(disk, &dir(store))?;
    let mut parts = Vec::new();
    let (mut problems, mut bytes) = (Vec::new(), 0);
    let mut begins_after = Timestamp(i64::MAX);
    for (begun, path) in files.into_iter().rev() {
        let (end, over) = (begins_after, bytes > most_bytes);
        begins_after = begun;
        if begun > until || end < since || over {
            continue;
        }
        match read_one(disk, &path) {
            Ok((trace, len)) => {
                bytes += len as u64;
                parts.push(trace);
            }
            Err(error) if error.is(libc::ENOENT) => {}
            Err(error) => problems.push(format!("{}: {}", path.display(), error.message)),
        }
    }
    let mut all = Trace { source: "live".into(), tick_us: 10_000_000, ..Trace::default() };
    let mut numbers: HashMap<Key, u32> = HashMap::new();
    for part in parts.iter().rev() {
        all.tick_us = part.tick_us;
        for line in &part.lines {
            let name = usize::try_from(line.partition).ok().and_then(|index| part.names.get(index));
            let Some(name) = name.filter(|_| line.at() > since && line.at() <= until) else { continue };
            let next = u32::try_from(all.names.len()).unwrap_or(u32::MAX);
            let partition = *numbers.entry(Key::clone(name)).or_insert_with(|| {
                all.names.push(Key::clone(name));
                next
            });
            all.lines.push(Line { partition, what: line.what });
        }
    }
    all.lines.sort_by_key(Line::at);
    Ok((all, problems))
}

fn read_one(disk: &dyn Disk, path: &Path) -> Result<(Trace, usize)> {
    let mut bytes = read_file(disk, path)?;
    if path.extension().is_some_and(|extension| extension == "zst") {
        bytes = zstd::bulk::decompress(&bytes, UNPACKED_MAX)
            .map_err(|error| Error::corrupt("trace.read", error.to_string()))?;
    }
    let bytes = whole_lines(bytes);
    text::read(bytes.as_slice()).map(|trace| (trace, bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::os::OsDisk;
    use crate::forecast::Tick;

    const ALL: (Timestamp, Timestamp) = (Timestamp(0), Timestamp(i64::MAX));

    fn tick(end: Timestamp, writes: u64) -> (Key, What) {
        ("p,q".into(), What::Tick(Tick { end, span_us: 10, writes, ..Tick::default() }))
    }

    fn writes(store: &Path) -> (Vec<u64>, Vec<String>) {
        let (trace, problems) = read(&OsDisk::new(), store, ALL, u64::MAX).unwrap();
        let writes = |line: &Line| match line.what {
            What::Tick(tick) => tick.writes,
            _ => 0,
        };
        (trace.lines.iter().map(writes).collect(), problems)
    }

    #[test]
    fn what_was_kept_is_read_back_over_hours_and_kills() {
        let dir = tempfile::tempdir().unwrap();
        let kept = || Kept::new(Arc::new(OsDisk::new()), dir.path(), 1 << 20, 10);
        let mut first = kept();
        for n in 1..=6 {
            let at = Timestamp(n * HOUR_US / 2);
            first.append(at, &[tick(at, n as u64)]).unwrap();
        }
        first.sync().unwrap();
        let open = first.path().unwrap().to_owned();
        drop(first);
        // Killed in the middle of a line.
        let mut text = std::fs::read(&open).unwrap();
        text.extend_from_slice(b"123,p,ti");
        std::fs::write(&open, text).unwrap();
        assert_eq!(writes(dir.path()), (vec![1, 2, 3, 4, 5, 6], vec![]));
        let at = Timestamp(4 * HOUR_US);
        kept().append(at, &[tick(at, 7)]).unwrap();
        assert_eq!(writes(dir.path()).0, [1, 2, 3, 4, 5, 6, 7]);
        let packed = std::fs::read_dir(super::dir(dir.path())).unwrap().flatten();
        assert_eq!(packed.filter(|entry| entry.path().extension().unwrap() == "zst").count(), 4);
        let part = (Timestamp(HOUR_US), Timestamp(2 * HOUR_US));
        let (trace, _) = read(&OsDisk::new(), dir.path(), part, u64::MAX).unwrap();
        assert_eq!(trace.lines.len(), 2, "after the first hour, up to the second");
    }

    #[test]
    fn damage_is_told_and_the_rest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(Arc::new(OsDisk::new()), dir.path(), 1 << 20, 10);
        for n in 1..=2 {
            let at = Timestamp(n * HOUR_US);
            kept.append(at, &[tick(at, n as u64)]).unwrap();
        }
        std::fs::write(super::dir(dir.path()).join("3600000000.zst"), b"nonsense").unwrap();
        let (got, problems) = writes(dir.path());
        assert_eq!(got, [2]);
        assert!(problems.len() == 1 && problems[0].contains("3600000000.zst"), "{problems:?}");
        assert_eq!(writes(Path::new("/nowhere")), (vec![], vec![]));
    }

    #[test]
    fn the_oldest_goes_when_there_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(Arc::new(OsDisk::new()), dir.path(), 2_000, 10);
        for n in 1..=50 {
            let at = Timestamp(n * HOUR_US);
            kept.append(at, &[tick(at, n as u64)]).unwrap();
        }
        let (got, _) = writes(dir.path());
        assert!(got.len() < 30 && got.last() == Some(&50), "{got:?}");
        let bytes: u64 = std::fs::read_dir(super::dir(dir.path()))
            .unwrap()
            .flatten()
            .map(|e| e.metadata().unwrap().len())
            .sum();
        assert!(bytes < 3_000, "{bytes}");
    }
}
