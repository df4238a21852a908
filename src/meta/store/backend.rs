//! Where the database's bytes stand: behind the header page of a file of the Disk, or in memory.

use crate::disk::DiskFile;
use crate::error::Error;
use crate::format::meta::LEN;
use crate::sync::{Arc, Mutex};
use redb::StorageBackend;
use std::io;

/// Bytes of the file before the database.
const BEFORE: u64 = LEN as u64;

/// A file of the Disk, without its header page.
pub(super) struct Behind(pub(super) Arc<dyn DiskFile>);

impl std::fmt::Debug for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("meta.redb")
    }
}

fn io_error(error: Error) -> io::Error {
    match error.kind {
        crate::error::Kind::Os(errno) => io::Error::from_raw_os_error(errno),
        _ => io::Error::other(error),
    }
}

impl StorageBackend for Behind {
    fn len(&self) -> io::Result<u64> {
        let len = self.0.len("meta.len").map_err(io_error)?;
        Ok(len.saturating_sub(BEFORE))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let got = self.0.read_at("meta.read", out, offset.saturating_add(BEFORE)).map_err(io_error)?;
        // Shorter than the database believes: it was cut.
        if got == out.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (len, before) = (len.saturating_add(BEFORE), self.0.len("meta.len").map_err(io_error)?);
        if len > before {
            // A full disk says so here, before anything is written into the new part.
            return self.0.allocate("meta.grow", before, len - before).map_err(io_error);
        }
        self.0.set_len("meta.shrink", len).map_err(io_error)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync("meta.sync").map_err(io_error)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at("meta.write", data, offset.saturating_add(BEFORE)).map_err(io_error)
    }
}

/// A copy in memory: whatever is done to it changes no file.
pub(super) struct Copied(pub(super) Mutex<Vec<u8>>);

impl std::fmt::Debug for Copied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("copy of meta.redb")
    }
}

fn place(offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(len)?)
}

impl StorageBackend for Copied {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock();
        let found = place(offset, out.len()).and_then(|range| bytes.get(range));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.0.lock().resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let target = place(offset, data.len()).and_then(|range| bytes.get_mut(range));
        target.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}
