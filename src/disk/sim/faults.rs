//! What is to go wrong, and when.

use crate::disk::Op;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// One call that is to fail.
#[derive(Clone, Debug)]
struct Fault {
    op: Op,
    /// Calls of that name to let pass before.
    left: u64,
    failure: Failure,
}

/// How a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) errno: i32,
    /// Bytes that a write leaves before it fails.
    pub(super) torn: usize,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Succeeds,
    Fails(Failure),
    /// The power goes during the call: what it changes is pending, what it should make durable is not.
    LosesPower,
}

/// Whether a call changes or syncs something, and so is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Reads,
    Changes,
}

#[derive(Default)]
pub(super) struct Faults {
    pub(super) operations: u64,
    pub(super) dead: bool,
    pub(super) cut_at: Option<u64>,
    pub(super) fail_after: Option<u64>,
    named: Vec<Fault>,
    log: VecDeque<(Op, PathBuf)>,
    pub(super) log_len: usize,
}

impl Faults {
    pub(super) fn add(&mut self, op: Op, nth: u64, failure: Failure) {
        let left = nth.saturating_sub(1);
        self.named.push(Fault { op, left, failure });
    }

    /// Forgets all that is still to go wrong.
    pub(super) fn clear(&mut self) {
        self.named.clear();
        (self.cut_at, self.fail_after) = (None, None);
    }

    pub(super) fn log(&self) -> Vec<(Op, PathBuf)> {
        self.log.iter().cloned().collect()
    }

    /// Counts a call and decides what becomes of it.
    pub(super) fn fate(&mut self, op: Op, path: &Path, class: Class) -> Fate {
        const EIO: Fate = Fate::Fails(Failure {
            errno: libc::EIO,
            torn: 0,
        });
        if self.dead {
            return EIO;
        }
        if self.log_len > 0 {
            self.remember(op, path);
        }
        if class == Class::Changes {
            self.operations += 1;
            if self.cut_at.is_some_and(|at| self.operations >= at) {
                self.dead = true;
                return Fate::LosesPower;
            }
        }
        if let Some(failure) = self.named_failure(op) {
            return Fate::Fails(failure);
        }
        match self.fail_after {
            Some(after) if class == Class::Changes && self.operations > after => EIO,
            _ => Fate::Succeeds,
        }
    }

    fn remember(&mut self, op: Op, path: &Path) {
        if self.log.len() >= self.log_len {
            self.log.pop_front();
        }
        self.log.push_back((op, path.to_path_buf()));
    }

    fn named_failure(&mut self, op: Op) -> Option<Failure> {
        let mut found = None;
        self.named.retain_mut(|fault| {
            if fault.op != op {
                return true;
            }
            if fault.left > 0 {
                fault.left -= 1;
                return true;
            }
            // Two faults for one call: the first stands, both are used up.
            found = found.or(Some(fault.failure));
            false
        });
        found
    }
}
