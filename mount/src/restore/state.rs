//! What an unfinished restore has done: a line for its identity, then one for each file that is finished and proven.
//!
//! A file is noted only after its bytes are durable and were read back. A torn last line is a file that is not noted.

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
    /// Finished files by path, with the hash of their bytes.
    done: HashMap<PathBuf, blake3::Hash>,
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
        let done = lines.filter_map(finished).collect();
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

    /// The hash of a file that was finished before.
    pub fn finished(&self, path: &Path) -> Option<blake3::Hash> {
        self.done.get(path).copied()
    }

    /// Files that were finished before.
    pub fn count(&self) -> usize {
        self.done.len()
    }

    /// Notes a file.
    pub fn note(&mut self, path: &Path, hash: blake3::Hash) -> Outcome<()> {
        let line = json!({ "file": escape(path), "blake3": hash.to_hex().as_str() });
        writeln!(self.file, "{line}")
            .map_err(|cause| format!("cannot write {}: {cause}", self.path.display()))
    }

    /// All is there: the target is no unfinished restore any more.
    pub fn end(self) -> Outcome<()> {
        std::fs::remove_file(&self.path)
            .map_err(|cause| format!("cannot remove {}: {cause}", self.path.display()))
    }
}

fn finished(line: &str) -> Option<(PathBuf, blake3::Hash)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let path = unescape_path(line.get("file")?.as_str()?.as_bytes())?;
    Some((path, blake3::Hash::from_hex(line.get("blake3")?.as_str()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_finished_is_known_and_another_restore_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let hash = blake3::hash(b"x");
        let mut state = State::open(dir.path(), "a at 7").unwrap();
        state.note(Path::new("/new/b \u{fc}"), hash).unwrap();
        drop(state);
        let file = dir.path().join(FILE);
        let mut text = std::fs::read(&file).unwrap();
        text.extend(b"{\"file\":\"/to");
        std::fs::write(&file, text).unwrap();
        let mut state = State::open(dir.path(), "a at 7").unwrap();
        assert_eq!((state.count(), state.finished(Path::new("/new/b \u{fc}"))), (1, Some(hash)));
        state.note(Path::new("/c"), hash).unwrap();
        drop(state);
        assert!(State::open(dir.path(), "a at 8").err().unwrap().contains("a at 7"));
        let state = State::open(dir.path(), "a at 7").unwrap();
        assert_eq!(state.count(), 2);
        state.end().unwrap();
        assert!(!file.exists());
    }
}
