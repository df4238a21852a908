//! Seeds. A failing test prints its seed; `WEFT_E2E_SEED` repeats it.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A generator for the test `name`, and its seed for the failure message.
pub fn seeded(name: &str) -> (StdRng, u64) {
    let chosen = std::env::var("WEFT_E2E_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 =
        chosen.unwrap_or_else(|| name.bytes().fold(7, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte)));
    eprintln!("{name}: WEFT_E2E_SEED={seed}");
    (StdRng::seed_from_u64(seed), seed)
}

/// A count from the environment, or the suite's own.
pub fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// `steps`, times `WEFT_E2E_FACTOR` (the soak runs longer histories).
pub fn steps(steps: usize) -> usize {
    steps * count("WEFT_E2E_FACTOR", 1)
}
