//! The model at work in a daemon: loaded after the mount, by a thread of its own; another one takes over without a
//! remount. A mount never waits for it.

use crate::Outcome;
use crate::onnx::OnnxPredictor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use weft::error::Result;
use weft::forecast::Predictor;

/// A model that several may ask, one at a time.
#[derive(Clone)]
pub struct Shared {
    id: String,
    schema: String,
    inner: Arc<Mutex<OnnxPredictor>>,
}

impl Predictor for Shared {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn schema(&self) -> String {
        self.schema.clone()
    }

    fn predict(&mut self, features: &[f32], rows: usize, out: &mut [f32]) -> Result<()> {
        self.inner.lock().predict(features, rows, out)
    }
}

/// Between two tries to load a model.
const RETRY: Duration = Duration::from_secs(60);

/// Why there is none where nobody forecasts.
const OFF: &str = "forecast = false in weft.toml";

/// What is to be told of each change: a model, or why there is none.
pub type Install = dyn Fn(&Outcome<Shared>) + Send + Sync;

/// Which model a daemon uses, or why none.
pub struct Serving {
    store: PathBuf,
    library: Option<PathBuf>,
    /// Somebody forecasts.
    is_wanted: AtomicBool,
    /// Held from when it is read which model is in use until that one is at work: the last one chosen stays.
    turn: Mutex<()>,
    state: Mutex<Outcome<Shared>>,
    install: Box<Install>,
}

impl Serving {
    /// For the models of a STORE. Nothing is loaded yet.
    pub fn new(store: PathBuf, library: Option<PathBuf>, install: Box<Install>) -> Serving {
        let state = Mutex::new(Err(OFF.into()));
        Serving { store, library, is_wanted: AtomicBool::new(false), turn: Mutex::new(()), state, install }
    }

    /// Loads the model in use, in the background, and tries again as long as it cannot be; a failure is for `status` to tell.
    pub fn begin(self: &Arc<Serving>) {
        self.is_wanted.store(true, Ordering::Relaxed);
        *self.state.lock() = Err("the model is being loaded".into());
        let serving = Arc::downgrade(self);
        let load = move || {
            while serving.upgrade().is_some_and(|serving| !serving.try_load()) {
                thread::sleep(RETRY);
            }
        };
        if let Err(cause) = thread::Builder::new().name("weft-model".into()).spawn(load) {
            *self.state.lock() = Err(format!("cannot start a thread to load it: {cause}"));
        }
    }

    /// Whether there is a model now, of whomever.
    fn try_load(&self) -> bool {
        let _turn = self.turn.lock();
        if self.state.lock().is_ok() {
            return true;
        }
        let Err(cause) = self.load_used() else { return true };
        let mut state = self.state.lock();
        if !matches!(&*state, Err(known) if *known == cause) {
            tracing::warn!("no model: {cause}; the standard rule decides, and loading is tried each minute");
            let failed = Err(cause);
            (self.install)(&failed);
            *state = failed;
        }
        false
    }

    /// Loads the model in use: which one it is then, and none where nobody forecasts. One that cannot be loaded leaves the one
    /// at work where it is.
    ///
    /// # Errors
    /// One line with the reason.
    pub fn load(&self) -> Outcome<Value> {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return Ok(json!({ "model": null, "why": OFF }));
        }
        let _turn = self.turn.lock();
        self.load_used()
    }

    fn load_used(&self) -> Outcome<Value> {
        let predictor = OnnxPredictor::of_store(&self.store, self.library.as_deref())?;
        let (id, schema) = (predictor.id(), predictor.schema());
        let shared = Shared { id, schema, inner: Arc::new(Mutex::new(predictor)) };
        tracing::info!("model {} is at work", shared.id);
        let told = json!({ "model": shared.id });
        let loaded = Ok(shared);
        let mut state = self.state.lock();
        (self.install)(&loaded);
        *state = loaded;
        Ok(told)
    }

    /// For `weft status`: which model, or why none; what its process holds.
    pub fn status(&self) -> Value {
        match &*self.state.lock() {
            // One that is being asked does not keep status waiting.
            Ok(shared) => json!({
                "id": shared.id,
                "resident_bytes": shared.inner.try_lock().and_then(|predictor| predictor.resident_bytes()),
                "trouble": shared.inner.try_lock().and_then(|predictor| predictor.trouble()),
            }),
            Err(cause) => json!({ "id": null, "trouble": cause }),
        }
    }
}
