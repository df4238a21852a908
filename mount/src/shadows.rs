//! What a daemon answers about shadows.

use crate::Outcome;
use crate::offline::told;
use crate::running::Running;
use serde_json::{Value, json};
use weft::types::{Name, Seq};

impl Running {
    /// All shadows, and what they cost together.
    pub(crate) fn shadows(&self) -> Outcome<Value> {
        let engine = &self.common.engine;
        let all = serde_json::to_value(engine.shadows()).map_err(|cause| cause.to_string())?;
        let status = serde_json::to_value(engine.shadow_status()).map_err(|cause| cause.to_string())?;
        Ok(json!({ "shadows": all, "status": status, "now_us": engine.now().0 }))
    }

    /// Makes a shadow. Where the time has none: the four-way answer, as `resolve` gives it.
    pub(crate) fn add_shadow(&self, root: &str, names: &[Name], time: Option<&str>) -> Outcome<Value> {
        self.layout();
        let engine = &self.common.engine;
        let subject = engine.shadow_subject(root.as_bytes(), &names.join(&b'/'));
        let answer = time.map(|time| self.resolve(time, None)).transpose()?;
        let at = match &answer {
            None => None,
            Some(answer) if answer["answer"] == "found" => answer["seq"].as_u64().map(Seq),
            Some(answer) => return Ok(answer.clone()),
        };
        let made = engine.add_shadow(subject.clone(), None, at).map_err(told)?;
        let shown = subject.to_string();
        Ok(match made {
            None => json!({ "partition": shown, "made": null }),
            Some(made) => json!({
                "partition": shown,
                "made": made,
                "at": answer.as_ref().map(|answer| answer["actual"].clone()),
            }),
        })
    }

    pub(crate) fn remove_shadows(&self, root: &str, what: &str) -> Outcome<Value> {
        self.layout();
        match self.common.engine.remove_shadows(root.as_bytes(), what).map_err(told)? {
            0 => Err(format!("there is no shadow of {what}: `weft shadows` lists them")),
            count => Ok(json!({ "removed": count })),
        }
    }

    pub(crate) fn resume_shadows(&self) -> Outcome<Value> {
        self.common.engine.resume_shadows();
        Ok(json!({}))
    }
}
