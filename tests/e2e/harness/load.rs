//! pgbench under measurement: what it says, and the processor time that it and the daemon beneath it take.

use crate::cluster::Postgres;
use std::fs;
use std::ops::Range;

/// A server, and the daemons beneath it if there are any.
pub struct Side {
    pub name: &'static str,
    pub server: Postgres,
    pub daemons: Vec<i32>,
}

/// One run of pgbench on one side.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub transactions: f64,
    pub tps: f64,
    /// Processor milliseconds of server and daemon for each transaction.
    pub cpu_ms: f64,
    pub daemon_cpu_ms: f64,
}

impl Side {
    /// Fills pgbench's tables and writes them to disk.
    pub fn load(&self, scale: usize) {
        self.server.pgbench(&["-q", "-i", "-s", &scale.to_string()]);
        self.server.sql("CHECKPOINT");
    }

    /// Runs pgbench to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[String]) -> Run {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let before = (self.server_ticks(), self.daemon_ticks());
        let said = self.server.pgbench(&arguments);
        let (server, daemon) = (self.server_ticks() - before.0, self.daemon_ticks() - before.1);
        let number =
            |mark| number_after(&said, mark).unwrap_or_else(|| panic!("{}: no {mark}in {said}", self.name));
        let transactions = number("actually processed: ");
        // Linux counts these in hundredths of a second on every architecture that we know.
        let each = |ticks: u64| ticks as f64 * 10.0 / transactions;
        let (cpu_ms, daemon_cpu_ms) = (each(server + daemon), each(daemon));
        Run { transactions, tps: number("tps = "), cpu_ms, daemon_cpu_ms }
    }

    /// Of the postmaster, its living children and those it has collected.
    fn server_ticks(&self) -> u64 {
        let processes = self.server.processes();
        let own: u64 = processes.iter().map(|pid| ticks(*pid, 13..15)).sum();
        own + processes.first().map_or(0, |postmaster| ticks(*postmaster, 15..17))
    }

    fn daemon_ticks(&self) -> u64 {
        self.daemons.iter().map(|pid| ticks(*pid, 13..15)).sum()
    }
}

/// The number behind a mark in pgbench's report.
fn number_after(text: &str, mark: &str) -> Option<f64> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Sums fields of /proc/PID/stat, counted from 0 as proc(5) counts from 1.
fn ticks(pid: i32, fields: Range<usize>) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return 0;
    };
    let rest: Vec<&str> = rest.split(' ').collect();
    fields.filter_map(|field| rest.get(field - 2)?.parse::<u64>().ok()).sum()
}

/// Resident memory of a process.
#[track_caller]
pub fn rss_mib(pid: i32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib / 1024.0
}

/// The value in the middle; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
