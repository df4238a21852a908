//! Features: what a model sees of each partition at a moment. Computed here only, for training and for serving, so that
//! the two cannot differ.
//!
//! Invariants: the list of names is fixed by [`row`] alone, in one order; every value is finite, whatever came in;
//! memory per partition is bounded ([`State`] has no growing part), and so is the number of partitions.

mod parts;
mod past;
pub mod rates;
mod row;
mod site;
mod state;

pub use row::{COUNT, names, schema_hash};
pub use site::{Features, Rows, Setup, family};
pub use state::State;

/// Seconds of the spans over which rates are taken.
pub const SPANS: [u32; 5] = [60, 300, 1_800, 21_600, 86_400];
/// Number of the span whose fading mean stands for each of the horizons.
pub const FADE: [usize; 4] = [1, 2, 3, 4];
/// Version of what the names mean: raise it when a definition changes and its name does not.
pub const VERSION: u32 = 3;
