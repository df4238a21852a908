//! Random histories on the simulated disk, with power cuts anywhere: in serving, in taking in, in giving back, in
//! recovery and in the recovery of a recovery.
//!
//! After each: everything that was fsynced is there, the present is the fold of a prefix of what was done, every view
//! that was resolved is, to the last byte, what it was, and every tag that was acknowledged names its instant.
//!
//! `WEFT_SIM_SEEDS=N` runs more histories, `WEFT_SIM_FIRST=K` begins at seed K.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use support::Ticking;
use support::bed::{self, DATA, STORE};
use support::kv::CrashKv;
use support::model::{Body, Model, Named, ROOT};
use support::trees::{difference, plain_difference};
use weft::disk::Disk;
use weft::disk::sim::SimDisk;
use weft::engine::{
    Caller, Engine, Fallocate, Instant, NewFile, Options, RenameMode, Resolution, RootDir, SetAttr,
    ShadowReason, Unpaced, Weaving, Wish,
};
use weft::error::{Kind, Result};
use weft::live::exclude::Patterns;
use weft::meta::retention::{Retention, Tier};
use weft::types::{FileId, FileKind, PageSet, Seq};

/// The further roots that histories may have.
const ROOTS: [&str; 3] = ["wal", "ts1", "ts2"];

/// Bytes that came from shadows, in all histories.
static SERVED: AtomicU64 = AtomicU64::new(0);

/// A history under way.
struct History {
    rng: StdRng,
    seed: u64,
    disk: SimDisk,
    kv: Arc<CrashKv>,
    clock: Arc<Ticking>,
    model: Model,
    /// The model after each event; the first is the tree as it was taken in.
    states: Vec<(Seq, Model)>,
    /// Everything up to here was acknowledged as durable.
    synced: Seq,
    /// What a view of each of these events shows.
    past: Vec<(Seq, Model)>,
    /// Events of which that is not known, without their ends.
    gaps: Vec<(Seq, Seq)>,
    /// Instants that were resolved, and what they must show for ever.
    views: Vec<(Instant, Seq, Model)>,
    /// Tags that were acknowledged; and what became of one when the disk died under it: its name, and its instant.
    tags: BTreeMap<String, Seq>,
    unsure: Option<(String, Option<Seq>)>,
    /// Leases that were told of, and when they end by the clock that cannot be set; and one that the disk died under.
    leases: BTreeMap<Seq, i64>,
    unsure_lease: Option<Seq>,
    /// Files held open, with or without a name.
    handles: Vec<(FileId, usize)>,
    /// What is left out of history now.
    patterns: Patterns,
    /// Files that bypass history, as they were fsynced, if nothing was written to them since.
    settled: HashMap<usize, Vec<u8>>,
    /// Of the next file that bypasses history.
    next_mark: u8,
    /// The operation of the disk at which the first session ends, where that is not left to chance.
    cut_at: Option<u64>,
    /// The last session ended because the disk died.
    disk_died: bool,
    cuts: u64,
    /// The further roots in the set.
    roots: Vec<&'static str>,
    /// The roots that leave the set at the next opening.
    without: Vec<&'static str>,
    /// The last session ended cleanly.
    clean: bool,
}

/// Where a root stands.
fn place(root: &str) -> PathBuf {
    Path::new("/").join(if root.is_empty() { "data" } else { root })
}

fn file(kind: FileKind, mode: u32, target: &[u8]) -> NewFile {
    NewFile { kind, mode, umask: 0, rdev: 0, target: target.to_vec(), uid: 0, gid: 0 }
}

impl History {
    fn new(seed: u64, roots: usize) -> History {
        let disk = SimDisk::new(seed);
        disk.set_reflinks(seed.is_multiple_of(2));
        let mut history = History {
            rng: StdRng::seed_from_u64(seed),
            seed,
            disk,
            kv: CrashKv::new(),
            clock: Arc::new(Ticking::new(1_800_000_000_000_000)),
            model: Model::new(),
            states: Vec::new(),
            past: Vec::new(),
            gaps: Vec::new(),
            synced: Seq::ZERO,
            views: Vec::new(),
            tags: BTreeMap::new(),
            unsure: None,
            leases: BTreeMap::new(),
            unsure_lease: None,
            handles: Vec::new(),
            patterns: Patterns::default(),
            settled: HashMap::new(),
            next_mark: 1,
            cut_at: None,
            disk_died: false,
            cuts: 0,
            roots: ROOTS[..roots].to_vec(),
            without: Vec::new(),
            clean: false,
        };
        history.populate("", ROOT);
        for root in history.roots.clone() {
            let id = history.model.add_root(root.as_bytes());
            history.populate(root, id);
        }
        history
    }

    /// What is in a root before Weft comes. Some are on a filesystem of their own.
    fn populate(&mut self, root: &str, id: usize) {
        let path = place(root);
        self.disk.create_dir("test", &path, 0o755).unwrap();
        if self.rng.random_bool(0.6) {
            self.disk.mount(&path).unwrap();
        }
        self.disk.create_dir("test", &path.join("d"), 0o750).unwrap();
        let dir = self.model.add(id, b"d", Body::Dir(Default::default()), 0o750);
        for (parent, below, name) in [(id, "a", "a"), (id, "b", "b"), (dir, "d/c", "c")] {
            let len = self.rng.random_range(0..30_000);
            let bytes: Vec<u8> = (0..len).map(|_| self.rng.random()).collect();
            let how = weft::disk::OpenHow { write: true, create: true, ..Default::default() };
            let open = self.disk.open("test", &path.join(below), how).unwrap();
            open.write_at("test", &bytes, 0).unwrap();
            self.model.add(parent, name.as_bytes(), Body::File(bytes), 0o600);
        }
        self.disk.link("test", &path.join("a"), &path.join("a2")).unwrap();
        let a = self.model.entries(id)[&b"a"[..]];
        self.model.link(a, id, b"a2");
        for dir in [Path::new("/"), &path] {
            self.disk.sync_filesystem("test", dir).unwrap();
        }
    }

