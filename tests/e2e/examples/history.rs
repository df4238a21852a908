//! A long run of pgbench: what its history takes beside PostgreSQL's own archive of the same run, and what the weaver
//! costs. Between its slices the same load runs on a plain directory, and beneath a daemon that does not weave. Run by
//! scripts/bench history.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weft_e2e::bench;
use weft_e2e::load::{Run, Side, median};
use weft_e2e::{Mount, Place, Postgres, cmd, wall::Wall};

const HELP: &str = "scripts/bench history [options]
  --slices N     slices of the run whose history is kept (30)
  --seconds N    length of each (60)
  --every N      slices between two looks at the others: plain disk, and Weft without weaver (6)
  --scale N      pgbench scale (50)
  --clients N    clients (8)
  --thin TIERS   at the end prune by this retention, and tell what is left of the run's history
  --wal WHERE    \"inside\" DATA, or \"outside\", where it is no history (inside)
  --out DIR      where the JSON goes (target/bench)";
/// Longest wait for the weaver before another side is measured.
const PATIENCE: Duration = Duration::from_secs(60);

struct Options {
    slices: usize,
    seconds: usize,
    every: usize,
    scale: usize,
    clients: usize,
    thin: Option<String>,
    wal_outside: bool,
    out: PathBuf,
}

impl Options {
    fn parse() -> Options {
        let out = PathBuf::from("target/bench");
        let (thin, wal_outside) = (None, false);
        let mut options =
            Options { slices: 30, seconds: 60, every: 6, scale: 50, clients: 8, thin, wal_outside, out };
        bench::options(HELP, |name, value| {
            let number = || match bench::number(name, value) {
                Ok(0) => Err(format!("{name} wants a number above 0, not {value}")),
                other => other,
            };
            match name {
                "--slices" => options.slices = number()?,
                "--seconds" => options.seconds = number()?,
                "--every" => options.every = number()?,
                "--scale" => options.scale = number()?,
                "--clients" => options.clients = number()?,
                "--thin" => options.thin = Some(value.to_owned()),
                "--wal" => {
                    options.wal_outside = match value {
                        "inside" => false,
                        "outside" => true,
                        _ => return Err(format!("--wal is inside or outside, not {value}")),
                    }
                }
                "--out" => options.out = PathBuf::from(value),
                _ => return bench::unknown(name, value),
            }
            Ok(())
        });
        options
    }
}

/// A server under measurement: where it archives, and where pgbench writes latencies.
struct Measured {
    side: Side,
    archive: PathBuf,
    log: PathBuf,
    runs: Vec<(Run, Latency)>,
}

/// Microseconds of a transaction.
#[derive(Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
}

fn main() {
    let options = Options::parse();
    let place = Place::new();
    let weft = Mount::over(&place.dir_for("postgres", "weft")).mount();
    let unwoven = Mount::over(&place.dir_for("postgres", "unwoven"));
    fs::create_dir(&unwoven.store).expect("mkdir");
    fs::write(unwoven.store.join("weft.toml"), "weave = false\n").expect("weft.toml");
    let unwoven = unwoven.mount();
    let mut sides = [
        measured(&place, "weft", &options, weft.point.clone(), weft.daemons()),
        measured(&place, "raw", &options, place.dir_for("postgres", "raw"), Vec::new()),
        measured(&place, "unwoven", &options, unwoven.point.clone(), unwoven.daemons()),
    ];
    for measured in &sides {
        measured.side.load(options.scale);
    }
    weave(&weft);
    let archived = sides[0].archived();
    let before = weft.status();
    println!(
        "{} slices of {} s, scale {}, {} clients; the other sides every {} slices",
        options.slices, options.seconds, options.scale, options.clients, options.every
    );
    for slice in 0..options.slices {
        sides[0].slice(&options);
        if (slice + 1) % options.every == 0 {
            wait_for_weaver(&weft);
            sides[1].slice(&options);
            sides[2].slice(&options);
        }
    }
    sides[0].side.server.sql("CHECKPOINT");
    sides[0].side.server.sql("SELECT pg_switch_wal()");
    sides[0].wait_for_archive();
    weave(&weft);
    let mut history =
        history(&before, &weft.status(), sides[0].archived() - archived, sides[0].transactions());
    if let Some(tiers) = &options.thin {
        history["thinned"] = thinned(&weft, tiers);
    }
    println!("{history:#}");
    let lines: Vec<Value> = sides.iter().map(Measured::line).collect();
    write(&options, &history, &lines);
    for measured in &sides {
        measured.side.server.stop();
    }
    weft.unmount();
    unwoven.unmount();
}

