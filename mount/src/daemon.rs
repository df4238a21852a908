//! `weft mount`: check, go to the background, open the engine, mount, serve until unmounted.

use crate::check::{self, Plan, Request};
use crate::control;
use crate::handlers::WeftFs;
use crate::held::Held;
use crate::process::{self, Report, Side};
use crate::running::{Event, Rates, Running};
use crate::{Outcome, config, kernel, mountinfo, place};
use fuser::{Session, SessionACL};
use nix::sys::signal::SigSet;
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use weft::clock::Clock;
use weft::disk::Disk;
use weft::disk::os::OsDisk;
use weft::engine::{Capture, Engine, Options, WeaveLimits};
use weft::index::kv::Kv;
use weft::index::lsm::{LsmKv, LsmOptions};
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
        process::log_to_stderr();
        return serve(&plan, Report::Foreground);
    }
    match process::background()? {
        Side::Parent(outcome) => outcome,
        Side::Daemon(report) => {
            let ended = serve(&plan, report);
            std::process::exit(i32::from(ended.is_err()));
        }
    }
}

/// Recovers DATA without mounting it; what recovery did.
///
/// # Errors
/// One line saying what is wrong and what to do.
pub fn recover(data: &Path, store: Option<&Path>) -> Outcome<String> {
    let data = place::real(data)?;
    let store = match store {
        Some(store) => place::real(store)?,
        None => place::sibling_store(&data),
    };
    if !store.is_dir() {
        return Err(format!("there is no STORE {}: say where it is with --store DIR", store.display()));
    }
    if control::is_served(&store) {
        return Err(format!("{} is mounted: nothing to recover (`weft status`)", data.display()));
    }
    if mountinfo::at(&mountinfo::read()?, &data).is_some_and(|mount| mount.fstype == mountinfo::FSTYPE) {
        kernel::clear_dead(&data)?;
    }
    let config = config::Config::load(&store)?;
    let profile = config.profile.choose(&data);
    let plan = Plan { point: data.clone(), capture: Capture::Strict, data, store, config, profile };
    process::harden();
    let (engine, _data) = open_engine(&plan)?;
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
            let ended = started.running.run(&started.events, started.session);
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
    session: JoinHandle<std::io::Result<()>>,
    /// The directory beneath the mount; the engine reaches it through this descriptor.
    _data: File,
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
    let opened = open_engine(plan);
    if opened.is_err() && made {
        unmake_store(&plan.store);
    }
    let (engine, data) = opened?;
    let (sender, events) = mpsc::channel();
    match mount_engine(plan, &engine, sender.clone()) {
        Ok((running, session)) => {
            take_signals(signals, sender)?;
            Ok(Started { running, events, session, _data: data })
        }
        Err(cause) => match engine.close() {
            Ok(()) => Err(cause),
            Err(worse) => {
                Err(format!("{cause}; and then {worse}: run `weft recover {}`", plan.data.display()))
            }
        },
    }
}

/// Opens the engine on DATA as it is beneath the mount.
fn open_engine(plan: &Plan) -> Outcome<(Arc<Engine>, File)> {
    let shown = plan.data.display();
    let data = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(&plan.data)
        .map_err(|cause| format!("cannot open {shown}: {cause}"))?;
    let beneath = PathBuf::from(format!("/proc/self/fd/{}", data.as_raw_fd()));
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new().alias(&beneath, &plan.data));
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
    // What the core refuses by DATA's path it names by the one it was given.
    let engine = engine.map_err(|cause| {
        cause.to_string().replace(&*beneath.to_string_lossy(), &plan.data.to_string_lossy())
    })?;
    engine.start().map_err(|cause| cause.to_string())?;
    Ok((engine, data))
}

