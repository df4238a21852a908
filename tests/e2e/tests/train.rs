//! Training on the site's own trace, beside a mount: the better model takes over without a remount, and what cannot be
//! trained or used changes nothing.

use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use weft_e2e::cmd::{self, Output};
use weft_e2e::{Mount, Place};

const TICK_US: i64 = 10_000_000;
const PARTITIONS: i64 = 24;

fn weft(mount: &Mount, args: &[&str]) -> Output {
    cmd::run(mount.weft().args(args).arg(&mount.point))
}

/// Past ticks as a daemon keeps them: partitions take turns, each writes for five minutes in thirty, which no model that
/// has not seen this site can know.
fn keep_trace(store: &Path, ticks: i64, partitions: i64) {
    let begun = 1_764_000_000_000_000;
    let mut text = format!("#weft-trace 1 tick_us={TICK_US} source=live\n");
    text.push_str("end_us,partition,what,span_us,writes,bytes,appends,overwrites,pages,growth,size,reads,read_bytes,fsyncs,touched\n");
    for tick in 0..ticks {
        for partition in (0..partitions).filter(|partition| (tick / 30 + partition) % 6 == 0) {
            // As different as a hash makes them.
            let noise = (tick * partitions + partition).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
            let writes = 80 + (noise >> 40 & 31);
            writeln!(
                text,
                "{},base/5/{},tick,{TICK_US},{writes},{},0,{writes},{writes},0,67108864,0,0,9,{noise:016x}",
                begun + (tick + 1) * TICK_US,
                16_000 + partition,
                writes * 8192,
            )
            .unwrap();
        }
    }
    std::fs::create_dir_all(store.join("trace")).unwrap();
    std::fs::write(store.join("trace").join(format!("{begun}.csv")), text).unwrap();
}

fn used(mount: &Mount) -> String {
    let listed: Value = serde_json::from_str(&weft(mount, &["model", "list", "--json"]).ok()).unwrap();
    let models = listed.as_array().unwrap();
    let used: Vec<&Value> = models.iter().filter(|model| model["used"] == true).collect();
    assert_eq!(used.len(), 1, "{listed}");
    used[0]["name"].as_str().unwrap().to_owned()
}

/// A model for other features, chosen; its name.
fn choose_other_features(store: &Path) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mount/src/onnx/fixtures/other_schema.onnx");
    let bytes = std::fs::read(file).unwrap();
    let name = blake3::hash(&bytes).to_hex().to_string();
    let dir = store.join("models");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(format!("{name}.onnx")), bytes).unwrap();
    std::fs::write(dir.join("used.json"), format!("{{\"model\":\"{name}\"}}")).unwrap();
    name
}

#[test]
fn a_model_trained_on_the_sites_own_trace_takes_over_when_it_is_better() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let early = weft(&mount, &["train"]);
    assert!(early.code == 1 && early.stderr.contains("no ticks are kept"), "{early:?}");
    mount.unmount();
    // Too few rows, and for an hour and a half too little to compare by: told before anything is trained.
    for (ticks, partitions, why) in
        [(60, 6, "1000 rows"), (60, 600, "compared"), (540, PARTITIONS, "needs 2 h 36 min")]
    {
        keep_trace(&mount.store, ticks, partitions);
        mount.remount();
        let early = weft(&mount, &["train"]);
        assert!(early.code == 1 && early.stderr.contains("the trace covers "), "{early:?}");
        assert!(early.stderr.contains(why), "{early:?}");
        assert!(!mount.store.join("models").exists(), "nothing was trained");
        mount.unmount();
    }
    keep_trace(&mount.store, 6 * 360, PARTITIONS);
    // An upgrade has other features since the last training: the shipped model stands in, and is to be beaten.
    let old = choose_other_features(&mount.store);
    mount.remount();
    let pids = mount.daemons();
    assert_eq!(used(&mount), old);

    let trained: Value = serde_json::from_str(&weft(&mount, &["train", "--json"]).ok()).unwrap();
    let (new, comparison) = (trained["model"].as_str().unwrap(), &trained["comparison"]);
    assert_eq!((&trained["used"], &comparison["better"]), (&true.into(), &true.into()), "{trained}");
    assert_eq!(trained["champion"], "shipped", "{trained}");
    assert!(comparison["challenger"].as_f64() < comparison["champion"].as_f64(), "{trained}");
    assert_eq!(used(&mount), new);
    assert!(is_tidy(&mount));
    // The daemon loads it beside its work.
    let begun = std::time::Instant::now();
    while !mount.status()["model"]["id"].as_str().is_some_and(|id| new.starts_with(id)) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{}", mount.status()["model"]);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(mount.daemons(), pids, "no remount");

    // Another is kept beside it; each can be gone back to.
    let kept: Value =
        serde_json::from_str(&weft(&mount, &["train", "--keep-only", "--seed", "2", "--json"]).ok()).unwrap();
    assert_eq!(kept["used"], false, "{kept}");
    assert_eq!(used(&mount), new);
    let table = weft(&mount, &["model", "list"]).ok();
    assert_eq!(table.matches("weft train").count(), 2, "{table}");
    weft(&mount, &["model", "use", "shipped"]).ok();
    assert_eq!(used(&mount), "shipped");
    refused(&place, &mount);
    assert_eq!(used(&mount), "shipped");
    assert_eq!(weft(&mount, &["model", "list"]).ok().lines().count(), 1 + 4, "nothing refused is kept");
    mount.unmount();
}

