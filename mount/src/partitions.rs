//! What a daemon answers about partitions.

use crate::mountinfo::escape;
use crate::offline::told;
use crate::restore::Ranges;
use crate::running::Running;
use crate::{Outcome, catalogue};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use weft::engine::{Ancestry, Figures, Part, Partition};
use weft::lineage::find;
use weft::lineage::partition::{self, Fork};
use weft::lineage::splits::Tie;
use weft::types::{Name, Seq};

impl Running {
    /// Every partition of the present, by name.
    pub(crate) fn partitions(&self) -> Outcome<Value> {
        let layout = self.layout();
        let all = self.common.engine.partitions(layout).map_err(told)?;
        let mut shadows: HashMap<String, u64> = HashMap::new();
        for shadow in self.common.engine.shadows() {
            let of = partition::of(layout, shadow.root.as_bytes(), shadow.partition.as_bytes());
            *shadows.entry(of.to_string()).or_default() += shadow.bytes;
        }
        let rates = self.rates.lock();
        let shown = all.iter().map(|one| {
            let [writes, bytes] = one
                .files
                .iter()
                .map(|part| rates.of(part.file))
                .fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
            let mut shown = figures(one);
            shown["shadow_bytes"] = json!(shadows.get(&one.partition.to_string()).unwrap_or(&0));
            shown["writes_per_sec"] = json!(writes);
            shown["written_bytes_per_sec"] = json!(bytes);
            shown
        });
        Ok(json!({ "profile": self.profile().name(), "partitions": shown.collect::<Vec<_>>() }))
    }

    /// A partition as a user names it: by any of its files.
    pub(crate) fn partition(&self, text: &str) -> Outcome<Partition> {
        let roots = self.common.engine.roots().map_err(told)?;
        let names: Vec<Name> = roots.into_iter().map(|root| root.name).collect();
        Ok(Partition::parse(self.layout(), text, &names))
    }

    /// A table of PostgreSQL's by the path of its first file, as the server sees it: what it calls `pg_tblspc/OID/PG_...` may
    /// be a root of its own. `None`: no such file is there.
    pub(crate) fn relation(&self, path: &str) -> Option<Partition> {
        let engine = &self.common.engine;
        let in_data = std::iter::once((&[][..], path));
        let below = catalogue::below_tablespace(path);
        let further = self.roots.iter().skip(1).filter_map(|root| Some((root.here.name.as_slice(), below?)));
        let is_there = |(root, path): &(&[u8], &str)| {
            matches!(find::file_at(&**engine, root, path.as_bytes()), Ok(Some(_)))
        };
        let (root, path) = in_data.chain(further).find(is_there)?;
        Some(partition::of(self.layout(), root, path.as_bytes()))
    }

    /// The files of a partition at an instant, in order; paths are escaped, from the root on. Where the time has no
    /// instant: the four-way answer, as `resolve` gives it.
    pub(crate) fn partition_at(&self, text: &str, time: &str) -> Outcome<Value> {
        let mut answer = self.resolve(time, Some("weft restore"))?;
        let Some(seq) = answer["seq"].as_u64().filter(|_| answer["answer"] == "found") else {
            return Ok(answer);
        };
        let engine = &self.common.engine;
        let partition = self.partition(text)?;
        let view = engine.view(Seq(seq)).map_err(told)?;
        let layout = self.layout();
        let files = find::files(&*view, layout, &partition).map_err(told)?;
        answer["partition"] = json!(partition.to_string());
        answer["root"] = json!(String::from_utf8_lossy(&partition.root));
        if files.is_empty()
            && let Some(past) = engine.ancestry(layout, &partition, &view).map_err(told)?
        {
            answer["root"] = json!(String::from_utf8_lossy(&past.parent.root));
            answer["files"] = past.files.iter().map(|(part, _)| file(part)).collect();
            answer["partial"] = past.files.iter().filter_map(partial).collect();
            answer["parent"] = json!(past.parent.to_string());
            answer["parent_bytes"] = json!(past.parent_bytes);
            answer["note"] = json!(note(&partition, &past));
            return Ok(answer);
        }
        answer["files"] = files.iter().map(file).collect();
        Ok(answer)
    }
}

fn file(part: &Part) -> Value {
    let path = Path::new(OsStr::from_bytes(&part.path));
    json!({ "path": escape(path), "size": part.attr.size, "main": part.fork == Fork::Main, "segment": part.segment })
}

/// What of a file is wanted, where it is not all.
fn partial((part, ranges): &(Part, Option<Ranges>)) -> Option<Value> {
    let ranges = ranges.as_ref()?;
    Some(json!({ "path": escape(Path::new(OsStr::from_bytes(&part.path))), "ranges": ranges }))
}

/// What the files of a parent are good for.
fn note(child: &Partition, past: &Ancestry) -> String {
    let by = match past.origin.tie {
        Tie::Declared => "as it was declared",
        Tie::Catalogue => "as the catalogue says",
        Tie::Guess => "by a guess: confirm it with `weft splits --pg CONNINFO`",
    };
    let how = match past.files.iter().any(|(_, ranges)| ranges.is_some()) {
        true => {
            "its pages are there, under the parent's names, and the others are zero; indexes do not fit to that: read it \
                 with enable_indexscan, enable_indexonlyscan and enable_bitmapscan off, and the predicate"
        }
        false => "all of that partition is there",
    };
    format!("{child} was part of {} then ({by}): {how}", past.parent)
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
