//! A model at work for the forecast: `weft::forecast::Predictor` over an inference process.

use super::library;
use super::process::{Launch, Worker};
use super::signature::{Signature, Wanted};
use crate::Outcome;
use crate::models::{self, Model};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weft::error::{Error, Result};
use weft::forecast::Predictor;
use weft::forecast::features;
use weft::forecast::predictor::{Forecast, OUTPUTS, WIDTH};

/// A run of [`CHUNK`] rows took 3 ms where it was measured; a machine may be busy.
const RUN: Duration = Duration::from_secs(5);
/// Rows of one run: what it needs in memory is bounded, and lies in the processor's cache.
const CHUNK: usize = 512;
/// After a failure, before the next try.
const PAUSE: Duration = Duration::from_secs(60);

/// What this program asks of a model.
pub fn wanted() -> Wanted {
    Wanted {
        schema: features::schema_hash(),
        features: features::COUNT,
        outputs: OUTPUTS.iter().map(|(name, width)| ((*name).to_string(), *width)).collect(),
    }
}

/// The model that was chosen, and cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refused {
    /// Its name; `None` where the choice itself cannot be read.
    pub model: Option<String>,
    pub why: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the model that was chosen cannot be used, the shipped one is at work: {}", self.why)
    }
}

/// A model in a process of its own. The process is started anew after it failed, not more often than each minute.
pub struct OnnxPredictor {
    launch: Launch,
    library: PathBuf,
    model: Model,
    signature: Signature,
    worker: std::result::Result<Worker, (Instant, String)>,
}

impl OnnxPredictor {
    /// Finds the library, starts the process, loads the model and checks that it fits.
    ///
    /// # Errors
    /// One line with the reason and what to do.
    pub fn start(launch: Launch, library: Option<&Path>, model: Model) -> Outcome<OnnxPredictor> {
        let library = library::find(library)?;
        let worker = Worker::start(&launch, &library, &model.bytes, &wanted())
            .map_err(|cause| format!("model {}: {cause}", models::short(&model.name)))?;
        let signature = worker.signature.clone();
        Ok(OnnxPredictor { launch, library, model, signature, worker: Ok(worker) })
    }

    /// The model that was chosen for a STORE, run by this program.
    ///
    /// # Errors
    /// One line with the reason and what to do.
    pub fn chosen(store: &Path, library: Option<&Path>) -> Outcome<OnnxPredictor> {
        OnnxPredictor::start(Launch::of_weft(), library, models::load_used(store)?)
    }

    /// The model that was chosen; where that cannot be used, the shipped one, and why. The choice stays as it was.
    ///
    /// # Errors
    /// Why the chosen one cannot be used, where the shipped one cannot either.
    pub fn of_store(store: &Path, library: Option<&Path>) -> Outcome<(OnnxPredictor, Option<Refused>)> {
        let why = match OnnxPredictor::chosen(store, library) {
            Ok(chosen) => return Ok((chosen, None)),
            Err(why) => why,
        };
        let model = models::used(store).ok();
        if model.as_deref() == Some(models::SHIPPED) {
            return Err(why);
        }
        match OnnxPredictor::start(Launch::of_weft(), library, models::shipped()) {
            Ok(shipped) => Ok((shipped, Some(Refused { model, why }))),
            Err(_) => Err(why),
        }
    }

    /// Which model it is: `shipped`, or the BLAKE3 of its bytes.
    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Has it answer one row, before it is chosen.
    ///
    /// # Errors
    /// It fails, or what it says is no forecast.
    pub fn try_out(&mut self) -> Outcome<()> {
        let mut said = [0.0; WIDTH];
        self.predict(&[0.0; features::COUNT], 1, &mut said).map_err(|error| error.message)?;
        match Forecast::from_row(&said) {
            Some(_) => Ok(()),
            None => {
                Err("its answer to a row of zeros is no forecast: a number is not finite or negative, or a \
                         probability is above one"
                    .into())
            }
        }
    }

    /// Bytes of memory of the process.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.worker.as_ref().ok().and_then(Worker::resident_bytes)
    }

    /// Why it is not at work now.
    pub fn trouble(&self) -> Option<String> {
        self.worker.as_ref().err().map(|(_, cause)| cause.clone())
    }

    fn worker(&mut self) -> Outcome<&mut Worker> {
        if let Err((failed, cause)) = &self.worker {
            if failed.elapsed() < PAUSE {
                return Err(cause.clone());
            }
            self.worker = Worker::start(&self.launch, &self.library, &self.model.bytes, &wanted())
                .map_err(|cause| (Instant::now(), cause));
        }
        self.worker.as_mut().map_err(|(_, cause)| cause.clone())
    }

    fn run(&mut self, rows: &[f32]) -> Outcome<Vec<f32>> {
        let ran = self.worker()?.run(rows, RUN);
        if let Err(cause) = &ran {
            self.worker = Err((Instant::now(), cause.clone()));
        }
        ran
    }
}

impl Predictor for OnnxPredictor {
    fn id(&self) -> String {
        match self.model.name == models::SHIPPED {
            true => format!("{} {}", models::SHIPPED, models::short(&self.model.blake3)),
            false => models::short(&self.model.blake3).to_owned(),
        }
    }

    fn schema(&self) -> String {
        self.signature.custom.get(super::signature::key::SCHEMA).cloned().unwrap_or_default()
    }

    fn predict(&mut self, features: &[f32], rows: usize, out: &mut [f32]) -> Result<()> {
        let failed = |cause: String| Error::invalid("forecast.predict", cause);
        if features.len() != rows * features::COUNT || out.len() != rows * WIDTH {
            return Err(failed(format!("{rows} rows are not {} features", features.len())));
        }
        let chunks = features.chunks(CHUNK * features::COUNT).zip(out.chunks_mut(CHUNK * WIDTH));
        for (features, out) in chunks {
            let told = self.run(features).map_err(failed)?;
            if told.len() != out.len() {
                return Err(failed("the model's answer has another length".into()));
            }
            out.copy_from_slice(&told);
        }
        Ok(())
    }
}
