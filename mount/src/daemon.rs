//! `weft mount`: check, go to the background, open the engine, mount, serve until unmounted.

use crate::check::{self, Plan, Request};
use crate::control;
use crate::handlers::Here;
use crate::links::{Linked, Links};
use crate::logs::{self, Logs};
use crate::model::{Install, Serving, Shared};
use crate::process::{self, Report, Side};
use crate::roots::{self, Root};
use crate::running::{Event, Rates, Running};
use crate::served::{Common, Served};
use crate::statistics::{self, Statistics};
use crate::{Outcome, config, kernel, mountinfo, place, profile};
use nix::sys::signal::SigSet;
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};
use weft::clock::Clock;
use weft::disk::Disk;
use weft::disk::os::OsDisk;
use weft::engine::{
    Asked, Capture, Engine, ForecastLimits, Options, RootDir, RootInfo, ShadowLimits, WeaveLimits,
};
use weft::forecast::Predictor;
use weft::forecast::service::How;
use weft::index::kv::Kv;
use weft::index::lsm::{LsmKv, LsmOptions};
use weft::live::exclude::Exclude;
use weft::past::when;
use weft::types::Timestamp;

/// The machine's clocks.
pub struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = since.map_or_else(
            |before| i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
            |after| i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        );
        Timestamp(micros)
    }

    /// CLOCK_BOOTTIME goes on while the machine is suspended (clock_gettime(2)), so waking up is no step.
    fn monotonic(&self) -> Duration {
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
    }
}

/// Mounts. In the background this returns when the mount is ready; in the foreground when it has ended.
///
/// # Errors
/// One line saying what is wrong and what to do.
pub fn mount(request: &Request) -> Outcome<()> {
    let plan = check::plan(request)?;
    if request.foreground {
        let report = process::foreground(|| look_at_tops(&plan))?;
        process::log_to_stderr();
        return serve(&plan, report);
    }
    match process::background()? {
        Side::Parent(outcome) => outcome.map(|()| look_at_tops(&plan)),
        Side::Daemon(report) => {
            let ended = serve(&plan, report);
            std::process::exit(i32::from(ended.is_err()));
        }
    }
}

/// The kernel takes the top of a mount for root's until it has asked whose it is: so it is looked at (not by the daemon)
/// before its owner wants to set its rights, as PostgreSQL does with the directory of a new tablespace.
fn look_at_tops(plan: &Plan) {
    for point in std::iter::once(&plan.point).chain(plan.roots.iter().map(|root| &root.dir)) {
        let _ = std::fs::metadata(point);
    }
}

/// Recovers DATA without mounting it; what recovery did.
///
/// # Errors
/// One line saying what is wrong and what to do.
pub fn recover(data: &Path, store: Option<&Path>, given: &[(String, PathBuf)]) -> Outcome<String> {
    let data = place::real(data)?;
    let store = match store {
        Some(store) => place::real(store)?,
        None => place::sibling_store(&data),
    };
    if !store.is_dir() {
        return Err(format!("there is no STORE {}: say where it is with --store DIR", store.display()));
    }
    // The socket of a daemon that was killed takes connections until it is gone: only an answer counts.
    if control::is_served(&store) && control::ask(&store, &control::Ask::Status).is_ok() {
        return Err(format!("{} is mounted: nothing to recover (`weft status`)", data.display()));
    }
    let (roots, mut places) = roots::choose(given, &[], &roots::load(&store)?)?;
    roots::apart(&data, &data, &store, &roots)?;
    for path in [&data].into_iter().chain(roots.iter().map(|root| &root.dir)) {
        if mountinfo::at(&mountinfo::read()?, path).is_some_and(|mount| mount.fstype == mountinfo::FSTYPE) {
            kernel::clear_dead(path)?;
        }
    }
    roots::note_data(&mut places, &data, &[]);
    let config = config::Config::load(&store)?;
    let profile = config.profile.choose(&data);
    let (point, capture, without) = (data.clone(), Capture::Strict, Vec::new());
    let plan = Plan { point, capture, data, store, roots, without, places, config, profile };
    process::harden();
    let (engine, _dirs) = open_remembering(&plan)?;
    let told = engine.status().recovery;
    engine.close().map_err(|cause| cause.to_string())?;
    Ok(told)
}

