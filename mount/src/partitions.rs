//! What a daemon answers about partitions.

use crate::mountinfo::escape;
use crate::offline::told;
use crate::restore::Ranges;
use crate::running::Running;
use crate::{Outcome, catalogue};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use weft::engine::{Ancestry, Figures, Part, Partition};
use weft::lineage::find;
use weft::lineage::partition::{self, Fork, Layout};
use weft::lineage::splits::{Origin, Tie};
use weft::past::view::View;
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

    /// A partition as a user names it: by any of its files. PostgreSQL calls one of a tablespace by the link in DATA, or from
    /// `PG_...` on.
    pub(crate) fn partition(&self, text: &str) -> Outcome<Partition> {
        let roots = self.common.engine.roots().map_err(told)?;
        let names: Vec<Name> = roots.into_iter().map(|root| root.name).collect();
        let partition = Partition::parse(self.layout(), text, &names);
        let of_tablespace = self.layout() == Layout::Postgres && catalogue::below_tablespace(text).is_some();
        let found = (of_tablespace && partition.root.is_empty()).then(|| self.relation(text)).flatten();
        Ok(found.unwrap_or(partition))
    }

    /// A table of PostgreSQL's by the path of its first file, as the server sees it: what it calls `pg_tblspc/OID/PG_...` may
    /// be in a root, where the link leads, or anywhere a link of a tablespace does if the path begins with `PG_...`. `None`: no
    /// such file is there, or there are several.
    pub(crate) fn relation(&self, path: &str) -> Option<Partition> {
        let engine = &self.common.engine;
        let is_there =
            |(root, path): &(Name, Vec<u8>)| matches!(find::file_at(&**engine, root, path), Ok(Some(_)));
        let in_data = Some((Name::new(), path.as_bytes().to_vec())).filter(is_there);
        let found = in_data.or_else(|| {
            let below = catalogue::below_tablespace(path)?;
            let mut places: BTreeSet<_> =
                self.led_by_link(path, below).into_iter().filter(is_there).collect();
            if places.is_empty() {
                // Where the link leads is known by no path of a root: to the top of one, perhaps.
                let tops = self.roots.iter().skip(1).map(|root| root.here.name.clone());
                places.extend(tops.map(|root| (root, below.as_bytes().to_vec())).filter(is_there));
            }
            if places.len() == 1 { places.pop_first() } else { None }
        });
        let (root, path) = found?;
        Some(partition::of(self.layout(), &root, &path))
    }

    /// Root and path of what a path through the link of a tablespace leads to, `below` it; where the path does not say through
    /// which, for each.
    fn led_by_link(&self, path: &str, below: &str) -> Vec<(Name, Vec<u8>)> {
        let links = self.common.links.covered(&self.common.engine).unwrap_or_default();
        let asked = path.strip_suffix(below).unwrap_or_default().trim_end_matches('/').as_bytes();
        let led = links.into_iter().filter(|(link, ..)| asked.is_empty() || link == asked);
        led.map(|(_, root, rest)| {
            (root.place.name.clone().into_bytes(), rest.join(below).into_os_string().into_vec())
        })
        .collect()
    }

    /// The files of a partition at an instant, in order, and those of its parents that rows of it were in then; paths are
    /// escaped, from their root on. Where the time has no instant: the four-way answer, as `resolve` gives it.
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
        let past = self.past_at(&partition, &view, !files.is_empty())?;
        answer["partition"] = json!(partition.to_string());
        answer["files"] = files.iter().map(|part| file(&partition, part, None)).collect();
        let of = |one: &Ancestry| -> Vec<Value> {
            one.files.iter().map(|(part, ranges)| file(&one.parent, part, ranges.as_ref())).collect()
        };
        answer["of_parents"] = past.iter().flat_map(of).collect();
        answer["parents"] = past.iter().map(|one| one.parent.to_string()).collect();
        let mut notes: Vec<String> =
            past.iter().map(|one| note(&partition, one, !files.is_empty())).collect();
        if files.is_empty() && past.is_empty() {
            answer["gone"] = json!(self.gone_at(&partition, Seq(seq))?);
        } else if !files.is_empty() {
            notes.extend(self.merged_since(&partition, Seq(seq)));
            let doubtful = engine.unsettled(layout, &partition, &view).map_err(told)?;
            notes.extend(doubtful.iter().map(|origin| doubt(&partition, origin)));
        }
        answer["notes"] = json!(notes);
        Ok(answer)
    }

    /// A word about what has gone into a partition since that goes on under its name.
    fn merged_since(&self, partition: &Partition, at: Seq) -> Option<String> {
        let shown = partition.to_string();
        let origins = self.common.engine.origins_of(self.layout(), partition).unwrap_or_default();
        let since =
            origins.iter().filter(|origin| origin.anew && origin.born > at.0 && origin.parent != shown);
        let since: Vec<&str> = since.map(|origin| origin.parent.as_str()).collect();
        (!since.is_empty()).then(|| {
            let since = since.join(", ");
            format!("{shown} is as it was then; what it holds now may have been in {since}: restore that too")
        })
    }

    /// The parents that held rows of a partition at an instant, also while its own files came.
    fn past_at(&self, partition: &Partition, view: &View, is_there: bool) -> Outcome<Vec<Ancestry>> {
        let mut past = self.common.engine.ancestry(self.layout(), partition, view).map_err(told)?;
        // Files of before it came are others of its name.
        past.retain(|one| !is_there || view.seq().0 > one.origin.born);
        Ok(past)
    }

    /// Why nothing is known of a partition at an instant although it came out of another: it had come by then.
    fn gone_at(&self, partition: &Partition, at: Seq) -> Outcome<Option<String>> {
        let origins = self.common.engine.origins_of(self.layout(), partition).map_err(told)?;
        let had_come = !origins.is_empty() && origins.iter().all(|origin| at.0 > origin.born);
        let parents: Vec<&str> = origins.iter().map(|origin| origin.parent.as_str()).collect();
        Ok(had_come
            .then(|| format!("it had come out of {} before, and was gone again", parents.join(" and "))))
    }
}

