//! L2: bytes on disk to values and back. Decoders take byte slices; they never panic, never read a file, and never
//! allocate more than their input is long. docs/FORMAT.md describes every byte.

pub mod base;
pub mod checkpoint;
pub mod codec;
pub mod event;
pub mod excluded;
pub mod fields;
pub mod group;
pub mod meta;
pub mod pins;
pub mod record;
pub mod sections;
pub mod segment;
pub mod shadow;
pub mod superblock;
pub mod woven;
mod xattrs;
