//! The model at work in a daemon: loaded after the mount, by a thread of its own; another one takes over without a
//! remount. A mount never waits for it. Where the one that was chosen cannot be used (it is for the features of another
//! version, or damaged) the shipped one works in its place, which is told, until it can.

use crate::Outcome;
use crate::onnx::{OnnxPredictor, Refused};
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

/// Between two tries to load the model that was chosen.
const RETRY: Duration = Duration::from_secs(60);

/// Why there is none where nobody forecasts.
const OFF: &str = "forecast = false in weft.toml";

/// What is to be told of each change: a model, or why there is none; and which one it stands in for.
pub type Install = dyn Fn(&Outcome<Shared>, Option<&Refused>) + Send + Sync;

/// What is at work.
struct State {
    model: Outcome<Shared>,
    /// The one that was chosen is not.
    refused: Option<Refused>,
}

/// Which model a daemon uses, or why none.
pub struct Serving {
    store: PathBuf,
    library: Option<PathBuf>,
    /// Somebody forecasts.
    is_wanted: AtomicBool,
    state: Mutex<State>,
    /// Held from when it is read which model was chosen until that one is at work: who chose last has the last word.
    loading: Mutex<()>,
    install: Box<Install>,
}

impl Serving {
    /// For the models of a STORE. Nothing is loaded yet.
    pub fn new(store: PathBuf, library: Option<PathBuf>, install: Box<Install>) -> Serving {
        let state = Mutex::new(State { model: Err(OFF.into()), refused: None });
        Serving { store, library, is_wanted: AtomicBool::new(false), state, loading: Mutex::new(()), install }
    }

    /// Loads the model in use, in the background, and tries again as long as it cannot be; a failure is for `status` to tell.
    pub fn begin(self: &Arc<Serving>) {
        self.is_wanted.store(true, Ordering::Relaxed);
        self.state.lock().model = Err("the model is being loaded".into());
        let serving = Arc::downgrade(self);
        let load = move || {
            while let Some(serving) = serving.upgrade() {
                serving.look();
                drop(serving);
                thread::sleep(RETRY);
            }
        };
        if let Err(cause) = thread::Builder::new().name("weft-model".into()).spawn(load) {
            self.state.lock().model = Err(format!("cannot start a thread to load it: {cause}"));
        }
    }

    /// Loads what was chosen, unless it is at work.
    fn look(&self) {
        let _one = self.loading.lock();
        let (is_up, is_other) = {
            let state = self.state.lock();
            (state.model.is_ok(), state.refused.is_some())
        };
        match (is_up, is_other) {
            (true, false) => {}
            (true, true) => {
                if let Ok(chosen) = OnnxPredictor::chosen(&self.store, self.library.as_deref()) {
                    self.take_up(chosen, None);
                }
            }
            (false, _) => {
                if let Err(cause) = self.load_now() {
                    self.note_failure(cause);
                }
            }
        }
    }

    fn note_failure(&self, cause: String) {
        let mut state = self.state.lock();
        if state.model.as_ref().err() != Some(&cause) {
            tracing::warn!("no model: {cause}; the standard rule decides, and loading is tried each minute");
            state.model = Err(cause);
            (self.install)(&state.model, None);
        }
    }

    /// Loads the model that was chosen, or the shipped one in its place; none where nobody forecasts. Where neither can be
    /// loaded the one at work stays.
    ///
    /// # Errors
    /// One line with the reason.
    pub fn load(&self) -> Outcome<Value> {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return Ok(json!({ "model": null, "why": OFF }));
        }
        let _one = self.loading.lock();
        self.load_now()
    }

    fn load_now(&self) -> Outcome<Value> {
        let (predictor, refused) = OnnxPredictor::of_store(&self.store, self.library.as_deref())?;
        Ok(self.take_up(predictor, refused))
    }

    fn take_up(&self, predictor: OnnxPredictor, refused: Option<Refused>) -> Value {
        let (id, schema) = (predictor.id(), predictor.schema());
        let shared = Shared { id, schema, inner: Arc::new(Mutex::new(predictor)) };
        tracing::info!("model {} is at work", shared.id);
        if let Some(refused) = &refused {
            tracing::warn!("{refused}");
        }
        let told = json!({ "model": shared.id, "refused": refused });
        let mut state = self.state.lock();
        *state = State { model: Ok(shared), refused };
        (self.install)(&state.model, state.refused.as_ref());
        told
    }

    /// For `weft status`: which model, or why none; what its process holds; and which one it stands in for.
    pub fn status(&self) -> Value {
        let state = self.state.lock();
        match &state.model {
            // One that is being asked does not keep status waiting.
            Ok(shared) => json!({
                "id": shared.id,
                "resident_bytes": shared.inner.try_lock().and_then(|predictor| predictor.resident_bytes()),
                "trouble": shared.inner.try_lock().and_then(|predictor| predictor.trouble()),
                "refused": state.refused,
            }),
            Err(cause) => json!({ "id": null, "trouble": cause }),
        }
    }
}
