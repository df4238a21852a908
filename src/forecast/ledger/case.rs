//! What was said of one partition, by the model and by the baselines; many of it in few bytes.

use super::BESIDE;
use crate::forecast::baseline::{Baseline, at};
use crate::forecast::predictor::SPLIT_HORIZONS;
use crate::forecast::signal::Key;

/// What one said of one partition; NaN where it said nothing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Said {
    /// Probability that something is written.
    pub write: f32,
    pub bytes: f32,
    /// Probability of a split; NaN of horizons that have none.
    pub split: f32,
    /// Distinct pages written.
    pub pages: f32,
    pub reads: f32,
}

/// What was said of a partition for one horizon.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Case {
    pub model: Said,
    /// In the order of [`BESIDE`].
    pub beside: [Said; BESIDE.len()],
    /// Seconds to the next split, quantiles: of the model, and of the one baseline that says any ([`TIMED`]). NaN of
    /// horizons that splits have not.
    pub times: [[f32; 3]; 2],
    /// Bytes, pages and reads in as long a stretch before.
    pub before: [f32; 3],
}

/// The baseline that says when a partition splits.
pub const TIMED: Baseline = Baseline::Linear;

/// Numbers per case.
const NUMBERS: usize = SAID * (1 + BESIDE.len()) + TIMES + BEFORE;
const SAID: usize = 5;
const TIMES: usize = 6;
const BEFORE: usize = 3;

fn split_index(horizon: u32) -> Option<usize> {
    SPLIT_HORIZONS.iter().position(|secs| *secs == horizon)
}

impl Said {
    /// Out of a model's or a baseline's row, for the horizon of number `index`, of so many seconds.
    pub fn of(row: &[f32], (index, horizon): (usize, u32)) -> Said {
        let get = |at: usize| row.get(at).copied().unwrap_or(f32::NAN);
        Said {
            write: 1.0 - get(at::P_QUIET + index),
            bytes: get(at::BYTES + index),
            split: split_index(horizon).map_or(f32::NAN, |index| get(at::P_SPLIT + index)),
            pages: get(at::PAGES + index),
            reads: get(at::READS + index),
        }
    }
}

/// Quantiles of the time to a split out of such a row.
pub fn times_of(row: &[f32], horizon: u32) -> [f32; 3] {
    let get = |at: usize| row.get(at).copied().unwrap_or(f32::NAN);
    split_index(horizon).map_or([f32::NAN; 3], |_| [0, 1, 2].map(|index| get(at::SPLIT_SECS + index)))
}

impl Case {
    fn numbers(&self) -> [f32; NUMBERS] {
        let mut out = [0.0; NUMBERS];
        let said = std::iter::once(&self.model).chain(&self.beside);
        let values = said.flat_map(|said| [said.write, said.bytes, said.split, said.pages, said.reads]);
        let values = values.chain(self.times.into_iter().flatten()).chain(self.before);
        out.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
        out
    }

    fn parse(mut values: impl Iterator<Item = f32>) -> Option<Case> {
        let mut next = || values.next();
        let mut said = || {
            let (write, bytes, split) = (next()?, next()?, next()?);
            Some(Said { write, bytes, split, pages: next()?, reads: next()? })
        };
        let model = said()?;
        let mut beside = [model; BESIDE.len()];
        for slot in &mut beside {
            *slot = said()?;
        }
        let mut times = [[f32::NAN; 3]; 2];
        for slot in times.iter_mut().flatten() {
            *slot = next()?;
        }
        Some(Case { model, beside, times, before: [next()?, next()?, next()?] })
    }
}

const LEVEL: i32 = 1;
/// What a batch may unpack to.
const UNPACKED_MAX: usize = 64 << 20;

/// Cases with the names of their partitions: zstd of the names, a line each, an empty line, and per case: of the model and
/// of each baseline the probability of a write, bytes, the probability of a split, pages, reads; then quantiles of the time
/// to a split, three of the model and three of a baseline; then bytes, pages and reads before. 32-bit floats,
/// little-endian. Of 10,000 partitions most are alike: a tenth of what it takes unpacked, and less.
#[derive(Clone, Debug, Default)]
pub struct Packed(pub Vec<u8>);

impl Packed {
    pub fn of(keys: &[Key], cases: &[Case]) -> Packed {
        // No name of a file holds a line's end in any database; one that does is of no use after a restart.
        let mut bytes: Vec<u8> = Vec::new();
        for key in keys {
            bytes.extend_from_slice(key.replace('\n', "?").as_bytes());
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        bytes.reserve_exact(cases.len() * NUMBERS * 4);
        for value in cases.iter().flat_map(Case::numbers) {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Packed(zstd::bulk::compress(&bytes, LEVEL).unwrap_or_default())
    }

    /// The names, a line each, and the cases; `None`: it cannot be read.
    pub fn unpack(&self) -> Option<(String, Vec<Case>)> {
        let bytes = zstd::bulk::decompress(&self.0, UNPACKED_MAX).ok()?;
        let end = if bytes.first() == Some(&b'\n') { 0 } else { find_end(&bytes)? };
        let names = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
        let number = |chunk: &[u8]| Some(f32::from_le_bytes(chunk.try_into().ok()?));
        let parse = |chunk: &[u8]| Case::parse(chunk.chunks_exact(4).filter_map(number));
        let cases: Option<Vec<Case>> = bytes.get(end + 1..)?.chunks_exact(NUMBERS * 4).map(parse).collect();
        let cases = cases.filter(|cases| cases.len() == names.lines().count())?;
        Some((names, cases))
    }
}

/// Behind the end of the last name: where the empty line begins.
fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\n\n").map(|at| at + 1)
}
