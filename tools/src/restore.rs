use crate::resolve::{field, why_not};
use crate::status::bytes;
use crate::{Outcome, at, output, space};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use weft_mount::mountinfo::unescape_path;
use weft_mount::restore::{self, Plan, Progress, Relocate, Selected, Source, State};
use weft_mount::{control, place};

/// Threads that copy, unless told otherwise.
const JOBS: usize = 4;
/// Without these no server starts: they come last.
const LAST: [&str; 2] = ["global/pg_control", "ibdata1"];

/// Copy a past instant, or files or partitions of it, out to a directory: in parallel, read back and proven
#[derive(clap::Args)]
pub struct Args {
    /// The mount (all of it, further roots beside the target), or files and directories in it; by default the mount
    /// around the current directory
    paths: Vec<PathBuf>,
    /// 2026-11-23T10:00:00Z, 10:00, -5m, now, seq=N, tag:NAME
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: String,
    /// Where to: an absent or empty directory; what is restored keeps its path from the root on
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only this partition, by its name or any of its files; may be given several times
    #[arg(long = "partition", value_name = "PARTITION")]
    partitions: Vec<String>,
    /// All but this partition; may be given several times
    #[arg(long, value_name = "PARTITION", conflicts_with = "partitions")]
    except: Vec<String>,
    /// Threads that copy (1 to 64)
    #[arg(long, default_value_t = JOBS, value_parser = jobs)]
    jobs: usize,
    /// For programs
    #[arg(long)]
    json: bool,
}

fn jobs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|jobs| (1..=64).contains(jobs)).ok_or_else(|| "use 1 to 64".into())
}

/// A restore made ready.
struct Job {
    plan: Plan,
    state: State,
    target: PathBuf,
    actual: String,
    notes: Vec<String>,
    /// Keep the view, and so the instant, while this lives.
    _views: Vec<File>,
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let begun = Instant::now();
    let mut job = prepare(args, store)?;
    let bar = Bar::new(&job.plan);
    interruptible();
    let counted = restore::run(&job.plan, &mut job.state, args.jobs, &bar).map_err(|cause| {
        bar.0.abandon();
        format!("{cause}; {} is unfinished", job.target.display())
    })?;
    restore::finish(&job.plan, job.state)?;
    bar.0.finish_and_clear();
    let secs = begun.elapsed().as_secs_f64();
    if args.json {
        let mut told = serde_json::to_value(counted).map_err(|cause| cause.to_string())?;
        told["to"] = json!(job.target.display().to_string());
        told["actual"] = json!(job.actual);
        told["secs"] = json!(secs);
        told["notes"] = json!(job.notes);
        return output::print_json(&told);
    }
    let mut text = format!(
        "restored {} files ({} read in {secs:.1} s, all read back and right) of {} to {}\n",
        counted.files,
        bytes(counted.read_bytes as f64),
        job.actual,
        job.target.display()
    );
    if counted.kept_files > 0 {
        text.push_str(&format!("{} of them were there from an earlier run\n", counted.kept_files));
    }
    if counted.without > 0 {
        text.push_str(&format!(
            "{} owners, attributes or devices could not be given: that takes root\n",
            counted.without
        ));
    }
    for note in &job.notes {
        text.push_str(&format!("{note}\n"));
    }
    output::print(&text)
}

fn prepare(args: &Args, store: Option<&Path>) -> Result<Job, String> {
    let wanted = Wanted::of(args, store)?;
    let target = restore::check_target(&args.to, &wanted.store)?;
    at::flush(&wanted.store, &args.at)?;
    let found = control::ask(&wanted.store, &control::Ask::Resolve { time: args.at.clone() })?;
    let (Some(seq), Some(view)) = (found.get("seq"), found.get("view").and_then(Value::as_str)) else {
        return Err(why_not(&found));
    };
    let status = control::ask(&wanted.store, &control::Ask::Status)?;
    let sources = sources(&status, view, &target, wanted.is_whole())?;
    // An open directory of a view holds its instant.
    let views =
        sources.iter().map(|source| File::open(&source.view).map_err(|cause| told(&source.view, &cause)));
    let views = views.collect::<Result<Vec<File>, String>>()?;
    let mut selected = wanted.selected();
    let mut notes = Vec::new();
    for text in &args.partitions {
        let asked = partition_at(&wanted.store, text, seq)?;
        take(&mut selected, &mut notes, &asked, text)?;
    }
    for text in &args.except {
        let asked = partition_at(&wanted.store, text, seq)?;
        leave_out(&mut selected, &asked, text)?;
    }
    let relocate = relocate(&sources, wanted.is_whole());
    let mut plan = Plan::default();
    for source in &sources {
        let whole = wanted.is_whole() && args.partitions.is_empty();
        match selected.get(&source.root) {
            Some(selected) => plan.add(source, selected, &relocate)?,
            None if whole => plan.add(source, &Selected::default(), &relocate)?,
            None => {}
        }
    }
    plan.keep_back(&LAST);
    if plan.files.is_empty() && plan.links.is_empty() && plan.dirs.len() <= 1 {
        return Err(format!("nothing of what was named was there at {}", field(&found, "actual")));
    }
    space::has_room(&target, plan.bytes, 0)?;
    make_target(&target)?;
    let what = [&wanted.shown, &args.partitions, &args.except].into_iter().flatten();
    let what: Vec<&str> = what.map(String::as_str).collect();
    let identity = format!("{} [{}] at seq {seq}", wanted.store.display(), what.join(" "));
    let state = State::open(&target, &identity)?;
    Ok(Job { plan, state, target, actual: field(&found, "actual"), notes, _views: views })
}

