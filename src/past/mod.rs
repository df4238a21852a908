//! L6: reading at a Seq.
pub mod when;
