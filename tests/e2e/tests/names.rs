//! Names at their limits: any bytes, many in a directory, many links, many open files; and what does not fit the disk.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use weft_e2e::people::PEOPLE;
use weft_e2e::tree::{What, assert_same, c_path, scan};
use weft_e2e::wall::Wall;
use weft_e2e::{Mount, Place, cmd};

fn errno(result: io::Result<impl Sized>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

fn set_xattr(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: C strings, and a value that is passed with its length.
    let result = unsafe {
        libc::lsetxattr(c_path(path).as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn names_are_any_bytes_up_to_255_and_links_lead_4095() {
    let place = Place::new();
    let plain = place.join("plain");
    fs::create_dir(&plain).unwrap();
    let mount = Mount::new(&place).mount();
    for root in [&plain, &mount.point] {
        let all: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').chain([b'x']).collect();
        assert_eq!(all.len(), 255);
        for name in [&all[..], b"\xff\xfe", b" ", b"-rf", b"\n", "ä".as_bytes(), b"..."] {
            fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
        }
        assert_eq!(errno(File::create(root.join("n".repeat(256)))), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::metadata(root.join("n".repeat(256)))), libc::ENAMETOOLONG);
        symlink("t".repeat(4095), root.join("long")).unwrap();
        assert_eq!(errno(symlink("t".repeat(4096), root.join("longer"))), libc::ENAMETOOLONG);
        assert_eq!(fs::read_link(root.join("long")).unwrap().as_os_str().len(), 4095);
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(errno(File::open(root.join("loop"))), libc::ELOOP);
        assert_eq!(errno(fs::metadata(root.join("d/".repeat(2048)))), libc::ENAMETOOLONG, "PATH_MAX");
    }
    assert_same("names on the mount", &scan(&plain), &scan(&mount.point), What::ButTimes);
    assert_same("in a view", &scan(&plain), &scan(&mount.at_wall(Wall::now())), What::ButTimes);
    mount.unmount();
    assert_same("after the unmount", &scan(&plain), &scan(&mount.data), What::ButTimes);
}

/// `getdents64` with a buffer of a few entries, from where the descriptor stands to the end.
fn list_by_bits(dir: &File, buffer_len: usize) -> Vec<OsString> {
    let mut found = Vec::new();
    let mut buffer = vec![0u8; buffer_len];
    loop {
        // SAFETY: an open descriptor, and a buffer that is passed with its length.
        let got = unsafe {
            libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        };
        let got = usize::try_from(got).unwrap_or_else(|_| panic!("getdents: {}", io::Error::last_os_error()));
        if got == 0 {
            return found;
        }
        let mut at = 0;
        while at < got {
            // linux_dirent64: inode, offset (8 bytes each), length of the entry (2), kind (1), name, NUL.
            let len = usize::from(u16::from_le_bytes([buffer[at + 16], buffer[at + 17]]));
            let name = &buffer[at + 19..at + len];
            let end = name.iter().position(|byte| *byte == 0).unwrap();
            found.push(OsString::from_vec(name[..end].to_vec()));
            at += len;
        }
    }
}

/// Files that are made, renamed and removed between the names that stay, until `stop`.
fn churn(dir: &Path, stop: &AtomicBool) {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let at = |n: u64| format!("{:06}", n * 7_919 % 100_000);
        let (first, second) = (dir.join(at(number) + "-first"), dir.join(at(number * 31) + "-second"));
        File::create(&first).unwrap();
        fs::rename(&first, &second).unwrap();
        if let Some(old) = number.checked_sub(50) {
            let _ = fs::remove_file(dir.join(at(old * 31) + "-second"));
        }
    }
}

#[track_caller]
fn assert_each_once(names: &[OsString], stays: impl Fn(usize) -> String, count: usize) {
    let seen: HashSet<&OsString> = names.iter().collect();
    assert_eq!(seen.len(), names.len(), "a name was listed twice");
    let missing = (0..count).map(stays).find(|name| !seen.contains(&OsString::from(name)));
    assert_eq!(missing, None, "a name that was there throughout is missing");
}

/// As many names as there are, of two files, so that making them does not take longer than listing them.
#[test]
fn a_hundred_thousand_names_list_once_while_others_come_and_go() {
    const COUNT: usize = 100_000;
    let place = Place::new();
    let plain = place.join("data/many");
    fs::create_dir_all(&plain).unwrap();
    let stays = |number: usize| format!("{number:06}");
    for number in 0..COUNT {
        let first = if number < LINKS { 0 } else { LINKS };
        match number == first {
            true => drop(File::create(plain.join(stays(first))).unwrap()),
            false => fs::hard_link(plain.join(stays(first)), plain.join(stays(number))).unwrap(),
        }
    }
    let mount = Mount::over(&place.join("data")).mount();
    let dir = mount.point.join("many");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| churn(&dir, &stop));
        for buffer_len in [1 << 16, 2_048] {
            let names = list_by_bits(&File::open(&dir).unwrap(), buffer_len);
            assert_each_once(&names, stays, COUNT);
        }
        stop.store(true, Ordering::Relaxed);
        others.join().unwrap();
    });
    no_file_has_more_than_65000_links(&dir);
    mount.unmount();
    assert_eq!(fs::metadata(plain.join("000000")).unwrap().nlink(), 65_000);
    assert!(fs::read_dir(&plain).unwrap().count() >= COUNT);
}

