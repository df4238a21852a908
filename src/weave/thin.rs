//! Thinning: woven segments are put together anew, without the versions that no remaining instant needs.
//!
//! - What remains was decided before, durably (Thin events); this only carries it out. So it may stop, fail or be cut
//!   anywhere, and be done again.
//! - The index forgets a version first. Nobody who may look is led to it any more, and bytes that are left are found
//!   here the next time.
//! - The new file is durable under its name, and read back, before an old one goes. Addresses stay; records of events stay
//!   all: names, attributes and `weft log` know nothing of it.
//! - What is not woven yet is woven so: that takes far less room than weaving it whole first, and a full disk may have no
//!   more.

use super::Pace;
use super::found::{Found, Needs};
use super::make::{Packed, Pen, pen, weigh};
use super::source::{Source, Version};
use super::weaver::{Lean, Outcome, UNFINISHED, Weaver};
use crate::error::{Error, Result};
use crate::format::woven::WovenHeader;
use crate::format::woven::contents::{Contents, SegmentPart};
use crate::format::woven::places::WovenPlace;
use crate::index::Index;
use crate::journal::woven::WovenFile;
use crate::types::SegmentNo;
use std::collections::HashMap;

/// A file is made anew when at least one in so many of its bytes is not needed.
const WORTH: u64 = 8;

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

/// What stands in some files, and where.
#[derive(Default)]
struct Inside {
    found: Found,
    places: Places,
}

