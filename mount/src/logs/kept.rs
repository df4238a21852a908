//! STORE/logs.json: up to where each file of each log is told, so that a restart loses nothing of what was written meanwhile.
//! Not durable, and up to a second behind: some statements are told twice then, and a split told twice is one.

use super::meaning::Detached;
use super::place::{Head, Place, Places};
use super::source::Identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILE: &str = "logs.json";
/// Of version 1 files have no heads.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;
/// Between two writes of places alone: a busy log has a new one at every look.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize, Default)]
struct Text {
    version: u32,
    /// By path and format of the setting.
    logs: BTreeMap<String, Vec<File>>,
    #[serde(default)]
    detached: Vec<Detached>,
}

/// A file of a log: its device (0: of DATA) and number, bytes that are told, and how it begins; of version 1 an array of the
/// first three.
#[derive(Serialize, Deserialize)]
struct File {
    device: u64,
    number: u64,
    told: u64,
    #[serde(default)]
    head: Option<Head>,
}

/// See the head of this file.
pub(super) struct Kept {
    path: PathBuf,
    last: BTreeMap<String, Places>,
    /// What statements so far leave open.
    detached: Vec<Detached>,
    written: Option<Instant>,
}

impl Kept {
    /// What an earlier daemon left; nothing where it cannot be read or is another version's.
    pub fn load(store: &Path) -> Kept {
        let path = store.join(FILE);
        let text = std::fs::read_to_string(&path).ok();
        let text: Text = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let place = |file: File| {
            let File { device, number, told, head } = file;
            ((device, number), Place { told, head })
        };
        let places = |files: Vec<File>| files.into_iter().map(place).collect();
        let text = if VERSIONS.contains(&text.version) { text } else { Text::default() };
        let last = text.logs.into_iter().map(|(log, files)| (log, places(files))).collect();
        Kept { path, last, detached: text.detached, written: None }
    }

    pub fn of(&self, log: &str) -> Option<&Places> {
        self.last.get(log)
    }

    pub fn detached(&self) -> Vec<Detached> {
        self.detached.clone()
    }

    /// Writes down what has changed: what is detached at once, places when the last are old enough.
    ///
    /// # Errors
    /// The file stays as it was.
    pub fn put(&mut self, all: BTreeMap<String, Places>, detached: &[Detached]) -> std::io::Result<()> {
        let recent = self.written.is_some_and(|written| written.elapsed() < EVERY);
        if (recent || all == self.last) && detached == self.detached {
            return Ok(());
        }
        let file = |((device, number), place): (&Identity, &Place)| {
            let Place { told, head } = place.clone();
            File { device: *device, number: *number, told, head }
        };
        let files = |places: &Places| places.iter().map(file).collect();
        let logs = all.iter().map(|(log, places)| (log.clone(), files(places))).collect();
        let text = Text { version: *VERSIONS.end(), logs, detached: detached.to_vec() };
        let text = serde_json::to_vec(&text)?;
        let unfinished = self.path.with_extension("tmp");
        std::fs::write(&unfinished, text)?;
        std::fs::rename(&unfinished, &self.path)?;
        (self.last, self.detached, self.written) = (all, detached.to_vec(), Some(Instant::now()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_again_and_rubbish_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = |told| Place { told, head: None };
        let head = serde_json::from_str("{\"len\":3,\"blake3\":\"ab\"}").unwrap();
        let places: Places = [((1, 2), Place { told: 3, head: Some(head) }), ((0, 9), place(8))].into();
        let mut kept = Kept::load(dir.path());
        assert!(kept.of("a").is_none());
        let detached = Detached {
            database: Some("shop".into()),
            schema: None,
            table: "orders".into(),
            partition: "base/5/1".into(),
            at_us: 7,
            told: true,
        };
        kept.put([("a".to_owned(), places.clone())].into(), std::slice::from_ref(&detached)).unwrap();
        let again = Kept::load(dir.path());
        assert_eq!((again.of("a"), again.detached()), (Some(&places), vec![detached]));
        // As an earlier build wrote it.
        std::fs::write(dir.path().join(FILE), "{\"version\":1,\"logs\":{\"a\":[[1,2,3],[0,9,8]]}}").unwrap();
        let old: Places = [((1, 2), place(3)), ((0, 9), place(8))].into();
        assert_eq!(Kept::load(dir.path()).of("a"), Some(&old));
        std::fs::write(dir.path().join(FILE), "{\"version\":9,\"logs\":{\"a\":[[1,2,3]]}}").unwrap();
        assert!(Kept::load(dir.path()).of("a").is_none());
        std::fs::write(dir.path().join(FILE), "rubbish").unwrap();
        assert!(Kept::load(dir.path()).of("a").is_none());
    }
}
