//! Holds the code to its layout (docs/ARCHITECTURE.md): which layer may use which, what the core never names, how
//! long a file may be. Reads sources as text, with the standard library only.
//!
//! Run alone: `rustc --edition 2024 --test tests/tidy.rs -o /tmp/tidy && /tmp/tidy`, from the workspace's root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the core and their layers. A layer uses only lower ones; modules of one layer do not meet, except in
/// L0, whose nouns lean on each other. `shadow` is not built yet.
const LAYERS: [(&str, u8); 18] = [
    ("types", 0),
    ("error", 0),
    ("clock", 0),
    ("acl", 0),
    ("sync", 0),
    ("disk", 10),
    ("format", 20),
    ("journal", 30),
    ("index", 40),
    ("meta", 40),
    ("live", 50),
    ("shadow", 50),
    ("past", 60),
    ("weave", 60),
    ("forecast", 60),
    ("lineage", 60),
    ("engine", 70),
    ("lib", 80),
];
/// Crates that belong to the edge.
const EDGE_ONLY: [&str; 8] = ["fuser", "ort", "postgres", "mysql", "tokio", "weft_mount", "weft_cli", "clap"];
/// Marks of unfinished work.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];
const LINES_MAX: usize = 500;

/// A source file, and its code without comments, strings and test modules (blanked, so that lines stay lines).
struct Source {
    path: PathBuf,
    text: String,
    code: String,
    /// All of it is test code: a file of a `#[cfg(test)]` module.
    is_test: bool,
}

fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// Every source below some directories of the workspace; at least one in each, or the check would check nothing.
fn sources(dirs: &[&str]) -> Vec<Source> {
    let mut all = Vec::new();
    for dir in dirs {
        let mut paths = Vec::new();
        rust_files(&root().join(dir), &mut paths);
        assert!(!paths.is_empty(), "no Rust file below {dir}: run this from the root of the workspace");
        let mut sources: Vec<Source> = paths
            .into_iter()
            .map(|path| {
                let text = fs::read_to_string(&path).unwrap();
                Source { code: code_of(&text), text, path, is_test: false }
            })
            .collect();
        let tests: Vec<PathBuf> = sources
            .iter()
            .flat_map(|source| test_files(&source.text).into_iter().map(|name| below(&source.path, &name)))
            .collect();
        for source in &mut sources {
            let module = source.path.with_extension("");
            source.is_test = tests.iter().any(|test| module.starts_with(test));
        }
        all.append(&mut sources);
    }
    all
}