    /// A root comes into the set, or leaves it.
    fn change_the_set(&mut self) {
        let new = ROOTS.iter().find(|root| self.disk.stat("test", &place(root)).unwrap().is_none());
        if let (true, Some(root)) = (self.rng.random_bool(0.5), new) {
            // Its content is made in the present model, and is what every later state begins from.
            let mut states = std::mem::take(&mut self.states);
            let id = self.model.add_root(root.as_bytes());
            self.populate(root, id);
            for (_, state) in &mut states {
                *state = self.model.clone();
            }
            self.states = states.split_off(states.len() - 1);
            self.roots.push(root);
        } else if let Some(root) = self.roots.pop() {
            let left = |model: &mut Model| model.roots.retain(|(name, _)| name != root.as_bytes());
            left(&mut self.model);
            self.states.iter_mut().for_each(|(_, state)| left(state));
            // What only its plain files held is gone with it; that it was there is known.
            self.views.iter_mut().for_each(|(_, _, view)| left(view));
            self.past.iter_mut().for_each(|(_, view)| left(view));
            self.without.push(root);
        }
    }

    fn options(&self) -> Options {
        let mut options = Options::new(Path::new(DATA), Path::new(STORE));
        options.segment_bytes = 4 << 20;
        options.cache_bytes = 64 << 10;
        options.shadow.snapshots = 2;
        options.open_files = 2;
        options.new_store_id = [5; 16];
        options.exclude.always = self.patterns.clone();
        let root = |root: &&str| RootDir { name: root.as_bytes().to_vec(), dir: place(root) };
        options.asked.roots = self.roots.iter().map(root).collect();
        options.asked.without = self.without.iter().map(|root| root.as_bytes().to_vec()).collect();
        options
    }

    /// Of every second history something is excluded, and every fourth changes its mind now and then.
    fn choose_patterns(&mut self) {
        let sets: [&[&str]; 3] = [&["d/", "k", "/c/", "f/"], &["d/", "m"], &[]];
        let choice = match self.seed % 4 {
            1 => 0,
            3 => self.rng.random_range(0..3),
            _ => return,
        };
        self.patterns = Patterns::parse(sets[choice]).unwrap();
    }

    fn try_open(&self) -> Result<Arc<Engine>> {
        bed::open(&self.disk, &self.kv, &self.clock, self.options())
    }

    /// The power goes; the index keeps all, what it had persisted, or nothing.
    fn cut(&mut self) {
        self.cuts += 1;
        if std::env::var_os("WEFT_SIM_TRACE").is_some() {
            eprintln!(
                "cut {} synced {} states {:?} at operation {}: {:?}",
                self.cuts,
                self.synced,
                self.states.last().map(|s| s.0),
                self.disk.operations(),
                self.disk.log()
            );
        }
        let seed = self.rng.random();
        self.disk = if self.rng.random_bool(0.2) { self.disk.kill() } else { self.disk.cut(seed) };
        let what = self.rng.random_range(0..4);
        self.kv = self.kv.crash(what);
    }

    fn plan_cut(&mut self, within: u64) {
        self.disk.keep_log(8);
        let at = self.disk.operations() + self.rng.random_range(0..within);
        self.disk.cut_at(at);
    }

    /// Opens, with power cuts on the way.
    fn open(&mut self) -> Arc<Engine> {
        for attempt in 0.. {
            self.choose_patterns();
            if attempt < 3 && self.rng.random_bool(0.5) {
                self.plan_cut(120);
            }
            match self.try_open() {
                Ok(engine) => {
                    self.disk.clear_faults();
                    if !self.disk.is_dead() {
                        self.without.clear();
                        return engine;
                    }
                }
                // The attempt before got as far as taking it out.
                Err(error) if !self.disk.is_dead() && error.message.contains("could be left out") => {
                    self.without.clear();
                    continue;
                }
                Err(error) => assert!(self.disk.is_dead(), "seed {}: {error}", self.seed),
            }
            self.cut();
        }
        unreachable!("the loop ends with an engine")
    }

    fn last(engine: &Engine) -> Seq {
        Seq(engine.status().seq)
    }

    fn note(&mut self, engine: &Engine) {
        self.states.push((History::last(engine), self.model.clone()));
        self.past.push((History::last(engine), self.model.visible(&self.patterns)));
    }

    /// What an instant may show: where it lies within what one step did, what was before or after.
    fn may_show(&self, at: Seq) -> Vec<&Model> {
        let after = self.past.partition_point(|(seq, _)| *seq < at);
        let exact = self.past[after..].iter().take_while(|(seq, _)| *seq == at).map(|(_, model)| model);
        let exact: Vec<&Model> = exact.collect();
        match exact.is_empty() {
            false => exact,
            true => {
                let near = self.past[after.saturating_sub(1)..].iter().take(2);
                near.map(|(_, model)| model).collect()
            }
        }
    }

