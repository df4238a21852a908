//! Opening a live tree: new, clean, or as a crash left it.
//!
//! 1. The newest checkpoint gives the names and from where to replay.
//! 2. What was on its way in or out goes in.
//! 3. The journal is replayed into names and overlay; only the overlay, so serving can begin at once.
//! 4. A new segment begins.
//!
//! A clean DATA is compared with what is known of it before its entries move in.

use super::base::BaseStore;
use super::batches;
use super::checkpoint;
use super::content::Base;
use super::exclude::{Exclude, Patterns};
use super::excluded::{Unclaimed, bypassing_on_disk};
use super::gather;
use super::node::Node;
use super::pair::{check_clean_pair, check_reach, check_unborn, read_copies};
use super::paths::{Paths, RootPaths};
use super::pool::Pool;
use super::replay::{Found, leftover, replay_into};
use super::roots::{self, Asked};
use super::scatter::{finish_clean, remove_leftovers};
use super::sparse;
use super::tree::{Dir, Root, Tree};
use super::walk::Differences;
use super::{Limits, Live};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{Checkpoint, Fingerprint, NodeState, Phase};
use crate::format::event::{Event, RootStage};
use crate::format::pins::KeptPin;
use crate::format::sections::ExcludedState;
use crate::index::{Index, LostList};
use crate::journal::Resume;
use crate::journal::epochs::Epochs;
use crate::journal::recovery::{Replayed, START};
use crate::journal::segment::Segments;
use crate::journal::{Config, Journal};
use crate::meta::leases::Leases;
use crate::meta::tags::Tags;
use crate::meta::thinned::Thinned;
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Arc, Condvar, Mutex, RwLock};
use crate::types::{FileId, FileKind, Name, PageSet, RootId, Seq, StoreId, Timestamp};
use std::collections::{BTreeSet, HashMap};

/// What opening needs.
pub struct Setup {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    /// Of DATA and STORE; opening adds the further roots.
    pub paths: Paths,
    pub asked: Asked,
    pub store: StoreId,
    pub index: Arc<Index>,
    /// The index is new: it knows no saved pages yet.
    pub index_is_new: bool,
    pub journal: Config,
    pub limits: Limits,
    pub exclude: Exclude,
    pub writeback: bool,
    /// Answers of the last session that its journal could not take.
    pub kept: Vec<KeptPin>,
}

/// What opening did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// DATA had not been unmounted.
    pub crashed: bool,
    pub replayed: Replayed,
    pub stock: Differences,
}

impl Live {
    /// Opens; when it returns, the roots' entries are in and the present can be served.
    pub fn open(mut setup: Setup) -> Result<(Live, Report)> {
        let newest = checkpoint::newest(&*setup.disk, &setup.paths, setup.store)?;
        let (paths, new) = roots::known(&setup.paths, newest.as_ref(), &setup.asked)?;
        setup.paths = paths;
        // What a killed process renamed last may be seen and not be durable; it is relied on from now on.
        setup.disk.sync_dir("recover.checkpoint", &setup.paths.checkpoint_dir())?;
        let (live, report) = match newest {
            None => open_new(setup, new),
            Some(checkpoint) if checkpoint.phase == Phase::Clean => open_clean(setup, new, &checkpoint),
            Some(checkpoint) => open_crashed(setup, &checkpoint),
        }?;
        live.reconcile()?;
        Ok((live, report))
    }
}

/// First mount, or one that did not get as far as its first checkpoint: nothing has moved yet.
fn open_new(mut setup: Setup, new: Vec<RootPaths>) -> Result<(Live, Report)> {
    roots::admit(&mut setup.paths, new, &Tree::new())?;
    let (disk, paths) = (&*setup.disk, &setup.paths);
    paths.roots.iter().try_for_each(|root| check_unborn(disk, root, setup.store))?;
    paths.roots.iter().try_for_each(|root| remove_leftovers(disk, root))?;
    for dir in [paths.journal_dir(), paths.base_dir()] {
        for entry in disk.read_dir("recover.new", &dir)? {
            disk.unlink("recover.new", &super::paths::join_bytes(&dir, &entry.name))?;
        }
        disk.sync_dir("recover.new", &dir)?;
    }
    let resume = Resume {
        last_seq: Seq(START.seq.0 - 1),
        last_ts: Timestamp::default(),
        floor: Timestamp::FIRST,
        epochs: Epochs::default(),
        chain: START.chain,
        last_segment: None,
    };
    let mut tree = Tree::new();
    tree.patterns = patterns_of_plain(&setup)?;
    let live = assemble(setup, tree, resume, (Seq::ZERO, Timestamp::default()), (0, START.seq))?;
    let stock = live.take_stock(&HashMap::new())?;
    *live.birth.lock() = (live.journal.last_seq(), live.journal.last_ts());
    move_in(&live)?;
    Ok((live, Report { stock, ..Report::default() }))
}

