use crate::model::{note, reload, start};
use crate::{Outcome, output, space};
use serde_json::{Value, json};
use std::fs::{DirBuilder, read_to_string};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use weft::forecast::predictor::HORIZONS;
use weft_mount::config::Config;
use weft_mount::onnx::OnnxPredictor;
use weft_mount::{Outcome as Told, models, place};

/// Train a model on this site's own trace, and use it if it is better than the one in use
///
/// The new model goes on from the one in use, learns from the first four fifths of what STORE keeps of past ticks, and
/// has to be better on the newest fifth, which takes a trace of 2 h 36 min or more. Both stay: see `weft model list`. Where
/// the one in use does not run here, the shipped one stands in for it. Needs Python 3.11 to 3.13; what else it needs is
/// installed into STORE/train the first time. What it works with stands in STORE/train/work meanwhile: some hundred MiB at
/// most, and nothing where that would leave less than twice keep_free_mib and reserve_mib.
#[derive(clap::Args)]
pub struct Args {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// Python with the packages that training needs (tools/train/requirements.txt)
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Training is random in places; the same seed gives the same model
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u32,
    /// Keep the model, better or not, without using it
    #[arg(long)]
    keep_only: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// The programs of tools/train, as they were when this was built.
const PROGRAMS: [(&str, &str); 10] = [
    (BOUNDS.0, BOUNDS.1),
    ("compare.py", include_str!("../train/compare.py")),
    ("data.py", include_str!("../train/data.py")),
    ("graph.py", include_str!("../train/graph.py")),
    ("judge.py", include_str!("../train/judge.py")),
    ("net.py", include_str!("../train/net.py")),
    ("outputs.py", include_str!("../train/outputs.py")),
    ("scores.py", include_str!("../train/scores.py")),
    ("train.py", include_str!("../train/train.py")),
    ("requirements.txt", include_str!("../train/requirements.txt")),
];
/// Rows of an hour of a small site.
const ROWS_LEAST: u64 = 1_000;
/// Seconds between moments, where a tick is no longer.
const STEP_SECS: u64 = 60;
/// However busy a site is: 600 MiB.
const ROWS_MOST: u64 = 500_000;
/// What the packages take, and pip while it unpacks them.
const PACKAGES_BYTES: u64 = 512 << 20;

/// How much of a trace a comparison needs; compare.py goes by the same file.
const BOUNDS: (&str, &str) = ("bounds.json", include_str!("../train/bounds.json"));

#[derive(serde::Deserialize)]
struct Bounds {
    /// Share of a trace's moments from which on a model is judged: it has not learned from those.
    newest_from: f64,
    /// Moments of that part, and seconds that they cover.
    moments: u64,
    span_secs: u64,
}

impl Bounds {
    fn read() -> Told<Bounds> {
        serde_json::from_str(BOUNDS.1).map_err(|cause| format!("{}: {cause}", BOUNDS.0))
    }

    /// Moments, so many seconds apart, that a trace has at least.
    fn moments(&self, step: u64) -> u64 {
        let known = self.moments.max(self.span_secs.div_ceil(step) + 1);
        // What came of the last ones within the shortest horizon is not known yet.
        let newest = known + u64::from(HORIZONS[0]).div_ceil(step);
        let is_enough = |all: &u64| all - (*all as f64 * self.newest_from) as u64 >= newest;
        (newest..).find(is_enough).unwrap_or(u64::MAX)
    }

