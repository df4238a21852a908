//! Exercises one file through several descriptors at once: buffered, O_APPEND, O_DIRECT, O_SYNC, O_DSYNC, shared maps,
//! Linux aio and io_uring. A vector of bytes says what every read must give, now and in the past.
//!
//! Everything is drawn from one seed, so a run can be repeated; a failure shows the seed and the last steps.

mod act;
mod async_io;
mod map;
mod step;

pub use map::Map;
pub use step::{CopyBy, Step, Via};

use crate::random::seeded;
use async_io::AsyncIo;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest the exercised part of the file gets.
pub const SPAN: usize = 320 * 1024;
/// Steps shown with a failure.
const SHOWN: usize = 24;
/// Instants kept for comparison at once.
const INSTANTS: usize = 4;

/// How a past instant is taken: the path of the file in the view of now.
pub type Instants<'a> = Option<&'a dyn Fn() -> PathBuf>;

/// The descriptors of the file.
struct Handles {
    plain: File,
    append: File,
    direct: File,
    sync: File,
    dsync: File,
}

impl Handles {
    fn open(path: &Path) -> Handles {
        let open = |flags: i32| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(flags);
            options.open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
        };
        Handles {
            plain: open(0),
            append: open(libc::O_APPEND),
            direct: open(libc::O_DIRECT),
            sync: open(libc::O_SYNC),
            dsync: open(libc::O_DSYNC),
        }
    }
}

/// A file under exercise, and what it must hold.
pub struct Exercise<'a> {
    path: PathBuf,
    /// Where in the file the exercised part begins; below it is one hole.
    base: u64,
    rng: StdRng,
    seed: u64,
    handles: Handles,
    async_io: AsyncIo,
    map: Option<Map>,
    /// The bytes from `base` to the end of the file.
    model: Vec<u8>,
    instants: Instants<'a>,
    past: VecDeque<(PathBuf, Vec<u8>)>,
    recent: VecDeque<Step>,
    steps: usize,
}

