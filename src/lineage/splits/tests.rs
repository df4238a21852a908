//! What is said of splits and of origins, in a store of its own.

use super::*;
use crate::clock::Still;
use crate::sync::Arc;
use crate::types::StoreId;

#[test]
fn ranges_are_cut_at_segments_and_at_the_end() {
    let mut pages = PageSet::default();
    pages.write(0, 2 * PAGE);
    pages.write((SEGMENT_PAGES - 1) * PAGE, (SEGMENT_PAGES + 3) * PAGE);
    let gib = 1 << 30;
    assert_eq!(ranges_of(&pages, 0, gib), [(0, 2 * PAGE), (gib - PAGE, gib)]);
    assert_eq!(ranges_of(&pages, 1, 2 * PAGE + 5), [(0, 2 * PAGE + 5)]);
    assert_eq!(ranges_of(&pages, 2, gib), []);
    assert!(check_pages(&pages, gib + 3 * PAGE).is_ok());
    assert!(check_pages(&pages, gib + 2 * PAGE).unwrap_err().message.contains("the partition has"));
    assert!(check_pages(&PageSet::default(), gib).is_err());
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(crate::disk::os::OsDisk::new());
    let store = Store::new(disk, Arc::new(Still), dir.path(), StoreId([7; 16])).unwrap();
    (dir, store)
}

/// The number of a new split.
fn split_of(store: &Store, parent: &str, children: &[&str]) -> u64 {
    let child = |name: &&str| {
        let child = Child { name: Some((*name).into()), ..Child::default() };
        declare(store, (parent, How::Declared), (Seq(1), 0), child).unwrap().id
    };
    children.iter().map(child).last().unwrap()
}

fn files(store: &Store, split: u64) -> Vec<(Option<String>, Option<Tie>)> {
    let split = get(store, split).unwrap().unwrap();
    split.children.into_iter().map(|child| (child.partition, child.tie)).collect()
}

/// Parent and number of the child of each origin.
fn came_of(store: &Store, partition: &str) -> Vec<(String, u64)> {
    let all = origins(store, partition).unwrap();
    all.into_iter().map(|origin| (origin.parent, origin.child)).collect()
}

#[test]
fn one_division_is_told_once_whoever_names_whichever_child() {
    let (_dir, store) = store();
    let told = |how, parent: &str, name: &str, at_us: i64| {
        let child = Child { name: Some(name.into()), ..Child::default() };
        let split = declare(&store, (parent, how), (Seq(1), at_us), child).unwrap();
        is_first(&store, &split, at_us).unwrap()
    };
    assert!(told(How::Ddl, "p", "a", 10));
    assert!(!told(How::Ddl, "p", "a", 20), "told again, as after a restart");
    assert!(!told(How::Ddl, "p", "b", 30), "the second child");
    assert!(!told(How::Declared, "p", "a", 40), "by another");
    assert!(told(How::Ddl, "q", "a", 50));
    assert!(told(How::Ddl, "p", "c", 40 + TOGETHER_US), "another time");
}

#[test]
fn heaps_are_told_from_indexes() {
    let mut head = [0u8; 24];
    head[16..20].copy_from_slice(&[0x00, 0x20, 0x04, 0x20]);
    assert!(may_be_table(Layout::Postgres, &head));
    head[16..18].copy_from_slice(&[0xf0, 0x1f]);
    assert!(!may_be_table(Layout::Postgres, &head));
    assert!(!may_be_table(Layout::Postgres, &[0; 24]));
    assert!(may_be_table(Layout::Mariadb, &[]));
}

/// A page of a heap with one row: columns, and bytes behind its head of 24.
fn heap(columns: u16, values: &[u8]) -> Vec<u8> {
    let mut page = vec![0u8; 8192];
    let (len, at) = (24 + values.len(), 8192 - (24 + values.len()).next_multiple_of(8));
    page[16..20].copy_from_slice(&[0x00, 0x20, 0x04, 0x20]);
    page[24..28].copy_from_slice(&(at as u32 | 1 << 15 | (len as u32) << 17).to_le_bytes());
    page[at + 18..at + 20].copy_from_slice(&columns.to_le_bytes());
    page[at + 22] = 24;
    page[at + 24..at + len].copy_from_slice(values);
    page
}