fn serve(plan: &Plan, report: Report) -> Outcome<()> {
    match start(plan, matches!(report, Report::Parent(_))) {
        Err(cause) => {
            tracing::error!("{cause}");
            let outcome = Err(cause);
            report.send(&outcome);
            outcome
        }
        Ok(started) => {
            tracing::info!(
                "{} is mounted, its history goes to {}",
                plan.point.display(),
                plan.store.display()
            );
            report.send(&Ok(()));
            let ended = started.running.run(&started.events);
            match &ended {
                Ok(()) => tracing::info!("unmounted; {} is plain and current", plan.data.display()),
                Err(cause) => tracing::error!("{cause}"),
            }
            ended
        }
    }
}

struct Started {
    running: Arc<Running>,
    events: mpsc::Receiver<Event>,
    /// The directories beneath the mounts; the engine reaches them through these descriptors.
    _dirs: Vec<File>,
}

fn start(plan: &Plan, background: bool) -> Outcome<Started> {
    let signals = process::hold_signals()?;
    process::harden();
    // All paths are absolute by now, and the daemon must not keep any directory busy.
    std::env::set_current_dir("/").map_err(|cause| format!("cannot go to /: {cause}"))?;
    let made = make_store(&plan.store)?;
    if background {
        process::log_to_store(&plan.store)?;
    }
    let opened = open_remembering(plan);
    if opened.is_err() && made {
        unmake_store(&plan.store);
    }
    let (engine, dirs) = opened?;
    let (sender, events) = mpsc::channel();
    match mount_engine(plan, &engine, sender.clone()) {
        Ok(running) => {
            take_signals(signals, sender)?;
            Ok(Started { running, events, _dirs: dirs })
        }
        Err(cause) => match engine.close() {
            Ok(()) => Err(cause),
            Err(worse) => {
                Err(format!("{cause}; and then {worse}: run `weft recover {}`", plan.data.display()))
            }
        },
    }
}

/// Opens the engine. STORE remembers the set from before its first entry moves; when nothing came of it, as before.
fn open_remembering(plan: &Plan) -> Outcome<(Arc<Engine>, Vec<File>)> {
    let before = roots::load(&plan.store)?;
    roots::save(&plan.store, &plan.places)?;
    let opened = open_engine(plan);
    match &opened {
        Ok(_) => {
            let left = before.iter().filter(|place| plan.without.contains(&place.name));
            left.filter_map(|place| place.paths.first()).for_each(|dir| roots::unmark(dir));
        }
        Err(_) if before.is_empty() => drop(std::fs::remove_file(plan.store.join(roots::FILE))),
        Err(_) => roots::save(&plan.store, &before)?,
    }
    opened
}

/// Opens the engine on the roots as they are beneath their mounts.
fn open_engine(plan: &Plan) -> Outcome<(Arc<Engine>, Vec<File>)> {
    let mut disk = OsDisk::new();
    let mut opened = Vec::new();
    for dir in [&plan.data].into_iter().chain(plan.roots.iter().map(|root| &root.dir)) {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(dir)
            .map_err(|cause| format!("cannot open {}: {cause}", dir.display()))?;
        let beneath = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        disk = disk.alias(&beneath, dir);
        opened.push((file, beneath, dir));
    }
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let beneath: Vec<&Path> = opened.iter().map(|(_, beneath, _)| beneath.as_path()).collect();
    let options = options(plan, &beneath)?;
    let open = || {
        Engine::open(Arc::clone(&disk), Arc::new(MachineClock), options.clone(), &|dir| {
            Ok(Arc::new(LsmKv::open(dir, LsmOptions::default())?) as Arc<dyn Kv>)
        })
    };
    let mut engine = open();
    // A daemon that was killed takes a moment to let go of its lock.
    for _ in 0..20 {
        match &engine {
            Err(cause) if cause.kind == weft::error::Kind::Busy && !control::is_served(&plan.store) => {
                std::thread::sleep(std::time::Duration::from_millis(100));
                engine = open();
            }
            _ => break,
        }
    }
    // What the core refuses by a root's path it names by the one it was given. Longer numbers first: 12 is not 1.
    let engine = engine.map_err(|cause| {
        opened.iter().rev().fold(cause.to_string(), |text, (_, beneath, dir)| {
            text.replace(&*beneath.to_string_lossy(), &dir.to_string_lossy())
        })
    })?;
    engine.start().map_err(|cause| cause.to_string())?;
    Ok((engine, opened.into_iter().map(|(file, _, _)| file).collect()))
}

