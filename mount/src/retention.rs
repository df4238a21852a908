//! `weft retention` and `weft prune`: how long history is kept, in weft.toml and in a running daemon.

use crate::Outcome;
use crate::config::{self, Config};
use crate::running::Running;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use weft::engine::{Engine, Unpaced};
use weft::meta::retention::Retention;
use weft::past::when::canonical;
use weft::types::Timestamp;

/// What to change; the rest stays.
pub struct Change {
    pub tiers: Option<String>,
    pub cap: Option<String>,
    pub minimum: Option<String>,
}

/// As programs read it, and people.
pub fn shown(retention: &Retention) -> Value {
    json!({
        "tiers": retention.tiers_text(),
        "cap": retention.cap_text(),
        "minimum": retention.minimum_text(),
    })
}

/// Changes the retention in STORE's weft.toml, and of its daemon. Nothing is changed by what is refused.
///
/// # Errors
/// One line: what is impossible, or cannot be written.
pub fn set(store: &Path, change: &Change, engine: Option<&Engine>) -> Outcome<Value> {
    let now = match engine {
        Some(engine) => engine.retention(),
        None => Config::load(store)?.retention()?,
    };
    let or = |given: &Option<String>, now: String| given.clone().unwrap_or(now);
    let retention = Retention::parse(
        &or(&change.tiers, now.tiers_text()),
        &or(&change.cap, now.cap_text()),
        &or(&change.minimum, now.minimum_text()),
    )
    .map_err(|cause| cause.message)?;
    let path = store.join(config::FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => config::DEFAULT_FILE.to_owned(),
        Err(cause) => return Err(format!("cannot read {}: {cause}", path.display())),
    };
    let keys = [
        ("retention", retention.tiers_text()),
        ("retention_cap", retention.cap_text()),
        ("retention_minimum", retention.minimum_text()),
    ];
    let text = keys.iter().fold(text, |text, (key, value)| with_key(&text, key, value));
    replace(&path, &text).map_err(|cause| format!("cannot write {}: {cause}", path.display()))?;
    if let Some(engine) = engine {
        engine.set_retention(retention.clone());
    }
    Ok(shown(&retention))
}

/// The text of weft.toml with a key set: in its line, also one that is commented out; else at the end.
fn with_key(text: &str, key: &str, value: &str) -> String {
    let is_it = |line: &str| {
        let rest = line.strip_prefix('#').unwrap_or(line).strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let set = format!("{key} = \"{value}\"");
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter_mut().find(|line| is_it(line)) {
        Some(line) => *line = &set,
        None => lines.push(&set),
    }
    lines.join("\n") + "\n"
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("toml.new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

impl Running {
    pub(crate) fn retention(&self) -> Outcome<Value> {
        let engine = &self.common.engine;
        let mut shown = shown(&engine.retention());
        let (seq, oldest) = engine.oldest();
        let thinned = engine.thinned();
        shown["oldest"] = json!(canonical(oldest));
        shown["oldest_seq"] = json!(seq.0);
        shown["thinned_upto"] = json!(thinned.upto().0);
        shown["points"] = json!(thinned.kept().len());
        shown["held"] = json!(engine.held());
        Ok(shown)
    }

    pub(crate) fn prune(&self, dry_run: bool) -> Outcome<Value> {
        let engine = &self.common.engine;
        if !dry_run {
            engine.weave_if_possible();
        }
        let pruned = engine.prune(&Unpaced, dry_run).map_err(|cause| cause.to_string())?;
        let (before, after) = (Timestamp(pruned.oldest_before_us), Timestamp(pruned.oldest_us));
        let mut told = serde_json::to_value(pruned).map_err(|cause| cause.to_string())?;
        told["oldest_before"] = json!(canonical(before));
        told["oldest"] = json!(canonical(after));
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(tiers: Option<&str>, cap: Option<&str>) -> Change {
        Change { tiers: tiers.map(str::to_owned), cap: cap.map(str::to_owned), minimum: None }
    }

    #[test]
    fn keys_are_set_in_their_place_and_nothing_else_changes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(config::FILE), config::DEFAULT_FILE).unwrap();
        let set = |change| set(dir.path(), &change, None);
        set(change(Some("every write for 2d"), None)).unwrap();
        set(change(None, Some("300GiB"))).unwrap();
        let config = Config::load(dir.path()).unwrap();
        let expected = Config {
            retention: "every write for 2d".into(),
            retention_cap: "300GiB".into(),
            ..Config::default()
        };
        assert_eq!(config, expected);
        let text = fs::read_to_string(dir.path().join(config::FILE)).unwrap();
        assert_eq!(text.lines().count(), config::DEFAULT_FILE.lines().count());
        for bad in
            [change(Some("every write for 1m"), None), change(None, Some("0")), change(Some("all"), None)]
        {
            assert!(set(bad).is_err());
        }
        assert_eq!(fs::read_to_string(dir.path().join(config::FILE)).unwrap(), text, "nothing was changed");
        fs::write(dir.path().join(config::FILE), "capture = \"strict\"\n").unwrap();
        set(change(None, None)).unwrap();
        assert_eq!(Config::load(dir.path()).unwrap(), Config::default());
    }
}
