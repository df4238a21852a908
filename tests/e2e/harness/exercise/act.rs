//! Taking a step: on the file, and on what it must hold.

use super::async_io::Part;
use super::map::Map;
use super::{CopyBy, Exercise, Handles, Step, Via, read_full};
use crate::ops::{bytes, syncfs};
use crate::tree::c_path;
use rand::Rng;
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

/// Requests in flight at once.
pub(super) const AT_ONCE: usize = 4;

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A buffer that O_DIRECT takes.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(content: &[u8]) -> Aligned {
        let mut bytes = vec![0; content.len() + 4096];
        let start = bytes.as_ptr().align_offset(4096);
        bytes[start..start + content.len()].copy_from_slice(content);
        Aligned { bytes, start, len: content.len() }
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl Exercise<'_> {
    pub(super) fn take(&mut self, step: &Step) {
        let done = match step {
            Step::Write { via, at, len, fill } => self.write(*via, *at, &bytes(*fill, *len)),
            Step::Append { len, fill } => self.append(&bytes(*fill, *len)),
            Step::Read { via, at, len } => self.read(*via, *at, *len),
            Step::Copy { by, from, to, len } => self.copy(*by, *from, *to, *len),
            Step::Allocate { mode, at, len } => self.allocate(*mode, *at, *len),
            Step::Truncate { len, by_path } => self.truncate(*len, *by_path),
            Step::Map => {
                self.map = match self.map.take() {
                    Some(_) => None,
                    None => Some(Map::new(&self.handles.plain, self.base)),
                };
                Ok(())
            }
            Step::Holes { from } => {
                self.check_holes(*from);
                Ok(())
            }
            Step::Size => {
                self.check_size();
                Ok(())
            }
            Step::Instant => {
                self.remember();
                Ok(())
            }
            Step::WholeFile => {
                self.check_file();
                Ok(())
            }
            Step::Msync | Step::Fsync | Step::Fdatasync | Step::Syncfs | Step::Forget | Step::Reopen => {
                self.settle(step)
            }
        };
        if let Err(error) = done {
            self.fail(&format!("{error}"));
        }
    }

    fn settle(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Msync => {
                if let Some(map) = &self.map {
                    map.sync();
                }
                Ok(())
            }
            Step::Fsync => self.handles.plain.sync_all(),
            Step::Fdatasync => self.handles.direct.sync_data(),
            Step::Syncfs => syncfs(&self.path),
            Step::Forget => {
                self.handles.plain.sync_all()?;
                // SAFETY: an open descriptor and plain numbers.
                let done = unsafe {
                    libc::posix_fadvise(self.handles.plain.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED)
                };
                if done == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(done)) }
            }
            _ => {
                self.handles = Handles::open(&self.path);
                Ok(())
            }
        }
    }

    fn handle(&self, via: Via) -> &File {
        match via {
            Via::Buffered | Via::Vectored | Via::Mapped => &self.handles.plain,
            Via::Direct | Via::Aio | Via::Uring => &self.handles.direct,
            Via::Sync => &self.handles.sync,
            Via::Dsync => &self.handles.dsync,
        }
    }

    fn write(&mut self, via: Via, at: usize, content: &[u8]) -> io::Result<()> {
        let offset = self.base + at as u64;
        let content = match via {
            // Stores through a map cannot make a file longer.
            Via::Mapped => &content[..content.len().min(self.model.len().saturating_sub(at))],
            _ => content,
        };
        match via {
            Via::Buffered | Via::Sync | Via::Dsync => self.handle(via).write_all_at(content, offset)?,
            Via::Vectored => write_vectored(self.handle(via), content, offset)?,
            Via::Direct => self.handle(via).write_all_at(Aligned::new(content).as_mut(), offset)?,
            Via::Mapped => self.store(at, content),
            Via::Aio | Via::Uring => {
                let mut content = Aligned::new(content);
                let content = content.as_mut();
                let lens: Vec<usize> = parts(offset, content).iter().map(|part| part.bytes.len()).collect();
                let moved = self.together(via, true, &mut parts(offset, content))?;
                if moved != lens {
                    self.fail(&format!("{via:?} wrote {moved:?} of {lens:?}"));
                }
            }
        }
        self.put(at, content);
        Ok(())
    }

    fn together(&mut self, via: Via, write: bool, parts: &mut [Part<'_>]) -> io::Result<Vec<usize>> {
        let file = &self.handles.direct;
        match via {
            _ if parts.is_empty() => Ok(Vec::new()),
            Via::Aio => self.async_io.aio(file, write, parts),
            _ => self.async_io.uring(file, write, parts),
        }
    }

    fn store(&mut self, at: usize, content: &[u8]) {
        if content.is_empty() {
            return;
        }
        if let Some(map) = &self.map {
            map.store(at, content);
            return;
        }
        let map = Map::new(&self.handles.plain, self.base);
        map.store(at, content);
        if self.rng.random_bool(0.5) {
            map.sync();
        }
    }

    /// The model's side of a write.
    fn put(&mut self, at: usize, content: &[u8]) {
        if content.is_empty() {
            return;
        }
        let end = at + content.len();
        if self.model.len() < end {
            self.model.resize(end, 0);
        }
        self.model[at..end].copy_from_slice(content);
    }

    fn append(&mut self, content: &[u8]) -> io::Result<()> {
        self.handles.append.write_all(content)?;
        self.put(self.model.len(), content);
        Ok(())
    }

    fn read(&mut self, via: Via, at: usize, len: usize) -> io::Result<()> {
        let offset = self.base + at as u64;
        let end = (at + len).min(self.model.len());
        let found = match via {
            Via::Buffered | Via::Sync | Via::Dsync => {
                let mut found = vec![0xee; len];
                let got = read_full(self.handle(via), &mut found, offset);
                found.truncate(got);
                found
            }
            Via::Vectored => read_vectored(self.handle(via), len, offset)?,
            Via::Direct => {
                let mut buffer = Aligned::new(&vec![0xee; len]);
                let got = self.handle(via).read_at(buffer.as_mut(), offset)?;
                buffer.as_mut()[..got].to_vec()
            }
            Via::Mapped => return self.load(at, len),
            Via::Aio | Via::Uring => {
                let mut buffer = Aligned::new(&vec![0xee; len]);
                let moved = self.together(via, false, &mut parts(offset, buffer.as_mut()))?;
                let got = moved.iter().sum();
                buffer.as_mut()[..got].to_vec()
            }
        };
        let expected = self.model.get(at..end).unwrap_or_default();
        self.same(&format!("{via:?} read"), at, expected, &found);
        Ok(())
    }

    /// Loads through a map; behind the end of the file, in its last page, there are zeros.
    fn load(&mut self, at: usize, len: usize) -> io::Result<()> {
        let mapped = self.model.len().next_multiple_of(4096);
        let end = (at + len).min(mapped);
        if at >= end {
            return Ok(());
        }
        let mut expected = self.model.get(at..end.min(self.model.len())).unwrap_or_default().to_vec();
        expected.resize(end - at, 0);
        let found = match &self.map {
            Some(map) => map.load(at, end - at),
            None => Map::new(&self.handles.plain, self.base).load(at, end - at),
        };
        self.same("load from a map", at, &expected, &found);
        Ok(())
    }

    fn copy(&mut self, by: CopyBy, from: usize, to: usize, len: usize) -> io::Result<()> {
        let len = len.min(self.model.len().saturating_sub(from));
        let (source, target) = (self.base + from as u64, self.base + to as u64);
        let moved = match by {
            CopyBy::Range => copy_range(&self.handles.plain, source, target, len)?,
            CopyBy::Splice => splice(&self.handles.plain, source, target, len)?,
            CopyBy::Sendfile => send(&self.handles.plain, source, target, len)?,
        };
        if moved != len {
            self.fail(&format!("{by:?} moved {moved} of {len} bytes"));
        }
        let content = self.model.get(from..from + len).unwrap_or_default().to_vec();
        self.put(to, &content);
        Ok(())
    }

    fn allocate(&mut self, mode: i32, at: usize, len: usize) -> io::Result<()> {
        let offset = (self.base + at as u64) as i64;
        // SAFETY: an open descriptor and plain numbers.
        check(i64::from(unsafe {
            libc::fallocate(self.handles.plain.as_raw_fd(), mode, offset, len as i64)
        }))?;
        let end = at + len;
        if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && self.model.len() < end {
            self.model.resize(end, 0);
        }
        if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
            let end = end.min(self.model.len());
            if at < end {
                self.model[at..end].fill(0);
            }
        }
        Ok(())
    }

    fn truncate(&mut self, len: usize, by_path: bool) -> io::Result<()> {
        let size = self.base + len as u64;
        if by_path {
            // SAFETY: a C string and a number.
            check(i64::from(unsafe { libc::truncate(c_path(&self.path).as_ptr(), size as i64) }))?;
        } else {
            self.handles.plain.set_len(size)?;
        }
        self.model.resize(len, 0);
        Ok(())
    }
}

