//! What Weft must refuse: one line that says what to do, an exit code, and nothing changed.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use weft_e2e::cmd::{self, Output};
use weft_e2e::mount::{binary, weft};
use weft_e2e::tree::{What, assert_same, scan};
use weft_e2e::{Mount, Place, place};

/// The message is one line that holds each of `words`, and the exit code is not 0.
#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    assert_ne!(output.code, 0, "`{}` succeeded: {}", output.line, output.stdout);
    assert_ne!(output.code, 101, "`{}` panicked: {}", output.line, output.stderr);
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "`{}` says not one line but:\n{}", output.line, output.stderr);
    for word in words {
        assert!(lines[0].contains(word), "`{}` does not name {word:?}: {}", output.line, lines[0]);
    }
}

/// A populated DATA that a refused command must leave as it is, with no STORE beside it.
struct Untouched {
    place: Place,
    data: PathBuf,
    before: weft_e2e::Tree,
}

impl Untouched {
    fn new() -> Untouched {
        let place = Place::new();
        let data = place.join("data");
        fs::create_dir(&data).unwrap();
        fs::create_dir(data.join("d")).unwrap();
        fs::write(data.join("d/f"), "precious").unwrap();
        let before = scan(&data);
        Untouched { place, data, before }
    }

    #[track_caller]
    fn mount(&self, more: &[&str]) -> Output {
        cmd::run(weft().arg("mount").arg(&self.data).args(more))
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert!(!place::is_mounted(&self.data), "{} is mounted", self.data.display());
        assert_same("DATA after the refusal", &self.before, &scan(&self.data), What::All);
        let store = self.place.join("data.weft");
        assert!(!store.exists(), "{} was left behind", store.display());
    }
}

#[test]
fn data_that_does_not_exist() {
    let place = Place::new();
    let data = place.join("nothing");
    let refused = cmd::run(weft().arg("mount").arg(&data));
    assert_refused(&refused, &[data.to_str().unwrap()]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "something was made");
}

#[test]
fn data_that_is_a_file() {
    let case = Untouched::new();
    let file = case.data.join("d/f");
    let refused = cmd::run(weft().arg("mount").arg(&file));
    assert_refused(&refused, &[file.to_str().unwrap(), "directory"]);
    case.assert_untouched();
    assert!(!case.data.join("d/f.weft").exists());
}

#[test]
fn data_that_is_already_mounted() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    fs::write(mount.point.join("f"), "x").unwrap();
    let refused = mount.try_mount();
    assert_refused(&refused, &[mount.data.to_str().unwrap(), "mounted"]);
    assert_eq!(fs::read_to_string(mount.point.join("f")).unwrap(), "x");
    assert_eq!(place::mounts_below(&mount.point).len(), 1, "mounted twice");
}

#[test]
fn data_that_a_daemon_already_serves_elsewhere() {
    let place = Place::new();
    let (data, one, two) = (place.join("data"), place.join("one"), place.join("two"));
    [&data, &one, &two].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let first = Mount::over(&data).at_point(&one).mount();
    assert_refused(&Mount::over(&data).at_point(&two).try_mount(), &[data.to_str().unwrap()]);
    assert_refused(&cmd::run(weft().arg("recover").arg(&data)), &[data.to_str().unwrap()]);
    fs::write(one.join("f"), "still served").unwrap();
    first.unmount();
    assert_eq!(fs::read_to_string(data.join("f")).unwrap(), "still served");
}

#[test]
fn data_that_is_a_mount_point_without_store() {
    let case = Untouched::new();
    let itself = case.data.as_path();
    nix::mount::mount(Some(itself), itself, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)
        .unwrap();
    let refused = case.mount(&[]);
    let stacked = place::mounts_below(itself).len();
    place::detach(itself);
    assert_refused(&refused, &["--store"]);
    assert_eq!(stacked, 1, "weft mounted over the mount point");
    case.assert_untouched();
}

#[test]
fn data_in_use_by_a_process() {
    let case = Untouched::new();
    let file = File::open(case.data.join("d/f")).unwrap();
    let mut reader = Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
    let by_file = case.mount(&[]);
    reader.kill().unwrap();
    reader.wait().unwrap();
    let mut dweller = Command::new("sleep").arg("60").current_dir(case.data.join("d")).spawn().unwrap();
    let by_directory = case.mount(&[]);
    dweller.kill().unwrap();
    dweller.wait().unwrap();
    assert_refused(&by_file, &["sleep"]);
    assert_refused(&by_directory, &["sleep"]);
    case.assert_untouched();
    let mount = Mount::over(&case.data).mount();
    assert_eq!(fs::read_to_string(mount.point.join("d/f")).unwrap(), "precious");
}

#[test]
fn unmounting_while_a_file_is_open_names_the_holder() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let file = File::create(mount.point.join("f")).unwrap();
    let mut holder = Command::new("sleep").arg("60").stdout(Stdio::from(file)).spawn().unwrap();
    let refused = mount.try_unmount();
    let up = place::is_mounted(&mount.point) && fs::write(mount.point.join("g"), "still works").is_ok();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_refused(&refused, &["sleep"]);
    assert!(up, "the mount did not stay up");
    mount.unmount();
    assert_eq!(fs::read_to_string(mount.data.join("g")).unwrap(), "still works");
}

/// A STORE but its log, which tells of the refusal.
fn store_of(path: &Path) -> weft_e2e::Tree {
    let mut all = scan(path);
    all.remove(Path::new("weft.log"));
    all
}

