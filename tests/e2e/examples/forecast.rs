//! What the forecast costs: processor time of pgbench's transactions beneath a daemon with it and one without, and the
//! memory of a daemon with many partitions. Run by scripts/bench forecast.

use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use weft_e2e::bench;
use weft_e2e::load::{Run, Side, median, rss_mib};
use weft_e2e::{Mount, Place, Postgres, wall::Wall};

const HELP: &str = "scripts/bench forecast [options]
  --rounds N       interleaved rounds of pgbench (5)
  --seconds N      length of each run (20)
  --scale N        pgbench scale (20)
  --partitions N   files whose memory is looked at (10000)
  --minutes N      how long they are written (3)
  --out DIR        where the JSON goes (target/bench)";
const PAGE: usize = 4096;
/// Each partition is written once in so long.
const EVERY: Duration = Duration::from_secs(10);

struct Options {
    rounds: usize,
    seconds: usize,
    scale: usize,
    partitions: usize,
    minutes: usize,
    out: PathBuf,
}

impl Options {
    fn parse() -> Options {
        let out = PathBuf::from("target/bench");
        let mut options = Options { rounds: 5, seconds: 20, scale: 20, partitions: 10_000, minutes: 3, out };
        bench::options(HELP, |name, value| {
            let number = || bench::number(name, value);
            match name {
                "--rounds" => options.rounds = number()?,
                "--seconds" => options.seconds = number()?,
                "--scale" => options.scale = number()?,
                "--partitions" => options.partitions = number()?,
                "--minutes" => options.minutes = number()?,
                "--out" => options.out = PathBuf::from(value),
                _ => return bench::unknown(name, value),
            }
            Ok(())
        });
        options
    }
}

fn main() {
    let options = Options::parse();
    let processor = processor(&options);
    let memory = [false, true].map(|forecast| memory(&options, forecast));
    println!(
        "memory with {} partitions: without the forecast {:.0} MiB, with it {:.0} MiB ({:+.0})",
        options.partitions,
        memory[0],
        memory[1],
        memory[1] - memory[0]
    );
    let at = Wall::now();
    let report = json!({
        "at": at.canonical(), "processor": processor, "partitions": options.partitions,
        "memory_mib": { "without": memory[0], "with": memory[1] },
    });
    bench::report(&options.out, "forecast-", at, &report);
}

/// A mount whose configuration says whether to forecast, as often as it can.
fn mount(mount: Mount, forecast: bool) -> Mount {
    fs::create_dir(&mount.store).expect("mkdir");
    let text =
        format!("forecast = {forecast}\nforecast_tick_secs = 1\nforecast_step_secs = 10\nshadow = false\n");
    fs::write(mount.store.join("weft.toml"), text).expect("weft.toml");
    mount.mount()
}

/// pgbench on both in turn.
fn processor(options: &Options) -> Value {
    let place = Place::new();
    let mounts = [("without", false), ("with", true)]
        .map(|(name, forecast)| (name, mount(Mount::over(&place.dir_for("postgres", name)), forecast)));
    let sides = mounts.each_ref().map(|(name, mount)| {
        let server = Postgres::new(&place, &format!("{name}-server"), &mount.point)
            .set("shared_buffers=256MB")
            .set("max_wal_size=8GB")
            .set("checkpoint_timeout=1h");
        server.initdb();
        server.start();
        let mut daemons = mount.daemons();
        daemons.extend(mount.daemons().into_iter().flat_map(children));
        let side = Side { name, server, daemons };
        side.load(options.scale);
        side
    });
    let arguments = ["-n", "-b", "tpcb-like", "-c8", "-j2"].map(str::to_owned);
    let arguments: Vec<String> = arguments.into_iter().chain([format!("-T{}", options.seconds)]).collect();
    let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        for at in [round % 2, 1 - round % 2] {
            sides[at].server.sql("CHECKPOINT");
            runs[at].push(sides[at].run(&arguments));
        }
    }
    let of = |at: usize| median(runs[at].iter().map(|run| run.cpu_ms).collect());
    let ratios = runs[1].iter().zip(&runs[0]).map(|(with, without)| with.cpu_ms / without.cpu_ms).collect();
    let ratio = median(ratios);
    println!("processor time a transaction: without {:.4} ms, with {:.4} ms, ratio {ratio:.3}", of(0), of(1));
    for side in &sides {
        side.server.stop();
    }
    for (_, mount) in &mounts {
        mount.unmount();
    }
    json!({ "without_ms": of(0), "with_ms": of(1), "ratio_median": ratio })
}

/// Resident memory, MiB, of a daemon and what it has started, after all partitions were written for a while.
fn memory(options: &Options, forecast: bool) -> f64 {
    let place = Place::new();
    let mount = mount(Mount::new(&place), forecast);
    for number in 0..options.partitions {
        fs::write(mount.point.join(format!("part-{number}")), [1; PAGE]).expect("a partition");
    }
    // As much in the same time: what else a daemon keeps is then the same with and without.
    let begun = Instant::now();
    for round in 1..=options.minutes as u32 * 6 {
        for number in 0..options.partitions {
            let path = mount.point.join(format!("part-{number}"));
            let file = File::options().write(true).open(path).expect("open");
            file.write_all_at(&[2; PAGE], u64::from(round % 8) * PAGE as u64).expect("write");
        }
        std::thread::sleep((EVERY * round).saturating_sub(begun.elapsed()));
    }
    if forecast {
        let known = mount.status()["forecast"]["partitions"].as_u64();
        assert!(
            known.is_some_and(|known| known as usize >= options.partitions),
            "{known:?} partitions are forecast"
        );
    }
    let mut all = mount.daemons();
    all.extend(mount.daemons().into_iter().flat_map(children));
    let each: Vec<f64> = all.into_iter().map(rss_mib).collect();
    println!("resident, MiB: {each:.0?}");
    mount.unmount();
    each.iter().sum()
}

/// What a process's threads have started.
fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let all: Vec<String> = texts.collect();
    all.iter().flat_map(|text| text.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}