fn parts(offset: u64, content: &mut [u8]) -> Vec<Part<'_>> {
    let step = content.len().div_ceil(AT_ONCE).next_multiple_of(4096);
    let starts = (0..).map(|index| offset + index * step as u64);
    content.chunks_mut(step).zip(starts).map(|(bytes, offset)| Part { offset, bytes }).collect()
}

fn write_vectored(file: &File, content: &[u8], offset: u64) -> io::Result<()> {
    let slices: Vec<IoSlice<'_>> =
        content.chunks(1009.max(content.len() / 7 + 1)).map(IoSlice::new).collect();
    let written = nix::sys::uio::pwritev(file, &slices, offset as i64)?;
    if written == content.len() {
        return Ok(());
    }
    file.write_all_at(&content[written..], offset + written as u64)
}

fn read_vectored(file: &File, len: usize, offset: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0xee; len];
    let mut slices: Vec<IoSliceMut<'_>> =
        buffer.chunks_mut(1009.max(len / 7 + 1)).map(IoSliceMut::new).collect();
    let got = nix::sys::uio::preadv(file, &mut slices, offset as i64)?;
    buffer.truncate(got);
    Ok(buffer)
}

/// Moves bytes with `step`, which is told where to read and write and how much is left.
fn until_done(len: usize, mut step: impl FnMut(i64, usize) -> io::Result<i64>) -> io::Result<usize> {
    let mut done = 0;
    while done < len {
        match step(done as i64, len - done)? {
            0 => break,
            count => done += count as usize,
        }
    }
    Ok(done)
}

