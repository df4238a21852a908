use crate::Outcome;
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weft::engine::Capture;
use weft_mount::check::Request;
use weft_mount::daemon;

/// Mount over a directory, and keep its history from now on
#[derive(clap::Args)]
pub struct Args {
    /// The database's directory
    data: PathBuf,
    /// Where to mount; DATA itself by default
    mountpoint: Option<PathBuf>,
    /// How writes arrive; overrides weft.toml
    #[arg(long, value_enum)]
    capture: Option<CaptureArg>,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    foreground: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum CaptureArg {
    /// Each write is in history before it returns
    Strict,
    /// The kernel collects writes first
    Writeback,
}

impl From<CaptureArg> for Capture {
    fn from(arg: CaptureArg) -> Capture {
        match arg {
            CaptureArg::Strict => Capture::Strict,
            CaptureArg::Writeback => Capture::Writeback,
        }
    }
}

pub fn run(args: Args, store: Option<&Path>) -> Outcome {
    daemon::mount(&Request {
        data: args.data,
        mountpoint: args.mountpoint,
        store: store.map(Path::to_path_buf),
        capture: args.capture.map(Capture::from),
        foreground: args.foreground,
    })?;
    Ok(ExitCode::SUCCESS)
}