fn options(plan: &Plan, beneath: &[&Path]) -> Outcome<Options> {
    const MIB: u64 = 1 << 20;
    let config = &plan.config;
    let (data, further) = beneath.split_first().ok_or("there is no DATA")?;
    let named = plan.roots.iter().zip(further);
    let root =
        |(root, dir): (&Root, &&Path)| RootDir { name: root.name.clone().into(), dir: dir.to_path_buf() };
    let without = plan.without.iter().map(|name| name.clone().into()).collect();
    Ok(Options {
        asked: Asked { roots: named.map(root).collect(), without },
        capture: plan.capture,
        segment_bytes: config.segment_mib * MIB,
        overlay_limit_bytes: config.overlay_limit_mib * MIB,
        cache_bytes: config.cache_mib * MIB,
        checkpoint_bytes: config.checkpoint_mib * MIB,
        keep_free_bytes: config.keep_free_mib * MIB,
        reserve_bytes: config.reserve_mib * MIB,
        kernel_floor_bytes: if kernel::is_root() { 0 } else { kernel::default_dirty_bytes() },
        // Two threads are left to answer everybody else.
        name_waiters: config.threads.saturating_sub(2),
        open_files: config.open_files,
        clock_step_us: i64::try_from(config.clock_step_secs).unwrap_or(i64::MAX / 1_000_000) * 1_000_000,
        lease_us: i64::try_from(config.lease_secs).unwrap_or(i64::MAX / 1_000_000) * 1_000_000,
        weave: WeaveLimits {
            on: config.weave,
            cpu_percent: config.weave_cpu_percent,
            bytes_per_sec: config.weave_mib_per_sec * MIB,
        },
        retention: config.retention()?,
        forecast: forecast(plan),
        shadow: ShadowLimits {
            on: config.shadow,
            bytes: config.shadow_limit_mib * MIB,
            cpu_percent: config.shadow_cpu_percent,
            bytes_per_sec: config.shadow_mib_per_sec * MIB,
            after_bytes: config.shadow_after_mib * MIB,
            max_age_us: i64::try_from(config.shadow_max_age_hours).unwrap_or(i64::MAX / 3_600_000_000)
                * 3_600_000_000,
            snapshots: usize::try_from(config.shadow_snapshots).unwrap_or(1),
        },
        privileged: kernel::is_root(),
        exclude: Exclude { always: config.patterns()?, by_contents: config.profile.patterns() },
        new_store_id: random()?,
        ..Options::new(data, &plan.store)
    })
}

/// How to forecast. A database may be made in an empty DATA later: then the names tell whose layout it is.
fn forecast(plan: &Plan) -> ForecastLimits {
    const SECOND_US: i64 = 1_000_000;
    let config = &plan.config;
    let secs = |secs: u64| i64::try_from(secs).unwrap_or(i64::MAX / SECOND_US) * SECOND_US;
    let how = How {
        tick_us: secs(config.forecast_tick_secs),
        step_us: secs(config.forecast_step_secs),
        window_us: secs(config.forecast_window_hours * 3_600),
        split_bytes: config.forecast_split_mib << 20,
        kept_bytes: config.forecast_kept_mib << 20,
        ..How::default()
    };
    ForecastLimits { on: config.forecast, how, layout: profile::layout_by_names(plan.profile) }
}

fn random() -> Outcome<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|cause| format!("cannot read /dev/urandom: {cause}"))?;
    Ok(bytes)
}