#[test]
fn a_store_of_another_data() {
    let case = Untouched::new();
    let other = case.place.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("f"), "other").unwrap();
    let others = Mount::over(&other).mount();
    others.unmount();
    let store = store_of(&others.store);
    let refused = case.mount(&["--store", others.store.to_str().unwrap()]);
    assert_refused(&refused, &[others.store.to_str().unwrap()]);
    case.assert_untouched();
    assert_same("the other STORE", &store, &store_of(&others.store), What::ButTimes);
}

/// DATA or STORE rolled back to an older state: a mount would replay over the wrong bytes.
#[test]
fn a_store_out_of_step_with_data() {
    for rolled_back in ["data", "data.weft"] {
        let place = Place::new();
        let mount = Mount::new(&place).mount();
        fs::write(mount.point.join("f"), "old").unwrap();
        mount.unmount();
        let (path, old) = (place.join(rolled_back), place.join("old"));
        cmd::cp(&path, &old);
        mount.remount();
        fs::write(mount.point.join("f"), "new and longer").unwrap();
        fs::write(mount.point.join("g"), "new").unwrap();
        mount.unmount();
        fs::remove_dir_all(&path).unwrap();
        cmd::cp(&old, &path);
        let (data, store) = (scan(&mount.data), store_of(&mount.store));
        let refused = mount.try_mount();
        assert_refused(&refused, &[place.join("data").to_str().unwrap()]);
        assert_same(rolled_back, &data, &scan(&mount.data), What::All);
        assert_same(rolled_back, &store, &store_of(&mount.store), What::ButTimes);
    }
}

#[test]
fn data_with_a_reserved_name() {
    let mut case = Untouched::new();
    fs::write(case.data.join("@ts=mine"), "x").unwrap();
    case.before = scan(&case.data);
    assert_refused(&case.mount(&[]), &["@ts=mine"]);
    case.assert_untouched();
}

#[test]
fn an_unknown_key_in_the_configuration() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    mount.unmount();
    let config = mount.store.join("weft.toml");
    let text = fs::read_to_string(&config).unwrap_or_default();
    fs::write(&config, format!("no_such_key = 1\n{text}")).unwrap();
    assert_refused(&mount.try_mount(), &["no_such_key", "weft.toml"]);
    fs::write(&config, text).unwrap();
    mount.remount();
}

/// A cluster whose WAL lies outside DATA: its history would be incomplete, and a view would lead to the live WAL.
#[test]
fn a_cluster_with_wal_or_tablespaces_outside() {
    for (link, words) in [("pg_wal", "pg_wal"), ("pg_tblspc/16400", "pg_tblspc")] {
        let mut case = Untouched::new();
        let outside = case.place.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(case.data.join("PG_VERSION"), "15\n").unwrap();
        for dir in ["base", "global", "pg_tblspc"] {
            fs::create_dir(case.data.join(dir)).unwrap();
        }
        symlink(&outside, case.data.join(link)).unwrap();
        case.before = scan(&case.data);
        assert_refused(&case.mount(&[]), &[words]);
        case.assert_untouched();
    }
}

#[test]
fn no_fuse_device() {
    let case = Untouched::new();
    let script = r#"mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec "$0" mount "$1""#;
    let refused = in_namespace(script, &case.data);
    assert_refused(&refused, &["/dev/fuse"]);
    case.assert_untouched();
}

#[test]
fn no_fusermount() {
    let place = Place::new();
    let home = place.dir_for("postgres", "home");
    let data = home.join("data");
    cmd::run(cmd::as_user("postgres", "mkdir").arg(&data)).ok();
    let script = r#"mount --bind /dev/null "$(readlink -f "$(command -v fusermount3)")" && exec runuser -u postgres -- "$0" mount "$1""#;
    let refused = in_namespace(script, &data);
    assert_refused(&refused, &["fusermount3"]);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "DATA was changed");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "a STORE was left behind");
}

/// Runs a shell script in a mount namespace of its own; $0 is the binary, $1 is DATA.
fn in_namespace(script: &str, data: &Path) -> Output {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(binary()).arg(data).current_dir("/");
    cmd::run(&mut command)
}

#[test]
fn a_full_disk_beneath_the_store() {
    let case = Untouched::new();
    let small = case.place.join("small");
    fs::create_dir(&small).unwrap();
    nix::mount::mount(Some("none"), &small, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k"))
        .unwrap();
    fs::write(small.join("filler"), vec![1; 60 * 1024]).unwrap();
    let refused = case.mount(&["--store", small.join("store").to_str().unwrap()]);
    assert_refused(&refused, &["space"]);
    assert_eq!(weft_e2e::tree::names(&small), ["filler"], "a STORE was left behind");
    case.assert_untouched();
}

#[test]
fn times_that_mean_nothing() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    for time in ["yesterday-ish", "2026-13-45", "", "2999-01-01T00:00:00Z", "1999-01-01T00:00:00Z"] {
        assert_refused(&mount.try_at(time), &[]);
    }
}

#[test]
fn commands_on_what_is_no_mount() {
    let case = Untouched::new();
    let data = case.data.to_str().unwrap();
    for arguments in [["unmount", data], ["recover", data], ["status", data]] {
        assert_refused(&cmd::run(weft().args(arguments)), &[data]);
    }
    assert_refused(&cmd::run(weft().args(["at", "now", data])), &[data]);
    case.assert_untouched();
}