#[test]
fn long_values_beside_a_table_are_no_table() {
    let values = |piece: u32, length: usize| {
        let length = (length as u32 + 4) << 2;
        [&16_400u32.to_le_bytes()[..], &piece.to_le_bytes(), &length.to_le_bytes(), &[b'x'; 1996]].concat()
    };
    let is_table = |page: &[u8]| may_be_table(Layout::Postgres, page);
    assert!(!is_table(&heap(3, &values(0, 1996))));
    // Other columns, another piece, another length, no row.
    assert!(is_table(&heap(4, &values(0, 1996))));
    assert!(is_table(&heap(3, &values(7, 1996))));
    assert!(is_table(&heap(3, &values(0, 500))));
    assert!(is_table(&heap(3, &[])));
    let mut dead = heap(3, &values(0, 1996));
    dead[25] &= 0x7f;
    assert!(is_table(&dead));
    // Wherever the row is said to be.
    for word in [0u32, u32::MAX, 0x7fff | 1 << 15 | 40 << 17, 100 | 1 << 15 | 5 << 17] {
        let mut torn = heap(3, &values(0, 1996));
        torn[24..28].copy_from_slice(&word.to_le_bytes());
        assert!(is_table(&torn), "{word:x}");
    }
}

#[test]
fn stretches_that_stand_near_are_one() {
    let mut pages = PageSet::default();
    [0, 2, 3, 20].iter().for_each(|page| pages.write(page * PAGE, (page + 1) * PAGE));
    let page = |first: u64, end: u64| (first * PAGE, end * PAGE);
    assert_eq!(stretches(&pages, 30 * PAGE, 0), [page(0, 1), page(2, 4), page(20, 21)]);
    assert_eq!(stretches(&pages, 30 * PAGE, PAGE), [page(0, 4), page(20, 21)]);
    assert_eq!(stretches(&pages, 3 * PAGE + 5, 16 * PAGE), [(0, 3 * PAGE + 5)]);
    assert_eq!(stretches(&PageSet::default(), PAGE, 0), []);
}

#[test]
fn what_is_too_scattered_to_be_told_is_read_whole() {
    let set = |step: usize, count: u64| {
        let mut pages = PageSet::default();
        (0..count).step_by(step).for_each(|page| pages.write(page * PAGE, (page + 1) * PAGE));
        Some(pages)
    };
    let size = 100 * PAGE;
    let files = [(set(2, 20), size), (set(30, 100), size), (None, size)];
    let counts = |most| -> Vec<Option<usize>> {
        in_stretches(&files, most).iter().map(|told| told.as_ref().map(Vec::len)).collect()
    };
    assert_eq!(counts(14), [Some(10), Some(4), None]);
    assert_eq!(counts(13), [Some(1), Some(4), None]);
    assert_eq!(counts(4), [None, None, None]);
}

#[test]
fn a_declared_child_is_known_by_a_name_with_or_without_its_schema() {
    for (one, other, same) in [
        ("public.new", "new", true),
        ("new", "public.new", true),
        ("new", "new", true),
        ("renew", "new", false),
        ("a.new", "b.new", false),
        ("", "new", false),
    ] {
        assert_eq!(may_be_same(one, other), same, "{one} {other}");
    }
    let (_dir, store) = store();
    let split = split_of(&store, "p", &["s.a", "s.b"]);
    let fits = |name: &'static str| {
        move |child: &Child| child.name.as_deref().is_some_and(|one| may_be_same(one, name))
    };
    assert_eq!(declared(&store, "p", fits("b")).unwrap(), Some((split, 1)));
    assert_eq!(
        (declared(&store, "p", fits("c")).unwrap(), declared(&store, "q", fits("b")).unwrap()),
        (None, None)
    );
    let by_log = Child { name: Some("b".into()), ..Child::default() };
    declare(&store, ("q", How::Ddl), (Seq(1), 0), by_log).unwrap();
    assert_eq!(declared(&store, "q", fits("b")).unwrap(), None, "nobody declared it");
    tell(&store, (split, 1), Seq(9)).unwrap();
    let told: Vec<u64> =
        get(&store, split).unwrap().unwrap().children.iter().map(|child| child.told).collect();
    assert_eq!(told, [0, 9]);
}

#[test]
fn what_is_merged_came_of_all_its_parents() {
    let (_dir, store) = store();
    let [one, two] = ["p1", "p2"].map(|parent| split_of(&store, parent, &["t/p12"]));
    tie(&store, (one, 0), "t/p12", Tie::Declared, Seq(5)).unwrap();
    tie(&store, (two, 0), "t/p12", Tie::Declared, Seq(5)).unwrap();
    assert_eq!(came_of(&store, "t/p12"), [("p1".into(), 0), ("p2".into(), 0)]);
    let said_by_child: Vec<String> = lineage(&store).unwrap().into_iter().map(|(child, _)| child).collect();
    assert_eq!(said_by_child, ["t/p12", "t/p12"]);
    // Said again, it is the same.
    tie(&store, (one, 0), "t/p12", Tie::Catalogue, Seq(5)).unwrap();
    assert_eq!(came_of(&store, "t/p12"), [("p2".into(), 0), ("p1".into(), 0)]);
    // Other files that have the name later came of what they came of.
    let later = split_of(&store, "p3", &["t/p12"]);
    tie(&store, (later, 0), "t/p12", Tie::Declared, Seq(9)).unwrap();
    assert_eq!(came_of(&store, "t/p12"), [("p3".into(), 0)]);
}

