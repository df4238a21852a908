//! ONNX Runtime, at arm's length: models run in a process of their own (`worker`), so that a library or a model that
//! crashes, hangs or eats memory costs forecasts and nothing else. See docs/decisions/0068-inference-process.md.

mod graph;
pub mod library;
mod predictor;
mod process;
pub mod signature;
mod wire;
pub mod worker;

pub use predictor::{OnnxPredictor, Refused, wanted};
pub use process::{Launch, Worker};

#[cfg(test)]
mod tests;
