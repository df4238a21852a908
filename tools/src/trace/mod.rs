//! `weft trace`: what the forecast sees, as files.

mod features;
pub mod files;
mod import;

use crate::Outcome;
use std::path::Path;

/// Traces of writes per partition: bring in others', make training data
#[derive(clap::Subcommand)]
pub enum Command {
    Import(import::Args),
    Features(features::Args),
}

pub fn run(command: &Command, _store: Option<&Path>) -> Outcome {
    match command {
        Command::Import(args) => import::run(args),
        Command::Features(args) => features::run(args),
    }
}
