//! STORE/logs.json: up to where each file of each log is told, so that a restart loses nothing of what was written meanwhile.
//! Not durable, and up to a second behind: some statements are told twice then, and a split told twice is one.

use super::follow::Places;
use super::meaning::Detached;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILE: &str = "logs.json";
const VERSION: u32 = 1;
/// Between two writes of places alone: a busy log has a new one at every look.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize, Default)]
struct Text {
    version: u32,
    /// By path and format of the setting: device (0: of DATA), number and bytes of each file.
    logs: BTreeMap<String, Vec<(u64, u64, u64)>>,
    #[serde(default)]
    detached: Vec<Detached>,
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
        let places =
            |files: Vec<(u64, u64, u64)>| files.into_iter().map(|(dev, ino, at)| ((dev, ino), at)).collect();
        let text = if text.version == VERSION { text } else { Text::default() };
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
        let files = |places: &Places| places.iter().map(|((dev, ino), at)| (*dev, *ino, *at)).collect();
        let logs = all.iter().map(|(log, places)| (log.clone(), files(places))).collect();
        let text = serde_json::to_vec(&Text { version: VERSION, logs, detached: detached.to_vec() })?;
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
        let places: Places = [((1, 2), 3), ((0, 9), 8)].into();
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
        std::fs::write(dir.path().join(FILE), "{\"version\":9,\"logs\":{\"a\":[[1,2,3]]}}").unwrap();
        assert!(Kept::load(dir.path()).of("a").is_none());
        std::fs::write(dir.path().join(FILE), "rubbish").unwrap();
        assert!(Kept::load(dir.path()).of("a").is_none());
    }
}
