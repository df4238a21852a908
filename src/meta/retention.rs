//! How long history is kept, and how densely: `every write for 24h, then one per minute for 7d, then one per hour for
//! 30d`. Each span counts from the end of the one before it.

use crate::error::{Error, Result};
use std::fmt;

const OP: &str = "retention";
const SECOND_US: u64 = 1_000_000;
/// Unit, its name after "one per", µs.
const UNITS: [(&str, &str, u64); 5] = [
    ("w", "week", 7 * 86_400 * SECOND_US),
    ("d", "day", 86_400 * SECOND_US),
    ("h", "hour", 3_600 * SECOND_US),
    ("m", "minute", 60 * SECOND_US),
    ("s", "second", SECOND_US),
];
/// What can be kept of history at least: less than this cannot hold what is being written.
const CAP_MIN_BYTES: u64 = 256 << 20;

/// Instants that tiers may keep, all together: each takes memory and a place in every checkpoint.
const INSTANTS_MAX: u64 = 1 << 20;
/// One that is kept for ever has so many instants in two years.
const FOREVER_LEAST_US: u64 = 60 * SECOND_US;

/// A span of history before the one in which every write is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tier {
    /// One instant per so many µs remains.
    pub every_us: u64,
    /// Length of the span in µs; `None`: for ever.
    pub for_us: Option<u64>,
}

/// How much room history may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cap {
    Bytes(u64),
    /// Of the filesystem that STORE stands on, 1 to 100.
    Percent(u64),
}

/// See the head of this file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Every write of so many µs; `None`: for ever.
    pub all_us: Option<u64>,
    pub tiers: Vec<Tier>,
    /// Above it the oldest goes first.
    pub cap: Cap,
    /// Every write of so many µs stays whatever the disk says.
    pub minimum_us: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        let (minute, hour, day) = (60 * SECOND_US, 3_600 * SECOND_US, 86_400 * SECOND_US);
        Retention {
            all_us: Some(day),
            tiers: vec![
                Tier { every_us: minute, for_us: Some(7 * day) },
                Tier { every_us: hour, for_us: Some(30 * day) },
            ],
            cap: Cap::Percent(80),
            minimum_us: hour,
        }
    }
}

impl Retention {
    /// All of history, without end, whatever the disk says.
    pub fn everything() -> Retention {
        Retention { all_us: None, tiers: Vec::new(), cap: Cap::Percent(100), minimum_us: u64::MAX }
    }

    /// Reads the tiers, a cap (`200GiB`, `80%`) and the minimum (`1h`).
    ///
    /// # Errors
    /// `Invalid`: not understood, or impossible; the message says what would do.
    pub fn parse(tiers: &str, cap: &str, minimum: &str) -> Result<Retention> {
        let (all_us, tiers) = parse_tiers(tiers)?;
        let minimum_us = duration(minimum).ok_or_else(|| {
            refused(format!("the minimum {minimum:?} is no span of time: write 30m, 1h, 2d"))
        })?;
        let retention = Retention { all_us, tiers, cap: parse_cap(cap)?, minimum_us };
        retention.check()?;
        Ok(retention)
    }

    fn check(&self) -> Result<()> {
        if let Some(all_us) = self.all_us
            && all_us < self.minimum_us
        {
            return Err(refused(format!(
                "every write for {} is shorter than the minimum of {}: keep every write for longer, or lower the \
                 minimum",
                Span(all_us),
                Span(self.minimum_us)
            )));
        }
        self.check_count()?;
        let mut finer = 0;
        for (at, tier) in self.tiers.iter().enumerate() {
            if tier.every_us <= finer {
                let message =
                    "each tier keeps fewer instants than the one before: one per minute, then one per hour";
                return Err(refused(message.into()));
            }
            if finer != 0 && !tier.every_us.is_multiple_of(finer) {
                return Err(refused(format!(
                    "one per {} does not fit into one per {}: take a multiple of it",
                    Span(tier.every_us),
                    Span(finer)
                )));
            }
            if tier.for_us.is_none() && at + 1 < self.tiers.len() {
                return Err(refused("nothing can follow a tier that is kept for ever".into()));
            }
            finer = tier.every_us;
        }
        Ok(())
    }

