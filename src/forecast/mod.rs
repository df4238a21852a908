//! L6: what will be written, read and split, and whether it is worth to bake a shadow ahead of it.
//!
//! Signals come in through a queue that loses rather than waits; time comes in as an argument. Nothing here touches a
//! live file, the journal or the kernel, and nothing that a mount answers depends on it: a wrong, slow, missing or
//! crashed model costs restore speed only.

pub mod baseline;
pub mod features;
pub mod ledger;
pub mod policy;
pub mod predictor;
pub mod purse;
pub mod runner;
pub mod score;
pub mod service;
pub mod signal;
pub mod simulate;
pub mod tick;
pub mod trace;

pub use predictor::{Forecast, Predictor};
pub use signal::{Key, Signal, SignalQueue};
pub use tick::Tick;
