//! Logs of databases, tailed: which statements change partitions, and which read and write them.
//!
//! - A log is followed through rotation: renamed and begun anew, copied and cut, or under new names.
//! - A log in a root is read through the engine, however its path is spelt, and never through the mount: the daemon must not
//!   wait for itself, nor keep the mount busy.
//! - Lines are bounded; what is no line of its format is counted and skipped. Nothing here can fail the mount: a log that
//!   cannot be read is told of in the status, and tried again.

mod follow;
mod format;
mod kept;
mod meaning;
mod place;
mod queries;
mod setting;
mod source;
mod tables;
mod tailer;
mod when;

pub use setting::Setting;
pub use tailer::{Logs, begin};
