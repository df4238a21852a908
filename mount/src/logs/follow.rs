//! One log, followed: what is new in its files since the last look, line by line.

use super::format::{Format, Open, Parsed, Parser};
use super::place::{HEAD, Head, Place, Places};
use super::source::{Found, Identity, Source};
use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};

/// Bytes of a line at most; what is longer is skipped whole and counted.
const LINE_MAX: usize = 1 << 20;
/// Bytes read in one look at a log: the rest waits for the next.
const LOOK_MAX: u64 = 16 << 20;
const READ: usize = 64 << 10;

struct File {
    /// Bytes that were read.
    offset: u64,
    /// Up to here all is told: where to go on after a restart. A record that is open begins here.
    told: u64,
    /// Where `line` begins.
    line_at: u64,
    /// A line without its end yet.
    line: Vec<u8>,
    /// The line is too long: skipped to its end.
    skipping: bool,
    parser: Parser,
    head: Option<Head>,
}

impl File {
    fn new(format: Format, offset: u64) -> File {
        let (line, parser) = (Vec::new(), Parser::new(format));
        File { offset, told: offset, line_at: offset, line, skipping: false, parser, head: None }
    }

    /// Where to go on; `source` is asked for the head while that grows.
    fn place(&mut self, source: &mut dyn Source, identity: Identity) -> Place {
        let len = self.told.min(HEAD as u64);
        if len > 0 && self.head.as_ref().is_none_or(|head| head.len != len) {
            self.head = Head::of(source, identity, len).ok().flatten();
        }
        Place { told: self.told, head: self.head.clone() }
    }

    /// Nothing more comes for now: what is open is whole.
    fn idle(&mut self, all: &mut Parsed) {
        all.statements.extend(self.parser.idle().statements);
        if self.parser.open() == Open::Nothing {
            self.told = self.line_at;
        }
    }

    /// Takes bytes that were read from `offset` on.
    fn take(&mut self, bytes: &[u8], all: &mut Parsed, lines: &mut u64) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.offset += piece.len() as u64;
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if !self.skipping && self.line.len() + text.len() > LINE_MAX {
                self.skipping = true;
                all.skipped += self.parser.begin_long(&std::mem::take(&mut self.line));
            }
            match self.skipping {
                true => self.parser.more_of_long(text),
                false => self.line.extend_from_slice(text),
            }
            if ended {
                *lines += 1;
                self.end_line(all);
            }
        }
    }

    fn end_line(&mut self, all: &mut Parsed) {
        match std::mem::take(&mut self.skipping) {
            true => self.parser.end_long(),
            false => {
                let line = std::mem::take(&mut self.line);
                let parsed = self.parser.line(line.strip_suffix(b"\r").unwrap_or(&line));
                all.statements.extend(parsed.statements);
                all.skipped += parsed.skipped;
                all.other += parsed.other;
            }
        }
        match self.parser.open() {
            Open::Nothing => self.told = self.offset,
            Open::LastLine => self.told = self.line_at,
            Open::Earlier => {}
        }
        self.line_at = self.offset;
    }
}

/// See the head of this file.
pub(super) struct Follow {
    format: Format,
    source: Box<dyn Source>,
    files: HashMap<Identity, File>,
    /// What an earlier daemon knew, until it is found.
    kept: Places,
    /// What is there at the first look was there before us.
    begun: bool,
    pub lines: u64,
    buffer: Vec<u8>,
}

impl Follow {
    pub fn new(format: Format, source: Box<dyn Source>) -> Follow {
        let (files, kept) = (HashMap::new(), Places::new());
        Follow { format, source, files, kept, begun: false, lines: 0, buffer: vec![0; READ] }
    }

    /// Files that are followed.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Where to go on after a restart, by file; nothing before the first look, as it is not known yet what is new.
    pub fn places(&mut self) -> Option<Places> {
        if !self.kept.is_empty() {
            return Some(self.kept.clone());
        }
        let source = &mut *self.source;
        let place = |(identity, file): (&Identity, &mut File)| (*identity, file.place(source, *identity));
        self.begun.then(|| self.files.iter_mut().map(place).collect())
    }