    /// Refuses tiers too short for one instant. Not in [`Retention::parse`]: what stands in a STORE's settings is taken.
    ///
    /// # Errors
    /// `Invalid`: which tier, and what would do.
    pub fn check_spans(&self) -> Result<()> {
        let is_short = |tier: &&Tier| tier.for_us.is_some_and(|span| span < tier.every_us);
        self.tiers.iter().find(is_short).map_or(Ok(()), |tier| {
            let (every, span) = (period(tier.every_us), Span(tier.for_us.unwrap_or(0)));
            let least = Span(tier.every_us);
            Err(refused(format!(
                "one per {every} for {span} may keep nothing: make it {least} at least, or leave it out"
            )))
        })
    }

    fn check_count(&self) -> Result<()> {
        if let Some(tier) =
            self.tiers.iter().find(|tier| tier.for_us.is_none() && tier.every_us < FOREVER_LEAST_US)
        {
            return Err(refused(format!(
                "one per {} for ever is more instants than can be kept: one per minute is the most",
                period(tier.every_us)
            )));
        }
        let each = self.tiers.iter().map(|tier| tier.for_us.unwrap_or(0) / tier.every_us.max(1));
        let count = each.fold(0, u64::saturating_add);
        if count > INSTANTS_MAX {
            return Err(refused(format!(
                "these tiers keep {count} instants, and {INSTANTS_MAX} is the most: keep fewer per span, or shorter spans"
            )));
        }
        Ok(())
    }

    /// µs that history reaches back; `None`: for ever.
    pub fn reach_us(&self) -> Option<u64> {
        let spans = self.tiers.iter().map(|tier| tier.for_us);
        spans.chain([self.all_us]).try_fold(0u64, |sum, span| Some(sum.saturating_add(span?)))
    }

    /// The same, but nothing older than `age_us`; the minimum stays.
    #[must_use]
    pub fn within(&self, age_us: u64) -> Retention {
        let age_us = age_us.max(self.minimum_us);
        let all_us = self.all_us.map_or(age_us, |all| all.min(age_us));
        let mut left = age_us - all_us;
        let mut tiers = Vec::new();
        for tier in &self.tiers {
            let for_us = tier.for_us.map_or(left, |span| span.min(left));
            if for_us > 0 {
                tiers.push(Tier { for_us: Some(for_us), ..*tier });
            }
            left -= for_us;
        }
        Retention { all_us: Some(all_us), tiers, ..self.clone() }
    }

    /// Most bytes that history may take, on a filesystem of so many.
    pub fn cap_bytes(&self, total: u64) -> u64 {
        match self.cap {
            Cap::Bytes(bytes) => bytes,
            Cap::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
        }
    }

    /// The tiers, as [`Retention::parse`] reads them.
    pub fn tiers_text(&self) -> String {
        let span = |us: Option<u64>| us.map_or("ever".to_owned(), |us| Span(us).to_string());
        let mut text = format!("every write for {}", span(self.all_us));
        for tier in &self.tiers {
            text.push_str(&format!(", then one per {} for {}", period(tier.every_us), span(tier.for_us)));
        }
        text
    }

    /// The cap, as [`Retention::parse`] reads it.
    pub fn cap_text(&self) -> String {
        match self.cap {
            Cap::Percent(percent) => format!("{percent}%"),
            Cap::Bytes(bytes) if bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
            Cap::Bytes(bytes) => format!("{}MiB", bytes >> 20),
        }
    }

    /// The minimum, as [`Retention::parse`] reads it.
    pub fn minimum_text(&self) -> String {
        Span(self.minimum_us).to_string()
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tiers_text())
    }
}