    fn check_view(&self, engine: &Engine, at: Seq) {
        if self.gaps.iter().any(|(before, behind)| *before < at && at < *behind) {
            return;
        }
        let view = engine.view(at).unwrap();
        let differences: Vec<_> =
            self.may_show(at).into_iter().map(|model| difference(&*view, model)).collect();
        assert!(
            differences.is_empty() || differences.iter().any(Option::is_none),
            "seed {} after {} cuts: kept view at {at}: {differences:?}",
            self.seed,
            self.cuts
        );
    }

    /// Every instant that remains is what it was, and what was pruned is refused.
    fn check_kept(&self, engine: &Engine) {
        let thinned = engine.thinned();
        let noted: Vec<Seq> = self.past.iter().map(|(seq, _)| *seq).collect();
        let first = self.past.first().map_or(Seq::ZERO, |(seq, _)| *seq);
        let durable = Seq(engine.status().durable_seq);
        let later = noted.iter().copied().filter(|seq| *seq > thinned.upto() && *seq <= durable).step_by(7);
        for at in thinned.kept().iter().copied().chain(later).filter(|at| *at >= first) {
            self.check_view(engine, at);
        }
        for at in noted.into_iter().filter(|seq| !thinned.keeps(*seq)) {
            assert!(engine.view(at).err().unwrap().is(libc::ESTALE), "seed {}: {at}", self.seed);
            match (engine.resolve(Instant::Seq(at)).unwrap(), thinned.at_or_before(at)) {
                (Resolution::Found(found), Some(shown)) => assert_eq!((found.seq, found.meant), (shown, at)),
                (Resolution::Pruned { .. }, None) => {}
                other => panic!("seed {}: {at} is {other:?}", self.seed),
            }
        }
    }

    /// What bypasses history is, after a crash, what it is.
    fn accept(&self, engine: &Engine, model: &Model) -> Model {
        let mut model = model.clone();
        let tops = engine.roots().unwrap();
        for Named { dir, path, name, id } in model.names() {
            let root = model.root_of(dir);
            let (root_name, _) = model.roots.iter().find(|(_, id)| *id == root).unwrap();
            let Some(top) = tops.iter().find(|top| top.name == *root_name) else { continue };
            let parent =
                path.iter().try_fold(top.file, |at, name| engine.lookup(at, name).map(|found| found.0));
            let found = parent.and_then(|parent| engine.lookup(parent, &name));
            let (true, Ok((file, attr))) = (model.inodes[id].direct, found) else { continue };
            if attr.kind != FileKind::Regular || model.entries(dir).get(&name) != Some(&id) {
                continue;
            }
            *model.bytes(id) = support::trees::Tree::bytes(engine, file, attr.size);
        }
        model
    }

    /// Of what bypasses history that which was fsynced is there, and never anything of another file.
    fn is_sound(&self, model: &Model) -> bool {
        model.names().into_iter().filter(|named| model.inodes[named.id].direct).all(|named| {
            let Body::File(bytes) = &model.inodes[named.id].body else { return true };
            let mark = model.inodes[named.id].mark;
            self.settled.get(&named.id).is_none_or(|settled| settled == bytes)
                && mark.is_none_or(|mark| bytes.iter().all(|byte| [0, mark, !mark].contains(byte)))
        })
    }

    /// After a recovery, and the reconciliation with the patterns of now: which files bypass history.
    fn learn_direct(&mut self, engine: &Engine) {
        for Named { dir, name, id, .. } in self.model.names() {
            if !matches!(self.model.inodes[id].body, Body::File(_)) {
                continue;
            }
            let (_, file) = self.find(engine, dir, &name);
            let direct = engine.bypasses_history(file).unwrap();
            if direct != self.model.inodes[id].direct {
                self.model.inodes[id].mark = None;
                self.settled.remove(&id);
            }
            self.model.inodes[id].direct = direct;
        }
        let excluded = self.model.names().len() - self.model.visible(&self.patterns).names().len();
        assert!(engine.status().excluded_files as usize <= excluded, "seed {}", self.seed);
    }

    fn check_present(&self, engine: &Engine) {
        if let Some(difference) = difference(engine, &self.model) {
            panic!("seed {} after {} cuts: present: {difference}", self.seed, self.cuts);
        }
    }

    fn check_views(&self, engine: &Engine) {
        self.check_kept(engine);
        let thinned = engine.thinned();
        // Twice: with the shadows as they are found, and with what the first reading has noted of them.
        for (instant, seq, model) in self.views.iter().chain(self.views.iter().rev()) {
            match engine.resolve(*instant).unwrap() {
                Resolution::Found(found) => {
                    assert_eq!(found.meant, *seq, "seed {}: {instant:?} moved", self.seed);
                    assert_eq!(
                        Some(found.seq),
                        thinned.at_or_before(*seq),
                        "seed {}: {instant:?}",
                        self.seed
                    );
                }
                Resolution::Pruned { .. } if thinned.at_or_before(*seq).is_none() => {}
                other => panic!("seed {}: {instant:?} is {other:?}", self.seed),
            }
            if !thinned.keeps(*seq) {
                continue;
            }
            let view = engine.view(*seq).unwrap();
            if let Some(difference) = difference(&*view, model) {
                panic!("seed {} after {} cuts: view at {seq}: {difference}", self.seed, self.cuts);
            }
        }
        let served = engine.shadow_status().served_bytes;
        SERVED.fetch_add(served, Ordering::Relaxed);
        assert!(engine.shadows().iter().all(|shadow| shadow.broken.is_none()), "{:?}", engine.shadows());
    }

