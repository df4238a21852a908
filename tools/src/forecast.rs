use crate::status::{bytes, number};
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use weft::past::when::canonical;
use weft::types::Timestamp;
use weft_mount::{control, place};

/// What will be written, read and split: the newest forecasts, why, and how good they were
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(clap::Subcommand)]
enum What {
    /// How good the forecasts were, beside baselines on the same cases
    Scores(Scores),
}

#[derive(clap::Args)]
struct List {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// Why a partition is treated as it is: its features, what the baselines say, the decision, and the newest forecasts of it
    /// that something followed from
    #[arg(long, value_name = "PARTITION")]
    why: Option<String>,
    /// Partitions shown; 0 for all
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Scores {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let ask = |path: Option<&Path>, ask: &control::Ask| {
        let store = place::find_store(path, store)?;
        control::ask(&store, ask)
    };
    if let Some(What::Scores(scores)) = &args.what {
        let told = ask(scores.path.as_deref(), &control::Ask::ForecastScores)?;
        return if scores.json { output::print_json(&told) } else { output::print(&score_table(&told)) };
    }
    let list = &args.list;
    let path = list.path.as_deref();
    if let Some(partition) = &list.why {
        let told = ask(path, &control::Ask::ForecastWhy { partition: partition.clone() })?;
        return if list.json { output::print_json(&told) } else { output::print(&why(&told)) };
    }
    let told = ask(path, &control::Ask::Forecast)?;
    if list.json { output::print_json(&told) } else { output::print(&table(&told, list.limit)) }
}

/// Forecasts that something followed from, of one partition, that are shown.
const ACTED: usize = 8;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The `index`-th number of a forecast's output.
fn at(forecast: &Value, output: &str, index: usize) -> Option<f64> {
    forecast.get(output)?.get(index)?.as_f64()
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.2}"))
}

fn count(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.0}"))
}

/// Seconds as people say them; what is beyond ten years is never.
fn span(secs: Option<f64>) -> String {
    match secs {
        None => "-".into(),
        Some(secs) if secs < 120.0 => format!("{secs:.0} s"),
        Some(secs) if secs < 7_200.0 => format!("{:.0} min", secs / 60.0),
        Some(secs) if secs < 172_800.0 => format!("{:.0} h", secs / 3_600.0),
        Some(secs) if secs < 3.2e8 => format!("{:.0} d", secs / 86_400.0),
        Some(_) => "never".into(),
    }
}

/// Who makes the forecasts, and whether they count, in one line.
pub fn state(forecast: &Value) -> String {
    if forecast.get("on") != Some(&Value::Bool(true)) {
        return "off".into();
    }
    let model = Some(text(forecast, "model")).filter(|model| !model.is_empty()).unwrap_or("no model");
    let rule = match forecast.get("why").and_then(Value::as_str) {
        None => "its forecasts count".to_owned(),
        Some(why) => format!("the standard rule goes on: {why}"),
    };
    let lost =
        [("dropped", "signals dropped"), ("uncounted", "operations not counted: too many files at once")];
    let lost =
        lost.map(|(key, what)| (number(forecast, key), what)).into_iter().filter(|(count, _)| *count > 0);
    let lost: String = lost.map(|(count, what)| format!("; {count} {what}")).collect();
    let problem = forecast.get("problem").and_then(Value::as_str);
    let problem = problem.map_or_else(String::new, |problem| format!("; {problem}"));
    format!(
        "{model}, {rule}; {} partitions, {} forecasts made, {} batches scored{lost}{problem}",
        number(forecast, "partitions"),
        number(forecast, "forecasts"),
        number(forecast, "scored")
    )
}

fn table(told: &Value, limit: usize) -> String {
    let forecast = told.get("forecast").cloned().unwrap_or_default();
    let mut out = format!("{}\n", state(&forecast));
    match forecast.get("at_us").and_then(Value::as_i64) {
        None | Some(0) => return out + "no forecast has been made yet\n",
        Some(us) => out.push_str(&format!(
            "made {} by {} in {:.1} ms\n",
            canonical(Timestamp(us)),
            text(&forecast, "made_by"),
            forecast.get("took_ms").and_then(Value::as_f64).unwrap_or(0.0)
        )),
    }
    let all = told.get("partitions").and_then(Value::as_array).cloned().unwrap_or_default();
    let shown = if limit == 0 { all.len() } else { limit.min(all.len()) };
    let rows: Vec<[String; 9]> = all.iter().take(shown).map(row).collect();
    let heads = ["PARTITION", "SIZE", "SPLIT 5m", "1h", "1d", "SPLIT IN", "PAGES 1h", "READS 1h", "QUIET 1h"];
    out.push_str(&output::columns(&heads, &rows));
    if shown < all.len() {
        out.push_str(&format!("{} more: --limit 0 for all\n", all.len() - shown));
    }
    out
}

