//! One log, followed: what is new in its files since the last look, line by line.

use super::format::{Format, Parsed, Parser};
use super::source::{Identity, Source};
use std::collections::{BTreeMap, HashMap};
use std::io::Result;

/// Bytes of a line at most; what is longer is skipped whole and counted.
const LINE_MAX: usize = 1 << 20;
/// Bytes read in one look at a log: the rest waits for the next.
const LOOK_MAX: u64 = 16 << 20;
const READ: usize = 64 << 10;

/// Bytes of files that are told.
pub(super) type Places = BTreeMap<Identity, u64>;

struct File {
    offset: u64,
    /// Up to here all is told: where to go on after a restart.
    told: u64,
    /// A line without its end yet.
    line: Vec<u8>,
    /// The line is too long: skipped to its end.
    skipping: bool,
    parser: Parser,
}

impl File {
    fn new(format: Format, offset: u64) -> File {
        File { offset, told: offset, line: Vec::new(), skipping: false, parser: Parser::new(format) }
    }

    /// Whatever was open is told now.
    fn settle(&mut self) {
        if self.line.is_empty() && !self.skipping && self.parser.is_idle() {
            self.told = self.offset;
        }
    }

    fn take(&mut self, bytes: &[u8], all: &mut Parsed, lines: &mut u64) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if !self.skipping && self.line.len() + text.len() > LINE_MAX {
                self.skipping = true;
                self.line = Vec::new();
                all.skipped += 1;
            }
            if !self.skipping {
                self.line.extend_from_slice(text);
            }
            if ended {
                *lines += 1;
                if !self.skipping {
                    let line = std::mem::take(&mut self.line);
                    let parsed = self.parser.line(line.strip_suffix(b"\r").unwrap_or(&line));
                    all.statements.extend(parsed.statements);
                    all.skipped += parsed.skipped;
                }
                self.skipping = false;
            }
        }
    }
}

/// See the head of this file.
pub(super) struct Follow {
    format: Format,
    source: Box<dyn Source>,
    files: HashMap<Identity, File>,
    /// What is there at the first look was there before us.
    begun: bool,
    pub lines: u64,
    buffer: Vec<u8>,
}

impl Follow {
    pub fn new(format: Format, source: Box<dyn Source>) -> Follow {
        Follow { format, source, files: HashMap::new(), begun: false, lines: 0, buffer: vec![0; READ] }
    }

    /// Files that are followed.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Where to go on after a restart, by file; empty before the first look.
    pub fn places(&self) -> Places {
        self.files.iter().map(|(identity, file)| (*identity, file.told)).collect()
    }

    /// Goes on where an earlier daemon was. Files that have come since are new.
    pub fn resume(&mut self, places: &Places) {
        let format = self.format;
        self.files.extend(places.iter().map(|(identity, at)| (*identity, File::new(format, *at))));
        self.begun = true;
    }

    /// What is new.
    pub fn look(&mut self) -> Result<Parsed> {
        let mut all = Parsed::default();
        let mut left = LOOK_MAX;
        let before: Vec<(Identity, u64)> =
            self.files.iter().map(|(identity, file)| (*identity, file.offset)).collect();
        // What is known first: after a rotation it may not be found by name.
        for (identity, _) in &before {
            self.read(*identity, &mut left, &mut all)?;
        }
        let found = self.source.list()?;
        for one in &found {
            let (format, begun) = (self.format, self.begun);
            let start = if begun { 0 } else { one.size };
            let file = self.files.entry(one.identity).or_insert_with(|| File::new(format, start));
            if one.size < file.offset {
                // Cut to be written anew.
                *file = File::new(format, 0);
            }
            self.read(one.identity, &mut left, &mut all)?;
        }
        // Where nothing has come since the last look, what was open is whole; so it is in what goes.
        for (identity, file) in &mut self.files {
            let is_there = found.iter().any(|one| one.identity == *identity);
            if !is_there || before.contains(&(*identity, file.offset)) {
                all.statements.extend(file.parser.idle().statements);
            }
            file.settle();
        }
        self.files.retain(|identity, _| found.iter().any(|one| one.identity == *identity));
        self.begun = true;
        Ok(all)
    }

