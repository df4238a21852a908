//! L4: versions of pages, names and attributes.
pub mod kv;
