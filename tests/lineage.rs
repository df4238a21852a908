//! The past of a child in its parent, on the simulated disk: rows that moved stand on pages that changed, whatever was
//! declared when and however far the index has come.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod support;

use std::sync::Arc;
use support::Ticking;
use support::bed::{self, regular};
use support::kv::CrashKv;
use weft::disk::sim::SimDisk;
use weft::engine::{Engine, Layout, Partition};
use weft::lineage::splits::{Child, How, Tie};
use weft::types::{FileId, PAGE, PageSet, Seq};

const PARENT: &str = "parent";
const PAGES: u64 = 600;

fn partition(name: &str) -> Partition {
    Partition { root: Vec::new(), name: name.into() }
}

struct World {
    disk: SimDisk,
    clock: Arc<Ticking>,
    engine: Arc<Engine>,
}

impl World {
    /// A parent with all its pages.
    fn new() -> World {
        let (disk, clock) = (bed::disk(1), Arc::new(Ticking::new(1_800_000_000_000_000)));
        let engine = bed::open(&disk, &CrashKv::new(), &clock, bed::options()).unwrap();
        let world = World { disk, clock, engine };
        world.make(PARENT, PAGES);
        world
    }

    fn make(&self, name: &str, pages: u64) {
        let (file, _) = self.engine.create(FileId::ROOT, name.as_bytes(), regular()).unwrap();
        self.engine.write(file, 0, &vec![1; (pages * PAGE) as usize], false).unwrap();
    }

    /// A page of the parent is written; its event.
    fn write(&self, page: u64) -> Seq {
        let (file, _) = self.engine.lookup(FileId::ROOT, PARENT.as_bytes()).unwrap();
        self.engine.write(file, page * PAGE, &[2; PAGE as usize], false).unwrap();
        self.now()
    }

    fn now(&self) -> Seq {
        Seq(self.engine.status().seq)
    }

    /// Declares a child of one page, looked for since an event; the number of the split, and of the child in it.
    fn declare(&self, name: &str, page: u64, since: Seq) -> (u64, usize) {
        let mut pages = PageSet::default();
        pages.write(page * PAGE, (page + 1) * PAGE);
        let child = Child {
            name: Some(name.into()),
            pages: Some(pages.to_bytes()),
            looked: Some((since.0, since.0)),
            ..Child::default()
        };
        let split =
            self.engine.declare_split(Layout::Generic, &partition(PARENT), How::Declared, child).unwrap();
        let number = split.children.iter().position(|child| child.name.as_deref() == Some(name));
        (split.id, number.unwrap())
    }

    fn born(&self, child: (u64, usize), name: &str) {
        self.make(name, 1);
        self.engine.confirm_child(Layout::Generic, child, &partition(name), Tie::Declared).unwrap();
    }

    /// The pages of the parent that the past of a child is in.
    fn pages(&self, name: &str, at: Seq) -> Vec<u64> {
        let view = self.engine.view(at).unwrap();
        let past = self.engine.ancestry(Layout::Generic, &partition(name), &view).unwrap();
        let ranges = past[0].files[0].1.clone().unwrap();
        ranges.iter().flat_map(|(start, end)| start / PAGE..end / PAGE).collect()
    }

    /// The index is lost, and made anew only as far as somebody waits for it.
    fn without_index(self) -> World {
        self.engine.checkpoint().unwrap();
        self.engine.abandon();
        let disk = self.disk.kill();
        let engine = bed::open(&disk, &CrashKv::new(), &self.clock, bed::options()).unwrap();
        World { disk, clock: self.clock, engine }
    }
}

#[test]
fn what_changed_while_the_pages_were_looked_for_counts_before_and_after() {
    let world = World::new();
    let before = world.now();
    world.write(10);
    let since = world.now();
    // Between the two nobody knows whether the look saw a page as it was or as it became.
    world.write(20);
    let child = world.declare("child", 30, since);
    let declared = world.now();
    let after = world.write(40);
    world.born(child, "child");
    assert_eq!(world.pages("child", before), [10, 20, 30]);
    assert_eq!(world.pages("child", since), [20, 30]);
    assert_eq!(world.pages("child", declared), [20, 30]);
    assert_eq!(world.pages("child", after), [20, 30, 40]);
}

#[test]
fn each_child_has_the_time_of_its_own_declaration() {
    let world = World::new();
    let before = world.now();
    let first = world.declare("first", 1, world.now());
    world.write(10);
    let second = world.declare("second", 2, world.now());
    assert_eq!(first.0, second.0, "one split");
    // The pages are looked for again: what moved meanwhile stands elsewhere now.
    world.write(20);
    assert_eq!(world.declare("first", 3, world.now()), first);
    world.born(first, "first");
    world.born(second, "second");
    assert_eq!(world.pages("second", before), [2, 10]);
    assert_eq!(world.pages("first", before), [3, 10, 20]);
}

#[test]
fn an_index_that_is_behind_is_waited_for() {
    let world = World::new();
    let before = world.now();
    // More than is taken in at once.
    for page in 100..PAGES {
        world.write(page);
        world.engine.fsync(FileId::ROOT, Box::new(|result| result.unwrap()));
    }
    let child = world.declare("child", 1, world.now());
    world.born(child, "child");
    let expected: Vec<u64> = std::iter::once(1).chain(100..PAGES).collect();
    assert_eq!(world.pages("child", before), expected);
    let world = world.without_index();
    assert_eq!(world.pages("child", before), expected);
}
