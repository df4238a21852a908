//! The database's own user mounts, through fusermount3, without root.

use std::os::unix::fs::MetadataExt;
use weft_e2e::wall::Wall;
use weft_e2e::{Mount, Place, Postgres, bank, cmd, place};

#[test]
fn postgres_mounts_for_itself() {
    let mode = std::fs::metadata("/dev/fuse").expect("/dev/fuse").mode() & 0o777;
    assert_eq!(mode, 0o666, "/dev/fuse is {mode:o}: run scripts/setup (unprivileged mounts need 0666)");
    let place = Place::new();
    let home = place.dir_for("postgres", "home");
    let data = home.join("data");
    cmd::run(cmd::as_user("postgres", "mkdir").args(["-m", "700"]).arg(&data)).ok();
    let mount = Mount::over(&data).by_user("postgres");
    mount.try_mount().ok();
    assert!(place::is_mounted(&data));

    let server = Postgres::new(&place, "live", &data);
    server.initdb();
    server.start();
    bank::open(&server);
    let working = bank::Bank::start(&server, 2, 1);
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    let at = Wall::now();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let commits = working.stop();

    let copy = home.join("copy");
    let view = mount.at_wall(at);
    let mut rsync = cmd::as_user("postgres", "rsync");
    rsync.args(["-a", "--exclude", "postmaster.pid"]).arg(format!("{}/", view.display())).arg(&copy);
    cmd::run(&mut rsync).ok();
    let past = Postgres::new(&place, "past", &copy);
    past.start();
    bank::check(&past, &commits, at);
    past.stop();

    server.stop();
    mount.unmount();
    server.start();
    bank::check(&server, &commits, Wall::now());
    server.stop();
}
