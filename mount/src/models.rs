//! The models of a STORE: the shipped one, and those in STORE/models, each under the name of its BLAKE3.
//!
//! Invariants: a model's file is never written in place; which one is used changes by one rename; what is not what its
//! name says is not loaded.

use crate::Outcome;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Directory in STORE.
pub const DIR: &str = "models";
/// Which one is used.
const USED: &str = "used.json";
/// Largest model file read, bytes. The shipped one has less than 100 kB.
pub const MODEL_MAX: u64 = 16 << 20;
/// How the shipped model is called.
pub const SHIPPED: &str = "shipped";
/// The model that comes with the program.
pub const SHIPPED_BYTES: &[u8] = include_bytes!("../models/shipped.onnx");

/// A model, chosen and read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Model {
    /// `shipped`, or the BLAKE3 of its bytes in hex.
    pub name: String,
    pub blake3: String,
    pub bytes: Vec<u8>,
}

/// What STORE knows of a model besides its bytes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// When it came into STORE, RFC 3339.
    pub added: String,
    /// Where from: a path, or `weft train`.
    pub from: String,
    /// What its training reports: scores beside the baselines, data.
    pub report: serde_json::Value,
}

/// A line of `weft model list`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Listed {
    pub name: String,
    pub blake3: String,
    pub bytes: u64,
    pub used: bool,
    #[serde(flatten)]
    pub note: Note,
}

#[derive(Serialize, Deserialize)]
struct Used {
    model: String,
}

/// BLAKE3 in hex.
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Name of the model in use; the shipped one unless another was chosen.
///
/// # Errors
/// One line when the choice cannot be read.
pub fn used(store: &Path) -> Outcome<String> {
    let path = store.join(DIR).join(USED);
    match read(&path, 4 << 10)? {
        None => Ok(SHIPPED.into()),
        Some(bytes) => serde_json::from_slice::<Used>(&bytes).map(|used| used.model).map_err(|cause| {
            format!("{} is damaged ({cause}): choose again with `weft model use`", path.display())
        }),
    }
}

/// The model in use, from its file.
///
/// # Errors
/// One line with the reason and what to do.
pub fn load_used(store: &Path) -> Outcome<Model> {
    load(store, &used(store)?)
}

/// The model that comes with the program.
pub fn shipped() -> Model {
    Model { name: SHIPPED.into(), blake3: hash(SHIPPED_BYTES), bytes: SHIPPED_BYTES.to_vec() }
}

/// The model that a name, or the beginning of one, stands for.
///
/// # Errors
/// One line with the reason and what to do.
pub fn load(store: &Path, name: &str) -> Outcome<Model> {
    let name = find(store, name)?;
    if name == SHIPPED {
        return Ok(shipped());
    }
    let path = file(store, &name);
    let bytes = read(&path, MODEL_MAX)?.ok_or_else(|| unknown(&name))?;
    let blake3 = hash(&bytes);
    if blake3 != name {
        return Err(format!(
            "{} is damaged (its BLAKE3 is {}): put it back, or `weft model use {SHIPPED}`",
            path.display(),
            short(&blake3)
        ));
    }
    Ok(Model { name, blake3, bytes })
}

/// Takes a model's bytes into STORE; its name. One that is there already stays, with its note.
///
/// # Errors
/// One line with the reason.
pub fn add(store: &Path, bytes: &[u8], note: &Note) -> Outcome<String> {
    let dir = store.join(DIR);
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(cause) if cause.kind() != ErrorKind::AlreadyExists => {
            return Err(format!("cannot make {}: {cause}", dir.display()));
        }
        _ => {}
    }
    let name = hash(bytes);
    let path = file(store, &name);
    // A damaged one of this name is replaced by what it should be.
    if read(&path, MODEL_MAX).ok().flatten().is_none_or(|there| there != bytes) {
        write(&path, bytes)?;
        let note = serde_json::to_vec_pretty(note).map_err(|cause| cause.to_string())?;
        write(&path.with_extension("json"), &note)?;
    }
    Ok(name)
}

/// Reads a model from a path of the operator's, within the limit.
///
/// # Errors
/// One line with the reason.
pub fn from_path(path: &Path) -> Outcome<Vec<u8>> {
    read(path, MODEL_MAX)?.ok_or_else(|| format!("there is no file {}", path.display()))
}

/// From now on this one; the name as it was resolved.
///
/// # Errors
/// One line with the reason.
pub fn choose(store: &Path, name: &str) -> Outcome<String> {
    let name = load(store, name)?.name;
    let dir = store.join(DIR);
    if name == SHIPPED && !dir.exists() {
        return Ok(name);
    }
    let used = serde_json::to_vec(&Used { model: name.clone() }).map_err(|cause| cause.to_string())?;
    write(&dir.join(USED), &used)?;
    Ok(name)
}