#[test]
fn a_confirmation_takes_back_what_was_guessed_and_nothing_else() {
    let (_dir, store) = store();
    let split = split_of(&store, "p", &["new", "old"]);
    let none = || (None, None);
    let files_are = |child: &str, tie| (Some(child.to_owned()), Some(tie));
    // The files of the old one came first.
    tie(&store, (split, 0), "x", Tie::Guess, Seq(5)).unwrap();
    tie(&store, (split, 1), "y", Tie::Guess, Seq(6)).unwrap();
    tie(&store, (split, 0), "y", Tie::Catalogue, Seq(6)).unwrap();
    assert_eq!(files(&store, split), [files_are("y", Tie::Catalogue), none()]);
    assert_eq!((came_of(&store, "x"), came_of(&store, "y")), (vec![], vec![("p".into(), 0)]));
    tie(&store, (split, 1), "x", Tie::Catalogue, Seq(5)).unwrap();
    assert_eq!(files(&store, split), [files_are("y", Tie::Catalogue), files_are("x", Tie::Catalogue)]);
    assert_eq!((came_of(&store, "x"), came_of(&store, "y")), (vec![("p".into(), 1)], vec![("p".into(), 0)]));
    // What is known, a guess of another split does not touch; the other way round it does.
    let other = split_of(&store, "q", &["c", "d"]);
    tie(&store, (other, 0), "x", Tie::Guess, Seq(5)).unwrap();
    assert_eq!(came_of(&store, "x"), [("p".into(), 1)]);
    tie(&store, (other, 1), "z", Tie::Guess, Seq(7)).unwrap();
    tie(&store, (split, 0), "z", Tie::Declared, Seq(7)).unwrap();
    assert_eq!((came_of(&store, "z"), came_of(&store, "y")), (vec![("p".into(), 0)], vec![]));
    assert_eq!(files(&store, other)[1], none());
}

#[test]
fn a_partition_is_never_its_own_parent() {
    let (_dir, store) = store();
    let split = split_of(&store, "t/pmax", &["t/p9", "t/pmax"]);
    tie(&store, (split, 1), "t/pmax", Tie::Declared, Seq(5)).unwrap();
    assert_eq!(files(&store, split)[1], (Some("t/pmax".into()), Some(Tie::Declared)));
    assert_eq!(came_of(&store, "t/pmax"), []);
}

#[test]
fn a_parent_that_is_presumed_stays_a_guess_until_somebody_says_so() {
    let (_dir, store) = store();
    let child = Child { name: Some("a".into()), presumed: true, ..Child::default() };
    let split = declare(&store, ("p", How::Ddl), (Seq(1), 0), child).unwrap().id;
    tie(&store, (split, 0), "x", Tie::Catalogue, Seq(5)).unwrap();
    let tie_of = || origins(&store, "x").unwrap()[0].tie;
    assert_eq!((tie_of(), &files(&store, split)[0].1), (Tie::Guess, &Some(Tie::Guess)));
    tie(&store, (split, 0), "x", Tie::Declared, Seq(5)).unwrap();
    assert_eq!(tie_of(), Tie::Declared);
}