    /// Goes on where an earlier daemon was. Files that have come since are new.
    pub fn resume(&mut self, places: &Places) {
        self.kept = places.clone();
        self.begun = true;
    }

    /// Finds what an earlier daemon knew among the files that are there: by device and number, unless it begins otherwise now,
    /// else by its number and its beginning.
    fn recognise(&mut self, found: &[Found]) {
        for (identity, place) in std::mem::take(&mut self.kept) {
            let source = &mut *self.source;
            let head = place.head.as_ref();
            let is_listed = found.iter().any(|one| one.identity == identity);
            let known = match is_listed {
                true => {
                    head.is_none_or(|head| head.is_of(source, identity) != Some(false)).then_some(identity)
                }
                false => {
                    let mut same_number =
                        found.iter().map(|one| one.identity).filter(|one| one.1 == identity.1);
                    let begins =
                        |one: &Identity| head.is_some_and(|head| head.is_of(source, *one) == Some(true));
                    // Of what is in a root nothing needs to be listed to be read to its end.
                    Some(same_number.find(begins).unwrap_or(identity))
                }
            };
            if let Some(identity) = known {
                self.files.entry(identity).or_insert_with(|| File::new(self.format, place.told));
            }
        }
    }

    /// What is new, as far as it could be read: also when it returns an error, as it is not told again.
    ///
    /// # Errors
    /// The log cannot be listed, or a file cannot be read; the others are.
    pub fn look(&mut self, all: &mut Parsed) -> Result<()> {
        if !self.kept.is_empty() {
            let found = self.source.list()?;
            self.recognise(&found);
        }
        let mut left = LOOK_MAX;
        let mut failed: HashMap<Identity, Error> = HashMap::new();
        let before: Vec<(Identity, u64)> =
            self.files.iter().map(|(identity, file)| (*identity, file.offset)).collect();
        // What is known first: after a rotation it may not be found by name.
        for (identity, _) in &before {
            failed.extend(self.read(*identity, &mut left, all).err().map(|cause| (*identity, cause)));
        }
        // Where there is no directory yet, nothing was there before us.
        let found =
            self.source.list().inspect_err(|cause| self.begun |= cause.kind() == ErrorKind::NotFound)?;
        for one in &found {
            let (format, begun) = (self.format, self.begun);
            let start = if begun { 0 } else { one.size };
            let file = self.files.entry(one.identity).or_insert_with(|| File::new(format, start));
            if one.size < file.offset {
                // Cut to be written anew.
                *file = File::new(format, 0);
            }
            failed.extend(self.read(one.identity, &mut left, all).err().map(|cause| (one.identity, cause)));
        }
        // Where nothing has come since the last look, what was open is whole; so it is in what goes.
        for (identity, file) in &mut self.files {
            let is_there = found.iter().any(|one| one.identity == *identity);
            let is_known = !failed.contains_key(identity);
            if !is_there || is_known && before.contains(&(*identity, file.offset)) {
                file.idle(all);
            }
        }
        self.files.retain(|identity, _| found.iter().any(|one| one.identity == *identity));
        self.begun = true;
        failed.into_values().next().or(self.source.unreadable()).map_or(Ok(()), Err)
    }

    /// What is new in a file.
    fn read(&mut self, identity: Identity, left: &mut u64, all: &mut Parsed) -> Result<()> {
        let Some(file) = self.files.get_mut(&identity) else { return Ok(()) };
        while *left > 0 {
            let len = self.source.read(identity, file.offset, &mut self.buffer)?;
            if len == 0 {
                break;
            }
            *left = left.saturating_sub(len as u64);
            file.take(self.buffer.get(..len).unwrap_or(&[]), all, &mut self.lines);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
