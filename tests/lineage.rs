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
use weft::engine::{Engine, Instant, Layout, NewFile, Partition, RenameMode, View};
use weft::lineage::splits::{Child, How, Split, Tie};
use weft::types::{FileId, FileKind, PAGE, PageSet, Seq};

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
        self.confirm(child, name, Tie::Declared);
    }

    fn confirm(&self, child: (u64, usize), name: &str, tie: Tie) {
        self.engine.confirm_child(Layout::Generic, child, &partition(name), tie).unwrap();
    }

    fn unlink(&self, name: &str) {
        self.engine.unlink(FileId::ROOT, name.as_bytes()).unwrap();
    }

    /// The view of an instant that may be the present.
    fn view(&self, at: Seq) -> Arc<View> {
        self.engine.resolve(Instant::Time(self.engine.now())).unwrap();
        self.engine.view(at).unwrap()
    }

    /// The partitions that rows of one were in at an instant.
    fn parents(&self, (layout, name): (Layout, &str), at: Seq) -> Vec<String> {
        let view = self.view(at);
        let past = self.engine.ancestry(layout, &partition(name), &view).unwrap();
        past.iter().map(|one| one.parent.to_string()).collect()
    }

    /// Of each child of the last split its files, and how they are tied.
    fn ties(&self, layout: Layout) -> Vec<(Option<String>, Option<Tie>)> {
        let split = self.engine.splits(layout).unwrap().pop().unwrap();
        split.children.into_iter().map(|child| (child.partition, child.tie)).collect()
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

const GENERIC: Layout = Layout::Generic;
const DAY_US: i64 = 86_400_000_000;

#[test]
fn while_its_files_come_the_rows_of_a_child_are_in_its_parent() {
    let world = World::new();
    let before = world.now();
    let child = world.declare("child", 1, before);
    world.make("child", 1);
    let coming = world.now();
    // Somebody says so again: until now they were there.
    assert_eq!(world.declare("child", 1, world.now()), child);
    let told = world.now();
    world.write(5);
    world.confirm(child, "child", Tie::Declared);
    let after = world.now();
    for at in [before, coming, told] {
        assert_eq!(world.pages("child", at), [1], "{at}");
    }
    let unsettled = |at| {
        let view = world.view(at);
        world.engine.unsettled(GENERIC, &partition("child"), &view).unwrap().len()
    };
    // Nothing says when they have left it; a day later they have.
    assert_eq!(world.parents((GENERIC, "child"), after), [""; 0]);
    assert_eq!((unsettled(coming), unsettled(after)), (0, 1));
    world.clock.pass(DAY_US);
    world.write(6);
    assert_eq!(unsettled(world.now()), 0);
    // Of a guess the word of others says nothing.
    let world = World::new();
    let child = world.declare("child", 1, world.now());
    world.make("child", 1);
    let coming = world.now();
    world.declare("child", 1, world.now());
    world.confirm(child, "child", Tie::Guess);
    assert_eq!(world.parents((GENERIC, "child"), coming), [""; 0]);
}

#[test]
fn what_has_gone_again_is_not_looked_for_in_its_parent() {
    let world = World::new();
    let before = world.now();
    let child = world.declare("child", 1, before);
    world.born(child, "child");
    world.unlink("child");
    world.write(7);
    assert_eq!(world.parents((GENERIC, "child"), before), [PARENT]);
    assert_eq!(world.parents((GENERIC, "child"), world.now()), [""; 0]);
}

#[test]
fn rows_that_are_written_anew_have_a_past_in_the_files_of_before() {
    let world = World::new();
    let before = world.now();
    let child = world.declare("child", 1, before);
    world.born(child, "child");
    let first = world.now();
    // The catalogue says another name while the files are there: that is another table.
    world.make("namesake", 1);
    world.confirm(child, "namesake", Tie::Catalogue);
    assert_eq!(world.ties(GENERIC), [(Some("child".into()), Some(Tie::Declared))]);
    for (old, new) in [("child", "anew"), ("anew", "again")] {
        world.make(new, 1);
        world.unlink(old);
        for tie in [Tie::Catalogue, Tie::Catalogue, Tie::Declared] {
            world.confirm(child, new, tie);
            assert_eq!(world.ties(GENERIC), [(Some(new.into()), Some(Tie::Declared))]);
        }
        world.write(7);
    }
    assert_eq!(world.parents((GENERIC, "again"), first), ["child"]);
    let view = world.view(first);
    let past = world.engine.ancestry(GENERIC, &partition("again"), &view).unwrap();
    assert!(past[0].origin.rewrite && past[0].files[0].1.is_none(), "all of it");
    assert_eq!(world.pages("again", before), [1], "and only its pages of the parent");
    assert_eq!(world.parents((GENERIC, "again"), world.now()), [""; 0]);
    assert_eq!(world.parents((GENERIC, "child"), before), [PARENT]);
    // What a person mends is no rewrite.
    let other = world.declare("other", 2, world.now());
    world.make("right", 1);
    world.make("wrong", 1);
    world.confirm(other, "wrong", Tie::Declared);
    world.confirm(other, "right", Tie::Declared);
    let origins = |name| world.engine.origins_of(GENERIC, &partition(name)).unwrap();
    assert!(origins("wrong").is_empty() && !origins("right")[0].rewrite);
}

#[test]
fn a_child_that_has_not_come_in_a_day_does_not_come() {
    for in_time in [false, true] {
        let world = World::new();
        let before = world.now();
        let child = Child::default();
        let split = world.engine.declare_split(GENERIC, &partition(PARENT), How::Declared, child).unwrap();
        world.clock.pass(if in_time { DAY_US / 2 } else { DAY_US + 1 });
        world.make("late", 1);
        // Nobody looks until long afterwards.
        world.clock.pass(3 * DAY_US);
        let tie = in_time.then_some(Tie::Guess);
        assert_eq!(world.ties(GENERIC), [(in_time.then(|| "late".into()), tie)]);
        assert!(split.is_over(world.engine.now().0));
        assert_eq!(world.parents((GENERIC, "late"), before).len(), usize::from(in_time));
        world.confirm((split.id, 0), "late", Tie::Declared);
        assert_eq!(world.parents((GENERIC, "late"), before), [PARENT], "a person is believed");
    }
}

/// A table of MariaDB's with partitions, each a file of its own.
struct Shop {
    world: World,
    dir: FileId,
}

const MARIADB: Layout = Layout::Mariadb;

fn orders(part: &str) -> String {
    format!("shop/orders#P#{part}")
}

impl Shop {
    fn new(parts: &[&str]) -> Shop {
        let world = World::new();
        let new = NewFile { kind: FileKind::Directory, mode: 0o700, ..regular() };
        let (dir, _) = world.engine.create(FileId::ROOT, b"shop", new).unwrap();
        let shop = Shop { world, dir };
        parts.iter().for_each(|part| shop.make(part));
        shop
    }

    fn file(part: &str) -> Vec<u8> {
        format!("orders#P#{part}.ibd").into_bytes()
    }

    fn make(&self, part: &str) {
        let (file, _) = self.world.engine.create(self.dir, &Shop::file(part), regular()).unwrap();
        self.world.engine.write(file, 0, &[3; PAGE as usize], false).unwrap();
    }

    fn unlink(&self, part: &str) {
        self.world.engine.unlink(self.dir, &Shop::file(part)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        let (from, to) = (Shop::file(from), Shop::file(to));
        self.world.engine.rename((self.dir, &from), (self.dir, &to), RenameMode::Replace).unwrap();
    }

    fn split(&self, how: How, from: &str, to: &str) -> Split {
        let child = Child { name: Some(orders(to)), ..Child::default() };
        self.world.engine.declare_split(MARIADB, &partition(&orders(from)), how, child).unwrap()
    }

    fn parents(&self, part: &str, at: Seq) -> Vec<String> {
        self.world.parents((MARIADB, &orders(part)), at)
    }
}

#[test]
fn files_of_another_time_are_none_of_a_split() {
    // Refused by the server; the next partition of that name is something new.
    let shop = Shop::new(&["pmax"]);
    let before = shop.world.now();
    let split = shop.split(How::Ddl, "pmax", "p9");
    shop.world.clock.pass(DAY_US + 1);
    shop.make("p9");
    assert_eq!(shop.world.ties(MARIADB), [(None, None)]);
    assert_eq!(shop.parents("p9", before), [""; 0]);
    assert!(split.is_over(shop.world.engine.now().0));

    // Merged into one that keeps a name: what has it while that runs, and before, is not what comes.
    for how in [How::Declared, How::Ddl] {
        let shop = Shop::new(&["p1", "p2"]);
        shop.world.clock.pass(DAY_US);
        let before = shop.world.now();
        shop.split(how, "p1", "p2");
        assert_eq!(shop.world.ties(MARIADB), [(None, None)], "{how:?}");
        shop.make("p2#TMP#");
        let coming = shop.world.now();
        assert_eq!(shop.world.ties(MARIADB), [(None, None)], "{how:?}");
        shop.unlink("p2");
        shop.unlink("p1");
        shop.rename("p2#TMP#", "p2");
        let tie = if how == How::Declared { Tie::Declared } else { Tie::Catalogue };
        assert_eq!(shop.world.ties(MARIADB), [(Some(orders("p2")), Some(tie))]);
        for at in [before, coming] {
            assert_eq!(shop.parents("p2", at), [orders("p1")]);
        }
        assert_eq!(shop.parents("p2", shop.world.now()), [""; 0]);
    }
}

#[test]
fn a_statement_may_be_told_when_its_files_are_there() {
    let shop = Shop::new(&["pmax"]);
    let before = shop.world.now();
    shop.make("p9#TMP#");
    let coming = shop.world.now();
    shop.world.clock.pass(1_000_000);
    shop.rename("p9#TMP#", "p9");
    shop.split(How::Ddl, "pmax", "p9");
    assert_eq!(shop.world.ties(MARIADB), [(Some(orders("p9")), Some(Tie::Catalogue))]);
    for at in [before, coming] {
        assert_eq!(shop.parents("p9", at), [orders("pmax")]);
    }
}