    /// After a recovery: which prefix survived; nothing durable may be missing.
    fn settle(&mut self, engine: &Engine) {
        self.check_tags(engine);
        self.check_leases(engine);
        if std::env::var_os("WEFT_SIM_TRACE").is_some() {
            eprintln!("settle: {:?} synced {}", engine.status(), self.synced);
        }
        let last = History::last(engine);
        let recovered = self.states.iter().rposition(|(seq, model)| *seq <= last && self.fits(engine, model));
        let Some(index) = recovered else {
            let newest = difference(engine, &self.states.last().unwrap().1);
            panic!(
                "seed {} after {} cuts: the present is no prefix of what was done: {newest:?}",
                self.seed, self.cuts
            );
        };
        let (seq, model) = self.states[index].clone();
        let model = self.accept(engine, &model);
        assert!(
            seq >= self.synced,
            "seed {}: event {seq} is all there is, {} was synced",
            self.seed,
            self.synced
        );
        self.states.truncate(index + 1);
        // Which of the events behind that survived is not known: others may have their numbers now.
        let synced = self.synced;
        self.past.retain(|(seq, _)| *seq <= synced);
        self.gaps.push((synced, last));
        self.model = model;
        self.settled.retain(|id, _| *id < self.model.inodes.len());
        self.learn_direct(engine);
    }

    fn fits(&self, engine: &Engine, model: &Model) -> bool {
        let model = self.accept(engine, model);
        difference(engine, &model).is_none() && self.is_sound(&model)
    }

    fn sync(&mut self, engine: &Engine) {
        let (done, wait) = std::sync::mpsc::channel();
        let last = History::last(engine);
        engine.sync(Box::new(move |result| done.send(result).unwrap()));
        if wait.recv().unwrap().is_ok() {
            self.synced = last;
        }
    }

    /// The clock is set, by a little or by years, and time passes.
    fn set_clock(&mut self, engine: &Engine) {
        const SECOND: i64 = 1_000_000;
        let by =
            [SECOND, 10 * SECOND, 3_600 * SECOND, 73 * 365 * 86_400 * SECOND][self.rng.random_range(0..4)];
        self.clock.step(if self.rng.random_bool(0.5) { by } else { -by });
        self.clock.pass(self.rng.random_range(0..60 * SECOND));
        // The first look at the clock may append an event.
        engine.now();
        self.note(engine);
    }

    fn resolve(&mut self, engine: &Engine) {
        if let Ok((Resolution::Found(found), named)) = engine.resolve_ago(0) {
            self.synced = found.seq;
            self.views.push((named, found.seq, self.model.visible(&self.patterns)));
            self.note(engine);
        }
    }

    /// Gives a tag to the present, or takes one back.
    fn tag(&mut self, engine: &Engine) {
        let name = format!("t{}", self.rng.random_range(0..4));
        let (done, at) = match self.tags.get(&name) {
            Some(_) => (engine.untag(&name).map(|_| ()), None),
            None => {
                let Ok(Resolution::Found(found)) = engine.resolve(Instant::Time(engine.now())) else {
                    return;
                };
                (engine.tag(&name, found.seq).map(|_| ()), Some(found.seq))
            }
        };
        match (done, at) {
            (Err(_), at) => self.unsure = Some((name, at)),
            (Ok(()), Some(at)) => drop(self.tags.insert(name, at)),
            (Ok(()), None) => drop(self.tags.remove(&name)),
        }
        if !self.disk.is_dead() {
            self.synced = History::last(engine);
            self.note(engine);
        }
    }

    /// The tags are those acknowledged, but for the one that the disk died under.
    fn check_tags(&mut self, engine: &Engine) {
        let found: BTreeMap<String, Seq> =
            engine.tags().into_iter().map(|tag| (String::from_utf8(tag.name).unwrap(), tag.at)).collect();
        let mut other = self.tags.clone();
        match self.unsure.take() {
            Some((name, Some(at))) => drop(other.insert(name, at)),
            Some((name, None)) => drop(other.remove(&name)),
            None => {}
        }
        assert!(
            found == self.tags || found == other,
            "seed {} after {} cuts: tags {found:?} are neither {:?} nor {other:?}",
            self.seed,
            self.cuts,
            self.tags
        );
        self.tags = found;
    }

    /// Has the present leased, or ends a lease.
    fn lease(&mut self, engine: &Engine) {
        let known = self.leases.keys().next().copied().filter(|_| self.rng.random_bool(0.3));
        let known = known.filter(|at| engine.leases().iter().any(|lease| lease.at == *at));
        if let Some(at) = known {
            self.unsure_lease = engine.end_lease(at.0).is_err().then_some(at);
            self.leases.remove(&at);
        } else if let Ok((Resolution::Found(found), _, Some(granted))) = engine.resolve_ago_leased(0, "sim") {
            let durable = granted.lease.durable;
            assert!(durable == granted.trouble.is_none() && (durable || self.disk.is_dead()));
            self.unsure_lease = (!durable).then_some(found.seq);
            if durable {
                self.leases.insert(found.seq, self.clock.passed() + granted.lease.left_us);
            }
        }
        if !self.disk.is_dead() {
            self.synced = History::last(engine);
            self.note(engine);
        }
    }

