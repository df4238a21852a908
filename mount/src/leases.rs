//! What a daemon answers about leases.

use crate::Outcome;
use crate::offline::told;
use crate::running::Running;
use serde_json::{Value, json};
use weft::engine::{Instant, Lease, Resolution};
use weft::past::when::canonical;
use weft::types::{Seq, Timestamp};

/// A lease as every answer shows it.
pub(crate) fn lease_json(lease: &Lease) -> Value {
    json!({
        "id": lease.id,
        "seq": lease.at.0,
        "until": canonical(Timestamp(lease.until_us)),
        "left_secs": lease.left_us / 1_000_000,
        "by": lease.by,
        "durable": lease.durable,
    })
}

impl Running {
    pub(crate) fn leases(&self) -> Outcome<Value> {
        let leases = self.common.engine.leases();
        Ok(Value::Array(leases.iter().map(|lease| self.with_instant(lease)).collect()))
    }

    pub(crate) fn end_lease(&self, id: u64) -> Outcome<Value> {
        let ended = self.common.engine.end_lease(id).map_err(told)?;
        Ok(self.with_instant(&ended))
    }

    fn with_instant(&self, lease: &Lease) -> Value {
        let mut all = lease_json(lease);
        self.add_actual(&mut all, lease.at);
        all
    }

    /// Adds when an instant was; or what keeps that from being told, which is no reason to tell nothing else.
    pub(crate) fn add_actual(&self, all: &mut Value, at: Seq) {
        match self.common.engine.try_resolve(Instant::Seq(at)) {
            Ok(Resolution::Found(found)) => all["actual"] = json!(canonical(found.actual)),
            Ok(_) => all["actual"] = Value::Null,
            Err(error) => {
                all["actual"] = Value::Null;
                all["trouble"] = json!(error.to_string());
            }
        }
    }
}