fn measured(
    place: &Place,
    name: &'static str,
    options: &Options,
    dir: PathBuf,
    daemons: Vec<i32>,
) -> Measured {
    let archive = place.dir_for("postgres", &format!("{name}-archive"));
    let log = place.dir_for("postgres", &format!("{name}-latencies"));
    // What stands here is read by pg_ctl's shell, by PostgreSQL's and by the archiver's.
    let command = place.join(&format!("{name}-archive.sh"));
    fs::write(&command, format!("#!/bin/sh\nexec zstd -q -3 \"$1\" -o {}/\"$2\".zst\n", archive.display()))
        .expect("write the archive command");
    cmd::call("chmod", &["755".as_ref(), command.as_os_str()]).ok();
    let server = Postgres::new(place, &format!("{name}-server"), &dir)
        .set("shared_buffers=256MB")
        .set("archive_mode=on");
    server.initdb();
    if options.wal_outside {
        let (inside, outside) = (dir.join("pg_wal"), place.join(&format!("{name}-wal")));
        cmd::call("cp", &["-a".as_ref(), inside.as_os_str(), outside.as_os_str()]).ok();
        fs::remove_dir_all(&inside).expect("empty pg_wal");
        std::os::unix::fs::symlink(&outside, &inside).expect("pg_wal elsewhere");
    }
    let line = format!("archive_command = '{} %p %f'\n", command.display());
    let conf = dir.join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("read postgresql.conf");
    fs::write(&conf, text + &line).expect("write postgresql.conf");
    server.start();
    Measured { side: Side { name, server, daemons }, archive, log, runs: Vec::new() }
}

impl Measured {
    fn slice(&mut self, options: &Options) {
        for entry in fs::read_dir(&self.log).expect("latencies").flatten() {
            fs::remove_file(entry.path()).expect("remove the last slice's");
        }
        let prefix = self.log.join("slice");
        let arguments: Vec<String> =
            ["-n", "-b", "tpcb-like", "-j2", "--log", "--sampling-rate=0.1"].map(str::to_owned).to_vec();
        let more = [
            format!("-c{}", options.clients),
            format!("-T{}", options.seconds),
            format!("--log-prefix={}", prefix.display()),
        ];
        let run = self.side.run(&[arguments, more.to_vec()].concat());
        let latency = latency(&self.log);
        println!(
            "{:<8} {:>6.0} tps, cpu {:.3} ms (daemon {:.3}), latency p50 {:.0} us, p99 {:.0} us",
            self.side.name, run.tps, run.cpu_ms, run.daemon_cpu_ms, latency.p50, latency.p99
        );
        self.runs.push((run, latency));
    }

    fn transactions(&self) -> f64 {
        self.runs.iter().map(|(run, _)| run.transactions).sum()
    }

    /// Bytes of archived, compressed segments.
    fn archived(&self) -> u64 {
        let entries = fs::read_dir(&self.archive).expect("the archive");
        entries.flatten().map(|entry| entry.metadata().map_or(0, |meta| meta.len())).sum()
    }