/// Mounts every root, and listens; or none.
fn mount_engine(plan: &Plan, engine: &Arc<Engine>, events: Sender<Event>) -> Outcome<Arc<Running>> {
    let zone = when::zone(&plan.config.timezone).map_err(|cause| cause.message)?;
    let roots = served(plan, engine)?;
    let linked = |root: &Served| {
        let place = plan.places.iter().find(|place| place.name.as_bytes() == root.here.name);
        let place = place.ok_or_else(|| format!("{} is not among the places of the set", root.shown()))?;
        Ok(Linked { place: place.clone(), point: root.point.clone() })
    };
    let linked: Outcome<Vec<Linked>> = roots.iter().map(linked).collect();
    let links = Links { roots: linked?, profile: plan.config.profile.fixed() };
    for line in links.uncovered(engine).map_err(|cause| cause.to_string())? {
        tracing::warn!("{line}");
    }
    let common = Common {
        engine: Arc::clone(engine),
        capture: plan.capture,
        zone,
        store: plan.store.clone(),
        threads: plan.config.threads,
        links: Arc::new(links),
        events,
    };
    let started = Instant::now();
    let rates = parking_lot::Mutex::new(Rates::default());
    let profile = (plan.config.profile, plan.profile);
    let library = plan.config.onnxruntime().map(Path::to_path_buf);
    let model = Arc::new(Serving::new(plan.store.clone(), library, forecasts_with(engine)));
    let data = plan.data.clone();
    let (logs, statistics) = (Logs::default(), Statistics::default());
    let running = Arc::new(Running { common, data, roots, profile, started, rates, model, logs, statistics });
    let roots = Arc::downgrade(&running);
    engine.set_let_go(Arc::new(move |going| {
        let running = roots.upgrade();
        running.iter().flat_map(|running| &running.roots).for_each(|root| root.let_go(going));
    }));
    let begun = running.roots.iter().try_for_each(|root| root.mount(&running.common)).and_then(|()| {
        let control = Arc::clone(&running);
        control::listen(&plan.store, Arc::new(move |ask, answer| control.answer(ask, answer)))
    });
    if let Err(cause) = begun {
        for root in running.roots.iter().filter(|root| root.is_up()) {
            let _ = kernel::clear_dead(&root.point);
            root.join();
        }
        return Err(cause);
    }
    if plan.config.forecast {
        running.model.begin();
    }
    let tick = plan.config.forecast.then(|| Duration::from_secs(plan.config.forecast_tick_secs));
    if let (Some(connection), Some(tick)) = (plan.config.pg_stat(), tick) {
        statistics::begin(&running, connection, tick)?;
    }
    // Where the server is asked, what it says counts, and not its log as well.
    let tick = tick.filter(|_| plan.config.pg_stat().is_none());
    logs::begin(&running, &plan.config.log, plan.config.log_catalogue(), tick)?;
    Ok(running)
}

/// Has the engine forecast with each model that comes, or hear why there is none.
fn forecasts_with(engine: &Arc<Engine>) -> Box<Install> {
    let engine = Arc::downgrade(engine);
    Box::new(move |model, refused| {
        let Some(engine) = engine.upgrade() else { return };
        let boxed = |model: &Shared| Box::new(model.clone()) as Box<dyn Predictor>;
        let refused = refused.map(ToString::to_string);
        engine.set_predictor(model.as_ref().map(boxed).map_err(String::clone), refused.as_deref());
    })
}

/// The roots of the engine and where each is to be seen.
fn served(plan: &Plan, engine: &Engine) -> Outcome<Vec<Served>> {
    let infos = engine.roots().map_err(|cause| cause.to_string())?;
    let one = |(number, info): (usize, RootInfo)| {
        let root = plan.roots.iter().find(|root| root.name.as_bytes() == info.name);
        let point = match (info.name.is_empty(), root) {
            (true, _) => &plan.point,
            (false, Some(root)) => &root.dir,
            (false, None) => return Err("the engine has a root that nobody asked for".to_string()),
        };
        let here = Here { root: info.root, name: info.name, dir: info.file, number };
        Ok(Served::new(here, point))
    };
    infos.into_iter().enumerate().map(one).collect()
}

fn take_signals(signals: SigSet, events: Sender<Event>) -> Outcome<()> {
    let take = move || {
        while let Ok(signal) = signals.wait() {
            if events.send(Event::Signal(signal.to_string())).is_err() {
                return;
            }
        }
    };
    let started = thread::Builder::new().name("signals".into()).spawn(take);
    started.map(|_| ()).map_err(|cause| format!("cannot start a thread: {cause}"))
}

/// Makes STORE, private to whoever runs this, and its configuration; whether it was made now.
fn make_store(store: &Path) -> Outcome<bool> {
    let made = match DirBuilder::new().mode(0o700).create(store) {
        Ok(()) => true,
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(cause) => return Err(format!("cannot make the STORE {}: {cause}", store.display())),
    };
    let path = store.join(config::FILE);
    match File::options().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => file
            .write_all(config::DEFAULT_FILE.as_bytes())
            .map_err(|cause| format!("cannot write {}: {cause}", path.display()))?,
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(cause) => return Err(format!("cannot write {}: {cause}", path.display())),
    }
    Ok(made)
}

/// Takes back what `make_store` made; a STORE that the engine has put anything into stays.
fn unmake_store(store: &Path) {
    let mine = [config::FILE, process::LOG, roots::FILE];
    let others = std::fs::read_dir(store)
        .map(|entries| entries.flatten().any(|entry| !mine.iter().any(|name| entry.file_name() == *name)));
    if let Ok(false) = others {
        for name in mine {
            let _ = std::fs::remove_file(store.join(name));
        }
        let _ = std::fs::remove_dir(store);
    }
}