fn told(path: &Path, cause: &std::io::Error) -> String {
    format!("cannot read {}: {cause}", path.display())
}

/// Which STORE, and what of it.
struct Wanted {
    store: PathBuf,
    /// Paths from their root on, by root; a root with none is wanted whole.
    paths: BTreeMap<String, Vec<PathBuf>>,
    shown: Vec<String>,
}

impl Wanted {
    fn of(args: &Args, store: Option<&Path>) -> Result<Wanted, String> {
        let mut wanted = Wanted { store: PathBuf::new(), paths: BTreeMap::new(), shown: Vec::new() };
        for path in &args.paths {
            let inside = place::inside(path, store)?;
            if !wanted.store.as_os_str().is_empty() && wanted.store != inside.store {
                return Err(format!("{} belongs to another STORE than the paths before it", path.display()));
            }
            wanted.store = inside.store;
            let names: Vec<&OsStr> = inside.names.iter().map(|name| OsStr::from_bytes(name)).collect();
            if !names.is_empty() {
                let path: PathBuf = names.iter().collect();
                wanted.shown.push(format!("{}:{}", inside.root, path.display()));
                wanted.paths.entry(inside.root).or_default().push(path);
            }
        }
        if args.paths.is_empty() {
            wanted.store = place::find_store(None, store)?;
        }
        let by_partition = args.partitions.iter().chain(&args.except).next().is_some();
        if by_partition && !wanted.paths.is_empty() {
            return Err("give paths in the mount, or --partition and --except, not both".into());
        }
        Ok(wanted)
    }

    fn is_whole(&self) -> bool {
        self.paths.is_empty()
    }

    fn selected(&self) -> BTreeMap<String, Selected> {
        let one = |(root, paths): (&String, &Vec<PathBuf>)| {
            let only = paths.iter().map(|path| (path.clone(), None)).collect();
            (root.clone(), Selected { only, ..Selected::default() })
        };
        self.paths.iter().map(one).collect()
    }
}

/// Every root's view at the instant that it was in the set at, and where it goes: DATA's into the target, the others beside
/// it, or below it when only parts are restored.
fn sources(status: &Value, view: &str, target: &Path, whole: bool) -> Result<Vec<Source>, String> {
    let mut sources = vec![Source {
        root: String::new(),
        view: Path::new(&field(status, "mountpoint")).join(view),
        target: target.to_path_buf(),
    }];
    for root in status.get("roots").and_then(Value::as_array).into_iter().flatten() {
        let name = field(root, "name");
        let view = Path::new(&field(root, "mountpoint")).join(view);
        if !view.is_dir() {
            continue;
        }
        let target = match whole {
            true => beside(target, &name),
            false => target.join(&name),
        };
        if whole && target.exists() && !target.is_dir() {
            return Err(format!("{} is in the way of the root {name}", target.display()));
        }
        sources.push(Source { root: name, view, target });
    }
    Ok(sources)
}

fn beside(target: &Path, root: &str) -> PathBuf {
    let mut name: OsString = target.as_os_str().to_owned();
    name.push(format!(".{root}"));
    PathBuf::from(name)
}

fn relocate(sources: &[Source], whole: bool) -> Relocate {
    let pairs = sources.iter().filter(|_| whole).map(|source| (source.view.clone(), source.target.clone()));
    Relocate { roots: pairs.collect() }
}

fn partition_at(store: &Path, text: &str, seq: &Value) -> Result<Value, String> {
    let ask = control::Ask::PartitionAt { partition: text.to_owned(), time: format!("seq={seq}") };
    control::ask(store, &ask)
}

/// A file of a partition: root, path, and what of it is wanted where it is not all.
type Wants = (String, PathBuf, Option<restore::Ranges>);

/// The files of a partition, and those of others that held its rows; one at least.
fn files_of(asked: &Value, text: &str) -> Result<[Vec<Wants>; 2], String> {
    let file = |file: &Value| {
        let ranges = serde_json::from_value(file.get("ranges").cloned().unwrap_or_default()).ok()?;
        Some((field(file, "root"), unescape_path(field(file, "path").as_bytes())?, ranges))
    };
    let all = |key| {
        let files = asked.get(key).and_then(Value::as_array).into_iter().flatten();
        files.map(file).collect::<Option<Vec<Wants>>>().ok_or("the daemon's answer makes no sense")
    };
    let [own, others] = [all("files")?, all("of_parents")?];
    if own.is_empty() && others.is_empty() {
        let why = Some(field(asked, "gone")).filter(|why| !why.is_empty());
        return Err(format!(
            "there was no partition {text} at {}{}: `weft partitions` lists those of now, `weft log` of one of its files says \
             since when",
            field(asked, "actual"),
            why.map_or_else(String::new, |why| format!(" ({why})")),
        ));
    }
    Ok([own, others])
}

