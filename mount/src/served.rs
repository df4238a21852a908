//! One root as the kernel sees it: mounted over its directory, served by a session of its own.

use crate::cached::Cached;
use crate::handlers::{Here, WeftFs};
use crate::held::Held;
use crate::kernel::{self, NotUnmounted};
use crate::links::Links;
use crate::mountinfo::{self, Mount};
use crate::patient::Patient;
use crate::running::Event;
use crate::views::Views;
use crate::{Outcome, holders};
use fuser::{INodeNo, Notifier, Session, SessionACL};
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use weft::engine::{Capture, Engine, View};
use weft::types::Seq;

/// What all roots of a daemon have in common.
pub struct Common {
    pub engine: Arc<Engine>,
    pub capture: Capture,
    pub zone: TimeZone,
    pub store: PathBuf,
    /// Threads that answer the kernel, for each root.
    pub threads: usize,
    pub links: Arc<Links>,
    pub events: Sender<Event>,
}

/// The mount and its session, while there is one.
struct Up {
    mount: Mount,
    session: JoinHandle<std::io::Result<()>>,
}

/// See the head of this file.
pub struct Served {
    pub here: Here,
    pub point: PathBuf,
    /// What the kernel keeps of it.
    pub cached: Arc<Cached>,
    up: Mutex<Option<Up>>,
    past: OnceLock<(Arc<Views<View>>, Notifier)>,
    /// The kernel is being told to forget views.
    forgetting: Arc<AtomicBool>,
}

impl Served {
    pub fn new(here: Here, point: &Path) -> Served {
        Served {
            here,
            point: point.to_path_buf(),
            cached: Arc::default(),
            up: Mutex::new(None),
            past: OnceLock::new(),
            forgetting: Arc::default(),
        }
    }

    /// For messages: the mount point, and which root it is.
    pub fn shown(&self) -> String {
        match self.here.name.is_empty() {
            true => self.point.display().to_string(),
            false => format!("{} (root {})", self.point.display(), String::from_utf8_lossy(&self.here.name)),
        }
    }

    /// Mounts, and begins to answer.
    ///
    /// # Errors
    /// One line saying what is wrong; nothing is mounted then.
    pub fn mount(&self, common: &Common) -> Outcome<()> {
        let zone = common.zone.clone();
        let here = (self.here.clone(), Arc::clone(&common.links));
        let notifier = Arc::new(OnceLock::new());
        let failed = |cause: std::io::Error| format!("cannot start a thread: {cause}");
        let held = Held::start(Arc::clone(&common.engine), Arc::clone(&notifier)).map_err(failed)?;
        let patient = Patient::start(Arc::clone(&common.engine)).map_err(failed)?;
        let kept = (held, patient, Arc::clone(&self.cached));
        let fs = WeftFs::new(Arc::clone(&common.engine), common.capture, zone, here, kept);
        let views = Arc::clone(&fs.views);
        let mounted = kernel::mount_over(&self.point, &common.store)?;
        if !mounted.shared {
            tracing::warn!(
                "only this user can use the mount: put user_allow_other into /etc/fuse.conf to share it"
            );
        }
        let begun = || {
            let mut config = fuser::Config::default();
            config.n_threads = Some(common.threads);
            config.clone_fd = true;
            // Who may do what is the kernel's business (default_permissions, allow_other).
            config.acl = SessionACL::All;
            let session = Session::from_fd(fs, mounted.device, SessionACL::All, config)
                .map_err(|cause| format!("the kernel refused the connection: {cause}"))?;
            let _ = notifier.set(session.notifier());
            let mount = self.find()?.ok_or("the mount was gone at once: see the kernel's log (dmesg)")?;
            kernel::widen_readahead(mount.major, mount.minor);
            self.cached.connect(session.notifier());
            let _ = self.past.set((views, session.notifier()));
            if common.capture == Capture::Writeback {
                let share = common.engine.kernel_bytes() / common.links.roots.len().max(1) as u64;
                kernel::bound_dirty(mount.major, mount.minor, share);
            }
            let events = common.events.clone();
            let serve = move || {
                let ended = session.run();
                let _ = events.send(Event::Ended);
                ended
            };
            let session = thread::Builder::new()
                .name("fuse".into())
                .spawn(serve)
                .map_err(|cause| format!("cannot start a thread: {cause}"))?;
            *self.up.lock() = Some(Up { mount, session });
            Ok(())
        };
        begun().inspect_err(|_: &String| {
            let _ = kernel::clear_dead(&self.point);
        })
    }

