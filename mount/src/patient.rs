//! Writes that have to wait: for the applier, or until history was shortened to make room for them. They do so in a thread
//! of its own, one behind the other, so that no handler waits: who reads, renames, removes or syncs is answered meanwhile.
//!
//! Two writes of one range never wait together: the kernel, or the program, waits for the answer to the first.

use crate::convert::Complaints;
use crate::handlers::{answer, answer_written};
use fuser::{ReplyEmpty, ReplyWrite};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use weft::engine::{Engine, Fallocate};
use weft::types::FileId;

/// What waits.
pub enum Late {
    Write { file: FileId, offset: u64, bytes: Vec<u8>, how: How, reply: ReplyWrite },
    Allocate { file: FileId, mode: Fallocate, offset: u64, len: u64, reply: ReplyEmpty },
}

/// How bytes come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// From a program, to where it said, or to the end.
    Write { append: bool },
    /// From the kernel's cache: acknowledged already.
    Back,
}

/// Hands what waits to the thread that does it.
#[derive(Clone)]
pub struct Patient(Sender<Late>);

impl Patient {
    /// Starts the thread; it ends when the last `Patient` is gone.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(engine: Arc<Engine>) -> std::io::Result<Patient> {
        let (sender, waiting) = channel::<Late>();
        let complaints = Complaints::default();
        let work = move || waiting.into_iter().for_each(|late| take(&engine, &complaints, late));
        std::thread::Builder::new().name("patient".into()).spawn(work)?;
        Ok(Patient(sender))
    }

    /// Answers from the thread.
    pub fn hand(&self, late: Late) {
        // The thread lives as long as this end of the channel; were it gone, dropping the reply answers EIO.
        let _ = self.0.send(late);
    }
}

fn take(engine: &Engine, complaints: &Complaints, late: Late) {
    match late {
        Late::Write { file, offset, bytes, how, reply } => {
            let taken = match how {
                How::Write { append } => engine.write(file, offset, &bytes, append),
                How::Back => engine.write_back(file, offset, &bytes),
            };
            answer_written(taken.map(|()| bytes.len()).map_err(|error| complaints.errno(&error)), reply);
        }
        Late::Allocate { file, mode, offset, len, reply } => {
            let done = engine.fallocate(file, mode, offset, len);
            answer(done.map_err(|error| complaints.errno(&error)), reply);
        }
    }
}
