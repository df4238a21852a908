//! The metadata store on the simulated disk: damage, faults, power cuts.

use super::*;
use crate::disk::OpenHow;
use crate::disk::sim::SimDisk;
use crate::types::{Seq, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const OURS: StoreId = StoreId([3; 16]);
const DIR: &str = "/store";
const SHADOWS: Table<(String, Seq), Row> = Table::new("shadows", 1);
const NUMBERS: Table<u64, u64> = Table::new("splits", 1);

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Row {
    bytes: u64,
    hash: Vec<u8>,
    #[serde(default)]
    reason: Option<String>,
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir("test", Path::new(DIR), 0o700).unwrap();
    disk.sync_dir("test", Path::new("/")).unwrap();
    disk
}

fn on(disk: &SimDisk) -> Result<Store> {
    Store::new(Arc::new(disk.clone()), Arc::new(Noon), Path::new(DIR), OURS)
}

fn file_of(disk: &SimDisk) -> Vec<u8> {
    let path = Path::new(DIR).join(open::FILE);
    let file = disk.open("test", &path, OpenHow::default()).unwrap();
    let mut bytes = vec![0; file.len("test").unwrap() as usize];
    file.read_at("test", &mut bytes, 0).unwrap();
    bytes
}

fn set_file(disk: &SimDisk, bytes: &[u8]) {
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let file = disk.open("test", &Path::new(DIR).join(open::FILE), how).unwrap();
    file.set_len("test", bytes.len() as u64).unwrap();
    file.write_at("test", bytes, 0).unwrap();
}

fn row(bytes: u64) -> Row {
    Row { bytes, hash: vec![bytes as u8; 32], reason: Some("asked for".into()) }
}

fn key(partition: &str, at: u64) -> (String, Seq) {
    (partition.to_owned(), Seq(at))
}

fn filled(disk: &SimDisk) -> Store {
    let store = on(disk).unwrap();
    store
        .write(|tx| {
            for at in 1..=40 {
                tx.put(&SHADOWS, &key("base/5/1", at), &row(at))?;
                tx.put(&SHADOWS, &key("base/5/16", at), &row(at + 100))?;
            }
            Ok(())
        })
        .unwrap();
    store
}

fn keys(rows: Rows<(String, Seq), Row>) -> Vec<u64> {
    rows.into_iter().map(|((_, at), _)| at.0).collect()
}

#[test]
fn rows_come_back_by_key_range_and_first_part() {
    let disk = disk(1);
    let store = filled(&disk);
    store
        .read(|tx| {
            assert_eq!(tx.get(&SHADOWS, &key("base/5/1", 7))?, Some(row(7)));
            assert_eq!(tx.get(&SHADOWS, &key("base/5", 7))?, None);
            assert_eq!(keys(tx.beginning(&SHADOWS, &"base/5/1".to_owned())?), (1..=40).collect::<Vec<_>>());
            let some = tx.range(&SHADOWS, key("base/5/16", 3)..=key("base/5/16", 5))?;
            assert_eq!(keys(some), [3, 4, 5]);
            assert!(tx.range(&SHADOWS, key("b", 5)..key("a", 3))?.is_empty());
            let last = tx.last(&SHADOWS, ..key("base/5/16", 0))?;
            assert_eq!(last, Some((key("base/5/1", 40), row(40))));
            assert_eq!((tx.count(&SHADOWS)?, tx.count(&NUMBERS)?), (80, 0));
            assert_eq!(tx.get(&NUMBERS, &1)?, None, "a table that nobody has written");
            Ok(())
        })
        .unwrap();
    store
        .write(|tx| {
            tx.remove(&SHADOWS, &key("base/5/1", 1))?;
            tx.remove_range(&SHADOWS, key("base/5/1", 30)..)?;
            assert_eq!(tx.count(&SHADOWS)?, 28, "its own changes are seen");
            Ok(())
        })
        .unwrap();
    assert_eq!(keys(store.read(|tx| tx.range(&SHADOWS, ..)).unwrap()), (2..30).collect::<Vec<_>>());
}

#[test]
fn a_change_that_fails_changes_nothing_and_one_that_returned_is_kept() {
    let disk = disk(2);
    let store = filled(&disk);
    let failed: Result<()> = store.write(|tx| {
        tx.remove_range(&SHADOWS, ..)?;
        Err(Error::invalid("test", "thought better of it"))
    });
    assert_eq!(failed.unwrap_err().message, "thought better of it");
    let unlisted: Table<u64, u64> = Table::new("of nobody", 1);
    assert!(store.write(|tx| tx.put(&unlisted, &1, &1)).unwrap_err().message.contains("TABLES"));
    drop(store);
    assert_eq!(on(&disk).unwrap().read(|tx| tx.count(&SHADOWS)).unwrap(), 80);
}

#[test]
fn rows_of_an_older_and_a_newer_build_are_read() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Newer {
        bytes: u64,
        hash: Vec<u8>,
        added: Vec<String>,
    }
    const AS_NEWER: Table<(String, Seq), Newer> = Table::new("shadows", 1);
    let store = on(&disk(3)).unwrap();
    let newer = Newer { bytes: 5, hash: vec![1], added: vec!["x".into()] };
    store.write(|tx| tx.put(&AS_NEWER, &key("t", 1), &newer)).unwrap();
    let read = store.read(|tx| tx.get(&SHADOWS, &key("t", 1))).unwrap();
    assert_eq!(read, Some(Row { bytes: 5, hash: vec![1], reason: None }));
    const OTHER: Table<(String, Seq), String> = Table::new("shadows", 1);
    let error = store.read(|tx| tx.get(&OTHER, &key("t", 1))).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
    assert!(store.trouble().is_none(), "a row that cannot be read ends nothing");
}