/// A file of a partition, with what of it is wanted, where it is not all.
fn file(of: &Partition, part: &Part, ranges: Option<&Ranges>) -> Value {
    json!({
        "root": String::from_utf8_lossy(&of.root),
        "path": escape(Path::new(OsStr::from_bytes(&part.path))),
        "size": part.attr.size,
        "main": part.fork == Fork::Main,
        "segment": part.segment,
        "ranges": ranges,
    })
}

/// What the files of a parent are good for.
fn note(child: &Partition, past: &Ancestry, is_there: bool) -> String {
    let by = match past.origin.tie {
        Tie::Declared => "as it was declared",
        Tie::Catalogue => "as the catalogue says",
        Tie::Guess => "by a guess: `weft splits` shows it, `weft split confirm` settles it",
    };
    let how = match past.files.iter().any(|(_, ranges)| ranges.is_some()) {
        true => {
            "its pages are there, under the parent's names, and the others are zero; indexes do not fit to that: read it \
                 with enable_indexscan, enable_indexonlyscan and enable_bitmapscan off, and the predicate"
        }
        false if past.scattered => {
            "all of that partition is there, as its own pages are too many and too scattered to be told"
        }
        false => "all of that partition is there",
    };
    let parent = &past.parent;
    match (past.origin.rewrite, is_there) {
        (true, _) => format!("{child} was {parent} before it was written anew ({by}): {how}"),
        (_, true) => {
            format!("rows of {child} were still in {parent} then ({by}): beside its own files {how}")
        }
        (_, false) => format!("{child} was part of {parent} then ({by}): {how}"),
    }
}

/// What rows may be missing, and where they would be.
fn doubt(child: &Partition, origin: &Origin) -> String {
    let parent = &origin.parent;
    format!(
        "the files of {child} had come not long before, and rows of it may have been in {parent} still: if some are missing, \
         restore --partition {parent} too"
    )
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
