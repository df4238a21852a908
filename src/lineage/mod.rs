//! L6: what a database divides its data into, and what became of the parts.
//!
//! Knows no database client and no file: paths, statements and page sets come in as values.

pub mod ddl;
pub mod find;
pub mod partition;
pub mod splits;
