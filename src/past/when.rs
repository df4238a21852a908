//! L6: times and view names as people write them.
//!
//! - Pure: the present and the zone come in as arguments; no input panics.
//! - A *time* (`weft at TIME`) may be relative to now. A *view name* (`@ts=...`) may not: a name that moves would mix
//!   instants under a tool that walks its source path once per file.
//! - Every instant has one canonical name, in UTC with microseconds; other spellings are aliases of it.
//! - A local time that a zone's clocks show twice, or never, is refused, and both candidates are offered.

use crate::error::{Error, Result};
use crate::types::{Seq, Timestamp};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// A point of history as asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Instant {
    Time(Timestamp),
    Seq(Seq),
}

impl Instant {
    /// The name of this instant's view: `@ts=2026-11-23T10:00:00.000000Z` or `@seq=42`.
    pub fn view_name(self) -> String {
        match self {
            Instant::Time(ts) => format!("@ts={}", canonical(ts)),
            Instant::Seq(seq) => format!("@seq={seq}"),
        }
    }
}

/// A time as read from a command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct When {
    pub instant: Instant,
    /// The text was relative (`-5m`, `now`, `10:00`): it means another instant when read later.
    pub moving: bool,
    /// It was counted back from now, by so many µs of time that passed (`-5m`, `now`).
    pub ago_us: Option<i64>,
}

/// What a name in the root of a mount says about views.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ViewName {
    /// An ordinary name.
    NotAView,
    Canonical(Instant),
    /// Another spelling; a symlink to this canonical name stands for it.
    Alias(String),
    /// A named restore point, if there is one of this name.
    Tag(String),
    /// Begins like a view name and is none; the reason.
    Malformed(String),
}

const OP: &str = "time.parse";
const FIRST_US: i64 = Timestamp::FIRST.0;
const DAY_US: i64 = 86_400_000_000;
const RESERVED: [&[u8]; 3] = [b"@ts=", b"@seq=", b"@tag="];

/// Whether a name in the root of a mount is reserved for views.
pub fn is_reserved(name: &[u8]) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix))
}

/// The zone of a configured name: `UTC`, or an IANA name such as `Europe/Berlin`.
///
/// # Errors
/// `Invalid` when the system's time zone database does not know it.
pub fn zone(name: &str) -> Result<TimeZone> {
    if name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|cause| {
        Error::invalid(
            "time.zone",
            format!("unknown time zone {name:?} ({cause}); use an IANA name such as Europe/Berlin, or UTC"),
        )
    })
}

/// The one spelling of a time: `2026-11-23T10:00:00.000000Z`.
pub fn canonical(ts: Timestamp) -> String {
    ts.to_string()
}

/// Reads a time as given to `weft at`: absolute (with or without offset), time of day, relative, `now`, `seq=N`.
///
/// # Errors
/// `Invalid`, with what would be understood.
pub fn parse_time(text: &str, now: Timestamp, zone: &TimeZone) -> Result<When> {
    let text = text.trim();
    let bare = text.strip_prefix('@').unwrap_or(text);
    if let Some(digits) = bare.strip_prefix("seq=") {
        return parse_seq(digits).map(|seq| fixed(Instant::Seq(seq)));
    }
    let text = bare.strip_prefix("ts=").unwrap_or(text);
    if text.eq_ignore_ascii_case("now") {
        return Ok(ago(now, 0));
    }
    if let Some(span) = text.strip_prefix('-') {
        return parse_span(span, text)
            .and_then(|us| before(now, us).map(|at| ago(at, us)).ok_or_else(|| out_of_range(text)));
    }
    if is_time_of_day(text.as_bytes()) {
        return time_of_day(text, now, zone).map(moving);
    }
    absolute(text, zone).map(|ts| fixed(Instant::Time(ts)))
}