/// DATA is plain: changed or not since it was unmounted, it is taken in as it is.
fn open_clean(mut setup: Setup, new: Vec<RootPaths>, checkpoint: &Checkpoint) -> Result<(Live, Report)> {
    let (disk, paths) = (&*setup.disk, &setup.paths);
    new.iter().try_for_each(|root| check_unborn(disk, root, setup.store))?;
    for root in &paths.roots {
        check_clean_pair(disk, paths, root, setup.store, checkpoint.id)?;
    }
    for root in &paths.roots {
        finish_clean(disk, paths, root, setup.store, checkpoint.id)?;
    }
    new.iter().try_for_each(|root| remove_leftovers(disk, root))?;
    let mut tree = tree_of(checkpoint)?;
    let mut found = Found::new(checkpoint, scan_base(&setup, checkpoint, &tree)?);
    for node in tree.nodes.values() {
        in_place(node);
    }
    let (resume, replayed) = replay_into(&setup, checkpoint, &mut tree, false, &mut found)?;
    tree.patterns = patterns_of_plain(&setup)?;
    for node in tree.doomed.iter().filter_map(|(_, file)| tree.nodes.get(file)) {
        // Removed while DATA was plain, noted by an opening that a cut ended: nothing of it is anywhere.
        node.lock().content.exists = false;
    }
    roots::admit(&mut setup.paths, new, &tree)?;
    let live = assemble(setup, tree, resume, checkpoint.birth, (checkpoint.id, checkpoint.replay.seq))?;
    live.take_over(found);
    live.rested.lock().extend(checkpoint.sections.rested.iter().map(|rested| (rested.file, *rested)));
    let prints: HashMap<FileId, Fingerprint> =
        checkpoint.nodes.iter().filter_map(|node| node.fingerprint.map(|print| (node.file, print))).collect();
    let stock = live.take_stock(&prints)?;
    move_in(&live)?;
    Ok((live, Report { crashed: false, replayed, stock }))
}

fn patterns_of_plain(setup: &Setup) -> Result<Patterns> {
    let entries = setup.disk.read_dir("recover.contents", &setup.paths.root(RootId(0))?.dir)?;
    setup.exclude.choose(&entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>())
}

fn move_in(live: &Live) -> Result<()> {
    gather::prepare(&*live.disk, &live.paths)?;
    live.checkpoint(Phase::Gathering, &HashMap::new())?;
    gather::gather(&*live.disk, &live.paths, &live.tree.read())?;
    gather::check_foreign(&*live.disk, &live.paths)?;
    live.checkpoint(Phase::Serving, &HashMap::new())
}

/// The roots' entries are (partly) in `.weft`.
fn open_crashed(setup: Setup, checkpoint: &Checkpoint) -> Result<(Live, Report)> {
    let (disk, paths) = (&*setup.disk, &setup.paths);
    let copies = read_copies(disk, paths, checkpoint)?;
    let mut tree = tree_of(checkpoint)?;
    gather::prepare(disk, paths)?;
    let on_the_way = [checkpoint].into_iter().chain(&copies).any(|copy| copy.phase != Phase::Serving);
    if on_the_way {
        gather::gather(disk, paths, &tree)?;
    }
    gather::check_foreign(disk, paths)?;
    let mut found = Found::new(checkpoint, scan_base(&setup, checkpoint, &tree)?);
    for node in tree.nodes.values() {
        if !as_on_disk(&setup, checkpoint, node)? {
            found.missing.push(Arc::clone(node));
        }
    }
    let (resume, replayed) = replay_into(&setup, checkpoint, &mut tree, true, &mut found)?;
    for (root, copy) in paths.roots.iter().zip(&copies) {
        check_reach(root, copy, resume.last_seq)?;
    }
    check_missing(paths, &found.missing)?;
    paths.roots.iter().try_for_each(|root| remove_orphans(disk, root, &tree))?;
    bypassing_on_disk(disk, paths, &tree)?;
    let top: Vec<Name> = tree.dir(FileId::ROOT)?.entries.keys().cloned().collect();
    tree.patterns = setup.exclude.choose(&top)?;
    let live = assemble(setup, tree, resume, checkpoint.birth, (checkpoint.id, checkpoint.replay.seq))?;
    live.take_over(found);
    live.rested.lock().extend(checkpoint.sections.rested.iter().map(|rested| (rested.file, *rested)));
    if on_the_way {
        live.checkpoint(Phase::Serving, &HashMap::new())?;
    }
    Ok((live, Report { crashed: true, replayed, stock: Differences::default() }))
}