/// Names of the first file.
const LINKS: usize = 64_990;

fn no_file_has_more_than_65000_links(dir: &Path) {
    let file = dir.join("000000");
    assert_eq!(fs::metadata(&file).unwrap().nlink(), LINKS as u64);
    for number in LINKS..65_000 {
        fs::hard_link(&file, dir.join(format!("link-{number}"))).unwrap();
    }
    assert_eq!(errno(fs::hard_link(&file, dir.join("link-65000"))), libc::EMLINK);
}

#[test]
fn seekdir_comes_back_to_where_telldir_was() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let dir = mount.point.join("d");
    fs::create_dir(&dir).unwrap();
    for number in 0..2_000 {
        File::create(dir.join(format!("{number:04}"))).unwrap();
    }
    let next = |stream: *mut libc::DIR| -> Option<Vec<u8>> {
        // SAFETY: an open stream of this thread; the entry is read before the next call.
        unsafe {
            let entry = libc::readdir(stream);
            (!entry.is_null()).then(|| CStr::from_ptr((*entry).d_name.as_ptr()).to_bytes().to_vec())
        }
    };
    // SAFETY: the stream is opened and closed here, and used by this thread alone.
    unsafe {
        let stream = libc::opendir(c_path(&dir).as_ptr());
        assert!(!stream.is_null());
        let mut places = Vec::new();
        loop {
            let place = libc::telldir(stream);
            match next(stream) {
                Some(name) => places.push((place, name)),
                None => break,
            }
        }
        assert_eq!(places.len(), 2_002);
        File::create(dir.join("0000-new")).unwrap();
        for (place, name) in [&places[1_500], &places[5], &places[2_001], &places[700], &places[699]] {
            libc::seekdir(stream, *place);
            assert_eq!(next(stream).as_ref(), Some(name), "at {place}");
        }
        libc::closedir(stream);
    }
}

#[test]
fn extended_attributes_that_the_disk_cannot_hold_are_refused_at_once() {
    let place = Place::new();
    let plain = place.join("plain");
    fs::create_dir(&plain).unwrap();
    let mount = Mount::new(&place).mount();
    let mut answers = Vec::new();
    for root in [&plain, &mount.point] {
        let (file, dir) = (root.join("f"), root.join("d"));
        File::create(&file).unwrap();
        fs::create_dir(&dir).unwrap();
        let sizes = [10, 1_000, 2_000, 3_500, 5_000, 65_536, 65_537];
        let each =
            [&file, &dir].map(|path| sizes.map(|len| errno(set_xattr(path, c"user.large", &vec![7; len]))));
        let more = errno(set_xattr(&file, c"user.more", &[8; 3_000]));
        answers.push((each, more));
    }
    assert_eq!(answers[1], answers[0], "mount and disk (right) differ");
    mount.unmount();
    assert_same("DATA after the unmount", &scan(&plain), &scan(&mount.data), What::ButTimes);
}

