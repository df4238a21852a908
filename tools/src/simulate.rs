use crate::model::{is_file, read_file};
use crate::trace::files;
use crate::{Outcome, output};
use serde_json::json;
use std::path::{Path, PathBuf};
use weft::forecast::Predictor;
use weft::forecast::simulate::{Beside, How, POLICIES, Policy, Report, beside, simulate};
use weft::forecast::trace::replay::SplitPolicy;
use weft_mount::config::Config;
use weft_mount::models;
use weft_mount::onnx::{Launch, OnnxPredictor};

/// Replay a trace without a mount: what a policy would bake, and what restores would cost with it
///
/// TRACE is what `weft trace export` or `weft trace import` wrote. Until the part that is judged the standard rule keeps the
/// shadows; then each policy goes its own way, with the same budget. The oracle knows what comes: no policy can be better.
/// COST is the extents to look for beside those of `none`, at random instants and at incidents, each for a half.
#[derive(clap::Args)]
pub struct Args {
    trace: PathBuf,
    /// none, standard, ewma, model, oracle, or all; may be given several times
    #[arg(long, default_value = "all")]
    policy: Vec<String>,
    /// The model: an ONNX file, or with --store the name of one of its models [default: shipped, or the one in use]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// ONNX Runtime's library, which runs the model
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// When partitions split: recorded (as the trace says), size:BYTES (at each multiple), every:SECS (if they grew)
    #[arg(long, default_value = "recorded", value_name = "POLICY")]
    splits: String,
    /// Bytes that baking may read and write, as a share of the bytes of the pages written in the judged part
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", allow_negative_numbers = true)]
    budget: f64,
    /// Seconds between decisions [default: a tick]
    #[arg(long, default_value_t = 0.0, value_name = "SECS", allow_negative_numbers = true)]
    step: f64,
    /// Judge nothing in this first share of the trace, on which a model may have been trained, or its training ended
    #[arg(long, default_value_t = How::default().skip_share, value_name = "SHARE", allow_negative_numbers = true)]
    skip: f64,
    /// Random instants at which the whole site is restored
    #[arg(long, default_value_t = 200, value_name = "N")]
    instants: usize,
    /// Smaller partitions are not baked (a mount bakes none below 4 MiB)
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    least: u64,
    /// Changes which instants are drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// In the order of [`POLICIES`], each once.
fn policies(args: &Args) -> Result<Vec<Policy>, String> {
    let all = args.policy.iter().any(|name| name == "all");
    let known = |name: &&String| *name == "all" || POLICIES.iter().any(|policy| policy.name() == *name);
    if let Some(bad) = args.policy.iter().find(|name| !known(name)) {
        return Err(format!("--policy: there is no `{bad}`: use none, standard, ewma, model, oracle or all"));
    }
    let wanted = |policy: &Policy| all || args.policy.iter().any(|name| name == policy.name());
    Ok(POLICIES.into_iter().filter(wanted).collect())
}

fn how(args: &Args) -> Result<How, String> {
    let check = |good: bool, what: &str| if good { Ok(()) } else { Err(what.to_owned()) };
    check((0.0..=1e6).contains(&args.budget), "--budget is a share from 0 to 1000000")?;
    check((0.0..1.0).contains(&args.skip), "--skip is a share from 0 to below 1")?;
    check(args.instants <= 100_000, "--instants is at most 100000")?;
    Ok(How {
        splits: SplitPolicy::parse(&args.splits)?,
        budget_share: args.budget,
        skip_share: args.skip,
        random: args.instants,
        seed: args.seed,
        least_bytes: args.least,
        ..How::default()
    })
}

/// The model, in a process of its own.
fn model(args: &Args, store: Option<&Path>) -> Result<OnnxPredictor, String> {
    let named = args.model.as_deref();
    let model = match (named, store) {
        (Some(name), _) if is_file(name) => read_file(Path::new(name))?,
        (None, Some(store)) => models::load_used(store)?,
        (Some(name), Some(store)) => models::load(store, name)?,
        (None | Some(models::SHIPPED), None) => models::shipped(),
        (Some(name), None) => {
            return Err(format!("--model {name}: say whose by --store, or give an ONNX file"));
        }
    };
    let config = store.map(Config::load).transpose()?;
    let library = args.onnxruntime.as_deref().or(config.as_ref().and_then(Config::onnxruntime));
    OnnxPredictor::start(Launch::of_weft(), library, model)
        .map_err(|cause| format!("{cause} (the other policies need no model: name them by --policy)"))
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let (how, policies) = (how(args)?, policies(args)?);
    let trace = files::read(&args.trace)?;
    let how = How { step_us: files::step_us(args.step, &trace)?, ..how };
    if trace.lines.is_empty() {
        return Err(format!("{}: there is nothing in this trace", args.trace.display()));
    }
    let wants = policies.contains(&Policy::Model);
    let mut model = if wants { Some(model(args, store)?) } else { None };
    let id = model.as_ref().map(OnnxPredictor::id);
    let asked = model.as_mut().map(|model| model as &mut dyn Predictor);
    let reports = simulate(&trace, &policies, &how, asked).map_err(|cause| cause.message)?;
    let compared: Vec<Beside> =
        ["ewma", "model"].iter().filter_map(|name| beside(&reports, name, "standard", args.seed)).collect();
    if args.json {
        return output::print_json(&json!({
            "source": trace.source,
            "model": id,
            "seed": args.seed,
            "policies": serde_json::to_value(&reports).map_err(|cause| cause.to_string())?,
            "beside_standard": serde_json::to_value(&compared).map_err(|cause| cause.to_string())?,
        }));
    }
    output::print(&format!("{}{}", table(&reports), words(&compared)))
}

fn words(compared: &[Beside]) -> String {
    let line = |beside: &Beside| {
        let [from, to] = beside.interval;
        let way = beside.way_to_oracle.map_or_else(String::new, |way| {
            format!("; {:.0} % of the way from there to the oracle", 100.0 * way)
        });
        format!(
            "{} beside {}: cost {:+.3} (90 %: {from:+.3} to {to:+.3}){way}\n",
            beside.policy, beside.other, beside.difference
        )
    };
    compared.iter().map(line).collect()
}

fn table(reports: &[Report]) -> String {
    let mib = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
    let row = |report: &Report| {
        let baked = 100.0 * report.baked_bytes / report.budget_bytes.max(1.0);
        [
            report.policy.to_owned(),
            report.cost.map_or_else(|| "-".into(), |cost| format!("{cost:.3}")),
            format!("{:.0}", report.random.extents),
            mib(report.random.bytes),
            format!("{:.1}", report.incidents.extents),
            mib(report.incidents.bytes),
            report.incidents.instants.to_string(),
            report.splits_ready.map_or_else(|| "-".into(), |share| format!("{share:.2}")),
            format!("{} ({baked:.1} %)", mib(report.baked_bytes)),
            mib(report.wasted_bytes),
            report.bakes.to_string(),
        ]
    };
    let rows: Vec<[String; 11]> = reports.iter().map(row).collect();
    let heads = [
        "POLICY",
        "COST",
        "AT RANDOM extents",
        "MiB",
        "BEFORE INCIDENTS extents",
        "MiB",
        "OF",
        "SPLITS READY",
        "BAKED MiB (of the budget)",
        "WASTED MiB",
        "BAKES",
    ];
    output::columns(&heads, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a training looked is not where its model can be judged.
    #[test]
    fn what_is_judged_by_default_lies_behind_all_that_a_training_looks_at() {
        let bounds = include_str!("../train/bounds.json");
        let bounds: serde_json::Value = serde_json::from_str(bounds).unwrap();
        let newest_from = bounds["newest_from"].as_f64().unwrap();
        let program = include_str!("../train/train.py");
        assert!(program.contains("TRAIN, TUNE = 0.7, BOUNDS[\"newest_from\"]"));
        let runs = program.lines().find(|line| line.starts_with("TRAIN_RUN, TUNE_RUN =")).unwrap();
        let of_runs: f64 = runs.rsplit_once(", ").unwrap().1.parse().unwrap();
        let skip = How::default().skip_share;
        assert!(skip >= newest_from && skip >= of_runs, "{skip}");
    }
}
