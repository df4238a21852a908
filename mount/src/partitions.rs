//! What a daemon answers about partitions.

use crate::Outcome;
use crate::offline::told;
use crate::running::Running;
use serde_json::{Value, json};
use weft::engine::Figures;

impl Running {
    /// Every partition of the present, by name.
    pub(crate) fn partitions(&self) -> Outcome<Value> {
        let layout = self.profile().layout();
        let all = self.common.engine.partitions(layout).map_err(told)?;
        let rates = self.rates.lock();
        let shown = all.iter().map(|one| {
            let [writes, bytes] = one
                .files
                .iter()
                .map(|part| rates.of(part.file))
                .fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
            let mut shown = figures(one);
            shown["writes_per_sec"] = json!(writes);
            shown["written_bytes_per_sec"] = json!(bytes);
            shown
        });
        Ok(json!({ "profile": self.profile().name(), "partitions": shown.collect::<Vec<_>>() }))
    }
}

fn figures(one: &Figures) -> Value {
    json!({
        "partition": one.partition.to_string(),
        "files": one.files.len(),
        "size_bytes": one.size,
        "history_bytes": one.history,
        "writes": one.work.writes,
        "written_bytes": one.work.bytes,
    })
}