/// Adds the files of a partition.
fn take(
    selected: &mut BTreeMap<String, Selected>,
    notes: &mut Vec<String>,
    asked: &Value,
    text: &str,
) -> Result<(), String> {
    for (root, path, ranges) in files_of(asked, text)?.into_iter().flatten() {
        selected.entry(root).or_default().want(path, ranges);
    }
    let told = asked.get("notes").and_then(Value::as_array).into_iter().flatten();
    notes.extend(told.filter_map(Value::as_str).map(str::to_owned));
    Ok(())
}

/// Leaves out the files of a partition. Of one that was only part of another then, that would take the others' rows along.
fn leave_out(selected: &mut BTreeMap<String, Selected>, asked: &Value, text: &str) -> Result<(), String> {
    let [files, _] = files_of(asked, text)?;
    let parents = asked.get("parents").and_then(Value::as_array).into_iter().flatten();
    let parents: Vec<&str> = parents.filter_map(Value::as_str).collect();
    if files.is_empty() {
        return Err(format!(
            "{text} was part of {} at {}, and cannot be left out alone: leave the option out, or give --except {} to restore \
             none of that",
            parents.join(" and "),
            field(asked, "actual"),
            parents.join(" --except ")
        ));
    }
    for (root, path, _) in files {
        selected.entry(root).or_default().except.insert(path);
    }
    Ok(())
}

fn make_target(target: &Path) -> Result<(), String> {
    match std::fs::create_dir(target) {
        Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(format!("cannot make {}: {cause}", target.display()))
        }
        _ => Ok(()),
    }
}

/// Set by SIGINT and SIGTERM: the copying stops between two pieces.
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

fn interruptible() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for number in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic. Where it cannot be set, the signal ends the process, which leaves
        // the same state.
        let _ = unsafe { signal(number, SigHandler::Handler(stop)) };
    }
}

/// The progress on a terminal; nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new(plan: &Plan) -> Bar {
        // Each byte is copied and read back.
        let bar = ProgressBar::with_draw_target(Some(plan.bytes * 2), ProgressDrawTarget::stderr());
        let style =
            "{bar:40} {percent}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} eta {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar(bar)
    }
}

impl Progress for Bar {
    fn copied(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn proven(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn stop(&self) -> bool {
        STOP.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_roots_go_beside_the_target() {
        assert_eq!(beside(Path::new("/srv/new"), "wal"), Path::new("/srv/new.wal"));
    }

    #[test]
    fn a_partition_that_was_not_there_is_told_so() {
        let asked = json!({ "actual": "2026", "files": [] });
        let mut selected = BTreeMap::new();
        for refused in [
            take(&mut selected, &mut Vec::new(), &asked, "base/5/1").unwrap_err(),
            leave_out(&mut selected, &asked, "base/5/1").unwrap_err(),
        ] {
            assert!(refused.contains("base/5/1") && refused.contains("weft partitions"), "{refused}");
        }
        assert!(selected.is_empty());
    }

    #[test]
    fn a_partition_that_was_part_of_others_is_taken_out_of_them_and_not_left_out() {
        let file = |root: &str, ranges: Value| json!({ "root": root, "path": "base/5/1", "ranges": ranges });
        let child = json!({ "actual": "2026", "notes": ["n", "m"], "parents": ["base/5/1", "fast:base/5/1"],
            "of_parents": [file("", json!([[0, 4096]])), file("fast", Value::Null)] });
        let (mut selected, mut notes) = (BTreeMap::new(), Vec::new());
        take(&mut selected, &mut notes, &child, "x").unwrap();
        let wanted = |selected: &BTreeMap<String, Selected>, root: &str| {
            selected[root].only[Path::new("base/5/1")].clone()
        };
        assert_eq!(wanted(&selected, ""), Some(vec![(0, 4096)]));
        assert_eq!((wanted(&selected, "fast"), notes.len()), (None, 2));
        // Another child of the same partition, and then all of it.
        let other = json!({ "files": [file("", json!([[8192, 12288]]))] });
        take(&mut selected, &mut notes, &other, "y").unwrap();
        assert_eq!(wanted(&selected, ""), Some(vec![(0, 4096), (8192, 12288)]));
        take(&mut selected, &mut notes, &json!({ "files": [file("", Value::Null)] }), "base/5/1").unwrap();
        assert_eq!(wanted(&selected, ""), None);

        let refused = leave_out(&mut selected, &child, "x").unwrap_err();
        assert!(refused.contains("--except base/5/1 --except fast:base/5/1"), "{refused}");
        assert!(selected.values().all(|root| root.except.is_empty()));
        leave_out(&mut selected, &other, "y").unwrap();
        assert!(selected[""].except.contains(Path::new("base/5/1")));
    }
}
