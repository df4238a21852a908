//! `weft resolve` and `weft at`: what a time means, and what is to be said of it.

use crate::Outcome;
use crate::leases::lease_json;
use crate::offline::told;
use crate::running::Running;
use serde_json::{Value, json};
use weft::engine::{Capture, Found, Granted, Instant, Resolution};
use weft::meta::tags;
use weft::past::when::{When, canonical};

impl Running {
    /// The answer as docs/SEMANTICS.md ("Time") describes it: `found`, `future`, `before`, `pruned` or `malformed`, with what was
    /// asked, what it is, and how far history reaches. What is found is leased to whoever asks, if that is told.
    pub(crate) fn resolve(&self, time: &str, by: Option<&str>) -> Outcome<Value> {
        let when = match self.when(time) {
            Ok(when) => when,
            // A tag that is not there has its own message; what is no time is an answer.
            Err(cause) if tags::named(time).is_some() => return Err(cause),
            Err(cause) => return Ok(self.all(time, json!({ "answer": "malformed", "because": cause }))),
        };
        let (resolution, named, granted) = self.look_up(&when, by)?;
        let requested = match tags::named(time) {
            Some(tag) => format!("tag={tag}"),
            None => when.instant.view_name().trim_start_matches('@').to_owned(),
        };
        let answer = match resolution {
            Resolution::Found(found) => self.found(&when, found, named, granted)?,
            Resolution::Future { now, last } => {
                json!({ "answer": "future", "now": canonical(now), "last_seq": last.0 })
            }
            Resolution::Before { first, .. } => json!({ "answer": "before", "first": canonical(first) }),
            Resolution::Pruned { oldest } => json!({ "answer": "pruned", "oldest": canonical(oldest) }),
        };
        Ok(self.all(&requested, answer))
    }

    fn look_up(&self, when: &When, by: Option<&str>) -> Outcome<(Resolution, Instant, Option<Granted>)> {
        let engine = &self.common.engine;
        let looked = match (when.ago_us, by) {
            (Some(us), Some(by)) => engine.resolve_ago_leased(us, by),
            (Some(us), None) => engine.resolve_ago(us).map(|(found, named)| (found, named, None)),
            (None, Some(by)) => {
                let leased = engine.resolve_leased(when.instant, by);
                leased.map(|(found, granted)| (found, when.instant, granted))
            }
            (None, None) => engine.resolve(when.instant).map(|found| (found, when.instant, None)),
        };
        looked.map_err(told)
    }

    /// Puts to an answer what every answer has.
    fn all(&self, requested: &str, answer: Value) -> Value {
        let engine = &self.common.engine;
        let mut all = json!({
            "requested": requested,
            "timezone": self.common.zone.iana_name().unwrap_or("UTC"),
            "reach": {
                "oldest": canonical(engine.oldest().1),
                "newest": canonical(engine.now()),
            },
            "clock_epoch": engine.clock_epoch(),
        });
        if let (Some(all), Value::Object(answer)) = (all.as_object_mut(), answer) {
            all.extend(answer);
        }
        all
    }

    fn found(&self, when: &When, found: Found, named: Instant, granted: Option<Granted>) -> Outcome<Value> {
        let mut notes = Vec::new();
        if let Some(trouble) = granted.as_ref().and_then(|granted| granted.trouble.as_ref()) {
            notes.push(format!("the lease ends with this daemon, for it cannot be written down: {trouble}"));
        }
        if when.moving && self.common.capture == Capture::Writeback {
            notes.push(
                "capture is writeback: what programs have not fsynced or closed may be missing".to_owned(),
            );
        }
        let candidates = match named {
            Instant::Time(at) => self.common.engine.candidates(at).map_err(told)?,
            Instant::Seq(_) => Vec::new(),
        };
        if when.ago_us.is_some() && matches!(named, Instant::Seq(_)) {
            let note = "the clock was set, and as a time this names another moment: here it is by its number";
            notes.push(note.to_owned());
        } else if let (Some(_), Instant::Time(at), Instant::Time(asked)) = (when.ago_us, named, when.instant)
            && asked.0.abs_diff(at.0) > 1_000_000
        {
            notes.push(format!("the clock was set since: by the clock of then this was {}", canonical(at)));
        }
        if let (Instant::Time(_), []) = (named, candidates.as_slice()) {
            notes.push(
                "no clock has shown this time (it was set over it): this is the state before".to_owned(),
            );
        }
        if found.seq != found.meant {
            notes.push(format!(
                "thinned: of history there, only some instants are kept; this is the one at or before (event {} was \
                 asked for)",
                found.meant
            ));
        }
        let ambiguous = candidates.len() > 1;
        if ambiguous {
            let note = format!(
                "ambiguous: the clock was set back, and this time came {} times; the answer stays the one given here, \
                 the others have their @seq=",
                candidates.len()
            );
            notes.push(note);
        }
        let listed: Vec<Value> = candidates.iter().map(|one| candidate(one, found)).collect();
        let mut answer = json!({
            "answer": "found",
            "seq": found.seq.0,
            "meant": found.meant.0,
            "actual": canonical(found.actual),
            "epoch": found.epoch,
            "view": named.view_name(),
            "path": self.point().join(named.view_name()).display().to_string(),
            "consistency": self.origin(found)?,
            "ambiguous": ambiguous,
            "candidates": listed,
        });
        if let Some(granted) = granted {
            answer["lease"] = lease_json(&granted.lease);
        }
        if !notes.is_empty() {
            answer["note"] = json!(notes.join("; "));
        }
        Ok(answer)
    }

    /// How the events up to an instant arrived.
    fn origin(&self, found: Found) -> Outcome<Value> {
        let origin = self.common.engine.origin(found.seq).map_err(told)?;
        Ok(origin.map_or(
            Value::Null,
            |origin| json!({ "capture": origin.capture.name(), "session": canonical(origin.session.1) }),
        ))
    }
}

fn candidate(one: &Found, found: Found) -> Value {
    json!({
        "epoch": one.epoch,
        "seq": one.seq.0,
        "actual": canonical(one.actual),
        "chosen": one.seq == found.meant,
    })
}
