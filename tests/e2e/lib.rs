//! The harness of the end-to-end tests: real mounts, real servers, real trees.
//!
//! The tests run the built `weft` binary (`WEFT_BIN`, or the one beside the test executable) and build nothing
//! themselves. Everything they make is below `WEFT_E2E_DIR` (default `/var/tmp`) and goes away also after a failure;
//! `WEFT_E2E_KEEP=1` keeps it for a look. They run as root; a missing prerequisite fails the test and says what to
//! install.

#[path = "harness/again.rs"]
pub mod again;
#[path = "harness/bank.rs"]
pub mod bank;
#[path = "harness/bench.rs"]
pub mod bench;
#[path = "harness/cluster.rs"]
pub mod cluster;
#[path = "harness/cmd.rs"]
pub mod cmd;
#[path = "harness/cold.rs"]
pub mod cold;
#[path = "harness/exercise/mod.rs"]
pub mod exercise;
#[path = "harness/holder.rs"]
pub mod holder;
#[path = "harness/load.rs"]
pub mod load;
#[path = "harness/mariadb.rs"]
pub mod mariadb;
#[path = "harness/mount.rs"]
pub mod mount;
#[path = "harness/ops.rs"]
pub mod ops;
#[path = "harness/people.rs"]
pub mod people;
#[path = "harness/place.rs"]
pub mod place;
#[path = "harness/random.rs"]
pub mod random;
#[path = "harness/rights.rs"]
pub mod rights;
#[path = "harness/session.rs"]
pub mod session;
#[path = "harness/small.rs"]
pub mod small;
#[path = "harness/sqlite.rs"]
pub mod sqlite;
#[path = "harness/steered.rs"]
pub mod steered;
#[path = "harness/tree.rs"]
pub mod tree;
#[path = "harness/wall.rs"]
pub mod wall;

pub use cluster::Postgres;
pub use mariadb::Mariadb;
pub use mount::{Capture, Mount};
pub use place::Place;
pub use sqlite::Sqlite;
pub use tree::{Tree, What};
