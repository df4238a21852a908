//! What can be done to the file, as values.

use super::SPAN;
use rand::Rng;
use rand::rngs::StdRng;

/// The way bytes go in or out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    Buffered,
    /// Several buffers in one call.
    Vectored,
    Direct,
    Sync,
    Dsync,
    /// Stores and loads through a shared map of the whole span: the one that stays, or one for this step.
    Mapped,
    /// Linux aio on the O_DIRECT descriptor, several requests at once.
    Aio,
    /// io_uring on the O_DIRECT descriptor, several requests at once.
    Uring,
}

const VIAS: [Via; 6] = [Via::Buffered, Via::Vectored, Via::Direct, Via::Mapped, Via::Aio, Via::Uring];
/// Those that wait for the disk are drawn less often: each costs as much as a hundred others.
const SYNCED: [Via; 2] = [Via::Sync, Via::Dsync];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyBy {
    Range,
    Splice,
    Sendfile,
}

/// One step. Offsets count from the base of the exercised part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Write {
        via: Via,
        at: usize,
        len: usize,
        fill: u8,
    },
    Append {
        len: usize,
        fill: u8,
    },
    Read {
        via: Via,
        at: usize,
        len: usize,
    },
    Copy {
        by: CopyBy,
        from: usize,
        to: usize,
        len: usize,
    },
    Allocate {
        mode: i32,
        at: usize,
        len: usize,
    },
    Truncate {
        len: usize,
        by_path: bool,
    },
    /// Makes the map that stays, or takes it away.
    Map,
    /// msync of the map that stays.
    Msync,
    Fsync,
    Fdatasync,
    Syncfs,
    /// fsync, and the kernel forgets its pages of the file.
    Forget,
    /// All descriptors are closed and opened again.
    Reopen,
    Holes {
        from: usize,
    },
    Size,
    /// Takes an instant, to be compared later.
    Instant,
    WholeFile,
}

/// Draws a step for a file of `size` bytes.
pub fn draw(rng: &mut StdRng, size: usize) -> Step {
    let fill = rng.random();
    match rng.random_range(0..1000) {
        0..300 => {
            let (via, at, len) = range(rng, SPAN);
            Step::Write { via, at, len, fill }
        }
        300..340 => Step::Append { len: length(rng).min(SPAN.saturating_sub(size)), fill },
        340..640 => {
            let (via, at, len) = range(rng, SPAN);
            Step::Read { via, at, len }
        }
        640..690 => copy(rng, size),
        690..770 => {
            let keep = libc::FALLOC_FL_KEEP_SIZE;
            let zero = libc::FALLOC_FL_ZERO_RANGE;
            let modes = [0, keep, libc::FALLOC_FL_PUNCH_HOLE | keep, zero, zero | keep];
            let (_, at, len) = range(rng, SPAN);
            Step::Allocate { mode: modes[rng.random_range(0..modes.len())], at, len: len.max(1) }
        }
        770..830 => Step::Truncate { len: new_size(rng, size), by_path: rng.random_bool(0.3) },
        830..860 => Step::Map,
        860..870 => Step::Msync,
        870..873 => Step::Fsync,
        873..876 => Step::Fdatasync,
        876 => Step::Syncfs,
        877..882 => Step::Forget,
        882..900 => Step::Reopen,
        900..950 => Step::Holes { from: rng.random_range(0..size.max(1)) },
        950..980 => Step::Size,
        980..982 => Step::Instant,
        _ => Step::WholeFile,
    }
}

fn new_size(rng: &mut StdRng, size: usize) -> usize {
    match rng.random_range(0..10) {
        0 => 0,
        1..5 => rng.random_range(0..size.max(1)),
        5 => size / 4096 * 4096,
        _ => rng.random_range(0..SPAN),
    }
}

fn copy(rng: &mut StdRng, size: usize) -> Step {
    let by = [CopyBy::Range, CopyBy::Splice, CopyBy::Sendfile][rng.random_range(0..3)];
    let len = length(rng).min(SPAN / 4);
    let from = rng.random_range(0..size.max(1)).min(SPAN - len);
    let mut to = rng.random_range(0..SPAN - len);
    // The kernel refuses to copy a range over itself.
    if from.abs_diff(to) < len {
        to = if from >= SPAN / 2 { from - from.min(len) } else { from + len };
        if from.abs_diff(to) < len || to + len > SPAN {
            return Step::Copy { by, from, to, len: 0 };
        }
    }
    Step::Copy { by, from, to, len }
}

/// A way, and a range below `limit` that suits it.
fn range(rng: &mut StdRng, limit: usize) -> (Via, usize, usize) {
    let via = match rng.random_range(0..50) {
        0 => SYNCED[rng.random_range(0..SYNCED.len())],
        _ => VIAS[rng.random_range(0..VIAS.len())],
    };
    let mut len = length(rng);
    let mut at = rng.random_range(0..limit);
    // Databases align what they write past the cache; a disk filesystem wants it.
    if matches!(via, Via::Direct | Via::Aio | Via::Uring) {
        at = at / 4096 * 4096;
        len = len.div_ceil(4096) * 4096;
    }
    (via, at, len.min(limit - at))
}

fn length(rng: &mut StdRng) -> usize {
    match rng.random_range(0..10) {
        0..3 => rng.random_range(1..64),
        3..6 => 4096 * rng.random_range(1..5),
        6..9 => rng.random_range(1..20_000),
        _ => rng.random_range(1..140_000),
    }
}
