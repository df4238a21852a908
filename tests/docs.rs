//! The documents name tests; each of them exists.

use std::fs;
use std::path::{Path, PathBuf};

/// A test that a document names: in which file (by the end of its path), and the pattern of its name.
struct Named {
    line: usize,
    file: String,
    name: String,
}

/// `file.rs: name`, `file.rs: name_*`, and behind one of these `..._end`, which stands for a name in the same file.
fn named(text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    let mut file = String::new();
    // A code span may be broken over two lines.
    for (span, line) in spans(text) {
        let span = span.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((place, name)) = span.split_once(".rs: ") {
            file = format!("{place}.rs");
            found.push(Named { line, file: file.clone(), name: name.to_owned() });
        } else if span.starts_with("...") && !file.is_empty() {
            found.push(Named { line, file: file.clone(), name: span });
        }
    }
    found
}

/// Code spans with the line they begin in; fenced blocks are passed over.
fn spans(text: &str) -> Vec<(String, usize)> {
    let mut plain = String::new();
    let mut fenced = false;
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if !fenced && !fence {
            plain.push_str(line);
        }
        plain.push('\n');
    }
    let mut line = 1;
    let mut spans = Vec::new();
    for (index, part) in plain.split('`').enumerate() {
        if index % 2 == 1 {
            spans.push((part.to_owned(), line));
        }
        line += part.matches('\n').count();
    }
    spans
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().trim_start_matches("pub ").strip_prefix("fn ")?;
        rest.split(['(', '<']).next()
    })
}

fn fits(pattern: &str, name: &str) -> bool {
    let pattern = pattern.strip_prefix("...").map_or_else(|| pattern.to_owned(), |end| format!("*{end}"));
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
        }
    }
}

#[test]
fn every_test_that_the_semantics_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    ["src", "mount", "tools", "tests"].iter().for_each(|dir| sources(&root.join(dir), &mut files));
    let text = fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    let named = named(&text);
    assert!(named.len() > 40, "only {} tests are named: has the form of the document changed?", named.len());
    let missing: Vec<String> = named
        .iter()
        .filter(|test| {
            !files
                .iter()
                .filter(|path| path.ends_with(&test.file))
                .any(|path| functions(&fs::read_to_string(path).unwrap()).any(|name| fits(&test.name, name)))
        })
        .map(|test| format!("docs/SEMANTICS.md:{}: {}: {}", test.line, test.file, test.name))
        .collect();
    assert!(missing.is_empty(), "no such test:\n{}", missing.join("\n"));
}

#[test]
fn names_are_found_and_compared() {
    let text = "*Held by:* `a.rs: one`, `..._two`, `b.rs:\n  three_*` and `c::tests`\n```\n`x.rs: y`\n```\n";
    let found: Vec<(usize, String, String)> =
        named(text).into_iter().map(|test| (test.line, test.file, test.name)).collect();
    let want = [(1, "a.rs", "one"), (1, "a.rs", "..._two"), (1, "b.rs", "three_*")];
    assert_eq!(found, want.map(|(line, file, name)| (line, file.to_owned(), name.to_owned())));
    assert!(fits("..._two", "one_two") && fits("three_*", "three_x") && !fits("one", "ones"));
}