    /// Why so many rows of so many moments are too few to train on, and how much is missing.
    fn check(&self, (rows, moments): (u64, u64), step: u64) -> Told<()> {
        let to_compare = self.moments(step);
        let to_learn = (ROWS_LEAST * moments.max(1)).div_ceil(rows.max(1));
        let needed = to_compare.max(to_learn);
        if moments >= needed && rows >= ROWS_LEAST {
            return Ok(());
        }
        let why = match to_compare >= to_learn {
            true => format!(
                "a new model is compared with the old one on the newest {:.0} % of it, which have to be {} moments within {} \
                 at least",
                (1.0 - self.newest_from) * 100.0,
                self.moments,
                words_of(self.span_secs)
            ),
            false => format!("training takes {ROWS_LEAST} rows, and it has {rows} of {moments} moments"),
        };
        let (has, needs, lacks) = (moments * step, needed * step, (needed - moments.min(needed)) * step);
        Err(format!(
            "the trace covers {}, and needs {}, because {why}: let it grow for {} more",
            words_of(has),
            words_of(needs),
            words_of(lacks)
        ))
    }
}

/// Seconds as people say them.
fn words_of(secs: u64) -> String {
    match (secs / 3_600, secs / 60 % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

pub fn run(args: &Args, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    outlive_interrupts();
    let work = Work::begin(&store)?;
    let champion = champion(&store)?;
    let rows = rows(&store, &work)?;
    let python = python(args.python.as_deref(), &work)?;
    let old = work.scratch.join("champion.onnx");
    let new = work.scratch.join("challenger.onnx");
    std::fs::write(&old, &champion.bytes)
        .map_err(|cause| format!("cannot write {}: {cause}", old.display()))?;
    train(args, &python, &work.dir, (&old, &new, &rows))?;
    let bytes = models::from_path(&new)?;
    let challenger = models::Model { name: models::hash(&bytes), blake3: models::hash(&bytes), bytes };
    start(&store, challenger.clone())?;
    let told = compare(&python, &work.dir, (&old, &new, &rows))?;
    let better = told.get("better").and_then(Value::as_bool).unwrap_or(false);
    let name =
        models::add(&store, &challenger.bytes, &models::Note { report: told.clone(), ..note("weft train") })?;
    let used = better && !args.keep_only;
    if used {
        models::choose(&store, &name)?;
        reload(&store)?;
    }
    let all = json!({ "model": name, "champion": champion.name, "used": used, "comparison": told });
    if args.json { output::print_json(&all) } else { output::print(&words(&all)) }
}

/// The model to go on from and to beat: the one in use, or the shipped one where what was chosen does not run here.
fn champion(store: &Path) -> Told<models::Model> {
    let config = Config::load(store)?;
    let (model, refused) = OnnxPredictor::of_store(store, config.onnxruntime())?;
    if let Some(refused) = refused {
        output::complain(&format!(
            "{refused}: the new one goes on from that, and has to be better than that"
        ));
    }
    Ok(model.model().clone())
}

/// A program that is interrupted at the terminal fails, and so do we: after we have tidied up.
fn outlive_interrupts() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    extern "C" fn go_on(_: libc::c_int) {}
    for number in [Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: the handler does nothing. Where it cannot be set, the next training tidies up.
        let _ = unsafe { signal(number, SigHandler::Handler(go_on)) };
    }
}

/// STORE/train, which holds programs, packages and, until this is dropped, what is being worked on. One training at a time.
struct Work {
    dir: PathBuf,
    scratch: PathBuf,
    /// Bytes that are left free: beyond, a mount takes the disk for full, and shortens history.
    left: u64,
    _lock: std::fs::File,
}

impl Work {
    fn begin(store: &Path) -> Told<Work> {
        let dir = store.join("train");
        let failed = |cause: std::io::Error| format!("cannot use {}: {cause}", dir.display());
        let make = |dir: &Path| match DirBuilder::new().mode(0o700).create(dir) {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(cause)),
            _ => Ok(()),
        };
        make(&dir)?;
        let lock = std::fs::File::create(dir.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|_| format!("{} is at work already: wait for it", dir.display()))?;
        for (name, text) in PROGRAMS {
            std::fs::write(dir.join(name), text).map_err(failed)?;
        }
        let config = Config::load(store)?;
        let left = (2 * config.keep_free_mib + config.reserve_mib) << 20;
        let work = Work { scratch: dir.join("work"), dir: dir.clone(), left, _lock: lock };
        work.tidy();
        make(&work.scratch)?;
        Ok(work)
    }

    /// Takes away what was worked on: now, or by a training that was killed.
    fn tidy(&self) {
        match std::fs::remove_dir_all(&self.scratch) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                output::complain(&format!("cannot remove {}: {cause}", self.scratch.display()));
            }
            _ => {}
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.tidy();
    }
}

/// A Python with the packages: the one given, the one of a development tree, or one made in STORE/train.
fn python(given: Option<&Path>, work: &Work) -> Told<PathBuf> {
    let dir = &work.dir;
    if let Some(given) = given {
        return match given.is_file() {
            true => Ok(given.to_path_buf()),
            false => Err(format!("--python: there is no {}", given.display())),
        };
    }
    let program = std::env::current_exe().ok();
    let developers = program.as_deref().and_then(Path::parent).map(|dir| dir.join("../tools/train-venv"));
    let own = dir.join("venv");
    let wanted = read_to_string(dir.join("requirements.txt")).unwrap_or_default();
    let is_ready =
        |venv: &Path| read_to_string(venv.join("requirements.txt")).is_ok_and(|have| have == wanted);
    if let Some(venv) = developers.into_iter().chain([own.clone()]).find(|venv| is_ready(venv)) {
        return Ok(venv.join("bin/python"));
    }
    space::has_room(&own, PACKAGES_BYTES, work.left)?;
    output::complain("installing what training needs into STORE/train/venv (once)");
    let python = own.join("bin/python");
    let list = dir.join("requirements.txt");
    let install =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"];
    ask(Command::new("python3").arg("-m").arg("venv").arg("--clear").arg(&own))
        .and_then(|_| ask(Command::new(&python).args(install).arg("--only-binary=:all:").arg("-r").arg(&list)))
        .map_err(|cause| {
            format!(
                "{cause}; training needs python3 (3.11 to 3.13) with venv and pip, and once the network: install them \
                 (apt install python3-venv), or give a Python with the packages of {} by --python",
                list.display()
            )
        })?;
    std::fs::copy(&list, own.join("requirements.txt"))
        .map_err(|cause| format!("cannot write into {}: {cause}", own.display()))?;
    Ok(python)
}

