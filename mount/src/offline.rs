//! What can be told of a STORE without a daemon: by reading its journal, changing nothing.

use crate::config::Config;
use crate::control::AskLog;
use crate::daemon::MachineClock;
use crate::{Outcome, shown};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use weft::clock::Clock;
use weft::disk::os::OsDisk;
use weft::error::{Error, Kind};
use weft::meta::tags;
use weft::past::history::Wanted;
use weft::past::offline::Offline;
use weft::past::when::{self, Instant, ViewName, canonical};
use weft::types::{FileId, Name, Seq, Timestamp};

/// A STORE for looking, and the zone that its settings name.
pub struct Store {
    pub core: Offline,
    zone: jiff::tz::TimeZone,
}

/// An error of the core as one line.
pub fn told(cause: Error) -> String {
    match (cause.kind, &cause.path) {
        (Kind::Invalid, None) => cause.message,
        (Kind::Invalid, Some(path)) => format!("{}: {}", path.display(), cause.message),
        _ => cause.to_string(),
    }
}

/// Opens a STORE for looking.
///
/// # Errors
/// One line with the reason.
pub fn open(store: &Path) -> Outcome<Store> {
    let core = Offline::open(Arc::new(OsDisk::new()), store).map_err(told)?;
    let zone = when::zone(&Config::load(store)?.timezone).map_err(told)?;
    Ok(Store { core, zone })
}

/// All tags, as a daemon lists them.
///
/// # Errors
/// One line with the reason.
pub fn tags(store: &Path) -> Outcome<Value> {
    let tags = open(store)?.core.tags().map_err(told)?;
    let tags = tags.into_iter().map(|(tag, actual)| {
        json!({
            "tag": String::from_utf8_lossy(&tag.name),
            "seq": tag.at.0,
            "actual": actual.map(canonical),
            "made": canonical(tag.made),
        })
    });
    Ok(Value::Array(tags.collect()))
}

/// The whole history that was asked for, in one part.
///
/// # Errors
/// One line with the reason.
pub fn log(store: &Path, ask: &AskLog) -> Outcome<Value> {
    let store = open(store)?;
    let instant = |time: &Option<String>| time.as_deref().map(|time| store.instant(time)).transpose();
    let bounds = (instant(&ask.since)?, instant(&ask.until)?);
    let after = ask.since.as_deref().map_or(Ok(Seq::ZERO), |time| store.last_before(time))?;
    let upto = ask.until.as_deref().map_or(Ok(Seq(u64::MAX)), |time| store.seq(time))?;
    check_bounds(ask, bounds, (after, upto))?;
    let (at, names) = match ask.names.split_first() {
        Some((first, rest)) if when::is_reserved(first) => (store.view(first)?, rest),
        _ => (Seq(u64::MAX), ask.names.as_slice()),
    };
    let found =
        store.core.locate(ask.root.as_bytes(), names, at).map_err(told)?.ok_or_else(|| unknown(names))?;
    let limit = if ask.limit == 0 { usize::MAX } else { ask.limit };
    let wanted = Wanted { upto, after, limit, all: ask.all };
    let (versions, path, gone) = store.core.log(found.file, wanted).map_err(told)?;
    Ok(json!({
        "file": found.file.0,
        "kind": shown::kind(found.kind),
        "path": path,
        "gone": gone,
        "versions": versions,
        "next": null,
    }))
}

/// Refuses what no event can lie between: an empty list would not say why. The bounds as instants, and as the last event
/// before and the last one of what is asked for.
///
/// # Errors
/// One line with the bounds.
pub fn check_bounds(
    ask: &AskLog,
    bounds: (Option<Instant>, Option<Instant>),
    (after, upto): (Seq, Seq),
) -> Outcome<()> {
    let crossed = match bounds {
        (Some(Instant::Time(since)), Some(Instant::Time(until))) => since > until,
        (Some(_), Some(_)) => after >= upto,
        _ => false,
    };
    let (since, until) = (ask.since.as_deref().unwrap_or(""), ask.until.as_deref().unwrap_or(""));
    match () {
        () if crossed => Err(format!("--since {since} is after --until {until}: turn them round")),
        () if bounds.1.is_some() && upto == Seq::ZERO => Err(format!(
            "--until {until} is before what history reaches back to: `weft resolve {until}` says how far that is"
        )),
        () => Ok(()),
    }
}

