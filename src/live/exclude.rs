//! Which names are left out of history: patterns, and how they match. docs/SEMANTICS.md, "Excluded paths".
//!
//! - `name`: that name, in any directory. `/name`: in the root only. `dir/name`: below a directory of that name.
//! - With `/` at its end: everything inside the directories that match, at any depth; they themselves stay.
//! - `*` stands for any bytes within one name, `?` for one byte.
//! - A pattern without `/` at its end does not match directories.

use crate::error::{Error, Result};
use crate::types::Name;

/// How a mount chooses its patterns.
#[derive(Clone, Debug)]
pub struct Exclude {
    /// Whatever DATA holds.
    pub always: Patterns,
    /// More of them, by the names in DATA's root.
    pub by_contents: fn(&[Name]) -> &'static [&'static str],
}

impl Exclude {
    /// Nothing is excluded.
    pub fn nothing() -> Exclude {
        Exclude { always: Patterns::default(), by_contents: |_| &[] }
    }

    pub fn choose(&self, top: &[Name]) -> Result<Patterns> {
        Ok(Patterns::parse((self.by_contents)(top))?.with(&self.always))
    }
}

/// One pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pattern {
    text: String,
    /// Begins in the root.
    anchored: bool,
    /// Matches what is inside.
    contents: bool,
    parts: Vec<Vec<u8>>,
}

/// All patterns of a mount.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Reads patterns.
    ///
    /// # Errors
    /// The pattern that is none, and why, in one line.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Patterns> {
        texts.iter().map(|text| Pattern::parse(text.as_ref())).collect::<Result<_>>().map(Patterns)
    }

    /// These and those, each once.
    #[must_use]
    pub fn with(mut self, others: &Patterns) -> Patterns {
        for other in &others.0 {
            if !self.0.contains(other) {
                self.0.push(other.clone());
            }
        }
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they were written.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(|pattern| pattern.text.clone()).collect()
    }

    /// Whether what stands at a path (names from the root down) is excluded.
    pub fn excludes(&self, path: &[&[u8]], is_dir: bool) -> bool {
        self.by(path, is_dir).is_some()
    }

    /// The pattern that excludes a path.
    pub fn by(&self, path: &[&[u8]], is_dir: bool) -> Option<&str> {
        let found = self.0.iter().find(|pattern| pattern.excludes(path, is_dir));
        found.map(|pattern| pattern.text.as_str())
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern> {
        let bad = |why: &str| Err(Error::invalid("exclude", format!("{text:?} {why}")));
        let anchored = text.starts_with('/');
        let contents = text.ends_with('/');
        let inner = text.strip_prefix('/').unwrap_or(text);
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let parts: Vec<Vec<u8>> = inner.split('/').map(|part| part.as_bytes().to_vec()).collect();
        if parts.iter().any(Vec::is_empty) {
            return bad("is not a pattern: name a file (tmp.db), or a directory (cache/)");
        }
        if parts.iter().any(|part| part == b"." || part == b"..") {
            return bad("is not a pattern: it may not contain . or ..");
        }
        if text.contains('\0') {
            return bad("is not a pattern: no name contains a NUL");
        }
        if parts.iter().all(|part| part.iter().all(|byte| *byte == b'*')) {
            return bad("would leave everything out of history: name what is temporary");
        }
        Ok(Pattern { text: text.to_owned(), anchored, contents, parts })
    }

    fn excludes(&self, path: &[&[u8]], is_dir: bool) -> bool {
        if self.contents {
            return (self.parts.len()..path.len())
                .any(|end| path.get(..end).is_some_and(|dir| self.fits(dir)));
        }
        !is_dir && self.fits(path)
    }

    /// Whether the end of a path (all of it, when anchored) is this pattern's.
    fn fits(&self, path: &[&[u8]]) -> bool {
        let Some(skipped) = path.len().checked_sub(self.parts.len()) else { return false };
        (skipped == 0 || !self.anchored)
            && path.iter().skip(skipped).zip(&self.parts).all(|(name, part)| glob(part, name))
    }
}

/// Whether a name fits a pattern of `*` and `?`. Without recursion: of several `*` only the last one that was passed can give way.
pub fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut star = None;
    loop {
        match (pattern.get(at), name.get(pos)) {
            (Some(b'*'), _) => {
                star = Some((at + 1, pos));
                at += 1;
            }
            (Some(want), Some(have)) if *want == b'?' || want == have => (at, pos) = (at + 1, pos + 1),
            (None, None) => return true,
            _ => match star {
                Some((after, from)) if from < name.len() => {
                    star = Some((after, from + 1));
                    (at, pos) = (after, from + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(pattern: &str, path: &str, is_dir: bool) -> bool {
        let path: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        Patterns::parse(&[pattern]).unwrap().excludes(&path, is_dir)
    }

    #[test]
    fn names_match_where_they_should() {
        for (pattern, path, want) in [
            ("postmaster.pid", "postmaster.pid", true),
            ("postmaster.pid", "main/postmaster.pid", true),
            ("postmaster.pid", "postmaster.pid.old", false),
            ("/postmaster.pid", "postmaster.pid", true),
            ("/postmaster.pid", "main/postmaster.pid", false),
            ("log/*.txt", "log/a.txt", true),
            ("log/*.txt", "x/log/a.txt", true),
            ("/log/*.txt", "x/log/a.txt", false),
            ("log/*.txt", "log/b/a.txt", false),
            ("#sql-temptable*", "db/#sql-temptable-1f-3-0.frm", true),
            ("*a*b?", "xxaybybz", true),
            ("*a*b?", "xxayb", false),
            ("**", "x", true),
        ] {
            if pattern == "**" {
                assert!(Patterns::parse(&[pattern]).is_err());
                continue;
            }
            assert_eq!(excludes(pattern, path, false), want, "{pattern} {path}");
            assert!(!excludes(pattern, path, true), "a directory: {pattern} {path}");
        }
    }

    #[test]
    fn a_directory_stays_and_all_that_is_inside_is_excluded() {
        for (path, want) in [
            ("pgsql_tmp", false),
            ("pgsql_tmp/a", true),
            ("base/pgsql_tmp", false),
            ("base/pgsql_tmp/set/0.0", true),
            ("base/pgsql_tmp_not/a", false),
        ] {
            for is_dir in [false, true] {
                assert_eq!(excludes("pgsql_tmp/", path, is_dir), want, "{path}");
            }
        }
        assert!(excludes("/cache/", "cache/a", false) && !excludes("/cache/", "x/cache/a", false));
        assert!(excludes("a/b/", "x/a/b/c", false) && !excludes("a/b/", "a/x/b/c", false));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "/", "//", "a//b", "..", "a/../b", "./a", "*", "**/", "/*/", "a\0b"] {
            let refused = Patterns::parse(&[text]).unwrap_err();
            assert!(!refused.to_string().contains('\n'), "{refused}");
        }
    }

    #[test]
    fn patterns_come_together_once_each() {
        let left = Patterns::parse(&["a", "b/"]).unwrap();
        let both = left.with(&Patterns::parse(&["b/", "c"]).unwrap());
        assert_eq!(both.texts(), ["a", "b/", "c"]);
        assert_eq!(both.by(&[b"x", b"b", b"y"], true), Some("b/"));
        assert!(Patterns::default().is_empty());
    }
}
