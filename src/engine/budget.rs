//! What background work may take of the machine: a share of a core and a rate of bytes, kept by sleeping.

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, thread};
use std::time::{Duration, Instant};

/// Longest sleep before the worker looks whether it is to stop.
pub(super) const NAP: Duration = Duration::from_millis(50);

/// How much of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rates {
    /// Share of one core, 1 to 100.
    pub cpu_percent: u32,
    /// Bytes read and written in a second.
    pub bytes_per_sec: u64,
}

/// Keeps to the rates, by sleeping.
pub(super) struct Budget<'a> {
    rates: Rates,
    /// Somebody waits: no budget meanwhile.
    hurry: &'a AtomicBool,
    stop: &'a AtomicBool,
    /// When the work since the last call began, and the processor time of its thread then, µs.
    since: Mutex<(Instant, u64)>,
}

impl<'a> Budget<'a> {
    pub(super) fn new(rates: Rates, hurry: &'a AtomicBool, stop: &'a AtomicBool) -> Budget<'a> {
        Budget { rates, hurry, stop, since: Mutex::new((Instant::now(), thread_cpu_us())) }
    }

    /// Sleeps for what the work since the last call took, and its bytes; `false`: stop. Time in which the processor or
    /// the disk was others' is rest already.
    pub(super) fn rest(&self, bytes: u64) -> bool {
        let mut since = self.since.lock();
        let worked = since.0.elapsed();
        let cpu = Duration::from_micros(thread_cpu_us().saturating_sub(since.1)).min(worked);
        let percent = self.rates.cpu_percent.clamp(1, 100);
        let by_share = (cpu * 100 / percent).saturating_sub(worked);
        let micros = bytes.saturating_mul(1_000_000) / self.rates.bytes_per_sec.max(1);
        let by_rate = Duration::from_micros(micros).saturating_sub(worked);
        let mut rest = by_share.max(by_rate);
        while !rest.is_zero() && !self.stop.load(Ordering::Relaxed) && !self.hurry.load(Ordering::Relaxed) {
            let nap = rest.min(NAP);
            thread::sleep(nap);
            rest -= nap;
        }
        *since = (Instant::now(), thread_cpu_us());
        !self.stop.load(Ordering::Relaxed)
    }
}

impl crate::weave::Pace for Budget<'_> {
    fn go_on(&self, bytes: u64) -> bool {
        self.rest(bytes)
    }
}

/// Processor time of this thread, µs.
pub(super) fn thread_cpu_us() -> u64 {
    let spent = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    spent.map_or(0, |spent| u64::try_from(Duration::from(spent).as_micros()).unwrap_or(0))
}

/// Sleeps, waking to look whether it is to stop.
pub(super) fn sleep(time: Duration, stop: &AtomicBool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        thread::sleep(NAP);
    }
}

/// Lowest priority of this thread for CPU and disk: nobody waits for it. Not granted is as well.
pub(super) fn yield_to_others() {
    set_priority(19, true);
}

/// The ordinary priority, or one at which others come first. Only root may take back what was given away, so that anyone
/// else gives away less.
pub(super) fn yield_unless(behind: bool) {
    let lowest = if nix::unistd::geteuid().is_root() { 19 } else { 5 };
    set_priority(if behind { 0 } else { lowest }, !behind);
}

fn set_priority(nice: libc::c_int, idle_disk: bool) {
    // From linux/ioprio.h: who a thread is, the class that gets the disk when nobody else wants it, and none of its own.
    const WHO_THREAD: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    const CLASS_NONE: libc::c_int = 0;
    // SAFETY: both calls take numbers only, and concern this thread (0).
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        let class = if idle_disk { CLASS_IDLE } else { CLASS_NONE };
        libc::syscall(libc::SYS_ioprio_set, WHO_THREAD, 0, class);
    }
}