/// What to say of a path that history does not know.
pub fn unknown(names: &[Name]) -> String {
    let path = names.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join("/");
    format!("history knows no file {path:?}: give its path as it is, or as it was, below the root of DATA")
}

impl Store {
    /// The Seq of a time, a number or a tag: the last event at or before it.
    ///
    /// # Errors
    /// One line saying what would be understood.
    pub fn seq(&self, time: &str) -> Outcome<Seq> {
        match self.instant(time)? {
            Instant::Seq(seq) => Ok(seq),
            Instant::Time(ts) => self.core.seq_at(ts).map_err(told),
        }
    }

    /// The last event before a time, a number or a tag.
    ///
    /// # Errors
    /// One line saying what would be understood.
    pub fn last_before(&self, time: &str) -> Outcome<Seq> {
        match self.instant(time)? {
            Instant::Seq(seq) => Ok(Seq(seq.0.saturating_sub(1))),
            Instant::Time(at) => self.core.seq_at(Timestamp(at.0.saturating_sub(1))).map_err(told),
        }
    }

    /// An instant as people write it.
    ///
    /// # Errors
    /// One line saying what would be understood.
    pub fn instant(&self, time: &str) -> Outcome<Instant> {
        if let Some(tag) = tags::named(time) {
            return Ok(Instant::Seq(self.core.find_tag(tag).map_err(told)?.at));
        }
        when::parse_time(time, MachineClock.now(), &self.zone).map(|when| when.instant).map_err(told)
    }

    fn view(&self, name: &[u8]) -> Outcome<Seq> {
        let shown = String::from_utf8_lossy(name).into_owned();
        match when::parse_view_name(name, &self.zone) {
            ViewName::NotAView => Err(format!("{shown} is not the name of a view")),
            ViewName::Malformed(why) => Err(why),
            _ => self.seq(&shown),
        }
    }

    /// A file by its number (`17`, `f17`) or its path from the root of DATA.
    ///
    /// # Errors
    /// History knows no such file.
    pub fn file(&self, text: &str) -> Outcome<FileId> {
        if let Ok(number) = text.strip_prefix('f').unwrap_or(text).parse() {
            return Ok(FileId(number));
        }
        let names: Vec<Name> =
            text.split('/').filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()).collect();
        let found = self.core.locate(b"", &names, Seq(u64::MAX)).map_err(told)?;
        found.map(|found| found.file).ok_or_else(|| unknown(&names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_hold_nothing_are_refused_with_the_reason() {
        let ask = |since: &str, until: &str| AskLog {
            root: String::new(),
            names: Vec::new(),
            file: None,
            upto: None,
            since: Some(since.into()),
            until: Some(until.into()),
            limit: 0,
            all: false,
        };
        let time = |us| Some(Instant::Time(Timestamp(us)));
        let seq = |seq| Some(Instant::Seq(Seq(seq)));
        for (bounds, seqs, why) in [
            ((time(5), time(5)), (3, 3), None),
            ((time(6), time(5)), (3, 3), Some("turn them round")),
            ((seq(4), seq(4)), (3, 4), None),
            ((seq(5), time(9)), (4, 4), Some("turn them round")),
            ((None, time(1)), (0, 0), Some("weft resolve B")),
            ((time(1), None), (0, 0), None),
        ] {
            let outcome = check_bounds(&ask("A", "B"), bounds, (Seq(seqs.0), Seq(seqs.1)));
            match why {
                None => assert_eq!(outcome, Ok(()), "{bounds:?}"),
                Some(why) => assert!(outcome.unwrap_err().contains(why), "{bounds:?}"),
            }
        }
    }
}
