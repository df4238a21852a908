//! pgbench on a plain directory against Weft, in interleaved rounds: throughput, its ratio, and processor time for
//! each transaction. Run by scripts/bench.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use weft_e2e::bench;
use weft_e2e::load::{Run, Side, median};
use weft_e2e::{Capture, Mount, Place, Postgres, wall::Wall};

const HELP: &str = "scripts/bench [options]
  --rounds N           interleaved rounds (3)
  --seconds N          length of each run (10)
  --scale N            pgbench scale (20)
  --clients N          clients of the workloads that have several (8)
  --workloads LIST     of tpcb,tpcb1,simple,select (all four)
  --capture MODE       strict or writeback (strict)
  --out DIR            where the JSON goes (target/bench)";

struct Options {
    rounds: usize,
    seconds: usize,
    scale: usize,
    clients: usize,
    workloads: Vec<String>,
    capture: Capture,
    out: PathBuf,
}

impl Options {
    fn parse() -> Options {
        let mut options = Options {
            rounds: 3,
            seconds: 10,
            scale: 20,
            clients: 8,
            workloads: ["tpcb", "tpcb1", "simple", "select"].map(str::to_owned).to_vec(),
            capture: Capture::Strict,
            out: PathBuf::from("target/bench"),
        };
        bench::options(HELP, |name, value| options.set(name, value));
        options
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || bench::number(name, value);
        match name {
            "--rounds" => self.rounds = number()?,
            "--seconds" => self.seconds = number()?,
            "--scale" => self.scale = number()?,
            "--clients" => self.clients = number()?,
            "--workloads" => self.workloads = value.split(',').map(str::to_owned).collect(),
            "--capture" if value == "writeback" => self.capture = Capture::Writeback,
            "--capture" if value == "strict" => self.capture = Capture::Strict,
            "--out" => self.out = PathBuf::from(value),
            _ => return bench::unknown(name, value),
        }
        Ok(())
    }

    /// pgbench's arguments for a workload.
    fn arguments(&self, workload: &str) -> Result<Vec<String>, String> {
        let clients = if workload == "tpcb1" { 1 } else { self.clients };
        let script = match workload {
            "tpcb" | "tpcb1" => "tpcb-like",
            "simple" => "simple-update",
            "select" => "select-only",
            other => return Err(format!("unknown workload {other}\n{HELP}")),
        };
        let threads = clients.min(2);
        Ok(["-n", "-b", script]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("-c{clients}"), format!("-j{threads}"), format!("-T{}", self.seconds)])
            .collect())
    }
}

fn main() {
    let options = Options::parse();
    let place = Place::new();
    let mount = Mount::over(&place.dir_for("postgres", "weft")).capture(options.capture).mount();
    let raw = side(&place, "raw", place.dir_for("postgres", "raw"), Vec::new());
    let weft = side(&place, "weft", mount.point.clone(), mount.daemons());
    let load: Vec<f64> = [&raw, &weft].map(|side| load(side, options.scale)).to_vec();
    println!(
        "scale {}, {} s a run, {} rounds, capture {:?}",
        options.scale, options.seconds, options.rounds, options.capture
    );
    println!("load: raw {:.1} s, weft {:.1} s, speed ratio {:.2}", load[0], load[1], load[0] / load[1]);
    println!(
        "{:<8} {:>10} {:>10} {:>7} {:>13} {:>12} {:>12} {:>12}",
        "workload", "raw tps", "weft tps", "ratio", "ratios", "raw cpu ms", "weft cpu ms", "of it daemon"
    );
    let mut results = Vec::new();
    for workload in &options.workloads {
        results.push(measure(&options, workload, &raw, &weft).unwrap_or_else(|message| panic!("{message}")));
    }
    write(&options, &load, &results);
    raw.server.stop();
    weft.server.stop();
    mount.unmount();
}

fn side(place: &Place, name: &'static str, dir: PathBuf, daemons: Vec<i32>) -> Side {
    let server = Postgres::new(place, &format!("{name}-server"), &dir)
        .set("shared_buffers=256MB")
        .set("max_wal_size=8GB")
        .set("checkpoint_timeout=1h");
    server.initdb();
    server.start();
    Side { name, server, daemons }
}

fn load(side: &Side, scale: usize) -> f64 {
    let begun = Instant::now();
    side.load(scale);
    begun.elapsed().as_secs_f64()
}

/// All rounds of a workload, the side that begins alternating; prints its line.
fn measure(options: &Options, workload: &str, raw: &Side, weft: &Side) -> Result<Value, String> {
    let arguments = options.arguments(workload)?;
    let (mut on_raw, mut on_weft) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        if round % 2 == 0 {
            on_raw.push(run(raw, &arguments));
            on_weft.push(run(weft, &arguments));
        } else {
            on_weft.push(run(weft, &arguments));
            on_raw.push(run(raw, &arguments));
        }
    }
    let ratios: Vec<f64> = on_weft.iter().zip(&on_raw).map(|(weft, raw)| weft.tps / raw.tps).collect();
    let of = |runs: &[Run], field: fn(&Run) -> f64| median(runs.iter().map(field).collect());
    let spread = format!("{:.2}-{:.2}", lowest(&ratios), highest(&ratios));
    println!(
        "{workload:<8} {:>10.0} {:>10.0} {:>7.2} {spread:>13} {:>12.3} {:>12.3} {:>12.3}",
        of(&on_raw, |run| run.tps),
        of(&on_weft, |run| run.tps),
        median(ratios.clone()),
        of(&on_raw, |run| run.cpu_ms),
        of(&on_weft, |run| run.cpu_ms),
        of(&on_weft, |run| run.daemon_cpu_ms),
    );
    let list = |runs: &[Run]| {
        runs.iter()
            .map(|run| json!({"tps": run.tps, "cpu_ms": run.cpu_ms, "daemon_cpu_ms": run.daemon_cpu_ms}))
            .collect::<Vec<_>>()
    };
    Ok(
        json!({"workload": workload, "pgbench": arguments, "ratio_median": median(ratios.clone()), "ratios": ratios, "raw": list(&on_raw), "weft": list(&on_weft)}),
    )
}

fn run(side: &Side, arguments: &[String]) -> Run {
    side.server.sql("CHECKPOINT");
    side.run(arguments)
}

fn lowest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn highest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn write(options: &Options, load: &[f64], results: &[Value]) {
    let at = Wall::now();
    let report = json!({
        "at": at.canonical(),
        "scale": options.scale,
        "seconds": options.seconds,
        "clients": options.clients,
        "capture": format!("{:?}", options.capture).to_lowercase(),
        "load_seconds": {"raw": load[0], "weft": load[1]},
        "results": results,
    });
    bench::report(&options.out, "", at, &report);
}
