//! L3: the one truth. A group-commit writer, a reader that never changes a file, and recovery, which alone decides
//! where the journal ends.
//!
//! - Seqs are given in one order, under one lock; time never falls within a clock epoch (`epochs`).
//! - A group is written whole, groups strictly one after the other, each within one epoch.
//! - `durable` only grows past what a sync of the segment covered.
//! - After the first I/O error nothing is written any more (fail-stop).

mod close;
pub mod epochs;
pub mod group;
pub mod reader;
pub mod recovery;
mod reserve;
mod resume;
pub mod segment;
mod spare;
mod state;
pub mod walk;
pub mod woven;
pub mod writer;

pub use close::Closed;
pub use group::{Extent, Group};
pub use reserve::{Claim, Space};
pub use resume::Resume;
pub(crate) use state::stopped;
pub use writer::{Appended, Completion, Config, Journal};