/// Reads a name looked up in the root of a mount. Only absolute times and sequence numbers name a view.
pub fn parse_view_name(name: &[u8], zone: &TimeZone) -> ViewName {
    if !is_reserved(name) {
        return ViewName::NotAView;
    }
    let Ok(text) = std::str::from_utf8(name) else {
        return ViewName::Malformed("a view name is ASCII".into());
    };
    if let Some(tag) = text.strip_prefix("@tag=") {
        return ViewName::Tag(tag.to_owned());
    }
    let instant = match text.strip_prefix("@seq=") {
        Some(digits) => parse_seq(digits).map(Instant::Seq),
        None => absolute(text.strip_prefix("@ts=").unwrap_or(text), zone).map(Instant::Time),
    };
    match instant {
        Err(cause) => ViewName::Malformed(cause.message),
        Ok(instant) if instant.view_name() == text => ViewName::Canonical(instant),
        Ok(instant) => ViewName::Alias(instant.view_name()),
    }
}

fn fixed(instant: Instant) -> When {
    When { instant, moving: false, ago_us: None }
}

fn moving(ts: Timestamp) -> When {
    When { instant: Instant::Time(ts), moving: true, ago_us: None }
}

fn ago(ts: Timestamp, us: i64) -> When {
    When { ago_us: Some(us), ..moving(ts) }
}

fn before(now: Timestamp, us: i64) -> Option<Timestamp> {
    now.0.checked_sub(us).filter(|us| *us >= FIRST_US).map(Timestamp)
}

fn parse_seq(digits: &str) -> Result<Seq> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().map(Seq).ok_or_else(|| {
        Error::invalid(OP, format!("{digits:?} is not a sequence number: use digits, as in seq=1042"))
    })
}

/// `1h30m` as microseconds.
fn parse_span(span: &str, text: &str) -> Result<i64> {
    let malformed =
        || Error::invalid(OP, format!("{text:?} is not a span of time: use -5m, -90s, -2h, -1d or -1h30m"));
    let mut total: i64 = 0;
    let mut rest = span;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (count, tail) = rest.split_at(digits);
        let mut tail = tail.chars();
        let unit: i64 = match tail.next() {
            Some('s') => 1_000_000,
            Some('m') => 60_000_000,
            Some('h') => 3_600_000_000,
            Some('d') => DAY_US,
            Some('w') => 7 * DAY_US,
            _ => return Err(malformed()),
        };
        let count: i64 = count.parse().map_err(|_| malformed())?;
        let part = count.checked_mul(unit).ok_or_else(|| out_of_range(text))?;
        total = total.checked_add(part).ok_or_else(|| out_of_range(text))?;
        rest = tail.as_str();
    }
    if span.is_empty() { Err(malformed()) } else { Ok(total) }
}

fn out_of_range(text: &str) -> Error {
    Error::invalid(OP, format!("{text:?} is outside the years 0000 to 9999"))
}

fn not_a_time(text: &str) -> Error {
    Error::invalid(
        OP,
        format!(
            "{text:?} is not a time: use 2026-11-23T10:00:00Z, 20261123T100000Z, 2026-11-23T10:00 (configured zone), \
             10:00, -5m, now, seq=N or tag:NAME"
        ),
    )
}

