//! A shared map of the exercised part.

use super::SPAN;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

/// Maps the span, also what lies beyond the end of the file: only what lies below it may be touched.
pub struct Map {
    start: *mut u8,
}

impl Map {
    pub fn new(file: &File, base: u64) -> Map {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new map at an address of the kernel's choice; it is unmapped when this is dropped.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SPAN,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                base as i64,
            )
        };
        assert!(start != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Map { start: start.cast() }
    }

    /// Stores bytes. They must lie below the end of the file.
    pub fn store(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= SPAN);
        // SAFETY: within the map, and the caller keeps below the file's end, where pages are backed.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(at), bytes.len()) }
    }

    /// Loads bytes. They must lie in pages that hold bytes of the file.
    pub fn load(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= SPAN);
        let mut bytes = vec![0xee; len];
        // SAFETY: as for `store`.
        unsafe { std::ptr::copy_nonoverlapping(self.start.add(at), bytes.as_mut_ptr(), len) }
        bytes
    }

    /// A number that several processes count with. Its eight bytes must lie below the end of the file.
    pub fn counter(&self, at: usize) -> &AtomicU64 {
        assert!(at + 8 <= SPAN && at.is_multiple_of(8));
        // SAFETY: within the map and aligned; every process uses it as an atomic.
        unsafe { AtomicU64::from_ptr(self.start.add(at).cast()) }
    }

    pub fn sync(&self) {
        // SAFETY: the whole of this map.
        let done = unsafe { libc::msync(self.start.cast(), SPAN, libc::MS_SYNC) };
        assert_eq!(done, 0, "msync: {}", io::Error::last_os_error());
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the whole of this map, which nobody uses any more.
        unsafe { libc::munmap(self.start.cast(), SPAN) };
    }
}