impl<'a> Exercise<'a> {
    /// A new file. `base`: a multiple of 4096 at which to begin, for offsets past 4 GiB.
    pub fn new(name: &str, path: &Path, base: u64, instants: Instants<'a>) -> Exercise<'a> {
        let (rng, seed) = seeded(name);
        let file = File::create(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
        file.set_len(base).unwrap();
        Exercise {
            path: path.to_owned(),
            base,
            rng,
            seed,
            handles: Handles::open(path),
            async_io: AsyncIo::new(act::AT_ONCE as u32),
            map: None,
            model: Vec::new(),
            instants,
            past: VecDeque::new(),
            recent: VecDeque::new(),
            steps: 0,
        }
    }

    /// Takes `count` random steps.
    ///
    /// # Panics
    /// When anything is not as it must be.
    pub fn run(&mut self, count: usize) {
        for _ in 0..count {
            let step = step::draw(&mut self.rng, self.model.len());
            self.recent.push_back(step.clone());
            if self.recent.len() > SHOWN {
                self.recent.pop_front();
            }
            self.take(&step);
            self.steps += 1;
        }
        self.check_all();
    }

    /// Everything: the whole file, its size, and every instant that is still kept.
    pub fn check_all(&mut self) {
        self.check_file();
        while let Some((path, bytes)) = self.past.pop_front() {
            self.check_past(&path, &bytes);
        }
    }

    /// The whole file and its size.
    pub fn check_file(&self) {
        let mut found = vec![0xee; self.model.len() + 5000];
        let got = read_full(&self.handles.plain, &mut found, self.base);
        self.same("the whole file", 0, &self.model, &found[..got]);
        self.check_size();
    }

    /// Where there is a hole, there must be nothing but zeros; and the file must end where it ends.
    fn check_holes(&self, from: usize) {
        check_holes(&self.handles.plain, self.base, &self.model, from)
            .unwrap_or_else(|what| self.fail(&what));
    }

    fn check_size(&self) {
        let size = self.handles.plain.metadata().unwrap().len();
        let expected = self.base + self.model.len() as u64;
        if size != expected {
            self.fail(&format!("the size is {size}, expected {expected}"));
        }
    }

    fn remember(&mut self) {
        let Some(now) = self.instants else { return };
        // What the kernel still holds is no part of history.
        self.handles.plain.sync_all().unwrap();
        let path = now();
        self.past.push_back((path, self.model.clone()));
        if self.past.len() > INSTANTS {
            let index = self.rng.random_range(0..self.past.len());
            let (path, bytes) = self.past.remove(index).expect("an index below the length");
            self.check_past(&path, &bytes);
        }
    }

    fn check_past(&self, path: &Path, bytes: &[u8]) {
        let file = File::open(path).unwrap_or_else(|e| self.fail(&format!("open {}: {e}", path.display())));
        let mut found = vec![0xee; bytes.len() + 5000];
        let got = read_full(&file, &mut found, self.base);
        self.same(&path.display().to_string(), 0, bytes, &found[..got]);
        let size = file.metadata().unwrap().len();
        if size != self.base + bytes.len() as u64 {
            self.fail(&format!("{} has {size} bytes, expected {}", path.display(), bytes.len()));
        }
        check_holes(&file, self.base, bytes, 0).unwrap_or_else(|what| self.fail(&what));
    }

    fn same(&self, what: &str, at: usize, expected: &[u8], found: &[u8]) {
        if expected == found {
            return;
        }
        let first = expected.iter().zip(found).position(|(left, right)| left != right);
        let first = first.unwrap_or(expected.len().min(found.len()));
        self.fail(&format!(
            "{what}: {} bytes from {at}, expected {}; they differ first at {} (page {}): {:?}, expected {:?}",
            found.len(),
            expected.len(),
            at + first,
            (at + first) / 4096,
            found.get(first..(first + 8).min(found.len())),
            expected.get(first..(first + 8).min(expected.len())),
        ));
    }

    fn fail(&self, what: &str) -> ! {
        let recent: Vec<String> = self.recent.iter().map(|step| format!("  {step:?}")).collect();
        panic!(
            "WEFT_E2E_SEED={} step {} of {} (from {}): {what}\nthe last steps:\n{}",
            self.seed,
            self.steps,
            self.path.display(),
            self.base,
            recent.join("\n")
        );
    }
}

/// Goes from data to hole to data from `from` on. What is wrong, if anything is.
pub fn check_holes(file: &File, base: u64, bytes: &[u8], from: usize) -> Result<(), String> {
    let end = base + bytes.len() as u64;
    let mut at = base + from as u64;
    while at < end {
        let data = seek(file, at, libc::SEEK_DATA).unwrap_or(end);
        if data < at || data > end {
            return Err(format!("SEEK_DATA from {at} gives {data}, and the file ends at {end}"));
        }
        let hole = &bytes[(at - base) as usize..(data - base) as usize];
        if let Some(lost) = hole.iter().position(|byte| *byte != 0) {
            return Err(format!(
                "SEEK_DATA from {at} gives {data}: it skips the byte at {}",
                at + lost as u64
            ));
        }
        if data == end {
            return Ok(());
        }
        let hole = seek(file, data, libc::SEEK_HOLE);
        at = hole
            .filter(|hole| (data + 1..=end).contains(hole))
            .ok_or_else(|| format!("SEEK_HOLE from {data} gives {hole:?}, and the file ends at {end}"))?;
    }
    match seek(file, end, libc::SEEK_DATA) {
        None => Ok(()),
        Some(found) => Err(format!("SEEK_DATA at the end {end} gives {found}")),
    }
}

/// lseek for data or holes; `None`: ENXIO.
///
/// # Panics
/// On any other error.
pub fn seek(file: &File, offset: u64, whence: i32) -> Option<u64> {
    use std::os::fd::AsRawFd;
    // SAFETY: an open descriptor and plain numbers.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset as i64, whence) };
    if found >= 0 {
        return Some(found as u64);
    }
    let error = std::io::Error::last_os_error();
    assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "lseek {offset}: {error}");
    None
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64).expect("read") {
            0 => break,
            count => done += count,
        }
    }
    done
}
