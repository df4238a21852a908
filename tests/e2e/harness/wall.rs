//! Wall-clock instants as Weft's command line takes them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wall(pub i64);

impl Wall {
    pub fn now() -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        Wall(since.as_micros() as i64)
    }

    pub fn plus_us(self, us: i64) -> Wall {
        Wall(self.0 + us)
    }

    fn stamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).expect("a time in range")
    }

    /// `2026-11-23T10:00:00.000000Z`: the canonical form.
    pub fn canonical(self) -> String {
        self.stamp().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }

    /// `20261123T100000.000000Z`: without colons.
    pub fn basic(self) -> String {
        self.stamp().strftime("%Y%m%dT%H%M%S.%6fZ").to_string()
    }

    /// `2026-11-23T12:00:00.000000+02:00`: the same instant, two hours east.
    pub fn two_hours_east(self) -> String {
        let there = self.stamp().to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(2)));
        there.strftime("%Y-%m-%dT%H:%M:%S.%6f+02:00").to_string()
    }
}
