//! When a statement was said, as logs write it, and what follows from that: a log may be read long after it was written.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use weft::types::Timestamp;

/// What was said longer ago is no news: nobody was there to hear it.
const NEWS_US: i64 = 3_600_000_000;
/// Where clocks are behind all others: of a time without a zone this gives the latest that it can be.
const LAST_OFFSET_SECS: i32 = -12 * 3_600;

/// A statement's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Said {
    pub at: Timestamp,
    /// Something can still be made ready for it, and the forecast hears of it when it comes.
    pub is_news: bool,
}

impl Said {
    /// What a log says of the time, seen from now; nothing: it is taken for the present.
    pub fn new(at: Option<Timestamp>, now: Timestamp) -> Said {
        let at = at.map_or(now, |at| at.min(now));
        Said { at, is_news: now.0.saturating_sub(at.0) < NEWS_US }
    }
}

/// PostgreSQL's, at the beginning of a text: `2026-11-25 02:16:59.164 CET`. What an abbreviation means is asked of the zone
/// that this machine is in.
pub(super) fn postgres(text: &str, here: &TimeZone) -> Option<Timestamp> {
    let mut parts = text.splitn(4, ' ');
    let (date, time, zone) = (parts.next()?, parts.next()?, parts.next()?);
    place(format!("{date}T{time}").parse().ok()?, zone, here)
}

/// MariaDB's in its logs, `261125  2:16:59`, which is without a zone, and MySQL's.
pub(super) fn mariadb(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(at.as_microsecond()));
    }
    let (date, time) = text.split_once(' ')?;
    let (year, month, day) = (date.get(..2)?, date.get(2..4)?, date.get(4..)?);
    let civil = format!("20{year}-{month}-{day}T{:0>8}", time.trim_start());
    place(civil.parse().ok()?, "", &TimeZone::UTC)
}

/// Seconds since 1970, as `SET timestamp=` has them.
pub(super) fn unix(text: &str) -> Option<Timestamp> {
    let secs = text.split(['.', ';']).next()?.parse::<i64>().ok()?;
    secs.checked_mul(1_000_000).map(Timestamp)
}

fn place(civil: DateTime, zone: &str, here: &TimeZone) -> Option<Timestamp> {
    let at = |offset: Offset| offset.to_timestamp(civil).ok();
    let found = match zone {
        "UTC" | "GMT" => at(Offset::UTC),
        _ => match offset(zone) {
            Some(offset) => at(offset),
            None => named(civil, zone, here).or_else(|| at(Offset::from_seconds(LAST_OFFSET_SECS).ok()?)),
        },
    };
    found.map(|at| Timestamp(at.as_microsecond()))
}

/// `+03`, `-0530`, `+05:30`.
fn offset(zone: &str) -> Option<Offset> {
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let digits = digits.replace(':', "");
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes = if minutes.is_empty() { 0 } else { minutes.parse::<i32>().ok()? };
    Offset::from_seconds(sign * (hours.parse::<i32>().ok()? * 3_600 + minutes * 60)).ok()
}

/// An hour that is there twice has two abbreviations.
fn named(civil: DateTime, zone: &str, here: &TimeZone) -> Option<jiff::Timestamp> {
    let both = here.to_ambiguous_timestamp(civil);
    let both = [both.earlier(), both.later()].into_iter().flatten();
    both.into_iter().find(|at| here.to_offset_info(*at).abbreviation() == zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<Timestamp> {
        Some(Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond()))
    }

    #[test]
    fn times_are_read_as_servers_write_them() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (text, expected) in [
            ("2026-11-25 02:16:59.164 UTC", "2026-11-25T02:16:59.164Z"),
            ("2026-11-25 02:16:59.164 GMT", "2026-11-25T02:16:59.164Z"),
            ("2026-11-25 02:16:59 CET [7] LOG:  statement: SELECT 1", "2026-11-25T01:16:59Z"),
            ("2026-07-25 02:16:59 CEST", "2026-07-25T00:16:59Z"),
            // The hour that is there twice.
            ("2026-10-25 02:30:00 CEST", "2026-10-25T00:30:00Z"),
            ("2026-10-25 02:30:00 CET", "2026-10-25T01:30:00Z"),
            ("2026-11-25 02:16:59.164 +0530", "2026-11-24T20:46:59.164Z"),
            ("2026-11-25 02:16:59.164 -03", "2026-11-25T05:16:59.164Z"),
            // Whose zone that is nobody knows: the latest that it can have been.
            ("2026-11-25 02:16:59.164 XYZ", "2026-11-25T14:16:59.164Z"),
        ] {
            assert_eq!(postgres(text, &berlin), at(expected), "{text}");
        }
        for text in ["", "LOG:  statement: x", "2026-11-25 02:16:59", "2026-13-25 02:16:59 UTC", "a b c d"] {
            assert_eq!(postgres(text, &berlin), None, "{text}");
        }
        assert_eq!(mariadb("261125  2:16:59"), at("2026-11-25T14:16:59Z"));
        assert_eq!(mariadb("2026-11-25T02:16:59.123456Z"), at("2026-11-25T02:16:59.123456Z"));
        assert_eq!(mariadb("2026-11-25T02:16:59.123456+01:00"), at("2026-11-25T01:16:59.123456Z"));
        assert_eq!((mariadb(""), mariadb("261125"), mariadb("2611255 2:16:59")), (None, None, None));
        assert_eq!(unix("1700000000;"), at("2023-11-14T22:13:20Z"));
        assert_eq!(unix("1700000000.25;"), at("2023-11-14T22:13:20Z"));
        assert_eq!((unix("DEFAULT;"), unix("9223372036854775807")), (None, None));
    }

    #[test]
    fn what_was_said_long_ago_is_no_news() {
        let now = Timestamp(10 * NEWS_US);
        assert_eq!(Said::new(None, now), Said { at: now, is_news: true });
        assert_eq!(Said::new(Some(Timestamp(now.0 + 5)), now), Said { at: now, is_news: true });
        let early = Timestamp(now.0 - NEWS_US);
        assert_eq!(Said::new(Some(early), now), Said { at: early, is_news: false });
    }
}
