//! What a daemon answers about forecasts.

use crate::Outcome;
use crate::running::Running;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use weft::forecast::ledger::Acted;
use weft::forecast::predictor::HORIZONS;
use weft::lineage::partition::Partition;
use weft::past::when::canonical;
use weft::types::{Name, Timestamp};

const DAY_US: i64 = 86_400_000_000;

/// Forecasts that something followed from, by when they were made and of what.
pub(crate) type ActedOn = BTreeMap<(Timestamp, String), Acted>;

/// The newest forecast that said a split of a partition, in the day before a time.
pub(crate) fn foreseen(acted: &ActedOn, partition: &str, at: Timestamp) -> Value {
    let since = (Timestamp(at.0.saturating_sub(DAY_US)), String::new());
    let before = acted.range(since..(Timestamp(at.0.saturating_add(1)), String::new())).rev();
    let mut said = before.filter(|((_, of), one)| of == partition && one.split_within.is_some());
    said.next().map_or(Value::Null, acted_json)
}

/// A forecast that something followed from.
fn acted_json(((at, _), acted): (&(Timestamp, String), &Acted)) -> Value {
    json!({
        "made": canonical(*at),
        "made_us": at.0,
        "model": acted.model,
        "inputs": acted.inputs,
        "horizons_secs": HORIZONS,
        "forecast": acted.forecast(),
        "baked": acted.baked,
        "split_within_secs": acted.split_within,
        "split_after_secs": acted.split_after,
        "seen_secs": (acted.seen_us - at.0).max(0) / 1_000_000,
    })
}

fn value(of: impl serde::Serialize) -> Outcome<Value> {
    serde_json::to_value(of).map_err(|cause| cause.to_string())
}

impl Running {
    /// The newest forecasts.
    pub(crate) fn forecast(&self) -> Outcome<Value> {
        let engine = &self.common.engine;
        let status = value(engine.forecast_status())?;
        let partitions = value(engine.with_forecast(|service, _| service.shown()))?;
        Ok(json!({ "forecast": status, "partitions": partitions }))
    }

    /// Why a partition is treated as it is. Any file of it names it.
    pub(crate) fn forecast_why(&self, partition: &str) -> Outcome<Value> {
        let engine = &self.common.engine;
        let roots = engine.roots().map_err(|cause| cause.to_string())?;
        let roots: Vec<Name> = roots.into_iter().map(|info| info.name).collect();
        let key = Partition::parse(self.layout(), partition, &roots).to_string();
        let why = engine.with_forecast(|service, _| service.why(&key));
        let acted = engine.acted_on(|partition| partition == key);
        let mut why = match why {
            Some(why) => value(why)?,
            // It may be gone, and what was said of it is kept.
            None if !acted.is_empty() => json!({ "partition": key }),
            None => {
                return Err(format!(
                    "nothing is known of partition {key}: nothing was written or read there (`weft partitions`)"
                ));
            }
        };
        why["acted"] = acted.iter().map(acted_json).collect();
        Ok(why)
    }

    /// Scores of the model and of the baselines.
    pub(crate) fn forecast_scores(&self) -> Outcome<Value> {
        let engine = &self.common.engine;
        let (scores, verdicts) = engine.with_forecast(|service, now| service.scores(now));
        let status = value(engine.forecast_status())?;
        Ok(json!({ "forecast": status, "scores": value(scores)?, "verdicts": value(verdicts)? }))
    }
}
