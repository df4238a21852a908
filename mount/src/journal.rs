//! What `weft journal` shows: events as they stand in the segments of a STORE, mounted, unmounted or crashed. It only
//! reads, and asks no daemon: of a mounted STORE it shows what was on disk when it got there.

use crate::offline::{Store, told};
use crate::{Outcome, events};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use weft::format::event::{Event, Record};
use weft::journal::reader::Check;
use weft::journal::walk::{Damage, End, Found, From};
use weft::past::offline::{Names, Slots};
use weft::past::when::canonical;
use weft::types::{FileId, SegmentNo, Seq, Timestamp};

/// Which part of the journal.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// A number of an event or a time.
    pub from: Option<String>,
    pub to: Option<String>,
    pub file: Option<String>,
    /// Payloads are read and their checksums compared.
    pub check: bool,
}

/// What a walk met.
pub enum Met<'a> {
    /// A wanted event, and its segment and group's byte offset.
    Event(&'a Record, (SegmentNo, u64)),
    Damage(&'a Damage),
}

/// How a walk ended.
pub struct Ended {
    pub end: Option<End>,
    pub damaged: u64,
    /// Segments, and bytes of groups, that were gone through.
    pub segments: u64,
    pub bytes: u64,
}

/// Goes through a part of the journal; `meet` may say that it has enough.
///
/// # Errors
/// The part is not understood, or the STORE cannot be read at all. Damage is met, not an error.
pub fn walk(store: &Store, part: &Part, mut meet: impl FnMut(Met<'_>) -> Outcome<bool>) -> Outcome<Ended> {
    let after = part.from.as_deref().map(|time| store.last_before(&numbered(time))).transpose()?;
    let from = after.map_or(From::Start, |after| From::Seq(after.next()));
    let upto = part.to.as_deref().map(|time| store.seq(&numbered(time))).transpose()?;
    let file = part.file.as_deref().map(|file| store.file(file)).transpose()?;
    let check = if part.check { Check::Payloads } else { Check::Records };
    let mut ended = Ended { end: None, damaged: 0, segments: 0, bytes: 0 };
    let Some(mut walk) = store.core.walk(from, check).map_err(told)? else { return Ok(ended) };
    let mut segment = None;
    loop {
        match walk.step() {
            Found::Group(group) => {
                let place = (group.place.segment, group.place.offset);
                if segment != Some(place.0) {
                    segment = Some(place.0);
                    ended.segments += 1;
                }
                ended.bytes += group.header.len_bytes();
                for record in &group.records {
                    if upto.is_some_and(|upto| record.seq > upto) {
                        return Ok(ended);
                    }
                    let wanted = after.is_none_or(|after| record.seq > after)
                        && file.is_none_or(|file| events::files(&record.event).contains(&file));
                    if wanted && !meet(Met::Event(record, place))? {
                        return Ok(ended);
                    }
                }
            }
            Found::Damage(damage) => {
                ended.damaged += 1;
                if !meet(Met::Damage(&damage))? {
                    return Ok(ended);
                }
            }
            Found::End(end) => {
                ended.end = Some(end);
                return Ok(ended);
            }
        }
    }
}

/// A bare number is that of an event.
fn numbered(text: &str) -> String {
    if text.parse::<u64>().is_ok() { format!("seq={text}") } else { text.to_owned() }
}

/// Damage as a line of a dump.
pub fn damage_json(damage: &Damage) -> Value {
    json!({
        "damage": damage.what,
        "segment": damage.segment.0,
        "offset": damage.offset,
        "seq": damage.seq.0,
    })
}

#[derive(Clone, Copy, Default)]
struct Sum {
    events: u64,
    written: u64,
}

impl Sum {
    fn add(&mut self, event: &Event) {
        self.events += 1;
        self.written += events::written(event);
    }
}

/// Sums over a part of the journal.
#[derive(Default)]
struct Sums {
    all: Sum,
    kinds: BTreeMap<&'static str, Sum>,
    files: HashMap<FileId, Sum>,
    first: Option<(Seq, Timestamp)>,
    last: Option<(Seq, Timestamp)>,
    /// Sums of the present second, and the most of any.
    second: (i64, Sum),
    peak: Sum,
    damages: Vec<Value>,
}

impl Sums {
    fn add(&mut self, record: &Record) {
        self.all.add(&record.event);
        self.kinds.entry(events::kind(&record.event)).or_default().add(&record.event);
        if let Some(file) = events::files(&record.event).first() {
            self.files.entry(*file).or_default().add(&record.event);
        }
        self.first.get_or_insert((record.seq, record.ts));
        self.last = Some((record.seq, record.ts));
        let second = record.ts.0.div_euclid(1_000_000);
        if second != self.second.0 {
            self.second = (second, Sum::default());
        }
        self.second.1.add(&record.event);
        self.peak.events = self.peak.events.max(self.second.1.events);
        self.peak.written = self.peak.written.max(self.second.1.written);
    }
}

/// Sums by kind and by file (the `top` with the most bytes, then events), rates, the state of the end, damage.
///
/// # Errors
/// As [`walk`].
pub fn stat(store: &Store, part: &Part, top: usize) -> Outcome<Value> {
    let mut sums = Sums::default();
    let mut names = Names::default();
    let mut slots = HashMap::new();
    let ended = walk(store, part, |met| {
        match met {
            Met::Event(record, _) => {
                names.fold(&record.event);
                for file in events::files(&record.event) {
                    if let Some(naming) = weft::index::Naming::of_event(&record.event, file) {
                        slots.entry(file).or_insert_with(Slots::default).fold(&naming);
                    }
                }
                sums.add(record);
            }
            Met::Damage(damage) => sums.damages.push(damage_json(damage)),
        }
        Ok(true)
    })?;
    let mut files: Vec<(FileId, Sum)> = sums.files.iter().map(|(file, sum)| (*file, *sum)).collect();
    files.sort_by_key(|(file, sum)| (std::cmp::Reverse((sum.written, sum.events)), *file));
    let known = store.core.checkpoint().map_err(told)?;
    let path = |file: FileId| {
        let of_checkpoint = || known.as_ref()?.nodes.iter().find(|node| node.file == file)?.slots.first();
        let slot = slots.get(&file).and_then(Slots::newest).or_else(of_checkpoint)?;
        Some(String::from_utf8_lossy(&names.path(slot)).into_owned())
    };
    let sum = |sum: &Sum| json!({ "events": sum.events, "written_bytes": sum.written });
    let files: Vec<Value> = files
        .iter()
        .take(top)
        .map(|(file, of)| {
            let path = path(*file);
            json!({ "file": file.0, "path": path, "events": of.events, "written_bytes": of.written })
        })
        .collect();
    let kinds: BTreeMap<&str, Value> = sums.kinds.iter().map(|(kind, of)| (*kind, sum(of))).collect();
    let secs = match (sums.first, sums.last) {
        (Some((_, first)), Some((_, last))) => (last.0.saturating_sub(first.0) as f64 / 1e6).max(1.0),
        _ => 1.0,
    };
    let edge =
        |edge: Option<(Seq, Timestamp)>| edge.map(|(seq, ts)| json!({ "seq": seq.0, "time": canonical(ts) }));
    let end = ended.end.map(|end| {
        json!({
            "segment": end.place.segment.0,
            "offset": end.place.offset,
            "next_seq": end.place.seq.0,
            "torn": end.torn,
        })
    });
    let bases = if part.check { store.core.check_bases().map_err(told)? } else { Vec::new() };
    Ok(json!({
        "store_id": store.core.store.to_string(),
        "segments": ended.segments,
        "group_bytes": ended.bytes,
        "events": sums.all.events,
        "written_bytes": sums.all.written,
        "first": edge(sums.first),
        "last": edge(sums.last),
        "events_per_sec": sums.all.events as f64 / secs,
        "written_bytes_per_sec": sums.all.written as f64 / secs,
        "peak_events_per_sec": sums.peak.events,
        "peak_written_bytes_per_sec": sums.peak.written,
        "kinds": kinds,
        "files": files,
        "damage": sums.damages,
        "base_damage": bases.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "end": end,
        "checked": part.check,
    }))
}
