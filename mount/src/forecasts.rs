//! What a daemon answers about forecasts.

use crate::Outcome;
use crate::running::Running;
use serde_json::{Value, json};
use weft::lineage::partition::Partition;
use weft::types::Name;

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
        let why = why.ok_or_else(|| {
            format!(
                "nothing is known of partition {key}: nothing was written or read there (`weft partitions`)"
            )
        })?;
        value(why)
    }

    /// Scores of the model and of the baselines.
    pub(crate) fn forecast_scores(&self) -> Outcome<Value> {
        let engine = &self.common.engine;
        let (scores, verdicts) = engine.with_forecast(|service, now| service.scores(now));
        let status = value(engine.forecast_status())?;
        Ok(json!({ "forecast": status, "scores": value(scores)?, "verdicts": value(verdicts)? }))
    }
}
