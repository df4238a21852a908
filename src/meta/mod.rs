//! L4: what the store knows beside files: small sets that follow from the journal alone. A checkpoint carries them, and
//! replaying the events after it brings them up to date; nothing here is a source of truth.

pub mod retention;
pub mod tags;
pub mod thinned;