/// A span of time as people write it, exact: `36h`, `7d`.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = UNITS.iter().skip(1).find(|(_, _, us)| self.0 >= *us && self.0.is_multiple_of(*us));
        match fits {
            Some((unit, _, us)) => write!(f, "{}{unit}", self.0 / us),
            None => write!(f, "{}s", self.0 / SECOND_US),
        }
    }
}

fn period(us: u64) -> String {
    match UNITS.iter().find(|(_, _, unit)| *unit == us) {
        Some((_, name, _)) => (*name).to_owned(),
        None => Span(us).to_string(),
    }
}

fn refused(message: String) -> Error {
    Error::invalid(OP, message)
}

/// µs of `90s`, `5m`, `24h`, `7d`, `2w`; at least a second.
fn duration(text: &str) -> Option<u64> {
    let text = text.trim();
    let (_, _, unit) = UNITS.iter().find(|(unit, _, _)| text.ends_with(unit))?;
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    number.checked_mul(*unit).filter(|us| *us > 0)
}

fn span(text: &str) -> Result<Option<u64>> {
    match text.trim() {
        "ever" => Ok(None),
        other => duration(other).map(Some).ok_or_else(|| {
            refused(format!("{other:?} is no span of time: write 90s, 5m, 24h, 7d, 4w or \"for ever\""))
        }),
    }
}

fn parse_tiers(text: &str) -> Result<(Option<u64>, Vec<Tier>)> {
    let example = "every write for 24h, then one per minute for 7d, then one per hour for 30d";
    let unclear = |part: &str| refused(format!("{part:?} is not understood; an example: \"{example}\""));
    let mut parts = text.split(',').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let all = first.strip_prefix("every write for ").ok_or_else(|| unclear(first))?;
    let all_us = span(all)?;
    let mut tiers = Vec::new();
    for part in parts {
        if all_us.is_none() {
            return Err(refused("nothing can follow \"every write for ever\"".into()));
        }
        let rest = part.strip_prefix("then ").unwrap_or(part);
        let tier = rest.strip_prefix("one per ").and_then(|rest| rest.split_once(" for "));
        let (every, lasts) = tier.ok_or_else(|| unclear(part))?;
        let named = UNITS.iter().find(|(_, name, _)| *name == every.trim()).map(|(_, _, us)| *us);
        let every_us = named.or_else(|| duration(every)).ok_or_else(|| unclear(part))?;
        tiers.push(Tier { every_us, for_us: span(lasts)? });
    }
    Ok((all_us, tiers))
}