/// Where the module `name` of the file at `path` stands, without extension.
fn below(path: &Path, name: &str) -> PathBuf {
    match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => path.with_file_name(name),
        _ => path.with_extension("").join(name),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Blanks comments, strings and characters; newlines stay.
fn strip(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = vec![b' '; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(bytes, at);
        let keep = end == at + 1 && bytes[at] != b'"';
        for (index, byte) in bytes[at..end].iter().enumerate() {
            if *byte == b'\n' || keep {
                out[at + index] = *byte;
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that begins at `at` ends; `at + 1` when none begins there.
fn token_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |from: usize, what: &[u8]| {
        rest[from..].windows(what.len()).position(|window| window == what).map(|found| from + found)
    };
    if rest.starts_with(b"//") {
        return at + find(0, b"\n").unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        let (mut depth, mut to) = (1, 2);
        while depth > 0 && to < rest.len() {
            match &rest[to..] {
                [b'*', b'/', ..] => (depth, to) = (depth - 1, to + 2),
                [b'/', b'*', ..] => (depth, to) = (depth + 1, to + 2),
                _ => to += 1,
            }
        }
        return at + to;
    }
    let starts_word = at == 0 || !is_word(bytes[at - 1]);
    let raw = [&b"r"[..], b"br", b"cr"].into_iter().find(|prefix| {
        let hashes = rest.get(prefix.len()..).unwrap_or(&[]);
        starts_word && rest.starts_with(prefix) && hashes.iter().find(|byte| **byte != b'#') == Some(&b'"')
    });
    if let Some(prefix) = raw {
        let hashes = rest[prefix.len()..].iter().take_while(|byte| **byte == b'#').count();
        let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
        return at + find(prefix.len() + hashes + 1, &close).map_or(rest.len(), |found| found + close.len());
    }
    match rest {
        [b'"', ..] => {
            let mut to = 1;
            while to < rest.len() && rest[to] != b'"' {
                to += if rest[to] == b'\\' { 2 } else { 1 };
            }
            (at + to + 1).min(bytes.len())
        }
        [b'\'', b'\\', ..] => at + find(3, b"'").map_or(rest.len(), |found| found + 1),
        [b'\'', ..] => {
            let len = std::str::from_utf8(&rest[1..rest.len().min(5)])
                .map_or_else(|error| error.valid_up_to(), str::len);
            let character = std::str::from_utf8(&rest[1..=len]).ok().and_then(|text| text.chars().next());
            match character {
                Some(character) if rest.get(1 + character.len_utf8()) == Some(&b'\'') => {
                    at + character.len_utf8() + 2
                }
                _ => at + 1,
            }
        }
        _ => at + 1,
    }
}

/// The code of a file: stripped, and without what stands behind `#[cfg(test)]`.
fn code_of(text: &str) -> String {
    let mut code = strip(text).into_bytes();
    const MARK: &[u8] = b"#[cfg(test)]";
    let mut at = 0;
    while let Some(found) = code[at..].windows(MARK.len()).position(|window| window == MARK) {
        let start = at + found;
        let end = item_end(&code, start + MARK.len());
        for byte in &mut code[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Where an item ends: at its `;`, or at the brace that closes its first one.
fn item_end(code: &[u8], start: usize) -> usize {
    let mut depth = 0;
    for (index, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b';' if depth == 0 => return index + 1,
            b'{' => depth += 1,
            b'}' if depth <= 1 => return index + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Names of the modules that a file declares behind `#[cfg(test)]` and keeps in files of their own.
fn test_files(text: &str) -> Vec<String> {
    strip(text)
        .split("#[cfg(test)]")
        .skip(1)
        .filter_map(|after| {
            let item = after.trim_start().strip_prefix("mod ")?;
            let (name, rest) = item.split_at(item.find(|c: char| !c.is_alphanumeric() && c != '_')?);
            rest.trim_start().starts_with(';').then(|| name.to_owned())
        })
        .collect()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The places where `word` stands as a whole word.
fn words(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| {
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            let after = bytes.get(at + word.len());
            !before.is_some_and(|byte| is_word(*byte)) && !after.is_some_and(|byte| is_word(*byte))
        })
        .collect()
}

/// The modules that code names through `crate::`, in paths and in `use crate::{...}`, with their places.
fn uses(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate") {
        let Some(rest) = code[at + 5..].trim_start().strip_prefix("::") else { continue };
        let rest = rest.trim_start();
        match rest.strip_prefix('{') {
            Some(list) => found.extend(heads(list).into_iter().map(|head| (at, head))),
            None => found.push((at, first_word(rest))),
        }
    }
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names of a brace list's entries; the opening brace is behind us.
fn heads(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut heads = Vec::new();
    let mut expect = true;
    for (index, c) in list.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            '{' => depth += 1,
            ',' if depth == 0 => expect = true,
            _ if expect && !c.is_whitespace() => {
                heads.push(first_word(&list[index..]));
                expect = false;
            }
            _ => {}
        }
    }
    heads
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// What is wrong with a use of `other` in `own`; `None` when nothing is.
fn judge(own: &str, other: &str) -> Option<String> {
    let own_layer = layer(own)?;
    let Some(other_layer) = layer(other) else {
        let shown = if other.is_empty() { "*" } else { other };
        return Some(format!(
            "`crate::{shown}` names no module of the table of layers; name the module, or add a new one to \
             LAYERS in tests/tidy.rs and to docs/ARCHITECTURE.md"
        ));
    };
    if own == other || other_layer < own_layer || own_layer == 0 && other_layer == 0 {
        return None;
    }
    Some(if other_layer == own_layer {
        format!(
            "`{own}` uses `{other}` of its own layer; let engine.rs bring them together, or move what both need down"
        )
    } else {
        format!("`{own}` uses `{other}`, which lies above it; move what it needs down, or pass it in")
    })
}

/// The module of the core that a file belongs to.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn show(source: &Source, line: usize, what: &str) -> String {
    let path = source.path.strip_prefix(root()).unwrap_or(&source.path);
    format!("{}:{line}: {what}", path.display())
}

fn none_of(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn layers_use_only_lower_ones() {
    let mut faults = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| !source.is_test) {
        let own = module_of(&source.path);
        if layer(&own).is_none() {
            faults.push(show(source, 1, "its module has no layer; add it to LAYERS in tests/tidy.rs"));
        }
        for (at, other) in uses(&source.code) {
            if let Some(fault) = judge(&own, &other) {
                faults.push(show(source, line_of(&source.code, at), &fault));
            }
        }
    }
    none_of(faults);
}

#[test]
fn the_core_does_not_know_the_edge() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        for name in EDGE_ONLY {
            for at in words(&source.code, name) {
                let what = format!("the core names `{name}`; define a trait here and implement it in mount/");
                faults.push(show(&source, line_of(&source.code, at), &what));
            }
        }
    }
    faults.extend(dependencies("Cargo.toml", &EDGE_ONLY));
    none_of(faults);
}

#[test]
fn the_mount_does_not_know_the_tools() {
    let mut faults = Vec::new();
    for source in sources(&["mount"]) {
        for name in ["weft_cli", "tools", "clap"] {
            for at in words(&source.code, name)
                .into_iter()
                .filter(|at| source.code[at + name.len()..].trim_start().starts_with("::"))
            {
                let what = format!("the mount uses `{name}`; move what both need into mount/");
                faults.push(show(&source, line_of(&source.code, at), &what));
            }
        }
    }
    faults.extend(dependencies("mount/Cargo.toml", &["weft_cli", "clap"]));
    none_of(faults);
}

/// Dependencies of a package that are among `forbidden`.
fn dependencies(manifest: &str, forbidden: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let mut section = String::new();
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
            continue;
        }
        let own = section.ends_with("dependencies") && !section.starts_with("workspace");
        let name = first_word(&line.replace('-', "_"));
        if own && forbidden.contains(&name.as_str()) {
            faults.push(format!(
                "{manifest}:{}: `{name}` belongs to a higher package; move it there",
                index + 1
            ));
        }
    }
    faults
}

#[test]
fn files_are_short() {
    let faults = sources(&["src", "mount", "tools"])
        .iter()
        .filter_map(|source| {
            // A model of the whole index is one noun, and long.
            let limit = if source.is_test { 2 * LINES_MAX } else { LINES_MAX };
            let lines = source.text.lines().count();
            let what =
                format!("{lines} lines, and {limit} are the limit; move one noun into a file of its own");
            (lines > limit).then(|| show(source, lines, &what))
        })
        .collect();
    none_of(faults);
}

#[test]
fn every_file_of_the_core_says_what_it_is_for() {
    let faults = sources(&["src"])
        .iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| show(source, 1, "begin the file with `//!`: what it is for, and its invariants"))
        .collect();
    none_of(faults);
}

#[test]
fn nothing_unfinished_stands_in_the_code() {
    let mut faults = Vec::new();
    for source in sources(&["src", "mount", "tools"]) {
        let code = strip(&source.text);
        for name in UNFINISHED {
            for at in words(&code, name).into_iter().filter(|at| code[at + name.len()..].starts_with('!')) {
                let what =
                    format!("`{name}!` stands here; finish it, or return an error that says what is missing");
                faults.push(show(&source, line_of(&code, at), &what));
            }
        }
    }
    none_of(faults);
}

#[test]
fn upward_and_sideways_uses_are_seen() {
    let names = |code: &str| -> Vec<String> { uses(code).into_iter().map(|(_, name)| name).collect() };
    assert_eq!(names("use crate::live::Live;"), ["live"]);
    assert_eq!(names("use crate::{error::{Error, Kind}, past};"), ["error", "past"]);
    assert_eq!(names("let x = crate::engine::f(); pub(crate) fn g() {}"), ["engine"]);
    assert!(judge("journal", "format").is_none());
    assert!(judge("live", "live").is_none());
    assert!(judge("clock", "types").is_none());
    assert!(judge("types", "disk").unwrap().contains("above"));
    assert!(judge("journal", "live").unwrap().contains("above"));
    assert!(judge("past", "weave").unwrap().contains("own layer"));
    assert!(judge("past", "nobody").unwrap().contains("table of layers"));
}

#[test]
fn comments_strings_and_tests_are_not_code() {
    let text = "// crate::a\nlet s = \"crate::b \\\" crate::c\"; /* crate::d /* x */ crate::e */ let c = '\"';\n\
                let r = r#\"crate::f \" crate::g\"#; fn l<'a>() { crate::h(); }\n\
                #[cfg(test)]\nmod tests { use crate::i; fn x() {} }\nuse crate::j;\n#[cfg(test)]\nmod more;\n";
    let code = code_of(text);
    assert_eq!(uses(&code).into_iter().map(|(_, name)| name).collect::<Vec<_>>(), ["h", "j"]);
    assert_eq!(line_of(&code, code.find("crate::j").unwrap()), 6);
    assert_eq!(test_files(text), ["more"]);
}
