//! Sessions in the documents: blocks of ```` ```console ````, run for real.
//!
//! A line that begins with `$ ` is a command, `> ` goes on with it, everything else is what it prints, on either channel. `...`
//! in an expected line stands for anything, and alone on a line for any number of lines. `/srv` is a directory of the
//! test's own. All blocks of a document are one shell, from top to bottom.

use crate::Place;
use crate::cmd;
use std::path::Path;
use std::process::Command;

/// A command with what the document says it prints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Line of the document, from 1.
    pub line: usize,
    pub command: String,
    pub expected: Vec<String>,
}

const BEGIN: &str = "```console";
const MARK: char = '\u{1e}';

/// The steps of a document, in order.
pub fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (line, text) in (1..).zip(text.lines()) {
        match (inside, text.trim_start()) {
            (false, BEGIN) => inside = true,
            (false, _) => {}
            (true, "```") => inside = false,
            (true, text) => take(&mut steps, line, text),
        }
    }
    steps
}

fn take(steps: &mut Vec<Step>, line: usize, text: &str) {
    if let Some(command) = text.strip_prefix("$ ") {
        steps.push(Step { line, command: command.to_owned(), expected: Vec::new() });
    } else if let Some(step) = steps.last_mut() {
        match text.strip_prefix("> ") {
            Some(more) if step.expected.is_empty() => step.command.push_str(&format!("\n{more}")),
            _ => step.expected.push(text.to_owned()),
        }
    }
}

/// Runs a document's steps in a directory of its own and compares what they print.
///
/// # Panics
/// At the first step that prints something else, with its line and both texts.
#[track_caller]
pub fn follow(document: &Path, weft: &Path) {
    let text = std::fs::read_to_string(document).expect("the document");
    let steps = steps(&text);
    assert!(!steps.is_empty(), "{} has no {BEGIN} block", document.display());
    let place = Place::new();
    let said = run(&steps, &place, weft);
    for (step, said) in steps.iter().zip(said) {
        let said: Vec<&str> = said.lines().collect();
        assert!(
            fits(&step.expected, &said),
            "{}:{}: `{}` should print\n{}\nand printed\n{}",
            document.display(),
            step.line,
            step.command,
            step.expected.join("\n"),
            said.join("\n")
        );
    }
}

/// What each step printed. One shell runs all: variables and the current directory go on.
fn run(steps: &[Step], place: &Place, weft: &Path) -> Vec<String> {
    let home = place.path().display().to_string();
    let mut script = String::from("exec 2>&1\n");
    for step in steps {
        script.push_str(&format!("printf '{MARK}'\n{}\n", step.command.replace("/srv", &home)));
    }
    let path = format!(
        "{}:{}",
        weft.parent().expect("a directory").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = cmd::run(
        Command::new("bash")
            .args(["--norc", "-c", &script])
            .current_dir(place.path())
            .env("PATH", path)
            .env("LC_ALL", "C")
            .env("TZ", "UTC"),
    );
    let said: Vec<String> =
        output.stdout.split(MARK).skip(1).map(|said| said.replace(&home, "/srv")).collect();
    assert_eq!(said.len(), steps.len(), "the shell ended early:\n{}\n{}", output.stdout, output.stderr);
    said
}

/// Whether what was printed is what was expected, line by line.
fn fits(expected: &[String], said: &[&str]) -> bool {
    match (expected.split_first(), said.split_first()) {
        (None, None) => true,
        (Some((line, rest)), _) if line == "..." => {
            (0..=said.len()).any(|skip| fits(rest, said.get(skip..).unwrap_or_default()))
        }
        (Some((want, expected)), Some((line, said))) => line_fits(want, line) && fits(expected, said),
        _ => false,
    }
}

fn line_fits(want: &str, line: &str) -> bool {
    match want.split_once("...") {
        None => want.trim_end() == line.trim_end(),
        Some((head, rest)) => line.strip_prefix(head).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| line_fits(rest, tail.get(at..).unwrap_or_default()))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_taken_apart() {
        let text = "Words\n```console\n$ echo a \\\n> b\na b\n$ true\n```\n$ not this\n```\nnor this\n```\n";
        let found = steps(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].command, "echo a \\\nb");
        assert_eq!(found[0].expected, ["a b"]);
        assert_eq!((found[1].line, found[1].expected.len()), (6, 0));
    }

    #[test]
    fn dots_stand_for_anything_and_nothing_else_does() {
        let expected = ["a ... z".to_owned(), "...".to_owned(), "end".to_owned()];
        assert!(fits(&expected, &["a b c z", "1", "2", "end"]));
        assert!(fits(&expected, &["a  z", "end"]));
        assert!(!fits(&expected, &["a b", "end"]));
        assert!(!fits(&expected, &["a b z", "end", "more"]));
        assert!(!fits(&[], &["anything"]));
        assert!(!fits(&["x".to_owned()], &[]));
    }
}
