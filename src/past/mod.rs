//! L6: the past. Reading at a Seq, keeping the index up with the journal, and what instants people mean.
//!
//! A view at S is, per byte, the newest version at or before S; else the base; else a hole. It knows the index, the
//! journal's segments and the live tree's bases; it does not know who asks.

pub mod diff;
pub mod history;
pub mod indexer;
pub mod kept;
pub mod meaning;
pub mod offline;
pub mod pages;
pub mod paths;
pub mod plan;
pub mod resolve;
pub mod view;
pub mod when;
