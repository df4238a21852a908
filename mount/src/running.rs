//! A daemon at work: waits for signals, for requests on the control socket, and for the end of the mount.

use crate::control::{Answer, Ask};
use crate::kernel::NotUnmounted;
use crate::mountinfo::Mount;
use crate::{Outcome, holders, kernel, mountinfo};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use weft::engine::{Capture, Engine, Status};
use weft::meta::tags;
use weft::past::when;

/// What wakes the daemon's main thread.
pub enum Event {
    Signal(String),
    Unmount(Answer),
    /// The kernel has ended the mount: `umount` by hand, or our own.
    Ended,
}

/// What a running daemon knows of itself; shared with the control socket.
pub struct Running {
    pub engine: Arc<Engine>,
    pub capture: Capture,
    pub zone: TimeZone,
    pub data: PathBuf,
    pub store: PathBuf,
    pub mount: Mount,
    pub started: Instant,
    pub events: Sender<Event>,
    pub rates: parking_lot::Mutex<Rates>,
}

/// Between rate samples.
const SAMPLE: Duration = Duration::from_secs(10);

/// Work per second over the last sample.
#[derive(Default)]
pub struct Rates {
    last: Option<(Instant, Status)>,
    shown: [f64; 3],
}

impl Rates {
    fn sample(&mut self, status: Status) {
        let now = Instant::now();
        if let Some((then, last)) = &self.last {
            let secs = now.duration_since(*then).as_secs_f64().max(0.001);
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / secs;
            self.shown = [
                rate(status.writes, last.writes),
                rate(status.written_bytes, last.written_bytes),
                rate(status.fsyncs, last.fsyncs),
            ];
        }
        self.last = Some((now, status));
    }
}

impl Running {
    /// Answers the control socket. An unmount is left to the main thread.
    pub fn answer(&self, ask: Ask, answer: Answer) {
        let outcome = match ask {
            Ask::Status => self.status(),
            Ask::Resolve { time } => self.resolve(&time),
            Ask::ViewName { time } => self.when(&time).map(|when| json!(when.instant.view_name())),
            Ask::WeaveNow => self.weave_now(),
            Ask::Tag { name, time } => self.tag(&name, &time),
            Ask::Untag { name } => self.untag(&name),
            Ask::Tags => self.tags(),
            Ask::Log(ask) => self.log(&ask),
            Ask::Diff { from, to, names } => self.diff(&from, &to, &names),
            Ask::Unmount => {
                // The main thread lives as long as the process.
                let _ = self.events.send(Event::Unmount(answer));
                return;
            }
        };
        answer.send(outcome);
    }

    fn status(&self) -> Outcome<Value> {
        let status = serde_json::to_value(self.engine.status()).map_err(|cause| cause.to_string())?;
        let [writes, bytes, fsyncs] = self.rates.lock().shown;
        let mut all = json!({
            "data": self.data.display().to_string(),
            "mountpoint": self.mount.point.display().to_string(),
            "store": self.store.display().to_string(),
            "pid": std::process::id(),
            "uptime_secs": self.started.elapsed().as_secs(),
            "version": env!("CARGO_PKG_VERSION"),
            "timezone": self.zone.iana_name().unwrap_or("UTC"),
            "writes_per_sec": writes,
            "written_bytes_per_sec": bytes,
            "fsyncs_per_sec": fsyncs,
        });
        if let (Some(all), Value::Object(status)) = (all.as_object_mut(), status) {
            all.extend(status);
        }
        Ok(all)
    }

    fn weave_now(&self) -> Outcome<Value> {
        let woven = self.engine.weave_now().map_err(|cause| cause.to_string())?;
        serde_json::to_value(woven).map_err(|cause| cause.to_string())
    }

    /// A time, or a tag, as people write it.
    pub(crate) fn when(&self, time: &str) -> Outcome<when::When> {
        if let Some(tag) = tags::named(time) {
            let tag = self.engine.find_tag(tag).map_err(|cause| cause.message)?;
            return Ok(when::When { instant: when::Instant::Seq(tag.at), moving: false, ago_us: None });
        }
        when::parse_time(time, self.engine.now(), &self.zone).map_err(|cause| cause.message)
    }

    /// Waits until the mount ends, and closes the engine. `session` is the thread that serves the kernel.
    ///
    /// # Errors
    /// What went wrong in closing; DATA is then finished by `weft recover`.
    pub fn run(&self, events: &Receiver<Event>, session: JoinHandle<std::io::Result<()>>) -> Outcome<()> {
        let mut asked = Vec::new();
        loop {
            match events.recv_timeout(SAMPLE) {
                Err(RecvTimeoutError::Timeout) => self.rates.lock().sample(self.engine.status()),
                Err(RecvTimeoutError::Disconnected) | Ok(Event::Ended) => break,
                Ok(Event::Signal(name)) => {
                    tracing::info!("{name}: unmounting");
                    if let Err(cause) = self.unmount() {
                        tracing::warn!("staying up: {cause}");
                    }
                }
                Ok(Event::Unmount(answer)) => match self.unmount() {
                    Ok(()) => asked.push(answer),
                    Err(cause) => drop(answer.send(Err(cause))),
                },
            }
        }
        if let Ok(Err(cause)) = session.join() {
            tracing::warn!("the connection to the kernel ended with: {cause}");
        }
        let closed = self.engine.close().map_err(|cause| {
            format!(
                "unmounted, but DATA could not be finished: {cause}; run `weft recover {}`",
                self.data.display()
            )
        });
        // Kept open until the process ends: whoever asked waits for that.
        let waiting: Vec<_> =
            asked.into_iter().map(|answer| answer.send(closed.clone().map(|()| json!({})))).collect();
        let _ = std::fs::remove_file(self.store.join(crate::control::SOCKET));
        std::mem::forget(waiting);
        closed
    }

    /// Unmounts, or says who is in the way. Processes that are just ending get a second.
    fn unmount(&self) -> Outcome<()> {
        let point = &self.mount.point;
        let mounts = mountinfo::read()?;
        match mountinfo::at(&mounts, point) {
            None => return Ok(()),
            Some(mount) if mount.id != self.mount.id => {
                return Err(format!(
                    "something else is mounted over {}: unmount that first",
                    point.display()
                ));
            }
            Some(_) => {}
        }
        for _ in 0..10 {
            match kernel::unmount(point) {
                Ok(()) => return Ok(()),
                Err(NotUnmounted::Other(cause)) => {
                    return Err(format!("cannot unmount {}: {cause}", point.display()));
                }
                Err(NotUnmounted::Busy) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        let users = holders::on_mount(&self.mount);
        let users = match users.is_empty() {
            true => "something that this user cannot see".into(),
            false => holders::describe(&users),
        };
        Err(format!("{} is in use: {users}; stop that first", point.display()))
    }
}
