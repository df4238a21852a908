//! `weft trace`: what the forecast sees, as files.

mod export;
mod features;
pub mod files;
mod import;

use crate::Outcome;
use std::path::Path;

/// Traces of writes per partition: record, export, bring in others', make training data
#[derive(clap::Subcommand)]
pub enum Command {
    Record(export::Record),
    Export(export::Args),
    Import(import::Args),
    Features(features::Args),
}

pub fn run(command: &Command, store: Option<&Path>) -> Outcome {
    match command {
        Command::Record(args) => export::record(args, store),
        Command::Export(args) => export::run(args, store),
        Command::Import(args) => import::run(args),
        Command::Features(args) => features::run(args),
    }
}
