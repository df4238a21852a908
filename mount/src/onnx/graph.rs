//! A model in ONNX Runtime, in the inference process. Nothing outside of that process touches the library.

use super::signature::{Port, Signature};
use crate::Outcome;
use ort::environment::Environment;
use ort::ep::CPU;
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, TensorRef};
use std::collections::BTreeMap;
use std::path::Path;

/// The library, loaded; one for the life of a process.
pub struct Runtime(Environment);

/// A model ready to run.
pub struct Graph {
    session: Session,
    signature: Signature,
}

impl Runtime {
    /// Loads the library. `init_from` says what is wrong with one where other ways in panic.
    ///
    /// # Errors
    /// One line with the path and the reason.
    pub fn load(library: &Path) -> Outcome<Runtime> {
        let failed = |cause: String| format!("{} is not a fit ONNX Runtime: {cause}", library.display());
        if !library.is_file() {
            return Err(failed("there is no such file".into()));
        }
        // SAFETY: the inference process has one thread.
        unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
        let builder = ort::init_from(library).map_err(|cause| failed(one_line(&cause.to_string())))?;
        let environment = builder.with_name("weft").with_telemetry(false).build();
        environment.map(Runtime).map_err(|cause| failed(one_line(&cause.to_string())))
    }

    /// A model from its bytes.
    ///
    /// # Errors
    /// One line with the reason.
    pub fn model(&self, bytes: &[u8]) -> Outcome<Graph> {
        let failed = |cause: ort::Error| format!("not a model: {}", one_line(&cause.to_string()));
        let mut builder = Session::builder(&self.0)
            .map_err(failed)?
            .with_intra_threads(1)
            .map_err(|cause| failed(cause.into()))?
            .with_inter_threads(1)
            .map_err(|cause| failed(cause.into()))?
            // What a run took it would keep until the end.
            .with_execution_providers([CPU::default().with_arena_allocator(false).build()])
            .map_err(|cause| failed(cause.into()))?;
        let session = builder.commit_from_memory(bytes).map_err(failed)?;
        let signature = signature(&session).map_err(failed)?;
        Ok(Graph { session, signature })
    }
}

fn signature(session: &Session) -> ort::Result<Signature> {
    let metadata = session.metadata()?;
    let keys = metadata.custom_keys()?;
    let custom: BTreeMap<String, String> =
        keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect();
    Ok(Signature {
        inputs: session.inputs().iter().map(port).collect(),
        outputs: session.outputs().iter().map(port).collect(),
        custom,
    })
}

fn port(outlet: &Outlet) -> Port {
    let dtype = outlet.dtype();
    Port {
        name: outlet.name().to_owned(),
        float32: dtype.tensor_type() == Some(TensorElementType::Float32),
        shape: dtype.tensor_shape().map(|shape| shape.iter().copied().collect()).unwrap_or_default(),
    }
}

impl Graph {
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// All outputs for rows of `width` features, side by side in the order of the signature: one row for each row.
    ///
    /// # Errors
    /// One line with the reason.
    pub fn run(&mut self, width: usize, features: &[f32]) -> Outcome<(usize, Vec<f32>)> {
        let failed = |cause: ort::Error| format!("the model does not run: {}", one_line(&cause.to_string()));
        let rows = features.len() / width.max(1);
        let input = TensorRef::from_array_view(([rows, width], features)).map_err(failed)?;
        let outputs = self.session.run(ort::inputs![input]).map_err(failed)?;
        let named: Vec<_> = outputs.iter().collect();
        let mut columns = Vec::new();
        for (name, value) in &named {
            let (shape, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
            match shape.as_ref() {
                [given, columns_of] if *given == rows as i64 && *columns_of > 0 => {
                    columns.push((usize::try_from(*columns_of).unwrap_or(1), values));
                }
                other => return Err(format!("the model answers {rows} rows with {name} of shape {other:?}")),
            }
        }
        let wide = columns.iter().map(|(columns_of, _)| columns_of).sum();
        let mut all = Vec::with_capacity(rows * wide);
        for row in 0..rows {
            for (columns_of, values) in &columns {
                all.extend_from_slice(values.get(row * columns_of..(row + 1) * columns_of).unwrap_or(&[]));
            }
        }
        Ok((wide, all))
    }
}

/// The runtime's own words can be many lines.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}
