//! A world whose history is pruned: files of several habits, instants that are noted with what they had, and what of them
//! remains.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what it did not expect")]

use super::Ticking;
use super::bed::{self, DATA, STORE};
use super::kv::CrashKv;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::sync::Arc;
use weft::disk::sim::SimDisk;
use weft::disk::{Disk, OpenHow};
use weft::engine::{Engine, Instant, Resolution, SetAttr, Unpaced, Weaving};
use weft::error::Result;
use weft::live::rest::RestRule;
use weft::meta::retention::{Retention, Tier};
use weft::types::{FileId, Seq, Timestamp};

const NAMES: [&str; 4] = ["table", "wal", "small", "sparse"];
/// µs between two instants that are noted.
pub const STEP_US: i64 = 1_000;

pub type Contents = Vec<(&'static str, Vec<u8>)>;

#[derive(Clone)]
pub struct Past {
    pub ts: Timestamp,
    pub seq: Seq,
    pub contents: Contents,
}

pub struct World {
    pub rng: StdRng,
    pub disk: SimDisk,
    pub kv: Arc<CrashKv>,
    pub clock: Arc<Ticking>,
    pub now: Contents,
    pub past: Vec<Past>,
}

pub fn try_open(disk: &SimDisk, kv: &Arc<CrashKv>, clock: &Arc<Ticking>) -> Result<Arc<Engine>> {
    let mut options = bed::options();
    options.segment_bytes = 1;
    // These files are small.
    options.rest = RestRule { least_pages: 1, pages_for_one: 1, looks: u32::MAX };
    options.page_slack_bytes = 0;
    bed::open(disk, kv, clock, options)
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            rng: StdRng::seed_from_u64(seed),
            disk: bed::disk(seed),
            kv: CrashKv::new(),
            clock: Arc::new(Ticking::new(1_800_000_000_000_000)),
            now: Vec::new(),
            past: Vec::new(),
        }
    }

    /// A world whose DATA held files of so many bytes before Weft came.
    pub fn over(seed: u64, files: &[(&'static str, usize)]) -> World {
        let mut world = World::new(seed);
        for (name, len) in files {
            let bytes: Vec<u8> = (0..*len).map(|_| world.rng.random()).collect();
            let how = OpenHow { write: true, create: true, ..OpenHow::default() };
            let file = world.disk.open("test", &Path::new(DATA).join(name), how).unwrap();
            file.write_at("test", &bytes, 0).unwrap();
            world.now.push((name, bytes));
        }
        world.disk.sync_filesystem("test", Path::new("/")).unwrap();
        world
    }

    pub fn open(&self) -> Arc<Engine> {
        try_open(&self.disk, &self.kv, &self.clock).unwrap()
    }

    /// Sessions, each of which leaves a sealed segment behind.
    pub fn sessions(&mut self, count: usize) {
        for _ in 0..count {
            let engine = self.open();
            for _ in 0..4 {
                self.work(&engine);
            }
            self.seal(engine);
        }
    }

    /// Ends a session; its segment is sealed by the next.
    pub fn seal(&mut self, engine: Arc<Engine>) {
        engine.checkpoint().unwrap();
        engine.abandon();
        drop(engine);
        self.disk = self.disk.kill();
    }

    /// Pages rewritten whole and in part, a log rewritten at its end and begun anew, holes, a file that comes and goes; then
    /// an instant is noted.
    pub fn work(&mut self, engine: &Engine) {
        for name in NAMES {
            if !self.now.iter().any(|(known, _)| *known == name) {
                engine.create(FileId::ROOT, name.as_bytes(), bed::regular()).unwrap();
                self.now.push((name, Vec::new()));
            }
        }
        for _ in 0..6 {
            let page = self.rng.random_range(0..6) * 8192;
            let bytes = vec![self.rng.random(); 8192];
            self.write(engine, "table", page, &bytes);
            let end = self.content("wal").len() % 40_000;
            let bytes = vec![self.rng.random(); self.rng.random_range(1..9000)];
            self.write(engine, "wal", end, &bytes);
            let bytes = vec![self.rng.random(); self.rng.random_range(1..600)];
            let at = self.rng.random_range(0..5000);
            self.write(engine, "small", at, &bytes);
            let at = self.rng.random_range(0..60_000);
            self.write(engine, "sparse", at, &[7; 10]);
        }
        // Written seldom: it comes to rest.
        let new = !self.now.iter().any(|(known, _)| *known == "seldom");
        if new || self.rng.random_bool(0.1) {
            if new {
                engine.create(FileId::ROOT, b"seldom", bed::regular()).unwrap();
                self.now.push(("seldom", Vec::new()));
                self.write(engine, "seldom", 0, &[3; 50_000]);
            }
            let at = self.rng.random_range(0..40_000);
            let bytes = vec![self.rng.random(); 5_000];
            self.write(engine, "seldom", at, &bytes);
        }
        self.work_warm(engine);
        if self.rng.random_bool(0.3) {
            engine.unlink(FileId::ROOT, b"table").unwrap();
            self.now.retain(|(name, _)| *name != "table");
        }
        self.note(engine);
    }

    /// Time passes, and what is there now is remembered.
    pub fn note(&mut self, engine: &Engine) {
        self.clock.pass(STEP_US);
        let ts = engine.now();
        let Resolution::Found(found) = engine.resolve(Instant::Time(ts)).unwrap() else { panic!() };
        self.past.push(Past { ts, seq: found.seq, contents: self.now.clone() });
    }

    /// A file without holes that is written here and there, grows and is cut: the pages that nobody writes come to rest.
    fn work_warm(&mut self, engine: &Engine) {
        if !self.now.iter().any(|(known, _)| *known == "warm") {
            engine.create(FileId::ROOT, b"warm", bed::regular()).unwrap();
            self.now.push(("warm", Vec::new()));
            let bytes: Vec<u8> = (0..90_000).map(|at| (at / 700) as u8).collect();
            self.write(engine, "warm", 0, &bytes);
        }
        let bytes = vec![self.rng.random(); self.rng.random_range(1..6_000)];
        let len = self.content("warm").len();
        match self.rng.random_range(0..10) {
            0 => self.write(engine, "warm", len, &bytes),
            1 => {
                let size = len - len.min(bytes.len()) / 2;
                let (file, _) = engine.lookup(FileId::ROOT, b"warm").unwrap();
                engine.set_attr(file, SetAttr { size: Some(size as u64), ..SetAttr::default() }).unwrap();
                self.content("warm").truncate(size);
            }
            _ => {
                // Mostly the same few pages.
                let behind = if self.rng.random_bool(0.7) { 9_000 } else { len };
                let at = self.rng.random_range(0..behind.min(len));
                self.write(engine, "warm", at, &bytes);
            }
        }
    }

    pub fn content(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.now.iter_mut().find(|(known, _)| *known == name).unwrap().1
    }

    pub fn write(&mut self, engine: &Engine, name: &str, at: usize, bytes: &[u8]) {
        let (id, _) = engine.lookup(FileId::ROOT, name.as_bytes()).unwrap();
        engine.write(id, at as u64, bytes, false).unwrap();
        let content = self.content(name);
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Reads what an instant shows; ESTALE when it was pruned.
pub fn read_past(engine: &Engine, seq: Seq, contents: &Contents) -> Result<()> {
    let view = engine.view(seq)?;
    let listed = view.read_dir(FileId::ROOT, None, 99)?;
    let mut names: Vec<&str> = contents.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert!(listed.iter().map(|entry| entry.name.as_slice()).eq(names.iter().map(|name| name.as_bytes())));
    for (name, content) in contents {
        let (file, attr) = view.lookup(FileId::ROOT, name.as_bytes())?.unwrap();
        assert_eq!(attr.size, content.len() as u64, "{name} at {seq}");
        let mut bytes = vec![0; content.len()];
        view.read(file, 0, &mut bytes)?;
        assert!(bytes == *content, "{name} at {seq}");
    }
    Ok(())
}

/// Each instant is what it was, or stands for the one before that is kept, or is refused.
pub fn check(engine: &Engine, past: &[Past]) {
    let thinned = engine.thinned();
    for Past { ts, seq, contents } in past {
        match (engine.resolve(Instant::Time(*ts)).unwrap(), thinned.at_or_before(*seq)) {
            (Resolution::Found(found), Some(shown)) => assert_eq!((found.seq, found.meant), (shown, *seq)),
            (Resolution::Pruned { oldest }, None) => assert!(oldest > *ts),
            other => panic!("{seq}: {other:?}"),
        }
        match thinned.keeps(*seq) {
            true => read_past(engine, *seq, contents).unwrap(),
            false => assert!(engine.view(*seq).err().unwrap().is(libc::ESTALE)),
        }
    }
}

pub fn settle(engine: &Engine) -> Result<()> {
    engine.checkpoint()?;
    while engine.index_some()? {}
    while let Weaving::Wove(_) = engine.weave(&Unpaced)? {}
    Ok(())
}

/// One instant in `every` steps of all but the last `all` ones, of the last `reach`.
pub fn retention(all: i64, every: i64, reach: i64) -> Retention {
    let us = |steps: i64| (steps * STEP_US) as u64;
    let tiers = vec![Tier { every_us: us(every), for_us: Some(us(reach)) }];
    Retention { all_us: Some(us(all)), tiers, ..Retention::everything() }
}

pub fn woven_bytes(disk: &SimDisk) -> u64 {
    let dir = Path::new(STORE).join("woven");
    let entries = disk.read_dir("test", &dir).unwrap();
    let path = |name: &[u8]| dir.join(std::str::from_utf8(name).unwrap());
    entries.iter().map(|entry| disk.stat("test", &path(&entry.name)).unwrap().unwrap().attr.size).sum()
}
