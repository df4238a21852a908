//! SEEK_DATA and SEEK_HOLE of live files.
//!
//! The kernel sends these requests without writing back what it holds dirty of the file (maps in either mode, all
//! writes with its writeback cache; fs/fuse/file.c, `fuse_lseek`). A hole told of such bytes would make `cp` and `tar`
//! leave them out. So before a hole is told, the kernel is made to write back and drop its pages of exactly that range
//! (FUSE_NOTIFY_INVAL_INODE), and the answer is looked for again.
//!
//! The notification waits for WRITEs that other threads must answer, so it has a thread of its own: no handler waits.

use crate::convert::Complaints;
use crate::inode::Node;
use fuser::{Errno, Notifier, ReplyLseek};
use std::io::ErrorKind;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use weft::engine::Engine;
use weft::error::Result;
use weft::types::FileId;

/// Rounds after which what another process keeps writing to is data.
const ROUNDS: usize = 8;

struct Ask {
    file: FileId,
    offset: u64,
    hole: bool,
    reply: ReplyLseek,
}

/// Hands questions to the thread that answers them.
#[derive(Clone)]
pub struct Seeker(Sender<Ask>);

impl Seeker {
    /// Starts the thread; it ends when the last `Seeker` is gone. `notifier` is set once the connection stands.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(engine: Arc<Engine>, notifier: Arc<OnceLock<Notifier>>) -> std::io::Result<Seeker> {
        let (sender, asked) = channel::<Ask>();
        let answer = move || {
            let complaints = Complaints::default();
            for ask in asked {
                let found = find(&engine, ask.file, ask.offset, ask.hole, |from, to| {
                    notifier.get().is_some_and(|notifier| write_back(notifier, ask.file, from, to))
                });
                match found.map(|found| found.and_then(|found| i64::try_from(found).ok())) {
                    Ok(Some(found)) => ask.reply.offset(found),
                    Ok(None) => ask.reply.error(Errno::ENXIO),
                    Err(error) => ask.reply.error(complaints.errno(&error)),
                }
            }
        };
        std::thread::Builder::new().name("seek".into()).spawn(answer)?;
        Ok(Seeker(sender))
    }

    /// Answers from the thread.
    pub fn ask(&self, file: FileId, offset: u64, hole: bool, reply: ReplyLseek) {
        // The thread lives as long as this end of the channel; were it gone, dropping the reply answers EIO.
        let _ = self.0.send(Ask { file, offset, hole, reply });
    }
}

/// Looks until the kernel holds nothing of the hole that is told. `None`: ENXIO.
fn find(
    engine: &Engine,
    file: FileId,
    offset: u64,
    hole: bool,
    write_back: impl Fn(u64, Option<u64>) -> bool,
) -> Result<Option<u64>> {
    let mut found = engine.seek(file, offset, hole)?;
    for _ in 0..ROUNDS {
        // What the answer says of bytes: `from..to` are a hole, or all from `from` on.
        let (from, to) = match (hole, found) {
            (false, Some(data)) if data == offset => return Ok(found),
            (false, data) => (offset, data),
            (true, Some(start)) => (start, engine.seek(file, start, false)?),
            // Behind the end, as far as is known.
            (true, None) => (offset, None),
        };
        if !write_back(from, to) {
            break;
        }
        let again = engine.seek(file, offset, hole)?;
        if again == found {
            return Ok(found);
        }
        found = again;
    }
    // Never a hole that may not be one.
    let size = engine.attr(file)?.size;
    Ok((offset < size).then_some(if hole { size } else { offset }))
}

/// Makes the kernel write back and forget its pages of a range; `false` when nothing is known of that.
fn write_back(notifier: &Notifier, file: FileId, from: u64, to: Option<u64>) -> bool {
    let (Ok(from), Ok(len)) =
        (i64::try_from(from), i64::try_from(to.map_or(0, |to| to.saturating_sub(from))))
    else {
        return false;
    };
    match notifier.inval_inode(Node::Live(file).ino(), from, len) {
        Ok(()) => true,
        // The kernel does not know the inode, so it holds nothing of it.
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
