//! What databases need of POSIX, on a real mount; most of it against the same operations on a plain directory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use weft_e2e::ops::{self, Actor, Aligned};
use weft_e2e::random::{seeded, steps};
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::{Capture, Mount, Place};

/// The same random operations on the mount and on the disk below `plain`: equal answers, equal trees.
fn differential(name: &str, capture: Capture) {
    let (mut rng, seed) = seeded(name);
    let place = Place::new();
    let mount = Mount::new(&place).capture(capture).mount();
    let plain = place.join("plain");
    fs::create_dir(&plain).unwrap();
    let (mut here, mut there) = (Actor::new(&mount.point), Actor::new(&plain));
    for step in 0..steps(2_500) {
        let op = ops::draw(&mut rng, false);
        let (on_mount, on_disk) = (here.apply(&op), there.apply(&op));
        assert!(
            on_mount == on_disk,
            "seed {seed}, step {step}, {op:?}: {}",
            disagreement(&on_mount, &on_disk)
        );
        if step % 250 == 249 {
            let label = format!("seed {seed}, step {step}");
            assert_same(&label, &scan(&plain), &scan(&mount.point), What::ButTimes);
        }
    }
    here.release_all();
    there.release_all();
    mount.unmount();
    assert_same("DATA after the unmount", &scan(&plain), &scan(&mount.data), What::ButTimes);
}

fn disagreement(on_mount: &ops::Answer, on_disk: &ops::Answer) -> String {
    match (on_mount, on_disk) {
        (ops::Answer::Done(a), ops::Answer::Done(b)) => {
            let at = a.iter().zip(b).position(|(x, y)| x != y);
            format!("{} bytes on the mount, {} on the disk, first difference at {at:?}", a.len(), b.len())
        }
        _ => format!("{on_mount:?} on the mount, {on_disk:?} on the disk"),
    }
}

#[test]
fn random_operations_agree_with_the_disk_strict() {
    differential("posix strict", Capture::Strict);
}

#[test]
fn random_operations_agree_with_the_disk_writeback() {
    differential("posix writeback", Capture::Writeback);
}

/// A mount for a small test.
fn mounted() -> (Place, Mount) {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    (place, mount)
}

#[test]
fn a_directory_of_5000_lists_each_name_once() {
    let (_place, mount) = mounted();
    let dir = mount.point.join("many");
    fs::create_dir(&dir).unwrap();
    for number in 0..5_000 {
        File::create(dir.join(format!("entry-{number:04}"))).unwrap();
    }
    let names = weft_e2e::tree::names(&dir);
    assert_eq!(names.len(), 5_000);
    assert_eq!(names[4_999], "entry-4999");
    for number in (0..5_000).step_by(2) {
        fs::remove_file(dir.join(format!("entry-{number:04}"))).unwrap();
    }
    assert_eq!(weft_e2e::tree::names(&dir).len(), 2_500);
}

#[test]
fn removing_while_listing_misses_nothing() {
    let (_place, mount) = mounted();
    let dir = mount.point.join("many");
    fs::create_dir(&dir).unwrap();
    for number in 0..3_000 {
        File::create(dir.join(format!("entry-{number:04}"))).unwrap();
    }
    fs::remove_dir_all(&dir).unwrap();
    assert!(!dir.exists());
}

#[test]
fn ten_thousand_files_stay_open() {
    raise_file_limit();
    let (_place, mount) = mounted();
    let mut files = Vec::new();
    for number in 0..10_000_u32 {
        let path = mount.point.join(format!("f{number}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.write_all_at(&number.to_le_bytes(), 8_192).unwrap();
        files.push(file);
    }
    for (number, file) in files.iter().enumerate().rev() {
        let mut four = [0; 4];
        file.read_exact_at(&mut four, 8_192).unwrap();
        assert_eq!(u32::from_le_bytes(four) as usize, number);
    }
    for daemon in mount.daemons() {
        let open = fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().count();
        assert!(
            open < 4_000,
            "the daemon has {open} descriptors for 10000 open files: the pool is not bounded"
        );
    }
}

fn raise_file_limit() {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_NOFILE, 16_384, 16_384).expect("raise RLIMIT_NOFILE");
}

#[test]
fn an_unlinked_open_file_lives_on() {
    let (_place, mount) = mounted();
    let path = mount.point.join("ghost");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b" and after").unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    fs::write(&path, "a new file of that name").unwrap();
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before and after");
}

#[test]
fn a_file_renamed_over_lives_on_while_open() {
    let (_place, mount) = mounted();
    let (old, new) = (mount.point.join("old"), mount.point.join("new"));
    fs::write(&old, "old bytes").unwrap();
    let mut held = File::open(&old).unwrap();
    fs::write(&new, "new bytes").unwrap();
    fs::rename(&new, &old).unwrap();
    let mut text = String::new();
    held.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old bytes");
    assert_eq!(fs::read_to_string(&old).unwrap(), "new bytes");
}