/// Text being read from the left; every step may fail, none panics.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn digits(&mut self, count: usize) -> Option<i16> {
        let (head, tail) = self.0.split_at_checked(count)?;
        let value = head.iter().try_fold(0i16, |value, byte| {
            byte.is_ascii_digit().then(|| value * 10 + i16::from(byte - b'0'))
        })?;
        self.0 = tail;
        Some(value)
    }

    fn two(&mut self) -> Option<i8> {
        self.digits(2).and_then(|value| i8::try_from(value).ok())
    }

    fn skip(&mut self, choice: &[u8]) -> Option<u8> {
        let (first, tail) = self.0.split_first()?;
        choice.contains(first).then(|| self.0 = tail)?;
        Some(*first)
    }

    fn date(&mut self) -> Option<Date> {
        let year = self.digits(4)?;
        let extended = self.skip(b"-").is_some();
        let month = self.two()?;
        if extended {
            self.skip(b"-")?;
        }
        let day = self.two()?;
        Date::new(year, month, day).ok()
    }

    /// `10:00`, `10:00:00.25` or `100000.25`; digits beyond the microsecond are cut off.
    fn time(&mut self) -> Option<Time> {
        let hour = self.two()?;
        let extended = self.skip(b":").is_some();
        let minute = self.two()?;
        let more =
            if extended { self.skip(b":").is_some() } else { self.0.first().is_some_and(u8::is_ascii_digit) };
        let second = if more { self.two()? } else { 0 };
        let micros = if more { self.fraction()? } else { 0 };
        Time::new(hour, minute, second, micros * 1_000).ok()
    }

    fn fraction(&mut self) -> Option<i32> {
        if self.skip(b".,").is_none() {
            return Some(0);
        }
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, tail) = self.0.split_at_checked(count).filter(|_| count > 0)?;
        self.0 = tail;
        let kept = digits.iter().chain(std::iter::repeat(&b'0')).take(6);
        Some(kept.fold(0, |value, digit| value * 10 + i32::from(digit - b'0')))
    }

    /// The offset at the end: `Some(None)` when there is none.
    fn offset(&mut self) -> Option<Option<Offset>> {
        let offset = match self.skip(b"Zz+-") {
            None => None,
            Some(b'Z' | b'z') => Some(Offset::UTC),
            Some(sign) => {
                let hours = i32::from(self.two()?);
                let colon = self.skip(b":").is_some();
                let minutes = if colon || !self.0.is_empty() { i32::from(self.two()?) } else { 0 };
                let seconds = hours * 3_600 + minutes * 60;
                let seconds = if sign == b'-' { -seconds } else { seconds };
                Some(Offset::from_seconds(seconds).ok().filter(|_| minutes < 60 && hours < 24)?)
            }
        };
        self.0.is_empty().then_some(offset)
    }
}

fn is_time_of_day(text: &[u8]) -> bool {
    text.get(2) == Some(&b':')
}

fn absolute(text: &str, zone: &TimeZone) -> Result<Timestamp> {
    let mut cursor = Cursor(text.as_bytes());
    let read = (|| {
        let date = cursor.date()?;
        cursor.skip(b"Tt ")?;
        let time = cursor.time()?;
        Some((date.to_datetime(time), cursor.offset()?))
    })();
    let (civil, offset) = read.ok_or_else(|| not_a_time(text))?;
    place(text, civil, offset, zone)
}

/// The most recent past moment at which a clock showed this time of day.
fn time_of_day(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    let mut cursor = Cursor(text.as_bytes());
    let read = cursor.time().and_then(|time| Some((time, cursor.offset()?)));
    let (time, offset) = read.ok_or_else(|| not_a_time(text))?;
    let clock = offset.map_or_else(|| zone.clone(), Offset::to_time_zone);
    let present = jiff::Timestamp::from_microsecond(now.0).map_err(|_| out_of_range(text))?;
    let today = clock.to_datetime(present).date();
    let at = place(text, today.to_datetime(time), offset, zone)?;
    if at <= now {
        return Ok(at);
    }
    let yesterday = today.yesterday().map_err(|_| out_of_range(text))?;
    place(text, yesterday.to_datetime(time), offset, zone)
}

/// Puts a civil time on the time line.
fn place(text: &str, civil: DateTime, offset: Option<Offset>, zone: &TimeZone) -> Result<Timestamp> {
    let offset = match offset {
        Some(offset) => offset,
        None => match zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Gap { before, after } => {
                return Err(two_candidates("never happened", civil, before, after, zone));
            }
            AmbiguousOffset::Fold { before, after } => {
                return Err(two_candidates("happened twice", civil, before, after, zone));
            }
        },
    };
    offset
        .to_timestamp(civil)
        .map(|ts| Timestamp(ts.as_microsecond()))
        .ok()
        .filter(|ts| ts.0 >= FIRST_US)
        .ok_or_else(|| out_of_range(text))
}

fn two_candidates(what: &str, civil: DateTime, before: Offset, after: Offset, zone: &TimeZone) -> Error {
    let zone = zone.iana_name().unwrap_or("the configured zone");
    let (before, after) = (offset_text(before), offset_text(after));
    Error::invalid(
        OP,
        format!("{civil} {what} in {zone} (its clocks were changed): say {civil}{before} or {civil}{after}"),
    )
}

fn offset_text(offset: Offset) -> String {
    let seconds = offset.seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests;
