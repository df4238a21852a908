//! A segment that the writer has or will have: made beforehand, with its space, then begun by its header.

use crate::disk::buffer::AlignedBuf;
use crate::disk::{DiskFile, OpenHow};
use crate::error::{Error, Result};
use crate::format::segment::SegmentHeader;
use crate::journal::segment::Segments;
use crate::sync::Arc;
use crate::types::{PAGE, SegmentNo};

/// An open segment.
pub(super) struct Open {
    pub number: SegmentNo,
    pub file: Arc<dyn DiskFile>,
    /// Where the next group goes.
    pub end: u64,
    pub capacity: u64,
}

/// Begins a segment, durably.
pub(super) fn write_header(segment: &mut Open, header: &SegmentHeader) -> Result<()> {
    let mut page = AlignedBuf::with_capacity(PAGE as usize);
    page.extend_from_slice(&header.encode());
    segment.file.write_durable("journal.segment.begin", page.as_slice(), 0)?;
    segment.end = PAGE;
    Ok(())
}

/// Makes the file of a segment, its space and its name durable. An unused one that is left over is made anew.
pub(super) fn prepare(segments: &Segments, number: SegmentNo, capacity: u64) -> Result<Open> {
    let path = segments.path(number);
    let disk = segments.disk();
    if disk.stat("journal.segment.prepare", &path)?.is_some() {
        disk.unlink("journal.segment.prepare", &path)?;
    }
    let how = OpenHow { write: true, create: true, exclusive: true, direct: true };
    let file = disk.open("journal.segment.prepare", &path, how)?;
    let made = file
        .allocate("journal.segment.prepare", 0, capacity)
        .and_then(|()| file.sync("journal.segment.prepare"))
        .and_then(|()| disk.sync_dir("journal.segment.prepare", segments.dir()));
    if let Err(error) = made {
        // Half an allocation is of no use to anyone, least of all on a full disk.
        let _ = disk.unlink("journal.segment.prepare", &path);
        return Err(error);
    }
    Ok(Open { number, file, end: 0, capacity })
}

/// Removes what an earlier session allocated ahead and did not begin, from `first` on. A begun one among them would be
/// the end of a journal of which something before is missing.
pub(super) fn remove_unused(segments: &Segments, first: SegmentNo) -> Result<()> {
    for number in segments.list()?.into_iter().filter(|number| *number >= first) {
        // The first may hold the torn header of a segment that was about to begin.
        if number > first && segments.header(number)?.is_some() {
            return Err(Error::corrupt(
                "journal.begin",
                "this segment was begun, and the one before it is missing or has no header; restore STORE from a copy",
            )
            .at(&segments.path(number)));
        }
        segments.disk().unlink("journal.segment.unused", &segments.path(number))?;
    }
    Ok(())
}

/// Gives back what was allocated behind the end of a segment, now that its successor says where that is.
pub(super) fn cut(segments: &Segments, number: SegmentNo, end: u64) {
    let how = OpenHow { write: true, ..OpenHow::default() };
    let file = segments.disk().open("journal.segment.cut", &segments.path(number), how);
    // Only space is at stake.
    let _ = file.and_then(|file| file.set_len("journal.segment.cut", end));
}

/// For one who wants to begin, and cannot.
pub(super) fn no_room(error: Error) -> Error {
    if !error.is(libc::ENOSPC) {
        return error;
    }
    let message = "no space for a journal file: make room on the filesystem of STORE; nothing was lost";
    Error { message: message.into(), ..error }
}
