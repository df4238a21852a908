//! Several requests at once on one descriptor: by Linux aio and by io_uring.

use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A part of the file to be read or written.
pub struct Part<'a> {
    pub offset: u64,
    pub bytes: &'a mut [u8],
}

/// linux/aio_abi.h, `struct iocb`, little-endian.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    reqprio: i16,
    fd: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// linux/aio_abi.h, `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

const _: () = assert!(size_of::<Iocb>() == 64 && size_of::<IoEvent>() == 32);
const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_PWRITE: u16 = 1;

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Again while a signal comes in between: what ends a ring of io_uring interrupts the next call.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A context of Linux aio and a ring of io_uring. They stay: ending one waits for a grace period of the kernel.
pub struct AsyncIo {
    context: u64,
    ring: IoUring,
}

impl AsyncIo {
    /// For up to `at_once` requests in flight.
    ///
    /// # Panics
    /// When the kernel has none of either.
    pub fn new(at_once: u32) -> AsyncIo {
        let mut context: u64 = 0;
        // SAFETY: a zeroed context that the kernel fills in.
        check(unsafe { libc::syscall(libc::SYS_io_setup, u64::from(at_once), &raw mut context) })
            .expect("io_setup");
        AsyncIo { context, ring: IoUring::new(at_once.next_power_of_two()).expect("io_uring") }
    }

    /// All parts at once by Linux aio; how many bytes each moved.
    pub fn aio(&self, file: &File, write: bool, parts: &mut [Part<'_>]) -> io::Result<Vec<usize>> {
        aio_in(self.context, file, write, parts)
    }

    /// All parts at once by io_uring; how many bytes each moved.
    pub fn uring(&mut self, file: &File, write: bool, parts: &mut [Part<'_>]) -> io::Result<Vec<usize>> {
        uring_in(&mut self.ring, file, write, parts)
    }
}

impl Drop for AsyncIo {
    fn drop(&mut self) {
        // SAFETY: the context made above; all its requests have ended.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

fn aio_in(context: u64, file: &File, write: bool, parts: &mut [Part<'_>]) -> io::Result<Vec<usize>> {
    let mut blocks: Vec<Iocb> = parts
        .iter_mut()
        .zip(0..)
        .map(|(part, data)| Iocb {
            data,
            opcode: if write { IOCB_CMD_PWRITE } else { IOCB_CMD_PREAD },
            fd: file.as_raw_fd() as u32,
            buf: part.bytes.as_mut_ptr() as u64,
            nbytes: part.bytes.len() as u64,
            offset: part.offset as i64,
            ..Iocb::default()
        })
        .collect();
    let pointers: Vec<*mut Iocb> = blocks.iter_mut().map(|block| &raw mut *block).collect();
    let mut submitted = 0;
    while submitted < pointers.len() {
        // SAFETY: the blocks and the buffers they name outlive their requests: all are waited for below.
        let count = retry(|| {
            check(unsafe {
                libc::syscall(
                    libc::SYS_io_submit,
                    context,
                    pointers.len() - submitted,
                    pointers.as_ptr().add(submitted),
                )
            })
        })?;
        submitted += count as usize;
    }
    let mut events = vec![IoEvent::default(); parts.len()];
    let mut ended = 0;
    while ended < parts.len() {
        let wanted = parts.len() - ended;
        // SAFETY: room for as many events as are asked for.
        let count = retry(|| {
            check(unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    context,
                    wanted,
                    wanted,
                    events.as_mut_ptr().add(ended),
                    std::ptr::null::<libc::timespec>(),
                )
            })
        })?;
        ended += count as usize;
    }
    let mut moved = vec![0; parts.len()];
    for event in events {
        moved[event.data as usize] = result(event.res)?;
    }
    Ok(moved)
}

fn uring_in(ring: &mut IoUring, file: &File, write: bool, parts: &mut [Part<'_>]) -> io::Result<Vec<usize>> {
    let fd = types::Fd(file.as_raw_fd());
    for (part, data) in parts.iter_mut().zip(0..) {
        let (start, len) = (part.bytes.as_mut_ptr(), part.bytes.len() as u32);
        let entry = match write {
            true => opcode::Write::new(fd, start, len).offset(part.offset).build(),
            false => opcode::Read::new(fd, start, len).offset(part.offset).build(),
        };
        // SAFETY: the buffer outlives the request, which is waited for below.
        unsafe { ring.submission().push(&entry.user_data(data)) }.expect("room for all requests");
    }
    retry(|| ring.submit_and_wait(parts.len()))?;
    let mut moved = vec![0; parts.len()];
    for entry in ring.completion() {
        moved[entry.user_data() as usize] = result(i64::from(entry.result()))?;
    }
    Ok(moved)
}

fn result(result: i64) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result as i32))
}