/// The names of a checkpoint.
fn tree_of(checkpoint: &Checkpoint) -> Result<Tree> {
    let mut tree = Tree::new();
    tree.next_file = checkpoint.next_file;
    for state in &checkpoint.sections.roots {
        let root = Root { file: state.file, name: state.name.clone(), stage: RootStage::Present };
        tree.roots.insert(state.root, root);
    }
    for state in &checkpoint.nodes {
        let node = node_of(state)?;
        match tree.root_dir(node.root) {
            // Of a root that has left, and unlinked.
            Err(_) if state.attr.nlink == 0 => continue,
            known => known?,
        };
        if state.attr.kind == FileKind::Directory {
            tree.dirs.insert(state.file, Dir::new(state.file));
        }
        if state.attr.nlink == 0 {
            tree.doomed.push((Seq::ZERO, state.file));
        }
        tree.nodes.insert(state.file, Arc::new(node));
    }
    sparse::from_section(&tree, &checkpoint.sections.data_pages)?;
    let excluded: HashMap<FileId, &ExcludedState> =
        checkpoint.sections.excluded.iter().map(|state| (state.file, state)).collect();
    for state in &checkpoint.nodes {
        let known = excluded.get(&state.file);
        if let (Some(known), Some(node)) = (known, tree.nodes.get(&state.file)) {
            node.lock().content.direct = known.direct;
        }
        for slot in &state.slots {
            tree.put(slot, state.file, known.is_some_and(|known| known.names.contains(slot)))?;
        }
    }
    Ok(tree)
}

fn node_of(state: &NodeState) -> Result<Node> {
    let node = Node::new(state.file, state.root, state.target.clone(), state.attr, state.seq);
    let mut inner = node.lock();
    inner.xattrs = state.xattrs.iter().cloned().collect();
    inner.content.exists = state.live;
    if state.attr.kind == FileKind::Regular {
        inner.content.data = PageSet::dense(state.attr.size);
    }
    if let Some(base) = &state.base {
        let base = Base::from_state(base).ok_or_else(|| {
            Error::corrupt("recover.names", format!("the saved pages of {} are damaged", state.file))
        })?;
        inner.content.base = Some(base);
    }
    drop(inner);
    Ok(node)
}

fn scan_base(setup: &Setup, checkpoint: &Checkpoint, tree: &Tree) -> Result<(Unclaimed, Vec<LostList>)> {
    let mut unclaimed = Unclaimed::new();
    let durable = checkpoint.base_scanned;
    let from = if setup.index_is_new { (0, 0) } else { durable };
    let (disk, paths) = (&*setup.disk, &setup.paths);
    let lost = batches::scan(disk, paths, setup.store, (from, durable), &setup.index, |entries| {
        for entry in entries {
            let Ok(page) = u32::try_from(entry.page.0) else { continue };
            if let Some(node) = tree.nodes.get(&entry.file)
                && let Some(base) = &mut node.lock().content.base
                && base.adopted == entry.adopted
            {
                base.saved.insert(page);
                continue;
            }
            unclaimed.entry((entry.file, entry.adopted)).or_default().insert(page);
        }
    })?;
    setup.index.persist()?;
    Ok((unclaimed, lost))
}

/// In a plain DATA every file is whole at its path.
fn in_place(node: &Node) {
    let mut state = node.lock();
    if node.kind == FileKind::Regular {
        let size = state.attr.size;
        let content = &mut state.content;
        (content.exists, content.live_len, content.disk_len) = (true, size, size);
    }
}

/// A live file that is gone must have been unlinked since the checkpoint, or captured and then put into limbo.
fn check_missing(paths: &Paths, missing: &[Arc<Node>]) -> Result<()> {
    let is_lost = |node: &&Arc<Node>| {
        let state = node.lock();
        let in_limbo = state.content.base.as_ref().is_some_and(|base| base.in_limbo);
        state.attr.nlink > 0 && !state.content.direct && !in_limbo
    };
    match missing.iter().find(is_lost) {
        None => Ok(()),
        Some(node) => Err(Error::new(
            Kind::Mismatch,
            "recover.live",
            "this file of DATA is missing: DATA was changed by hand or is from another time than STORE. Restore \
             DATA and STORE from the same moment",
        )
        .at(&paths.live(node.root, node.file)?)),
    }
}