/// The site's trace as rows, by this program's own `weft trace`.
fn rows(store: &Path, work: &Work) -> Told<PathBuf> {
    let (trace, rows) = (work.scratch.join("site.csv.gz"), work.scratch.join("site"));
    // It is packed where it is kept, with other means.
    space::has_room(&trace, 2 * kept_bytes(store), work.left)?;
    let weft = || {
        let mut weft = Command::new("/proc/self/exe");
        weft.arg("--store").arg(store).arg("trace");
        weft
    };
    ask(weft().arg("export").arg("--output").arg(&trace))?;
    // Splits as this mount counts them.
    let config = Config::load(store)?;
    let splits = format!("size:{}", config.forecast_split_mib << 20);
    let step = STEP_SECS.max(config.forecast_tick_secs);
    let mut features = weft();
    features.arg("features").arg(&trace).arg("--output").arg(&rows);
    let (most, left) = (ROWS_MOST.to_string(), (work.left >> 20).to_string());
    features.args(["--rows", &most, "--most", &most, "--leave-mib", &left]);
    ask(features.args(["--step", &step.to_string(), "--splits", &splits]))?;
    let about = read_to_string(rows.join("about.json")).unwrap_or_default();
    let about: Value = serde_json::from_str(&about).unwrap_or_default();
    let count = |key: &str| about.get(key).and_then(Value::as_u64).unwrap_or(0);
    Bounds::read()?.check((count("rows"), count("moments")), step)?;
    Ok(rows)
}

/// Bytes of the ticks that STORE keeps.
fn kept_bytes(store: &Path) -> u64 {
    let files = std::fs::read_dir(store.join("trace")).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn train(args: &Args, python: &Path, dir: &Path, (old, new, rows): (&Path, &Path, &Path)) -> Told<()> {
    let mut train = Command::new(python);
    train.current_dir(dir).arg("train.py").arg("--out").arg(new).arg("--seed").arg(args.seed.to_string());
    train.arg("--date").arg(jiff::Zoned::now().date().to_string());
    train.arg("--source").arg(format!("{}:the site's own", rows.display()));
    train.arg("--from").arg(old);
    ask(&mut train).map(|_| ())
}

fn compare(python: &Path, dir: &Path, (old, new, rows): (&Path, &Path, &Path)) -> Told<Value> {
    let mut compare = Command::new(python);
    compare
        .current_dir(dir)
        .arg("compare.py")
        .arg("--champion")
        .arg(old)
        .arg("--challenger")
        .arg(new)
        .arg(rows);
    let told = ask(&mut compare)?;
    serde_json::from_str(&told).map_err(|cause| format!("compare.py told nonsense: {cause}"))
}

/// Runs a program; what it printed. Its complaints become ours, in one line.
fn ask(command: &mut Command) -> Told<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done =
        command.stdin(Stdio::null()).output().map_err(|cause| format!("cannot run {name}: {cause}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(last) => Err(last.trim_start_matches("weft: ").to_owned()),
        None => Err(format!("{name} failed without a word ({})", done.status)),
    }
}

fn words(all: &Value) -> String {
    let text = |pointer: &str| match all.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "?".into(),
    };
    let scores = match all.pointer("/comparison/why") {
        Some(_) => text("/comparison/why"),
        None => format!(
            "loss on the newest window {} against {} (difference within {})",
            text("/comparison/challenger"),
            text("/comparison/champion"),
            text("/comparison/interval")
        ),
    };
    let (new, old) = (text("/model"), text("/champion"));
    let verdict = match all.get("used").and_then(Value::as_bool) {
        Some(true) => format!("model {} is used from now on", models::short(&new)),
        _ => format!(
            "model {} stays in use; the new one is kept as {}",
            models::short(&old),
            models::short(&new)
        ),
    };
    format!("{verdict}: {scores}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trace_lacks_is_told_before_anything_is_trained() {
        let bounds = Bounds::read().unwrap();
        assert_eq!(bounds.moments(60), 156, "as tools/train/test_train.py has it");
        // The newest fifth: what is left when what is not known yet is taken away covers the span.
        assert_eq!(bounds.moments(900) - (bounds.moments(900) as f64 * 0.8) as u64, 24 + 1);
        assert_eq!(bounds.check((3_000, 156), 60), Ok(()));
        let early = bounds.check((70 * 24, 70), 60).unwrap_err();
        assert!(early.starts_with("the trace covers 1 h 10 min, and needs 2 h 36 min, because "), "{early}");
        assert!(early.contains("newest 20 % of it, which have to be 24 moments within 30 min"), "{early}");
        assert!(early.ends_with("let it grow for 1 h 26 min more"), "{early}");
        let small = bounds.check((156 * 2, 156), 60).unwrap_err();
        assert!(
            small.contains("needs 8 h 20 min, because training takes 1000 rows, and it has 312 of 156"),
            "{small}"
        );
        assert!(bounds.check((0, 0), 60).is_err());
    }
}
