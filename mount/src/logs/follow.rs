//! One log, followed: what is new in its files since the last look, line by line.

use super::format::{Format, Open, Parsed, Parser};
use super::source::{Identity, Source};
use std::collections::{BTreeMap, HashMap};
use std::io::{Error, ErrorKind, Result};

/// Bytes of a line at most; what is longer is skipped whole and counted.
const LINE_MAX: usize = 1 << 20;
/// Bytes read in one look at a log: the rest waits for the next.
const LOOK_MAX: u64 = 16 << 20;
const READ: usize = 64 << 10;

/// Bytes of files that are told.
pub(super) type Places = BTreeMap<Identity, u64>;

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
}

impl File {
    fn new(format: Format, offset: u64) -> File {
        let (line, parser) = (Vec::new(), Parser::new(format));
        File { offset, told: offset, line_at: offset, line, skipping: false, parser }
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

    /// Where to go on after a restart, by file; nothing before the first look, as it is not known yet what is new.
    pub fn places(&self) -> Option<Places> {
        self.begun.then(|| self.files.iter().map(|(identity, file)| (*identity, file.told)).collect())
    }

    /// Goes on where an earlier daemon was. Files that have come since are new.
    pub fn resume(&mut self, places: &Places) {
        let format = self.format;
        self.files.extend(places.iter().map(|(identity, at)| (*identity, File::new(format, *at))));
        self.begun = true;
    }

    /// What is new, as far as it could be read: also when it returns an error, as it is not told again.
    ///
    /// # Errors
    /// The log cannot be listed, or a file cannot be read; the others are.
    pub fn look(&mut self, all: &mut Parsed) -> Result<()> {
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
mod tests {
    use super::super::source::{Found, Outside};
    use super::*;
    use parking_lot::Mutex;
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::Path;
    use std::sync::Arc;

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn line(number: u32) -> String {
        format!("{{\"error_severity\":\"LOG\",\"message\":\"statement: DROP TABLE t{number}\"}}\n")
    }

    fn looked(follow: &mut Follow) -> (Vec<String>, u64) {
        let mut parsed = Parsed::default();
        follow.look(&mut parsed).unwrap();
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
        let mut follow = Follow::new(Format::PgJson, Box::new(Outside::new(&pattern, Vec::new())));
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
        let mut follow = Follow::new(Format::PgJson, Box::new(Outside::new(&path, Vec::new())));
        looked(&mut follow);
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
        let mut follow = Follow::new(Format::PgJson, Box::new(Outside::new(&path, Vec::new())));
        looked(&mut follow);
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
        let new = || Follow::new(Format::PgStderr, Box::new(Outside::new(&path, Vec::new())));
        let mut follow = new();
        looked(&mut follow);
        append(&path, "LOG:  statement: DROP TABLE t1\nLOG:  statement: DROP TABLE\n\tt2\nLOG");
        assert_eq!(looked(&mut follow).0, ["t1"]);
        // The second may go on: it is told twice rather than not at all.
        let places = follow.places().unwrap();
        append(&path, ":  statement: DROP TABLE t3\n");
        let mut follow = new();
        follow.resume(&places);
        assert_eq!(looked(&mut follow).0, ["DROP TABLE\nt2"]);
        assert_eq!(looked(&mut follow).0, ["t3"]);
    }

    /// Of a log that has a new statement at every look, where the last is never known to be whole.
    #[test]
    fn a_busy_log_is_not_told_again_after_a_restart() {
        let slow =
            |n: u32| format!("# User@Host: a[a] @ b []\n# Schema: s\nSET timestamp=1;\nDROP TABLE t{n};\n");
        type Write = Box<dyn Fn(u32) -> String>;
        let formats: [(Format, Write); 4] = [
            (Format::MariaGeneral, Box::new(|n| format!("\t\t     5 Query\tDROP TABLE t{n}\n"))),
            (Format::MariaSlow, Box::new(slow)),
            (Format::PgStderr, Box::new(|n| format!("LOG:  statement: DROP TABLE t{n}\n"))),
            (Format::PgJson, Box::new(line)),
        ];
        for (format, text) in formats {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            append(&path, "");
            let new = || Follow::new(format, Box::new(Outside::new(&path, Vec::new())));
            let mut follow = new();
            looked(&mut follow);
            let mut told = Vec::new();
            for n in 0..100 {
                append(&path, &text(n));
                told.extend(looked(&mut follow).0);
                // Killed at any moment: what was told before stays told, but for the last.
                if n % 7 == 0 {
                    let places = follow.places().unwrap();
                    follow = new();
                    follow.resume(&places);
                }
            }
            told.extend(looked(&mut follow).0);
            told.dedup();
            let end = if format == Format::MariaSlow { ";" } else { "" };
            assert_eq!(told, (0..100).map(|n| format!("t{n}{end}")).collect::<Vec<_>>(), "{format:?}");
        }
    }

    /// In the middle of a record's lines: the whole of it is read again.
    #[test]
    fn a_restart_within_a_record_reads_it_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        for (format, text) in [
            (Format::MariaSlow, "# User@Host: a[a]\n# Schema: s\nSET timestamp=1;\nDROP TABLE\nt1;\n"),
            (Format::PgCsv, "a,b,c,d,e,f,g,h,i,j,k,LOG,m,\"statement: DROP TABLE\nt1;\"\n"),
            (Format::PgStderr, "LOG:  statement: DROP TABLE\n\tt1;\n"),
        ] {
            for (cut, _) in text.char_indices() {
                fs::write(&path, "").unwrap();
                let new = || Follow::new(format, Box::new(Outside::new(&path, Vec::new())));
                let mut follow = new();
                looked(&mut follow);
                append(&path, &text[..cut]);
                looked(&mut follow);
                let places = follow.places().unwrap();
                append(&path, &text[cut..]);
                let mut follow = new();
                follow.resume(&places);
                let mut told = looked(&mut follow).0;
                told.extend(looked(&mut follow).0);
                assert_eq!(told, ["DROP TABLE\nt1;"], "{format:?} {cut}");
            }
        }
    }

    /// What root may read anyway: with another user's eyes.
    #[test]
    fn a_file_that_may_not_be_read_hides_no_other() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let names = ["a.json", "b.json"].map(|name| dir.path().join(name));
        names.iter().for_each(|path| append(path, ""));
        let mut follow =
            Follow::new(Format::PgJson, Box::new(Outside::new(&dir.path().join("*.json"), Vec::new())));
        fs::set_permissions(&names[0], fs::Permissions::from_mode(0o600)).unwrap();
        append(&names[0], &line(1));
        let look = |follow: &mut Follow| {
            // SAFETY: the thread's own identity for files, put back below.
            unsafe { libc::setfsuid(65_534) };
            let mut parsed = Parsed::default();
            let outcome = follow.look(&mut parsed).map_err(|cause| (cause.kind(), cause.to_string()));
            // SAFETY: as above.
            unsafe { libc::setfsuid(libc::geteuid()) };
            (parsed.statements.into_iter().map(|one| one.text).collect::<Vec<_>>(), outcome)
        };
        let (_, outcome) = look(&mut follow);
        let (kind, text) = outcome.unwrap_err();
        assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
        assert!(text.starts_with("a.json: "), "{text}");
        append(&names[1], &line(2));
        assert_eq!(look(&mut follow).0, ["DROP TABLE t2"], "told though another cannot be read");
        fs::set_permissions(&names[0], fs::Permissions::from_mode(0o644)).unwrap();
        append(&names[0], &line(3));
        let (told, outcome) = look(&mut follow);
        assert_eq!(
            (told, outcome),
            (vec!["DROP TABLE t3".into()], Ok(())),
            "what was there before us is before us"
        );
    }

    type Bytes = std::result::Result<String, i32>;

    /// Files in memory: which are listed, what can be read of each, and what a listing fails with.
    #[derive(Default)]
    struct Shelf {
        files: Vec<(Found, Bytes)>,
        listing: Option<i32>,
    }

    impl Source for Arc<Mutex<Shelf>> {
        fn list(&mut self) -> Result<Vec<Found>> {
            let shelf = self.lock();
            match shelf.listing {
                Some(errno) => Err(Error::from_raw_os_error(errno)),
                None => Ok(shelf.files.iter().map(|(found, _)| found.clone()).collect()),
            }
        }

        fn read(&mut self, file: Identity, offset: u64, out: &mut [u8]) -> Result<usize> {
            let shelf = self.lock();
            let Some((_, bytes)) = shelf.files.iter().find(|(found, _)| found.identity == file) else {
                return Ok(0);
            };
            let bytes = bytes.as_ref().map_err(|errno| Error::from_raw_os_error(*errno))?;
            let rest = bytes.as_bytes().get(offset as usize..).unwrap_or(&[]);
            let len = rest.len().min(out.len());
            out[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
    }

    fn on_shelf(number: u64, bytes: Bytes) -> (Found, Bytes) {
        let size = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        (Found { identity: (1, number), name: format!("{number}.json"), size }, bytes)
    }

    #[test]
    fn a_file_whose_bytes_cannot_be_read_stops_no_other() {
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let mut follow = Follow::new(Format::PgStderr, Box::new(Arc::clone(&shelf)));
        looked(&mut follow);
        let statement = |text: &str| format!("LOG:  statement: {text}\n");
        shelf.lock().files = vec![on_shelf(1, Ok(statement("DROP TABLE"))), on_shelf(2, Ok(statement("t1")))];
        assert_eq!(looked(&mut follow).0, Vec::<String>::new());
        // The disk beneath the first one fails.
        shelf.lock().files =
            vec![on_shelf(1, Err(libc::EIO)), on_shelf(2, Ok(statement("t1") + &statement("t2")))];
        let mut parsed = Parsed::default();
        let told = follow.look(&mut parsed).unwrap_err();
        assert_eq!(told.raw_os_error(), Some(libc::EIO));
        assert_eq!(parsed.statements.len(), 1, "the other one is followed: {parsed:?}");
        // What is open in it is whole only when it is known that nothing has come.
        shelf.lock().files[0] = on_shelf(1, Ok(statement("DROP TABLE") + "\ta\n"));
        let mut both = looked(&mut follow).0;
        both.extend(looked(&mut follow).0);
        assert_eq!(both, ["t2", "DROP TABLE\na"]);
    }

    #[test]
    fn what_was_there_before_us_is_not_told_however_late_it_can_be_listed() {
        let shelf = Arc::new(Mutex::new(Shelf { listing: Some(libc::EACCES), ..Shelf::default() }));
        shelf.lock().files = vec![on_shelf(1, Ok(line(1)))];
        let new = || Follow::new(Format::PgJson, Box::new(Arc::clone(&shelf)));
        let mut follow = new();
        assert!(follow.look(&mut Parsed::default()).is_err());
        assert_eq!(follow.places(), None, "a next daemon does not go on from nothing");
        shelf.lock().listing = None;
        let mut follow = new();
        assert_eq!(looked(&mut follow).0, Vec::<String>::new());
        shelf.lock().files = vec![on_shelf(1, Ok(line(1) + &line(2)))];
        assert_eq!(looked(&mut follow).0, ["t2"]);
    }

    #[test]
    fn a_line_of_csvlog_that_is_too_long_keeps_the_place_of_what_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        let new = || Follow::new(Format::PgCsv, Box::new(Outside::new(&path, Vec::new())));
        let mut follow = new();
        looked(&mut follow);
        let record = |text: &str| format!("a,b,c,d,e,f,g,h,i,j,k,LOG,m,\"statement: {text}\"\n");
        append(&path, &format!("a,b,c,d,e,f,g,h,i,j,k,LOG,m,\"statement: INSERT '{}", "x".repeat(3 << 20)));
        assert_eq!(looked(&mut follow), (vec![], 1));
        append(&path, "\n");
        assert_eq!(looked(&mut follow), (vec![], 0));
        // A restart in the middle of the record begins before it.
        let places = follow.places().unwrap();
        append(&path, &format!("more of it\n'\"\n{}{}", record("DROP TABLE t1"), record("DROP TABLE t2")));
        assert_eq!(looked(&mut follow), (vec!["t1".into(), "t2".into()], 0));
        let mut follow = new();
        follow.resume(&places);
        assert_eq!(looked(&mut follow), (vec!["t1".into(), "t2".into()], 1));
    }

    #[test]
    fn a_log_that_is_not_there_is_an_error_and_no_more() {
        let mut follow =
            Follow::new(Format::PgCsv, Box::new(Outside::new(Path::new("/no/such/dir/log"), Vec::new())));
        assert!(follow.look(&mut Parsed::default()).is_err());
    }
}
