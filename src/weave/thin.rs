//! Thinning: woven segments are put together anew, without the versions that no remaining instant needs.
//!
//! - What remains was decided before, durably (Thin events); this only carries it out. So it may stop, fail or be cut
//!   anywhere, and be done again.
//! - The index forgets a version first. Nobody who may look is led to it any more, and bytes that are left are found
//!   here the next time.
//! - The new file is durable under its name, and read back, before an old one goes. Addresses stay; records of events stay
//!   all: names, attributes and `weft log` know nothing of it.

use super::Pace;
use super::make::{Packed, Pen, pen, weigh};
use super::source::{Version, cut};
use super::weaver::{UNFINISHED, Weaver};
use crate::error::{Error, Result};
use crate::format::event::Event;
use crate::format::woven::WovenHeader;
use crate::format::woven::contents::{Contents, SegmentPart, Span};
use crate::format::woven::places::WovenPlace;
use crate::index::{Index, Unneeded};
use crate::journal::woven::WovenFile;
use crate::types::{FileId, PageNo, SegmentNo, Seq};
use std::collections::HashMap;

/// A file is made anew when at least one in so many of its bytes is not needed.
const WORTH: u64 = 8;

/// Bytes of versions that are packed at most to know what files would take, and how many neighbours at a time.
const WEIGHED: u64 = 16 << 20;
const STRETCH: u64 = 1 << 20;

/// Says which versions are needed.
pub trait Needs {
    /// Of each of the versions of a page, by rising Seq, whether some instant that remains shows bytes of it.
    fn needed(&self, file: FileId, page: PageNo, seqs: &[Seq]) -> Result<Vec<bool>>;
}

/// First and last segment of a woven file.
pub type Range = (SegmentNo, SegmentNo);

/// What thinning did, or would do, to some files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Thinning {
    pub files: u64,
    /// Bytes of writes in them, and of those that no instant needs.
    pub payload_bytes: u64,
    pub unneeded_bytes: u64,
    /// Bytes of the files before and after; of a dry run after is an estimate.
    pub before_bytes: u64,
    pub after_bytes: u64,
}

impl Thinning {
    pub fn add(&mut self, other: &Thinning) {
        self.files += other.files;
        self.payload_bytes += other.payload_bytes;
        self.unneeded_bytes += other.unneeded_bytes;
        self.before_bytes += other.before_bytes;
        self.after_bytes += other.after_bytes;
    }

    fn is_worth_it(&self) -> bool {
        self.unneeded_bytes > 0 && self.unneeded_bytes.saturating_mul(WORTH) >= self.payload_bytes
    }
}

/// One segment as a file has it.
struct Part<'a> {
    file: &'a WovenFile,
    part: &'a SegmentPart,
    groups: Packed,
}

/// What stands in some files.
#[derive(Default)]
struct Found {
    versions: Vec<Version>,
    places: HashMap<(SegmentNo, u64), WovenPlace>,
    /// Range and size of each write.
    writes: HashMap<Seq, (FileId, (u64, u64, u64))>,
}

impl Weaver {
    /// Thins neighbouring woven files into one. `None`: told to stop; nothing has changed but the index. A `dry` run
    /// changes nothing at all.
    pub fn thin(
        &self,
        files: &[Range],
        needs: &dyn Needs,
        index: &Index,
        pace: &dyn Pace,
        dry: bool,
    ) -> Result<Option<Thinning>> {
        let _turn = self.turn.lock();
        let woven = self.segments.woven();
        let opened = files.iter().map(|(first, last)| woven.open_now(*first, *last));
        let opened: Vec<WovenFile> = opened.collect::<Result<_>>()?;
        let mut found = Found::default();
        let mut parts = Vec::new();
        for file in &opened {
            for part in &file.contents().segments {
                let groups = read_part(file, part, &mut found)?;
                parts.push(Part { file, part, groups });
                if !pace.go_on(file.len_bytes() / file.contents().segments.len().max(1) as u64) {
                    return Ok(None);
                }
            }
        }
        found.versions.sort_unstable();
        let Some(needed) = judge(&found.versions, needs, pace)? else { return Ok(None) };
        let mut told = tally(&opened, &found.versions, &needed);
        if dry {
            // What a sample makes of little to drop may be more than there is.
            told.after_bytes =
                self.estimate(&opened, (&parts, &found), &needed, &told)?.min(told.before_bytes);
            return Ok(Some(told));
        }
        if told.unneeded_bytes > 0 {
            index.forget(&unneeded(&found, &needed))?;
        }
        if opened.len() == 1 && !told.is_worth_it() {
            told.after_bytes = told.before_bytes;
            return Ok(Some(told));
        }
        let mut flags = needed.into_iter();
        found.versions.retain(|_| flags.next().unwrap_or(true));
        match self.put_together(files, &parts, &found, pace)? {
            Some(bytes) => told.after_bytes = bytes,
            None => return Ok(None),
        }
        Ok(Some(told))
    }

