use super::files;
use crate::{Outcome, output};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weft::disk::os::OsDisk;
use weft::forecast::signal::Key;
use weft::forecast::trace::{Line, Trace, kept, text};
use weft::past::when::{self, Instant as Moment};
use weft::types::Timestamp;
use weft_mount::daemon::MachineClock;
use weft_mount::place;

/// Write what the store keeps of past ticks, as CSV
///
/// Works while mounted and after; weft.toml's forecast_kept_mib bounds what is kept.
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// The trace; compressed if its name ends in .gz; by default standard output
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    output: PathBuf,
    /// Ticks after this time only
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Ticks up to this time only
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
}

/// Record ticks from now on
///
/// Ends after --for, or when interrupted: FILE then has all but the last minute at most.
#[derive(clap::Args)]
pub struct Record {
    /// The trace: CSV, compressed if its name ends in .gz
    file: PathBuf,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// How long: 90s, 10m, 2h, 1d
    #[arg(long = "for", value_name = "DUR")]
    length: Option<String>,
}

/// Between two looks for new ticks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two times at which what is new is written.
const WRITE_EVERY: Duration = Duration::from_secs(60);

fn now() -> Timestamp {
    weft::clock::Clock::now(&MachineClock)
}

fn time(text: Option<&str>, otherwise: Timestamp) -> Result<Timestamp, String> {
    let Some(text) = text else { return Ok(otherwise) };
    let zone = when::zone("UTC").map_err(|cause| cause.message)?;
    match when::parse_time(text, now(), &zone).map_err(|cause| cause.message)?.instant {
        Moment::Time(at) => Ok(at),
        Moment::Seq(_) => Err("a time is wanted here, not a seq".into()),
    }
}

fn ticks(store: &Path, reach: (Timestamp, Timestamp)) -> Result<Trace, String> {
    let (trace, problems) =
        kept::read(&OsDisk::new(), store, reach, u64::MAX).map_err(|cause| cause.to_string())?;
    problems.iter().for_each(|problem| output::complain(&format!("left out: {problem}")));
    Ok(trace)
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let since = time(args.since.as_deref(), Timestamp::FIRST)?;
    let until = time(args.until.as_deref(), Timestamp::LAST)?;
    let trace = ticks(&store, (since, until))?;
    if trace.lines.is_empty() {
        return Err(format!(
            "no ticks are kept in {} of that time: is `forecast` on in its weft.toml?",
            store.display()
        ));
    }
    files::write(&args.output, text::write(&trace).as_bytes())?;
    told(&args.output, trace.lines.len(), trace.names.len())
}

fn told(file: &Path, ticks: usize, partitions: usize) -> Outcome {
    if file.as_os_str() == "-" {
        return Ok(std::process::ExitCode::SUCCESS);
    }
    output::print(&format!("{ticks} ticks of {partitions} partitions\n"))
}

/// `90s`, `10m`, `2h`, `1d`.
fn length(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let found = units.iter().find_map(|(unit, secs)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(*secs).filter(|secs| (1..=366 * 86_400).contains(secs))
    });
    found
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is no length of time: use 90s, 10m, 2h or 1d, up to 366d"))
}

pub fn record(args: &Record, store: Option<&Path>) -> Outcome {
    let length = args.length.as_deref().map(length).transpose()?;
    let store = place::find_store(args.path.as_deref(), store)?;
    let status = weft_mount::control::ask(&store, &weft_mount::control::Ask::Status)?;
    if status.pointer("/forecast/on") != Some(&serde_json::Value::Bool(true)) {
        return Err("nothing is counted: set `forecast = true` in weft.toml and mount again".into());
    }
    let begun = now();
    let started = Instant::now();
    files::write(&args.file, text::write(&ticks(&store, (begun, begun))?).as_bytes())?;
    let mut recorded = Recorded::default();
    let mut last = begun;
    let mut written = Instant::now();
    loop {
        let left = length.map(|length| length.saturating_sub(started.elapsed()));
        std::thread::sleep(left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY)));
        let ended = left.is_some_and(|left| left <= LOOK_EVERY);
        let new = ticks(&store, (last, Timestamp::LAST))?;
        last = new.lines.last().map_or(last, Line::at);
        recorded.add(&new);
        if ended || written.elapsed() >= WRITE_EVERY {
            files::append(&args.file, std::mem::take(&mut recorded.unwritten).as_bytes())?;
            written = Instant::now();
        }
        if ended {
            return told(&args.file, recorded.lines, recorded.names.len());
        }
    }
}

/// What was recorded: of what is in the file only how much it is.
#[derive(Default)]
struct Recorded {
    unwritten: String,
    lines: usize,
    names: HashSet<Key>,
}

impl Recorded {
    fn add(&mut self, new: &Trace) {
        for line in &new.lines {
            let name = usize::try_from(line.partition).ok().and_then(|index| new.names.get(index));
            let Some(name) = name else { continue };
            self.unwritten.push_str(&text::line(name, &line.what));
            self.lines += 1;
            self.names.insert(Key::clone(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_in_parts_is_one_trace() {
        let dir = std::env::temp_dir().join(format!("weft-recorded-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let text = |lines: &[&str]| {
            let head = text::head(10_000_000, "live");
            weft::forecast::trace::text::read(std::io::Cursor::new(head + &lines.concat())).unwrap()
        };
        let parts = [
            text(&["10000000,a,tick,10000000,1,8192,0,1,1,0,8192,0,0,0,1\n", "10000000,\"b,c\",gone\n"]),
            text(&["20000000,d,gone\n", "20000000,a,tick,10000000,2,8192,0,1,1,0,8192,0,0,0,1\n"]),
        ];
        for name in ["trace.csv", "trace.csv.gz"] {
            let (file, mut recorded) = (dir.join(name), Recorded::default());
            files::write(&file, weft::forecast::trace::text::head(10_000_000, "live").as_bytes()).unwrap();
            for part in &parts {
                recorded.add(part);
                files::append(&file, std::mem::take(&mut recorded.unwritten).as_bytes()).unwrap();
            }
            let whole = files::read(&file).unwrap();
            assert_eq!((whole.lines.len(), recorded.lines, recorded.names.len()), (4, 4, 3));
            assert_eq!(
                whole.names.iter().map(|name| name.to_string()).collect::<Vec<_>>(),
                ["a", "b,c", "d"]
            );
            assert_eq!(whole.lines[3].what, parts[1].lines[1].what);
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn lengths_are_read_from_words() {
        assert_eq!(length("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(length("2h"), Ok(Duration::from_secs(7_200)));
        for bad in ["", "s", "10", "-1s", "0s", "1w", "99999999999999999999d", "367d"] {
            assert!(length(bad).is_err(), "{bad}");
        }
        assert_eq!(time(Some("2026-11-25T00:00:00Z"), Timestamp(0)).unwrap().0, 1_795_564_800_000_000);
        assert!(time(Some("seq=5"), Timestamp(0)).is_err());
    }
}