fn row(shown: &Value) -> [String; 9] {
    let forecast = shown.get("forecast").cloned().unwrap_or_default();
    let forecast = &forecast;
    [
        text(shown, "partition").to_owned(),
        bytes(number(shown, "size") as f64),
        share(at(forecast, "p_split", 0)),
        share(at(forecast, "p_split", 1)),
        share(at(forecast, "p_split", 2)),
        span(at(forecast, "split_secs", 1)),
        count(at(forecast, "pages", 2)),
        count(at(forecast, "reads", 2)),
        share(at(forecast, "p_quiet", 2)),
    ]
}

fn why(told: &Value) -> String {
    let [partition, size, soon, hour, day, when, pages, reads, quiet] = row(told);
    let mut out = format!(
        "{partition}, {size}\ncounts      {}\nforecast    made by {}: split within 5 min {soon}, 1 h {hour}, 1 d {day}, in {when}; \
         within the hour {pages} pages written, {reads} reads, quiet {quiet}\n",
        text(told, "rule"),
        text(told, "made_by"),
    );
    let decision = told.get("decision").and_then(|decision| decision.get("why")).and_then(Value::as_str);
    out.push_str(&format!("decision    {}\n", decision.unwrap_or("none was made yet")));
    for (name, row) in told.get("baselines").and_then(Value::as_object).into_iter().flatten() {
        let get = |index: usize| row.get(index).and_then(Value::as_f64);
        out.push_str(&format!(
            "{name:<11} split within 1 h {}, 1 d {}; within the hour {} pages written, quiet {}\n",
            share(get(1)),
            share(get(2)),
            count(get(9)),
            share(get(21)),
        ));
    }
    let acted = told.get("acted").and_then(Value::as_array).cloned().unwrap_or_default();
    acted.iter().rev().take(ACTED).for_each(|one| out.push_str(&acted_on(one)));
    let features = told.get("features").and_then(Value::as_array).cloned().unwrap_or_default();
    let told: Vec<String> = features
        .iter()
        .filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_f64()?)))
        .filter(|(_, value)| *value != 0.0)
        .map(|(name, value)| format!("{name} {value:.3}"))
        .collect();
    out.push_str(&format!("features    {}\n", told.join(", ")));
    out
}

/// A forecast that something followed from, and what came of it.
fn acted_on(one: &Value) -> String {
    let forecast = one.get("forecast").cloned().unwrap_or_default();
    let [soon, hour, day] = [0, 1, 2].map(|index| share(at(&forecast, "p_split", index)));
    let number = |key: &str| one.get(key).and_then(Value::as_f64);
    let led = match one.get("baked").and_then(Value::as_str) {
        Some(why) => format!("a shadow was wished for: {why}"),
        None => format!("it said a split within {}", span(number("split_within_secs"))),
    };
    let came = match number("split_after_secs") {
        Some(secs) => format!("a split came after {}", span(Some(secs))),
        None => format!("no split was seen within {}", span(number("seen_secs"))),
    };
    format!(
        "acted on    {} {} (inputs {:.12}): split within 5 min {soon}, 1 h {hour}, 1 d {day}, in {}; {led}; {came}\n",
        text(one, "made"),
        text(one, "model"),
        text(one, "inputs"),
        span(at(&forecast, "split_secs", 1)),
    )
}

/// How often splits came by each quantile of their time that was said; of those that can be told.
fn covered(line: &Value) -> String {
    let Some(shares) = line.get("covered").and_then(Value::as_array) else { return "-".into() };
    shares.iter().map(|one| share(one.as_f64())).collect::<Vec<_>>().join("/")
}

