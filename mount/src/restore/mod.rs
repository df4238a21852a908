//! `weft restore`: a past instant, or parts of it, as plain files somewhere else.
//!
//! - Nothing is written before all that can be refused was refused: the target is absent or empty (or an unfinished
//!   restore of the very same), lies outside of every mount, STORE and DATA, and has the room.
//! - Until the end the target holds [`state::FILE`] and is closed to all but the one who restores: no server starts on
//!   half of a database. What was finished is noted there, so that the same command goes on after an interruption.
//! - What was written is flushed, dropped from the cache and read back against the hash of what was read from the view.

mod copy;
mod link;
mod os;
mod plan;
mod span;
mod state;
mod target;

pub use copy::{Counted, Progress, finish, run};
pub use link::Relocate;
pub use plan::{Plan, Ranges, Selected, Source};
pub use state::State;
pub use target::check as check_target;
