//! From counters of files to ticks of partitions.

use super::ForecastLimits;
use super::wishes::Gathered;
use crate::engine::Engine;
use crate::forecast::tick::{PARTS, Tick, reach};
use crate::forecast::{Key, Signal};
use crate::lineage::find;
use crate::lineage::partition::{Fork, Layout, Member, member};
use crate::live::activity::Busy;
use crate::types::{FileId, Name, PAGE, RootId, Timestamp};
use std::collections::{BTreeMap, HashMap};

/// All files are looked at again after so many ticks: what went without a trace is found then.
const LIST_EVERY: u32 = 30;
/// Bytes of a segment of a relation (PostgreSQL, RELSEG_SIZE).
const SEGMENT: u64 = 1 << 30;

/// What is known of a file.
struct Known {
    partition: Key,
    /// Where its bytes begin in the partition.
    begin: u64,
    size: u64,
}

/// See the head of this file. Of the size of the tree.
#[derive(Default)]
pub(super) struct Collector {
    files: HashMap<FileId, Known>,
    /// Files of each partition that are known.
    members: HashMap<Key, usize>,
    /// Bytes of each partition.
    pub sizes: HashMap<Key, u64>,
    pub gathered: Gathered,
    ticks: u32,
    last: Option<Timestamp>,
}

fn place(layout: Layout, member: &Member) -> (Key, u64) {
    let segmented = layout == Layout::Postgres && member.fork == Fork::Main && member.segment < 1 << 16;
    let begin = if segmented { member.segment * SEGMENT } else { 0 };
    let name = member.partition.to_string();
    // A partition that MariaDB is making is what it will be: it is filled under this name, and renamed when it is done.
    let making = if layout == Layout::Mariadb { name.strip_suffix("#TMP#") } else { None };
    (Key::from(making.unwrap_or(&name)), begin)
}

impl Collector {
    /// What happened since the last call, by partition, up to `now`.
    pub fn collect(&mut self, engine: &Engine, limits: ForecastLimits, now: Timestamp) -> Vec<Signal> {
        let busy = engine.live.sweep();
        // Time stands still after a small step back of the clock: then the next tick is longer.
        let begun = self.last.unwrap_or(Timestamp(now.0 - limits.how.tick_us));
        let span_us = now.0.saturating_sub(begun.0).max(1);
        self.last = Some(now);
        let layout = (limits.layout)(&top_names(engine));
        let mut gone = Vec::new();
        if self.ticks.is_multiple_of(LIST_EVERY) {
            gone = self.list(engine, layout);
        }
        self.ticks = self.ticks.wrapping_add(1);
        let mut ticks: BTreeMap<Key, Tick> = BTreeMap::new();
        for file in &busy {
            if !file.gone && (file.counters.renamed || !self.files.contains_key(&file.file)) {
                gone.extend(self.find(engine, layout, file));
            }
            let Some(known) = self.files.get_mut(&file.file) else { continue };
            let size = self.sizes.entry(Key::clone(&known.partition)).or_default();
            let now_size = if file.gone { 0 } else { file.size };
            *size = size.saturating_sub(known.size).saturating_add(now_size);
            known.size = now_size;
        }
        for file in &busy {
            let Some(known) = self.files.get(&file.file) else { continue };
            let whole = self.sizes.get(&known.partition).copied().unwrap_or(0);
            let tick = ticks.entry(Key::clone(&known.partition)).or_default();
            add(tick, file, known.begin, whole);
        }
        for file in busy.iter().filter(|file| file.gone) {
            gone.extend(self.forget(file.file));
        }
        // What was renamed may have given its name to another.
        gone.retain(|key| !self.members.contains_key(key));
        let sizes = &self.sizes;
        let activity = ticks.into_iter().map(|(partition, tick)| {
            let size = sizes.get(&partition).copied().unwrap_or(0);
            let tick = Tick { end: now, span_us, size, ..tick };
            self.gathered.add(&partition, &tick);
            Signal::Activity { partition, tick }
        });
        let mut signals: Vec<Signal> = activity.collect();
        gone.iter().for_each(|key| self.gathered.forget(key));
        signals.extend(gone.into_iter().map(|partition| Signal::Gone { partition, at: now }));
        signals
    }

    /// Looks at all files; the partitions that have none any more.
    fn list(&mut self, engine: &Engine, layout: Layout) -> Vec<Key> {
        let roots: Vec<Name> = engine.roots().unwrap_or_default().into_iter().map(|root| root.name).collect();
        // A tree that cannot be looked at now is looked at later.
        let Ok(all) = find::all(engine, layout, &roots) else { return Vec::new() };
        let before = std::mem::take(&mut self.sizes);
        self.files.clear();
        self.members.clear();
        for (partition, parts) in all {
            let root = partition.root.clone();
            for part in parts {
                let (partition, begin) = place(layout, &member(layout, &root, &part.path));
                *self.sizes.entry(Key::clone(&partition)).or_default() += part.attr.size;
                self.know(part.file, Known { partition, begin, size: part.attr.size });
            }
        }
        before.into_keys().filter(|key| !self.sizes.contains_key(key)).collect()
    }

