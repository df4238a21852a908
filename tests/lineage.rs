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
use weft::engine::{Engine, Layout, Partition, RenameMode};
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

/// The files of a child are not known by its name: those that appear beside the parent are guessed to be its.
#[test]
fn what_is_forgotten_is_not_guessed_again() {
    let world = World::new();
    let first = world.declare("first", 1, world.now());
    world.make("one", 1);
    let origins = |name: &str| {
        let all = world.engine.origins_of(Layout::Generic, &partition(name)).unwrap();
        all.into_iter().map(|origin| origin.parent).collect::<Vec<_>>()
    };
    assert_eq!(origins("one"), [PARENT]);
    world.engine.forget_split(first.0, Some(first.1)).unwrap();
    assert_eq!(origins("one"), Vec::<String>::new());
    // Nor is it taken for another child, and what comes later is not taken for the one that is forgotten.
    world.declare("second", 2, world.now());
    assert_eq!(origins("one"), Vec::<String>::new());
    world.make("two", 1);
    assert_eq!(origins("two"), [PARENT]);
    let splits = world.engine.splits(Layout::Generic).unwrap();
    let files: Vec<Option<&str>> =
        splits[0].children.iter().map(|child| child.partition.as_deref()).collect();
    assert_eq!(files, [Some("one"), Some("two")]);
    // It is durable.
    let World { disk, clock, engine } = world;
    engine.checkpoint().unwrap();
    engine.abandon();
    drop(engine);
    let engine = bed::open(&disk.kill(), &CrashKv::new(), &clock, bed::options()).unwrap();
    assert_eq!(engine.origins_of(Layout::Generic, &partition("one")).unwrap(), []);
    assert!(engine.splits(Layout::Generic).unwrap()[0].children[0].forgotten);
}

/// REORGANIZE PARTITION p1, p2 INTO (p2): the files of before have the child's name.
#[test]
fn a_child_with_the_name_of_a_parent_has_other_files() {
    let world = World::new();
    let (dir, _) = world.engine.create(FileId::ROOT, b"t", bed::directory()).unwrap();
    let make = |name: &str| {
        let (file, _) = world.engine.create(dir, name.as_bytes(), regular()).unwrap();
        world.engine.write(file, 0, &vec![1; 4 * PAGE as usize], false).unwrap();
    };
    ["p1", "p2"].into_iter().for_each(make);
    // A server may be at work before its statement is read.
    let ends = world.now();
    make("p2#TMP#");
    let parents = ["t/p1", "t/p2"];
    for parent in parents {
        let child = Child { name: Some("t/p2".into()), anew: true, ..Child::default() };
        world.engine.declare_split(Layout::Generic, &partition(parent), How::Ddl, child).unwrap();
    }
    let origins = || {
        let all = world.engine.origins_of(Layout::Generic, &partition("t/p2")).unwrap();
        all.into_iter().map(|origin| (origin.parent, origin.born)).collect::<Vec<_>>()
    };
    assert_eq!(origins(), [], "the statement has not ended yet");
    world.engine.unlink(dir, b"p1").unwrap();
    world.engine.rename((dir, b"p2#TMP#"), (dir, b"p2"), RenameMode::Replace).unwrap();
    assert_eq!(origins(), parents.map(|parent| (parent.to_owned(), ends.0)));
    // A person who says it of the parent itself means other files, too.
    let own = Child { name: Some("t/p2".into()), ..Child::default() };
    let split = world.engine.declare_split(Layout::Generic, &partition("t/p2"), How::Declared, own).unwrap();
    assert!(split.children[0].anew);
}
