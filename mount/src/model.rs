//! The model at work in a daemon: loaded after the mount, by a thread of its own; another one takes over without a
//! remount. A mount never waits for it.

use crate::Outcome;
use crate::onnx::OnnxPredictor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
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

/// What is to be told of each change: a model, or why there is none.
pub type Install = dyn Fn(&Outcome<Shared>) + Send + Sync;

/// Which model a daemon uses, or why none.
pub struct Serving {
    store: PathBuf,
    library: Option<PathBuf>,
    state: Mutex<Outcome<Shared>>,
    install: Box<Install>,
}

impl Serving {
    /// For the models of a STORE. Nothing is loaded yet.
    pub fn new(store: PathBuf, library: Option<PathBuf>, install: Box<Install>) -> Serving {
        let state = Mutex::new(Err("the model is being loaded".into()));
        Serving { store, library, state, install }
    }

    /// Loads the model in use, in the background; a failure is for `status` to tell.
    pub fn begin(self: &Arc<Serving>) {
        let serving = Arc::clone(self);
        let load = move || {
            if let Err(cause) = serving.load() {
                tracing::warn!("no model: {cause}; the standard rule decides");
                let failed = Err(cause);
                (serving.install)(&failed);
                *serving.state.lock() = failed;
            }
        };
        if let Err(cause) = thread::Builder::new().name("weft-model".into()).spawn(load) {
            *self.state.lock() = Err(format!("cannot start a thread to load it: {cause}"));
        }
    }

    /// Loads the model in use. One that cannot be loaded leaves the one at work where it is.
    ///
    /// # Errors
    /// One line with the reason.
    pub fn load(&self) -> Outcome<Value> {
        let predictor = OnnxPredictor::of_store(&self.store, self.library.as_deref())?;
        let (id, schema) = (predictor.id(), predictor.schema());
        let shared = Shared { id, schema, inner: Arc::new(Mutex::new(predictor)) };
        tracing::info!("model {} is at work", shared.id);
        let told = json!({ "model": shared.id });
        let loaded = Ok(shared);
        (self.install)(&loaded);
        *self.state.lock() = loaded;
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
