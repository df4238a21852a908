//! Random file operations, as values: the same ones are done on a mount and on a plain directory.

use crate::tree::c_path;
use rand::Rng;
use rand::rngs::StdRng;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const DIRS: [&str; 4] = ["", "a", "b", "a/c"];
const NAMES: [&str; 8] = ["c", "f0", "f1", "f2", "f3", "ä ö", "g", "h.1"];
/// Files held open across operations.
pub const SLOTS: usize = 3;

/// One operation. Paths are relative to the root; bytes are made from a seed.
#[derive(Clone, Debug)]
pub enum Op {
    Create {
        path: PathBuf,
        mode: u32,
    },
    Write {
        path: PathBuf,
        offset: u64,
        len: usize,
        seed: u8,
    },
    Append {
        path: PathBuf,
        len: usize,
        seed: u8,
    },
    /// Whole 4 KiB blocks with O_DIRECT.
    Direct {
        path: PathBuf,
        block: u64,
        seed: u8,
    },
    /// A store through a shared map, then msync.
    Mapped {
        path: PathBuf,
        offset: u64,
        seed: u8,
    },
    Read {
        path: PathBuf,
        offset: u64,
        len: usize,
    },
    Truncate {
        path: PathBuf,
        len: u64,
    },
    Allocate {
        path: PathBuf,
        flags: i32,
        offset: u64,
        len: u64,
    },
    /// renameat2 with its flags.
    Rename {
        from: PathBuf,
        to: PathBuf,
        flags: u32,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Symlink {
        target: PathBuf,
        path: PathBuf,
    },
    Fifo {
        path: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    Mkdir {
        path: PathBuf,
        mode: u32,
    },
    Rmdir {
        path: PathBuf,
    },
    Chmod {
        path: PathBuf,
        mode: u32,
    },
    Chown {
        path: PathBuf,
        uid: u32,
        gid: u32,
    },
    SetTime {
        path: PathBuf,
        secs: i64,
        nanos: i64,
    },
    SetXattr {
        path: PathBuf,
        name: &'static str,
        len: usize,
        seed: u8,
    },
    RemoveXattr {
        path: PathBuf,
        name: &'static str,
    },
    Fsync {
        path: PathBuf,
    },
    /// Opens a file and keeps it, whatever happens to its name.
    Hold {
        slot: usize,
        path: PathBuf,
    },
    HeldWrite {
        slot: usize,
        offset: u64,
        len: usize,
        seed: u8,
    },
    HeldRead {
        slot: usize,
        offset: u64,
        len: usize,
    },
    HeldTruncate {
        slot: usize,
        len: u64,
    },
    Release {
        slot: usize,
    },
}

/// What an operation answered: bytes (possibly none), or an errno.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Done(Vec<u8>),
    Errno(i32),
}

/// Does operations below one root.
pub struct Actor {
    root: PathBuf,
    held: Vec<Option<File>>,
}

impl Actor {
    pub fn new(root: &Path) -> Actor {
        Actor { root: root.to_owned(), held: (0..SLOTS).map(|_| None).collect() }
    }

    /// Lets go of all held files (before an unmount; after a crash).
    pub fn release_all(&mut self) {
        self.held.iter_mut().for_each(|slot| *slot = None);
    }

    pub fn apply(&mut self, op: &Op) -> Answer {
        match self.attempt(op) {
            Ok(bytes) => Answer::Done(bytes),
            Err(e) => Answer::Errno(e.raw_os_error().unwrap_or(-1)),
        }
    }

    fn attempt(&mut self, op: &Op) -> io::Result<Vec<u8>> {
        match op {
            Op::Hold { .. }
            | Op::HeldWrite { .. }
            | Op::HeldRead { .. }
            | Op::HeldTruncate { .. }
            | Op::Release { .. } => self.attempt_held(op),
            Op::Create { .. }
            | Op::Write { .. }
            | Op::Append { .. }
            | Op::Direct { .. }
            | Op::Mapped { .. }
            | Op::Read { .. }
            | Op::Truncate { .. }
            | Op::Allocate { .. }
            | Op::Fsync { .. } => self.attempt_bytes(op),
            _ => self.attempt_names(op).map(|()| self.after(op)),
        }
    }

    fn attempt_held(&mut self, op: &Op) -> io::Result<Vec<u8>> {
        match op {
            Op::Hold { slot, path } => {
                let file = plain(true).open(self.root.join(path))?;
                self.held[*slot] = Some(file);
            }
            Op::Release { slot } => self.held[*slot] = None,
            Op::HeldWrite { slot, offset, len, seed } => {
                if let Some(file) = &self.held[*slot] {
                    file.write_all_at(&bytes(*seed, *len), *offset)?;
                }
            }
            Op::HeldRead { slot, offset, len } => {
                return self.held[*slot].as_ref().map_or(Ok(Vec::new()), |file| read_at(file, *offset, *len));
            }
            Op::HeldTruncate { slot, len } => {
                if let Some(file) = &self.held[*slot] {
                    file.set_len(*len)?;
                }
            }
            _ => unreachable!("not an operation on a held file"),
        }
        Ok(Vec::new())
    }

