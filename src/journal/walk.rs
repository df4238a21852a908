//! Goes through a journal for someone who looks: past damage, from any place, whatever the state of the store. It only
//! reads. Recovery never uses it: what is behind damage is shown here and not trusted there.

use crate::error::Result;
use crate::format::checkpoint::Place;
use crate::journal::reader::{Check, ReadGroup, Reader, Step};
use crate::journal::recovery::judge_tail;
use crate::journal::segment::Segments;
use crate::sync::Arc;
use crate::types::{PAGE, SegmentNo, Seq};

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// The oldest event there is.
    Start,
    /// At or before the group of this event.
    Seq(Seq),
    /// Here.
    Place(Place),
}

/// What stands next.
pub enum Found {
    Group(ReadGroup),
    Damage(Damage),
    End(End),
}

/// Something that should be a group and is none.
#[derive(Clone, Debug)]
pub struct Damage {
    pub segment: SegmentNo,
    /// Byte in the segment's file.
    pub offset: u64,
    /// The event that is missing first.
    pub seq: Seq,
    pub what: String,
}

/// Where the journal ends.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub place: Place,
    /// Something torn stands behind it: of a crash, or of a daemon that is writing right now.
    pub torn: bool,
}

/// A walk.
pub struct Walk {
    segments: Arc<Segments>,
    check: Check,
    reader: Reader,
    /// The end, once there.
    end: Option<End>,
}

impl Walk {
    /// Begins a walk; `None` when there is no segment with a header.
    pub fn begin(segments: Arc<Segments>, from: From, check: Check) -> Result<Option<Walk>> {
        let place = match from {
            From::Place(place) => Some(place),
            _ => start(&segments, from)?,
        };
        Ok(place.map(|place| {
            let reader = Reader::new(Arc::clone(&segments), place, check);
            Walk { segments, check, reader, end: None }
        }))
    }

    /// The next group, or what is wrong; after the end always the end.
    pub fn step(&mut self) -> Found {
        if let Some(end) = self.end {
            return Found::End(end);
        }
        match self.reader.step() {
            Ok(Step::Group(group)) => Found::Group(group),
            Ok(Step::End) => self.at_the_end(),
            Err(error) => self.damage(error.to_string()),
        }
    }

    /// No group, and no successor of this segment. A writer may have been faster than the first look.
    fn at_the_end(&mut self) -> Found {
        let place = self.reader.place();
        if let Ok(Some(next)) = next_segment(&self.segments, place.segment) {
            return match next.segment.0 == place.segment.0 + 1 {
                true => self.step(),
                false => self.damage(format!("the segments up to {} are missing", next.segment.0 - 1)),
            };
        }
        let torn = judge_tail(&self.segments, place);
        if let Ok(Step::Group(group)) = self.reader.step() {
            return Found::Group(group);
        }
        match torn {
            Ok(torn) => {
                let end = End { place, torn };
                self.end = Some(end);
                Found::End(end)
            }
            Err(error) => self.damage(error.to_string()),
        }
    }

    /// Tells of damage, and goes on in the next segment that has a header.
    fn damage(&mut self, what: String) -> Found {
        let place = self.reader.place();
        let damage = Damage { segment: place.segment, offset: place.offset, seq: place.seq, what };
        match next_segment(&self.segments, place.segment) {
            Ok(Some(next)) => self.reader = Reader::new(Arc::clone(&self.segments), next, self.check),
            _ => self.end = Some(End { place, torn: false }),
        }
        Found::Damage(damage)
    }
}

/// The beginning of the first segment after one that has a header.
fn next_segment(segments: &Segments, after: SegmentNo) -> Result<Option<Place>> {
    let later = segments.list()?.into_iter().filter(|number| *number > after);
    Ok(later.filter_map(|number| beginning(segments, number)).next())
}

/// The first group of a segment with a header.
fn beginning(segments: &Segments, number: SegmentNo) -> Option<Place> {
    let header = segments.header(number).ok().flatten()?;
    Some(Place { segment: number, offset: PAGE, chain: header.chain, seq: header.first_seq })
}

/// The last segment that begins at or before what is asked for; the first, if none does.
fn start(segments: &Arc<Segments>, from: From) -> Result<Option<Place>> {
    let mut best = None;
    for number in segments.list()? {
        let Some(place) = beginning(segments, number) else { continue };
        let early = match from {
            From::Seq(seq) => place.seq <= seq,
            From::Start | From::Place(_) => false,
        };
        if early || best.is_none() {
            best = Some(place);
        }
        if !early {
            break;
        }
    }
    Ok(best)
}
