//! The forecast on a real mount: what is counted, what is told, what a crash leaves of it.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use weft_e2e::steered::Steered;
use weft_e2e::{Mount, Place, cmd};

/// A mount that counts each second.
fn mounted(place: &Place, clock: &Steered) -> Mount {
    let mount = Mount::new(place).clock(clock);
    fs::create_dir(&mount.store).unwrap();
    fs::write(mount.store.join("weft.toml"), "forecast_tick_secs = 1\nforecast_step_secs = 1\n").unwrap();
    mount.mount()
}

fn json(mount: &Mount, args: &[&str]) -> Value {
    let text = cmd::run(mount.weft().args(args).arg(&mount.point).arg("--json")).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Writes pages of `name` until the forecast names it.
fn write_until_known(mount: &Mount, name: &str) -> Value {
    let file =
        fs::File::options().create(true).write(true).truncate(false).open(mount.point.join(name)).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    for page in 0.. {
        file.write_all_at(&[page as u8; 8192], page % 64 * 8192).unwrap();
        file.sync_all().unwrap();
        let told = json(mount, &["forecast"]);
        if told["partitions"].to_string().contains(name) {
            return told;
        }
        assert!(Instant::now() < until, "{name} is in no forecast: {told}");
        std::thread::sleep(Duration::from_millis(200));
    }
    unreachable!("it writes on until then")
}

/// Forecasts for a minute are scored when it has passed, which the clock says: beside every baseline, on the same cases.
fn are_scored(mount: &Mount, clock: &Steered) {
    let written = |told: &Value| -> Vec<Value> {
        let lines = told["scores"].as_array().cloned().unwrap();
        lines.into_iter().filter(|line| line["what"] == "write" && line["horizon_secs"] == 60).collect()
    };
    assert_eq!(written(&json(mount, &["forecast", "scores"])), Vec::<Value>::new(), "nothing is due yet");
    // The first may have been made before there was a model.
    let lines = (1..30)
        .find_map(|minutes| {
            write_until_known(mount, "orders");
            clock.set_us(minutes * 61_000_000);
            write_until_known(mount, "orders");
            Some(written(&json(mount, &["forecast", "scores"]))).filter(|lines| !lines.is_empty())
        })
        .expect("nothing is scored");
    // The fourth says when a partition splits, and not whether it is written.
    let baselines = ["climatology", "ewma", "persistence"];
    let is_one = |line: &&Value| baselines.contains(&line["name"].as_str().unwrap());
    assert_eq!(lines.iter().filter(is_one).count(), baselines.len(), "{lines:?}");
    assert_eq!(lines.len(), baselines.len() + 1, "and whoever forecasts: {lines:?}");
    for line in &lines {
        assert!(line["cases"].as_f64().unwrap() >= 1.0 && line["cases"] == lines[0]["cases"], "{line}");
        assert!((0.0..=1.0).contains(&line["brier"].as_f64().unwrap()), "{line}");
    }
}

#[test]
fn what_is_written_is_counted_forecast_and_explained_and_survives_a_crash() {
    let place = Place::new();
    let clock = Steered::new(&place);
    let mount = mounted(&place, &clock);
    let told = write_until_known(&mount, "orders");
    assert!(told["forecast"]["signals"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(told["forecast"]["dropped"], 0, "{told}");
    let why = cmd::run(mount.weft().args(["forecast", "--why", "orders"]).arg(&mount.point)).ok();
    assert!(why.contains("orders"), "{why}");
    let refused = cmd::run(mount.weft().args(["forecast", "--why", "nobody"]).arg(&mount.point));
    assert!(
        refused.code == 1 && refused.stderr.contains("nothing is known of partition nobody"),
        "{}",
        refused.stderr
    );
    are_scored(&mount, &clock);

    mount.crash();
    write_until_known(&mount, "items");
    let trace = cmd::run(mount.weft().args(["trace", "export"]).arg(&mount.point)).ok();
    assert!(trace.contains("orders") && trace.contains("items"), "{trace}");
    mount.unmount();
    let trace = cmd::run(mount.weft().args(["trace", "export"]).arg(&mount.data)).ok();
    assert!(trace.contains("orders") && trace.contains("items"), "{trace}");
}

/// As RENAME TABLE does it. All names are looked at only each thirtieth tick.
#[test]
fn what_is_written_after_a_rename_counts_under_the_new_name() {
    let place = Place::new();
    let mount = mounted(&place, &Steered::new(&place));
    write_until_known(&mount, "orders");
    // What was written in the tick of the rename counts under either name.
    std::thread::sleep(Duration::from_millis(2_500));
    fs::rename(mount.point.join("orders"), mount.point.join("sold")).unwrap();
    let file = fs::File::options().write(true).open(mount.point.join("sold")).unwrap();
    for page in 0..7 {
        file.write_all_at(&[page as u8; 4096], page * 4096).unwrap();
    }
    drop(file);
    mount.unmount();
    let trace = cmd::run(mount.weft().args(["trace", "export"]).arg(&mount.data)).ok();
    let lines = trace.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let lines: Vec<Vec<&str>> = lines.filter(|parts| parts.len() > 2).collect();
    let of = |name: &str, what: &str| {
        let found = lines.iter().filter(|parts| parts[1] == name && parts[2] == what);
        found
            .map(|parts| parts.get(4).and_then(|writes| writes.parse::<u64>().ok()).unwrap_or(0))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("sold", "tick").iter().sum::<u64>(), 7, "{trace}");
    assert_eq!(of("orders", "gone").len(), 1, "{trace}");
}
