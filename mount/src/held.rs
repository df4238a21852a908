//! Questions that can be answered only once the kernel has written back what it holds dirty of a file.
//!
//! - SEEK_DATA and SEEK_HOLE: the kernel asks without writing anything back (maps in either mode, all writes with its
//!   writeback cache; fs/fuse/file.c, `fuse_lseek`). A hole told of such bytes would make `cp` and `tar` leave them out.
//! - O_DIRECT reads at the end of the file, with the writeback cache: the kernel writes back the range that is read, but
//!   not what lies behind it. Where that made the file longer, a hole before it would look like the end.
//!
//! So the kernel is made to write back and drop its pages of exactly the range in question (FUSE_NOTIFY_INVAL_INODE),
//! and the answer is looked for again. The notification waits for WRITEs that other threads must answer: it has a thread
//! of its own, and no handler waits.

use crate::convert::Complaints;
use crate::inode::Node;
use fuser::{Errno, Notifier, ReplyData, ReplyLseek};
use std::io::ErrorKind;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use weft::engine::Engine;
use weft::error::Result;
use weft::types::FileId;

/// Rounds after which what another process keeps writing to is data.
const ROUNDS: usize = 8;

/// A question about a live file.
pub enum Ask {
    Seek { file: FileId, offset: u64, hole: bool, reply: ReplyLseek },
    Read { file: FileId, offset: u64, len: usize, reply: ReplyData },
}

/// Hands questions to the thread that answers them.
#[derive(Clone)]
pub struct Held(Sender<Ask>);

struct Answerer {
    engine: Arc<Engine>,
    notifier: Arc<OnceLock<Notifier>>,
    complaints: Complaints,
}

impl Held {
    /// Starts the thread; it ends when the last `Held` is gone. `notifier` is set once the connection stands.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(engine: Arc<Engine>, notifier: Arc<OnceLock<Notifier>>) -> std::io::Result<Held> {
        let (sender, asked) = channel::<Ask>();
        let answerer = Answerer { engine, notifier, complaints: Complaints::default() };
        let answer = move || asked.into_iter().for_each(|ask| answerer.answer(ask));
        std::thread::Builder::new().name("held".into()).spawn(answer)?;
        Ok(Held(sender))
    }

    /// Answers from the thread.
    pub fn ask(&self, ask: Ask) {
        // The thread lives as long as this end of the channel; were it gone, dropping the reply answers EIO.
        let _ = self.0.send(ask);
    }
}

impl Answerer {
    fn answer(&self, ask: Ask) {
        match ask {
            Ask::Seek { file, offset, hole, reply } => {
                let found =
                    find(&self.engine, file, offset, hole, |from, to| self.write_back(file, from, to));
                match found.map(|found| found.and_then(|found| i64::try_from(found).ok())) {
                    Ok(Some(found)) => reply.offset(found),
                    Ok(None) => reply.error(Errno::ENXIO),
                    Err(error) => reply.error(self.complaints.errno(&error)),
                }
            }
            Ask::Read { file, offset, len, reply } => match self.read(file, offset, len) {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(self.complaints.errno(&error)),
            },
        }
    }

    fn read(&self, file: FileId, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.write_back(file, self.engine.attr(file)?.size, None);
        let mut bytes = vec![0; len];
        let read = self.engine.read(file, offset, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Makes the kernel write back and forget its pages of a range; `false` when nothing is known of that.
    fn write_back(&self, file: FileId, from: u64, to: Option<u64>) -> bool {
        let (Ok(from), Ok(len)) =
            (i64::try_from(from), i64::try_from(to.map_or(0, |to| to.saturating_sub(from))))
        else {
            return false;
        };
        let done = self
            .notifier
            .get()
            .map(|notifier| notifier.inval_inode(Node::Live(file).ino(FileId::ROOT), from, len));
        match done {
            Some(Ok(())) => true,
            // The kernel does not know the inode, so it holds nothing of it.
            Some(Err(error)) => error.kind() == ErrorKind::NotFound,
            None => false,
        }
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