fn options(plan: &Plan, beneath: &Path) -> Outcome<Options> {
    const MIB: u64 = 1 << 20;
    let config = &plan.config;
    Ok(Options {
        capture: plan.capture,
        segment_bytes: config.segment_mib * MIB,
        overlay_limit_bytes: config.overlay_limit_mib * MIB,
        cache_bytes: config.cache_mib * MIB,
        checkpoint_bytes: config.checkpoint_mib * MIB,
        open_files: config.open_files,
        clock_step_us: i64::try_from(config.clock_step_secs).unwrap_or(i64::MAX / 1_000_000) * 1_000_000,
        weave: WeaveLimits {
            on: config.weave,
            cpu_percent: config.weave_cpu_percent,
            bytes_per_sec: config.weave_mib_per_sec * MIB,
        },
        privileged: kernel::is_root(),
        new_store_id: random()?,
        ..Options::new(beneath, &plan.store)
    })
}

fn random() -> Outcome<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|cause| format!("cannot read /dev/urandom: {cause}"))?;
    Ok(bytes)
}

fn mount_engine(
    plan: &Plan,
    engine: &Arc<Engine>,
    events: Sender<Event>,
) -> Outcome<(Arc<Running>, JoinHandle<std::io::Result<()>>)> {
    let zone = when::zone(&plan.config.timezone).map_err(|cause| cause.message)?;
    let notifier = Arc::new(OnceLock::new());
    let held = Held::start(Arc::clone(engine), Arc::clone(&notifier))
        .map_err(|cause| format!("cannot start a thread: {cause}"))?;
    let fs = WeftFs::new(Arc::clone(engine), plan.capture, zone.clone(), held);
    let mounted = kernel::mount_over(&plan.point, &plan.store)?;
    if !mounted.shared {
        tracing::warn!(
            "only this user can use the mount: put user_allow_other into /etc/fuse.conf to share it"
        );
    }
    let begun = || {
        let mut config = fuser::Config::default();
        config.n_threads = Some(plan.config.threads);
        config.clone_fd = true;
        // Who may do what is the kernel's business (default_permissions, allow_other).
        config.acl = SessionACL::All;
        let session = Session::from_fd(fs, mounted.device, SessionACL::All, config)
            .map_err(|cause| format!("the kernel refused the connection: {cause}"))?;
        let _ = notifier.set(session.notifier());
        let mounts = mountinfo::read()?;
        let mount = mountinfo::at(&mounts, &plan.point).filter(|mount| mount.fstype == mountinfo::FSTYPE);
        let mount = mount.ok_or("the mount was gone at once: see the kernel's log (dmesg)")?.clone();
        kernel::widen_readahead(mount.major, mount.minor);
        let running = Arc::new(Running {
            engine: Arc::clone(engine),
            capture: plan.capture,
            zone,
            data: plan.data.clone(),
            store: plan.store.clone(),
            mount,
            started: Instant::now(),
            events: events.clone(),
            rates: parking_lot::Mutex::new(Rates::default()),
        });
        let control = Arc::clone(&running);
        control::listen(&plan.store, Arc::new(move |ask, answer| control.answer(ask, answer)))?;
        Ok((running, serve_kernel(session, events)?))
    };
    begun().inspect_err(|_: &String| {
        let _ = kernel::clear_dead(&plan.point);
    })
}

fn serve_kernel(session: Session<WeftFs>, events: Sender<Event>) -> Outcome<JoinHandle<std::io::Result<()>>> {
    let serve = move || {
        let ended = session.run();
        let _ = events.send(Event::Ended);
        ended
    };
    thread::Builder::new()
        .name("fuse".into())
        .spawn(serve)
        .map_err(|cause| format!("cannot start a thread: {cause}"))
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
    let mine = [config::FILE, process::LOG];
    let others = std::fs::read_dir(store)
        .map(|entries| entries.flatten().any(|entry| !mine.iter().any(|name| entry.file_name() == *name)));
    if let Ok(false) = others {
        for name in mine {
            let _ = std::fs::remove_file(store.join(name));
        }
        let _ = std::fs::remove_dir(store);
    }
}