type Places = HashMap<(SegmentNo, u64), WovenPlace>;

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
        let mut inside = Inside::default();
        let mut parts = Vec::new();
        for file in &opened {
            for part in &file.contents().segments {
                let groups = read_part(file, part, &mut inside)?;
                parts.push(Part { file, part, groups });
                if !pace.go_on(file.len_bytes() / file.contents().segments.len().max(1) as u64) {
                    return Ok(None);
                }
            }
        }
        let Inside { mut found, places } = inside;
        found.versions.sort_unstable();
        let Some(needed) = found.judge(needs, pace)? else { return Ok(None) };
        let (payload_bytes, unneeded_bytes) = found.tally(&needed);
        let before_bytes = opened.iter().map(WovenFile::len_bytes).sum();
        let files_made = opened.len() as u64;
        let mut told = Thinning {
            files: files_made,
            payload_bytes,
            unneeded_bytes,
            before_bytes,
            after_bytes: before_bytes,
        };
        let stays = opened.len() == 1 && !told.is_worth_it();
        if dry {
            if !stays {
                let data_before = opened.iter().map(data_bytes).sum();
                let read = self.reading(&parts, &places);
                let data = data_after(&found, &needed, (files, data_before), read)?;
                // What a sample makes of little to drop may be more than there is.
                told.after_bytes =
                    estimate(&opened, data, &needed, before_bytes - data_before).min(before_bytes);
            }
            return Ok(Some(told));
        }
        if unneeded_bytes > 0 {
            index.forget(&found.unneeded(&needed))?;
        }
        if stays {
            return Ok(Some(told));
        }
        found.keep(needed);
        match self.put_together(files, &parts, (&found, &places), pace)? {
            Some(bytes) => told.after_bytes = bytes,
            None => return Ok(None),
        }
        Ok(Some(told))
    }

    /// Weaves a journal segment, as [`Weaver::step`] does, without the versions that no remaining instant needs.
    pub fn thin_journal(
        &self,
        number: SegmentNo,
        needs: &dyn Needs,
        index: &Index,
        pace: &dyn Pace,
        dry: bool,
    ) -> Result<Option<Thinning>> {
        let mut failed = self.turn.lock();
        // Another may have woven it meanwhile.
        let gone = self.disk.stat("thin.find", &self.segments.path(number))?.is_none();
        if gone || failed.is_damaged(number) {
            return Ok(Some(Thinning::default()));
        }
        if dry {
            return self.would_thin_journal(number, needs, pace);
        }
        let lean = Lean { needs, index };
        let done = match self.weave_noting(number, Some(&lean), pace, &mut failed)? {
            Outcome::Wove(done) => done,
            Outcome::Nothing | Outcome::Stopped => return Ok(None),
        };
        Ok(Some(Thinning {
            files: 1,
            payload_bytes: done.payload_bytes + done.unneeded_bytes,
            unneeded_bytes: done.unneeded_bytes,
            before_bytes: done.journal_bytes,
            after_bytes: done.woven_bytes,
        }))
    }

    fn would_thin_journal(
        &self,
        number: SegmentNo,
        needs: &dyn Needs,
        pace: &dyn Pace,
    ) -> Result<Option<Thinning>> {
        let source = Source::open(&self.segments, number)?;
        let (mut found, mut records_bytes) = (Found::default(), 0);
        let whole = source.groups(&self.segments, pace, |offset, head, records| {
            found.take((number, offset), records, |_| true);
            records_bytes += head.len() as u64;
            Ok(())
        })?;
        if !whole {
            return Ok(None);
        }
        found.versions.sort_unstable();
        let Some(needed) = found.judge(needs, pace)? else { return Ok(None) };
        let (payload_bytes, unneeded_bytes) = found.tally(&needed);
        let (sample, of_all) = found.sample();
        let stay = sample.into_iter().filter(|at| needed.get(*at) == Some(&true));
        let data = weigh(found.at(stay), |version, bytes| source.version(version, bytes))?;
        let data = (data as f64 * of_all) as u64;
        // The heads of groups, as if they could not be packed: they are little beside the data.
        let after_bytes = (data + records_bytes).min(source.end);
        Ok(Some(Thinning { files: 1, payload_bytes, unneeded_bytes, before_bytes: source.end, after_bytes }))
    }

    /// Reads a version from the file that has it.
    fn reading<'a>(
        &'a self,
        parts: &[Part<'a>],
        places: &'a Places,
    ) -> impl Fn(&Version, &mut [u8]) -> Result<()> + 'a {
        let by_segment: HashMap<SegmentNo, &WovenFile> =
            parts.iter().map(|part| (part.part.header.number, part.file)).collect();
        move |version, bytes| {
            let file = by_segment.get(&version.segment);
            let place = places.get(&(version.segment, version.address));
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
        inside: (&Found, &Places),
        pace: &dyn Pace,
    ) -> Result<Option<u64>> {
        let (Some((first, _)), Some((_, last))) = (files.first(), files.last()) else { return Ok(None) };
        let woven = self.segments.woven();
        let path = woven.path(*first, *last);
        let unfinished = path.with_extension(UNFINISHED);
        let header = WovenHeader { store: self.segments.store(), first: *first, last: *last, thinned: true };
        // Its name may be that of the only one that has these segments.
        let check = |made: Option<u64>| match made {
            Some(_) => woven.open_at(&unfinished, *first, *last)?.check().map(|()| made),
            None => Ok(None),
        };
        let made = pen(&*self.disk, &unfinished, &header, pace)
            .and_then(|pen| self.write_parts(pen, parts, inside))
            .and_then(check);
        if !matches!(made, Ok(Some(_))) {
            let _ = self.disk.unlink("weave.drop", &unfinished);
        }
        let Some(bytes) = made? else { return Ok(None) };
        self.disk.rename("thin.name", &unfinished, &path)?;
        self.disk.sync_dir("thin.name", woven.dir())?;
        woven.changed();
        for (old_first, old_last) in files.iter().filter(|range| **range != (*first, *last)) {
            self.disk.unlink("thin.remove", &woven.path(*old_first, *old_last))?;
        }
        self.disk.sync_dir("thin.remove", woven.dir())?;
        woven.changed();
        Ok(Some(bytes))
    }

    fn write_parts(
        &self,
        mut pen: Pen<'_>,
        parts: &[Part<'_>],
        (found, places): (&Found, &Places),
    ) -> Result<Option<u64>> {
        let read = self.reading(parts, places);
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
fn read_part(file: &WovenFile, part: &SegmentPart, inside: &mut Inside) -> Result<Packed> {
    let number = part.header.number;
    for place in file.places_of(part)? {
        inside.places.insert((number, place.address), place);
    }
    let mut packed = Packed::new();
    for piece in file.groups_of(part) {
        let (first, bytes, groups) = piece?;
        for group in groups.all() {
            let (offset, records) = group?;
            let places = &inside.places;
            let there = |version: &Version| places.contains_key(&(number, version.address));
            inside.found.take((number, offset), &records, there);
        }
        packed.push((first, bytes));
    }
    Ok(packed)
}

/// Bytes of the pieces that hold versions.
fn data_bytes(file: &WovenFile) -> u64 {
    file.contents().data.iter().map(|span| u64::from(span.len)).sum()
}

/// What is left of the bytes of versions, `before` in `files`, when only those stay that are `needed`.
///
/// Of a sample both sides are packed, as it stands and as it would: versions differ far more in how they pack than in what
/// of them goes, so the one side alone says little of the bytes.
fn data_after(
    found: &Found,
    needed: &[bool],
    (files, before): (&[Range], u64),
    read: impl Fn(&Version, &mut [u8]) -> Result<()>,
) -> Result<u64> {
    let (mut sample, of_all) = found.sample();
    let stay = sample.iter().copied().filter(|at| needed.get(*at) == Some(&true));
    let would = weigh(found.at(stay), &read)?;
    if of_all <= 1.0 {
        return Ok(would);
    }
    let stands_in = |at: &usize| {
        let segment = found.versions.get(*at).map(|version| version.segment);
        files.partition_point(|(_, last)| Some(*last) < segment)
    };
    sample.sort_by_key(stands_in);
    let stands = weigh(found.at(sample.into_iter()), &read)?;
    Ok((before as f64 * would as f64 / stands.max(1) as f64) as u64)
}

/// Bytes that would be left of some files: `data` for the versions that stay, and of the `rest` all but the places of those
/// that go.
fn estimate(files: &[WovenFile], data: u64, needed: &[bool], rest: u64) -> u64 {
    let all_parts = files.iter().flat_map(|file| &file.contents().segments);
    let places: u64 = all_parts.flat_map(|part| &part.places).map(|place| u64::from(place.span.len)).sum();
    let stay = needed.iter().filter(|needed| **needed).count() as f64;
    let places_after = (places as f64 * stay / needed.len().max(1) as f64) as u64;
    rest.saturating_sub(places) + data + places_after
}