    /// What is new in a file.
    fn read(&mut self, identity: Identity, left: &mut u64, all: &mut Parsed) -> Result<()> {
        let Some(file) = self.files.get_mut(&identity) else { return Ok(()) };
        while *left > 0 {
            let len = self.source.read(identity, file.offset, &mut self.buffer)?;
            if len == 0 {
                break;
            }
            file.offset += len as u64;
            *left = left.saturating_sub(len as u64);
            file.take(self.buffer.get(..len).unwrap_or(&[]), all, &mut self.lines);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Outside;
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::Path;

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn line(number: u32) -> String {
        format!("{{\"error_severity\":\"LOG\",\"message\":\"statement: DROP TABLE t{number}\"}}\n")
    }

    fn looked(follow: &mut Follow) -> (Vec<String>, u64) {
        let parsed = follow.look().unwrap();
        (
            parsed.statements.into_iter().map(|one| one.text.replace("DROP TABLE ", "")).collect(),
            parsed.skipped,
        )
    }

    #[test]
    fn rotation_loses_and_repeats_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pg-1.json");
        append(&path, &line(0));
        let pattern = dir.path().join("pg-*.json*");
        let mut follow = Follow::new(Format::PgJson, Box::new(Outside::new(&pattern)));
        assert_eq!(looked(&mut follow), (vec![], 0), "what was before is before");
        append(&path, &line(1));
        append(&path, line(2).trim_end());
        assert_eq!(looked(&mut follow).0, ["t1"]);
        append(&path, "\n");
        assert_eq!(looked(&mut follow).0, ["t2"]);
        // Renamed and begun anew.
        append(&path, &line(3));
        fs::rename(&path, dir.path().join("pg-1.json.1")).unwrap();
        append(&path, &line(4));
        let mut both = looked(&mut follow).0;
        both.sort();
        assert_eq!(both, ["t3", "t4"]);
        // Copied and cut.
        fs::write(&path, "").unwrap();
        assert_eq!(looked(&mut follow).0, Vec::<String>::new());
        append(&path, &line(5));
        assert_eq!(looked(&mut follow).0, ["t5"]);
        // A new name.
        append(&dir.path().join("pg-2.json"), &line(6));
        assert_eq!(looked(&mut follow).0, ["t6"]);
        // Away, and back.
        fs::remove_file(&path).unwrap();
        assert_eq!(looked(&mut follow).0, Vec::<String>::new());
        append(&path, &line(7));
        assert_eq!(looked(&mut follow).0, ["t7"]);
    }

    #[test]
    fn a_gigantic_line_and_rubbish_are_skipped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follow = Follow::new(Format::PgJson, Box::new(Outside::new(&path)));
        follow.look().unwrap();
        append(&path, &"x".repeat(3 << 20));
        assert_eq!(looked(&mut follow), (vec![], 1));
        append(&path, &format!("{}\n{}", "y".repeat(1 << 20), line(1)));
        assert_eq!(looked(&mut follow), (vec!["t1".into()], 0));
        append(&path, "\0\u{fffd} what\n");
        assert_eq!(looked(&mut follow).1, 1);
        assert!(follow.files.values().all(|file| file.line.capacity() <= 2 * LINE_MAX));
    }

    #[test]
    fn a_name_that_no_pattern_fits_any_more_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, &line(0));
        let mut follow = Follow::new(Format::PgJson, Box::new(Outside::new(&path)));
        follow.look().unwrap();
        append(&path, &line(1));
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        append(&path, &line(2));
        assert_eq!(looked(&mut follow).0, ["t1", "t2"]);
    }

    #[test]
    fn a_restart_goes_on_where_all_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, &line(0));
        let new = || Follow::new(Format::PgStderr, Box::new(Outside::new(&path)));
        let mut follow = new();
        follow.look().unwrap();
        append(&path, "LOG:  statement: DROP TABLE t1\nLOG:  statement: DROP TABLE\n\tt2\nLOG");
        assert_eq!(looked(&mut follow).0, ["t1"]);
        // The second may go on: it is told twice rather than not at all.
        let places = follow.places();
        append(&path, ":  statement: DROP TABLE t3\n");
        let mut follow = new();
        follow.resume(&places);
        assert_eq!(looked(&mut follow).0, ["t1", "DROP TABLE\nt2"]);
        assert_eq!(looked(&mut follow).0, ["t3"]);
    }

    #[test]
    fn a_log_that_is_not_there_is_an_error_and_no_more() {
        let mut follow = Follow::new(Format::PgCsv, Box::new(Outside::new(Path::new("/no/such/dir/log"))));
        assert!(follow.look().is_err());
    }
}
