//! Bytes of a file, driven through every way in at once, on a real mount in both capture modes.
//!
//! `scripts/fsx` runs the same for a million operations; `WEFT_E2E_OPERATIONS` sets the number here.

use std::path::PathBuf;
use weft_e2e::exercise::Exercise;
use weft_e2e::random::count;
use weft_e2e::{Capture, Mount, Place};

/// Just below 4 GiB: the exercised part goes across it.
const FAR: u64 = (1 << 32) - 128 * 1024;

fn operations(default: usize) -> usize {
    count("WEFT_E2E_OPERATIONS", default)
}

fn exercise(name: &str, capture: Capture, base: u64, steps: usize) {
    let place = Place::new();
    let mount = Mount::new(&place).capture(capture).mount();
    let path = mount.point.join("file");
    let now = || -> PathBuf { mount.at("now").join("file") };
    let mut exercise = Exercise::new(name, &path, base, Some(&now));
    exercise.run(steps);
    drop(exercise);
    mount.unmount();
}

/// The exerciser itself: what it expects is what the disk beneath does.
#[test]
fn the_exerciser_agrees_with_a_plain_directory() {
    let place = Place::new();
    let mut exercise = Exercise::new("exercise plain", &place.join("file"), 0, None);
    exercise.run(operations(3_000));
}

#[test]
fn every_way_into_a_file_agrees_strict() {
    exercise("exercise strict", Capture::Strict, 0, operations(4_000));
}

#[test]
fn every_way_into_a_file_agrees_writeback() {
    exercise("exercise writeback", Capture::Writeback, 0, operations(4_000));
}

#[test]
fn every_way_into_a_file_agrees_across_4_gib_strict() {
    exercise("exercise far strict", Capture::Strict, FAR, operations(1_500));
}

#[test]
fn every_way_into_a_file_agrees_across_4_gib_writeback() {
    exercise("exercise far writeback", Capture::Writeback, FAR, operations(1_500));
}