#[test]
fn appends_of_two_processes_do_not_overwrite_each_other() {
    let (_place, mount) = mounted();
    let log = mount.point.join("log");
    File::create(&log).unwrap();
    let script = r#"i=0; while [ $i -lt 500 ]; do printf '%s\n' "$1-$i-line" >>"$2"; i=$((i+1)); done"#;
    let writer = |name: &str| Command::new("sh").args(["-c", script, "sh", name]).arg(&log).spawn().unwrap();
    let mut writers = [writer("one"), writer("two")];
    writers.iter_mut().for_each(|writer| assert!(writer.wait().unwrap().success()));
    let mut lines: Vec<String> = fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    let mut expected: Vec<String> =
        (0..500).flat_map(|i| [format!("one-{i}-line"), format!("two-{i}-line")]).collect();
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn direct_and_cached_io_see_each_other() {
    let (_place, mount) = mounted();
    let path = mount.point.join("mixed");
    fs::write(&path, vec![1; 64 * 1024]).unwrap();
    let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let cached = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    direct.write_all_at(Aligned::filled(9).as_slice(), 8_192).unwrap();
    let mut block = vec![0; 4_096];
    cached.read_exact_at(&mut block, 8_192).unwrap();
    assert_eq!(block, ops::bytes(9, 4_096));
    cached.write_all_at(&[7; 4_096], 12_288).unwrap();
    let mut aligned = Aligned::filled(0);
    direct.read_exact_at(aligned.as_mut_slice(), 12_288).unwrap();
    assert_eq!(aligned.as_slice(), &[7; 4_096]);
}

#[test]
fn a_shared_map_of_two_processes_is_one_memory() {
    let (_place, mount) = mounted();
    let path = mount.point.join("shm");
    fs::write(&path, vec![0; 32 * 1024]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    ops::store_mapped(&file, 5_000, 3).unwrap();
    let seen = weft_e2e::cmd::call("od", &["-An", "-tu1", "-j5000", "-N3", path.to_str().unwrap()]).ok();
    let numbers: Vec<u8> = seen.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers, ops::bytes(3, 3));
}

#[test]
fn locks_exclude_another_process() {
    let (_place, mount) = mounted();
    let path = mount.point.join("lock");
    let file = File::create(&path).unwrap();
    file.lock().unwrap();
    let other = weft_e2e::cmd::call("flock", &["-n", path.to_str().unwrap(), "true"]);
    assert_eq!(other.code, 1, "flock by another process: {other:?}");
    file.unlock().unwrap();
    weft_e2e::cmd::call("flock", &["-n", path.to_str().unwrap(), "true"]).ok();
}

#[test]
fn statfs_is_that_of_the_disk() {
    let (place, mount) = mounted();
    let (ours, disk) = (
        nix::sys::statvfs::statvfs(&mount.point).unwrap(),
        nix::sys::statvfs::statvfs(place.path()).unwrap(),
    );
    assert_eq!(ours.blocks() * ours.fragment_size(), disk.blocks() * disk.fragment_size());
    assert_eq!(ours.name_max(), 255);
    assert!(ours.blocks_available() > 0);
}

#[test]
fn files_and_directories_can_be_fsynced() {
    let (_place, mount) = mounted();
    let dir = mount.point.join("d");
    fs::create_dir(&dir).unwrap();
    let file = File::create(dir.join("f")).unwrap();
    file.set_len(8_192).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    File::open(&dir).unwrap().sync_all().unwrap();
    File::open(&mount.point).unwrap().sync_all().unwrap();
    ops::syncfs(&mount.point).unwrap();
}

#[test]
fn another_user_is_kept_out_where_the_mode_says_so() {
    let (_place, mount) = mounted();
    fs::write(mount.point.join("secret"), "x").unwrap();
    fs::set_permissions(mount.point.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(mount.point.join("open"), "y").unwrap();
    fs::set_permissions(mount.point.join("open"), fs::Permissions::from_mode(0o644)).unwrap();
    let read = |name: &str| {
        let mut command = weft_e2e::cmd::as_user("postgres", "cat");
        weft_e2e::cmd::run(command.arg(mount.point.join(name)))
    };
    assert_eq!(read("open").ok(), "y");
    assert_ne!(read("secret").code, 0, "postgres read root's 0600 file");
}

#[test]
fn a_separate_mount_point_shows_the_same_tree() {
    let place = Place::new();
    let (data, point) = (place.join("data"), place.join("point"));
    fs::create_dir(&data).unwrap();
    fs::create_dir(&point).unwrap();
    fs::write(data.join("f"), "there before").unwrap();
    let mount = Mount::over(&data).at_point(&point).mount();
    assert_eq!(fs::read_to_string(point.join("f")).unwrap(), "there before");
    fs::write(point.join("g"), "new").unwrap();
    assert_eq!(listed(&data), [".weft", "WEFT-NOT-UNMOUNTED"], "DATA while mounted elsewhere");
    assert_eq!(listed(&point), ["f", "g"]);
    mount.unmount();
    assert_eq!(listed(&data), ["f", "g"]);
    assert!(listed(&point).is_empty());
}

fn listed(dir: &Path) -> Vec<String> {
    weft_e2e::tree::names(dir).into_iter().map(|name| name.into_string().unwrap()).collect()
}