    /// Bytes that would be left of some files: as they are where nothing is put together, else what a sample of the
    /// versions that stay takes when it is packed, and all else in its share.
    fn estimate(
        &self,
        files: &[WovenFile],
        (parts, found): (&[Part<'_>], &Found),
        needed: &[bool],
        told: &Thinning,
    ) -> Result<u64> {
        if files.len() == 1 && !told.is_worth_it() {
            return Ok(told.before_bytes);
        }
        let (taken, of_all) = sample(&found.versions);
        let stays = found.versions.iter().zip(needed).zip(taken);
        let sampled =
            stays.filter(|((_, needed), taken)| **needed && *taken).map(|((version, _), _)| version);
        let data = (weigh(sampled, self.reading(parts, found))? as f64 * of_all) as u64;
        let lens = |spans: &[Span]| -> u64 { spans.iter().map(|span| u64::from(span.len)).sum() };
        let data_before: u64 = files.iter().map(|file| lens(&file.contents().data)).sum();
        let all_parts = files.iter().flat_map(|file| &file.contents().segments);
        let places: u64 =
            all_parts.flat_map(|part| &part.places).map(|place| u64::from(place.span.len)).sum();
        let stay = needed.iter().filter(|needed| **needed).count() as f64;
        let places_after = (places as f64 * stay / needed.len().max(1) as f64) as u64;
        Ok(told.before_bytes.saturating_sub(data_before + places) + data + places_after)
    }

    /// Reads a version from the file that has it.
    fn reading<'a>(
        &'a self,
        parts: &[Part<'a>],
        found: &'a Found,
    ) -> impl Fn(&Version, &mut [u8]) -> Result<()> + 'a {
        let by_segment: HashMap<SegmentNo, &WovenFile> =
            parts.iter().map(|part| (part.part.header.number, part.file)).collect();
        move |version, bytes| {
            let file = by_segment.get(&version.segment);
            let place = found.places.get(&(version.segment, version.address));
            match (file, place) {
                (Some(file), Some(place)) => self.segments.woven().version(file, *place, bytes),
                _ => Err(Error::corrupt("thin.read", "a version has no place")),
            }
        }
    }

    /// Writes the file that holds all of `parts`, and removes those that did.
    fn put_together(
        &self,
        files: &[Range],
        parts: &[Part<'_>],
        found: &Found,
        pace: &dyn Pace,
    ) -> Result<Option<u64>> {
        let (Some((first, _)), Some((_, last))) = (files.first(), files.last()) else { return Ok(None) };
        let woven = self.segments.woven();
        let path = woven.path(*first, *last);
        let unfinished = path.with_extension(UNFINISHED);
        let header = WovenHeader { store: self.segments.store(), first: *first, last: *last, thinned: true };
        let made =
            pen(&*self.disk, &unfinished, &header, pace).and_then(|pen| self.write_parts(pen, parts, found));
        if !matches!(made, Ok(Some(_))) {
            let _ = self.disk.unlink("weave.drop", &unfinished);
        }
        let Some(bytes) = made? else { return Ok(None) };
        self.disk.rename("thin.name", &unfinished, &path)?;
        self.disk.sync_dir("thin.name", woven.dir())?;
        woven.changed();
        woven.open_now(*first, *last)?.check()?;
        for (old_first, old_last) in files.iter().filter(|range| **range != (*first, *last)) {
            self.disk.unlink("thin.remove", &woven.path(*old_first, *old_last))?;
        }
        self.disk.sync_dir("thin.remove", woven.dir())?;
        woven.changed();
        Ok(Some(bytes))
    }

    fn write_parts(&self, mut pen: Pen<'_>, parts: &[Part<'_>], found: &Found) -> Result<Option<u64>> {
        let read = self.reading(parts, found);
        let Some((data, held)) = pen.versions(&found.versions, read)? else { return Ok(None) };
        let mut held_by: HashMap<SegmentNo, Vec<_>> = HashMap::new();
        for place in held {
            held_by.entry(place.0).or_default().push(place);
        }
        let mut segments = Vec::with_capacity(parts.len());
        for Part { part, groups, .. } in parts {
            let places = pen.places(held_by.remove(&part.header.number).unwrap_or_default())?;
            let (groups, places) = (pen.put_all(groups.clone())?, pen.put_all(places)?);
            segments.push(SegmentPart { header: part.header, end: part.end, groups, places });
        }
        let payload_bytes = found.versions.iter().map(|version| u64::from(version.len)).sum();
        let journal_bytes = parts.iter().map(|part| part.part.end).sum();
        pen.finish(&Contents { segments, data, payload_bytes, journal_bytes }).map(Some)
    }

    /// Removes files whose segments are in another, which has more: a thinning was cut short before.
    pub(super) fn remove_superseded(&self) -> Result<()> {
        let woven = self.segments.woven();
        let ranges = woven.ranges()?;
        let mut removed = false;
        for (first, last) in ranges.iter().filter(|(first, last)| first != last) {
            let inside = |other: &&Range| **other != (*first, *last) && *first <= other.0 && other.1 <= *last;
            let superseded: Vec<&Range> = ranges.iter().filter(inside).collect();
            if superseded.is_empty() {
                continue;
            }
            if !removed {
                // Its name may stand in memory only, if a daemon was killed after it had given it.
                self.disk.sync_dir("thin.name", woven.dir())?;
            }
            if let Err(error) = woven.open_now(*first, *last).and_then(|file| file.check()) {
                tracing::warn!(%error, "a woven file is damaged; the ones it was made of are kept");
                continue;
            }
            for (old_first, old_last) in superseded {
                self.disk.unlink_if_there("thin.remove", &woven.path(*old_first, *old_last))?;
                removed = true;
            }
        }
        if removed { self.disk.sync_dir("thin.remove", woven.dir()) } else { Ok(()) }
    }
}

/// Takes in what a segment holds; its groups pieces, as they stand.
fn read_part(file: &WovenFile, part: &SegmentPart, found: &mut Found) -> Result<Packed> {
    let number = part.header.number;
    for place in file.places_of(part)? {
        found.places.insert((number, place.address), place);
    }
    let mut packed = Packed::new();
    for piece in file.groups_of(part) {
        let (first, bytes, groups) = piece?;
        for group in groups.all() {
            let (offset, records) = group?;
            let from = found.versions.len();
            cut((number, offset), &records, &mut found.versions);
            let cuts = found.versions.split_off(from);
            let places = &found.places;
            let here = cuts.into_iter().filter(|cut| places.contains_key(&(number, cut.address)));
            found.versions.extend(here);
            for record in &records {
                if let Event::Write { file, offset, len, size, .. } = record.event {
                    let end = offset.saturating_add(u64::from(len));
                    found.writes.insert(record.seq, (file, (offset, end, size)));
                }
            }
        }
        packed.push((first, bytes));
    }
    Ok(packed)
}

/// Whether each of the versions is needed; `None` when told to stop.
fn judge(versions: &[Version], needs: &dyn Needs, pace: &dyn Pace) -> Result<Option<Vec<bool>>> {
    let mut needed = Vec::with_capacity(versions.len());
    for (count, chunk) in versions.chunk_by(|a, b| (a.file, a.page) == (b.file, b.page)).enumerate() {
        let Some(Version { file, page, .. }) = chunk.first() else { continue };
        let seqs: Vec<Seq> = chunk.iter().map(|version| version.seq).collect();
        needed.append(&mut needs.needed(*file, *page, &seqs)?);
        if count % 256 == 0 && !pace.go_on(0) {
            return Ok(None);
        }
    }
    match needed.len() == versions.len() {
        true => Ok(Some(needed)),
        false => Err(Error::corrupt("thin.judge", "not every version was judged")),
    }
}

fn tally(files: &[WovenFile], versions: &[Version], needed: &[bool]) -> Thinning {
    let bytes = |wanted: fn(bool) -> bool| -> u64 {
        let judged = versions.iter().zip(needed);
        judged.filter(|(_, needed)| wanted(**needed)).map(|(version, _)| u64::from(version.len)).sum()
    };
    let (payload_bytes, unneeded_bytes) = (bytes(|_| true), bytes(|needed| !needed));
    let before_bytes: u64 = files.iter().map(WovenFile::len_bytes).sum();
    let goes = u128::from(before_bytes) * u128::from(unneeded_bytes) / u128::from(payload_bytes.max(1));
    let after_bytes = before_bytes - goes as u64;
    Thinning { files: files.len() as u64, payload_bytes, unneeded_bytes, before_bytes, after_bytes }
}

/// Which versions a sample takes, and how many times as much all of them are: stretches of neighbours, since these are
/// packed together.
fn sample(versions: &[Version]) -> (Vec<bool>, f64) {
    let bytes = |versions: &[Version]| -> u64 { versions.iter().map(|version| u64::from(version.len)).sum() };
    let all = bytes(versions);
    let every = all.div_ceil(WEIGHED).max(1);
    let (mut taken, mut seen, mut within) = (Vec::with_capacity(versions.len()), 0, 0);
    for page in versions.chunk_by(|a, b| (a.file, a.page) == (b.file, b.page)) {
        let takes = (seen / STRETCH).is_multiple_of(every);
        let here = bytes(page);
        within += if takes { here } else { 0 };
        seen += here;
        taken.resize(taken.len() + page.len(), takes);
    }
    (taken, all as f64 / within.max(1) as f64)
}

/// The writes that are not needed whole.
fn unneeded(found: &Found, needed: &[bool]) -> Vec<Unneeded> {
    let mut pages: HashMap<Seq, (bool, Vec<PageNo>)> = HashMap::new();
    for (version, needed) in found.versions.iter().zip(needed) {
        let (goes, stays) = pages.entry(version.seq).or_default();
        match needed {
            true => stays.push(version.page),
            false => *goes = true,
        }
    }
    let gone = pages.into_iter().filter(|(_, (goes, _))| *goes);
    gone.filter_map(|(seq, (_, needed))| {
        let (file, range) = *found.writes.get(&seq)?;
        Some(Unneeded { file, seq, range, needed })
    })
    .collect()
}