/// What the applier had done of a file since the checkpoint is not known; what the file looks like is. `false`: there
/// was a live file, and there is none.
fn as_on_disk(setup: &Setup, checkpoint: &Checkpoint, node: &Node) -> Result<bool> {
    if node.kind != FileKind::Regular {
        return Ok(true);
    }
    let root = setup.paths.root(node.root)?;
    let stat = setup.disk.stat("recover.live", &root.live(node.file))?;
    let mut state = node.lock();
    let content = &mut state.content;
    let known = std::mem::replace(&mut content.exists, stat.is_some());
    if let Some(base) = &mut content.base {
        let limbo = root.limbo(node.file, base.adopted);
        base.in_limbo |= setup.disk.stat("recover.limbo", &limbo)?.is_some();
    }
    let in_limbo = content.base.as_ref().is_some_and(|base| base.in_limbo);
    match stat {
        // It is what it is; the end of recovery looks at it.
        _ if content.direct => {}
        Some(stat) if known => {
            content.live_len = stat.attr.size;
            content.disk_len = stat.attr.size;
        }
        Some(stat) => *content = leftover(content.base.take(), stat.attr.size, checkpoint.replay.seq),
        None => return Ok(!known || in_limbo),
    }
    Ok(true)
}

pub(super) fn segments_of(setup: &Setup) -> Arc<Segments> {
    Arc::new(Segments::new(Arc::clone(&setup.disk), setup.paths.journal_dir(), setup.store))
}

/// Live files of nobody: made after the checkpoint and unlinked again, or of an event that was lost; and what was only
/// tried. Durable: the next file may get the same identity.
fn remove_orphans(disk: &dyn Disk, root: &RootPaths, tree: &Tree) -> Result<()> {
    let mut removed = false;
    for entry in disk.read_dir("recover.orphans", &root.live_dir())? {
        let id = std::str::from_utf8(&entry.name).ok().and_then(|name| name.parse().ok()).map(FileId);
        let node = id.and_then(|id| tree.nodes.get(&id));
        if node.is_some_and(|node| node.root == root.root) {
            continue;
        }
        let path = super::paths::join_bytes(&root.live_dir(), &entry.name);
        match entry.kind {
            FileKind::Directory => disk.remove_dir("recover.orphans", &path)?,
            _ => disk.unlink("recover.orphans", &path)?,
        }
        removed = true;
    }
    if removed { disk.sync_dir("recover.orphans", &root.live_dir()) } else { Ok(()) }
}

/// Puts the parts together: the journal goes on in a new segment.
fn assemble(
    setup: Setup,
    tree: Tree,
    mut resume: Resume,
    birth: (Seq, Timestamp),
    (id, replay_from): (u64, Seq),
) -> Result<Live> {
    let segments = segments_of(&setup);
    let last_seq = resume.last_seq;
    for pin in &setup.kept {
        resume.hold(pin)?;
    }
    let journal = Journal::begin(segments, Arc::clone(&setup.clock), setup.journal, resume)?;
    let base = BaseStore::open(Arc::clone(&setup.disk), &setup.paths, setup.store, Arc::clone(&setup.index))?;
    let mut dirty = BTreeSet::new();
    let mut waiting = 0;
    for (file, node) in &tree.nodes {
        let mut state = node.lock();
        if state.content.oldest_pending().is_some() {
            state.content.queued = true;
            waiting += state.content.overlay.bytes();
            dirty.insert(*file);
        }
    }
    let pool = Pool::new(Arc::clone(&setup.disk), setup.limits.open_files);
    let live = Live {
        disk: setup.disk,
        paths: setup.paths,
        journal: Arc::new(journal),
        limits: setup.limits,
        birth: Mutex::new(birth),
        tags: Mutex::new(Tags::default()),
        leases: Mutex::new(Leases::default()),
        thinned: Mutex::new(Thinned::default()),
        rested: Mutex::default(),
        frozen: AtomicBool::new(false),
        leaving: AtomicBool::new(false),
        unnamed: AtomicBool::new(false),
        filesystems: Mutex::default(),
        tree: RwLock::new(tree),
        pool,
        base,
        dirty: Mutex::new(dirty),
        overlay_bytes: AtomicU64::new(waiting),
        round: Mutex::new(id),
        applied: AtomicU64::new(if waiting == 0 { last_seq.0 } else { replay_from.0 - 1 }),
        checkpointed: AtomicU64::new(replay_from.0 - 1),
        trouble: Mutex::new(None),
        relief: Condvar::new(),
        open_files: AtomicU64::new(0),
        ownable: Mutex::new(BTreeSet::new()),
        room: super::room::Room::default(),
        counting: AtomicBool::new(false),
        busy: Mutex::new(Vec::new()),
        uncounted: AtomicU64::new(0),
    };
    live.journal.append(&[], |_| Event::Session { writeback: setup.writeback })?;
    for KeptPin { at, seq } in setup.kept {
        live.journal.append(&[], |_| Event::Pin { at, seq, kept: true })?;
    }
    Ok(live)
}