    /// Leases that were told of run on, and those that were ended do not.
    fn check_leases(&mut self, engine: &Engine) {
        // What steps of the clock below the limit may be taken for, of time that passed.
        const SLACK_US: i64 = 60_000_000;
        let now = self.clock.passed();
        let found: BTreeMap<Seq, i64> =
            engine.leases().iter().map(|lease| (lease.at, now + lease.left_us)).collect();
        for (at, due) in &self.leases {
            let runs = found.get(at).is_some_and(|found| found + SLACK_US >= *due);
            assert!(
                runs || *due < now + SLACK_US,
                "seed {} after {} cuts: lease {at} is {:?}, {due} was told, it is {now}",
                self.seed,
                self.cuts,
                found.get(at)
            );
        }
        let told = |at: &Seq| self.leases.contains_key(at) || self.unsure_lease == Some(*at);
        assert!(found.keys().all(told), "seed {} after {} cuts: {found:?}", self.seed, self.cuts);
        self.leases.retain(|at, _| found.contains_key(at));
        if let Some(at) = self.unsure_lease.take()
            && let Some(due) = found.get(&at)
        {
            self.leases.insert(at, *due);
        }
    }

    /// One random operation; `Err` once the disk is dead.
    fn step(&mut self, engine: &Engine) -> Result<()> {
        match self.rng.random_range(0..110) {
            0..35 => self.write(engine)?,
            35..45 => self.truncate(engine)?,
            45..50 => self.zero(engine)?,
            50..58 => self.make(engine)?,
            58..66 => self.unlink(engine)?,
            66..74 => self.rename(engine)?,
            74..78 => self.attributes(engine)?,
            78..84 => self.sync(engine),
            84 if self.seed % 2 == 1 => self.fsync(engine)?,
            84..86 => self.resolve(engine),
            86 => self.tag(engine),
            98 => self.lease(engine),
            87..90 => self.open_or_release(engine)?,
            90 => self.set_clock(engine),
            91..94 => drop(engine.apply()?),
            94..96 => drop(engine.checkpoint()?),
            96..98 => self.weave(engine)?,
            102..105 => self.prune(engine)?,
            105.. => self.shadow(engine)?,
            _ => drop(engine.index_some()?),
        }
        Ok(())
    }

    /// Makes a file that bypasses history durable.
    fn fsync(&mut self, engine: &Engine) -> Result<()> {
        let Some((dir, name, id)) = self.pick_file() else { return Ok(()) };
        let (_, file) = self.find(engine, dir, &name);
        let (done, wait) = std::sync::mpsc::channel();
        engine.fsync(file, Box::new(move |result| done.send(result).unwrap()));
        wait.recv().unwrap()?;
        if self.model.inodes[id].direct {
            let bytes = self.model.bytes(id).clone();
            self.settled.insert(id, bytes);
        }
        Ok(())
    }

    /// Bytes for a file: what bypasses history has its own.
    fn fill(&mut self, id: usize, len: usize) -> Vec<u8> {
        self.touch(id);
        let fill: u8 = self.rng.random();
        match self.model.inodes[id].mark {
            Some(mark) => vec![if fill & 1 == 0 { mark } else { !mark }; len],
            None => (0..len).map(|at| fill ^ (at % 253) as u8).collect(),
        }
    }

    /// Is about to be changed: what was fsynced of it need not last.
    fn touch(&mut self, id: usize) {
        if self.model.inodes[id].direct {
            self.settled.remove(&id);
        }
    }

    /// What earlier sessions left sealed is woven, with a cut anywhere in it.
    fn weave(&mut self, engine: &Engine) -> Result<()> {
        engine.checkpoint()?;
        while engine.index_some()? {}
        if self.cut_at.is_none() && self.rng.random_bool(0.3) {
            self.plan_cut(40);
        }
        while let Weaving::Wove(_) = engine.weave(&Unpaced)? {}
        Ok(())
    }

    /// History is thinned, with a cut anywhere in it. Tags hold what they name.
    fn prune(&mut self, engine: &Engine) -> Result<()> {
        self.weave(engine)?;
        let tier = |every_us, for_us| Tier { every_us, for_us: Some(for_us) };
        let all_us = Some(self.rng.random_range(0..2_000));
        let tiers = [
            vec![],
            vec![tier(50, 1_000)],
            vec![tier(50, 500), tier(200, self.rng.random_range(1..90_000_000))],
        ][self.rng.random_range(0..3)]
        .clone();
        engine.set_retention(Retention { all_us, tiers, ..Retention::everything() });
        if self.cut_at.is_none() && self.rng.random_bool(0.3) {
            self.plan_cut(40);
        }
        let dry = engine.prune(&Unpaced, true)?;
        assert!(dry.dry && dry.thinning.after_bytes <= dry.thinning.before_bytes);
        engine.prune(&Unpaced, false)?;
        if !self.disk.is_dead() {
            let thinned = engine.thinned();
            assert!(self.tags.values().all(|at| thinned.keeps(*at)), "seed {}: a tag was pruned", self.seed);
            self.note(engine);
        }
        Ok(())
    }

