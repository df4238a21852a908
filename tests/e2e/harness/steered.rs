//! A wall clock for one daemon, steered by the test (libfaketime). The machine's own is left alone, and so is the
//! daemon's monotonic clock: what it sees is what it sees when somebody sets the clock.

use crate::place::Place;
use crate::wall::Wall;
use std::path::{Path, PathBuf};
use std::process::Command;

/// See the head of this file.
pub struct Steered {
    control: PathBuf,
    library: PathBuf,
}

impl Steered {
    /// A clock that is right.
    ///
    /// # Panics
    /// When libfaketime is missing: it says what to install.
    pub fn new(place: &Place) -> Steered {
        let steered = Steered { control: place.join("clock"), library: library() };
        steered.set_us(0);
        steered
    }

    /// From now on the daemon's clock is ahead of the machine's by so many µs. When this returns the daemon has had time
    /// to notice.
    pub fn set_us(&self, ahead_us: i64) {
        let new = self.control.with_extension("new");
        let (sign, abs) = (if ahead_us < 0 { '-' } else { '+' }, ahead_us.unsigned_abs());
        let text = format!("{sign}{}.{:06}", abs / 1_000_000, abs % 1_000_000);
        std::fs::write(&new, text).expect("write the clock");
        std::fs::rename(&new, &self.control).expect("set the clock");
        std::thread::sleep(std::time::Duration::from_millis(700));
    }

    /// Sets the daemon's clock to a time, from which it goes on.
    pub fn set(&self, to: Wall) {
        self.set_us(to.0 - Wall::now().0);
    }

    /// Puts a daemon that is about to be started under this clock.
    pub fn steer(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.control)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

fn library() -> PathBuf {
    let dirs = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let found = dirs.map(|dir| dir.join("faketime/libfaketimeMT.so.1")).find(|path| Path::exists(path));
    found.expect("no libfaketimeMT.so.1 in /usr/lib/*/faketime: run scripts/setup (apt-get install faketime)")
}
