//! Making what was planned: directories, then files by several threads in pieces, then what depends on them.

use super::os;
use super::plan::{Entry, Plan};
use super::span::{READ, spans};
use super::state::{self, State};
use crate::Outcome;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Bytes of a file that one thread takes at a time.
const PIECE: u64 = 64 << 20;

/// Who is told how far it is.
pub trait Progress: Sync {
    /// More bytes were copied (or were there already).
    fn copied(&self, bytes: u64);
    /// More bytes were read back and are right.
    fn proven(&self, bytes: u64);
    /// Whether to stop.
    fn stop(&self) -> bool {
        false
    }
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Counted {
    pub files: u64,
    pub dirs: u64,
    pub links: u64,
    /// Bytes read from the view.
    pub read_bytes: u64,
    /// Files that an earlier run had finished, and that were proven again.
    pub kept_files: u64,
    /// Attributes that could not be given, because only root may.
    pub without: u64,
}

/// A file in work: its pieces' hashes, and how many are missing.
struct Work<'a> {
    entry: &'a Entry,
    ranges: Option<&'a [(u64, u64)]>,
    /// What is wanted, as it is noted.
    noted: Option<blake3::Hash>,
    /// Finished by an earlier run: the hash of its bytes.
    known: Option<blake3::Hash>,
    hashes: Mutex<Vec<blake3::Hash>>,
    left: AtomicUsize,
}

impl Work<'_> {
    fn pieces(&self) -> usize {
        usize::try_from(self.entry.meta.size().div_ceil(PIECE)).unwrap_or(usize::MAX).max(1)
    }

    /// What of a piece is wanted: its data.
    fn wanted(&self, source: &File, piece: usize) -> std::io::Result<Vec<(u64, u64)>> {
        let start = piece as u64 * PIECE;
        let end = (start + PIECE).min(self.entry.meta.size());
        match self.ranges {
            None => os::data_ranges(source, start, end),
            Some(ranges) => {
                let cut = ranges.iter().map(|(from, to)| ((*from).max(start), (*to).min(end)));
                Ok(cut.filter(|(from, to)| from < to).collect())
            }
        }
    }
}

struct Copier<'a> {
    works: Vec<Work<'a>>,
    /// (file, piece) in order.
    jobs: Vec<(usize, usize)>,
    next: AtomicUsize,
    state: Mutex<&'a mut State>,
    progress: &'a dyn Progress,
    failed: Mutex<Option<String>>,
    stopped: AtomicBool,
    read: AtomicU64,
    kept: AtomicU64,
    without: AtomicU64,
}

/// Carries a plan out with `threads` threads. What `state` notes as finished is proven and left.
///
/// # Errors
/// One line; the target can be gone on with by the same restore.
pub fn run(plan: &Plan, state: &mut State, threads: usize, progress: &dyn Progress) -> Outcome<Counted> {
    for entry in &plan.dirs {
        make_dir(&entry.target)?;
    }
    let works: Vec<Work<'_>> =
        plan.files.iter().map(|(entry, ranges)| work(entry, ranges.as_deref(), state)).collect();
    begin_anew(plan, &works, state)?;
    let pieces =
        works.iter().enumerate().flat_map(|(file, work)| (0..work.pieces()).map(move |piece| (file, piece)));
    let jobs = pieces.collect();
    let copier = Copier {
        works,
        jobs,
        next: AtomicUsize::new(0),
        state: Mutex::new(state),
        progress,
        failed: Mutex::new(None),
        stopped: AtomicBool::new(false),
        read: AtomicU64::new(0),
        kept: AtomicU64::new(0),
        without: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| copier.work());
        }
    });
    if let Some(cause) = copier.failed.lock().take() {
        return Err(cause);
    }
    let rest = rest(plan)? + finish_dirs(plan)?;
    Ok(Counted {
        files: plan.files.len() as u64,
        dirs: plan.dirs.len() as u64,
        links: (plan.links.len() + plan.names.len()) as u64,
        read_bytes: copier.read.load(Ordering::Relaxed),
        kept_files: copier.kept.load(Ordering::Relaxed),
        without: copier.without.load(Ordering::Relaxed) + rest,
    })
}

