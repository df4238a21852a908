//! What a daemon answers about tags and about files over time.

use crate::control::AskLog;
use crate::offline::{check_bounds, told, unknown};
use crate::running::Running;
use crate::{Outcome, shown};
use serde_json::{Value, json};
use weft::engine::{Instant, Located, Resolution, TagState};
use weft::lineage::find;
use weft::lineage::splits::Origin;
use weft::meta::tags;
use weft::past::history::Wanted;
use weft::past::when::{self, ViewName};
use weft::types::{FileId, Name, Seq};

/// Lines of one answer at most: it has to fit the socket's line.
const LINES_MAX: usize = 1_000;

impl Running {
    /// Names an instant. Where the time has none: the four-way answer, as `resolve` gives it.
    pub(crate) fn tag(&self, name: &str, time: &str) -> Outcome<Value> {
        tags::check_name(name).map_err(told)?;
        let answer = self.resolve(time, None)?;
        let Some(seq) = answer.get("seq").and_then(Value::as_u64).filter(|_| answer["answer"] == "found")
        else {
            return Ok(answer);
        };
        let tag = self.common.engine.tag(name, Seq(seq)).map_err(told)?;
        let mut made = self.tag_json(&tag);
        if let (Some(made), Some(answer)) = (made.as_object_mut(), answer.as_object()) {
            for (key, value) in answer {
                made.entry(key.as_str()).or_insert(value.clone());
            }
        }
        Ok(made)
    }

    pub(crate) fn untag(&self, name: &str) -> Outcome<Value> {
        let tag = self.common.engine.untag(name).map_err(told)?;
        Ok(self.tag_json(&tag))
    }

    pub(crate) fn tags(&self) -> Outcome<Value> {
        let tags = self.common.engine.tags();
        Ok(Value::Array(tags.iter().map(|tag| self.tag_json(tag)).collect()))
    }

    fn tag_json(&self, tag: &TagState) -> Value {
        let name = String::from_utf8_lossy(&tag.name);
        let path = self.point().join(format!("@tag={name}"));
        let mut all = json!({
            "tag": name,
            "seq": tag.at.0,
            "made": when::canonical(tag.made),
            "view": path.display().to_string(),
        });
        self.add_actual(&mut all, tag.at);
        all
    }

    /// One part of a file's history.
    pub(crate) fn log(&self, ask: &AskLog) -> Outcome<Value> {
        let bound = |time: &Option<String>| time.as_deref().map(|time| self.when(time)).transpose();
        let (since, until) =
            (bound(&ask.since)?.map(|when| when.instant), bound(&ask.until)?.map(|when| when.instant));
        let after = match since {
            None => Seq::ZERO,
            Some(Instant::Time(at)) => self.common.engine.last_before(at).map_err(told)?,
            Some(Instant::Seq(seq)) => Seq(seq.0.saturating_sub(1)),
        };
        let last = match until {
            None => Seq(u64::MAX),
            Some(until) => self.seq_of(until)?.unwrap_or(Seq::ZERO),
        };
        check_bounds(ask, (since, until), (after, last))?;
        let upto = ask.upto.map_or(last, |upto| last.min(Seq(upto)));
        let located = match ask.file {
            Some(file) => Err(FileId(file)),
            None => Ok(self.locate(&ask.root, &ask.names, ask.upto.map(Seq))?),
        };
        let file = located.as_ref().map_or_else(|file| *file, |located| located.file);
        let wanted = Wanted { upto, after, limit: ask.limit.clamp(1, LINES_MAX), all: ask.all };
        let log = self.common.engine.log(file, wanted).map_err(told)?;
        let mut answer = json!({
            "file": file.0,
            "versions": log.versions,
            "next": log.next.map(|seq| seq.0),
        });
        if let Ok(Located { kind, path, gone, .. }) = located {
            answer["kind"] = json!(shown::kind(kind));
            answer["path"] = json!(path);
            answer["gone"] = json!(gone);
            // A name may have been taken by another file since.
            let named = ask.upto.map(|_| String::from_utf8_lossy(&ask.names.join(&b'/')).into_owned());
            let path = named.unwrap_or(path);
            answer["parents"] = self.parents_of(file, &ask.root, &path)?;
        }
        Ok(answer)
    }

