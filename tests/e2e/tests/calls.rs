//! Answers of calls that programs ask a filesystem for, beside the same on the disk beneath; the few that differ stand in
//! docs/SEMANTICS.md with their reason.

use nix::fcntl::{Flock, FlockArg};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use weft_e2e::cmd::{call, run};
use weft_e2e::{Capture, Mount, Place};

/// The largest file (docs/SEMANTICS.md), ext4's own.
const LARGEST: u64 = (1 << 44) - 4096;

fn errno(result: i64) -> i32 {
    if result < 0 { io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
}

fn fallocate(file: &File, mode: i32, offset: i64, len: i64) -> i32 {
    // SAFETY: an open descriptor and plain numbers.
    errno(i64::from(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }))
}

fn create(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
}

/// A mount in each mode, one after the other, beside a plain directory.
fn in_both_modes(test: impl Fn(&Mount, &Path)) {
    for capture in [Capture::Strict, Capture::Writeback] {
        let place = Place::new();
        let plain = place.join("plain");
        fs::create_dir(&plain).unwrap();
        let mount = Mount::new(&place).capture(capture).mount();
        test(&mount, &plain);
        mount.unmount();
    }
}

#[test]
fn the_largest_file_is_ext4s() {
    in_both_modes(|mount, plain| {
        let writeback = mount.status()["capture"] == "writeback";
        for dir in [plain, &mount.point] {
            let file = create(&dir.join("large"));
            file.write_all_at(b"end", LARGEST - 3).unwrap();
            file.sync_all().unwrap();
            assert_eq!(file.metadata().unwrap().len(), LARGEST);
            assert_eq!(file.set_len(LARGEST + 1).unwrap_err().raw_os_error(), Some(libc::EFBIG));
            assert_eq!(fallocate(&file, 0, LARGEST as i64 - 4096, 8192), libc::EFBIG);
            let beyond = file.write_at(b"x", LARGEST);
            // The writeback cache takes what fits into 2^63 bytes; the filesystem is asked later.
            let told = if writeback && dir != plain { file.sync_all().err() } else { beyond.err() };
            assert_eq!(told.unwrap().raw_os_error(), Some(libc::EFBIG), "{}", dir.display());
            let mut end = [0; 3];
            file.read_exact_at(&mut end, LARGEST - 3).unwrap();
            assert_eq!(&end, b"end");
            drop(file);
            fs::remove_file(dir.join("large")).unwrap();
        }
    });
}

#[test]
fn the_limit_of_a_process_on_file_sizes_holds() {
    in_both_modes(|mount, plain| {
        for dir in [plain, &mount.point] {
            // 16 KiB; without the signal, so that the answer is seen.
            let script = "trap '' XFSZ; ulimit -f 16; cd \"$1\"; head -c 40000 /dev/zero >file; truncate -s 99999 file";
            let done = run(Command::new("bash").args(["-c", script, "bash"]).arg(dir));
            assert_ne!(done.code, 0);
            assert!(done.stderr.matches("File too large").count() == 2, "{}: {done:?}", dir.display());
            assert_eq!(fs::metadata(dir.join("file")).unwrap().len(), 16_384);
        }
    });
}

#[test]
fn modes_of_fallocate_that_are_not_there_say_so() {
    in_both_modes(|mount, plain| {
        let (here, there) = (create(&mount.point.join("f")), create(&plain.join("f")));
        for file in [&here, &there] {
            file.write_all_at(&[1; 64 * 1024], 0).unwrap();
        }
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        // The kernel's FUSE refuses these two before the daemon is asked (fs/fuse/file.c, fuse_file_fallocate).
        for mode in [libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE] {
            assert_eq!(fallocate(&there, mode, 4096, 4096), 0);
            assert_eq!(fallocate(&here, mode, 4096, 4096), libc::EOPNOTSUPP);
        }
        let odd = [libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_UNSHARE_RANGE, keep | 0x400];
        for mode in odd {
            assert_eq!(fallocate(&here, mode, 0, 4096), fallocate(&there, mode, 0, 4096), "mode {mode}");
        }
        for (offset, len) in [(-1, 5), (0, 0), (i64::MAX, 9)] {
            assert_eq!(fallocate(&here, 0, offset, len), fallocate(&there, 0, offset, len), "{offset} {len}");
        }
        assert_eq!(here.metadata().unwrap().len(), 64 * 1024);
    });
}

#[test]
fn clones_and_nameless_files_are_refused_so_that_programs_fall_back() {
    in_both_modes(|mount, _| {
        let (one, two) = (create(&mount.point.join("one")), create(&mount.point.join("two")));
        one.write_all_at(&[7; 10_000], 0).unwrap();
        const FICLONE: libc::c_ulong = 0x4004_9409;
        const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
        let mut flags = 0u64;
        // SAFETY: open descriptors, and room for the answer.
        let (clone, get) = unsafe {
            (
                errno(i64::from(libc::ioctl(two.as_raw_fd(), FICLONE as _, one.as_raw_fd()))),
                errno(i64::from(libc::ioctl(one.as_raw_fd(), FS_IOC_GETFLAGS as _, &raw mut flags))),
            )
        };
        assert_eq!((clone, get), (libc::EOPNOTSUPP, libc::ENOTTY));
        let nameless = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(&mount.point);
        assert_eq!(nameless.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        // copy_file_range and cp's reflink fall back to copying.
        assert_eq!(io::copy(&mut &one, &mut &two).unwrap(), 10_000);
        let copy = mount.point.join("three");
        call("cp", &[Path::new("--reflink=auto"), &mount.point.join("one"), &copy]).ok();
        assert_eq!(fs::read(copy).unwrap(), [7; 10_000]);
    });
}

/// fcntl locks of this process: 0, or an errno. OFD locks belong to the descriptor.
fn lock(file: &File, command: i32, kind: i32, start: i64, len: i64) -> i32 {
    // SAFETY: an all-zero flock is a value.
    let mut wanted: libc::flock = unsafe { std::mem::zeroed() };
    (wanted.l_type, wanted.l_whence) = (kind as i16, libc::SEEK_SET as i16);
    (wanted.l_start, wanted.l_len) = (start, len);
    // SAFETY: an open descriptor and a live struct.
    errno(i64::from(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut wanted) }))
}

