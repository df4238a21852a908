//! What this daemon has cost the machine so far.

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Map, Value};

/// Processor time, and bytes read from and written to disks: `daemon_cpu_us`, `daemon_read_bytes`,
/// `daemon_written_bytes` (proc(5), `/proc/PID/io`; left out where the kernel does not tell).
pub fn of_this_process() -> Map<String, Value> {
    let mut cost = Map::new();
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let micros =
            |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + i64::from(time.tv_usec() as i32);
        cost.insert("daemon_cpu_us".into(), (micros(usage.user_time()) + micros(usage.system_time())).into());
    }
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    for (line, key) in [("read_bytes", "daemon_read_bytes"), ("write_bytes", "daemon_written_bytes")] {
        let found =
            io.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(": ")?.parse::<u64>().ok());
        if let Some(bytes) = found {
            cost.insert(key.into(), bytes.into());
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_cost_something() {
        let cost = of_this_process();
        assert!(cost["daemon_cpu_us"].as_i64().unwrap() >= 0);
        assert!(cost["daemon_read_bytes"].is_u64() && cost["daemon_written_bytes"].is_u64());
    }
}