    /// Where the past of a file goes on: the parents of its partition, each with the last event before it was there.
    fn parents_of(&self, file: FileId, root: &str, path: &str) -> Outcome<Value> {
        let (engine, layout) = (&self.common.engine, self.layout());
        let partition = weft::lineage::partition::of(layout, root.as_bytes(), path.as_bytes());
        let mut origins = engine.origins_of(layout, &partition).map_err(told)?;
        if !origins.is_empty() {
            // What is said of a partition that has the name now is not of one that had it before.
            let born = engine.born(file).map_err(told)?;
            origins.retain(|origin| origin.born <= born.0);
        }
        let parents = origins.iter().map(|origin| self.parent(origin)).collect::<Outcome<Vec<_>>>()?;
        Ok(parents.into_iter().flatten().collect())
    }

    /// The first file of a parent, as it was when the child came. `None`: it has left no trace.
    fn parent(&self, origin: &Origin) -> Outcome<Option<Value>> {
        let (engine, layout, upto) = (&self.common.engine, self.layout(), Seq(origin.born));
        let parent = self.partition(&origin.parent)?;
        let files = match engine.view(upto) {
            Ok(view) => find::files(&*view, layout, &parent),
            // That instant is not kept.
            Err(_) => engine.partition_files(layout, &parent),
        };
        let first = files.map_err(told)?.into_iter().next();
        let names = weft::lineage::partition::names(&first.map_or(parent.name, |part| part.path));
        let known = engine.locate(&parent.root, &names, Some(upto)).map_err(told)?;
        Ok(known.map(|_| {
            json!({
                "partition": origin.parent,
                "root": String::from_utf8_lossy(&parent.root),
                "names": names,
                "upto": origin.born,
                "tie": origin.tie,
                "rewrite": origin.rewrite,
            })
        }))
    }

    /// The file that a path means: of a view, the one there; else the one that has the path, or had it last, up to a Seq.
    fn locate(&self, root: &str, names: &[Name], upto: Option<Seq>) -> Outcome<Located> {
        let (at, names) = match names.split_first() {
            Some((first, rest)) if when::is_reserved(first) => (Some(self.view_of(first)?), rest),
            _ => (upto, names),
        };
        self.common.engine.locate(root.as_bytes(), names, at).map_err(told)?.ok_or_else(|| unknown(names))
    }

    /// The Seq that the name of a view stands for.
    fn view_of(&self, name: &[u8]) -> Outcome<Seq> {
        let shown = String::from_utf8_lossy(name).into_owned();
        let instant = match when::parse_view_name(name, &self.common.zone) {
            ViewName::Canonical(instant) => instant,
            ViewName::Alias(_) | ViewName::Tag(_) => self.when(&shown)?.instant,
            ViewName::NotAView => return Err(format!("{shown} is not the name of a view")),
            ViewName::Malformed(why) => return Err(why),
        };
        self.seq_of(instant)?.ok_or_else(|| format!("{shown} is out of reach: `weft resolve` says why"))
    }

    /// What differs between two instants, the earlier one first whatever the order they are given in. Where a time has
    /// none: the four-way answer, as `resolve` gives it.
    pub(crate) fn diff(&self, root: &str, (from, to): (&str, &str), names: &[Name]) -> Outcome<Value> {
        let (mut from, mut to) = (self.resolve(from, None)?, self.resolve(to, None)?);
        for answer in [&from, &to] {
            if answer["answer"] != "found" {
                return Ok(answer.clone());
            }
        }
        let seq = |answer: &Value| Seq(answer["seq"].as_u64().unwrap_or(0));
        if seq(&from) > seq(&to) {
            std::mem::swap(&mut from, &mut to);
        }
        let instants = (seq(&from), seq(&to));
        let differences =
            self.common.engine.diff(instants, (root.as_bytes(), names), shown::kind).map_err(told)?;
        Ok(json!({ "answer": "found", "from": from, "to": to, "differences": differences }))
    }

    /// The last event at or before an instant; all there is for one in the future.
    fn seq_of(&self, instant: Instant) -> Outcome<Option<Seq>> {
        Ok(match self.common.engine.resolve(instant).map_err(|cause| cause.to_string())? {
            Resolution::Found(found) => Some(found.seq),
            Resolution::Future { last, .. } => Some(last),
            Resolution::Before { .. } | Resolution::Pruned { .. } => None,
        })
    }
}
