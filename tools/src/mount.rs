use crate::Outcome;
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weft::engine::Capture;
use weft_mount::check::Request;
use weft_mount::{daemon, roots};

/// Mount over a directory, and keep its history from now on
#[derive(clap::Args)]
pub struct Args {
    /// The database's directory
    data: PathBuf,
    /// Where to mount; DATA itself by default
    mountpoint: Option<PathBuf>,
    /// A further directory of the same history, such as an external pg_wal or a tablespace; mounted over itself. Later
    /// mounts remember it
    #[arg(long = "root", value_name = "NAME=DIR", value_parser = roots::parse_root)]
    roots: Vec<(String, PathBuf)>,
    /// Take a root out of the set for good; what history only had in its plain files goes with it
    #[arg(long = "without-root", value_name = "NAME")]
    without: Vec<String>,
    /// How writes arrive; overrides weft.toml
    #[arg(long, value_enum)]
    capture: Option<CaptureArg>,
    /// ONNX Runtime's library (libonnxruntime.so, 1.24 or later), for the forecast's models; overrides weft.toml
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
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
        roots: args.roots,
        without: args.without,
        capture: args.capture.map(Capture::from),
        onnxruntime: args.onnxruntime,
        foreground: args.foreground,
    })?;
    Ok(ExitCode::SUCCESS)
}