fn score_table(told: &Value) -> String {
    let forecast = told.get("forecast").cloned().unwrap_or_default();
    let mut out = format!("{}\n", state(&forecast));
    let scores = told.get("scores").and_then(Value::as_array).cloned().unwrap_or_default();
    if scores.is_empty() {
        return out + "nothing has been scored yet: a forecast is when its horizon has passed\n";
    }
    let rows: Vec<[String; 12]> = scores
        .iter()
        .map(|line| {
            let get = |key: &str| line.get(key).and_then(Value::as_f64);
            let fine = |key: &str| get(key).map_or_else(|| "-".into(), |value| format!("{value:.4}"));
            [
                text(line, "what").to_owned(),
                span(get("horizon_secs")),
                text(line, "name").to_owned(),
                count(get("cases")),
                share(get("precision")),
                share(get("recall")),
                fine("brier"),
                fine("calibration_error"),
                span(get("lead_secs")),
                share(get("mase")),
                share(get("log_error")),
                covered(line),
            ]
        })
        .collect();
    let heads = [
        "OF",
        "WITHIN",
        "BY",
        "CASES",
        "PRECISION",
        "RECALL",
        "BRIER",
        "MISCALIBRATED",
        "LEAD",
        "MASE",
        "LOG ERROR",
        "BY 10/50/90 %",
    ];
    out.push_str(&output::columns(&heads, &rows));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_say_who_forecasts_and_why_not() {
        let forecast = json!({ "on": true, "model": "m-1", "why": null, "partitions": 3, "forecasts": 9, "scored": 2,
            "dropped": 1, "uncounted": 7, "problem": null });
        let line = state(&forecast);
        assert_eq!(
            line,
            "m-1, its forecasts count; 3 partitions, 9 forecasts made, 2 batches scored; 1 signals dropped; 7 operations not \
             counted: too many files at once"
        );
        assert!(
            state(&json!({ "on": true, "why": "there is no model" })).contains("no model, the standard rule")
        );
        assert_eq!(state(&json!({ "on": false })), "off");
    }

    #[test]
    fn tables_have_what_they_are_given() {
        let forecast = json!({ "on": true, "at_us": 1_000_000, "made_by": "m", "took_ms": 1.25 });
        let shown = json!({ "partition": "base/5/1", "size": 8192, "forecast": {
            "p_split": [0.0, 0.5, 1.0], "split_secs": [10.0, 600.0, 1e9], "pages": [1.0, 2.0, 3.0, 4.0],
            "reads": [0.0, 0.0, 7.0, 9.0], "p_quiet": [0.9, 0.8, 0.25, 0.1] } });
        let text = table(&json!({ "forecast": forecast, "partitions": [shown, shown] }), 1);
        for part in [
            "made 1970-01-01T00:00:01.000000Z by m in 1.2 ms",
            "base/5/1   8.0 KiB  0.00",
            "10 min",
            "1 more",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(table(&json!({ "forecast": { "on": true } }), 0).contains("no forecast has been made yet"));
        assert_eq!((span(Some(1e9)), span(Some(90.0))), ("never".into(), "90 s".into()));
        assert!(score_table(&json!({})).contains("nothing has been scored yet"));
        let acted = json!([
            { "made": "2026", "model": "m", "inputs": "0123456789abcdef", "baked": "it is worth it", "seen_secs": 90,
              "forecast": { "p_split": [0.25, 0.5, 0.75], "split_secs": [10.0, 600.0, 1e9] } },
            { "made": "2027", "model": "m", "split_within_secs": 3600, "split_after_secs": 420.0, "seen_secs": 900 },
        ]);
        let text = why(&json!({ "partition": "p", "acted": acted }));
        for part in [
            "acted on    2026 m (inputs 0123456789ab): split within 5 min 0.25, 1 h 0.50, 1 d 0.75, in 10 min; a shadow was \
             wished for: it is worth it; no split was seen within 90 s\n",
            "it said a split within 60 min; a split came after 7 min\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let scores = json!([
            { "what": "split", "horizon_secs": 300, "name": "m", "cases": 9.0, "covered": [0.125, 0.5, null] },
            { "what": "pages", "horizon_secs": 60, "name": "ewma", "cases": 7.0, "mase": 0.75, "log_error": 1.5 },
        ]);
        let text = score_table(&json!({ "scores": scores }));
        let line = |of: &str| text.lines().find(|line| line.starts_with(of)).unwrap().to_owned();
        assert!(line("split").ends_with("0.12/0.50/-"), "{text}");
        assert!(line("pages").contains("0.75") && line("pages").contains("1.50"), "{text}");
    }
}
