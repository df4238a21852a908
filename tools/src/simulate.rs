use crate::trace::files;
use crate::{Outcome, output};
use serde_json::{Value, json};
use std::path::PathBuf;
use weft::error::Error;
use weft::forecast::simulate::{How, POLICIES, Policy, Report, simulate};
use weft::forecast::trace::replay::SplitPolicy;

/// Replay a trace without a mount: what a policy would bake, and what restores would cost with it
///
/// All policies have the same budget. `all` compares them; the model needs --model.
#[derive(clap::Args)]
pub struct Args {
    trace: PathBuf,
    /// none, standard, ewma, model, oracle, or all
    #[arg(long, default_value = "all")]
    policy: String,
    /// The model: an ONNX file
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// When partitions split: recorded (as the trace says), size:BYTES (at each multiple), every:SECS (if they grew)
    #[arg(long, default_value = "recorded", value_name = "POLICY")]
    splits: String,
    /// Bytes that baking may read and write, as a share of the bytes written
    #[arg(long, default_value_t = 0.2, value_name = "SHARE")]
    budget: f64,
    /// Seconds between decisions [default: a tick]
    #[arg(long, default_value_t = 0.0, value_name = "SECS")]
    step: f64,
    /// Score nothing in this first share of the trace, on which a model was trained
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    skip: f64,
    /// Random instants at which the whole site is restored
    #[arg(long, default_value_t = 200, value_name = "N")]
    instants: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// For programs
    #[arg(long)]
    json: bool,
}

type Model = Box<dyn FnMut(&[f32], usize) -> weft::error::Result<Vec<f32>>>;

fn policies(args: &Args) -> Result<Vec<Policy>, String> {
    if args.policy == "all" {
        let has_model = args.model.is_some();
        return Ok(POLICIES.into_iter().filter(|policy| *policy != Policy::Model || has_model).collect());
    }
    let found = POLICIES.into_iter().find(|policy| policy.name() == args.policy);
    let policy = found.ok_or_else(|| {
        format!("no policy `{}`: use none, standard, ewma, model, oracle or all", args.policy)
    })?;
    if policy == Policy::Model && args.model.is_none() {
        return Err("say which model: --model FILE".into());
    }
    Ok(vec![policy])
}

fn how(args: &Args) -> Result<How, String> {
    if !(0.0..=1e6).contains(&args.budget) || !(0.0..1e8).contains(&args.step) || !(0.0..1.0).contains(&args.skip) {
        return Err("--budget is a share of 0 or more, --step a number of seconds, --skip a share below 1".into());
    }
    Ok(How {
        splits: SplitPolicy::parse(&args.splits)?,
        budget_share: args.budget,
        step_us: (args.step * 1e6) as i64,
        skip_share: args.skip,
        random: args.instants.min(100_000),
        seed: args.seed,
        ..How::default()
    })
}

/// The model, in a process of its own.
fn model(args: &Args) -> Result<Model, String> {
    let Some(file) = &args.model else {
        return Ok(Box::new(|_, _| Err(Error::invalid("simulate", "there is no model"))));
    };
    let bytes = std::fs::read(file).map_err(|cause| format!("cannot read {}: {cause}", file.display()))?;
    crate::simulated_model::start(&bytes)
}

pub fn run(args: &Args) -> Outcome {
    let (how, policies) = (how(args)?, policies(args)?);
    let mut model = model(args)?;
    let trace = files::read(&args.trace)?;
    let mut reports = Vec::new();
    for policy in policies {
        reports.push(simulate(&trace, policy, how, &mut *model).map_err(|cause| cause.message)?);
    }
    if args.json {
        let all = serde_json::to_value(&reports).map_err(|cause| cause.to_string())?;
        return output::print_json(&json!({
            "source": trace.source,
            "policies": all,
            "way_to_oracle": way(&reports).map_or(Value::Null, Value::from),
        }));
    }
    output::print(&table(&reports))
}

/// How far the model goes from the standard rule's cost of restores to the oracle's: 1 is all of it.
fn way(reports: &[Report]) -> Option<f64> {
    let cost = |name: &str| {
        let report = reports.iter().find(|report| report.policy == name)?;
        Some(report.random.extents + report.incidents.extents)
    };
    let (standard, model, oracle) = (cost("standard")?, cost("model")?, cost("oracle")?);
    (standard > oracle).then(|| (standard - model) / (standard - oracle))
}

fn table(reports: &[Report]) -> String {
    let mib = |bytes: f64| format!("{:.1}", bytes / (1 << 20) as f64);
    let rows: Vec<[String; 9]> = reports
        .iter()
        .map(|report| {
            [
                report.policy.to_owned(),
                format!("{:.0}", report.random.extents),
                mib(report.random.bytes),
                format!("{:.0} ({})", report.incidents.extents, report.incidents.instants),
                mib(report.incidents.bytes),
                report.splits_ready.map_or_else(|| "-".into(), |share| format!("{share:.2}")),
                mib(report.baked_bytes),
                mib(report.wasted_bytes),
                report.bakes.to_string(),
            ]
        })
        .collect();
    let heads = [
        "POLICY",
        "RANDOM: extents",
        "MiB",
        "INCIDENTS: extents",
        "MiB",
        "SPLITS READY",
        "BAKED MiB",
        "WASTED MiB",
        "BAKES",
    ];
    let mut text = output::columns(&heads, &rows);
    if let Some(way) = way(reports) {
        text.push_str(&format!("the model goes {:.0} % of the way from the standard rule to the oracle\n", 100.0 * way));
    }
    text
}