    fn attempt_bytes(&self, op: &Op) -> io::Result<Vec<u8>> {
        match op {
            Op::Create { path, mode } => {
                plain(true).create(true).mode(*mode).open(self.root.join(path))?;
            }
            Op::Write { path, offset, len, seed } => {
                plain(true).open(self.root.join(path))?.write_all_at(&bytes(*seed, *len), *offset)?;
            }
            Op::Append { path, len, seed } => {
                let mut file = plain(false).append(true).open(self.root.join(path))?;
                io::Write::write_all(&mut file, &bytes(*seed, *len))?;
            }
            Op::Direct { path, block, seed } => {
                let file =
                    plain(true).custom_flags(libc::O_DIRECT | libc::O_NONBLOCK).open(self.root.join(path))?;
                file.write_all_at(Aligned::filled(*seed).as_slice(), block * 4096)?;
            }
            Op::Mapped { path, offset, seed } => {
                store_mapped(&plain(true).open(self.root.join(path))?, *offset, *seed)?
            }
            Op::Read { path, offset, len } => {
                return read_at(&plain(false).open(self.root.join(path))?, *offset, *len);
            }
            Op::Truncate { path, len } => plain(true).open(self.root.join(path))?.set_len(*len)?,
            Op::Allocate { path, flags, offset, len } => {
                let file = plain(true).open(self.root.join(path))?;
                // SAFETY: plain numbers and an open descriptor.
                check(unsafe { libc::fallocate(file.as_raw_fd(), *flags, *offset as i64, *len as i64) })?;
            }
            Op::Fsync { path } => plain(false).open(self.root.join(path))?.sync_all()?,
            _ => unreachable!("not an operation on bytes"),
        }
        Ok(Vec::new())
    }

    fn attempt_names(&self, op: &Op) -> io::Result<()> {
        let full = |path: &Path| c_path(&self.root.join(path));
        // SAFETY: every pointer is to a live C string or a live value of the right type.
        let result = unsafe {
            match op {
                Op::Rename { from, to, flags } => libc::renameat2(
                    libc::AT_FDCWD,
                    full(from).as_ptr(),
                    libc::AT_FDCWD,
                    full(to).as_ptr(),
                    *flags,
                ),
                Op::Link { from, to } => libc::link(full(from).as_ptr(), full(to).as_ptr()),
                Op::Symlink { target, path } => libc::symlink(c_path(target).as_ptr(), full(path).as_ptr()),
                Op::Fifo { path } => libc::mkfifo(full(path).as_ptr(), 0o640),
                Op::Unlink { path } => libc::unlink(full(path).as_ptr()),
                Op::Mkdir { path, mode } => libc::mkdir(full(path).as_ptr(), *mode),
                Op::Rmdir { path } => libc::rmdir(full(path).as_ptr()),
                Op::Chmod { path, mode } => libc::chmod(full(path).as_ptr(), *mode),
                Op::Chown { path, uid, gid } => libc::lchown(full(path).as_ptr(), *uid, *gid),
                Op::SetTime { path, secs, nanos } => set_time(&full(path), *secs, *nanos),
                Op::SetXattr { path, name, len, seed } => {
                    let value = bytes(*seed, *len);
                    let name = c_path(Path::new(name));
                    libc::lsetxattr(full(path).as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
                }
                Op::RemoveXattr { path, name } => {
                    libc::lremovexattr(full(path).as_ptr(), c_path(Path::new(name)).as_ptr())
                }
                _ => unreachable!("not an operation on names"),
            }
        };
        check(result)
    }

    /// What can be seen at once of a successful operation: an explicit time must be there exactly.
    fn after(&self, op: &Op) -> Vec<u8> {
        use std::os::unix::fs::MetadataExt;
        let Op::SetTime { path, .. } = op else {
            return Vec::new();
        };
        let meta = std::fs::symlink_metadata(self.root.join(path)).expect("stat after utimensat");
        format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()).into_bytes()
    }
}

/// Draws an operation. `small` leaves out what may reach the daemon as several events.
pub fn draw(rng: &mut StdRng, small: bool) -> Op {
    let path = any_path(rng);
    let seed = rng.random();
    let len = length(rng, small);
    let offset = rng.random_range(0..200_000);
    match rng.random_range(0..100) {
        0..14 => Op::Create { path, mode: pick(rng, &[0o600, 0o644, 0o755, 0o4755, 0o2640]) },
        14..32 => Op::Write { path, offset, len, seed },
        32..38 => Op::Append { path, len, seed },
        38..42 if !small => Op::Direct { path, block: rng.random_range(0..40), seed },
        42..45 if !small => Op::Mapped { path, offset, seed },
        38..50 => Op::Read { path, offset, len },
        50..55 => Op::Truncate { path, len: pick(rng, &[0, 1, 4096, offset]) },
        55..58 if !small => Op::Allocate { path, flags: allocation(rng), offset, len: 1 + len as u64 },
        55..64 => Op::Rename {
            from: path,
            to: any_path(rng),
            flags: pick(rng, &[0, 0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE]),
        },
        64..67 => Op::Link { from: path, to: any_path(rng) },
        67..69 => Op::Symlink { target: any_path(rng), path },
        69 => Op::Fifo { path },
        70..76 => Op::Unlink { path },
        76..80 => Op::Mkdir { path: dir(rng), mode: pick(rng, &[0o755, 0o700, 0o1777, 0o2775]) },
        80 => Op::Rmdir { path: dir(rng) },
        81..83 => Op::Chmod { path, mode: pick(rng, &[0o600, 0o444, 0o751, 0o6755]) },
        83..85 => Op::Chown { path, uid: pick(rng, &[0, 1000, 65_534]), gid: pick(rng, &[0, 50]) },
        85..87 => Op::SetTime {
            path,
            secs: rng.random_range(1..2_000_000_000),
            nanos: rng.random_range(0..1_000_000_000),
        },
        87..90 => Op::SetXattr {
            path,
            name: pick(rng, &["user.one", "user.two", "trusted.three"]),
            len: len % 200,
            seed,
        },
        90 => Op::RemoveXattr { path, name: "user.one" },
        91..93 => Op::Fsync { path },
        93..95 => Op::Hold { slot: rng.random_range(0..SLOTS), path },
        95..97 => Op::HeldWrite { slot: rng.random_range(0..SLOTS), offset, len, seed },
        97 => Op::HeldRead { slot: rng.random_range(0..SLOTS), offset, len },
        98 => Op::HeldTruncate { slot: rng.random_range(0..SLOTS), len: offset },
        _ => Op::Release { slot: rng.random_range(0..SLOTS) },
    }
}

fn any_path(rng: &mut StdRng) -> PathBuf {
    Path::new(DIRS[rng.random_range(0..DIRS.len())]).join(NAMES[rng.random_range(0..NAMES.len())])
}

/// Mostly a directory that other paths lead through.
fn dir(rng: &mut StdRng) -> PathBuf {
    if rng.random_bool(0.8) { PathBuf::from(DIRS[rng.random_range(1..DIRS.len())]) } else { any_path(rng) }
}

fn length(rng: &mut StdRng, small: bool) -> usize {
    match rng.random_range(0..20) {
        0 if !small => rng.random_range(1 << 20..3 << 20),
        0..4 => 4096,
        4..8 => rng.random_range(4_000..60_000),
        _ => rng.random_range(0..3_000),
    }
}

fn allocation(rng: &mut StdRng) -> i32 {
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    pick(
        rng,
        &[
            0,
            keep,
            libc::FALLOC_FL_PUNCH_HOLE | keep,
            libc::FALLOC_FL_ZERO_RANGE,
            libc::FALLOC_FL_ZERO_RANGE | keep,
        ],
    )
}

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// `len` bytes that differ between seeds and along the file.
pub fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_add((at / 7 * 31 % 251) as u8)).collect()
}