    fn wait_for_archive(&self) {
        let begun = Instant::now();
        let left = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
        while self.side.server.number(left) > 0 {
            assert!(begun.elapsed() < Duration::from_secs(600), "the archiver does not get to its end");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Medians of the slices.
    fn line(&self) -> Value {
        let of = |field: fn(&(Run, Latency)) -> f64| median(self.runs.iter().map(field).collect());
        let line = json!({
            "side": self.side.name, "slices": self.runs.len(), "tps": of(|(run, _)| run.tps),
            "cpu_ms": of(|(run, _)| run.cpu_ms), "daemon_cpu_ms": of(|(run, _)| run.daemon_cpu_ms),
            "p50_us": of(|(_, latency)| latency.p50), "p99_us": of(|(_, latency)| latency.p99),
        });
        println!("{line}");
        line
    }
}

/// Of the transactions that pgbench has logged below a directory.
fn latency(dir: &Path) -> Latency {
    let mut all: Vec<f64> = Vec::new();
    for entry in fs::read_dir(dir).expect("latencies").flatten() {
        let text = fs::read_to_string(entry.path()).expect("read latencies");
        all.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
    }
    all.sort_by(f64::total_cmp);
    let at =
        |percent: usize| all.get(all.len().saturating_sub(1) * percent / 100).copied().unwrap_or(f64::NAN);
    Latency { p50: at(50), p99: at(99) }
}

/// What thinning leaves, bytes.
fn thinned(mount: &Mount, tiers: &str) -> Value {
    let before = mount.status();
    let arguments = ["retention", "set", "--minimum", "1s", tiers, "--of"];
    cmd::run(mount.weft().args(arguments).arg(&mount.point)).ok();
    let begun = Instant::now();
    let pruned = cmd::run(mount.weft().args(["prune", "--json"]).arg(&mount.point)).ok();
    let pruned: Value = serde_json::from_str(&pruned).expect("JSON of prune");
    let after = mount.status();
    json!({
        "tiers": tiers, "secs": begun.elapsed().as_secs_f64(), "points": pruned["points"],
        "before_bytes": before["woven_bytes"], "after_bytes": after["woven_bytes"],
        "journal_bytes": after["journal_bytes"], "pruned": pruned,
        "base_bytes": [before["base_bytes"], after["base_bytes"]],
        "index_bytes": [before["index_bytes"], after["index_bytes"]],
    })
}

fn weave(mount: &Mount) {
    cmd::run(mount.weft().args(["weave", "--now"]).arg(&mount.point)).ok();
}

fn wait_for_weaver(mount: &Mount) {
    let begun = Instant::now();
    while mount.status()["weave_waiting"] != 0 && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// What the run left, in bytes and by transaction.
fn history(before: &Value, after: &Value, archive: u64, transactions: f64) -> Value {
    let grown = |key: &str| after[key].as_f64().unwrap_or(0.0) - before[key].as_f64().unwrap_or(0.0);
    let woven = |key: &str| {
        let of = |status: &Value| status["woven_so_far"][key].as_f64().unwrap_or(0.0);
        of(after) - of(before)
    };
    json!({
        "transactions": transactions,
        "written_bytes": grown("written_bytes"),
        "woven_payload_bytes": woven("payload_bytes"),
        "woven_bytes": woven("woven_bytes"),
        "kept_woven_bytes": grown("woven_bytes"),
        "woven_of_payload": woven("woven_bytes") / woven("payload_bytes"),
        "index_bytes": grown("index_bytes"),
        "wal_archive_bytes": archive,
        "woven_of_archive": woven("woven_bytes") / archive as f64,
        "weaver_cpu_ms_each": woven("cpu_us") / 1e3 / transactions,
    })
}

fn write(options: &Options, history: &Value, sides: &[Value]) {
    let at = Wall::now();
    let report = json!({
        "at": at.canonical(), "slices": options.slices, "seconds": options.seconds, "scale": options.scale,
        "clients": options.clients, "history": history, "sides": sides,
    });
    bench::report(&options.out, "history-", at, &report);
}