/// All models, the shipped one first, then by when they came.
///
/// # Errors
/// One line with the reason.
pub fn list(store: &Path) -> Outcome<Vec<Listed>> {
    let used = used(store)?;
    let shipped = Listed {
        name: SHIPPED.into(),
        blake3: hash(SHIPPED_BYTES),
        bytes: SHIPPED_BYTES.len() as u64,
        used: used == SHIPPED,
        note: Note { from: format!("weft {}", env!("CARGO_PKG_VERSION")), ..Note::default() },
    };
    let mut kept: Vec<Listed> = names(store)?
        .into_iter()
        .map(|name| {
            let path = file(store, &name);
            let note = read(&path.with_extension("json"), 1 << 20).ok().flatten();
            Listed {
                bytes: std::fs::metadata(&path).map_or(0, |metadata| metadata.len()),
                used: used == name,
                note: note.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default(),
                blake3: name.clone(),
                name,
            }
        })
        .collect();
    kept.sort_by(|a, b| (&a.note.added, &a.name).cmp(&(&b.note.added, &b.name)));
    Ok(std::iter::once(shipped).chain(kept).collect())
}

/// Enough of a hash for people.
pub fn short(name: &str) -> &str {
    name.get(..12).unwrap_or(name)
}

fn unknown(name: &str) -> String {
    format!("this STORE has no model {name}: see `weft model list`")
}

fn file(store: &Path, name: &str) -> PathBuf {
    store.join(DIR).join(format!("{name}.onnx"))
}

fn names(store: &Path) -> Outcome<Vec<String>> {
    let dir = store.join(DIR);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(format!("cannot list {}: {cause}", dir.display())),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_hash = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(names
        .filter_map(|name| name.strip_suffix(".onnx").map(str::to_owned))
        .filter(|name| is_hash(name))
        .collect())
}

/// The one model whose name begins so.
fn find(store: &Path, name: &str) -> Outcome<String> {
    const LEAST: usize = 4;
    if name == SHIPPED {
        return Ok(SHIPPED.into());
    }
    let found: Vec<String> = names(store)?.into_iter().filter(|known| known.starts_with(name)).collect();
    match found.as_slice() {
        [one] if name.len() >= LEAST => Ok(one.clone()),
        [] => Err(unknown(name)),
        _ => Err(format!("{name} does not say which of {} models: give more of its name", found.len())),
    }
}

/// A file of at most `most` bytes; `None` when there is none.
fn read(path: &Path, most: u64) -> Outcome<Option<Vec<u8>>> {
    let failed = |cause: std::io::Error| format!("cannot read {}: {cause}", path.display());
    // Not waiting for a writer, should it be a fifo.
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(failed(cause)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(format!("{} is too large for a model (at most {} KiB)", path.display(), most >> 10));
    }
    Ok(Some(bytes))
}

/// Writes a file as a whole: durable, then renamed.
fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let failed = |cause: std::io::Error| format!("cannot write {}: {cause}", path.display());
    let new = path.with_extension("new");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(added: &str) -> Note {
        Note { added: added.into(), from: "a test".into(), ..Note::default() }
    }

    #[test]
    fn the_shipped_one_is_used_until_another_is_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path();
        assert_eq!(load_used(store).unwrap().bytes, SHIPPED_BYTES);
        assert_eq!(list(store).unwrap().len(), 1);
        let second = add(store, b"second", &note("2026-02")).unwrap();
        let first = add(store, b"first", &note("2026-01")).unwrap();
        assert_eq!(used(store).unwrap(), SHIPPED, "adding does not choose");
        assert_eq!(choose(store, short(&first)).unwrap(), first);
        assert_eq!(load_used(store).unwrap().bytes, b"first");
        let listed = list(store).unwrap();
        assert_eq!(listed.iter().map(|it| &*it.name).collect::<Vec<_>>(), [SHIPPED, &first, &second]);
        assert_eq!(listed.iter().map(|it| it.used).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(listed[1].note, note("2026-01"));
        choose(store, SHIPPED).unwrap();
        assert_eq!(load_used(store).unwrap().name, SHIPPED);
        assert_eq!(load(store, &second).unwrap().bytes, b"second", "old ones are kept");
    }

    #[test]
    fn what_is_damaged_too_large_or_unknown_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path();
        let name = add(store, b"a model", &note("")).unwrap();
        choose(store, &name).unwrap();
        std::fs::write(file(store, &name), b"b model").unwrap();
        let told = load_used(store).unwrap_err();
        assert!(told.contains("is damaged") && told.contains("weft model use shipped"), "{told}");
        assert!(choose(store, &name).unwrap_err().contains("is damaged"));
        assert_eq!(add(store, b"a model", &note("")).unwrap(), name, "put back");
        assert!(load_used(store).is_ok());
        for unknown in ["abcd", "../../etc/passwd", ""] {
            assert!(load(store, unknown).is_err(), "{unknown}");
        }
        let large = store.join("large");
        File::create(&large).unwrap().set_len(MODEL_MAX + 1).unwrap();
        assert!(from_path(&large).unwrap_err().contains("too large"));
        assert!(from_path(store).unwrap_err().contains("is not a file"));
        assert!(from_path(&store.join("gone")).unwrap_err().contains("there is no file"));
        std::fs::write(store.join(DIR).join(USED), b"{").unwrap();
        assert!(used(store).unwrap_err().contains("choose again"));
        choose(store, SHIPPED).unwrap();
        assert!(load_used(store).is_ok());
    }
}