#[test]
fn what_is_forgotten_stays_so_until_a_person_says_it_again() {
    let (_dir, store) = store();
    let split = split_of(&store, "p", &["new", "old"]);
    tie(&store, (split, 0), "x", Tie::Guess, Seq(5)).unwrap();
    tie(&store, (split, 1), "y", Tie::Declared, Seq(6)).unwrap();
    let told = forget(&store, split, Some(0)).unwrap();
    assert_eq!(told.children.iter().map(|child| child.forgotten).collect::<Vec<_>>(), [true, false]);
    assert_eq!((came_of(&store, "x"), came_of(&store, "y")), (vec![], vec![("p".into(), 1)]));
    assert!(!told.children[0].waits(), "nothing is guessed for it any more");
    assert_eq!(told.children[0].partition.as_deref(), Some("x"), "what was wrong is known");
    // Neither a guess, nor the catalogue, nor a log that is read again.
    tie(&store, (split, 0), "x", Tie::Guess, Seq(5)).unwrap();
    tie(&store, (split, 0), "z", Tie::Catalogue, Seq(7)).unwrap();
    assert_eq!((came_of(&store, "x"), came_of(&store, "z")), (vec![], vec![]));
    let by_log = Child { name: Some("a".into()), ..Child::default() };
    let ddl = declare(&store, ("q", How::Ddl), (Seq(1), 0), by_log.clone()).unwrap().id;
    forget(&store, ddl, None).unwrap();
    let again = declare(&store, ("q", How::Ddl), (Seq(1), 10), by_log).unwrap();
    assert!(again.id == ddl && again.children[0].forgotten);
    // A person is believed.
    tie(&store, (split, 0), "x", Tie::Declared, Seq(5)).unwrap();
    assert_eq!(came_of(&store, "x"), [("p".into(), 0)]);
    assert!(!get(&store, split).unwrap().unwrap().children[0].forgotten);
    forget(&store, split, None).unwrap();
    assert_eq!((came_of(&store, "x"), came_of(&store, "y")), (vec![], vec![]));
    assert_eq!(split_of(&store, "p", &["new"]), split, "the same split");
    assert!(get(&store, split).unwrap().unwrap().children[0].waits(), "declared anew");
    for (split, child, why) in [(9, None, "no split 9"), (split, Some(2), "no child 3")] {
        assert!(forget(&store, split, child).unwrap_err().message.contains(why));
    }
}

#[test]
fn guesses_of_several_parents_stand_beside_each_other() {
    let (_dir, store) = store();
    let of = |parent: &str| {
        let child = Child { name: Some("a".into()), presumed: true, ..Child::default() };
        declare(&store, (parent, How::Ddl), (Seq(1), 0), child).unwrap().id
    };
    let [one, two] = ["p1", "p2"].map(of);
    tie(&store, (one, 0), "x", Tie::Catalogue, Seq(5)).unwrap();
    tie(&store, (two, 0), "x", Tie::Catalogue, Seq(5)).unwrap();
    assert_eq!(came_of(&store, "x"), [("p1".into(), 0), ("p2".into(), 0)]);
    forget(&store, one, None).unwrap();
    assert_eq!(came_of(&store, "x"), [("p2".into(), 0)]);
    // What is known takes the place of all guesses.
    tie(&store, (one, 0), "x", Tie::Declared, Seq(5)).unwrap();
    assert_eq!(came_of(&store, "x"), [("p1".into(), 0)]);
    assert_eq!(files(&store, two), [(None, None)]);
}

#[test]
fn what_keeps_the_name_of_a_parent_came_of_that_too_when_its_files_are_others() {
    let (_dir, store) = store();
    let child = Child { name: Some("t/p2".into()), anew: true, ..Child::default() };
    let of = |parent: &str| declare(&store, (parent, How::Ddl), (Seq(9), 0), child.clone()).unwrap().id;
    for split in ["t/p1", "t/p2"].map(of) {
        tie(&store, (split, 0), "t/p2", Tie::Declared, Seq(12)).unwrap();
    }
    assert_eq!(came_of(&store, "t/p2"), [("t/p1".into(), 0), ("t/p2".into(), 0)]);
}

#[test]
fn rows_of_before_are_read() {
    const LINEAGE: Table<String, Origin> = Table::new("lineage", 1);
    let (_dir, store) = store();
    let origin = |parent: &str, born| {
        let (parent, tie, anew, rewrite) = (parent.into(), Tie::Guess, false, false);
        Origin { parent, split: 1, child: 0, born, tie, anew, rewrite }
    };
    let put = |child: &str, origin| store.write(|tx| tx.put(&LINEAGE, &child.to_owned(), &origin)).unwrap();
    put("x", origin("p", 5));
    // That a partition is its own parent was said.
    put("p", origin("p", 5));
    assert_eq!(
        (origins(&store, "x").unwrap(), origins(&store, "p").unwrap()),
        (vec![origin("p", 5)], vec![])
    );
    let also = store.read(|tx| tx.get(&LINEAGE, &"x".to_owned())).unwrap();
    assert_eq!(also, Some(origin("p", 5)));
    // Of pages without a time it is not known what moved since.
    let pages = Child { pages: Some(PageSet::dense(PAGE).to_bytes()), ..Child::default() };
    assert_eq!(pages.page_set(), None);
    assert!(Child { looked: Some((1, 2)), ..pages }.page_set().is_some());
}