fn copy_range(file: &File, from: u64, to: u64, len: usize) -> io::Result<usize> {
    let fd = file.as_raw_fd();
    until_done(len, |done, left| {
        let (mut from, mut to) = (from as i64 + done, to as i64 + done);
        // SAFETY: an open descriptor, offsets that live as long as the call.
        check(unsafe { libc::copy_file_range(fd, &mut from, fd, &mut to, left, 0) } as i64)
    })
}

fn splice(file: &File, from: u64, to: u64, len: usize) -> io::Result<usize> {
    let fd = file.as_raw_fd();
    let (reader, writer) = nix::unistd::pipe()?;
    let null = std::ptr::null_mut();
    until_done(len, |done, left| {
        let (mut from, mut to) = (from as i64 + done, to as i64 + done);
        // SAFETY: open descriptors, offsets that live as long as the call.
        let taken =
            check(
                unsafe { libc::splice(fd, &mut from, writer.as_raw_fd(), null, left.min(32_768), 0) } as i64
            )?;
        let mut given = 0;
        while given < taken {
            // SAFETY: as above.
            given += check(unsafe {
                libc::splice(reader.as_raw_fd(), null, fd, &mut to, (taken - given) as usize, 0)
            } as i64)?;
        }
        Ok(taken)
    })
}

/// sendfile writes at the descriptor's own position, so it gets a descriptor of its own.
fn send(file: &File, from: u64, to: u64, len: usize) -> io::Result<usize> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: a C string in, a descriptor out, owned at once.
    let target = unsafe {
        let fd = libc::open(c_path(&path).as_ptr(), libc::O_WRONLY);
        check(i64::from(fd))?;
        File::from_raw_fd(fd)
    };
    io::Seek::seek(&mut (&target), io::SeekFrom::Start(to))?;
    until_done(len, |done, left| {
        let mut from = from as i64 + done;
        // SAFETY: open descriptors, an offset that lives as long as the call.
        check(unsafe { libc::sendfile(target.as_raw_fd(), file.as_raw_fd(), &mut from, left) } as i64)
    })
}
