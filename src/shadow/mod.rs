//! L5: shadows. A shadow is a contiguous state of a partition (all of its files, or a set of its pages) at a Seq, made
//! beforehand, so that a view that it covers is read in sequence.
//!
//! - A shadow is never the only copy of anything, and never needed for an answer to be right: what it says is what the
//!   journal says, or it is not asked. Remove STORE/shadow, and only speed is lost.
//! - Every block has a BLAKE3, checked before its first bytes are served in a session. One that is wrong, or cannot be
//!   read, takes its whole shadow out of service, and what was asked is read without it.
//! - A page of a view at S comes from a snapshot at s only if the index knows no change of it between the two.
//! - A snapshot has its name when all of its bytes are durable. Its bytes are never changed; what no snapshot needs any
//!   more is freed only after the name of the last one that did is durably gone, and its readers have left.
//! - Snapshots of one shadow share what is the same: by reflinks where the filesystem has them, else by extents that
//!   lead to the data files of earlier ones (docs/decisions/0057).

mod changes;
mod cover;
mod data;
mod derive;
mod extents;
mod free;
mod make;
mod open;
mod shelf;
mod snapshot;
mod wish;

pub use cover::Cover;
pub use make::{Made, Order, OrderedFile, Pace, Source, Unpaced};
pub use shelf::{Shadow, Shadows};
pub use snapshot::Snapshot;
pub use wish::{Reason, Subject, Wish};
