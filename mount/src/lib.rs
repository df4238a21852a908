//! The edge of Weft: FUSE, daemon, control socket. Everything here translates between the kernel or an operator and
//! [`weft::engine::Engine`]; no state of the filesystem lives in this crate but what the kernel makes us count
//! (lookups of views, positions in listings).

mod about;
mod cached;
mod caller;
mod convert;
mod cost;
mod dirs;
mod forecasts;
mod fs;
mod handlers;
mod held;
mod history;
mod inode;
mod links;
mod live;
mod partitions;
mod past;
mod patient;
mod views;

pub mod barrier;
pub mod catalogue;
pub mod check;
pub mod config;
pub mod control;
pub mod daemon;
pub mod events;
pub mod holders;
pub mod journal;
pub mod kernel;
mod leases;
mod logs;
pub mod model;
pub mod models;
pub mod mountinfo;
pub mod offline;
pub mod onnx;
pub mod place;
pub mod process;
pub mod profile;
mod resolve;
pub mod restore;
pub mod retention;
pub mod roots;
mod running;
mod served;
mod shadows;
pub mod shown;
pub mod splits;
mod statistics;

/// A refusal or failure as an operator reads it: one line, with what to do.
pub type Outcome<T> = std::result::Result<T, String>;
