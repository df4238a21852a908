//! Where ONNX Runtime's library is looked for. It is loaded at run time: Weft works without it.

use crate::Outcome;
use std::path::{Path, PathBuf};

/// What `scripts/setup` places; any release from 1.24 on can be used.
const NAMES: [&str; 3] = ["libonnxruntime.so.1.24.4", "libonnxruntime.so.1", "libonnxruntime.so"];
/// Directories of the system, after those beside the program.
const DIRS: [&str; 3] = ["/usr/local/lib/weft", "/usr/lib/weft", "/usr/lib/x86_64-linux-gnu"];
/// Environment variable with the library's path, as ONNX Runtime's bindings know it.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Finds the library: what was asked for (and only that), else the variable's (and only that), else the first of the
/// usual places.
///
/// # Errors
/// One line saying what to do.
pub fn find(asked: Option<&Path>) -> Outcome<PathBuf> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let program = std::env::current_exe().ok();
    choose(asked, variable.as_deref(), program.as_deref())
}

fn choose(asked: Option<&Path>, variable: Option<&Path>, program: Option<&Path>) -> Outcome<PathBuf> {
    for (path, by) in [(asked, "the setting onnxruntime"), (variable, VARIABLE)] {
        let Some(path) = path else { continue };
        return match path.is_file() {
            true => Ok(path.to_path_buf()),
            false => Err(format!("there is no ONNX Runtime at {} ({by})", path.display())),
        };
    }
    let beside = program
        .and_then(Path::parent)
        .map(|dir| [dir.to_path_buf(), dir.join("../lib/weft"), dir.join("../tools/onnxruntime")]);
    let dirs = beside.into_iter().flatten().chain(DIRS.iter().map(PathBuf::from));
    let mut places = dirs.flat_map(|dir| NAMES.iter().map(move |name| dir.join(name)));
    places.find(|path| path.is_file()).ok_or_else(|| {
        "no ONNX Runtime (libonnxruntime.so, 1.24 or later) beside the program or in /usr/lib/weft: run scripts/setup, or \
         name one with onnxruntime in weft.toml"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_taken_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let given = dir.path().join("given.so");
        std::fs::write(&given, b"").unwrap();
        let gone = dir.path().join("gone.so");
        assert_eq!(choose(Some(&given), Some(&gone), None).unwrap(), given);
        assert_eq!(choose(None, Some(&given), None).unwrap(), given);
        assert!(choose(Some(&gone), Some(&given), None).unwrap_err().contains("gone.so (the setting"));
        assert!(choose(None, Some(&gone), None).unwrap_err().contains(VARIABLE));
    }

    #[test]
    fn the_usual_places_are_beside_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("debug/weft");
        let tools = dir.path().join("tools/onnxruntime");
        std::fs::create_dir_all(&tools).unwrap();
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::write(tools.join("libonnxruntime.so.1.24.4"), b"").unwrap();
        let found = choose(None, None, Some(&program)).unwrap();
        assert_eq!(found.canonicalize().unwrap(), tools.join("libonnxruntime.so.1.24.4"));
    }
}
