//! L6: weaving. Sealed journal segments become woven ones, in the background: page versions sorted by file and page,
//! each as what differs from its neighbour, compressed; events that are not bytes as they were.
//!
//! - A segment is woven when no recovery will ever replay it and the index has it all.
//! - Its woven form is written under another name, made durable, given its name, durably, and read back; only then is
//!   the journal's file removed. A power cut anywhere leaves one whole form or both; both is as good as one.
//! - Addresses stay (docs/decisions/0030): neither the index nor any open view, handle or reader knows of it.
//! - Nothing waits for the weaver, and it stops between two pieces when told to.

mod found;
mod make;
mod needs;
mod source;
mod thin;
mod weaver;

pub use found::Needs;
pub use needs::Remaining;
pub use thin::{Range, Thinning};
pub use weaver::{Outcome, Weaver, Woven};

/// What holds the weaver back.
pub trait Pace {
    /// Called between small pieces of work with the bytes read and written since the last call; returns when the next
    /// piece may begin. `false`: stop, now.
    fn go_on(&self, bytes: u64) -> bool;
}

/// As fast as it goes.
pub struct Unpaced;

impl Pace for Unpaced {
    fn go_on(&self, _: u64) -> bool {
        true
    }
}
