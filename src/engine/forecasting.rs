//! The forecast's thread, and what an engine tells of it. Counters are swept from the live tree once per tick; the
//! write path knows nothing else of this.

mod collect;
mod wishes;

use super::Engine;
use crate::forecast::ledger::Acted;
use crate::forecast::predictor::Predictor;
use crate::forecast::service::{How, Service, State};
use crate::forecast::{Signal, SignalQueue};
use crate::lineage::partition::Layout;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, thread};
use crate::types::{Name, Timestamp};
use collect::Collector;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest sleep before the thread looks whether it is to stop.
const NAP: Duration = Duration::from_millis(100);

/// How the forecast works in an engine.
#[derive(Clone, Copy, Debug)]
pub struct ForecastLimits {
    /// Count work, and forecast.
    pub on: bool,
    pub how: How,
    /// How paths map to partitions, by the names in DATA's root: a database may be made there later.
    pub layout: fn(&[Name]) -> Layout,
}

impl Default for ForecastLimits {
    fn default() -> ForecastLimits {
        ForecastLimits { on: false, how: How::default(), layout: |_| Layout::Generic }
    }
}

/// The forecast as an engine has it.
pub(super) struct Forecasting {
    limits: ForecastLimits,
    queue: SignalQueue,
    service: Mutex<Service>,
    /// As it was after its last step: whoever asks for the state waits for no model.
    shown: Mutex<Option<State>>,
    collector: Mutex<Collector>,
    /// What the model's process holds beside us is not known here; how long the last tick took is.
    tick_us: crate::sync::atomic::AtomicU64,
}

/// Figures for `weft status`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ForecastStatus {
    pub on: bool,
    /// Signals offered and dropped since the mount.
    pub signals: u64,
    pub dropped: u64,
    /// Reads, writes and fsyncs that were not counted, as too many files were busy at once.
    pub uncounted: u64,
    /// How long the newest tick took to take in.
    pub tick_ms: f64,
    #[serde(flatten)]
    pub state: State,
}

impl Forecasting {
    pub(super) fn new(
        disk: &crate::sync::Arc<dyn crate::disk::Disk>,
        store: &std::path::Path,
        limits: ForecastLimits,
    ) -> Forecasting {
        Forecasting {
            limits,
            queue: SignalQueue::default(),
            service: Mutex::new(Service::new(crate::sync::Arc::clone(disk), store, limits.how)),
            shown: Mutex::new(None),
            collector: Mutex::new(Collector::default()),
            tick_us: crate::sync::atomic::AtomicU64::new(0),
        }
    }

    fn step(&self, step: impl FnOnce(&mut Service)) {
        let mut service = self.service.lock();
        step(&mut service);
        *self.shown.lock() = Some(service.state());
    }

    fn state(&self) -> State {
        let shown = self.shown.lock().clone();
        shown.unwrap_or_else(|| self.service.lock().state())
    }
}

/// The thread: a tick, then a rest until the next.
pub(super) fn forecast(engine: &Engine, stop: &AtomicBool) {
    let forecasting = &engine.forecasting;
    if !forecasting.limits.on {
        return;
    }
    super::budget::yield_to_others();
    engine.live.count_activity();
    forecasting.step(|service| service.warm(&engine.meta, engine.now()));
    let how = forecasting.limits.how;
    let every = Duration::from_micros(how.tick_us.unsigned_abs().max(1));
    let mut next = Instant::now() + every;
    let mut since_forecast = 0;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(NAP.min(next.saturating_duration_since(Instant::now())));
        if Instant::now() < next {
            continue;
        }
        // After a stall the ticks that were missed are one long one.
        next = Instant::now() + every;
        engine.forecast_tick();
        since_forecast += how.tick_us;
        if since_forecast >= how.step_us {
            since_forecast = 0;
            engine.forecast_now();
        }
    }
    engine.forecast_tick();
    forecasting.service.lock().close();
}

impl Engine {
    /// Tells the forecast something; never waits, and may be lost.
    pub fn signal(&self, signal: Signal) -> bool {
        self.forecasting.limits.on && self.forecasting.queue.offer(signal)
    }

    /// Ends a tick, by hand: what was counted goes through the queue to the forecast.
    pub fn forecast_tick(&self) {
        let begun = Instant::now();
        let now = self.now();
        let signals = self.forecasting.collector.lock().collect(self, self.forecasting.limits, now);
        for signal in signals {
            self.forecasting.queue.offer(signal);
        }
        let told = self.forecasting.queue.drain();
        self.forecasting.step(|service| service.tick(&told, now));
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.forecasting.tick_us.store(took, Ordering::Relaxed);
    }

    /// Forecasts now, by hand, and scores what is due.
    pub fn forecast_now(&self) {
        let now = self.now();
        self.forecasting.step(|service| service.forecast(&self.meta, now));
        self.forecast_wishes();
        self.forecasting.step(|service| service.keep_acted(&self.meta, now));
    }

    /// Takes a model into service, or hears why there is none; and why it is not the one that was wanted. Its forecasts come
    /// with the next step.
    pub fn set_predictor(
        &self,
        model: std::result::Result<Box<dyn Predictor>, String>,
        instead: Option<&str>,
    ) {
        let now = self.now();
        self.forecasting.step(|service| service.set_model(model, instead, now));
    }

    /// Looks at the forecast as it is.
    pub fn with_forecast<T>(&self, look: impl FnOnce(&Service, Timestamp) -> T) -> T {
        let now = self.now();
        look(&self.forecasting.service.lock(), now)
    }

    /// The forecasts of partitions that something followed from, and what came of them, by time and partition; of a metadata
    /// store that is not there none.
    pub fn acted_on(&self, is_asked: impl Fn(&str) -> bool) -> BTreeMap<(Timestamp, String), Acted> {
        let found = self.forecasting.service.lock().acted().of(&self.meta, is_asked);
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "forecasts of before cannot be read");
            BTreeMap::new()
        })
    }

    /// Figures of the forecast.
    pub fn forecast_status(&self) -> ForecastStatus {
        let (signals, dropped) = self.forecasting.queue.counters();
        ForecastStatus {
            on: self.forecasting.limits.on,
            signals,
            dropped,
            uncounted: self.live.uncounted(),
            tick_ms: self.forecasting.tick_us.load(Ordering::Relaxed) as f64 / 1e3,
            state: self.forecasting.state(),
        }
    }
}
