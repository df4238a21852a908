//! `weft retention` and `weft prune`: how long history is kept, in weft.toml and in a running daemon.

use crate::Outcome;
use crate::config::{self, Config};
use crate::running::Running;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use weft::engine::{Engine, Pace};
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
    if change.tiers.is_some() {
        retention.check_spans().map_err(|cause| cause.message)?;
    }
    write(store, &retention)?;
    if let Some(engine) = engine {
        engine.set_retention(retention.clone());
    }
    Ok(shown(&retention))
}

/// Puts it into STORE's weft.toml.
fn write(store: &Path, retention: &Retention) -> Outcome<()> {
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
    check(&text, retention).map_err(|cause| {
        format!(
            "{} cannot be changed, and stays as it is: {cause}; mend it, or set retention, retention_cap and \
             retention_minimum there by hand",
            path.display()
        )
    })?;
    replace(&path, &text).map_err(|cause| format!("cannot write {}: {cause}", path.display()))
}

/// The next mount must take what is written, and read from it what was set.
fn check(text: &str, wanted: &Retention) -> Outcome<()> {
    match Config::parse(text)?.retention()? == *wanted {
        true => Ok(()),
        false => Err("what was set would not be read from it".into()),
    }
}

/// The text of weft.toml with a key set: in the line that sets it, else in one that is commented out, else in a new one.
/// Behind the header of a table it would be the table's.
fn with_key(text: &str, key: &str, value: &str) -> String {
    let sets = |line: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let set = format!("{key} = \"{value}\"");
    let mut lines: Vec<&str> = text.lines().collect();
    let end = lines.iter().position(|line| line.trim_start().starts_with('[')).unwrap_or(lines.len());
    let top = lines.get(..end).unwrap_or(&[]);
    let is_default = |line: &&str| line.strip_prefix('#').is_some_and(sets);
    let at = top.iter().position(|line| sets(line)).or_else(|| top.iter().position(is_default));
    match at {
        Some(at) => lines.splice(at..=at, [set.as_str()]),
        None => lines.splice(end..end, [set.as_str()]),
    };
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

    pub(crate) fn prune(&self, pace: &dyn Pace, dry_run: bool) -> Outcome<Value> {
        let engine = &self.common.engine;
        if !dry_run {
            engine.weave_if_possible();
        }
        let pruned = engine.prune(pace, dry_run).map_err(|cause| cause.to_string())?;
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
        for bad in [
            change(Some("every write for 1m"), None),
            change(None, Some("0")),
            change(Some("all"), None),
            change(Some("every write for 1d, then one per week for 2d"), None),
        ] {
            assert!(set(bad).is_err());
        }
        assert_eq!(fs::read_to_string(dir.path().join(config::FILE)).unwrap(), text, "nothing was changed");
        fs::write(dir.path().join(config::FILE), "capture = \"strict\"\n").unwrap();
        set(change(None, None)).unwrap();
        assert_eq!(Config::load(dir.path()).unwrap(), Config::default());
    }

    /// However the file is written, the next mount takes it and knows what was set; or it is not touched.
    #[test]
    fn what_is_set_is_read_by_the_next_mount() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(config::FILE);
        let table = "[[log]]\npath = \"a\"\nformat = \"pg-csv\"\n";
        for text in [
            format!("{}\nretention = \"every write for 3d\"\n", config::DEFAULT_FILE),
            format!("retention = \"every write for 3d\"\n{}", config::DEFAULT_FILE),
            table.to_owned(),
            format!(
                "  retention=\"every write for 3d\"  # mine\n\n{table}# retention = \"x\"\n#retention_cap = 1\n"
            ),
            format!("retention_cap = \"70%\"\n{table}"),
        ] {
            fs::write(&path, &text).unwrap();
            let before = Config::load(dir.path()).unwrap();
            set(dir.path(), &change(Some("every write for 2d"), None), None).unwrap();
            let expected = Config { retention: "every write for 2d".into(), ..before };
            assert_eq!(Config::load(dir.path()), Ok(expected), "{text}");
        }
        let wanted = Retention::parse("every write for 2d", "70%", "1h").unwrap();
        for text in [
            "threads = 0\n",
            "retention = \"\"\"\nevery write for 3d\"\"\"\n",
            "\"retention\" = \"every write for 3d\"\n",
        ] {
            fs::write(&path, text).unwrap();
            // As of a daemon that read another file when it mounted.
            let refused = write(dir.path(), &wanted).unwrap_err();
            assert!(refused.contains("stays as it is") && !refused.contains('\n'), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
