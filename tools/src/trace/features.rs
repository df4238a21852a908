use super::files;
use crate::{Outcome, output, space};
use serde_json::json;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use weft::forecast::trace::examples::{Batch, ROW_BYTES, Wanted, expected, walk};
use weft::forecast::trace::npy::Npy;
use weft::forecast::trace::replay::SplitPolicy;
use weft::forecast::trace::{Trace, labels};
use weft::forecast::{baseline, features, predictor};

/// Make training data of a trace: features, labels and what the baselines say, as NumPy arrays
///
/// DIR gets, row for row: features.npy, labels.npy, at_us.npy, partition.npy, weight.npy, baseline_NAME.npy (columns as
/// the outputs of a model; NaN where it says nothing), and about.json with all names and the schema hash.
#[derive(clap::Args)]
pub struct Args {
    trace: PathBuf,
    /// The directory; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// When partitions split: recorded (as the trace says), size:BYTES (at each multiple), every:SECS (if they grew)
    #[arg(long, default_value = "recorded", value_name = "POLICY")]
    splits: String,
    /// Seconds between moments [default: a tick]
    #[arg(long, default_value_t = 0.0, value_name = "SECS")]
    step: f64,
    /// About so many rows: idle partitions are drawn, and weigh more
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    rows: u64,
    /// About so many rows at most: busy partitions are drawn too [default: all busy ones]
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "N")]
    most: u64,
    /// Leave so much of DIR's filesystem free, or write nothing
    #[arg(long, default_value_t = 0, value_name = "MIB")]
    leave_mib: u64,
    /// Changes which are drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

type Array = Npy<BufWriter<File>>;

struct Arrays {
    features: Array,
    labels: Array,
    at: Array,
    partition: Array,
    weight: Array,
    baselines: Vec<Array>,
}

impl Arrays {
    fn make(dir: &Path) -> Result<Arrays, String> {
        let make = |name: &str, kind, width| {
            let path = dir.join(format!("{name}.npy"));
            File::create(&path)
                .and_then(|file| Npy::new(BufWriter::new(file), kind, width))
                .map_err(|cause| format!("cannot write {}: {cause}", path.display()))
        };
        let baseline = |baseline: &baseline::Baseline| {
            make(&format!("baseline_{}", baseline.name()), "<f4", Some(predictor::WIDTH))
        };
        Ok(Arrays {
            features: make("features", "<f4", Some(features::COUNT))?,
            labels: make("labels", "<f4", Some(labels::COUNT))?,
            at: make("at_us", "<i8", None)?,
            partition: make("partition", "<i8", None)?,
            weight: make("weight", "<f4", None)?,
            baselines: baseline::ALL.iter().map(baseline).collect::<Result<_, _>>()?,
        })
    }

    fn push(&mut self, batch: &Batch) -> std::io::Result<()> {
        self.features.push(&batch.features)?;
        self.labels.push(&batch.labels)?;
        self.weight.push(&batch.weights)?;
        for partition in &batch.partitions {
            self.at.push_i64(batch.at.0)?;
            self.partition.push_i64(i64::from(*partition))?;
        }
        self.baselines.iter_mut().zip(&batch.baselines).try_for_each(|(array, rows)| array.push(rows))
    }

    fn finish(self) -> std::io::Result<u64> {
        let rest = [self.labels, self.at, self.partition, self.weight];
        rest.into_iter().chain(self.baselines).try_for_each(|array| array.finish().map(|_| ()))?;
        self.features.finish()
    }
}

pub fn run(args: &Args) -> Outcome {
    let policy = SplitPolicy::parse(&args.splits)?;
    let trace = files::read(&args.trace)?;
    let step_us = files::step_us(args.step, &trace)?;
    let wanted = Wanted { policy, step_us, rows: args.rows, most: args.most, seed: args.seed };
    space::has_room(&args.output, expected(&trace, &wanted).saturating_mul(ROW_BYTES), args.leave_mib << 20)?;
    std::fs::create_dir_all(&args.output)
        .map_err(|cause| format!("cannot make {}: {cause}", args.output.display()))?;
    let failed = |cause: std::io::Error| format!("cannot write into {}: {cause}", args.output.display());
    let mut arrays = Arrays::make(&args.output)?;
    let mut moments = 0;
    let take = |batch: Batch| {
        moments += u64::from(!batch.partitions.is_empty());
        arrays.push(&batch)
    };
    walk(&trace, wanted, take).map_err(failed)?;
    let rows = arrays.finish().map_err(failed)?;
    let about = about(args, &trace, (rows, moments))?;
    std::fs::write(args.output.join("about.json"), format!("{about:#}\n")).map_err(failed)?;
    output::print(&format!("{rows} rows of {} features\n", features::COUNT))
}

fn about(args: &Args, trace: &Trace, (rows, moments): (u64, u64)) -> Result<serde_json::Value, String> {
    let names: Vec<&str> = trace.names.iter().map(|name| &**name).collect();
    let baselines: Vec<&str> = baseline::ALL.iter().map(|baseline| baseline.name()).collect();
    let outputs: Vec<_> =
        predictor::OUTPUTS.iter().map(|(name, width)| json!({ "name": name, "width": width })).collect();
    Ok(json!({
        "schema": features::schema_hash(),
        "version": features::VERSION,
        "features": features::names(),
        "labels": labels::names(),
        "outputs": outputs,
        "horizons_secs": predictor::HORIZONS,
        "split_horizons_secs": predictor::SPLIT_HORIZONS,
        "baselines": baselines,
        "partitions": names,
        "rows": rows,
        "moments": moments,
        "tick_us": trace.tick_us,
        "source": trace.source,
        "splits": args.splits,
        "step_secs": args.step,
        "seed": args.seed,
        "trace_blake3": files::hash(&args.trace)?,
    }))
}
