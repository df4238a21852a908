//! The core of Weft. docs/ARCHITECTURE.md tells the layers; `tests/tidy.rs` holds them to it.

pub mod acl;
pub mod clock;
pub mod disk;
pub mod engine;
pub mod error;
pub mod forecast;
pub mod format;
pub mod index;
pub mod journal;
pub mod lineage;
pub mod live;
pub mod meta;
pub mod past;
pub mod shadow;
pub mod sync;
pub mod types;
pub mod weave;