    /// Finds out what a file belongs to that is new, or has another name; the partition that it was the last of.
    fn find(&mut self, engine: &Engine, layout: Layout, file: &Busy) -> Option<Key> {
        let found = engine.paths(&[file.file]).ok()?;
        let (_, path) = found.first()?;
        let root = root_name(engine, file.root);
        let (partition, begin) = place(layout, &member(layout, &root, path));
        self.know(file.file, Known { partition, begin, size: 0 })
    }

    /// The partition that the file was the last of.
    fn know(&mut self, file: FileId, known: Known) -> Option<Key> {
        *self.members.entry(Key::clone(&known.partition)).or_default() += 1;
        let before = self.files.insert(file, known)?;
        if self.leave(&before.partition) {
            self.sizes.remove(&before.partition);
            return Some(before.partition);
        }
        if let Some(size) = self.sizes.get_mut(&before.partition) {
            *size = size.saturating_sub(before.size);
        }
        None
    }

    /// One file less; whether it was the last.
    fn leave(&mut self, partition: &Key) -> bool {
        let Some(members) = self.members.get_mut(partition) else { return true };
        *members = members.saturating_sub(1);
        let is_last = *members == 0;
        if is_last {
            self.members.remove(partition);
        }
        is_last
    }

    /// A file is gone; its partition, if it was the last.
    fn forget(&mut self, file: FileId) -> Option<Key> {
        let known = self.files.remove(&file)?;
        if !self.leave(&known.partition) {
            return None;
        }
        self.sizes.remove(&known.partition);
        Some(known.partition)
    }
}

fn top_names(engine: &Engine) -> Vec<Name> {
    let entries = engine.read_dir(FileId::ROOT, None, 1_024).unwrap_or_default();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn root_name(engine: &Engine, root: RootId) -> Name {
    let roots = engine.roots().unwrap_or_default();
    roots.into_iter().find(|info| info.root == root).map(|info| info.name).unwrap_or_default()
}

/// Adds the work on one file to the tick of its partition, which is `whole` bytes now.
fn add(tick: &mut Tick, file: &Busy, begin: u64, whole: u64) {
    let counters = &file.counters;
    tick.writes += counters.writes;
    tick.bytes = tick.bytes.saturating_add(counters.bytes);
    tick.appends += counters.appends;
    tick.overwrites += counters.writes - counters.appends.min(counters.writes);
    tick.pages += counters.pages.count();
    tick.growth = tick.growth.saturating_add(counters.growth);
    tick.reads += counters.reads;
    tick.read_bytes = tick.read_bytes.saturating_add(counters.read_bytes);
    tick.fsyncs += counters.fsyncs;
    let part = (reach(whole) / PARTS).max(PAGE);
    for index in 0..PARTS {
        let (start, end) = (index * part, (index + 1) * part);
        // Of this file only: what lies before it in the partition is of another.
        let (start, end) = (start.max(begin) - begin, end.max(begin) - begin);
        if counters.pages.count_in(start / PAGE, end / PAGE) > 0 {
            tick.touched |= 1 << index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::activity::Counters;

    #[test]
    fn a_segment_is_touched_where_it_stands_in_its_partition() {
        let of = |path: &str| place(Layout::Postgres, &member(Layout::Postgres, b"", path.as_bytes()));
        let (first, second, map) = (of("base/5/100"), of("base/5/100.1"), of("base/5/100_fsm"));
        assert!(first.0 == second.0 && first.0 == map.0);
        assert_eq!((first.1, second.1, map.1), (0, SEGMENT, 0));
        let touched = |begin: u64, bytes: (u64, u64)| {
            let mut counters = Counters::default();
            counters.pages.write(bytes.0, bytes.1);
            let (file, root) = (FileId(1), RootId(0));
            let busy = Busy { file, root, counters, size: SEGMENT, gone: false };
            let mut tick = Tick::default();
            // Two segments: each of the 64 parts has 32 MiB of them.
            add(&mut tick, &busy, begin, 2 * SEGMENT);
            tick.touched
        };
        assert_eq!(touched(0, (0, PAGE)), 1);
        assert_eq!(touched(0, (SEGMENT - PAGE, SEGMENT)), 1 << 31);
        assert_eq!(touched(second.1, (0, PAGE)), 1 << 32);
        assert_eq!(touched(second.1, (SEGMENT - PAGE, SEGMENT)), 1 << 63);
    }

    #[test]
    fn a_partition_that_is_being_made_counts_as_what_it_will_be() {
        let key = |layout, path: &str| place(layout, &member(layout, b"", path.as_bytes())).0;
        let done = key(Layout::Mariadb, "shop/orders#P#p6.ibd");
        assert_eq!(&*done, "shop/orders#P#p6");
        assert_eq!(key(Layout::Mariadb, "shop/orders#P#p6#TMP#.ibd"), done);
        assert_eq!(&*key(Layout::Postgres, "base/5/p6#TMP#"), "base/5/p6#TMP#", "elsewhere it is a name");
    }
}