    /// A shadow comes, is kept up to date, or goes, with a cut anywhere in it.
    fn shadow(&mut self, engine: &Engine) -> Result<()> {
        let Some((dir, name, _)) = self.pick_file() else { return Ok(()) };
        let (_, root, mut path) = self.model.dirs().into_iter().find(|(id, _, _)| *id == dir).unwrap();
        let (root, _) = self.model.roots.iter().find(|(_, id)| *id == root).unwrap().clone();
        path.push(name);
        let subject = engine.shadow_subject(&root, &path.join(&b'/'));
        if self.cut_at.is_none() && self.rng.random_bool(0.2) {
            self.plan_cut(30);
        }
        let at = match self.rng.random_range(0..4) {
            0 => self.views.last().map(|view| view.1),
            1 if !self.views.is_empty() => Some(self.views[self.rng.random_range(0..self.views.len())].1),
            _ => None,
        };
        let mut pages = PageSet::default();
        let some = self.rng.random_bool(0.2).then(|| {
            (0..8)
                .filter(|_| self.rng.random_bool(0.4))
                .for_each(|page| pages.write(page * 4096, page * 4096 + 1));
            pages
        });
        let done = match self.rng.random_range(0..6) {
            0 => engine.remove_shadows(&root, &String::from_utf8_lossy(&path.join(&b'/'))).map(|_| ()),
            1 => {
                engine.resume_shadows();
                let (benefit, reason, urgent) = (1.0, ShadowReason::Rule, false);
                engine.wish(Wish { subject, pages: some, at, benefit, reason, urgent });
                engine.shadow_step().map(|_| ())
            }
            _ => engine.add_shadow(subject, some, at).map(|_| ()),
        };
        match done {
            // Not history, not there at that instant, or gone with its root.
            Err(error) if matches!(error.kind, Kind::Invalid | Kind::Lost) => Ok(()),
            // That instant was pruned.
            Err(error) if error.is(libc::ESTALE) => Ok(()),
            other => other,
        }
    }

    fn find(&self, engine: &Engine, dir: usize, name: &[u8]) -> (FileId, FileId) {
        let (_, root, path) = self.model.dirs().into_iter().find(|(id, _, _)| *id == dir).unwrap();
        let (name_of_root, _) = self.model.roots.iter().find(|(_, id)| *id == root).unwrap();
        let top = engine.roots().unwrap().into_iter().find(|root| root.name == *name_of_root).unwrap().file;
        let parent = path.iter().fold(top, |at, name| engine.lookup(at, name).unwrap().0);
        let file = if name.is_empty() { parent } else { engine.lookup(parent, name).unwrap().0 };
        (parent, file)
    }

    fn pick_file(&mut self) -> Option<(usize, Vec<u8>, usize)> {
        let mut files = Vec::new();
        for (dir, _, _) in self.model.dirs() {
            for (name, id) in self.model.entries(dir) {
                if matches!(self.model.inodes[*id].body, Body::File(_)) {
                    files.push((dir, name.clone(), *id));
                }
            }
        }
        if files.is_empty() { None } else { Some(files[self.rng.random_range(0..files.len())].clone()) }
    }

    fn pick_dir(&mut self) -> usize {
        let dirs = self.model.dirs();
        dirs[self.rng.random_range(0..dirs.len())].0
    }

    fn write(&mut self, engine: &Engine) -> Result<()> {
        let Some((file, id)) = self.pick_target(engine) else { return Ok(()) };
        let size = self.model.bytes(id).len();
        let aligned = self.rng.random_bool(0.5);
        let mut offset = self.rng.random_range(0..size + 9000);
        let mut len = self.rng.random_range(1..9000);
        if aligned {
            (offset, len) = (offset & !4095, (len & !4095) + 4096);
        }
        let bytes = self.fill(id, len);
        engine.write(file, offset as u64, &bytes, false)?;
        self.model.write(id, offset, &bytes);
        self.note(engine);
        Ok(())
    }

    fn open_or_release(&mut self, engine: &Engine) -> Result<()> {
        if self.handles.len() > 2 {
            let (file, _) = self.handles.swap_remove(0);
            engine.release_file(file);
            return Ok(());
        }
        let Some((dir, name, id)) = self.pick_file() else { return Ok(()) };
        let (_, file) = self.find(engine, dir, &name);
        engine.open_file(file)?;
        self.handles.push((file, id));
        Ok(())
    }

    /// What is held open reads and takes writes as if nothing had happened to its name.
    fn check_handles(&mut self, engine: &Engine) {
        for (file, id) in self.handles.clone() {
            let expected = self.model.bytes(id).clone();
            let mut found = vec![0; expected.len() + 7];
            let got = engine.read(file, 0, &mut found).unwrap();
            assert!(found[..got] == expected[..], "seed {}: an open file changed", self.seed);
        }
    }

    /// A file to change: one with a name, or one that is only open.
    fn pick_target(&mut self, engine: &Engine) -> Option<(FileId, usize)> {
        if !self.handles.is_empty() && self.rng.random_bool(0.2) {
            let at = self.rng.random_range(0..self.handles.len());
            return Some(self.handles[at]);
        }
        let (dir, name, id) = self.pick_file()?;
        Some((self.find(engine, dir, &name).1, id))
    }

    fn truncate(&mut self, engine: &Engine) -> Result<()> {
        let Some((file, id)) = self.pick_target(engine) else { return Ok(()) };
        let size = if self.rng.random_bool(0.3) { 0 } else { self.rng.random_range(0..40_000) };
        self.touch(id);
        engine.set_attr(file, SetAttr { size: Some(size as u64), ..SetAttr::default() })?;
        self.model.bytes(id).resize(size, 0);
        self.note(engine);
        Ok(())
    }

    fn zero(&mut self, engine: &Engine) -> Result<()> {
        let Some((dir, name, id)) = self.pick_file() else { return Ok(()) };
        let (_, file) = self.find(engine, dir, &name);
        let (offset, len) = (self.rng.random_range(0..30_000), self.rng.random_range(1..20_000));
        self.touch(id);
        engine.fallocate(file, Fallocate::Punch, offset as u64, len as u64)?;
        self.model.zero(id, offset, len);
        self.note(engine);
        Ok(())
    }