#[test]
fn a_newer_or_foreign_file_is_refused_and_not_touched() {
    let disk = disk(4);
    drop(filled(&disk));
    let ours = file_of(&disk);
    let mut newer = ours.clone();
    newer[8] += 1;
    let crc = crc32fast::hash(&newer[..28]).to_le_bytes();
    newer[28..32].copy_from_slice(&crc);
    let mut foreign = crate::format::meta::encode(StoreId([4; 16]));
    foreign.extend_from_slice(&ours[crate::format::meta::LEN..]);
    for (bytes, kind) in [(newer, Kind::Version), (foreign, Kind::Mismatch)] {
        set_file(&disk, &bytes);
        let before = disk.operations();
        let error = on(&disk).err().unwrap();
        assert_eq!(error.kind, kind);
        assert!(error.message.contains("no history"), "{error}");
        assert_eq!(disk.operations(), before);
        assert!(file_of(&disk) == bytes);
    }
}

/// What is left of a file that was changed: all of it, or a new one that names the loss.
fn whole_or_lost(disk: &SimDisk, what: &str) -> bool {
    let store = on(disk).unwrap();
    let count = store.read(|tx| tx.count(&SHADOWS)).unwrap();
    let lost = store.losses().unwrap();
    match (count, lost.len()) {
        (80, 0) => false,
        // The last transaction did not fit its checksum: the one before is what there is. It was the first.
        (0, 0) => true,
        (0, 1) => {
            let told = lost[0].to_string();
            assert!(
                told.contains("the list of shadows") && told.contains("Made again: the list of shadows"),
                "{told}"
            );
            store.write(|tx| tx.put(&SHADOWS, &key("t", 1), &row(1))).unwrap();
            true
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_damaged_file_is_moved_aside_and_the_loss_is_named() {
    let base = disk(5);
    drop(filled(&base));
    let ours = file_of(&base);
    let mut noticed = 0;
    let used: Vec<usize> = (0..ours.len()).step_by(1021).filter(|at| ours[*at] != 0).collect();
    for at in used.into_iter().chain(0..40).chain(4096..4096 + 320) {
        let mut bytes = ours.clone();
        bytes[at] ^= 0x55;
        let disk = disk(6);
        set_file(&disk, &bytes);
        noticed += usize::from(whole_or_lost(&disk, &format!("byte {at}")));
    }
    assert!(noticed > 40, "{noticed}");
    for cut in [0, 1, 4096, 5000, ours.len() / 2, ours.len() - 4096] {
        let disk = disk(7);
        set_file(&disk, &ours[..cut]);
        assert!(whole_or_lost(&disk, &format!("cut at {cut}")), "cut at {cut}");
        let aside = Path::new(DIR).join("meta.redb.damaged");
        assert!(disk.stat("test", &aside).unwrap().is_some(), "cut at {cut}");
    }
}

#[test]
fn a_missing_file_is_a_loss_only_if_it_was_there() {
    let disk = disk(8);
    assert!(filled(&disk).losses().unwrap().is_empty());
    disk.unlink("test", &Path::new(DIR).join(open::FILE)).unwrap();
    let store = on(&disk).unwrap();
    let lost = store.losses().unwrap();
    assert!(lost[0].cause.contains("missing") && lost[0].aside.is_none(), "{lost:?}");
    drop(store);
    assert_eq!(on(&disk).unwrap().losses().unwrap(), lost, "told again after the next mount");
}

#[test]
fn peeking_changes_nothing() {
    let disk = disk(9);
    let look = || peek(&disk, Path::new(DIR), OURS, |tx| tx.count(&SHADOWS));
    assert_eq!(look().unwrap(), None);
    let store = filled(&disk);
    // Also of a file that was not closed.
    let (bytes, operations) = (file_of(&disk), disk.operations());
    assert_eq!(look().unwrap(), Some(80));
    assert_eq!(disk.operations(), operations);
    assert!(file_of(&disk) == bytes);
    drop(store);
    set_file(&disk, &bytes[..bytes.len() / 3]);
    assert_eq!(look().unwrap_err().kind, Kind::Corrupt);
}

#[test]
fn a_first_error_of_the_disk_stops_it_and_a_full_disk_does_not() {
    for op in ["meta.write", "meta.sync", "meta.grow"] {
        let disk = disk(10);
        let store = filled(&disk);
        disk.fail(op, 1, libc::EIO);
        let big = Row { bytes: 1, hash: vec![7; 3 << 20], reason: None };
        let error = store.write(|tx| tx.put(&SHADOWS, &key("big", 1), &big)).unwrap_err();
        assert!(error.is(libc::EIO), "{op}: {error}");
        assert!(store.trouble().is_some(), "{op}");
        let error = store.read(|tx| tx.count(&SHADOWS)).unwrap_err();
        assert!(error.kind == Kind::Stopped && error.message.contains("history is not affected"), "{error}");
        drop(store);
        assert_eq!(on(&disk).unwrap().read(|tx| tx.count(&SHADOWS)).unwrap(), 80, "{op}");
    }
    let disk = disk(11);
    let store = filled(&disk);
    disk.set_capacity(disk.used() + 100_000);
    let big = Row { bytes: 1, hash: vec![7; 3 << 20], reason: None };
    for _ in 0..3 {
        let error = store.write(|tx| tx.put(&SHADOWS, &key("big", 1), &big)).unwrap_err();
        assert!(error.is(libc::ENOSPC), "{error}");
    }
    assert!(store.trouble().is_none());
    assert_eq!(store.read(|tx| tx.count(&SHADOWS)).unwrap(), 80);
    disk.set_capacity(1 << 40);
    store.write(|tx| tx.put(&SHADOWS, &key("big", 1), &big)).unwrap();
    assert_eq!(store.read(|tx| tx.get(&SHADOWS, &key("big", 1))).unwrap(), Some(big));
}

#[test]
fn no_single_fault_at_opening_panics_or_loses_rows() {
    for (op, nth) in
        [("meta.open", 1), ("meta.open", 2), ("meta.read", 1), ("meta.read", 3), ("meta.sync", 1)]
    {
        let disk = disk(12);
        drop(filled(&disk));
        let store = on(&disk).unwrap();
        disk.fail(op, nth, libc::EIO);
        let _ = store.read(|tx| tx.count(&SHADOWS));
        drop(store);
        disk.clear_faults();
        let store = on(&disk).unwrap();
        assert_eq!(store.read(|tx| tx.count(&SHADOWS)).unwrap(), 80, "{op} {nth}");
        assert!(store.losses().unwrap().is_empty(), "{op} {nth}");
    }
}

/// One transaction on rows of a small table.
#[derive(Clone, Debug)]
enum Deed {
    Put(Vec<(u64, u64)>),
    Remove(u64, u64),
    Reopen,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        5 => prop::collection::vec((0..300u64, any::<u64>()), 1..60).prop_map(Deed::Put),
        2 => (0..300u64, 1..80u64).prop_map(|(from, len)| Deed::Remove(from, from + len)),
        1 => Just(Deed::Reopen),
    ];
    prop::collection::vec(deed, 1..14)
}

fn apply(model: &mut BTreeMap<u64, u64>, deed: &Deed) {
    match deed {
        Deed::Put(rows) => model.extend(rows.iter().copied()),
        Deed::Remove(from, to) => model.retain(|key, _| !(*from..*to).contains(key)),
        Deed::Reopen => {}
    }
}

fn perform(store: &Store, deed: &Deed) -> Result<()> {
    match deed {
        Deed::Put(rows) => {
            store.write(|tx| rows.iter().try_for_each(|(key, value)| tx.put(&NUMBERS, key, value)))
        }
        Deed::Remove(from, to) => store.write(|tx| tx.remove_range(&NUMBERS, *from..*to)),
        Deed::Reopen => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// The power goes anywhere: what was written before is there, the transaction at that moment whole or not at all,
    /// and nothing is taken for damage.
    #[test]
    fn transactions_survive_power_cuts_anywhere(deeds in deeds(), seed: u64, share in 0.0..1.0f64) {
        let dry = disk(seed);
        let run = |disk: &SimDisk| {
            let mut models = vec![BTreeMap::new()];
            let mut store = on(disk).unwrap();
            for deed in &deeds {
                if matches!(deed, Deed::Reopen) {
                    drop(store);
                    store = on(disk).unwrap();
                }
                let mut model = models.last().cloned().unwrap_or_default();
                apply(&mut model, deed);
                if perform(&store, deed).is_err() {
                    return (models, Some(model));
                }
                models.push(model);
            }
            (models, None)
        };
        let begun = dry.operations();
        run(&dry);
        let total = dry.operations() - begun;
        let torn = disk(seed);
        torn.cut_at(torn.operations() + 1 + (total as f64 * share) as u64);
        let (models, torn_one) = run(&torn);
        let image = torn.cut(seed ^ 1);
        let store = on(&image).unwrap();
        let rows = store.read(|tx| tx.range(&NUMBERS, ..)).unwrap();
        prop_assert_eq!(store.losses().unwrap(), vec![]);
        let found: BTreeMap<u64, u64> = rows.into_iter().collect();
        let allowed = models.last().cloned().into_iter().chain(torn_one);
        prop_assert!(allowed.into_iter().any(|model| model == found));
        // And it goes on.
        perform(&store, &Deed::Put(vec![(1, 1)])).unwrap();
    }
}
