//! What an unfinished restore has done: a line for its identity, then one for each file that is finished and proven.
//!
//! - A file is noted only after its bytes are durable and were read back. A torn last line is a file that is not noted.
//! - With it stands what of it was wanted: what is known of a partition's past may be more the next time. Then the file begins
//!   anew, and one that is not wanted any more goes.

use crate::Outcome;
use crate::mountinfo::{escape, unescape_path};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Its name in the target.
pub const FILE: &str = ".weft-restore-unfinished";

/// See the head of this file.
pub struct State {
    path: PathBuf,
    file: File,
    /// Finished files by path.
    done: HashMap<PathBuf, Done>,
}

/// A finished file.
#[derive(Clone, Copy)]
struct Done {
    bytes: blake3::Hash,
    /// Of what was wanted of it; `None`: all.
    wanted: Option<blake3::Hash>,
}

/// What is wanted of a file, as it is noted.
pub(super) fn wanted(ranges: Option<&[(u64, u64)]>) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for (start, end) in ranges? {
        hasher.update(&start.to_le_bytes()).update(&end.to_le_bytes());
    }
    Some(hasher.finalize())
}

impl State {
    /// Begins in a target, or goes on when it holds the same: `identity` says what is restored, to the letter.
    ///
    /// # Errors
    /// One line: another restore stands there unfinished, or it cannot be written.
    pub fn open(target: &Path, identity: &str) -> Outcome<State> {
        let path = target.join(FILE);
        let failed = |cause: std::io::Error| format!("cannot write {}: {cause}", path.display());
        let text = match std::fs::read(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(cause) => return Err(format!("cannot read {}: {cause}", path.display())),
        };
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let first = lines.next().map(str::trim_end);
        let header = json!({ "restore": identity }).to_string();
        if let Some(first) = first.filter(|first| *first != header) {
            let told: Value = serde_json::from_str(first).unwrap_or_default();
            return Err(format!(
                "{} holds an unfinished restore of {}: give the same arguments to go on with it, or remove the directory",
                target.display(),
                told.get("restore").and_then(Value::as_str).unwrap_or("something else")
            ));
        }
        let mut done = HashMap::new();
        for (path, file) in lines.filter_map(noted) {
            match file {
                Some(file) => drop(done.insert(path, file)),
                None => drop(done.remove(&path)),
            }
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        if first.is_none() {
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{header}").map_err(failed)?;
        } else if !text.ends_with('\n') {
            writeln!(file).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        Ok(State { path, file, done })
    }

    /// The hash of a file that was finished before, if the same was wanted of it.
    pub fn finished(&self, path: &Path, wanted: Option<blake3::Hash>) -> Option<blake3::Hash> {
        self.done.get(path).filter(|done| done.wanted == wanted).map(|done| done.bytes)
    }

    /// Whether a file was finished before, whatever was wanted of it.
    pub fn knows(&self, path: &Path) -> bool {
        self.done.contains_key(path)
    }

    /// Files that were finished before.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.done.keys()
    }

    /// Files that were finished before.
    pub fn count(&self) -> usize {
        self.done.len()
    }

    /// Notes a file.
    pub fn note(&mut self, path: &Path, hash: blake3::Hash, wanted: Option<blake3::Hash>) -> Outcome<()> {
        let hex = |hash: blake3::Hash| hash.to_hex().to_string();
        let line = json!({ "file": escape(path), "blake3": hex(hash), "wanted": wanted.map(hex) });
        writeln!(self.file, "{line}")
            .map_err(|cause| format!("cannot write {}: {cause}", self.path.display()))
    }

    /// Notes that a file is finished no more, durably: what is made of it from now on must not be taken for that.
    pub fn forget(&mut self, path: &Path) -> Outcome<()> {
        self.done.remove(path);
        writeln!(self.file, "{}", json!({ "file": escape(path) }))
            .and_then(|()| self.file.sync_all())
            .map_err(|cause| format!("cannot write {}: {cause}", self.path.display()))
    }

    /// All is there: the target is no unfinished restore any more.
    pub fn end(self) -> Outcome<()> {
        std::fs::remove_file(&self.path)
            .map_err(|cause| format!("cannot remove {}: {cause}", self.path.display()))
    }
}

/// A line: a file that is finished, or is so no more.
fn noted(line: &str) -> Option<(PathBuf, Option<Done>)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let path = unescape_path(line.get("file")?.as_str()?.as_bytes())?;
    let hash = |key: &str| match line.get(key).and_then(Value::as_str) {
        Some(hash) => blake3::Hash::from_hex(hash).ok().map(Some),
        None => Some(None),
    };
    let (bytes, wanted) = (hash("blake3")?, hash("wanted")?);
    Some((path, bytes.map(|bytes| Done { bytes, wanted })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_finished_is_known_and_another_restore_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let hash = blake3::hash(b"x");
        let part = wanted(Some(&[(0, 7), (9, 12)]));
        let mut state = State::open(dir.path(), "a at 7").unwrap();
        state.note(Path::new("/new/b \u{fc}"), hash, None).unwrap();
        drop(state);
        let file = dir.path().join(FILE);
        let mut text = std::fs::read(&file).unwrap();
        text.extend(b"{\"file\":\"/to");
        std::fs::write(&file, text).unwrap();
        let mut state = State::open(dir.path(), "a at 7").unwrap();
        assert_eq!((state.count(), state.finished(Path::new("/new/b \u{fc}"), None)), (1, Some(hash)));
        state.note(Path::new("/c"), hash, part).unwrap();
        drop(state);
        assert!(State::open(dir.path(), "a at 8").err().unwrap().contains("a at 7"));
        let mut state = State::open(dir.path(), "a at 7").unwrap();
        assert_eq!(state.count(), 2);
        // Of what is wanted now another part may be there.
        let found = |ranges: Option<&[(u64, u64)]>| state.finished(Path::new("/c"), wanted(ranges));
        assert_eq!(found(Some(&[(0, 7), (9, 12)])), Some(hash));
        assert_eq!((found(None), found(Some(&[(0, 12)])), found(Some(&[]))), (None, None, None));
        state.forget(Path::new("/c")).unwrap();
        drop(state);
        let state = State::open(dir.path(), "a at 7").unwrap();
        assert_eq!((state.count(), state.finished(Path::new("/c"), part)), (1, None));
        state.end().unwrap();
        assert!(!file.exists());
    }
}
