//! L4: what the store knows beside files. Small sets that follow from the journal alone (tags, what was thinned): a
//! checkpoint carries them, and replaying the events after it brings them up to date. And the metadata store, for what
//! does not follow from the journal and may be lost.

pub mod retention;
pub mod store;
pub mod tags;
pub mod thinned;