    fn make(&mut self, engine: &Engine) -> Result<()> {
        let dir = self.pick_dir();
        let name = vec![b'a' + self.rng.random_range(0..12)];
        if self.model.entries(dir).contains_key(&name) {
            return Ok(());
        }
        let (parent, _) = self.find(engine, dir, b"");
        match self.rng.random_range(0..10) {
            0..5 => {
                engine.create(parent, &name, file(FileKind::Regular, 0o640, b""))?;
                let id = self.model.add(dir, &name, Body::File(Vec::new()), 0o640);
                if self.model.would_exclude(&self.patterns, dir, &name, false) {
                    self.model.inodes[id].direct = true;
                    self.model.inodes[id].mark = Some(self.next_mark);
                    self.next_mark = self.next_mark % 120 + 1;
                    self.settled.remove(&id);
                }
            }
            5..7 => {
                engine.create(parent, &name, file(FileKind::Directory, 0o700, b""))?;
                self.model.add(dir, &name, Body::Dir(Default::default()), 0o700);
            }
            7 => {
                engine.create(parent, &name, file(FileKind::Symlink, 0o777, b"../x"))?;
                self.model.add(dir, &name, Body::Link(b"../x".to_vec()), 0o777);
            }
            _ => {
                let Some((other, old, id)) = self.pick_file() else { return Ok(()) };
                let (_, existing) = self.find(engine, other, &old);
                if self.crosses(dir, other) {
                    let crossed = engine.link(existing, parent, &name).unwrap_err();
                    assert!(crossed.is(libc::EXDEV) || self.disk.is_dead(), "{crossed}");
                    return Ok(());
                }
                engine.link(existing, parent, &name)?;
                self.model.link(id, dir, &name);
                self.model.capture(&self.patterns);
            }
        }
        self.note(engine);
        Ok(())
    }

    fn unlink(&mut self, engine: &Engine) -> Result<()> {
        let dir = self.pick_dir();
        let entries = self.model.entries(dir).clone();
        let Some((name, id)) = entries.iter().nth(self.rng.random_range(0..entries.len().max(1))) else {
            return Ok(());
        };
        let (parent, _) = self.find(engine, dir, b"");
        match &self.model.inodes[*id].body {
            Body::Dir(below) if !below.is_empty() => return Ok(()),
            Body::Dir(_) => engine.remove_dir(parent, name)?,
            _ => engine.unlink(parent, name)?,
        }
        self.model.remove(dir, name);
        self.note(engine);
        Ok(())
    }

    fn rename(&mut self, engine: &Engine) -> Result<()> {
        let Some((from_dir, from, id)) = self.pick_file() else { return Ok(()) };
        let (from_parent, _) = self.find(engine, from_dir, b"");
        if let (true, Some((to_dir, to, other))) = (self.rng.random_bool(0.5), self.pick_file()) {
            let (to_parent, _) = self.find(engine, to_dir, b"");
            if id == other {
                return Ok(());
            }
            if self.crosses(from_dir, to_dir) {
                return self.refuse_rename(engine, (from_parent, &from), (to_parent, &to));
            }
            if self.rng.random_bool(0.3) {
                engine.rename((from_parent, &from), (to_parent, &to), RenameMode::Exchange)?;
                self.model.exchange((from_dir, &from), (to_dir, &to));
            } else {
                engine.rename((from_parent, &from), (to_parent, &to), RenameMode::Replace)?;
                self.model.rename((from_dir, &from), (to_dir, &to));
            }
        } else {
            let to_dir = self.pick_dir();
            let name = vec![b'm' + self.rng.random_range(0..6)];
            if self.model.entries(to_dir).contains_key(&name) {
                return Ok(());
            }
            let (to_parent, _) = self.find(engine, to_dir, b"");
            if self.crosses(from_dir, to_dir) {
                return self.refuse_rename(engine, (from_parent, &from), (to_parent, &name));
            }
            engine.rename((from_parent, &from), (to_parent, &name), RenameMode::NoReplace)?;
            self.model.rename((from_dir, &from), (to_dir, &name));
        }
        self.model.capture(&self.patterns);
        self.note(engine);
        Ok(())
    }

    fn crosses(&self, left: usize, right: usize) -> bool {
        self.model.root_of(left) != self.model.root_of(right)
    }

    fn refuse_rename(&self, engine: &Engine, from: (FileId, &[u8]), to: (FileId, &[u8])) -> Result<()> {
        for mode in [RenameMode::Replace, RenameMode::Exchange] {
            let crossed = engine.rename(from, to, mode).unwrap_err();
            assert!(crossed.is(libc::EXDEV), "seed {}: {crossed}", self.seed);
        }
        Ok(())
    }

    fn attributes(&mut self, engine: &Engine) -> Result<()> {
        let Some((dir, name, id)) = self.pick_file() else { return Ok(()) };
        let (_, file) = self.find(engine, dir, &name);
        if self.rng.random_bool(0.5) {
            let mode = self.rng.random_range(0..0o1000);
            engine.set_attr(file, SetAttr { mode: Some(mode), ..SetAttr::default() })?;
            self.model.inodes[id].mode = mode;
        } else {
            let value = vec![self.rng.random()];
            engine.set_xattr(file, b"user.x", &value, (false, false), Caller::Privileged)?;
            self.model.inodes[id].xattrs.insert(b"user.x".to_vec(), value);
        }
        self.note(engine);
        Ok(())
    }

