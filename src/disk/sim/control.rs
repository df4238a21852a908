//! What a test does to a disk: cut, kill, make fail, look.

use super::faults::{Failure, Faults};
use super::rng::Rng;
use super::world::World;
use super::{Shared, SimDisk, State, cut};
use crate::disk::Op;
use crate::error::Result;
use crate::sync::{Arc, Mutex};
use crate::types::PAGE;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

impl SimDisk {
    /// An empty filesystem: a root directory, 1 TiB of space.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::with(World::new(Rng::new(seed)))
    }

    fn with(world: World) -> SimDisk {
        let state = State { world, faults: Faults::default(), locks: BTreeSet::new() };
        SimDisk { shared: Arc::new(Shared { state: Mutex::new(state) }) }
    }

    /// Makes an empty directory the root of a filesystem of its own, and stays so through cuts.
    pub fn mount(&self, path: &Path) -> Result<()> {
        let mut state = self.shared.state.lock();
        let mounted = state.world.find_dir(path).and_then(|dir| state.world.mount(dir));
        mounted.map_err(|errno| super::file::failed("sim.mount", path, errno))
    }

    /// The power goes: this disk answers EIO from now on, and the image is what the next boot finds. On a disk that is
    /// dead already (by `cut`, `cut_at`) it gives the image as of its death; so cutting again with other seeds gives
    /// other images of the same instant.
    #[must_use]
    pub fn cut(&self, seed: u64) -> SimDisk {
        let mut state = self.shared.state.lock();
        state.faults.dead = true;
        SimDisk::with(cut::image(&state.world, seed))
    }

    /// `kill -9`: all that was seen is still seen, what was pending is still pending, handles and locks are gone. This
    /// disk answers EIO from now on. Faults are not carried over.
    #[must_use]
    pub fn kill(&self) -> SimDisk {
        let mut state = self.shared.state.lock();
        state.faults.dead = true;
        let mut world = state.world.clone();
        world.close_all();
        SimDisk::with(world)
    }

    /// The `nth` call (1 is the next) that carries exactly this name fails with `errno` and does nothing. A failing
    /// sync loses pending sectors as the kernel does: some are durable, most stay visible but no later sync of them
    /// makes them durable.
    pub fn fail(&self, op: Op, nth: u64, errno: i32) {
        self.fail_torn(op, nth, errno, 0);
    }

    /// Like `fail`, but a write leaves its first `written` bytes.
    pub fn fail_torn(&self, op: Op, nth: u64, errno: i32, written: usize) {
        let failure = Failure { errno, torn: written };
        self.shared.state.lock().faults.add(op, nth, failure);
    }

    /// After `operations()` has reached `n`, every operation that changes or syncs fails with EIO; reading goes on.
    pub fn fail_all_after(&self, n: u64) {
        self.shared.state.lock().faults.fail_after = Some(n);
    }

    /// The power goes during the operation that makes `operations()` reach `n` (or the next one if it is past that):
    /// what that operation writes is pending, what it should sync is not durable, it and all later ones answer EIO.
    /// `cut` then gives the image.
    pub fn cut_at(&self, n: u64) {
        self.shared.state.lock().faults.cut_at = Some(n);
    }

    /// Forgets all faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.shared.state.lock().faults.clear();
    }

    /// Whether the power is gone (or the process killed).
    pub fn is_dead(&self) -> bool {
        self.shared.state.lock().faults.dead
    }

    /// How many operations that change or sync something were called (an `open` only when it creates).
    pub fn operations(&self) -> u64 {
        self.shared.state.lock().faults.operations
    }

    /// Keeps the last `len` calls for `log`; none by default.
    pub fn keep_log(&self, len: usize) {
        self.shared.state.lock().faults.log_len = len;
    }

    /// The last calls of any kind, oldest first.
    pub fn log(&self) -> Vec<(Op, PathBuf)> {
        self.shared.state.lock().faults.log()
    }

    /// Limits what files may take, in bytes (whole pages count); ENOSPC beyond.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.state.lock().world.capacity = bytes;
    }

    /// Whether files can share their space: as on XFS and btrfs, or (as it begins) as on ext4.
    pub fn set_reflinks(&self, can: bool) {
        self.shared.state.lock().world.reflinks = can;
    }

    /// Bytes that files take.
    pub fn used(&self) -> u64 {
        self.shared.state.lock().world.used_pages * PAGE
    }
}
