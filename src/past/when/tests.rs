//! Times and names as people write them, and what is made of each.

use super::*;
use proptest::prelude::*;

/// 2026-11-23T12:00:00Z.
const NOW: Timestamp = Timestamp(1_795_435_200_000_000);

fn berlin() -> TimeZone {
    zone("Europe/Berlin").unwrap()
}

fn at(text: &str, zone: &TimeZone) -> String {
    match parse_time(text, NOW, zone) {
        Ok(When { instant, .. }) => instant.view_name(),
        Err(cause) => format!("error: {}", cause.message),
    }
}

#[test]
fn absolute_forms_mean_the_same_instant() {
    for text in [
        "2026-11-23T10:00:00Z",
        "2026-11-23T10:00:00.000000Z",
        "2026-11-23t10:00:00z",
        "2026-11-23 10:00:00Z",
        "2026-11-23T10:00Z",
        "20261123T100000Z",
        "20261123T1000Z",
        "20261123 100000.000Z",
        "2026-11-23T12:00:00+02:00",
        "2026-11-23T12:00:00+0200",
        "2026-11-23T12:00+02",
        "2026-11-23T05:30:00-04:30",
        "  2026-11-23T10:00:00Z ",
        "ts=2026-11-23T10:00:00Z",
        "@ts=2026-11-23T10:00:00Z",
        "2026-11-23T10:00:00",
    ] {
        assert_eq!(at(text, &TimeZone::UTC), "@ts=2026-11-23T10:00:00.000000Z", "{text}");
    }
    assert_eq!(at("2026-11-23T10:00:00", &berlin()), "@ts=2026-11-23T09:00:00.000000Z");
}

#[test]
fn fractions_are_cut_to_microseconds() {
    for (text, micros) in [
        ("10:00:00.5Z", "500000"),
        ("10:00:00,25Z", "250000"),
        ("10:00:00.1234569Z", "123456"),
        ("10:00:00.000000999999999999Z", "000000"),
    ] {
        let want = format!("@ts=2026-11-23T10:00:00.{micros}Z");
        assert_eq!(at(&format!("2026-11-23T{text}"), &TimeZone::UTC), want, "{text}");
        assert_eq!(at(text, &TimeZone::UTC), want, "{text}");
    }
}

#[test]
fn a_time_of_day_is_the_most_recent_past_one() {
    for (text, zone, want) in [
        ("10:00Z", TimeZone::UTC, "2026-11-23T10:00:00"),
        ("12:00", TimeZone::UTC, "2026-11-23T12:00:00"),
        ("12:00:01", TimeZone::UTC, "2026-11-22T12:00:01"),
        ("12:30", berlin(), "2026-11-23T11:30:00"),
        ("13:30", berlin(), "2026-11-22T12:30:00"),
        ("13:30Z", berlin(), "2026-11-22T13:30:00"),
        ("01:00+14:00", TimeZone::UTC, "2026-11-23T11:00:00"),
    ] {
        assert_eq!(at(text, &zone), format!("@ts={want}.000000Z"), "{text}");
        assert!(parse_time(text, NOW, &zone).unwrap().moving);
    }
}

#[test]
fn relative_times_count_back_from_now() {
    for (text, want) in [
        ("now", "2026-11-23T12:00:00"),
        ("-5m", "2026-11-23T11:55:00"),
        ("-90s", "2026-11-23T11:58:30"),
        ("-2h", "2026-11-23T10:00:00"),
        ("-1d", "2026-11-22T12:00:00"),
        ("-1w", "2026-11-16T12:00:00"),
        ("-1h30m", "2026-11-23T10:30:00"),
    ] {
        assert_eq!(at(text, &TimeZone::UTC), format!("@ts={want}.000000Z"), "{text}");
    }
}

#[test]
fn sequence_numbers() {
    for text in ["@seq=7", "seq=7", "seq=007"] {
        assert_eq!(at(text, &TimeZone::UTC), "@seq=7", "{text}");
    }
}

#[test]
fn nonsense_is_refused_with_a_hint() {
    for text in [
        "",
        "yesterday",
        "-",
        "-5",
        "-m",
        "-5x",
        "--5m",
        "+5m",
        "-99999999999999d",
        "-9000000w",
        "10:0",
        "25:00",
        "10:60",
        "2026-11-23",
        "2026-13-01T00:00Z",
        "2026-02-30T00:00Z",
        "2026-11-23T10Z",
        "2026-11-23T10:00:00.Z",
        "2026-11-23T10:00:00Zjunk",
        "2026-11-23T10:00:00+25:00",
        "2026-11-23T10:00:00+02:75",
        "2026-1123T10:00Z",
        "0000-01-01T00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "seq=",
        "seq=-1",
        "seq=+1",
        "seq=99999999999999999999",
        "12026-11-23T10:00Z",
        "２026-11-23T10:00Z",
    ] {
        let answer = at(text, &TimeZone::UTC);
        assert!(answer.starts_with("error: "), "{text:?} gave {answer}");
    }
}

