use crate::Outcome;
use std::process::ExitCode;
use weft_mount::onnx::worker;

/// Runs models for a daemon; not for people
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Outcome {
    worker::serve()?;
    Ok(ExitCode::SUCCESS)
}
