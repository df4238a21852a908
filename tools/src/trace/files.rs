//! Traces in files: plain text, or gzip where the name ends in `.gz`.

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use weft::forecast::trace::{Trace, text};

/// Opens a file, `-` for standard input; gzip is recognised by its first bytes.
///
/// # Errors
/// One line with the path.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>, String> {
    let mut input: Box<dyn BufRead> = match path.to_str() {
        Some("-") => Box::new(BufReader::new(std::io::stdin())),
        _ => Box::new(BufReader::new(
            File::open(path).map_err(|cause| format!("cannot open {}: {cause}", path.display()))?,
        )),
    };
    let head = input.fill_buf().map_err(|cause| format!("cannot read {}: {cause}", path.display()))?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::new(MultiGzDecoder::new(input))));
    }
    Ok(input)
}

/// Reads a trace.
///
/// # Errors
/// One line with the path, and the line in it.
pub fn read(path: &Path) -> Result<Trace, String> {
    text::read(open(path)?).map_err(|cause| format!("{}: {}", path.display(), cause.message))
}

/// `--step SECS` in µs; 0: a tick of the trace.
///
/// # Errors
/// One line: how long it may be.
pub fn step_us(secs: f64, trace: &Trace) -> Result<i64, String> {
    if !(0.0..1e8).contains(&secs) {
        return Err("--step is a number of seconds from 0 to 100000000".into());
    }
    let step_us = (secs * 1e6) as i64;
    if secs > 0.0 && step_us < trace.tick_us {
        let tick = trace.tick_us as f64 / 1e6;
        return Err(format!(
            "--step {secs} is less than a tick of this trace: give {tick} (seconds) or more"
        ));
    }
    Ok(step_us)
}

/// Writes a file, `-` for standard output; compressed where its name ends in `.gz`.
///
/// # Errors
/// One line with the path.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    put(path, bytes, || File::create(path))
}

/// Adds to a file that [`write`] began, at once; to a compressed one a part of its own.
///
/// # Errors
/// One line with the path.
pub fn append(path: &Path, bytes: &[u8]) -> Result<(), String> {
    put(path, bytes, || OpenOptions::new().append(true).open(path))
}

fn put(path: &Path, bytes: &[u8], open: impl FnOnce() -> std::io::Result<File>) -> Result<(), String> {
    let failed = |cause: std::io::Error| format!("cannot write {}: {cause}", path.display());
    if path.as_os_str() == "-" {
        return crate::output::print(&String::from_utf8_lossy(bytes)).map(|_| ());
    }
    let packed = match path.extension().is_some_and(|extension| extension == "gz") {
        true => {
            let mut packer = GzEncoder::new(Vec::new(), Compression::default());
            packer.write_all(bytes).and_then(|()| packer.finish()).map_err(failed)?
        }
        false => Vec::new(),
    };
    let bytes = if packed.is_empty() { bytes } else { &packed };
    open().and_then(|mut file| file.write_all(bytes)).map_err(failed)
}

/// BLAKE3 of a file's bytes, in hex.
///
/// # Errors
/// One line with the path.
pub fn hash(path: &Path) -> Result<String, String> {
    let failed = |cause: std::io::Error| format!("cannot read {}: {cause}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let got = file.read(&mut buffer).map_err(failed)?;
        if got == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(buffer.get(..got).unwrap_or(&[]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_tick_at_least() {
        let trace = Trace { tick_us: 10_000_000, ..Trace::default() };
        assert_eq!(step_us(0.0, &trace), Ok(0));
        assert_eq!(step_us(10.0, &trace), Ok(10_000_000));
        for (secs, why) in [(0.000_001, "10 (seconds) or more"), (1e-9, "less than a tick"), (-1.0, "from 0")]
        {
            assert!(step_us(secs, &trace).unwrap_err().contains(why), "{secs}");
        }
    }
}