#[test]
fn local_times_that_are_not_one_instant_offer_both() {
    let twice = at("2026-10-25T02:30", &berlin());
    assert!(twice.contains("twice") && twice.contains("Europe/Berlin"), "{twice}");
    assert!(twice.contains("2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00"), "{twice}");
    let never = at("2026-03-29T02:30", &berlin());
    assert!(never.contains("never") && never.contains("+01:00") && never.contains("+02:00"), "{never}");
    assert_eq!(at("2026-10-25T02:30+02:00", &berlin()), "@ts=2026-10-25T00:30:00.000000Z");
}

#[test]
fn view_names() {
    let canonical = "@ts=2026-11-23T10:00:00.000000Z";
    let time = Instant::Time(Timestamp(NOW.0 - 2 * 3_600_000_000));
    let name = |text: &str| parse_view_name(text.as_bytes(), &TimeZone::UTC);
    assert_eq!(name(canonical), ViewName::Canonical(time));
    assert_eq!(name("@seq=7"), ViewName::Canonical(Instant::Seq(Seq(7))));
    assert_eq!(name("@seq=007"), ViewName::Alias("@seq=7".into()));
    for text in [
        "@ts=2026-11-23T12:00:00+02:00",
        "@ts=20261123T100000Z",
        "@ts=2026-11-23T10:00:00",
        "@ts=2026-11-23T10:00:00Z",
        "@ts=2026-11-23T10:00:00.0000000Z",
        "@ts=2026-11-23 10:00:00Z",
    ] {
        assert_eq!(name(text), ViewName::Alias(canonical.into()), "{text}");
    }
    for text in ["@ts=", "@ts=-5m", "@ts=now", "@ts=10:00Z", "@ts= 2026-11-23T10:00:00Z", "@seq=", "@seq=x"] {
        assert!(matches!(name(text), ViewName::Malformed(_)), "{text}");
    }
    for text in ["", "@", "@t", "ts=2026-11-23T10:00:00Z", "@TS=2026", "@seqs", "base"] {
        assert_eq!(name(text), ViewName::NotAView, "{text}");
    }
    assert!(matches!(parse_view_name(b"@ts=\xff", &TimeZone::UTC), ViewName::Malformed(_)));
}

#[test]
fn zones_come_by_name() {
    assert_eq!(zone("utc").unwrap(), TimeZone::UTC);
    assert!(zone("Mars/Olympus").unwrap_err().message.contains("IANA"));
}

proptest! {
    #[test]
    fn canonical_names_round_trip(us in FIRST_US..=jiff::Timestamp::MAX.as_microsecond()) {
        let name = Instant::Time(Timestamp(us)).view_name();
        prop_assert_eq!(parse_view_name(name.as_bytes(), &TimeZone::UTC), ViewName::Canonical(Instant::Time(Timestamp(us))));
    }

    #[test]
    fn canonical_never_panics(us: i64) {
        prop_assert_eq!(canonical(Timestamp(us)).len(), 27);
    }

    #[test]
    fn aliases_lead_to_canonical_names(us in 0i64..4_000_000_000_000_000, hours in -12i32..=14) {
        let local = Timestamp(us + i64::from(hours) * 3_600_000_000);
        let text = format!("@ts={}{hours:+03}:00", canonical(local).trim_end_matches('Z'));
        prop_assert_eq!(
            parse_view_name(text.as_bytes(), &TimeZone::UTC),
            ViewName::Alias(Instant::Time(Timestamp(us)).view_name())
        );
    }

    #[test]
    fn nothing_panics(text in "\\PC*", name: Vec<u8>, now: i64) {
        let _ = parse_time(&text, Timestamp(now), &TimeZone::UTC);
        let _ = parse_view_name(&name, &TimeZone::UTC);
    }

    #[test]
    fn nothing_near_the_grammar_panics(text in "(@ts=)?[-+0-9TtZz:., ]{0,40}", now: i64) {
        let berlin = berlin();
        let _ = parse_time(&text, Timestamp(now), &berlin);
        let _ = parse_view_name(text.as_bytes(), &berlin);
    }
}
