use super::files;
use crate::{Outcome, output};
use std::path::PathBuf;
use weft::forecast::trace::import::{Format, How, import};
use weft::forecast::trace::text;

/// Make a weft trace of a public one
///
/// Formats, by the columns of their first line: block (t,vol,off,size,op: extents are partitions), pg-autovacuum,
/// file-growth, path-reads, rate (timestamp,value). FILE may be gzip.
#[derive(clap::Args)]
pub struct Args {
    file: PathBuf,
    #[arg(long)]
    format: String,
    /// The trace; compressed if its name ends in .gz; by default standard output
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    output: PathBuf,
    /// Seconds of a tick, after scaling [default: the format's own: 60, 300 or 480]
    #[arg(long, value_name = "SECS")]
    tick: Option<f64>,
    /// Of block traces: bytes of a partition
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES")]
    extent: u64,
    /// Multiply times by this [default: 1; file-growth: 1/180, so that 180 days become one]
    #[arg(long, value_name = "FACTOR")]
    time_scale: Option<f64>,
    /// Of rates: bytes that a value of one stands for
    #[arg(long, default_value_t = 4096.0, value_name = "BYTES")]
    unit: f64,
}

pub fn run(args: &Args) -> Outcome {
    let format = Format::named(&args.format).map_err(|cause| cause.message)?;
    let how = How {
        tick_secs: args.tick,
        extent_bytes: args.extent,
        time_scale: args.time_scale,
        unit_bytes: args.unit,
    };
    let name = args.file.file_name().map_or_else(|| "-".into(), |name| name.to_string_lossy().into_owned());
    let name = name.trim_end_matches(".gz").trim_end_matches(".csv");
    let trace = import(files::open(&args.file)?, format, name, how)
        .map_err(|cause| format!("{}: {}", args.file.display(), cause.message))?;
    files::write(&args.output, text::write(&trace).as_bytes())?;
    if args.output.as_os_str() == "-" {
        return Ok(std::process::ExitCode::SUCCESS);
    }
    output::print(&format!("{} ticks of {} partitions\n", trace.lines.len(), trace.names.len()))
}
