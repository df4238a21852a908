//! Logs that are rotated, cut, broken off and gone on with.

use super::super::source::Outside;
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
    (parsed.statements.into_iter().map(|one| one.text.replace("DROP TABLE ", "")).collect(), parsed.skipped)
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

/// On a network's filesystem or btrfs the device has another number after a reboot.
#[test]
fn a_file_is_known_again_by_its_number_and_beginning_and_no_other_is_taken_for_it() {
    let shelf = Arc::new(Mutex::new(Shelf::default()));
    let new = || Follow::new(Format::PgJson, Box::new(Arc::clone(&shelf)));
    let mut follow = new();
    looked(&mut follow);
    shelf.lock().files = vec![on_shelf(1, Ok(line(1))), on_shelf(2, Ok(line(2)))];
    assert_eq!(looked(&mut follow).0, ["t1", "t2"]);
    let places = follow.places().unwrap();
    // The first goes on; the second was removed, and its number is that of another file now.
    let moved = |number, text: String| {
        let (found, bytes) = on_shelf(number, Ok(text));
        (Found { identity: (77, number), ..found }, bytes)
    };
    shelf.lock().files = vec![moved(1, line(1) + &line(3)), moved(2, line(4) + &line(5))];
    let mut follow = new();
    follow.resume(&places);
    assert_eq!(follow.places(), Some(places.clone()), "nothing is forgotten before the first look");
    assert_eq!(looked(&mut follow).0, ["t3", "t4", "t5"]);
    // On the same device, too.
    shelf.lock().files = vec![on_shelf(1, Ok(line(1) + &line(3))), on_shelf(2, Ok(line(6) + &line(7)))];
    let mut follow = new();
    follow.resume(&places);
    assert_eq!(looked(&mut follow).0, ["t3", "t6", "t7"]);
    // As an earlier build left them: by device and number.
    let without = |(identity, place): (&Identity, &Place)| (*identity, Place { head: None, ..place.clone() });
    let old: Places = places.iter().map(without).collect();
    let mut follow = new();
    follow.resume(&old);
    let mut both = looked(&mut follow).0;
    both.sort();
    assert_eq!(both, ["t3", "t7"]);
    // A longer file is known by so much of it as was told.
    shelf.lock().files = vec![on_shelf(1, Ok((0..50).map(line).collect::<String>()))];
    let mut follow = new();
    follow.resume(&Places::new());
    assert_eq!(looked(&mut follow).0.len(), 50);
    let places = follow.places().unwrap();
    shelf.lock().files = vec![moved(1, (0..51).map(line).collect::<String>())];
    let mut follow = new();
    follow.resume(&places);
    assert_eq!(looked(&mut follow).0, ["t50"]);
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
