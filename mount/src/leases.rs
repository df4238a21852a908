//! What a daemon answers about leases.

use crate::Outcome;
use crate::offline::told;
use crate::running::Running;
use serde_json::{Value, json};
use weft::engine::{Instant, Lease, Resolution};
use weft::past::when::canonical;
use weft::types::Timestamp;

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
        Ok(Value::Array(leases.iter().map(|lease| self.with_instant(lease)).collect::<Outcome<_>>()?))
    }

    pub(crate) fn end_lease(&self, id: u64) -> Outcome<Value> {
        let ended = self.common.engine.end_lease(id).map_err(told)?;
        self.with_instant(&ended)
    }

    fn with_instant(&self, lease: &Lease) -> Outcome<Value> {
        let mut all = lease_json(lease);
        let resolved = self.common.engine.resolve(Instant::Seq(lease.at)).map_err(told)?;
        if let Resolution::Found(found) = resolved {
            all["actual"] = json!(canonical(found.actual));
        }
        Ok(all)
    }
}