    /// Has the kernel forget the names of views that are to be pruned: what nobody has open of them is let go then.
    pub fn let_go(&self, going: &HashSet<Seq>) {
        let Some((views, notifier)) = self.past.get() else { return };
        let called = views.called(|view| going.contains(&view.seq()));
        if called.is_empty() || self.forgetting.swap(true, Ordering::AcqRel) {
            return;
        }
        // The kernel takes the lock of the mount's root for it, which whoever makes a name there holds while he waits for
        // room: so the pruner does not wait for it.
        let (notifier, forgetting) = (notifier.clone(), Arc::clone(&self.forgetting));
        let forget = move || {
            for called in called {
                // One that it does not know is let go already.
                let _ = notifier.inval_entry(INodeNo::ROOT, OsStr::new(&called.name()));
            }
            forgetting.store(false, Ordering::Release);
        };
        if thread::Builder::new().name("weft-forget".into()).spawn(forget).is_err() {
            self.forgetting.store(false, Ordering::Release);
        }
    }

    /// Our kind of mount at this place, if there is one now.
    fn find(&self) -> Outcome<Option<Mount>> {
        let mounts = mountinfo::read()?;
        let mount = mountinfo::at(&mounts, &self.point);
        Ok(mount.filter(|mount| mount.fstype == mountinfo::FSTYPE).cloned())
    }

    /// The mount that this daemon made, and whether the kernel still has it.
    fn state(&self) -> Outcome<Option<(Mount, bool)>> {
        let Some(mount) = self.up.lock().as_ref().map(|up| up.mount.clone()) else { return Ok(None) };
        let there = mountinfo::read()?.iter().any(|there| there.id == mount.id && there.point == mount.point);
        Ok(Some((mount, there)))
    }

    /// Whether the kernel still has the mount.
    pub fn is_up(&self) -> bool {
        self.state().is_ok_and(|state| state.is_some_and(|(_, there)| there))
    }

    /// Who uses it, in words; empty when nobody that this user can see does.
    pub fn users(&self) -> String {
        let mount = self.up.lock().as_ref().map(|up| up.mount.clone());
        let users = mount.map(|mount| holders::on_mount(&mount)).unwrap_or_default();
        holders::describe(&users)
    }

    /// Takes the mount away, unless something uses it. One that is gone already is as good.
    ///
    /// # Errors
    /// One line saying what is in the way; it stays mounted then.
    pub fn unmount(&self) -> Outcome<()> {
        let Some((mount, there)) = self.state()? else { return Ok(()) };
        if !there {
            return Ok(());
        }
        let shown = self.shown();
        if mountinfo::at(&mountinfo::read()?, &self.point).is_some_and(|top| top.id != mount.id) {
            return Err(format!("something else is mounted over {shown}: unmount that first"));
        }
        for _ in 0..10 {
            match kernel::unmount(&self.point) {
                Ok(()) => return Ok(()),
                Err(NotUnmounted::Other(cause)) => return Err(format!("cannot unmount {shown}: {cause}")),
                // Processes that are just ending get a second.
                Err(NotUnmounted::Busy) => thread::sleep(Duration::from_millis(100)),
            }
        }
        let users = self.users();
        let users = if users.is_empty() { "something that this user cannot see" } else { &users };
        Err(format!("{shown} is in use: {users}; stop that first"))
    }

    /// Waits for the session of a mount that is gone.
    pub fn join(&self) {
        let up = self.up.lock().take();
        if let Some(Ok(Err(cause))) = up.map(|up| up.session.join()) {
            tracing::warn!("{}: the connection to the kernel ended with: {cause}", self.shown());
        }
    }
}