/// Removes what is there from before and is not finished as it is wanted now, or not wanted any more.
fn begin_anew(plan: &Plan, works: &[Work<'_>], state: &mut State) -> Outcome<()> {
    let unfinished = works.iter().filter(|work| work.known.is_none()).map(|work| work.entry.target.as_path());
    let planned: HashSet<&Path> = works.iter().map(|work| work.entry.target.as_path()).collect();
    let is_within = |path: &&PathBuf| {
        let is_plain = path.components().all(|part| part != Component::ParentDir);
        is_plain && plan.tops.iter().any(|top| path.starts_with(top))
    };
    let others = state.paths().filter(|path| !planned.contains(path.as_path())).filter(is_within);
    let others: Vec<PathBuf> = others.cloned().collect();
    for path in unfinished.chain(others.iter().map(PathBuf::as_path)) {
        if state.knows(path) {
            state.forget(path)?;
        }
        match std::fs::remove_file(path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                return Err(format!("cannot begin {} anew: {cause}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn work<'a>(entry: &'a Entry, ranges: Option<&'a [(u64, u64)]>, state: &State) -> Work<'a> {
    let (noted, hashes, left) = (state::wanted(ranges), Mutex::new(Vec::new()), AtomicUsize::new(0));
    let known = state.finished(&entry.target, noted).filter(|_| entry.target.exists());
    let mut work = Work { entry, ranges, noted, known, hashes, left };
    let pieces = work.pieces();
    *work.hashes.get_mut() = vec![blake3::hash(b""); pieces];
    *work.left.get_mut() = pieces;
    work
}

/// Only for the one who restores, until all is there.
fn make_dir(path: &Path) -> Outcome<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists && path.is_dir() => {
            std::fs::set_permissions(path, Permissions::from_mode(0o700))
        }
        other => other,
    }
    .map_err(|cause| format!("cannot make {}: {cause}", path.display()))
}

impl Copier<'_> {
    fn work(&self) {
        while !self.stopped.load(Ordering::Relaxed) {
            let Some((file, piece)) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let Some(work) = self.works.get(*file) else { return };
            let done = match self.progress.stop() {
                true => Err("interrupted; the same command goes on with it".to_owned()),
                false => self.piece(work, *piece),
            };
            if let Err(cause) = done {
                self.stopped.store(true, Ordering::Relaxed);
                self.failed.lock().get_or_insert(cause);
            }
        }
    }

    fn piece(&self, work: &Work<'_>, piece: usize) -> Outcome<()> {
        let entry = work.entry;
        let told = |cause: std::io::Error| format!("{}: {cause}", entry.source.display());
        if work.known.is_none() {
            let source = File::open(&entry.source).map_err(told)?;
            // Of scattered pages the kernel must not read what stands between.
            let advice =
                if work.ranges.is_some() { libc::POSIX_FADV_RANDOM } else { libc::POSIX_FADV_SEQUENTIAL };
            os::advise(&source, advice);
            let target = open(&entry.target, entry.meta.size())?;
            let hash = self.copy(work, piece, &source, Some(&target))?;
            if let Some(place) = work.hashes.lock().get_mut(piece) {
                *place = hash;
            }
        }
        if work.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        self.finish(work)
    }

    /// Copies the data of a piece (or, without a target, only reads it): the hash of places and bytes.
    fn copy(
        &self,
        work: &Work<'_>,
        piece: usize,
        source: &File,
        target: Option<&File>,
    ) -> Outcome<blake3::Hash> {
        let entry = work.entry;
        let path = if target.is_some() { &entry.source } else { &entry.target };
        let told = |cause: std::io::Error| format!("cannot read {}: {cause}", path.display());
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0u8; READ];
        for span in spans(&work.wanted(source, piece).map_err(told)?) {
            let (start, len) = (span.start, span.len());
            source.read_exact_at(buffer.get_mut(..len).unwrap_or(&mut []), start).map_err(told)?;
            for (from, to) in span.wanted {
                let place = |at: u64| usize::try_from(at - start).unwrap_or(READ);
                let bytes = buffer.get(place(from)..place(to)).unwrap_or(&[]);
                // A page of zeros that is data here may be a hole there: both read the same.
                if bytes.iter().any(|byte| *byte != 0) {
                    hasher.update(&from.to_le_bytes()).update(bytes);
                    if let Some(target) = target {
                        target
                            .write_all_at(bytes, from)
                            .map_err(|cause| format!("cannot write {}: {cause}", entry.target.display()))?;
                    }
                }
                match target {
                    Some(_) => self.progress.copied(to - from),
                    None => self.progress.proven(to - from),
                }
            }
            if target.is_some() {
                self.read.fetch_add(len as u64, Ordering::Relaxed);
            }
        }
        Ok(hasher.finalize())
    }

    /// The last piece is there: durable, read back, with its attributes, noted.
    fn finish(&self, work: &Work<'_>) -> Outcome<()> {
        let (entry, known) = (work.entry, work.known);
        let told = |cause: std::io::Error| format!("cannot finish {}: {cause}", entry.target.display());
        let target = OpenOptions::new().read(true).write(true).open(&entry.target).map_err(told)?;
        target.sync_all().map_err(told)?;
        os::advise(&target, libc::POSIX_FADV_DONTNEED);
        let mut proof = blake3::Hasher::new();
        for piece in 0..work.pieces() {
            proof.update(self.copy_back(work, piece, &target)?.as_bytes());
        }
        let proof = proof.finalize();
        let copied = known.unwrap_or_else(|| {
            let mut copied = blake3::Hasher::new();
            for hash in work.hashes.lock().iter() {
                copied.update(hash.as_bytes());
            }
            copied.finalize()
        });
        if proof != copied || target.metadata().map_err(told)?.len() != entry.meta.size() {
            return Err(format!(
                "{} does not read back as it was written: the disk beneath it is not to be trusted; remove the copy, and \
                 restore to another disk",
                entry.target.display()
            ));
        }
        self.without.fetch_add(attributes(entry)?, Ordering::Relaxed);
        match known {
            Some(_) => {
                self.kept.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            None => self.state.lock().note(&entry.target, proof, work.noted),
        }
    }

    /// The hash of what stands in the target where the piece's data is.
    fn copy_back(&self, work: &Work<'_>, piece: usize, target: &File) -> Outcome<blake3::Hash> {
        // The places are those of the view: what the target's own filesystem takes for data may be more.
        let start = piece as u64 * PIECE;
        let end = (start + PIECE).min(work.entry.meta.size());
        let told = |cause: std::io::Error| format!("cannot read {}: {cause}", work.entry.source.display());
        let ranges = match work.ranges {
            Some(_) => work.wanted(target, piece).map_err(told)?,
            None => {
                let source = File::open(&work.entry.source).map_err(told)?;
                os::data_ranges(&source, start, end).map_err(told)?
            }
        };
        let as_told = Work {
            entry: work.entry,
            ranges: Some(&ranges),
            noted: None,
            known: None,
            hashes: Mutex::new(Vec::new()),
            left: AtomicUsize::new(0),
        };
        self.copy(&as_told, piece, target, None)
    }
}

/// The target of a file, as long as it will be; all that is not written is a hole.
fn open(path: &Path, size: u64) -> Outcome<File> {
    let told = |cause: std::io::Error| format!("cannot write {}: {cause}", path.display());
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(told)?;
    if file.metadata().map_err(told)?.len() != size {
        file.set_len(size).map_err(told)?;
    }
    Ok(file)
}

/// Owner, mode, extended attributes and times; how many of them could not be given for want of rights.
fn attributes(entry: &Entry) -> Outcome<u64> {
    let path = &entry.target;
    let told =
        |what: &str, cause: std::io::Error| format!("cannot set {what} of {}: {cause}", path.display());
    let mut without = 0;
    let mut may = |what: &str, set: std::io::Result<()>| match set {
        Err(cause) if cause.raw_os_error() == Some(libc::EPERM) => {
            without += 1;
            Ok(())
        }
        other => other.map_err(|cause| told(what, cause)),
    };
    let now = std::fs::symlink_metadata(path).map_err(|cause| told("attributes", cause))?;
    if (now.uid(), now.gid()) != (entry.meta.uid(), entry.meta.gid()) {
        may("the owner", os::set_owner(path, &entry.meta))?;
    }
    for name in os::xattr_names(&entry.source).map_err(|cause| told("attributes", cause))? {
        let value = os::xattr(&entry.source, &name).map_err(|cause| told("attributes", cause))?;
        may("an extended attribute", os::set_xattr(path, &name, &value))?;
    }
    if !entry.meta.is_symlink() {
        let mode = Permissions::from_mode(entry.meta.mode() & 0o7777);
        may("the mode", std::fs::set_permissions(path, mode))?;
    }
    may("the times", os::set_times(path, &entry.meta))?;
    Ok(without)
}

/// What depends on the files: further names, links, nodes; then the directories' attributes, from the inside out.
fn rest(plan: &Plan) -> Outcome<u64> {
    let mut without = 0;
    let made = |path: &Path, made: std::io::Result<()>| match made {
        Err(cause) if cause.kind() != ErrorKind::AlreadyExists => {
            Err(format!("cannot make {}: {cause}", path.display()))
        }
        _ => Ok(()),
    };
    for (entry, first) in &plan.names {
        made(&entry.target, std::fs::hard_link(first, &entry.target))?;
    }
    for (entry, text) in &plan.links {
        made(&entry.target, symlink(text, &entry.target))?;
        without += attributes(entry)?;
    }
    for entry in &plan.nodes {
        match os::make_node(&entry.target, &entry.meta) {
            Err(cause) if cause.raw_os_error() == Some(libc::EPERM) => without += 1,
            other => {
                made(&entry.target, other)?;
                without += attributes(entry)?;
            }
        }
    }
    Ok(without)
}

/// Every directory durable, and, but for the outermost of each tree, with its attributes.
fn finish_dirs(plan: &Plan) -> Outcome<u64> {
    let mut without = 0;
    for entry in plan.dirs.iter().rev() {
        let told = |cause: std::io::Error| format!("cannot finish {}: {cause}", entry.target.display());
        if !plan.tops.contains(&entry.target) {
            without += attributes(entry)?;
        }
        File::open(&entry.target).and_then(|dir| dir.sync_all()).map_err(told)?;
    }
    Ok(without)
}

/// The end: the target is no unfinished restore any more, and open to whom it is meant for.
///
/// # Errors
/// One line with the directory.
pub fn finish(plan: &Plan, state: State) -> Outcome<()> {
    state.end()?;
    for entry in plan.dirs.iter().filter(|entry| plan.tops.contains(&entry.target)) {
        attributes(entry)?;
        let parent = entry.target.parent().unwrap_or(&entry.target);
        let synced = |dir: &Path| File::open(dir).and_then(|dir| dir.sync_all());
        synced(&entry.target)
            .and_then(|()| synced(parent))
            .map_err(|cause| format!("cannot finish {}: {cause}", entry.target.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::{Ranges, Relocate, Selected, Source};

    struct Silent;

    impl Progress for Silent {
        fn copied(&self, _: u64) {}
        fn proven(&self, _: u64) {}
    }

    #[test]
    fn what_is_wanted_otherwise_now_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let [view, target] = ["view", "target"].map(|name| dir.path().join(name));
        [&view, &target].iter().for_each(|path| std::fs::create_dir(path).unwrap());
        for (name, byte) in [("heap", 7), ("heap_vm", 8)] {
            std::fs::write(view.join(name), vec![byte; 40_000]).unwrap();
        }
        let kept = dir.path().join("kept");
        std::fs::write(&kept, b"not of the restore").unwrap();
        let restored = |names: &[(&str, Option<Ranges>)]| {
            let mut selected = Selected::default();
            names.iter().for_each(|(name, ranges)| selected.want((*name).into(), ranges.clone()));
            let source = Source { root: String::new(), view: view.clone(), target: target.clone() };
            let mut plan = Plan::default();
            plan.add(&source, &selected, &Relocate { roots: Vec::new() }).unwrap();
            let mut state = State::open(&target, "the same").unwrap();
            // Left unfinished.
            run(&plan, &mut state, 1, &Silent).map(|counted| (counted.files, counted.kept_files))
        };
        assert_eq!(restored(&[("heap", None), ("heap_vm", None)]), Ok((2, 0)));
        State::open(&target, "the same").unwrap().note(&kept, blake3::hash(b""), None).unwrap();
        assert_eq!(restored(&[("heap", None), ("heap_vm", None)]), Ok((2, 2)));
        // Its pages are known now, and its other fork is not wanted any more.
        for kept in [0, 1] {
            assert_eq!(restored(&[("heap", Some(vec![(4096, 8192)]))]), Ok((1, kept)));
            let bytes = std::fs::read(target.join("heap")).unwrap();
            let expected = |at: usize| if (4096..8192).contains(&at) { 7 } else { 0 };
            assert!(
                bytes.len() == 40_000 && bytes.iter().enumerate().all(|(at, byte)| *byte == expected(at))
            );
            assert!(!target.join("heap_vm").exists());
        }
        assert_eq!(restored(&[("heap", None), ("heap_vm", None)]), Ok((2, 0)));
        assert_eq!(std::fs::read(target.join("heap_vm")).unwrap(), [8; 40_000]);
        assert!(kept.exists(), "what stands elsewhere is left");
    }
}