/// Never blocks on a fifo.
fn plain(write: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(libc::O_NONBLOCK);
    options
}

fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// # Safety
/// `path` must be a live C string, as its type says; nothing else is asked.
unsafe fn set_time(path: &std::ffi::CStr, secs: i64, nanos: i64) -> i32 {
    let time = libc::timespec { tv_sec: secs, tv_nsec: nanos };
    // SAFETY: both pointers are to live values.
    unsafe {
        libc::utimensat(libc::AT_FDCWD, path.as_ptr(), [time, time].as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    }
}

/// Overwrites up to 5000 bytes of the file's own range through a shared map.
pub fn store_mapped(file: &File, offset: u64, seed: u8) -> io::Result<()> {
    let size = file.metadata()?.len();
    if size == 0 || !file.metadata()?.is_file() {
        return Ok(());
    }
    let start = (offset % size) as usize;
    let end = (start + 5_000).min(size as usize);
    // SAFETY: the map covers the whole file, nobody truncates it meanwhile, and it is unmapped before returning.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let map = libc::mmap(
            std::ptr::null_mut(),
            size as usize,
            protection,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let content = bytes(seed, end - start);
        std::ptr::copy_nonoverlapping(content.as_ptr(), map.cast::<u8>().add(start), content.len());
        let synced = check(libc::msync(map, size as usize, libc::MS_SYNC));
        libc::munmap(map, size as usize);
        synced
    }
}

/// A block for O_DIRECT.
#[repr(align(4096))]
pub struct Aligned([u8; 4096]);

impl Aligned {
    pub fn filled(seed: u8) -> Box<Aligned> {
        let mut block = Box::new(Aligned([0; 4096]));
        block.0.copy_from_slice(&bytes(seed, 4096));
        block
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// syncfs(2) of the filesystem that holds `path`.
pub fn syncfs(path: &Path) -> io::Result<()> {
    // SAFETY: a C string in, a descriptor out, owned at once.
    let file = unsafe {
        let fd = libc::open(c_path(path).as_ptr(), libc::O_RDONLY);
        check(i32::from(fd < 0))?;
        File::from_raw_fd(fd)
    };
    // SAFETY: an open descriptor.
    check(unsafe { libc::syncfs(file.as_raw_fd()) })
}