/// What is no model, not whole, too large, for other features; a training that cannot run.
fn refused(place: &Place, mount: &Mount) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mount");
    let cut = place.join("cut.onnx");
    let whole = std::fs::read(root.join("models/shipped.onnx")).unwrap();
    std::fs::write(&cut, &whole[..2_000]).unwrap();
    let large = place.join("large.onnx");
    std::fs::File::create(&large).unwrap().set_len(200 << 20).unwrap();
    let other = root.join("src/onnx/fixtures/other_schema.onnx");
    for (file, why) in
        [(&cut, "not a model"), (&large, "too large for a model"), (&other, "is for features of-long-ago")]
    {
        let refused = weft(mount, &["model", "use", file.to_str().unwrap()]);
        let told = refused.stderr.trim();
        assert!(refused.code == 1 && told.contains(why), "{refused:?}");
        assert!(told.lines().count() == 1 && told.contains(file.to_str().unwrap()), "{told}");
    }
    let failed = weft(mount, &["train", "--python", "/bin/false"]);
    assert!(failed.code == 1 && failed.stderr.contains("/bin/false failed"), "{failed:?}");
    assert!(is_tidy(mount));
}

/// As after an upgrade that changes the features: what would be used instead is the shipped one, and that is to be beaten.
#[test]
fn where_the_model_in_use_does_not_run_the_shipped_one_is_to_be_beaten() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    mount.unmount();
    keep_trace(&mount.store, 6 * 360, PARTITIONS);
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mount/src/onnx/fixtures/other_schema.onnx");
    let shown =
        cmd::run(mount.weft().args(["model", "show", "--json", "--store"]).arg(&mount.store).arg(&other));
    let shown: Value = serde_json::from_str(&shown.ok()).unwrap();
    let (fits, old) = (&shown["fits"], shown["blake3"].as_str().unwrap());
    assert_eq!(fits, false, "{shown}");
    let dir = mount.store.join("models");
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(&other, dir.join(format!("{old}.onnx"))).unwrap();
    std::fs::write(dir.join("used.json"), format!("{{\"model\":\"{old}\"}}")).unwrap();
    let trained = cmd::run(mount.weft().args(["train", "--json", "--store"]).arg(&mount.store));
    assert!(trained.stderr.contains("has to be better than that"), "{trained:?}");
    let trained: Value = serde_json::from_str(&trained.ok()).unwrap();
    let comparison = &trained["comparison"];
    assert_eq!(
        (&trained["champion"], &trained["used"]),
        (&"shipped".into(), &comparison["better"]),
        "{trained}"
    );
    assert!(comparison["champion"].is_number() && comparison["challenger"].is_number(), "{trained}");
}

/// What was worked on is away.
fn is_tidy(mount: &Mount) -> bool {
    !mount.store.join("train/work").exists()
}

/// What a training takes would count as the disk's being full, and history would be shortened for it.
#[test]
fn training_leaves_the_room_that_a_mount_keeps_free() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    mount.unmount();
    keep_trace(&mount.store, 6 * 360, PARTITIONS);
    let settings = mount.store.join("weft.toml");
    let usual = std::fs::read_to_string(&settings).unwrap();
    // More than there is.
    std::fs::write(&settings, format!("keep_free_mib = 1048576\n{usual}")).unwrap();
    std::fs::create_dir_all(mount.store.join("train/work/of-one-that-was-killed")).unwrap();
    let refused =
        cmd::run(mount.weft().args(["train", "--python", "/bin/true", "--store"]).arg(&mount.store));
    assert!(refused.code == 1 && refused.stderr.contains("would not fit"), "{refused:?}");
    assert!(refused.stderr.contains("of which 2.0 TiB stay free"), "{refused:?}");
    assert!(is_tidy(&mount));
}