#[test]
fn a_view_has_the_owners_modes_links_acls_and_times_of_its_instant() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let live = mount.point.join("d");
    fs::create_dir(&live).unwrap();
    let script = "umask 022; mkdir -p sub/deep; echo one >one; ln one sub/two; ln one three; ln -s one link; \
        mkfifo pipe; mknod null c 1 3; chmod 2775 sub; chmod 4711 one; chown 50001:50002 sub/two; \
        setfacl -m u:50001:rw,g:50002:r one; setfacl -d -m u:50003:rwx sub; echo inherits >sub/inherits; \
        mkdir sub/below; setfattr -n user.note -v text sub; setfattr -n trusted.note -v root one; \
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; \
        touch -d '2001-02-03 04:05:06.123456789' sub/deep; touch -h -d 1999-01-01 link";
    cmd::run(std::process::Command::new("sh").args(["-ec", script]).current_dir(&live)).ok();
    let (then, out) = (place.join("then"), place.join("out"));
    for dir in [&then, &out] {
        fs::create_dir(dir).unwrap();
    }
    cmd::rsync(&live, &then);
    let expected = scan(&live);
    let view = mount.at_wall(Wall::now()).join("d");
    let after = "rm -rf sub three pipe sock; setfacl -b one; chmod 600 one; echo more >>one; chown 0:0 one";
    cmd::run(std::process::Command::new("sh").args(["-ec", after]).current_dir(&live)).ok();

    assert_same("the view", &expected, &scan(&view), What::All);
    assert_same("the copy made then", &expected, &scan(&then), What::All);
    cmd::rsync(&view, &out);
    assert_same("rsync -aHAX of the view", &expected, &scan(&out), What::All);
    let compare = ["-aHAXni", "--modify-window=-1", "--delete"].map(OsStr::new);
    let paths = [&view, &then].map(|path| OsString::from(format!("{}/", path.display())));
    let differing =
        cmd::call("rsync", &[&compare[..], &[paths[0].as_os_str(), paths[1].as_os_str()]].concat()).ok();
    assert_eq!(differing, "", "rsync sees the view and the copy made then as different");

    let same =
        cmd::run(std::process::Command::new("find").arg(&view).arg("-samefile").arg(view.join("three"))).ok();
    assert_eq!(same.lines().count(), 3, "{same}");
    assert_eq!(fs::metadata(view.join("one")).unwrap().nlink(), 3);
    assert!(fs::symlink_metadata(view.join("null")).unwrap().file_type().is_char_device());
    assert_eq!(inode_of_parent(&view.join("sub/deep")), fs::metadata(view.join("sub")).unwrap().ino());
    mount.crash();
    assert_same("the view after a crash", &expected, &scan(&view), What::All);
}

/// The number beside `..` in a listing.
fn inode_of_parent(dir: &Path) -> u64 {
    let listed = cmd::run(std::process::Command::new("ls").arg("-ai1").arg(dir)).ok();
    let line = listed.lines().find(|line| line.trim_end().ends_with(" ..")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn acls_let_in_and_keep_out_also_in_views() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let path = mount.point.join("f");
    fs::write(&path, "secret").unwrap();
    let acl =
        |change: &str| cmd::call("setfacl", &[OsStr::new("-m"), OsStr::new(change), path.as_os_str()]).ok();
    let (friend, stranger) = (PEOPLE[2], PEOPLE[4]);
    let reads = |path: &Path| [friend, stranger].map(|who| errno(who.does(0, || fs::read(path))));
    acl("u::rw,g::-,o::-");
    assert_eq!(reads(&path), [libc::EACCES, libc::EACCES]);
    acl("u:50001:r");
    assert_eq!(reads(&path), [0, libc::EACCES]);
    let view = mount.at_wall(Wall::now());
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(reads(&path), [libc::EACCES, libc::EACCES], "chmod masks the list");
    acl("o::r,m::x");
    assert_eq!(reads(&path), [libc::EACCES, 0], "who is named is not one of the others");
    assert_eq!(reads(&view.join("f")), [0, libc::EACCES], "in the view");
    File::open(&path).unwrap().sync_all().unwrap();
    mount.crash();
    assert_eq!(reads(&path), [libc::EACCES, 0], "after a crash");
    mount.unmount();
    assert_eq!(reads(&mount.data.join("f")), [libc::EACCES, 0], "plain");
}