#[test]
fn locks_and_leases_are_those_of_the_disk() {
    in_both_modes(|mount, plain| {
        let answers = |dir: &Path| {
            let path = dir.join("locked");
            let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let (one, two) = (open().unwrap(), open().unwrap());
            let mut answers = vec![
                lock(&one, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 10),
                lock(&two, libc::F_OFD_SETLK, libc::F_WRLCK, 5, 10),
                lock(&two, libc::F_OFD_SETLK, libc::F_RDLCK, 10, 10),
                lock(&one, libc::F_OFD_SETLK, libc::F_RDLCK, 12, 3),
                lock(&one, libc::F_OFD_SETLK, libc::F_UNLCK, 0, 0),
                lock(&two, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 0),
            ];
            drop(two);
            answers.push(lock(&one, libc::F_SETLK, libc::F_WRLCK, 0, 4));
            let theirs = |from: u32| {
                let script = format!(
                    "import fcntl,sys\nf=open(sys.argv[1],'r+')\ntry: fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,2,{from})\n\
                     except OSError: sys.exit(9)"
                );
                call("python3", &["-c", &script, path.to_str().unwrap()]).code
            };
            answers.extend([theirs(2), theirs(4)]);
            let held = Flock::lock(open().unwrap(), FlockArg::LockShared).unwrap();
            answers.push(call("flock", &["-sn", path.to_str().unwrap(), "true"]).code);
            answers.push(call("flock", &["-xn", path.to_str().unwrap(), "true"]).code);
            drop(held);
            // SAFETY: an open descriptor and plain numbers.
            let lease =
                |kind: i32| unsafe { errno(i64::from(libc::fcntl(one.as_raw_fd(), libc::F_SETLEASE, kind))) };
            answers.extend([lease(libc::F_RDLCK), lease(libc::F_WRLCK), lease(libc::F_UNLCK)]);
            answers
        };
        assert_eq!(answers(&mount.point), answers(plain));
    });
}

#[test]
fn inotify_tells_of_changes_made_through_the_mount() {
    in_both_modes(|mount, plain| {
        let told = |dir: &Path| {
            let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
            watch.add_watch(dir, AddWatchFlags::IN_ALL_EVENTS).unwrap();
            fs::write(dir.join("one"), "bytes").unwrap();
            fs::set_permissions(dir.join("one"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(dir.join("one"), dir.join("two")).unwrap();
            fs::hard_link(dir.join("two"), dir.join("three")).unwrap();
            fs::remove_file(dir.join("two")).unwrap();
            let events = watch.read_events().unwrap();
            events.iter().map(|event| (event.mask.bits(), event.name.clone())).collect::<Vec<_>>()
        };
        let (here, there) = (mount.point.join("d"), plain.join("d"));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&there).unwrap();
        let expected = told(&there);
        assert!(expected.len() >= 7, "{expected:?}");
        assert_eq!(told(&here), expected);
    });
}

/// Programs are maps of files: what runs is what the file holds, also after it was changed in place or replaced.
#[test]
fn programs_run_and_are_seen_to_change() {
    in_both_modes(|mount, _| {
        let path = mount.point.join("program");
        let put = |text: &str, path: &Path| {
            let mut file = File::create(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
        };
        put("#!/bin/sh\necho first\n", &path);
        assert_eq!(call::<&str>(path.to_str().unwrap(), &[]).ok(), "first");
        put("#!/bin/sh\necho other\n", &path);
        assert_eq!(call::<&str>(path.to_str().unwrap(), &[]).ok(), "other");
        let next = mount.point.join("next");
        put("#!/bin/sh\necho third\n", &next);
        fs::rename(&next, &path).unwrap();
        assert_eq!(call::<&str>(path.to_str().unwrap(), &[]).ok(), "third");

        let binary = mount.point.join("binary");
        fs::copy("/bin/sleep", &binary).unwrap();
        let mut sleeping = Command::new(&binary).arg("60").spawn().unwrap();
        // Its text is mapped from the mount; reading it through the cache and past it gives the same.
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&binary).unwrap();
        let mut block = weft_e2e::ops::Aligned::filled(0);
        direct.read_exact_at(block.as_mut_slice(), 0).unwrap();
        assert_eq!(block.as_slice(), &fs::read("/bin/sleep").unwrap()[..4096]);
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
        drop(direct);
        let shared = format!("{}", mount.at("now").join("binary").display());
        assert_eq!(call(&shared, &["0"]).code, 0, "a program runs from a view");
    });
}