fn parse_cap(text: &str) -> Result<Cap> {
    let unclear = || refused(format!("the cap {text:?} is not understood: write 200GiB, 1TiB or 80%"));
    if let Some(percent) = text.trim().strip_suffix('%') {
        return match percent.trim().parse() {
            Ok(0) => Err(refused("a cap of 0% leaves no history at all: write 1% to 100%".into())),
            Ok(percent @ 1..=100) => Ok(Cap::Percent(percent)),
            _ => Err(refused("a cap in percent is one of the filesystem: write 1% to 100%".into())),
        };
    }
    let sizes = [("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (number, shift) = sizes
        .iter()
        .find_map(|(unit, shift)| Some((text.trim().strip_suffix(unit)?.trim(), *shift)))
        .or_else(|| (text.trim() == "0").then_some(("0", 20)))
        .ok_or_else(unclear)?;
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or_else(unclear)?;
    if bytes < CAP_MIN_BYTES {
        return Err(refused(format!(
            "a cap of {text} cannot hold what is being written: write at least {}MiB",
            CAP_MIN_BYTES >> 20
        )));
    }
    Ok(Cap::Bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400 * SECOND_US;

    fn parse(tiers: &str) -> Result<Retention> {
        Retention::parse(tiers, "80%", "1h")
    }

    #[test]
    fn tiers_are_read_and_written_alike() {
        let default = Retention::default();
        assert_eq!(parse(&default.tiers_text()).unwrap(), default);
        assert_eq!(
            default.tiers_text(),
            "every write for 1d, then one per minute for 7d, then one per hour for 30d"
        );
        assert_eq!(default.reach_us(), Some(38 * DAY));
        for text in
            ["every write for ever", "every write for 90m, then one per 5m for 2h, then one per day for ever"]
        {
            let read = parse(text).unwrap();
            assert_eq!((read.tiers_text(), read.reach_us()), (text.to_owned(), None));
        }
        let read = Retention::parse("every write for 2h", "3TiB", "30m").unwrap();
        assert_eq!(
            (read.cap_bytes(7), read.cap_text(), read.minimum_text()),
            (3 << 40, "3072GiB".into(), "30m".into())
        );
        assert_eq!(default.cap_bytes(1000), 800);
    }

    #[test]
    fn what_is_impossible_is_refused_in_one_line() {
        let bad = [
            ("", "80%", "1h", "not understood"),
            ("one per minute for 7d", "80%", "1h", "not understood"),
            ("every write for 10m", "80%", "1h", "shorter than the minimum"),
            ("every write for 0h", "80%", "1h", "no span of time"),
            (
                "every write for 1d, then one per hour for 7d, then one per minute for 7d",
                "80%",
                "1h",
                "fewer",
            ),
            ("every write for 1d, then one per 7m for 7d, then one per hour for 7d", "80%", "1h", "multiple"),
            (
                "every write for 1d, then one per hour for ever, then one per day for 7d",
                "80%",
                "1h",
                "for ever",
            ),
            ("every write for ever, then one per day for 7d", "80%", "1h", "ever"),
            ("every write for 1d, then one per fortnight for 7d", "80%", "1h", "not understood"),
            ("every write for 1d", "0", "1h", "at least"),
            ("every write for 1d", "0GiB", "1h", "at least"),
            ("every write for 1d", "0%", "1h", "no history"),
            ("every write for 1d", "101%", "1h", "1% to 100%"),
            ("every write for 1d", "much", "1h", "not understood"),
            ("every write for 1d", "80%", "soon", "no span of time"),
            ("every write for 99999999999999999999d", "80%", "1h", "no span of time"),
            ("every write for 1d, then one per second for 30d", "80%", "1h", "2592000 instants"),
            ("every write for 1d, then one per second for ever", "80%", "1h", "one per minute is the most"),
        ];
        for (tiers, cap, minimum, why) in bad {
            let error = Retention::parse(tiers, cap, minimum).unwrap_err();
            assert!(error.message.contains(why) && !error.message.contains('\n'), "{tiers} {cap}: {error}");
        }
    }

    #[test]
    fn a_tier_that_is_shorter_than_its_period_is_refused_where_it_is_set() {
        let read = parse("every write for 1d, then one per hour for 1h, then one per week for 1d").unwrap();
        let refused = read.check_spans().unwrap_err();
        assert!(
            refused.message.contains("one per week for 1d") && refused.message.contains("7d"),
            "{refused}"
        );
        assert_eq!(
            parse("every write for 1d, then one per day for ever").unwrap().check_spans().ok(),
            Some(())
        );
        assert!(Retention::default().check_spans().is_ok());
    }

    #[test]
    fn a_shorter_reach_cuts_the_coarsest_first_and_never_the_minimum() {
        let default = Retention::default();
        assert_eq!(
            default.within(10 * DAY).tiers_text(),
            "every write for 1d, then one per minute for 7d, then one per hour for 2d"
        );
        assert_eq!(default.within(3 * DAY).tiers_text(), "every write for 1d, then one per minute for 2d");
        assert_eq!(default.within(DAY / 2).tiers_text(), "every write for 12h");
        assert_eq!(default.within(0).tiers_text(), "every write for 1h");
        let ever = Retention { minimum_us: 3_600 * SECOND_US, ..Retention::everything() };
        assert_eq!(ever.within(2 * DAY).tiers_text(), "every write for 2d");
    }
}