    /// Works for a while, then loses the power or unmounts.
    fn session(&mut self, engine: Arc<Engine>) {
        self.handles.clear();
        let steps = if self.cut_at.is_some() { 30 } else { self.rng.random_range(5..60) };
        match self.cut_at {
            Some(at) => self.disk.cut_at(at),
            None if self.rng.random_bool(0.6) => self.plan_cut(steps * 6),
            None => {}
        }
        for _ in 0..steps {
            if let Err(error) = self.step(&engine) {
                assert!(self.disk.is_dead(), "seed {}: {error}", self.seed);
                break;
            }
        }
        self.disk_died = self.disk.is_dead();
        if !self.disk_died {
            self.check_present(&engine);
            self.check_handles(&engine);
            if self.cut_at.is_none() && self.rng.random_bool(0.4) {
                return self.unmount(&engine);
            }
        }
        self.cut();
    }

    fn unmount(&mut self, engine: &Engine) {
        if self.rng.random_bool(0.5) {
            self.plan_cut(150);
        }
        self.note(engine);
        match engine.close() {
            Ok(()) => {
                self.synced = self.synced.max(self.states.last().unwrap().0);
                // What is closed last is needed for no history, and its errors are none of the unmount's.
                if self.rng.random_bool(0.5) || self.disk.is_dead() {
                    self.cut();
                }
                for (name, id) in &self.model.roots {
                    let dir = place(std::str::from_utf8(name).unwrap());
                    if let Some(difference) = plain_difference(&self.disk, &dir, &self.model, *id) {
                        panic!("seed {} after {} cuts: plain: {difference}", self.seed, self.cuts);
                    }
                }
                self.disk.clear_faults();
                self.clean = true;
            }
            Err(error) => {
                assert!(self.disk.is_dead(), "seed {}: {error}", self.seed);
                self.cut();
            }
        }
        if self.disk.is_dead() {
            self.cut();
        }
    }

    fn run(seed: u64) {
        let mut history = History::new(seed, (seed % 3) as usize);
        for round in 0..5 {
            if std::mem::take(&mut history.clean) && !history.disk.is_dead() && history.rng.random_bool(0.4) {
                history.change_the_set();
            }
            let engine = history.open();
            if round == 0 {
                history.note(&engine);
            }
            history.settle(&engine);
            history.note(&engine);
            history.check_present(&engine);
            history.check_views(&engine);
            history.session(engine);
        }
        let engine = history.open();
        history.settle(&engine);
        history.check_views(&engine);
    }
}

impl History {
    /// One session that is cut at exactly the `at`-th operation of the disk; `false` when it ended before.
    fn run_cut_at(seed: u64, at: u64) -> bool {
        let mut history = History::new(seed, (seed % 3) as usize);
        history.cut_at = Some(u64::MAX);
        history.choose_patterns();
        let engine = history.try_open().unwrap();
        let begun = history.disk.operations();
        history.learn_direct(&engine);
        history.note(&engine);
        history.cut_at = Some(begun + at);
        history.session(engine);
        let reached = history.disk_died;
        let engine = history.try_open().unwrap();
        history.settle(&engine);
        history.note(&engine);
        history.check_present(&engine);
        history.check_views(&engine);
        reached
    }
}

#[test]
fn a_history_survives_a_cut_at_each_of_its_operations() {
    let mut all = 0;
    for seed in 9_010..9_014 {
        let mut at = 1;
        while History::run_cut_at(seed, at) {
            at += 1;
        }
        all += at;
    }
    assert!(all > 60, "{all} operations do not say much");
}

impl History {
    /// Opens and closes, in the opening (`closing` 0) or closing (1) cut at exactly the `at`-th operation of the disk,
    /// and once more; `false` when that ended before. Whatever root was on its way in or out is found whole.
    fn run_move_cut_at(seed: u64, closing: bool, at: u64) -> bool {
        let mut history = History::new(seed, 2);
        history.cut_at = Some(u64::MAX);
        if !closing {
            history.disk.cut_at(history.disk.operations() + at);
        }
        let mut opened = history.try_open();
        let mut reached = history.disk.is_dead();
        if reached {
            history.cut();
            opened = history.try_open();
        }
        let engine = opened.unwrap();
        history.disk.clear_faults();
        history.note(&engine);
        if closing {
            for _ in 0..10 {
                history.step(&engine).unwrap();
            }
            history.note(&engine);
            history.sync(&engine);
            history.disk.cut_at(history.disk.operations() + at);
            reached = engine.close().is_err() || history.disk.is_dead();
            drop(engine);
            history.cut();
        } else {
            history.check_present(&engine);
            drop(engine);
            history.disk = history.disk.kill();
        }
        let engine = history.try_open().unwrap();
        history.settle(&engine);
        history.check_present(&engine);
        history.check_views(&engine);
        engine.close().unwrap();
        for (name, id) in &history.model.roots {
            let dir = place(std::str::from_utf8(name).unwrap());
            let difference = plain_difference(&history.disk, &dir, &history.model, *id);
            assert_eq!(difference, None, "seed {seed}, operation {at}");
        }
        reached
    }
}

#[test]
fn roots_on_their_way_in_or_out_survive_a_cut_at_each_operation() {
    for closing in [false, true] {
        let mut at = 1;
        while History::run_move_cut_at(8_000, closing, at) {
            at += 1;
        }
        assert!(at > 60, "closing {closing}: {at} operations do not say much");
    }
}

#[test]
fn any_history_survives_power_cuts_anywhere() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let first = number("WEFT_SIM_FIRST", 1);
    for seed in first..first + number("WEFT_SIM_SEEDS", 400) {
        History::run(seed);
    }
    assert!(SERVED.load(Ordering::Relaxed) > 1 << 20, "shadows served {SERVED:?} bytes");
}
