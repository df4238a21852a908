//! A process of its own that holds one file open and does to it what it is told.
//!
//! The test's own descriptors will not do: whenever a test starts a program, the program's copy of them is closed, and
//! close makes the kernel send what it holds.

use std::ffi::CString;
use std::io::{Error, PipeReader, PipeWriter, Read, Result, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Clone, Copy)]
#[repr(u8)]
enum Do {
    Write,
    Map,
    Store,
    Fsync,
    Msync,
    Close,
}

/// See the head of this file. Dropping it ends the process.
pub struct Holder {
    pid: i32,
    orders: PipeWriter,
    answers: PipeReader,
}

impl Holder {
    /// Opens (and makes) `path` for reading and writing.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[track_caller]
    pub fn open(path: &Path) -> Holder {
        let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
        let (mut theirs, orders) = std::io::pipe().expect("pipe");
        let (answers, mut ours) = std::io::pipe().expect("pipe");
        // SAFETY: the child calls nothing but system calls, and ends without returning.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: a path that ends with NUL.
                let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o644) };
                serve(fd, &mut theirs, &mut ours);
                // SAFETY: ends the child.
                unsafe { libc::_exit(0) }
            }
            pid => {
                drop((theirs, ours));
                let mut holder = Holder { pid, orders, answers };
                holder.answer().unwrap_or_else(|cause| panic!("open: {cause}"));
                holder
            }
        }
    }

    fn order(&mut self, what: Do, byte: u8, offset: u64, len: usize) -> Result<()> {
        let mut order = [0; 18];
        order[0] = what as u8;
        order[1] = byte;
        order[2..10].copy_from_slice(&offset.to_ne_bytes());
        order[10..].copy_from_slice(&(len as u64).to_ne_bytes());
        self.orders.write_all(&order)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<()> {
        let mut code = [0; 4];
        self.answers.read_exact(&mut code)?;
        match i32::from_ne_bytes(code) {
            0 => Ok(()),
            errno => Err(Error::from_raw_os_error(errno)),
        }
    }

    /// write(2) of `len` times `byte`; a short one is ENOSPC.
    pub fn write(&mut self, byte: u8, offset: u64, len: usize) -> Result<()> {
        self.order(Do::Write, byte, offset, len)
    }

    /// Maps the first `len` bytes.
    pub fn map(&mut self, len: usize) -> Result<()> {
        self.order(Do::Map, 0, 0, len)
    }

    /// Fills `len` bytes of the map.
    pub fn store(&mut self, byte: u8, offset: u64, len: usize) -> Result<()> {
        self.order(Do::Store, byte, offset, len)
    }

    pub fn fsync(&mut self) -> Result<()> {
        self.order(Do::Fsync, 0, 0, 0)
    }

    pub fn msync(&mut self) -> Result<()> {
        self.order(Do::Msync, 0, 0, 0)
    }

    /// Closes the descriptor; a map stays.
    pub fn close(&mut self) -> Result<()> {
        self.order(Do::Close, 0, 0, 0)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: our own child, not waited for yet.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

fn serve(fd: i32, orders: &mut PipeReader, answers: &mut PipeWriter) {
    let mut map: (*mut u8, usize) = (std::ptr::null_mut(), 0);
    let mut code = if fd < 0 { errno() } else { 0 };
    let mut order = [0; 18];
    while answers.write_all(&code.to_ne_bytes()).is_ok() && orders.read_exact(&mut order).is_ok() {
        let offset = u64::from_ne_bytes(order[2..10].try_into().expect("8 bytes"));
        let len = u64::from_ne_bytes(order[10..].try_into().expect("8 bytes")) as usize;
        // SAFETY: plain system calls on the child's own descriptor and map; stores stay within the map.
        let done = unsafe {
            match order[0] {
                what if what == Do::Write as u8 => write_all(fd, order[1], offset, len),
                what if what == Do::Map as u8 => {
                    let access = libc::PROT_READ | libc::PROT_WRITE;
                    let at = libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0);
                    map = (at.cast(), len);
                    at != libc::MAP_FAILED
                }
                what if what == Do::Store as u8 => {
                    assert!(offset as usize + len <= map.1);
                    std::ptr::write_bytes(map.0.add(offset as usize), order[1], len);
                    true
                }
                what if what == Do::Fsync as u8 => libc::fsync(fd) == 0,
                what if what == Do::Msync as u8 => libc::msync(map.0.cast(), map.1, libc::MS_SYNC) == 0,
                _ => libc::close(fd) == 0,
            }
        };
        code = if done { 0 } else { errno() };
    }
}

unsafe fn write_all(fd: i32, byte: u8, offset: u64, len: usize) -> bool {
    let block = [byte; 64 << 10];
    let mut done = 0;
    while done < len {
        let part = (len - done).min(block.len());
        // SAFETY: `block` is at least `part` long.
        let wrote = unsafe { libc::pwrite(fd, block.as_ptr().cast(), part, (offset as usize + done) as i64) };
        if wrote <= 0 {
            return false;
        }
        done += wrote as usize;
    }
    true
}

fn errno() -> i32 {
    Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
